"""Which components of a mixture have collapsed, and the covariance that they get instead."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clustering.models.divergences import TINY
from clustering.models.mixture_params import MixtureParams
from clustering.models.option_names import Covariance

Array = NDArray[np.float64]

EMPTY_SHARE = 10 * np.finfo(float).eps
"""A component with no more than this share of the weight has no rows."""
LEAST_VARIANCE = 1e-20
"""A component with a variance below this, relative to the feature variance, has collapsed."""


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
    """Return whether a component with this covariance has a density.

    Parameters
    ----------
    kind
        Kind of the covariance.
    covariance
        Covariance of one component.
    feature_variance
        Variance of each feature over all rows ``(d,)``.
    """
    if kind == "identity":
        return True
    if kind == "spherical":
        return bool(covariance > max(LEAST_VARIANCE * float(np.mean(feature_variance)), TINY))
    variances = covariance if kind == "diagonal" else np.diagonal(covariance)
    # The inverse of a denormal number would be infinite.
    if not (variances > np.maximum(LEAST_VARIANCE * feature_variance, TINY)).all():
        return False
    if kind == "diagonal":
        return True
    # Pivots of the correlation matrix do not depend on the scale of the features.
    roots = np.sqrt(variances)
    try:
        pivots = np.diagonal(np.linalg.cholesky(covariance / np.outer(roots, roots)))
    except np.linalg.LinAlgError:
        return False
    return bool((pivots**2 > 16 * len(covariance) * np.finfo(float).eps).all())


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
    if kind in ("identity", "tied") or not healthy:
        return params.covariances
    pooled: Array = np.tensordot(weight[healthy] / weight[healthy].sum(), params.covariances[healthy], axes=1)
    return pooled
