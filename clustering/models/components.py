"""Description of the clusters of a fitted model beyond their centers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from clustering.models.option_names import Covariance

Array = NDArray[np.float64]

TRACKED_CLUSTERS = 1024
"""Up to this k, numbers of each cluster are kept for every pass."""
EMPTY_SHARE = 10 * np.finfo(float).eps
"""A component with no more than this share of the weight has no rows."""


@dataclass(frozen=True, eq=False)
class Components:
    """Weights, covariances and other numbers of the clusters, in the space of the prepared rows."""

    weights: Array | None = None
    """Mixing weights ``(k,)``; None where a model has none."""
    covariances: Array | None = None
    """Covariances in the shape of their kind; None where a model has none, or they are fixed."""
    covariance: Covariance | None = None
    """Kind of the covariances; None where clusters are not Gaussians."""
    numbers: Mapping[str, Array] = field(default_factory=dict)
    """More numbers of each cluster ``(k,)``, by the names that a report shows."""
