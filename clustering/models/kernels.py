"""What a label is, and small loops over rows.

The label of a row is *defined* as the center with the least squared distance as `distance_between` computes it in
float64, the lowest index among equals. Two distances count as equal where the rounding of the centers can explain their
difference, see `least_clear`. Centers are means, whose last bits depend on the order of the sums and so on the chunks,
and a row halfway between two of them must not change sides for that. `labelling_kernels` finds the labels.

All loops release the GIL, run on one thread, and are cached on disk after the first compilation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.compiling import INLINED, INNER, njit

Array = NDArray[np.float64]

# With error_model "numpy" a division needs no check for zero, which would keep a loop from using vectors.
FAST: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}
# Functions that make no arrays. Counting the references to their arguments would cost more than the work on a row.
BARE: dict[str, Any] = {**FAST, "_nrt": False}
# Overloads, which numba itself would cache, with a warning where code may hold an address of this process. The kernels
# that they become parts of are cached.
OVERLOAD: dict[str, Any] = {**INNER, **BARE, "cache": False}
# A call hands over each array of a tuple as seven numbers, which takes as long as some rows do.
INLINED_OVERLOAD: dict[str, Any] = {**OVERLOAD, **INLINED}

TIE, TIE_OF_CENTERS = 2.0**-40, 2.0**-48
"""Rounding of a squared distance, relative to it, and of a center, relative to its distance from the origin."""
CLEAR, CLEAR_OF_CENTERS = 1.0 - 2.0**-39, 2.0**-55
"""A squared distance a is clearly less than b if a < CLEAR·b − CLEAR_OF_CENTERS·r², with r the largest reach of a
center. This test is stricter than `least_clear` and needs no root."""


@njit(**FAST)
def aligned(n):  # type: ignore[no-untyped-def]
    """Make an array of doubles that begins at a cache line, so that no vector lies in two of them.

    Parameters
    ----------
    n
        Number of doubles.
    """
    raw = np.empty(n + 7)
    skip = -raw.ctypes.data % 64 // 8
    return raw[skip : skip + n]


@njit(**FAST)
def distance_between(row, center):  # type: ignore[no-untyped-def]
    """Compute the squared distance of two points, added up in one fixed order.

    This is the definition. Other kernels work on short vectors, and get the same bits.

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


def reaches(centers: Array) -> Array:
    """Compute the distance of each center from the origin ``(k,)``, which the rounding of centers grows with.

    Smaller ones are raised to the median: a center at the origin is the mean of rows that are not.

    Parameters
    ----------
    centers
        Centers less the origin ``(k, d)``.
    """
    largest = np.abs(centers).max(axis=1)
    # Features are divided by the largest one first, so that no square leaves float64.
    ratios = centers / np.where(largest > 0.0, largest, 1.0)[:, None]
    # Running sums are added in one order on every machine, which other sums of NumPy are not.
    out: Array = largest * np.sqrt(np.add.accumulate(ratios * ratios, axis=1)[:, -1])
    raised: Array = np.maximum(out, np.sort(out)[len(out) // 2])
    return raised


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


@njit(**BARE)
def subtract_origin(values, origin, rows):  # type: ignore[no-untyped-def]
    """Subtract the origin from rows, in float64.

    Parameters
    ----------
    values, origin
        Rows ``(n, d)`` of any real type, and the origin ``(d,)``.
    rows
        Gets the rows less the origin ``(n, d)``.
    """
    n, d = values.shape
    for r in range(n):
        for j in range(d):
            rows[r, j] = np.float64(values[r, j]) - origin[j]


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
