"""Mixtures of Gaussians, fitted by expectation and maximisation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.errors import ConfigError, DataError, nearest
from clustering.models import complete, gap_kernels, gaps, parameters
from clustering.models import covariances as kinds
from clustering.models.columns import columns_of
from clustering.models.distances import Away
from clustering.models.divergences import TINY
from clustering.models.kmeans import KMeans, KMeansParams, check_k, distinct_rows, known_labels
from clustering.models.mixture_distances import MEASURE, from_components, ranks_of_components
from clustering.models.mixture_params import MixtureParams, MixtureUpdate
from clustering.models.model import Assignment
from clustering.models.names import COVARIANCES, Covariance
from clustering.models.soft import Gathered, Moments, Shared, assignment, placed, settled, shared
from clustering.models.survey import Survey

Array = NDArray[np.float64]

STARVED = 10 * np.finfo(float).eps
"""A component with no more than this share of the weight has no rows."""
LEAST_VARIANCE = 1e-20
"""A variance below this, relative to that of all rows, is a component that has collapsed."""
MOST_RESCUES = 20
"""Components placed anew on the way, for each of them, before a fit is given up."""


@dataclass(frozen=True)
class GaussianMixture:
    """A mixture of k Gaussians (lecture, "EM Algorithm for GMM"; Dempster, Laird & Rubin 1977).

    Parameters
    ----------
    k
        Number of components, 1 or more.
    covariance
        ``identity`` (Σ = I, as in the lecture), ``spherical`` (σ²I), ``diagonal``, ``tied`` (one matrix for all
        components), or ``full``.
    regularization
        Added to every variance, in units of the mean variance of the features: bring features of very different units
        to one scale first, or lower it. 0 fits by maximum likelihood alone.

    Raises
    ------
    ConfigError
        For a value outside its range.
    """

    k: int
    covariance: Covariance = "full"
    regularization: float = 1e-6
    kind: ClassVar = "gaussian_mixture"
    statistics_type: ClassVar[type] = Moments
    tolerance: ClassVar = 1e-6
    symbol: ClassVar = "log L"

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", check_k(self.k))
        if self.covariance not in COVARIANCES:
            raise ConfigError(f"covariance is {self.covariance!r}; {nearest(str(self.covariance), COVARIANCES)}")
        number = isinstance(self.regularization, (int, float, np.number)) and not isinstance(self.regularization, bool)
        if not number or not 0 <= self.regularization < np.inf:
            raise ConfigError(f"regularization is {self.regularization!r}; a number of 0 or more is needed")
        object.__setattr__(self, "regularization", float(self.regularization))

    @property
    def starter(self) -> KMeans:
        """The hard model whose clusters the components start from."""
        return KMeans(self.k)

    def free_parameters(self, d: int) -> int:
        """Count the free parameters for d features."""
        return self.k - 1 + self.k * d + kinds.free_parameters(self.covariance, self.k, d)

    def given(self, found: Survey, weights: Any, centers: Array, covariances: Any) -> MixtureParams:
        """Make params of what a user gives, in the data's units.

        Raises
        ------
        ConfigError
            For shapes that do not fit, weights that are no shares, or a covariance that is not positive definite.
        """
        k, d = centers.shape
        given = parameters.numbers("starting weights", weights)
        if given.shape != (k,):
            raise ConfigError(f"starting weights have shape {given.shape}; k = {k} components have {k} weights")
        shares = parameters.shares("starting weights", given)
        if not (shares > 0.0).all():
            raise ConfigError(f"starting weights are {parameters.short(given)}; give shares above 0")
        matrices = parameters.starting(self.covariance, k, d, covariances)
        shift = found.origin
        params = MixtureParams(shift, centers - shift, shares, matrices, found.variance, self.covariance)
        if not np.isfinite(params.constants).all():
            raise ConfigError(
                f"starting covariances are {parameters.short(matrices)}, whose inverses are beyond float64; "
                "rescale the data"
            )
        return params

    def first_statistics(self, params: KMeansParams, variance: Array, known: bool, rows: Rows) -> Moments:
        """Moments of the rows of each cluster about its center.

        Parameters
        ----------
        variance
            Of each feature ``(d,)``: what is taken of a missing one.
        known
            Whether rows come with their clusters, and others take no part; otherwise those of the nearest centers.
        """
        if known:
            rows = rows.some(known_labels(rows, params.k) >= 0)
        if rows.gaps is None:
            return complete.moments(self.covariance, params, known, rows)
        whole = complete.moments(self.covariance, params, known, rows.some(~rows.gaps))
        return whole + complete.moments_with_gaps(self.covariance, params, variance, known, rows.some(rows.gaps))

    def first_params(self, found: Survey, params: KMeansParams, statistics: Moments) -> MixtureParams:
        """Fit components to hard clusters: the maximum likelihood of complete data (lecture, "Observation")."""
        none = kinds.shape(self.covariance, *params.centers.shape)
        before = MixtureParams(
            params.shift, params.centers, np.full(params.k, 1.0 / params.k), np.zeros(none), found.variance,
            self.covariance,
        )  # fmt: skip
        return self._maximised(before, statistics)[0]

    def statistics(self, params: MixtureParams, rows: Rows) -> Moments:
        """Take the expectation step (lecture, "E-step"), and add up the moments."""
        sums = kinds.Accumulator(self.covariance, params.centers, params.factors)
        objective = energy = 0.0
        full = rows if rows.gaps is None else rows.some(~rows.gaps)
        gathered = Gathered(full, params.k)
        for part in self._complete(params, full):
            sums.add(part.columns, part.norms, part.shares, full.weights[part.start : part.stop])
            objective -= part.likelihood
            energy -= part.energy
            gathered.take(part)
        if rows.gaps is not None:
            for part, add, missing in self._gappy(params, rows.some(rows.gaps)):
                add(sums)
                objective -= part.likelihood
                energy -= part.energy + missing
        return Moments(*sums.total(), objective, energy, len(rows), gathered.distant)

    def update(self, params: MixtureParams, statistics: Moments) -> MixtureUpdate:
        """Take the maximisation step (lecture, "M-step").

        A component without rows, or whose covariance is singular, is placed at a far row with the pooled covariance.

        Raises
        ------
        DataError
            If even the pooled covariance is singular, or components collapse again and again.
        """
        after, rescued = self._maximised(params, statistics)
        expected = _expected(self, params, after, statistics)
        # −log L at the old params is −(Σ s L + entropy); the same responsibilities keep their entropy, and what rows
        # lack the distribution that it had at the old params.
        bound = statistics.objective if rescued else statistics.objective - statistics.energy - expected
        conditions = kinds.conditions(self.covariance, after.covariances, after.k)
        total = float(statistics.weight.sum())
        return MixtureUpdate(after, bound, total, statistics.weight, conditions, rescued)

    def assign(self, params: MixtureParams, rows: Rows, see: Callable[[Shared], None] | None = None) -> Assignment:
        """Label rows with their likeliest components."""
        return assignment(self.shared(params, rows), len(rows), params.k, see)

    def describes_density(self) -> bool:
        """Whether rows have a density under the model."""
        return True

    def log_density(self, params: MixtureParams, density: Array, observed: Array) -> Array:
        """Log density of rows ``(m,)``, of which so many features are observed."""
        return density

    def mahalanobis(self, params: MixtureParams, distances: Array) -> Array:
        """Squared Mahalanobis distances ``(m,)`` from the own component."""
        return distances

    def shared(self, params: MixtureParams, rows: Rows) -> Iterator[Shared]:
        """Responsibilities of rows, a sub-block at a time; their density is that of the mixture."""
        full = rows if rows.gaps is None else rows.some(~rows.gaps)
        parts = placed(self._complete(params, full), rows.gaps, with_gaps=False)
        if rows.gaps is not None:
            gappy = (part for part, *_ in self._gappy(params, rows.some(rows.gaps)))
            parts = chain(parts, placed(gappy, rows.gaps, with_gaps=True))
        rank = partial(ranks_of_components, self.covariance, params)
        yield from settled(parts, rows, params.shift, rank)

    @property
    def measure(self) -> Mapping[str, str]:
        """What its distances are, as CF attributes."""
        return MEASURE

    def distances(self, params: MixtureParams, rows: Rows, own: NDArray[np.int32] | None = None) -> Iterator[Away]:
        """Tell how far rows are from every component, or their `own` ``(n,)``, under its covariance."""
        for away in from_components(self.covariance, params, rows):
            if own is not None:
                away = away._replace(distances=np.take_along_axis(away.distances, own[None, away.places], axis=0))
            yield away

    def reported(self, objective: Any, weight: float) -> Any:
        """Tell the mean log-likelihood per unit weight."""
        return -objective / weight

    def restored(self, arrays: Mapping[str, Array]) -> MixtureParams:
        """Make params of what was stored."""
        found = {name: arrays[name] for name in ("shift", "centers", "weights", "spread")}
        matrices = arrays.get("covariances", np.zeros(0))
        return MixtureParams(**found, covariances=matrices, kind=self.covariance, rescues=int(arrays["rescues"]))

    def _gappy(
        self, params: MixtureParams, rows: Rows
    ) -> Iterator[tuple[Shared, Callable[[kinds.Accumulator], None], float]]:
        """Responsibilities of rows with gaps, what adds their moments up, and Σ s E log N of what they lack."""
        kind, k = self.covariance, params.k
        half, logs = np.full(k, 0.5), params.log_weights
        whole = params.constants - logs
        if kind in ("tied", "full"):
            for some in gaps.patterns(rows, params.shift, k):
                given = gaps.conditioned(kind, params.centers, params.covariances, some)
                part = gaps.soften(given.squares, given.offsets, half, logs, rows.weights[some.places], 0)
                part = part._replace(places=some.places)
                missing = gaps.expected_missing(some.columns, whole, given.offsets, part.shares)
                yield part, partial(gaps.add_dependent, some, given, part.shares), missing
            return
        variances, scales, densities = gaps.independent(kind, params.centers, params.factors)
        for start, stop, columns in columns_of(rows, params.shift, k):
            out, offsets = np.empty((k, stop - start)), np.empty((k, stop - start))
            gap_kernels.squares(columns, params.centers, scales, densities, out, offsets)
            part = gaps.soften(out, offsets, half, logs, rows.weights[start:stop], start)
            missing = gaps.expected_missing(columns, whole, offsets, part.shares)
            yield part, partial(gaps.add_independent, columns, variances, part.shares), missing

    def _complete(self, params: MixtureParams, rows: Rows) -> Iterator[Shared]:
        squares = kinds.squares(self.covariance, params.centers, params.factors)
        return shared(rows, params.shift, params.k, squares, np.full(params.k, 0.5), params.constants)

    def _maximised(self, params: MixtureParams, statistics: Moments) -> tuple[MixtureParams, tuple[str, ...]]:
        """Refit, and rescue what collapsed."""
        kind, k = self.covariance, params.k
        floor = self.regularization * float(params.spread.mean())
        weight, total = statistics.weight, float(statistics.weight.sum())
        alive = weight > STARVED * total
        safe = np.where(alive, weight, 1.0)
        step = np.where(alive[:, None], statistics.first / safe[:, None], 0.0)
        centers = params.centers + step
        shared_by = np.where(alive, weight, 0.0) if kind == "tied" else safe
        made = kinds.refitted(kind, shared_by, step, statistics.second, statistics.overlap, params.centers, floor)
        collapsed = [i for i in range(k) if not alive[i] or not _sound(kind, _own(kind, made, i), params.spread)]
        weights = weight / total
        after = replace(params, centers=centers, weights=weights, covariances=made)
        if not collapsed:
            return after, ()
        return self._rescued(after, statistics, collapsed, alive)

    def _rescued(
        self, params: MixtureParams, statistics: Moments, collapsed: list[int], alive: NDArray[np.bool_]
    ) -> tuple[MixtureParams, tuple[str, ...]]:
        kind, k = self.covariance, params.k
        healthy = [i for i in range(k) if i not in collapsed]
        weight = statistics.weight
        pooled = _pooled(kind, params, weight, healthy)
        if not healthy or not _sound(kind, pooled, params.spread):
            raise DataError(
                "the covariance of the data is singular: features are constant, or depend on each other, or there are "
                "too few rows; drop such features, lower k, choose another model.covariance, or raise "
                f"model.regularization, which is {self.regularization:g}"
            )
        if params.rescues + len(collapsed) > MOST_RESCUES * k:
            raise DataError(
                f"components collapse onto single rows again and again ({params.rescues} placed anew); "
                "lower k, or raise model.regularization"
            )
        places = [
            statistics.distant.rows[row]
            for row in distinct_rows(statistics.distant)
            if statistics.distant.distances[row] > 0.0
        ]
        centers, weights, made = params.centers.copy(), params.weights.copy(), params.covariances.copy()
        notes = []
        for number, i in enumerate(collapsed):
            why = "collapsed" if alive[i] else "lost all its rows"
            where = "left in place"
            if number < len(places):
                centers[i], where = places[number], "placed anew at the row farthest from its component"
            weights[i] = 1.0 / k
            if kind in ("spherical", "diagonal", "full"):
                made[i] = pooled
            elif kind == "tied":
                made = pooled
            notes.append(f"component {i} {why}; {where}, with the pooled covariance")
        after = replace(
            params, centers=centers, weights=weights / weights.sum(), covariances=made,
            rescues=params.rescues + len(collapsed),
        )  # fmt: skip
        return after, tuple(notes)


def _own(kind: Covariance, covariances: Array, cluster: int) -> Array:
    """Covariance of one component."""
    own: Array = covariances if kind in ("identity", "tied") else covariances[cluster]
    return own


def _sound(kind: Covariance, covariance: Array, spread: Array) -> bool:
    """Tell whether a component's covariance is one that a density can be made of."""
    if kind == "identity":
        return True
    if kind == "spherical":
        return bool(covariance > max(LEAST_VARIANCE * float(np.mean(spread)), TINY))
    variances = covariance if kind == "diagonal" else np.diagonal(covariance)
    # The inverse of a denormal number would be infinite.
    if not (variances > np.maximum(LEAST_VARIANCE * spread, TINY)).all():
        return False
    if kind == "diagonal":
        return True
    # The scale of the features must not matter: these are the pivots of the correlations.
    roots = np.sqrt(variances)
    try:
        pivots = np.diagonal(np.linalg.cholesky(covariance / np.outer(roots, roots)))
    except np.linalg.LinAlgError:
        return False
    return bool((pivots**2 > 16 * len(covariance) * np.finfo(float).eps).all())


