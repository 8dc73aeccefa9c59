"""The feature axis last: stored arrays become cells by features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data import gather_kernels

_KERNELS = {1: gather_kernels.gather_bytes, 2: gather_kernels.gather_pairs}


def gathered(array: NDArray[Any], cells: Sequence[int], features: Sequence[int]) -> NDArray[Any]:
    """Bring the axes of an array into order.

    Parameters
    ----------
    array
        As stored; contiguous.
    cells, features
        Its axes, in the order wanted; the others have length 1.

    Returns
    -------
    ndarray
        ``(cells, f)``, contiguous.
    """
    others = [axis for axis in range(array.ndim) if axis not in cells and axis not in features]
    f = math.prod(array.shape[axis] for axis in features)
    moved = array.transpose([*cells, *features, *others])
    kernel, each = _KERNELS.get(array.itemsize), 8 // array.itemsize
    long = [axis for axis in range(array.ndim) if array.shape[axis] > 1]
    ordered = [axis for axis in (*cells, *features) if array.shape[axis] > 1]
    inside = [axis for axis in features if array.shape[axis] > 1]
    first = long.index(inside[0]) if inside else 0
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
