"""The kinds of covariance of a mixture: squared Mahalanobis distances, moments, and updates from moments.

Shapes: identity none ``(0,)``, spherical ``(k,)``, diagonal ``(k, d)``, tied ``(d, d)``, full ``(k, d, d)``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from clustering.blas import scipy
from clustering.models import products, soft_kernels
from clustering.models.assignment import aligned_empty
from clustering.models.option_names import Covariance

Array = NDArray[np.float64]
Squares = Callable[[Array, Array, Array], None]

FEW_FEATURES = 24
"""Up to this d compiled loops work on full covariances, beyond it BLAS."""
STRIP = 64
"""Rows of a triangular matrix that are multiplied at once."""
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
    identity = np.eye(covariances.shape[-1])
    if kind == "tied":
        return np.ascontiguousarray(scipy.linalg.solve_triangular(lower, identity, lower=True, check_finite=False))
    inverse = np.empty_like(lower)
    for i, factor in enumerate(lower):
        inverse[i] = scipy.linalg.solve_triangular(factor, identity, lower=True, check_finite=False)
    return inverse


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


def make_squared_mahalanobis(kind: Covariance, centers: Array, factor: Array) -> Squares:
    """Make a function that fills ``(k, m)`` with squared Mahalanobis distances of columns from all centers.

    Parameters
    ----------
    kind
        Kind of covariance.
    centers
        Centers less the origin ``(k, d)``.
    factor
        Factors A as `factors` gives them.

    Returns
    -------
    callable
        Takes columns ``(d, m)`` less the origin, their squared norms ``(m,)``, and the array to fill.
    """
    d = centers.shape[1]
    match kind:
        case "identity":
            return products.SquaredDistances(centers, 1.0)
        case "spherical":
            return partial(_spherical, products.SquaredDistances(centers, sharpness(kind, factor)), factor)
        case "diagonal":
            return products.SquaredDistances(centers, sharpness(kind, factor), factor * factor)
        case "tied":
            # Centers are multiplied by the same loop as rows, so that a row at its center has distance 0 exactly.
            turn = soft_kernels.multiply if d <= FEW_FEATURES else _multiply
            there = np.empty(centers.shape[::-1])
            turn(factor, np.ascontiguousarray(centers.T), there)
            return partial(_turned, turn, factor, products.SquaredDistances(np.ascontiguousarray(there.T), 1.0))
        case "full":
            return partial(_full, centers, factor)


def _spherical(inner: Squares, factor: Array, columns: Array, norms: Array, out: Array) -> None:
    inner(columns, norms, out)
    out *= (factor * factor)[:, None]


def _turned(
    turn: Callable[[Array, Array, Array], None], factor: Array, inner: Squares, columns: Array, _: Array, out: Array
) -> None:
    white = aligned_empty(columns.shape)
    turn(factor, columns, white)
    inner(white, np.einsum("dm,dm->m", white, white), out)


def _full(centers: Array, factor: Array, columns: Array, _: Array, out: Array) -> None:
    if len(columns) <= FEW_FEATURES:
        soft_kernels.factored_squares(columns, centers, factor, out)
    else:
        factored(factor, centers, columns, out)


def factored(factors: Array, centers: Array, columns: Array, out: Array) -> None:
    """Fill `out` with ‖A (x − c)‖², by BLAS.

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
    diff, made = aligned_empty(columns.shape), aligned_empty(columns.shape)
    for i, center in enumerate(centers):
        # Near a center, A x and A c agree in most digits. So the difference comes before the product.
        np.subtract(columns, center[:, None], out=diff)
        _multiply(factors if factors.ndim == 2 else factors[i], diff, made)
        np.einsum("dm,dm->m", made, made, out=out[i])


def _multiply(lower: Array, columns: Array, made: Array) -> None:
    """Multiply a lower triangular matrix ``(d, d)`` and columns; most of its zeros are left out."""
    d = len(lower)
    for start in range(0, d, STRIP):
        stop = min(d, start + STRIP)
        np.matmul(lower[start:stop, :stop], columns[:stop], out=made[start:stop])


def sharpness(kind: Covariance, factor: Array) -> float:
    """Bound the largest inverse variance of all components in any direction.

    Parameters
    ----------
    kind
        Kind of covariance.
    factor
        Factors A as `factors` gives them.
    """
    if kind == "identity":
        return 1.0
    # An inverse variance beyond float64 counts as infinite.
    with np.errstate(over="ignore"):
        squares = factor * factor
        return float((squares if kind in ("spherical", "diagonal") else np.sum(squares, axis=(-2, -1))).max())


