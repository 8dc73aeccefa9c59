"""Rows side by side: cache-sized sub-blocks ``(d, m)`` for loops that run over rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows

Array = NDArray[np.float64]

CACHED_BYTES = 256 * 1024
"""Size of the columns, and of the responsibilities, of a sub-block, in bytes: a quarter of a second-level cache."""


def sub_block_length(d: int, k: int) -> int:
    """Rows of a sub-block; fixed by d and k, so that every sum is added up in the same order."""
    return int(np.clip(CACHED_BYTES // (8 * max(d, k)) // 64 * 64, 256, 1024))


def columns_of(rows: Rows, origin: Array, k: int) -> Iterator[tuple[int, int, Array]]:
    """Yield ``(start, stop, columns)`` of all rows less the origin; NaN stays NaN."""
    length = sub_block_length(len(origin), k)
    for start in range(0, len(rows), length):
        stop = min(len(rows), start + length)
        yield start, stop, np.ascontiguousarray((rows.values[start:stop].astype(np.float64) - origin).T)
