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
from typing import NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.models import covariances as kinds
from clustering.models import gap_kernels, soft_kernels
from clustering.models.columns import sub_block_length
from clustering.models.names import Covariance
from clustering.models.soft import Shared

Array = NDArray[np.float64]

LOG_2PI = float(np.log(2 * np.pi))


CONDITIONED_BYTES = 16 * 2**20
"""Size of the factors of the patterns that are worked on together, in bytes."""
MANY_ROWS = 16
"""From so many rows of a pattern on, of more than a few features, BLAS is worth its calls."""


class Patterns(NamedTuple):
    """Rows of a block, those of the same features side by side."""

    places: NDArray[np.intp]
    """Of the rows ``(m,)``."""
    columns: Array
    """Rows less the shift, side by side ``(d, m)``, NaN where missing."""
    bounds: NDArray[np.int64]
    """Where the rows of each pattern begin, and the end ``(t + 1,)``."""
    order: NDArray[np.int64]
    """Features of each pattern ``(t, d)``, the observed ones first."""
    known: NDArray[np.int64]
    """Number of observed features of each pattern ``(t,)``."""

    @property
    def by_blas(self) -> bool:
        """Whether this is one pattern of many rows and features."""
        d, m = self.columns.shape
        return len(self.known) == 1 and d > kinds.FEW_FEATURES and m >= MANY_ROWS

    @property
    def observed(self) -> NDArray[np.int64]:
        """Observed features of the only pattern."""
        return self.order[0, : self.known[0]]

    @property
    def missing(self) -> NDArray[np.int64]:
        """Missing features of the only pattern."""
        return self.order[0, self.known[0] :]


def patterns(rows: Rows, shift: Array, k: int) -> Iterator[Patterns]:
    """Group rows by the features that they have, and give some groups at a time."""
    d = len(shift)
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
                yield _patterns(rows, shift, seen, group, each[start : start + length])
    order = order[~alone[group[order]]]
    length = max(1, min(length, CONDITIONED_BYTES // (8 * k * d * d)))
    for start in range(0, len(order), length):
        yield _patterns(rows, shift, seen, group, order[start : start + length])


def _patterns(
    rows: Rows, shift: Array, seen: NDArray[np.bool_], group: NDArray[np.intp], places: NDArray[np.intp]
) -> Patterns:
    columns = np.ascontiguousarray((rows.values[places].astype(np.float64) - shift).T)
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(group[places])) + 1, [len(places)]])
    have = seen[places[bounds[:-1]]]
    order = np.argsort(~have, axis=1, kind="stable")
    return Patterns(places, columns, bounds, order, have.sum(axis=1))


def soften(out: Array, offsets: Array, rates: Array, constants: Array, weights: Array, start: int) -> Shared:
    """Share rows by L = constant + offset − rate · square, with offsets ``(k, m)`` that differ from row to row."""
    m = out.shape[1]
    logits = (rates[:, None] * out - offsets) - constants[:, None]
    density, labels, least = np.empty(m), np.empty(m, np.int32), np.empty(m)
    ones, none = np.ones(len(out)), np.zeros(len(out))
    likelihood, energy = soft_kernels.soften(logits, ones, none, weights, logits, density, labels, least)
    own = out[labels, np.arange(m)]
    return Shared(start, start + m, np.zeros((0, m)), logits, density, labels, own, likelihood, energy)


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


def expected_missing(columns: Array, whole: Array, offsets: Array, shares: Array) -> float:
    """Σ s E log N of the missing features given the observed ones, at the params that expect them.

    Parameters
    ----------
    columns
        ``(d, m)``, NaN where missing.
    whole, offsets
        Log densities at the center: of all features ``(k,)``, and of the observed ones of each row ``(k, m)``.
    """
    lacking = np.isnan(columns).sum(axis=0)
    return float(np.sum(shares * (whole[:, None] - offsets - 0.5 * lacking)))


class Conditional(NamedTuple):
    """What the observed features of a pattern tell about one component."""

    factor: Array
    """A with AᵀA the inverse of the observed covariance."""
    log_density: float
    """Log density of the observed features at the center."""
    regression: Array
    """Expected missing features, per unit of the observed ones."""
    rest: Array
    """Covariance of the missing features given the observed ones."""


class Conditioned(NamedTuple):
    """What the observed features of patterns tell about every component."""

    squares: Array
    """Squared Mahalanobis distances of what was observed ``(k, m)``."""
    offsets: Array
    """Log densities of the observed features at the centers ``(k, m)``."""
    factors: Array
    """As `gap_kernels.condition` makes them ``(t, c, d, d)``; none by BLAS."""
    white: Array
    """As `gap_kernels.pattern_squares` makes it ``(k, d, m)``; none by BLAS."""
    components: tuple[Conditional, ...] = ()
    """Of the only pattern, by BLAS."""


