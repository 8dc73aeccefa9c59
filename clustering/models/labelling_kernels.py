"""Labels of a tile of rows by the definition in `kernels`, in the way that is fastest for the shape.

The tuples that these kernels take are described in `lloyd_buffers`.
"""

from __future__ import annotations

import numpy as np
from numba.extending import overload

from clustering.compiling import INLINED, INNER, njit
from clustering.models.few_features_buffers import FewFeatures
from clustering.models.few_features_kernels import settle_few, turn_few
from clustering.models.in_place_buffers import InPlace
from clustering.models.kernels import BARE, CLEAR, INLINED_OVERLOAD, least_clear
from clustering.models.lane_turns import transposed
from clustering.models.lane_types import doubles
from clustering.models.lanes import (
    NARROW,
    WIDE,
    beginning,
    element,
    folded,
    lanes_up_to,
    load,
    lowest_bit,
    memory,
    repeated,
    splat,
    store,
    where_less,
)  # fmt: skip
from clustering.models.lloyd_buffers import ByScore, SideBySide
from clustering.models.recalled_buffers import Recalled
from clustering.models.score_kernels import ask_for, score, turn, turn_singles
from clustering.models.settling_kernels import add_tail, add_up, settle, squares, take_distances


@njit(**INNER, **BARE)
def _nearest(rows, i, d, centers, reach):  # type: ignore[no-untyped-def]
    """Label the row at `i` by the definition; return its label and squared distance."""
    long = d - d % 16
    # numba would compile what takes a literal 0 once more for that.
    c = np.int64(0)
    least = add_tail(rows, i, centers, c, long, d, folded(squares(rows, i, centers, c, long)))
    label = 0
    for k in range(1, centers.shape[0]):
        c = k * centers.shape[1]
        distance = add_tail(rows, i, centers, c, long, d, folded(squares(rows, i, centers, c, long)))
        if distance < least and distance < least_clear(least, reach[label] + reach[k]):
            least = distance
            label = k
    return label, least


@njit(**INNER, **BARE)
def _resolve_near_ties(tile, r, least, second, d, centers, reach, slack):  # type: ignore[no-untyped-def]
    """Label rows by the definition where the least distance is not clearly the least, among the eight from `r` on."""
    # Most masks are 0, so that rows without a near tie cost one comparison for eight of them.
    near = lanes_up_to(second * splat(CLEAR) - least - slack, 0.0)
    while near:
        row = r + lowest_bit(near)
        label, distance = _nearest(tile.rows, row * tile.rows.shape[1], d, centers, reach)
        tile.labels[row] = label
        tile.distances[row] = distance
        near &= near - 1


