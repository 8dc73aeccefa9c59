"""How often a pass reads the chunks of a source: once each, unless blocks end inside chunks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from clustering.data.listing import unit_of
from clustering.data.plan import Axis, Plan
from clustering.data.source import Source
from clustering.data.stored import Place, Stored


@dataclass(frozen=True)
class Reads:
    """Chunk reads of one pass."""

    variable: str
    chunks: int
    """Chunks that hold what is selected."""
    reads: int
    """How many a pass over the plan reads."""

    @property
    def amplification(self) -> float:
        """Reads of a chunk, on average."""
        return self.reads / self.chunks


def reads_of(source: Source, plan: Plan, *, inner: bool = False) -> tuple[Reads, ...]:
    """Count the chunks that a pass reads of each stored variable. Arithmetic on the plan: no I/O.

    Parameters
    ----------
    inner
        Where there are shards, count the chunks inside them, which are what is fetched and decoded, not the shards.
    """
    found = []
    for name, stored in source.stored.items():
        reads = chunks = 1
        units = stored.array.chunks if inner else unit_of(stored.array)
        for dim, unit in zip(stored.dims, units, strict=True):
            place = stored.places[dim]
            reads_here = chunks_here = _distinct(place, unit)
            if dim in source.sample_dims:
                i = source.sample_dims.index(dim)
                reads_here = _touched(place, unit, plan.axes[i], plan.joined[i], plan.grid[i])
            reads, chunks = reads * reads_here, chunks * chunks_here
        found.append(Reads(name, chunks, reads))
    return tuple(found)


def surplus_of(stored: Stored) -> dict[str, float]:
    """Tell, for each dimension, how many values its chunks hold for each one that is selected, 1 or more."""
    found = {}
    for dim, unit, length in zip(stored.dims, stored.array.chunks, stored.array.shape, strict=True):
        place = stored.places[dim]
        held = _distinct(place, unit) * unit
        last = place[-1] // unit
        held -= max(0, int(last + 1) * unit - length)
        found[dim] = held / len(place)
    return found


def _distinct(place: Place, unit: int) -> int:
    """Chunks that hold these positions."""
    if isinstance(place, range):
        return len(place) if place.step >= unit else (place[-1] // unit) - (place[0] // unit) + 1
    return len(np.unique(place // unit))


def _touched(place: Place, unit: int, axis: Axis, joined: int, blocks: int) -> int:
    """Chunks read along one dimension, block by block."""
    edges = np.array([axis.edge(i, joined) for i in range(blocks + 1)], np.int64)
    if isinstance(place, range):
        if place.step >= unit:
            return len(place)
        first = place.start + place.step * edges[:-1]
        last = place.start + place.step * (edges[1:] - 1)
        return int((last // unit - first // unit + 1).sum())
    return sum(len(np.unique(place[a:b] // unit)) for a, b in pairwise(edges))
