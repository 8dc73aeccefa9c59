"""The waypoints of a course as rows are scored by them in float32, and the memory in which rows are followed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.models.assignment import aligned_empty, rounding_bound
from clustering.models.lanes import NARROW, WIDE
from clustering.models.lloyd_buffers import Tile, make_tile
from clustering.models.scored_centers import centers_in_panel, slopes_and_offsets

Array = NDArray[np.float64]
Singles = NDArray[np.float32]

ROWS_AT_ONCE = 512
"""Rows that are followed together, so that what is known of them stays in the cache."""
SCALES = 1e-150, 1e150
"""Scales between which squares and what they are divided by stay in float64."""


class ScoredCourse(NamedTuple):
    """The centers at all waypoints, scaled by a power of two so that squares stay in float32."""

    scale: float
    """Factor of rows and centers."""
    unscale: float
    """Factor that turns scaled lengths into those of the rows."""
    slopes: Singles
    """−2 c, four centers side by side ``(w, k / 4, p, 4)``."""
    offsets: Singles
    """‖c‖² ``(w, k)``, infinite where k is rounded up to a multiple of four."""
    budgets: Singles
    """How far each center may stray ``(w, k)``."""
    names: Singles
    """Indices of the centers ``(k,)``."""
    panel: int
    """Number of centers that are compared with all rows of a tile before the next ones."""
    reach: Singles
    """The largest ‖c‖ ``(w,)``."""
    most: Singles
    """The largest budget ``(w,)``."""
    relative: np.float32
    """Bound of the rounding of a squared distance, relative to (‖x‖ + reach)²."""
    absolute: np.float32
    """Absolute part of that bound, for numbers that underflow."""
    limit: float
    """Beyond this (‖x‖ + reach)² a score may have overflowed; negative where no row is to be scored."""


class FollowMemory(NamedTuple):
    """Memory in which rows are followed along a course."""

    tile: Tile
    """Some of the rows, which are scored together."""
    columns: Singles
    """Scaled rows of the tile as columns, sixteen rows side by side ``(t / 16, p, 16)``, as flat memory."""
    norms: Singles
    """Their squared norms ``(t,)``."""
    least: Singles
    """Least distance less a budget of each ``(t,)``."""
    second: Singles
    """Second least ``(t,)``."""
    label: Singles
    """Center of the least ``(t,)``."""
    chosen: NDArray[np.int32]
    """Indices of the rows that are compared at a waypoint ``(m,)``."""
    labels: NDArray[np.int32]
    """Label of each row at the last waypoint that it was followed to ``(m,)``."""
    rooms: Array
    """How much farther than its label asks for all other centers are ``(m,)``."""
    waiting: NDArray[np.int32]
    """Indices of the rows whose kinds are not known yet ``(m,)``."""


def score_course(points: Array, budgets: Array) -> ScoredCourse:
    """Prepare the waypoints of a course for scores.

    Parameters
    ----------
    points
        Centers at all waypoints ``(w, k, p)``.
    budgets
        How far each may stray ``(w, k)``.
    """
    scale = float(np.ldexp(1.0, -int(np.clip(np.frexp(np.abs(points).max())[1], -1000, 1000))))
    w, k, p = points.shape
    relative, absolute = rounding_bound(p)
    with np.errstate(over="ignore"):
        slopes, offsets = zip(*(slopes_and_offsets(scale * centers) for centers in points), strict=True)
        lengths = np.zeros((w, len(offsets[0])), np.float32)
        lengths[:, :k] = scale * budgets
    fits = SCALES[0] < scale < SCALES[1]
    return ScoredCourse(
        scale=scale,
        unscale=1.0 / scale,
        slopes=np.ascontiguousarray(slopes),
        offsets=np.ascontiguousarray(offsets),
        budgets=lengths,
        names=np.arange(lengths.shape[1], dtype=np.float32),
        panel=centers_in_panel(p),
        # A little more for the rounding of the bounds themselves.
        reach=np.array([1.001 * np.sqrt(each[:k].max()) for each in offsets], np.float32),
        most=lengths.max(axis=1),
        relative=np.float32(1.01 * relative),
        absolute=np.float32(absolute),
        limit=float(np.finfo(np.float32).max) / 16 if fits else -1.0,
    )


def follow_memory(p: int) -> FollowMemory:
    """Make the memory for following rows.

    Parameters
    ----------
    p
        Number of features.
    """
    m = ROWS_AT_ONCE
    tile = make_tile(p, None)[0]
    t = len(tile.labels)
    # Rows are turned eight features at a time, so the last ones may reach beyond the last feature.
    columns = aligned_empty((t * p + WIDE * NARROW,), np.float32)
    norms, least, second, label = (aligned_empty((t,), np.float32) for _ in range(4))
    return FollowMemory(
        tile, columns, norms, least, second, label,
        np.empty(m, np.int32), np.empty(m, np.int32), np.empty(m), np.empty(m, np.int32),
    )  # fmt: skip
