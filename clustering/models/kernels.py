"""The compiled inner loops of hard assignment.

The label of a row is *defined* as the center with the least squared distance as `distance_between` computes it in
float64, the lowest index among equals. Two distances count as equal where the rounding of the centers can explain their
difference, see `least_clear`. Centers are means, whose last bits depend on the order of the sums and so on the chunks,
and a row halfway between two of them must not change sides for that. For speed, scores ‖c‖² − 2 x·c come first, in
float32 where the rows have no more precision. A score decides only where its margin exceeds the rounding bound; all
other rows are labelled by the definition. Labels therefore depend on the row and the centers alone: not on the BLAS
library, the alignment of buffers, or the way that rows are grouped into blocks.

All loops release the GIL, run on one thread, and are cached on disk after the first compilation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from clustering.compiling import njit

TILE = 128
"""Rows scored together; a tile of ``(d, TILE)`` stays in the first-level cache for small d."""

# With error_model "numpy" a division needs no check for zero, which would keep a loop from using vectors.
FAST: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}

TIE, TIE_OF_CENTERS = 2.0**-40, 2.0**-48
"""Rounding of a squared distance, relative to it, and of a center, relative to its distance from the origin."""
CLEAR, CLEAR_OF_CENTERS = 1.0 - 2.0**-39, 2.0**-55
"""A squared distance a is clearly less than b if a < CLEAR·b − CLEAR_OF_CENTERS·r², with r the largest reach of a
center. This test is stricter than `least_clear` and needs no root."""


@njit(inline="always", **FAST)
def distance_between(row, center):  # type: ignore[no-untyped-def]
    """Compute the squared distance of two points, added up in one fixed order.

    Parameters
    ----------
    row, center
        Points ``(d,)``.
    """
    d = row.shape[0]
    # Sixteen sums side by side fill the vector units and hide the latency of the additions.
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = 0.0
    b0 = b1 = b2 = b3 = b4 = b5 = b6 = b7 = 0.0
    long = d - d % 16
    for j in range(0, long, 16):
        t0, u0 = row[j] - center[j], row[j + 8] - center[j + 8]
        t1, u1 = row[j + 1] - center[j + 1], row[j + 9] - center[j + 9]
        t2, u2 = row[j + 2] - center[j + 2], row[j + 10] - center[j + 10]
        t3, u3 = row[j + 3] - center[j + 3], row[j + 11] - center[j + 11]
        t4, u4 = row[j + 4] - center[j + 4], row[j + 12] - center[j + 12]
        t5, u5 = row[j + 5] - center[j + 5], row[j + 13] - center[j + 13]
        t6, u6 = row[j + 6] - center[j + 6], row[j + 14] - center[j + 14]
        t7, u7 = row[j + 7] - center[j + 7], row[j + 15] - center[j + 15]
        a0 += t0 * t0
        a1 += t1 * t1
        a2 += t2 * t2
        a3 += t3 * t3
        a4 += t4 * t4
        a5 += t5 * t5
        a6 += t6 * t6
        a7 += t7 * t7
        b0 += u0 * u0
        b1 += u1 * u1
        b2 += u2 * u2
        b3 += u3 * u3
        b4 += u4 * u4
        b5 += u5 * u5
        b6 += u6 * u6
        b7 += u7 * u7
    total = (((a0 + b0) + (a1 + b1)) + ((a2 + b2) + (a3 + b3))) + (((a4 + b4) + (a5 + b5)) + ((a6 + b6) + (a7 + b7)))
    for j in range(long, d):
        t0 = row[j] - center[j]
        total += t0 * t0
    return total


@njit(**FAST)
def reaches(centers):  # type: ignore[no-untyped-def]
    """Compute the distance of each center from the origin ``(k,)``, which the rounding of centers grows with.

    Smaller ones are raised to the median: a center at the origin is the mean of rows that are not.

    Parameters
    ----------
    centers
        Centers less the origin ``(k, d)``.
    """
    k, d = centers.shape
    out = np.zeros(k)
    for i in range(k):
        largest = 0.0
        for j in range(d):
            largest = max(largest, abs(centers[i, j]))
        if largest > 0.0:
            total = 0.0
            for j in range(d):
                total += (centers[i, j] / largest) ** 2
            # Features are divided by the largest one first, so that no square leaves float64.
            out[i] = largest * np.sqrt(total)
    return np.maximum(out, np.sort(out)[k // 2])


@njit(inline="always", **FAST)
def least_clear(distance, reach):  # type: ignore[no-untyped-def]
    """Bound below which another squared distance is clearly less than this one.

    Parameters
    ----------
    distance
        Squared distance.
    reach
        Sum of the reaches of the two centers, as `reaches` gives them.
    """
    if not distance < np.inf:
        # Any finite distance is clearly less than an infinite one. NaN ends here too.
        return np.inf
    # Centers that are off by `slack` change a squared distance a by terms of slack·√a and slack².
    slack = TIE_OF_CENTERS * reach
    return distance - (TIE * distance + slack * np.sqrt(distance) + slack * slack)


@njit(**FAST)
def nearest_of(row, centers, reach):  # type: ignore[no-untyped-def]
    """Label a row by the definition; return its label and squared distance.

    Parameters
    ----------
    row, centers
        Row ``(d,)`` and centers ``(k, d)``, less the same origin.
    reach
        Reaches of the centers ``(k,)``, as `reaches` gives them.
    """
    least = distance_between(row, centers[0])
    label = 0
    for k in range(1, centers.shape[0]):
        distance = distance_between(row, centers[k])
        # The plain comparison comes first, because the bound takes a root.
        if distance < least and distance < least_clear(least, reach[label] + reach[k]):
            least = distance
            label = k
    return label, least


@njit(**FAST)
def prepare(values, origin, rows, narrow, norm):  # type: ignore[no-untyped-def]
    """Subtract the origin, and fill up to three arrays with the result.

    Parameters
    ----------
    values, origin
        Rows ``(n, d)`` of any real type, and the origin ``(d,)``.
    rows, narrow, norm
        Get the rows less the origin ``(n, d)`` in float64, a float32 copy and squared norms ``(n,)``; the last two may
        be empty.
    """
    n, d = values.shape
    for r in range(n):
        for j in range(d):
            rows[r, j] = np.float64(values[r, j]) - origin[j]
    if narrow.shape[0]:
        for r in range(n):
            for j in range(d):
                narrow[r, j] = rows[r, j]
    if norm.shape[0]:
        _norms(rows, norm)


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})
def _norms(rows, norm):  # type: ignore[no-untyped-def]
    """Compute squared norms for rounding bounds, whose sums may have any order."""
    for r in range(rows.shape[0]):
        total = 0.0
        for j in range(rows.shape[1]):
            total += rows[r, j] * rows[r, j]
        norm[r] = total


@njit(**FAST)
def nearest_direct(rows, centers, labels, distances):  # type: ignore[no-untyped-def]
    """Assign rows to few centers by the defining distances themselves.

    Parameters
    ----------
    rows, centers
        Rows ``(n, d)`` and centers ``(k, d)``, less the same origin.
    labels, distances
        Get the label and the squared distance of each row ``(n,)``.
    """
    reach = reaches(centers)
    for r in range(rows.shape[0]):
        labels[r], distances[r] = nearest_of(rows[r], centers, reach)


@njit(**FAST)
def nearest_narrow(rows, centers, labels, distances):  # type: ignore[no-untyped-def]
    """Assign rows as `nearest_direct` does, for d below 16: many rows side by side, each added up in the same order.

    Parameters
    ----------
    rows, centers, labels, distances
        As in `nearest_direct`.
    """
    n, d = rows.shape
    tile = np.zeros((d, TILE))
    total = np.empty(TILE)
    least = np.empty(TILE)
    second = np.empty(TILE)
    label = np.empty(TILE, np.int64)
    reach = reaches(centers)
    slack = CLEAR_OF_CENTERS * reach.max() ** 2
    for start in range(0, n, TILE):
        m = min(TILE, n - start)
        for r in range(m):
            for j in range(d):
                tile[j, r] = rows[start + r, j]
        least[:] = np.inf
        second[:] = np.inf
        label[:] = 0
        for k in range(centers.shape[0]):
            c = centers[k, 0]
            # Loops over the whole tile have a constant length, which compiles better. Nobody reads beyond row m.
            for r in range(TILE):
                t = tile[0, r] - c
                total[r] = t * t
            for j in range(1, d):
                c = centers[k, j]
                for r in range(TILE):
                    t = tile[j, r] - c
                    total[r] += t * t
            for r in range(TILE):
                lower = total[r] < least[r]
                # Minima and choices instead of branches let the compiler use vectors.
                second[r] = min(second[r], max(total[r], least[r]))
                label[r] = k if lower else label[r]
                least[r] = total[r] if lower else least[r]
        for r in range(m):
            labels[start + r] = label[r]
            distances[start + r] = least[r]
            # NaN fails every comparison, so rows with NaN are labelled by the definition too.
            if not least[r] < second[r] * CLEAR - slack:
                labels[start + r], distances[start + r] = nearest_of(rows[start + r], centers, reach)


@njit(**FAST)
def _resolve_near_ties(rows, centers, best, second, norm, reach, relative, absolute, limit, labels, distances):  # type: ignore[no-untyped-def]
    """Label rows by the definition where their margin is within the rounding bound; compute all distances."""
    beyond = reaches(centers)
    for r in range(rows.shape[0]):
        scale = np.sqrt(norm[r]) + reach
        bound = scale * scale
        # Beyond the limit a score may have overflowed, so its margin means nothing. NaN fails every comparison.
        if not (bound < limit and second[r] - best[r] > relative * bound + absolute):
            labels[r], distances[r] = nearest_of(rows[r], centers, beyond)
        else:
            distances[r] = distance_between(rows[r], centers[labels[r]])


@njit(**FAST)
def _compare(scores, k, best, second, labels):  # type: ignore[no-untyped-def]
    """Update the least and the second least score of each row with the scores ``(n,)`` of center `k`."""
    for r in range(scores.shape[0]):
        score = scores[r]
        least = best[r]
        lower = score < least
        second[r] = min(second[r], max(score, least))
        best[r] = score if lower else least
        labels[r] = k if lower else labels[r]


@njit(**FAST)
def nearest_few(rows, centers, slopes, offsets, reach, relative, absolute, limit, labels, distances):  # type: ignore[no-untyped-def]
    """Assign rows to centers by scores, for small d: rows of a tile are scored side by side, feature by feature.

    Parameters
    ----------
    rows, centers
        Rows ``(n, d)`` and centers ``(k, d)``, less the same origin.
    slopes, offsets
        −2 c ``(k, d)`` and ‖c‖² ``(k,)``, in the precision of the scores.
    reach, limit
        The largest ‖c‖, and (‖x‖ + reach)² beyond which a score may have overflowed.
    relative, absolute
        Rounding bound, as `assignment.rounding_bound` gives it.
    labels, distances
        Get the label and the squared distance of each row ``(n,)``.
    """
    n, d = rows.shape
    tile = np.zeros((d, TILE), slopes.dtype)
    scores = np.empty(TILE, slopes.dtype)
    best = np.empty(TILE, slopes.dtype)
    second = np.empty(TILE, slopes.dtype)
    norm = np.empty(TILE, slopes.dtype)
    # Two features at a time load and store the scores half as often.
    paired = d - d % 2
    for start in range(0, n, TILE):
        m = min(TILE, n - start)
        for r in range(m):
            for j in range(d):
                tile[j, r] = rows[start + r, j]
        norm[:] = 0
        for j in range(d):
            for r in range(TILE):
                norm[r] += tile[j, r] * tile[j, r]
        best[:] = np.inf
        second[:] = np.inf
        chosen = labels[start : start + m]
        for k in range(centers.shape[0]):
            scores[:] = offsets[k]
            for j in range(0, paired, 2):
                s0 = slopes[k, j]
                s1 = slopes[k, j + 1]
                for r in range(TILE):
                    scores[r] += s0 * tile[j, r] + s1 * tile[j + 1, r]
            if paired < d:
                s0 = slopes[k, paired]
                for r in range(TILE):
                    scores[r] += s0 * tile[paired, r]
            _compare(scores[:m], k, best, second, chosen)
        _resolve_near_ties(
            rows[start : start + m], centers, best, second, norm, reach, relative, absolute, limit,
            chosen, distances[start : start + m],
        )  # fmt: skip


@njit(**FAST)
def nearest_scored(rows, centers, products, offsets, norm, reach, relative, absolute, limit, labels, distances):  # type: ignore[no-untyped-def]
    """Assign rows to centers by scores whose products BLAS made.

    Parameters
    ----------
    rows, centers
        Rows ``(n, d)`` and centers ``(k, d)``, less the same origin.
    products, offsets, norm
        −2 c·x ``(k, n)``, ‖c‖² ``(k,)`` and ‖x‖² ``(n,)``.
    reach, relative, absolute, limit, labels, distances
        As in `nearest_few`.
    """
    n = rows.shape[0]
    scores = np.empty(n, products.dtype)
    best = np.full(n, np.inf, products.dtype)
    second = np.full(n, np.inf, products.dtype)
    for k in range(centers.shape[0]):
        for r in range(n):
            scores[r] = products[k, r] + offsets[k]
        _compare(scores, k, best, second, labels)
    _resolve_near_ties(rows, centers, best, second, norm, reach, relative, absolute, limit, labels, distances)


@njit(**FAST)
def add_up(rows, weights, labels, distances, weight, first):  # type: ignore[no-untyped-def]
    """Add up rows by their labels, and return Σw·distance.

    Parameters
    ----------
    rows, weights, labels, distances
        Rows ``(n, d)`` less the origin, with their weights, labels and distances ``(n,)``.
    weight, first
        Σw ``(k,)`` and Σw·x ``(k, d)``, which are added to.
    """
    k, d = first.shape
    part = np.zeros((k, d))
    share = np.zeros(k)
    objective = 0.0
    for r in range(rows.shape[0]):
        w = weights[r]
        label = labels[r]
        share[label] += w
        objective += w * distances[r]
        for j in range(d):
            part[label, j] += w * rows[r, j]
    # Two levels of sums: the error grows with the rows of a sub-block, not with those of a block.
    for i in range(k):
        weight[i] += share[i]
        for j in range(d):
            first[i, j] += part[i, j]
    return objective


@njit(**FAST)
def farthest_rows(distances, weights, floor, limit):  # type: ignore[no-untyped-def]
    """Find the farthest rows of positive weight; return their indices, farthest first, lower index first among equals.

    Parameters
    ----------
    distances, weights
        Own divergences and weights of rows ``(n,)``.
    floor, limit
        Only divergences above `floor` count, and `limit` rows at most.
    """
    index = np.empty(limit, np.int64)
    reach = np.empty(limit)
    count = 0
    for r in range(distances.shape[0]):
        distance = distances[r]
        if distance > floor and weights[r] > 0.0:
            if count < limit:
                count += 1
            # Rows come in the order of their positions, so among equals the lower position is there already.
            elif distance <= reach[limit - 1]:
                continue
            i = count - 1
            # Few rows pass the floor once the list is full, so inserting them one by one is cheap.
            while i > 0 and reach[i - 1] < distance:
                reach[i] = reach[i - 1]
                index[i] = index[i - 1]
                i -= 1
            reach[i] = distance
            index[i] = r
            if count == limit:
                floor = reach[limit - 1]
    return index[:count]
