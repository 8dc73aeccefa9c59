"""Chunks and shards of label outputs: integers only, no I/O.

Each chunk, or shard, lies in one block of the label pass. So the task of a block writes whole files, and two tasks
never write the same file.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from clustering.data.plan import MIB, Plan
from clustering.data.source import Source

SMALL_CHUNK = 4096
"""Chunks of fewer cells than this are replaced by chunks as large as the `units` of the plan."""
LARGE_CHUNK = 64 * MIB
"""Chunks of more bytes than this are cut along the dimensions after the sample dimensions."""
MANY_FILES = 100_000
"""Arrays of more chunks than this are written in shards."""


class Chunking(NamedTuple):
    """How an array is stored."""

    chunks: tuple[int, ...]
    """Lengths of a chunk, which is decoded at once."""
    shards: tuple[int, ...] | None
    """Lengths of a shard, which is one file; None where each chunk is a file."""


def units(plan: Plan) -> tuple[int, ...]:
    """Return the largest length along each sample dimension that divides all block edges.

    It is the whole length of a dimension that has one block.

    Parameters
    ----------
    plan
        Plan of the label pass.
    """
    lengths = []
    for axis, count in enumerate(plan.grid):
        # Blocks are counted in C order: this many lie between neighbours along the axis.
        stride = math.prod(plan.grid[axis + 1 :])
        edges = (plan.block(i * stride).start[axis] for i in range(count))
        # With one block the only edge is 0, and so is the divisor.
        lengths.append(math.gcd(*edges) or plan.shape[axis])
    return tuple(lengths)


def inner_chunks(source: Source) -> tuple[tuple[int, ...], bool]:
    """Return the chunk lengths of a source along its sample dimensions, and whether the chunks lie in shards.

    Parameters
    ----------
    source
        Source to label.
    """
    for stored in source.stored.values():
        if stored.array.shards:
            lengths = dict(zip(stored.dims, stored.array.chunks, strict=True))
            return tuple(min(lengths[d], unit) for d, unit in zip(source.sample_dims, source.chunks, strict=True)), True
    return source.chunks, False


def chunking(
    shape: tuple[int, ...],
    whole: tuple[int, ...],
    inner: tuple[int, ...],
    sharded: bool,
    extra: tuple[int, ...] = (),
    item_bytes: int = 1,
) -> Chunking:
    """Choose chunks and shards.

    Parameters
    ----------
    shape, whole
        Lengths of the sample dimensions, and the `units` of the label pass.
    inner, sharded
        See `inner_chunks`.
    extra
        Lengths of the dimensions after the sample dimensions.
    item_bytes
        Size of a cell, in bytes.

    Returns
    -------
    Chunking
        Chunks as long as the source's, unless these are tiny or do not divide the blocks. They lie in shards of whole
        blocks where the source has shards, or where there would be very many files.
    """
    # A dimension with one unit needs no divisor: its last chunk may reach over the end.
    divides = all(u % c == 0 or u == n for c, u, n in zip(inner, whole, shape, strict=True))
    chunks = tuple(min(c, n) for c, n in zip(inner, shape, strict=True))
    if not divides or math.prod(chunks) < SMALL_CHUNK:
        chunks = whole
    room = max(1, LARGE_CHUNK // (math.prod(chunks) * item_bytes))
    beyond = []
    for length in reversed(extra):
        beyond.append(min(length, room))
        room = max(1, room // length)
    lengths = (*chunks, *reversed(beyond))
    files = math.prod(-(-n // c) for n, c in zip((*shape, *extra), lengths, strict=True))
    shards = tuple(-(-u // c) * c for u, c in zip((*whole, *extra), lengths, strict=True))
    return Chunking(lengths, shards if shards != lengths and (sharded or files > MANY_FILES) else None)
