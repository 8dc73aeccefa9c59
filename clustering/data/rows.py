"""Rows: one block, flattened."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one block that take part, in C order of the sample grid."""

    values: NDArray[Any]
    """Features ``(n, d)`` in their own precision; finite."""
    weights: NDArray[np.float64]
    """Weights ``(n,)``, zero or more; a stride of zero where all are 1."""
    kept: NDArray[np.int64] | None = None
    """Places ``(n,)`` of the rows within the block; None where no cell of the block is masked."""
    start: tuple[int, ...] = (0,)
    """Where the block starts on the sample grid."""
    shape: tuple[int, ...] = (0,)
    """Length of the block along each sample dimension; its cells, masked ones included."""
    grid: tuple[int, ...] = (0,)
    """Length of each sample dimension."""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        weights = self.weights.nbytes if any(self.weights.strides) else 0
        return self.values.nbytes + weights + (0 if self.kept is None else self.kept.nbytes)

    def positions(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """Flat positions ``(t,)`` on the whole sample grid of these rows ``(t,)``."""
        cells = rows if self.kept is None else self.kept[rows]
        flat = np.zeros(len(cells), np.int64)
        for place, first, length in zip(np.unravel_index(cells, self.shape), self.start, self.grid, strict=True):
            flat = flat * length + (place + first)
        return flat

    def spread(self, per_row: NDArray[Any], fill: Any) -> NDArray[Any]:
        """Put one value per row ``(n,)`` back on the cells of the block ``(cells,)``, `fill` where masked."""
        if self.kept is None:
            return per_row
        cells = np.full(math.prod(self.shape), fill, per_row.dtype)
        cells[self.kept] = per_row
        return cells


def in_memory_rows(values: NDArray[Any], weights: NDArray[np.float64] | None = None) -> Rows:
    """Wrap an array ``(n, d)`` as one block."""
    n = (len(values),)
    return Rows(values, unit_weights(len(values)) if weights is None else weights, None, (0,), n, n)


def unit_weights(n: int) -> NDArray[np.float64]:
    """Weights ``(n,)`` of 1 that take no memory."""
    return np.broadcast_to(np.float64(1.0), (n,))