@njit(**INLINED, **BARE)
def _side_by_side(tile, m, d, centers, reach, slack_of_centers, columns, second, coming):  # type: ignore[no-untyped-def]
    """Label rows of less than sixteen features: sixteen rows at once, each added up in the order of the definition."""
    width = tile.rows.shape[1]
    slack = splat(slack_of_centers)
    ahead = memory(coming.address, np.uint8)
    part = coming.size * 2 * WIDE // m + 1
    for r in range(0, m, 2 * WIDE):
        ask_for(ahead, r // (2 * WIDE) * part, (r // (2 * WIDE) + 1) * part)
        for h in range(0, 2 * WIDE, WIDE):
            for j in range(0, width, WIDE):
                i = (r + h) * width + j
                c0, c1, c2, c3, c4, c5, c6, c7 = transposed(
                    load(tile.rows, i), load(tile.rows, i + width), load(tile.rows, i + 2 * width),
                    load(tile.rows, i + 3 * width), load(tile.rows, i + 4 * width), load(tile.rows, i + 5 * width),
                    load(tile.rows, i + 6 * width), load(tile.rows, i + 7 * width),
                )  # fmt: skip
                i = j * 16 + h
                store(columns, i, c0)
                store(columns, i + 16, c1)
                store(columns, i + 32, c2)
                store(columns, i + 48, c3)
                store(columns, i + 64, c4)
                store(columns, i + 80, c5)
                store(columns, i + 96, c6)
                store(columns, i + 112, c7)
        least0 = splat(np.inf)
        least1 = splat(np.inf)
        second0 = splat(np.inf)
        second1 = splat(np.inf)
        label0 = splat(0.0)
        label1 = splat(0.0)
        for k in range(centers.shape[0]):
            # Two vectors that do not wait for each other hide the latency of the additions.
            total0 = splat(0.0)
            total1 = splat(0.0)
            for j in range(d):
                c = repeated(centers, k * width + j)
                t = load(columns, j * 16) - c
                u = load(columns, j * 16 + 8) - c
                total0 = total0 + t * t
                total1 = total1 + u * u
            # Labels are float64 like the distances, so that one comparison chooses both in the same lanes.
            name = splat(np.float64(k))
            label0 = where_less(total0, least0, name, label0)
            label1 = where_less(total1, least1, name, label1)
            greater0 = where_less(total0, least0, least0, total0)
            greater1 = where_less(total1, least1, least1, total1)
            least0 = where_less(total0, least0, total0, least0)
            least1 = where_less(total1, least1, total1, least1)
            second0 = where_less(greater0, second0, greater0, second0)
            second1 = where_less(greater1, second1, greater1, second1)
        store(tile.labels, r, label0)
        store(tile.labels, r + 8, label1)
        store(tile.distances, r, least0)
        store(tile.distances, r + 8, least1)
        store(second, r, second0)
        store(second, r + 8, second1)
        _resolve_near_ties(tile, r, least0, second0, d, centers, reach, slack)
        _resolve_near_ties(tile, r + 8, least1, second1, d, centers, reach, slack)


@njit(**INNER, **BARE)
def widen_row(single, r, d, origin, rows):  # type: ignore[no-untyped-def]
    """Put one row of float32, less the origin, in its place in the tile; nothing to do where all rows are there.

    Parameters
    ----------
    single, r, d
        Address of the rows of the tile in float32, or 0; number of the row, and of features.
    origin
        Origin, widened to whole vectors.
    rows
        Rows of the tile, which get the row.
    """
    if single:
        source = memory(single, np.float32)
        long = d - d % WIDE
        for j in range(0, long, WIDE):
            store(rows, r * rows.shape[1] + j, doubles(source, r * d + j) - load(origin, j))
        for j in range(long, d):
            rows[r, j] = np.float64(element(source, r * d + j)) - origin[j]


@njit(**INLINED, **BARE)
def _find_near_ties(m, labels, names, norms, least, second, near, scores):  # type: ignore[no-untyped-def]
    """Label rows by their least scores, note which ones the scores do not tell apart, and return whether there are any.

    All but the last of the arguments are addresses and numbers, and few enough to stay in registers.
    """
    square = splat(scores.reach * scores.reach)
    two = splat(np.float32(2.0))
    relative = splat(scores.relative)
    absolute = splat(scores.absolute)
    limit = splat(scores.limit)
    yes = splat(np.float32(1.0))
    no = splat(np.float32(0.0))
    some = 0
    for r in range(0, m, NARROW):
        # (a + b)² is at most 2 a² + 2 b².
        bound = two * (load(norms, r) + square)
        clear = where_less(load(least, r) + relative * bound + absolute, load(second, r), yes, no)
        # Beyond the limit a score may have overflowed, so its margin means nothing. NaN fails every comparison.
        bits = lanes_up_to(where_less(bound, limit, clear, no), np.float32(0.0))
        store(labels, r, load(names, r))
        near[r // NARROW] = bits
        some |= bits
    return some != 0


@njit(**INNER, **BARE)
def _resolve_unclear(single, tile, m, d, centers, near):  # type: ignore[no-untyped-def]
    """Label rows by the definition where `near` has a bit."""
    width = tile.rows.shape[1]
    for r in range(0, m, NARROW):
        bits = near[r // NARROW]
        while bits:
            row = r + lowest_bit(bits)
            if row < m:
                widen_row(single, row, d, centers.origin, tile.rows)
                nearest, _ = _nearest(tile.rows, row * width, d, centers.centers, centers.reach)
                tile.labels[row] = nearest
            bits &= bits - 1


@njit(**INLINED, **BARE)
def _label_turned(single, tile, m, d, centers, way, coming):  # type: ignore[no-untyped-def]
    """Do as `label_by_score` does for rows that are turned into columns already; `single` as in `widen_row`."""
    score(m, d, way, coming)
    if _find_near_ties(
        m, beginning(tile.labels, 0), beginning(way.labels, 0), beginning(way.norms, 0), beginning(way.least, 0),
        beginning(way.second, 0), beginning(way.near, 0), way.scores,
    ):  # fmt: skip
        _resolve_unclear(single, tile, m, d, centers, way.near)


@njit(**INLINED, **BARE)
def label_by_score(tile, m, d, centers, way, coming):  # type: ignore[no-untyped-def]
    """Label rows by their scores, and by distances where another score is within the rounding bound of the least.

    Parameters
    ----------
    tile, m, d
        Tile with `m` rows of `d` features.
    centers
        Centers of the pass.
    way
        Memory for labelling by scores.
    coming
        Where the next rows are in memory.
    """
    turn(tile, m, d, way.scores, way.columns, way.norms)
    _label_turned(np.int64(0), tile, m, d, centers, way, coming)


def label(single, start, m, d, centers, weights, tile, way, at, coming, sums):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Label a tile, compute the distances to the nearest centers, and add up the rows; return Σw·distance.

    Parameters
    ----------
    single
        Address of the rows of the tile in float32; 0 where they are in the tile.
    start, m, d
        First row of the tile in its block, number of its rows, and of features.
    centers
        Centers of the pass.
    weights
        Address of the weights of the block; 0 where all are 1.
    tile
        Tile with `m` rows.
    way
        Memory for one of the ways to label, whose type chooses the way.
    at
        Number of the first row of the tile among those of the run.
    coming
        Where the next rows are in memory.
    sums
        Sums that are added to; without copies, rows are not added up.
    """
    raise TypeError("label is part of compiled code, and no function of Python")


# A way is chosen by type, so that only the one in use is compiled.
@overload(label, jit_options=INLINED_OVERLOAD)  # type: ignore[arg-type]
def _label_in_one_way(single, start, m, d, centers, weights, tile, way, at, coming, sums):  # type: ignore[no-untyped-def]  # noqa: ARG001
    ways = {
        SideBySide: _label_side_by_side, ByScore: _label_by_score, InPlace: _label_in_place,
        FewFeatures: _label_few_features, Recalled: _label_as_recalled,
    }  # fmt: skip
    return ways[way.instance_class]


def _label_side_by_side(single, start, m, d, centers, weights, tile, way, at, coming, sums):  # type: ignore[no-untyped-def]  # noqa: ARG001
    _side_by_side(tile, m, d, centers.centers, centers.reach, centers.slack, way.columns, way.second, coming)
    return add_up(start, m, weights, tile, sums) if sums.weight.shape[0] else 0.0


def _label_in_place(single, start, m, d, centers, weights, tile, way, at, coming, sums):  # type: ignore[no-untyped-def]  # noqa: ARG001
    by = way.by
    turn_singles(memory(single, np.float32), m, d, centers.single_origin, by.scores, by.columns, by.norms)
    _label_turned(single, tile, m, d, centers, by, coming)
    return settle(single, start, m, d, centers, weights, tile, way.parts, sums)


def _label_few_features(single, start, m, d, centers, weights, tile, way, at, coming, sums):  # type: ignore[no-untyped-def]  # noqa: ARG001
    turn_few(memory(single, np.float32), m, d, centers.single_origin, way)
    _label_turned(single, tile, m, d, centers, way.by, coming)
    return settle_few(start, m, d, centers, weights, tile, way, sums.weight.shape[0] > 0)


def _label_by_score(single, start, m, d, centers, weights, tile, way, at, coming, sums):  # type: ignore[no-untyped-def]  # noqa: ARG001
    label_by_score(tile, m, d, centers, way, coming)
    take_distances(tile, m, d, centers.centers)
    return add_up(start, m, weights, tile, sums) if sums.weight.shape[0] else 0.0


def _label_as_recalled(single, start, m, d, centers, weights, tile, way, at, coming, sums):  # type: ignore[no-untyped-def]  # noqa: ARG001
    for r in range(m):
        tile.labels[r] = np.float64(way.labels[at + r])
        tile.distances[r] = way.squares[at + r]
    return add_up(start, m, weights, tile, sums)
