"""Readers of common files: each finds the variables in a file and yields their values slab by slab.

A reader takes a path and an exit stack that closes what it opens, and returns the variables, the attributes of the
file, and the coordinates.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends.zarr import FillValueCoder

from clustering.errors import MissingDependencyError

_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Piece:
    """A variable to write: what it looks like, and its values slab by slab along the first dimension."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    slabs: Callable[[int], Iterator[NDArray[Any]]]
    """Given a number of places along the first dimension, yields the values that many at a time."""
    attributes: dict[str, Any]


Read = tuple[list[Piece], dict[str, Any], xr.Dataset]


def _whole(values: NDArray[Any]) -> Callable[[int], Iterator[NDArray[Any]]]:
    return lambda length: (values[i : i + length] for i in range(0, len(values), length))


def read_image(path: Path, stack: ExitStack) -> Read:
    """Read a picture, upright: a row of channels for each pixel."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise _lacking("pillow", path) from error
    # The limit guards servers against strangers' files; this file is the user's own.
    Image.MAX_IMAGE_PIXELS = None
    # Cameras store a turned picture as it fell on the sensor, with a note how to hold it.
    picture: Image.Image = ImageOps.exif_transpose(stack.enter_context(Image.open(path)))
    if picture.mode not in ("L", "RGB", "RGBA", "I;16", "F", "I"):
        picture = picture.convert("RGB")
    pixels = np.asarray(picture)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    piece = Piece("image", ("y", "x", "channel"), pixels.shape, pixels.dtype, _whole(pixels), {})
    return [piece], {"title": path.name}, xr.Dataset()


def read_arrays(path: Path, stack: ExitStack) -> Read:
    """Read the numeric arrays of an npy or npz file."""
    attributes = {"title": path.name}
    if path.suffix.lower() == ".npy":
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        _numeric(mapped.shape, mapped.dtype)
        return (
            [Piece("values", _array_dims(mapped.shape), mapped.shape, mapped.dtype, _whole(mapped), {})],
            attributes,
            xr.Dataset(),
        )
    pieces: list[Piece] = []
    lengths: dict[str, int] = {}
    archive = stack.enter_context(zipfile.ZipFile(path))
    for member in archive.namelist():
        if not member.endswith(".npy"):
            continue
        with archive.open(member) as file:
            shape, fortran, dtype = _header(file)
        if dtype.kind not in "biuf" or not shape:
            continue
        name = member.removesuffix(".npy")
        variable = _variable_name(name, {piece.name for piece in pieces})
        slabs = (
            _whole(stack.enter_context(np.load(path, allow_pickle=False))[name])
            if fortran and len(shape) > 1
            else _member(archive, member, shape, dtype)
        )
        dims = _array_dims(shape)
        # Variables share a dimension where their lengths agree; another length is another dimension.
        dims = tuple(
            d if lengths.setdefault(d, n) == n else f"{variable}_{d}" for d, n in zip(dims, shape, strict=True)
        )
        pieces.append(Piece(variable, dims, shape, dtype, slabs, {}))
    return pieces, attributes, xr.Dataset()


def _array_dims(shape: tuple[int, ...]) -> tuple[str, ...]:
    return ("row", "feature")[: len(shape)] if len(shape) <= 2 else tuple(f"dim_{i}" for i in range(len(shape)))


def _numeric(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "biuf" or not shape:
        raise ValueError(f"the array has type {dtype} and shape {shape}; numbers along a dimension are needed")


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def _member(
    archive: zipfile.ZipFile, member: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Callable[[int], Iterator[NDArray[Any]]]:
    def slabs(length: int) -> Iterator[NDArray[Any]]:
        row = math.prod(shape[1:]) * dtype.itemsize
        with archive.open(member) as file:
            _header(file)
            for start in range(0, shape[0], length):
                n = min(length, shape[0] - start)
                yield np.frombuffer(file.read(n * row), dtype).reshape(n, *shape[1:])

    return slabs


def read_table(path: Path, _: ExitStack) -> Read:
    """Read a table: each numeric column becomes a variable along ``row``."""
    try:
        import pyarrow as pa
        import pyarrow.compute
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise _lacking("pyarrow", path) from error

    def batches(column: str, kind: Any) -> Iterator[Any]:
        if path.suffix.lower() != ".csv":
            with pa.parquet.ParquetFile(path) as file:
                yield from file.iter_batches(_BATCH_ROWS, columns=[column])
            return
        options = pa.csv.ConvertOptions(column_types={column: kind}, include_columns=[column])
        with pa.csv.open_csv(path, convert_options=options) as reader:
            yield from reader

    columns, n = _csv_columns(path, pa) if path.suffix.lower() == ".csv" else _parquet_columns(path, pa)
    names = list(columns)
    if len(set(names)) != len(names):
        raise ValueError("two columns have the same name")
    pieces: list[Piece] = []
    for column, dtype in columns.items():

        def slabs(length: int, column: str = column, dtype: np.dtype[Any] = dtype) -> Iterator[NDArray[Any]]:
            kept: list[NDArray[Any]] = []
            for batch in batches(column, pa.from_numpy_dtype(dtype)):
                kept.append(_numbers(batch.column(column), dtype))
                if sum(map(len, kept)) >= length:
                    joined = np.concatenate(kept)
                    whole = len(joined) - len(joined) % length
                    yield joined[:whole]
                    kept = [joined[whole:]]
            yield np.concatenate(kept) if kept else np.zeros(0, dtype)

        pieces.append(Piece(_variable_name(column, {p.name for p in pieces}), ("row",), (n,), dtype, slabs, {}))
    return pieces, {"title": path.name}, xr.Dataset()


def _numbers(column: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Turn a column of a batch into numbers; a gap is a NaN."""
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values.astype(dtype)


