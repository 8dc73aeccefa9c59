"""Nearest centers of many rows, a cache-sized sub-block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.models import kernels

SUB_BLOCK_BYTES = 512 * 1024
"""Size of the float64 rows of a sub-block, in bytes: about half a second-level cache."""
FEW_FEATURES = 32
"""Up to this d compiled loops make the products, beyond it BLAS."""

FEW_CENTERS, FEW_CENTERS_NARROW = 6, 12
"""Up to this k the defining distances cost less than scores with a second look at near ties; the second number holds
for d below 16."""

# Compiled functions take arrays alone, so an empty one stands for an array that is not wanted.
_NONE = np.empty((0, 1))

# Other types may differ in digits that float32 lacks: too many of their rows would need a second look.
_EXACT_IN_FLOAT32 = {np.dtype(t) for t in ("f4", "f2", "i1", "u1", "i2", "u2")}


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
        kernels.prepare(compiled_for(values)[start:stop], origin, buffer[: stop - start], _NONE, _NONE[:, 0])
        yield start, stop, buffer[: stop - start]


def compiled_for(values: NDArray[Any]) -> NDArray[Any]:
    """Return values in a type and layout that the kernels are compiled for; only rare ones are copied.

    Parameters
    ----------
    values
        Rows ``(n, d)`` of any real type.
    """
    # numba compiles no loops for float16 or a foreign byte order, and every further layout would be compiled anew.
    if values.dtype == np.float16 or not values.flags.c_contiguous or not values.dtype.isnative:
        return np.ascontiguousarray(
            values, np.float32 if values.dtype == np.float16 else values.dtype.newbyteorder("=")
        )
    # A truth value is a byte of 0 or 1, so a view copies nothing and needs no loops of its own.
    return values.view(np.uint8) if values.dtype == bool else values


def sub_block_rows(d: int) -> int:
    """Return the length of a sub-block; it depends on d alone, so that every sum is added up in the same order.

    Parameters
    ----------
    d
        Number of features.
    """
    return max(kernels.TILE, SUB_BLOCK_BYTES // (8 * d) // kernels.TILE * kernels.TILE)


def aligned_empty(shape: tuple[int, ...], dtype: Any = np.float64) -> NDArray[Any]:
    """Make an uninitialised array at a multiple of 64 bytes: alignment changes the order of some vector additions.

    Parameters
    ----------
    shape, dtype
        As in `numpy.empty`.
    """
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    skip = -raw.ctypes.data % 64
    aligned: NDArray[Any] = raw[skip : skip + size].view(dtype).reshape(shape)
    return aligned


def nearest(values: NDArray[Any], origin: NDArray[np.float64], centers: NDArray[np.float64]) -> Iterator[AssignedRows]:
    """Assign rows to their nearest centers, a sub-block at a time.

    Labels equal those of float64 distances whatever the precision of the rows: see `clustering.models.kernels`.

    Parameters
    ----------
    values
        Rows ``(n, d)``, not less the origin.
    origin
        Origin ``(d,)`` that is subtracted from the rows.
    centers
        Centers less the origin ``(k, d)``.
    """
    k, d = centers.shape
    if not len(values):
        return
    if k <= (FEW_CENTERS_NARROW if d < 16 else FEW_CENTERS):
        direct = kernels.nearest_narrow if d < 16 else kernels.nearest_direct
        length = min(sub_block_rows(d), len(values))
        labels, distances = np.empty(length, np.int32), np.empty(length)
        for start, stop, rows in sub_blocks(values, origin):
            m = stop - start
            direct(rows, centers, labels[:m], distances[:m])
            yield AssignedRows(start, stop, rows, labels[:m], distances[:m])
    else:
        yield from _scored(compiled_for(values), origin, centers)


def _scored(values: NDArray[Any], origin: NDArray[np.float64], centers: NDArray[np.float64]) -> Iterator[AssignedRows]:
    """Assign rows by scores, and by distances where two scores are within the rounding bound."""
    (n, d), k = values.shape, len(centers)
    kind = np.dtype(np.float32 if values.dtype in _EXACT_IN_FLOAT32 else np.float64)
    squares = np.einsum("kd,kd->k", centers, centers)
    with np.errstate(over="ignore"):
        # Centers beyond float32 overflow here. The limit below then sends all rows to the definition.
        slopes = np.ascontiguousarray(-2.0 * centers, kind)
        offsets = squares.astype(kind)
    # The factor covers the rounding of the squares and of the root, so that no norm is greater.
    reach = float(np.sqrt(squares.max())) * 1.001
    relative, absolute = rounding_bound(d, kind)
    # No score or partial sum exceeds (‖x‖ + reach)², so a sixteenth of the largest number leaves room for rounding.
    limit = float(np.finfo(kind.type).max) / 16
    length = min(sub_block_rows(d), n)
    labels, distances = np.empty(length, np.int32), np.empty(length)
    buffer = aligned_empty((length, d))
    by_blas = d > FEW_FEATURES
    norm = np.empty(length if by_blas else 0)
    narrow = aligned_empty((length if by_blas and kind != np.float64 else 0, d), np.float32)
    products = aligned_empty((k, length if by_blas else 0), kind)
    for start in range(0, n, length):
        stop = min(n, start + length)
        m = stop - start
        rows, part_labels, part_distances = buffer[:m], labels[:m], distances[:m]
        kernels.prepare(values[start:stop], origin, rows, narrow[:m], norm[:m])
        if by_blas:
            # A sub-block shorter than the buffer needs contiguous products of its own.
            made = products if m == length else aligned_empty((k, m), kind)
            with np.errstate(over="ignore", invalid="ignore"):
                np.matmul(slopes, (narrow[:m] if len(narrow) else rows).T, out=made)
            kernels.nearest_scored(
                rows, centers, made, offsets, norm[:m], reach, relative, absolute, limit, part_labels, part_distances
            )
        else:
            kernels.nearest_few(
                rows, centers, slopes, offsets, reach, relative, absolute, limit, part_labels, part_distances
            )
        yield AssignedRows(start, stop, rows, part_labels, part_distances)


def rounding_bound(d: int, kind: np.dtype[Any]) -> tuple[float, float]:
    """Bound the error of the difference of two scores: relative to (‖x‖ + max‖c‖)², and absolute.

    A product of length d in precision u errs by at most γ = (d + 4) u / (1 − (d + 4) u) of the product of norms, the
    rounding of rows and centers to that precision included (Higham, Accuracy and Stability of Numerical Algorithms,
    2002, section 3.1). This counts twice for the two scores, and float64's own γ four times for the defining distances.
    The bound also covers distances that are equal by definition, see `kernels.least_clear`.

    Parameters
    ----------
    d
        Number of features.
    kind
        Type of the scores: float32 or float64.
    """
    bound = 2.0 * kernels.TIE
    for factor, dtype in ((2.0, kind), (4.0, np.dtype(np.float64))):
        terms = (d + 4) * float(np.finfo(dtype).eps) / 2
        # For very many features γ is no bound any more. An infinite one sends every row to the definition.
        bound += factor * terms / (1 - terms) if terms < 0.5 else np.inf
    # One per cent covers the rounding of the bound itself. The absolute part covers products that underflow.
    return 1.01 * bound, 8.0 * (d + 4) * float(np.finfo(kind).tiny)
