"""Principal components of the covariance of the features, or of the Gram matrix of the rows where these are fewer.

For centred rows X ``(n, d)``, X Xᵀ has the nonzero eigenvalues of XᵀX. If u is an eigenvector of X Xᵀ, then Xᵀu is one
of XᵀX. The Gram matrix takes n² products of length d, the covariance d² products of length n (Jolliffe 2002,
"Principal Component Analysis", section 3.5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clustering.blas import one_blas_thread, scipy
from clustering.models.survey import Survey

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Variances of all principal components, and a function that computes the loadings of the first ones."""

    values: Array
    """Variances ``(q,)``, largest first, none below zero."""
    loadings: Callable[[int], Array]
    """Returns the loadings ``(d, p)`` of the first p components: orthonormal columns, the largest entry positive."""


def of_covariance(covariance: Array) -> Spectrum:
    """Compute the principal components of a covariance.

    Parameters
    ----------
    covariance
        Covariance of the features ``(d, d)``.
    """
    values, vectors = _eigen(covariance)
    return Spectrum(values, lambda p: _fix_signs(vectors[:, :p]))


def of_rows(rows: Array) -> Spectrum:
    """Compute the principal components of rows, from the smaller of covariance and Gram matrix.

    Parameters
    ----------
    rows
        Centred rows ``(n, d)``, each times the root of its share of the total weight.
    """
    n, d = rows.shape
    # One thread, as the number of threads changes the order of sums.
    with one_blas_thread():
        if n >= d:
            return of_covariance(rows.T @ rows)
        values, vectors = _eigen(rows @ rows.T)

    def loadings(p: int) -> Array:
        with one_blas_thread():
            # The products are orthogonal up to rounding, and QR brings them to length 1. For a component without
            # variance, QR supplies any direction orthogonal to the others.
            return _fix_signs(np.linalg.qr(rows.T @ vectors[:, :p])[0])

    return Spectrum(values, loadings)


def centred_rows(survey: Survey, scale: Array) -> Array | None:
    """Return the rows of a survey as `of_rows` takes them; None where the survey has the full scatter.

    Without the full scatter, the sample holds all rows; `survey_pass.run_survey` makes sure of it.

    Parameters
    ----------
    survey
        Survey of pass 0.
    scale
        Factors of the features ``(d,)``.

    Returns
    -------
    ndarray or None
        Centred and weighted rows ``(n, d)``.
    """
    if survey.scatter.ndim == 2:
        return None
    rows: Array = (survey.sample.values - survey.mean) * scale
    rows *= np.sqrt(survey.sample.weights / survey.weight)[:, None]
    return rows


def scatter_of(values: Array, weights: Array, mean: Array) -> Array:
    """Compute the scatter Σ w (x − mean)(x − mean)ᵀ ``(p, p)``.

    Parameters
    ----------
    values
        Rows ``(n, p)``.
    weights
        Weights of the rows ``(n,)``.
    mean
        Weighted mean of the rows ``(p,)``.
    """
    centred = values - mean
    with one_blas_thread():
        scatter: Array = (centred * weights[:, None]).T @ centred
    # Rounding leaves the product slightly asymmetric.
    return 0.5 * (scatter + scatter.T)


def _eigen(matrix: Array) -> tuple[Array, Array]:
    """Return eigenvalues, largest first, and eigenvectors of a symmetric matrix. Negative rounding errors become 0."""
    with one_blas_thread():
        values, vectors = scipy.linalg.eigh(matrix, driver="evd", check_finite=False)
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]


def _fix_signs(vectors: Array) -> Array:
    """Make the entry of largest magnitude of each column positive, as the sign of an eigenvector is arbitrary."""
    largest = vectors[np.argmax(np.abs(vectors), axis=0), np.arange(vectors.shape[1])]
    signed: Array = vectors * np.where(largest < 0.0, -1.0, 1.0)
    return signed
