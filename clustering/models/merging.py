"""Merging hard clusters by likelihood, as a start of mixtures whose components have unequal volumes.

k-means cuts a wide component into several clusters and joins narrow ones. So many small clusters are merged, pair by
pair, where the log-likelihood of complete data falls least (model-based agglomeration: Fraley 1998,
doi:10.1137/S1064827596311451).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.models.option_names import Covariance

Array = NDArray[np.float64]

MOST_FULL = 32
"""Largest number of features for which full covariances are compared; beyond it, their variances are."""
FLOOR = 1e-3
"""Added to variances, in units of the mean variance of all points: a cluster of few points has no shape of its own."""


class _Clusters(NamedTuple):
    """Weight ``(m,)``, mean ``(m, d)`` and scatter ``(m, d)`` or ``(m, d, d)`` of clusters."""

    weight: Array
    mean: Array
    scatter: Array


def merged_labels(
    points: Array, weights: Array, labels: NDArray[np.int32], k: int, kind: Covariance
) -> NDArray[np.int32]:
    """Merge hard clusters of points until k are left.

    Parameters
    ----------
    points
        Points ``(n, d)``, without missing features.
    weights
        Weight of each point ``(n,)``.
    labels
        Cluster of each point ``(n,)``.
    k
        Number of clusters that are left; there are no fewer distinct labels.
    kind
        Covariance of the components.

    Returns
    -------
    ndarray
        Label of each point ``(n,)``, 0 … k − 1.
    """
    # Shared covariances say nothing about volumes, so the scatter alone decides (Ward 1963).
    shape = "full" if kind == "full" and points.shape[1] <= MOST_FULL else "diagonal" if kind == "full" else kind
    distinct, own = np.unique(labels, return_inverse=True)
    clusters = _clusters(points, weights, own, len(distinct), full=shape == "full")
    total = float(weights.sum())
    middle = weights @ points / total
    floor = FLOOR * float((weights @ (points - middle) ** 2).mean() / total)
    alone = _costs(clusters, shape, total, floor)
    m = len(distinct)
    losses = np.full((m, m), np.inf)
    for first in range(m - 1):
        losses[first, first + 1 :] = _losses(clusters, alone, first, slice(first + 1, m), shape, total, floor)
    group, alive = np.arange(m), np.ones(m, bool)
    for _ in range(m - k):
        i, j = divmod(int(np.argmin(losses)), m)
        pair = _merged(clusters, i, slice(j, j + 1))
        for whole, part in zip(clusters, pair, strict=True):
            whole[i] = part[0]
        alone[i] = _costs(pair, shape, total, floor)[0]
        alive[j], group[group == j] = False, i
        losses[j], losses[:, j] = np.inf, np.inf
        loss = np.where(alive, _losses(clusters, alone, i, slice(None), shape, total, floor), np.inf)
        losses[i, i + 1 :], losses[:i, i] = loss[i + 1 :], loss[:i]
    return np.unique(group[own], return_inverse=True)[1].astype(np.int32)


def _clusters(points: Array, weights: Array, labels: NDArray[np.intp], m: int, *, full: bool) -> _Clusters:
    d = points.shape[1]
    made = _Clusters(np.zeros(m), np.zeros((m, d)), np.zeros((m, d, d) if full else (m, d)))
    for cluster in range(m):
        mine = labels == cluster
        own, share = points[mine], weights[mine]
        made.weight[cluster] = share.sum()
        made.mean[cluster] = share @ own / made.weight[cluster]
        steps = own - made.mean[cluster]
        made.scatter[cluster] = (steps.T * share) @ steps if full else share @ steps**2
    return made


def _merged(clusters: _Clusters, i: int, others: slice) -> _Clusters:
    """Merge one cluster with each of some others."""
    weight = clusters.weight[i] + clusters.weight[others]
    step = clusters.mean[others] - clusters.mean[i]
    mean = clusters.mean[i] + step * (clusters.weight[others] / weight)[:, None]
    between = clusters.weight[i] * clusters.weight[others] / weight
    scatter = clusters.scatter[i] + clusters.scatter[others]
    if scatter.ndim == 3:
        scatter = scatter + between[:, None, None] * step[:, :, None] * step[:, None, :]
    else:
        scatter = scatter + between[:, None] * step**2
    return _Clusters(weight, mean, scatter)


def _losses(
    clusters: _Clusters, alone: Array, i: int, others: slice, shape: Covariance, total: float, floor: float
) -> Array:
    """Compute what the log-likelihood loses where a cluster is merged with each of some others."""
    losses: Array = _costs(_merged(clusters, i, others), shape, total, floor) - alone[i] - alone[others]
    return losses


def _costs(clusters: _Clusters, shape: Covariance, total: float, floor: float) -> Array:
    """Compute the negative log-likelihood of complete data ``(m,)``, up to a constant."""
    weight, _, scatter = clusters
    d = scatter.shape[1]
    match shape:
        case "spherical":
            logs = d * np.log(scatter.mean(axis=1) / weight + floor)
        case "diagonal":
            logs = np.log(scatter / weight[:, None] + floor).sum(axis=1)
        case "full":
            logs = np.linalg.slogdet(scatter / weight[:, None, None] + floor * np.eye(d))[1]
        case "identity" | "tied":
            return np.asarray(0.5 * scatter.sum(axis=1))
    return np.asarray(weight * (0.5 * logs - np.log(weight / total)))
