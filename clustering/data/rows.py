"""Rows: the used cells of one block as ``(n, d)``."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.decoding import RowPacking


@dataclass(frozen=True, eq=False)
class Rows:
    """The used rows of one block, in C order of the sample grid."""

    values: NDArray[Any]
    """Features ``(n, d)`` in the type of the source. NaN marks missing features; all others are finite. Packed rows
    hold stored integers instead."""
    weights: NDArray[np.float64]
    """Weights ``(n,)`` of 0 or more. An array with stride 0 where all are 1."""
    cells: NDArray[np.int64] | None = None
    """Flat positions ``(n,)`` of the rows among the cells of the block; None where no cell is masked."""
    start: tuple[int, ...] = (0,)
    """First position of the block along each sample dimension."""
    shape: tuple[int, ...] = (0,)
    """Length of the block along each sample dimension, with masked cells."""
    grid: tuple[int, ...] = (0,)
    """Length of each sample dimension."""
    has_missing: NDArray[np.bool_] | None = None
    """True for rows ``(n,)`` with missing features; None where there are none."""
    labels: NDArray[np.int32] | None = None
    """Known clusters ``(n,)``, −1 where unknown; None where the source has none."""
    packing: RowPacking | None = None
    """Decoding of packed values; None where the values are decoded."""
    bad_chunks: tuple[str, ...] = ()
    """Names of the bad chunks in the block."""
    zero_rows: int = 0
    """Number of zero rows that were left out because they have no direction."""
    prepared: bool = False
    """Whether the rows are prepared rows."""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def nbytes(self) -> int:
        """Memory of all arrays, in bytes."""
        # Weights of 1 with stride 0 take no memory.
        weights = self.weights.nbytes if any(self.weights.strides) else 0
        others = (self.cells, self.has_missing, self.labels)
        return self.values.nbytes + weights + sum(0 if other is None else other.nbytes for other in others)

    def decoded(self) -> Rows:
        """Decode packed rows; other rows are returned unchanged."""
        if self.packing is None:
            return self
        return replace(self, values=self.packing.decode(self.values), packing=None)

    def positions(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """Find flat positions ``(t,)`` of some rows on the whole sample grid.

        Parameters
        ----------
        rows
            Indices ``(t,)`` of rows of this block.
        """
        flat_cells = rows if self.cells is None else self.cells[rows]
        flat = np.zeros(len(flat_cells), np.int64)
        for index, first, length in zip(np.unravel_index(flat_cells, self.shape), self.start, self.grid, strict=True):
            # These positions are the same in every plan, so that random draws by position are too.
            flat = flat * length + (index + first)
        return flat

    def select(self, chosen: NDArray[np.bool_]) -> Rows:
        """Select some rows, as rows of the same block.

        Parameters
        ----------
        chosen
            True ``(n,)`` for rows to keep.
        """
        index = np.flatnonzero(chosen)
        return replace(
            self,
            values=self.values[index],
            weights=self.weights[index] if any(self.weights.strides) else unit_weights(len(index)),
            cells=index if self.cells is None else self.cells[index],
            # Models take a faster way where no row has missing features.
            has_missing=None
            if self.has_missing is None or not self.has_missing[index].any()
            else self.has_missing[index],
            labels=None if self.labels is None else self.labels[index],
        )

    def to_grid(self, per_row: NDArray[Any], fill: Any) -> NDArray[Any]:
        """Put values of rows back on the cells of the block ``(cells, …)``.

        Parameters
        ----------
        per_row
            One value, or array of values, for each row ``(n, …)``.
        fill
            Value of masked cells.
        """
        if self.cells is None:
            return per_row
        cells = np.full((math.prod(self.shape), *per_row.shape[1:]), fill, per_row.dtype)
        cells[self.cells] = per_row
        return cells


def in_memory_rows(
    values: NDArray[Any], weights: NDArray[np.float64] | None = None, *, allow_missing: bool = False
) -> Rows:
    """Wrap an array as the rows of one block.

    Parameters
    ----------
    values
        Features ``(n, d)``.
    weights
        Weights of the rows ``(n,)``; all 1 where None.
    allow_missing
        Whether NaN marks missing features. Without it, values are taken to be finite.
    """
    n = (len(values),)
    missing = np.isnan(values).any(axis=1) if allow_missing and values.dtype.kind == "f" else np.zeros(0, bool)
    weights = unit_weights(len(values)) if weights is None else weights
    return Rows(values, weights, None, (0,), n, n, missing if missing.any() else None)


def unit_weights(n: int) -> NDArray[np.float64]:
    """Make weights ``(n,)`` of 1 that take no memory.

    Parameters
    ----------
    n
        Number of rows.
    """
    return np.broadcast_to(np.float64(1.0), (n,))
