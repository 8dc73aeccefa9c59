"""Sums of far rows: of those with one label along a course, and at each of its waypoints of those with several."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clustering.compiling import INNER, njit
from clustering.models.course_kernels import MOVING, STEADY
from clustering.models.kernels import BARE
from clustering.models.margins import FarRows, RowMargins

Array = NDArray[np.float64]


class FarSums:
    """Adds up far rows, some at a time.

    Parameters
    ----------
    shape
        Number of clusters, and of features.
    n_waypoints
        Number of waypoints at which the rows that change their label are added up.
    factor
        Divergence of two rows, per unit of their squared distance in the metric.
    """

    def __init__(self, shape: tuple[int, ...], n_waypoints: int, factor: float) -> None:
        self.factor, self.counts = factor, np.zeros(2, np.int64)
        self.weight, self.cost, self.radius = np.zeros((3, n_waypoints + 1, shape[0]))
        self.first = np.zeros((n_waypoints + 1, *shape))

    def add(
        self,
        rows: Array,
        weights: Array,
        own: RowMargins,
        labels: NDArray[np.int32],
        distances: Array,
        kinds: NDArray[np.int8],
    ) -> None:
        """Add rows that were followed along a course.

        Parameters
        ----------
        rows, weights
            Rows less the origin ``(m, d)``, and their weights ``(m,)``.
        own
            Their labels and distances at the first waypoint.
        labels, distances
            Labels of moving rows at all waypoints ``(m, w)``, and their distances there.
        kinds
            Kinds of the rows ``(m,)``; only steady and moving ones count.
        """
        _add_followed(
            rows, np.ascontiguousarray(weights), own.labels, own.distances, labels, distances, kinds,
            self.factor, self.counts, self.weight, self.first, self.cost, self.radius,
        )  # fmt: skip

    def add_steady(self, rows: Array, weights: Array, own: RowMargins) -> None:
        """Add rows that all have one label.

        Parameters
        ----------
        rows, weights, own
            As in `add`.
        """
        kinds = np.full(len(rows), STEADY, np.int8)
        self.add(rows, weights, own, np.empty((len(rows), 0), np.int32), np.empty((len(rows), 0)), kinds)

    @property
    def steady(self) -> FarRows:
        """The rows with one label."""
        return self._made(0, int(self.counts[0]))

    @property
    def moving(self) -> tuple[FarRows, ...]:
        """The other rows, as they are at each waypoint."""
        return tuple(self._made(i, int(self.counts[1])) for i in range(1, len(self.weight)))

    def _made(self, i: int, count: int) -> FarRows:
        return FarRows(self.weight[i], self.first[i], self.cost[i], self.radius[i], count, 0)


@njit(**INNER, **BARE)
def _add_row(row, w, label, own, factor, i, weight, first, cost, radius):  # type: ignore[no-untyped-def]
    """Add a row to the sums `i` of its label."""
    weight[i, label] += w
    cost[i, label] += w * factor * own * own
    radius[i, label] = max(radius[i, label], own)
    sums = first[i, label]
    for j in range(row.shape[0]):
        sums[j] += w * row[j]


@njit(**BARE)
def _add_followed(  # type: ignore[no-untyped-def]
    rows, weights, first_labels, own, labels, distances, kinds, factor, counts, weight, first, cost, radius
):
    """Add steady rows to the first sums, and moving ones to those of each waypoint."""
    for r in range(rows.shape[0]):
        if kinds[r] == STEADY:
            counts[0] += 1
            _add_row(rows[r], weights[r], first_labels[r], own[r], factor, 0, weight, first, cost, radius)
        elif kinds[r] == MOVING:
            counts[1] += 1
            for i in range(labels.shape[1]):
                _add_row(rows[r], weights[r], labels[r, i], distances[r, i], factor, i + 1, weight, first, cost, radius)
