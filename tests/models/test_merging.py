from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from brute import KINDS
from hypothesis import given
from hypothesis import strategies as st

from clustering.models.merging import FLOOR, merged_labels

kinds = pytest.mark.parametrize("kind", KINDS)


def cost(kind: str, points: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> float:
    """Negative log-likelihood of complete data, row by row, up to a constant."""
    middle = np.average(points, axis=0, weights=weights)
    floor = FLOOR * np.average(((points - middle) ** 2).mean(axis=1), weights=weights)
    total = 0.0
    for label in np.unique(labels):
        own, share = points[labels == label], weights[labels == label]
        covariance = np.atleast_2d(np.cov(own.T, aweights=share, bias=True)) if len(own) > 1 else np.zeros((2, 2))
        if kind in ("identity", "tied"):
            total += 0.5 * share.sum() * np.trace(covariance)
            continue
        variances = {
            "spherical": np.full(2, np.trace(covariance) / 2) + floor, "diagonal": np.diag(covariance) + floor,
            "full": np.linalg.eigvalsh(covariance) + floor,
        }[kind]  # fmt: skip
        total += share.sum() * (0.5 * np.log(variances).sum() - np.log(share.sum() / weights.sum()))
    return total


@kinds
@given(seed=st.integers(0, 2**16))
def test_the_pair_is_merged_that_costs_least(kind: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, weights = rng.standard_normal((30, 2)) * rng.uniform(0.1, 4.0, (30, 1)), rng.uniform(0.5, 2.0, 30)
    labels = np.concatenate([np.arange(5), rng.integers(0, 5, 25)]).astype(np.int32)
    made = merged_labels(points, weights, labels, 4, kind)
    costs = [cost(kind, points, weights, np.where(labels == j, i, labels)) for i, j in combinations(range(5), 2)]
    assert sorted(set(made)) == [0, 1, 2, 3]
    assert cost(kind, points, weights, made) == pytest.approx(min(costs), rel=1e-9)


@kinds
def test_clusters_stay_whole(kind: Any) -> None:
    rng = np.random.default_rng(1)
    points, labels = rng.standard_normal((200, 3)), rng.integers(0, 12, 200, dtype=np.int32)
    made = merged_labels(points, np.ones(200), labels, 5, kind)
    assert len(np.unique(made)) == 5
    assert all(len(np.unique(made[labels == label])) == 1 for label in range(12))


@kinds
def test_without_anything_to_merge_clusters_stay_as_they_are(kind: Any) -> None:
    points, labels = np.arange(12.0).reshape(6, 2), np.array([7, 7, 3, 3, 5, 5], np.int32)
    np.testing.assert_array_equal(merged_labels(points, np.ones(6), labels, 3, kind), [2, 2, 0, 0, 1, 1])


def test_a_narrow_cluster_inside_a_wide_one_is_kept() -> None:
    rng = np.random.default_rng(2)
    points = np.concatenate([rng.standard_normal((600, 2)) * 5.0, rng.standard_normal((200, 2)) * 0.1])
    # Cells of a grid stand for small clusters: the narrow cluster fills the middle one.
    cells = np.clip(np.round(points / 3.0), -4, 4).astype(int) + 4
    made = merged_labels(points, np.ones(800), (9 * cells[:, 0] + cells[:, 1]).astype(np.int32), 2, "spherical")
    narrow = made[600:]
    assert (narrow == narrow[0]).all()
    assert np.mean(made[:600] != narrow[0]) > 0.8


@kinds
def test_points_far_from_zero_merge_alike(kind: Any) -> None:
    rng = np.random.default_rng(3)
    points, labels = rng.standard_normal((200, 3)), rng.integers(0, 10, 200, dtype=np.int32)
    near = merged_labels(points, np.ones(200), labels, 4, kind)
    np.testing.assert_array_equal(merged_labels(points + 2.0**20, np.ones(200), labels, 4, kind), near)
