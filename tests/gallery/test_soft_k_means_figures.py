"""The figures of soft k-means show what the lecture says of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from docs.gallery.soft_k_means import (
    LIMIT_BETAS,
    ROUNDING,
    STIFFNESS_BETAS,
    Limit,
    SoftAndHard,
    Stiffness,
    effective_clusters,
)


@pytest.fixture
def both(shown: Callable[[str], Any]) -> SoftAndHard:
    return shown("soft-and-hard.png")


@pytest.fixture
def limit(shown: Callable[[str], Any]) -> Limit:
    return shown("limit.png")


@pytest.fixture
def stiffness(shown: Callable[[str], Any]) -> Stiffness:
    return shown("stiffness.png")


def distances(both: SoftAndHard) -> Any:
    return np.linalg.norm(both.rows[:, None] - both.soft_centers, axis=-1)


def test_responsibilities_are_the_softmax_of_the_lecture(both: SoftAndHard) -> None:
    np.testing.assert_allclose(both.resp, softmax(-both.beta * distances(both) ** 2, axis=1), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(both.resp.sum(axis=1), 1.0, rtol=1e-12)


def test_soft_centers_are_means_by_responsibility(both: SoftAndHard) -> None:
    # The fit stops where the free energy hardly changes, so centers are nearly fixed.
    means = both.resp.T @ both.rows / both.resp.sum(axis=0)[:, None]
    np.testing.assert_allclose(both.soft_centers, means, atol=1e-5)


def test_responsibilities_differ_from_one_hot_where_clusters_overlap_and_hardly_elsewhere(both: SoftAndHard) -> None:
    nearest, second = np.sort(distances(both), axis=1)[:, :2].T
    largest = both.resp.max(axis=1)
    overlap, clear = second < 1.1 * nearest, second > 5 * nearest
    assert overlap.sum() > 20
    assert clear.sum() > 20
    assert (largest[overlap] < 0.75).all()
    assert (largest[clear] > 0.8).all()


def test_the_circled_row_has_the_responsibilities_of_the_lecture(both: SoftAndHard) -> None:
    assert np.sort(both.resp[both.example])[:-3:-1] == pytest.approx([0.7, 0.3], abs=0.01)


def test_hard_assignments_jump_between_two_centers_and_soft_ones_do_not(both: SoftAndHard) -> None:
    first, second = both.pair
    assert set(both.line_hard.reshape(-1)) == {0.0, 1.0}
    assert np.abs(np.diff(both.line_hard[:, first])).sum() == 1.0
    assert (np.diff(both.line_soft[:, first]) < 0).all()
    assert np.abs(np.diff(both.line_soft, axis=0)).max() < 0.05
    middle = len(both.line_soft) // 2
    assert both.line_soft[middle, first] == pytest.approx(both.line_soft[middle, second], rel=1e-9)


def test_responsibilities_become_one_hot_as_the_variance_goes_to_zero(limit: Limit) -> None:
    assert (np.diff(limit.from_one_hot) < 0).all()
    assert limit.from_one_hot[0] > 0.4
    assert (limit.from_one_hot[LIMIT_BETAS > 30_000] < ROUNDING).all()


def test_centers_reach_those_of_k_means(limit: Limit) -> None:
    assert limit.from_hard_centers[0] > 0.05
    assert (limit.from_hard_centers[LIMIT_BETAS > 3_000] < 1e-3).all()
    assert (limit.from_hard_centers[LIMIT_BETAS > 30_000] < ROUNDING).all()


def test_beta_is_chosen_where_measured_and_assumed_variance_cross(stiffness: Stiffness) -> None:
    too_low = stiffness.measured < stiffness.assumed
    assert (too_low == (stiffness.chosen > STIFFNESS_BETAS)).all()


def test_all_centers_are_one_below_the_critical_value_and_split_above(stiffness: Stiffness) -> None:
    below = stiffness.critical > STIFFNESS_BETAS
    np.testing.assert_allclose(stiffness.effective[below], 1.0, atol=1e-3)
    np.testing.assert_allclose(stiffness.measured[below], stiffness.measured[0], rtol=1e-3)
    assert (np.diff(stiffness.effective[~below]) > 0).all()
    assert stiffness.effective[-1] > 2.8


def test_the_effective_number_of_clusters_is_one_for_equal_shares_and_k_for_equal_clusters() -> None:
    assert effective_clusters(np.full((6, 3), 1 / 3)) == pytest.approx(1.0)
    assert effective_clusters(np.eye(3)[[0, 1, 2, 0, 1, 2]]) == pytest.approx(3.0)
