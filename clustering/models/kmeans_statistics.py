"""Additive statistics of a k-means pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from clustering.models.farthest import FARTHEST, BlockPosition, FarthestRows

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class KMeansStatistics:
    """Additive statistics of one candidate; ``a + b`` are the statistics of both sets of rows together."""

    weight: Array
    """Σ w of each cluster ``(k,)``."""
    first: Array
    """Σ w (x − origin) of each cluster ``(k, d)``."""
    objective: float
    """J of the assignment, Σ w D(x, m), at the params that entered the pass."""
    count: int
    """Number of rows."""
    farthest: FarthestRows
    observed: Array = field(default_factory=lambda: np.zeros((0, 0)))
    """Σ w of the rows that have each feature ``(k, d)``; empty where no row has missing features."""

    def __add__(self, other: KMeansStatistics) -> KMeansStatistics:
        return KMeansStatistics(
            self.weight + other.weight,
            self.first + other.first,
            self.objective + other.objective,
            self.count + other.count,
            # No more rows are kept than clusters can restart.
            self.farthest.merged(other.farthest, min(len(self.weight), FARTHEST)),
            add_observed(self.weight, self.observed, other.weight, other.observed),
        )

    def repositioned(self, before: BlockPosition, now: BlockPosition) -> KMeansStatistics:
        """Return the statistics of the same rows in a block that lies elsewhere on another sample grid.

        Parameters
        ----------
        before, now
            Position of the block on the previous sample grid and on the present one.
        """
        return replace(self, farthest=self.farthest.repositioned(before, now))

    @classmethod
    def zero(cls, k: int, d: int) -> KMeansStatistics:
        """Return the statistics of no rows.

        Parameters
        ----------
        k, d
            Number of clusters and of features.
        """
        none = np.zeros(0)
        farthest = FarthestRows(none, np.zeros(0, np.int64), np.zeros(0, np.int32), none, np.zeros((0, d)))
        return cls(np.zeros(k), np.zeros((k, d)), 0.0, 0, farthest)

    @property
    def sums(self) -> Mapping[str, Array]:
        """Sums that an update is made from; where they are equal to the last bit, another pass changes nothing."""
        return {"weight": self.weight, "first": self.first, "observed": self.observed}


def add_observed(weight: Array, observed: Array, other_weight: Array, other_observed: Array) -> Array:
    """Add up Σ w of the rows that have each feature, for two sets of rows; empty if both are.

    Parameters
    ----------
    weight, other_weight
        Σ w of each cluster ``(k,)`` in each set.
    observed, other_observed
        Σ w of the rows that have each feature ``(k, d)``; empty where no row has missing features.
    """
    if not observed.size and not other_observed.size:
        return observed
    # Where no row misses a feature, each feature has the whole weight.
    return (observed if observed.size else weight[:, None]) + (
        other_observed if other_observed.size else other_weight[:, None]
    )
