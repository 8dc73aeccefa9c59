"""Turning common files into Zarr, a slab at a time.

Values are stored as they are in the file: packed integers stay packed, with their attributes.
"""

from __future__ import annotations

import errno
import math
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from clustering.data.file_kinds import find_reader
from clustering.data.ownership import INGESTED, check_place, check_target, mark_folder
from clustering.data.plan import MIB
from clustering.data.readers import FileContents, FileVariable
from clustering.data.replacing import staged
from clustering.deferred import zarr
from clustering.errors import ClusteringError, DataError, PlaceError, SourceError

CHUNK_BYTES = 4 * MIB
"""Wanted size of a chunk, in bytes. Smaller data are still cut into about eight chunks."""
LEAST_CHUNK_BYTES = 64 * 1024
"""Smallest wanted size of a chunk, in bytes. Very small data get fewer than eight chunks."""


@dataclass(frozen=True)
class Ingested:
    """Result of `ingest`."""

    path: Path
    """Folder of the new store."""
    variables: dict[str, tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...], str]]
    """Name → dimensions, shape, chunks, type. Names in a group of the file start with its path."""
    warnings: tuple[str, ...] = ()
    """One line for each part of the file that was left out or changed: its name and the reason."""


def ingest(source: str | Path, destination: str | Path, *, overwrite: bool = False) -> Ingested:
    """Convert a file to a Zarr group.

    Parameters
    ----------
    source
        An image, ``.npy``, ``.npz``, ``.csv``, ``.parquet``, NetCDF or HDF5 file; a folder of parquet files.
    destination
        Local folder of the new Zarr group. It appears once all of it is written.
    overwrite
        Whether to replace a store that `ingest` wrote. Anything else at the destination is never replaced.

    Returns
    -------
    Ingested
        The written variables, and warnings about parts that were left out.

    Raises
    ------
    SourceError
        If the file does not exist or its kind is unknown.
    DataError
        If the file cannot be read or holds no numbers.
    OutputError
        If the destination exists or cannot be written.
    MissingDependencyError
        If the package that reads this kind of file is not installed.
    """
    if "://" in str(source):
        raise SourceError(f"cannot ingest {str(source)!r}: name a local path; download the file first")
    path, target = Path(source), destination_of(destination)
    with _reading(path):
        # A file of an unknown kind is refused before anything is written.
        reader, notes = find_reader(path)
    with writing_to(target, overwrite) as staging, ExitStack() as stack, _reading(path):
        contents = reader(path, stack)
        lines = (*notes, *contents.warnings)
        if not any(math.prod(piece.shape) for group in contents.groups.values() for piece in group.pieces):
            raise DataError(f"{str(path)!r} holds nothing that can be converted{_first(lines)}")
        return Ingested(target, _write(staging, contents), lines)


def _first(lines: tuple[str, ...]) -> str:
    """Join the first three reasons, and count the rest."""
    more = f"; and {len(lines) - 3} more" if len(lines) > 3 else ""
    return f": {'; '.join(lines[:3])}{more}" if lines else ": no numbers"


def _write(
    staging: Path, contents: FileContents
) -> dict[str, tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...], str]]:
    """Write each group of a file as a group of the store; see `Ingested.variables` for the result."""
    written = {}
    root = zarr.open_group(staging, mode="w", zarr_format=3)
    for path, group in contents.groups.items():
        group.texts.assign_attrs(group.attributes).to_zarr(
            staging, group=path or None, mode="a", consolidated=False, zarr_format=3
        )
        store = root.require_group(path) if path else root
        for piece in group.pieces:
            shapes = write_piece(store, piece)
            if not piece.coordinate:
                written[f"{path}/{piece.name}".lstrip("/")] = shapes
    return written


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Errors of the destination: disk full, quota used up, file too big, read-only."""


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn any error of reading a file into a DataError that names the file.

    Readers raise errors of any kind on damaged files. The texts of the types listed below are fit for users. Texts of
    other types describe the inside of the reader.
    """
    try:
        with warnings.catch_warnings():
            # Pillow raises an error for real damage; its warnings add nothing.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    except ClusteringError:
        raise
    except Exception as error:
        # Errors about another file, or about a full disk, are no damage of this file.
        elsewhere = isinstance(error, OSError) and error.filename is not None and Path(str(error.filename)) != path
        if elsewhere or getattr(error, "errno", None) in _FULL:
            raise
        said = isinstance(error, (OSError, RuntimeError, ValueError, SyntaxError, zipfile.BadZipFile, zlib.error))
        reason = str(error).splitlines()[0] if said and str(error) else ""
        if not reason or re.search(r"\w(Error|Exception)\b", reason):
            memory = isinstance(error, MemoryError)
            reason = "it takes more memory than there is" if memory else "it is damaged, or of a kind not known here"
        raise DataError(f"cannot read {str(path)!r}: {reason}") from error


