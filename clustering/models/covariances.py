"""The kinds of covariance of a mixture: squared Mahalanobis distances, moments, and updates from moments.

Shapes: identity none ``(0,)``, spherical ``(k,)``, diagonal ``(k, d)``, tied ``(d, d)``, full ``(k, d, d)``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.blas import scipy
from clustering.models import covariance_kernels, em_kernels
from clustering.models.assignment import aligned_empty
from clustering.models.option_names import Covariance

Array = NDArray[np.float64]
Squares = Callable[[Array, Array, Array], None]

SCALABLE = ("diagonal", "tied", "full")
"""Kinds that are still of the same kind after features change their units."""
NEAR = 1e4
"""Squared distance of centers from the origin, in units of the variance, up to which differences of moments lose no
more than four digits."""

DIMS: dict[str, tuple[str, ...]] = {
    "identity": ("none",),
    "spherical": ("cluster",),
    "diagonal": ("cluster", "feature"),
    "tied": ("feature", "feature_too"),
    "full": ("cluster", "feature", "feature_too"),
}


def covariance_shape(kind: Covariance, k: int, d: int) -> tuple[int, ...]:
    """Return the shape of the covariances of a kind.

    Parameters
    ----------
    kind
        Kind of covariance.
    k, d
        Number of components and of features.
    """
    return {"identity": (0,), "spherical": (k,), "diagonal": (k, d), "tied": (d, d), "full": (k, d, d)}[kind]


def free_parameters(kind: Covariance, k: int, d: int) -> int:
    """Count the free parameters of the covariances.

    Parameters
    ----------
    kind
        Kind of covariance.
    k, d
        Number of components and of features.
    """
    half = d * (d + 1) // 2
    return {"identity": 0, "spherical": k, "diagonal": k * d, "tied": half, "full": k * half}[kind]


def factors(kind: Covariance, covariances: Array) -> Array:
    """Compute factors A with AᵀA the inverse covariance: 1/σ, or inverses of lower Cholesky factors.

    Parameters
    ----------
    kind
        Kind of covariance.
    covariances
        Covariances in the shape of their kind.

    Returns
    -------
    Array
        Factors in the same shape.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a covariance is not positive definite.
    """
    if kind in ("identity", "spherical", "diagonal"):
        if not (covariances > 0.0).all():
            # This is the error of a Cholesky factorisation, so that callers treat all kinds alike.
            raise np.linalg.LinAlgError("a variance is not above zero")
        return 1.0 / np.sqrt(covariances)
    lower = np.linalg.cholesky(covariances)
    # The inverse factor is made once for each pass, so that every row costs products alone.
    if kind == "tied":
        return _inverse_of_lower(lower)
    return np.array([_inverse_of_lower(factor) for factor in lower])


def _inverse_of_lower(lower: NDArray[np.floating[Any]]) -> Array:
    # LAPACK stores matrices by columns, so that it sees an upper triangle. Wrappers of SciPy would cost more than it.
    inverse, _ = scipy.linalg.lapack.dtrtri(lower.T, lower=0)
    return np.ascontiguousarray(inverse.T)


def log_determinants(kind: Covariance, factor: Array, k: int, d: int) -> Array:
    """Compute log |A| = −½ log |Σ| of each component ``(k,)``.

    Parameters
    ----------
    kind
        Kind of covariance.
    factor
        Factors A as `factors` gives them.
    k, d
        Number of components and of features.
    """
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


def make_kind(kind: Covariance, centers: Array, factor: Array | None) -> em_kernels.Kind:
    """Prepare components for the compiled E-step and sums.

    Parameters
    ----------
    kind
        Kind of covariance.
    centers
        Centers less the origin ``(k, d)``.
    factor
        Factors A as `factors` gives them; None where only moments are added up.
    """
    k, d = centers.shape
    centers = np.ascontiguousarray(centers)
    match kind:
        case "identity":
            return em_kernels.Alike(centers)
        case "spherical":
            return em_kernels.Spherical(centers, np.ones(k) if factor is None else factor * factor)
        case "diagonal":
            return em_kernels.Diagonal(centers, np.zeros((0, 0)) if factor is None else factor * factor)
        case "full":
            return em_kernels.Full(centers, packed(np.zeros((0, d, d)) if factor is None else factor))
        case "tied":
            if factor is None:
                return em_kernels.Tied(centers, packed(np.zeros((0, d, d))), np.zeros((0, d)), False)
            matrix, white = packed(factor[None]), np.empty((d, k))
            # Centers are multiplied by the same loop as rows, so that a row at its center has distance 0 exactly.
            covariance_kernels.multiply(matrix, np.ascontiguousarray(centers.T), white)
            near = bool(np.sum(white * white, axis=0).max() < NEAR)
            return em_kernels.Tied(centers, matrix, np.ascontiguousarray(white.T), near)


def make_squared_mahalanobis(components: em_kernels.Kind) -> Squares:
    """Make a function that fills ``(k, m)`` with squared Mahalanobis distances of columns from all centers.

    Parameters
    ----------
    components
        Components as `make_kind` prepares them.

    Returns
    -------
    callable
        Takes columns ``(d, m)`` less the origin, their squared norms ``(m,)``, and the array to fill.
    """
    return partial(_fill_squares, components)


def _fill_squares(components: em_kernels.Kind, columns: Array, _: Array, out: Array) -> None:
    em_kernels.fill_squares(components, columns, out)


def factored(factors: Array, centers: Array, columns: Array, out: Array) -> None:
    """Fill `out` with ‖A (x − c)‖².

    Parameters
    ----------
    factors
        Lower triangular A ``(d, d)`` of all centers, or one for each ``(k, d, d)``.
    centers
        Centers ``(k, d)``.
    columns
        Rows as columns ``(d, m)``, less the same origin as the centers.
    out
        Gets the squares ``(k, m)``.
    """
    matrices = packed(factors if factors.ndim == 3 else factors[None])
    covariance_kernels.factored_squares(np.ascontiguousarray(columns), np.ascontiguousarray(centers), matrices, out)


def packed(matrices: Array) -> Array:
    """Pack lower triangular matrices ``(k, d, d)`` for `covariance_kernels`.

    Parameters
    ----------
    matrices
        Lower triangular matrices ``(k, d, d)``.
    """
    k, d, _ = matrices.shape
    lines = covariance_kernels.LINES
    made = aligned_empty((k, -(-d // lines), d, lines))
    covariance_kernels.pack(np.ascontiguousarray(matrices), made)
    return made


class Accumulator:
    """Adds up the moments of rows about the centers ``(k, d)``.

    For tied covariances of centers near the origin, `second` is Σ w x xᵀ. Otherwise it is Σ w (x − c̄)(x − c̄)ᵀ about
    each row's own mean of centers c̄ = Σ r c. The rest of Σ s (x − c)(x − c)ᵀ is the spread of the centers about c̄,
    which follows from `overlap`. So no difference of large numbers is taken.
    """

    def __init__(self, kind: Covariance, components: em_kernels.Kind) -> None:
        k, d = components.centers.shape
        self.kind, self.components, self.centers = kind, components, components.centers
        self.near = isinstance(components, em_kernels.Tied) and components.near
        self.weight, self.first = np.zeros(k), np.zeros((k, d))
        self.second = np.zeros(covariance_shape(kind, k, d))
        self.overlap = np.zeros((k, k) if kind == "tied" and not self.near else (0, 0))
        compiled = self.second[None] if kind == "tied" else self.second
        self.sums = em_kernels.Sums(self.weight, self.first, compiled, self.overlap)

    def add(self, columns: Array, weighted_resp: Array, weights: Array) -> None:
        """Add the moments of one sub-block.

        Parameters
        ----------
        columns
            Rows less the origin ``(d, m)``.
        weighted_resp
            Responsibilities times weights ``(k, m)``.
        weights
            Weights of the rows ``(m,)``, which `weighted_resp` adds up to.
        """
        squares = np.zeros((0, 0))
        if self.kind == "spherical":
            squares = np.empty(weighted_resp.shape)
            em_kernels.fill_squares(self.components, columns, squares)
        em_kernels.add_columns(
            self.components, columns, squares, np.ascontiguousarray(weighted_resp), np.ascontiguousarray(weights),
            self.sums,
        )  # fmt: skip

    def total(self) -> tuple[Array, Array, Array, Array]:
        """Return Σ s ``(k,)``, Σ s (x − c) ``(k, d)``, the second moments, and the overlap."""
        return self.weight, self.first, self.second, self.overlap


def update_covariances(
    kind: Covariance, weight: Array, step: Array, second: Array, overlap: Array, centers: Array, floor: float
) -> Array:
    """Compute covariances about the new centers, from moments about the old ones.

    Parameters
    ----------
    kind
        Kind of covariance.
    weight
        Σ s ``(k,)``, above zero; for tied covariances, zero where a cluster has no rows.
    step
        New centers less old ones ``(k, d)``.
    second, overlap
        As `Accumulator.total` gives them.
    centers
        The old centers less the origin ``(k, d)``.
    floor
        Added to every variance, in squared units of the rows.

    Returns
    -------
    Array
        Covariances in the shape of their kind; not always positive definite.
    """
    d = step.shape[1]
    match kind:
        case "identity":
            return second
        case "spherical":
            variance: Array = (second / weight - np.einsum("kd,kd->k", step, step)) / d
            # Where rows hardly vary, rounding may take the difference below zero.
            return variance.clip(0.0) + floor
        case "diagonal":
            second_moment: Array = second / weight[:, None] - step * step
            return second_moment.clip(0.0) + floor
        case "tied" if not overlap.size:
            new_centers = centers + step
            # The centers are near the origin here, so this difference loses at most the digits that `NEAR` allows.
            total = second - new_centers.T @ (weight[:, None] * new_centers)
            return _symmetric(total / weight.sum()) + floor * np.eye(d)
        case "tied":
            total = second.copy()
            # The spread of the centers about c̄ is a sum over pairs of clusters of positive terms, so nothing cancels.
            for i in range(len(centers) - 1):
                apart = centers[i + 1 :] - centers[i]
                total += apart.T @ (overlap[i, i + 1 :, None] * apart)
            # Late in a fit the steps are short, so this subtraction loses few digits.
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
    """Return the covariance of one component as a matrix ``(d, d)``.

    Parameters
    ----------
    kind
        Kind of covariance.
    covariances
        Covariances in the shape of their kind.
    cluster
        Index of the component.
    d
        Number of features.
    """
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


def scaled_covariances(kind: Covariance, covariances: Array, factors: Array) -> Array:
    """Return covariances after features are multiplied by factors.

    Parameters
    ----------
    kind
        One of the `SCALABLE` kinds.
    covariances
        Covariances in the shape of their kind.
    factors
        Factor of each feature ``(d,)``.
    """
    return covariances * (factors * factors if kind == "diagonal" else np.outer(factors, factors))


def conditions(kind: Covariance, covariances: Array, k: int) -> Array:
    """Compute the condition number of each covariance ``(k,)``; of matrices in the 1-norm, as LAPACK estimates it.

    Parameters
    ----------
    kind
        Kind of covariance.
    covariances
        Covariances in the shape of their kind, positive definite.
    k
        Number of components.
    """
    match kind:
        case "identity" | "spherical":
            return np.ones(k)
        case "diagonal":
            with np.errstate(over="ignore"):
                ratio: Array = covariances.max(axis=1) / covariances.min(axis=1)
            return ratio
        case "tied":
            return np.full(k, _condition(covariances, np.linalg.cholesky(covariances)))
        case "full":
            pairs = zip(covariances, np.linalg.cholesky(covariances), strict=True)
            return np.array([_condition(covariance, lower) for covariance, lower in pairs])


def _condition(covariance: Array, lower: NDArray[np.floating[Any]]) -> float:
    norm = float(np.abs(covariance).sum(axis=0).max())
    # LAPACK estimates the condition from the factor that is there; singular values would cost many times as much.
    reciprocal, _ = scipy.linalg.lapack.dpocon(lower, norm, uplo="L")
    return 1.0 / reciprocal if reciprocal > 0.0 else float("inf")
