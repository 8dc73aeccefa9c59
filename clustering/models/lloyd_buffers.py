"""What the compiled pass of k-means works on: rows of several blocks, centers, and memory for tiles and sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.models import kernels
from clustering.models.assignment import compiled_for, zeros
from clustering.models.lane_types import ELEMENT_CODES
from clustering.models.lanes import MANY_REGISTERS, NARROW, WIDE
from clustering.models.scored_centers import Scores, are_few

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

TILE_BYTES, TILE_ROWS = 32 * 1024, (2 * NARROW if MANY_REGISTERS else NARROW, 128)
"""Size of the float64 rows of a tile, in bytes, and the least and greatest number of rows."""
LINE_BYTES = 64
"""Bytes that memory is read by."""
COPIED_SUMS = 1024
"""Up to this number of sums, four copies of them are kept."""


class Run(NamedTuple):
    """Rows of a run of blocks, as addresses in memory; arrays of one number per block, unless a shape is given."""

    values: Integers
    """Addresses of the values ``(n, d)``, C-contiguous."""
    types: Integers
    """Types of the values, as numbers of `lane_types.ELEMENT_TYPES`."""
    weights: Integers
    """Addresses of the weights in float64; 0 where all are 1."""
    lengths: Integers
    """Numbers of rows."""
    cells: Integers
    """Addresses of the flat positions of the rows in their block; 0 where no cell is masked."""
    starts: Integers
    """First position of each block along the sample dimensions ``(blocks, s)``."""
    shapes: Integers
    """Shape of each block ``(blocks, s)``."""
    grid: Integers
    """Length of the sample dimensions ``(s,)``."""


class Centers(NamedTuple):
    """Centers of a pass, as the kernels take them."""

    origin: NDArray[np.float64]
    """Origin, widened with zeros to whole vectors ``(width,)``."""
    centers: NDArray[np.float64]
    """Centers less the origin ``(k, width)``, widened likewise."""
    reach: NDArray[np.float64]
    """Reaches of the centers ``(k,)``, as `kernels.reaches` gives them."""
    slack: float
    """Bound of the rounding of squared distances that comes from the rounding of the centers."""
    single_origin: NDArray[np.float32]
    """Origin in float32 ``(width,)``."""
    exact: bool
    """Whether the origin is the same in float32."""


class SideBySide(NamedTuple):
    """Memory for labelling sixteen rows of few features at once, by the distances to all centers."""

    columns: NDArray[np.float64]
    """Sixteen rows as columns ``(width, 16)``."""
    second: NDArray[np.float64]
    """Second least squared distance of each row ``(t,)``."""


class ByScore(NamedTuple):
    """Memory for labelling rows by scores, and by distances where two scores are too close to call."""

    scores: Scores
    """Centers as they are scored."""
    columns: NDArray[np.float32]
    """Scaled rows as columns, sixteen rows side by side ``(t / 16, d, 16)``, as flat memory."""
    norms: NDArray[np.float32]
    """Squared norms of the scaled rows ``(t,)``."""
    least: NDArray[np.float32]
    """Least score of each row ``(t,)``."""
    second: NDArray[np.float32]
    """Second least score ``(t,)``."""
    labels: NDArray[np.float32]
    """Center of the least score ``(t,)``."""
    near: NDArray[np.int64]
    """Which rows have another score within the bound of the least, a bit for each of sixteen ``(t / 16,)``."""


class Tile(NamedTuple):
    """Some rows that are worked on together. Values beyond the last row have no effect."""

    rows: NDArray[np.float64]
    """Rows less the origin ``(t, width)``. Values beyond the last feature have no effect either."""
    labels: NDArray[np.float64]
    """Nearest centers ``(t,)``, as whole numbers in float64."""
    distances: NDArray[np.float64]
    """Squared distances to them ``(t,)``."""


class Coming(NamedTuple):
    """Memory that the next rows are read from."""

    address: int
    """Address of the first byte."""
    size: int
    """Number of bytes; 0 where no rows come."""


class PartialSums(NamedTuple):
    """Sums of `lloyd_kernels.SUM_ROWS` rows; successive rows go to different copies, so that they need not wait."""

    weight: NDArray[np.float64]
    """Σw ``(copies, k)``; the copies are a power of two."""
    first: NDArray[np.float64]
    """Σw·x ``(copies, k, width)``."""


class Nodes(NamedTuple):
    """Nodes of the tree that wait for their right sibling, the highest level first."""

    level: NDArray[np.int64]
    """Level of each node ``(h,)``."""
    weight: NDArray[np.float64]
    """Σw ``(h, k)``."""
    first: NDArray[np.float64]
    """Σw·x ``(h, k, width)``."""
    objective: NDArray[np.float64]
    """Σw·distance ``(h,)``."""


class FarthestBuffer(NamedTuple):
    """The farthest rows of positive weight so far, farthest first, lower position first among equals."""

    distances: NDArray[np.float64]
    """Squared distances ``(most,)``."""
    positions: NDArray[np.int64]
    """Positions on the sample grid ``(most,)``."""
    labels: NDArray[np.int32]
    """Their clusters ``(most,)``."""
    weights: NDArray[np.float64]
    """Their weights ``(most,)``."""
    slots: NDArray[np.int64]
    """Where `rows` holds each of them ``(most,)``, so that sorting moves no rows."""
    rows: NDArray[np.float64]
    """Rows less the origin ``(most, d)``."""


class Unsplit(NamedTuple):
    """All rows are added up alike."""

    nothing: float
    """Not used; the kernels take no empty tuple."""


class SplitRows(NamedTuple):
    """Memory for splitting rows by their margins: how much farther the second nearest center is than the nearest."""

    budgets: NDArray[np.float64]
    """Margin above which a row of each cluster is far from every boundary ``(k,)``."""
    reach: float
    """The largest distance of a center from the origin."""
    unscale: float
    """Factor that turns scores into squared distances; 0 where it would leave float64."""
    near: NDArray[np.bool_]
    """Gets whether each row is near a boundary ``(n,)``."""
    margins: NDArray[np.float64]
    """Gets the margin of each row ``(n,)``."""
    gaps: NDArray[np.float64]
    """Lower bound of the squared distance of the second nearest center less that of the nearest ``(t,)``."""
    part: NDArray[np.float64]
    """Σw·x of the far rows among the last `lloyd_kernels.SUM_ROWS` ``(k, width)``."""
    weight: NDArray[np.float64]
    """Gets Σw of the far rows ``(k,)``."""
    first: NDArray[np.float64]
    """Gets Σw·x of the far rows ``(k, d)``."""
    cost: NDArray[np.float64]
    """Gets Σw·distance of the far rows ``(k,)``."""
    radius: NDArray[np.float64]
    """Gets the largest distance of a far row from its center ``(k,)``; not squared."""


class RowLabels(NamedTuple):
    """Labels and distances of all rows of a run; empty where they are not wanted."""

    labels: NDArray[np.int32]
    distances: NDArray[np.float64]


def make_run(blocks: Sequence[Rows]) -> tuple[Run, list[NDArray[Any]]]:
    """Describe blocks by addresses.

    Parameters
    ----------
    blocks
        Rows of one or more blocks of one source.

    Returns
    -------
    Run
        Addresses, which are valid as long as the blocks and the returned arrays exist.
    list of ndarray
        Copies that were made for the kernels, of rare layouts.
    """
    facts = np.zeros((5, len(blocks)), np.int64)
    held: list[NDArray[Any]] = []
    for i, rows in enumerate(blocks):
        block_values = compiled_for(rows.values)
        held.append(block_values)
        facts[:2, i], facts[3, i] = (address_of(block_values), ELEMENT_CODES[block_values.dtype]), len(rows)
        if rows.weights.strides[0]:
            block_weights = np.ascontiguousarray(rows.weights, np.float64)
            held.append(block_weights)
            facts[2, i] = address_of(block_weights)
        if rows.cells is not None:
            facts[4, i] = address_of(rows.cells)
    starts = np.array([rows.start for rows in blocks], np.int64)
    shapes = np.array([rows.shape for rows in blocks], np.int64)
    values, types, weights, lengths, cells = facts
    return Run(values, types, weights, lengths, cells, starts, shapes, np.array(blocks[0].grid, np.int64)), held


def address_of(array: NDArray[Any]) -> int:
    """Give the address of the first element of an array.

    Parameters
    ----------
    array
        An array, which has to live as long as the address is used.
    """
    address: int = array.__array_interface__["data"][0]
    return address


def make_centers(origin: Array, centers: Array) -> Centers:
    """Prepare centers for a pass.

    Parameters
    ----------
    origin, centers
        Origin ``(d,)``, and centers less the origin ``(k, d)``.
    """
    # Rows are widened to whole vectors, so that loops over them need no remainder.
    width = whole_vectors(centers.shape[1])
    reach = kernels.reaches(centers)
    most = float(reach.max())
    wide = _widen(origin, width)
    single = zeros((width,), np.float32)
    with np.errstate(over="ignore"):
        single[:] = wide
    return Centers(
        wide, _widen(centers, width), reach, kernels.CLEAR_OF_CENTERS * most * most, single,
        bool((single == wide).all()),
    )  # fmt: skip


def make_tile(d: int, scores: Scores | None) -> tuple[Tile, SideBySide | ByScore]:
    """Make the memory for tiles, and for the way that they are labelled.

    Parameters
    ----------
    d
        Number of features.
    scores
        Centers for scores; None where tiles are labelled by distances.
    """
    width = whole_vectors(d)
    t = int(np.clip(TILE_BYTES // (8 * width) // TILE_ROWS[0] * TILE_ROWS[0], *TILE_ROWS))
    tile = Tile(zeros((t, width)), zeros((t,)), zeros((t,)))
    if scores is None:
        return tile, SideBySide(zeros((width, NARROW)), zeros((t,)))
    return tile, make_by_score(t, scores)


def make_by_score(t: int, scores: Scores) -> ByScore:
    """Make the memory for labelling tiles by scores.

    Parameters
    ----------
    t
        Number of rows of a tile.
    scores
        Centers for scores.
    """
    norms, least, second, labels = (zeros((t,), np.float32) for _ in range(4))
    # Rows are turned eight features at a time, so the last ones may reach beyond the last feature.
    columns = zeros((t * scores.slopes.shape[1] + WIDE * NARROW,), np.float32)
    return ByScore(scores, columns, norms, least, second, labels, zeros((-(-t // NARROW),), np.int64))


def make_sums(k: int, d: int, n_blocks: int, most: int | None) -> tuple[PartialSums, Nodes, FarthestBuffer]:
    """Make the memory for sums and for the farthest rows.

    Parameters
    ----------
    k, d
        Number of clusters and of features.
    n_blocks
        Number of blocks whose sums are added in the order of the tree.
    most
        Largest number of farthest rows to keep; None where rows are labelled and not added up.
    """
    width = whole_vectors(d)
    if most is None:
        return (
            PartialSums(zeros((0, 1)), zeros((0, 1, width))),
            Nodes(np.zeros(2, np.int64), np.zeros((2, 1)), zeros((2, 1, width)), np.zeros(2)),
            _farthest_buffer(1, d),
        )
    # Copies of many sums would push the tile out of the cache.
    copies = WIDE if are_few(k, d) else 4 if k * width <= COPIED_SUMS else 1
    # One node of each level may wait, and one more is being made.
    height = n_blocks.bit_length() + 1
    return (
        PartialSums(zeros((copies, k)), zeros((copies, k, width))),
        Nodes(np.zeros(height, np.int64), np.zeros((height, k)), zeros((height, k, width)), np.zeros(height)),
        _farthest_buffer(most, d),
    )


def make_split(n: int, centers: Centers, scores: Scores | None, d: int, budgets: Array) -> SplitRows:
    """Make the memory for splitting the rows of one block.

    Parameters
    ----------
    n, d
        Number of rows and of features.
    centers, scores
        Centers of the pass, and as they are scored.
    budgets
        Margin above which a row of each cluster is far from every boundary ``(k,)``.
    """
    k, width = centers.centers.shape
    # Where it is 0, no row is far.
    unscale = 1.0 if scores is None else scores.unscale
    return SplitRows(
        budgets, float(centers.reach.max()), unscale, np.zeros(n, np.bool_), np.zeros(n), zeros((TILE_ROWS[1],)),
        zeros((k, width)), np.zeros(k), np.zeros((k, d)), np.zeros(k), np.zeros(k),
    )  # fmt: skip


def _farthest_buffer(most: int, d: int) -> FarthestBuffer:
    numbers, rows = np.zeros((2, most)), np.zeros((most, d))
    return FarthestBuffer(
        numbers[0], np.zeros(most, np.int64), np.zeros(most, np.int32), numbers[1], np.zeros(most, np.int64), rows
    )


def whole_vectors(d: int) -> int:
    """Round a number of features up to whole vectors of float64.

    Parameters
    ----------
    d
        Number of features.
    """
    return -(-d // WIDE) * WIDE


def _widen(array: Array, width: int) -> Array:
    """Widen the last dimension with zeros."""
    wider = zeros((*array.shape[:-1], width))
    wider[..., : array.shape[-1]] = array
    return wider
