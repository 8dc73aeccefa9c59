"""Labels of rows by those of the pass before, compared with few centers.

A row keeps its nearest center for sure where its distance, which is computed anew, is less than a lower bound of those
from all others (Hamerly 2010, doi:10.1137/1.9781611972801.12). The bound shrinks by how far the slow centers have moved
at most since the pass before; the fast ones are scored for every row. Late passes move few centers, so that they take a
small part of the products. The other rows are unsure: they are collected, and labelled by the scores of all centers.
Labels and distances are those of a pass that remembers nothing, to the last bit.

Bounds may be off by the rounding of a few hundred subtractions, far below the slack of `margin_kernels`.
"""

from __future__ import annotations

import numpy as np
from numba.extending import overload

from clustering.compiling import INNER, njit
from clustering.models.filling_kernels import fill
from clustering.models.kernels import BARE, OVERLOAD
from clustering.models.labelling_kernels import label_by_score
from clustering.models.lane_types import ELEMENT_BYTES
from clustering.models.lanes import WIDE, load, store
from clustering.models.lloyd_buffers import Coming
from clustering.models.margin_kernels import SLACK
from clustering.models.recalled_buffers import Recalled
from clustering.models.score_kernels import score, turn
from clustering.models.settling_kernels import take_distances


@njit(inline="always", **BARE)
def _least_square(value, norm, scores, unscale):  # type: ignore[no-untyped-def]
    """Bound a squared distance from below by a score and the squared norm of its row; 0 where they say nothing."""
    reach = np.float64(scores.reach)
    # (a + b)² is at most 2 a² + 2 b².
    most = 2.0 * (np.float64(norm) + reach * reach)
    # Once for the score, and once for the norm.
    error = 2.0 * (np.float64(scores.relative) * most + np.float64(scores.absolute))
    clear = np.float64(value) + np.float64(norm) - error
    # Beyond the limit a score may have overflowed. NaN fails every comparison.
    return clear * unscale if most < np.float64(scores.limit) and clear > 0.0 else 0.0


@njit(**INNER, **BARE)
def _label_anew(tile, m, d, centers, way, coming):  # type: ignore[no-untyped-def]
    """Label the rows of a tile by the scores of all centers; their places in the run are set."""
    by = way.all
    label_by_score(tile, m, d, centers, by, coming)
    take_distances(tile, m, d, centers.centers)
    for r in range(m):
        i = way.places[r]
        way.labels[i] = int(tile.labels[r])
        way.squares[i] = tile.distances[r]
        # Among near ties the label may be another than that of the least score.
        other = 0.0
        if by.labels[r] == tile.labels[r]:
            other = np.sqrt(_least_square(by.second[r], by.norms[r], by.scores, way.all_unscale))
        way.bounds[i] = other


@njit(**INNER, **BARE)
def _recall_rows(run, b, begin, end, d, done, centers, tile, way):  # type: ignore[no-untyped-def]
    """Label some rows of block `b`, at most so many as are added up together."""
    t, width = tile.rows.shape
    by = way.fast
    n = run.lengths[b]
    size = ELEMENT_BYTES[run.types[b]]
    no_rows = Coming(run.values[b], 0)
    count = np.int64(0)
    for start in range(begin, end, t):
        m = min(t, end - start)
        at = done + start
        # Rows of the next tile are loaded from memory while this one is worked on.
        coming = Coming(run.values[b] + (start + m) * d * size, min(t, n - start - m) * d * size)
        fill(run.values[b], run.types[b], start, m, n, d, centers.origin, tile)
        if way.anew:
            for r in range(m):
                way.places[r] = at + r
            _label_anew(tile, m, d, centers, way, coming)
            continue
        for r in range(m):
            tile.labels[r] = np.float64(way.labels[at + r])
        take_distances(tile, m, d, centers.centers)
        turn(tile, m, d, by.scores, by.columns, by.norms)
        score(m, d, by, coming)
        for r in range(m):
            own = np.sqrt(tile.distances[r])
            # The nearest center is no other one, where it is among the fast.
            least = by.second[r] if np.float64(by.labels[r]) == tile.labels[r] else by.least[r]
            other = way.bounds[at + r] - way.slow
            square = _least_square(least, by.norms[r], by.scores, way.fast_unscale)
            if other > 0.0 and square < other * other:
                other = np.sqrt(square)
            # NaN fails the comparison.
            if other - own > SLACK * (other + own + way.reach):
                way.bounds[at + r] = other
                way.squares[at + r] = tile.distances[r]
                continue
            for j in range(0, width, WIDE):
                store(way.unsure.rows, count * width + j, load(tile.rows, r * width + j))
            way.places[count] = at + r
            count += 1
            if count == t:
                _label_anew(way.unsure, count, d, centers, way, no_rows)
                count = np.int64(0)
    if count:
        _label_anew(way.unsure, count, d, centers, way, no_rows)


def recall(run, b, begin, end, d, done, centers, tile, way):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Label some rows by the labels of the pass before, if these are remembered.

    Parameters
    ----------
    run, b, begin, end, d
        Rows, a block, its first row and the one after the last, and number of features.
    done
        Number of rows of the run before the block.
    centers, tile
        Centers, and memory for a tile.
    way
        Memory for a way to label tiles, whose type says whether labels are remembered.
    """
    raise TypeError("recall is part of compiled code, and no function of Python")


@overload(recall, jit_options=OVERLOAD)  # type: ignore[arg-type]
def _recall_if_remembered(run, b, begin, end, d, done, centers, tile, way):  # type: ignore[no-untyped-def]  # noqa: ARG001
    return _recall if way.instance_class is Recalled else _recall_nothing


def _recall(run, b, begin, end, d, done, centers, tile, way):  # type: ignore[no-untyped-def]
    _recall_rows(run, b, begin, end, d, done, centers, tile, way)


def _recall_nothing(run, b, begin, end, d, done, centers, tile, way):  # type: ignore[no-untyped-def]
    pass
