"""Neighbouring centers: those next to each center, in the order in which a row of its cluster is compared with them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.blas import one_blas_thread

Array = NDArray[np.float64]

MOST = 64
"""Neighbours of each center, at most; a row that they are not enough for is compared with all centers."""
DISTANCES_AT_ONCE = 2**20
"""Distances of centers from each other that are held together."""


class NeighbouringCenters(NamedTuple):
    """The centers next to each center, and how far apart they stay."""

    order: NDArray[np.int32]
    """The other centers, those that stay the nearest first ``(k, l)``."""
    apart: Array
    """Lower bounds of their distances from the center, less what each may stray ``(k, l)``."""


def neighbouring_centers(points: Array, drift: Array, astray: Array) -> NeighbouringCenters:
    """Find the centers next to each center.

    Parameters
    ----------
    points
        Centers ``(k, p)`` in a space where the Euclidean distance is the metric.
    drift
        How far each center moves away from there ``(k,)``, at most.
    astray
        How far each is from there, at most, where it strays as well ``(k,)``.
    """
    k, p = points.shape
    length = min(k - 1, MOST)
    order, apart = np.empty((k, length), np.int32), np.empty((k, length))
    # Each sum errs by p roundings at most, of numbers that are no larger than the squares.
    less = 1.0 - (2.0 * p + 8.0) * 2.0**-52
    # One thread, as the number of BLAS threads changes the order of sums.
    with one_blas_thread(), np.errstate(invalid="ignore", over="ignore"):
        squares = less * np.einsum("kp,kp->k", points, points)
        for start in range(0, k if length else 0, step := max(1, DISTANCES_AT_ONCE // k)):
            some = slice(start, start + step)
            bounds = squares[some, None] + squares - 2.0 * (points[some] @ points.T)
            bounds = np.nan_to_num(np.sqrt(np.maximum(0.0, bounds))) * (1.0 - 2.0**-33)
            bounds -= drift[some, None] + astray
            bounds[np.arange(len(bounds)), np.arange(k)[some]] = np.inf
            nearest = np.argpartition(bounds, length - 1, axis=1)[:, :length]
            least = np.take_along_axis(bounds, nearest, axis=1)
            # A stable order does not depend on how the partition leaves equal bounds.
            sorted_ = np.lexsort((nearest, least), axis=1)
            order[some] = np.take_along_axis(nearest, sorted_, axis=1)
            apart[some] = np.take_along_axis(least, sorted_, axis=1)
    return NeighbouringCenters(order, apart)
