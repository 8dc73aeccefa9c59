"""What the compiled pass of k-means works on where rows of float32 have few features and there are few clusters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.models.assignment import zeros
from clustering.models.lanes import WIDE
from clustering.models.lloyd_buffers import ByScore, Centers, address_of, make_by_score
from clustering.models.scored_centers import Scores

FEATURES_AT_ONCE = 4
"""Features that are loaded together."""


class FewFeatures(NamedTuple):
    """Memory for rows that are labelled and added up side by side, so that no step goes over them one by one."""

    by: ByScore
    """Memory for the scores."""
    points: NDArray[np.float64]
    """Centers less the origin, eight side by side ``(d, 8)``."""
    scales: NDArray[np.float32]
    """Scale of each feature, and zeros for those that make fours ``(d rounded up to fours,)``."""
    singles: NDArray[np.float32]
    """Rows as they are in the source, sixteen side by side ``(t / 16, d rounded up to fours, 16)``, as flat memory."""
    rows: NDArray[np.float64]
    """Rows less the origin, times their weights, eight side by side ``(t / 8, d, 8)``, as flat memory."""
    weights: NDArray[np.float64]
    """Weights of the rows ``(t,)``."""
    one: NDArray[np.float64]
    """1 ``(1,)``, which a compiler must not know, as it would make products with it something else."""
    weight: NDArray[np.float64]
    """Σw of the first rows of each eight, of their second rows, and so on ``(8, 8)``, of up to eight clusters."""
    first: NDArray[np.float64]
    """Σw·x likewise ``(8, d, 8)``, as flat memory."""
    rest: NDArray[np.float32]
    """Gets the last rows of a block ``(t * d + 4,)``, as nothing behind them may be loaded."""
    rest_address: int
    """Address of `rest`."""


def make_few_features(centers: Centers, scores: Scores, t: int) -> FewFeatures | None:
    """Make the memory for rows of few features; None where they have to go through the tile.

    Parameters
    ----------
    centers
        Centers of the pass.
    scores
        Centers as they are scored.
    t
        Number of rows of a tile.
    """
    scaled = 2.0**-100 < scores.scale < 2.0**100
    if not (scaled and centers.exact):
        return None
    d = scores.slopes.shape[1]
    points = zeros((d, WIDE))
    points[:, : len(centers.centers)] = centers.centers[:, :d].T
    across = -(-d // FEATURES_AT_ONCE) * FEATURES_AT_ONCE
    scales, singles = zeros((across,), np.float32), zeros((t * across,), np.float32)
    scales[:d] = scores.scale
    rest = zeros((t * d + FEATURES_AT_ONCE,), np.float32)
    # Eight features of sums are loaded at once, some of which may lie beyond the last cluster.
    first = zeros((WIDE * d * WIDE + WIDE * WIDE,))
    return FewFeatures(
        make_by_score(t, scores), points, scales, singles, zeros((t * d,)), zeros((t,)), np.full(1, 1.0),
        zeros((WIDE, WIDE)), first, rest, address_of(rest),
    )  # fmt: skip
