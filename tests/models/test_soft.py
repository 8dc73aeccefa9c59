from __future__ import annotations

from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any

import numpy as np
import pytest
from brute import KINDS, blobs, holes, random_params
from hypothesis import given, settings
from hypothesis import strategies as st

from clustering.data.rows import Rows, in_memory_rows
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.mixture import GaussianMixture
from clustering.models.soft_kmeans import SoftKMeans
from clustering.models.soft_kmeans_params import SoftKMeansParams

D, K = 3, 4


def problem(name: str) -> tuple[Any, Any]:
    """A model and its params."""
    rng = np.random.default_rng(3)
    centers = np.abs(3 * rng.standard_normal((K, D))) + 0.1
    if name == "k-means":
        return KMeans(K), KMeansParams(np.full(D, 0.5), centers)
    if name in KINDS:
        return GaussianMixture(K, name), random_params(1, name, K, D)  # type: ignore[arg-type]
    divergence: Any = {"soft": "squared_euclidean"}.get(name, name)
    shift = np.full(D, 0.5) if name == "soft" else np.zeros(D)
    if name == "cosine":
        centers /= np.linalg.norm(centers, axis=1)[:, None]
    return SoftKMeans(K, 0.7, divergence), SoftKMeansParams(shift, centers, 0.7)


WITH_GAPS = ("k-means", "soft", *KINDS)
NAMES = (*WITH_GAPS, "cosine", "kullback_leibler", "itakura_saito")
every = pytest.mark.parametrize("name", NAMES)


def rows_of(name: str, n: int, seed: int, share: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    values = np.abs(blobs(seed, n, D, 3)) + 0.05
    weights = np.random.default_rng(seed).random(n) * 2
    return (holes(seed, values, share) if name in WITH_GAPS and n else values), weights


def part(values: np.ndarray, weights: np.ndarray, start: int, stop: int) -> Rows:
    missing = np.isnan(values[start:stop]).any(axis=1)
    return Rows(
        values[start:stop], weights[start:stop], None, (start,), (stop - start,), (len(values),),
        missing if missing.any() else None,
    )  # fmt: skip


def assert_close(a: Any, b: Any, rtol: float) -> None:
    assert a.count == b.count
    assert a.objective == pytest.approx(b.objective, rel=rtol, abs=1e-12)
    assert set(a.sums) == set(b.sums)
    for field, expected in b.sums.items():
        scale = np.abs(expected).max(initial=0.0)
        np.testing.assert_allclose(a.sums[field], expected, rtol=rtol, atol=rtol * scale, err_msg=field)
    for mine, others in zip(a.farthest, b.farthest, strict=True):
        np.testing.assert_allclose(mine, others, rtol=1e-11)


@every
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 60), min_size=2, max_size=4))
def test_statistics_add_up(name: str, seed: int, cuts: list[int]) -> None:
    values, weights = rows_of(name, 60, seed)
    model, params = problem(name)
    edges = [0, *sorted(cuts), 60]
    parts = [model.statistics(params, part(values, weights, a, b)) for a, b in pairwise(edges)]
    whole = model.statistics(params, part(values, weights, 0, 60))
    assert_close(parts[0] + parts[1], parts[1] + parts[0], 0.0)
    assert_close((parts[0] + parts[1]) + parts[2], parts[0] + (parts[1] + parts[2]), 1e-12)
    assert_close(reduce(add, parts), whole, 1e-12)


@every
def test_many_rows_add_up_as_few_do(name: str) -> None:
    values, weights = rows_of(name, 5000, 1)
    model, params = problem(name)
    parts = [model.statistics(params, part(values, weights, a, b)) for a, b in ((0, 1), (1, 1800), (1800, 5000))]
    assert_close(reduce(add, parts), model.statistics(params, part(values, weights, 0, 5000)), 1e-12)


@every
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_weight_two_equals_a_row_twice_and_weight_zero_an_absent_one(name: str, seed: int) -> None:
    values, weights = rows_of(name, 40, seed)
    weights[::5] = 0.0
    model, params = problem(name)
    gaps = name in WITH_GAPS
    doubled = model.statistics(params, in_memory_rows(values, 2 * weights, allow_missing=gaps))
    kept = np.repeat(np.flatnonzero(weights), 2)
    twice = model.statistics(params, in_memory_rows(values[kept], weights[kept], allow_missing=gaps))
    for field, expected in twice.sums.items():
        scale = np.abs(expected).max(initial=0.0)
        np.testing.assert_allclose(doubled.sums[field], expected, rtol=1e-12, atol=1e-12 * scale, err_msg=field)
    assert doubled.objective == pytest.approx(twice.objective, rel=1e-12)


@every
def test_the_farthest_rows_are_kept(name: str) -> None:
    values, weights = rows_of(name, 3000, 2, share=0.0)
    weights[:10] = 0.0
    model, params = problem(name)
    rows = in_memory_rows(values, weights)
    distances = np.where(weights > 0, model.assign(params, rows).distances, -1.0)
    farthest = np.argsort(-distances, kind="stable")[:K]
    np.testing.assert_array_equal(model.statistics(params, rows).farthest.positions, farthest)
