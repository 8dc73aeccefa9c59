"""The passes that are expected after a full read, by the near rows of the read before and rows of the row sample.

The near rows are known to the last one. Of the far rows, the sums at the waypoints are known, and sampled rows tell how
those of the nearest one change with the labels: each stands for its share of the rows. So only rows whose label is
another one there add to the error of an estimate. The variance of the sum of a cluster is that of drawing these rows
(Horvitz & Thompson 1952, doi:10.1080/01621459.1952.10483446), and a pass hands on a part of the error of the one
before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows, in_memory_rows
from clustering.models.course import Course, split_rows
from clustering.models.margins import FarRows, MarginStatistics, RowMargins

Array = NDArray[np.float64]
ForEach = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""Calls a function for each of some values, as ``map`` does."""

HANDED_ON = 0.5
"""Part of the error of a center that the next pass hands on."""
LEAST_ERROR = 1e-9
"""Least expected error of a center, as a part of the largest one, or of the largest distance from the origin."""
MOST_PARTS, LEAST_PART = 8, 2**12
"""Number of parts of the sampled rows that threads work on, at most, and the least number of rows of each."""


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

    def parts(self, most: int) -> list[SampledRows]:
        """Divide the rows into parts, which threads work on.

        Parameters
        ----------
        most
            Number of parts, at most.
        """
        step = max(LEAST_PART, -(-len(self.counts) // most))
        slices = [slice(start, start + step) for start in range(0, len(self.counts), step)]
        return [SampledRows(self.values[each], self.weights[each], self.counts[each]) for each in slices]

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


def expected_passes(
    now: MarginStatistics[Any], sample: SampledRows, before: LastRead | None, for_each: ForEach = map
) -> Iterator[ExpectedPass]:
    """Yield the present pass, and those that are expected to follow, until nothing changes or a cluster gets empty.

    Parameters
    ----------
    now
        Function of the present pass.
    sample
        Some of the rows.
    before
        The full read before; None for the first one, which is planned by the sampled rows alone.
    for_each
        Calls a function for each of some parts of the rows, such as the ``map`` of a pool of threads.
    """
    errors = np.zeros(len(now.points))
    yield ExpectedPass(now, errors)
    far = _SampledFarRows(sample, before, for_each)
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


class _SampledSums(NamedTuple):
    """Sums of sampled far rows as they are labelled in a pass; additive."""

    weight: Array
    """Σ w of each cluster ``(k,)``."""
    first: Array
    """Σ w (x − origin) of each cluster ``(k, d)``."""
    rows: NDArray[np.int64]
    """Number of rows of each cluster ``(k,)``."""
    squares: Array
    """Variance of each sum ``(k,)``."""
    changed: Array
    """The part of it that comes from rows whose label is another one at the waypoint, at both places ``(2, k)``."""


class _SampledPart:
    """Some of the sampled far rows."""

    def __init__(self, sample: SampledRows, before: LastRead | None) -> None:
        rows, counts = sample.standing, sample.counts
        if before is not None:
            far = ~split_rows(before.course, rows)[1]
            rows, counts = rows.select(far), counts[far]
        self.rows = rows
        # The part of each weight that is unsure: nothing, where a row stands for itself alone.
        self.unsure = np.square(rows.weights) * (1.0 - 1.0 / counts)
        self.at_waypoint: RowMargins | None = None

    def move(self, function: MarginStatistics[Any]) -> _SampledSums:
        """Label the rows at the waypoint that other passes are compared with."""
        self.at_waypoint = function.measure(self.rows)
        return self._sums(function, self.at_waypoint)

    def label(self, function: MarginStatistics[Any]) -> _SampledSums:
        """Label the rows in a pass."""
        return self._sums(function, function.measure(self.rows))

    def _sums(self, function: MarginStatistics[Any], measured: RowMargins) -> _SampledSums:
        sums, k = function.sum_far(self.rows, measured), len(function.points)
        changed = np.zeros((2, k))
        if self.at_waypoint is not None:
            others = measured.labels != self.at_waypoint.labels
            changed = np.array([self._squares(each, k, others) for each in (measured, self.at_waypoint)])
        rows = np.bincount(measured.labels, minlength=k)
        return _SampledSums(sums.weight, sums.first, rows, self._squares(measured, k), changed)

    def _squares(self, measured: RowMargins, k: int, chosen: NDArray[np.bool_] | slice = slice(None)) -> Array:
        squares = self.unsure[chosen] * np.square(measured.distances[chosen])
        return np.asarray(np.bincount(measured.labels[chosen], squares, minlength=k), np.float64)


class _SampledFarRows:
    """Estimates the sums of the far rows at other centers."""

    def __init__(self, sample: SampledRows, before: LastRead | None, for_each: ForEach) -> None:
        self.before, self.for_each = before, for_each
        self.parts = list(for_each(partial(_SampledPart, before=before), sample.parts(MOST_PARTS)))
        self.waypoint: tuple[int, _SampledSums] | None = None

    def estimate(self, now: MarginStatistics[Any]) -> tuple[FarRows, Array]:
        """Estimate the sums at the centers of a pass, and the length of the error of each sum ``(k,)``."""
        if self.before is None:
            alone = self._add_up(partial(_SampledPart.label, function=now))
            return _sums_alone(alone.weight, alone.first), np.sqrt(alone.squares)
        far, at = self._at_waypoint(self.before, now)
        sums = self._add_up(partial(_SampledPart.label, function=now))
        total = float(at.weight.sum())
        scale = float(far.weight.sum()) / total if total > 0.0 else 0.0
        error = np.sqrt(sums.changed.sum(axis=0))
        # What no sampled row has shown is taken to be less than the share of one row.
        one = np.sqrt(sums.squares / np.maximum(1, sums.rows))
        weight = far.weight + scale * (sums.weight - at.weight)
        first = far.first + scale * (sums.first - at.first)
        return _sums_alone(weight, first), scale * np.maximum(error, np.maximum(one, LEAST_ERROR * one.max()))

    def _at_waypoint(self, before: LastRead, now: MarginStatistics[Any]) -> tuple[FarRows, _SampledSums]:
        """Return the sums at the waypoint whose centers are the nearest to those of a pass, of all and sampled rows."""
        number = before.course.nearest_waypoint(now)
        if self.waypoint is None or self.waypoint[0] != number:
            move = partial(_SampledPart.move, function=before.course.functions[number])
            self.waypoint = number, self._add_up(move)
        return before.steady + before.moving[number], self.waypoint[1]

    def _add_up(self, sums: Callable[[_SampledPart], _SampledSums]) -> _SampledSums:
        """Make the sums of all parts, and add them up, always in the same order."""
        return _SampledSums(*(reduce(add, each) for each in zip(*self.for_each(sums, self.parts), strict=True)))


def _sums_alone(weight: Array, first: Array) -> FarRows:
    """Return sums of far rows without cost and radius, which no update asks for."""
    nothing = np.zeros(len(weight))
    return FarRows(weight, first, nothing, nothing, 0, 0)
