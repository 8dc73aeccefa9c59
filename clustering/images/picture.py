"""Pictures of files, stores and arrays: any part of them is read as ``(y, x, channel)`` of 8 or 16 bits."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.pictures import read_image
from clustering.data.readers import missing_reader
from clustering.deferred import xr, zarr
from clustering.errors import DataError, MissingDependencyError, SourceError, nearest, reason

logger = logging.getLogger(__name__)

Pixels = NDArray[Any]
"""Numbers of type ``uint8`` or ``uint16`` ``(y, x, channel)``."""
CHANNELS = ("channel", "channels", "c", "band", "bands", "rgb", "colour", "color")
"""Names of dimensions that hold channels."""
ALPHA = {2: "grey and alpha", 4: "red, green, blue and alpha"}
_COUNTS = (1, 3, 4)
"""Lengths at which a last dimension without a telling name holds channels."""
_INKS = ("CMYK", "YCbCr", "LAB", "HSV")
"""Pillow modes whose channels are no red, green and blue."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture, of which any part can be read."""

    name: str
    """Name for outputs: that of the file or store without its ending, with the page where there are several."""
    shape: tuple[int, int, int]
    """Height, width, and number of channels: 1 or 3."""
    dtype: np.dtype[Any]
    """``uint8`` or ``uint16``."""
    read: Callable[[slice, slice], Pixels]
    """Function from rows and columns of pixels to their numbers ``(y, x, channel)``."""
    in_memory: bool = True
    chunks: tuple[int, int] = (0, 0)
    """Lengths of the chunks along y and x; 0 where the picture has none."""
    dims: tuple[str, str] = ("y", "x")
    coords: Mapping[str, xr.Variable] = field(default_factory=dict)
    """Coordinates along y and x as they are stored, by dimension."""

    @property
    def peak(self) -> int:
        """The largest number that a pixel may have."""
        return int(np.iinfo(self.dtype).max)

    @property
    def nbytes(self) -> int:
        """Size of all numbers, in bytes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def pixels(self) -> Pixels:
        """Read the whole picture ``(y, x, channel)``."""
        return self.read(slice(None), slice(None))


def open_pictures(images: Any) -> tuple[Picture, ...]:
    """Open pictures. Files are decoded, and of stores only metadata are read.

    Parameters
    ----------
    images
        Path of an image or of a Zarr store; an array ``(y, x)``, ``(y, x, channel)``, ``(page, y, x)`` or
        ``(page, y, x, channel)`` of numpy, zarr, dask or xarray; or a list of these.

    Returns
    -------
    tuple of Picture
        A picture for each page, with names that differ.

    Raises
    ------
    SourceError
        If an image is not there, or is none that can be used.
    MissingDependencyError
        If Pillow is needed and not installed.
    """
    many = list(images) if isinstance(images, (list, tuple)) else [images]
    if not many:
        raise SourceError("there is no image; name one at least")
    opened = [picture for i, image in enumerate(many) for picture in _open(image, f"image-{i + 1}")]
    return tuple(_with_own_names(opened))


def check_png() -> None:
    """Check that PNG files can be written.

    Raises
    ------
    MissingDependencyError
        If Pillow is not installed.
    """
    if find_spec("PIL") is None:
        raise MissingDependencyError("PNG files need the package 'pillow'; pip install 'zarr-clustering[ingest]'")


def _with_own_names(pictures: Sequence[Picture]) -> Iterator[Picture]:
    """Add numbers to names that were there before."""
    seen: set[str] = set()
    for picture in pictures:
        name, number = picture.name, 2
        while name in seen:
            name, number = f"{picture.name}-{number}", number + 1
        seen.add(name)
        yield replace(picture, name=name)


def _open(image: Any, name: str) -> Iterator[Picture]:
    if isinstance(image, (str, os.PathLike)):
        text = os.fspath(image)
        path = Path(text)
        if "://" not in text and not path.exists():
            raise SourceError(f"there is no image {text!r}; check the path")
        if "://" in text or path.is_dir():
            yield from _of_store(text)
        else:
            yield from _of_file(path)
    elif isinstance(image, xr.DataArray):
        coords = {str(d): image[d].variable for d in image.dims if d in image.coords}
        yield from _of_array(
            image.data, _file_name(str(image.name or name)), tuple(map(str, image.dims)), coords, repr(name)
        )
    elif hasattr(image, "shape") and hasattr(image, "dtype"):
        yield from _of_array(image, name, (), {}, name)
    else:
        raise SourceError(f"{name} is a {type(image).__name__}; give a path, or an array (y, x) or (y, x, channel)")


def _file_name(name: str) -> str:
    """Replace what would lead to another folder."""
    return name.replace("/", "-").replace("\\", "-").replace("\0", "-")


def _of_file(path: Path) -> Iterator[Picture]:
    """Open the pages of a file. They are decoded at once, as files of pictures hardly ever allow less."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise missing_reader("pillow", path) from error
    try:
        with ExitStack() as stack:
            contents = read_image(path, stack)
            piece = contents.groups[""].pieces[0]
            array = np.concatenate(list(piece.slabs(max(1, piece.shape[0]))))
        # Above, Pillow is told to open files of any size.
        with Image.open(path) as file:
            mode = file.mode
    except (UnidentifiedImageError, DataError) as error:
        raise SourceError(
            f"{str(path)!r} is no picture that can be read, or it is damaged; give PNG, JPEG or TIFF, or a Zarr store"
        ) from error
    except OSError as error:
        raise SourceError(f"cannot read {str(path)!r}: {reason(error)}; check the file") from error
    if mode in _INKS:
        raise SourceError(f"{str(path)!r} holds {mode} and no red, green and blue; convert it to RGB")
    for line in contents.warnings:
        logger.warning("%s: %s", path.name, line)
    yield from _of_array(_opaque(array, path), path.stem, piece.dims, {}, repr(str(path)))


