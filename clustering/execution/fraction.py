"""Fitting on a random part of the rows: chooses the rows that take part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clustering.data.rows import Rows
from clustering.models import survey_kernels

_STREAM = 0x2545F4914F6CDD1D
"""Separates these random numbers from the priorities of the row sample, which come from the same seed."""


@dataclass(frozen=True)
class RowFraction:
    """Rows drawn with equal probability; each draw depends only on the seed and the position on the sample grid."""

    share: float
    """Probability of each row, in (0, 1)."""
    seed: int

    def select(self, rows: Rows) -> Rows:
        """Return the rows of a block that were drawn.

        Parameters
        ----------
        rows
            All rows of a block.
        """
        positions = rows.positions(np.arange(len(rows)))
        # A row has the same number for every plan and every number of workers.
        numbers = np.empty(len(rows))
        survey_kernels.uniform(self.seed ^ _STREAM, positions, numbers)
        return rows.select(numbers <= self.share)
