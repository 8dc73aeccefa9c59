"""Reading pictures: all pages, with the numbers that the file holds."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.readers import FileContents, FileVariable, VariableGroup, fill_value, in_slabs, missing_reader
from clustering.errors import DataError

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile

GIB = 1 << 30
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000")
"""Formats that are read. Pillow knows others, but they need further programs or run scripts."""
_ANIMATIONS = ("GIF", "PNG", "WEBP")
_COLOURS = {"P": "RGB", "PA": "RGBA", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB"}
"""Pillow mode with a palette, with colours multiplied by alpha, or with padding → the mode that it is read in."""
_CLEAR = {"P": "RGBA", "L": "LA", "RGB": "RGBA"}
"""Pillow mode in which one colour can be declared transparent → the mode with that as a channel."""
_ON_THE_GROUND = (33550, 33922, 34264, 34735)
"""Tags of a GeoTIFF: pixel size, tie points, transformation, coordinate system."""
_NO_DATA = 42113
"""Tag of a TIFF in which GDAL writes the number that means no data."""
_NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
"""Pillow layout of big-endian numbers → the same in the byte order of this machine."""
_SWAPPED = {"B": "L", "L": "B", "N": "B" if np.little_endian else "L"}
"""Byte order of 16-bit numbers, as Pillow calls it → the opposite order."""


def read_image(path: Path, stack: ExitStack) -> FileContents:
    """Read an upright picture as one variable ``(y, x, channel)``, or ``(page, y, x, channel)`` for several pages.

    Channels are as stored, including alpha, and CMYK of printed pictures. Numbers of a palette become colours.

    Parameters
    ----------
    path
        A picture in one of `FORMATS`.
    stack
        Closes the file. Until then pages are read from it.

    Raises
    ------
    MissingDependencyError
        If Pillow is not installed.
    DataError
        If the file is damaged, or Pillow cannot give its numbers as they are stored.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise missing_reader("pillow", path) from error
    # The limit protects servers against harmful uploads. This file is the user's own.
    Image.MAX_IMAGE_PIXELS = None
    # Pillow raises an error for real damage; its log adds nothing.
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    Image.init()
    try:
        # Given a path instead of a file, Pillow maps the file into memory and misplaces rows of some rotated pictures.
        picture = stack.enter_context(Image.open(stack.enter_context(path.open("rb")), formats=FORMATS))
    except UnidentifiedImageError as error:
        raise DataError(
            f"cannot read {str(path)!r}: it is damaged, or a picture of a kind that Pillow does not know, "
            "such as a TIFF of many channels or of 64-bit numbers; convert it to .npy or NetCDF"
        ) from error
    _check_size(picture, path)
    warnings = _left_out(picture, path)
    first = _pixels(picture, path, 0)
    attributes = _no_data(picture, first.dtype, warnings)
    # Further pages of a JPEG (the format MPO) are previews or other views of the same scene.
    n = 1 if picture.format in ("JPEG", "MPO") else getattr(picture, "n_frames", 1)
    mode = None
    if picture.format == "MPO":
        pages_there = getattr(picture, "n_frames", 1)
        warnings.append(f"page 1 of {pages_there} is taken: the others of a JPEG show the same scene, often smaller")
    if n > 1:
        looks = [_look(picture, i) for i in range(n)]
        # Frames of an animation may be stored in several modes; one mode for all makes one array of them.
        if picture.format in _ANIMATIONS and len({look[1] for look in looks}) > 1:
            mode = "RGBA" if any(look[1].endswith("A") for look in looks) else "RGB"
            looks = [(look[0], mode, look[2]) for look in looks]
        if other := next((i for i, look in enumerate(looks) if look != looks[0]), None):
            (width, height), kind, _ = looks[other]
            warnings.append(
                f"page 1 of {n} is taken: page {other + 1} has another size or kind "
                f"({width} × {height} {kind}, the first {looks[0][0][0]} × {looks[0][0][1]} {looks[0][1]})"
            )
            n, mode = 1, None
    if n == 1:
        piece = FileVariable("image", ("y", "x", "channel"), first.shape, first.dtype, in_slabs(first), attributes)
    else:
        first = _pixels(picture, path, 0, mode)

        def pages(length: int) -> Iterator[NDArray[Any]]:
            for start in range(0, n, length):
                yield np.stack([_pixels(picture, path, i, mode) for i in range(start, min(n, start + length))])

        piece = FileVariable("image", ("page", "y", "x", "channel"), (n, *first.shape), first.dtype, pages, attributes)
    return FileContents({"": VariableGroup([piece], {"title": path.name})}, warnings)


