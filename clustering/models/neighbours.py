"""How alike neighbouring rows are: the products of residuals of adjacent cells with one label, along each dimension.

Rows of a grid are rarely independent: a field changes little from one cell to the next. Likelihoods count rows, so
their penalties need the number of independent ones. Rows differ by cluster too, and a table may be sorted by it, so
the cluster means are subtracted first, and only pairs of one label count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.models.model import AnyModel

Array = NDArray[np.float64]

MOST_PAIRS = 4096
"""Pairs of a block that are compared along a dimension, at most; they are spread over the block."""
DEVIATIONS = 3.0
"""A correlation of t pairs below this over √t may be chance, and counts as none."""


@dataclass(frozen=True, eq=False)
class NeighbourSums:
    """Sums over pairs of adjacent rows along each sample dimension; ``a + b`` are the sums over both."""

    products: Array
    """Σ (x − m)·(y − m) ``(dims,)``."""
    squares: Array
    """Σ (‖x − m‖² + ‖y − m‖²) / 2 ``(dims,)``."""
    pairs: NDArray[np.int64]
    """Number of pairs ``(dims,)``."""

    def __add__(self, other: NeighbourSums) -> NeighbourSums:
        return NeighbourSums(self.products + other.products, self.squares + other.squares, self.pairs + other.pairs)

    @property
    def correlations(self) -> Array:
        """Lag-1 autocorrelation of the residuals along each dimension ``(dims,)``; 0 where it may be chance."""
        seen = (self.pairs > 0) & (self.squares > 0.0)
        correlation = np.where(seen, self.products, 0.0) / np.where(seen, self.squares, 1.0)
        return np.where(correlation > DEVIATIONS / np.sqrt(np.maximum(self.pairs, 1)), correlation, 0.0)

    def independent_share(self, rows: int) -> float:
        """Estimate the share of the rows that are independent, above 0 and at most 1.

        Along each dimension, n rows of lag-1 autocorrelation ρ count as n (1 − ρ) / (1 + ρ) (Bayley & Hammersley 1946,
        doi:10.2307/2983560). The shares of the dimensions are multiplied.

        Parameters
        ----------
        rows
            Number of rows. At least one is independent.
        """
        share = float(np.prod((1.0 - self.correlations) / (1.0 + self.correlations)))
        # Another division into blocks compares other pairs, so further digits mean nothing.
        return max(float(f"{share:.2g}"), 1.0 / rows) if share < 1.0 else 1.0


@dataclass(frozen=True)
class NeighbourPass:
    """Compares adjacent rows of a block about the means of their labels; picklable."""

    model: AnyModel
    params: Any
    means: Array
    """Mean of each label ``(k, p)``, where rows are embedded."""

    def __call__(self, rows: Rows) -> NeighbourSums:
        """Add up the pairs of a block.

        Parameters
        ----------
        rows
            Prepared rows ``(n, d)``.
        """
        dims = len(rows.shape)
        products, squares, pairs = np.zeros(dims), np.zeros(dims), np.zeros(dims, np.int64)
        places = np.arange(len(rows)) if rows.cells is None else np.full(math.prod(rows.shape), -1)
        if rows.cells is not None:
            places[rows.cells] = np.arange(len(rows))
        places = places.reshape(rows.shape)
        labels = self.model.assign(self.params, rows).labels if len(rows) else np.zeros(0, np.int32)
        for dim in range(dims):
            one, other = (np.moveaxis(places, dim, 0)[part].reshape(-1) for part in (slice(None, -1), slice(1, None)))
            both = np.flatnonzero((one >= 0) & (other >= 0))
            both = both[:: max(1, -(-len(both) // MOST_PAIRS))]
            same = labels[one[both]] == labels[other[both]]
            first, second = (self._residuals(rows, labels, side[both][same]) for side in (one, other))
            products[dim] = np.einsum("ij,ij->", first, second)
            squares[dim] = (np.square(first).sum() + np.square(second).sum()) / 2.0
            pairs[dim] = len(first)
        return NeighbourSums(products, squares, pairs)

    def _residuals(self, rows: Rows, labels: NDArray[np.int32], index: NDArray[np.intp]) -> Array:
        """Return rows less the mean of their label; 0 where a feature is missing."""
        if not len(index):
            return np.zeros((0, self.means.shape[1]))
        return np.nan_to_num(self.model.embed(self.params, rows.values[index]) - self.means[labels[index]])
