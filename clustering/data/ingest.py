"""Turning common files into Zarr, a slab at a time.

Values are stored as they are in the file: packed integers stay packed, with their attributes.
"""

from __future__ import annotations

import math
import shutil
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from clustering.data.plan import MIB
from clustering.errors import ConfigError, DataError, MissingDependencyError, OutputError, SourceError, nearest

CHUNK_BYTES = 4 * MIB
"""Wanted size of a chunk, in bytes; smaller data are cut into about eight chunks all the same."""
LEAST_CHUNK_BYTES = 64 * 1024
_BATCH_ROWS = 65_536

IMAGES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp")
ARRAYS = (".npy", ".npz")
TABLES = (".csv", ".parquet", ".pq")
GRIDS = (".nc", ".nc4", ".cdf", ".h5", ".hdf5", ".he5")


@dataclass(frozen=True)
class Ingested:
    """What was written."""

    path: Path
    variables: dict[str, tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...], str]]
    """Name → dimensions, shape, chunks, type."""


@dataclass(frozen=True)
class _Piece:
    """A variable to write: what it looks like, and its values slab by slab along the first dimension."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    slabs: Callable[[int], Iterator[NDArray[Any]]]
    """Given a number of places along the first dimension, yields the values that many at a time."""
    attributes: dict[str, Any]


def ingest(source: str | Path, destination: str | Path, *, overwrite: bool = False) -> Ingested:
    """Convert a file to a Zarr group.

    Parameters
    ----------
    source
        An image, ``.npy``, ``.npz``, ``.csv``, ``.parquet``, NetCDF or HDF5 file.
    destination
        Folder of the Zarr group; it appears when all of it is written.
    overwrite
        Replace a store that is there.

    Raises
    ------
    SourceError
        If the file is not there, or of no known kind.
    DataError
        If it cannot be read.
    OutputError
        If the destination exists or cannot be written.
    MissingDependencyError
        If the package that reads this kind of file is not installed.
    """
    path, target = Path(source), Path(destination)
    if not path.is_file():
        raise SourceError(f"no file at {str(path)!r}; check the path")
    kind = path.suffix.lower()
    readers = {IMAGES: _image, ARRAYS: _arrays, TABLES: _table, GRIDS: _grid}
    reader = next((r for suffixes, r in readers.items() if kind in suffixes), None)
    if reader is None:
        raise SourceError(f"cannot ingest {path.name!r}: unknown kind {kind!r}; {nearest(kind, sum(readers, ()))}")
    if target.exists() and not overwrite:
        raise OutputError(f"{str(target)!r} exists; name another destination, or use --overwrite")
    if target.exists() and not _is_zarr(target):
        raise OutputError(f"{str(target)!r} is not a Zarr store, so it is not replaced; name another destination")
    if target.absolute() == path.absolute():
        raise ConfigError("source and destination are the same; name another destination")
    with _staged(target) as staging, ExitStack() as stack:
        try:
            pieces, attributes, coordinates = reader(path, stack)
        except MissingDependencyError:
            raise
        except (OSError, ValueError, SyntaxError, KeyError, zipfile.BadZipFile) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"cannot read {str(path)!r}: {reason}") from error
        if not pieces:
            raise DataError(f"{str(path)!r} holds no numeric data")
        coordinates.assign_attrs(attributes).to_zarr(staging, mode="w", consolidated=False, zarr_format=3)
        group = zarr.open_group(staging, mode="r+")
        written = {piece.name: _write(group, piece) for piece in pieces}
    return Ingested(target, written)


def _is_zarr(path: Path) -> bool:
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """Give a folder beside the target, and put it in the target's place when all went well."""
    staging = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    made = [p for p in (target.absolute().parent, *target.absolute().parent.parents) if not p.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield staging
        if target.exists():
            shutil.rmtree(target)
        staging.rename(target)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        if isinstance(error, OSError) and not isinstance(error, (DataError, OutputError)):
            raise OutputError(f"cannot write {str(target)!r}: {error.strerror or error}") from error
        raise


def choose_chunks(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Choose chunk lengths: slabs of the leading dimensions, about 4 MiB, and eight or so of smaller data.

    The last dimension, along which the features of an image or a table lie, is left whole if the others allow.
    """
    total = math.prod(shape) * itemsize
    wanted = min(CHUNK_BYTES, max(LEAST_CHUNK_BYTES, total // 8))
    chunks = list(shape)
    for axis in range(len(shape)):
        size = math.prod(chunks) * itemsize
        if size <= wanted:
            break
        chunks[axis] = max(1, round(chunks[axis] * wanted / size))
    return tuple(max(1, c) for c in chunks)


def _write(group: zarr.Group, piece: _Piece) -> tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...], str]:
    chunks = choose_chunks(piece.shape, piece.dtype.itemsize)
    fill = piece.attributes.get("_FillValue")
    array = group.create_array(
        piece.name,
        shape=piece.shape,
        chunks=chunks,
        dtype=piece.dtype,
        dimension_names=piece.dims,
        attributes=piece.attributes,
        fill_value=0 if fill is None or isinstance(fill, str) else fill,
        config={"write_empty_chunks": True},
    )
    start = 0
    length = chunks[0] * max(1, CHUNK_BYTES // max(1, chunks[0] * math.prod(piece.shape[1:]) * piece.dtype.itemsize))
    for slab in piece.slabs(length):
        array[start : start + len(slab)] = slab
        start += len(slab)
    return piece.dims, piece.shape, chunks, str(piece.dtype)


_Read = tuple[list[_Piece], dict[str, Any], xr.Dataset]


def _whole(values: NDArray[Any]) -> Callable[[int], Iterator[NDArray[Any]]]:
    return lambda length: (values[i : i + length] for i in range(0, len(values), length))


def _image(path: Path, stack: ExitStack) -> _Read:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise _lacking("pillow", path) from error
    # Cameras store a turned picture as it fell on the sensor, with a note how to hold it.
    picture: Image.Image = ImageOps.exif_transpose(stack.enter_context(Image.open(path)))
    if picture.mode not in ("L", "RGB", "RGBA", "I;16", "F", "I"):
        picture = picture.convert("RGB")
    pixels = np.asarray(picture)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    piece = _Piece("image", ("y", "x", "channel"), pixels.shape, pixels.dtype, _whole(pixels), {})
    return [piece], {"title": path.name}, xr.Dataset()


def _arrays(path: Path, stack: ExitStack) -> _Read:
    if path.suffix.lower() == ".npy":
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        return [_array_piece("values", mapped.shape, mapped.dtype, _whole(mapped))], {"title": path.name}, xr.Dataset()
    pieces = []
    archive = stack.enter_context(zipfile.ZipFile(path))
    for member in archive.namelist():
        with archive.open(member) as file:
            shape, fortran, dtype = _header(file)
        if dtype.kind in "biuf" and shape:
            if fortran and len(shape) > 1:
                with np.load(path, allow_pickle=False) as loaded:
                    slabs = _whole(loaded[member.removesuffix(".npy")])
            else:
                slabs = _member(archive, member, shape, dtype)
            pieces.append(_array_piece(member.removesuffix(".npy"), shape, dtype, slabs))
    return pieces, {"title": path.name}, xr.Dataset()


def _array_piece(
    name: str, shape: tuple[int, ...], dtype: np.dtype[Any], slabs: Callable[[int], Iterator[NDArray[Any]]]
) -> _Piece:
    if dtype.kind not in "biuf" or not shape:
        raise ValueError(f"the array has type {dtype} and shape {shape}; numbers along a dimension are needed")
    trailing = ("feature",) if len(shape) == 2 else tuple(f"dim_{i}" for i in range(1, len(shape)))
    first = "row" if len(shape) <= 2 else "dim_0"
    # Variables of an archive share the row dimension only where their lengths agree, which xarray checks on opening.
    return _Piece(name, (first, *trailing), shape, dtype, slabs, {})


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


def _table(path: Path, _: ExitStack) -> _Read:
    """Read a table: each numeric column becomes a variable along ``row``."""
    try:
        import pyarrow as pa
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise _lacking("pyarrow", path) from error

    def batches() -> Iterator[Any]:
        if path.suffix.lower() == ".csv":
            with pa.csv.open_csv(path) as reader:
                yield from reader
        else:
            with pa.parquet.ParquetFile(path) as file:
                yield from file.iter_batches(_BATCH_ROWS)

    if path.suffix.lower() == ".csv":
        with pa.csv.open_csv(path) as reader:
            schema = reader.schema
        n = sum(batch.num_rows for batch in batches())
    else:
        with pa.parquet.ParquetFile(path) as file:
            schema, n = file.schema_arrow, file.metadata.num_rows

    pieces = []
    for column in schema:
        if not (
            pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)
        ):
            continue
        # A missing number is a NaN: integer columns with gaps become float64.
        gaps = any(batch.column(column.name).null_count for batch in batches())
        dtype = np.dtype(np.float64) if gaps else np.dtype(column.type.to_pandas_dtype())

        def slabs(length: int, name: str = column.name, dtype: np.dtype[Any] = dtype) -> Iterator[NDArray[Any]]:
            kept: list[NDArray[Any]] = []
            for batch in batches():
                values = batch.column(name)
                if values.null_count:
                    values = values.cast(pa.float64())
                kept.append(values.to_numpy(zero_copy_only=False).astype(dtype))
                if sum(map(len, kept)) >= length:
                    joined = np.concatenate(kept)
                    whole = len(joined) - len(joined) % length
                    yield joined[:whole]
                    kept = [joined[whole:]]
            yield np.concatenate(kept) if kept else np.zeros(0, dtype)

        pieces.append(_Piece(column.name, ("row",), (n,), dtype, slabs, {}))
    return pieces, {"title": path.name}, xr.Dataset()


def _grid(path: Path, stack: ExitStack) -> _Read:
    """Read a NetCDF or HDF5 file as it is stored, without decoding."""
    options: dict[str, Any] = {"decode_cf": False, "chunks": None, "cache": False}
    try:
        dataset = stack.enter_context(xr.open_dataset(path, **options))
    except (ValueError, ImportError) as error:
        try:
            dataset = stack.enter_context(xr.open_dataset(path, engine="h5netcdf", phony_dims="sort", **options))
        except ImportError:
            raise _lacking("h5netcdf", path) from error
    # Coordinates are small and needed whole; data variables are streamed.
    names = [str(n) for n, v in dataset.data_vars.items() if v.dtype.kind in "biuf" and v.ndim]
    small = [n for n in dataset.variables if n not in names and dataset[n].dtype.kind in "biuf"]
    pieces = []
    for name in names:
        array = dataset[name].variable

        def slabs(length: int, array: xr.Variable = array) -> Iterator[NDArray[Any]]:
            for start in range(0, array.shape[0], length):
                yield np.asarray(array[start : start + length].values)

        fill = {"_FillValue": array.encoding["_FillValue"]} if "_FillValue" in array.encoding else {}
        attributes = {k: _json(v) for k, v in {**array.attrs, **fill}.items()}
        if "_FillValue" in attributes and array.dtype.kind == "f":
            attributes["_FillValue"] = xr.backends.zarr.FillValueCoder.encode(attributes["_FillValue"], array.dtype)
        pieces.append(
            _Piece(name, tuple(map(str, array.dims)), array.shape, array.dtype.newbyteorder("="), slabs, attributes)
        )
    coordinates = dataset[small].load()
    for variable in coordinates.variables.values():
        variable.encoding = {}
    return pieces, {k: _json(v) for k, v in dataset.attrs.items()}, coordinates


def _json(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_json(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def _lacking(package: str, path: Path) -> MissingDependencyError:
    return MissingDependencyError(
        f"reading {path.name!r} needs the package {package!r}; pip install 'zarr-clustering[ingest]'"
    )