def _check_size(picture: ImageFile, path: Path) -> None:
    """Refuse a picture larger than the memory of this machine. A damaged file may claim any size."""
    width, height = picture.size
    needed = 8 * width * height
    held = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > held:
        raise DataError(
            f"cannot read {str(path)!r}: its {width:,} × {height:,} pixels take {needed / GIB:,.0f} GiB, "
            f"and this machine has {held / GIB:,.0f} GiB; cut it into parts, or convert it to .npy or NetCDF"
        )


def _look(picture: ImageFile, page: int) -> tuple[tuple[int, int], str, str]:
    """Give the size of a page, the mode that it is read in, and for a TIFF its layout in the file."""
    picture.seek(page)
    raw = _raw(picture)
    if picture.format == "GIF":
        # Pillow finds out whether a frame has transparent pixels only when it loads the frame.
        picture.load()
    return picture.size, _kept(picture), raw if picture.format == "TIFF" else ""


def _kept(picture: Image.Image) -> str:
    """Name the Pillow mode that a page is read in."""
    clear = "transparency" in picture.info and picture.mode in _CLEAR
    return _CLEAR[picture.mode] if clear else _COLOURS.get(picture.mode, picture.mode)


def _raw(picture: ImageFile) -> str:
    """Name the layout of the numbers in the file, in Pillow's words."""
    arguments = picture.tile[0][3] if getattr(picture, "tile", None) else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _pixels(picture: ImageFile, path: Path, page: int, mode: str | None = None) -> NDArray[Any]:
    """Read a page as ``(y, x, channel)``."""
    from PIL import ImageOps

    picture.seek(page)
    raw = _raw(picture)
    if raw in _NATIVE and picture.tile[0].codec_name == "libtiff":
        # libtiff already converts numbers to the byte order of this machine. Pillow would swap them again.
        picture.tile = [tile._replace(args=(_NATIVE[raw], *tile.args[1:])) for tile in picture.tile]  # type: ignore[index]
    tags = getattr(picture, "tag_v2", {})
    bits = max(tags.get(258, (8,)))
    if picture.mode[0] not in "IF" and (";16" in raw or bits > 8):
        pixels = _sixteen(path, page, raw)
    else:
        stored = _stored_type(picture, path)
        # Cameras store the picture as the sensor saw it, with a tag that says how to rotate it.
        upright = ImageOps.exif_transpose(picture)
        wanted = mode or _kept(upright)
        pixels = np.asarray(upright if upright.mode == wanted else upright.convert(wanted))
        pixels = stored(pixels)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _sixteen(path: Path, page: int, raw: str) -> NDArray[np.uint16]:
    """Read channels of 16 bits. Pillow gives only the upper 8 bits, so the file is read twice, once for each byte."""
    from PIL import Image, ImageOps

    kind, _, order = raw.partition(";16")
    if kind not in ("RGB", "RGBA", "RGBX", "CMYK", "LA") or order not in _SWAPPED:
        raise DataError(
            f"cannot read {str(path)!r}: Pillow gives only 8 of the 16 bits of this kind of picture ({raw}); "
            "convert it to .npy or NetCDF"
        )

    def read(changed: str) -> NDArray[np.uint8]:
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as picture:
            picture.seek(page)
            picture.tile = [
                tile._replace(args=(changed, *tile.args[1:]) if isinstance(tile.args, tuple) else changed)
                for tile in picture.tile
            ]
            return np.asarray(ImageOps.exif_transpose(picture))

    if kind == "LA":
        # Two 16-bit numbers are as long as four 8-bit numbers, so one read in that layout gives all bytes.
        return read("RGBA").view(">u2").astype(np.uint16)
    # In the opposite byte order, the lower byte takes the place of the upper one.
    return read(raw).astype(np.uint16) * 256 + read(f"{kind};16{_SWAPPED[order]}")


