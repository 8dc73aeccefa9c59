"""Distances of labelled rows from their centers, and sums of their clusters.

Rows of a tile are walked twice. Those that are read in the source, as float32, are widened once for both. The tuples
that these kernels take are described in `lloyd_buffers`.
"""

from __future__ import annotations

import numpy as np

from clustering.compiling import INLINED, INNER, njit
from clustering.models.in_place_buffers import PART, PART_ROWS
from clustering.models.kernels import BARE
from clustering.models.lane_turns import transposed
from clustering.models.lane_types import doubles
from clustering.models.lanes import (
    WIDE,
    beginning,
    element,
    folded,
    folded_together,
    load,
    memory,
    multiply_add,
    repeated,
    splat,
    store,
)


@njit(**INLINED, **BARE)
def squares(rows, i, centers, c, long):  # type: ignore[no-untyped-def]
    """Add up sixteen features at a time as `kernels.distance_between` does.

    Parameters
    ----------
    rows, i
        Rows less the origin, and index of the first feature of one.
    centers, c
        Centers, and index of the first feature of one.
    long
        Number of features, a multiple of 16.
    """
    a = splat(0.0)
    b = splat(0.0)
    for j in range(0, long, 16):
        t = load(rows, i + j) - load(centers, c + j)
        u = load(rows, i + j + 8) - load(centers, c + j + 8)
        a = a + t * t
        b = b + u * u
    return a + b


@njit(**INLINED, **BARE)
def add_tail(rows, i, centers, c, long, d, total):  # type: ignore[no-untyped-def]
    """Add the features that do not make sixteen, one by one.

    Parameters
    ----------
    rows, i, centers, c, long
        As in `squares`.
    d
        Number of features.
    total
        Sum of the squares of the others.
    """
    for j in range(long, d):
        t = element(rows, i + j) - element(centers, c + j)
        total += t * t
    return total


@njit(**INNER, **BARE)
def take_distances(tile, m, d, centers):  # type: ignore[no-untyped-def]
    """Compute the distance of every row from the center of its label.

    Parameters
    ----------
    tile, m, d
        Tile with `m` labelled rows of `d` features.
    centers
        Centers, widened to whole vectors.
    """
    w = tile.rows.shape[1]
    long = d - d % 16
    labels = tile.labels
    for r in range(0, m, WIDE):
        i = r * w
        # Rows beyond m hold an older tile or zeros, with valid labels. Nobody reads their results.
        total = folded_together(
            squares(tile.rows, i, centers, int(labels[r]) * w, long),
            squares(tile.rows, i + w, centers, int(labels[r + 1]) * w, long),
            squares(tile.rows, i + 2 * w, centers, int(labels[r + 2]) * w, long),
            squares(tile.rows, i + 3 * w, centers, int(labels[r + 3]) * w, long),
            squares(tile.rows, i + 4 * w, centers, int(labels[r + 4]) * w, long),
            squares(tile.rows, i + 5 * w, centers, int(labels[r + 5]) * w, long),
            squares(tile.rows, i + 6 * w, centers, int(labels[r + 6]) * w, long),
            squares(tile.rows, i + 7 * w, centers, int(labels[r + 7]) * w, long),
        )
        store(tile.distances, r, total)
    if long < d:
        for r in range(m):
            c = int(labels[r]) * w
            tile.distances[r] = add_tail(tile.rows, r * w, centers, c, long, d, tile.distances[r])


@njit(**INLINED, **BARE)
def add_up(start, m, weights, tile, sums):  # type: ignore[no-untyped-def]
    """Add Σw and Σw·x per label to `sums`, and return Σw·distance.

    Parameters
    ----------
    start, m
        First row of the tile in its block, and number of its rows.
    weights
        Address of the weights of the block; 0 where all are 1.
    tile
        Tile with labels and distances.
    sums
        Sums that are added to.
    """
    width = tile.rows.shape[1]
    copies, k = sums.weight.shape
    each = memory(weights, np.float64)
    for r in range(m):
        w = element(each, start + r) if weights else 1.0
        label = int(tile.labels[r])
        copy = r & (copies - 1)
        sums.weight[copy, label] += w
        factor = splat(w)
        p = (copy * k + label) * width
        # There is one vector at least, which needs no loop.
        store(sums.first, p, load(sums.first, p) + factor * load(tile.rows, r * width))
        for j in range(WIDE, width, WIDE):
            store(sums.first, p + j, load(sums.first, p + j) + factor * load(tile.rows, r * width + j))
    return cost(start, m, weights, tile)


