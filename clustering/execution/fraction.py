"""Fitting on a part of the rows: which of them take part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clustering.data.rows import Rows
from clustering.models import kernels

_STREAM = 0x2545F4914F6CDD1D
"""Parts the draw from the priorities of the row sample, which follow from the same seed."""


@dataclass(frozen=True)
class RowFraction:
    """Rows drawn with equal probability, each as a function of the seed and its place on the sample grid alone."""

    share: float
    """Probability of each row, in (0, 1)."""
    seed: int

    def select(self, rows: Rows) -> Rows:
        """Give the rows of a block that were drawn."""
        positions = rows.positions(np.arange(len(rows)))
        numbers = np.empty(len(rows))
        kernels.uniform(self.seed ^ _STREAM, positions, numbers)
        return rows.select(numbers <= self.share)