def _opaque(array: NDArray[Any], path: Path) -> NDArray[Any]:
    """Leave out an alpha channel of which every pixel is opaque."""
    channels = array.shape[-1]
    if channels not in ALPHA or array.dtype.kind != "u":
        return array
    clear = int((array[..., -1] < np.iinfo(array.dtype).max).sum())
    if clear:
        raise SourceError(
            f"{str(path)!r} has {clear:,} transparent pixels, whose colour is that of what lies behind; "
            "flatten it on a background first"
        )
    return array[..., :-1]


def _of_store(text: str) -> Iterator[Picture]:
    """Open an array of a Zarr store: a bare one, or the one image of a group."""
    try:
        node = zarr.open(text, mode="r")
    except Exception as error:
        raise SourceError(f"{text!r} is no Zarr store that can be read; name an image, or a Zarr store") from error
    coords: dict[str, xr.Variable] = {}
    array: Any = node
    if isinstance(node, zarr.Group):
        arrays = dict(sorted(node.arrays()))
        candidates = [name for name, one in arrays.items() if one.ndim >= 2 and one.dtype.kind in "bu"]
        if not candidates:
            raise SourceError(
                f"{text!r} holds no arrays of 8 or 16 bits over two dimensions or more; name another store, or the "
                "path of an image in it"
            )
        if len(candidates) > 1:
            raise SourceError(
                f"{text!r} holds {len(candidates)} images of 8 or 16 bits; give the path of one array; "
                f"{nearest('', [f'{text}/{name}' for name in candidates])}"
            )
        array = arrays[candidates[0]]
        coords = {d: _coordinate(d, arrays[d]) for d in _dims(array) if d in arrays and arrays[d].ndim == 1}
    yield from _of_array(array, Path(text.rstrip("/")).stem, _dims(array), coords, repr(text))


def _coordinate(name: str, array: zarr.Array[Any]) -> xr.Variable:
    attributes = {key: value for key, value in array.attrs.items() if key != "_ARRAY_DIMENSIONS"}
    return xr.Variable((name,), np.asarray(array[:]), attributes)


