"""A course: the centers that are expected in the passes after a full read, and which rows have known labels at each.

The passes to come are at separate places, the waypoints, and between two of them no label matters. So a row is far
along a course if, at each waypoint, its label stays the same wherever every center is within its budget of that
waypoint. The label may be another one at the next waypoint. Far rows whose label never changes are summed up once, and
the others once for each waypoint. A pass may use the sums of a waypoint if no center is farther from it than allowed.

With the budgets β of one waypoint, a row at the distances d from its centers keeps the label a if

    d(x, j) − β_j > d(x, a) + β_a    for all j ≠ a,

as no distance changes by more than its center strays (`clustering.models.margins`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.models.margins import FarRows, MarginStatistics, RowMargins, farthest_other, within_budgets
from clustering.models.model import Statistics

Array = NDArray[np.float64]
S = TypeVar("S", bound=Statistics)

ROWS_AT_ONCE = 2**15
"""Rows that are followed along a course together, as the margins at all waypoints are held in memory."""


@dataclass(frozen=True, eq=False)
class Course(Generic[S]):
    """Expected passes, and how far their centers may stray; picklable."""

    functions: tuple[MarginStatistics[S], ...]
    """Functions of the pass at the waypoints; the first is that of the full read."""
    budgets: Array
    """How far each center may be from each waypoint ``(number of waypoints, k)``."""


@dataclass(frozen=True, eq=False)
class CourseStatistics(Generic[S]):
    """Additive outcome of a pass that splits rows along a course."""

    statistics: S
    """Statistics of all rows, with the bits of a pass that splits none."""
    steady: FarRows
    """Far rows with one label along the whole course, with costs and radii at the first waypoint."""
    moving: tuple[FarRows, ...]
    """The other far rows, as they are at each waypoint."""

    def __add__(self, other: CourseStatistics[S]) -> CourseStatistics[S]:
        moving = tuple(a + b for a, b in zip(self.moving, other.moving, strict=True))
        return CourseStatistics(self.statistics + other.statistics, self.steady + other.steady, moving)


def split_rows(course: Course[S], rows: Rows) -> tuple[CourseStatistics[S], NDArray[np.bool_]]:
    """Make the statistics of one block, and split its rows along a course.

    Parameters
    ----------
    course
        The course; its first function makes the statistics.
    rows
        Rows of the block ``(n, d)``.

    Returns
    -------
    CourseStatistics
        Statistics of all rows and of the far ones.
    ndarray
        Whether each row is near a boundary at some waypoint ``(n,)``; rows with missing features are.
    """
    now = course.functions[0]
    # Rows of so large a margin that nothing along the course uses it up need no second look.
    most = np.max([now.drift(each) + own for each, own in zip(course.functions, course.budgets, strict=True)], axis=0)
    wide = most + farthest_other(most)
    split, measured = now.split(rows, wide)
    near = ~(measured.margins > wide[measured.labels])
    looked = np.flatnonzero(near if rows.has_missing is None else near & ~rows.has_missing)
    steady: list[FarRows] = [replace(split.far, near=0)]
    moving: list[tuple[FarRows, ...]] = []
    for start in range(0, max(1, len(looked)), ROWS_AT_ONCE):
        chosen = np.zeros(len(rows), np.bool_)
        chosen[looked[start : start + ROWS_AT_ONCE]] = True
        far, still, changing = _follow(course, rows.select(chosen), measured.select(chosen), most)
        near[looked[start : start + ROWS_AT_ONCE][far]] = False
        steady.append(still)
        moving.append(changing)
    made = replace(reduce(add, steady), near=int(near.sum()))
    sums = tuple(reduce(add, parts) for parts in zip(*moving, strict=True))
    return CourseStatistics(split.statistics, made, sums), near


def _follow(
    course: Course[S], rows: Rows, first: RowMargins, most: Array
) -> tuple[NDArray[np.bool_], FarRows, tuple[FarRows, ...]]:
    """Find far rows, and add up those with one label along the course, and the others at each waypoint."""
    now = course.functions[0]
    # One look at the first waypoint shows most of the rows that keep their label along the whole course.
    steady = now.stays(rows, first, most)
    index = np.flatnonzero(~steady)
    part, at = rows.select(~steady), [first.select(~steady)] * len(course.functions)
    far = np.ones(len(part), np.bool_)
    # Budgets are largest at the last waypoint, where most of the near rows are found.
    for i in reversed(range(len(course.functions))):
        function = course.functions[i]
        at[i] = function.measure(part) if i > 0 else at[i]
        far &= function.stays(part, at[i], course.budgets[i])
        if i == len(at) - 1 and not far.all():
            part, at, index, far = part.select(far), [each.select(far) for each in at], index[far], far[far]
    same = far & np.all([each.labels == at[0].labels for each in at], axis=0)
    changing = far & ~same
    moving = tuple(
        function.sum_far(part.select(changing), each.select(changing))
        for function, each in zip(course.functions, at, strict=True)
    )
    steady[index[same]] = True
    sums = now.sum_far(rows.select(steady), first.select(steady))
    steady[index[changing]] = True
    return steady, sums, moving


def find_waypoint(
    course: Course[Any], steady: FarRows, moving: Sequence[FarRows], now: MarginStatistics[Any]
) -> int | None:
    """Find a waypoint at which all far rows have the labels that they have in another pass.

    Parameters
    ----------
    course
        The course of a full read.
    steady, moving
        Its far rows.
    now
        The function of the other pass.

    Returns
    -------
    int or None
        Number of the waypoint; None where a label of a far row may be another one.
    """
    start = course.functions[0]
    for i in reversed(range(len(course.functions))):
        function = course.functions[i]
        radius = np.maximum(steady.radius + start.drift(function), moving[i].radius)
        if within_budgets(function.points, course.budgets[i], radius, function.drift(now)):
            return i
    return None


def far_statistics(
    course: Course[S], steady: FarRows, moving: Sequence[FarRows], waypoint: int, now: MarginStatistics[S]
) -> S:
    """Make the statistics of the far rows in another pass.

    Parameters
    ----------
    course
        The course of a full read.
    steady, moving
        Its far rows.
    waypoint
        Number of a waypoint at which they have the labels of the other pass.
    now
        The function of the other pass.
    """
    first, at = course.functions[0], course.functions[waypoint]
    return first.far_statistics(steady, now) + at.far_statistics(moving[waypoint], now)