@njit(**INLINED, **BARE)
def cost(start, m, weights, tile):  # type: ignore[no-untyped-def]
    """Add up w·distance of the rows of a tile.

    Parameters
    ----------
    start, m, weights, tile
        As in `add_up`.
    """
    each = memory(weights, np.float64)
    total = splat(0.0)
    whole = m - m % WIDE
    for r in range(0, whole, WIDE):
        w = load(each, start + r) if weights else splat(1.0)
        total = total + w * load(tile.distances, r)
    cost = folded(total)
    for r in range(whole, m):
        cost += (element(each, start + r) if weights else 1.0) * element(tile.distances, r)
    return cost


@njit(**INLINED, **BARE)
def settle(single, start, m, d, centers, weights, tile, parts, sums):  # type: ignore[no-untyped-def]
    """Compute distances and add up the rows, as `take_distances` and `add_up` do, of rows that are read in the source.

    Parameters
    ----------
    single
        Address of the rows in float32, whose number of features is a multiple of 8.
    start, m, d
        First row of the tile in its block, number of its rows, and of features.
    centers
        Centers of the pass.
    weights
        Address of the weights of the block; 0 where all are 1.
    tile
        Tile with the labels of the rows, which gets their distances.
    parts
        Memory for the distances of some rows.
    sums
        Sums that are added to; without copies, rows are not added up.
    """
    copies, k = sums.weight.shape
    adds = copies > 0
    long = d - d % (2 * WIDE)
    each = memory(weights, np.float64)
    turns = copies - 1, k * d
    # Indices of memory are not tested for being negative, as those of arrays are.
    places = beginning(parts.places, 0)
    factors = beginning(parts.factors, 0)
    weight = beginning(sums.weight, 0)
    for begin in range(0, m, PART_ROWS):
        count = min(m - begin, PART_ROWS)
        for r in range(count):
            label = int(element(tile.labels, begin + r))
            w = element(each, start + begin + r) if weights else 1.0
            places[r] = label * d
            factors[r] = w
            if adds:
                weight[(r & (copies - 1)) * k + label] += w
        _settle_features(
            beginning(memory(single, np.float32), begin * d), count, long, d, parts.piece,
            beginning(centers.centers, 0), beginning(centers.origin, 0), places,
            factors, beginning(parts.squares, 0), beginning(sums.first, 0), turns, beginning(parts.minus, 0), adds,
        )  # fmt: skip
        for r in range(0, count, WIDE):
            store(tile.distances, begin + r, _fold_parts(beginning(parts.squares, r * PART), long, d))
    return cost(start, m, weights, tile) if adds else 0.0


@njit(**INLINED, **BARE)
def _settle_features(rows, count, long, d, piece, points, origin, places, factors, parts, sums, turns, minus, adds):  # type: ignore[no-untyped-def]
    """Take the parts of the distances of some rows, and add the rows up, a few features of all rows at a time.

    The arguments are addresses and numbers, and few enough to stay in registers.
    """
    if long == 2 * WIDE:
        _settle_sixteen(rows, count, d, points, origin, places, factors, parts, sums, turns, minus, adds)
    else:
        for first in range(0, long, piece):
            last = min(long, first + piece)
            _settle_piece(rows, count, d, first, last, points, origin, places, factors, parts, sums, turns, minus, adds)
    if long < d:
        _settle_eight(rows, count, d, long, points, origin, places, factors, parts, sums, turns, minus, adds)


