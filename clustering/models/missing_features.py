"""Rows with missing features: what was observed of them is used, and nothing else.

Mixtures take the missing features as random, missing independently of their values given what was observed (Little &
Rubin 2002, "Statistical Analysis with Missing Data", section 11.2; Ghahramani & Jordan 1994, NIPS 6:120–127):
responsibilities come from the density of the observed part, and the moments get the conditional means and covariances
of the rest. Where features are independent within a component, that costs what complete rows cost. For tied and full
covariances rows are grouped by which features they have: each pattern of a block costs k factorisations of at most
d³/3 operations, and each row then what a complete row costs. Many patterns of few rows are worked on together, by
compiled loops; few patterns of many rows and features one by one, by BLAS.

k-means and soft k-means measure the distance over the observed features, and average each feature over the rows that
have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.models import covariances as kinds
from clustering.models import missing_kernels, soft_kernels
from clustering.models.columns import sub_block_length
from clustering.models.option_names import Covariance
from clustering.models.soft import Responsibilities

Array = NDArray[np.float64]

LOG_2PI = float(np.log(2 * np.pi))


CONDITIONED_BYTES = 16 * 2**20
"""Size of the factors of the patterns that are worked on together, in bytes."""
MANY_ROWS = 16
"""From so many rows of a pattern on, of more than a few features, BLAS is worth its calls."""


class MissingPatterns(NamedTuple):
    """Rows of a block, those of the same features side by side."""

    row_index: NDArray[np.intp]
    """Of the rows ``(m,)``."""
    columns: Array
    """Rows less the origin, side by side ``(d, m)``, NaN where missing."""
    bounds: NDArray[np.int64]
    """Where the rows of each pattern begin, and the end ``(t + 1,)``."""
    order: NDArray[np.int64]
    """Features of each pattern ``(t, d)``, the observed ones first."""
    n_observed: NDArray[np.int64]
    """Number of observed features of each pattern ``(t,)``."""

    @property
    def by_blas(self) -> bool:
        """Whether this is one pattern of many rows and features."""
        d, m = self.columns.shape
        return len(self.n_observed) == 1 and d > kinds.FEW_FEATURES and m >= MANY_ROWS

    @property
    def observed(self) -> NDArray[np.int64]:
        """Observed features of the only pattern."""
        return self.order[0, : self.n_observed[0]]

    @property
    def missing(self) -> NDArray[np.int64]:
        """Missing features of the only pattern."""
        return self.order[0, self.n_observed[0] :]


def group_by_pattern(rows: Rows, origin: Array, k: int) -> Iterator[MissingPatterns]:
    """Group rows by the features that they have, and give some groups at a time."""
    d = len(origin)
    seen = ~np.isnan(rows.values)
    bits = np.zeros((len(seen), -(-d // 64) * 8), np.uint8)
    bits[:, : -(-d // 8)] = np.packbits(seen, axis=1)
    words = bits.view(np.uint64)
    # Rows of one word sort far faster than rows of several.
    _, group = np.unique(words[:, 0] if d <= 64 else words, axis=0, return_inverse=True)
    group = group.reshape(-1)
    counts = np.bincount(group)
    length = sub_block_length(d, k)
    alone = counts >= MANY_ROWS if d > kinds.FEW_FEATURES else np.zeros(len(counts), bool)
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
    order = np.argsort(~have, axis=1, kind="stable")
    return MissingPatterns(row_index, columns, bounds, order, have.sum(axis=1))


def softmax(out: Array, offsets: Array, rates: Array, constants: Array, weights: Array, start: int) -> Responsibilities:
    """Share rows by L = constant + offset − rate · square, with offsets ``(k, m)`` that differ from row to row."""
    m = out.shape[1]
    logits = (rates[:, None] * out - offsets) - constants[:, None]
    log_prob_norm, labels, first_square = np.empty(m), np.empty(m, np.int32), np.empty(m)
    ones, none = np.ones(len(out)), np.zeros(len(out))
    log_likelihood, expected_complete_log_likelihood = soft_kernels.softmax(
        logits, ones, none, weights, logits, log_prob_norm, labels, first_square
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
    """Variances, their inverses, and log densities at the center of each feature ``(k, d)``, by component."""
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
    """Σ s E log N of the missing features given the observed ones, at the params that expect them.

    Parameters
    ----------
    columns
        ``(d, m)``, NaN where missing.
    whole, offsets
        Log densities at the center: of all features ``(k,)``, and of the observed ones of each row ``(k, m)``.
    """
    lacking = np.isnan(columns).sum(axis=0)
    return float(np.sum(weighted_resp * (whole[:, None] - offsets - 0.5 * lacking)))


class ConditionalGaussian(NamedTuple):
    """What the observed features of a pattern tell about one component."""

    factor: Array
    """A with AᵀA the inverse of the observed covariance."""
    log_density: float
    """Log density of the observed features at the center."""
    regression: Array
    """Expected missing features, per unit of the observed ones."""
    rest: Array
    """Covariance of the missing features given the observed ones."""


class ConditionedComponents(NamedTuple):
    """What the observed features of patterns tell about every component."""

    squares: Array
    """Squared Mahalanobis distances of what was observed ``(k, m)``."""
    offsets: Array
    """Log densities of the observed features at the centers ``(k, m)``."""
    factors: Array
    """As `missing_kernels.condition` makes them ``(t, c, d, d)``; none by BLAS."""
    white: Array
    """As `missing_kernels.pattern_squares` makes it ``(k, d, m)``; none by BLAS."""
    components: tuple[ConditionalGaussian, ...] = ()
    """Of the only pattern, by BLAS."""


def condition_components(
    kind: Covariance, centers: Array, covariances: Array, group: MissingPatterns
) -> ConditionedComponents:
    """Condition every component on what was observed of rows: covariances ``(d, d)`` or ``(k, d, d)``.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a covariance is not positive definite.
    """
    (k, d), m, t = centers.shape, len(group.row_index), len(group.n_observed)
    squares, offsets = np.empty((k, m)), np.empty((k, m))
    matrices = covariances[None] if kind == "tied" else covariances
    if group.by_blas:
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
    half = factor @ covariance[np.ix_(o, m)]
    rest = covariance[np.ix_(m, m)] - half.T @ half
    log_density = float(np.log(np.diagonal(factor)).sum()) - 0.5 * len(o) * LOG_2PI
    return ConditionalGaussian(factor, log_density, half.T @ factor, rest)


def add_dependent(
    group: MissingPatterns, conditionals: ConditionedComponents, weighted_resp: Array, sums: kinds.Accumulator
) -> None:
    """Add the moments of rows of patterns, with conditional means and covariances."""
    if group.by_blas:
        _add_by_blas(group, conditionals.components, weighted_resp, sums)
        return
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
        moment[np.ix_(m, m)] += total * conditional.rest
        if sums.kind == "tied":
            sums.second += moment
        else:
            sums.second[i] += moment


def add_at_centers(columns: Array, variance: Array, weighted_resp: Array, sums: kinds.Accumulator) -> None:
    """Add the moments about the centers of columns ``(d, m)`` whose missing features are expected there.

    Parameters
    ----------
    variance
        Of each feature ``(d,)``: what is taken of a missing one.
    """
    seen = ~np.isnan(columns)
    for i in np.flatnonzero(weighted_resp.any(axis=1)):
        share = weighted_resp[i]
        diff = np.where(seen, columns - sums.centers[i][:, None], 0.0)
        sums.weight[i] += float(share.sum())
        sums.first[i] += diff @ share
        second = sums.second if sums.kind == "tied" else sums.second[i]
        second += (diff * share) @ diff.T + np.diag(variance * (~seen @ share))


def add_independent(columns: Array, variances: Array, weighted_resp: Array, sums: kinds.Accumulator) -> None:
    """Add the moments of columns with gaps, where features are independent and have variances ``(k, d)``."""
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
        Of each feature ``(d,)``.
    """
    return np.where(np.isnan(values), mean, values) if values.dtype.kind == "f" else values
