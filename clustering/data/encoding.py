"""Encodings to write decoded variables to Zarr again: their own where it works, a plain one where it does not."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from clustering.deferred import xr, zarr
from clustering.errors import SourceError

PART = 16 * 2**20
"""Size of the parts in which larger variables are read, in bytes."""
_COMPARED = 1000
"""Largest number of dates that are compared one by one."""
_STORED = ("_FillValue", "missing_value", "scale_factor", "add_offset", "_Unsigned", "dtype", "calendar", "coordinates")
"""Attributes about the storage of numbers. They conflict with an encoding that has them too."""


def in_memory(dims: str | tuple[Any, ...], values: Any, attributes: Mapping[str, Any] | None = None) -> xr.Variable:
    """Make a variable of values in memory.

    To find out whether values are a dask array, xarray loads ``dask.array``, which takes as long as writing a model.

    Parameters
    ----------
    dims
        Names of the dimensions.
    values
        An ndarray, or what becomes one.
    attributes
        Attributes of the variable.
    """
    array = np.asarray(values)
    # Objects and dates may have to be converted first, and xarray does so where it looks at the values.
    return xr.Variable(dims, array, attributes, fastpath=array.dtype.kind in "biufU")


def part_length(variable: xr.Variable) -> int:
    """Return the number of positions along the first dimension in a part of `PART` bytes, 1 or more.

    Parameters
    ----------
    variable
        Variable of any size; the values are not read.
    """
    return max(1, PART * variable.shape[0] // max(1, variable.nbytes)) if variable.ndim else 1


def encodable(name: str, variable: xr.Variable) -> xr.Variable:
    """Return a variable with an encoding in which it can be written to Zarr and read again unchanged.

    Of a variable larger than a part, only the first part is tried.

    Parameters
    ----------
    name
        Name of the variable.
    variable
        Decoded variable; it may be lazy.

    Raises
    ------
    SourceError
        If there is no such encoding, or the variable cannot be read. The message holds the reason alone.
    """
    try:
        # Reading comes before writing, so that the message says which of the two failed.
        tried = variable[: part_length(variable)] if variable.ndim else variable
        tried = in_memory(tried.dims, tried.values)
    except Exception as error:
        raise SourceError(f"it cannot be read ({reason_of(error)})") from error
    reason = ""
    # From the encoding that keeps most to the one that almost always works.
    for encoding, attributes in (
        (variable.encoding, variable.attrs),
        _plain(variable),
        ({}, _json_attributes(variable)),
    ):
        try:
            if _round_trips(name, _as(tried, encoding, attributes)):
                return _as(variable, encoding, attributes)
            # The fault of the own encoding says most about the variable.
            reason = reason or "the values that are read back differ from those written"
        except Exception as error:
            reason = reason or reason_of(error)
    raise SourceError(f"it cannot be written ({reason})")


def split_writable(given: xr.Dataset) -> tuple[xr.Dataset, dict[str, str]]:
    """Split off the variables of a dataset that cannot be written.

    Parameters
    ----------
    given
        Decoded dataset.

    Returns
    -------
    xarray.Dataset
        Variables that can be written, with encodings from `encodable`.
    dict
        Reasons why the others cannot, by name.
    """
    kept: dict[str, xr.Variable] = {}
    reasons = {}
    for name, variable in given.variables.items():
        try:
            kept[str(name)] = encodable(str(name), variable)
        except SourceError as error:
            reasons[str(name)] = str(error)
    variables = {name: variable for name, variable in kept.items() if name in given.data_vars}
    coordinates = {name: variable for name, variable in kept.items() if name not in variables}
    return dataset(variables, coordinates, given.attrs), reasons


def reason_of(error: Exception) -> str:
    """Return the message of an error in one line, or its type where it has none.

    Parameters
    ----------
    error
        Any exception.
    """
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _as(variable: xr.Variable, encoding: Mapping[Any, Any], attributes: Mapping[Any, Any]) -> xr.Variable:
    other = variable.copy(deep=False)
    other.attrs, other.encoding = dict(attributes), dict(encoding)
    return other


def _plain(variable: xr.Variable) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return encoding and attributes that leave the storage to xarray, which also chooses the units of times."""
    timed = variable.dtype.kind in "mM" or "calendar" in variable.encoding
    dropped = (*_STORED, "units") if timed else _STORED
    # All other keys of the encoding are about the storage of numbers.
    encoding = {key: value for key, value in variable.encoding.items() if key == "coordinates"}
    return encoding, {str(key): value for key, value in variable.attrs.items() if key not in dropped}


def _json_attributes(variable: xr.Variable) -> dict[str, Any]:
    """Keep the attributes that JSON can hold, with units of undecoded times under a name that no reader decodes."""
    kept = {}
    for key, value in _plain(variable)[1].items():
        plain = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
        try:
            json.dumps(plain)
        except (TypeError, ValueError):
            continue
        kept["undecoded_units" if key == "units" and " since " in str(plain) else key] = plain
    return kept


def _round_trips(name: str, variable: xr.Variable) -> bool:
    """Write a variable to memory, and return whether xarray reads it back unchanged."""
    store: Any = zarr.storage.MemoryStore()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # A coordinate may have the name of its dimension, while a data variable may not.
        dataset(coordinates={name: variable}).to_zarr(store, consolidated=False, zarr_format=3)
        back = xr.open_dataset(store, engine="zarr", consolidated=False, chunks=None, create_default_indexes=False)
        return name in back.variables and _same(variable, back[name].variable)


def _same(before: xr.Variable, after: xr.Variable) -> bool:
    """Compare values; dates of cftime may come back as those of numpy."""
    import cftime

    if before.dtype.kind == "O" and after.dtype.kind == "M":
        dates = before.values.ravel()[:_COMPARED], after.values.ravel()[:_COMPARED]
        return all(
            isinstance(a, cftime.datetime) and np.datetime64(a.isoformat()) == b for a, b in zip(*dates, strict=True)
        )
    return bool(before.equals(after))  # type: ignore[no-untyped-call]


def dataset(
    variables: Mapping[str, xr.Variable] | None = None,
    coordinates: Mapping[str, xr.Variable] | None = None,
    attributes: Mapping[Any, Any] | None = None,
) -> xr.Dataset:
    """Make a dataset without indexes, as an index would read its labels into memory.

    Parameters
    ----------
    variables
        Data variables by name.
    coordinates
        Coordinates by name.
    attributes
        Attributes of the dataset.
    """
    return xr.Dataset(variables or {}, xr.Coordinates(coordinates or {}, indexes={}), attributes)
