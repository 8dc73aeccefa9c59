"""Compiled loops that compare rows with the centers near their own, and follow them along a course.

A center j at the distance ‖a − j‖ from the nearest center a of a row is at least ‖a − j‖ − d(x, a) away from it. So a
row is compared with the other centers in the order of their distance from its own, until none of the rest can count
(Newling & Fleuret 2016, PMLR 48:936–944, for the labels of one pass).

What is known at a waypoint holds at the next one, less what the centers move (Hamerly 2010,
doi:10.1137/1.9781611972801.12). Only a row for which that is not enough is compared again.
"""

from __future__ import annotations

import numpy as np

from clustering.compiling import INLINED, INNER, njit
from clustering.models.kernels import BARE, distance_between
from clustering.models.margin_kernels import SLACK

LONG = 16
"""Number of features from which distances are added up side by side."""
NEAR, STEADY, MOVING = 0, 1, 2
"""Kinds of rows along a course: near a boundary, far with one label, and far with several."""


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
