from __future__ import annotations

from typing import Any

import numpy as np

from clustering.fitting.course import SampledRows, choose_budgets, choose_course, expected_movement
from clustering.models.course import within_course
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.margins import MarginStatistics


def function(centers: Any) -> MarginStatistics[Any]:
    made = KMeans(len(centers)).for_pass(KMeansParams(np.zeros(2), np.array(centers, float)))
    assert isinstance(made, MarginStatistics)
    return made


def test_budgets_are_a_quantile_of_the_margins_and_follow_the_scale() -> None:
    margins, counts = np.arange(1.0, 10_001.0), np.ones(10_000)
    labels = np.tile(np.array([0, 1], np.int32), 5000)
    # A tenth, less two standard errors of 0.3 %.
    np.testing.assert_array_equal(choose_budgets(labels, margins, counts, np.ones(2), 0.1), [940.0, 940.0])
    budgets = choose_budgets(labels, margins, counts, np.array([1.0, 4.0]), 0.1)
    assert budgets[1] == 4 * budgets[0]
    assert np.sum(margins <= budgets[labels]) == 940
    # Rows that stand for many count as many, and tell less.
    heavy = np.where(margins <= 500, 3.0, 1.0)
    assert 300 < choose_budgets(labels, margins, heavy, np.ones(2), 0.1)[0] < 940 / 3 + 50
    # Rows without a margin are near in any case.
    unknown = np.where(margins > 9900, np.nan, margins)
    np.testing.assert_array_equal(choose_budgets(labels, unknown, counts, np.ones(2), 0.1), [840.0, 840.0])


def test_centers_that_go_straight_on_are_followed_as_far_as_they_are_forecast() -> None:
    values = np.random.default_rng(0).uniform(-3, 3, (4000, 2))
    sample = SampledRows(values, np.ones(len(values)))
    expected = [function([[-1.0, 0.05 * t], [1.0, 0.05 * t]]) for t in range(9)]
    course, budgets = choose_course(iter(expected), sample, 0.1, None)
    assert course[0] is expected[0]
    assert len(course) == 2
    # The shortest course that serves all passes leaves the most room.
    points, radius = [each.points for each in course], np.full(2, np.inf)
    assert all(within_course(points, budgets, radius, each.points) for each in expected)
    assert not within_course(points[:1], budgets, radius, expected[-1].points)
    # Without a forecast, margins are those at the present centers.
    alone, widest = choose_course(iter(expected[:1]), sample, 0.1, None)
    assert alone == (expected[0],)
    near = np.abs(np.linalg.norm(values - [-1, 0], axis=1) - np.linalg.norm(values - [1, 0], axis=1)) <= widest[0]
    np.testing.assert_allclose(near.mean(), 0.09, atol=1e-3)


def test_a_course_is_no_longer_than_the_room_for_rows_that_change_their_label() -> None:
    values = np.random.default_rng(1).uniform(-3, 3, (4000, 2))
    sample = SampledRows(values, np.ones(len(values)))
    # The boundary crosses a tenth of all rows in two passes.
    expected = [function([[-1.0 + 0.3 * t, 0.0], [1.0 + 0.3 * t, 0.0]]) for t in range(9)]
    course, budgets = choose_course(iter(expected), sample, 0.1, None)
    assert course[-1] in expected[:3]
    assert (budgets > 0).all()


def test_a_boundary_moves_with_its_fastest_competitor() -> None:
    points, drift = np.array([[0.0], [1.0], [50.0]]), np.array([1.0, 2.0, 40.0])
    np.testing.assert_array_equal(expected_movement(points, drift, np.full(3, 5.0)), [3.0, 3.0, 40.0])
    np.testing.assert_array_equal(expected_movement(points, drift, np.full(3, np.inf)), [41.0, 42.0, 42.0])
    np.testing.assert_array_equal(expected_movement(points, np.zeros(3), np.full(3, 5.0)), np.ones(3))
