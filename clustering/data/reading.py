"""Reading a block as rows: the variables side by side, without masked cells."""

from __future__ import annotations

import math
import re
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from clustering.data import gathering
from clustering.data.addresses import shown
from clustering.data.alignment import fill_masked
from clustering.data.angles import cosine
from clustering.data.conditions import mask_condition
from clustering.data.plain_dataset import PlainDataset
from clustering.data.plan import MIB, Block
from clustering.data.rows import Rows, unit_weights
from clustering.data.source import Source
from clustering.data.store_errors import translate_errors
from clustering.deferred import xr
from clustering.errors import DataError, at_work, damaged

COSINE_WEIGHTS = re.compile(r"cos\((\w+)\)")
"""Weights by the cosine of a latitude, such as ``cos(lat)``: the area of a cell on a regular grid."""
SMALL_COMPANION = 64 * MIB
"""Companions up to this size, in bytes, are read once in each process and kept."""
_kept: WeakKeyDictionary[Source, dict[str, xr.Variable]] = WeakKeyDictionary()
"""Small companions by name. They are dropped with their source."""
_lock = RLock()
"""Keeps two threads from reading the same companion at once."""


def has_cosine(name: str) -> bool:
    """Return whether options can ask for the cosine of a coordinate: for names of letters, digits and underscores.

    Parameters
    ----------
    name
        Name of the coordinate.
    """
    return COSINE_WEIGHTS.fullmatch(f"cos({name})") is not None


def read_block(source: Source, block: Block, *, packed: bool = False) -> Rows:
    """Read and decode one block.

    Parameters
    ----------
    source
        Data to cluster.
    block
        A block of a plan of the source.
    packed
        Whether values stay as they are stored where that takes less memory; see `Rows.decoded`.

    Raises
    ------
    DataError
        For a missing value where `missing` of the source is ``error``, an infinity, a bad chunk where that is an error,
        or a weight that is negative or not finite. The message names the variable and the block.
    """
    rows = _rows(source, block)
    return rows if packed else rows.decoded()


def _rows(source: Source, block: Block) -> Rows:
    """Read one block. Values stay packed where all variables can be."""
    values, missing, lost, bad = _values(source, block)
    n = len(values)
    keep = used_cells(source, block)
    if lost is not None:
        keep = ~lost if keep is None else keep & ~lost
    has_missing = None
    if missing is not None or source.dtype.kind == "f":
        whole = finite_rows(values) if values.dtype.kind == "f" else np.ones(n, bool)
        whole = whole if missing is None else whole & ~missing
        if not whole.all():
            used = np.ones(n, bool) if keep is None else keep
            _check_missing(source, values, used & ~whole, block)
            if source.missing == "marginalize":
                # Rows with some observed features take part. A row without any says nothing about its cluster.
                has_missing = ~whole
                whole = whole | (~np.isnan(values)).any(axis=1)
            keep = used & whole
    weights = _row_weights(source, block)
    if weights is not None:
        used_weights = weights if keep is None else weights[keep]
        if not (np.isfinite(used_weights).all() and (used_weights >= 0).all()):
            raise DataError(
                f"weights {source.weights!r} are missing, negative or not finite in block {block}; "
                "a weight is a number of zero or more; mask these rows or correct the variable"
            )
    labels = None if source.labels is None else _known_labels(source, block)
    kept = None if keep is None or keep.all() else np.flatnonzero(keep)
    if kept is not None:
        values, weights = values[kept], None if weights is None else weights[kept]
        has_missing, labels = (
            None if has_missing is None else has_missing[kept],
            None if labels is None else labels[kept],
        )
    if weights is None:
        weights = unit_weights(len(values))
    has_missing = has_missing if has_missing is not None and has_missing.any() else None
    return Rows(
        values, weights, kept, block.start, block.shape, source.shape, has_missing, labels, source.packing, bad
    )  # fmt: skip


_Values = tuple[NDArray[Any], NDArray[np.bool_] | None, NDArray[np.bool_] | None, tuple[str, ...]]
"""Values ``(cells, d)``; rows with missing features; rows in bad chunks, both ``(cells,)`` or None; bad chunks."""


