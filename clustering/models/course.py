"""A course: where the centers are expected to go, and which rows keep their labels along it.

A full read splits rows by their margins at the present centers. Where these move far in a direction that is known
ahead, margins are measured at a few further points of their way too, the waypoints. Between two waypoints all centers
move evenly along straight lines. At the part s of the way, with e = d(x, j) and d = d(x, a) at both ends,

    d(x, a) ≤ (1 − s) d₀ + s d₁,    d(x, j)² = (1 − s) e₀² + s e₁² − s (1 − s) ‖v‖²,

where v is the way of center j. So d(x, j) is at least (1 − s) e₀ + s e₁ less s (1 − s) ‖v‖² over that mean, and a row
that has the label a and the margins m₀ and m₁ at the ends has nowhere between a margin below

    min(m₀, m₁) − max ‖v‖² / (4 min(e₀, e₁)).

The second term is small: of second order in the way. A row whose bound exceeds the budget of its cluster keeps its
label as long as no center strays from the course by more than the budget, as for a drift from a single place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.models.margins import (
    ROUNDED_UP,
    MarginStatistics,
    RowMargins,
    SplitStatistics,
    farthest_other,
    within_budgets,
)
from clustering.models.model import Statistics

Array = NDArray[np.float64]
S = TypeVar("S", bound=Statistics)


def least_margins(course: Sequence[MarginStatistics[Any]], measured: Sequence[RowMargins]) -> Array:
    """Bound the margins of rows from below along a course ``(n,)``; −∞ for rows that change their label.

    Parameters
    ----------
    course
        Functions of the pass at the waypoints, in order.
    measured
        Margins of the rows at each of them.
    """
    labels, least = measured[0].labels, measured[0].margins
    for (a, b), (before, after) in zip(pairwise(course), pairwise(measured), strict=True):
        way = farthest_other(a.drift(b))[labels]
        # Where two centers meet at a row, the bound is below 0 by the rounding, and the bend must not turn its sign.
        nearest_other = np.maximum(0.0, np.minimum(before.others, after.others))
        with np.errstate(divide="ignore", invalid="ignore"):
            bend = np.square(way) / (4.0 * nearest_other)
            bound = np.minimum(before.margins, after.margins) - bend
        least = np.where(after.labels == labels, np.minimum(least, bound), -np.inf)
    # What is no number is no margin: a distance beyond float64, or a row at its center and another one.
    return np.nan_to_num(least, nan=-np.inf, posinf=np.inf, neginf=-np.inf)


def split_rows(
    course: Sequence[MarginStatistics[S]], rows: Rows, budgets: Array
) -> tuple[SplitStatistics[S], NDArray[np.bool_]]:
    """Make the statistics of one block, and split its rows by their margins along a course.

    Parameters
    ----------
    course
        Functions of the pass at the waypoints; the first makes the statistics.
    rows
        Rows of the block ``(n, d)``.
    budgets
        Margin above which a row of each cluster is far from every boundary ``(k,)``.

    Returns
    -------
    SplitStatistics
        Statistics of all rows and of the far ones.
    ndarray
        Whether each row is near a boundary ``(n,)``; rows with missing features are.
    """
    now, *later = course
    # Rows of so large a margin that no way along the course uses it up need no second look.
    most = np.max([now.drift(waypoint) for waypoint in course], axis=0)
    wide = budgets + most + farthest_other(most) if later else budgets
    split, measured = now.split(rows, wide)
    near = ~(measured.margins > wide[measured.labels])
    if not later:
        return split, near
    looked = near if rows.has_missing is None else near & ~rows.has_missing
    part, first = rows.select(looked), measured.select(looked)
    bound = least_margins(course, [first, *(waypoint.measure(part) for waypoint in later)])
    holds = bound > budgets[first.labels]
    far = split.far + now.sum_far(part.select(holds), first.select(holds))
    near[np.flatnonzero(looked)[holds]] = False
    return SplitStatistics(split.statistics, replace(far, near=int(near.sum()))), near


def within_course(
    points: Sequence[Array], budgets: Array, radius: Array, now: Array, doubt: Array | float = 0.0
) -> bool:
    """Return whether all far rows have the same labels at other centers.

    Parameters
    ----------
    points
        Centers ``(k, p)`` at the waypoints, as `MarginStatistics.points` gives them.
    budgets
        Margin above which a row of each cluster is far ``(k,)``.
    radius
        The largest distance of a far row from its center at the first waypoint ``(k,)``.
    now
        The other centers ``(k, p)``.
    doubt
        How far these may be from their true places ``(k,)``; 0 where they are known.
    """
    drift = _lengths(now - points[0]) + doubt
    return any(
        within_budgets(points[0], budgets, radius, drift, _lengths(now - place) + doubt)
        for place in _places(points, now)
    )


def _lengths(vectors: Array) -> Array:
    return np.asarray(np.linalg.norm(vectors, axis=1) * ROUNDED_UP)


def _places(points: Sequence[Array], now: Array) -> Iterator[Array]:
    """Yield places of a course that may be the nearest: waypoints, and the nearest place of each straight part.

    The rounding of a place is far below what margins are lessened by, which is a part of the reach of the centers.
    """
    yield from reversed(points)
    for a, b in pairwise(points):
        way = b - a
        # Not by BLAS, whose number of threads changes the order of sums.
        length = float((way * way).sum())
        s = float(((now - a) * way).sum()) / length if length > 0.0 else 0.0
        if 0.0 < s < 1.0:
            yield a + s * way
