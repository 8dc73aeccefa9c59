"""Squares and moments by matrix products, where these are faster and accurate enough.

‖x − c‖² = ‖x‖² − 2 x·c + ‖c‖² is off by the rounding of ‖x‖² + ‖c‖². It is used where this error hardly changes the
log-likelihood; elsewhere the squares of differences are added up one by one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clustering.models import difference_kernels
from clustering.models.assignment import aligned_empty

Array = NDArray[np.float64]

MANY = 1024
"""From this k·d on, matrix products are faster than loops."""
LOST = 1e-12
"""Largest error of a squared distance that is allowed, in units of the variance."""


class ProductsAllowed:
    """Decides where matrix products are faster and accurate enough."""

    def __init__(self, centers: Array, sharpness: float) -> None:
        # BLAS gains nothing from matrices of a few lines.
        self.many = len(centers) >= 8 and centers.size >= MANY and sharpness < np.inf
        self.farthest = float(np.sum(centers * centers, axis=1).max()) if self.many else np.inf
        # The bound keeps a sharpness of 0 from being a divisor.
        self.limit = LOST / (max(sharpness, 1e-300) * float(np.finfo(float).eps))

    def __call__(self, norms: Array) -> bool:
        """Decide for rows of squared norms ``(m,)``."""
        # Norms that are infinite or NaN fail the comparison, so such rows go to the loops.
        return self.many and len(norms) > 0 and float(norms.max()) + self.farthest < self.limit


class SquaredDistances:
    """Squared distances from all centers, with a factor for each feature where `scales` are given.

    Parameters
    ----------
    centers
        Centers less the origin ``(k, d)``.
    sharpness
        Largest factor, scales included, that squares are multiplied by later.
    scales
        Factors of the squares ``(k, d)``; all 1 where None.
    """

    def __init__(self, centers: Array, sharpness: float, scales: Array | None = None) -> None:
        self.centers, self.scales = centers, scales
        scaled = centers if scales is None else scales * centers
        self.slopes = -2.0 * scaled
        self.norms = np.sum(scaled * centers, axis=1)[:, None]
        self.exact = ProductsAllowed(centers, sharpness)

    def __call__(self, columns: Array, norms: Array, out: Array) -> None:
        """Fill `out` ``(k, m)`` for columns ``(d, m)`` of squared norms ``(m,)``."""
        if not self.exact(norms):
            if self.scales is None:
                difference_kernels.squares(columns, self.centers, out)
            else:
                difference_kernels.scaled_squares(columns, self.centers, self.scales, out)
            return
        np.matmul(self.slopes, columns, out=out)
        if self.scales is None:
            out += norms
        else:
            squared = np.multiply(columns, columns, out=aligned_empty(columns.shape))
            out += np.matmul(self.scales, squared, out=aligned_empty(out.shape))
        out += self.norms
        # The expansion may be rounded below zero near a center.
        np.maximum(out, 0.0, out=out)


class CenteredSums:
    """Adds up Σ s, Σ s (x − c), and Σ s (x − c)² where `squared`, about centers ``(k, d)``."""

    def __init__(self, centers: Array, sharpness: float, *, squared: bool) -> None:
        self.centers, self.squared = centers, squared
        k = len(centers)
        none = np.zeros((0, 0))
        # Sums of loops are about the centers; raw sums, of matrix products, are about the origin.
        self.weight, self.first = np.zeros(k), np.zeros_like(centers)
        self.second = np.zeros_like(centers) if squared else none
        self.raw_weight, self.raw_first = np.zeros(k), np.zeros_like(centers)
        self.raw_second = np.zeros_like(centers) if squared else none
        self.exact = ProductsAllowed(centers, sharpness)

    def add(self, columns: Array, norms: Array, weighted_resp: Array) -> None:
        """Add the rows of one sub-block.

        Parameters
        ----------
        columns
            Rows less the origin as columns ``(d, m)``.
        norms
            Squared norms of the columns ``(m,)``.
        weighted_resp
            Responsibilities times weights ``(k, m)``.
        """
        if self.exact(norms):
            self.raw_weight += weighted_resp.sum(axis=1)
            self.raw_first += np.matmul(weighted_resp, columns.T)
            if self.squared:
                squared = np.multiply(columns, columns, out=aligned_empty(columns.shape))
                self.raw_second += np.matmul(weighted_resp, squared.T)
            return
        # Two levels of sums: the error grows with the rows of a sub-block, not with those of a block.
        weight, first = np.zeros_like(self.weight), np.zeros_like(self.first)
        if self.squared:
            second = np.zeros_like(self.second)
            difference_kernels.diagonal_about(columns, self.centers, weighted_resp, weight, first, second)
            self.second += second
        else:
            difference_kernels.first_about(columns, self.centers, weighted_resp, weight, first)
        self.weight += weight
        self.first += first

    def total(self) -> tuple[Array, Array, Array]:
        """Return the sums ``(k,)``, ``(k, d)`` and ``(k, d)``, all about the centers."""
        # Raw sums move from the origin to the centers once for a block, so this rounding does not add up.
        moved = self.raw_weight[:, None] * self.centers
        second = self.second
        if self.squared:
            second = second + np.maximum(0.0, self.raw_second - self.centers * (2.0 * self.raw_first - moved))
        return self.weight + self.raw_weight, self.first + (self.raw_first - moved), second
