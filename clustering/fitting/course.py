"""The choice of a course: how far ahead a full read looks, and its budgets, by rows of the row sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.blas import one_blas_thread
from clustering.data.rows import in_memory_rows
from clustering.models.course import least_margins, within_course
from clustering.models.margins import MarginStatistics, RowMargins, farthest_other

Array = NDArray[np.float64]

LENGTHS = (0, 1, 2, 3, 4, 6, 8)
"""Numbers of passes that a course may look ahead."""
DOUBT = 0.02
"""Part of a forecast drift by which a forecast is taken to be wrong."""
SLOWEST = 0.05
"""Least expected movement of a boundary, as a part of the largest."""
ERRORS = 2.0
"""Standard errors by which the share of near rows is kept below its limit."""
CENTERS_AT_ONCE = 256
"""Centers whose distances from all others are held in memory together."""


class SampledRows(NamedTuple):
    """Some of the rows, by which full reads are planned."""

    values: NDArray[Any]
    """Prepared rows ``(m, d)`` without missing features."""
    counts: Array
    """Number of rows that each stands for ``(m,)``."""


class _Forecast:
    """The passes that are expected to follow, made as far as they are asked for, with margins of the sampled rows."""

    def __init__(self, expected: Iterator[MarginStatistics[Any]], sample: SampledRows) -> None:
        self.expected, self.rows = expected, in_memory_rows(sample.values)
        self.functions: list[MarginStatistics[Any]] = []
        self.measured: dict[int, RowMargins] = {}

    def get(self, index: int) -> MarginStatistics[Any] | None:
        """Return the function of a pass; None where no forecast reaches so far."""
        self.functions += islice(self.expected, max(0, index + 1 - len(self.functions)))
        return self.functions[index] if index < len(self.functions) else None

    def margins(self, index: int) -> RowMargins:
        """Return the margins of the sampled rows in a pass."""
        if index not in self.measured:
            self.measured[index] = self.functions[index].measure(self.rows)
        return self.measured[index]


def choose_course(
    expected: Iterator[MarginStatistics[Any]], sample: SampledRows, share: float, reach: Array | None
) -> tuple[tuple[MarginStatistics[Any], ...], Array]:
    """Choose the waypoints and the budgets of a full read, so that most of the passes that follow need no other.

    The longer the course, the more rows change their label along it, which are all kept, and the less room is left for
    rows that may change it where centers stray from the course.

    Parameters
    ----------
    expected
        Functions of the present pass, and of those that are expected to follow, made when they are asked for.
    sample
        Some of the rows.
    share
        Largest share of the rows that is to be near.
    reach
        Distance from each center up to which others compete with it ``(k,)``; None where it is not known.

    Returns
    -------
    tuple of MarginStatistics
        Functions at the waypoints; the first is that of the present pass.
    ndarray
        Budgets ``(k,)``.
    """
    forecast, now = _Forecast(expected, sample), next(expected)
    forecast.functions.append(now)
    labels = forecast.margins(0).labels
    radius = np.full(len(now.points), np.inf) if reach is None else reach
    course: tuple[MarginStatistics[Any], ...] = (now,)
    most, budgets = -1, np.zeros(len(now.points))
    for length in LENGTHS:
        aim = forecast.get(max(1, length))
        if aim is None and length > 0:
            break
        drift = np.zeros(len(now.points)) if aim is None else now.drift(aim)
        places = sorted({0, length})
        waypoints = tuple(forecast.functions[i] for i in places)
        least = least_margins(waypoints, [forecast.margins(i) for i in places])
        widest = choose_budgets(labels, least, sample.counts, expected_movement(now.points, drift, radius), share)
        if length > 0 and not widest.any():
            # So many rows change their label that these alone fill the room.
            break
        steps = _steps_within(waypoints, widest, forecast, radius)
        if steps > most:
            most, course, budgets = steps, waypoints, widest
        if steps < length:
            break
    return course, budgets


def _steps_within(course: Sequence[MarginStatistics[Any]], budgets: Array, forecast: _Forecast, radius: Array) -> int:
    """Count the expected passes that a full read would serve, if the forecast errs by a part of the drift."""
    points, steps = [each.points for each in course], 0
    while (later := forecast.get(steps + 1)) is not None:
        if not within_course(points, budgets, radius, later.points, DOUBT * course[0].drift(later)):
            break
        steps += 1
    return steps


def expected_movement(points: Array, drift: Array, reach: Array) -> Array:
    """Estimate how far the boundaries of each cluster will move ``(k,)``, up to a common factor.

    A boundary moves with the cluster and with the fastest of its neighbours.

    Parameters
    ----------
    points
        Centers ``(k, p)``.
    drift
        How far each will move ``(k,)``.
    reach
        Distance from each center up to which others compete with it ``(k,)``.
    """
    if not drift.max() > 0.0:
        return np.ones(len(drift))
    if not np.isfinite(reach).all():
        fastest = farthest_other(drift)
    else:
        squares = np.einsum("kp,kp->k", points, points)
        fastest = np.empty(len(drift))
        for start in range(0, len(drift), CENTERS_AT_ONCE):
            part = slice(start, start + CENTERS_AT_ONCE)
            # One thread, as the number of BLAS threads changes the order of sums, and so the budgets.
            with one_blas_thread():
                products = points[part] @ points.T
            apart = np.sqrt(np.maximum(0.0, squares[part, None] + squares - 2.0 * products))
            competing = apart < 2.0 * reach[part, None]
            rows = np.arange(len(competing))
            competing[rows, start + rows] = False
            fastest[part] = np.where(competing, drift, 0.0).max(axis=1)
    expected: Array = drift + fastest
    return np.asarray(np.maximum(expected, SLOWEST * expected.max()))


def choose_budgets(labels: NDArray[np.int32], margins: Array, counts: Array, scale: Array, share: float) -> Array:
    """Choose budgets proportional to a scale, so that a share of the rows is near a boundary.

    Parameters
    ----------
    labels, margins
        Labels and margins of some of the rows ``(m,)``.
    counts
        Number of rows that each stands for ``(m,)``.
    scale
        Budgets ``(k,)`` up to a common factor.
    share
        Largest share of the rows that is to be near.

    Returns
    -------
    ndarray
        Budgets ``(k,)``.
    """
    # Rows without a margin are near whatever the budgets.
    ratios = np.where(np.isnan(margins), -np.inf, margins) / scale[labels]
    order = np.argsort(ratios, kind="stable")
    reached = np.cumsum(counts[order])
    # Few rows give a rough estimate, and near rows beyond the room would be read in every pass.
    error = np.sqrt(share * (1.0 - share) * np.square(counts).sum()) / reached[-1]
    place = np.searchsorted(reached, max(0.0, share - ERRORS * error) * reached[-1])
    return scale * max(0.0, float(ratios[order[min(place, len(order) - 1)]]))
