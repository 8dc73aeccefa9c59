"""Block fingerprints, made without reading a block from the names, sizes and times or tags of its chunks.

Two blocks with the same fingerprint give the same rows: they are the same cells of the store, stored in the same way,
in chunks that were not written anew. Positions in it are those in the store, not in the selection, so that it stays the
same when the store grows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.data.angles import RADIANS, units_of
from clustering.data.conditions import mask_condition
from clustering.data.listing import Listing
from clustering.data.plan import Block, Plan
from clustering.data.reading import COSINE_WEIGHTS, SMALL_COMPANION, companion
from clustering.data.source import Source
from clustering.data.stored import DimIndexer, chunk_numbers

_MEANING = (
    "_FillValue", "missing_value", "scale_factor", "add_offset", "valid_min", "valid_max", "valid_range", "units",
    "calendar", "_Unsigned", "dtype",
)  # fmt: skip
"""Attributes that change the meaning of stored numbers; others, such as a history, may change with every append."""
_READ = ("variables", "feature_dims", "mask", "weights", "labels", "missing", "missing_chunks", "nodata", "decode")
"""Keys of a recipe that decide which rows a region gives."""


class BlockFingerprint(NamedTuple):
    """Digests of a block, in hexadecimal."""

    start: str
    """Digest of the position in the store where the block starts."""
    content: str
    """Digest of its cells, of their chunks, and of how they are read."""


@dataclass(frozen=True, eq=False)
class BlockFingerprints:
    """Fingerprints of the blocks of a plan, made when they are asked for; picklable."""

    source: Source
    plan: Plan

    @classmethod
    def for_plan(cls, source: Source, plan: Plan) -> BlockFingerprints | None:
        """Return the fingerprints of a plan; None where the store does not tell when its chunks change.

        Parameters
        ----------
        source
            Source with listings; data in memory have no fingerprints.
        plan
            Plan of its blocks.
        """
        made = cls(source, plan)
        complete = set(source.variables) <= set(source.stored) and all(
            name in made._chunked for name in made._chunked_names
        )
        return made if source.recipe is not None and complete else None

    def __reduce__(self) -> Any:
        return BlockFingerprints, (self.source, self.plan)

    def __getitem__(self, index: int) -> BlockFingerprint:
        """Return the fingerprint of the block of this index."""
        block = self.plan.block(index)
        regions = dict(zip(self.source.sample_dims, block.slices, strict=True))
        indexers = {d: indexer[regions[d]] if d in regions else indexer for d, indexer in self._indexers.items()}
        start, content = hashlib.blake2b(digest_size=8), hashlib.blake2b(self._reading_digest, digest_size=12)
        # The start stays the same when the content changes, which tells a changed block from a new one.
        for d, indexer in sorted(indexers.items()):
            positions = (indexer.start, len(indexer), indexer.step) if isinstance(indexer, range) else indexer.tolist()
            start.update(f"{d} {int(indexer[0])} ".encode())
            content.update(f"{d} {positions} ".encode())
        for name, (listing, dims, unit) in self._chunked.items():
            chunks = [chunk_numbers(indexers[d], n) for d, n in zip(dims, unit, strict=True)]
            content.update(f"{name} ".encode() + _versions(listing, chunks).tobytes())
        for name in self._small_companions:
            # A change in one place of a small companion must not mark all blocks that share its chunk as changed.
            variable = companion(self.source, name)
            values = np.asarray(variable[tuple(regions[str(d)] for d in variable.dims)].values)
            bytes_of = values.tobytes() if values.dtype.kind != "O" else repr(values.tolist()).encode()
            # Cosine weights depend on the unit of the latitude, which its values alone do not show.
            radians = "radians " if units_of(self.source.dataset[name]) in RADIANS else ""
            content.update(f"{name} {values.dtype} {radians}".encode() + bytes_of)
        return BlockFingerprint(start.hexdigest(), content.hexdigest())

    def __iter__(self) -> Iterator[BlockFingerprint]:
        return (self[i] for i in range(len(self.plan)))

    @cached_property
    def _indexers(self) -> Mapping[str, DimIndexer]:
        """Indexers of all stored variables by dimension; variables share them."""
        return {d: indexer for stored in self.source.stored.values() for d, indexer in stored.indexers.items()}

    @cached_property
    def _companions(self) -> tuple[str, ...]:
        cosine = COSINE_WEIGHTS.fullmatch(self.source.weights or "")
        mask = mask_condition(self.source.mask)
        names = (
            None if mask is None else mask.variable,
            cosine[1] if cosine else self.source.weights,
            self.source.labels,
        )
        return tuple(dict.fromkeys(name for name in names if name is not None))

    @cached_property
    def _small_companions(self) -> tuple[str, ...]:
        """Companions that are small enough to take part by their values instead of their chunks."""
        return tuple(name for name in self._companions if self.source.dataset[name].nbytes <= SMALL_COMPANION)

    @cached_property
    def _chunked_names(self) -> tuple[str, ...]:
        """Names of the variables and companions that take part by their chunks."""
        return (*self.source.variables, *(name for name in self._companions if name not in self._small_companions))

    @cached_property
    def _reading_digest(self) -> bytes:
        """Digest of the options and metadata that decide how chunks become rows."""
        recipe = self.source.recipe or {}
        facts: list[object] = [(key, recipe.get(key)) for key in _READ]
        if recipe.get("valid_range") == "ignore":
            # This option came later than the others. Without it, fingerprints of earlier versions stay valid.
            facts.append(("valid_range", "ignore"))
        facts += [self.source.variables, self.source.sample_dims, str(self.source.dtype)]
        for name in self._chunked:
            metadata = json.loads(self.source.listings[name].metadata)
            attributes = {key: value for key, value in metadata.pop("attributes", {}).items() if key in _MEANING}
            # The shape changes when a store grows, and the rows of its old blocks do not.
            del metadata["shape"]
            facts.append((name, json.dumps([metadata, attributes], sort_keys=True)))
        return hashlib.sha256(repr(facts).encode()).digest()

    @cached_property
    def _chunked(self) -> Mapping[str, tuple[Listing, tuple[str, ...], tuple[int, ...]]]:
        """Listing, dimensions and lengths of a stored object (chunk or shard) along them, by name of the array."""
        chunked = {}
        for name in self._chunked_names:
            listing, dims = self.source.listings.get(name), tuple(map(str, self.source.dataset[name].dims))
            if name in self.source.stored:
                dims = self.source.stored[name].dims
            if listing is None or not listing.complete or not set(dims) <= set(self._indexers):
                continue
            metadata = json.loads(listing.metadata)
            grid = metadata.get("chunks") or metadata["chunk_grid"]["configuration"]["chunk_shape"]
            if len(grid) == len(dims):
                chunked[name] = listing, dims, tuple(map(int, grid))
        return chunked


def _versions(listing: Listing, chunks: list[NDArray[np.int64]]) -> NDArray[np.uint64]:
    """Return the versions of the chunks with these numbers along each dimension; 0 for absent chunks."""
    flat = np.ravel_multi_index(np.ix_(*chunks), listing.grid).ravel()
    versions = np.zeros(len(flat), np.uint64)
    if len(listing.chunks):
        at = np.searchsorted(listing.chunks, flat)
        # searchsorted gives the length for numbers beyond the last; any valid place will do, as it does not match.
        at[at == len(listing.chunks)] = 0
        there = listing.chunks[at] == flat
        versions[there] = listing.versions[at[there]]
    return versions


def extent(source: Source, blocks: Sequence[Block]) -> dict[str, list[Any]]:
    """Return the first and the last label of some blocks along each sample dimension.

    Parameters
    ----------
    source
        Source whose labels are read; a position stands for a missing label.
    blocks
        Blocks of its plan.

    Returns
    -------
    dict
        Pairs by dimension, without the dimensions that the blocks span from end to end.
    """
    extents: dict[str, list[Any]] = {}
    for i, (d, length) in enumerate(zip(source.sample_dims, source.shape, strict=True)):
        edges = [(block.start[i], block.stop[i]) for block in blocks]
        first, last = min((a for a, _ in edges), default=0), max((b for _, b in edges), default=0) - 1
        if blocks and last - first + 1 < length:
            extents[d] = [_label(source, d, index) for index in (first, last)]
    return extents


def _label(source: Source, d: str, index: int) -> Any:
    if d not in source.dataset.coords or source.dataset[d].ndim != 1:
        return index
    value = source.dataset[d].variable[index].values[()]
    # Dates are cut to seconds: 2000-01-01T00:00:00.
    return str(value)[:19] if not isinstance(value, np.number) else value.item()
