"""Params of a Gaussian mixture as unconstrained vectors, for steps that are longer than those of EM.

A vector holds log weights, means and log-Cholesky factors, relative to given params: means and factors are multiplied
by the inverse factor A of their component, and each coordinate is scaled so that the squared length of a small step is
about twice the Kullback–Leibler divergence of the two mixtures of complete data. So vectors do not depend on the units
of the features, and heavy components count more than light ones.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clustering.models.divergences import TINY
from clustering.models.mixture_params import MixtureParams, is_valid_covariance

Array = NDArray[np.float64]


def to_vector(params: MixtureParams, about: MixtureParams) -> Array:
    """Give the coordinates of params relative to others.

    Parameters
    ----------
    params
        Params.
    about
        Params of the same kind and size whose covariances and weights scale the coordinates.

    Returns
    -------
    ndarray
        Coordinates ``(m,)``.
    """
    root = _root(about)
    logs = (params.log_weights - about.log_weights) * root
    steps = params.centers - about.centers
    factor, kind = about.factors, about.kind
    match kind:
        case "identity":
            means, shapes = steps, np.zeros(0)
        case "spherical":
            means = steps * factor[:, None]
            shapes = 0.5 * np.log(params.covariances * factor**2) * root * _log_scale(about)
        case "diagonal":
            means = steps * factor
            shapes = 0.5 * np.log(params.covariances * factor**2) * root[:, None] * _log_scale(about)
        case "tied" | "full":
            means = np.einsum("kij,kj->ki", np.broadcast_to(factor, (about.k, *factor.shape[-2:])), steps)
            # Both are lower triangular, so the product is the Cholesky factor of the whitened covariance.
            relative = np.tril(factor @ np.linalg.cholesky(params.covariances))
            diagonal = np.einsum("...ii->...i", relative)
            diagonal[:] = np.log(diagonal) * _log_scale(about)
            shapes = relative if kind == "tied" else relative * root[:, None, None]
    return np.concatenate([logs, (means * root[:, None]).ravel(), shapes.ravel()])


def from_vector(vector: Array, about: MixtureParams) -> MixtureParams | None:
    """Make params from the coordinates of `to_vector`.

    Parameters
    ----------
    vector
        Coordinates ``(m,)``.
    about
        The params that they are relative to.

    Returns
    -------
    MixtureParams or None
        The params; None where they are beyond float64, or a component would count as collapsed.
    """
    root, (k, d), kind = _root(about), about.centers.shape, about.kind
    logs, means = vector[:k] / root, vector[k : k + k * d].reshape(k, d) / root[:, None]
    shapes = vector[k + k * d :].reshape(about.covariances.shape)
    # Values beyond float64 are refused below.
    with np.errstate(over="ignore", invalid="ignore"):
        logs = logs + about.log_weights
        weights = np.exp(logs - logs.max())
        match kind:
            case "identity":
                steps, covariances = means, about.covariances
            case "spherical":
                steps = means / about.factors[:, None]
                covariances = about.covariances * np.exp(2.0 * shapes / (root * _log_scale(about)))
            case "diagonal":
                steps = means / about.factors
                covariances = about.covariances * np.exp(2.0 * shapes / (root[:, None] * _log_scale(about)))
            case "tied" | "full":
                lower = np.linalg.cholesky(about.covariances)
                steps = np.einsum("kij,kj->ki", np.broadcast_to(lower, (k, d, d)), means)
                relative = shapes.copy() if kind == "tied" else shapes / root[:, None, None]
                diagonal = np.einsum("...ii->...i", relative)
                diagonal[:] = np.exp(diagonal / _log_scale(about))
                made = lower @ relative
                covariances = made @ made.swapaxes(-1, -2)
                # Products of matrices need not be symmetric to the last bit.
                covariances = 0.5 * (covariances + covariances.swapaxes(-1, -2))
        centers = about.centers + steps
        arrays = (weights, centers, covariances)
    if not all(np.isfinite(array).all() for array in arrays) or not (weights > TINY).all():
        return None
    if not is_valid_covariance(kind, covariances, about.feature_variance):
        return None
    return replace(about, weights=weights / weights.sum(), centers=centers, covariances=covariances)


def _root(about: MixtureParams) -> Array:
    root: Array = np.sqrt(np.maximum(about.weights, TINY))
    return root


def _log_scale(about: MixtureParams) -> float:
    """Scale of a log standard deviation, which has twice the information of a mean; of d at once where spherical."""
    return float(np.sqrt(2.0 * (about.centers.shape[1] if about.kind == "spherical" else 1)))
