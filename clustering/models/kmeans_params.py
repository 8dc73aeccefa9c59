"""Params of k-means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

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
