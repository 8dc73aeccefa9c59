"""Connected regions over all tiles, and small ones joined to their neighbours, so that every superpixel is connected.

Regions are numbered by their first pixels in the order of reading, and compared by sizes and borders in the whole
image. So the outcome does not depend on the tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.images.superpixel_kernels import connected_regions, measure_regions
from clustering.images.superpixels import Labels, Tile

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions with their sizes, colours and borders."""

    firsts: Ints
    """First pixel of each region in the order of reading ``(r,)``."""
    sums: Ints
    """L, a, b and number of pixels of each region ``(r, 4)``."""
    pairs: NDArray[np.int32]
    """Regions that touch ``(e, 2)``, the lower number first."""
    borders: NDArray[np.int32]
    """Length of the border of each pair ``(e,)``, in sides of pixels."""

    @property
    def sizes(self) -> Ints:
        """Number of pixels of each region ``(r,)``."""
        sizes: Ints = self.sums[:, 3]
        return sizes


@dataclass(frozen=True, eq=False)
class TileRegions:
    """Regions of one tile, with what its neighbours need of its edges."""

    regions: Regions
    squares: int
    """Σ L² + a² + b² over the pixels of the tile."""
    top: Labels
    """Regions and labels along the first row ``(2, x)``; alike for the other edges."""
    bottom: Labels
    left: Labels
    right: Labels


def number_regions(labels: Labels) -> tuple[Labels, int]:
    """Find the connected regions of a tile ``(y, x)``; return their numbers and how many there are.

    Parameters
    ----------
    labels
        Center of each pixel ``(y, x)``.
    """
    regions = np.empty_like(labels)
    return regions, int(connected_regions(labels, regions))


def regions_of_tile(lab: NDArray[np.int16], labels: Labels, tile: Tile, width: int) -> TileRegions:
    """Find and measure the connected regions of a tile.

    Parameters
    ----------
    lab
        Colours of the tile ``(3, y, x)``.
    labels
        Center of each pixel ``(y, x)``.
    tile
        Place of the tile.
    width
        Width of the image, in pixels.
    """
    numbers, n = number_regions(labels)
    sums, firsts = np.zeros((n, 4), np.int64), np.empty(n, np.int64)
    squares = int(measure_regions(lab, numbers, sums, firsts))
    y, x = np.divmod(firsts, labels.shape[1])
    touching = [(numbers[:, :-1], numbers[:, 1:]), (numbers[:-1], numbers[1:])]
    pairs = np.concatenate([np.stack([a[a != b], b[a != b]], axis=1) for a, b in touching])
    own = Regions(
        (tile.rows.start + y) * width + tile.columns.start + x,
        sums,
        *_add_up_pairs(pairs, np.ones(len(pairs), np.int32)),
    )
    edges = [np.stack([numbers[at], labels[at]]) for at in (0, -1, np.s_[:, 0], np.s_[:, -1])]
    return TileRegions(own, squares, *edges)


def join_tiles(tiles: Sequence[TileRegions], grid: tuple[int, int]) -> tuple[Regions, list[NDArray[np.int32]]]:
    """Join the regions that go on in the next tile.

    Parameters
    ----------
    tiles
        Regions of each tile, in the order of reading.
    grid
        Number of tiles along y and x.

    Returns
    -------
    Regions
        Regions of the whole image, in the order of their first pixels.
    list of ndarray
        For each tile, the number of each of its regions among all.
    """
    offsets = np.cumsum([0, *(len(tile.regions.firsts) for tile in tiles)]).astype(np.int32)
    joined, pairs, borders = [np.zeros((0, 2), np.int32)], [], []
    for i, tile in enumerate(tiles):
        pairs.append(tile.regions.pairs + offsets[i])
        borders.append(tile.regions.borders)
        row, column = divmod(i, grid[1])
        beside = [(tile.right, tiles[i + 1].left, i + 1)] if column + 1 < grid[1] else []
        beside += [(tile.bottom, tiles[i + grid[1]].top, i + grid[1])] if row + 1 < grid[0] else []
        for own, other, j in beside:
            both = np.stack([own[0] + offsets[i], other[0] + offsets[j]], axis=1)
            same = own[1] == other[1]
            joined.append(both[same])
            pairs.append(both[~same])
            borders.append(np.ones(int((~same).sum()), np.int32))
    apart = Regions(
        np.concatenate([tile.regions.firsts for tile in tiles]),
        np.concatenate([tile.regions.sums for tile in tiles]),
        np.concatenate(pairs),
        np.concatenate(borders),
    )
    regions, numbers = _join(apart, np.concatenate(joined))
    return regions, [numbers[start:stop] for start, stop in pairwise(offsets)]


def join_small(regions: Regions, is_small: Callable[[Ints], NDArray[np.bool_]]) -> tuple[Regions, NDArray[np.int32]]:
    """Join each small region to the neighbour with which it has the longest border; to a small one as a last resort.

    Parameters
    ----------
    regions
        Regions of the whole image.
    is_small
        Function from sizes to whether regions of these sizes are small.

    Returns
    -------
    Regions
        Regions that are not small, or one that is left.
    ndarray
        The number of each given region among these ``(r,)``.
    """
    numbers = np.arange(len(regions.firsts), dtype=np.int32)
    while len(regions.firsts) > 1 and (small := is_small(regions.sizes)).any():
        source = np.concatenate([regions.pairs[:, 0], regions.pairs[:, 1]])
        target = np.concatenate([regions.pairs[:, 1], regions.pairs[:, 0]])
        border = np.tile(regions.borders, 2)
        chosen = small[source]
        source, target, border = source[chosen], target[chosen], border[chosen]
        # The first entry of each source is its best neighbour; among equals the one that comes first in the image.
        order = np.lexsort((target, -border, small[target], source))
        source, target = source[order], target[order]
        best = np.flatnonzero(np.diff(source, prepend=-1))
        regions, joined = _join(regions, np.stack([source[best], target[best]], axis=1))
        numbers = joined[numbers]
    return regions, numbers


def _join(regions: Regions, joined: NDArray[np.int32]) -> tuple[Regions, NDArray[np.int32]]:
    """Make one region of those that pairs ``(p, 2)`` connect; return all, and the new number of each given one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(regions.firsts)
    links = coo_array((np.ones(len(joined), np.int8), (joined[:, 0], joined[:, 1])), shape=(n, n))
    count, group = connected_components(links, directed=False)
    firsts = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(firsts, group, regions.firsts)
    order = np.argsort(firsts)
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    numbers = rank[group].astype(np.int32)
    sums = np.zeros((count, 4), np.int64)
    np.add.at(sums, numbers, regions.sums)
    pairs = numbers[regions.pairs]
    apart = pairs[:, 0] != pairs[:, 1]
    return Regions(firsts[order], sums, *_add_up_pairs(pairs[apart], regions.borders[apart])), numbers


def _add_up_pairs(pairs: NDArray[Any], lengths: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Add up the lengths of equal pairs, in whichever order they name both; return pairs and lengths, sorted."""
    low, high = np.minimum(*pairs.T), np.maximum(*pairs.T)
    # One number for each pair sorts much faster than two columns.
    radix = int(high.max(initial=0)) + 1
    keys = low.astype(np.int64) * radix + high
    order = np.argsort(keys)
    keys = keys[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    keys = keys[starts]
    total = np.add.reduceat(lengths[order], starts) if len(starts) else lengths[:0]
    return np.stack(np.divmod(keys, radix), axis=1).astype(np.int32), total.astype(np.int32)