def _pooled(kind: Covariance, params: MixtureParams, weight: Array, healthy: list[int]) -> Array:
    """Mean covariance of the healthy components, by weight."""
    if kind in ("identity", "tied") or not healthy:
        return params.covariances
    pooled: Array = np.tensordot(weight[healthy] / weight[healthy].sum(), params.covariances[healthy], axes=1)
    return pooled


def _expected(model: GaussianMixture, before: MixtureParams, after: MixtureParams, statistics: Moments) -> float:
    """Σ_k N_k (log π_k + E log N(x | k)) at refitted params, from the moments of the rows."""
    weight, (k, d) = statistics.weight, after.centers.shape
    if model.covariance == "identity":
        moved = np.sum((after.centers - before.centers) ** 2, axis=1)
        return float(weight @ (after.constants - before.constants + 0.5 * moved)) - statistics.energy
    # Covariances are those of the rows, and the floor on top, so that E ‖A(x − μ)‖² = d − floor · ‖A‖².
    parts = after.factors.reshape(1 if model.covariance == "tied" else k, -1)
    floor = model.regularization * float(after.spread.mean())
    lifted = np.sum((np.sqrt(floor) * parts) ** 2, axis=1) * (d if model.covariance == "spherical" else 1)
    return float(weight @ (after.constants - 0.5 * (d - lifted)))
