"""What is known of a source and of the passes over it before anything is read: layout, bytes and reads, exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from clustering.data.amplification import ChunkReads, count_chunk_reads, surplus_factors
from clustering.data.codecs import checksummed
from clustering.data.listing import AbsentChunks, key_shape
from clustering.data.pipeline import is_accelerated, rust
from clustering.data.plan import Plan
from clustering.data.source import Source
from clustering.data.stored import StoredVariable, chunk_numbers


@dataclass(frozen=True)
class VariableLayout:
    """How one variable is stored, and what of it a pass reads."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    """As decoded."""
    stored_dtype: str
    """As stored."""
    chunks: tuple[int, ...] | None
    shards: tuple[int, ...] | None
    codecs: tuple[str, ...] = ()
    decoder: str = "none"
    """What decodes chunks: ``zarrs`` (in Rust), ``zarr``, ``xarray``; ``none`` for data held in memory."""
    not_rust: str | None = None
    """Why chunks are not decoded in Rust although `zarrs` is installed, in words; None where they are."""
    checksums: bool | None = None
    """Whether every chunk has one; None for data held in memory."""
    read_chunks: int | None = None
    """Chunks, or shards, that hold what is selected."""
    absent_chunks: int | None = None
    """How many of them were never written; None where the store cannot list."""
    stored_bytes: int | None = None
    """Size as stored of the chunks that one pass reads, in bytes; in proportion where a part is selected."""
    surplus: Mapping[str, float] | None = None
    """For each dimension how many values are decoded for each one that is selected."""
    reads: float = 1.0
    """How often a pass reads each chunk, on average."""
    label_reads: float = 1.0
    """How often the labelling pass does."""

    @property
    def surplus_factor(self) -> float:
        """Values decoded for each one that is selected."""
        return math.prod((self.surplus or {}).values())


@dataclass(frozen=True)
class Inspection:
    """Layout, plan and bytes."""

    variables: tuple[VariableLayout, ...]
    sample_dims: dict[str, int]
    feature_dims: dict[str, int]
    cells: int
    """Cells of the sample grid: rows before masking."""
    n_features: int
    row_bytes: int
    """Decoded size of a row, in bytes."""
    kept_row_bytes: int
    """Size of a row as it is kept between passes where it is not prepared, in bytes."""
    pass_bytes: int
    """Decoded size of all rows, in bytes: what one read of the source makes."""
    stored_bytes: int | None
    """Size as stored of what one read takes from the store, in bytes; None where that is not known."""
    label_stored_bytes: int | None
    """The same of the labelling pass."""
    n_blocks: int
    block_shape: tuple[int, ...]
    block_bytes: int
    """Decoded size of the largest block, in bytes."""
    label_blocks: int
    """Blocks of the labelling pass."""
    same_blocks: bool
    """Whether the labelling pass has the same blocks as the others, so that rows that are kept serve it too."""


def inspect_source(source: Source, plan: Plan, label_plan: Plan | None = None) -> Inspection:
    """Say what passes over a source read. Arithmetic on metadata and listings: no values are read.

    Parameters
    ----------
    plan
        Of the passes.
    label_plan
        Of the labelling pass; that of the passes where None.
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
    whole = len(known_sizes) == len(sizes)
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
    array, listing = stored.array, source.listings.get(stored.name)
    units = key_shape(array)
    surplus = surplus_factors(stored)
    chunks = [chunk_numbers(stored.indexers[d], u) for d, u in zip(stored.dims, units, strict=True)]
    count = math.prod(map(len, chunks))
    absent = size = None
    if listing is not None and listing.complete:
        absent = AbsentChunks(units, listing.grid, listing.chunks).count(chunks)
        each = listing.size / max(1, len(listing.chunks))
        # Of a shard, only the chunks inside that hold something of the selection are fetched.
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
    """Of a variable that xarray decodes, or that is held in memory."""
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
    store = type(array.store_path.store).__name__
    return "one of its codecs is not known there" if store == "LocalStore" else f"data in a {store} read faster so"


def _codecs(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the codecs, in the order of writing; those inside shards where there are shards."""
    if metadata.get("zarr_format") == 2:
        codecs = [*(metadata.get("filters") or ()), metadata.get("compressor")]
        return tuple(str(codec["id"]) for codec in codecs if codec)
    return tuple(_named(metadata.get("codecs") or ()))


def _named(codecs: Sequence[Any]) -> list[str]:
    names: list[str] = []
    for codec in codecs:
        name, options = (codec, {}) if isinstance(codec, str) else (codec["name"], codec.get("configuration") or {})
        if name == "sharding_indexed":
            names += _named(options.get("codecs") or ())
        elif name != "bytes":
            names.append(name.removeprefix("numcodecs."))
    return names
