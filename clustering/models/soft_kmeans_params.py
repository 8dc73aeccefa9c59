"""Params of soft k-means, and the outcome of its update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.models.components import TRACKED_CLUSTERS
from clustering.models.kmeans_params import KMeansParams

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SoftKMeansParams:
    """Params of soft k-means: centers, and the stiffness that says how sharply rows choose between them."""

    origin: Array
    """Origin ``(d,)`` in the units of the rows, fixed for a run."""
    centers: Array
    """Centers less the origin ``(k, d)``."""
    beta: float
    """Stiffness β, in one over the unit of the divergence."""
    matrix: Array = field(default_factory=lambda: np.zeros((0, 0)))
    """M of the Mahalanobis distance ``(d, d)``; empty for other divergences."""

    @classmethod
    def from_hard_clusters(cls, hard: KMeansParams, beta: float) -> SoftKMeansParams:
        """Start from hard clusters.

        Parameters
        ----------
        hard
            Params of the hard clusters.
        beta
            Stiffness β.
        """
        return cls(hard.origin, hard.centers, beta, hard.matrix)

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the dimensions of each stored field."""
        return {
            "origin": ("feature",), "centers": ("cluster", "feature"), "beta": (), "matrix": ("feature", "feature_too"),
        }  # fmt: skip

    @property
    def k(self) -> int:
        """Number of clusters."""
        return len(self.centers)


class SoftUpdate(NamedTuple):
    """Outcome of an update."""

    params: SoftKMeansParams
    objective: float
    """Free energy of the same responsibilities at the new centers."""
    scale: float
    """Σ w r D, which a change of the free energy is measured against."""
    sizes: Array
    """Effective sizes Σ w r ``(k,)``."""
    reseeded: tuple[int, ...] = ()
    """Clusters that had no rows and restarted at farthest rows."""

    @property
    def restarted(self) -> bool:
        """Whether an empty cluster restarted."""
        return bool(self.reseeded)

    @property
    def notes(self) -> tuple[str, ...]:
        """Messages for the user about empty clusters."""
        return tuple(f"empty cluster {c} re-seeded at the farthest row" for c in self.reseeded)

    @property
    def measures(self) -> Mapping[str, Array]:
        """Effective sizes of the clusters ``(k,)``, unless there are more than `TRACKED_CLUSTERS`."""
        return {"sizes": self.sizes} if len(self.sizes) <= TRACKED_CLUSTERS else {}
