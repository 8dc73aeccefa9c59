"""Labels of a tile of rows by the definition in `kernels`, in the way that is fastest for the shape.

The tuples that these kernels take are described in `lloyd_buffers`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import overload

from clustering.compiling import INNER, njit
from clustering.models.kernels import CLEAR, FAST, least_clear
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
    memory,
    multiply_add,
    prefetch,
    repeated,
    splat,
    store,
    transposed,
    turned,
    where_less,
)  # fmt: skip
from clustering.models.lloyd_buffers import CENTERS_AT_ONCE, LINE_BYTES, ByScore, SideBySide

# These functions make no arrays. Counting the references to their arguments would cost more than the work on a row.
BARE: dict[str, Any] = {**FAST, "_nrt": False}


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


@njit(inline="always", **BARE)
def _ask_for(ahead, at, end):  # type: ignore[no-untyped-def]
    """Ask for the memory from `at` to `end`, one cache line after the other."""
    for i in range(at, end, LINE_BYTES):
        prefetch(ahead, i)


@njit(**INNER, **BARE)
def _side_by_side(tile, m, d, centers, reach, slack_of_centers, columns, second, coming):  # type: ignore[no-untyped-def]
    """Label rows of less than sixteen features: sixteen rows at once, each added up in the order of the definition."""
    width = tile.rows.shape[1]
    slack = splat(slack_of_centers)
    ahead = memory(coming.address, np.uint8)
    part = coming.size * 2 * WIDE // m + 1
    for r in range(0, m, 2 * WIDE):
        _ask_for(ahead, r // (2 * WIDE) * part, (r // (2 * WIDE) + 1) * part)
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
def _take_distances(tile, m, d, centers):  # type: ignore[no-untyped-def]
    """Compute the distance of every row from the center of its label."""
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
    for r in range(0, m, NARROW):
        even = splat(np.float32(0.0))
        odd = splat(np.float32(0.0))
        for j in range(0, d, WIDE):
            c0, c1, c2, c3, c4, c5, c6, c7 = turned(tile.rows, r * width + j, width, scores.scale)
            # Columns behind the last feature are zero. The next sixteen rows overwrite them.
            i = r * d + j * NARROW
            store(columns, i, c0)
            store(columns, i + NARROW, c1)
            store(columns, i + 2 * NARROW, c2)
            store(columns, i + 3 * NARROW, c3)
            store(columns, i + 4 * NARROW, c4)
            store(columns, i + 5 * NARROW, c5)
            store(columns, i + 6 * NARROW, c6)
            store(columns, i + 7 * NARROW, c7)
            even = multiply_add(c0, c0, multiply_add(c2, c2, multiply_add(c4, c4, multiply_add(c6, c6, even))))
            odd = multiply_add(c1, c1, multiply_add(c3, c3, multiply_add(c5, c5, multiply_add(c7, c7, odd))))
        store(norms, r, even + odd)


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
def _eight_of_pair(columns, r, slopes, offsets, c, d, ahead, half, at, step):  # type: ignore[no-untyped-def]
    """Score 32 rows by eight centers, whose sums stay in registers where there are 32 of them.

    Memory is asked for meanwhile, in its two halves at once: `step` bytes farther on for each feature.
    """
    s0 = repeated(offsets, c)
    s1 = repeated(offsets, c + 1)
    s2 = repeated(offsets, c + 2)
    s3 = repeated(offsets, c + 3)
    s4 = repeated(offsets, c + 4)
    s5 = repeated(offsets, c + 5)
    s6 = repeated(offsets, c + 6)
    s7 = repeated(offsets, c + 7)
    u0 = s0
    u1 = s1
    u2 = s2
    u3 = s3
    u4 = s4
    u5 = s5
    u6 = s6
    u7 = s7
    for j in range(d):
        prefetch(ahead, at + j * step)
        prefetch(ahead, half + at + j * step)
        x = load(columns, r * d + j * NARROW)
        y = load(columns, (r + NARROW) * d + j * NARROW)
        i = c * d + j * CENTERS_AT_ONCE
        h = i + d * CENTERS_AT_ONCE
        t = repeated(slopes, i)
        s0 = multiply_add(x, t, s0)
        u0 = multiply_add(y, t, u0)
        t = repeated(slopes, i + 1)
        s1 = multiply_add(x, t, s1)
        u1 = multiply_add(y, t, u1)
        t = repeated(slopes, i + 2)
        s2 = multiply_add(x, t, s2)
        u2 = multiply_add(y, t, u2)
        t = repeated(slopes, i + 3)
        s3 = multiply_add(x, t, s3)
        u3 = multiply_add(y, t, u3)
        t = repeated(slopes, h)
        s4 = multiply_add(x, t, s4)
        u4 = multiply_add(y, t, u4)
        t = repeated(slopes, h + 1)
        s5 = multiply_add(x, t, s5)
        u5 = multiply_add(y, t, u5)
        t = repeated(slopes, h + 2)
        s6 = multiply_add(x, t, s6)
        u6 = multiply_add(y, t, u6)
        t = repeated(slopes, h + 3)
        s7 = multiply_add(x, t, s7)
        u7 = multiply_add(y, t, u7)
    return s0, s1, s2, s3, s4, s5, s6, s7, u0, u1, u2, u3, u4, u5, u6, u7


@njit(inline="always", **BARE)
def _four_of_pair(columns, r, slopes, offsets, c, d, ahead, half, at, step):  # type: ignore[no-untyped-def]
    """Do as `_eight_of_pair` does for four centers."""
    s0 = repeated(offsets, c)
    s1 = repeated(offsets, c + 1)
    s2 = repeated(offsets, c + 2)
    s3 = repeated(offsets, c + 3)
    u0 = s0
    u1 = s1
    u2 = s2
    u3 = s3
    for j in range(d):
        prefetch(ahead, at + j * step)
        prefetch(ahead, half + at + j * step)
        x = load(columns, r * d + j * NARROW)
        y = load(columns, (r + NARROW) * d + j * NARROW)
        i = c * d + j * CENTERS_AT_ONCE
        t = repeated(slopes, i)
        s0 = multiply_add(x, t, s0)
        u0 = multiply_add(y, t, u0)
        t = repeated(slopes, i + 1)
        s1 = multiply_add(x, t, s1)
        u1 = multiply_add(y, t, u1)
        t = repeated(slopes, i + 2)
        s2 = multiply_add(x, t, s2)
        u2 = multiply_add(y, t, u2)
        t = repeated(slopes, i + 3)
        s3 = multiply_add(x, t, s3)
        u3 = multiply_add(y, t, u3)
    return s0, s1, s2, s3, u0, u1, u2, u3


@njit(inline="always", **BARE)
def _compare_four(s0, s1, s2, s3, names, c, best):  # type: ignore[no-untyped-def]
    """Update the two least scores of sixteen rows, and the label, with the scores of four centers from `c` on."""
    least, second, label = best
    least, second, label = _compare(s0, repeated(names, c), least, second, label)
    least, second, label = _compare(s1, repeated(names, c + 1), least, second, label)
    least, second, label = _compare(s2, repeated(names, c + 2), least, second, label)
    return _compare(s3, repeated(names, c + 3), least, second, label)


@njit(**INNER, **BARE)
def _score_pairs(m, d, way, panel, end, coming):  # type: ignore[no-untyped-def]
    """Compare 32 rows at a time with the centers of a panel, eight at a time, and the last four with sixteen rows."""
    scores = way.scores
    whole = panel + (end - panel) // 8 * 8
    ahead = memory(coming.address, np.uint8)
    calls = -(-m // (2 * NARROW)) * -(-scores.offsets.shape[0] // 8)
    half = coming.size // 2
    step = min(LINE_BYTES, half // (calls * d) + 1)
    at = half * panel // scores.offsets.shape[0]
    for r in range(0, m, 2 * NARROW):
        low = load(way.least, r), load(way.second, r), load(way.labels, r)
        high = load(way.least, r + NARROW), load(way.second, r + NARROW), load(way.labels, r + NARROW)
        for c in range(panel, whole, 8):
            s0, s1, s2, s3, s4, s5, s6, s7, u0, u1, u2, u3, u4, u5, u6, u7 = _eight_of_pair(
                way.columns, r, scores.slopes, scores.offsets, c, d, ahead, half, at, step
            )
            at += d * step
            low = _compare_four(s0, s1, s2, s3, scores.names, c, low)
            low = _compare_four(s4, s5, s6, s7, scores.names, c + 4, low)
            high = _compare_four(u0, u1, u2, u3, scores.names, c, high)
            high = _compare_four(u4, u5, u6, u7, scores.names, c + 4, high)
        if whole < end:
            s0, s1, s2, s3, u0, u1, u2, u3 = _four_of_pair(
                way.columns, r, scores.slopes, scores.offsets, whole, d, ahead, half, at, step
            )
            at += d * step
            low = _compare_four(s0, s1, s2, s3, scores.names, whole, low)
            high = _compare_four(u0, u1, u2, u3, scores.names, whole, high)
        store(way.least, r, low[0])
        store(way.second, r, low[1])
        store(way.labels, r, low[2])
        store(way.least, r + NARROW, high[0])
        store(way.second, r + NARROW, high[1])
        store(way.labels, r + NARROW, high[2])


@njit(**INNER, **BARE)
def _score_fours(m, d, way, panel, end, coming):  # type: ignore[no-untyped-def]
    """Compare sixteen rows at a time with the centers of a panel, four at a time."""
    scores = way.scores
    ahead = memory(coming.address, np.uint8)
    calls = -(-m // NARROW) * (scores.offsets.shape[0] // CENTERS_AT_ONCE)
    size = coming.size // calls + 1
    at = coming.size * panel // scores.offsets.shape[0]
    for r in range(0, m, NARROW):
        best = load(way.least, r), load(way.second, r), load(way.labels, r)
        for c in range(panel, end, CENTERS_AT_ONCE):
            _ask_for(ahead, at, at + size)
            at += size
            s0, s1, s2, s3 = scores_of_four(way.columns, r, scores.slopes, scores.offsets, c, d)
            best = _compare_four(s0, s1, s2, s3, scores.names, c, best)
        store(way.least, r, best[0])
        store(way.second, r, best[1])
        store(way.labels, r, best[2])


@njit(**INNER, **BARE)
def _score(m, d, way, coming):  # type: ignore[no-untyped-def]
    """Score rows by all centers, and keep the two least scores of each row; ask for the next rows meanwhile."""
    scores = way.scores
    top = splat(np.float32(np.inf))
    for r in range(0, way.least.shape[0], NARROW):
        store(way.least, r, top)
        store(way.second, r, top)
    # The centers of a panel stay in the cache for all rows of the tile.
    for panel in range(0, scores.offsets.shape[0], scores.panel):
        end = min(scores.offsets.shape[0], panel + scores.panel)
        if MANY_REGISTERS:
            _score_pairs(m, d, way, panel, end, coming)
        else:
            _score_fours(m, d, way, panel, end, coming)


@njit(**INNER, **BARE)
def _by_score(tile, m, d, centers, reach, way, coming):  # type: ignore[no-untyped-def]
    """Label rows by their scores, and by distances where another score is within the rounding bound of the least."""
    scores = way.scores
    width = tile.rows.shape[1]
    _turn(tile, m, d, scores, way.columns, way.norms)
    _score(m, d, way, coming)
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
    _take_distances(tile, m, d, centers)


def label(tile, m, d, centers, way, coming):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Label a tile, and compute the distances to the nearest centers.

    Parameters
    ----------
    tile, m, d
        Tile with `m` rows of `d` features.
    centers
        Centers of the pass.
    way
        Memory for one of the ways to label, whose type chooses the way.
    coming
        Where the next rows are in memory.
    """
    raise TypeError("label is part of compiled code, and no function of Python")


# A way is chosen by type, so that only the one in use is compiled.
@overload(label, jit_options=BARE)  # type: ignore[arg-type]
def _label_in_one_way(tile, m, d, centers, way, coming):  # type: ignore[no-untyped-def]  # noqa: ARG001
    return {SideBySide: _label_side_by_side, ByScore: _label_by_score}[way.instance_class]


def _label_side_by_side(tile, m, d, centers, way, coming):  # type: ignore[no-untyped-def]
    _side_by_side(tile, m, d, centers.centers, centers.reach, centers.slack, way.columns, way.second, coming)


def _label_by_score(tile, m, d, centers, way, coming):  # type: ignore[no-untyped-def]
    _by_score(tile, m, d, centers.centers, centers.reach, way, coming)
