"""Superpixels by k-means of colour and place in local windows, tile by tile (SLIC).

Achanta et al. 2012, doi:10.1109/TPAMI.2012.120. A pixel may join the centers whose windows of side 2S it lies in, with
S² the mean number of pixels of a superpixel, so that a pass takes as long for many centers as for few. A pass is the
map-reduce of the other models: statistics of each tile, added up in a tree, and an update. A tile needs the centers
around it and no pixel of its neighbours. The statistics are whole numbers, so tiles of any size give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.execution.engine import Engine
from clustering.execution.map_reduce import map_reduce
from clustering.images.lab import SCALE, lab_tables
from clustering.images.picture import Picture
from clustering.images.superpixel_kernels import (
    COLOUR_BITS,
    COLUMNS,
    PLACE_BITS,
    add_up_pixels,
    assign_nearest,
    home_labels,
    to_lab,
)

Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Lattice:
    """The rectangles that superpixels begin as, in rows and columns."""

    height: int
    width: int
    segments: int
    """Wanted number of superpixels; the lattice may have a few more or less."""
    compactness: float
    """Weight of the place: that many units of colour count as much as S pixels."""

    @cached_property
    def spacing(self) -> float:
        """S, the root of the mean number of pixels of a superpixel, in pixels.

        In an image narrower than that, superpixels span its width, and S is their mean length.
        """
        size = self.height * self.width / self.segments
        return max(math.sqrt(size), size / min(self.height, self.width))

    @cached_property
    def down(self) -> int:
        """Number of rectangles along y."""
        return min(self.height, max(1, round(self.height / self.spacing)))

    @cached_property
    def across(self) -> int:
        """Number of rectangles along x."""
        return min(self.width, max(1, round(self.width / self.spacing)))

    @property
    def count(self) -> int:
        """Number of rectangles."""
        return self.down * self.across

    @property
    def place_weight(self) -> np.float32:
        """Weight of a squared step of places, relative to a squared step of colours: (m / S)²."""
        # Far below the limit, the place alone counts. The square of a larger number may be none in float32.
        return np.float32(min(self.compactness * SCALE / self.spacing / (1 << PLACE_BITS), 1e15) ** 2)


class Tile(NamedTuple):
    """A rectangle of pixels."""

    rows: slice
    columns: slice

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


@dataclass(frozen=True, eq=False)
class Centers:
    """Centers of superpixels in whole numbers."""

    colours: NDArray[np.int32]
    """L, a, b ``(n, 3)`` in steps of 2⁻¹¹ units."""
    places: NDArray[np.int64]
    """y, x ``(n, 2)`` in steps of 2⁻⁸ pixels."""

    @cached_property
    def _downwards(self) -> NDArray[np.intp]:
        """Numbers of the centers in the order of y, so that a tile looks at those of its own rows alone."""
        return np.argsort(self.places[:, 0], kind="stable")

    @cached_property
    def _heights(self) -> NDArray[np.int64]:
        heights: NDArray[np.int64] = self.places[self._downwards, 0]
        return heights

    def near(self, tile: Tile, reach: int) -> NDArray[np.int32]:
        """Find the centers whose windows may hold pixels of a tile, ascending ``(c,)``.

        Parameters
        ----------
        tile
            The tile.
        reach
            Half the side of a window, in steps of places.
        """
        (top, bottom), (left, right) = (
            ((side.start << PLACE_BITS) - reach, (side.stop << PLACE_BITS) + reach) for side in tile
        )
        first, stop = np.searchsorted(self._heights, [top, bottom + 1])
        ids = self._downwards[first:stop]
        columns = self.places[ids, 1]
        return np.sort(ids[(columns >= left) & (columns <= right)]).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Tiles:
    """The tiles of a picture. Their colours are kept in memory up to a budget."""

    picture: Picture
    size: tuple[int, int]
    """Height and width of a tile, in pixels."""
    keep_bytes: int = 0
    """Memory for colours of tiles, in bytes."""
    _kept: dict[int, NDArray[np.int16]] = field(default_factory=dict)

    @property
    def grid(self) -> tuple[int, int]:
        """Number of tiles along y and x."""
        height, width, _ = self.picture.shape
        return -(-height // self.size[0]), -(-width // self.size[1])

    def __len__(self) -> int:
        return self.grid[0] * self.grid[1]

    def __getitem__(self, index: int) -> Tile:
        height, width, _ = self.picture.shape
        row, column = divmod(index, self.grid[1])
        top, left = row * self.size[0], column * self.size[1]
        return Tile(slice(top, min(height, top + self.size[0])), slice(left, min(width, left + self.size[1])))

    def lab(self, index: int) -> NDArray[np.int16]:
        """Return the colours of a tile ``(3, y, x)``, in steps of 1/128.

        Parameters
        ----------
        index
            Number of the tile, in the order of reading.
        """
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        tile = self[index]
        pixels = np.ascontiguousarray(self.picture.read(*tile))
        lab = np.empty((3, *tile.shape), np.int16)
        to_lab(pixels, *lab_tables(8 * self.picture.dtype.itemsize), lab)
        # The tiles that are kept are the same in every pass, so that the rest is read once in each.
        if (index + 1) * 6 * self.size[0] * self.size[1] <= self.keep_bytes:
            self._kept[index] = lab
        return lab


@dataclass(frozen=True, eq=False)
class CenterSums:
    """Sums of the pixels of a run of centers: L, a, b, y, x and number ``(c, 6)``, from the center `first` on."""

    first: int
    sums: NDArray[np.int64]

    def __add__(self, other: CenterSums) -> CenterSums:
        first = min(self.first, other.first)
        stop = max(self.first + len(self.sums), other.first + len(other.sums))
        total = np.zeros((stop - first, COLUMNS), np.int64)
        for one in (self, other):
            total[one.first - first : one.first - first + len(one.sums)] += one.sums
        return CenterSums(first, total)


def fit_centers(
    tiles: Tiles, lattice: Lattice, iterations: int, engine: Engine, say: Callable[[str], None]
) -> tuple[Centers, int]:
    """Move centers to the means of their pixels, pass by pass, until none moves or the limit is reached.

    Parameters
    ----------
    tiles
        Tiles of the picture.
    lattice
        Lattice that the centers begin with: each is the mean of its rectangle.
    iterations
        Largest number of passes.
    engine
        Engine whose threads take the tiles.
    say
        Receives a line after each pass.

    Returns
    -------
    Centers
        The centers.
    int
        Number of passes after the first one, which takes the means of the rectangles.
    """
    before = Centers(np.zeros((lattice.count, 3), np.int32), np.zeros((lattice.count, 2), np.int64))
    # Every rectangle holds a pixel, so nothing of these zeros is left.
    centers = _update(before, map_reduce(partial(_sums_of_run, tiles, lattice, None), len(tiles), engine))
    for i in range(1, iterations + 1):
        before = centers
        centers = _update(before, map_reduce(partial(_sums_of_run, tiles, lattice, before), len(tiles), engine))
        steps = np.hypot(*(centers.places - before.places).T) / (1 << PLACE_BITS)
        say(
            f"pass {i} of {iterations}: centers move by {steps.mean():.3f} pixels on average, {steps.max():.1f} at most"
        )
        if np.array_equal(centers.places, before.places) and np.array_equal(centers.colours, before.colours):
            return centers, i
    return centers, iterations


def _sums_of_run(tiles: Tiles, lattice: Lattice, centers: Centers | None, run: range) -> Iterator[CenterSums]:
    """Yield the sums of each tile of a run; by the lattice where there are no centers yet."""
    for index in run:
        tile, lab = tiles[index], tiles.lab(index)
        labels = assign_tile(lab, tile, lattice, centers)
        first, last = int(labels.min()), int(labels.max())
        sums = np.zeros((last - first + 1, COLUMNS), np.int64)
        add_up_pixels(lab, tile.rows.start, tile.columns.start, labels, first, sums)
        yield CenterSums(first, sums)


def assign_tile(lab: NDArray[np.int16], tile: Tile, lattice: Lattice, centers: Centers | None) -> Labels:
    """Label the pixels of a tile ``(y, x)`` with their nearest centers.

    A pixel that lies in no window belongs to the center of its rectangle.

    Parameters
    ----------
    lab
        Colours of the tile ``(3, y, x)``.
    tile
        Place of the tile.
    lattice
        The lattice that the centers began with.
    centers
        The centers; None for the rectangles of the lattice.
    """
    top, left = tile.rows.start, tile.columns.start
    labels = np.empty(tile.shape, np.int32)
    home_labels(top, left, lattice.down, lattice.across, lattice.height, lattice.width, labels)
    if centers is None:
        return labels
    reach = round(lattice.spacing * (1 << PLACE_BITS))
    ids = centers.near(tile, reach)
    distances = np.empty(tile.shape, np.float32)
    assign_nearest(
        lab, top, left, ids, centers.colours[ids], centers.places[ids], reach, lattice.place_weight, distances, labels
    )
    return labels


def _update(centers: Centers, sums: CenterSums) -> Centers:
    """Move centers to the means of their pixels, rounded to whole steps. A center without pixels stays."""
    total = np.zeros((len(centers.places), COLUMNS), np.int64)
    total[sums.first : sums.first + len(sums.sums)] = sums.sums
    count = total[:, -1:]
    pixels = np.maximum(count, 1)
    colours = ((total[:, :3] << COLOUR_BITS) + pixels // 2) // pixels
    places = ((total[:, 3:5] << PLACE_BITS) + pixels // 2) // pixels
    return Centers(
        np.where(count > 0, colours, centers.colours).astype(np.int32), np.where(count > 0, places, centers.places)
    )