def _stored_type(picture: ImageFile, path: Path) -> Any:
    """Give the function that converts Pillow's numbers to the type in the file."""
    if picture.format == "TIFF":
        # Tags 258 and 339 of a TIFF: bits per number, and whether numbers are unsigned (1) or signed (2).
        tags = picture.tag_v2  # type: ignore[attr-defined]
        bits, sign = tags.get(258, (1,))[0], tags.get(339, (1,))[0]
        if (bits, sign) == (8, 2):
            return lambda pixels: pixels.view(np.int8)
        if (bits, sign) == (16, 2):
            return lambda pixels: pixels.astype(np.int16)
        if (bits, sign) == (32, 1) and picture.mode == "I":
            return lambda pixels: pixels.view(np.uint32)
    if picture.format == "JPEG2000":
        bits = _jpeg2000_bits(path)
        if bits > 8 and picture.mode != "I;16":
            raise DataError(
                f"cannot read {str(path)!r}: Pillow gives only 8 of its {bits} bits; convert it to 16-bit PNG or TIFF"
            )
        if 8 < bits < 16:
            # Pillow scales numbers of fewer bits up to 16 bits.
            return lambda pixels: pixels >> (16 - bits)
    return lambda pixels: pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _jpeg2000_bits(path: Path) -> int:
    """Read the largest number of bits of a channel from the head of a JPEG 2000 stream (ISO 15444-1, A.5.1)."""
    with path.open("rb") as file:
        head = file.read(1 << 22)
    # The markers "start of codestream" and "image and tile size".
    offset = head.find(b"\xff\x4f\xff\x51") + 4
    n = int.from_bytes(head[offset + 36 : offset + 38])
    return max(((bits & 127) + 1 for bits in head[offset + 38 : offset + 38 + 3 * n : 3]), default=8)


def _no_data(picture: ImageFile, dtype: np.dtype[Any], warnings: list[str]) -> dict[str, Any]:
    """Read the no-data number of a GeoTIFF as an attribute, and add warnings about what is left out of it."""
    tags = getattr(picture, "tag_v2", {})
    if any(tag in tags for tag in _ON_THE_GROUND):
        warnings.append("the place of the pixels on the ground is left out: their coordinates are their numbers")
    stated = str(tags.get(_NO_DATA, "")).strip("\0 ")
    if not stated:
        return {}
    if (fill := fill_value(stated, dtype)) is None:
        warnings.append(f"the number that means no data is left out: it is {stated!r}, and the pixels are {dtype}")
        return {}
    return {"_FillValue": fill}


def _left_out(picture: ImageFile, path: Path) -> list[str]:
    """List the parts of a picture that Pillow does not read: further channels, some transparent colours, lost pages."""
    lines = []
    if picture.format == "GIF" and not path.read_bytes().rstrip(b"\0").endswith(b";"):
        lines.append(f"{path.name!r} does not end as a GIF does: it may be cut short, and pages of it lost")
    if "transparency" in picture.info and (picture.mode not in _CLEAR or ";16" in _raw(picture)):
        lines.append(f"the colour of {path.name!r} that is named transparent is left out: its pixels are as all others")
    if picture.format == "TIFF":
        # Tag 277 is the number of channels.
        n, held = picture.tag_v2.get(277, 1), len(picture.getbands())  # type: ignore[attr-defined]
        if n > held and picture.mode != "P":
            numbers = f"channel {n} is" if n == held + 1 else f"channels {held + 1} to {n} are"
            lines.append(f"{numbers} left out: Pillow reads the first {held}; convert {path.name!r} to .npy or NetCDF")
    return lines
