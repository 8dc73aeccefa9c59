"""Moments of rows whose clusters are settled: by the nearest center, or known beforehand.

They are the sufficient statistics of complete data (lecture, "if we knew z for every x").
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.models import covariances as kinds
from clustering.models import gaps
from clustering.models.assignment import nearest
from clustering.models.columns import columns_of, sub_block_length
from clustering.models.kmeans import KMeans, KMeansParams
from clustering.models.names import Covariance
from clustering.models.soft import Gathered, Moments, Shared

Array = NDArray[np.float64]


def moments(kind: Covariance, params: KMeansParams, known: bool, rows: Rows) -> Moments:
    """Add up rows about the center of their cluster."""
    k, d = params.centers.shape
    sums, gathered = kinds.Accumulator(kind, params.centers, None), Gathered(rows, k)
    length = sub_block_length(d, k)
    for found in nearest(rows.values, params.shift, params.centers):
        for start in range(0, found.stop - found.start, length):
            stop = min(found.stop - found.start, start + length)
            columns = np.ascontiguousarray(found.rows[start:stop].T)
            labels, least = found.labels[start:stop], found.distances[start:stop]
            if known and rows.labels is not None:
                labels = rows.labels[found.start + start : found.start + stop]
            place = found.start + start
            weights = rows.weights[place : place + stop - start]
            shares = np.zeros((k, stop - start))
            shares[labels, np.arange(stop - start)] = weights
            # A start knows no covariance, and takes no products: norms do not matter.
            sums.add(columns, weights, shares, weights)
            gathered.take(Shared(place, place + stop - start, columns, shares, least, labels, least, 0.0, 0.0))
    return Moments(*sums.total(), 0.0, 0.0, len(rows), gathered.distant)


def moments_with_gaps(kind: Covariance, params: KMeansParams, variance: Array, known: bool, rows: Rows) -> Moments:
    """Add up rows with gaps, taking the variances ``(d,)`` of what is missing."""
    k, _d = params.centers.shape
    sums = kinds.Accumulator(kind, params.centers, None)
    labels = rows.labels if known else KMeans(k).assign(params, rows).labels
    assert labels is not None
    for start, stop, columns in columns_of(rows, params.shift, k):
        shares = np.zeros((k, stop - start))
        shares[labels[start:stop], np.arange(stop - start)] = rows.weights[start:stop]
        if kind in ("tied", "full"):
            gaps.add_at_centers(columns, variance, shares, sums)
        else:
            gaps.add_independent(columns, np.repeat(variance[None], k, axis=0), shares, sums)
    return Moments(*sums.total(), 0.0, 0.0, len(rows), Gathered(rows, k).distant)
