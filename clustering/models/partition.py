"""Additive statistics of partitions: the rows of each label, about a point near the mean of their cluster.

The first read gives sizes, means and spreads; the second, with these, silhouettes and mean distances.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.models import partition_kernels as kernels
from clustering.models.assignment import sub_block_rows
from clustering.models.model import AnyModel

Array = NDArray[np.float64]
S = TypeVar("S", "PartitionSums", "SilhouetteSums")


@dataclass(frozen=True, eq=False)
class PartitionSums:
    """Sums over labelled rows; ``a + b`` are the sums over the rows of both."""

    objective: float
    """Objective at the params, as the passes lower it."""
    entropy: float
    """Entropy of the responsibilities, −Σ w r log r."""
    responsible: Array
    """Effective size Σ w r of each cluster ``(k,)``."""
    rows: NDArray[np.int64]
    """Number of rows with each label ``(k,)``."""
    weight: Array
    """Σ w of each label ``(k,)``."""
    first: Array
    """Σ w (x − reference) of each label ``(k, p)``."""
    second: Array
    """Σ w (x − reference)² of each label ``(k, p)``."""
    observed: Array
    """Σ w of the rows of each label that have each feature ``(k, p)``."""

    def __add__(self, other: PartitionSums) -> PartitionSums:
        return _added(self, other)

    @property
    def shift(self) -> Array:
        """Mean of each label less its reference ``(k, p)``; 0 where there are no rows."""
        return self.first / np.where(self.observed > 0.0, self.observed, 1.0)

    @property
    def spread(self) -> Array:
        """Mean squared distance of the rows of each label from their mean ``(k,)``; 0 where there are no rows."""
        scale = np.where(self.observed > 0.0, self.observed, 1.0)
        # A reference near the mean keeps the digits of this difference.
        about_mean = np.maximum(self.second / scale - self.shift**2, 0.0)
        # A missing feature counts as 0 in the squares of its row.
        share = self.observed / np.where(self.weight > 0.0, self.weight, 1.0)[:, None]
        return np.asarray((about_mean * share).sum(axis=1))


@dataclass(frozen=True)
class PartitionPass:
    """Makes the sums of the partition by a fitted model; picklable."""

    model: AnyModel
    params: Any

    def __call__(self, rows: Rows) -> PartitionSums:
        """Label the rows of a block and add them up.

        Parameters
        ----------
        rows
            Prepared rows ``(n, d)``.
        """
        assignment, references = self.model.assign(self.params, rows), embedded_centers(self.model, self.params)
        k, p = references.shape
        weight, first, second, observed = np.zeros(k), np.zeros((k, p)), np.zeros((k, p)), np.zeros((k, p))
        for start, stop, points in _embedded(self.model, self.params, rows):
            labels, weights = assignment.labels[start:stop], np.ascontiguousarray(rows.weights[start:stop])
            kernels.add_rows(points, labels, weights, references, weight, first, second, observed)
        counts = np.bincount(assignment.labels, minlength=k).astype(np.int64)
        return PartitionSums(
            assignment.objective, assignment.entropy, assignment.weight, counts, weight, first, second, observed
        )


@dataclass(frozen=True, eq=False)
class SilhouetteSums:
    """Sums of each label ``(k,)``; ``a + b`` are the sums over the rows of both."""

    silhouette: Array
    """Σ w s."""
    simplified: Array
    """Σ w s of the simplified silhouette."""
    distance: Array
    """Σ w ‖x − m‖."""

    def __add__(self, other: SilhouetteSums) -> SilhouetteSums:
        return _added(self, other)


@dataclass(frozen=True, eq=False)
class SilhouettePass:
    """Makes the sums of the silhouettes, with the means and spreads of all rows; picklable."""

    model: AnyModel
    params: Any
    means: Array
    """Mean of each label ``(k, p)``, where rows are embedded."""
    spreads: Array
    """Mean squared distance from it ``(k,)``."""
    sizes: Array
    """Weight of each label ``(k,)``."""

    def __call__(self, rows: Rows) -> SilhouetteSums:
        """Label the rows of a block and add up their silhouettes.

        Parameters
        ----------
        rows
            Prepared rows ``(n, d)``.
        """
        labels, k = self.model.assign(self.params, rows).labels, len(self.sizes)
        sums = np.zeros((3, k))
        for start, stop, points in _embedded(self.model, self.params, rows):
            weights = np.ascontiguousarray(rows.weights[start:stop])
            kernels.add_silhouettes(
                points, labels[start:stop], weights, self.means, self.spreads, self.sizes, sums[0], sums[1], sums[2]
            )
        return SilhouetteSums(sums[0], sums[1], sums[2])


def embedded_centers(model: AnyModel, params: Any) -> Array:
    """Return the centers ``(k, p)`` where Euclidean distances are near the root of the model's divergence.

    Parameters
    ----------
    model, params
        A fitted model.
    """
    return np.ascontiguousarray(model.embed(params, params.origin + params.centers))


def silhouette_pass(model: AnyModel, params: Any, sums: PartitionSums) -> SilhouettePass:
    """Prepare the second read of a partition from the sums of the first.

    Parameters
    ----------
    model, params
        A fitted model.
    sums
        Sums of its partition over all rows.
    """
    means = embedded_centers(model, params) + sums.shift
    return SilhouettePass(model, params, means, sums.spread, sums.weight)


def _embedded(model: AnyModel, params: Any, rows: Rows) -> Iterator[tuple[int, int, Array]]:
    """Yield ``(start, stop, points)`` with the rows where they are compared, a sub-block at a time."""
    length = sub_block_rows(max(1, rows.values.shape[1]))
    for start in range(0, len(rows), length):
        stop = min(len(rows), start + length)
        points = model.embed(params, rows.values[start:stop])
        yield start, stop, np.ascontiguousarray(points, np.float64)


def _added(one: S, other: S) -> S:
    return type(one)(*(getattr(one, name) + getattr(other, name) for name in one.__dataclass_fields__))