def _values(source: Source, block: Block) -> _Values:
    """Read the values of all cells of a block, the mask aside; see `_Values`."""
    region = dict(zip(source.sample_dims, block.slices, strict=True))
    cells = math.prod(block.shape)
    packing = source.packing
    out: NDArray[Any] | None = None
    missing = lost = None
    bad: tuple[str, ...] = ()
    column = 0
    for name in source.variables:
        dims = [d for d in source.feature_dims if d in source.dataset[name].dims]
        stored = source.stored.get(name)
        absent = None
        if stored is None:
            variable = source.dataset[name].variable.isel(region).transpose(*source.sample_dims, *dims)
            values = load_variable(source, name, variable).reshape(cells, -1)
        else:
            with at_work(f"variable {name!r}"):
                values, gone, bad_chunks = stored.read(region, (*source.sample_dims, *dims))
            bad += bad_chunks
            # Cells of bad chunks are masked. Where missing features are integrated out, they count as missing instead.
            if gone is not None and source.missing != "marginalize":
                rows = np.asarray(gone.any(axis=1))
                lost = rows if lost is None else lost | rows
            absent = stored.decoding.is_missing(values)
            if gone is not None:
                absent = gone if absent is None else absent | gone
            # NaN stands for missing values where the type has NaN; integers keep a mask beside them.
            if values.dtype.kind == "f" and absent is not None:
                values, absent = np.where(absent, values.dtype.type(np.nan), values), None
            if packing is None:
                values, absent = _decoded(stored.decoding, values, absent, source)
        if absent is not None:
            rows = np.asarray(absent.any(axis=1))
            missing = rows if missing is None else missing | rows
        if len(source.variables) == 1:
            # A single variable needs no copy into a wider array.
            return np.ascontiguousarray(values, None if packing else source.dtype), missing, lost, bad
        if out is None:
            out = np.empty((cells, source.n_features), packing.stored if packing else source.dtype)
        out[:, column : column + values.shape[1]] = values
        column += values.shape[1]
    assert out is not None
    return out, missing, lost, bad


