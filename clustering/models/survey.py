"""Pass 0: statistics of the rows from one read, before any model is fitted.

They are moments, extremes, a weighted row sample and distinct rows. All add up, so that seeding, restarts and checks
need no further read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.models import survey_kernels
from clustering.models.assignment import aligned_empty, sub_blocks
from clustering.models.divergences import check_domain
from clustering.models.option_names import Divergence

Array = NDArray[np.float64]

GOLDEN = (1.0 + 5.0**0.5) / 2.0
"""The golden ratio, which fractions of whole numbers approximate worst (Hurwitz 1891, doi:10.1007/BF01206656)."""
WIDEST_COVARIANCE = 1024
"""Up to this d a start gets the covariance as a full matrix; beyond it only its diagonal, unless preprocessing asks."""

SPARE = 1.5
"""Sampled rows are drawn so many times over, as some cells may be missing. To copy more of them takes as long as all
else of pass 0."""
MOST_SAMPLES = 32
"""Samples of parts of the rows that are kept side by side."""
SIDE_ROWS = 4
"""They are kept so even if they hold more rows than the sample will, up to so many times as many if memory allows."""


class RowSample(NamedTuple):
    """Rows drawn by priority, lowest position first.

    A row of weight w gets the priority w / u with u uniform in (0, 1], a function of the seed and the row's position;
    the highest priorities are kept. With τ the highest priority left out, a kept row stands for weight max(w, τ):
    unbiased for every sum over rows (Duffield, Lund & Thorup 2007, doi:10.1145/1314690.1314696). It depends neither
    on blocks nor on workers, adds up by keeping the highest of both, and holds every row with its own weight where
    all fit.
    """

    priorities: Array
    """Priorities w / u ``(m,)``."""
    positions: NDArray[np.int64]
    """Positions on the sample grid ``(m,)``."""
    weights: Array
    """Own weights ``(m,)``."""
    values: NDArray[Any]
    """Rows in their own precision ``(m, d)``."""
    threshold: float = 0.0
    """τ: the highest priority left out, 0 if none was."""

    def highest(self, m: int) -> RowSample:
        """Keep the rows of highest priority, lower positions first among equals.

        Parameters
        ----------
        m
            Largest number of rows.
        """
        if len(self.priorities) <= m:
            return self
        kept, out = _highest(self.priorities, m)
        return RowSample(
            self.priorities[kept],
            self.positions[kept],
            self.weights[kept],
            self.values[kept],
            max(self.threshold, out),
        )

    @classmethod
    def joined(cls, samples: Sequence[RowSample], m: int) -> RowSample:
        """Keep the rows of highest priority of several samples.

        Parameters
        ----------
        samples
            Samples of different rows; at least one.
        m
            Largest number of rows.
        """
        if len(samples) == 1:
            return samples[0].highest(m)
        positions = np.concatenate([sample.positions for sample in samples])
        priorities = np.concatenate([sample.priorities for sample in samples])
        order = np.arange(len(positions))
        if (positions[1:] < positions[:-1]).any():
            # Among equal priorities the lower position stays, so that the order of joining does not matter.
            order = np.argsort(positions, kind="stable")
        kept, out = _highest(priorities[order], m)
        chosen = order[kept]
        return cls(
            priorities[chosen],
            positions[chosen],
            np.concatenate([sample.weights for sample in samples])[chosen],
            _take_rows([sample.values for sample in samples], chosen),
            max(out, *(sample.threshold for sample in samples)),
        )

    @property
    def represented(self) -> Array:
        """Weight ``(m,)`` that each row stands for."""
        return np.maximum(self.weights, self.threshold)

    @property
    def complete(self) -> bool:
        """Whether no row of positive weight was left out."""
        return self.threshold == 0.0


def _take_rows(parts: Sequence[NDArray[Any]], index: NDArray[np.intp]) -> NDArray[Any]:
    """Take rows ``(m, d)`` of the concatenation of some parts, which is not made."""
    rows = np.empty((len(index), parts[0].shape[1]), parts[0].dtype)
    # The rows of a part lie side by side in the sorted index. Parts in the order of positions come sorted.
    order = np.argsort(index) if (index[1:] < index[:-1]).any() else None
    ordered = index if order is None else index[order]
    ends = np.cumsum([0, *map(len, parts)])
    cuts = np.searchsorted(ordered, ends)
    for part, begin, start, stop in zip(parts, ends[:-1], cuts[:-1], cuts[1:], strict=True):
        rows[slice(start, stop) if order is None else order[start:stop]] = part[ordered[start:stop] - begin]
    return rows


def _highest(priorities: Array, m: int) -> tuple[NDArray[np.bool_], float]:
    """Choose the `m` highest priorities, the first among equals; also return the highest one left out, 0 if none."""
    n = len(priorities)
    if n <= m:
        return np.ones(n, bool), 0.0
    # A partition takes time linear in the rows, and a sort more.
    least = np.partition(priorities, n - m)[n - m]
    kept = priorities > least
    equal = np.flatnonzero(priorities == least)
    kept[equal[: m - int(kept.sum())]] = True
    return kept, float(priorities[~kept].max())


class DistinctRows(NamedTuple):
    """Distinct rows of positive weight and lowest digest (Bar-Yossef et al. 2002, doi:10.1007/3-540-45726-7_1)."""

    digests: NDArray[np.uint64]
    """Digests of the rows ``(t,)``, ascending."""
    values: NDArray[Any]
    """Rows ``(t, d)``."""

    def merged(self, other: DistinctRows, limit: int) -> DistinctRows:
        """Keep the distinct rows of lowest digest of two sets.

        Parameters
        ----------
        other
            The second set.
        limit
            Largest number of rows.
        """
        digests, index = np.unique(np.concatenate([self.digests, other.digests]), return_index=True)
        return DistinctRows(digests[:limit], np.concatenate([self.values, other.values])[index[:limit]])


@dataclass(frozen=True, eq=False)
class Survey:
    """Statistics of pass 0; ``a + b`` are the statistics of both sets of rows together."""

    cells: int
    """Cells of the sample grid, masked ones included."""
    count: int
    """Number of rows that take part."""
    weight: float
    """Σ w."""
    mean: Array
    """Weighted mean ``(d,)``."""
    scatter: Array
    """Σ w (x − mean)(x − mean)ᵀ ``(d, d)``, or its diagonal ``(d,)``."""
    least: Array
    """Minimum of each feature ``(d,)``."""
    greatest: Array
    """Maximum of each feature ``(d,)``."""
    samples: tuple[RowSample, ...]
    """Row samples of parts of the rows, which are joined where they hold too many rows, and at the end."""
    distinct: DistinctRows
    sample_rows: int
    """Largest number of rows in the sample."""
    distinct_rows: int
    """Largest number of distinct rows."""
    observed: Array | None = None
    """Σ w of the rows that have each feature ``(d,)``, if features may be missing; then the scatter is a diagonal."""
    n_positive: int = 0
    """Number of rows of positive weight."""
    zero_rows: int = 0
    """Number of zero rows that were left out, because rows are scaled to length 1."""
    side_bytes: int = 0
    """Size up to which samples of parts are kept side by side, where they hold more rows than the sample will."""

    def __add__(self, other: Survey) -> Survey:
        observed = None
        with np.errstate(over="ignore", invalid="ignore"):
            if self.observed is not None and other.observed is not None:
                weight = self.weight + other.weight
                observed, mean, scatter = _merge_each(
                    (self.observed, self.mean, self.scatter), (other.observed, other.mean, other.scatter)
                )
            else:
                weight, mean, scatter = _merge(
                    (self.weight, self.mean, self.scatter), (other.weight, other.mean, other.scatter)
                )
        return Survey(
            self.cells + other.cells,
            self.count + other.count,
            weight,
            mean,
            scatter,
            np.minimum(self.least, other.least),
            np.maximum(self.greatest, other.greatest),
            self._joined_samples(other),
            self.distinct.merged(other.distinct, self.distinct_rows),
            self.sample_rows,
            self.distinct_rows,
            observed,
            self.n_positive + other.n_positive,
            self.zero_rows + other.zero_rows,
            self.side_bytes,
        )

    def _joined_samples(self, other: Survey) -> tuple[RowSample, ...]:
        """Join the samples of both where they are many, or hold too many and large rows; to join is to copy rows."""
        samples = self.samples + other.samples
        rows = sum(len(sample.weights) for sample in samples)
        size = sum(sample.values.nbytes for sample in samples)
        small = rows <= SIDE_ROWS * self.sample_rows and size <= self.side_bytes
        if len(samples) <= MOST_SAMPLES and (rows <= self.sample_rows or small):
            return samples
        return (RowSample.joined(samples, self.sample_rows),)

    @cached_property
    def sample(self) -> RowSample:
        """Row sample of all rows."""
        return RowSample.joined(self.samples, self.sample_rows)

    @property
    def masked(self) -> int:
        """Number of cells that make no row: masked, or left out for missing features."""
        return self.cells - self.count

    @property
    def variance(self) -> Array:
        """Weighted variance of each feature ``(d,)``, divided by the weight."""
        diagonal = np.diagonal(self.scatter) if self.scatter.ndim == 2 else self.scatter
        return diagonal / (self.weight if self.observed is None else self.observed)

    @property
    def origin(self) -> Array:
        """Origin ``(d,)``: the mean, rounded to one of a few hundred steps per standard deviation.

        The last bits of the mean depend on the order of the sums, and so on the chunks; the origin does not. Steps are
        powers of two, so that rows on a coarse scale lose nothing. Rounding changes from one step to the next at golden
        fractions: means and variances of rows on a coarse scale are simple fractions, and so not close to a change.
        """
        largest = np.maximum(np.abs(self.least), np.abs(self.greatest))
        _, deviation = np.frexp(np.sqrt(self.variance * GOLDEN))
        _, most = np.frexp(largest)
        step = np.ldexp(1.0, np.maximum(np.maximum(deviation - 8, most - 40), -1000))
        with np.errstate(over="ignore", invalid="ignore"):
            rounded = np.floor(self.mean / step + (GOLDEN - 1.0)) * step
        # A feature that does not vary has a mean without rounding.
        kept = (self.least == self.greatest) | ~np.isfinite(rounded)
        return np.where(kept, self.mean, rounded)

    @property
    def covariance(self) -> Array:
        """Covariance of the features ``(d, d)``, or its diagonal ``(d,)`` where only that is kept."""
        return self.scatter / self.weight if self.scatter.ndim == 2 else self.variance


_Moments = tuple[float, Array, Array]


def _merge(a: _Moments, b: _Moments) -> _Moments:
    """Add up centred moments (Chan, Golub & LeVeque 1983, doi:10.1080/00031305.1983.10483115)."""
    # The mean of no rows is arbitrary and must not move the other one.
    if not a[0] or not b[0]:
        return a if a[0] else b
    weight = a[0] + b[0]
    step = b[1] - a[1]
    factor = a[0] * b[0] / weight
    outer = np.outer(step, step) if a[2].ndim == 2 else step * step
    # In place: these are the largest arrays of a pass.
    outer *= factor
    scatter = a[2] + b[2]
    scatter += outer
    return weight, a[1] + step * (b[0] / weight), scatter


def _merge_each(a: tuple[Array, Array, Array], b: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    """Add up centred moments of features that have weights ``(d,)`` of their own."""
    weight = a[0] + b[0]
    share = b[0] / np.where(weight > 0.0, weight, 1.0)
    step = np.where(a[0] > 0.0, b[1] - a[1], 0.0)
    mean = np.where(a[0] > 0.0, a[1] + step * share, b[1])
    return weight, mean, a[2] + b[2] + a[0] * share * step * step


def priority_floor(cells: int, sample_rows: int) -> float:
    """Choose a priority that about `SPARE` times as many rows reach as the sample keeps, if weights are near 1.

    Rows below it are dropped at once. If the sample gets full, it would have dropped them anyway.

    Parameters
    ----------
    cells
        Number of cells of the sample grid.
    sample_rows
        Largest number of rows in the sample.
    """
    floor = cells / (SPARE * sample_rows)
    # A row of weight 1 has a priority of 1 at least.
    return floor if floor > 1.0 else 0.0


@dataclass(frozen=True)
class SurveyModel:
    """Settings of pass 0."""

    seed: int
    sample_rows: int
    """Largest number of rows in the sample."""
    distinct_rows: int
    """Largest number of distinct rows, which is the largest k."""
    floor: float = 0.0
    """Rows of lower priority are dropped at once; see `priority_floor`."""
    divergence: Divergence = "squared_euclidean"
    """Divergence of the model: values that it is not defined for are refused."""
    allow_missing: bool = False
    """Whether rows may have missing features."""
    full_scatter: bool = False
    """Whether the scatter is a full matrix, and not its diagonal."""
    side_bytes: int = 0
    """Size up to which samples of parts are kept side by side, where they hold more rows than the sample will."""

    def statistics(self, rows: Rows) -> Survey:
        """Make the survey of the rows of one block.

        Parameters
        ----------
        rows
            Prepared rows of a block ``(n, d)``.

        Raises
        ------
        DomainError
            If a row has a value that the divergence is not defined for.
        """
        check_domain(self.divergence, rows.values)
        n, d = rows.values.shape
        origin = np.zeros(d) if n == 0 else rows.values[0].astype(np.float64)
        moments: _Moments = (0.0, origin, np.zeros((d, d) if self.full_scatter else d))
        least, greatest = np.full(d, np.inf), np.full(d, -np.inf)
        digests, factors = np.empty(n, np.uint64), np.empty(d, np.uint64)
        for start, stop, part in sub_blocks(rows.values, np.zeros(d)):
            survey_kernels.extremes(part, rows.weights[start:stop], least, greatest)
            survey_kernels.hash_rows(part, part.view(np.uint64), factors, digests[start:stop])
            if self.allow_missing:
                continue
            # Moments that overflow are refused later, where they are used.
            with np.errstate(over="ignore", invalid="ignore"):
                moments = _merge(moments, _moments(part, rows.weights[start:stop], self.full_scatter))
        weight, mean, scatter = moments
        observed = None
        if self.allow_missing:
            weight = float(rows.weights.sum())
            observed, mean, scatter = _moments_with_missing(rows, d)
        return Survey(
            int(np.prod(rows.shape)), n, weight, mean, scatter, least, greatest,
            (self._sample(rows),), self._distinct(rows, digests), self.sample_rows, self.distinct_rows, observed,
            _n_positive(rows), rows.zero_rows, self.side_bytes,
        )  # fmt: skip

    def _sample(self, rows: Rows) -> RowSample:
        n, weighted = len(rows), any(rows.weights.strides)
        index, positions, priorities = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n)
        drawn, positive = survey_kernels.draw_rows(
            self.seed, n, np.ascontiguousarray(rows.weights) if weighted else np.empty(0),
            np.empty(0, np.int64) if rows.cells is None else rows.cells,
            *(np.array(lengths, np.int64) for lengths in (rows.start, rows.shape, rows.grid)),
            self.floor, index, positions, priorities,
        )  # fmt: skip
        # Rows below the floor count as left out, so that the weights that rows stand for stay unbiased.
        threshold = 0.0 if drawn == positive else self.floor
        # If no row is left out, none has to be copied.
        chosen = slice(None) if drawn == n else index[:drawn]
        weights = rows.weights[chosen] if weighted else np.ones(drawn)
        return RowSample(
            priorities[:drawn].copy(), positions[:drawn].copy(), weights, rows.values[chosen], threshold
        ).highest(self.sample_rows)

    def _distinct(self, rows: Rows, digests: NDArray[np.uint64]) -> DistinctRows:
        limit, n = self.distinct_rows, len(rows)
        weighted = any(rows.weights.strides)
        # The lowest digests are enough, unless too many of them are of equal rows. Digests of distinct rows are spread
        # evenly, so that so many times k of them are below the bound.
        for many in (4, 64):
            share = many * limit / max(1, n)
            if share > 0.25:
                break
            low = np.flatnonzero(digests < np.uint64(share * 2.0**64))
            low = low[rows.weights[low] > 0.0] if weighted else low
            least, index = np.unique(digests[low], return_index=True)
            if len(least) >= limit:
                return DistinctRows(least[:limit], rows.values[low[index[:limit]]])
        candidates = np.flatnonzero(rows.weights > 0.0) if weighted else np.arange(n)
        least, index = np.unique(digests[candidates], return_index=True)
        return DistinctRows(least[:limit], rows.values[candidates[index[:limit]]])


def _n_positive(rows: Rows) -> int:
    """Return the number of rows of positive weight."""
    # Rows without weights share one 1 by strides of 0.
    return int(np.count_nonzero(rows.weights > 0.0)) if any(rows.weights.strides) else len(rows)


def _moments(part: Array, weights: Array, full_scatter: bool) -> _Moments:
    """Weight, mean and scatter of a sub-block, centred before squaring."""
    # Rows without weights share one 1 by strides of 0, and need no product with it.
    equal = not any(weights.strides)
    weights = np.ascontiguousarray(weights)
    weight = float(weights.sum())
    if not weight:
        return 0.0, part[0], np.zeros((part.shape[1],) * (2 if full_scatter else 1))
    step, scatter = np.zeros(part.shape[1]), np.zeros(part.shape[1])
    survey_kernels.centred_moments(part, weights, weight, step, scatter)
    mean = part[0] + step
    if full_scatter:
        centred = aligned_empty(part.shape)
        np.subtract(part, part[0], out=centred)
        centred -= step
        weighted = centred
        if not equal:
            weighted = aligned_empty(part.shape)
            np.multiply(centred, weights[:, None], out=weighted)
        full = weighted.T @ centred
        # BLAS adds up in a different order on every processor, and variances decide the origin.
        np.fill_diagonal(full, scatter)
        scatter = full
    return weight, mean, scatter


def _moments_with_missing(rows: Rows, d: int) -> tuple[Array, Array, Array]:
    """Weight, mean and scatter of each feature ``(d,)`` over the rows that have it."""
    weight, mean, scatter = np.zeros(d), np.zeros(d), np.zeros(d)
    for start, stop, part in sub_blocks(rows.values, np.zeros(d)):
        seen = ~np.isnan(part)
        weights = np.where(seen, rows.weights[start:stop, None], 0.0)
        observed = weights.sum(axis=0)
        # The first value of each feature is its origin, which keeps the digits of data far from zero.
        origin = np.where(seen.any(axis=0), part[seen.argmax(axis=0), np.arange(d)], 0.0)
        diff = np.where(seen, part - origin, 0.0)
        step = (weights * diff).sum(axis=0) / np.where(observed > 0.0, observed, 1.0)
        diff = np.where(seen, diff - step, 0.0)
        more = (observed, origin + step, (weights * diff * diff).sum(axis=0))
        weight, mean, scatter = _merge_each((weight, mean, scatter), more)
    return weight, mean, scatter
