"""Distances under the covariances of a mixture: of rows from its components, and of components from each other.

Row distances are for outputs, as in `clustering.models.distances`. Distances of components serve their matching.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from clustering.blas import scipy
from clustering.data.rows import Rows
from clustering.models import covariances as kinds
from clustering.models import missing_features, missing_kernels
from clustering.models.columns import columns_of
from clustering.models.distances import RowDistances
from clustering.models.mixture_params import MixtureParams
from clustering.models.option_names import Covariance
from clustering.models.overflow import Ranks, overflow_safe_roots, rank_by_squares

Array = NDArray[np.float64]

MEASURE: Mapping[str, str] = {"long_name": "Mahalanobis distance under the component's covariance", "units": "1"}


def from_components(kind: Covariance, params: MixtureParams, rows: Rows) -> Iterator[RowDistances]:
    """Compute the row distances from all components, each under its own covariance, a sub-block at a time.

    For rows with missing features, the covariance is that of the observed ones.

    Parameters
    ----------
    kind
        Kind of covariance.
    params
        Params of a mixture.
    rows
        Prepared rows of a block ``(n, d)``.
    """
    k = params.k
    if kind in ("identity", "spherical", "diagonal"):
        _, scales, densities = missing_features.independent(kind, params.centers, params.factors)
        # Independent features need no patterns: a missing one is left out of the sum.
        for start, stop, columns in columns_of(rows, params.origin, k):
            yield RowDistances(
                slice(start, stop), overflow_safe_roots(partial(_scaled, scales, densities), columns, params.centers)
            )
        return
    whole = None if rows.has_missing is None else np.flatnonzero(~rows.has_missing)
    for start, stop, columns in columns_of(
        rows if rows.has_missing is None else rows.select(~rows.has_missing), params.origin, k
    ):
        mahalanobis = overflow_safe_roots(partial(_factored, params.factors), columns, params.centers)
        yield RowDistances(slice(start, stop) if whole is None else whole[start:stop], mahalanobis)
    if rows.has_missing is not None:
        # Each missing pattern has a covariance of its own, so its rows are worked on together.
        incomplete = np.flatnonzero(rows.has_missing)
        for group in missing_features.group_by_pattern(rows.select(rows.has_missing), params.origin, k):
            squares = partial(_conditioned, kind, params.covariances, group)
            yield RowDistances(incomplete[group.row_index], overflow_safe_roots(squares, group.columns, params.centers))


def _scaled(scales: Array, densities: Array, columns: Array, centers: Array) -> Array:
    out, offsets = (np.empty((len(centers), columns.shape[1])) for _ in range(2))
    missing_kernels.squares(columns, centers, scales, densities, out, offsets)
    return out


def _factored(factors: Array, columns: Array, centers: Array) -> Array:
    out = np.empty((len(centers), columns.shape[1]))
    kinds.factored(factors, centers, columns, out)
    return out


def _conditioned(
    kind: Covariance, covariances: Array, group: missing_features.MissingPatterns, columns: Array, centers: Array
) -> Array:
    return missing_features.condition_components(kind, centers, covariances, group._replace(columns=columns)).squares


def ranks_of_components(kind: Covariance, params: MixtureParams, columns: Array) -> tuple[Ranks, Array]:
    """Rank components for columns whose squares are beyond float64, and compute log π N up to a constant ``(k, m)``.

    For columns with NaN, the covariance is that of the observed features.

    Parameters
    ----------
    kind
        Kind of covariance.
    params
        Params of a mixture.
    columns
        Rows less the origin as columns ``(d, m)``.
    """
    seen, centers = ~np.isnan(columns), params.centers
    if kind in ("identity", "spherical", "diagonal"):
        _, scales, densities = missing_features.independent(kind, centers, params.factors)
        each = np.sqrt(scales)
        ranks = rank_by_squares(columns, centers, lambda i, values: each[i][:, None] * values)
        return ranks, params.log_weights[:, None] + densities @ seen - 0.5 * ranks.remainder
    rest, squares, logits = (np.empty((params.k, columns.shape[1])) for _ in range(3))
    leading = np.empty(rest.shape, bool)
    matrices = params.covariances[None] if kind == "tied" else params.covariances
    # Rows with the same observed features share one factorisation.
    for have in np.unique(seen, axis=1).T:
        row_index, o = np.flatnonzero((seen == have[:, None]).all(axis=0)), np.flatnonzero(have)
        lower: Array = np.linalg.cholesky(matrices[:, o[:, None], o]).astype(np.float64, copy=False)
        ranks = rank_by_squares(columns[np.ix_(o, row_index)], centers[:, o], partial(_solved, lower))
        leading[:, row_index], rest[:, row_index], squares[:, row_index] = ranks
        log_density = (
            -np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1) - 0.5 * len(o) * missing_features.LOG_2PI
        )
        logits[:, row_index] = (params.log_weights + log_density)[:, None] - 0.5 * ranks.remainder
    return Ranks(leading, rest, squares), logits


def _solved(lower: Array, i: int, columns: Array) -> Array:
    solved: Array = scipy.linalg.solve_triangular(
        lower[i if len(lower) > 1 else 0], columns, lower=True, check_finite=False
    )
    return solved


def bhattacharyya(centers: Array, shapes: Array, others: Array, other_shapes: Array) -> Array:
    """Compute ⅛ Δᵀ Σ⁻¹ Δ + ½ log(|Σ| / √(|Σ₁||Σ₂|)) with Σ = (Σ₁ + Σ₂) / 2 ``(m, k)`` (Bhattacharyya 1943).

    Parameters
    ----------
    centers, others
        Centers of the two sets of Gaussians, ``(m, p)`` and ``(k, p)``.
    shapes, other_shapes
        Variances ``(m, p)`` and ``(k, p)``, all above zero; or positive definite matrices ``(m, p, p)`` and
        ``(k, p, p)``.
    """
    distances = np.empty((len(centers), len(others)))
    own, theirs = _log_determinants(shapes), _log_determinants(other_shapes)
    for i, (center, shape) in enumerate(zip(centers, shapes, strict=True)):
        diff, middle = others - center, 0.5 * (shape + other_shapes)
        if shapes.ndim == 2:
            apart = (diff * diff / middle).sum(axis=1)
        else:
            # Solving keeps more digits than a product with the inverse.
            apart = np.einsum("kp,kp->k", diff, np.linalg.solve(middle, diff[:, :, None])[:, :, 0])
        distances[i] = apart / 8.0 + 0.5 * _log_determinants(middle) - 0.25 * (own[i] + theirs)
    # The distance of equal Gaussians is zero, which rounding may take below zero.
    return distances.clip(0.0)


def _log_determinants(shapes: Array) -> Array:
    logs = np.log(shapes).sum(axis=1) if shapes.ndim == 2 else np.linalg.slogdet(shapes).logabsdet
    return np.asarray(logs, np.float64)