def _decoded(
    decoding: Any, values: NDArray[Any], absent: NDArray[np.bool_] | None, source: Source
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Decode stored values ``(cells, d)``. Missing ones become NaN where rows are floats; else their mask is kept."""
    if not decoding.plain or decoding.dtype != values.dtype:
        out = np.empty(values.shape, decoding.dtype)
        decoding.decode(values, out)
        values = out
    if absent is not None and source.dtype.kind == "f":
        values = np.array(values, source.dtype)
        values[absent] = np.nan
        absent = None
    return values, absent


def used_cells(source: Source, block: Block) -> NDArray[np.bool_] | None:
    """Find the cells of a block that the mask leaves.

    Parameters
    ----------
    source
        Data to cluster.
    block
        A block of a plan of the source.

    Returns
    -------
    ndarray of bool or None
        True for used cells ``(cells,)``; None where there is no mask.
    """
    mask = mask_condition(source.mask)
    return None if mask is None else mask.used(_on_grid(source, mask.variable, block))


def _row_weights(source: Source, block: Block) -> NDArray[np.float64] | None:
    """Read the weights of the cells of a block ``(cells,)``; None where all are 1."""
    if source.weights is None:
        return None
    formula = COSINE_WEIGHTS.fullmatch(source.weights)
    if formula:
        name = formula[1]
        return cosine(_on_grid(source, name, block), source.dataset[name].variable, name)
    return _on_grid(source, source.weights, block).astype(np.float64)


def _known_labels(source: Source, block: Block) -> NDArray[np.int32]:
    """Read known clusters on the cells of a block ``(cells,)``. Values other than 0, 1, … become −1, for unknown."""
    values = _on_grid(source, str(source.labels), block)
    values = values.astype(np.float64) if values.dtype.kind == "f" else values
    with np.errstate(invalid="ignore"):
        valid = (values >= 0) & (values == np.floor(values)) & (values <= np.iinfo(np.int32).max)
    return np.where(valid, values, -1).astype(np.int32)


def companion(source: Source, name: str) -> xr.Variable:
    """Give a companion: in memory where it is small, and lazily otherwise.

    Parameters
    ----------
    source
        Data to cluster.
    name
        Name of the variable.
    """
    if isinstance(source.dataset, PlainDataset):
        return source.dataset[name].variable
    with _lock:
        kept = _kept.setdefault(source, {})
        if name not in kept:
            variable = source.dataset[name].variable
            small = variable.nbytes <= SMALL_COMPANION
            kept[name] = xr.Variable(variable.dims, load_variable(source, name, variable)) if small else variable
        return kept[name]


def _on_grid(source: Source, name: str, block: Block) -> NDArray[Any]:
    """Read a companion variable on the cells of a block ``(cells,)``."""
    variable = companion(source, name)
    region = {d: s for d, s in zip(source.sample_dims, block.slices, strict=True) if d in variable.dims}
    values = load_variable(source, name, variable.isel(region).transpose(*region))
    # A companion may lack some sample dimensions, such as a mask of the sea that does not change with time.
    lengths = [n if d in region else 1 for d, n in zip(source.sample_dims, block.shape, strict=True)]
    return np.broadcast_to(values.reshape(lengths), block.shape).reshape(-1)


def _check_missing(source: Source, values: NDArray[Any], bad: NDArray[np.bool_], block: Block) -> None:
    """Raise for infinities, and for missing values where they are an error."""
    if values.dtype.kind == "f":
        infinite = np.isinf(values[bad])
        if infinite.any():
            column = source.features[int(np.argmax(infinite.any(axis=0)))]
            raise DataError(
                f"infinite value in variable {column.variable!r} ({column}), block {block}; "
                "infinities cannot be clustered; mask them with source.mask or replace them"
            )
    if source.missing == "error" and bad.any():
        where = f"variables {', '.join(source.variables)}"
        nan = np.isnan(values[bad]).any(axis=0) if values.dtype.kind == "f" else np.zeros(1, bool)
        if nan.any():
            column = source.features[int(np.argmax(nan))]
            where = f"variable {column.variable!r} ({column})"
        elif len(source.variables) == 1:
            where = f"variable {source.variables[0]!r}"
        raise DataError(f"missing value in {where}, block {block}; set source.missing to 'drop' to leave such rows out")


def load_variable(source: Source, name: str, variable: xr.Variable) -> NDArray[Any]:
    """Read a variable, or a part of it, into memory.

    Parameters
    ----------
    source
        Data to cluster.
    name
        Name of the variable, for messages.
    variable
        The variable, or a part of it, lazily indexed.

    Raises
    ------
    DataError
        If stored values do not decode, or a dask array of integers holds masked cells.
    """
    what = f"variable {name!r}"
    # Errors from a dask graph of the user are passed on as they are. Errors from a store mean damaged data.
    watched = at_work(what) if source.recipe is None else damaged(DataError, what, "write the damaged part again")
    with watched, translate_errors(shown((source.recipe or {"data": "the data"})["data"])):
        data = variable.data
        # This code runs inside a task, so a dask array is computed on the same thread.
        data = data.compute(scheduler="synchronous") if variable.chunks is not None else data
        if np.ma.is_masked(data):
            # A dask graph may yield masked arrays although its metadata show a plain array.
            if data.dtype.kind not in "f":
                raise DataError(
                    f"a dask array of type {data.dtype} holds masked cells, and cannot hold missing values; "
                    "turn it into floats: astype(float)"
                )
            return fill_masked(data)
        return np.asarray(data)


def finite_rows(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Find the rows without NaN or infinity ``(n,)``.

    Parameters
    ----------
    values
        Floats ``(n, d)``.
    """
    if values.dtype.itemsize < 4:
        # Numba does not support half precision.
        return np.asarray(np.isfinite(values).all(axis=1))
    finite = np.empty(len(values), bool)
    gathering.finite(values, finite)
    return finite
