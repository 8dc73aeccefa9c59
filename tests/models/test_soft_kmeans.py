from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from brute import blobs, divergences, holes, means, relative, softmax
from hypothesis import given
from hypothesis import strategies as st

from clustering.data.rows import in_memory_rows
from clustering.models.option_names import DIVERGENCES
from clustering.models.soft_kmeans import SoftKMeans
from clustering.models.soft_kmeans_params import SoftKMeansParams


def positive(seed: int, n: int, d: int, k: int) -> np.ndarray:
    return np.exp(blobs(seed, n, d, k) / 4)


def matrix_for(divergence: str, d: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    return np.tril(rng.uniform(0.5, 1.5, (d, d))) if divergence == "mahalanobis" else np.zeros((0, 0))


def free_energy(divergence: str, beta: float, values: np.ndarray, weights: np.ndarray, centers: Any, matrix: Any):
    """Free energy and responsibilities times weights ``(n, k)``."""
    shared = [softmax(row) for row in -beta * divergences(divergence, values, centers, matrix)]
    energy = -sum(w * density for w, (_, density) in zip(weights, shared, strict=True)) / beta
    return energy, weights[:, None] * np.array([share for share, _ in shared])


CASES = [(name, 0.0) for name in DIVERGENCES] + [("squared_euclidean", 0.3)]


@pytest.mark.parametrize(("divergence", "share"), CASES, ids=[*DIVERGENCES, "with-gaps"])
def test_a_pass_is_that_of_plain_numpy(divergence: Any, share: float, rng: np.random.Generator) -> None:
    k, d, beta = 3, 4, 1.7
    values = holes(2, positive(1, 150, d, k), share)
    weights, centers = rng.random(150) * 2, means(divergence, positive(3, k, d, k), np.eye(k))
    matrix, shift = matrix_for(divergence, d), np.zeros(d) + 0.25 * (divergence in ("squared_euclidean", "mahalanobis"))
    params = SoftKMeansParams(shift, centers - shift, beta, matrix)
    model = SoftKMeans(k, beta, divergence)
    statistics = model.statistics(params, in_memory_rows(values, weights, allow_missing=True))
    update = model.update(params, statistics)
    energy, shares = free_energy(divergence, beta, values, weights, centers, matrix)
    new = means(divergence, values, shares)
    assert statistics.objective == pytest.approx(energy, rel=1e-12)
    np.testing.assert_allclose(statistics.weight, shares.sum(axis=0), rtol=1e-12)
    assert relative(update.params.origin + update.params.centers, new) < 1e-12
    before, after = (divergences(divergence, values, where, matrix) for where in (centers, new))
    assert update.objective == pytest.approx(energy - np.sum(shares * (before - after)), rel=1e-11)
    assert update.scale == pytest.approx(np.sum(shares * before), rel=1e-11)
    assignment = model.assign(params, in_memory_rows(values, weights, allow_missing=True))
    np.testing.assert_array_equal(assignment.labels, shares.argmax(axis=1))
    np.testing.assert_allclose(assignment.distances, before[np.arange(150), assignment.labels], rtol=1e-10, atol=1e-13)
    each = shares[shares > 0] / np.broadcast_to(weights[:, None], shares.shape)[shares > 0]
    assert assignment.entropy == pytest.approx(-np.sum(shares[shares > 0] * np.log(each)), rel=1e-10)


def test_a_cluster_that_no_row_belongs_to_is_placed_at_the_farthest_row() -> None:
    values = np.array([[0.0], [1.0], [2.0], [9.0]])
    params = SoftKMeansParams(np.zeros(1), np.array([[1.0], [1e3]]), 1.0)
    model = SoftKMeans(2)
    update = model.update(params, model.statistics(params, in_memory_rows(values)))
    assert update.notes == ("empty cluster 1 re-seeded at the farthest row",)
    np.testing.assert_array_equal(update.params.centers, [[3.0], [9.0]])


@given(st.integers(0, 2**32 - 1), st.sampled_from(["itakura_saito", "kullback_leibler"]), st.floats(-12, 12))
def test_a_start_far_from_small_rows_keeps_the_digits_of_their_mean(seed: int, name: Any, exponent: float) -> None:
    values = 10 ** np.random.default_rng(seed).uniform(-12, -8, (40, 2))
    model = SoftKMeans(1, 1.0, name)
    params = SoftKMeansParams(np.zeros(2), np.full((1, 2), 10.0**exponent), 1.0)
    update = model.update(params, model.statistics(params, in_memory_rows(values)))
    np.testing.assert_allclose(update.params.centers[0], values.mean(axis=0), rtol=1e-13)
