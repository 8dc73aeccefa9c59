"""What the compiled pass of k-means works on where it reads rows of float32 in the source, and fills no tiles.

Most data are float32 and are labelled by scores. So only this way is compiled in most processes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.models.assignment import zeros
from clustering.models.lanes import NARROW, WIDE
from clustering.models.lloyd_buffers import ByScore, Centers, PartialSums, address_of

PART, PART_ROWS = 3 * WIDE, 2 * NARROW
"""Parts of a squared distance, and number of rows whose parts are kept."""
PIECE, PIECE_CENTERS = 64, 2048
"""Features that all rows of a group go through before the next ones, at least, and numbers of the centers of a piece:
centers and sums then stay in the first cache."""


class Parts(NamedTuple):
    """Memory for the distances of some rows, whose features are taken a few at a time."""

    squares: NDArray[np.float64]
    """Sixteen sums of each row that make its squared distance, and eight squares ``(PART_ROWS, PART)``."""
    places: NDArray[np.int64]
    """Where the centers of the rows begin ``(PART_ROWS,)``."""
    factors: NDArray[np.float64]
    """Weights of the rows ``(PART_ROWS,)``."""
    minus: NDArray[np.float64]
    """−1 ``(1,)``, which a compiler must not know, as it would make products with it something else."""
    piece: int
    """Number of features that all rows go through before the next ones: a multiple of 16, or all."""


class InPlace(NamedTuple):
    """Memory for labelling rows of float32 by scores, which are read in the source and not put into the tile."""

    by: ByScore
    """Memory for the scores."""
    parts: Parts
    """For the distances of the rows."""
    rest: NDArray[np.float32]
    """Gets the last rows of a block, which make no sixteen ``(t * d,)``, as nothing behind them may be loaded."""
    rest_address: int
    """Address of `rest`."""


def make_in_place(centers: Centers, by: ByScore, sums: PartialSums) -> InPlace | None:
    """Make the memory for rows that are read in the source; None where they have to go through the tile.

    Parameters
    ----------
    centers
        Centers of the pass.
    by
        Memory for labelling tiles by scores.
    sums
        Sums of some rows; without copies, rows are not added up.
    """
    t, d = len(by.norms), by.scores.slopes.shape[1]
    # Eight features are worked on at once, and the scale is to be a number of float32 too.
    scaled = 2.0**-100 < by.scores.scale < 2.0**100
    if not (d % WIDE == 0 and scaled and centers.exact):
        return None
    copies, k = sums.weight.shape
    piece = max(PIECE, PIECE_CENTERS // k // PIECE * PIECE if copies else d)
    parts = Parts(
        zeros((PART_ROWS, PART)), zeros((PART_ROWS,), np.int64), zeros((PART_ROWS,)), np.full(1, -1.0), piece
    )  # fmt: skip
    rest = zeros((t * d,), np.float32)
    return InPlace(by, parts, rest, address_of(rest))
