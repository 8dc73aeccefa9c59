"""What a block holds, told without reading it: a digest of its chunks, by their names, sizes and times or tags.

Two blocks with the same digest give the same rows: the same cells of the store, stored in the same way, in chunks
that nobody has written anew. A digest knows places in the store, not in the selection: it outlives a store that grows.
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
from clustering.data.reading import COSINE_WEIGHTS
from clustering.data.source import SMALL_COMPANION, Source
from clustering.data.stored import DimIndexer, chunk_numbers

_MEANING = (
    "_FillValue", "missing_value", "scale_factor", "add_offset", "valid_min", "valid_max", "valid_range", "units",
    "calendar", "_Unsigned", "dtype",
)  # fmt: skip
"""Attributes that change what stored numbers mean; others, such as a history, may change with every append."""
_READ = ("variables", "feature_dims", "mask", "weights", "labels", "missing", "missing_chunks", "nodata", "decode")
"""Keys of a recipe that decide what rows are made of a region."""


class BlockFingerprint(NamedTuple):
    """Digests of a block, in hexadecimal."""

    start: str
    """Of the place in the store where it starts."""
    content: str
    """Of its cells, what is stored for them, and how it is read."""


@dataclass(frozen=True, eq=False)
class BlockFingerprints:
    """Digests of the blocks of a plan; picklable."""

    source: Source
    plan: Plan

    @classmethod
    def for_plan(cls, source: Source, plan: Plan) -> BlockFingerprints | None:
        """Give what tells the blocks; None where the store does not tell when its chunks change."""
        made = cls(source, plan)
        complete = set(source.variables) <= set(source.stored) and all(
            name in made._chunked for name in made._chunked_names
        )
        return made if source.recipe is not None and complete else None

    def __reduce__(self) -> Any:
        return BlockFingerprints, (self.source, self.plan)

    def __getitem__(self, index: int) -> BlockFingerprint:
        """Tell the block of this index."""
        block = self.plan.block(index)
        regions = dict(zip(self.source.sample_dims, block.slices, strict=True))
        indexers = {d: indexer[regions[d]] if d in regions else indexer for d, indexer in self._indexers.items()}
        start, content = hashlib.blake2b(digest_size=8), hashlib.blake2b(self._reading_digest, digest_size=12)
        for d, indexer in sorted(indexers.items()):
            positions = (indexer.start, len(indexer), indexer.step) if isinstance(indexer, range) else indexer.tolist()
            start.update(f"{d} {int(indexer[0])} ".encode())
            content.update(f"{d} {positions} ".encode())
        for name, (listing, dims, unit) in self._chunked.items():
            chunks = [chunk_numbers(indexers[d], n) for d, n in zip(dims, unit, strict=True)]
            content.update(f"{name} ".encode() + _versions(listing, chunks).tobytes())
        for name in self._small_companions:
            variable = self.source.companion(name)
            values = np.asarray(variable[tuple(regions[str(d)] for d in variable.dims)].values)
            bytes_of = values.tobytes() if values.dtype.kind != "O" else repr(values.tolist()).encode()
            radians = "radians " if units_of(self.source.dataset[name]) in RADIANS else ""
            content.update(f"{name} {values.dtype} {radians}".encode() + bytes_of)
        return BlockFingerprint(start.hexdigest(), content.hexdigest())

    def __iter__(self) -> Iterator[BlockFingerprint]:
        return (self[i] for i in range(len(self.plan)))

    @cached_property
    def _indexers(self) -> Mapping[str, DimIndexer]:
        """Selected positions in the store, by dimension."""
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
        """Masks, weights and labels whose values are at hand, and tell more than their chunks."""
        return tuple(name for name in self._companions if self.source.dataset[name].nbytes <= SMALL_COMPANION)

    @cached_property
    def _chunked_names(self) -> tuple[str, ...]:
        """What is told by its chunks."""
        return (*self.source.variables, *(name for name in self._companions if name not in self._small_companions))

    @cached_property
    def _reading_digest(self) -> bytes:
        """How all of it is stored and read."""
        recipe = self.source.recipe or {}
        facts: list[object] = [(key, recipe.get(key)) for key in _READ]
        if recipe.get("valid_range") == "ignore":
            # Younger than the others: where it is not used, what was told before still is the same.
            facts.append(("valid_range", "ignore"))
        facts += [self.source.variables, self.source.sample_dims, str(self.source.dtype)]
        for name in self._chunked:
            metadata = json.loads(self.source.listings[name].metadata)
            attributes = {key: value for key, value in metadata.pop("attributes", {}).items() if key in _MEANING}
            del metadata["shape"]
            facts.append((name, json.dumps([metadata, attributes], sort_keys=True)))
        return hashlib.sha256(repr(facts).encode()).digest()

    @cached_property
    def _chunked(self) -> Mapping[str, tuple[Listing, tuple[str, ...], tuple[int, ...]]]:
        """For each array its listing, its dimensions, and the lengths of what one key holds along them."""
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
    """Versions of the chunks with these numbers along each dimension; 0 where one is not there."""
    flat = np.ravel_multi_index(np.ix_(*chunks), listing.grid).ravel()
    versions = np.zeros(len(flat), np.uint64)
    if len(listing.chunks):
        at = np.searchsorted(listing.chunks, flat)
        at[at == len(listing.chunks)] = 0
        there = listing.chunks[at] == flat
        versions[there] = listing.versions[at[there]]
    return versions


def extent(source: Source, blocks: Sequence[Block]) -> dict[str, list[Any]]:
    """Give the first and the last label of some blocks along each sample dimension that they do not fill."""
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
    return str(value)[:19] if not isinstance(value, np.number) else value.item()
