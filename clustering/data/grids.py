"""Reading NetCDF and HDF5 files without decoding: packed numbers stay packed, times stay numbers with their units."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.readers import (
    FileArray,
    FileContents,
    FileVariable,
    VariableGroup,
    fill_value,
    missing_reader,
    share_dims,
    unsupported_reason,
    variable_name,
)
from clustering.deferred import xr
from clustering.errors import DataError


def read_grid(path: Path, stack: ExitStack) -> FileContents:
    """Read the numbers and texts in every group of a NetCDF or HDF5 file.

    Arrays of other types are left out, with a warning for each.

    Parameters
    ----------
    path
        File to read; NetCDF 4 is HDF5.
    stack
        Keeps the file open until the values are read.

    Raises
    ------
    MissingDependencyError
        If h5py is needed and not installed.
    DataError
        If the file is damaged.
    """
    with path.open("rb") as file:
        hdf5 = file.read(3) != b"CDF"
    if hdf5:
        try:
            from clustering.data.hdf5 import read_groups
        except ImportError as error:
            raise missing_reader("h5py", path) from error
        groups, warnings = read_groups(path, stack)
    else:
        groups, warnings = {"": _netcdf3(path, stack)}, []
    taken: dict[str, VariableGroup] = {}
    for group_path, (arrays, attributes) in groups.items():
        group = _group(group_path, arrays, attributes, warnings)
        # The root is kept even when it is empty, as it holds the attributes of the file.
        if group.pieces or group.texts.variables or not group_path:
            taken[group_path] = group
    return FileContents(taken, warnings)


def _netcdf3(path: Path, stack: ExitStack) -> tuple[dict[str, FileArray], Mapping[str, Any]]:
    """Open a NetCDF 3 file, which h5py cannot read; return its arrays and attributes."""
    try:
        # Each slab is read once, so a cache would only take memory.
        opened = xr.open_dataset(
            path, engine="scipy", decode_cf=False, chunks=None, cache=False, create_default_indexes=False
        )
    except (ValueError, TypeError, LookupError) as error:
        raise DataError(f"cannot read {str(path)!r}: the file is cut short, or damaged") from error
    dataset = stack.enter_context(opened)

    def reader(variable: xr.Variable) -> Callable[[int, int], NDArray[Any]]:
        return lambda start, stop: np.asarray((variable[start:stop] if variable.ndim else variable).values)

    arrays = {
        str(name): FileArray(tuple(map(str, v.dims)), v.shape, v.dtype, reader(v), v.attrs, text=v.dtype.kind in "SUO")
        for name, v in dataset.variables.items()
    }
    return arrays, dataset.attrs


def _group(
    path: str, arrays: dict[str, FileArray], attributes: Mapping[str, Any], warnings: list[str]
) -> VariableGroup:
    """Sort the arrays of a group into numbers and texts, with warnings about those that are left out or renamed."""
    prefix = f"{path}/" if path else ""
    pieces: list[FileVariable] = []
    texts = xr.Dataset()
    named = _coordinate_names(arrays, attributes)
    # A coordinate decides the length of its dimension, wherever it lies in the file.
    lengths = {name: array.shape[0] for name, array in arrays.items() if array.dims == (name,)}
    for original, array in arrays.items():
        about = f"variable {prefix + original!r}"
        # Coordinates have the names of their dimensions here, so no name is reserved.
        name = variable_name(original, {piece.name for piece in pieces}, reserved=())
        reason = array.reason or (
            _empty(array) if array.text else (array.shape and unsupported_reason(array.shape, array.dtype)) or ""
        )
        if array.text and not reason:
            try:
                texts[name] = _text(array, _attributes(array, about, warnings))
                continue
            except (ValueError, TypeError, LookupError):
                reason = "its text cannot be read"
        # A scalar is kept although its shape holds no rows, and its type is still unchecked.
        if not reason and array.dtype.kind not in "biuf":
            reason = unsupported_reason((1,), array.dtype)
        if reason:
            warnings.append(f"{about} is left out: {reason}")
            continue
        if name != original:
            warnings.append(f"{about} becomes {name!r}: Zarr keeps such names for itself")
        kept = _attributes(array, about, warnings)
        # Scalars are no data to cluster, and describe the others.
        coordinate = not array.shape or original in array.dims or original in named
        # In Zarr format 3, the byte order belongs to a codec and not to the type.
        dtype = array.dtype.newbyteorder("=")
        dims = share_dims(array.dims, array.shape, name, lengths)
        pieces.append(FileVariable(name, dims, array.shape, dtype, _slabs(array), kept, coordinate))
    own = {k: _json(v) for k, v in attributes.items()}
    return VariableGroup(pieces, _clean(own, f"group {path!r}" if path else "the file", warnings), texts)


def _empty(array: FileArray) -> str:
    return "" if math.prod(array.shape) else f"it is empty, of shape {array.shape}"


def _coordinate_names(arrays: Mapping[str, FileArray], attributes: Mapping[str, Any]) -> set[str]:
    """Collect the names in the attributes ``coordinates``."""
    values = (_json(a.get("coordinates", "")) for a in (attributes, *(array.attributes for array in arrays.values())))
    return {name for value in values if isinstance(value, str) for name in value.split()}


def _slabs(array: FileArray) -> Callable[[int], Iterator[NDArray[Any]]]:
    def slabs(length: int) -> Iterator[NDArray[Any]]:
        # A scalar has no first dimension, and is one slab.
        if not array.shape:
            yield array.read(0, 1)
            return
        for start in range(0, array.shape[0], length):
            yield array.read(start, min(start + length, array.shape[0]))

    return slabs


def _text(array: FileArray, attributes: dict[str, Any]) -> xr.Variable:
    """Read texts; in old files, the characters of a text lie along the last dimension."""
    values = array.read(0, array.shape[0] if array.shape else 1)
    dims = array.dims
    if values.dtype == "S1" and values.ndim:
        values = np.ascontiguousarray(values).view(f"S{values.shape[-1]}")[..., 0]
        dims = dims[:-1]
    encoding = str(attributes.pop("_Encoding", "utf-8"))
    attributes.pop("_FillValue", None)

    def decode(value: Any) -> str:
        return value.decode(encoding, "replace").rstrip("\0") if isinstance(value, bytes) else str(value)

    decoded = np.array([decode(value) for value in values.ravel().tolist()], dtype=object).reshape(values.shape)
    return xr.Variable(dims, decoded, attributes)


def _attributes(array: FileArray, about: str, warnings: list[str]) -> dict[str, Any]:
    """Return the attributes of a variable as JSON holds them, with the fill value in its type."""
    kept = {k: _json(v) for k, v in array.attributes.items()}
    listed = kept.get("coordinates", "")
    if isinstance(listed, list) and all(isinstance(name, str) for name in listed):
        kept["coordinates"] = " ".join(listed)
    elif not isinstance(listed, str):
        warnings.append(f"attribute 'coordinates' of {about} is left out: it is {listed!r}, and names nothing")
        del kept["coordinates"]
    if "_FillValue" in kept and not array.text:
        stated = kept.pop("_FillValue")
        fill = fill_value(stated, array.dtype, str(kept.get("_Unsigned", "")).lower() == "true")
        if fill is None:
            warnings.append(
                f"attribute '_FillValue' of {about} is left out: it is {stated!r}, "
                f"which no number of type {array.dtype} can be"
            )
        else:
            kept["_FillValue"] = fill
    return _clean(kept, about, warnings)


def _json(value: Any) -> Any:
    """Turn values of numpy and bytes into those that JSON has."""
    if isinstance(value, (np.ndarray, list, tuple)) and np.ndim(value):
        return [_json(v) for v in value]
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.dtype.names is None):
        value = value.item()
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _clean(attributes: dict[str, Any], about: str, warnings: list[str]) -> dict[str, Any]:
    """Leave out attributes that JSON cannot hold."""
    for name in [name for name, value in attributes.items() if not _plain(value)]:
        warnings.append(f"attribute {name!r} of {about} is left out: it is neither a number nor text")
        del attributes[name]
    return attributes


def _plain(value: Any) -> bool:
    return all(map(_plain, value)) if isinstance(value, list) else isinstance(value, (str, int, float, bool))
