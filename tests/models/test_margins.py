from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustering.data.rows import Rows, in_memory_rows
from clustering.models.course import Course, split_rows
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.margins import FarRows, MarginStatistics, farthest_other, within_budgets

# Few features and centers are labelled by distances, others by scores in float32.
SHAPES = [(1, 2), (2, 3), (3, 8), (2, 40), (20, 5), (64, 30)]
shapes = pytest.mark.parametrize(("d", "k"), SHAPES, ids=[f"d{d}-k{k}" for d, k in SHAPES])
divergences = pytest.mark.parametrize("divergence", ["squared_euclidean", "cosine", "mahalanobis"])


def drawn(divergence: str, d: int, k: int, seed: int = 0, n: int = 3000) -> tuple[KMeans, KMeansParams, Rows]:
    """A model with centers among rows of unequal weight, far from zero where the divergence allows it."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, d)) * rng.uniform(0.2, 3, d) + (0 if divergence == "cosine" else 100)
    origin = np.zeros(d) if divergence == "cosine" else values.mean(axis=0)
    matrix = np.zeros((0, 0))
    if divergence == "mahalanobis":
        matrix = np.tril(rng.standard_normal((d, d))) + 2 * np.eye(d)
    centers = rng.permutation(values)[:k] - origin
    if divergence == "cosine":
        centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    rows = in_memory_rows(values.astype(np.float32), rng.random(n))
    return KMeans(k, divergence), KMeansParams(origin, centers, matrix=matrix), rows  # type: ignore[arg-type]


def mapped(model: KMeans, params: KMeansParams, rows: Rows) -> np.ndarray:
    """Rows where the Euclidean distance is the metric, by the definition."""
    values = rows.values.astype(np.float64) - params.origin
    if model.divergence == "cosine":
        return values / np.linalg.norm(values, axis=1, keepdims=True)
    return values @ params.matrix.T if model.divergence == "mahalanobis" else values


def distances(model: KMeans, params: KMeansParams, rows: Rows) -> np.ndarray:
    points = params.centers @ params.matrix.T if params.matrix.size else params.centers
    return np.linalg.norm(mapped(model, params, rows)[:, None] - points, axis=2)


def function(model: KMeans, params: KMeansParams) -> MarginStatistics[Any]:
    made = model.for_pass(params)
    assert isinstance(made, MarginStatistics)
    return made


def moved(params: KMeansParams, lengths: np.ndarray, rng: np.random.Generator, divergence: str) -> KMeansParams:
    """Centers that moved by about these lengths."""
    steps = rng.standard_normal(params.centers.shape)
    centers = params.centers + steps / np.linalg.norm(steps, axis=1, keepdims=True) * lengths[:, None]
    if divergence == "cosine":
        centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    return replace(params, centers=centers)


@shapes
@divergences
def test_margins_are_lower_bounds_and_close(divergence: str, d: int, k: int) -> None:
    model, params, rows = drawn(divergence, d, k)
    split, measured = function(model, params).split(rows, np.full(k, 0.1))
    apart = np.sort(distances(model, params, rows), axis=1)
    margins = apart[:, 1] - apart[:, 0]
    # Scores in float32 err by a part of the squared distances from the origin.
    squares = (
        np.square(mapped(model, params, rows)).sum(axis=1) + np.square(function(model, params).points).sum(axis=1).max()
    )
    error = 1e-6 * (d + 4) * squares / np.maximum(apart[:, 1], 1e-12)
    for found in (measured, function(model, params).measure(rows)):
        assert (found.margins <= margins).all()
        assert (found.margins >= margins - error).all()
        np.testing.assert_array_equal(found.labels, distances(model, params, rows).argmin(axis=1))
        np.testing.assert_allclose(found.distances, apart[:, 0], rtol=1e-6, atol=1e-6)
    assert split.far.count == np.sum(measured.margins > 0.1)
    assert split.far.near == np.sum(~(measured.margins > 0.1))


@shapes
@divergences
def test_a_split_pass_has_the_bits_of_a_plain_one(divergence: str, d: int, k: int) -> None:
    model, params, rows = drawn(divergence, d, k)
    split, _ = function(model, params).split(rows, np.full(k, 0.1))
    plain = model.statistics(params, rows)
    for name in ("weight", "first", "objective", "count"):
        assert np.asarray(getattr(split.statistics, name)).tobytes() == np.asarray(getattr(plain, name)).tobytes()
    for got, expected in zip(split.statistics.farthest, plain.farthest, strict=True):
        np.testing.assert_array_equal(got, expected)


@shapes
@divergences
@given(seed=st.integers(0, 10_000), reach=st.floats(-3, 1))
def test_far_rows_keep_their_labels_within_the_budgets(
    divergence: str, d: int, k: int, seed: int, reach: float
) -> None:
    model, params, rows = drawn(divergence, d, k, seed, n=200)
    rng, made = np.random.default_rng(seed), function(*drawn(divergence, d, k, seed, n=200)[:2])
    margins = made.measure(rows)
    # Budgets are parts of margins of rows, so that some rows are as close to them as can be.
    budgets = np.maximum(0.0, rng.choice(np.nan_to_num(margins.margins), k)) * rng.random(k)
    far = ~split_rows(Course((made,), budgets[None]), rows)[1]
    sums, near = made.sum_far(rows.select(far), margins.select(far)), ~far
    now = moved(params, 10.0**reach * rng.random(k) * budgets, rng, divergence)
    later = function(model, now)
    if within_budgets(made.points, budgets, sums.radius, made.drift(later)):
        labels = later.measure(rows).labels
        np.testing.assert_array_equal(labels[~near], margins.labels[~near])
        # Statistics of the far rows are those of a plain pass over them.
        expected, got = later(rows.select(~near)), made.far_statistics(sums, later)
        scale = rows.weights.sum() * np.square(distances(model, now, rows)).max()
        np.testing.assert_allclose(got.weight, expected.weight, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(got.first, expected.first, rtol=1e-11, atol=1e-12 * scale)
        np.testing.assert_allclose(got.objective, expected.objective, rtol=1e-11, atol=1e-13 * scale)
        assert got.count == expected.count


def test_budgets_hold_often_enough_to_be_tested() -> None:
    held = 0
    for seed in range(40):
        model, params, rows = drawn("squared_euclidean", 2, 8, seed, n=500)
        made, rng = function(model, params), np.random.default_rng(seed)
        split, _ = made.split(rows, np.full(8, 0.2))
        drift = made.drift(function(model, moved(params, rng.random(8) * 0.11, rng, "squared_euclidean")))
        held += within_budgets(made.points, np.full(8, 0.1), split.far.radius, drift)
    assert 5 < held < 40


def test_a_center_far_away_does_not_count() -> None:
    points, budgets, radius = np.array([[0.0], [2.0], [100.0]]), np.full(3, 0.25), np.full(3, 1.0)
    for drift, holds in (([0.2, 0.2, 20.0], True), ([0.3, 0.3, 0.0], False), ([0.2, 0.2, 97.0], False)):
        assert within_budgets(points, budgets, radius, np.array(drift)) is holds


def test_budgets_of_two_centers_count_together() -> None:
    points, radius = np.array([[0.0], [2.0]]), np.full(2, 1.0)
    assert within_budgets(points, np.array([0.1, 0.4]), radius, np.array([0.25, 0.25]))
    assert not within_budgets(points, np.array([0.1, 0.4]), radius, np.array([0.25, 0.26]))


@divergences
def test_far_rows_are_those_far_from_every_other_center(divergence: str) -> None:
    for d, k in ((2, 3), (3, 8), (20, 40), (3, 150)):
        model, params, rows = drawn(divergence, d, k)
        made, budgets = function(model, params), np.random.default_rng(1).random(k) ** 4
        apart = distances(model, params, rows)
        labels, index = apart.argmin(axis=1), np.arange(len(rows))
        others = apart - budgets
        others[index, labels] = np.inf
        clear = others.min(axis=1) - apart[index, labels] - budgets[labels]
        far = ~split_rows(Course((made,), budgets[None]), rows)[1]
        assert 0 < far.sum() < len(rows)
        np.testing.assert_array_equal(far[np.abs(clear) > 1e-6], (clear > 0.0)[np.abs(clear) > 1e-6])


@divergences
def test_multiples_are_where_a_row_ceases_to_be_far(divergence: str) -> None:
    for d, k in ((2, 3), (3, 8), (20, 40), (3, 150)):
        model, params, rows = drawn(divergence, d, k)
        lengths = np.random.default_rng(1).random(k) ** 4
        apart = distances(model, params, rows)
        labels, index = apart.argmin(axis=1), np.arange(len(rows))
        every = (apart - apart[index, labels][:, None]) / (lengths + lengths[labels][:, None])
        every[index, labels] = np.inf
        begun, multiples = np.zeros(len(rows), np.int32), np.full(len(rows), np.inf)
        multiples[::3] = 0.5
        function(model, params).lower_multiples(rows, lengths, begun, multiples)
        np.testing.assert_array_equal(begun, labels)
        expected = every.min(axis=1)
        expected[::3] = np.minimum(expected[::3], 0.5)
        np.testing.assert_allclose(multiples, expected, rtol=1e-7, atol=1e-7)


def test_the_farthest_other_center_is_never_the_same_one() -> None:
    np.testing.assert_array_equal(farthest_other(np.array([1.0, 3.0, 2.0])), [3.0, 2.0, 3.0])
    np.testing.assert_array_equal(farthest_other(np.array([3.0, 3.0])), [3.0, 3.0])
    np.testing.assert_array_equal(farthest_other(np.array([3.0])), [0.0])


def test_rows_with_missing_features_are_near() -> None:
    model, params, rows = drawn("squared_euclidean", 3, 4)
    values = rows.values.copy()
    values[::5, 1] = np.nan
    rows = in_memory_rows(values, rows.weights, allow_missing=True)
    split, measured = function(model, params).split(rows, np.full(4, 0.1))
    assert np.isnan(measured.margins[::5]).all()
    assert split.far.count == np.sum(measured.margins > 0.1) > 0
    assert split.far.count + split.far.near == len(rows)
    np.testing.assert_array_equal(split.statistics.first, model.statistics(params, rows).first)


@pytest.mark.parametrize("size", [1e150, 1e-150, 1e200])
def test_rows_whose_squares_leave_float64_are_near(size: float) -> None:
    for d, k in ((2, 3), (20, 12)):
        values = np.random.default_rng(0).standard_normal((300, d)) * size
        params = KMeansParams(np.zeros(d), values[:k].copy())
        split, _ = function(KMeans(k), params).split(in_memory_rows(values), np.zeros(k))
        assert split.far.count == 0 or size < 1e200
        assert np.isfinite(split.far.first).all()


@pytest.mark.parametrize("divergence", ["kullback_leibler", "itakura_saito"])
def test_a_divergence_that_is_no_metric_has_no_margins(divergence: Any) -> None:
    made = KMeans(2, divergence).for_pass(KMeansParams(np.zeros(2), np.ones((2, 2))))
    assert not isinstance(made, MarginStatistics)


def test_far_rows_add_up_and_are_stored() -> None:
    model, params, rows = drawn("squared_euclidean", 3, 4)
    made = function(model, params)
    halves = [rows.select(np.arange(len(rows)) % 2 == i) for i in range(2)]
    whole = made.split(rows, np.full(4, 0.3))[0]
    first, second = (made.split(half, np.full(4, 0.3))[0] for half in halves)
    both = first + second
    np.testing.assert_allclose(both.far.first, whole.far.first, rtol=1e-12)
    np.testing.assert_array_equal(both.far.radius, whole.far.radius)
    assert (both.far.count, both.far.near) == (whole.far.count, whole.far.near)
    again = FarRows.from_arrays(whole.far.to_arrays())
    assert {name: value.tobytes() for name, value in again.to_arrays().items()} == {
        name: value.tobytes() for name, value in whole.far.to_arrays().items()
    }
