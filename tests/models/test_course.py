from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustering.data.rows import Rows, in_memory_rows
from clustering.models.course import least_margins, split_rows, within_course
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.margins import MarginStatistics

SHAPES = [(1, 2), (2, 6), (3, 8), (20, 5)]
shapes = pytest.mark.parametrize(("d", "k"), SHAPES, ids=[f"d{d}-k{k}" for d, k in SHAPES])
divergences = pytest.mark.parametrize("divergence", ["squared_euclidean", "cosine", "mahalanobis"])


def on_a_way(divergence: Any, d: int, k: int, seed: int, ways: int = 3) -> tuple[Rows, KMeans, list[KMeansParams]]:
    """Weighted rows, and centers among them that go three ways one after another."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((400, d)) + (0 if divergence == "cosine" else 50)
    origin = np.zeros(d) if divergence == "cosine" else values.mean(axis=0)
    matrix = np.tril(rng.standard_normal((d, d))) + 2 * np.eye(d) if divergence == "mahalanobis" else np.zeros((0, 0))
    places = [rng.permutation(values)[:k] - origin]
    for _ in range(ways):
        places.append(places[-1] + rng.standard_normal((k, d)) * 0.3)
    if divergence == "cosine":
        places = [centers / np.linalg.norm(centers, axis=1, keepdims=True) for centers in places]
    rows = in_memory_rows(values.astype(np.float32), rng.random(len(values)))
    return rows, KMeans(k, divergence), [KMeansParams(origin, centers, matrix=matrix) for centers in places]


def functions(model: KMeans, params: list[KMeansParams]) -> list[MarginStatistics[Any]]:
    made = [model.for_pass(each) for each in params]
    assert all(isinstance(each, MarginStatistics) for each in made)
    return made


def between(a: KMeansParams, b: KMeansParams, s: float, astray: Any, divergence: str) -> KMeansParams:
    """Centers at a part of the way, and off it."""
    centers = (1 - s) * a.centers + s * b.centers + astray
    if divergence == "cosine":
        centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    return replace(a, centers=centers)


@shapes
@divergences
@given(seed=st.integers(0, 10_000), s=st.floats(0, 1), part=st.integers(0, 2), off=st.floats(-6, 0))
def test_far_rows_keep_their_labels_along_a_course(
    divergence: str, d: int, k: int, seed: int, s: float, part: int, off: float
) -> None:
    rows, model, params = on_a_way(divergence, d, k, seed)
    course, rng = functions(model, params), np.random.default_rng(seed)
    least = least_margins(course, [each.measure(rows) for each in course])
    # Budgets are margins of rows, so that some rows are as close to them as can be.
    budgets = np.maximum(0.0, rng.choice(least[np.isfinite(least)], k)) if np.isfinite(least).any() else np.zeros(k)
    split, near = split_rows(course, rows, budgets)
    labels = course[0].measure(rows).labels
    # Rows of large margin skip the measuring, and no row that measuring keeps is far.
    assert not (~near & ~(least > budgets[labels])).any() or (~near).sum() >= (least > budgets[labels]).sum()
    astray = rng.standard_normal((k, d)) * 10.0**off * budgets.mean()
    now = between(params[part], params[part + 1], s, astray, divergence)
    (later,) = functions(model, [now])
    if within_course([each.points for each in course], budgets, split.far.radius, later.points):
        np.testing.assert_array_equal(later.measure(rows).labels[~near], labels[~near])
        expected, got = later(rows.select(~near)), course[0].far_statistics(split.far, later)
        np.testing.assert_allclose(got.weight, expected.weight, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(got.first, expected.first, rtol=1e-11, atol=1e-9)
        np.testing.assert_allclose(got.objective, expected.objective, rtol=1e-10, atol=1e-9)
        assert got.count == expected.count


def test_a_course_holds_where_a_drift_of_that_length_would_not() -> None:
    held = 0
    for seed in range(20):
        rows, model, params = on_a_way("squared_euclidean", 2, 6, seed, ways=1)
        course, budgets = functions(model, params), np.full(6, 0.1)
        split, near = split_rows(course, rows, budgets)
        assert 0 < near.sum() < len(rows)
        (later,) = functions(model, [between(*params, 0.6, 0.01, "squared_euclidean")])
        assert (course[0].drift(later) > 0.1).any()
        held += within_course([each.points for each in course], budgets, split.far.radius, later.points)
        assert not within_course([course[0].points], budgets, split.far.radius, later.points)
    assert held == 20


def test_the_bound_between_waypoints_is_close() -> None:
    rows, model, params = on_a_way("squared_euclidean", 3, 8, 0, ways=1)
    small = [params[0], replace(params[1], centers=params[0].centers + 0.1 * (params[1].centers - params[0].centers))]
    course = functions(model, small)
    measured = [each.measure(rows) for each in course]
    least = least_margins(course, measured)
    ends = np.minimum(measured[0].margins, measured[1].margins)
    same = measured[0].labels == measured[1].labels
    assert np.isneginf(least[~same]).all()
    assert (least[same] <= ends[same]).all()
    assert np.median((ends - least)[same]) < 0.01


@divergences
def test_all_statistics_of_a_split_along_a_course_are_those_of_its_rows(divergence: str) -> None:
    rows, model, params = on_a_way(divergence, 3, 8, 4)
    course = functions(model, params)
    split, near = split_rows(course, rows, np.full(8, 0.02))
    assert 0 < near.sum() < len(rows)
    assert (split.far.near, split.far.count) == (near.sum(), np.sum(~near))
    plain, far = model.statistics(params[0], rows), model.statistics(params[0], rows.select(~near))
    assert split.statistics.first.tobytes() == plain.first.tobytes()
    np.testing.assert_allclose(split.far.first, far.first, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(split.far.weight, far.weight, rtol=1e-12)
    np.testing.assert_allclose(split.far.cost.sum(), far.objective, rtol=1e-12)


def test_rows_with_missing_features_are_near_on_any_course() -> None:
    rows, model, params = on_a_way("squared_euclidean", 3, 4, 0)
    values = rows.values.copy()
    values[::5, 1] = np.nan
    rows = in_memory_rows(values, rows.weights, allow_missing=True)
    split, near = split_rows(functions(model, params), rows, np.full(4, 0.01))
    assert near[::5].all()
    assert not near.all()
    assert split.far.count + split.far.near == len(rows)


def test_centers_that_meet_have_no_margin_between_their_waypoints() -> None:
    # The ends have the margin 2 each, and the centers change places in between.
    params = [
        KMeansParams(np.zeros(1), np.array([[-1.0], [1.0]])),
        KMeansParams(np.zeros(1), np.array([[1.0], [-1.0]])),
    ]
    course = functions(KMeans(2), params)
    rows = in_memory_rows(np.array([[-1.0], [0.0], [3.0]]))
    assert (least_margins(course, [each.measure(rows) for each in course]) <= 0.0).all()


def test_a_row_on_which_two_centers_come_to_lie_has_no_margin() -> None:
    # The first one is the nearest at both ends, by 100 and by nothing. Rounding takes the margin below 0.
    params = [
        KMeansParams(np.zeros(1), np.array([[0.0], [100.0], [1000.0]])),
        KMeansParams(np.zeros(1), np.array([[0.0], [0.0], [1000.0]])),
    ]
    course = functions(KMeans(3), params)
    rows = in_memory_rows(np.array([[0.0]]))
    assert least_margins(course, [each.measure(rows) for each in course]) <= 0.0
