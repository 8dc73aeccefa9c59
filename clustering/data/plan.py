"""Cutting the sample grid into blocks: integers only, no I/O.

A block is a hyper-rectangle of whole chunks, named by its index. A plan holds a handful of integers whatever the
number of chunks, and every block is computed from its index when it is asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

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
class Plan:
    """A grid of blocks over the sample dimensions.

    Along each dimension, the first edge is at `first` and the others follow every `step`.
    """

    shape: tuple[int, ...]
    """Length of each sample dimension."""
    first: tuple[int, ...]
    """Length of the first block; shorter than `step` where a selection starts inside a chunk."""
    step: tuple[int, ...]
    """Length of the other blocks."""
    row_bytes: int
    """Size of one decoded row, in bytes."""

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of blocks along each sample dimension."""
        return tuple(
            1 + max(0, -(-(length - first) // step))
            for length, first, step in zip(self.shape, self.first, self.step, strict=True)
        )

    def __len__(self) -> int:
        return math.prod(self.grid)

    @property
    def cells(self) -> int:
        """Number of cells of the sample grid: rows before masking."""
        return math.prod(self.shape)

    @property
    def block_bytes(self) -> int:
        """Size of the largest decoded block, in bytes."""
        longest = (min(n, max(first, step)) for n, first, step in zip(self.shape, self.first, self.step, strict=True))
        return math.prod(longest) * self.row_bytes

    def block(self, index: int) -> Block:
        """Compute the block of this index; blocks are counted in C order of the grid."""
        place = []
        for size in reversed(self.grid):
            index, i = divmod(index, size)
            place.append(i)
        start, stop, flat = [], [], 0
        edges = zip(reversed(place), self.grid, self.shape, self.first, self.step, strict=True)
        for i, size, length, first, step in edges:
            flat = flat * size + i
            start.append(0 if i == 0 else first + (i - 1) * step)
            stop.append(min(length, first + i * step))
        return Block(flat, tuple(start), tuple(stop))


def plan_blocks(
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    *,
    row_bytes: int,
    offset: tuple[int, ...] | None = None,
    block_bytes: int | None = None,
    memory: int = 2048 * MIB,
) -> Plan:
    """Choose blocks as runs of whole chunks.

    The outcome depends on the store and the memory budget alone, never on the number of workers, so that the order of
    every addition is fixed with it.

    Parameters
    ----------
    shape, chunks
        Length and chunk length (the shard's, where there are shards) of each sample dimension; 1 where the data are
        not chunked.
    row_bytes
        Size of one decoded row, in bytes.
    offset
        Where the selection starts inside its first chunk, for each dimension.
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
    offset = offset or (0,) * len(shape)
    if block_bytes is None:
        total = math.prod(shape) * row_bytes
        ceiling = max(MIB, min(256 * MIB, memory // 32))
        # A pass holds some numbers for each row beside its features, which count where rows are narrow.
        narrow = row_bytes / max(row_bytes, BESIDE)
        block_bytes = max(1, int(min(ceiling, max(256 * 1024, total // 64)) * narrow))
    step = [min(c, n) if o == 0 else c for c, n, o in zip(chunks, shape, offset, strict=True)]
    spare = max(1, block_bytes // max(1, math.prod(step) * row_bytes))
    for axis in reversed(range(len(shape))):
        count = -(-(shape[axis] + offset[axis]) // step[axis])
        if spare < count:
            step[axis] *= spare
            break
        step[axis] *= count
        spare //= count
    first = tuple(min(n, s - o % s) for n, s, o in zip(shape, step, offset, strict=True))
    return Plan(tuple(shape), first, tuple(step), row_bytes)
