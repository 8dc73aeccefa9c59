"""The compiled inner loops of seeding."""

from __future__ import annotations

import numpy as np

from clustering.compiling import njit
from clustering.models.kernels import FAST, TILE, distance_between


@njit(**FAST)
def potentials_after(columns, points, closest, weights, potentials):  # type: ignore[no-untyped-def]
    """Potential Σw·min(closest, ‖x − p‖²) ``(t,)`` for each trial point p.

    `columns` ``(d, n)`` are the rows, feature by feature; `points` ``(t, d)`` the trials; `closest` ``(n,)`` the
    squared distance to the centers chosen so far.
    """
    d, n = columns.shape
    distance = np.empty(TILE)
    potentials[:] = 0.0
    # All trials while a tile is in the cache: with many rows the memory bounds the speed.
    for start in range(0, n, TILE):
        m = min(TILE, n - start)
        for t in range(points.shape[0]):
            distance[:m] = 0.0
            for j in range(d):
                p = points[t, j]
                for r in range(m):
                    difference = columns[j, start + r] - p
                    distance[r] += difference * difference
            part = 0.0
            for r in range(m):
                part += weights[start + r] * min(closest[start + r], distance[r])
            potentials[t] += part


@njit(**FAST)
def approach(columns, point, closest):  # type: ignore[no-untyped-def]
    """Lower `closest` ``(n,)`` to the squared distance to a new center `point` ``(d,)``."""
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
        if distance < first[r]:
            second[r], runner[r] = first[r], owner[r]
            first[r], owner[r] = distance, k
        elif distance < second[r]:
            second[r], runner[r] = distance, k


@njit(**FAST)
def two_nearest(rows, centers, owner, runner, first, second):  # type: ignore[no-untyped-def]
    """Fill in the nearest and the second nearest center of each row ``(n,)``, and the squared distances to them."""
    for r in range(rows.shape[0]):
        _rank(rows[r], centers, r, owner, runner, first, second)


@njit(**FAST)
def after_swap(rows, centers, new, d_new, owner, runner, first, second):  # type: ignore[no-untyped-def]
    """Mend what `two_nearest` found after center `new` was replaced; `d_new` ``(n,)`` is the squared distance to it."""
    for r in range(rows.shape[0]):
        if owner[r] == new or runner[r] == new:
            _rank(rows[r], centers, r, owner, runner, first, second)
        elif d_new[r] < first[r]:
            second[r], runner[r] = first[r], owner[r]
            first[r], owner[r] = d_new[r], new
        elif d_new[r] < second[r]:
            second[r], runner[r] = d_new[r], new


@njit(**FAST)
def swap_potentials(d_new, owner, first, second, weights, potentials):  # type: ignore[no-untyped-def]
    """Potential ``(k,)`` after a new center replaces each of the present ones.

    `d_new` ``(n,)`` is the squared distance to the new center, `owner`, `first` and `second` describe the present ones.
    """
    kept = 0.0
    potentials[:] = 0.0
    for r in range(d_new.shape[0]):
        with_owner = weights[r] * min(d_new[r], first[r])
        kept += with_owner
        potentials[owner[r]] += weights[r] * min(d_new[r], second[r]) - with_owner
    potentials += kept
