"""Stored arrays as cells by features: compiled loops that transpose them and find finite rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.compiling import njit

# The threads of a process gather at the same time, as these loops need no Python objects.
_FAST: dict[str, Any] = {"nogil": True, "cache": True}


# All flags of fast math would let the compiler assume that no value is NaN or infinite.
@njit(fastmath={"reassoc", "nsz"}, **_FAST)
def finite(values, is_finite):  # type: ignore[no-untyped-def]
    """Mark rows without NaN or infinity, and return whether all are such rows.

    Parameters
    ----------
    values
        Rows of floats ``(n, d)``.
    is_finite
        Boolean array ``(n,)`` that is written to: true for finite rows.
    """
    zero = values.dtype.type(0)
    every = True
    for i in range(values.shape[0]):
        # Zero times a finite number is zero, and zero times NaN or infinity is NaN. A sum needs no branch per value.
        rest = zero
        for j in range(values.shape[1]):
            rest += values[i, j] * zero
        is_finite[i] = rest == rest
        every &= is_finite[i]
    return every


@njit(inline="always", **_FAST)
def _swap(a, b, bits, mask):  # type: ignore[no-untyped-def]
    """Swap the high half of each lane of one word with the low half of that lane of another."""
    t = ((a >> bits) ^ b) & mask
    return a ^ (t << bits), b ^ t


_LINE = 8
"""Words in a cache line. All of a line is used before the next one, as lines of many features may evict each other."""
_32, _16, _8 = np.uint64(32), np.uint64(16), np.uint64(8)
_HALVES = np.uint64(0x00000000FFFFFFFF)
_QUARTERS = np.uint64(0x0000FFFF0000FFFF)
_BYTES = np.uint64(0x00FF00FF00FF00FF)


@njit(**_FAST)
def gather_bytes(words, out):  # type: ignore[no-untyped-def]
    """Gather features of one byte, eight by eight.

    Words of eight cells become words of eight features. This transposes squares of 8 × 8 bytes in three rounds of swaps
    (Warren, Hacker's Delight, 2nd ed., section 7-3).

    Parameters
    ----------
    words
        Stored numbers as uint64 ``(a, f, b / 8)``: the f features lie between a outer and b inner cells.
    out
        Rows as uint64 ``(a, b, f / 8)``, written to.
    """
    for k in range(words.shape[0]):
        for line in range(0, words.shape[2], _LINE):
            stop = min(words.shape[2], line + _LINE)
            for j in range(words.shape[1] // 8):
                for i in range(line, stop):
                    r0, r1, r2, r3 = (
                        words[k, 8 * j, i],
                        words[k, 8 * j + 1, i],
                        words[k, 8 * j + 2, i],
                        words[k, 8 * j + 3, i],
                    )
                    r4, r5 = words[k, 8 * j + 4, i], words[k, 8 * j + 5, i]
                    r6, r7 = words[k, 8 * j + 6, i], words[k, 8 * j + 7, i]
                    # Blocks of 4 × 4 bytes change places first, then those of 2 × 2, then single bytes.
                    r0, r4 = _swap(r0, r4, _32, _HALVES)
                    r1, r5 = _swap(r1, r5, _32, _HALVES)
                    r2, r6 = _swap(r2, r6, _32, _HALVES)
                    r3, r7 = _swap(r3, r7, _32, _HALVES)
                    r0, r2 = _swap(r0, r2, _16, _QUARTERS)
                    r1, r3 = _swap(r1, r3, _16, _QUARTERS)
                    r4, r6 = _swap(r4, r6, _16, _QUARTERS)
                    r5, r7 = _swap(r5, r7, _16, _QUARTERS)
                    r0, r1 = _swap(r0, r1, _8, _BYTES)
                    r2, r3 = _swap(r2, r3, _8, _BYTES)
                    r4, r5 = _swap(r4, r5, _8, _BYTES)
                    r6, r7 = _swap(r6, r7, _8, _BYTES)
                    out[k, 8 * i, j], out[k, 8 * i + 1, j] = r0, r1
                    out[k, 8 * i + 2, j], out[k, 8 * i + 3, j] = r2, r3
                    out[k, 8 * i + 4, j], out[k, 8 * i + 5, j] = r4, r5
                    out[k, 8 * i + 6, j], out[k, 8 * i + 7, j] = r6, r7


@njit(**_FAST)
def gather_pairs(words, out):  # type: ignore[no-untyped-def]
    """Gather features of two bytes, four by four, as `gather_bytes` does for one byte.

    Parameters
    ----------
    words
        Stored numbers as uint64 ``(a, f, b / 4)``: the f features lie between a outer and b inner cells.
    out
        Rows as uint64 ``(a, b, f / 4)``, written to.
    """
    for k in range(words.shape[0]):
        for line in range(0, words.shape[2], _LINE):
            stop = min(words.shape[2], line + _LINE)
            for j in range(words.shape[1] // 4):
                for i in range(line, stop):
                    r0, r1, r2, r3 = (
                        words[k, 4 * j, i],
                        words[k, 4 * j + 1, i],
                        words[k, 4 * j + 2, i],
                        words[k, 4 * j + 3, i],
                    )
                    r0, r2 = _swap(r0, r2, _32, _HALVES)
                    r1, r3 = _swap(r1, r3, _32, _HALVES)
                    r0, r1 = _swap(r0, r1, _16, _QUARTERS)
                    r2, r3 = _swap(r2, r3, _16, _QUARTERS)
                    out[k, 4 * i, j], out[k, 4 * i + 1, j] = r0, r1
                    out[k, 4 * i + 2, j], out[k, 4 * i + 3, j] = r2, r3


_KERNELS = {1: gather_bytes, 2: gather_pairs}
"""Loop by the size of a number, in bytes."""


def gathered(array: NDArray[Any], cells: Sequence[int], features: Sequence[int]) -> NDArray[Any]:
    """Transpose and flatten an array to cells by features.

    Parameters
    ----------
    array
        Array as stored. The fast path needs it in C order; others are copied.
    cells, features
        Axes of the array in the wanted order; all other axes have length 1.

    Returns
    -------
    ndarray
        Values ``(cells, f)`` in C order.
    """
    others = [axis for axis in range(array.ndim) if axis not in cells and axis not in features]
    f = math.prod(array.shape[axis] for axis in features)
    moved = array.transpose([*cells, *features, *others])
    kernel, each = _KERNELS.get(array.itemsize), 8 // array.itemsize
    long = [axis for axis in range(array.ndim) if array.shape[axis] > 1]
    ordered = [axis for axis in (*cells, *features) if array.shape[axis] > 1]
    inside = [axis for axis in features if array.shape[axis] > 1]
    first = long.index(inside[0]) if inside else 0
    # The kernels serve one common case, in which numpy is slow: small integers with the feature axes before the last
    # cell axes, as in (time, band, y, x), and otherwise in the stored order.
    if (
        kernel is not None
        and inside
        and long[first : first + len(inside)] == inside
        and ordered == [*long[:first], *long[first + len(inside) :], *inside]
    ):
        b = math.prod(array.shape[axis] for axis in long[first + len(inside) :])
        if b > 1 and f % each == 0 and b % each == 0 and array.flags.c_contiguous and array.flags.aligned:
            a = array.size // (f * b)
            out = np.empty((a, b, f), array.dtype)
            kernel(array.reshape(a, f, b).view(np.uint64), out.view(np.uint64))
            return out.reshape(a * b, f)
    return np.ascontiguousarray(moved.reshape(-1, f))
