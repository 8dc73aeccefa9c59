"""Where the components of a mixture are, and what a maximisation step gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.models import covariances as kinds
from clustering.models.components import TRACKED_CLUSTERS
from clustering.models.divergences import TINY
from clustering.models.option_names import Covariance

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MixtureParams:
    """Where the components are."""

    origin: Array
    """Origin ``(d,)`` in the data's units, fixed for a run."""
    centers: Array
    """Means less the origin ``(k, d)``."""
    weights: Array
    """Mixing weights ``(k,)``."""
    covariances: Array
    """As `clustering.models.covariances` says for the kind."""
    feature_variance: Array
    """Variance of each feature over all rows ``(d,)``: the scale of the data."""
    kind: Covariance
    rescues: int = 0
    """Components placed anew so far."""

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Fields that are stored, with the names of their dimensions."""
        return {
            "origin": ("feature",),
            "centers": ("cluster", "feature"),
            "weights": ("cluster",),
            "covariances": kinds.DIMS[self.kind],
            "feature_variance": ("feature",),
            "rescues": (),
        }

    @property
    def k(self) -> int:
        """Number of components."""
        return len(self.centers)

    @cached_property
    def factors(self) -> Array:
        """Factors of the inverse covariances."""
        return kinds.factors(self.kind, self.covariances)

    @property
    def log_weights(self) -> Array:
        """Logarithms of the mixing weights ``(k,)``, finite."""
        logs: Array = np.log(np.maximum(self.weights, TINY))
        return logs

    @cached_property
    def constants(self) -> Array:
        """Constants log π − d/2 log 2π − ½ log |Σ| of each component ``(k,)``."""
        k, d = self.centers.shape
        determinants = kinds.log_determinants(self.kind, self.factors, k, d)
        whole: Array = self.log_weights - 0.5 * d * np.log(2 * np.pi) + determinants
        return whole


class MixtureUpdate(NamedTuple):
    """Outcome of a maximisation step."""

    params: MixtureParams
    objective: float
    """Of the same responsibilities at the new params: a bound on the negative log-likelihood there."""
    weight: float
    sizes: Array
    conditions: Array
    rescued: tuple[str, ...] = ()

    @property
    def scale(self) -> float:
        """A change of the log-likelihood is measured per unit weight."""
        return self.weight

    @property
    def restarted(self) -> bool:
        """Whether a component was placed anew."""
        return bool(self.rescued)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know."""
        return self.rescued

    @property
    def measures(self) -> Mapping[str, Array]:
        """Effective sizes and condition numbers of the components."""
        return {"sizes": self.sizes, "conditions": self.conditions} if len(self.sizes) <= TRACKED_CLUSTERS else {}
