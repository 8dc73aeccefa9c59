"""Where the clusters of soft k-means are, and what a refitting step gives."""

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
    """Where the clusters are, and how sharply rows choose between them."""

    origin: Array
    """Origin ``(d,)`` in the data's units, fixed for a run."""
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
            Their params.
        beta
            Stiffness β.
        """
        return cls(hard.origin, hard.centers, beta, hard.matrix)

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Fields that are stored, with the names of their dimensions."""
        return {
            "origin": ("feature",), "centers": ("cluster", "feature"), "beta": (), "matrix": ("feature", "feature_too"),
        }  # fmt: skip

    @property
    def k(self) -> int:
        """Number of clusters."""
        return len(self.centers)


class SoftUpdate(NamedTuple):
    """Outcome of a refitting step."""

    params: SoftKMeansParams
    objective: float
    """Free energy of the same responsibilities at the new centers."""
    scale: float
    """Σ w r D, which a change of the free energy is measured against."""
    sizes: Array
    reseeded: tuple[int, ...] = ()

    @property
    def restarted(self) -> bool:
        """Whether a cluster was placed anew."""
        return bool(self.reseeded)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know."""
        return tuple(f"empty cluster {c} re-seeded at the farthest row" for c in self.reseeded)

    @property
    def measures(self) -> Mapping[str, Array]:
        """Effective sizes of the clusters."""
        return {"sizes": self.sizes} if len(self.sizes) <= TRACKED_CLUSTERS else {}
