"""Inspection of a source: its layout, and the bytes and reads of a pass, computed from metadata before any read.

A pass reads each chunk once, unless blocks end inside chunks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from clustering.data.codecs import checksummed, is_accelerated, rust
from clustering.data.listing import AbsentChunks, key_shape
from clustering.data.plan import Axis, Plan
from clustering.data.source import Source
from clustering.data.stored import DimIndexer, StoredVariable, chunk_numbers
from clustering.deferred import zarr


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


@dataclass(frozen=True)
class VariableLayout:
    """How one variable is stored, and how much of it a pass reads."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    """Selected length of each dimension."""
    dtype: str
    """Type of the decoded values."""
    stored_dtype: str
    """Type of the stored numbers."""
    chunks: tuple[int, ...] | None
    """Lengths of a chunk; None for data held in memory."""
    shards: tuple[int, ...] | None
    """Lengths of a shard; None where there are no shards."""
    codecs: tuple[str, ...] = ()
    """Names of the codecs in the order of writing."""
    decoder: str = "none"
    """Decoder of the chunks: ``zarrs`` (in Rust), ``zarr`` or ``xarray``; ``none`` for data held in memory."""
    not_rust: str | None = None
    """Why chunks are not decoded in Rust although `zarrs` is installed, in words; None where they are."""
    checksums: bool | None = None
    """Whether every chunk has a checksum; None for data held in memory."""
    read_chunks: int | None = None
    """Number of chunks (shards where there are shards) that hold selected values."""
    absent_chunks: int | None = None
    """Number of those chunks that are absent; None where the store cannot list."""
    stored_bytes: int | None = None
    """Stored size of the chunks that one pass reads, in bytes. Where only part of a shard is read, its size counts in
    proportion."""
    surplus: Mapping[str, float] | None = None
    """Dimension → number of decoded values for each selected value."""
    reads: float = 1.0
    """How often a pass reads each chunk, on average."""
    label_reads: float = 1.0
    """How often the label pass reads each chunk, on average."""

    @property
    def surplus_factor(self) -> float:
        """Number of decoded values for each selected value, over all dimensions."""
        return math.prod((self.surplus or {}).values())


@dataclass(frozen=True)
class Inspection:
    """Layout of a source, its plan, and the bytes of a pass."""

    variables: tuple[VariableLayout, ...]
    sample_dims: dict[str, int]
    """Sample dimension → selected length."""
    feature_dims: dict[str, int]
    """Feature dimension → selected length."""
    cells: int
    """Number of cells of the sample grid, which is the number of rows before masking."""
    n_features: int
    row_bytes: int
    """Decoded size of a row, in bytes."""
    kept_row_bytes: int
    """Size in bytes of a row in the block cache, where rows are not prepared."""
    pass_bytes: int
    """Decoded size of all rows of one pass, in bytes."""
    stored_bytes: int | None
    """Stored size of everything that one pass reads, in bytes; None where it is unknown."""
    label_stored_bytes: int | None
    """Stored size of everything that the label pass reads, in bytes; None where it is unknown."""
    n_blocks: int
    """Number of blocks of a pass."""
    block_shape: tuple[int, ...]
    """Largest length of a block along each sample dimension."""
    block_bytes: int
    """Decoded size of the largest block, in bytes."""
    label_blocks: int
    """Number of blocks of the label pass."""
    same_blocks: bool
    """Whether the label pass has the same blocks as other passes, so that it can use the block cache."""


def inspect_source(source: Source, plan: Plan, label_plan: Plan | None = None) -> Inspection:
    """Compute how much the passes over a source read, from metadata and listings alone.

    Parameters
    ----------
    source
        Data to cluster.
    plan
        Plan of the passes of a fit.
    label_plan
        Plan of the label pass; the same as `plan` where None.
    """
    label_plan = plan if label_plan is None else label_plan
    reads = {chunk_reads.variable: chunk_reads for chunk_reads in count_chunk_reads(source, plan, inner=True)}
    label_reads = {
        chunk_reads.variable: chunk_reads for chunk_reads in count_chunk_reads(source, label_plan, inner=True)
    }
    variables = tuple(
        _stored_layout(source, stored, reads[name], label_reads[name])
        if (stored := source.stored.get(name)) is not None
        else _other_layout(source, name)
        for name in source.variables
    )
    sizes = [v.stored_bytes for v in variables]
    known_sizes = [size for size in sizes if size is not None]
    # A sum over some of the variables would look like the size of all.
    whole = len(known_sizes) == len(sizes)
    # Stored sizes count the reads of a pass of the fit, and the label pass may read chunks more often.
    label_bytes = sum(round((v.stored_bytes or 0) / v.reads * v.label_reads) for v in variables)
    return Inspection(
        variables=variables,
        sample_dims=dict(zip(source.sample_dims, source.shape, strict=True)),
        feature_dims={d: source.dataset.sizes[d] for d in source.feature_dims},
        cells=plan.cells,
        n_features=source.n_features,
        row_bytes=plan.row_bytes,
        kept_row_bytes=source.kept_row_bytes,
        pass_bytes=plan.cells * plan.row_bytes,
        stored_bytes=sum(known_sizes) if whole else None,
        label_stored_bytes=label_bytes if whole else None,
        n_blocks=len(plan),
        block_shape=plan.longest,
        block_bytes=plan.block_bytes,
        label_blocks=len(label_plan),
        same_blocks=label_plan == plan,
    )


def _stored_layout(
    source: Source, stored: StoredVariable, reads: ChunkReads, label_reads: ChunkReads
) -> VariableLayout:
    """Describe a variable whose chunks this library reads by itself."""
    array, listing = stored.array, source.listings.get(stored.name)
    units = key_shape(array)
    surplus = surplus_factors(stored)
    chunks = [chunk_numbers(stored.indexers[d], u) for d, u in zip(stored.dims, units, strict=True)]
    count = math.prod(map(len, chunks))
    absent = size = None
    if listing is not None and listing.complete:
        absent = AbsentChunks(units, listing.grid, listing.chunks).count(chunks)
        each = listing.size / max(1, len(listing.chunks))
        # Only those inner chunks of a shard are fetched that hold selected values. So sizes count in proportion to
        # the decoded part. The last chunk of a dimension may be cut short by the end of the array.
        covered = [np.minimum((c + 1) * u, n) - c * u for c, u, n in zip(chunks, units, array.shape, strict=True)]
        ratios = (surplus[d] * len(stored.indexers[d]) / c.sum() for d, c in zip(stored.dims, covered, strict=True))
        size = round((count - absent) * each * math.prod(ratios) * reads.amplification)
    metadata = array.metadata.to_dict()
    fast = is_accelerated(stored.fast)
    return VariableLayout(
        name=stored.name,
        dims=stored.dims,
        shape=tuple(len(stored.indexers[d]) for d in stored.dims),
        dtype=str(stored.decoding.dtype),
        stored_dtype=str(stored.decoding.stored),
        chunks=tuple(array.chunks),
        shards=None if array.shards is None else tuple(array.shards),
        codecs=_codecs(metadata),
        decoder="zarrs" if fast else "zarr",
        not_rust=None if fast or rust() is None else _why_not(array),
        checksums=checksummed(metadata),
        read_chunks=count,
        absent_chunks=absent,
        stored_bytes=size,
        surplus=surplus,
        reads=reads.amplification,
        label_reads=label_reads.amplification,
    )


def _other_layout(source: Source, name: str) -> VariableLayout:
    """Describe a variable that xarray decodes, or that is held in memory."""
    variable = source.dataset[name].variable
    chunks, shards = variable.encoding.get("chunks"), variable.encoding.get("shards")
    return VariableLayout(
        name,
        tuple(map(str, variable.dims)),
        variable.shape,
        str(variable.dtype),
        str(variable.encoding.get("dtype", variable.dtype)),
        chunks or None,
        shards or None,
        decoder="xarray" if chunks else "none",
    )


def _why_not(array: zarr.Array[Any]) -> str:
    """Say why the chunks of an array are not decoded in Rust."""
    store = type(array.store_path.store).__name__
    return "one of its codecs is not known there" if store == "LocalStore" else f"data in a {store} read faster so"


def _codecs(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the codecs in the order of writing; where there are shards, the codecs inside them."""
    if metadata.get("zarr_format") == 2:
        codecs = [*(metadata.get("filters") or ()), metadata.get("compressor")]
        return tuple(str(codec["id"]) for codec in codecs if codec)
    return tuple(_named(metadata.get("codecs") or ()))


def _named(codecs: Sequence[Any]) -> list[str]:
    """Name codecs of format 3. The codec ``bytes`` is left out, since every array has it."""
    names: list[str] = []
    for codec in codecs:
        name, options = (codec, {}) if isinstance(codec, str) else (codec["name"], codec.get("configuration") or {})
        if name == "sharding_indexed":
            names += _named(options.get("codecs") or ())
        elif name != "bytes":
            names.append(name.removeprefix("numcodecs."))
    return names


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
                # A chunk that several blocks share is read once for each of them.
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
        # Positions with a step of a chunk or more lie in a chunk each.
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
