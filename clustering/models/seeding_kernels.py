"""Compiled inner loops of seeding.

Points are tried by estimates of their distances from all rows, ‖x‖² − 2 x·p + ‖p‖² in float32, which cost a fraction of
distances. A distance in float64 follows only for rows that may come closer to a point by the bound of the estimate. So
the outcome is that of distances in float64, whatever the rounding of the estimates.
"""

from __future__ import annotations

import numpy as np

from clustering.compiling import INNER, njit
from clustering.models.kernels import BARE, FAST, distance_between
from clustering.models.lanes import NARROW, load, store
from clustering.models.lloyd_buffers import CENTERS_AT_ONCE
from clustering.models.score_kernels import scores_of_four

PART = 64
"""Rows that all points are tried with before the next ones; a multiple of sixteen."""


@njit(**BARE)
def estimate(columns, norms, points, squares, estimates):  # type: ignore[no-untyped-def]
    """Estimate the squared distances of all rows from some points.

    Parameters
    ----------
    columns
        Rows as columns, sixteen rows side by side ``(n / 16, d, 16)``, in float32.
    norms
        Squared norms of the rows ``(n,)``, in float32.
    points, squares
        −2 p of the points, four side by side ``(t / 4, d, 4)``, and their squared norms ``(t,)``.
    estimates
        Gets the estimates ``(t, n)``.
    """
    n = norms.shape[0]
    d = columns.shape[1]
    # All points are tried while a part of the rows is in the cache, because memory limits the speed with many rows.
    for begin in range(0, n, PART):
        for c in range(0, squares.shape[0], CENTERS_AT_ONCE):
            for r in range(begin, min(n, begin + PART), NARROW):
                norm = load(norms, r)
                s0, s1, s2, s3 = scores_of_four(columns, r, points, squares, c, d)
                store(estimates, c * n + r, norm + s0)
                store(estimates, (c + 1) * n + r, norm + s1)
                store(estimates, (c + 2) * n + r, norm + s2)
                store(estimates, (c + 3) * n + r, norm + s3)


@njit(inline="always", **FAST)
def _is_beyond(estimate, norm, square, relative, absolute, limit):  # type: ignore[no-untyped-def]
    """Return whether a distance is surely above a limit."""
    # An estimate that overflowed decides nothing: NaN and infinite differences fail the comparison.
    return estimate - (relative * 2.0 * (np.float64(norm) + square) + absolute) > limit


@njit(**FAST)
def distances_below(rows, point, norms, square, estimates, relative, absolute, unit, limits, distances):  # type: ignore[no-untyped-def]
    """Compute the squared distances of rows from a point where they may be below a limit; others become infinite.

    Parameters
    ----------
    rows, point
        Rows ``(n, d)`` and point ``(d,)``.
    norms, square, estimates
        Squared norms of the rows ``(n,)`` and of the point, and estimates of the distances ``(n,)``, in float32.
    relative, absolute
        Rounding bound of the estimates, relative to twice the sum of both norms, and absolute.
    unit
        Factor that takes squared distances to the scale of the estimates.
    limits
        Squared distances ``(n,)`` that a row has to fall below.
    distances
        Gets the distances ``(n,)``.
    """
    for r in range(rows.shape[0]):
        if _is_beyond(estimates[r], norms[r], square, relative, absolute, limits[r] * unit):
            distances[r] = np.inf
        else:
            distances[r] = distance_between(rows[r], point)


@njit(**FAST)
def gain(rows, point, norms, square, estimates, relative, absolute, unit, first, weights):  # type: ignore[no-untyped-def]
    """Compute by how much a further center lowers the potential Σ w·D², in float64.

    Parameters
    ----------
    rows, point, norms, square, estimates, relative, absolute, unit
        As in `distances_below`.
    first, weights
        Squared distances from the nearest center so far, and weights ``(n,)``.
    """
    total = 0.0
    for r in range(rows.shape[0]):
        if not _is_beyond(estimates[r], norms[r], square, relative, absolute, first[r] * unit):
            distance = distance_between(rows[r], point)
            if distance < first[r]:
                total += weights[r] * (first[r] - distance)
    return total


@njit(**FAST)
def add_center(distances, new, owner, runner, first, second):  # type: ignore[no-untyped-def]
    """Update the two nearest centers of all rows after a center is added behind the others.

    Parameters
    ----------
    distances
        Squared distances of the rows from it ``(n,)``; infinite where they are not below `second`.
    new
        Its index.
    owner, runner, first, second
        Indices of the nearest and the second nearest center ``(n,)``, −1 for none, and squared distances to them.
    """
    for r in range(distances.shape[0]):
        distance = distances[r]
        # Strict comparisons leave the lower index first among equals.
        if distance < first[r]:
            second[r], runner[r] = first[r], owner[r]
            first[r], owner[r] = distance, new
        elif distance < second[r]:
            second[r], runner[r] = distance, new


@njit(**INNER, **FAST)
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
def after_swap(rows, centers, new, d_new, owner, runner, first, second):  # type: ignore[no-untyped-def]
    """Update the two nearest centers of all rows after one center was replaced.

    Parameters
    ----------
    rows, centers
        Rows ``(n, d)`` and centers ``(k, d)``, with the new one in place.
    new
        Index of the replaced center.
    d_new
        Squared distance of each row from the new center ``(n,)``; infinite where it is not below `second`.
    owner, runner, first, second
        As in `add_center`, updated in place.
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
        Squared distance of each row from the new center ``(n,)``; infinite where it is not below `second`.
    owner, first, second
        Nearest centers and squared distances ``(n,)``, as in `add_center`.
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
