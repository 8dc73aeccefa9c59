"""Columns, distances and sums of rows of few features, where there are few clusters.

A row of four features fills half a vector, and a sum that is looked up by a label waits for the one before. So rows
stay side by side from the source to the sums: lane i of a sum is that of the rows i, i + 8, i + 16 and so on.
"""

from __future__ import annotations

import numpy as np

from clustering.compiling import INLINED, INNER, njit
from clustering.models.few_features_buffers import FEATURES_AT_ONCE
from clustering.models.kernels import BARE
from clustering.models.lane_choices import add_where, chosen, multiply_add_where
from clustering.models.lane_turns import transposed, turned_four
from clustering.models.lane_types import doubles
from clustering.models.lanes import (
    NARROW,
    WIDE,
    beginning,
    element,
    load,
    memory,
    multiply_add,
    repeated,
    splat,
    store,
)
from clustering.models.settling_kernels import cost


@njit(**INNER, **BARE)
def turn_few(rows, m, d, origin, way):  # type: ignore[no-untyped-def]
    """Write rows as columns, and as scaled columns with their squared norms.

    Parameters
    ----------
    rows, m, d
        Memory of `m` rows of float32, where `m` is a multiple of 16; number of features.
    origin
        Origin in float32.
    way
        Memory for rows of few features.
    """
    by = way.by
    across = (d + FEATURES_AT_ONCE - 1) // FEATURES_AT_ONCE * FEATURES_AT_ONCE
    for r in range(0, m, NARROW):
        even = splat(np.float32(0.0))
        odd = splat(np.float32(0.0))
        for j in range(0, d, FEATURES_AT_ONCE):
            c0, c1, c2, c3 = turned_four(rows, r * d + j, d)
            i = r * across + j * NARROW
            store(way.singles, i, c0)
            store(way.singles, i + NARROW, c1)
            store(way.singles, i + 2 * NARROW, c2)
            store(way.singles, i + 3 * NARROW, c3)
            c0 = (c0 - repeated(origin, j)) * repeated(way.scales, j)
            c1 = (c1 - repeated(origin, j + 1)) * repeated(way.scales, j + 1)
            c2 = (c2 - repeated(origin, j + 2)) * repeated(way.scales, j + 2)
            c3 = (c3 - repeated(origin, j + 3)) * repeated(way.scales, j + 3)
            # Columns behind the last feature are zero. The next sixteen rows overwrite them.
            i = r * d + j * NARROW
            store(by.columns, i, c0)
            store(by.columns, i + NARROW, c1)
            store(by.columns, i + 2 * NARROW, c2)
            store(by.columns, i + 3 * NARROW, c3)
            even = multiply_add(c0, c0, multiply_add(c2, c2, even))
            odd = multiply_add(c1, c1, multiply_add(c3, c3, odd))
        store(by.norms, r, even + odd)


@njit(**INLINED, **BARE)
def _take_distances(tile, m, d, origin, way):  # type: ignore[no-untyped-def]
    """Compute distances in the order of `kernels.distance_between`, and keep the rows for their sums."""
    across = (d + FEATURES_AT_ONCE - 1) // FEATURES_AT_ONCE * FEATURES_AT_ONCE
    for r in range(0, m, WIDE):
        labels = load(tile.labels, r)
        total = splat(0.0)
        i = r // NARROW * NARROW * across + r % NARROW
        for j in range(d):
            x = doubles(way.singles, i + j * NARROW) - repeated(origin, j)
            t = x - chosen(way.points, j * WIDE, labels)
            total = total + t * t
            store(way.rows, r * d + j * WIDE, x)
        store(tile.distances, r, total)


@njit(**INLINED, **BARE)
def _weigh(start, m, d, weights, way):  # type: ignore[no-untyped-def]
    """Keep the weights of the rows, and multiply the rows by them."""
    if not weights:
        for r in range(0, m, WIDE):
            store(way.weights, r, splat(1.0))
        return
    each = memory(weights, np.float64)
    for r in range(m):
        way.weights[r] = element(each, start + r)
    for r in range(0, m, WIDE):
        w = load(way.weights, r)
        for j in range(d):
            i = r * d + j * WIDE
            store(way.rows, i, w * load(way.rows, i))


