"""The kinds of covariance of a mixture: squares, moments, and what is refitted from them.

Shapes: identity none ``(0,)``, spherical ``(k,)``, diagonal ``(k, d)``, tied ``(d, d)``, full ``(k, d, d)``.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from clustering.models import soft_kernels
from clustering.models.assignment import aligned_empty
from clustering.models.names import Covariance

Array = NDArray[np.float64]

FEW_FEATURES = 24
"""Up to this d full covariances are worked on by our own loops, beyond it by BLAS."""

DIMS: dict[str, tuple[str, ...]] = {
    "identity": ("none",),
    "spherical": ("cluster",),
    "diagonal": ("cluster", "feature"),
    "tied": ("feature", "feature_too"),
    "full": ("cluster", "feature", "feature_too"),
}


def shape(kind: Covariance, k: int, d: int) -> tuple[int, ...]:
    """Give the shape of the covariances of a kind."""
    return {"identity": (0,), "spherical": (k,), "diagonal": (k, d), "tied": (d, d), "full": (k, d, d)}[kind]


def free_parameters(kind: Covariance, k: int, d: int) -> int:
    """Count the free parameters of the covariances."""
    half = d * (d + 1) // 2
    return {"identity": 0, "spherical": k, "diagonal": k * d, "tied": half, "full": k * half}[kind]


def factors(kind: Covariance, covariances: Array) -> Array:
    """Factors A with AᵀA the inverse covariance: 1/σ, or inverses of lower Cholesky factors.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a covariance is not positive definite.
    """
    if kind in ("identity", "spherical", "diagonal"):
        if not (covariances > 0.0).all():
            raise np.linalg.LinAlgError("a variance is not above zero")
        return 1.0 / np.sqrt(covariances)
    lower = np.linalg.cholesky(covariances)
    identity = np.eye(covariances.shape[-1])
    if kind == "tied":
        return np.ascontiguousarray(scipy.linalg.solve_triangular(lower, identity, lower=True, check_finite=False))
    inverse = np.empty_like(lower)
    for i, factor in enumerate(lower):
        inverse[i] = scipy.linalg.solve_triangular(factor, identity, lower=True, check_finite=False)
    return inverse


def log_determinants(kind: Covariance, factor: Array, k: int, d: int) -> Array:
    """Take log |A| of each cluster ``(k,)``."""
    match kind:
        case "identity":
            return np.zeros(k)
        case "spherical":
            return d * np.log(factor)
        case "diagonal":
            logs: Array = np.log(factor).sum(axis=1)
            return logs
        case "tied":
            return np.full(k, np.log(np.diagonal(factor)).sum())
        case "full":
            each: Array = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
            return each


def squares(kind: Covariance, columns: Array, centers: Array, factor: Array, out: Array) -> None:
    """Fill `out` ``(k, m)`` with squared Mahalanobis distances of columns ``(d, m)`` from centers ``(k, d)``."""
    match kind:
        case "identity":
            soft_kernels.squares(columns, centers, out)
        case "spherical":
            soft_kernels.squares(columns, centers, out)
            out *= (factor * factor)[:, None]
        case "diagonal":
            soft_kernels.scaled_squares(columns, centers, factor * factor, out)
        case "tied":
            # Centers go the same way as the rows, so that a row at its center is there afterwards too.
            white, centers_white = aligned_empty(columns.shape), np.empty(centers.shape[::-1])
            soft_kernels.multiply(factor, columns, white)
            soft_kernels.multiply(factor, np.ascontiguousarray(centers.T), centers_white)
            soft_kernels.squares(white, np.ascontiguousarray(centers_white.T), out)
        case "full" if len(columns) <= FEW_FEATURES:
            soft_kernels.factored_squares(columns, centers, factor, out)
        case "full":
            away, made = aligned_empty(columns.shape), aligned_empty(columns.shape)
            for i, center in enumerate(centers):
                np.subtract(columns, center[:, None], out=away)
                np.matmul(factor[i], away, out=made)
                np.einsum("dm,dm->m", made, made, out=out[i])


def add_moments(
    kind: Covariance, columns: Array, centers: Array, shares: Array, weights: Array,
    weight: Array, first: Array, second: Array, overlap: Array,
) -> None:  # fmt: skip
    """Add the moments of columns ``(d, m)`` about the centers, with shares ``(k, m)``.

    For tied covariances `second` is Σ w (x − c̄)(x − c̄)ᵀ about each row's own mean of centers c̄ = Σ r c; what it
    lacks of Σ s (x − c)(x − c)ᵀ is the spread of the centers about c̄, which follows from `overlap`: no difference of
    large numbers is taken.
    """
    part_weight, part_first, part_second = np.zeros_like(weight), np.zeros_like(first), np.zeros_like(second)
    match kind:
        case "identity":
            soft_kernels.first_about(columns, centers, shares, part_weight, part_first)
        case "spherical":
            each = np.zeros_like(first)
            soft_kernels.diagonal_about(columns, centers, shares, part_weight, part_first, each)
            part_second += each.sum(axis=1)
        case "diagonal":
            soft_kernels.diagonal_about(columns, centers, shares, part_weight, part_first, part_second)
        case "tied":
            soft_kernels.first_about(columns, centers, shares, part_weight, part_first)
            overlap += _tied(columns, centers, shares, weights, part_second)
        case "full" if len(columns) <= FEW_FEATURES:
            soft_kernels.full_about(columns, centers, shares, part_weight, part_first, part_second)
        case "full":
            part_weight += shares.sum(axis=1)
            away = aligned_empty(columns.shape)
            roots = np.sqrt(shares)
            for i in np.flatnonzero(part_weight):
                np.subtract(columns, centers[i][:, None], out=away)
                part_first[i] = away @ shares[i]
                away *= roots[i]
                np.matmul(away, away.T, out=part_second[i])
    # Two levels: the error grows with the rows of a sub-block, not with those of a block.
    weight += part_weight
    first += part_first
    second += part_second


def _tied(columns: Array, centers: Array, shares: Array, weights: Array, second: Array) -> Array:
    """Add Σ w (x − c̄)(x − c̄)ᵀ to `second`, and give Σ s_i s_j / w ``(k, k)``."""
    with np.errstate(divide="ignore"):
        inverse = np.where(weights > 0.0, 1.0 / weights, 0.0)
    likeliest = shares.argmax(axis=0)
    # c̄ is taken from the likeliest center on: exact where a row has only one.
    away = columns - centers[likeliest].T
    part = shares * inverse
    for i, center in enumerate(centers):
        others = np.flatnonzero((part[i] > 0.0) & (likeliest != i))
        if len(others):
            away[:, others] -= part[i, others] * (center[:, None] - centers[likeliest[others]].T)
    away *= np.sqrt(weights)
    second += away @ away.T
    pairs: Array = part @ shares.T
    return pairs


def refitted(
    kind: Covariance, weight: Array, step: Array, second: Array, overlap: Array, centers: Array, floor: float
) -> Array:
    """Covariances about the new centers, from moments about the old ones.

    Parameters
    ----------
    weight
        Σ s ``(k,)``, above zero; for tied covariances, zero where a cluster has no rows.
    step
        New centers less old ones ``(k, d)``.
    centers
        The old centers ``(k, d)``.
    floor
        Added to every variance.
    """
    d = step.shape[1]
    match kind:
        case "identity":
            return second
        case "spherical":
            variance: Array = (second / weight - np.einsum("kd,kd->k", step, step)) / d
            return variance.clip(0.0) + floor
        case "diagonal":
            spread: Array = second / weight[:, None] - step * step
            return spread.clip(0.0) + floor
        case "tied":
            total = second.copy()
            for i in range(len(centers) - 1):
                apart = centers[i + 1 :] - centers[i]
                total += apart.T @ (overlap[i, i + 1 :, None] * apart)
            total -= step.T @ (weight[:, None] * step)
            return _symmetric(total / weight.sum()) + floor * np.eye(d)
        case "full":
            made = np.empty_like(second)
            for i in range(len(weight)):
                made[i] = _symmetric(second[i] / weight[i] - np.outer(step[i], step[i])) + floor * np.eye(d)
            return made


def _symmetric(matrix: Array) -> Array:
    return 0.5 * (matrix + matrix.T)


def as_full(kind: Covariance, covariances: Array, cluster: int, d: int) -> Array:
    """Covariance matrix of one cluster ``(d, d)``."""
    match kind:
        case "identity":
            return np.eye(d)
        case "spherical":
            return float(covariances[cluster]) * np.eye(d)
        case "diagonal":
            return np.diag(covariances[cluster])
        case "tied":
            return covariances
        case "full":
            whole: Array = covariances[cluster]
            return whole


def conditions(kind: Covariance, covariances: Array, k: int) -> Array:
    """Condition numbers of the covariances ``(k,)``, in the 1-norm where they are matrices, as LAPACK estimates it."""
    match kind:
        case "identity" | "spherical":
            return np.ones(k)
        case "diagonal":
            with np.errstate(over="ignore"):
                ratio: Array = covariances.max(axis=1) / covariances.min(axis=1)
            return ratio
        case "tied":
            return np.full(k, _condition(covariances))
        case "full":
            return np.array([_condition(covariance) for covariance in covariances])


def _condition(covariance: Array) -> float:
    lower = np.linalg.cholesky(covariance)
    norm = float(np.abs(covariance).sum(axis=0).max())
    reciprocal, _ = scipy.linalg.lapack.dpocon(lower, norm, uplo="L")
    return 1.0 / reciprocal if reciprocal > 0.0 else float("inf")
