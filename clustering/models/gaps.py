"""Rows with missing features: what was observed of them is used, and nothing else.

Mixtures take the missing features as random, missing independently of their values given what was observed (Little &
Rubin 2002, "Statistical Analysis with Missing Data", section 11.2; Ghahramani & Jordan 1994, NIPS 6:120–127):
responsibilities come from the density of the observed part, and the moments get the conditional means and covariances
of the rest. Where features are independent within a component, that costs what complete rows cost. For tied and full
covariances rows are grouped by which features they have: each pattern of a block costs k factorisations of at most
d³/3 operations, and each row then what a complete row costs.

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


class Pattern(NamedTuple):
    """Rows of a block that have the same features."""

    places: NDArray[np.intp]
    """Of the rows ``(m,)``."""
    columns: Array
    """Rows less the shift, side by side ``(d, m)``, NaN where missing."""
    observed: NDArray[np.intp]
    missing: NDArray[np.intp]


def patterns(rows: Rows, shift: Array, k: int) -> Iterator[Pattern]:
    """Group rows by the features that they have, and cut large groups."""
    seen = ~np.isnan(rows.values)
    _, group = np.unique(np.packbits(seen, axis=1), axis=0, return_inverse=True)
    order = np.argsort(group.reshape(-1), kind="stable")
    bounds = np.flatnonzero(np.diff(group.reshape(-1)[order])) + 1
    length = sub_block_length(len(shift), k)
    for places in np.split(order, bounds):
        have = seen[places[0]]
        for start in range(0, len(places), length):
            part = places[start : start + length]
            columns = np.ascontiguousarray((rows.values[part].astype(np.float64) - shift).T)
            yield Pattern(part, columns, np.flatnonzero(have), np.flatnonzero(~have))


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


def conditional(covariance: Array, pattern: Pattern) -> Conditional:
    """Condition a covariance ``(d, d)`` on the features of a pattern."""
    o, m = pattern.observed, pattern.missing
    lower = np.linalg.cholesky(covariance[np.ix_(o, o)])
    factor = scipy.linalg.solve_triangular(lower, np.eye(len(o)), lower=True, check_finite=False)
    half = factor @ covariance[np.ix_(o, m)]
    rest = covariance[np.ix_(m, m)] - half.T @ half
    log_density = float(np.log(np.diagonal(factor)).sum()) - 0.5 * len(o) * LOG_2PI
    return Conditional(factor, log_density, half.T @ factor, rest)


def uncorrelated(variance: Array, pattern: Pattern) -> Conditional:
    """Expect missing features at the center, with these variances ``(d,)``, whatever the observed ones are."""
    o, m = len(pattern.observed), len(pattern.missing)
    return Conditional(np.zeros((o, o)), 0.0, np.zeros((m, o)), np.diag(variance[pattern.missing]))


def dependent(
    kind: Covariance, centers: Array, covariances: Array, pattern: Pattern
) -> tuple[list[Conditional], Array, Array]:
    """Condition every component on a pattern, and give squares and offsets ``(k, m)`` of its rows."""
    k, d = centers.shape
    shape = (k, len(pattern.places))
    out, offsets = np.empty(shape), np.empty(shape)
    found: list[Conditional] = []
    for i in range(k):
        if i and kind == "tied":
            found.append(found[0])
        else:
            found.append(conditional(kinds.as_full(kind, covariances, i, d), pattern))
        made = found[i].factor @ (pattern.columns[pattern.observed] - centers[i, pattern.observed][:, None])
        np.einsum("dm,dm->m", made, made, out=out[i])
        offsets[i] = found[i].log_density
    return found, out, offsets


def add_dependent(pattern: Pattern, found: list[Conditional], shares: Array, sums: kinds.Accumulator) -> None:
    """Add the moments of a pattern's rows, with conditional means and covariances."""
    o, m = pattern.observed, pattern.missing
    for i, given in enumerate(found):
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
