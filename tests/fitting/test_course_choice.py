from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import pytest

from clustering.data.rows import in_memory_rows
from clustering.fitting.course import ENOUGH, choose_course, choose_multiple
from clustering.fitting.expected_passes import MOST_PARTS, ExpectedPass, LastRead, SampledRows, expected_passes
from clustering.models.course import Course, split_rows
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.margins import MarginStatistics


def function(centers: Any) -> MarginStatistics[Any]:
    made = KMeans(len(centers)).for_pass(KMeansParams(np.zeros(2), np.array(centers, float)))
    assert isinstance(made, MarginStatistics)
    return made


def test_a_multiple_is_a_quantile() -> None:
    multiples, counts = np.arange(1.0, 10_001.0), np.ones(10_000)
    # A tenth, less two standard errors of 0.3 %.
    assert choose_multiple(multiples, counts, 0.1) == 940.0
    # Rows that stand for many count as many, and tell less.
    heavy = np.where(multiples <= 500, 3.0, 1.0)
    assert 300 < choose_multiple(multiples, heavy, 0.1) < 940 / 3 + 50


def moving_up(step: float, error: float) -> list[ExpectedPass]:
    """Two centers that go along the boundary between them, with errors that grow."""
    return [ExpectedPass(function([[-1.0, step * t], [1.0, step * t]]), np.full(2, error * t)) for t in range(9)]


@pytest.mark.parametrize("error", [0.0005, 0.004, 0.02, 0.2])
def test_a_course_is_as_long_as_budgets_allow_for_the_errors(error: float) -> None:
    values = np.random.default_rng(0).uniform(-3, 3, (16000, 2))
    rows, sample = in_memory_rows(values), SampledRows(values, np.ones(len(values)), np.ones(len(values)))
    expected = moving_up(0.05, error)
    course = choose_course(iter(expected), sample, 0.1, 8)
    length = len(course.functions) - 1
    assert length == {0.0005: 8, 0.004: 8, 0.02: 3, 0.2: 1}[error]
    assert not course.budgets[0].any()
    near = split_rows(course, rows)[1].mean()
    assert near <= 0.1
    np.testing.assert_allclose(near, 0.1, atol=0.01)
    if length > 1:
        assert (course.budgets[1:] >= ENOUGH * np.array([each.errors for each in expected[1 : length + 1]])).all()
    assert len(choose_course(iter(expected), sample, 0.1, 1).functions) <= 2


def blobs(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(0, 2, (6, 2))[rng.integers(0, 6, n)] + rng.standard_normal((n, 2))


def test_rows_that_all_are_sampled_give_the_passes_themselves() -> None:
    values = blobs(3000)
    now = function(values[:6])
    made = expected_passes(now, SampledRows(values, np.ones(3000), np.ones(3000)), None)
    rows = in_memory_rows(values)
    for each, _ in zip(made, range(5), strict=False):
        np.testing.assert_allclose(each.function.points, now.points, rtol=1e-10, atol=1e-12)
        assert (each.errors < 1e-7).all()
        now = now.model.for_pass(now.model.update(now.params, now(rows)).params)


def test_errors_are_those_of_the_centers_and_less_where_a_read_is_known() -> None:
    values = blobs(40_000)
    start = function(values[:6])
    rows = in_memory_rows(values)
    read = Course((start,), np.zeros((1, 6)))
    split, near = split_rows(read, rows)
    now = start.model.for_pass(start.model.update(start.params, split.statistics).params)
    true = now.model.update(now.params, now(rows)).params.centers
    ratios, alone, known = [], 0.0, 0.0
    for seed in range(10):
        chosen = np.random.default_rng(seed).permutation(len(values))[:2000]
        sample = SampledRows(values[chosen], np.ones(2000), np.full(2000, 20.0))
        before = LastRead(read, split.steady, split.moving, lambda each: each(rows.select(near)))
        _, first = (each for each, _ in zip(expected_passes(now, sample, None), range(2), strict=False))
        _, second = (each for each, _ in zip(expected_passes(now, sample, before), range(2), strict=False))
        alone += np.linalg.norm(first.function.points - true)
        known += np.linalg.norm(second.function.points - true)
        ratios.append(np.linalg.norm(second.function.points - true, axis=1) / second.errors)
    assert known < 0.9 * alone
    # Root mean squares of errors agree with what is expected.
    assert 0.5 < np.sqrt(np.square(ratios).mean()) < 1.5


def test_rows_that_stand_for_too_many_change_no_estimate_where_a_read_is_known() -> None:
    values = blobs(40_000)
    start, rows = function(values[:6]), in_memory_rows(values)
    read = Course((start,), np.zeros((1, 6)))
    split, near = split_rows(read, rows)
    now = start.model.for_pass(start.model.update(start.params, split.statistics).params)
    before = LastRead(read, split.steady, split.moving, lambda each: each(rows.select(near)))
    right, twice = (
        list(islice(expected_passes(now, SampledRows(values[::20], np.ones(2000), np.full(2000, n)), before), 4))
        for n in (20.0, 40.0)
    )
    for one, same in zip(right, twice, strict=True):
        np.testing.assert_allclose(same.function.points, one.function.points, rtol=1e-9, atol=1e-9)


def test_threads_change_no_bit_of_what_is_expected() -> None:
    values = blobs(40_000)
    now = function(values[:6])
    sample = SampledRows(values, np.ones(len(values)), np.full(len(values), 20.0))
    assert len(sample.parts(MOST_PARTS)) > 2
    with ThreadPoolExecutor(3) as pool:
        alone, shared = (expected_passes(now, sample, None, each) for each in (map, pool.map))
        for one, same, _ in zip(alone, shared, range(4), strict=False):
            assert one.function.points.tobytes() == same.function.points.tobytes()
            assert one.errors.tobytes() == same.errors.tobytes()
        courses = [choose_course(iter(moving_up(0.05, 0.004)), sample, 0.1, 8, each) for each in (map, pool.map)]
        assert courses[0].budgets.tobytes() == courses[1].budgets.tobytes()
