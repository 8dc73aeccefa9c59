"""One pass of k-means over rows in memory: labels, sums and farthest rows at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.models import kernels, lloyd_kernels
from clustering.models.assignment import aligned_empty, compiled_for, rounding_bound
from clustering.models.lanes import NARROW, WIDE

Array = NDArray[np.float64]

TILE_BYTES, TILE_ROWS = 32 * 1024, (16, 128)
"""Size of the float64 rows of a tile, in bytes, and the least and greatest number of rows."""
FEW_PRODUCTS, FEW_CENTERS = 256, 8
"""Distances cost less than scores up to this k·d for d below 16, and up to this k for larger d."""
COPIED_SUMS = 1024
"""Up to this number of sums, four copies of them are kept."""


class Tile(NamedTuple):
    """Some rows that are worked on together. Values beyond the last row have no effect."""

    rows: NDArray[np.float64]
    """Rows less the origin ``(t, width)``, zero beyond the last feature."""
    turned: NDArray[np.float64]
    """Sixteen rows as columns ``(d, 16)``."""
    labels: NDArray[np.float64]
    """Nearest centers ``(t,)``, as whole numbers in float64."""
    distances: NDArray[np.float64]
    """Squared distances to them ``(t,)``."""


class ScoreBuffers(NamedTuple):
    """Arrays and bounds for scores −2 x·c + ‖c‖² in float32; the scale, a power of two, keeps them in range."""

    scale: float
    """Factor of rows and centers."""
    slopes: NDArray[np.float32]
    """−2 c ``(k / 16, d, 16)``."""
    offsets: NDArray[np.float32]
    """‖c‖² ``(k,)``, infinite where k is rounded up to a multiple of sixteen."""
    names: NDArray[np.float32]
    """Indices of the centers ``(k,)``."""
    reach: float
    """The largest ‖c‖, scaled."""
    relative: float
    """Rounding bound of the difference of two scores, relative to (‖x‖ + reach)²."""
    absolute: float
    """Absolute part of the rounding bound, for numbers that underflow."""
    limit: float
    """Beyond this (‖x‖ + reach)² a score may have overflowed."""
    narrow: NDArray[np.float32]
    """Scaled rows ``(t, width)``."""
    best: NDArray[np.float32]
    """Least score in each lane, which holds every sixteenth center ``(t, 16)``."""
    second: NDArray[np.float32]
    """Second least score in each lane ``(t, 16)``."""
    named: NDArray[np.float32]
    """Center of the least score in each lane ``(t, 16)``."""


class SumBuffers(NamedTuple):
    """Sums of `lloyd_kernels.SUM_ROWS` rows; successive rows go to different copies, so that they need not wait."""

    weight: NDArray[np.float64]
    """Σw ``(copies, k)``; the copies are a power of two."""
    first: NDArray[np.float64]
    """Σw·x ``(copies, k, width)``."""


class FarthestBuffer(NamedTuple):
    """The farthest rows so far, farthest first, earlier rows first among equals."""

    distances: NDArray[np.float64]
    """Squared distances ``(most,)``."""
    row_index: NDArray[np.int64]
    """Indices of the rows ``(most,)``."""
    labels: NDArray[np.int32]
    """Their clusters ``(most,)``."""


class LloydSums(NamedTuple):
    """Sums and farthest rows of a pass."""

    weight: Array
    """Σw ``(k,)``."""
    first: Array
    """Σw·x ``(k, d)``, of rows less the origin."""
    objective: float
    """Σw·distance."""
    far: FarthestBuffer
    """The farthest rows of positive weight ``(t,)``."""
    rows: Array
    """Those rows less the origin ``(t, d)``."""


def lloyd(values: NDArray[Any], weights: Array, origin: Array, centers: Array, most: int) -> LloydSums:
    """Label rows by their nearest centers, add them up, and keep the farthest.

    Parameters
    ----------
    values, weights
        Rows ``(n, d)``, not less the origin, and their weights ``(n,)``.
    origin, centers
        Origin ``(d,)``, and centers less the origin ``(k, d)``.
    most
        Largest number of farthest rows to keep.
    """
    values = compiled_for(values)
    k, d = centers.shape
    # Rows are widened with zeros to whole vectors, so that loops need no remainder. Zeros add nothing to squares.
    width = -(-d // WIDE) * WIDE
    t = int(np.clip(TILE_BYTES // (8 * width) // 16 * 16, *TILE_ROWS))
    # All three ways give the same labels and distances, so the choice is one of speed alone.
    if d < 16 and k * d <= FEW_PRODUCTS:
        way = lloyd_kernels.SIDE_BY_SIDE
    elif d >= 16 and k <= FEW_CENTERS:
        way = lloyd_kernels.BY_DISTANCE
    else:
        way = lloyd_kernels.BY_SCORE
    tile = Tile(_zeros((t, width)), _zeros((d, 16)), _zeros((t,)), _zeros((t,)))
    # Copies of many sums would push the tile out of the cache.
    copies = 4 if k * width <= COPIED_SUMS else 1
    sums = SumBuffers(_zeros((copies, k)), _zeros((copies, k, width)))
    far = FarthestBuffer(np.zeros(most), np.zeros(most, np.int64), np.zeros(most, np.int32))
    weight, first = np.zeros(k), np.zeros((k, d))
    objective, count = lloyd_kernels.lloyd(
        values, weights, _padded(origin, width), _padded(centers, width), kernels.reaches(centers), way, tile,
        _scores(centers, t), sums, far, weight, first,
    )  # fmt: skip
    far = FarthestBuffer(far.distances[:count], far.row_index[:count], far.labels[:count])
    # Tiles are overwritten, so the few farthest rows are taken from the values once more.
    return LloydSums(weight, first, objective, far, values[far.row_index].astype(np.float64) - origin)


def _scores(centers: Array, t: int) -> ScoreBuffers:
    """Make the buffers that score tiles of `t` rows by centers ``(k, d)``."""
    k, d = centers.shape
    lanes = -(-k // NARROW) * NARROW
    # A power of two scales without rounding. Beyond ±1000 it would leave float64 itself.
    exponent = int(np.clip(np.frexp(np.abs(centers).max())[1], -1000, 1000))
    scaled = np.zeros((lanes, d))
    scaled[:k] = np.ldexp(centers, -exponent)
    squares = np.einsum("kd,kd->k", scaled, scaled)
    slopes = _zeros((lanes // NARROW, d, NARROW), np.float32)
    slopes[:] = -2.0 * scaled.reshape(-1, NARROW, d).transpose(0, 2, 1)
    offsets = _zeros((lanes,), np.float32)
    # An infinite score keeps centers that only fill up the last vector from being the least.
    offsets[:k], offsets[k:] = squares[:k], np.inf
    relative, absolute = rounding_bound(d, np.dtype(np.float32))
    single, double = np.finfo(np.float32), np.finfo(np.float64)
    scale = 2.0**-exponent
    # The defining distances are not scaled: where they overflow or underflow, scores must not decide either.
    square = scale * scale
    best, second, named = (_zeros((t, NARROW), np.float32) for _ in range(3))
    second[:], named[:] = np.inf, np.arange(NARROW)
    return ScoreBuffers(
        scale=scale,
        slopes=slopes,
        offsets=offsets,
        names=np.arange(lanes, dtype=np.float32),
        reach=float(np.sqrt(squares.max())) * 1.001,
        # The least score plus the bound is rounded once more.
        relative=relative + float(single.eps),
        absolute=absolute + 8.0 * (d + 4) * float(double.tiny) * square,
        limit=min(float(single.max), float(double.max) * square) / 16,
        narrow=_zeros((t, -(-d // WIDE) * WIDE), np.float32),
        best=best,
        second=second,
        named=named,
    )


def _zeros(shape: tuple[int, ...], dtype: Any = np.float64) -> NDArray[Any]:
    array = aligned_empty(shape, dtype)
    array[...] = 0
    return array


def _padded(array: Array, width: int) -> Array:
    """Widen the last dimension with zeros."""
    wider = _zeros((*array.shape[:-1], width))
    wider[..., : array.shape[-1]] = array
    return wider
