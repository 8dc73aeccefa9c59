"""How often a pass reads the chunks of a source: once each, unless blocks end inside chunks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from clustering.data.listing import key_shape
from clustering.data.plan import Axis, Plan
from clustering.data.source import Source
from clustering.data.stored import DimIndexer, StoredVariable


@dataclass(frozen=True)
class ChunkReads:
    """Chunk reads of one pass."""

    variable: str
    chunks: int
    """Chunks that hold selected values."""
    reads: int
    """Chunk reads of a pass over the plan; a chunk that two blocks share counts twice."""

    @property
    def amplification(self) -> float:
        """Average number of reads of a chunk, 1 or more."""
        return self.reads / self.chunks


def count_chunk_reads(source: Source, plan: Plan, *, inner: bool = False) -> tuple[ChunkReads, ...]:
    """Count the chunks that a pass reads of each stored variable, from the plan alone, without I/O.

    Parameters
    ----------
    source
        Source whose stored variables are counted; data in memory have no chunks.
    plan
        Plan of the pass, made for this source.
    inner
        Whether to count the chunks inside shards, which are fetched and decoded, instead of the shards.
    """
    counted = []
    for name, stored in source.stored.items():
        reads = chunks = 1
        units = stored.array.chunks if inner else key_shape(stored.array)
        for dim, unit in zip(stored.dims, units, strict=True):
            indexer = stored.indexers[dim]
            # Blocks cut sample dimensions only. The chunks along a feature dimension are read once for each block.
            reads_here = chunks_here = _count_chunks(indexer, unit)
            if dim in source.sample_dims:
                i = source.sample_dims.index(dim)
                reads_here = _count_reads(indexer, unit, plan.axes[i], plan.joined[i], plan.grid[i])
            reads, chunks = reads * reads_here, chunks * chunks_here
        counted.append(ChunkReads(name, chunks, reads))
    return tuple(counted)


def surplus_factors(stored: StoredVariable) -> dict[str, float]:
    """Return the number of stored values for each selected one along each dimension, 1 or more.

    Parameters
    ----------
    stored
        Stored variable; its inner chunks count, not its shards.

    Returns
    -------
    dict
        Factors by dimension.
    """
    factors = {}
    for dim, unit, length in zip(stored.dims, stored.array.chunks, stored.array.shape, strict=True):
        indexer = stored.indexers[dim]
        held = _count_chunks(indexer, unit) * unit
        last = indexer[-1] // unit
        # The last chunk of an array may reach beyond its end.
        held -= max(0, int(last + 1) * unit - length)
        factors[dim] = held / len(indexer)
    return factors


def _count_chunks(indexer: DimIndexer, unit: int) -> int:
    """Count the chunks that hold these positions."""
    if isinstance(indexer, range):
        return len(indexer) if indexer.step >= unit else (indexer[-1] // unit) - (indexer[0] // unit) + 1
    return len(np.unique(indexer // unit))


def _count_reads(indexer: DimIndexer, unit: int, axis: Axis, joined: int, blocks: int) -> int:
    """Add up the chunks that each block reads along one dimension."""
    edges = np.array([axis.edge(i, joined) for i in range(blocks + 1)], np.int64)
    if isinstance(indexer, range):
        if indexer.step >= unit:
            return len(indexer)
        first = indexer.start + indexer.step * edges[:-1]
        last = indexer.start + indexer.step * (edges[1:] - 1)
        return int((last // unit - first // unit + 1).sum())
    return sum(len(np.unique(indexer[a:b] // unit)) for a, b in pairwise(edges))
