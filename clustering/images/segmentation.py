"""Superpixels of an image: connected regions of similar colour and about equal size."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.deferred import load_module, xr
from clustering.errors import ConfigError, SourceError
from clustering.execution.engine import connect
from clustering.execution.map_reduce import apply_to_each
from clustering.images.lab import SCALE
from clustering.images.picture import Picture, open_pictures
from clustering.images.regions import Ints, Regions, join_small, join_tiles, number_regions, regions_of_tile
from clustering.images.superpixels import Centers, Lattice, Tile, Tiles, assign_tile, fit_centers
from clustering.option_values import in_bytes
from clustering.options import ComputeOptions
from clustering.signatures import check_call

logger = logging.getLogger(__name__)

SMALLEST = 4
"""A region of less than one part in this many of the mean size is joined to a neighbour."""
Sink = Callable[[Tile, NDArray[Any]], None]


@dataclass(frozen=True)
class SegmentOptions:
    """How an image is cut into superpixels."""

    segments: int = 1000
    compactness: float = 10.0
    iterations: int = 10
    tile: int = 512

    def __post_init__(self) -> None:
        """Refuse values that are not allowed."""
        for name, least in (("segments", 1), ("iterations", 0), ("tile", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise ConfigError(f"{name} is {value!r}; a whole number of {least} or more is needed")
        if not (isinstance(self.compactness, (int, float, np.number)) and 0.0 < self.compactness < np.inf):
            raise ConfigError(f"compactness is {self.compactness!r}; a number above 0 is needed")


@dataclass(frozen=True, eq=False)
class Segmented:
    """An image in superpixels. Immutable."""

    labels: Any
    """Superpixel of each pixel ``(y, x)``, from 0 on: an ndarray, or a DataArray where the image has named dimensions
    or the labels are stored."""
    sizes: Ints
    """Number of pixels of each superpixel ``(n,)``."""
    colours: NDArray[np.float64]
    """Mean L, a and b of each superpixel ``(n, 3)``."""
    explained_variation: float
    """Share of the variance of L, a and b that the means of the superpixels explain, in 0 … 1; NaN for one colour."""
    iterations: int
    """Number of passes that moved the centers."""
    spacing: float
    """S, the root of the wanted mean size, in pixels; the wanted mean length where the image is narrower."""

    @property
    def count(self) -> int:
        """Number of superpixels."""
        return len(self.sizes)

    @property
    def borders(self) -> NDArray[np.bool_]:
        """True for pixels ``(y, x)`` whose right or lower neighbour is in another superpixel."""
        return borders_of(np.asarray(self.labels))

    def __repr__(self) -> str:
        return (
            f"<Segmented: {self.count:,} superpixels of {np.median(self.sizes):,.0f} pixels in the median, "
            f"{100 * self.explained_variation:.1f} % of the variation explained>"
        )


def segment(
    image: Any,
    segments: int = 1000,
    *,
    compactness: float = 10.0,
    iterations: int = 10,
    tile: int = 512,
    to: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    memory: str | int = "2GiB",
) -> Segmented:
    """Cut an image into superpixels, tile by tile, so that it may be larger than memory.

    It is k-means of colour and place in windows of side 2S, S² the mean size of a superpixel (SLIC, Achanta et al.
    2012, doi:10.1109/TPAMI.2012.120). The labels do not depend on tiles and threads.

    Parameters
    ----------
    image
        Path of an image or of a Zarr store, or an array ``(y, x)`` or ``(y, x, channel)`` of numpy, zarr, dask or
        xarray; grey or sRGB, of 8 or 16 bits.
    segments
        Wanted number of superpixels. There may be a few more or less.
    compactness
        Weight of the place against the colour: that many units of L, a and b count as much as S pixels. Larger values
        make the superpixels more square.
    iterations
        Largest number of passes that move the centers.
    tile
        Side of the tiles that are worked on at once, in pixels; rounded up to whole chunks. It does not change labels.
    to
        Path of a Zarr group for the labels, which are then not held in memory.
    overwrite
        Whether superpixels that were written there before are replaced. Anything else is never replaced.
    workers
        Number of threads. Default: the number of processors.
    memory
        Memory budget, such as ``2GiB``; half of it keeps the colours of tiles, which saves reading them again.

    Returns
    -------
    Segmented
        Labels, sizes and mean colours of the superpixels.

    Raises
    ------
    ConfigError
        If there are more segments than pixels, or an option has a wrong value.
    SourceError
        If the image cannot be used.
    OutputError
        If the place of the labels holds something that may not be replaced.

    Examples
    --------
    >>> import numpy as np, clustering as c
    >>> picture = np.repeat(np.uint8([[0, 255]]), 4, axis=1).repeat(4, axis=0)
    >>> c.segment(picture, segments=2).labels[0].tolist()
    [0, 0, 0, 0, 1, 1, 1, 1]
    """
    pictures = open_pictures(image)
    options = SegmentOptions(segments, compactness, iterations, tile)
    compute = check_call(ComputeOptions, {"workers": workers, "memory": memory})
    if to is not None:
        store = load_module("clustering.images.segmented_store")
        segmented: Segmented = store.segment_to(pictures, options, compute, to, overwrite=overwrite, say=logger.info)
        return segmented
    picture = only_picture(pictures, options)
    labels: list[NDArray[Any]] = []

    def sink_for(count: int) -> Sink:
        labels.append(np.empty(picture.shape[:2], label_type(count)))
        return partial(_put, labels[0])

    segmented = segment_picture(picture, options, compute, sink_for, logger.info)
    named = isinstance(image, xr.DataArray)
    shown = xr.DataArray(labels[0], dict(picture.coords), picture.dims, name="labels") if named else labels[0]
    return Segmented(shown, *_facts(segmented))


def _put(labels: NDArray[Any], tile: Tile, part: NDArray[Any]) -> None:
    labels[tile.rows, tile.columns] = part


def _facts(segmented: Segmented) -> tuple[Any, ...]:
    return (
        segmented.sizes, segmented.colours, segmented.explained_variation, segmented.iterations, segmented.spacing,
    )  # fmt: skip


def label_type(count: int) -> np.dtype[Any]:
    """Return the smallest signed type for labels 0 … count − 1, with room for −1.

    Parameters
    ----------
    count
        Number of superpixels.
    """
    return np.min_scalar_type(-max(count, 1))


def borders_of(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark pixels ``(y, x)`` whose right or lower neighbour has another label.

    Parameters
    ----------
    labels
        Label of each pixel ``(y, x)``.
    """
    borders = np.zeros(labels.shape, bool)
    borders[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    borders[:-1] |= labels[1:] != labels[:-1]
    return borders


def only_picture(pictures: Sequence[Picture], options: SegmentOptions) -> Picture:
    """Return the one picture, after checking that it has enough pixels.

    Parameters
    ----------
    pictures
        Opened pictures.
    options
        How to cut it.

    Raises
    ------
    SourceError
        If there are several pictures.
    ConfigError
        If there are more segments than pixels.
    """
    if len(pictures) > 1:
        raise SourceError(
            f"there are {len(pictures)} images, and superpixels are those of one; give one page of one file"
        )
    height, width, _ = pictures[0].shape
    if options.segments > height * width:
        raise ConfigError(
            f"segments is {options.segments:,}, and image {pictures[0].name!r} has {height * width:,} pixels; "
            "lower segments"
        )
    return pictures[0]


def tile_shape(picture: Picture, tile: int) -> tuple[int, int]:
    """Round the side of a tile up to whole chunks along y and x.

    Parameters
    ----------
    picture
        The picture.
    tile
        Wanted side, in pixels.
    """
    down, across = (-(-tile // chunk) * chunk if chunk else tile for chunk in picture.chunks)
    return min(down, picture.shape[0]), min(across, picture.shape[1])


def segment_picture(
    picture: Picture,
    options: SegmentOptions,
    compute: ComputeOptions,
    sink_for: Callable[[int], Sink],
    say: Callable[[str], None],
) -> Segmented:
    """Cut a picture into superpixels, and give the labels of each tile to a sink.

    Parameters
    ----------
    picture
        The picture.
    options
        How to cut it.
    compute
        Threads and memory.
    sink_for
        Makes the sink from the number of superpixels. The sink may be called from several threads.
    say
        Receives a line after each step.

    Returns
    -------
    Segmented
        The superpixels; their labels are None.
    """
    height, width, _ = picture.shape
    lattice = Lattice(height, width, options.segments, options.compactness)
    memory = in_bytes(compute.memory)
    tiles = Tiles(picture, tile_shape(picture, options.tile), memory // 2)
    with connect("threads", compute.workers, memory) as engine:
        centers, passes = fit_centers(tiles, lattice, options.iterations, engine, say)
        of_tiles = apply_to_each(partial(_regions, tiles, lattice, centers), range(len(tiles)), engine)
        squares = sum(one.squares for one in of_tiles)
        regions, numbers = join_tiles(of_tiles, tiles.grid)
        # There may be millions of regions, and the rest needs no tile of them.
        del of_tiles
        before = len(regions.firsts)
        regions, joined = join_small(regions, lambda sizes: sizes * SMALLEST * options.segments < height * width)
        say(f"regions: {before:,} connected ones, {len(regions.firsts):,} after small ones joined their neighbours")
        sink = sink_for(len(regions.firsts))
        final = [joined[own].astype(label_type(len(regions.firsts))) for own in numbers]
        apply_to_each(partial(_write_tile, tiles, lattice, centers, final, sink), range(len(tiles)), engine)
    return Segmented(
        None, regions.sizes, _colours(regions), _explained_variation(regions, squares), passes, lattice.spacing
    )


def _regions(tiles: Tiles, lattice: Lattice, centers: Centers, index: int) -> Any:
    tile, lab = tiles[index], tiles.lab(index)
    return regions_of_tile(lab, assign_tile(lab, tile, lattice, centers), tile, lattice.width)


def _write_tile(
    tiles: Tiles, lattice: Lattice, centers: Centers, final: Sequence[NDArray[Any]], sink: Sink, index: int
) -> None:
    """Label a tile once more, which takes less time than to keep the labels of all tiles takes memory."""
    tile = tiles[index]
    numbers, _ = number_regions(assign_tile(tiles.lab(index), tile, lattice, centers))
    sink(tile, final[index][numbers])


def _colours(regions: Regions) -> NDArray[np.float64]:
    means: NDArray[np.float64] = regions.sums[:, :3] / regions.sizes[:, None] / SCALE
    return means


def _explained_variation(regions: Regions, squares: int) -> float:
    """Return the share of the variance of all pixels that lies between regions, from exact sums."""
    total = [int(value) for value in regions.sums.sum(axis=0)]
    correction = sum(value * value for value in total[:3]) / total[3]
    between = float((np.square(regions.sums[:, :3].astype(np.float64)) / regions.sizes[:, None]).sum()) - correction
    variation = squares - correction
    return between / variation if variation > 0.0 else float("nan")
