"""Scores of rows by centers, −2 x·c + ‖c‖² in float32: products that keep their sums in registers.

Scores only decide which distances need not be computed, so they may be rounded in any way within their bound. The rows
that come next are asked for meanwhile: a processor computes and waits for memory at the same time, if it is told early.
"""

from __future__ import annotations

import numpy as np

from clustering.compiling import INLINED, INNER, njit
from clustering.models.kernels import BARE
from clustering.models.lane_turns import turned, turned_singles
from clustering.models.lanes import (
    MANY_REGISTERS,
    NARROW,
    WIDE,
    load,
    memory,
    multiply_add,
    prefetch,
    repeated,
    splat,
    store,
    where_less,
)
from clustering.models.lloyd_buffers import LINE_BYTES
from clustering.models.scored_centers import CENTERS_AT_ONCE


@njit(inline="always", **BARE)
def ask_for(ahead, at, end):  # type: ignore[no-untyped-def]
    """Ask for memory, one cache line after the other.

    Parameters
    ----------
    ahead, at, end
        Bytes, and the first and the end of those that are asked for.
    """
    for i in range(at, end, LINE_BYTES):
        prefetch(ahead, i)


@njit(**INLINED, **BARE)
def _put_columns(eight, columns, i, sums):  # type: ignore[no-untyped-def]
    """Store eight columns of sixteen rows, and add their squares to those of the even and of the odd columns."""
    c0, c1, c2, c3, c4, c5, c6, c7 = eight
    even, odd = sums
    # Columns behind the last feature are zero. The next sixteen rows overwrite them.
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
    return even, odd


@njit(**INNER, **BARE)
def turn(tile, m, d, scores, columns, norms):  # type: ignore[no-untyped-def]
    """Write the rows of a tile as scaled columns in float32, sixteen rows side by side, with their squared norms.

    Parameters
    ----------
    tile, m, d
        Tile with `m` rows of `d` features.
    scores
        Centers as they are scored, whose scale the rows are multiplied by.
    columns, norms
        Get the columns and the norms, as in `ByScore`.
    """
    width = tile.rows.shape[1]
    for r in range(0, m, NARROW):
        sums = splat(np.float32(0.0)), splat(np.float32(0.0))
        for j in range(0, d, WIDE):
            eight = turned(tile.rows, r * width + j, width, scores.scale)
            sums = _put_columns(eight, columns, r * d + j * NARROW, sums)
        store(norms, r, sums[0] + sums[1])


@njit(**INNER, **BARE)
def turn_singles(rows, m, d, origin, scores, columns, norms):  # type: ignore[no-untyped-def]
    """Do as `turn` does for rows of float32, which need not be written as float64 for it.

    Parameters
    ----------
    rows, m, d
        Memory of `m` rows of float32, where `m` is a multiple of 16 and the number of features one of 8.
    origin
        Origin in float32.
    scores, columns, norms
        As in `turn`.
    """
    scale = np.float32(scores.scale)
    for r in range(0, m, NARROW):
        sums = splat(np.float32(0.0)), splat(np.float32(0.0))
        for j in range(0, d, WIDE):
            eight = turned_singles(rows, r * d + j, d, origin, j, scale)
            sums = _put_columns(eight, columns, r * d + j * NARROW, sums)
        store(norms, r, sums[0] + sums[1])


@njit(**INLINED, **BARE)
def compare(score, name, least, second, label):  # type: ignore[no-untyped-def]
    """Update the two least scores of sixteen rows, and the center of the least, with the scores of a center.

    Parameters
    ----------
    score, name
        Scores of a center, and its index in all lanes.
    least, second, label
        The two least scores so far, and the center of the least.
    """
    greater = where_less(score, least, least, score)
    return (
        where_less(score, least, score, least),
        where_less(greater, second, greater, second),
        where_less(score, least, name, label),
    )


@njit(**INLINED, **BARE)
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


@njit(**INLINED, **BARE)
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


@njit(**INLINED, **BARE)
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


@njit(**INLINED, **BARE)
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


@njit(**INLINED, **BARE)
def _four_of_sixteen(columns, r, slopes, offsets, c, d, ahead, half, at, step):  # type: ignore[no-untyped-def]
    """Do as `_four_of_pair` does for sixteen rows."""
    s0 = repeated(offsets, c)
    s1 = repeated(offsets, c + 1)
    s2 = repeated(offsets, c + 2)
    s3 = repeated(offsets, c + 3)
    for j in range(d):
        prefetch(ahead, at + j * step)
        prefetch(ahead, half + at + j * step)
        x = load(columns, r * d + j * NARROW)
        i = c * d + j * CENTERS_AT_ONCE
        s0 = multiply_add(x, repeated(slopes, i), s0)
        s1 = multiply_add(x, repeated(slopes, i + 1), s1)
        s2 = multiply_add(x, repeated(slopes, i + 2), s2)
        s3 = multiply_add(x, repeated(slopes, i + 3), s3)
    return s0, s1, s2, s3


@njit(**INLINED, **BARE)
def _compare_four(s0, s1, s2, s3, names, c, best):  # type: ignore[no-untyped-def]
    """Update the two least scores of sixteen rows, and the label, with the scores of four centers from `c` on."""
    least, second, label = best
    least, second, label = compare(s0, repeated(names, c), least, second, label)
    least, second, label = compare(s1, repeated(names, c + 1), least, second, label)
    least, second, label = compare(s2, repeated(names, c + 2), least, second, label)
    return compare(s3, repeated(names, c + 3), least, second, label)


@njit(**INNER, **BARE)
def _score_pairs(m, d, way, panel, end, coming):  # type: ignore[no-untyped-def]
    """Compare 32 rows at a time with the centers of a panel, eight at a time, and at the end with the last four."""
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
    half = coming.size // 2
    step = min(LINE_BYTES, half // (calls * d) + 1)
    at = half * panel // scores.offsets.shape[0]
    for r in range(0, m, NARROW):
        best = load(way.least, r), load(way.second, r), load(way.labels, r)
        for c in range(panel, end, CENTERS_AT_ONCE):
            s0, s1, s2, s3 = _four_of_sixteen(
                way.columns, r, scores.slopes, scores.offsets, c, d, ahead, half, at, step
            )
            at += d * step
            best = _compare_four(s0, s1, s2, s3, scores.names, c, best)
        store(way.least, r, best[0])
        store(way.second, r, best[1])
        store(way.labels, r, best[2])


@njit(**INNER, **BARE)
def score(m, d, way, coming):  # type: ignore[no-untyped-def]
    """Score rows by all centers, and keep the two least scores of each row; ask for the next rows meanwhile.

    Parameters
    ----------
    m, d
        Number of rows and of features.
    way
        Memory with the rows as columns, which gets the least scores and the labels.
    coming
        Where the next rows are in memory.
    """
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
