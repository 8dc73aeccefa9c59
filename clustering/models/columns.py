"""Sub-blocks of rows as columns ``(d, m)`` that fit in the cache, for loops that run over rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows

Array = NDArray[np.float64]

CACHED_BYTES = 256 * 1024
"""Size of the columns of a sub-block, and of its responsibilities, in bytes: a quarter of a second-level cache."""


def sub_block_length(d: int, k: int) -> int:
    """Return the length of a sub-block; it depends on d and k alone, so that every sum has one order.

    Parameters
    ----------
    d, k
        Number of features and of clusters.
    """
    # At least 248 rows keep the calls cheap beside the loops. An odd multiple of eight keeps the lines of a sub-block
    # from sharing the same few places of the cache.
    return int(np.clip(CACHED_BYTES // (8 * max(d, k)) // 64 * 64, 256, 1024)) - 8


def columns_of(rows: Rows, origin: Array, k: int) -> Iterator[tuple[int, int, Array]]:
    """Yield ``(start, stop, columns)`` of all rows less the origin, as columns ``(d, m)``; NaN stays NaN.

    Parameters
    ----------
    rows
        Rows of a block ``(n, d)``.
    origin
        Subtracted from each row ``(d,)``.
    k
        Number of clusters, which limits the length of a sub-block.
    """
    length = sub_block_length(len(origin), k)
    for start in range(0, len(rows), length):
        stop = min(len(rows), start + length)
        # float32 would lose the digits that the origin is there to keep, so rows are widened before the subtraction.
        yield start, stop, np.ascontiguousarray((rows.values[start:stop].astype(np.float64) - origin).T)