def destination_of(destination: str | Path) -> Path:
    """Check that a destination is a local path that a new store may be written to.

    Parameters
    ----------
    destination
        Path of a folder, which may not exist yet.

    Raises
    ------
    OutputError
        For a URL, and for a place that `check_place` refuses.
    """
    if "://" in str(destination):
        raise PlaceError(f"cannot write to {str(destination)!r}: name a local path, and copy the store from there")
    return check_place(str(destination))


@contextmanager
def writing_to(target: Path, overwrite: bool) -> Iterator[Path]:
    """Give a staging folder to write a group to, and move it to the target once the body has ended without error.

    Parameters
    ----------
    target
        Final folder of the group.
    overwrite
        Whether a store that `ingest` wrote may be replaced.

    Raises
    ------
    OutputError
        If the target exists and may not be replaced, or the disk refuses to write.
    """

    def check() -> None:
        check_target(target, INGESTED, overwrite, "--overwrite")

    with staged(target, check) as staging:
        yield staging
        # The mark holds a digest of all metadata, so it is written last.
        mark_folder(staging, INGESTED)


def choose_chunks(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Choose chunk lengths: slabs of about 4 MiB, or about eight slabs where the data are smaller.

    Leading dimensions are cut first. The last dimension usually holds the features of an image or a table, so it stays
    whole where the others allow.

    Parameters
    ----------
    shape
        Lengths of the dimensions.
    itemsize
        Size of one value in bytes.
    """
    total = math.prod(shape) * itemsize
    wanted = min(CHUNK_BYTES, max(LEAST_CHUNK_BYTES, total // 8))
    chunks = list(shape)
    for axis in range(len(shape)):
        rest = math.prod(chunks[axis + 1 :]) * itemsize
        if chunks[axis] * rest <= wanted:
            break
        # Cut this dimension down to 1 before the next one is cut, so that every chunk is contiguous in the file.
        chunks[axis] = max(1, wanted // rest)
    return tuple(chunks)


def write_piece(
    group: zarr.Group, piece: FileVariable, chunks: tuple[int, ...] | None = None
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...], str]:
    """Write a variable, whole chunks at a time.

    Parameters
    ----------
    group
        Group that gets the new array.
    piece
        Variable of the file.
    chunks
        Chunk lengths; by `choose_chunks` where None.

    Returns
    -------
    tuple
        Dimensions, shape, chunks, type.
    """
    chunks = chunks or choose_chunks(piece.shape, piece.dtype.itemsize)
    fill = piece.attributes.get("_FillValue")
    array = group.create_array(
        piece.name,
        shape=piece.shape,
        chunks=chunks,
        dtype=piece.dtype,
        dimension_names=piece.dims,
        attributes=piece.attributes,
        # The attribute of floats holds text in base64, which is no fill value of an array.
        fill_value=0 if fill is None or isinstance(fill, str) else fill,
        # Zstandard stores a checksum inside the compressed data, and every reader verifies it.
        compressors=zarr.codecs.ZstdCodec(level=0, checksum=True),
        # zarr would leave out chunks of fill values alone, which would then count as absent.
        config={"write_empty_chunks": True},
    )
    if not piece.shape:
        array[...] = next(piece.slabs(1))
        return piece.dims, piece.shape, chunks, str(piece.dtype)
    start = 0
    # A slab is a whole number of chunks, so that no chunk is written twice.
    length = chunks[0] * max(1, CHUNK_BYTES // max(1, chunks[0] * math.prod(piece.shape[1:]) * piece.dtype.itemsize))
    for slab in piece.slabs(length):
        array[start : start + len(slab)] = slab
        start += len(slab)
    return piece.dims, piece.shape, chunks, str(piece.dtype)
