"""Splitting the rows of a tile by their margins: how much farther the second nearest center is than the nearest.

Rows of large margin are far from every boundary between clusters. They are added up on their own, so that their sums
stand for them until a center has moved far. All margins are lower bounds, which allow for the rounding of distances
here and in later passes.
"""

from __future__ import annotations

import numpy as np
from numba.extending import overload

from clustering.compiling import INNER, njit
from clustering.models.kernels import BARE, OVERLOAD
from clustering.models.lanes import WIDE, element, load, memory, splat, store
from clustering.models.lloyd_buffers import ByScore, SideBySide, SplitRows

SLACK = 2.0**-34
"""Part of the distances and of the reach that a margin is lessened by.

A label stays for sure if its squared distance d² is less than every other e² by 2⁻⁴⁰e² + s·e + s², with s at most 2⁻⁴⁷
of the reach (`kernels.least_clear`), plus the rounding of both, which is below 2⁻³⁷e² up to 2¹³ features. An e − d of
2⁻³⁶·2d + 2s ensures this where e ≤ 2d; where e is larger, e − d > e / 2 does.
"""


def find_gaps(tile, m, way, split):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Bound from below how much more the second least squared distance of each row is than the least.

    Parameters
    ----------
    tile, m
        Labelled tile with `m` rows.
    way
        Memory for the way by which it was labelled.
    split
        Gets the bounds.
    """
    raise TypeError("find_gaps is part of compiled code, and no function of Python")


@overload(find_gaps, jit_options=OVERLOAD)  # type: ignore[arg-type]
def _gaps_in_one_way(tile, m, way, split):  # type: ignore[no-untyped-def]  # noqa: ARG001
    return {SideBySide: _gaps_of_distances, ByScore: _gaps_of_scores}[way.instance_class]


def _gaps_of_distances(tile, m, way, split):  # type: ignore[no-untyped-def]
    for r in range(m):
        split.gaps[r] = way.second[r] - tile.distances[r]


def _gaps_of_scores(tile, m, way, split):  # type: ignore[no-untyped-def]  # noqa: ARG001
    scores = way.scores
    square = np.float64(scores.reach) * np.float64(scores.reach)
    for r in range(m):
        # (a + b)² is at most 2 a² + 2 b².
        bound = 2.0 * (np.float64(way.norms[r]) + square)
        rounding = np.float64(scores.relative) * bound + np.float64(scores.absolute)
        gap = np.float64(way.second[r]) - np.float64(way.least[r]) - rounding
        # Beyond the limit a score may have overflowed, and says nothing.
        split.gaps[r] = gap * split.unscale if bound < np.float64(scores.limit) else -1.0


@njit(**INNER, **BARE)
def _fold_rows(weights, start, m, tile, split, adds):  # type: ignore[no-untyped-def]
    """Tell near from far rows, and add up the far ones."""
    width = tile.rows.shape[1]
    each = memory(weights, np.float64)
    for r in range(m):
        squared = tile.distances[r]
        label = int(tile.labels[r])
        own = np.sqrt(squared)
        other = np.sqrt(squared + split.gaps[r])
        margin = other - own - SLACK * (own + other + split.reach)
        i = start + r
        split.margins[i] = margin
        # Distances beyond float64 have no margin; NaN fails the comparison.
        if not margin > split.budgets[label]:
            split.near[i] = True
            continue
        if adds:
            w = element(each, i) if weights else 1.0
            split.weight[label] += w
            split.cost[label] += w * squared
            split.radius[label] = max(split.radius[label], own)
            factor = splat(w)
            p = label * width
            for j in range(0, width, WIDE):
                store(split.part, p + j, load(split.part, p + j) + factor * load(tile.rows, r * width + j))


def fold(weights, start, m, d, tile, way, split, adds):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Split the rows of a labelled tile, if rows are split.

    Parameters
    ----------
    weights
        Address of the weights of the block; 0 where all are 1.
    start, m, d
        First row of the tile in its block, number of its rows, and of features.
    tile, way
        Labelled tile, and memory for the way by which it was labelled.
    split
        Memory for the split; its type says whether rows are split.
    adds
        Whether far rows are added up.
    """
    raise TypeError("fold is part of compiled code, and no function of Python")


@overload(fold, jit_options=OVERLOAD)  # type: ignore[arg-type]
def _fold_if_split(weights, start, m, d, tile, way, split, adds):  # type: ignore[no-untyped-def]  # noqa: ARG001
    return _fold_tile if split.instance_class is SplitRows else _fold_nothing


def _fold_tile(weights, start, m, d, tile, way, split, adds):  # type: ignore[no-untyped-def]  # noqa: ARG001
    find_gaps(tile, m, way, split)  # type: ignore[no-untyped-call]
    _fold_rows(weights, start, m, tile, split, adds)


def _fold_nothing(weights, start, m, d, tile, way, split, adds):  # type: ignore[no-untyped-def]
    pass


def end_part(split):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Add the sums of the last rows to those of the block, and begin new ones, if rows are split.

    Parameters
    ----------
    split
        Memory for the split; its type says whether rows are split.
    """
    raise TypeError("end_part is part of compiled code, and no function of Python")


@overload(end_part, jit_options=OVERLOAD)  # type: ignore[arg-type]
def _end_part_if_split(split):  # type: ignore[no-untyped-def]
    return _end_part if split.instance_class is SplitRows else _end_nothing


def _end_part(split):  # type: ignore[no-untyped-def]
    k, d = split.first.shape
    for i in range(k):
        for j in range(d):
            split.first[i, j] += split.part[i, j]
    split.part.fill(0.0)


def _end_nothing(split):  # type: ignore[no-untyped-def]
    pass
