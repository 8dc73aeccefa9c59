"""Blocks that a fit never sees, so that versions can be scored on rows that are new to both."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from clustering.data.plan import Block, Plan
from clustering.data.rows import Rows, unit_weights
from clustering.data.source import Source


@dataclass(frozen=True)
class HeldOut:
    """Every so many blocks, by their place on the grid of blocks alone: a store that grows keeps those that it had."""

    plan: Plan
    every: int
    """One block in this many, 2 or more."""

    def contains(self, start: tuple[int, ...]) -> bool:
        """Tell whether the block that starts here is held out."""
        index = 0
        for at, size, axis, joined in zip(start, self.plan.grid, self.plan.axes, self.plan.joined, strict=True):
            edges = range(size)
            index += bisect_right(edges, at, key=lambda i, axis=axis, joined=joined: axis.edge(i, joined)) - 1  # type: ignore[misc]
        return index % self.every == self.every // 2


def empty_rows(source: Source, block: Block) -> Rows:
    """Give a block none of whose rows take part, without reading it."""
    none = np.zeros(0, np.int64)
    labels = None if source.labels is None else np.zeros(0, np.int32)
    values = np.empty((0, source.n_features), source.dtype)
    return Rows(values, unit_weights(0), none, block.start, block.shape, source.shape, labels=labels)
