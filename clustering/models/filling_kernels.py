"""Rows of any type, less the origin, as a tile of float64."""

from __future__ import annotations

import numpy as np

from clustering.compiling import INNER, njit
from clustering.models.kernels import BARE
from clustering.models.lane_types import FLOAT32, FLOAT64, doubles, wide, widened
from clustering.models.lanes import WIDE, load, memory, splat, store, where_less

NUMBERS = np.arange(float(WIDE))
"""Numbers of the lanes."""


@njit(inline="always", **BARE)
def _fill_vectors(rows, start, m, whole, d, origin, tile):  # type: ignore[no-untyped-def]
    """Do as `fill` does for rows whose type is known when this is compiled, but for the last lanes behind `whole`."""
    width = tile.rows.shape[1]
    long = d - d % WIDE
    if long:
        for r in range(m):
            i = (start + r) * d
            for j in range(0, long, WIDE):
                store(tile.rows, r * width + j, doubles(rows, i + j) - load(origin, j))
    if long < d:
        few = splat(np.float64(d - long))
        numbers = load(NUMBERS, 0)
        shift = load(origin, long)
        zero = splat(0.0)
        i = start * d + long
        for r in range(whole):
            store(tile.rows, r * width + long, where_less(numbers, few, doubles(rows, i + r * d) - shift, zero))


@njit(**INNER, **BARE)
def fill(values, code, start, m, n, d, origin, tile):  # type: ignore[no-untyped-def]
    """Subtract the origin from `m` of the `n` rows from `start` on, and put them into the tile.

    Parameters
    ----------
    values, code
        Address of the values, and their type as a number.
    start, m, n, d
        First row, number of rows of the tile and of the block, and number of features.
    origin
        Origin, widened to whole vectors.
    tile
        Gets the rows.
    """
    width = tile.rows.shape[1]
    long = d - d % WIDE
    # Lanes beyond the last feature hold those of the next row, and are cleared. Only the memory behind the last row may
    # not be loaded, and a masked load takes longer.
    whole = max(0, min(m, (n * d - long - WIDE) // d + 1 - start))
    # Most rows have one of two types, which need not be looked at for each vector.
    if code == FLOAT32:
        _fill_vectors(memory(values, np.float32), start, m, whole, d, origin, tile)
    elif code == FLOAT64:
        _fill_vectors(memory(values, np.float64), start, m, whole, d, origin, tile)
    else:
        whole = 0
        for r in range(m):
            i = (start + r) * d
            for j in range(0, long, WIDE):
                store(tile.rows, r * width + j, wide(values, code, i + j) - load(origin, j))
    if long < d:
        for r in range(whole, m):
            i = (start + r) * d + long
            store(tile.rows, r * width + long, widened(values, code, i, d - long) - load(origin, long))