@njit(**INLINED, **BARE)
def _settle_piece(rows, count, d, first, last, points, origin, places, factors, parts, sums, turns, minus, adds):  # type: ignore[no-untyped-def]
    """Take the features from `first` to `last` of some rows, sixteen at a time as `kernels.distance_between` does."""
    less = repeated(minus, 0)
    for r in range(count):
        i = r * d
        c = element(places, r)
        p = c + (r & turns[0]) * turns[1]
        factor = repeated(factors, r)
        part = r * PART
        a = splat(0.0)
        b = splat(0.0)
        if first:
            a = load(parts, part)
            b = load(parts, part + WIDE)
        for j in range(first, last, 2 * WIDE):
            x = doubles(rows, i + j) - load(origin, j)
            y = doubles(rows, i + j + WIDE) - load(origin, j + WIDE)
            # Products with −1 are exact, and leave the units of additions to the sums.
            t = multiply_add(load(points, c + j), less, x)
            u = multiply_add(load(points, c + j + WIDE), less, y)
            a = a + t * t
            b = b + u * u
            if adds:
                store(sums, p + j, load(sums, p + j) + factor * x)
                store(sums, p + j + WIDE, load(sums, p + j + WIDE) + factor * y)
        store(parts, part, a)
        store(parts, part + WIDE, b)


@njit(**INLINED, **BARE)
def _settle_sixteen(rows, count, d, points, origin, places, factors, parts, sums, turns, minus, adds):  # type: ignore[no-untyped-def]
    """Do as `_settle_piece` does for the first sixteen features, without an inner loop."""
    less = repeated(minus, 0)
    for r in range(count):
        c = element(places, r)
        x = doubles(rows, r * d) - load(origin, 0)
        y = doubles(rows, r * d + WIDE) - load(origin, WIDE)
        t = multiply_add(load(points, c), less, x)
        u = multiply_add(load(points, c + WIDE), less, y)
        # The other half of the sixteen sums stays zero.
        store(parts, r * PART, t * t + u * u)
        if adds:
            factor = repeated(factors, r)
            p = c + (r & turns[0]) * turns[1]
            store(sums, p, load(sums, p) + factor * x)
            store(sums, p + WIDE, load(sums, p + WIDE) + factor * y)


@njit(**INLINED, **BARE)
def _settle_eight(rows, count, d, j, points, origin, places, factors, parts, sums, turns, minus, adds):  # type: ignore[no-untyped-def]
    """Take the last eight features, from `j` on, of some rows."""
    less = repeated(minus, 0)
    for r in range(count):
        c = element(places, r) + j
        x = doubles(rows, r * d + j) - load(origin, j)
        t = multiply_add(load(points, c), less, x)
        store(parts, r * PART + 2 * WIDE, t * t)
        if adds:
            p = c + (r & turns[0]) * turns[1]
            store(sums, p, load(sums, p) + repeated(factors, r) * x)


@njit(**INLINED, **BARE)
def _fold_parts(parts, long, d):  # type: ignore[no-untyped-def]
    """Add up the parts of the distances of eight rows."""
    total = folded_together(
        load(parts, 0) + load(parts, WIDE),
        load(parts, PART) + load(parts, PART + WIDE),
        load(parts, 2 * PART) + load(parts, 2 * PART + WIDE),
        load(parts, 3 * PART) + load(parts, 3 * PART + WIDE),
        load(parts, 4 * PART) + load(parts, 4 * PART + WIDE),
        load(parts, 5 * PART) + load(parts, 5 * PART + WIDE),
        load(parts, 6 * PART) + load(parts, 6 * PART + WIDE),
        load(parts, 7 * PART) + load(parts, 7 * PART + WIDE),
    )
    if long < d:
        # The features that do not make sixteen are added one by one.
        i = 2 * WIDE
        t0, t1, t2, t3, t4, t5, t6, t7 = transposed(
            load(parts, i), load(parts, i + PART), load(parts, i + 2 * PART), load(parts, i + 3 * PART),
            load(parts, i + 4 * PART), load(parts, i + 5 * PART), load(parts, i + 6 * PART), load(parts, i + 7 * PART),
        )  # fmt: skip
        total = total + t0 + t1 + t2 + t3 + t4 + t5 + t6 + t7
    return total
