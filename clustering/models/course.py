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
from functools import cached_property, reduce
from itertools import pairwise
from operator import add
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.models import course_kernels
from clustering.models.course_kernels import CourseBounds
from clustering.models.course_scores import ScoredCourse, follow_by_scores, score_course
from clustering.models.margin_kernels import SLACK
from clustering.models.margins import FarRows, MarginStatistics, RowMargins, farthest_other, within_budgets
from clustering.models.model import Statistics
from clustering.models.neighbouring_centers import neighbouring_centers

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

    @cached_property
    def astray(self) -> Array:
        """How far each center may be from its place in the full read at each waypoint ``(number of waypoints, k)``."""
        now = self.functions[0]
        return np.array([now.drift(each) + own for each, own in zip(self.functions, self.budgets, strict=True)])

    def nearest_waypoint(self, now: MarginStatistics[S]) -> int:
        """Return the number of the waypoint whose centers are the nearest to those of another pass.

        Parameters
        ----------
        now
            The function of the other pass.
        """
        return int(np.argmin([np.linalg.norm(each.points - now.points) for each in self.functions]))

    @cached_property
    def scored(self) -> ScoredCourse | None:
        """The waypoints, as rows are scored by them; None where rows are compared by distances."""
        return score_course(self.bounds.points, self.budgets)

    @cached_property
    def bounds(self) -> CourseBounds:
        """What the kernel needs to follow rows."""
        points = np.array([each.points for each in self.functions])
        drift = np.array([a.drift(b) for a, b in pairwise(self.functions)]).reshape(-1, points.shape[1])
        # A little more for the slack that distances are lessened by.
        drift = drift * (1.0 + 2.0 * SLACK) - np.diff(self.budgets, axis=0)
        losses = np.zeros_like(points[:, :, 0])
        for i, each in enumerate(drift):
            losses[i] = each + farthest_other(each)
        # Most that is lost on the way to any waypoint before: nothing, or so much more than to the next one.
        ahead = np.zeros_like(losses)
        for i in range(1, len(points)):
            ahead[i] = losses[i - 1] + np.maximum(0.0, ahead[i - 1])
        astray, reach = self.astray.max(axis=0), float(np.linalg.norm(points, axis=2).max())
        away = np.array([self.functions[0].drift(each) for each in self.functions]).max(axis=0)
        neighbours = neighbouring_centers(points[0], away, astray)
        return CourseBounds(points, self.budgets, astray, losses, ahead, reach, *neighbours)


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
    most = course.astray.max(axis=0)
    wide = most + farthest_other(most)
    split, measured = now.split(rows, wide)
    near = ~(measured.margins > wide[measured.labels])
    looked = np.flatnonzero(near if rows.has_missing is None else near & ~rows.has_missing)
    steady: list[FarRows] = [replace(split.far, near=0)]
    moving: list[tuple[FarRows, ...]] = []
    for start in range(0, max(1, len(looked)), ROWS_AT_ONCE):
        chosen = np.zeros(len(rows), np.bool_)
        chosen[looked[start : start + ROWS_AT_ONCE]] = True
        far, still, changing = _follow(course, rows.select(chosen), measured.select(chosen))
        near[looked[start : start + ROWS_AT_ONCE][far]] = False
        steady.append(still)
        moving.append(changing)
    made = replace(reduce(add, steady), near=int(near.sum()))
    sums = tuple(reduce(add, parts) for parts in zip(*moving, strict=True))
    return CourseStatistics(split.statistics, made, sums), near


def _follow(course: Course[S], rows: Rows, first: RowMargins) -> tuple[NDArray[np.bool_], FarRows, tuple[FarRows, ...]]:
    """Find far rows, and add up those with one label along the course, and the others at each waypoint."""
    shape = len(rows), len(course.functions)
    labels, distances, kinds = np.empty(shape, np.int32), np.empty(shape), np.empty(len(rows), np.int8)
    for start, stop, mapped in course.functions[0].mapped(rows):
        part = slice(start, stop)
        measured, out = first.select(part), (labels[part], distances[part], kinds[part])
        if course.scored is None:
            course_kernels.follow(mapped, *measured, *course.bounds, *out)
        else:
            follow_by_scores(mapped, measured, course.scored, course.bounds, out)
    steady, moving = kinds == course_kernels.STEADY, kinds == course_kernels.MOVING
    changing, by_label, by_distance = rows.select(moving), labels[moving].T, distances[moving].T
    sums = tuple(
        function.sum_far(changing, RowMargins(np.ascontiguousarray(a), np.ascontiguousarray(b), np.empty(0)))
        for function, a, b in zip(course.functions, by_label, by_distance, strict=True)
    )
    return steady | moving, course.functions[0].sum_far(rows.select(steady), first.select(steady)), sums


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
