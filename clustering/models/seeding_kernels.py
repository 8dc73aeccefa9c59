"""Compiled inner loops of seeding."""

from __future__ import annotations

import numpy as np

from clustering.compiling import njit
from clustering.models.kernels import FAST, distance_between

TILE = 128
"""Rows worked on together; a tile of ``(d, TILE)`` stays in the first-level cache for small d."""


@njit(**FAST)
def potentials_after(columns, points, closest, weights, potentials):  # type: ignore[no-untyped-def]
    """Compute the potential Σw·min(closest, ‖x − p‖²) for each trial point p.

    Parameters
    ----------
    columns
        Rows as columns ``(d, n)``.
    points
        Trial points ``(t, d)``.
    closest
        Squared distance ``(n,)`` of each row from the centers chosen so far.
    weights
        Weights of the rows ``(n,)``.
    potentials
        Gets the potentials ``(t,)``.
    """
    d, n = columns.shape
    distance = np.empty(TILE)
    potentials[:] = 0.0
    # All trials are computed while a tile is in the cache, because memory limits the speed with many rows.
    for start in range(0, n, TILE):
        m = min(TILE, n - start)
        for t in range(points.shape[0]):
            distance[:m] = 0.0
            for j in range(d):
                p = points[t, j]
                for r in range(m):
                    difference = columns[j, start + r] - p
                    distance[r] += difference * difference
            # Two levels of sums: the error grows with the rows of a tile plus the number of tiles.
            part = 0.0
            for r in range(m):
                part += weights[start + r] * min(closest[start + r], distance[r])
            potentials[t] += part


@njit(**FAST)
def approach(columns, point, closest):  # type: ignore[no-untyped-def]
    """Lower the squared distances of rows from their closest center after a center is added.

    Parameters
    ----------
    columns
        Rows as columns ``(d, n)``.
    point
        The new center ``(d,)``.
    closest
        Squared distances ``(n,)``, which are lowered in place.
    """
    d, n = columns.shape
    distance = np.empty(TILE)
    for start in range(0, n, TILE):
        m = min(TILE, n - start)
        distance[:m] = 0.0
        for j in range(d):
            p = point[j]
            for r in range(m):
                difference = columns[j, start + r] - p
                distance[r] += difference * difference
        for r in range(m):
            closest[start + r] = min(closest[start + r], distance[r])


@njit(**FAST)
def _rank(row, centers, r, owner, runner, first, second):  # type: ignore[no-untyped-def]
    """Find the nearest and the second nearest center of one row."""
    first[r] = second[r] = np.inf
    owner[r] = runner[r] = -1
    for k in range(centers.shape[0]):
        distance = distance_between(row, centers[k])
        # Strict comparisons leave the lower index first among equals.
        if distance < first[r]:
            second[r], runner[r] = first[r], owner[r]
            first[r], owner[r] = distance, k
        elif distance < second[r]:
            second[r], runner[r] = distance, k


@njit(**FAST)
def two_nearest(rows, centers, owner, runner, first, second):  # type: ignore[no-untyped-def]
    """Find the nearest and the second nearest center of each row.

    Parameters
    ----------
    rows, centers
        Rows ``(n, d)`` and centers ``(k, d)``.
    owner, runner
        Get the nearest and the second nearest center ``(n,)``; −1 if there is no second one.
    first, second
        Get the squared distances to them ``(n,)``.
    """
    for r in range(rows.shape[0]):
        _rank(rows[r], centers, r, owner, runner, first, second)


@njit(**FAST)
def after_swap(rows, centers, new, d_new, owner, runner, first, second):  # type: ignore[no-untyped-def]
    """Update the results of `two_nearest` after one center was replaced.

    Parameters
    ----------
    rows, centers
        Rows ``(n, d)`` and centers ``(k, d)``, with the new one in place.
    new
        Index of the replaced center.
    d_new
        Squared distance of each row from the new center ``(n,)``.
    owner, runner, first, second
        As `two_nearest` fills them, updated in place.
    """
    for r in range(rows.shape[0]):
        # Only a row that lost one of its two centers needs the distances to all of them.
        if owner[r] == new or runner[r] == new:
            _rank(rows[r], centers, r, owner, runner, first, second)
        elif d_new[r] < first[r]:
            second[r], runner[r] = first[r], owner[r]
            first[r], owner[r] = d_new[r], new
        elif d_new[r] < second[r]:
            second[r], runner[r] = d_new[r], new


@njit(**FAST)
def swap_potentials(d_new, owner, first, second, weights, potentials):  # type: ignore[no-untyped-def]
    """Compute the potential after a new center replaces each of the present ones.

    Parameters
    ----------
    d_new
        Squared distance of each row from the new center ``(n,)``.
    owner, first, second
        Nearest centers and squared distances ``(n,)``, as `two_nearest` fills them.
    weights
        Weights of the rows ``(n,)``.
    potentials
        Gets the potentials ``(k,)``.
    """
    # A swap differs from adding the new center only for rows of the center that goes, so one pass serves all swaps.
    kept = 0.0
    potentials[:] = 0.0
    for r in range(d_new.shape[0]):
        with_owner = weights[r] * min(d_new[r], first[r])
        kept += with_owner
        potentials[owner[r]] += weights[r] * min(d_new[r], second[r]) - with_owner
    potentials += kept
