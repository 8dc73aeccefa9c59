"""Labels of a tile of rows by the definition in `kernels`, in the way that is fastest for the shape.

The tuples that these kernels take are described in `lloyd_buffers`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import overload

from clustering.compiling import njit
from clustering.models.kernels import CLEAR, FAST, least_clear
from clustering.models.lanes import (
    NARROW,
    WIDE,
    element,
    folded,
    folded_together,
    lanes_up_to,
    least_of,
    load,
    lowest_bit,
    multiply_add,
    repeated,
    splat,
    store,
    strided,
    where_less,
)  # fmt: skip
from clustering.models.lloyd_buffers import ByDistance, ByScore, SideBySide

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


@njit(**BARE)
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


@njit(**BARE)
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


@njit(**BARE)
def _side_by_side(tile, m, d, centers, reach, slack_of_centers, columns):  # type: ignore[no-untyped-def]
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
        _resolve_near_ties(tile, r, least0, second0, d, centers, reach, slack)
        _resolve_near_ties(tile, r + 8, least1, second1, d, centers, reach, slack)


@njit(**BARE)
def _by_distance(tile, m, d, centers, reach, slack_of_centers):  # type: ignore[no-untyped-def]
    """Label rows of sixteen features and more by the distances to all centers, eight rows at once."""
    w = tile.rows.shape[1]
    slack = splat(slack_of_centers)
    long = d - d % 16
    zero = splat(0.0)
    for r in range(0, m, WIDE):
        i = r * w
        least = splat(np.inf)
        second = splat(np.inf)
        label = splat(0.0)
        for k in range(centers.shape[0]):
            c = k * w
            a0, a1, a2, a3, a4, a5, a6, a7 = zero, zero, zero, zero, zero, zero, zero, zero
            b0, b1, b2, b3, b4, b5, b6, b7 = zero, zero, zero, zero, zero, zero, zero, zero
            for j in range(0, long, 16):
                # The center is loaded once for the eight rows.
                left, right = load(centers, c + j), load(centers, c + j + 8)
                at = i + j
                t, u = load(tile.rows, at) - left, load(tile.rows, at + 8) - right
                a0, b0 = a0 + t * t, b0 + u * u
                t, u = load(tile.rows, at + w) - left, load(tile.rows, at + w + 8) - right
                a1, b1 = a1 + t * t, b1 + u * u
                t, u = load(tile.rows, at + 2 * w) - left, load(tile.rows, at + 2 * w + 8) - right
                a2, b2 = a2 + t * t, b2 + u * u
                t, u = load(tile.rows, at + 3 * w) - left, load(tile.rows, at + 3 * w + 8) - right
                a3, b3 = a3 + t * t, b3 + u * u
                t, u = load(tile.rows, at + 4 * w) - left, load(tile.rows, at + 4 * w + 8) - right
                a4, b4 = a4 + t * t, b4 + u * u
                t, u = load(tile.rows, at + 5 * w) - left, load(tile.rows, at + 5 * w + 8) - right
                a5, b5 = a5 + t * t, b5 + u * u
                t, u = load(tile.rows, at + 6 * w) - left, load(tile.rows, at + 6 * w + 8) - right
                a6, b6 = a6 + t * t, b6 + u * u
                t, u = load(tile.rows, at + 7 * w) - left, load(tile.rows, at + 7 * w + 8) - right
                a7, b7 = a7 + t * t, b7 + u * u
            total = folded_together(a0 + b0, a1 + b1, a2 + b2, a3 + b3, a4 + b4, a5 + b5, a6 + b6, a7 + b7)
            for j in range(long, d):
                # The definition adds the last features one by one, and so does this loop, for eight rows at once.
                t = strided(tile.rows, i + j, w) - repeated(centers, c + j)
                total = total + t * t
            label = where_less(total, least, splat(np.float64(k)), label)
            greater = where_less(total, least, least, total)
            least = where_less(total, least, total, least)
            second = where_less(greater, second, greater, second)
        store(tile.labels, r, label)
        store(tile.distances, r, least)
        _resolve_near_ties(tile, r, least, second, d, centers, reach, slack)


@njit(**BARE)
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


@njit(inline="always", **BARE)
def _narrowed(rows, i, width, factor, narrow, q):  # type: ignore[no-untyped-def]
    """Write a scaled row in float32, and return its squared norm for rounding bounds."""
    square = splat(0.0)
    for j in range(0, width, WIDE):
        x = load(rows, i + j) * factor
        store(narrow, q + j, x)
        square = multiply_add(x, x, square)
    return folded(square)


@njit(inline="always", **BARE)
def _compare(score, at, name, only, kept):  # type: ignore[no-untyped-def]
    """Update the two least scores of a row in each lane with sixteen centers; `only` if there are no others."""
    if only:
        store(kept.best, at, score)
    else:
        least = load(kept.best, at)
        runner = load(kept.second, at)
        greater = where_less(score, least, least, score)
        store(kept.second, at, where_less(greater, runner, greater, runner))
        store(kept.named, at, where_less(score, least, name, load(kept.named, at)))
        store(kept.best, at, where_less(score, least, score, least))


@njit(**BARE)
def _score(m, d, kept):  # type: ignore[no-untyped-def]
    """Score eight rows by sixteen centers at once, and keep the two least in each lane.

    Where there are no more than sixteen centers, `second` and `named` are as they were made.
    """
    narrow, scores = kept.narrow, kept.scores
    w = narrow.shape[1]
    only = scores.offsets.shape[0] == NARROW
    if not only:
        top = splat(np.float32(np.inf))
        for r in range(m + 7):
            # Rows are scored by eights, so up to seven beyond m are reset as well.
            if r < narrow.shape[0]:
                store(kept.best, r * NARROW, top)
                store(kept.second, r * NARROW, top)
    for c in range(0, scores.offsets.shape[0], NARROW):
        name = load(scores.names, c)
        for r in range(0, m, 8):
            a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = load(scores.offsets, c)
            for j in range(d):
                s = load(scores.slopes, c * d + j * NARROW)
                i = r * w + j
                a0 = multiply_add(repeated(narrow, i), s, a0)
                a1 = multiply_add(repeated(narrow, i + w), s, a1)
                a2 = multiply_add(repeated(narrow, i + 2 * w), s, a2)
                a3 = multiply_add(repeated(narrow, i + 3 * w), s, a3)
                a4 = multiply_add(repeated(narrow, i + 4 * w), s, a4)
                a5 = multiply_add(repeated(narrow, i + 5 * w), s, a5)
                a6 = multiply_add(repeated(narrow, i + 6 * w), s, a6)
                a7 = multiply_add(repeated(narrow, i + 7 * w), s, a7)
            at = r * NARROW
            _compare(a0, at, name, only, kept)
            _compare(a1, at + 16, name, only, kept)
            _compare(a2, at + 32, name, only, kept)
            _compare(a3, at + 48, name, only, kept)
            _compare(a4, at + 64, name, only, kept)
            _compare(a5, at + 80, name, only, kept)
            _compare(a6, at + 96, name, only, kept)
            _compare(a7, at + 112, name, only, kept)


@njit(**BARE)
def _by_score(tile, m, d, centers, reach, kept):  # type: ignore[no-untyped-def]
    """Label rows by their scores, and by distances where another score is within the rounding bound of the least."""
    width = tile.rows.shape[1]
    scores = kept.scores
    factor = splat(scores.scale)
    # Distances come last, so the norms may use their memory until then.
    norms = tile.distances
    for r in range(m):
        norms[r] = _narrowed(tile.rows, r * width, width, factor, kept.narrow, r * kept.narrow.shape[1])
    _score(m, d, kept)
    for r in range(m):
        at = r * NARROW
        # (a + b)² is at most 2 a² + 2 b².
        bound = 2.0 * (norms[r] + scores.reach * scores.reach)
        least = load(kept.best, at)
        close = np.float32(np.float64(least_of(least)) + scores.relative * bound + scores.absolute)
        near = lanes_up_to(least, close)
        # Each lane keeps two scores, so the row is clear if one lane is within the bound and no second score is.
        alone = near & (near - 1) == 0 and lanes_up_to(load(kept.second, at), close) == 0
        # Beyond the limit a score may have overflowed, so its margin means nothing. NaN fails every comparison.
        if bound < scores.limit and alone:
            tile.labels[r] = element(kept.named, at + lowest_bit(near))
        else:
            label, _ = _nearest(tile.rows, r * width, d, centers, reach)
            tile.labels[r] = label
    _take_distances(tile, m, d, centers)


def label(tile, m, d, centers, way):  # type: ignore[no-untyped-def]
    """Label a tile, and compute the distances to the nearest centers.

    Parameters
    ----------
    tile, m, d
        Tile with `m` rows of `d` features.
    centers
        Centers of the pass.
    way
        Memory for one of the ways to label, whose type chooses the way.
    """
    raise NotImplementedError


# A way is chosen by type, so that only the one in use is compiled.
@overload(label, jit_options=BARE)  # type: ignore[arg-type]
def _label_in_one_way(tile, m, d, centers, way):  # type: ignore[no-untyped-def]  # noqa: ARG001
    return {SideBySide: _label_side_by_side, ByDistance: _label_by_distance, ByScore: _label_by_score}[
        way.instance_class
    ]


def _label_side_by_side(tile, m, d, centers, way):  # type: ignore[no-untyped-def]
    _side_by_side(tile, m, d, centers.centers, centers.reach, centers.slack, way.columns)


def _label_by_distance(tile, m, d, centers, way):  # type: ignore[no-untyped-def]  # noqa: ARG001
    _by_distance(tile, m, d, centers.centers, centers.reach, centers.slack)


def _label_by_score(tile, m, d, centers, way):  # type: ignore[no-untyped-def]
    _by_score(tile, m, d, centers.centers, centers.reach, way)
