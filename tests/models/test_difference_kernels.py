"""Squares and moments of the compiled loops are those of plain numpy, whatever lies beside a column or a cluster."""

from __future__ import annotations

import numpy as np
import pytest

from clustering.models import difference_kernels

SHAPES = [(1, 1, 1), (3, 1, 5), (3, 2, 37), (2, 3, 32), (5, 4, 40), (4, 7, 33), (3, 9, 8), (1, 6, 100)]
"""Numbers of clusters, features and columns."""


@pytest.mark.parametrize(("k", "d", "m"), SHAPES)
def test_squares_and_moments_are_those_of_plain_numpy(k: int, d: int, m: int, rng: np.random.Generator) -> None:
    columns, centers, shares = rng.standard_normal((d, m)), rng.standard_normal((k, d)), rng.random((k, m))
    away = columns.T[None] - centers[:, None]
    scales = rng.random((k, d))
    out = np.empty((k, m))
    difference_kernels.squares(columns, centers, out)
    np.testing.assert_allclose(out, (away**2).sum(axis=2), rtol=1e-13)
    difference_kernels.scaled_squares(columns, centers, scales, out)
    np.testing.assert_allclose(out, (scales[:, None] * away**2).sum(axis=2), rtol=1e-13)
    first, second = np.einsum("km,kmd->kd", shares, away), np.einsum("km,kmd->kd", shares, away**2)
    for second_moment in (np.zeros((k, d)), None):
        weight, moved = np.zeros(k), np.zeros((k, d))
        if second_moment is None:
            difference_kernels.first_about(columns, centers, shares, weight, moved)
        else:
            difference_kernels.diagonal_about(columns, centers, shares, weight, moved, second_moment)
            np.testing.assert_allclose(second_moment, second, rtol=1e-13)
        np.testing.assert_allclose(weight, shares.sum(axis=1), rtol=1e-14)
        np.testing.assert_allclose(moved, first, rtol=1e-12, atol=1e-13)


def test_the_bits_of_a_square_do_not_depend_on_its_place(rng: np.random.Generator) -> None:
    columns, centers, scales = rng.standard_normal((9, 71)), rng.standard_normal((5, 9)), rng.random((5, 9))
    whole, scaled = np.empty((5, 71)), np.empty((5, 71))
    difference_kernels.squares(columns, centers, whole)
    difference_kernels.scaled_squares(columns, centers, scales, scaled)
    for start, stop in [(0, 1), (3, 20), (5, 40), (32, 71)]:
        part = np.ascontiguousarray(columns[:, start:stop])
        for kept in (slice(0, 5), slice(1, 4), slice(2, 3)):
            out = np.empty((kept.stop - kept.start, stop - start))
            difference_kernels.squares(part, centers[kept], out)
            np.testing.assert_array_equal(out, whole[kept, start:stop])
            difference_kernels.scaled_squares(part, centers[kept], scales[kept], out)
            np.testing.assert_array_equal(out, scaled[kept, start:stop])


def test_clusters_without_shares_change_no_sum(rng: np.random.Generator) -> None:
    columns, centers, shares = rng.standard_normal((5, 40)), rng.standard_normal((6, 5)), rng.random((6, 40))
    shares[[1, 2, 3]] = 0.0
    weight, first, second = np.zeros(6), np.ones((6, 5)), np.ones((6, 5))
    difference_kernels.diagonal_about(columns, centers, shares, weight, first, second)
    np.testing.assert_array_equal(weight[[1, 2, 3]], 0.0)
    np.testing.assert_array_equal(first[[1, 2, 3]], 1.0)
    np.testing.assert_array_equal(second[[1, 2, 3]], 1.0)
    assert (weight[[0, 4, 5]] > 0.0).all()
    assert (second[[0, 4, 5]] > 1.0).all()
