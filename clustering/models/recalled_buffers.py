"""What the compiled pass of k-means works on where it remembers the labels of the pass before."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.models.lloyd_buffers import ByScore, Tile, make_tile
from clustering.models.prepared_centers import PreparedCenters
from clustering.models.scored_centers import score_centers

Array = NDArray[np.float64]

SAMPLED_SLACKS = 16
"""One row in this many says how many rows a choice of slow centers would leave unsure."""

WORTHWHILE = 0.9
"""Part of the scores above which it costs less to score all centers anew, as this needs no bounds."""


class RowBounds(NamedTuple):
    """What is remembered of the rows of a block after a pass."""

    labels: NDArray[np.int32]
    """Nearest centers ``(n,)``."""
    bounds: Array
    """Lower bounds of the distances from all other centers ``(n,)``; not squared."""
    slacks: Array
    """Bound less the distance from the nearest center, of every `SAMPLED_SLACKS`-th row."""


class Recalled(NamedTuple):
    """Memory for labelling rows by the labels of the pass before. Rows are those of a run of blocks."""

    labels: NDArray[np.int32]
    """Labels of the pass before, then those of this pass ``(n,)``."""
    bounds: Array
    """Lower bounds of the distances from all other centers, before and then after this pass ``(n,)``."""
    squares: Array
    """Gets the squared distances from the nearest centers ``(n,)``."""
    anew: bool
    """Whether all rows are labelled by all centers, and only their bounds are taken."""
    slow: float
    """How far the centers that are not scored have moved since the pass before, at most."""
    reach: float
    """The largest distance of a center from the origin."""
    fast: ByScore
    """For scores of the other centers."""
    fast_unscale: float
    """Factor that turns their scores into squared distances; 0 where it would leave float64."""
    all: ByScore
    """For scores of all centers, which unsure rows need."""
    all_unscale: float
    """Factor that turns these into squared distances."""
    unsure: Tile
    """Unsure rows that are labelled together."""
    places: NDArray[np.int64]
    """Where they are in the run ``(t,)``."""


def forgotten(n: int) -> RowBounds:
    """Make bounds that hold for rows of which nothing is remembered.

    Parameters
    ----------
    n
        Number of rows.
    """
    return RowBounds(np.zeros(n, np.int32), np.full(n, -np.inf), np.full(len(range(0, n, SAMPLED_SLACKS)), -np.inf))


def choose_fast(moves: Array, slacks: Array) -> NDArray[np.intp]:
    """Choose the centers that all rows are compared with; none where it costs less to score all centers anew.

    Rows are unsure of their labels where the fastest of the other centers has moved by more than the slack. The choice
    balances the scores of fast centers with those of unsure rows, and changes no label.

    Parameters
    ----------
    moves
        How far each center has moved since the pass before ``(k,)``.
    slacks
        Slacks of some rows, as `RowBounds` holds them.
    """
    order = np.argsort(-moves, kind="stable")
    unsure = np.searchsorted(np.sort(slacks), moves[order[1:]], side="right") / max(1, len(slacks))
    cost = np.arange(1, len(moves)) / len(moves) + unsure
    best = int(np.argmin(cost))
    return np.sort(order[: best + 1]) if cost[best] < WORTHWHILE else order[:0]


def make_recalled(centers: PreparedCenters, moves: Array, rows: RowBounds) -> Recalled:
    """Make the memory for labelling a run of blocks.

    Parameters
    ----------
    centers
        Centers of the pass, which are prepared for scores.
    moves
        How far each center has moved since the pass before ``(k,)``.
    rows
        What is remembered of the rows of the run; labels and bounds are overwritten.
    """
    assert centers.scores is not None
    points = centers.centers.centers[:, : centers.d]
    fast = choose_fast(moves, rows.slacks)
    slow = np.ones(len(moves), bool)
    slow[fast] = False
    # Without fast centers, none of these scores is used.
    scores = score_centers(points[fast] if len(fast) else points[:1])
    scores.names[: len(fast)] = fast
    _, by_fast = make_tile(centers.d, scores)
    unsure, by_all = make_tile(centers.d, centers.scores)
    assert isinstance(by_fast, ByScore)
    assert isinstance(by_all, ByScore)
    return Recalled(
        rows.labels, rows.bounds, np.zeros(len(rows.labels)), not len(fast), float(moves[slow].max(initial=0.0)),
        float(centers.centers.reach.max()), by_fast, scores.unscale, by_all, centers.scores.unscale, unsure,
        np.zeros(len(unsure.rows), np.int64),
    )  # fmt: skip
