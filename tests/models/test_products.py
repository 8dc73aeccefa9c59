from __future__ import annotations

import numpy as np
import pytest

from clustering.models.products import MANY, CenteredSums, ProductsAllowed, SquaredDistances

K, D, M = 32, 40, 200


def problem(offset: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns ``(d, m)``, centers ``(k, d)`` and shares ``(k, m)``, at `offset` from the origin."""
    rng = np.random.default_rng(0)
    centers = offset + rng.standard_normal((K, D))
    columns = offset + rng.standard_normal((D, M))
    return columns, centers, rng.random((K, M))


offsets = pytest.mark.parametrize(("offset", "by_products"), [(0.0, True), (1e6, False)], ids=["near", "far"])


def norms(columns: np.ndarray) -> np.ndarray:
    return np.einsum("dm,dm->m", columns, columns)


@offsets
def test_products_are_taken_where_they_lose_nothing(offset: float, by_products: bool) -> None:
    columns, centers, _ = problem(offset)
    assert ProductsAllowed(centers, 1.0)(norms(columns)) is by_products
    assert not ProductsAllowed(centers, np.inf)(norms(columns))
    assert not ProductsAllowed(centers[: MANY // D - 1], 1.0)(norms(columns))


@offsets
@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
def test_squares_are_those_of_differences(offset: float, by_products: bool, scaled: bool) -> None:
    columns, centers, shares = problem(offset)
    scales = 0.5 + shares[:, :D] if scaled else np.ones((K, D))
    out = np.empty((K, M))
    SquaredDistances(centers, 1.5, scales if scaled else None)(columns, norms(columns), out)
    expected = np.einsum("kd,kdm->km", scales, (columns[None] - centers[:, :, None]) ** 2)
    np.testing.assert_allclose(out, expected, rtol=1e-12)


@offsets
@pytest.mark.parametrize("squared", [False, True], ids=["first", "second"])
def test_sums_are_about_the_centers(offset: float, by_products: bool, squared: bool) -> None:
    columns, centers, shares = problem(offset)
    sums = CenteredSums(centers, 1.0, squared=squared)
    for part in (slice(0, 70), slice(70, M)):
        subset = np.ascontiguousarray(columns[:, part])
        sums.add(subset, norms(subset), np.ascontiguousarray(shares[:, part]))
    weight, first, second = sums.total()
    away = columns[None] - centers[:, :, None]
    np.testing.assert_allclose(weight, shares.sum(axis=1), rtol=1e-13)
    np.testing.assert_allclose(first, np.einsum("km,kdm->kd", shares, away), rtol=1e-11, atol=1e-11)
    if squared:
        np.testing.assert_allclose(second, np.einsum("km,kdm->kd", shares, away**2), rtol=1e-11)
