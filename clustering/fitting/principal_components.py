"""Principal components, of the covariance of the features or, where rows are fewer, of the Gram matrix of the rows.

X Xᵀ of centred rows X ``(n, d)`` has the eigenvalues of XᵀX, and Xᵀu is an eigenvector of it for every eigenvector u of
X Xᵀ: n² products of length d instead of d² of length n (Jolliffe 2002, "Principal Component Analysis", section 3.5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from clustering.models.survey import Survey

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Variances of principal components, largest first, and what gives their loadings."""

    values: Array
    """``(q,)``, zero or more."""
    loadings: Callable[[int], Array]
    """Loadings ``(d, p)`` of the first p, orthonormal, the largest of each above zero."""


def of_covariance(covariance: Array) -> Spectrum:
    """Take the principal components of a covariance ``(d, d)``."""
    values, vectors = _eigen(covariance)
    return Spectrum(values, lambda p: _fix_signs(vectors[:, :p]))


def of_rows(rows: Array) -> Spectrum:
    """Take the principal components of rows ``(n, d)``: centred, times the root of their share of the weight."""
    n, d = rows.shape
    # One thread, as the number of threads changes the order of sums.
    with threadpool_limits(limits=1, user_api="blas"):
        if n >= d:
            return of_covariance(rows.T @ rows)
        values, vectors = _eigen(rows @ rows.T)

    def loadings(p: int) -> Array:
        with threadpool_limits(limits=1, user_api="blas"):
            # Orthogonal but for rounding; where a component has no variance, any direction that is left will do.
            return _fix_signs(np.linalg.qr(rows.T @ vectors[:, :p])[0])

    return Spectrum(values, loadings)


def centred_rows(survey: Survey, scale: Array) -> Array | None:
    """Give the rows of a survey ``(n, d)`` as `of_rows` takes them, where it has them all and no full scatter.

    Parameters
    ----------
    scale
        Multiplies the features ``(d,)``.
    """
    if survey.scatter.ndim == 2:
        return None
    rows: Array = (survey.sample.values - survey.mean) * scale
    rows *= np.sqrt(survey.sample.weights / survey.weight)[:, None]
    return rows


def scatter_of(values: Array, weights: Array, mean: Array) -> Array:
    """Σ w (x − mean)(x − mean)ᵀ ``(p, p)`` of rows ``(n, p)``."""
    centred = values - mean
    with threadpool_limits(limits=1, user_api="blas"):
        scatter: Array = (centred * weights[:, None]).T @ centred
    return 0.5 * (scatter + scatter.T)


def _eigen(matrix: Array) -> tuple[Array, Array]:
    with threadpool_limits(limits=1, user_api="blas"):
        values, vectors = scipy.linalg.eigh(matrix, driver="evd", check_finite=False)
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]


def _fix_signs(vectors: Array) -> Array:
    largest = vectors[np.argmax(np.abs(vectors), axis=0), np.arange(vectors.shape[1])]
    signed: Array = vectors * np.where(largest < 0.0, -1.0, 1.0)
    return signed
