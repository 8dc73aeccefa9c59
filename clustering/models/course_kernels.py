"""Compiled loops that follow rows along a course, and compare them with the centers at its waypoints.

Scores of rows by all centers, in float32, give lower bounds of the distances. Where these are too rough, distances are
computed. A center j at the distance ‖a − j‖ from the nearest center a of a row is at least ‖a − j‖ − d(x, a) away from
it. So a row is compared with the other centers in the order of their distance from its own, until none of the rest can
count (Newling & Fleuret 2016, PMLR 48:936–944, for the labels of one pass).

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
from clustering.models.lanes import NARROW, load, repeated, splat, store, where_less
from clustering.models.margin_kernels import SLACK
from clustering.models.score_kernels import compare

LONG = 16
"""Number of features from which distances are added up side by side."""
ROUNDING, ROUNDING_OF_BUDGETS = 2.0**-22, 2.0**-21
"""Rounding of a distance less a budget in float32, relative to it and to the largest budget: four and eight times that
of one operation, which cover the root, the difference and the budget itself."""
NEAR, STEADY, MOVING = 0, 1, 2
"""Kinds of rows along a course: near a boundary, far with one label, and far with several."""


class CourseBounds(NamedTuple):
    """What is known of a course before any row is seen, as the kernels take it."""

    points: NDArray[np.float64]
    """Centers at all waypoints ``(number of waypoints, k, p)``."""
    budgets: NDArray[np.float64]
    """Budgets of the course ``(number of waypoints, k)``."""
    astray: NDArray[np.float64]
    """How far each center may be from its place at the first waypoint anywhere on the course ``(k,)``."""
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
def _is_clear(row, points, budgets, need, other):  # type: ignore[no-untyped-def]
    """Return whether another center is farther than a row needs, wherever it strays; NaN is not."""
    bound = need + budgets[other]
    return (1.0 - 2.0 * SLACK) * _square(row, points[other]) > bound * bound


@njit(**INNER, **BARE)
def _keeps_label(row, points, budgets, reach, order, apart, label, own, margin):  # type: ignore[no-untyped-def]
    """Return whether a row of known distance and margin keeps its label wherever centers are within their budgets."""
    k, n_nearest = points.shape[0], order.shape[1]
    need = own + budgets[label] + SLACK * (own + reach)
    # All others are farther than the nearest by the margin, so that only those of large budgets are looked at.
    enough = margin - budgets[label]
    for n in range(n_nearest):
        if apart[label, n] - own >= need:
            return True
        j = order[label, n]
        if not budgets[j] < enough and not _is_clear(row, points, budgets, need, j):
            return False
    if n_nearest < k - 1:
        for j in range(k):
            if j != label and not budgets[j] < enough and not _is_clear(row, points, budgets, need, j):
                return False
    return True


@njit(**BARE)
def follow(  # type: ignore[no-untyped-def]
    rows, first, own, margins, points, budgets, astray, losses, ahead, reach, order, apart, labels, distances, kinds
):
    """Label rows at all waypoints of a course, as long as they are far from every boundary.

    Parameters
    ----------
    rows, first, own, margins
        Rows ``(m, p)`` in the space of the points, and what is known of them at the first waypoint: labels, distances
        and margins ``(m,)``.
    points, budgets
        Centers ``(w, k, p)`` at all waypoints, and how far each may stray ``(w, k)``.
    astray
        How far each center may be from its place at the first waypoint anywhere on the course ``(k,)``.
    losses
        By how much the room of a row of each cluster is less than at the waypoint after, at most ``(w, k)``.
    ahead
        By how much it gets less on the way from a waypoint to the first one, at most ``(w, k)``.
    reach
        Largest distance of a center from the origin.
    order, apart
        The centers next to each, and bounds by which they are ruled out ``(k, l)``, see `NeighbouringCenters`.
    labels, distances
        Get the labels of moving rows at all waypoints ``(m, w)``, and their distances from these centers.
    kinds
        Gets the kinds of the rows ``(m,)``: `NEAR`, `STEADY` or `MOVING`.
    """
    w = points.shape[0]
    for r in range(rows.shape[0]):
        row, label, kind = rows[r], first[r], STEADY
        # One look at the first waypoint shows most of the rows that keep their label along the whole course.
        keeps = _keeps_label(row, points[0], astray, reach, order, apart, label, own[r], margins[r])
        if not keeps and w == 1:
            # There is no other waypoint at which more may be known.
            kind = NEAR
        elif not keeps:
            room = -np.inf
            # Budgets are largest at the last waypoint, where most of the near rows are found.
            for i in range(w - 1, -1, -1):
                room -= losses[i, label]
                if not room > 0.0:
                    label, room = _find_room(row, points[i], budgets[i], reach, order, apart, label)
                    # NaN, where squares leave float64, is no room either.
                    if not room > 0.0:
                        kind = NEAR
                        break
                labels[r, i] = label
                if label != first[r]:
                    kind = MOVING
                elif kind == STEADY and room > ahead[i, label]:
                    break
        kinds[r] = kind
        if kind == MOVING:
            for i in range(w):
                distances[r, i] = np.sqrt(_square(row, points[i, labels[r, i]]))


@njit(**BARE)
def take_losses(losses, first, at_first, labels, rooms, waits, chosen):  # type: ignore[no-untyped-def]
    """Lower the rooms of rows by what they lose on the way to a waypoint; return how many rows have none left.

    Parameters
    ----------
    losses
        Losses of the rows of each cluster ``(k,)``.
    first, at_first
        Labels and rooms of the rows ``(m,)`` at the first waypoint; rooms are empty for the way to another one.
    labels, rooms, waits
        What is known of the rows ``(m,)``, see `course_scores.Followed`.
    chosen
        Gets the indices of the rows without room.
    """
    count = 0
    for r in range(labels.shape[0]):
        if waits[r]:
            rooms[r] -= losses[labels[r]]
            if not rooms[r] > 0.0 and at_first.shape[0] and at_first[r] > 0.0:
                labels[r], rooms[r] = first[r], at_first[r]
            if not rooms[r] > 0.0:
                chosen[count] = r
                count += 1
    return count


@njit(**INNER, **BARE)
def _sweep(scores, m, waypoint, best):  # type: ignore[no-untyped-def]
    """Find the two least distances less budgets of each row, and the center of the least, sixteen rows at a time."""
    # Behind the squared norms comes what is found.
    second_at, least_at, label_at = m, 2 * m, 3 * m
    zero = splat(np.float32(0.0))
    two = splat(np.float32(2.0))
    square = splat(waypoint.reach * waypoint.reach)
    relative = splat(waypoint.relative)
    absolute = splat(waypoint.absolute)
    for r in range(0, m, NARROW):
        norm = load(best, r)
        # (a + b)² is at most 2 a² + 2 b².
        low = norm - (relative * (two * (norm + square)) + absolute)
        least = splat(np.float32(np.inf))
        second = least
        label = zero
        for j in range(waypoint.offsets.shape[0]):
            squared = load(scores, j * m + r) + (low + repeated(waypoint.offsets, j))
            # NaN becomes 0, which is no room.
            squared = where_less(zero, squared, squared, zero)
            bound = root(squared) - repeated(waypoint.budgets, j)
            least, second, label = compare(bound, repeated(waypoint.names, j), least, second, label)
        store(best, second_at + r, second)
        store(best, least_at + r, least)
        store(best, label_at + r, label)


@njit(**BARE)
def find_rooms(  # type: ignore[no-untyped-def]
    scores, chosen, count, norms, rows, waypoint, points, budgets, bounds, best, labels, rooms
):
    """Find the labels and rooms of some rows at a waypoint.

    If all others but one center are farther than that one asks for, its distance less its budget is the least. So the
    distance from the center of the least alone is computed, and a row whose room the rounding of scores may hide is
    compared by distances.

    Parameters
    ----------
    scores
        Scores ``(k, m)``, with m rounded up to whole vectors.
    chosen, count
        Indices of the rows ``(m,)``, and how many of them count.
    norms, rows
        Squared norms of all scaled rows ``(n,)``, and the rows ``(n, p)``.
    waypoint
        Centers as they are scored.
    points, budgets
        Centers ``(k, p)``, and how far each may stray ``(k,)``.
    bounds
        Reach, order and neighbours of `CourseBounds`.
    best
        Memory for four numbers of each row of a vector ``(4 m,)``.
    labels, rooms
        Labels to begin with and rooms ``(n,)``, which become those at the waypoint; a row without room may get any
        label.
    """
    m = chosen.shape[0]
    reach, order, apart = bounds
    for r in range(m):
        best[r] = norms[chosen[r]]
    _sweep(scores, m, waypoint, best)
    square = np.float64(waypoint.reach) * np.float64(waypoint.reach)
    for r in range(count):
        i = chosen[r]
        row = rows[i]
        label = np.int32(best[3 * m + r])
        own = np.sqrt(_square(row, points[label]))
        least = (1.0 - ROUNDING) * np.float64(best[m + r]) - ROUNDING_OF_BUDGETS * np.float64(waypoint.most)
        room = (1.0 - SLACK) * least * waypoint.unscale - (own + budgets[label] + SLACK * (own + reach))
        bound = 2.0 * (np.float64(best[r]) + square)
        rounding = np.float64(waypoint.relative) * bound * waypoint.unscale * waypoint.unscale
        # Beyond the limit a score may have overflowed, and says nothing.
        hidden = 2.0 * (np.sqrt(own * own + 4.0 * rounding) - own)
        if bound < np.float64(waypoint.limit) and (room > 0.0 or room < -hidden):
            labels[i] = label
            rooms[i] = room
            continue
        labels[i], rooms[i] = _find_room(row, points, budgets, reach, order, apart, labels[i])


@njit(**BARE)
def tell_kinds(i, first, ahead, labels, rooms, waits, at_waypoints, kinds):  # type: ignore[no-untyped-def]
    """Tell the kinds of rows by what is known at a waypoint, and keep their labels.

    Parameters
    ----------
    i
        Number of the waypoint.
    first
        Labels at the first waypoint ``(m,)``.
    ahead
        By how much the room of a row of each cluster gets less on the way to the first one, at most ``(k,)``.
    labels, rooms, waits
        What is known of the rows ``(m,)``, see `course_scores.Followed`.
    at_waypoints
        Gets the labels ``(m, w)``.
    kinds
        Kinds ``(m,)``.
    """
    for r in range(first.shape[0]):
        if not waits[r]:
            continue
        at_waypoints[r, i] = labels[r]
        # NaN, where squares leave float64, is no room either.
        if not rooms[r] > 0.0:
            kinds[r] = NEAR
            waits[r] = False
        elif labels[r] != first[r]:
            kinds[r] = MOVING
        elif kinds[r] == STEADY and rooms[r] > ahead[labels[r]]:
            waits[r] = False


@njit(**BARE)
def measure_moving(rows, points, labels, distances, moving):  # type: ignore[no-untyped-def]
    """Compute the distances of moving rows at all waypoints.

    Parameters
    ----------
    rows, points
        Rows ``(m, p)``, and centers at all waypoints ``(w, k, p)``.
    labels, distances
        Labels of the rows at all waypoints ``(m, w)``; gets their distances.
    moving
        Whether each row is moving ``(m,)``.
    """
    for r in range(rows.shape[0]):
        if moving[r]:
            for i in range(points.shape[0]):
                distances[r, i] = np.sqrt(_square(rows[r], points[i, labels[r, i]]))


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
