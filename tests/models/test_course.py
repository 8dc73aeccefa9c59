from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustering.data.rows import Rows, in_memory_rows
from clustering.models.course import Course, far_statistics, find_waypoint, split_rows
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


def strayed(params: KMeansParams, astray: Any, divergence: str) -> KMeansParams:
    """Centers off their places."""
    centers = params.centers + astray
    if divergence == "cosine":
        centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    return replace(params, centers=centers)


@shapes
@divergences
@given(seed=st.integers(0, 10_000), place=st.integers(0, 3), off=st.floats(-6, 0.5))
def test_far_rows_have_the_labels_of_the_waypoint_that_is_found(
    divergence: str, d: int, k: int, seed: int, place: int, off: float
) -> None:
    rows, model, params = on_a_way(divergence, d, k, seed)
    rng = np.random.default_rng(seed)
    course = Course(tuple(functions(model, params)), rng.random((4, k)) * 0.1)
    split, near = split_rows(course, rows)
    astray = rng.standard_normal((k, d)) * 10.0**off * course.budgets[place][:, None]
    (later,) = functions(model, [strayed(params[place], astray, divergence)])
    found = find_waypoint(course, split.steady, split.moving, later)
    if found is not None:
        labels = course.functions[found].measure(rows).labels
        np.testing.assert_array_equal(later.measure(rows).labels[~near], labels[~near])
        expected, got = later(rows.select(~near)), far_statistics(course, split.steady, split.moving, found, later)
        np.testing.assert_allclose(got.weight, expected.weight, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(got.first, expected.first, rtol=1e-11, atol=1e-9)
        np.testing.assert_allclose(got.objective, expected.objective, rtol=1e-10, atol=1e-9)
        assert got.count == expected.count


def test_rows_that_change_their_label_along_a_course_are_far_as_well() -> None:
    found = 0
    for seed in range(20):
        rows, model, params = on_a_way("squared_euclidean", 2, 6, seed, ways=2)
        course = Course(tuple(functions(model, params)), np.full((3, 6), 0.01))
        split, near = split_rows(course, rows)
        assert 0 < near.sum() < len(rows) / 3
        changed = course.functions[0].measure(rows).labels != course.functions[2].measure(rows).labels
        assert (changed & ~near).any()
        assert split.moving[0].count == split.moving[2].count > 0
        assert split.steady.count + split.moving[0].count == np.sum(~near)
        (later,) = functions(model, [strayed(params[1], 0.005, "squared_euclidean")])
        found += find_waypoint(course, split.steady, split.moving, later) == 1
        (lost,) = functions(model, [strayed(params[1], 0.3, "squared_euclidean")])
        assert find_waypoint(course, split.steady, split.moving, lost) is None
    assert found == 20


@divergences
def test_all_statistics_of_a_split_along_a_course_are_those_of_its_rows(divergence: str) -> None:
    rows, model, params = on_a_way(divergence, 3, 8, 4)
    course = Course(tuple(functions(model, params)), np.full((4, 8), 0.02))
    split, near = split_rows(course, rows)
    assert 0 < near.sum() < len(rows)
    assert split.steady.near == near.sum()
    plain = model.statistics(params[0], rows)
    assert split.statistics.first.tobytes() == plain.first.tobytes()
    for i, each in enumerate(params):
        far = model.statistics(each, rows.select(~near))
        got = far_statistics(course, split.steady, split.moving, i, course.functions[i])
        np.testing.assert_allclose(got.first, far.first, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(got.weight, far.weight, rtol=1e-12)
        np.testing.assert_allclose(got.objective, far.objective, rtol=1e-11)


def test_the_nearest_waypoint_tells_how_far_a_course_has_led() -> None:
    _, model, params = on_a_way("squared_euclidean", 3, 8, 6)
    course = Course(tuple(functions(model, params)), np.full((4, 8), 0.02))
    for i, each in enumerate(params):
        assert course.nearest_waypoint(functions(model, [strayed(each, 1e-3, "squared_euclidean")])[0]) == i


def test_splits_of_parts_add_up() -> None:
    rows, model, params = on_a_way("squared_euclidean", 3, 8, 5)
    course = Course(tuple(functions(model, params)), np.full((4, 8), 0.02))
    whole, near = split_rows(course, rows)
    halves = [split_rows(course, rows.select(np.arange(len(rows)) % 2 == i))[0] for i in range(2)]
    both = halves[0] + halves[1]
    assert (both.steady.count, both.steady.near) == (whole.steady.count, near.sum())
    for got, wanted in zip((both.steady, *both.moving), (whole.steady, *whole.moving), strict=True):
        np.testing.assert_allclose(got.first, wanted.first, rtol=1e-12, atol=1e-10)
        np.testing.assert_array_equal(got.radius, wanted.radius)


def test_rows_with_missing_features_are_near_on_any_course() -> None:
    rows, model, params = on_a_way("squared_euclidean", 3, 4, 0)
    values = rows.values.copy()
    values[::5, 1] = np.nan
    rows = in_memory_rows(values, rows.weights, allow_missing=True)
    split, near = split_rows(Course(tuple(functions(model, params)), np.full((4, 4), 0.01)), rows)
    assert near[::5].all()
    assert not near.all()
    assert split.steady.count + split.moving[0].count + split.steady.near == len(rows)


def test_centers_that_meet_on_a_row_leave_it_near() -> None:
    # The first one is the nearest at both ends, by 100 and by nothing. Rounding takes the margin below 0.
    params = [
        KMeansParams(np.zeros(1), np.array([[0.0], [100.0], [1000.0]])),
        KMeansParams(np.zeros(1), np.array([[0.0], [0.0], [1000.0]])),
    ]
    course = Course(tuple(functions(KMeans(3), params)), np.zeros((2, 3)))
    assert split_rows(course, in_memory_rows(np.array([[0.0]])))[1].all()


@pytest.mark.parametrize("apart", [0.0, 1e3, 1e6], ids="{:g}-apart".format)
def test_scores_leave_hardly_more_rows_near_than_distances_do(apart: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where clusters are far apart, the rounding of scores exceeds all budgets, and rows are compared by distances.
    rng = np.random.default_rng(0)
    values = rng.standard_normal((4000, 8)) + apart * (np.arange(4000) % 2)[:, None]
    places = [values[:12] - values.mean(axis=0)]
    for _ in range(3):
        places.append(places[-1] + rng.standard_normal((12, 8)) * 0.1)
    made = functions(KMeans(12), [KMeansParams(values.mean(axis=0), place) for place in places])
    near = []
    for scales in ((1e-150, 1e150), (1.0, 0.0)):
        monkeypatch.setattr("clustering.models.course_scores.SCALES", scales)
        course = Course(tuple(made), np.full((4, 12), 0.01))
        assert (course.scored.limit < 0.0) == (scales == (1.0, 0.0))
        near.append(split_rows(course, in_memory_rows(values))[1])
    by_score, by_distance = near
    assert 0 < by_distance.sum() < 2000
    assert not (by_distance & ~by_score).any()
    assert by_score.sum() <= by_distance.sum() + 4