@njit(**INNER, **BARE)
def _add_column(numbers, step, m, labels, sums, between):  # type: ignore[no-untyped-def]
    """Add up a number of each row in the sums of eight clusters.

    The arguments are addresses and numbers, and few enough to stay in registers.
    """
    s0 = load(sums, 0)
    s1 = load(sums, between)
    s2 = load(sums, 2 * between)
    s3 = load(sums, 3 * between)
    s4 = load(sums, 4 * between)
    s5 = load(sums, 5 * between)
    s6 = load(sums, 6 * between)
    s7 = load(sums, 7 * between)
    for r in range(0, m, WIDE):
        x = load(numbers, r * step)
        label = load(labels, r)
        s0 = add_where(s0, x, label, 0.0)
        s1 = add_where(s1, x, label, 1.0)
        s2 = add_where(s2, x, label, 2.0)
        s3 = add_where(s3, x, label, 3.0)
        s4 = add_where(s4, x, label, 4.0)
        s5 = add_where(s5, x, label, 5.0)
        s6 = add_where(s6, x, label, 6.0)
        s7 = add_where(s7, x, label, 7.0)
    store(sums, 0, s0)
    store(sums, between, s1)
    store(sums, 2 * between, s2)
    store(sums, 3 * between, s3)
    store(sums, 4 * between, s4)
    store(sums, 5 * between, s5)
    store(sums, 6 * between, s6)
    store(sums, 7 * between, s7)


@njit(**INNER, **BARE)
def _add_four_columns(numbers, d, m, labels, first, sums, one):  # type: ignore[no-untyped-def]
    """Add up four numbers of each row in the sums of four clusters from `first` on: to find a cluster serves all four.

    Products with 1 are exact: half of the additions are left to the units of products. The arguments are addresses and
    numbers, and few enough to stay in registers.
    """
    one = repeated(one, 0)
    between = d * WIDE
    a0 = load(sums, 0)
    a1 = load(sums, between)
    a2 = load(sums, 2 * between)
    a3 = load(sums, 3 * between)
    b0 = load(sums, WIDE)
    b1 = load(sums, between + WIDE)
    b2 = load(sums, 2 * between + WIDE)
    b3 = load(sums, 3 * between + WIDE)
    c0 = load(sums, 2 * WIDE)
    c1 = load(sums, between + 2 * WIDE)
    c2 = load(sums, 2 * between + 2 * WIDE)
    c3 = load(sums, 3 * between + 2 * WIDE)
    d0 = load(sums, 3 * WIDE)
    d1 = load(sums, between + 3 * WIDE)
    d2 = load(sums, 2 * between + 3 * WIDE)
    d3 = load(sums, 3 * between + 3 * WIDE)
    for r in range(0, m, WIDE):
        label = load(labels, r)
        x = load(numbers, r * d)
        a0 = add_where(a0, x, label, first)
        a1 = add_where(a1, x, label, first + 1.0)
        a2 = add_where(a2, x, label, first + 2.0)
        a3 = add_where(a3, x, label, first + 3.0)
        x = load(numbers, r * d + WIDE)
        b0 = multiply_add_where(one, x, b0, label, first)
        b1 = multiply_add_where(one, x, b1, label, first + 1.0)
        b2 = multiply_add_where(one, x, b2, label, first + 2.0)
        b3 = multiply_add_where(one, x, b3, label, first + 3.0)
        x = load(numbers, r * d + 2 * WIDE)
        c0 = add_where(c0, x, label, first)
        c1 = add_where(c1, x, label, first + 1.0)
        c2 = add_where(c2, x, label, first + 2.0)
        c3 = add_where(c3, x, label, first + 3.0)
        x = load(numbers, r * d + 3 * WIDE)
        d0 = multiply_add_where(one, x, d0, label, first)
        d1 = multiply_add_where(one, x, d1, label, first + 1.0)
        d2 = multiply_add_where(one, x, d2, label, first + 2.0)
        d3 = multiply_add_where(one, x, d3, label, first + 3.0)
    store(sums, 0, a0)
    store(sums, between, a1)
    store(sums, 2 * between, a2)
    store(sums, 3 * between, a3)
    store(sums, WIDE, b0)
    store(sums, between + WIDE, b1)
    store(sums, 2 * between + WIDE, b2)
    store(sums, 3 * between + WIDE, b3)
    store(sums, 2 * WIDE, c0)
    store(sums, between + 2 * WIDE, c1)
    store(sums, 2 * between + 2 * WIDE, c2)
    store(sums, 3 * between + 2 * WIDE, c3)
    store(sums, 3 * WIDE, d0)
    store(sums, between + 3 * WIDE, d1)
    store(sums, 2 * between + 3 * WIDE, d2)
    store(sums, 3 * between + 3 * WIDE, d3)


