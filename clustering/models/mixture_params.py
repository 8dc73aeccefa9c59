"""Params of a Gaussian mixture, the outcome of its M-step, and the check whether a component has collapsed."""

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

LEAST_VARIANCE = 1e-20
"""A component with a variance below this, relative to the feature variance, has collapsed."""


@dataclass(frozen=True, eq=False)
class MixtureParams:
    """Params of a Gaussian mixture."""

    origin: Array
    """Origin ``(d,)`` in the units of the rows, fixed for a run."""
    centers: Array
    """Means less the origin ``(k, d)``."""
    weights: Array
    """Mixing weights ``(k,)``."""
    covariances: Array
    """Covariances in the shape of their kind, see `clustering.models.covariances`."""
    feature_variance: Array
    """Variance of each feature over all rows ``(d,)``, the scale that small variances are compared with."""
    kind: Covariance
    rescues: int = 0
    """Number of times that a component was reset so far."""

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the dimensions of each stored field."""
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
        """Factors A with AᵀA the inverse covariance, in the shape of the kind."""
        # Params are frozen, so one factorisation serves all blocks of a pass.
        return kinds.factors(self.kind, self.covariances)

    @property
    def log_weights(self) -> Array:
        """Logarithms of the mixing weights ``(k,)``, finite also for weights of 0."""
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
    """Outcome of an M-step."""

    params: MixtureParams
    objective: float
    """Bound on the negative log-likelihood at the new params, from the same responsibilities."""
    weight: float
    """Total weight of the rows."""
    sizes: Array
    """Effective sizes of the components ``(k,)``."""
    conditions: Array
    """Condition numbers of the covariances ``(k,)``."""
    rescued: tuple[str, ...] = ()
    """Message about each component that was reset."""

    @property
    def scale(self) -> float:
        """Total weight: changes of the log-likelihood are measured per unit weight."""
        return self.weight

    @property
    def restarted(self) -> bool:
        """Whether a component was reset."""
        return bool(self.rescued)

    @property
    def notes(self) -> tuple[str, ...]:
        """Messages for the user about components that were reset."""
        return self.rescued

    @property
    def measures(self) -> Mapping[str, Array]:
        """Effective sizes and condition numbers ``(k,)``, unless there are more than `TRACKED_CLUSTERS`."""
        return {"sizes": self.sizes, "conditions": self.conditions} if len(self.sizes) <= TRACKED_CLUSTERS else {}


def component_covariance(kind: Covariance, covariances: Array, cluster: int) -> Array:
    """Return the covariance of one component in the shape of its kind.

    Parameters
    ----------
    kind
        Kind of the covariances.
    covariances
        Covariances of all components, in the shape of their kind.
    cluster
        Number of the component.
    """
    own: Array = covariances if kind in ("identity", "tied") else covariances[cluster]
    return own


def is_valid_covariance(kind: Covariance, covariance: Array, feature_variance: Array) -> bool:
    """Return whether a component with this covariance has a density; of several covariances, whether all have one.

    Parameters
    ----------
    kind
        Kind of the covariance.
    covariance
        Covariance of one component, or those of all components along a first axis.
    feature_variance
        Variance of each feature over all rows ``(d,)``.
    """
    if kind == "identity":
        return True
    if kind == "spherical":
        return bool(np.all(covariance > max(LEAST_VARIANCE * float(np.mean(feature_variance)), TINY)))
    variances = covariance if kind == "diagonal" else np.diagonal(covariance, axis1=-2, axis2=-1)
    # The inverse of a denormal number would be infinite.
    if not (variances > np.maximum(LEAST_VARIANCE * feature_variance, TINY)).all():
        return False
    if kind == "diagonal":
        return True
    # Pivots of the correlation matrix do not depend on the scale of the features.
    roots = np.sqrt(variances)
    try:
        correlation = covariance / (roots[..., :, None] * roots[..., None, :])
        pivots = np.diagonal(np.linalg.cholesky(correlation), axis1=-2, axis2=-1)
        # Passes factor the covariance itself, and one that is nearly singular may be factored in one scale alone.
        np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        return False
    # Rounding alone makes pivots of about d ε, so smaller ones mean that features depend on each other.
    return bool((pivots**2 > 16 * covariance.shape[-1] * np.finfo(float).eps).all())


def pooled_covariance(kind: Covariance, params: MixtureParams, weight: Array, healthy: list[int]) -> Array:
    """Compute the mean covariance of the healthy components, by weight.

    Parameters
    ----------
    kind
        Kind of the covariances.
    params
        Params with the covariances of all components.
    weight
        Weight of each component ``(k,)``.
    healthy
        Numbers of the components that have not collapsed.
    """
    # All components share the covariance of these kinds, so there is nothing to average.
    if kind in ("identity", "tied") or not healthy:
        return params.covariances
    pooled: Array = np.tensordot(weight[healthy] / weight[healthy].sum(), params.covariances[healthy], axes=1)
    return pooled
