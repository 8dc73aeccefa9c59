"""Choice of the reader of a file, by its first bytes, or for text by its name."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from clustering.data.arrays import read_arrays
from clustering.data.delimited import read_delimited
from clustering.data.grids import read_grid
from clustering.data.pictures import read_image
from clustering.data.readers import FileContents
from clustering.data.tables import read_table
from clustering.errors import DataError, SourceError, nearest

Reader = Callable[[Path, ExitStack], FileContents]
_KINDS: dict[Reader, tuple[str, tuple[str, ...]]] = {
    read_image: (
        "a picture",
        (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".apng", ".jp2", ".j2k", ".jpx"),
    ),
    read_arrays: ("an array of numpy", (".npy", ".npz")),
    read_table: ("a parquet table", (".parquet", ".pq")),
    read_delimited: ("a table of text", (".csv", ".tsv", ".tab", ".txt", ".dat")),
    read_grid: ("a NetCDF or HDF5 file", (".nc", ".nc4", ".cdf", ".h5", ".hdf5", ".he5")),
}
_PACKED = (".gz", ".bz2", ".xz")
_STARTS: tuple[tuple[int, bytes, Reader], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", read_image),
    (0, b"\xff\xd8\xff", read_image),
    (0, b"II*\0", read_image),
    (0, b"MM\0*", read_image),
    (0, b"II+\0", read_image),
    (0, b"MM\0+", read_image),
    (0, b"GIF8", read_image),
    (8, b"WEBP", read_image),
    (4, b"jP  \r\n\x87\n", read_image),
    (0, b"\xff\x4f\xff\x51", read_image),
    (0, b"\x93NUMPY", read_arrays),
    (0, b"PAR1", read_table),
    (0, b"CDF\x01", read_grid),
    (0, b"CDF\x02", read_grid),
    # HDF5 allows a block of the user before its signature, of 512 bytes or a power of two times that.
    *((place, b"\x89HDF\r\n\x1a\n", read_grid) for place in (0, 512, 1024, 2048)),
)
"""Offset, bytes at this offset, and their reader."""


def find_reader(path: Path) -> tuple[Reader, list[str]]:
    """Choose the reader of a file or folder.

    Parameters
    ----------
    path
        File, which may be compressed if it is text, or folder of parquet files.

    Returns
    -------
    Reader
        The reader.
    list
        Warnings for the user about the choice.

    Raises
    ------
    SourceError
        If there is no file, or no reader for it.
    DataError
        If the file is empty.
    """
    if path.is_dir():
        if any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray")):
            raise SourceError(f"{str(path)!r} is a Zarr store already; name it as source.store of a job")
        return read_table, []
    if not path.is_file():
        raise SourceError(f"no file at {str(path)!r}; check the path")
    if not path.stat().st_size:
        raise DataError(f"cannot read {str(path)!r}: the file is empty")
    inner = path.with_suffix("") if path.suffix.lower() in _PACKED else path
    suffix = inner.suffix.lower()
    named = next((reader for reader, (_, suffixes) in _KINDS.items() if suffix in suffixes), None)
    # The first bytes decide, as names are often wrong.
    held = _by_start(path)
    if held is not None:
        if named in (held, None) and inner == path:
            return held, []
        return held, [f"{path.name!r} holds {_KINDS[held][0]}, although its name differs, and is read as that"]
    if named is None:
        allowed = [suffix for _, suffixes in _KINDS.values() for suffix in suffixes]
        raise SourceError(f"cannot ingest {path.name!r}: unknown kind {suffix!r}; {nearest(suffix, allowed)}")
    if named is not read_delimited and inner != path:
        raise SourceError(f"cannot ingest {path.name!r}: only tables of text are read packed; unpack it first")
    return named, []


def _by_start(path: Path) -> Reader | None:
    """Return the reader by the first bytes; None for text and unknown formats."""
    with path.open("rb") as file:
        # This is the end of the last place in `_STARTS`.
        head = file.read(2056)
    if (
        reader := next((r for offset, mark, r in _STARTS if head[offset : offset + len(mark)] == mark), None)
    ) is not None:
        return reader
    # "BM" may begin a text too, so the reserved bytes of a bitmap's header are checked.
    if head[:2] == b"BM" and len(head) > 14 and int.from_bytes(head[6:10]) == 0 and head[15:18] == b"\0\0\0":
        return read_image
    if head[:4] == b"PK\x03\x04":
        # For a damaged archive, the reader by its name gives a better message.
        with suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(path) as archive:
            return read_arrays if any(name.endswith(".npy") for name in archive.namelist()) else None
    return None