@njit(**INLINED, **BARE)
def settle_few(start, m, d, centers, weights, tile, way, adds):  # type: ignore[no-untyped-def]
    """Compute distances, and add up the rows in the sums of `way`; return Σw·distance.

    Parameters
    ----------
    start, m, d
        First row of the tile in its block, number of its rows, and of features.
    centers
        Centers of the pass.
    weights
        Address of the weights of the block; 0 where all are 1.
    tile
        Tile with the labels of the rows, which gets their distances.
    way
        Memory for rows of few features.
    adds
        Whether rows are added up.
    """
    _take_distances(tile, m, d, centers.origin, way)
    if not adds:
        return 0.0
    # Lanes behind the last row belong to no cluster.
    for r in range(m, -(-m // WIDE) * WIDE):
        tile.labels[r] = -1.0
    _weigh(start, m, d, weights, way)
    labels = beginning(tile.labels, 0)
    long = d - d % FEATURES_AT_ONCE
    for j in range(0, long, FEATURES_AT_ONCE):
        for i in range(0, WIDE, 4):
            sums = beginning(way.first, (i * d + j) * WIDE)
            _add_four_columns(beginning(way.rows, j * WIDE), d, m, labels, np.float64(i), sums, beginning(way.one, 0))
    for j in range(long, d):
        _add_column(beginning(way.rows, j * WIDE), d, m, labels, beginning(way.first, j * WIDE), d * WIDE)
    _add_column(beginning(way.weights, 0), 1, m, labels, beginning(way.weight, 0), WIDE)
    return cost(start, m, weights, tile)


@njit(**INNER, **BARE)
def end_few(way, d, sums):  # type: ignore[no-untyped-def]
    """Move the sums of `way` to those of some rows, a copy for each lane, and begin new ones.

    Parameters
    ----------
    way
        Memory for rows of few features.
    d
        Number of features.
    sums
        Gets the sums.
    """
    zero = splat(0.0)
    copies, k = sums.weight.shape
    width = sums.first.shape[2]
    for i in range(k):
        for c in range(copies):
            sums.weight[c, i] = way.weight[i, c]
            way.weight[i, c] = 0.0
        for j in range(0, width, WIDE):
            p = (i * d + j) * WIDE
            # What lies beyond the last feature has no effect.
            s0, s1, s2, s3, s4, s5, s6, s7 = transposed(
                load(way.first, p), load(way.first, p + WIDE), load(way.first, p + 2 * WIDE),
                load(way.first, p + 3 * WIDE), load(way.first, p + 4 * WIDE), load(way.first, p + 5 * WIDE),
                load(way.first, p + 6 * WIDE), load(way.first, p + 7 * WIDE),
            )  # fmt: skip
            q = i * width + j
            store(sums.first, q, s0)
            store(sums.first, q + k * width, s1)
            store(sums.first, q + 2 * k * width, s2)
            store(sums.first, q + 3 * k * width, s3)
            store(sums.first, q + 4 * k * width, s4)
            store(sums.first, q + 5 * k * width, s5)
            store(sums.first, q + 6 * k * width, s6)
            store(sums.first, q + 7 * k * width, s7)
        for j in range(d):
            store(way.first, (i * d + j) * WIDE, zero)
