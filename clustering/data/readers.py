"""Results of file readers: the variables of a file, read slab by slab, and warnings about parts that are left out.

A reader takes a path and an exit stack, which closes the opened files. It returns `FileContents`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.compat.xarray import encode_fill_value
from clustering.deferred import xr
from clustering.errors import MissingDependencyError


@dataclass(frozen=True)
class FileVariable:
    """A variable to write: its metadata, and its values slab by slab along the first dimension."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    slabs: Callable[[int], Iterator[NDArray[Any]]]
    """Function from the length of a slab, in positions along the first dimension, to an iterator over slabs."""
    attributes: dict[str, Any]
    coordinate: bool = False
    """Whether the variable is a coordinate, such as a time or a bound, and not data."""


@dataclass(frozen=True)
class VariableGroup:
    """The variables and the attributes of one group of a file."""

    pieces: list[FileVariable]
    """Variables of numbers."""
    attributes: dict[str, Any]
    """Attributes of the group."""
    texts: xr.Dataset = field(default_factory=lambda: xr.Dataset())
    """Variables of text, such as names of stations. They are small and written at once."""


@dataclass(frozen=True)
class FileArray:
    """An array in a NetCDF or HDF5 file."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[int, int], NDArray[Any]]
    """Reads the slab from one position to another along the first dimension; for a scalar, reads the value."""
    attributes: Mapping[str, Any]
    reason: str = ""
    """Why the array cannot be stored in Zarr; empty where it can."""
    text: bool = False
    """Whether the values are text."""


@dataclass(frozen=True)
class FileContents:
    """Everything that a reader found in a file."""

    groups: Mapping[str, VariableGroup]
    """Path in the file → group. The path of the root is empty."""
    warnings: list[str]
    """One line for each part that is left out or changed: its name and the reason."""


def in_slabs(values: NDArray[Any]) -> Callable[[int], Iterator[NDArray[Any]]]:
    """Make the function `FileVariable.slabs` for values in memory, or mapped into it.

    Parameters
    ----------
    values
        All values of a variable, with at least one dimension.
    """
    return lambda length: (values[i : i + length] for i in range(0, len(values), length))


def unsupported_reason(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    """Say why an array cannot be stored in Zarr; an empty text where it can.

    Parameters
    ----------
    shape
        Lengths of the dimensions.
    dtype
        Type of the values in the file.
    """
    kinds = {
        "c": "it holds complex numbers; save the real and the imaginary part, each as an array",
        "M": "it holds dates; save them as numbers, such as days",
        "m": "it holds durations; save them as numbers, such as seconds",
        "S": "it holds text",
        "U": "it holds text",
        "T": "it holds text",
        "V": "it holds records or bytes",
    }
    if dtype.hasobject:
        return "it holds Python objects, which only pickle reads, and a pickle can run any program; save it as numbers"
    if dtype.kind not in "biuf":
        return kinds.get(dtype.kind, f"it has type {dtype}")
    if dtype.itemsize > 8:
        return f"it holds numbers of {8 * dtype.itemsize} bits, for which Zarr has no type; save it as float64"
    if not shape:
        return "it is one number, without a dimension"
    return "" if math.prod(shape) else f"it is empty, of shape {shape}"


def share_dims(
    dims: tuple[str, ...], shape: tuple[int, ...], variable: str, lengths: dict[str, int]
) -> tuple[str, ...]:
    """Name the dimensions of a variable so that every dimension of a group has one length.

    A dimension keeps its name where its length agrees with earlier variables. Otherwise the variable gets a dimension
    of its own.

    Parameters
    ----------
    dims
        Wanted names.
    shape
        Length of each dimension.
    variable
        Name of the variable, which starts the names of its own dimensions.
    lengths
        Length of each dimension of earlier variables. New dimensions are added to it.
    """
    return tuple(d if lengths.setdefault(d, n) == n else f"{variable}_{d}" for d, n in zip(dims, shape, strict=True))


def variable_name(name: str, taken: set[str], reserved: tuple[str, ...] = ("row", "feature")) -> str:
    """Find a name that Zarr and xarray allow for a column of a table or an array of a file.

    Parameters
    ----------
    name
        Name in the file.
    taken
        Names of earlier variables of the group.
    reserved
        Names of dimensions, which would make the variable a coordinate.
    """
    # A slash would lead into another group.
    chosen = name.replace("/", "_").strip(".") or "column"
    if chosen.startswith("__") or chosen == "zarr.json":
        # Zarr reserves such names.
        chosen = f"_{chosen.lstrip('_')}"
    while chosen in reserved or chosen in taken:
        chosen += "_"
    return chosen


def fill_value(stated: Any, dtype: np.dtype[Any], unsigned: bool = False) -> Any:
    """Convert a fill value for the attribute ``_FillValue``.

    Parameters
    ----------
    stated
        Fill value in the file: a number, its text, or a list of one number.
    dtype
        Type of the stored values.
    unsigned
        Whether signed integers stand for unsigned ones, by the attribute ``_Unsigned``.

    Returns
    -------
    Any
        A value for JSON; None where no stored value can equal the fill value.
    """
    if isinstance(stated, list):
        stated = stated[0] if len(stated) == 1 else None
    if stated is None:
        return None
    try:
        number = float(stated) if isinstance(stated, str) else stated
        if dtype.kind == "f":
            return encode_fill_value(dtype.type(number).item(), dtype.newbyteorder("="))
        # A fraction or a number beyond the type equals no stored integer, so it would mask nothing.
        whole = int(number)
        if whole != number:
            return None
        if unsigned and dtype.kind == "i" and 0 <= whole < 1 << 8 * dtype.itemsize:
            # The signed number with the same bits.
            return np.array(whole, f"u{dtype.itemsize}").view(f"i{dtype.itemsize}").item()
        return np.array(whole, dtype).item() if dtype.kind != "b" else bool(whole)
    except (TypeError, ValueError, OverflowError):
        return None


def missing_reader(package: str, path: Path) -> MissingDependencyError:
    """Make the error that says which package reads a file.

    Parameters
    ----------
    package
        Name of the package that is not installed.
    path
        The file.
    """
    return MissingDependencyError(
        f"reading {path.name!r} needs the package {package!r}; pip install 'zarr-clustering[ingest]'"
    )
