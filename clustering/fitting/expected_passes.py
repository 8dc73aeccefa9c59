"""The passes that are expected after a full read, by the near rows of the read before and rows of the row sample.

The near rows are known to the last one. Of the far rows, the sums at the waypoints are known, and sampled rows tell how
those of the nearest one change with the labels: each stands for its share of the rows. So only rows whose label is
another one there add to the error of an estimate. The variance of the sum of a cluster is that of drawing these rows
(Horvitz & Thompson 1952, doi:10.1080/01621459.1952.10483446), and a pass hands on a part of the error of the one
before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows, in_memory_rows
from clustering.models.course import Course, split_rows
from clustering.models.margins import FarRows, MarginStatistics, RowMargins

Array = NDArray[np.float64]

HANDED_ON = 0.5
"""Part of the error of a center that the next pass hands on."""
LEAST_ERROR = 1e-9
"""Least expected error of a center, as a part of the largest one, or of the largest distance from the origin."""


class SampledRows(NamedTuple):
    """Some of the rows, by which full reads are planned."""

    values: NDArray[Any]
    """Prepared rows ``(m, d)`` without missing features."""
    weights: Array
    """Own weights ``(m,)``."""
    counts: Array
    """Number of rows that each stands for ``(m,)``."""

    @property
    def standing(self) -> Rows:
        """The rows with the weights of all that they stand for."""
        return in_memory_rows(self.values, self.weights * self.counts)

    def every(self, step: int) -> SampledRows:
        """Return fewer rows, which are spread evenly over these.

        Parameters
        ----------
        step
            One of so many rows is returned.
        """
        return SampledRows(self.values[::step], self.weights[::step], self.counts[::step])


class ExpectedPass(NamedTuple):
    """A pass that is expected."""

    function: MarginStatistics[Any]
    errors: Array
    """Standard error of the place of each center ``(k,)``, in the metric."""


@dataclass(frozen=True)
class LastRead:
    """What the full read before says of the rows."""

    course: Course[Any]
    steady: FarRows
    moving: tuple[FarRows, ...]
    near: Callable[[MarginStatistics[Any]], Any]
    """Makes the statistics of the near rows in a pass."""


def expected_passes(now: MarginStatistics[Any], sample: SampledRows, before: LastRead | None) -> Iterator[ExpectedPass]:
    """Yield the present pass, and those that are expected to follow, until nothing changes or a cluster gets empty.

    Parameters
    ----------
    now
        Function of the present pass.
    sample
        Some of the rows.
    before
        The full read before; None for the first one, which is planned by the sampled rows alone.
    """
    errors = np.zeros(len(now.points))
    yield ExpectedPass(now, errors)
    far = _SampledFarRows(sample, before)
    while True:
        sums, own = far.estimate(now)
        statistics = now.far_statistics(sums, now)
        if before is not None:
            statistics = statistics + before.near(now)
        weight = statistics.sums["weight"]
        if not (weight > 0.0).all():
            return
        now, last = now.model.for_pass(now.model.update(now.params, statistics).params), now
        errors = own / weight + HANDED_ON * errors
        reach = float(np.linalg.norm(now.points, axis=1).max())
        errors = np.maximum(errors, LEAST_ERROR * max(reach, float(errors.max()), LEAST_ERROR))
        yield ExpectedPass(now, errors)
        if np.array_equal(last.points, now.points):
            return


class _SampledWaypoint(NamedTuple):
    """The far rows at a waypoint of the last read, all and sampled."""

    number: int
    """Number of the waypoint."""
    far: FarRows
    """Sums of all of them."""
    labelled: RowMargins
    """Labels of the sampled ones."""
    sampled: FarRows
    """Sums of the sampled ones."""


class _SampledFarRows:
    """Estimates the sums of the far rows at other centers."""

    def __init__(self, sample: SampledRows, before: LastRead | None) -> None:
        rows, counts = sample.standing, sample.counts
        self.before = before
        if before is not None:
            far = ~split_rows(before.course, rows)[1]
            rows, counts = rows.select(far), counts[far]
        self.rows = rows
        self.waypoint: _SampledWaypoint | None = None
        # The part of each weight that is unsure: nothing, where a row stands for itself alone.
        self.unsure = np.square(rows.weights) * (1.0 - 1.0 / counts)

    def estimate(self, now: MarginStatistics[Any]) -> tuple[FarRows, Array]:
        """Estimate the sums at the centers of a pass, and the length of the error of each sum ``(k,)``."""
        measured = now.measure(self.rows)
        sums = now.sum_far(self.rows, measured)
        k = len(now.points)
        if self.before is None:
            return _sums_alone(sums.weight, sums.first), self._error(measured, k)
        at = self._waypoint(self.before, now)
        total = float(at.sampled.weight.sum())
        scale = float(at.far.weight.sum()) / total if total > 0.0 else 0.0
        changed = measured.labels != at.labelled.labels
        error = np.hypot(self._error(measured, k, changed), self._error(at.labelled, k, changed))
        # What no sampled row has shown is taken to be less than the share of one row.
        one = self._error(measured, k) / np.sqrt(np.maximum(1, np.bincount(measured.labels, minlength=k)))
        weight = at.far.weight + scale * (sums.weight - at.sampled.weight)
        first = at.far.first + scale * (sums.first - at.sampled.first)
        return _sums_alone(weight, first), scale * np.maximum(error, np.maximum(one, LEAST_ERROR * one.max()))

    def _waypoint(self, before: LastRead, now: MarginStatistics[Any]) -> _SampledWaypoint:
        """Return what is known at the waypoint whose centers are the nearest to those of a pass."""
        number = before.course.nearest_waypoint(now)
        if self.waypoint is None or self.waypoint.number != number:
            function = before.course.functions[number]
            labelled = function.measure(self.rows)
            far = before.steady + before.moving[number]
            self.waypoint = _SampledWaypoint(number, far, labelled, function.sum_far(self.rows, labelled))
        return self.waypoint

    def _error(self, measured: RowMargins, k: int, chosen: NDArray[np.bool_] | slice = slice(None)) -> Array:
        squares = self.unsure[chosen] * np.square(measured.distances[chosen])
        return np.sqrt(np.bincount(measured.labels[chosen], squares, minlength=k))


def _sums_alone(weight: Array, first: Array) -> FarRows:
    """Return sums of far rows without cost and radius, which no update asks for."""
    nothing = np.zeros(len(weight))
    return FarRows(weight, first, nothing, nothing, 0, 0)
