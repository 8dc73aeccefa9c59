"""Rows: one block, flattened."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.decoding import RowPacking


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one block that take part, in C order of the sample grid."""

    values: NDArray[Any]
    """Features ``(n, d)`` in their own precision; finite, but for NaN in rows with gaps. As stored, if packed."""
    weights: NDArray[np.float64]
    """Weights ``(n,)``, zero or more; a stride of zero where all are 1."""
    cells: NDArray[np.int64] | None = None
    """Places ``(n,)`` of the rows within the block; None where no cell of the block is masked."""
    start: tuple[int, ...] = (0,)
    """Where the block starts on the sample grid."""
    shape: tuple[int, ...] = (0,)
    """Length of the block along each sample dimension; its cells, masked ones included."""
    grid: tuple[int, ...] = (0,)
    """Length of each sample dimension."""
    has_missing: NDArray[np.bool_] | None = None
    """Rows ``(n,)`` with missing features, which are NaN in them; None where there are none."""
    labels: NDArray[np.int32] | None = None
    """Clusters known beforehand ``(n,)``, −1 where unknown; None where nobody asked."""
    packing: RowPacking | None = None
    """How the values are decoded; None where they are."""
    bad_chunks: tuple[str, ...] = ()
    """Chunks of the block that do not decode, by name."""
    zero_rows: int = 0
    """Rows of zeros in the block, which are left out where rows are brought to length 1."""
    prepared: bool = False
    """Whether the values are those of a `Preparation`, and no longer as decoded."""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        weights = self.weights.nbytes if any(self.weights.strides) else 0
        others = (self.cells, self.has_missing, self.labels)
        return self.values.nbytes + weights + sum(0 if other is None else other.nbytes for other in others)

    def decoded(self) -> Rows:
        """Give the rows with the values that they mean."""
        if self.packing is None:
            return self
        return replace(self, values=self.packing.decode(self.values), packing=None)

    def positions(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """Flat positions ``(t,)`` on the whole sample grid of these rows ``(t,)``."""
        flat_cells = rows if self.cells is None else self.cells[rows]
        flat = np.zeros(len(flat_cells), np.int64)
        for index, first, length in zip(np.unravel_index(flat_cells, self.shape), self.start, self.grid, strict=True):
            flat = flat * length + (index + first)
        return flat

    def select(self, chosen: NDArray[np.bool_]) -> Rows:
        """Give the rows of a choice ``(n,)``, as rows of the same block."""
        index = np.flatnonzero(chosen)
        return replace(
            self,
            values=self.values[index],
            weights=self.weights[index] if any(self.weights.strides) else unit_weights(len(index)),
            cells=index if self.cells is None else self.cells[index],
            has_missing=None
            if self.has_missing is None or not self.has_missing[index].any()
            else self.has_missing[index],
            labels=None if self.labels is None else self.labels[index],
        )

    def to_grid(self, per_row: NDArray[Any], fill: Any) -> NDArray[Any]:
        """Put what is known per row ``(n, …)`` back on the cells of the block ``(cells, …)``, `fill` where masked."""
        if self.cells is None:
            return per_row
        cells = np.full((math.prod(self.shape), *per_row.shape[1:]), fill, per_row.dtype)
        cells[self.cells] = per_row
        return cells


def in_memory_rows(
    values: NDArray[Any], weights: NDArray[np.float64] | None = None, *, allow_missing: bool = False
) -> Rows:
    """Wrap an array ``(n, d)`` as one block; with `allow_missing`, NaN are missing features."""
    n = (len(values),)
    missing = np.isnan(values).any(axis=1) if allow_missing and values.dtype.kind == "f" else np.zeros(0, bool)
    weights = unit_weights(len(values)) if weights is None else weights
    return Rows(values, weights, None, (0,), n, n, missing if missing.any() else None)


def unit_weights(n: int) -> NDArray[np.float64]:
    """Weights ``(n,)`` of 1 that take no memory."""
    return np.broadcast_to(np.float64(1.0), (n,))
