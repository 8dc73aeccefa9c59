"""A labelled N-d source, read block by block as ``(n, d)`` rows."""

from __future__ import annotations

import hashlib
import math
import pickle
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from clustering.data import layout, opening, selection
from clustering.data.addresses import shown
from clustering.data.faults import told
from clustering.data.plan import MIB, Block, Plan, plan_blocks
from clustering.data.rows import MISSING, Missing, Rows, unit_weights
from clustering.errors import ConfigError, DataError

_COSINE = re.compile(r"cos\((\w+)\)")
_WEIGHTS, _MASK, _LABELS = "_weights", "_mask", "_labels"


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
    """Boolean variable over sample dimensions; true = use."""
    weights: str | None
    """Variable over sample dimensions, or ``cos(name)`` of a coordinate in degrees."""
    missing: Missing
    """What a NaN in a row means: drop the row, an error, or a feature that is integrated out."""
    chunks: tuple[int, ...]
    """Length of the unit that is read at once (chunk or shard), for each sample dimension."""
    offset: tuple[int, ...]
    """Where the selection starts inside its first unit, for each sample dimension."""
    labelled: bool
    """False for a bare ndarray: results are ndarrays too."""
    recipe: Mapping[str, Any] | None = field(repr=False)
    """Arguments that open the same source in another process; None for data held in memory."""
    labels: str | None = None
    """Variable of clusters known beforehand, over sample dimensions; anything but 0, 1, … is unknown."""
    opening: str = field(default_factory=lambda: uuid.uuid4().hex, repr=False)
    """Name of this opening: a process opens it once, and a store that has changed since is opened anew."""

    def __reduce__(self) -> Any:
        if self.recipe is not None:
            return _reopen, (pickle.dumps(self.recipe), self.opening)
        return Source, tuple(getattr(self, name) for name in self.__dataclass_fields__)

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each sample dimension."""
        return tuple(self.dataset.sizes[d] for d in self.sample_dims)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the decoded rows."""
        kinds = [self.dataset[v].dtype for v in self.variables]
        return np.dtype(np.uint8) if all(k.kind == "b" for k in kinds) else np.result_type(*kinds)

    @property
    def features(self) -> tuple[Feature, ...]:
        """The columns of the rows, in order."""
        found: list[Feature] = []
        for name in self.variables:
            array = self.dataset[name]
            dims = [d for d in self.feature_dims if d in array.dims]
            labels = [self.dataset[d].values if d in self.dataset.coords else range(array.sizes[d]) for d in dims]
            for place in np.ndindex(*(array.sizes[d] for d in dims)):
                at = tuple((d, _plain(values[i])) for d, values, i in zip(dims, labels, place, strict=True))
                found.append(Feature(name, at))
        return tuple(found)

    @property
    def n_features(self) -> int:
        """Number of columns of the rows."""
        return sum(
            math.prod(self.dataset.sizes[d] for d in self.feature_dims if d in self.dataset[v].dims)
            for v in self.variables
        )

    @property
    def row_bytes(self) -> int:
        """Size of one decoded row, in bytes."""
        return self.n_features * self.dtype.itemsize

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
        return plan_blocks(
            self.shape,
            self.chunks,
            row_bytes=self.row_bytes,
            offset=self.offset if whole_chunks else None,
            block_bytes=block_bytes,
            memory=memory,
        )

    @property
    def cautions(self) -> tuple[str, ...]:
        """What may not be meant by whoever wrote the data, in words for a user."""
        return tuple(
            f"zeros of variable {name!r} count as missing, as 0 is its fill value; if they are numbers, "
            "store the array with fill_value null"
            for name in self.variables
            if self.dataset[name].encoding.get("_FillValue") == 0
            and np.dtype(self.dataset[name].encoding.get("dtype", "f8")).kind in "iu"
        )

    def fingerprint(self) -> str:
        """Digest the identity of the source: metadata and file listing of a store, values of data held in memory."""
        cosine = _COSINE.fullmatch(self.weights or "")
        companions = (self.mask, cosine[1] if cosine else self.weights, self.labels)
        if self.recipe is not None:
            names = {*self.variables, *(name for name in companions if name is not None)}
            options = self.recipe["storage_options"] or {}
            return opening.store_fingerprint(self.recipe["data"], self.recipe["group"], names, options)
        digest = hashlib.sha256(repr((self.variables, self.sample_dims, self.shape, str(self.dtype))).encode())
        plan = self.plan()
        for index in range(len(plan)):
            rows = self.read(plan.block(index))
            for part in (rows.values, rows.weights, rows.kept, rows.labels):
                digest.update(b"" if part is None else np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def read(self, block: Block) -> Rows:
        """Read and decode one block.

        Raises
        ------
        DataError
            For a NaN where `missing` is ``error``, an infinity, or a weight that is negative or not finite. The
            message names the variable and the block.
        """
        values = self._values(block)
        n = len(values)
        weights = self._weights(block)
        keep = None if self.mask is None else _truth(self._on_grid(self.dataset[self.mask], block))
        gaps = None
        if self.dtype.kind == "f":
            finite = _finite_rows(values)
            if not finite.all():
                used = np.ones(n, bool) if keep is None else keep
                self._refuse(values, used & ~finite, block)
                if self.missing == "marginalize":
                    # A row with nothing observed tells nothing.
                    gaps = ~finite
                    finite = finite | (~np.isnan(values)).any(axis=1)
                keep = used & finite
        if weights is not None:
            used_weights = weights if keep is None else weights[keep]
            if not (np.isfinite(used_weights).all() and (used_weights >= 0).all()):
                raise DataError(
                    f"weights {self.weights!r} are negative or not finite in block {block}; "
                    "a weight is a number of zero or more; mask these rows or correct the variable"
                )
        labels = None if self.labels is None else self._known(block)
        kept = None if keep is None or keep.all() else np.flatnonzero(keep)
        if kept is not None:
            values, weights = values[kept], None if weights is None else weights[kept]
            gaps, labels = None if gaps is None else gaps[kept], None if labels is None else labels[kept]
        if weights is None:
            weights = unit_weights(len(values))
        gaps = gaps if gaps is not None and gaps.any() else None
        return Rows(values, weights, kept, block.start, block.shape, self.shape, gaps, labels)

    def preview(self, most: int = 1000) -> xr.Dataset:
        """Thin the sample grid to at most `most` cells a side and read it, for a picture."""
        steps = {d: slice(None, None, max(1, -(-self.dataset.sizes[d] // most))) for d in self.sample_dims}
        return self.dataset[list(self.variables)].isel(steps).load()

    def _values(self, block: Block) -> NDArray[Any]:
        region = dict(zip(self.sample_dims, block.slices, strict=True))
        columns = []
        for name in self.variables:
            array = self.dataset[name].variable.isel(region)
            order = (*self.sample_dims, *(d for d in self.feature_dims if d in array.dims))
            columns.append(self._loaded(array.transpose(*order)).reshape(math.prod(block.shape), -1))
        if len(columns) == 1:
            return np.ascontiguousarray(columns[0], self.dtype)
        return np.concatenate(columns, axis=1, dtype=self.dtype, casting="unsafe")

    def _weights(self, block: Block) -> NDArray[np.float64] | None:
        if self.weights is None:
            return None
        cosine = _COSINE.fullmatch(self.weights)
        if cosine:
            degrees = self._on_grid(self.dataset[cosine[1]], block).astype(np.float64)
            # At the poles the cosine of the rounded angle may fall a hair below zero.
            return np.clip(np.cos(np.deg2rad(degrees)), 0.0, None)
        return self._on_grid(self.dataset[self.weights], block).astype(np.float64)

    def _known(self, block: Block) -> NDArray[np.int32]:
        """Clusters known beforehand ``(n,)``, −1 where unknown."""
        found = self._on_grid(self.dataset[str(self.labels)], block)
        with np.errstate(invalid="ignore"):
            known = (found >= 0) & (found == np.floor(found)) & (found <= np.iinfo(np.int32).max)
        return np.where(known, found, -1).astype(np.int32)

    def _on_grid(self, array: xr.DataArray, block: Block) -> NDArray[Any]:
        region = {d: s for d, s in zip(self.sample_dims, block.slices, strict=True) if d in array.dims}
        part = array.variable.isel(region)
        values = self._loaded(part.transpose(*region))
        lengths = [n if d in region else 1 for d, n in zip(self.sample_dims, block.shape, strict=True)]
        return np.broadcast_to(values.reshape(lengths), block.shape).reshape(-1)

    def _loaded(self, variable: xr.Variable) -> NDArray[Any]:
        """Read a variable; a dask array on this thread, as this is a task already."""
        with told(shown((self.recipe or {"data": "the data"})["data"])):
            data = variable.data
            return np.asarray(data.compute(scheduler="synchronous") if variable.chunks is not None else data)

    def _refuse(self, values: NDArray[Any], bad: NDArray[np.bool_], block: Block) -> None:
        """Raise for infinities, and for NaN where rows with missing features are an error."""
        suspects = values[bad]
        infinite = np.isinf(suspects)
        if infinite.any():
            column = self.features[int(np.argmax(infinite.any(axis=0)))]
            raise DataError(
                f"infinite value in variable {column.variable!r} ({column}), block {block}; "
                "infinities cannot be clustered; mask them with source.mask or replace them"
            )
        if self.missing == "error" and len(suspects):
            column = self.features[int(np.argmax(np.isnan(suspects).any(axis=0)))]
            raise DataError(
                f"missing value in variable {column.variable!r} ({column}), block {block}; "
                "set source.missing to 'drop' to leave such rows out"
            )


def _truth(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Read a mask, where decoding may have turned zeros that equal the fill value into NaN."""
    used: NDArray[np.bool_] = ((values == values) & (values != 0)).astype(bool)
    return used


def _finite_rows(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell rows ``(n, d)`` without NaN or infinity, ``(n,)``."""
    # A NaN or infinity survives the sum; only the rows that it marks are looked at one by one.
    with np.errstate(over="ignore", invalid="ignore"):
        finite: NDArray[np.bool_] = np.isfinite(values.sum(axis=1, dtype=np.promote_types(values.dtype, np.float32)))
    suspects = np.flatnonzero(~finite)
    finite[suspects] = np.isfinite(values[suspects]).all(axis=1)
    return finite


def _plain(value: Any) -> Any:
    """Turn a numpy scalar into what JSON can hold."""
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return str(value)
    return value.item() if isinstance(value, np.generic) else value


def open_source(
    data: Any,
    *,
    group: str | None = None,
    variables: Sequence[str] | None = None,
    sample_dims: Sequence[str] | None = None,
    feature_dims: Sequence[str] | None = None,
    select: Mapping[str, Any] | None = None,
    isel: Mapping[str, Any] | None = None,
    mask: Any = None,
    weights: Any = None,
    labels: Any = None,
    missing: Missing | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Source:
    """Say what to cluster. Only metadata and coordinates are read.

    Parameters
    ----------
    data
        Path or URL of a Zarr store; or an xarray Dataset or DataArray, a zarr array, a dask array, or an ndarray
        ``(n, d)``.
    group
        Group inside the store.
    variables
        Variables of the group, concatenated along the features. May be left out where there is one only.
    sample_dims
        Dimensions that number the samples. Default: all that are not feature dimensions; the first if those are not
        named either.
    feature_dims
        Dimensions along which a sample's features lie. Empty: each variable is one feature. Default: all that are not
        sample dimensions.
    select, isel
        Selection by label or by position: ``{dim: {start, stop, step}}``, a list, or one value.
    mask
        Boolean variable, true = use; or an array in the shape of the samples.
    weights
        Variable, or ``cos(lat)``; or an array in the shape of the samples.
    labels
        Clusters known beforehand, for ``init="labels"``: a variable, or an array in the shape of the samples. Anything
        but 0, 1, … is unknown.
    missing
        ``drop``, the default, leaves out rows with a NaN in any feature; ``error`` refuses them; ``marginalize`` keeps
        what was observed of them.
    storage_options
        As fsspec takes them. Credentials belong in the environment; those given here stay in memory.

    Raises
    ------
    SourceError
        If the store, group, a variable, dimension, mask or weights is not there or does not fit.
    """
    if missing is not None and missing not in MISSING:
        raise ConfigError(f"missing is {missing!r}; allowed: {', '.join(MISSING)}")
    options: dict[str, Any] = {
        "group": group, "variables": variables, "sample_dims": sample_dims, "feature_dims": feature_dims,
        "select": select, "isel": isel, "missing": missing, "mask": mask, "weights": weights,
        "labels": labels,        "storage_options": storage_options,
    }  # fmt: skip
    if isinstance(data, Source):
        given = [name for name, value in options.items() if value is not None]
        if given:
            raise ConfigError(f"option {given[0]!r} cannot change a Source; give it when the source is opened")
        return data
    if hasattr(data, "__fspath__"):
        data = data.__fspath__()
    recipe: dict[str, Any] | None = None
    if isinstance(data, str):
        # Another process may stand in another folder.
        data = data if "://" in data else str(Path(data).absolute())
        recipe = {**options, "data": data}
        dataset = opening.open_store(data, group, storage_options or {}, [*(variables or ()), mask, weights, labels])
    else:
        dataset = layout.in_memory(data)
    names = layout.choose_variables(dataset, variables)
    places = selection.positions(dataset, select or {}, isel or {})
    single = {str(d) for d, place in places.items() if isinstance(place, int)}
    samples, features = layout.choose_dimensions(dataset, names, sample_dims, feature_dims, single)
    chunks, offset = layout.cut_units(dataset, layout.read_units(dataset, names, samples), places, samples)
    cut = dataset.isel(places)
    if mask is not None and not isinstance(mask, str):
        cut, mask, recipe = layout.attach(cut, _MASK, mask, samples), _MASK, None
    if weights is not None and not isinstance(weights, str):
        cut, weights, recipe = layout.attach(cut, _WEIGHTS, weights, samples), _WEIGHTS, None
    if labels is not None and not isinstance(labels, str):
        cut, labels, recipe = layout.attach(cut, _LABELS, labels, samples), _LABELS, None
    cosine = _COSINE.fullmatch(weights or "")
    layout.check_companion(cut, "mask", mask, samples)
    layout.check_companion(cut, "weights", cosine[1] if cosine else weights, samples)
    layout.check_companion(cut, "labels", labels, samples)
    return Source(
        cut, names, samples, features, mask, weights, missing or "drop", chunks, offset,
        not isinstance(data, np.ndarray), recipe, labels,
    )  # fmt: skip


@lru_cache(maxsize=16)
def _reopen(recipe: bytes, _: str) -> Source:
    """Open a source in another process, once per process."""
    return open_source(**pickle.loads(recipe))