def _variable_name(name: str, taken: set[str]) -> str:
    """Name the variable of a column or a member: slashes and names of dimensions have a meaning of their own."""
    found = name.replace("/", "_").strip(".") or "column"
    while found in ("row", "feature") or found in taken:
        found += "_"
    return found


def _parquet_columns(path: Path, pa: Any) -> tuple[dict[str, np.dtype[Any]], int]:
    """Find the numeric columns with their types, and the number of rows. An integer column with gaps is float64."""
    with pa.parquet.ParquetFile(path) as file:
        gaps: set[str] = set()
        for batch in file.iter_batches(_BATCH_ROWS):
            gaps |= {name for name in batch.schema.names if batch.column(name).null_count}
        kinds = {column.name: column.type for column in file.schema_arrow}
        return _numeric_columns(kinds, gaps, pa), file.metadata.num_rows


def _csv_columns(path: Path, pa: Any) -> tuple[dict[str, np.dtype[Any]], int]:
    """Do so for a csv file, whose types show only when all of it was seen: it is read once as text."""
    with pa.csv.open_csv(path) as reader:
        names = reader.schema.names
    if len(set(names)) != len(names):
        raise ValueError("two columns have the same name")
    text = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True)
    candidates: dict[str, list[Any]] = {name: [pa.int64(), pa.float64(), pa.bool_()] for name in names}
    gaps: set[str] = set()
    n = 0
    with pa.csv.open_csv(path, convert_options=text) as reader:
        for batch in reader:
            n += batch.num_rows
            for name in names:
                values = batch.column(name)
                gaps |= {name} if values.null_count else set()
                candidates[name] = [kind for kind in candidates[name] if _casts(values, kind, pa)]
    return _numeric_columns(
        {name: kinds[0] if kinds else pa.string() for name, kinds in candidates.items()}, gaps, pa
    ), n


def _casts(values: Any, kind: Any, pa: Any) -> bool:
    try:
        pa.compute.utf8_trim_whitespace(values).cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _numeric_columns(kinds: dict[str, Any], gaps: set[str], pa: Any) -> dict[str, np.dtype[Any]]:
    known = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    numeric = {name: kind for name, kind in kinds.items() if any(is_kind(kind) for is_kind in known)}
    return {
        name: np.dtype(np.float64)
        if name in gaps and not pa.types.is_floating(kind)
        else np.dtype(kind.to_pandas_dtype())
        for name, kind in numeric.items()
    }


def read_grid(path: Path, stack: ExitStack) -> Read:
    """Read a NetCDF or HDF5 file as it is stored: packed numbers stay packed."""
    dataset = stack.enter_context(_open_grid(path))
    # Coordinates are small and needed whole; data variables are streamed.
    names = [str(n) for n, v in dataset.data_vars.items() if v.dtype.kind in "biuf" and v.ndim]
    pieces = []
    for name in names:
        array = dataset[name].variable

        def slabs(length: int, array: xr.Variable = array) -> Iterator[NDArray[Any]]:
            for start in range(0, array.shape[0], length):
                yield np.asarray(array[start : start + length].values)

        fill = {"_FillValue": array.encoding["_FillValue"]} if "_FillValue" in array.encoding else {}
        attributes = {k: _json(v) for k, v in {**array.attrs, **fill}.items() if k not in _HDF5}
        if "_FillValue" in attributes:
            attributes["_FillValue"] = FillValueCoder.encode(
                np.asarray(attributes["_FillValue"], array.dtype).item(), array.dtype
            )
        own = [str(c) for c in dataset[name].coords if c not in dataset.dims]
        if own:
            attributes["coordinates"] = " ".join(own)
        dims = tuple(map(str, array.dims))
        pieces.append(Piece(name, dims, array.shape, array.dtype.newbyteorder("="), slabs, attributes))
    coordinates = xr.decode_cf(dataset.drop_vars(names)).load()
    for variable in coordinates.variables.values():
        kept = ("units", "calendar", "dtype", "scale_factor", "add_offset", "_FillValue")
        variable.encoding = {
            k: v for k, v in variable.encoding.items() if k in kept and not (k == "dtype" and v.kind in "SO")
        }
    return pieces, {k: _json(v) for k, v in dataset.attrs.items()}, coordinates


_HDF5 = ("DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME", "_Netcdf4Dimid", "_Netcdf4Coordinates", "_nc3_strict")
"""Attributes by which HDF5 files link their dimensions; without meaning elsewhere."""


def _open_grid(path: Path) -> xr.Dataset:
    """Open a file without decoding; of HDF5 files, too, whose dimensions have no names."""
    options: dict[str, Any] = {
        "mask_and_scale": False,
        "decode_times": False,
        "decode_timedelta": False,
        "chunks": None,
        "cache": False,
    }
    with path.open("rb") as file:
        hdf5 = file.read(8) == b"\x89HDF\r\n\x1a\n"
    try:
        if hdf5:
            return xr.open_dataset(path, engine="h5netcdf", phony_dims="sort", **options)
        return xr.open_dataset(path, engine="scipy", **options)
    except (ImportError, ModuleNotFoundError) as error:
        raise _lacking("h5netcdf" if hdf5 else "scipy", path) from error


def _json(value: Any) -> Any:
    if isinstance(value, (np.ndarray, list, tuple)) and np.ndim(value):
        return [_json(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _lacking(package: str, path: Path) -> MissingDependencyError:
    return MissingDependencyError(
        f"reading {path.name!r} needs the package {package!r}; pip install 'zarr-clustering[ingest]'"
    )
