"""A labelled N-d source, read block by block as ``(n, d)`` rows."""

from __future__ import annotations

import hashlib
import math
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import RLock
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from clustering.data import opening
from clustering.data.addresses import shown
from clustering.data.chunks import snapshot
from clustering.data.decoding import InMemoryVariable, RowPacking, find_packing
from clustering.data.grouped import SMALL_LABELS
from clustering.data.listing import Listing, describe_changes
from clustering.data.plan import MIB, Axis, Block, Plan, plan_blocks
from clustering.data.policies import Missing, ValidRange
from clustering.data.reading import load_variable, read_rows
from clustering.data.rows import Rows
from clustering.data.store_errors import translate_errors
from clustering.data.stored import StoredVariable
from clustering.errors import DataError, SourceError

SMALL_COMPANION = 64 * MIB
"""Masks, weights and labels up to this size, in bytes, are read once in each process."""
About = Mapping[str, Mapping[str, str]]
"""What a source tells of its variables and feature dimensions, by name: units, names, a calendar."""
DATES = "numpy"
"""Calendar of dates that numpy has a type for."""
_ATTRIBUTES = ("units", "long_name", "standard_name", "positive", "axis")
_lock = RLock()


@dataclass(frozen=True)
class Feature:
    """One column of the rows: its variable and its place along the feature dimensions."""

    variable: str
    at: tuple[tuple[str, Any], ...] = ()
    """``(dimension, label)`` pairs."""

    def __str__(self) -> str:
        return self.variable + (f"[{', '.join(f'{d}={v}' for d, v in self.at)}]" if self.at else "")


