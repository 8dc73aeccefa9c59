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
from functools import cached_property
from itertools import pairwise
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.models import course_kernels
from clustering.models.assignment import sub_block_rows
from clustering.models.course_kernels import CourseBounds
from clustering.models.course_scores import ScoredCourse, follow_memory, score_course
from clustering.models.far_sums import FarSums
from clustering.models.margin_kernels import SLACK
from clustering.models.margins import FarRows, MarginStatistics, RowMargins, farthest_other, within_budgets
from clustering.models.model import Statistics
from clustering.models.neighbouring_centers import neighbouring_centers

Array = NDArray[np.float64]
S = TypeVar("S", bound=Statistics)


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

    @cached_property
    def wide(self) -> Array:
        """Margins ``(k,)`` so large that nothing along the course uses them up, so that rows need no second look."""
        most: Array = self.astray.max(axis=0)
        return most + farthest_other(most)

    def nearest_waypoint(self, now: MarginStatistics[S]) -> int:
        """Return the number of the waypoint whose centers are the nearest to those of another pass.

        Parameters
        ----------
        now
            The function of the other pass.
        """
        return int(np.argmin([np.linalg.norm(each.points - now.points) for each in self.functions]))

    @cached_property
    def scored(self) -> ScoredCourse:
        """The waypoints, as rows are scored by them."""
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
        allowance = self.budgets[0] + farthest_other(self.budgets[0])
        astray, reach = self.astray.max(axis=0), float(np.linalg.norm(points, axis=2).max())
        away = np.array([self.functions[0].drift(each) for each in self.functions]).max(axis=0)
        neighbours = neighbouring_centers(points[0], away, astray)
        return CourseBounds(points, self.budgets, allowance, losses, ahead, reach, *neighbours)


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
    split, measured = now.split(rows, course.wide)
    near = ~(measured.margins > course.wide[measured.labels])
    sums = FarSums(split.far.first.shape, len(course.functions), now.factor)
    if rows.has_missing is None:
        _follow(course, rows, measured, near, sums)
    else:
        complete = ~rows.has_missing
        left = near[complete]
        _follow(course, rows.select(complete), measured.select(complete), left, sums)
        near[complete] = left
    steady = replace(split.far + sums.steady, near=int(near.sum()))
    return CourseStatistics(split.statistics, steady, sums.moving), near


def _follow(course: Course[S], rows: Rows, first: RowMargins, near: NDArray[np.bool_], sums: FarSums) -> None:
    """Follow the near rows of a block along a course; add up those that are far after all, which are near no more."""
    w = len(course.functions)
    most = min(len(rows), sub_block_rows(rows.values.shape[1]))
    memory = follow_memory(course.bounds.points.shape[2])
    labels, distances, kinds = np.empty((most, w), np.int32), np.empty((most, w)), np.empty(most, np.int8)
    for start, stop, points, part in course.functions[0].mapped(rows):
        some, m = slice(start, stop), stop - start
        own, out = first.select(some), (labels[:m], distances[:m], kinds[:m])
        course_kernels.follow(points, own.labels, own.margins, course.scored, course.bounds, memory, near[some], *out)
        sums.add(part, rows.weights[some], own, *out)


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
