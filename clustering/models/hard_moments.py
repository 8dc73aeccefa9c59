"""Moments of rows in hard clusters: those of the nearest center, or those known beforehand.

They are the sufficient statistics of complete data (lecture, "if we knew z for every x").
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.models import covariances as kinds
from clustering.models import missing_features
from clustering.models.assignment import nearest
from clustering.models.columns import columns_of, sub_block_length
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.option_names import Covariance
from clustering.models.soft import FarthestRowsTracker, Moments, Responsibilities

Array = NDArray[np.float64]


def moments(kind: Covariance, params: KMeansParams, use_labels: bool, rows: Rows) -> Moments:
    """Add up the moments of complete rows about the centers of their clusters.

    Parameters
    ----------
    kind
        Kind of covariance, which says which second moments are needed.
    params
        Hard clusters.
    use_labels
        Whether to take the known labels of rows, and not their nearest centers.
    rows
        Prepared rows ``(n, d)`` without missing features; with `use_labels`, all labels are 0 or more.

    Returns
    -------
    Moments
        Moments with an objective of 0.
    """
    k, d = params.centers.shape
    sums, tracker = kinds.Accumulator(kind, params.centers, None), FarthestRowsTracker(rows, k)
    length = sub_block_length(d, k)
    for assigned in nearest(rows.values, params.origin, params.centers):
        for start in range(0, assigned.stop - assigned.start, length):
            stop = min(assigned.stop - assigned.start, start + length)
            columns = np.ascontiguousarray(assigned.rows[start:stop].T)
            labels, own_divergence = assigned.labels[start:stop], assigned.distances[start:stop]
            if use_labels and rows.labels is not None:
                labels = rows.labels[assigned.start + start : assigned.start + stop]
            first_row = assigned.start + start
            weights = rows.weights[first_row : first_row + stop - start]
            weighted_resp = np.zeros((k, stop - start))
            weighted_resp[labels, np.arange(stop - start)] = weights
            # The accumulator has no covariance, so it uses no matrix products, and norms do not matter to it. Weights
            # stand in for them.
            sums.add(columns, weights, weighted_resp, weights)
            tracker.update(
                Responsibilities(
                    first_row,
                    first_row + stop - start,
                    columns,
                    weighted_resp,
                    own_divergence,
                    labels,
                    own_divergence,
                    0.0,
                    0.0,
                )
            )
    return Moments(*sums.total(), 0.0, 0.0, len(rows), tracker.farthest)


def moments_with_missing(
    kind: Covariance, params: KMeansParams, variance: Array, use_labels: bool, rows: Rows
) -> Moments:
    """Add up the moments of rows with missing features, which are expected at the center of their cluster.

    Parameters
    ----------
    kind
        Kind of covariance, which says which second moments are needed.
    params
        Hard clusters.
    variance
        Variance of each feature ``(d,)``, taken for the missing ones.
    use_labels
        Whether to take the known labels of rows, and not their nearest centers.
    rows
        Prepared rows ``(n, d)``, NaN where missing.
    """
    k, _d = params.centers.shape
    sums = kinds.Accumulator(kind, params.centers, None)
    labels = rows.labels if use_labels else KMeans(k).assign(params, rows).labels
    assert labels is not None
    for start, stop, columns in columns_of(rows, params.origin, k):
        weighted_resp = np.zeros((k, stop - start))
        weighted_resp[labels[start:stop], np.arange(stop - start)] = rows.weights[start:stop]
        if kind in ("tied", "full"):
            missing_features.add_at_centers(columns, variance, weighted_resp, sums)
        else:
            missing_features.add_independent(columns, np.repeat(variance[None], k, axis=0), weighted_resp, sums)
    return Moments(*sums.total(), 0.0, 0.0, len(rows), FarthestRowsTracker(rows, k).farthest)