@dataclass(frozen=True, eq=False)
class Source:
    """Data to cluster: which variables, what is a sample and what is a feature. Holds metadata, never values.

    Build one with `open_source`.
    """

    dataset: xr.Dataset = field(repr=False)
    """Selected, decoded and lazily indexed."""
    variables: tuple[str, ...]
    sample_dims: tuple[str, ...]
    feature_dims: tuple[str, ...]
    mask: str | None
    """Variable over sample dimensions, true = use, or one comparison of it; see `clustering.data.conditions`."""
    weights: str | None
    """Variable over sample dimensions, or ``cos(name)`` of a latitude."""
    missing: Missing
    """What a NaN in a row means: drop the row, an error, or a feature that is integrated out."""
    axes: tuple[Axis, ...]
    """The sample dimensions: what is selected of each, and in what lengths it is read at once."""
    labelled: bool
    """False for a bare ndarray: results are ndarrays too."""
    recipe: Mapping[str, Any] | None = field(repr=False)
    """Arguments that open the same source in another process; None for data held in memory."""
    labels: str | None = None
    """Variable of clusters known beforehand, over sample dimensions; anything but 0, 1, … is unknown."""
    stored: Mapping[str, StoredVariable] = field(default_factory=dict, repr=False)
    """Variables that are read from their store as they are, by name."""
    listings: Mapping[str, Listing] = field(default_factory=dict, repr=False)
    """What the store held when the source was opened, for each variable and its companions."""
    cautions: tuple[str, ...] = ()
    """What may not be meant by whoever wrote the data, in words for a user."""
    max_bad_fraction: float = 1.0
    """Share of the chunks that may fail to decode, where they are masked."""
    reopen: Callable[..., Source] | None = field(default=None, repr=False)
    """Opens the same source in another process, once: from the recipe, the name of the opening, and the listings."""
    in_memory: Mapping[str, InMemoryVariable] = field(default_factory=dict, repr=False)
    """Variables held in memory that are decoded here, as they were given, by name."""
    unusable: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Why other variables cannot be used, by name."""
    valid_range: ValidRange = "cf"
    """Whether valid ranges count."""
    opening: str = field(default_factory=lambda: uuid.uuid4().hex, repr=False)
    """Name of this opening: a process opens it once, and a store that has changed since is opened anew."""

    def __reduce__(self) -> Any:
        if self.recipe is not None:
            return self.reopen, (self.recipe, self.opening, self.listings)
        return Source, tuple(getattr(self, name) for name in self.__dataclass_fields__)

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each sample dimension."""
        return tuple(self.dataset.sizes[d] for d in self.sample_dims)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Length of what is read at once along each sample dimension, among the selected positions."""
        return tuple(axis.regular.longest(1) for axis in self.axes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the decoded rows."""
        kinds = [self.stored[v].decoding.dtype if v in self.stored else self.dataset[v].dtype for v in self.variables]
        return np.dtype(np.uint8) if all(k.kind == "b" for k in kinds) else np.result_type(*kinds)

    @property
    def features(self) -> tuple[Feature, ...]:
        """The columns of the rows, in order."""
        columns: list[Feature] = []
        for name in self.variables:
            array = self.dataset[name]
            dims = [d for d in self.feature_dims if d in array.dims]
            labels = [self.dataset[d].values if self.has_labels(d) else range(array.sizes[d]) for d in dims]
            for index in np.ndindex(*(array.sizes[d] for d in dims)):
                at = tuple((d, _plain(values[i])) for d, values, i in zip(dims, labels, index, strict=True))
                columns.append(Feature(name, at))
        return tuple(columns)

    @property
    def held_labels(self) -> Mapping[str, int]:
        """Memory of the labels that a selection holds and that are large, in bytes, by dimension; in every process."""
        if self.recipe is None:
            return {}
        sizes = {str(d): _held_bytes(index) for d, index in self.dataset.indexes.items()}
        return {d: size for d, size in sizes.items() if size > SMALL_LABELS}

    def has_labels(self, d: str) -> bool:
        """Tell whether a dimension has labels: an array may have its name and lie along others."""
        return d in self.dataset.coords and self.dataset[d].dims == (d,)

    @property
    def about(self) -> About:
        """What is told of the variables, where they tell anything, and of the feature dimensions that have labels."""
        attributes: dict[str, dict[str, str]] = {}
        for name in (*self.variables, *filter(self.has_labels, self.feature_dims)):
            variable = self.dataset[name].variable
            own = {key: str(variable.attrs[key]) for key in _ATTRIBUTES if key in variable.attrs}
            if name not in self.variables and variable.size:
                first = variable.values.flat[0]
                calendar = DATES if variable.dtype.kind == "M" else getattr(first, "calendar", None)
                own |= {"calendar": calendar} if calendar else {}
            if own or name not in self.variables:
                attributes[name] = own
        return attributes

    @property
    def n_features(self) -> int:
        """Number of columns of the rows."""
        return sum(map(self._count, self.variables))

    def _count(self, name: str) -> int:
        """Features of a variable."""
        return math.prod(self.dataset.sizes[d] for d in self.feature_dims if d in self.dataset[name].dims)

    @property
    def row_bytes(self) -> int:
        """Size of one decoded row, in bytes."""
        return self.n_features * self.dtype.itemsize

    @property
    def kept_row_bytes(self) -> int:
        """Size of one row as it is kept between passes, in bytes."""
        return self.n_features * (self.packing.stored if self.packing else self.dtype).itemsize

    def plan(self, *, block_bytes: int | None = None, memory: int = 2048 * MIB, whole_chunks: bool = True) -> Plan:
        """Cut the sample grid into blocks.

        Parameters
        ----------
        block_bytes
            Wanted size of a decoded block, in bytes; chosen where None.
        memory
            Memory budget of a worker, in bytes.
        whole_chunks
            True: block edges lie on chunk edges of the source, so that no chunk is decoded twice. False: they lie on
            multiples of the chunk length counted from the start of the selection, as the chunks of the labels do.
        """
        axes = self.axes if whole_chunks else tuple(axis.regular for axis in self.axes)
        return plan_blocks(axes, row_bytes=self.row_bytes, block_bytes=block_bytes, memory=memory)

    @cached_property
    def packing(self) -> RowPacking | None:
        """How rows stay as they are stored until they are used; None where that saves no memory."""
        if self.missing == "marginalize" or not all(name in self.stored for name in self.variables):
            return None
        counts = [self._count(name) for name in self.variables]
        pairs = [(n, self.stored[name].decoding) for n, name in zip(counts, self.variables, strict=True)]
        return find_packing(pairs, self.dtype)

    def companion(self, name: str) -> xr.Variable:
        """Give a mask, weights or labels: read once where small, lazily otherwise."""
        with _lock:
            held: dict[str, xr.Variable] = self.__dict__.setdefault("_companions", {})
            if name not in held:
                variable = self.dataset[name].variable
                small = variable.nbytes <= SMALL_COMPANION
                held[name] = xr.Variable(variable.dims, load_variable(self, name, variable)) if small else variable
            return held[name]

    def fingerprint(self) -> str:
        """Digest the identity of the source: metadata and file listing of a store, values of data held in memory.

        Coordinates that select or label samples and features are part of it, and so are masks, weights and labels.
        """
        digest = hashlib.sha256()
        if self.recipe is not None:
            for name, listing in sorted(self.listings.items()):
                digest.update(name.encode() + listing.digest)
            for name, stored in sorted(self.stored.items()):
                for d, indexer in stored.indexers.items():
                    digest.update(
                        f"{name} {d} {indexer!r}".encode() if isinstance(indexer, range) else indexer.tobytes()
                    )
            return digest.hexdigest()
        digest.update(repr((self.variables, self.sample_dims, self.shape, str(self.dtype))).encode())
        for d in (*self.sample_dims, *self.feature_dims):
            digest.update(repr(self.dataset[d].values.tolist()).encode() if self.has_labels(d) else b"")
        plan = self.plan()
        for index in range(len(plan)):
            rows = self.read(plan.block(index))
            for part in (rows.values, rows.weights, rows.cells, rows.labels):
                digest.update(b"" if part is None else np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def check_bad(self, bad: Sequence[str]) -> None:
        """Refuse data of which too much does not decode.

        Raises
        ------
        DataError
            If more than `max_bad_fraction` of the chunks, given by name, are bad.
        """
        total = sum(stored.count for stored in self.stored.values()) if bad else 0
        if len(bad) > self.max_bad_fraction * total:
            raise DataError(
                f"{len(bad):,} of {total:,} chunks do not decode, {bad[0]!r} among them, more than max_bad_fraction "
                f"{self.max_bad_fraction:g} allows; write them anew, or raise source.max_bad_fraction"
            )

    def check_unchanged(self) -> None:
        """Refuse to go on where the store is no longer what it was when the source was opened.

        Raises
        ------
        DataError
            Saying what has changed.
        """
        if self.recipe is None or not self.listings:
            return
        data, group, options = (self.recipe[key] for key in ("data", "group", "storage_options"))
        try:
            with translate_errors(shown(data), (FileNotFoundError,)):
                node = opening.open_node(data, group, options or {})
        except (FileNotFoundError, SourceError) as error:
            raise DataError(
                f"the source changed during the run: there is nothing at {shown(data)} any more; run again"
            ) from error
        now = snapshot(opening.OpenedDataset(self.dataset, node, shown(data)), self.listings)
        for name, before in self.listings.items():
            changed = describe_changes(before, now.get(name), name)
            if changed:
                raise DataError(
                    f"the source changed during the run: {changed}; what was read is of no one state: run again"
                )

    def read(self, block: Block, *, packed: bool = False) -> Rows:
        """Read and decode one block.

        Parameters
        ----------
        packed
            Leave values as they are stored, where that takes less room; see `Rows.decoded`.

        Raises
        ------
        DataError
            For a missing value where `missing` is ``error``, an infinity, a chunk that does not decode, or a weight
            that is negative or not finite. The message names the variable and the block.
        """
        rows = read_rows(self, block)
        return rows if packed else rows.decoded()

    def preview(self, most: int = 1000) -> xr.Dataset:
        """Thin the sample grid to at most `most` cells a side and read it, for a picture."""
        steps = {d: slice(None, None, max(1, -(-self.dataset.sizes[d] // most))) for d in self.sample_dims}
        return self.dataset[list(self.variables)].isel(steps).load()


def _held_bytes(index: pd.Index) -> int:
    """Memory that an index keeps from being freed, in bytes: a part of one keeps all of it."""
    array = index.to_numpy()
    while isinstance(array.base, np.ndarray):
        array = array.base
    objects = sys.getsizeof(array.flat[0]) * array.size if array.dtype.kind == "O" and array.size else 0
    return int(array.nbytes + objects)


def _plain(value: Any) -> Any:
    """Turn a label into what JSON can hold; dates of any calendar become text."""
    if isinstance(value, np.generic) and value.dtype.kind not in "mM":
        value = value.item()
    return value if isinstance(value, (bool, int, float, str)) else str(value)
