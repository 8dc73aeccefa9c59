"""Params of k-means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.models.components import TRACKED_CLUSTERS

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class KMeansParams:
    """Params of k-means: centers and the origin that they are measured from."""

    origin: Array
    """Origin ``(d,)`` in the units of the rows, fixed for a run; it keeps the digits of far-off data."""
    centers: Array
    """Centers less the origin ``(k, d)``."""
    total_scatter: float = np.inf
    """Σ w ‖x − origin‖² of all rows; infinite where unknown."""
    matrix: Array = field(default_factory=lambda: np.zeros((0, 0)))
    """M of the Mahalanobis distance ``(d, d)``; empty for other divergences."""

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the dimensions of each stored field."""
        matrix = ("feature", "feature_too")
        return {"origin": ("feature",), "centers": ("cluster", "feature"), "total_scatter": (), "matrix": matrix}

    @property
    def k(self) -> int:
        """Number of clusters."""
        return len(self.centers)


class KMeansUpdate(NamedTuple):
    """Outcome of an update."""

    params: KMeansParams
    objective: float
    """J of the same assignment at the new centers."""
    reseeded: tuple[int, ...] = ()
    """Clusters that had no rows and restarted at farthest rows."""
    empty: tuple[int, ...] = ()
    """Clusters that had no rows and stayed in place, because there were not enough distinct farthest rows."""
    sizes: Array = np.zeros(0)
    """Σ w of each cluster ``(k,)``, before empty ones restart."""

    @property
    def scale(self) -> float:
        """J, which a change of the objective is measured against."""
        return self.objective

    @property
    def restarted(self) -> bool:
        """Whether an empty cluster restarted."""
        return bool(self.reseeded)

    @property
    def notes(self) -> tuple[str, ...]:
        """Messages for the user about empty clusters."""
        actions = {"re-seeded at the farthest row": self.reseeded, "left in place": self.empty}
        return tuple(f"empty cluster {c} {words}" for words, clusters in actions.items() for c in clusters)

    @property
    def measures(self) -> Mapping[str, Array]:
        """Weights of the clusters ``(k,)``, unless there are more than `TRACKED_CLUSTERS`."""
        return {"sizes": self.sizes} if len(self.sizes) <= TRACKED_CLUSTERS else {}
