"""Transposing stored arrays to cells by features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data import gather_kernels

_KERNELS = {1: gather_kernels.gather_bytes, 2: gather_kernels.gather_pairs}


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
