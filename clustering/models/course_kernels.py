"""Compiled loops that follow rows along a course, and compare them with the centers at its waypoints.

Scores of rows by all centers, in float32, give lower bounds of the distances. Only the distance from the nearest center
is computed in float64, and those of a row whose scores are too rough. Scores decide which rows are far, and no label.

Where distances are compared, a center j at the distance ‖a − j‖ from the nearest center a of a row is at least
‖a − j‖ − d(x, a) away from it. So the row is compared with the other centers in the order of their distance from its
own, until none of the rest can count (Newling & Fleuret 2016, PMLR 48:936–944, for the labels of one pass).

What is known at a waypoint holds at the next one, less what the centers move (Hamerly 2010,
doi:10.1137/1.9781611972801.12). Only a row for which that is not enough is compared again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.compiling import INLINED, INNER, njit
from clustering.models.kernels import BARE, distance_between
from clustering.models.lane_functions import root
from clustering.models.lanes import MANY_REGISTERS, NARROW, load, repeated, splat, store, where_less
from clustering.models.margin_kernels import SLACK
from clustering.models.score_kernels import compare, scores_of_eight, scores_of_four, turn
from clustering.models.scored_centers import CENTERS_AT_ONCE

LONG = 16
"""Number of features from which distances are added up side by side."""
ROUNDING, ROUNDING_OF_BUDGETS = 2.0**-22, 2.0**-21
"""Rounding of a distance less a budget in float32, relative to it and to the largest budget: four and eight times that
of one operation, which cover the root, the difference and the budget itself."""
NEAR, STEADY, MOVING, CLEAR = 0, 1, 2, 3
"""Kinds of rows along a course: near a boundary, far with one label, far with several, and far by the first look."""


class CourseBounds(NamedTuple):
    """What is known of a course before any row is seen, as the kernels take it."""

    points: NDArray[np.float64]
    """Centers at all waypoints ``(number of waypoints, k, p)``."""
    budgets: NDArray[np.float64]
    """Budgets of the course ``(number of waypoints, k)``."""
    allowance: NDArray[np.float64]
    """By how much the room of a row at the first waypoint is less than its margin, at most ``(k,)``."""
    losses: NDArray[np.float64]
    """By how much the room of a row is less than at the waypoint after, at most ``(number of waypoints, k)``."""
    ahead: NDArray[np.float64]
    """By how much it gets less on the way to the first one, at most ``(number of waypoints, k)``."""
    reach: float
    """Largest distance of a center from the origin."""
    order: NDArray[np.int32]
    """Neighbours of each center along the whole course ``(k, l)``."""
    apart: NDArray[np.float64]
    """Bounds of their distances less their budgets ``(k, l)``."""


# Inlined into each of its callers, the distance would take a second more to compile.
@njit(**INNER, **BARE)
def _long_square(row, center):  # type: ignore[no-untyped-def]
    return distance_between(row, center)


@njit(**INLINED, **BARE)
def _square(row, center):  # type: ignore[no-untyped-def]
    """Squared distance; a function of its own would take longer than a few features."""
    d = row.shape[0]
    if d >= LONG:
        return _long_square(row, center)
    total = 0.0
    for j in range(d):
        t = row[j] - center[j]
        total += t * t
    return total


@njit(**INNER, **BARE)
def _find_room(row, points, budgets, reach, order, apart, label):  # type: ignore[no-untyped-def]
    """Find the nearest center of a row, and how much farther than the budgets ask for all others are.

    Returns a label and its room, least (d_j − β_j) − (d_a + β_a), lessened for rounding. The label is that of the row
    where the room is above 0. Elsewhere the row is near, whatever its label.

    If it were far with the label b, then d_n − β_n > d_b + β_b for each n ≠ b. A center that is not compared has
    d_b ≥ d_b − β_b ≥ least, and `least` is d_n − β_n for an n that was compared: b would be no such label. Nor would it
    be where `least` is below 0.
    """
    k, n_nearest = points.shape[0], order.shape[1]
    square = _square(row, points[label])
    while True:
        own = np.sqrt(square)
        least = np.inf
        nearer = -1
        # After the nearest centers in their order follow all, if they have not been enough.
        for n in range(n_nearest + k):
            if n < n_nearest:
                if apart[label, n] - own >= least:
                    break
                j = order[label, n]
            elif n_nearest == k - 1:
                break
            else:
                j = n - n_nearest
                if j == label:
                    continue
            other = _square(row, points[j])
            if other < square:
                nearer, square = j, other
                break
            bound = least + budgets[j]
            if other < bound * bound:
                least = (1.0 - SLACK) * np.sqrt(other) - budgets[j]
                if least <= 0.0:
                    break
        if nearer < 0:
            return label, least - (own + budgets[label] + SLACK * (own + reach))
        label = nearer


@njit(**INNER, **BARE)
def _take_losses(i, first, margins, waiting, bounds, memory):  # type: ignore[no-untyped-def]
    """Lower the rooms of rows by what they lose on the way to waypoint `i`; return how many rows have none left."""
    labels, rooms, losses = memory.labels, memory.rooms, bounds.losses[i]
    count = 0
    for n in range(waiting):
        r = memory.waiting[n]
        rooms[r] -= losses[labels[r]]
        # At the first waypoint, margins are known.
        if i == 0 and not rooms[r] > 0.0 and margins[r] > bounds.allowance[first[r]]:
            labels[r], rooms[r] = first[r], margins[r] - bounds.allowance[first[r]]
        memory.chosen[count] = r
        if not rooms[r] > 0.0:
            count += 1
    return count


@njit(**INNER, **BARE)
def _gather(rows, start, m, memory):  # type: ignore[no-untyped-def]
    """Put chosen rows into the tile; the last one fills up the last vector, and returns the number of rows with it."""
    tile = memory.tile
    whole = -(-m // NARROW) * NARROW
    for i in range(whole):
        r = memory.chosen[start + min(i, m - 1)]
        for j in range(rows.shape[1]):
            tile.rows[i, j] = rows[r, j]
    return whole


@njit(**INLINED, **BARE)
def _compare_four(s0, s1, s2, s3, c, low, scored, budgets, best):  # type: ignore[no-untyped-def]
    """Update what is least of sixteen rows with their scores by four centers from `c` on."""
    least, second, label = best
    least, second, label = _compare(s0, c, low, scored, budgets, least, second, label)
    least, second, label = _compare(s1, c + 1, low, scored, budgets, least, second, label)
    least, second, label = _compare(s2, c + 2, low, scored, budgets, least, second, label)
    return _compare(s3, c + 3, low, scored, budgets, least, second, label)


@njit(**INLINED, **BARE)
def _compare(score, c, low, scored, budgets, least, second, label):  # type: ignore[no-untyped-def]
    zero = splat(np.float32(0.0))
    squared = score + low
    # NaN becomes 0, which is no room.
    squared = where_less(zero, squared, squared, zero)
    return compare(root(squared) - repeated(budgets, c), repeated(scored.names, c), least, second, label)


@njit(**INNER, **BARE)
def _sweep(m, p, i, scored, memory):  # type: ignore[no-untyped-def]
    """Find the two least distances less budgets of each row of the tile, and the center of the least."""
    columns, norms, least, second, label = memory.columns, memory.norms, memory.least, memory.second, memory.label
    slopes, offsets, budgets = scored.slopes[i], scored.offsets[i], scored.budgets[i]
    k = offsets.shape[0]
    top = splat(np.float32(np.inf))
    two = splat(np.float32(2.0))
    square = splat(scored.reach[i] * scored.reach[i])
    relative = splat(scored.relative)
    absolute = splat(scored.absolute)
    for r in range(0, m, NARROW):
        store(least, r, top)
        store(second, r, top)
        store(label, r, splat(np.float32(0.0)))
    # The centers of a panel stay in the cache for all rows of the tile.
    for panel in range(0, k, scored.panel):
        end = min(k, panel + scored.panel)
        whole = panel + (end - panel) // 8 * 8 if MANY_REGISTERS else panel
        for r in range(0, m, NARROW):
            norm = load(norms, r)
            # (a + b)² is at most 2 a² + 2 b².
            low = norm - (relative * (two * (norm + square)) + absolute)
            best = load(least, r), load(second, r), load(label, r)
            for c in range(panel, whole, 8):
                s0, s1, s2, s3, s4, s5, s6, s7 = scores_of_eight(columns, r, slopes, offsets, c, p)
                best = _compare_four(s0, s1, s2, s3, c, low, scored, budgets, best)
                best = _compare_four(s4, s5, s6, s7, c + 4, low, scored, budgets, best)
            for c in range(whole, end, CENTERS_AT_ONCE):
                s0, s1, s2, s3 = scores_of_four(columns, r, slopes, offsets, c, p)
                best = _compare_four(s0, s1, s2, s3, c, low, scored, budgets, best)
            store(least, r, best[0])
            store(second, r, best[1])
            store(label, r, best[2])


@njit(**INNER, **BARE)
def _find_rooms(start, m, i, rows, scored, bounds, memory):  # type: ignore[no-untyped-def]
    """Find the labels and rooms of the rows in the tile at waypoint `i`; a row without room may get any label.

    If all others but one center are farther than that one asks for, its distance less its budget is the least. So the
    distance from the center of the least alone is computed, and a row whose room the rounding of scores may hide is
    compared by distances.
    """
    points, budgets, reach = bounds.points[i], bounds.budgets[i], bounds.reach
    square = np.float64(scored.reach[i]) * np.float64(scored.reach[i])
    for n in range(m):
        r = memory.chosen[start + n]
        row = rows[r]
        label = np.int32(memory.label[n])
        own = np.sqrt(_square(row, points[label]))
        least = (1.0 - ROUNDING) * np.float64(memory.second[n]) - ROUNDING_OF_BUDGETS * np.float64(scored.most[i])
        room = (1.0 - SLACK) * least * scored.unscale - (own + budgets[label] + SLACK * (own + reach))
        bound = 2.0 * (np.float64(memory.norms[n]) + square)
        rounding = np.float64(scored.relative) * bound * scored.unscale * scored.unscale
        # Beyond the limit a score may have overflowed, and says nothing.
        hidden = 2.0 * (np.sqrt(own * own + 4.0 * rounding) - own)
        if bound < scored.limit and (room > 0.0 or room < -hidden):
            memory.labels[r] = label
            memory.rooms[r] = room
            continue
        memory.labels[r], memory.rooms[r] = _find_room(
            row, points, budgets, reach, bounds.order, bounds.apart, memory.labels[r]
        )


@njit(**INNER, **BARE)
def _tell_kinds(i, first, ahead, waiting, memory, at_waypoints, kinds):  # type: ignore[no-untyped-def]
    """Tell the kinds of rows by what is known at waypoint `i`, keep their labels, and return how many wait on."""
    labels, rooms = memory.labels, memory.rooms
    left = 0
    for n in range(waiting):
        r = memory.waiting[n]
        label = labels[r]
        at_waypoints[r, i] = label
        # NaN, where squares leave float64, is no room either.
        if not rooms[r] > 0.0:
            kinds[r] = NEAR
            continue
        if label != first[r]:
            kinds[r] = MOVING
        elif kinds[r] == STEADY and rooms[r] > ahead[label]:
            continue
        memory.waiting[left] = r
        left += 1
    return left


@njit(**INNER, **BARE)
def _follow_some(rows, first, margins, scored, bounds, memory, near, labels, distances, kinds):  # type: ignore[no-untyped-def]
    """Do as `follow` does for as many rows as there is memory for."""
    m, p = rows.shape
    w = bounds.points.shape[0]
    t = memory.tile.rows.shape[0]
    waiting = 0
    for r in range(m):
        memory.waiting[waiting] = r
        kinds[r] = STEADY if near[r] else CLEAR
        if near[r]:
            memory.labels[r] = first[r]
            memory.rooms[r] = -np.inf
            waiting += 1
    # Budgets grow along a course, so that most of the near rows are found before the first waypoints.
    for i in range(w - 1, -1, -1):
        count = _take_losses(i, first, margins, waiting, bounds, memory)
        for start in range(0, count, t):
            n = min(t, count - start)
            whole = _gather(rows, start, n, memory)
            turn(memory.tile, whole, p, scored, memory.columns, memory.norms)
            _sweep(whole, p, i, scored, memory)
            _find_rooms(start, n, i, rows, scored, bounds, memory)
        waiting = _tell_kinds(i, first, bounds.ahead[i], waiting, memory, labels, kinds)
    for r in range(m):
        near[r] = kinds[r] == NEAR
        if kinds[r] == MOVING:
            for i in range(w):
                distances[r, i] = np.sqrt(_square(rows[r], bounds.points[i, labels[r, i]]))


@njit(**BARE)
def follow(rows, first, margins, scored, bounds, memory, near, labels, distances, kinds):  # type: ignore[no-untyped-def]
    """Label rows at all waypoints of a course, as long as they are far from every boundary.

    Parameters
    ----------
    rows
        Rows ``(m, p)`` in the space of the points.
    first, margins
        Labels of the rows at the first waypoint, and their margins there ``(m,)``.
    scored, bounds
        The waypoints, as rows are scored by them, and what is known of the course before any row is seen.
    memory
        Memory for some rows at once.
    near
        Whether each row is to be followed ``(m,)``; afterwards, whether it is near a boundary at some waypoint.
    labels, distances
        Get the labels of moving rows at all waypoints ``(m, w)``, and their distances from these centers.
    kinds
        Gets the kinds of the rows ``(m,)``: `CLEAR` for those that are not followed.
    """
    for start in range(0, rows.shape[0], memory.rooms.shape[0]):
        end = min(rows.shape[0], start + memory.rooms.shape[0])
        _follow_some(
            rows[start:end], first[start:end], margins[start:end], scored, bounds, memory,
            near[start:end], labels[start:end], distances[start:end], kinds[start:end],
        )  # fmt: skip


@njit(**BARE)
def lower_multiples(rows, points, lengths, longest, order, apart, labels, multiples):  # type: ignore[no-untyped-def]
    """Lower multiples to those of some lengths by which centers may move before the label of a row changes.

    Parameters
    ----------
    rows
        Rows ``(m, p)`` in the space of the points.
    points, lengths
        Centers ``(k, p)``, and a positive length for each ``(k,)``.
    longest
        The largest length.
    order, apart
        As for `follow`, with budgets of 0.
    labels
        Centers ``(m,)`` to begin with; become the nearest ones.
    multiples
        Multiples ``(m,)``, which become the lower of these and of those of the lengths.
    """
    k, n_nearest = points.shape[0], order.shape[1]
    for r in range(rows.shape[0]):
        row, label = rows[r], labels[r]
        square = _square(row, points[label])
        nearer = 0
        while nearer >= 0:
            own, least, length = np.sqrt(square), multiples[r], lengths[label]
            nearer = -1
            for n in range(n_nearest + k):
                if n < n_nearest:
                    if apart[label, n] - 2.0 * own >= least * (length + longest):
                        break
                    j = order[label, n]
                elif n_nearest == k - 1:
                    break
                else:
                    j = n - n_nearest
                    if j == label:
                        continue
                other = _square(row, points[j])
                if other < square:
                    nearer, square = j, other
                    break
                bound = own + least * (length + lengths[j])
                if other < bound * bound:
                    least = (np.sqrt(other) - own) / (length + lengths[j])
            if nearer >= 0:
                label = nearer
        labels[r] = label
        # Nothing is known of rows whose squares leave float64.
        multiples[r] = least if square < np.inf else 0.0
