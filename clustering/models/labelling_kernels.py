"""Labels of a tile of rows by the definition in `kernels`, in the way that is fastest for the shape.

The tuples that these kernels take are described in `lloyd_buffers`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import overload

from clustering.compiling import INNER, njit
from clustering.models.kernels import CLEAR, FAST, least_clear
from clustering.models.lane_types import wide, widened
from clustering.models.lanes import (
    MANY_REGISTERS,
    NARROW,
    WIDE,
    element,
    folded,
    folded_together,
    lanes_up_to,
    load,
    lowest_bit,
    multiply_add,
    repeated,
    splat,
    store,
    strided,
    where_less,
)  # fmt: skip
from clustering.models.lloyd_buffers import CENTERS_AT_ONCE, ByScore, SideBySide
from clustering.models.recalled_buffers import Recalled

# These functions make no arrays. Counting the references to their arguments would cost more than the work on a row.
BARE: dict[str, Any] = {**FAST, "_nrt": False}


@njit(**INNER, **BARE)
def fill(values, code, start, m, n, d, origin, tile):  # type: ignore[no-untyped-def]
    """Subtract the origin from `m` of the `n` rows from `start` on, and put them into the tile.

    Parameters
    ----------
    values, code
        Address of the values, and their type as a number.
    start, m, n, d
        First row, number of rows of the tile and of the block, and number of features.
    origin
        Origin, widened to whole vectors.
    tile
        Gets the rows.
    """
    width = tile.rows.shape[1]
    long = d - d % WIDE
    for r in range(m):
        i = (start + r) * d
        for j in range(0, long, WIDE):
            store(tile.rows, r * width + j, wide(values, code, i + j) - load(origin, j))
        if long < d:
            # Lanes beyond the last feature hold those of the next row, which nobody reads. Only the memory behind the
            # last row may not be loaded, and a masked load takes longer.
            inside = i + long + WIDE <= n * d
            tail = wide(values, code, i + long) if inside else widened(values, code, i + long, d - long)
            store(tile.rows, r * width + long, tail - load(origin, long))


@njit(inline="always", **BARE)
def _squares(rows, i, centers, c, long):  # type: ignore[no-untyped-def]
    """Add up sixteen features at a time as `kernels.distance_between` does: row at `i`, center at `c`."""
    a = splat(0.0)
    b = splat(0.0)
    for j in range(0, long, 16):
        t = load(rows, i + j) - load(centers, c + j)
        u = load(rows, i + j + 8) - load(centers, c + j + 8)
        a = a + t * t
        b = b + u * u
    return a + b


@njit(inline="always", **BARE)
def _tail(rows, i, centers, c, long, d, total):  # type: ignore[no-untyped-def]
    """Add the features that do not make sixteen, one by one."""
    for j in range(long, d):
        t = element(rows, i + j) - element(centers, c + j)
        total += t * t
    return total


@njit(**INNER, **BARE)
def _nearest(rows, i, d, centers, reach):  # type: ignore[no-untyped-def]
    """Label the row at `i` by the definition; return its label and squared distance."""
    long = d - d % 16
    least = _tail(rows, i, centers, 0, long, d, folded(_squares(rows, i, centers, 0, long)))
    label = 0
    for k in range(1, centers.shape[0]):
        c = k * centers.shape[1]
        distance = _tail(rows, i, centers, c, long, d, folded(_squares(rows, i, centers, c, long)))
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


@njit(**INNER, **BARE)
def _side_by_side(tile, m, d, centers, reach, slack_of_centers, columns, second):  # type: ignore[no-untyped-def]
    """Label rows of less than sixteen features: sixteen rows at once, each added up in the order of the definition."""
    width = tile.rows.shape[1]
    slack = splat(slack_of_centers)
    for r in range(0, m, 2 * WIDE):
        for j in range(d):
            store(columns, j * 16, strided(tile.rows, r * width + j, width))
            store(columns, j * 16 + 8, strided(tile.rows, (r + 8) * width + j, width))
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
            _squares(tile.rows, i, centers, int(labels[r]) * w, long),
            _squares(tile.rows, i + w, centers, int(labels[r + 1]) * w, long),
            _squares(tile.rows, i + 2 * w, centers, int(labels[r + 2]) * w, long),
            _squares(tile.rows, i + 3 * w, centers, int(labels[r + 3]) * w, long),
            _squares(tile.rows, i + 4 * w, centers, int(labels[r + 4]) * w, long),
            _squares(tile.rows, i + 5 * w, centers, int(labels[r + 5]) * w, long),
            _squares(tile.rows, i + 6 * w, centers, int(labels[r + 6]) * w, long),
            _squares(tile.rows, i + 7 * w, centers, int(labels[r + 7]) * w, long),
        )
        store(tile.distances, r, total)
    if long < d:
        for r in range(m):
            c = int(labels[r]) * w
            tile.distances[r] = _tail(tile.rows, r * w, centers, c, long, d, tile.distances[r])


@njit(**INNER, **BARE)
def _turn(tile, m, d, scores, columns, norms):  # type: ignore[no-untyped-def]
    """Write the rows of a tile as scaled columns in float32, sixteen rows side by side, with their squared norms."""
    width = tile.rows.shape[1]
    factor = splat(scores.scale)
    for r in range(0, m, NARROW):
        low = splat(0.0)
        high = splat(0.0)
        for j in range(d):
            x = strided(tile.rows, r * width + j, width) * factor
            y = strided(tile.rows, (r + WIDE) * width + j, width) * factor
            store(columns, r * d + j * NARROW, x)
            store(columns, r * d + j * NARROW + WIDE, y)
            low = multiply_add(x, x, low)
            high = multiply_add(y, y, high)
        store(norms, r, low)
        store(norms, r + WIDE, high)


@njit(inline="always", **BARE)
def _compare(score, name, least, second, label):  # type: ignore[no-untyped-def]
    """Update the two least scores of sixteen rows, and the center of the least, with the scores of a center."""
    greater = where_less(score, least, least, score)
    return (
        where_less(score, least, score, least),
        where_less(greater, second, greater, second),
        where_less(score, least, name, label),
    )


@njit(inline="always", **BARE)
def scores_of_four(columns, r, slopes, offsets, c, d):  # type: ignore[no-untyped-def]
    """Score sixteen rows by four centers: −2 x·c + ‖c‖². The eight sums of AVX2 vectors stay in registers.

    Parameters
    ----------
    columns, r
        Rows as columns, sixteen rows side by side ``(n / 16, d, 16)``, and the first of the sixteen.
    slopes, offsets, c
        −2 c of the centers, four side by side ``(k / 4, d, 4)``, ‖c‖² ``(k,)``, and the first of the four.
    d
        Number of features.
    """
    s0 = repeated(offsets, c)
    s1 = repeated(offsets, c + 1)
    s2 = repeated(offsets, c + 2)
    s3 = repeated(offsets, c + 3)
    for j in range(d):
        x = load(columns, r * d + j * NARROW)
        i = c * d + j * CENTERS_AT_ONCE
        s0 = multiply_add(x, repeated(slopes, i), s0)
        s1 = multiply_add(x, repeated(slopes, i + 1), s1)
        s2 = multiply_add(x, repeated(slopes, i + 2), s2)
        s3 = multiply_add(x, repeated(slopes, i + 3), s3)
    return s0, s1, s2, s3


@njit(inline="always", **BARE)
def scores_of_eight(columns, r, slopes, offsets, c, d):  # type: ignore[no-untyped-def]
    """Do as `scores_of_four` does for eight centers, whose sums stay in registers where there are 32 of them.

    Parameters
    ----------
    columns, r, slopes, offsets, c, d
        As in `scores_of_four`.
    """
    s0 = repeated(offsets, c)
    s1 = repeated(offsets, c + 1)
    s2 = repeated(offsets, c + 2)
    s3 = repeated(offsets, c + 3)
    s4 = repeated(offsets, c + 4)
    s5 = repeated(offsets, c + 5)
    s6 = repeated(offsets, c + 6)
    s7 = repeated(offsets, c + 7)
    for j in range(d):
        x = load(columns, r * d + j * NARROW)
        i = c * d + j * CENTERS_AT_ONCE
        h = i + d * CENTERS_AT_ONCE
        s0 = multiply_add(x, repeated(slopes, i), s0)
        s1 = multiply_add(x, repeated(slopes, i + 1), s1)
        s2 = multiply_add(x, repeated(slopes, i + 2), s2)
        s3 = multiply_add(x, repeated(slopes, i + 3), s3)
        s4 = multiply_add(x, repeated(slopes, h), s4)
        s5 = multiply_add(x, repeated(slopes, h + 1), s5)
        s6 = multiply_add(x, repeated(slopes, h + 2), s6)
        s7 = multiply_add(x, repeated(slopes, h + 3), s7)
    return s0, s1, s2, s3, s4, s5, s6, s7


@njit(inline="always", **BARE)
def _compare_four(s0, s1, s2, s3, names, c, least, second, label):  # type: ignore[no-untyped-def]
    """Update the two least scores of sixteen rows with the scores of four centers from `c` on."""
    least, second, label = _compare(s0, repeated(names, c), least, second, label)
    least, second, label = _compare(s1, repeated(names, c + 1), least, second, label)
    least, second, label = _compare(s2, repeated(names, c + 2), least, second, label)
    return _compare(s3, repeated(names, c + 3), least, second, label)


@njit(**INNER, **BARE)
def score(tile, m, d, way):  # type: ignore[no-untyped-def]
    """Score sixteen rows by four centers at once, and keep the two least scores of each row.

    Parameters
    ----------
    tile, m, d
        Tile with `m` rows of `d` features.
    way
        Memory for labelling by scores.
    """
    scores = way.scores
    _turn(tile, m, d, scores, way.columns, way.norms)
    top = splat(np.float32(np.inf))
    for r in range(0, m, NARROW):
        store(way.least, r, top)
        store(way.second, r, top)
    # The centers of a panel stay in the cache for all rows of the tile.
    for panel in range(0, scores.offsets.shape[0], scores.panel):
        end = min(scores.offsets.shape[0], panel + scores.panel)
        for r in range(0, m, NARROW):
            least = load(way.least, r)
            second = load(way.second, r)
            label = load(way.labels, r)
            whole = panel + ((end - panel) // 8 * 8 if MANY_REGISTERS else 0)
            if MANY_REGISTERS:
                for c in range(panel, whole, 8):
                    s0, s1, s2, s3, s4, s5, s6, s7 = scores_of_eight(
                        way.columns, r, scores.slopes, scores.offsets, c, d
                    )
                    least, second, label = _compare_four(s0, s1, s2, s3, scores.names, c, least, second, label)
                    least, second, label = _compare_four(s4, s5, s6, s7, scores.names, c + 4, least, second, label)
            for c in range(whole, end, CENTERS_AT_ONCE):
                s0, s1, s2, s3 = scores_of_four(way.columns, r, scores.slopes, scores.offsets, c, d)
                least, second, label = _compare_four(s0, s1, s2, s3, scores.names, c, least, second, label)
            store(way.least, r, least)
            store(way.second, r, second)
            store(way.labels, r, label)


@njit(**INNER, **BARE)
def label_by_score(tile, m, d, centers, reach, way):  # type: ignore[no-untyped-def]
    """Label rows by their scores, and by distances where another score is within the rounding bound of the least.

    Parameters
    ----------
    tile, m, d
        Tile with `m` rows of `d` features.
    centers, reach
        Centers, widened to whole vectors, and their reaches.
    way
        Memory for labelling by scores.
    """
    scores = way.scores
    width = tile.rows.shape[1]
    score(tile, m, d, way)
    square = splat(scores.reach * scores.reach)
    two = splat(np.float32(2.0))
    relative = splat(scores.relative)
    absolute = splat(scores.absolute)
    limit = splat(scores.limit)
    yes = splat(np.float32(1.0))
    no = splat(np.float32(0.0))
    for r in range(0, m, NARROW):
        # (a + b)² is at most 2 a² + 2 b².
        bound = two * (load(way.norms, r) + square)
        least = load(way.least, r)
        clear = where_less(least + relative * bound + absolute, load(way.second, r), yes, no)
        # Beyond the limit a score may have overflowed, so its margin means nothing. NaN fails every comparison.
        near = lanes_up_to(where_less(bound, limit, clear, no), np.float32(0.0))
        store(tile.labels, r, load(way.labels, r))
        while near:
            row = r + lowest_bit(near)
            if row < m:
                nearest, _ = _nearest(tile.rows, row * width, d, centers, reach)
                tile.labels[row] = nearest
            near &= near - 1
    take_distances(tile, m, d, centers)


def label(tile, m, d, centers, way, at):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Label a tile, and compute the distances to the nearest centers.

    Parameters
    ----------
    tile, m, d
        Tile with `m` rows of `d` features.
    centers
        Centers of the pass.
    way
        Memory for one of the ways to label, whose type chooses the way.
    at
        Number of the first row of the tile among those of the run.
    """
    raise TypeError("label is part of compiled code, and no function of Python")


# A way is chosen by type, so that only the one in use is compiled.
@overload(label, jit_options=BARE)  # type: ignore[arg-type]
def _label_in_one_way(tile, m, d, centers, way, at):  # type: ignore[no-untyped-def]  # noqa: ARG001
    return {SideBySide: _label_side_by_side, ByScore: _label_by_score, Recalled: _label_as_recalled}[way.instance_class]


def _label_side_by_side(tile, m, d, centers, way, at):  # type: ignore[no-untyped-def]  # noqa: ARG001
    _side_by_side(tile, m, d, centers.centers, centers.reach, centers.slack, way.columns, way.second)


def _label_by_score(tile, m, d, centers, way, at):  # type: ignore[no-untyped-def]  # noqa: ARG001
    label_by_score(tile, m, d, centers.centers, centers.reach, way)


def _label_as_recalled(tile, m, d, centers, way, at):  # type: ignore[no-untyped-def]  # noqa: ARG001
    for r in range(m):
        tile.labels[r] = np.float64(way.labels[at + r])
        tile.distances[r] = way.squares[at + r]
