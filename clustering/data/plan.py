"""Cutting the sample grid into blocks: integers only, no I/O.

A block is a hyper-rectangle of whole chunks, named by its index. A plan holds a few integers, whatever the number of
chunks. Each block is computed from its index when it is needed.
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
"""Memory in bytes that a pass needs for each row in addition to its features."""


class Block(NamedTuple):
    """The name of a block: its start and stop along each sample dimension. It holds no data."""

    number: int
    """Number of the block in its plan, from 0."""
    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Length along each sample dimension."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def slices(self) -> tuple[slice, ...]:
        """Slices that cut the block out of the sample grid."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def __str__(self) -> str:
        return f"{self.number} [{', '.join(f'{a}:{b}' for a, b in zip(self.start, self.stop, strict=True))}]"


@dataclass(frozen=True)
class Axis:
    """One sample dimension: the selected positions, and the edges of the chunks that hold them.

    Selected positions lie at ``start, start + step, …`` in the source, counted from the first chunk, and chunk edges at
    the multiples of `unit`. Where `groups` is given, chunk edges lie there instead, counted in selected positions.
    """

    length: int
    """Number of selected positions."""
    unit: int = 1
    """Length that is read at once (a chunk or a shard), in positions of the source."""
    start: int = 0
    """Offset of the first selected position in its chunk."""
    step: int = 1
    """Distance of selected positions in the source."""
    groups: tuple[int, ...] = ()
    """For a list of positions: the first position of each run inside one chunk, beginning with 0."""

    @classmethod
    def from_indexer(cls, indexer: range | NDArray[np.int64], unit: int) -> Axis:
        """Describe a selection of positions by the chunks that hold them.

        Parameters
        ----------
        indexer
            Selected positions in the source: a range, or an array ``(t,)``.
        unit
            Length that is read at once along the dimension, in positions of the source.
        """
        if isinstance(indexer, range):
            step = indexer.step
            # A step longer than a chunk skips chunks. A larger unit keeps every block from being empty.
            unit *= -(-step // unit)
            start = indexer.start % unit
            if unit % step == 0:
                # Every chunk holds equally many selected positions, so a step of 1 gives the same edges.
                start, unit, step = start // step, unit // step, 1
            return cls(len(indexer), unit, start, step)
        starts = [0, *(np.flatnonzero(np.diff(indexer // unit)) + 1).tolist()]
        lengths = np.diff([*starts, len(indexer)])
        if (lengths[:-1] == lengths[0]).all() and lengths[-1] <= lengths[0]:
            # The same number of positions is selected in every chunk, such as one day in each chunk of one day.
            return cls(len(indexer), int(lengths[0]))
        return cls(len(indexer), unit, groups=tuple(starts))

    @property
    def count(self) -> int:
        """Number of chunks that hold selected positions."""
        if self.groups:
            return len(self.groups)
        return (self.start + (self.length - 1) * self.step) // self.unit + 1

    @property
    def regular(self) -> Axis:
        """An axis of the same length whose chunks are equally long, counted from the first selected position."""
        return Axis(self.length, self.longest(1)) if self.groups or self.step > 1 else Axis(self.length, self.unit)

    def longest(self, joined: int) -> int:
        """Give the largest number of selected positions in a block.

        Parameters
        ----------
        joined
            Number of neighbouring chunks in a block.
        """
        if self.groups:
            edges = (*self.groups[::joined], self.length)
            return max(b - a for a, b in pairwise(edges))
        return min(self.length, -(-self.unit * joined // self.step))

    def edge(self, number: int, joined: int) -> int:
        """Give the first selected position of a block; the length of the axis for blocks beyond the last.

        Parameters
        ----------
        number
            Number of the block along this axis.
        joined
            Number of neighbouring chunks in a block.
        """
        if self.groups:
            return self.groups[number * joined] if number * joined < len(self.groups) else self.length
        # This is the first position p with start + p · step at the edge of the block or after it.
        return min(self.length, max(0, -((self.start - number * joined * self.unit) // self.step)))


@dataclass(frozen=True)
class Plan:
    """A grid of blocks over the sample dimensions."""

    axes: tuple[Axis, ...]
    """The sample dimensions."""
    joined: tuple[int, ...]
    """Number of chunks in a block along each sample dimension."""
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
        """Number of cells of the sample grid, which is the number of rows before masking."""
        return math.prod(self.shape)

    @property
    def block_bytes(self) -> int:
        """Size of the largest decoded block, in bytes."""
        return math.prod(self.longest) * self.row_bytes

    def block(self, index: int) -> Block:
        """Compute a block.

        Parameters
        ----------
        index
            Number of the block, from 0 to ``len(plan) - 1``, in C order of the grid of blocks.
        """
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
    """Cut the same axes into blocks of as many chunks as in an earlier plan, so that both have the same blocks.

    Parameters
    ----------
    plan
        The plan of the present run. It is returned where `joined` does not fit its axes.
    joined
        Number of chunks in a block of the earlier plan, along each axis.
    most_bytes
        Largest allowed size of a decoded block, in bytes. Where blocks would be larger, `plan` is returned.
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

    Blocks depend on the source and the memory budget alone, never on the number of workers. So the order of all
    additions, and with it every bit of a result, is the same on any number of workers.

    Parameters
    ----------
    axes
        The sample dimensions.
    row_bytes
        Size of one decoded row, in bytes.
    block_bytes
        Wanted size of a decoded block, in bytes. Default: a 64th of the data, at least 4 MiB, but at most a
        32nd of `memory` and 256 MiB, and less for rows of few features, beside which a pass needs much memory.
    memory
        Memory budget of a worker, in bytes.

    Returns
    -------
    Plan
        Each block holds at least one chunk, however large that chunk is.
    """
    if block_bytes is None:
        total = math.prod(axis.length for axis in axes) * row_bytes
        ceiling = max(MIB, min(256 * MIB, memory // 32))
        # A pass holds a few more numbers for each row. They are most of its memory where rows have few features.
        narrow = row_bytes / max(row_bytes, BESIDE)
        block_bytes = max(1, min(int(ceiling * narrow), max(4 * MIB, total // 64)))
    plan = Plan(tuple(axes), (1,) * len(axes), row_bytes)
    # Chunks are joined along the last axis first, since they are neighbours in the C order of the grid.
    for i in reversed(range(len(axes))):
        spare = max(1, block_bytes // max(1, plan.block_bytes))
        joined = min(spare, axes[i].count)
        plan = replace(plan, joined=(*plan.joined[:i], joined, *plan.joined[i + 1 :]))
        # A block that cuts this axis stays one chunk wide along the axes before it.
        if joined < axes[i].count:
            break
    return plan
