"""The figures of k-means show what the lecture says of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from docs.gallery.k_means import SEEDS, AlternatingSteps, BadOptimum

Array = Any


@pytest.fixture
def steps(shown: Callable[[str], Any]) -> AlternatingSteps:
    return shown("alternating-steps.png")


@pytest.fixture
def optimum(shown: Callable[[str], Any]) -> BadOptimum:
    return shown("bad-optimum.png")


def squares(rows: Array, centers: Array, scale: Array) -> Array:
    """Squared distances (n, k) of rows from centers, in units of the scale of each feature."""
    return (((rows[:, None] - centers) / scale) ** 2).sum(axis=-1)


def test_the_cost_never_rises_over_half_steps(steps: AlternatingSteps) -> None:
    changes = np.diff(steps.history.reshape(-1))
    assert (changes <= 0).all()
    # Only the last pass changes nothing.
    assert (changes[:-2] < 0).all()


def test_the_cost_of_each_half_step_is_that_of_the_drawn_rows_and_centers(steps: AlternatingSteps) -> None:
    scale, every = steps.rows.std(axis=0), np.arange(len(steps.rows))
    for t, (assigned, refitted) in enumerate(steps.history):
        labels = steps.labels[t]
        for centers, cost in ((steps.centers[t], assigned), (steps.centers[t + 1], refitted)):
            assert squares(steps.rows, centers, scale)[every, labels].sum() == pytest.approx(cost, rel=1e-9)


def test_each_assignment_gives_every_row_to_its_nearest_center(steps: AlternatingSteps) -> None:
    for centers, labels in zip(steps.centers, steps.labels, strict=True):
        assert (squares(steps.rows, centers, steps.rows.std(axis=0)).argmin(axis=1) == labels).all()


def test_each_refitting_moves_every_center_to_the_mean_of_its_rows(steps: AlternatingSteps) -> None:
    for labels, centers in zip(steps.labels[:-1], steps.centers[1:], strict=True):
        means = [steps.rows[labels == cluster].mean(axis=0) for cluster in range(len(centers))]
        np.testing.assert_allclose(centers, means, rtol=1e-12)


def test_steps_begin_at_rows_and_end_where_no_assignment_changes(steps: AlternatingSteps) -> None:
    for center in steps.centers[0]:
        assert np.isclose(steps.rows, center, rtol=1e-12).all(axis=1).any()
    changed = (steps.labels[1:] != steps.labels[:-1]).any(axis=1)
    assert changed[:-2].all()
    assert not changed[-1]


def test_one_start_ends_at_more_than_three_and_a_half_times_the_least_cost(optimum: BadOptimum) -> None:
    assert optimum.costs[0] > 3.5 * optimum.costs[1]
    assert optimum.costs[1] == pytest.approx(optimum.costs_by_seed.min(), rel=1e-12)


def test_no_step_leads_out_of_the_bad_optimum(optimum: BadOptimum) -> None:
    for centers, labels in zip(optimum.centers, optimum.labels, strict=True):
        assert (squares(optimum.rows, centers, 1.0).argmin(axis=1) == labels).all()
        means = [optimum.rows[labels == cluster].mean(axis=0) for cluster in range(len(centers))]
        np.testing.assert_allclose(centers, means, rtol=1e-12)


def test_the_best_of_ten_starts_reaches_the_least_cost_with_every_seed(optimum: BadOptimum) -> None:
    one, ten = optimum.best
    assert ten == SEEDS
    assert 0 < one < SEEDS
