"""Compiled inner loops of seeding.

Points are tried by estimates of their distances from all rows, ‖x‖² − 2 x·p + ‖p‖² in float32, which cost a fraction of
distances. A distance in float64 follows only for rows that may come closer to a point by the bound of the estimate.
"""

from __future__ import annotations

import numpy as np

from clustering.compiling import njit
from clustering.models.kernels import FAST, distance_between
from clustering.models.lanes import NARROW, folded, load, multiply_add, repeated, splat, store, where_less

PART = 64
"""Rows that are added up in float32 before their sum is added in float64; a multiple of sixteen."""


@njit(**{**FAST, "_nrt": False})
def try_points(columns, norms, weights, closest, points, squares, estimates, potentials):  # type: ignore[no-untyped-def]
    """Estimate the distances of all rows from some points, and the potential Σw·min(closest, distance) of each point.

    Parameters
    ----------
    columns
        Rows as columns, sixteen rows side by side ``(n / 16, d, 16)``, in float32.
    norms, weights
        Squared norms of the rows and their weights ``(n,)``, in float32; rows that only fill up have weight 0.
    closest
        Squared distances ``(n,)`` of the rows from the centers chosen so far, in float32.
    points, squares
        −2 p of the points, four side by side ``(t / 4, d, 4)``, and their squared norms ``(t,)``.
    estimates
        Gets the estimates of the squared distances ``(t, n)``.
    potentials
        Gets the potentials ``(t,)``.
    """
    n = norms.shape[0]
    d = columns.shape[1]
    zero = splat(np.float32(0.0))
    potentials[:] = 0.0
    # All points are tried while a part of the rows is in the cache, because memory limits the speed with many rows.
    for begin in range(0, n, PART):
        for c in range(0, squares.shape[0], 4):
            a0, a1, a2, a3 = zero, zero, zero, zero
            for r in range(begin, min(n, begin + PART), NARROW):
                norm = load(norms, r)
                s0 = norm + repeated(squares, c)
                s1 = norm + repeated(squares, c + 1)
                s2 = norm + repeated(squares, c + 2)
                s3 = norm + repeated(squares, c + 3)
                for j in range(d):
                    x = load(columns, r * d + j * NARROW)
                    i = c * d + j * 4
                    s0 = multiply_add(x, repeated(points, i), s0)
                    s1 = multiply_add(x, repeated(points, i + 1), s1)
                    s2 = multiply_add(x, repeated(points, i + 2), s2)
                    s3 = multiply_add(x, repeated(points, i + 3), s3)
                store(estimates, c * n + r, s0)
                store(estimates, (c + 1) * n + r, s1)
                store(estimates, (c + 2) * n + r, s2)
                store(estimates, (c + 3) * n + r, s3)
                w = load(weights, r)
                least = load(closest, r)
                # Rounding may leave an estimate below zero.
                a0 = multiply_add(w, where_less(s0, least, where_less(s0, zero, zero, s0), least), a0)
                a1 = multiply_add(w, where_less(s1, least, where_less(s1, zero, zero, s1), least), a1)
                a2 = multiply_add(w, where_less(s2, least, where_less(s2, zero, zero, s2), least), a2)
                a3 = multiply_add(w, where_less(s3, least, where_less(s3, zero, zero, s3), least), a3)
            potentials[c] += np.float64(folded(a0))
            potentials[c + 1] += np.float64(folded(a1))
            potentials[c + 2] += np.float64(folded(a2))
            potentials[c + 3] += np.float64(folded(a3))


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
        bound = relative * 2.0 * (np.float64(norms[r]) + square) + absolute
        # An estimate that overflowed decides nothing: NaN and infinite differences fail the comparison.
        if estimates[r] - bound > limits[r] * unit:
            distances[r] = np.inf
        else:
            distances[r] = distance_between(rows[r], point)


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
def after_swap(rows, centers, new, d_new, owner, runner, first, second):  # type: ignore[no-untyped-def]
    """Update the results of `two_nearest` after one center was replaced.

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
