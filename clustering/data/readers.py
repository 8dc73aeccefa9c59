"""What every reader of a file gives: the variables in it, slab by slab, and what it leaves out.

A reader takes a path and an exit stack that closes what it opens, and returns `FileContents`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends.zarr import FillValueCoder

from clustering.errors import MissingDependencyError


@dataclass(frozen=True)
class FileVariable:
    """A variable to write: what it looks like, and its values slab by slab along the first dimension."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    slabs: Callable[[int], Iterator[NDArray[Any]]]
    """Given a number of places along the first dimension, yields the values that many at a time."""
    attributes: dict[str, Any]
    coordinate: bool = False
    """Whether it says where the data lie, and is no data itself."""


@dataclass(frozen=True)
class VariableGroup:
    """Variables that lie together, with the attributes that they share."""

    pieces: list[FileVariable]
    attributes: dict[str, Any]
    texts: xr.Dataset = field(default_factory=xr.Dataset)
    """Variables of text, such as names of stations."""


@dataclass(frozen=True)
class FileArray:
    """An array in a NetCDF or HDF5 file."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[int, int], NDArray[Any]]
    """Reads from one place to another along the first dimension; of a scalar, the value."""
    attributes: Mapping[str, Any]
    reason: str = ""
    """Why it cannot be taken."""
    text: bool = False


@dataclass(frozen=True)
class FileContents:
    """What a reader takes from a file."""

    groups: Mapping[str, VariableGroup]
    """By their path in the file; the root is an empty path."""
    warnings: list[str]
    """A line for each thing that is left out or changed: its name, and why."""


def in_slabs(values: NDArray[Any]) -> Callable[[int], Iterator[NDArray[Any]]]:
    """Give slabs of values that are there at once."""
    return lambda length: (values[i : i + length] for i in range(0, len(values), length))


def unsupported_reason(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    """Say why an array is not taken; an empty text where it is."""
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
    """Name dimensions: variables share one where their lengths agree; another length is another dimension.

    `lengths` holds the length of each dimension so far, and is added to.
    """
    return tuple(d if lengths.setdefault(d, n) == n else f"{variable}_{d}" for d, n in zip(dims, shape, strict=True))


def variable_name(name: str, taken: set[str], reserved: tuple[str, ...] = ("row", "feature")) -> str:
    """Name the variable of a column or a member: slashes and names of dimensions have a meaning of their own."""
    chosen = name.replace("/", "_").strip(".") or "column"
    if chosen.startswith("__") or chosen == "zarr.json":
        # Zarr keeps such names for itself.
        chosen = f"_{chosen.lstrip('_')}"
    while chosen in reserved or chosen in taken:
        chosen += "_"
    return chosen


def fill_value(stated: Any, dtype: np.dtype[Any], unsigned: bool = False) -> Any:
    """Write a fill value of any type as the attribute of a variable has it; None where none of its numbers is that."""
    if isinstance(stated, list):
        stated = stated[0] if len(stated) == 1 else None
    if stated is None:
        return None
    try:
        number = float(stated) if isinstance(stated, str) else stated
        if dtype.kind == "f":
            return FillValueCoder.encode(dtype.type(number).item(), dtype.newbyteorder("="))
        whole = int(number)
        if whole != number:
            return None
        if unsigned and dtype.kind == "i" and 0 <= whole < 1 << 8 * dtype.itemsize:
            # The same bits, read as a signed number.
            return np.array(whole, f"u{dtype.itemsize}").view(f"i{dtype.itemsize}").item()
        return np.array(whole, dtype).item() if dtype.kind != "b" else bool(whole)
    except (TypeError, ValueError, OverflowError):
        return None


def missing_reader(package: str, path: Path) -> MissingDependencyError:
    """Say which package reads a file."""
    return MissingDependencyError(
        f"reading {path.name!r} needs the package {package!r}; pip install 'zarr-clustering[ingest]'"
    )
