"""Superpixels on disk: labels as a Zarr group on the grid of the image, and pictures with their borders."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.ingest import destination_of
from clustering.data.ownership import SEGMENTED, check_target, mark_folder
from clustering.data.replacing import staged
from clustering.deferred import xr, zarr
from clustering.errors import PlaceError, SourceError
from clustering.exports.placing import check_file_place, check_replaceable, write_files
from clustering.images.picture import Picture, check_png
from clustering.images.segmentation import (
    Segmented,
    SegmentOptions,
    Sink,
    borders_of,
    label_type,
    only_picture,
    segment_picture,
    tile_shape,
)
from clustering.images.superpixels import Tile
from clustering.options import ComputeOptions

WRITER = "segment"
BORDER = (255, 221, 0)
"""Yellow, which few photographs have much of."""
_BAND = 1024
"""Rows of pixels that are drawn at once."""
_NAMES = frozenset({"labels", "size", "colour", "segment", "lab"})
"""Names of arrays and dimensions that the group of superpixels has beside those of the image."""
_REMEDY = "--overwrite (overwrite=True in Python)"


def check_places(to: str | os.PathLike[str], borders: str | None, overwrite: bool) -> None:
    """Refuse places that hold something which may not be replaced, before the work begins.

    Parameters
    ----------
    to
        Path of the Zarr group of the labels.
    borders
        Path of the picture with borders; None for none.
    overwrite
        Whether what an earlier segmentation wrote may be replaced.

    Raises
    ------
    OutputError
        Naming the place.
    """
    target = destination_of(os.fspath(to))
    check_target(target, SEGMENTED, overwrite, _REMEDY)
    check_file_place(target)
    if borders is not None:
        check_png()
        if Path(borders).suffix.lower() != ".png":
            raise PlaceError(f"borders are drawn as PNG, and {borders!r} has another ending; name it .png")
        if Path(borders).absolute().is_relative_to(target.absolute()):
            raise PlaceError(f"{borders!r} is inside {str(target)!r}, the place of the labels; name a place outside")
        check_file_place(Path(borders))
        check_replaceable([Path(borders)], overwrite, WRITER)


def segment_to(
    pictures: Sequence[Picture],
    options: SegmentOptions,
    compute: ComputeOptions,
    to: str | os.PathLike[str],
    *,
    borders: str | None = None,
    overwrite: bool,
    say: Callable[[str], None],
) -> Segmented:
    """Cut the picture into superpixels, and write their labels to a new Zarr group.

    The group holds ``labels (y, x)``, in chunks of the image where it has some, with its coordinates; and
    ``size (segment)`` and ``colour (segment, lab)`` of the superpixels.

    Parameters
    ----------
    pictures
        Opened pictures, of which there must be one.
    options
        How to cut it.
    compute
        Threads and memory.
    to
        Path of the Zarr group.
    borders
        Path of a PNG file of the picture with the borders drawn; None for none.
    overwrite
        Whether superpixels that were written there before are replaced.
    say
        Receives a line after each step.

    Returns
    -------
    Segmented
        The superpixels, with labels that are read from the store when they are used.
    """
    picture, target = only_picture(pictures, options), destination_of(os.fspath(to))
    if taken := sorted(_NAMES.intersection(picture.dims)):
        raise SourceError(
            f"image {picture.name!r} has a dimension {taken[0]!r}, and the group of superpixels uses that name; "
            "rename the dimension"
        )
    with staged(target, lambda: check_target(target, SEGMENTED, overwrite, _REMEDY)) as staging:
        with warnings.catch_warnings():
            # Strings have no final Zarr v3 specification yet, but the image has them already.
            warnings.filterwarnings("ignore", category=zarr.errors.UnstableSpecificationWarning)
            # xarray encodes coordinates, such as times.
            xr.Dataset(coords=dict(picture.coords)).to_zarr(str(staging), zarr_format=3, consolidated=False)
        group = zarr.open_group(staging, mode="r+")
        segmented = segment_picture(picture, options, compute, partial(_labels_sink, group, picture, options), say)
        _write(group, "size", ("segment",), segmented.sizes, {"long_name": "number of pixels", "units": "1"})
        names = {"long_name": "mean L, a and b of CIELAB (D65)"}
        _write(group, "colour", ("segment", "lab"), segmented.colours, names)
        group.attrs.update(
            {
                "title": f"superpixels of {picture.name}",
                "Conventions": "CF-1.10",
                "segments": options.segments,
                "compactness": options.compactness,
                "iterations": segmented.iterations,
                "spacing": segmented.spacing,
                # JSON has no NaN; an image of one colour has no variation.
                "explained_variation": (
                    None if np.isnan(segmented.explained_variation) else segmented.explained_variation
                ),
            }
        )
        mark_folder(staging, SEGMENTED)
        # The labels appear last, so an interruption while borders are drawn leaves nothing in the way of a second run.
        if borders is not None:
            write_borders(picture, _labels_of(staging), borders, overwrite=overwrite)
    return Segmented(
        _labels_of(target), segmented.sizes, segmented.colours, segmented.explained_variation, segmented.iterations,
        segmented.spacing,
    )  # fmt: skip


def _labels_of(folder: Path) -> xr.DataArray:
    labels: xr.DataArray = xr.open_zarr(str(folder), consolidated=False, mask_and_scale=False)["labels"]
    return labels


def _labels_sink(group: zarr.Group, picture: Picture, options: SegmentOptions, count: int) -> Sink:
    """Create the array of the labels, and return what writes a tile to it. Tiles are whole chunks."""
    shape = picture.shape[:2]
    tile = tile_shape(picture, options.tile)
    chunks = tuple(min(n, chunk) if chunk else side for n, chunk, side in zip(shape, picture.chunks, tile, strict=True))
    array = group.create_array(
        "labels",
        shape=shape,
        chunks=chunks,
        dtype=label_type(count),
        fill_value=-1,
        dimension_names=picture.dims,
        attributes={"long_name": "superpixel of each pixel", "valid_range": [0, count - 1]},
        compressors=zarr.codecs.ZstdCodec(level=0, checksum=True),
        config={"write_empty_chunks": True},
    )
    return partial(_write_labels, array)


def _write_labels(array: zarr.Array[Any], tile: Tile, labels: NDArray[Any]) -> None:
    array[tile.rows, tile.columns] = labels


def _write(
    group: zarr.Group, name: str, dims: tuple[str, ...], values: NDArray[Any], attributes: dict[str, Any]
) -> None:
    array = group.create_array(
        name, shape=values.shape, chunks=values.shape, dtype=values.dtype, dimension_names=dims,
        attributes=attributes,
    )  # fmt: skip
    array[...] = values


def write_borders(
    picture: Picture, labels: xr.DataArray, path: str | os.PathLike[str], *, overwrite: bool = False
) -> list[Path]:
    """Write a picture with the borders of its superpixels as PNG.

    Parameters
    ----------
    picture
        The picture, which is held in memory with 8 bits.
    labels
        Superpixel of each pixel ``(y, x)``.
    path
        Path of the PNG file.
    overwrite
        Whether a file that an earlier segmentation wrote is replaced.

    Returns
    -------
    list of Path
        The file written.
    """
    from PIL import Image

    height, width, _ = picture.shape
    drawn = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _BAND):
        rows = slice(top, min(height, top + _BAND))
        pixels = picture.read(rows, slice(None))
        drawn[rows] = pixels if picture.dtype == np.uint8 else pixels >> 8
        # The last row of a band needs the first one of the next.
        beside = labels[rows.start : rows.stop + 1].values
        drawn[rows][borders_of(beside)[: rows.stop - rows.start]] = BORDER

    def write(file: Path) -> None:
        Image.fromarray(drawn).save(file, format="PNG")

    return write_files(Path(path), [], overwrite, write, WRITER)
