"""Centers as rows are scored by them: −2 x·c + ‖c‖² in float32, with bounds of the rounding."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.models.assignment import rounding_bound, zeros

Array = NDArray[np.float64]

SINGLE_EPS, SINGLE_TINY, SINGLE_MAX = (float(getattr(np.finfo(np.float32), name)) for name in ("eps", "tiny", "max"))
DOUBLE_TINY, DOUBLE_MAX = float(np.finfo(np.float64).tiny), float(np.finfo(np.float64).max)
"""Precision and range of numbers."""
FEW_FEATURES, FEW_CENTERS = 15, 8
"""Up to this d and k, distances to all centers cost less than scores."""
CENTERS_AT_ONCE = 4
"""Centers that are scored together, so that their sums stay in registers."""
PANEL_BYTES = 256 * 1024
"""Size of the centers that are compared with all rows of a tile before the next ones, in bytes."""


class Scores(NamedTuple):
    """Centers for scores −2 x·c + ‖c‖² in float32, with bounds; the scale, a power of two, keeps them in range."""

    scale: float
    """Factor of rows and centers."""
    slopes: NDArray[np.float32]
    """−2 c, four centers side by side ``(k / 4, d, 4)``."""
    offsets: NDArray[np.float32]
    """‖c‖² ``(k,)``, infinite where k is rounded up to a multiple of four."""
    names: NDArray[np.float32]
    """Indices of the centers ``(k,)``."""
    panel: int
    """Number of centers in a panel."""
    reach: np.float32
    """The largest ‖c‖, scaled."""
    relative: np.float32
    """Rounding bound of the difference of two scores, relative to (‖x‖ + reach)²."""
    absolute: np.float32
    """Absolute part of the rounding bound, for numbers that underflow."""
    limit: np.float32
    """Beyond this (‖x‖ + reach)² a score may have overflowed."""

    @property
    def unscale(self) -> float:
        """Factor that turns scores into squared distances; 0 where the square of the scale leaves float64."""
        return 1.0 / (self.scale * self.scale) if 1e-150 < self.scale < 1e150 else 0.0


def make_scores(centers: Array) -> Scores | None:
    """Prepare centers for scores; None where distances cost less.

    Parameters
    ----------
    centers
        Centers less the origin ``(k, d)``.
    """
    k, d = centers.shape
    # Both ways give the same labels and distances, so the choice is one of speed alone.
    return None if are_few(k, d) else score_centers(centers)


def are_few(k: int, d: int) -> bool:
    """Return whether all distances of a row cost less than scores in a tile.

    Parameters
    ----------
    k, d
        Number of clusters and of features.
    """
    return d <= FEW_FEATURES and k <= FEW_CENTERS


def score_centers(centers: Array) -> Scores:
    """Prepare centers for scores, however few they are.

    Parameters
    ----------
    centers
        Centers less the origin ``(k, d)``.
    """
    k, d = centers.shape
    # A power of two scales without rounding. Beyond ±1000 it would leave float64 itself.
    exponent = max(-1000, min(1000, math.frexp(float(np.abs(centers).max()))[1]))
    slopes, offsets = slopes_and_offsets(np.ldexp(centers, -exponent))
    relative, absolute = rounding_bound(d)
    scale = 2.0**-exponent
    # The defining distances are not scaled: where they overflow or underflow, scores must not decide either.
    square = scale * scale
    with np.errstate(over="ignore"):
        return Scores(
            scale=scale,
            slopes=slopes,
            offsets=offsets,
            names=np.arange(len(offsets), dtype=np.float32),
            panel=centers_in_panel(d),
            reach=np.float32(float(np.sqrt(offsets[:k].max())) * 1.001),
            # The bound itself is rounded too: twice the norm and its factors, and the least score plus the bound.
            # The norm itself may be too small by its share of the rounding.
            relative=np.float32((relative + SINGLE_EPS) * 1.001 / max(1.0 - (d + 4) * SINGLE_EPS, SINGLE_TINY)),
            absolute=np.float32(absolute + 8.0 * (d + 4) * DOUBLE_TINY * square),
            limit=np.float32(min(SINGLE_MAX, DOUBLE_MAX * square) / 16),
        )


def slopes_and_offsets(centers: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute what `score_kernels.scores_of_four` takes of centers.

    Parameters
    ----------
    centers
        Scaled centers ``(k, d)``.

    Returns
    -------
    ndarray, ndarray
        −2 c, four centers side by side ``(k / 4, d, 4)``, and ‖c‖² ``(k,)``, with k rounded up to a multiple of four.
    """
    k, d = centers.shape
    filled = np.zeros((-(-k // CENTERS_AT_ONCE) * CENTERS_AT_ONCE, d))
    filled[:k] = centers
    slopes = zeros((len(filled) // CENTERS_AT_ONCE, d, CENTERS_AT_ONCE), np.float32)
    slopes[:] = -2.0 * filled.reshape(-1, CENTERS_AT_ONCE, d).transpose(0, 2, 1)
    offsets = zeros((len(filled),), np.float32)
    # An infinite score keeps centers that only fill up the last four from being the least.
    offsets[:k], offsets[k:] = np.einsum("kd,kd->k", centers, centers), np.inf
    return slopes, offsets


def centers_in_panel(d: int) -> int:
    """Return how many centers are compared with all rows of a tile before the next ones.

    Parameters
    ----------
    d
        Number of features.
    """
    return max(1, PANEL_BYTES // (4 * d * CENTERS_AT_ONCE)) * CENTERS_AT_ONCE
