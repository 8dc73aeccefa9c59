"""Loops over full covariances give what plain numpy gives, for any number of features and rows."""

from __future__ import annotations

import numpy as np
import pytest

from clustering.models import covariance_kernels
from clustering.models.covariances import packed

SHAPES = [(1, 1), (2, 7), (3, 8), (4, 9), (5, 16), (7, 17), (9, 37), (16, 257), (33, 300), (70, 530)]


@pytest.mark.parametrize(("d", "m"), SHAPES)
def test_squares_and_products_are_those_of_plain_numpy(d: int, m: int, rng: np.random.Generator) -> None:
    k = 3
    columns, centers = rng.standard_normal((d, m)), rng.standard_normal((k, d))
    factors = np.tril(rng.standard_normal((k, d, d)))
    away = columns.T[None] - centers[:, None]
    out = np.full((k, m), np.nan)
    covariance_kernels.factored_squares(columns, centers, packed(factors), out)
    np.testing.assert_allclose(out, (np.einsum("kde,kme->kmd", factors, away) ** 2).sum(axis=2), rtol=1e-11)
    covariance_kernels.factored_squares(columns, centers, packed(factors[:1]), out)
    np.testing.assert_allclose(out, (np.einsum("de,kme->kmd", factors[0], away) ** 2).sum(axis=2), rtol=1e-11)
    product = np.full((d, m), np.nan)
    covariance_kernels.multiply(packed(factors[:1]), columns, product)
    np.testing.assert_allclose(product, factors[0] @ columns, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("d", "m"), SHAPES)
def test_moments_are_those_of_plain_numpy_and_exactly_symmetric(d: int, m: int, rng: np.random.Generator) -> None:
    k = 3
    columns, centers, shares = rng.standard_normal((d, m)), rng.standard_normal((k, d)), rng.random((k, m))
    shares[1] = 0.0
    away = columns.T[None] - centers[:, None]
    # The sums are added to what is there.
    weight, first, second = rng.random(k), rng.random((k, d)), np.zeros((k, d, d))
    expected = weight + shares.sum(axis=1), first + np.einsum("km,kmd->kd", shares, away)
    covariance_kernels.full_about(columns, centers, shares, weight, first, second)
    np.testing.assert_allclose(weight, expected[0], rtol=1e-13)
    np.testing.assert_allclose(first, expected[1], rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(second, np.einsum("km,kmd,kme->kde", shares, away, away), rtol=1e-10, atol=1e-11)
    np.testing.assert_array_equal(second, second.transpose(0, 2, 1))
    assert not second[1].any()


def test_a_column_at_a_center_has_distance_zero(rng: np.random.Generator) -> None:
    centers = 1e8 + rng.standard_normal((4, 6))
    out = np.empty((4, 4))
    covariance_kernels.factored_squares(
        np.ascontiguousarray(centers.T), centers, packed(np.tril(rng.standard_normal((4, 6, 6)))), out
    )
    assert not np.diagonal(out).any()


def test_the_product_of_a_column_does_not_depend_on_its_neighbours(rng: np.random.Generator) -> None:
    matrix, columns = packed(np.tril(rng.standard_normal((1, 11, 11)))), rng.standard_normal((11, 50))
    together = np.empty((11, 50))
    covariance_kernels.multiply(matrix, columns, together)
    for r in (0, 7, 15, 33, 49):
        alone = np.empty((11, 1))
        covariance_kernels.multiply(matrix, np.ascontiguousarray(columns[:, r : r + 1]), alone)
        np.testing.assert_array_equal(alone[:, 0], together[:, r])
