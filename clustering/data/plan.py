"""Cutting the sample grid into blocks: integers only, no I/O.

A block is a hyper-rectangle of whole chunks, named by its index. A plan holds a handful of integers whatever the
number of chunks, and every block is computed from its index when it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MIB = 1024 * 1024
BESIDE = 48
"""Memory that a pass needs for each row beside its features, in bytes."""


class Block(NamedTuple):
    """The name of a block: where it starts and stops along each sample dimension, never its data."""

    number: int
    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Length along each sample dimension."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def slices(self) -> tuple[slice, ...]:
        """The region of the sample grid."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def __str__(self) -> str:
        return f"{self.number} [{', '.join(f'{a}:{b}' for a, b in zip(self.start, self.stop, strict=True))}]"


@dataclass(frozen=True)
class Axis:
    """One sample dimension: in what lengths its selected positions are stored.

    Chunk edges lie at the multiples of `unit` of the positions ``start, start + step, …`` in the source; or, where
    `groups` is given, at these places among the selected ones.
    """

    length: int
    """Selected positions."""
    unit: int = 1
    """Length of the chunk, or the shard, that is read at once; in positions of the source."""
    start: int = 0
    """Where the selection starts inside its first chunk."""
    step: int = 1
    groups: tuple[int, ...] = ()
    """For a list of positions: where a run of positions of one chunk starts, 0 first."""

    @classmethod
    def from_indexer(cls, indexer: range | NDArray[np.int64], unit: int) -> Axis:
        """Describe a selection of positions by the chunks that hold them."""
        if isinstance(indexer, range):
            step = indexer.step
            # No block may be empty.
            unit *= -(-step // unit)
            start = indexer.start % unit
            if unit % step == 0:
                # Every chunk gives equally many positions: the same edges with a step of 1.
                start, unit, step = start // step, unit // step, 1
            return cls(len(indexer), unit, start, step)
        starts = [0, *(np.flatnonzero(np.diff(indexer // unit)) + 1).tolist()]
        lengths = np.diff([*starts, len(indexer)])
        if (lengths[:-1] == lengths[0]).all() and lengths[-1] <= lengths[0]:
            # As of every chunk the same number is chosen, days that are a chunk each for one.
            return cls(len(indexer), int(lengths[0]))
        return cls(len(indexer), unit, groups=tuple(starts))

    @property
    def count(self) -> int:
        """Runs of positions that lie in one chunk each."""
        if self.groups:
            return len(self.groups)
        return (self.start + (self.length - 1) * self.step) // self.unit + 1

    @property
    def regular(self) -> Axis:
        """The same length in chunks of equal length, counted from its first position."""
        return Axis(self.length, self.longest(1)) if self.groups or self.step > 1 else Axis(self.length, self.unit)

    def longest(self, joined: int) -> int:
        """Positions in so many neighbouring chunks at most."""
        if self.groups:
            edges = (*self.groups[::joined], self.length)
            return max(b - a for a, b in pairwise(edges))
        return min(self.length, -(-self.unit * joined // self.step))

    def edge(self, number: int, joined: int) -> int:
        """Start of the block of this number among the selected positions, with so many chunks in each."""
        if self.groups:
            return self.groups[number * joined] if number * joined < len(self.groups) else self.length
        return min(self.length, max(0, -((self.start - number * joined * self.unit) // self.step)))


@dataclass(frozen=True)
class Plan:
    """A grid of blocks over the sample dimensions."""

    axes: tuple[Axis, ...]
    """The sample dimensions."""
    joined: tuple[int, ...]
    """Chunks that a block holds along each of them."""
    row_bytes: int
    """Size of one decoded row, in bytes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each sample dimension."""
        return tuple(axis.length for axis in self.axes)

    @property
    def longest(self) -> tuple[int, ...]:
        """Length of the longest block along each sample dimension."""
        return tuple(axis.longest(joined) for axis, joined in zip(self.axes, self.joined, strict=True))

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of blocks along each sample dimension."""
        return tuple(-(-axis.count // joined) for axis, joined in zip(self.axes, self.joined, strict=True))

    def __len__(self) -> int:
        return math.prod(self.grid)

    @property
    def cells(self) -> int:
        """Number of cells of the sample grid: rows before masking."""
        return math.prod(self.shape)

    @property
    def block_bytes(self) -> int:
        """Size of the largest decoded block, in bytes."""
        return math.prod(self.longest) * self.row_bytes

    def block(self, index: int) -> Block:
        """Compute the block of this index; blocks are counted in C order of the grid."""
        grid_index = []
        for size in reversed(self.grid):
            index, i = divmod(index, size)
            grid_index.append(i)
        start, stop, flat = [], [], 0
        for i, size, axis, joined in zip(reversed(grid_index), self.grid, self.axes, self.joined, strict=True):
            flat = flat * size + i
            start.append(axis.edge(i, joined))
            stop.append(axis.edge(i + 1, joined))
        return Block(flat, tuple(start), tuple(stop))


def plan_like(plan: Plan, joined: Sequence[int], most_bytes: int) -> Plan:
    """Cut the same axes into blocks of as many chunks as another plan had, so that blocks stay what they are.

    Parameters
    ----------
    joined
        Chunks that a block of the other plan holds along each axis.
    most_bytes
        Largest decoded block, in bytes; where it would be larger, the plan is left as it is.
    """
    if len(joined) != len(plan.axes):
        return plan
    alike = replace(plan, joined=tuple(min(n, axis.count) for n, axis in zip(joined, plan.axes, strict=True)))
    return alike if alike.block_bytes <= most_bytes else plan


def plan_blocks(
    axes: Sequence[Axis],
    *,
    row_bytes: int,
    block_bytes: int | None = None,
    memory: int = 2048 * MIB,
) -> Plan:
    """Choose blocks as runs of whole chunks.

    The outcome depends on the store and the memory budget alone, never on the number of workers, so that the order of
    every addition is fixed with it.

    Parameters
    ----------
    axes
        The sample dimensions.
    row_bytes
        Size of one decoded row, in bytes.
    block_bytes
        Wanted size of a decoded block, in bytes. Default: a 64th of the data, at least 256 KiB, at most a 32nd of
        `memory` and 256 MiB.
    memory
        Memory budget of a worker, in bytes.

    Returns
    -------
    Plan
        At least one chunk per block, however large that chunk is.
    """
    if block_bytes is None:
        total = math.prod(axis.length for axis in axes) * row_bytes
        ceiling = max(MIB, min(256 * MIB, memory // 32))
        # A pass holds some numbers for each row beside its features, which count where rows are narrow.
        narrow = row_bytes / max(row_bytes, BESIDE)
        block_bytes = max(1, int(min(ceiling, max(256 * 1024, total // 64)) * narrow))
    plan = Plan(tuple(axes), (1,) * len(axes), row_bytes)
    for i in reversed(range(len(axes))):
        spare = max(1, block_bytes // max(1, plan.block_bytes))
        joined = min(spare, axes[i].count)
        plan = replace(plan, joined=(*plan.joined[:i], joined, *plan.joined[i + 1 :]))
        if joined < axes[i].count:
            break
    return plan