def conditioned(kind: Covariance, centers: Array, covariances: Array, some: Patterns) -> Conditioned:
    """Condition every component on what was observed of rows: covariances ``(d, d)`` or ``(k, d, d)``.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a covariance is not positive definite.
    """
    (k, d), m, t = centers.shape, len(some.places), len(some.known)
    squares, offsets = np.empty((k, m)), np.empty((k, m))
    matrices = covariances[None] if kind == "tied" else covariances
    if some.by_blas:
        each = [_conditional(matrix, some) for matrix in matrices]
        components = tuple(each * k if kind == "tied" else each)
        for i, given in enumerate(components):
            white = given.factor @ (some.columns[some.observed] - centers[i, some.observed][:, None])
            np.einsum("dm,dm->m", white, white, out=squares[i])
            offsets[i] = given.log_density
        none = np.zeros((0, 0, 0))
        return Conditioned(squares, offsets, none, none, components)
    factors, logs, white = np.empty((t, len(matrices), d, d)), np.empty((t, len(matrices))), np.empty((k, d, m))
    if not gap_kernels.condition(np.ascontiguousarray(matrices), some.order, some.known, factors, logs):
        raise np.linalg.LinAlgError("a covariance is not positive definite")
    logs -= 0.5 * LOG_2PI * some.known[:, None]
    gap_kernels.pattern_squares(
        some.columns, some.bounds, some.order, some.known, centers, factors, logs, white, squares, offsets
    )
    return Conditioned(squares, offsets, factors, white)


def _conditional(covariance: Array, pattern: Patterns) -> Conditional:
    """Condition a covariance ``(d, d)`` on the features of the only pattern."""
    o, m = pattern.observed, pattern.missing
    lower = np.linalg.cholesky(covariance[np.ix_(o, o)])
    factor = scipy.linalg.solve_triangular(lower, np.eye(len(o)), lower=True, check_finite=False)
    half = factor @ covariance[np.ix_(o, m)]
    rest = covariance[np.ix_(m, m)] - half.T @ half
    log_density = float(np.log(np.diagonal(factor)).sum()) - 0.5 * len(o) * LOG_2PI
    return Conditional(factor, log_density, half.T @ factor, rest)


def add_dependent(some: Patterns, given: Conditioned, shares: Array, sums: kinds.Accumulator) -> None:
    """Add the moments of rows of patterns, with conditional means and covariances."""
    if some.by_blas:
        _add_by_blas(some, given.components, shares, sums)
        return
    weight, first, second = (np.zeros_like(total) for total in (sums.weight, sums.first, sums.second))
    gap_kernels.pattern_moments(
        some.columns, some.bounds, some.order, some.known, sums.centers, given.factors, given.white, shares, sums.near,
        weight, first, second[None] if sums.kind == "tied" else second,
    )  # fmt: skip
    sums.weight += weight
    sums.first += first
    sums.second += second


def _add_by_blas(
    pattern: Patterns, components: tuple[Conditional, ...], shares: Array, sums: kinds.Accumulator
) -> None:
    o, m = pattern.observed, pattern.missing
    for i, given in enumerate(components):
        share, center = shares[i], sums.centers[i]
        away = np.empty_like(pattern.columns)
        away[o] = pattern.columns[o] - center[o][:, None]
        away[m] = given.regression @ away[o]
        total = float(share.sum())
        sums.weight[i] += total
        sums.first[i] += away @ share
        if sums.near:
            away += center[:, None]
        moment = (away * share) @ away.T
        moment[np.ix_(m, m)] += total * given.rest
        if sums.kind == "tied":
            sums.second += moment
        else:
            sums.second[i] += moment


def add_at_centers(columns: Array, variance: Array, shares: Array, sums: kinds.Accumulator) -> None:
    """Add the moments about the centers of columns ``(d, m)`` whose missing features are expected there.

    Parameters
    ----------
    variance
        Of each feature ``(d,)``: what is taken of a missing one.
    """
    seen = ~np.isnan(columns)
    for i in np.flatnonzero(shares.any(axis=1)):
        share = shares[i]
        away = np.where(seen, columns - sums.centers[i][:, None], 0.0)
        sums.weight[i] += float(share.sum())
        sums.first[i] += away @ share
        second = sums.second if sums.kind == "tied" else sums.second[i]
        second += (away * share) @ away.T + np.diag(variance * (~seen @ share))


def add_independent(columns: Array, variances: Array, shares: Array, sums: kinds.Accumulator) -> None:
    """Add the moments of columns with gaps, where features are independent and have variances ``(k, d)``."""
    each = np.zeros_like(sums.first)
    gap_kernels.moments(
        columns, sums.centers, variances, shares, sums.weight, sums.first, each, np.zeros_like(sums.first)
    )
    if sums.kind == "spherical":
        sums.second += each.sum(axis=1)
    elif sums.kind == "diagonal":
        sums.second += each
