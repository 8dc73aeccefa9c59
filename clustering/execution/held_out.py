"""Held-out blocks: a fit never sees them, so that versions are scored on rows that are new to both."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from clustering.data.plan import Block, Plan
from clustering.data.rows import Rows, unit_weights
from clustering.data.source import Source


@dataclass(frozen=True)
class HeldOut:
    """Every n-th block of a plan, by its place on the grid of blocks; blocks stay held out when a store grows."""

    plan: Plan
    every: int
    """One block in this many is held out; 2 or more."""

    def contains(self, start: tuple[int, ...]) -> bool:
        """Return whether a block is held out.

        Parameters
        ----------
        start
            Position of the block's first cell along each sample dimension.
        """
        index = 0
        for at, size, axis, joined in zip(start, self.plan.grid, self.plan.axes, self.plan.joined, strict=True):
            edges = range(size)
            index += bisect_right(edges, at, key=lambda i, axis=axis, joined=joined: axis.edge(i, joined)) - 1  # type: ignore[misc]
        # The remainder 0 would hold out the only block of a small plan.
        return index % self.every == self.every // 2


def empty_rows(source: Source, block: Block) -> Rows:
    """Return the rows of a block of which no row takes part, without reading it.

    Parameters
    ----------
    source
        Source of the rows.
    block
        Block of the plan.
    """
    none = np.zeros(0, np.int64)
    labels = None if source.labels is None else np.zeros(0, np.int32)
    values = np.empty((0, source.n_features), source.dtype)
    return Rows(values, unit_weights(0), none, block.start, block.shape, source.shape, labels=labels)
