from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics

from clustering.data.rows import in_memory_rows
from clustering.fitting.criteria import partition_criteria
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.model import AnyModel
from clustering.models.partition import PartitionPass, silhouette_pass
from clustering.models.tree import fold

Array = NDArray[np.float64]


@pytest.fixture
def rows() -> Array:
    generator = np.random.default_rng(7)
    return 1e6 + generator.normal(size=(400, 3)) * (1.0, 2.0, 0.5) + 3.0 * generator.integers(0, 4, (400, 1))


def params_of(rows: Array, k: int) -> KMeansParams:
    return KMeansParams(rows.mean(axis=0), rows[:k] - rows.mean(axis=0))


def criteria_of(
    model: AnyModel, params: Any, rows: Array, weights: Array | None = None, cuts: int = 1
) -> dict[str, float | None]:
    """Criteria of a partition, from blocks that are added in the order of the tree."""
    weights = np.ones(len(rows)) if weights is None else weights
    blocks = [
        in_memory_rows(*part) for part in zip(np.array_split(rows, cuts), np.array_split(weights, cuts), strict=True)
    ]
    sums = fold(map(PartitionPass(model, params), blocks))
    second = silhouette_pass(model, params, sums)
    return partition_criteria(second.means, sums, fold(map(second, blocks)))


@pytest.mark.parametrize("k", [2, 5, 9])
def test_criteria_equal_those_of_scikit_learn(rows: Array, k: int) -> None:
    params = params_of(rows, k)
    labels = KMeans(k).assign(params, in_memory_rows(rows)).labels
    ours, near = criteria_of(KMeans(k), params, rows, cuts=3), rows - rows.mean(axis=0)
    assert ours["silhouette"] == pytest.approx(metrics.silhouette_score(near, labels, metric="sqeuclidean"), abs=1e-9)
    assert ours["calinski_harabasz"] == pytest.approx(metrics.calinski_harabasz_score(near, labels), rel=1e-9)
    assert ours["davies_bouldin"] == pytest.approx(metrics.davies_bouldin_score(near, labels), rel=1e-9)
    each = metrics.silhouette_samples(near, labels, metric="sqeuclidean")
    by_cluster = np.mean([each[labels == c].mean() for c in range(k)])
    assert ours["silhouette_by_cluster"] == pytest.approx(by_cluster, abs=1e-9)


def test_a_row_alone_in_its_cluster_has_a_silhouette_of_zero() -> None:
    rows = np.array([[0.0], [1.0], [9.0]])
    params = KMeansParams(np.zeros(1), np.array([[0.5], [9.0]]))
    expected = metrics.silhouette_score(rows, [0, 0, 1], metric="sqeuclidean")
    assert criteria_of(KMeans(2), params, rows)["silhouette"] == pytest.approx(expected, abs=1e-12)


def test_weights_count_as_repeated_rows(rows: Array) -> None:
    times = np.random.default_rng(1).integers(0, 4, len(rows))
    params = params_of(rows, 4)
    weighted = criteria_of(KMeans(4), params, rows, times.astype(float))
    repeated = criteria_of(KMeans(4), params, np.repeat(rows, times, axis=0))
    assert weighted == pytest.approx(repeated, rel=1e-9)


def test_criteria_hardly_depend_on_the_blocks(rows: Array) -> None:
    params = params_of(rows, 4)
    assert criteria_of(KMeans(4), params, rows, cuts=1) == pytest.approx(
        criteria_of(KMeans(4), params, rows, cuts=17), rel=1e-10
    )


def test_one_cluster_has_a_within_sum_and_no_silhouette(rows: Array) -> None:
    params = params_of(rows, 1)
    criteria = criteria_of(KMeans(1), params, rows)
    assert criteria["silhouette"] is criteria["calinski_harabasz"] is criteria["davies_bouldin"] is None
    assert criteria["within"] == pytest.approx(len(rows) * rows.var(axis=0).sum(), rel=1e-9)


def test_a_cluster_without_rows_takes_no_part(rows: Array) -> None:
    two = params_of(rows, 2)
    far = KMeansParams(two.origin, np.vstack([two.centers, [[1e4, 1e4, 1e4]]]))
    with_empty, without = (criteria_of(KMeans(p.k), p, rows) for p in (far, two))
    assert with_empty["smallest"] == 0.0
    for name in ("silhouette", "calinski_harabasz", "davies_bouldin", "simplified_silhouette"):
        assert with_empty[name] == pytest.approx(without[name], rel=1e-12)


def test_the_simplified_silhouette_has_distances_from_centers() -> None:
    rows = np.array([[0.0], [2.0], [7.0], [9.0]])
    params = KMeansParams(np.zeros(1), np.array([[1.0], [8.0]]))
    # Each row is 1 from its own center and 8 or 6 from the other.
    expected = np.mean([7 / 8, 5 / 6, 5 / 6, 7 / 8])
    assert criteria_of(KMeans(2), params, rows)["simplified_silhouette"] == pytest.approx(expected, abs=1e-12)


def test_missing_features_take_no_part(rows: Array) -> None:
    gappy = rows - rows.mean(axis=0)
    gappy[::5, 1] = np.nan
    params = KMeansParams(np.zeros(3), gappy[1:4])
    sums = PartitionPass(KMeans(3), params)(in_memory_rows(gappy, allow_missing=True))
    labels = KMeans(3).assign(params, in_memory_rows(gappy, allow_missing=True)).labels
    second = silhouette_pass(KMeans(3), params, sums)
    for c in range(3):
        np.testing.assert_allclose(second.means[c], np.nanmean(gappy[labels == c], axis=0), rtol=1e-9)
