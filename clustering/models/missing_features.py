"""Rows with missing features: only their observed features are used.

Mixtures treat missing features as missing at random (Little & Rubin 2002, "Statistical Analysis with Missing Data",
section 11.2; Ghahramani & Jordan 1994, NIPS 6:120–127). Responsibilities come from the density of the observed
features, and the moments get the conditional means and covariances of the missing ones. Where features are independent
within a component, this costs as much as complete rows. For tied and full covariances, rows are grouped by missing
pattern: each pattern of a block costs k factorisations of at most d³/3 operations, and each row then costs as much as a
complete row. Many patterns of few rows are worked on together, by compiled loops; few patterns of many rows and
features one by one, by BLAS.

k-means and soft k-means measure the distance over the observed features, and average each feature over the rows that
have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.blas import scipy
from clustering.data.rows import Rows
from clustering.models import covariances as kinds
from clustering.models import missing_kernels, soft_kernels
from clustering.models.columns import sub_block_length
from clustering.models.option_names import Covariance
from clustering.models.soft import Responsibilities

Array = NDArray[np.float64]

LOG_2PI = float(np.log(2 * np.pi))

FEW_FEATURES = 24
"""Up to this d compiled loops work on rows with missing features, beyond it BLAS."""
CONDITIONED_BYTES = 16 * 2**20
"""Largest size of the factors of patterns that are worked on together, in bytes."""
MANY_ROWS = 16
"""From this number of rows of a pattern on, BLAS is faster where d is above `FEW_FEATURES`."""


class MissingPatterns(NamedTuple):
    """Rows of a block, sorted so that rows of one missing pattern lie together."""

    row_index: NDArray[np.intp]
    """Places of the rows among those that were grouped ``(m,)``."""
    columns: Array
    """Rows less the origin as columns ``(d, m)``, NaN where missing."""
    bounds: NDArray[np.int64]
    """First column of each pattern, and the end of the last one ``(t + 1,)``."""
    order: NDArray[np.int64]
    """Features of each pattern ``(t, d)``, the observed ones first."""
    n_observed: NDArray[np.int64]
    """Number of observed features of each pattern ``(t,)``."""

    @property
    def by_blas(self) -> bool:
        """Whether this is one pattern of many rows and features, for which BLAS is faster."""
        d, m = self.columns.shape
        return len(self.n_observed) == 1 and d > FEW_FEATURES and m >= MANY_ROWS

    @property
    def observed(self) -> NDArray[np.int64]:
        """Observed features of the only pattern."""
        return self.order[0, : self.n_observed[0]]

    @property
    def missing(self) -> NDArray[np.int64]:
        """Missing features of the only pattern."""
        return self.order[0, self.n_observed[0] :]


def group_by_pattern(rows: Rows, origin: Array, k: int) -> Iterator[MissingPatterns]:
    """Group rows by missing pattern, and yield as many patterns at a time as memory allows.

    Parameters
    ----------
    rows
        Rows ``(n, d)``, NaN where missing.
    origin
        Origin ``(d,)``, which is subtracted from the rows.
    k
        Number of components, which decides the memory for their factors.
    """
    d = len(origin)
    seen = ~np.isnan(rows.values)
    bits = np.zeros((len(seen), -(-d // 64) * 8), np.uint8)
    bits[:, : -(-d // 8)] = np.packbits(seen, axis=1)
    words = bits.view(np.uint64)
    # Single words sort far faster than rows of several words.
    _, group = np.unique(words[:, 0] if d <= 64 else words, axis=0, return_inverse=True)
    group = group.reshape(-1)
    counts = np.bincount(group)
    length = sub_block_length(d, k)
    alone = counts >= MANY_ROWS if d > FEW_FEATURES else np.zeros(len(counts), bool)
    # A stable sort keeps the rows of a pattern in their order, and so the order of their sums.
    order = np.argsort(group, kind="stable")
    for each in np.split(order, np.cumsum(counts)[:-1]) if alone.any() else []:
        if alone[group[each[0]]]:
            for start in range(0, len(each), length):
                yield _patterns(rows, origin, seen, group, each[start : start + length])
    order = order[~alone[group[order]]]
    length = max(1, min(length, CONDITIONED_BYTES // (8 * k * d * d)))
    for start in range(0, len(order), length):
        yield _patterns(rows, origin, seen, group, order[start : start + length])


def _patterns(
    rows: Rows, origin: Array, seen: NDArray[np.bool_], group: NDArray[np.intp], row_index: NDArray[np.intp]
) -> MissingPatterns:
    columns = np.ascontiguousarray((rows.values[row_index].astype(np.float64) - origin).T)
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(group[row_index])) + 1, [len(row_index)]])
    have = seen[row_index[bounds[:-1]]]
    # A stable sort leaves the features of each half in order, so that equal patterns are eliminated alike.
    order = np.argsort(~have, axis=1, kind="stable")
    return MissingPatterns(row_index, columns, bounds, order, have.sum(axis=1))


def softmax(out: Array, offsets: Array, rates: Array, constants: Array, weights: Array, start: int) -> Responsibilities:
    """Compute responsibilities, the softmax of L = constant + offset − rate · square.

    Parameters
    ----------
    out
        Squares over the observed features ``(k, m)``.
    offsets
        Offset of each row and cluster ``(k, m)``.
    rates, constants
        Rate and constant of each cluster ``(k,)``.
    weights
        Weights of the rows ``(m,)``.
    start
        Index of the first row.
    """
    m = out.shape[1]
    # The kernel knows no offset of single rows. So it gets −L as squares of rate 1, and its own squares are not used.
    logits = (rates[:, None] * out - offsets) - constants[:, None]
    log_prob_norm, labels, first_square = np.empty(m), np.empty(m, np.int32), np.empty(m)
    ones, none = np.ones(len(out)), np.zeros(len(out))
    log_likelihood, expected_complete_log_likelihood = soft_kernels.softmax(
        logits, ones, none, np.ascontiguousarray(weights), logits, log_prob_norm, labels, first_square
    )
    own_divergence = out[labels, np.arange(m)]
    return Responsibilities(
        start,
        start + m,
        np.zeros((0, m)),
        logits,
        log_prob_norm,
        labels,
        own_divergence,
        log_likelihood,
        expected_complete_log_likelihood,
    )


def independent(kind: Covariance, centers: Array, factors: Array) -> tuple[Array, Array, Array]:
    """Compute variances, their inverses, and log densities at the center, each ``(k, d)``, for independent features.

    Parameters
    ----------
    kind
        Kind of covariance: ``identity``, ``spherical`` or ``diagonal``.
    centers
        Centers ``(k, d)``.
    factors
        Factors 1/σ, as `covariances.factors` gives them.
    """
    k, d = centers.shape
    match kind:
        case "identity":
            each = np.ones((k, d))
        case "spherical":
            each = np.repeat(factors[:, None], d, axis=1)
        case _:
            each = factors
    return 1.0 / each**2, each**2, np.log(each) - 0.5 * LOG_2PI


def expected_missing(columns: Array, whole: Array, offsets: Array, weighted_resp: Array) -> float:
    """Compute Σ s E log N of the missing features given the observed ones, at the params of their expectation.

    Parameters
    ----------
    columns
        Rows as columns ``(d, m)``, NaN where missing.
    whole, offsets
        Log densities at the center: of all features ``(k,)``, and of the observed ones of each row ``(k, m)``.
    weighted_resp
        Responsibilities times weights ``(k, m)``.
    """
    lacking = np.isnan(columns).sum(axis=0)
    # The expected square of a missing feature, in units of its variance, is 1; hence the half for each.
    return float(np.sum(weighted_resp * (whole[:, None] - offsets - 0.5 * lacking)))


class ConditionalGaussian(NamedTuple):
    """One Gaussian component, conditioned on the observed features of a pattern."""

    factor: Array
    """A with AᵀA the inverse covariance of the observed features."""
    log_density: float
    """Log density of the observed features at the center."""
    regression: Array
    """Matrix that maps deviations of observed features to expected deviations of missing ones."""
    rest: Array
    """Covariance of the missing features given the observed ones."""


class ConditionedComponents(NamedTuple):
    """All Gaussian components, conditioned on the observed features of patterns."""

    squares: Array
    """Squared Mahalanobis distances over the observed features ``(k, m)``."""
    offsets: Array
    """Log densities of the observed features at the centers ``(k, m)``."""
    factors: Array
    """Factors of `missing_kernels.condition` ``(t, c, d, d)``; empty by BLAS."""
    white: Array
    """L⁻¹ (x − c) of `missing_kernels.pattern_squares` ``(k, d, m)``; empty by BLAS."""
    components: tuple[ConditionalGaussian, ...] = ()
    """Components conditioned on the only pattern, by BLAS."""


def condition_components(
    kind: Covariance, centers: Array, covariances: Array, group: MissingPatterns
) -> ConditionedComponents:
    """Condition every component on the observed features of rows.

    Parameters
    ----------
    kind
        Kind of covariance: ``tied`` or ``full``.
    centers
        Centers less the origin ``(k, d)``.
    covariances
        Covariance ``(d, d)`` of all components, or one for each ``(k, d, d)``.
    group
        Rows of some missing patterns.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a covariance is not positive definite.
    """
    (k, d), m, t = centers.shape, len(group.row_index), len(group.n_observed)
    squares, offsets = np.empty((k, m)), np.empty((k, m))
    matrices = covariances[None] if kind == "tied" else covariances
    if group.by_blas:
        # One factorisation serves all components of a tied covariance.
        each = [_conditional(matrix, group) for matrix in matrices]
        components = tuple(each * k if kind == "tied" else each)
        for i, given in enumerate(components):
            white = given.factor @ (group.columns[group.observed] - centers[i, group.observed][:, None])
            np.einsum("dm,dm->m", white, white, out=squares[i])
            offsets[i] = given.log_density
        none = np.zeros((0, 0, 0))
        return ConditionedComponents(squares, offsets, none, none, components)
    factors, logs, white = np.empty((t, len(matrices), d, d)), np.empty((t, len(matrices))), np.empty((k, d, m))
    if not missing_kernels.condition(np.ascontiguousarray(matrices), group.order, group.n_observed, factors, logs):
        raise np.linalg.LinAlgError("a covariance is not positive definite")
    logs -= 0.5 * LOG_2PI * group.n_observed[:, None]
    missing_kernels.pattern_squares(
        group.columns, group.bounds, group.order, group.n_observed, centers, factors, logs, white, squares, offsets
    )
    return ConditionedComponents(squares, offsets, factors, white)


def _conditional(covariance: Array, pattern: MissingPatterns) -> ConditionalGaussian:
    """Condition a covariance ``(d, d)`` on the features of the only pattern."""
    o, m = pattern.observed, pattern.missing
    lower = np.linalg.cholesky(covariance[np.ix_(o, o)])
    factor = scipy.linalg.solve_triangular(lower, np.eye(len(o)), lower=True, check_finite=False)
    # As a product with its own transpose, the Schur complement Σ_mo Σ_oo⁻¹ Σ_om is symmetric.
    half = factor @ covariance[np.ix_(o, m)]
    rest = covariance[np.ix_(m, m)] - half.T @ half
    log_density = float(np.log(np.diagonal(factor)).sum()) - 0.5 * len(o) * LOG_2PI
    return ConditionalGaussian(factor, log_density, half.T @ factor, rest)


def add_dependent(
    group: MissingPatterns, conditionals: ConditionedComponents, weighted_resp: Array, sums: kinds.Accumulator
) -> None:
    """Add the moments of rows of some patterns, with conditional means and covariances of missing features.

    Parameters
    ----------
    group
        Rows of some missing patterns.
    conditionals
        The components, conditioned on these patterns.
    weighted_resp
        Responsibilities times weights ``(k, m)``.
    sums
        Sums that the moments are added to.
    """
    if group.by_blas:
        _add_by_blas(group, conditionals.components, weighted_resp, sums)
        return
    # Two levels of sums: the error grows with the rows of a sub-block, not with those of a block.
    weight, first, second = (np.zeros_like(total) for total in (sums.weight, sums.first, sums.second))
    missing_kernels.pattern_moments(
        group.columns,
        group.bounds,
        group.order,
        group.n_observed,
        sums.centers,
        conditionals.factors,
        conditionals.white,
        weighted_resp,
        sums.near,
        weight,
        first,
        second[None] if sums.kind == "tied" else second,
    )
    sums.weight += weight
    sums.first += first
    sums.second += second


def _add_by_blas(
    pattern: MissingPatterns, components: tuple[ConditionalGaussian, ...], weighted_resp: Array, sums: kinds.Accumulator
) -> None:
    o, m = pattern.observed, pattern.missing
    for i, conditional in enumerate(components):
        share, center = weighted_resp[i], sums.centers[i]
        diff = np.empty_like(pattern.columns)
        diff[o] = pattern.columns[o] - center[o][:, None]
        diff[m] = conditional.regression @ diff[o]
        total = float(share.sum())
        sums.weight[i] += total
        sums.first[i] += diff @ share
        if sums.near:
            diff += center[:, None]
        moment = (diff * share) @ diff.T
        # Missing features vary about their conditional means, so their conditional covariance counts too.
        moment[np.ix_(m, m)] += total * conditional.rest
        if sums.kind == "tied":
            sums.second += moment
        else:
            sums.second[i] += moment


def add_at_centers(columns: Array, variance: Array, weighted_resp: Array, sums: kinds.Accumulator) -> None:
    """Add the moments of rows whose missing features are expected at the centers.

    Parameters
    ----------
    columns
        Rows less the origin as columns ``(d, m)``, NaN where missing.
    variance
        Variance of each feature ``(d,)``, taken for the missing ones.
    weighted_resp
        Responsibilities times weights ``(k, m)``.
    sums
        Sums that the moments are added to, of kind ``tied`` or ``full``.
    """
    seen = ~np.isnan(columns)
    for i in np.flatnonzero(weighted_resp.any(axis=1)):
        share = weighted_resp[i]
        diff = np.where(seen, columns - sums.centers[i][:, None], 0.0)
        sums.weight[i] += float(share.sum())
        sums.first[i] += diff @ share
        second = sums.second if sums.kind == "tied" else sums.second[i]
        # A missing feature lies at the center on average, and adds its variance.
        second += (diff * share) @ diff.T + np.diag(variance * (~seen @ share))


def add_independent(columns: Array, variances: Array, weighted_resp: Array, sums: kinds.Accumulator) -> None:
    """Add the moments of rows with missing features, where features are independent within a component.

    Parameters
    ----------
    columns
        Rows less the origin as columns ``(d, m)``, NaN where missing.
    variances
        Variances ``(k, d)``, taken for the missing features.
    weighted_resp
        Responsibilities times weights ``(k, m)``.
    sums
        Sums that the moments are added to.
    """
    each = np.zeros_like(sums.first)
    missing_kernels.moments(
        columns, sums.centers, variances, weighted_resp, sums.weight, sums.first, each, np.zeros_like(sums.first)
    )
    if sums.kind == "spherical":
        sums.second += each.sum(axis=1)
    elif sums.kind == "diagonal":
        sums.second += each


def fill_missing(values: NDArray[Any], mean: Array) -> NDArray[Any]:
    """Put the mean where a feature is missing.

    Parameters
    ----------
    values
        Rows ``(n, d)``, NaN where a feature is missing.
    mean
        Mean of each feature ``(d,)``.
    """
    # Whole numbers have no NaN, so they need no copy.
    return np.where(np.isnan(values), mean, values) if values.dtype.kind == "f" else values
