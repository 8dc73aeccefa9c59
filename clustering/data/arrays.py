"""Reading arrays of npy and npz files."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.readers import (
    FileContents,
    FileVariable,
    VariableGroup,
    in_slabs,
    share_dims,
    unsupported_reason,
    variable_name,
)

_Slabs = Callable[[int], Iterator[NDArray[Any]]]


def read_arrays(path: Path, stack: ExitStack) -> FileContents:
    """Read the numeric arrays of an npy or npz file; each field of a structured array becomes a variable.

    Parameters
    ----------
    path
        File to read. Objects in it are not unpickled.
    stack
        Keeps the file open until the values are read.
    """
    pieces: list[FileVariable] = []
    warnings: list[str] = []
    lengths: dict[str, int] = {}

    def take(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], slabs: _Slabs) -> None:
        if dtype.names is not None and not dtype.hasobject:
            # Fields may be structured themselves.
            for field in dtype.names:
                kind = dtype[field]
                take(f"{name}.{field}" if name else field, (*shape, *kind.shape), kind.base, _field(slabs, field))
            return
        name = name or "values"
        if reason := unsupported_reason(shape, dtype):
            warnings.append(f"array {name!r} is left out: {reason}")
            return
        variable = variable_name(name, {piece.name for piece in pieces})
        if name and variable != name:
            warnings.append(f"array {name!r} becomes variable {variable!r}")
        pieces.append(
            FileVariable(variable, share_dims(_dims(shape), shape, variable, lengths), shape, dtype, slabs, {})
        )

    if not zipfile.is_zipfile(path):
        with path.open("rb") as start:
            shape, _, dtype = _header(start)
        take("", shape, dtype, lambda length: in_slabs(np.load(path, mmap_mode="r", allow_pickle=False))(length))
        return FileContents({"": VariableGroup(pieces, {"title": path.name})}, warnings)
    archive = stack.enter_context(zipfile.ZipFile(path))
    for member in archive.namelist():
        if not member.endswith(".npy"):
            warnings.append(f"{member!r} is left out: it is no array of numpy")
            continue
        with archive.open(member) as file:
            shape, fortran, dtype = _header(file)
        name = member.removesuffix(".npy")
        # A member of an archive can only be read from its start, which gives slabs in C order alone.
        slabs = _loaded(path, name) if fortran and len(shape) > 1 else _member(archive, member, shape, dtype)
        take(name, shape, dtype, slabs)
    return FileContents({"": VariableGroup(pieces, {"title": path.name})}, warnings)


def _dims(shape: tuple[int, ...]) -> tuple[str, ...]:
    return ("row", "feature")[: len(shape)] if len(shape) <= 2 else tuple(f"dim_{i}" for i in range(len(shape)))


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the shape, whether the order is that of Fortran, and the type."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if version >= (3, 0) and dtype.names is not None:
        # Version 3 has field names in UTF-8, and the reader of version 2 decodes them as Latin-1.
        dtype.names = tuple(name.encode("latin-1").decode() for name in dtype.names or ())
    return shape, fortran, dtype


def _field(slabs: _Slabs, field: str) -> _Slabs:
    return lambda length: (slab[field] for slab in slabs(length))


def _loaded(path: Path, name: str) -> _Slabs:
    """Read an array in Fortran order at once, as each slab of it is spread over the whole file."""

    def slabs(length: int) -> Iterator[NDArray[Any]]:
        with np.load(path, allow_pickle=False) as archive:
            yield from in_slabs(archive[name])(length)

    return slabs


def _member(archive: zipfile.ZipFile, member: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Slabs:
    """Read an array in C order slab by slab from an archive."""

    def slabs(length: int) -> Iterator[NDArray[Any]]:
        row = math.prod(shape[1:]) * dtype.itemsize
        with archive.open(member) as file:
            # The header lies before the values and was read already, so it is only skipped.
            _header(file)
            for start in range(0, shape[0], length):
                n = min(length, shape[0] - start)
                yield np.frombuffer(file.read(n * row), dtype).reshape(n, *shape[1:])

    return slabs
