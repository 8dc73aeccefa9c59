"""Assignments of rows, and their rows a cache-sized sub-block at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.models import kernels

SUB_BLOCK_BYTES = 512 * 1024
"""Size of the float64 rows of a sub-block, in bytes: about half a second-level cache."""
SUB_BLOCK_STEP = 128
"""Sub-blocks are a multiple of this number of rows long."""


class Assignment(NamedTuple):
    """Labels of the rows of a block."""

    labels: NDArray[np.int32]
    """Cluster of each row ``(n,)``: the one of largest responsibility."""
    distances: NDArray[np.float64]
    """Own divergence of each row ``(n,)``; for a mixture, the squared Mahalanobis distance."""
    weight: NDArray[np.float64]
    """Σ w r of each cluster ``(k,)``."""
    objective: float
    """Objective that the passes lower, at the same params."""
    entropy: float = 0.0
    """−Σ w r log r; 0 where assignments are hard."""


class AssignedRows(NamedTuple):
    """Some consecutive rows with their nearest centers."""

    start: int
    stop: int
    rows: NDArray[np.float64]
    """Rows less the origin ``(m, d)``, in a buffer that is reused for the next rows."""
    labels: NDArray[np.int32]
    """Nearest center ``(m,)``."""
    distances: NDArray[np.float64]
    """Squared distance from it ``(m,)``, or another divergence from `divergences.assign_rows`."""
    margins: NDArray[np.float64] | None = None
    """How much farther the second nearest center is, in the metric ``(m,)``; None where it was not asked for."""


def sub_blocks(values: NDArray[Any], origin: NDArray[np.float64]) -> Iterator[tuple[int, int, NDArray[np.float64]]]:
    """Yield ``(start, stop, rows)`` with the origin subtracted in float64, in one aligned buffer that is reused.

    Parameters
    ----------
    values
        Rows ``(n, d)`` of any real type.
    origin
        Subtracted from each row ``(d,)``.
    """
    n, d = values.shape
    length = sub_block_rows(d)
    buffer = aligned_empty((min(length, n), d))
    for start in range(0, n, length):
        stop = min(n, start + length)
        kernels.subtract_origin(compiled_for(values)[start:stop], origin, buffer[: stop - start])
        yield start, stop, buffer[: stop - start]


def compiled_for(values: NDArray[Any]) -> NDArray[Any]:
    """Return values in a type and layout that the kernels are compiled for; only rare ones are copied.

    Parameters
    ----------
    values
        Rows ``(n, d)`` of any real type.
    """
    if not values.flags.c_contiguous or not values.dtype.isnative:
        values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    # Kernels know no float16. A truth value is a byte of 0 or 1, so a view copies nothing.
    if values.dtype == np.float16:
        return values.astype(np.float32)
    return values.view(np.uint8) if values.dtype == bool else values


def sub_block_rows(d: int) -> int:
    """Return the length of a sub-block; it depends on d alone, so that every sum is added up in the same order.

    Parameters
    ----------
    d
        Number of features.
    """
    return max(SUB_BLOCK_STEP, SUB_BLOCK_BYTES // (8 * d) // SUB_BLOCK_STEP * SUB_BLOCK_STEP)


def aligned_empty(shape: tuple[int, ...], dtype: Any = np.float64) -> NDArray[Any]:
    """Make an uninitialised array at a multiple of 64 bytes: alignment changes the order of some vector additions.

    Parameters
    ----------
    shape, dtype
        As in `numpy.empty`.
    """
    dtype = np.dtype(dtype)
    # A pass over few rows makes many small arrays, so that each call counts here.
    raw = np.empty(math.prod(shape) * dtype.itemsize + 64, np.uint8)
    return np.ndarray(shape, dtype, raw, -raw.ctypes.data % 64)


def zeros(shape: tuple[int, ...], dtype: Any = np.float64) -> NDArray[Any]:
    """Make an array of zeros that begins at a cache line.

    Parameters
    ----------
    shape, dtype
        As in `numpy.zeros`.
    """
    array = aligned_empty(shape, dtype)
    array[...] = 0
    return array


@cache
def rounding_bound(d: int) -> tuple[float, float]:
    """Bound the error of the difference of two float32 scores: relative to (‖x‖ + max‖c‖)², and absolute.

    A product of length d in precision u errs by at most γ = (d + 4) u / (1 − (d + 4) u) of the product of norms, the
    rounding of rows and centers to that precision included (Higham, Accuracy and Stability of Numerical Algorithms,
    2002, section 3.1). This counts twice for the two scores, and float64's own γ four times for the defining distances.
    The bound also covers distances that are equal by definition, see `kernels.least_clear`.

    Parameters
    ----------
    d
        Number of features.
    """
    single, double = np.finfo(np.float32), np.finfo(np.float64)
    bound = 2.0 * kernels.TIE
    for factor, precision in ((2.0, single), (4.0, double)):
        terms = (d + 4) * float(precision.eps) / 2
        # For very many features γ is no bound any more. An infinite one sends every row to the definition.
        bound += factor * terms / (1 - terms) if terms < 0.5 else np.inf
    # One per cent covers the rounding of the bound itself. The absolute part covers products that underflow.
    return 1.01 * bound, 8.0 * (d + 4) * float(single.tiny)
