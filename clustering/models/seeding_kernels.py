"""Compiled inner loops of seeding.

Points are tried by estimates of their distances from all rows, ‖x‖² − 2 x·p + ‖p‖² in float32, which cost a fraction of
distances. A distance in float64 follows only for rows that may come closer to a point by the bound of the estimate. So
the outcome is that of distances in float64, whatever the rounding of the estimates. The rows that do come closer are
few where there are many centers, and all that follows looks at them alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.compiling import INLINED, INNER, njit
from clustering.models.kernels import BARE
from clustering.models.lanes import (
    MANY_REGISTERS,
    NARROW,
    folded,
    lanes_up_to,
    load,
    lowest_bit,
    repeated,
    splat,
    where_less,
)
from clustering.models.score_kernels import scores_of_eight, scores_of_four
from clustering.models.scored_centers import CENTERS_AT_ONCE
from clustering.models.settling_kernels import add_tail, squares

PART = 64
"""Rows that all points are tried with before the next ones; a multiple of sixteen."""
POINTS_AT_ONCE = 8
"""Points whose sums stay in registers; the number of points is a multiple of it."""


# Inlined into each of its callers, the distance would take longer to compile.
@njit(**INNER, **BARE)
def _distance(rows, r, point):  # type: ignore[no-untyped-def]
    """Compute the squared distance of two rows as `kernels.distance_between` does."""
    d = rows.shape[1]
    long = d - d % 16
    i = r * d
    p = point * d
    return add_tail(rows, i, rows, p, long, d, folded(squares(rows, i, rows, p, long)))


@njit(**BARE)
def bound_estimates(second, norms, relative, absolute, unit, most):  # type: ignore[no-untyped-def]
    """Bound the estimates of rows that may be closer to a point than a limit, less the share of the point.

    Parameters
    ----------
    second
        Squared distances ``(m,)`` that a row has to fall below.
    norms
        Squared norms of the rows ``(n,)``, in float32; n is m or more.
    relative, absolute
        Rounding bound of the estimates, relative to twice the sum of both norms, and absolute.
    unit
        Factor that takes squared distances to the scale of the estimates.
    most
        Gets the bounds ``(n,)``, in float32.
    """
    for r in range(second.shape[0]):
        most[r] = second[r] * unit * (1.0 + relative) + relative * 2.0 * np.float64(norms[r]) + absolute
    # Rows that only fill up the last sixteen are close to nothing.
    for r in range(second.shape[0], most.shape[0]):
        most[r] = -np.inf


@njit(**INLINED, **BARE)
def _within(estimate, most):  # type: ignore[no-untyped-def]
    """Bit mask of the rows that are not surely beyond their bounds."""
    # An estimate that overflowed decides nothing: with NaN the comparison fails.
    beyond = where_less(most, estimate, splat(np.float32(1.0)), splat(np.float32(0.0)))
    return lanes_up_to(beyond, np.float32(0.5))


@njit(**INNER, **BARE)
def _keep(mask, r, t, rows, points, second, near, distances, counts):  # type: ignore[no-untyped-def]
    """Keep the rows of a mask, the lowest bit of which stands for row `r`, that are closer to point `t`."""
    # Points that only fill up the last eight are no points.
    while mask and t < points.shape[0]:
        row = r + lowest_bit(mask)
        mask &= mask - 1
        distance = _distance(rows, row, points[t])
        if distance < second[row]:
            near[t, counts[t]] = row
            distances[t, counts[t]] = distance
            counts[t] += 1


@njit(**BARE)
def closer_rows(columns, norms, slopes, offsets, shares, most, rows, points, second, near, distances, counts):  # type: ignore[no-untyped-def]
    """List the rows that are closer to each of some points than to their second nearest center.

    Parameters
    ----------
    columns
        Rows as columns, sixteen rows side by side ``(n / 16, d, 16)``, in float32.
    norms
        Squared norms of the rows ``(n,)``, in float32.
    slopes, offsets
        −2 p of the points, four side by side ``(t / 4, d, 4)``, and their squared norms ``(t,)``; t is a multiple of
        eight.
    shares
        Share ``(t,)`` of each point in the bound of an estimate.
    most
        Bounds of the estimates, as `bound_estimates` gives them.
    rows, points
        Rows ``(m, d)``, and which of them the points are.
    second
        Squared distances ``(m,)`` that a row has to fall below.
    near, distances, counts
        Get the rows for each point ``(t, m)`` in ascending order, their squared distances from it, and how many they
        are ``(t,)``.
    """
    n = norms.shape[0]
    d = columns.shape[1]
    for t in range(counts.shape[0]):
        counts[t] = 0
    # All points are tried while a part of the rows is in the cache, because memory limits the speed with many rows.
    for begin in range(0, n, PART):
        end = begin + PART if begin + PART < n else n
        for t in range(0, offsets.shape[0], POINTS_AT_ONCE):
            for r in range(begin, end, NARROW):
                norm = load(norms, r)
                bound = load(most, r)
                if MANY_REGISTERS:
                    s0, s1, s2, s3, s4, s5, s6, s7 = scores_of_eight(columns, r, slopes, offsets, t, d)
                else:
                    s0, s1, s2, s3 = scores_of_four(columns, r, slopes, offsets, t, d)
                    s4, s5, s6, s7 = scores_of_four(columns, r, slopes, offsets, t + CENTERS_AT_ONCE, d)
                masks = (
                    _within(norm + s0, bound + repeated(shares, t)),
                    _within(norm + s1, bound + repeated(shares, t + 1)),
                    _within(norm + s2, bound + repeated(shares, t + 2)),
                    _within(norm + s3, bound + repeated(shares, t + 3)),
                    _within(norm + s4, bound + repeated(shares, t + 4)),
                    _within(norm + s5, bound + repeated(shares, t + 5)),
                    _within(norm + s6, bound + repeated(shares, t + 6)),
                    _within(norm + s7, bound + repeated(shares, t + 7)),
                )
                for i in range(POINTS_AT_ONCE):
                    if masks[i]:
                        _keep(masks[i], r, t + i, rows, points, second, near, distances, counts)


@njit(**BARE)
def gain(near, distances, first, weights):  # type: ignore[no-untyped-def]
    """Compute by how much a further center lowers the potential Σ w·D².

    Parameters
    ----------
    near, distances
        Rows that may be closer to it ``(t,)``, and their squared distances from it.
    first, weights
        Squared distances of all rows from their nearest center so far, and weights ``(m,)``.
    """
    total = 0.0
    for i in range(near.shape[0]):
        r = near[i]
        if distances[i] < first[r]:
            total += weights[r] * (first[r] - distances[i])
    return total


@njit(**BARE)
def add_center(near, distances, new, owner, runner, first, second):  # type: ignore[no-untyped-def]
    """Update the two nearest centers of rows after a center is added behind the others.

    Parameters
    ----------
    near, distances
        Rows that may be closer to it than to their second nearest center ``(t,)``, and their squared distances from it.
    new
        Its index.
    owner, runner, first, second
        Indices of the nearest and the second nearest center of all rows ``(m,)``, −1 for none, and squared distances to
        them.
    """
    for i in range(near.shape[0]):
        r = near[i]
        distance = distances[i]
        # Strict comparisons leave the lower index first among equals.
        if distance < first[r]:
            second[r], runner[r] = first[r], owner[r]
            first[r], owner[r] = distance, new
        elif distance < second[r]:
            second[r], runner[r] = distance, new


@njit(**INLINED, **BARE)
def _move_closer(r, distance, new, owner, runner, first, second):  # type: ignore[no-untyped-def]
    """Update the two nearest centers of a row after center `new` came to a distance from it."""
    if owner[r] == new or runner[r] == new:
        return
    if distance < first[r]:
        second[r], runner[r] = first[r], owner[r]
        first[r], owner[r] = distance, new
    elif distance < second[r]:
        second[r], runner[r] = distance, new


@njit(**INNER, **BARE)
def _compare(mask, c, r, rows, centers, owner, runner, first, second):  # type: ignore[no-untyped-def]
    """Compare row `r` with the centers of a mask, the lowest bit of which stands for center `c`."""
    while mask:
        k = c + lowest_bit(mask)
        mask &= mask - 1
        # Centers that only fill up the last sixteen are no centers.
        if k < centers.shape[0]:
            distance = _distance(rows, r, centers[k])
            # Strict comparisons leave the lower index first among equals.
            if distance < first[r]:
                second[r], runner[r] = first[r], owner[r]
                first[r], owner[r] = distance, k
            elif distance < second[r]:
                second[r], runner[r] = distance, k


@njit(**INNER, **BARE)
def _rank(n_lost, memory, rows, columns, norms, bound, centers, places, lengths, shares, nearest):  # type: ignore[no-untyped-def]
    """Find the two nearest centers of the rows that lost one of them."""
    lost, kept, slopes, offsets, most = memory
    relative, absolute, unit = bound
    owner, runner, first, second = nearest
    d = columns.shape[1]
    # numba would compile what takes a literal 0 once more for that.
    t = np.int64(0)
    # Here the rows are the points, eight at once, and the centers lie sixteen side by side.
    for begin in range(0, n_lost, POINTS_AT_ONCE):
        count = POINTS_AT_ONCE if n_lost - begin > POINTS_AT_ONCE else n_lost - begin
        for i in range(count):
            r = lost[begin + i]
            offsets[i] = norms[r]
            for j in range(d):
                slopes[i // CENTERS_AT_ONCE, j, i % CENTERS_AT_ONCE] = (
                    np.float32(-2.0) * columns[r // NARROW, j, r % NARROW]
                )
            first[r] = second[r] = np.inf
            owner[r] = runner[r] = -1
        for c in range(0, lengths.shape[0], NARROW):
            for i in range(count):
                r = lost[begin + i]
                limit = kept[begin + i] if kept[begin + i] < second[r] else second[r]
                most[i] = limit * unit * (1.0 + relative) + relative * 2.0 * np.float64(offsets[i]) + absolute
            length = load(lengths, c)
            share = load(shares, c)
            if MANY_REGISTERS:
                s0, s1, s2, s3, s4, s5, s6, s7 = scores_of_eight(places, c, slopes, offsets, t, d)
            else:
                s0, s1, s2, s3 = scores_of_four(places, c, slopes, offsets, t, d)
                s4, s5, s6, s7 = scores_of_four(places, c, slopes, offsets, t + CENTERS_AT_ONCE, d)
            masks = (
                _within(length + s0, share + repeated(most, 0)),
                _within(length + s1, share + repeated(most, 1)),
                _within(length + s2, share + repeated(most, 2)),
                _within(length + s3, share + repeated(most, 3)),
                _within(length + s4, share + repeated(most, 4)),
                _within(length + s5, share + repeated(most, 5)),
                _within(length + s6, share + repeated(most, 6)),
                _within(length + s7, share + repeated(most, 7)),
            )
            for i in range(count):
                if masks[i]:
                    _compare(masks[i], c, lost[begin + i], rows, centers, owner, runner, first, second)


@njit(**BARE)
def after_swap(  # type: ignore[no-untyped-def]
    rows, columns, norms, bound, centers, places, lengths, shares, new, near, distances, changed, nearest, memory
):
    """Update the two nearest centers of all rows after one center was replaced.

    Parameters
    ----------
    rows, columns, norms
        Rows ``(m, d)``, and as `closer_rows` takes them.
    bound
        Rounding bound of the estimates, relative and absolute, and the factor that takes squared distances to their
        scale.
    centers, places, lengths, shares
        Which rows the centers are ``(k,)``, with the new one in place, and the same for the centers as `columns`,
        `norms` and the shares of points in `closer_rows`.
    new
        Index of the replaced center.
    near, distances
        Rows that may be closer to it than to their second nearest center ``(t,)``, and their squared distances from it,
        but for the rows that have changed.
    changed
        Whether the two nearest centers of a row were found anew since the points were tried ``(m,)``; updated.
    nearest
        `owner`, `runner`, `first` and `second`, as in `add_center`; updated.
    memory
        As `swap_memory` makes it.
    """
    owner, runner, first, second = nearest
    lost, kept, _, _, _ = memory
    point = centers[new]
    # numba would compile what takes a literal 0 once more for that.
    n_lost = np.int64(0)
    for r in range(rows.shape[0]):
        if owner[r] == new or runner[r] == new:
            lost[n_lost] = r
            # The center that is left and the new one are both within the greater of their distances.
            left = second[r] if owner[r] == new else first[r]
            right = _distance(rows, r, point)
            kept[n_lost] = right if right > left else left
            n_lost += 1
        elif changed[r]:
            _move_closer(r, _distance(rows, r, point), new, owner, runner, first, second)
    for i in range(near.shape[0]):
        _move_closer(np.int64(near[i]), distances[i], new, owner, runner, first, second)
    # Only a row that lost one of its two centers has to be compared with all of them.
    _rank(n_lost, memory, rows, columns, norms, bound, centers, places, lengths, shares, nearest)
    # An assignment to all of them at once would take numba a second to compile.
    for i in range(n_lost):
        changed[lost[i]] = True


def swap_memory(m: int, d: int) -> tuple[NDArray[Any], ...]:
    """Make the memory that `after_swap` works in. numba would take half a second to compile the making of arrays.

    Parameters
    ----------
    m, d
        Number of rows and of features.
    """
    slopes = np.zeros((POINTS_AT_ONCE // CENTERS_AT_ONCE, d, CENTERS_AT_ONCE), np.float32)
    few = np.zeros((2, POINTS_AT_ONCE), np.float32)
    return np.empty(m, np.int64), np.empty(m), slopes, few[0], few[1]


@njit(**BARE)
def losses(owner, first, second, weights, lost):  # type: ignore[no-untyped-def]
    """Compute by how much the potential rises without each center; return the potential.

    Parameters
    ----------
    owner, first, second
        Nearest centers and squared distances ``(m,)``, as in `add_center`.
    weights
        Weights of the rows ``(m,)``.
    lost
        Gets the rises ``(k,)``.
    """
    potential = 0.0
    for c in range(lost.shape[0]):
        lost[c] = 0.0
    for r in range(owner.shape[0]):
        potential += weights[r] * first[r]
        lost[owner[r]] += weights[r] * (second[r] - first[r])
    return potential


@njit(**BARE)
def swap_potentials(near, distances, owner, first, second, weights, potential, lost, potentials):  # type: ignore[no-untyped-def]
    """Compute the potential after a new center replaces each of the present ones.

    Parameters
    ----------
    near, distances, owner, first, second, weights
        As in `add_center`, and weights of all rows ``(m,)``. Where rows are left out, the potentials are upper bounds.
    potential, lost
        Present potential, and its rises ``(k,)``, as `losses` gives them.
    potentials
        Gets the potentials ``(k,)``.
    """
    # A swap differs from adding the new center only for rows of the center that goes, so one pass serves all swaps.
    kept = potential
    for c in range(lost.shape[0]):
        potentials[c] = lost[c]
    for i in range(near.shape[0]):
        r = near[i]
        with_owner = distances[i] if distances[i] < first[r] else first[r]
        with_runner = distances[i] if distances[i] < second[r] else second[r]
        kept -= weights[r] * (first[r] - with_owner)
        # Without its owner the row goes to the new center, and not to its second nearest.
        potentials[owner[r]] += weights[r] * ((with_runner - with_owner) - (second[r] - first[r]))
    for c in range(lost.shape[0]):
        potentials[c] += kept
