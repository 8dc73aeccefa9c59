"""Rows are followed along a course by products of matrices: their scores by all centers of a waypoint, in float32.

A score is as close to the squared distance as its rounding bound says, so that it gives a lower bound of the distance.
The distance from the nearest center alone is computed in float64, and those of a row whose scores are too rough. Scores
decide which rows are known to be far, and no label.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.blas import one_blas_thread
from clustering.models import course_kernels as kernels
from clustering.models.assignment import aligned_empty, rounding_bound
from clustering.models.course_kernels import MOVING, STEADY, CourseBounds
from clustering.models.lanes import NARROW
from clustering.models.margins import farthest_other

Array = NDArray[np.float64]
Singles = NDArray[np.float32]

SCORE_BYTES = 2**18
"""Size of the scores that are made together, in bytes, so that they stay in the cache."""
SCALES = 1e-150, 1e150
"""Scales between which squares and what they are divided by stay in float64."""
FEWEST_FEATURES = 8
"""With fewer features, distances from the neighbouring centers cost less than scores of all."""


class ScoredWaypoint(NamedTuple):
    """The centers at a waypoint, scaled by a power of two so that squares stay in float32."""

    slopes: Singles
    """−2 c ``(k, p)``."""
    offsets: Singles
    """‖c‖² ``(k,)``."""
    budgets: Singles
    """How far each center may stray ``(k,)``."""
    names: Singles
    """Indices of the centers ``(k,)``."""
    reach: np.float32
    """The largest ‖c‖."""
    most: np.float32
    """The largest budget."""
    relative: np.float32
    """Bound of the rounding of a squared distance, relative to (‖x‖ + reach)²."""
    absolute: np.float32
    """Absolute part of that bound, for numbers that underflow."""
    limit: np.float32
    """Beyond this (‖x‖ + reach)² a score may have overflowed."""
    unscale: float
    """Factor that turns scaled lengths into those of the rows."""


class ScoredCourse(NamedTuple):
    """The waypoints of a course, as rows are scored by them."""

    scale: float
    """Power of two that rows are multiplied by."""
    waypoints: tuple[ScoredWaypoint, ...]
    """One for each waypoint."""


def score_course(points: Array, budgets: Array) -> ScoredCourse | None:
    """Prepare the waypoints of a course for scores; None where rows are to be compared by distances.

    Parameters
    ----------
    points
        Centers at all waypoints ``(w, k, p)``.
    budgets
        How far each may stray ``(w, k)``.
    """
    scale = float(np.ldexp(1.0, -int(np.clip(np.frexp(np.abs(points).max())[1], -1000, 1000))))
    _, k, p = points.shape
    if p < FEWEST_FEATURES or not SCALES[0] < scale < SCALES[1]:
        return None
    relative, absolute = rounding_bound(p)
    names = np.arange(k, dtype=np.float32)
    made = []
    with np.errstate(over="ignore"):
        for centers, lengths in zip(scale * points, (scale * budgets).astype(np.float32), strict=True):
            offsets = np.add.accumulate(centers * centers, axis=1)[:, -1]
            made.append(
                ScoredWaypoint(
                    slopes=(-2.0 * centers).astype(np.float32),
                    offsets=offsets.astype(np.float32),
                    budgets=lengths,
                    names=names,
                    # A little more for the rounding of the bounds themselves.
                    reach=np.float32(1.001 * np.sqrt(offsets.max())),
                    most=np.float32(lengths.max()),
                    relative=np.float32(1.01 * relative),
                    absolute=np.float32(absolute),
                    limit=np.float32(float(np.finfo(np.float32).max) / 16),
                    unscale=1.0 / scale,
                )
            )
    return ScoredCourse(scale, tuple(made))


class Followed(NamedTuple):
    """What is known of rows at a waypoint, from the last one to the first."""

    labels: NDArray[np.int32]
    """Label of each row ``(m,)``."""
    rooms: Array
    """How much farther than its label asks for all other centers are ``(m,)``."""
    waits: NDArray[np.bool_]
    """Whether the row has to be followed on ``(m,)``; otherwise its kind is known."""


def follow_by_scores(
    rows: Array,
    first: tuple[NDArray[np.int32], Array, Array],
    course: ScoredCourse,
    bounds: CourseBounds,
    out: tuple[NDArray[np.int32], Array, NDArray[np.int8]],
) -> None:
    """Label rows at all waypoints of a course, as long as they are far from every boundary.

    Parameters
    ----------
    rows
        Rows ``(m, p)`` in the space of the points.
    first
        What is known of them at the first waypoint: labels, distances and margins ``(m,)``.
    course
        The waypoints, as rows are scored by them.
    bounds
        What is known of the course before any row is seen.
    out
        Labels of moving rows at all waypoints ``(m, w)``, their distances from these centers, and the kinds of all rows
        ``(m,)``: near, steady or moving.
    """
    labels, distances, kinds = out
    kinds.fill(STEADY)
    followed = Followed(first[0].copy(), np.full(len(rows), -np.inf), np.ones(len(rows), np.bool_))
    scorer = _Scorer(rows, course, bounds)
    # Margins are rooms without budgets.
    at_first = first[2] - (bounds.budgets[0] + farthest_other(bounds.budgets[0]))[first[0]]
    # Budgets grow along a course, so that most of the near rows are found before the first waypoints.
    for i in range(len(bounds.points) - 1, -1, -1):
        count = kernels.take_losses(
            bounds.losses[i], first[0], at_first if i == 0 else at_first[:0], *followed, scorer.chosen
        )
        scorer.find_rooms(count, i, followed)
        kernels.tell_kinds(i, first[0], bounds.ahead[i], *followed, labels, kinds)
    kernels.measure_moving(rows, bounds.points, labels, distances, kinds == MOVING)


class _Scorer:
    """Compares chosen rows with the centers of a waypoint."""

    def __init__(self, rows: Array, course: ScoredCourse, bounds: CourseBounds) -> None:
        self.rows, self.course, self.bounds = rows, course, bounds
        m, (_, k, p) = len(rows), bounds.points.shape
        # Whole vectors of rows: the last row fills them up.
        self.chosen = np.empty(m + NARROW, np.int32)
        most = max(NARROW, min(len(self.chosen), SCORE_BYTES // (4 * k)) // NARROW * NARROW)
        self.at_once = most
        self.singles, self.norms = aligned_empty((m, p), np.float32), np.empty(m, np.float32)
        self.gathered, self.scores = aligned_empty((most, p), np.float32), aligned_empty((k * most,), np.float32)
        self.best = aligned_empty((4 * most,), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(rows, course.scale, out=self.singles, casting="same_kind")
            np.einsum("mp,mp->m", self.singles, self.singles, out=self.norms)

    def find_rooms(self, count: int, i: int, followed: Followed) -> None:
        """Find the labels and rooms of the chosen rows at waypoint `i`."""
        waypoint, bounds = self.course.waypoints[i], self.bounds
        for start in range(0, count, self.at_once):
            m = min(self.at_once, count - start)
            chosen = self.chosen[start : start + -(-m // NARROW) * NARROW]
            chosen[m:] = chosen[m - 1]
            self._score(chosen, waypoint.slopes)
            kernels.find_rooms(
                self.scores, chosen, m, self.norms, self.rows, waypoint, bounds.points[i],
                bounds.budgets[i], (bounds.reach, bounds.order, bounds.apart), self.best, *followed[:2],
            )  # fmt: skip

    def _score(self, chosen: NDArray[np.int32], slopes: Singles) -> None:
        """Multiply some rows by all centers."""
        gathered = self.gathered[: len(chosen)]
        # Indices are in range, and without a check NumPy needs no buffer.
        np.take(self.singles, chosen, axis=0, out=gathered, mode="clip")
        # One thread, as the number of BLAS threads changes the order of sums.
        with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
            np.matmul(slopes, gathered.T, out=self.scores[: len(slopes) * len(chosen)].reshape(len(slopes), -1))