def _dims(array: Any) -> tuple[str, ...]:
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS", ())
    return tuple("" if name is None else str(name) for name in names)


def _of_array(
    array: Any, name: str, dims: tuple[str, ...], coords: Mapping[str, xr.Variable], called: str
) -> Iterator[Picture]:
    """Give the pictures of an array in any layout."""
    native = array.dtype.newbyteorder("=")
    if native not in (np.uint8, np.uint16, np.bool_):
        raise SourceError(
            f"{called} holds numbers of type {array.dtype}; images of 8 or 16 bits (uint8, uint16) are needed: "
            "scale and convert them"
        )
    if 0 in array.shape:
        raise SourceError(f"{called} has the shape {tuple(array.shape)}, and so no pixel; give another image")
    page, y, x, channel = _axes(dims, array.shape, called)
    channels = 1 if channel is None else array.shape[channel]
    if channels not in (1, 3):
        held = f" ({ALPHA[channels]})" if channels in ALPHA else ""
        raise SourceError(f"{called} has {channels} channels{held}; 1 (grey) or 3 (red, green, blue) are allowed")
    pages = 1 if page is None else array.shape[page]
    lengths = getattr(array, "chunks", None)
    # Chunks of dask are listed along each dimension, those of zarr are all equal.
    chunks = (int(np.max(lengths[y])), int(np.max(lengths[x]))) if lengths else (0, 0)
    names = (dims[y] or "y", dims[x] or "x") if dims else ("y", "x")
    for i in range(pages):
        yield Picture(
            f"{name}-{i + 1:0{len(str(pages))}d}" if pages > 1 else name,
            (array.shape[y], array.shape[x], channels),
            np.dtype(np.uint16 if native == np.uint16 else np.uint8),
            _reader(array, page, i, (y, x, channel), called),
            isinstance(array, np.ndarray),
            chunks,
            names,
            {d: coords[d] for d in names if d in coords},
        )


def _axes(dims: Sequence[str], shape: Sequence[int], called: str) -> tuple[int | None, int, int, int | None]:
    """Find the axes of pages, y, x and channels."""
    channel = next((i for i, d in enumerate(dims) if d.lower() in CHANNELS), None)
    if channel is None and len(shape) > 2 and shape[-1] in _COUNTS:
        channel = len(shape) - 1
    rest = [i for i in range(len(shape)) if i != channel]
    if len(rest) not in (2, 3):
        raise SourceError(
            f"{called} has the shape {tuple(shape)}; allowed: (y, x), (y, x, channel), (page, y, x), "
            "(page, y, x, channel)"
        )
    return (rest[0] if len(rest) == 3 else None), rest[-2], rest[-1], channel


def _reader(
    array: Any, page: int | None, number: int, axes: tuple[int, int, int | None], called: str
) -> Callable[..., Pixels]:
    """Make the function that reads a part of one page."""
    y, x, channel = axes

    def read(rows: slice, columns: slice) -> Pixels:
        index: list[Any] = [slice(None)] * array.ndim
        index[y], index[x] = rows, columns
        if page is not None:
            index[page] = slice(number, number + 1)
        try:
            part = np.asarray(array[tuple(index)])
        except (OSError, RuntimeError, ValueError) as error:
            raise SourceError(
                f"cannot read {called} in rows {_span(rows)} and columns {_span(columns)} of pixels: {reason(error)}; "
                "restore its chunks, or name another image"
            ) from error
        part = part.transpose([*(() if page is None else (page,)), y, x, *(() if channel is None else (channel,))])
        part = part if page is None else part[0]
        part = part if channel is not None else part[..., None]
        # Kernels take the byte order of this machine alone.
        part = part.astype(part.dtype.newbyteorder("="), copy=False)
        return part * np.uint8(255) if part.dtype == np.bool_ else part

    return read


def _span(side: slice) -> str:
    first, stop = side.start or 0, side.stop
    return f"from {first:,} on" if stop is None else f"{first:,} … {stop - 1:,}"
