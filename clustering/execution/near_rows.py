"""Passes over the rows near a boundary alone, which stay in memory or on scratch.

A pass that splits rows caches the near ones of every block. Which rows these are follows from the split alone. So a
process that lacks those of a block, as its worker is new or has no room, reads the block and splits it again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.execution.block_cache import BlockCache, replace_cached


class Split(Protocol):
    """Splits the rows of a block; picklable."""

    def __call__(self, rows: Rows) -> tuple[Any, NDArray[np.bool_]]:
        """Return additive statistics of all rows, and whether each is near a boundary ``(n,)``.

        Parameters
        ----------
        rows
            Prepared rows of a block ``(n, d)``.
        """


@dataclass(frozen=True)
class NearRows:
    """How rows are split, and where the near ones are cached; picklable."""

    split: Split
    cache: BlockCache

    def split_block(self, index: int, kept: Rows, rows: Rows, *, keep: bool) -> tuple[Any, Rows]:
        """Split the rows of a block, and cache the near ones where this is wanted.

        Parameters
        ----------
        index
            Number of the block in the plan.
        kept
            All rows of the block, as they are to be cached.
        rows
            The same rows, prepared.
        keep
            Whether the near rows are cached, as they are at the home of the block.

        Returns
        -------
        object
            Statistics of all rows.
        Rows
            The near rows of `kept`, without their places on the sample grid.
        """
        statistics, near = self.split(rows)
        chosen = _without_places(kept.select(near if len(kept) == len(rows) else _same_cells(kept, rows, near)))
        if keep:
            replace_cached(self.cache, index, chosen)
        return statistics, chosen


def _without_places(rows: Rows) -> Rows:
    """Forget the places of rows, which take as much memory as two features and serve farthest rows alone."""
    one = (1,) * (len(rows.shape) - 1)
    return replace(rows, cells=None, start=(0,) * len(rows.shape), shape=(*one, len(rows)), grid=(*one, len(rows)))


def _same_cells(kept: Rows, rows: Rows, near: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Find near rows among those before preparation, which leaves out rows of zeros."""
    assert rows.cells is not None
    cells = np.arange(len(kept)) if kept.cells is None else kept.cells
    return np.isin(cells, rows.cells[near], assume_unique=True)