def is_near(kind: Covariance, centers: Array, factor: Array) -> bool:
    """Return whether centers are so near the origin, in units of the variance, that moments may be taken about it.

    Parameters
    ----------
    kind
        Kind of covariance; only ``tied`` takes moments about the origin.
    centers
        Centers less the origin ``(k, d)``.
    factor
        Factors A as `factors` gives them.
    """
    return kind == "tied" and bool(np.sum((centers @ factor.T) ** 2, axis=1).max() < NEAR)


class Accumulator:
    """Adds up the moments of rows about the centers ``(k, d)``.

    For tied covariances of centers near the origin, `second` is Σ w x xᵀ. Otherwise it is Σ w (x − c̄)(x − c̄)ᵀ about
    each row's own mean of centers c̄ = Σ r c. The rest of Σ s (x − c)(x − c)ᵀ is the spread of the centers about c̄,
    which follows from `overlap`. So no difference of large numbers is taken.
    """

    def __init__(self, kind: Covariance, centers: Array, factor: Array | None) -> None:
        k, d = centers.shape
        self.kind, self.centers = kind, centers
        scale = np.inf if factor is None else sharpness(kind, factor)
        self.sums = products.CenteredSums(centers, scale, squared=kind in ("spherical", "diagonal"))
        self.near = factor is not None and is_near(kind, centers, factor)
        self.second = np.zeros(covariance_shape(kind, k, d))
        self.overlap = np.zeros((k, k) if kind == "tied" and not self.near else (0, 0))
        self.weight, self.first = np.zeros(k), np.zeros((k, d))

    def add(self, columns: Array, norms: Array, weighted_resp: Array, weights: Array) -> None:
        """Add the moments of one sub-block.

        Parameters
        ----------
        columns
            Rows less the origin ``(d, m)``.
        norms
            Squared norms of the columns ``(m,)``.
        weighted_resp
            Responsibilities times weights ``(k, m)``.
        weights
            Weights of the rows ``(m,)``, which `weighted_resp` adds up to.
        """
        match self.kind:
            case "tied":
                self.sums.add(columns, norms, weighted_resp)
                diff = columns
                if not self.near:
                    with np.errstate(divide="ignore"):
                        # A row of weight 0 adds nothing, so 0 may stand for the inverse of its weight.
                        part = weighted_resp * np.where(weights > 0.0, 1.0 / weights, 0.0)
                    diff = columns - np.matmul(self.centers.T, part)
                    self.overlap += np.matmul(part, weighted_resp.T)
                diff = diff * np.sqrt(weights)
                # BLAS takes half the work for an array times its own transpose, and the result is exactly symmetric.
                self.second += np.matmul(diff, diff.T)
            case "full" if len(columns) <= FEW_FEATURES:
                # Two levels of sums: the error grows with the rows of a sub-block, not with those of a block.
                weight, first, second = (np.zeros_like(total) for total in (self.weight, self.first, self.second))
                soft_kernels.full_about(columns, self.centers, weighted_resp, weight, first, second)
                self.weight += weight
                self.first += first
                self.second += second
            case "full":
                weight, roots = weighted_resp.sum(axis=1), np.sqrt(weighted_resp)
                diff, moment = aligned_empty(columns.shape), aligned_empty(self.second.shape[1:])
                # Far components have no weight in a sub-block, and are skipped.
                for i in np.flatnonzero(weight):
                    np.subtract(columns, self.centers[i][:, None], out=diff)
                    self.first[i] += diff @ weighted_resp[i]
                    diff *= roots[i]
                    self.second[i] += np.matmul(diff, diff.T, out=moment)
                self.weight += weight
            case _:
                self.sums.add(columns, norms, weighted_resp)

    def total(self) -> tuple[Array, Array, Array, Array]:
        """Return Σ s ``(k,)``, Σ s (x − c) ``(k, d)``, the second moments, and the overlap."""
        weight, first, each = self.sums.total()
        second = self.second
        if self.kind == "diagonal":
            second = second + each
        elif self.kind == "spherical":
            second = second + each.sum(axis=1)
        return self.weight + weight, self.first + first, second, self.overlap


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
            return np.full(k, _condition(covariances))
        case "full":
            return np.array([_condition(covariance) for covariance in covariances])


def _condition(covariance: Array) -> float:
    lower = np.linalg.cholesky(covariance)
    norm = float(np.abs(covariance).sum(axis=0).max())
    # LAPACK estimates the condition from the factor that is there; singular values would cost many times as much.
    reciprocal, _ = scipy.linalg.lapack.dpocon(lower, norm, uplo="L")
    return 1.0 / reciprocal if reciprocal > 0.0 else float("inf")
