"""The compiled pass of k-means: label, add up and find the farthest rows, one tile of rows at a time.

A tile is small enough that the rows are read from memory once. Labels and distances are those that `kernels` defines.
The tuples that the kernels take, `Tile`, `ScoreBuffers`, `SumBuffers` and `FarthestBuffer`, are described in `lloyd`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from clustering.compiling import njit
from clustering.models.kernels import CLEAR, CLEAR_OF_CENTERS, FAST, least_clear
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
    prefetch,
    repeated,
    splat,
    store,
    strided,
    where_less,
    wide,
    widened,
)

SUM_ROWS = 1024
"""Rows that are added up separately first. The rounding error then grows with the rows of a run plus the number of
runs, not with all rows."""
SIDE_BY_SIDE, BY_DISTANCE, BY_SCORE = 0, 1, 2
"""Ways to label a tile."""

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
    """Label the row at `i` by the definition, as `kernels.nearest_of` does."""
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
def _slack(reach):  # type: ignore[no-untyped-def]
    """Bound the rounding of squared distances that comes from the rounding of the centers."""
    most = 0.0
    for k in range(reach.shape[0]):
        most = max(most, reach[k])
    return CLEAR_OF_CENTERS * most * most


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
def _fill(values, start, m, origin, tile):  # type: ignore[no-untyped-def]
    """Subtract the origin from `m` rows from `start` on, and put them into the tile."""
    d = values.shape[1]
    width = tile.rows.shape[1]
    long = d - d % WIDE
    for r in range(m):
        i = (start + r) * d
        for j in range(0, long, WIDE):
            store(tile.rows, r * width + j, wide(values, i + j) - load(origin, j))
        if long < d:
            # Lanes beyond the last feature become 0 − 0, as the origin is widened with zeros.
            store(tile.rows, r * width + long, widened(values, i + long, d - long) - load(origin, long))


@njit(**BARE)
def _side_by_side(tile, m, d, centers, reach):  # type: ignore[no-untyped-def]
    """Label rows of less than sixteen features: sixteen rows at once, each added up in the order of the definition."""
    width = tile.rows.shape[1]
    slack = splat(_slack(reach))
    for r in range(0, m, 2 * WIDE):
        for j in range(d):
            store(tile.turned, j * 16, strided(tile.rows, r * width + j, width))
            store(tile.turned, j * 16 + 8, strided(tile.rows, (r + 8) * width + j, width))
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
                t = load(tile.turned, j * 16) - c
                u = load(tile.turned, j * 16 + 8) - c
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
def _by_distance(tile, m, d, centers, reach):  # type: ignore[no-untyped-def]
    """Label rows of sixteen features and more by the distances to all centers, eight rows at once."""
    w = tile.rows.shape[1]
    slack = splat(_slack(reach))
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
def _compare(score, at, name, only, scores):  # type: ignore[no-untyped-def]
    """Update the two least scores of a row in each lane with sixteen centers; `only` if there are no others."""
    if only:
        store(scores.best, at, score)
    else:
        least = load(scores.best, at)
        runner = load(scores.second, at)
        greater = where_less(score, least, least, score)
        store(scores.second, at, where_less(greater, runner, greater, runner))
        store(scores.named, at, where_less(score, least, name, load(scores.named, at)))
        store(scores.best, at, where_less(score, least, score, least))


@njit(**BARE)
def _score(m, d, scores):  # type: ignore[no-untyped-def]
    """Score eight rows by sixteen centers at once, and keep the two least in each lane.

    Where there are no more than sixteen centers, `second` and `named` are as they were made.
    """
    narrow = scores.narrow
    w = narrow.shape[1]
    only = scores.offsets.shape[0] == NARROW
    if not only:
        top = splat(np.float32(np.inf))
        for r in range(m + 7):
            # Rows are scored by eights, so up to seven beyond m are reset as well.
            if r < narrow.shape[0]:
                store(scores.best, r * NARROW, top)
                store(scores.second, r * NARROW, top)
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
            _compare(a0, at, name, only, scores)
            _compare(a1, at + 16, name, only, scores)
            _compare(a2, at + 32, name, only, scores)
            _compare(a3, at + 48, name, only, scores)
            _compare(a4, at + 64, name, only, scores)
            _compare(a5, at + 80, name, only, scores)
            _compare(a6, at + 96, name, only, scores)
            _compare(a7, at + 112, name, only, scores)


@njit(**BARE)
def _by_score(tile, m, d, centers, scores, reach):  # type: ignore[no-untyped-def]
    """Label rows by their scores, and by distances where another score is within the rounding bound of the least."""
    width = tile.rows.shape[1]
    factor = splat(scores.scale)
    # Distances come last, so the norms may use their memory until then.
    norms = tile.distances
    for r in range(m):
        norms[r] = _narrowed(tile.rows, r * width, width, factor, scores.narrow, r * scores.narrow.shape[1])
    _score(m, d, scores)
    for r in range(m):
        at = r * NARROW
        # (a + b)² is at most 2 a² + 2 b².
        bound = 2.0 * (norms[r] + scores.reach * scores.reach)
        least = load(scores.best, at)
        close = np.float32(np.float64(least_of(least)) + scores.relative * bound + scores.absolute)
        near = lanes_up_to(least, close)
        # Each lane keeps two scores, so the row is clear if one lane is within the bound and no second score is.
        alone = near & (near - 1) == 0 and lanes_up_to(load(scores.second, at), close) == 0
        # Beyond the limit a score may have overflowed, so its margin means nothing. NaN fails every comparison.
        if bound < scores.limit and alone:
            tile.labels[r] = element(scores.named, at + lowest_bit(near))
        else:
            label, _ = _nearest(tile.rows, r * width, d, centers, reach)
            tile.labels[r] = label
    _take_distances(tile, m, d, centers)


@njit(**BARE)
def _add_up(values, start, m, weights, tile, sums):  # type: ignore[no-untyped-def]
    """Add Σw and Σw·x per label to `sums`, and return Σw·distance."""
    t, width = tile.rows.shape
    copies, k = sums.weight.shape
    d = values.shape[1]
    objective = 0.0
    for r in range(m):
        w = weights[start + r]
        label = int(tile.labels[r])
        copy = r & (copies - 1)
        objective += w * tile.distances[r]
        sums.weight[copy, label] += w
        factor = splat(w)
        p = (copy * k + label) * width
        for j in range(0, width, WIDE):
            # Rows of the next tile are loaded from memory while this one is worked on.
            prefetch(values, (start + r + t) * d + j)
            store(sums.first, p + j, load(sums.first, p + j) + factor * load(tile.rows, r * width + j))
    return objective


@njit(**BARE)
def _keep_far(start, m, weights, tile, far, count):  # type: ignore[no-untyped-def]
    """Keep the farthest rows of positive weight, and return their number."""
    most = far.distances.shape[0]
    floor = far.distances[most - 1] if count == most else 0.0
    for r in range(m):
        distance = tile.distances[r]
        if distance > floor and weights[start + r] > 0.0:
            if count < most:
                count += 1
            i = count - 1
            # Only a greater distance moves ahead, so among equals the lower position stays first.
            while i > 0 and far.distances[i - 1] < distance:
                far.distances[i] = far.distances[i - 1]
                far.row_index[i] = far.row_index[i - 1]
                far.labels[i] = far.labels[i - 1]
                i -= 1
            far.distances[i] = distance
            far.row_index[i] = start + r
            far.labels[i] = int(tile.labels[r])
            if count == most:
                floor = far.distances[most - 1]
    return count


@njit(**BARE)
def lloyd(values, weights, origin, centers, reach, way, tile, scores, sums, far, weight, first):  # type: ignore[no-untyped-def]
    """Label rows, add them up by label, and return Σw·distance and the number of rows in `far`.

    Parameters
    ----------
    values, weights
        Rows ``(n, d)``, not less the origin, and their weights ``(n,)``.
    origin, centers
        Origin and centers less the origin, widened with zeros to the width of the tile.
    reach
        Reaches of the centers ``(k,)``, as `kernels.reaches` gives them.
    way
        One of `SIDE_BY_SIDE`, `BY_DISTANCE` and `BY_SCORE`.
    tile, scores, sums
        Buffers, as `lloyd` of the module of that name makes them.
    far
        Gets the farthest rows.
    weight, first
        Σw ``(k,)`` and Σw·x ``(k, d)``, which are added to.
    """
    n, d = values.shape
    t = tile.rows.shape[0]
    copies, k = sums.weight.shape
    objective = 0.0
    count = 0
    for begin in range(0, n, SUM_ROWS):
        sums.weight.fill(0.0)
        sums.first.fill(0.0)
        part = 0.0
        end = min(n, begin + SUM_ROWS)
        for start in range(begin, end, t):
            m = min(t, end - start)
            _fill(values, start, m, origin, tile)
            if way == SIDE_BY_SIDE:
                _side_by_side(tile, m, d, centers, reach)
            elif way == BY_DISTANCE:
                _by_distance(tile, m, d, centers, reach)
            else:
                _by_score(tile, m, d, centers, scores, reach)
            part += _add_up(values, start, m, weights, tile, sums)
            count = _keep_far(start, m, weights, tile, far, count)
        objective += part
        for i in range(k):
            for c in range(copies):
                weight[i] += sums.weight[c, i]
                for j in range(d):
                    first[i, j] += sums.first[c, i, j]
    return objective, count
