"""Where hard clusters are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class KMeansParams:
    """What a pass needs: where the clusters are."""

    origin: Array
    """Origin ``(d,)`` in the data's units, fixed for a run; subtracting it first keeps the digits of far-off data."""
    centers: Array
    """Centers less the origin, ``(k, d)``."""
    total_scatter: float = np.inf
    """Σ w ‖x − origin‖² of all rows, where it is known."""
    matrix: Array = field(default_factory=lambda: np.zeros((0, 0)))
    """M of the Mahalanobis distance ``(d, d)``; empty for other divergences."""

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Fields that are stored, with the names of their dimensions."""
        matrix = ("feature", "feature_too")
        return {"origin": ("feature",), "centers": ("cluster", "feature"), "total_scatter": (), "matrix": matrix}

    @property
    def k(self) -> int:
        """Number of clusters."""
        return len(self.centers)
