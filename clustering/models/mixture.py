"""Mixtures of Gaussians, fitted by expectation-maximisation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from clustering.data.preparation import Preparation
from clustering.data.rows import Rows
from clustering.errors import ConfigError, DataError, nearest
from clustering.models import covariances as kinds
from clustering.models import missing_features, missing_kernels, mixture_vectors, parameters
from clustering.models.assignment import Assignment
from clustering.models.columns import columns_of
from clustering.models.components import EMPTY_SHARE, Components
from clustering.models.distances import RowDistances
from clustering.models.em import add_block
from clustering.models.em_kernels import Kind
from clustering.models.farthest import distinct_rows
from clustering.models.kmeans import check_k, row_labels
from clustering.models.kmeans_params import KMeansParams
from clustering.models.mixture_distances import MEASURE, from_components, ranks_of_components
from clustering.models.mixture_params import (
    MixtureParams,
    MixtureUpdate,
    component_covariance,
    is_valid_covariance,
    pooled_covariance,
)
from clustering.models.mixture_starts import hard_moments, hard_moments_with_missing, likeliest
from clustering.models.objective import LOG_LIKELIHOOD
from clustering.models.option_names import COVARIANCES, Covariance, Divergence
from clustering.models.sampling import GenerativeMixture
from clustering.models.soft import (
    Moments,
    Responsibilities,
    e_step,
    gather_assignment,
    resolve_overflow,
    with_row_index,
)
from clustering.models.starts import InitialParams, Starts
from clustering.models.survey import Survey

Array = NDArray[np.float64]

HALF = 0.5
"""The log density holds −½ of the squared Mahalanobis distance."""
MOST_RESCUES = 20
"""Number of resets per component after which a fit is given up."""


@dataclass(frozen=True)
class GaussianMixture:
    """A mixture of k Gaussians (lecture, "EM Algorithm for GMM"; Dempster, Laird & Rubin 1977).

    Parameters
    ----------
    k
        Number of components, 1 or more.
    covariance
        Form of the covariances: ``identity`` (Σ = I, as in the lecture), ``spherical`` (σ²I), ``diagonal``, ``tied``
        (one matrix for all components), or ``full``.
    regularization
        Added to every variance, in units of the mean variance of the features: standardize features of very different
        units first, or lower it. 0 means maximum likelihood without regularization.

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
    objective: ClassVar = LOG_LIKELIHOOD
    tolerance: ClassVar = 1e-6
    finalists: ClassVar = 3
    init_arrays: ClassVar[frozenset[str]] = frozenset({"weights", "covariances"})
    start_needs_pass: ClassVar = True
    objective_at_convergence: ClassVar = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", check_k(self.k))
        if self.covariance not in COVARIANCES:
            raise ConfigError(f"covariance is {self.covariance!r}; {nearest(str(self.covariance), COVARIANCES)}")
        object.__setattr__(self, "regularization", parameters.check_regularization(self.regularization))

    @property
    def soft(self) -> bool:
        """Whether a row belongs to several clusters: always."""
        return True

    @property
    def start_divergence(self) -> Divergence:
        """Divergence of the hard clusters that a fit starts from."""
        return "squared_euclidean"

    @property
    def start_needs_covariance(self) -> bool:
        """No start uses the covariance of all rows."""
        return False

    def initialize(self, starts: Starts) -> InitialParams[MixtureParams]:
        """Start from drawn clusters, ranked by the likelihood they lead to; from labelled rows; or as the user gave."""
        best = likeliest(self, starts, partial(self.initial_params, starts.survey), self.covariance)
        # Without drawn starts, or where all of them ended in a singular covariance, hard clusters of all rows serve.
        if best:
            return InitialParams(best)
        hard = starts.hard_clusters()
        if starts.given:
            centers = hard[0].origin + hard[0].centers
            covariances = self._prepared_covariances(starts.preparation, starts.given.get("covariances"))
            return InitialParams([self.params_from_user(starts.survey, starts.given["weights"], centers, covariances)])
        moments = starts.statistics(
            [partial(self.initial_moments, start, starts.survey.variance, starts.labelled) for start in hard]
        )
        pairs = zip(hard, moments, strict=True)
        return InitialParams([self.initial_params(starts.survey, start, sums) for start, sums in pairs])

    def _prepared_covariances(self, preparation: Preparation | None, given: Any) -> Any:
        """Scale starting covariances in the data's units to those of the prepared rows."""
        if preparation is None or not preparation.rescales or self.covariance not in kinds.SCALABLE:
            return given
        covariances = parameters.starting_covariances(self.covariance, self.k, preparation.p, given)
        return kinds.scaled_covariances(self.covariance, covariances, preparation.matrix)

    def without_survey_of(self, params: MixtureParams) -> MixtureParams:
        """Return the params unchanged: the feature variance stays the scale of all versions."""
        return params

    def free_parameters(self, d: int) -> int:
        """Count the free parameters: mixing weights, centers and covariances."""
        return self.k - 1 + self.k * d + kinds.free_parameters(self.covariance, self.k, d)

    def params_from_user(self, survey: Survey, weights: Any, centers: Array, covariances: Any) -> MixtureParams:
        """Make params from the arrays that a user gave.

        Parameters
        ----------
        survey
            Survey of the prepared rows.
        weights
            Mixing weights ``(k,)``, as numbers of any type.
        centers
            Centers in the units of the prepared rows ``(k, d)``.
        covariances
            Covariances in the shape of their kind, in the units of the prepared rows.

        Raises
        ------
        ConfigError
            If a shape does not fit, weights do not add up to 1, or a covariance is not positive definite.
        """
        k, d = centers.shape
        shares = parameters.starting_weights(k, weights)
        matrices = parameters.starting_covariances(self.covariance, k, d, covariances)
        origin = survey.origin
        params = MixtureParams(origin, centers - origin, shares, matrices, survey.variance, self.covariance)
        if not np.isfinite(params.constants).all():
            raise ConfigError(
                f"starting covariances are {parameters.short(matrices)}, whose inverses are beyond float64; "
                "rescale the data"
            )
        return params

    def initial_moments(self, params: KMeansParams, variance: Array, use_labels: bool, rows: Rows) -> Moments:
        """Add up the moments of rows about the centers of their hard clusters.

        Parameters
        ----------
        params
            Hard clusters.
        variance
            Variance of each feature ``(d,)``, taken for missing ones.
        use_labels
            Whether to take the known labels, and leave out other rows; if not, labels are nearest centers.
        rows
            Prepared rows of a block ``(n, d)``.
        """
        if use_labels:
            rows = rows.select(row_labels(rows, params.k) >= 0)
        if rows.has_missing is None:
            return hard_moments(self.covariance, params, use_labels, rows)
        whole = hard_moments(self.covariance, params, use_labels, rows.select(~rows.has_missing))
        return whole + hard_moments_with_missing(
            self.covariance, params, variance, use_labels, rows.select(rows.has_missing)
        )

    def initial_params(self, survey: Survey, params: KMeansParams, statistics: Moments) -> MixtureParams:
        """Fit components to hard clusters by the maximum likelihood of complete data (lecture, "Observation").

        Parameters
        ----------
        survey
            Survey of the prepared rows.
        params
            Hard clusters.
        statistics
            Their moments, see `initial_moments`.
        """
        # The M-step replaces weights and covariances, so any values serve before it.
        none = kinds.covariance_shape(self.covariance, *params.centers.shape)
        before = MixtureParams(
            params.origin, params.centers, np.full(params.k, 1.0 / params.k), np.zeros(none), survey.variance,
            self.covariance,
        )  # fmt: skip
        return self._m_step(before, statistics)[0]

    def statistics(self, params: MixtureParams, rows: Rows) -> Moments:
        """Compute responsibilities (lecture, "E-step"), and add up the moments."""
        return self.for_pass(params)(rows)

    def for_pass(self, params: MixtureParams) -> Callable[[Rows], Moments]:
        """Prepare the components for the rows of a pass."""
        return partial(self._statistics, params, kinds.make_kind(self.covariance, params.centers, params.factors))

    def _statistics(self, params: MixtureParams, components: Kind, rows: Rows) -> Moments:
        sums = kinds.Accumulator(self.covariance, components)
        complete = rows if rows.has_missing is None else rows.select(~rows.has_missing)
        # No component restarts at a row with missing features, because a center needs them all.
        totals = add_block(complete, params.origin, components, HALF, params.constants, sums.sums)
        log_likelihood, expected_complete_log_likelihood = totals[:2]
        if rows.has_missing is not None:
            for part, add, missing in self._rows_with_missing(params, rows.select(rows.has_missing)):
                add(sums)
                log_likelihood += part.log_likelihood
                expected_complete_log_likelihood += part.expected_complete_log_likelihood + missing
        return Moments(*sums.total(), -log_likelihood, -expected_complete_log_likelihood, len(rows), totals.farthest)

    def update(self, params: MixtureParams, statistics: Moments) -> MixtureUpdate:
        """Fit the components to the moments (lecture, "M-step").

        A component that has no rows or a singular covariance is reset to a far row, with the pooled covariance.

        Parameters
        ----------
        params, statistics
            Params that entered the pass, and the sum of the moments of all blocks.

        Raises
        ------
        DataError
            If even the pooled covariance is singular, or components collapse again and again.
        """
        after, rescued = self._m_step(params, statistics)
        expected = _expected_complete_log_likelihood(self, params, after, statistics)
        # −log L at the old params is −(Σ s L + entropy). The bound keeps the responsibilities, and so their entropy; it
        # also keeps the distribution of missing features from the old params.
        bound = (
            statistics.objective
            if rescued
            else statistics.objective - statistics.neg_expected_complete_log_likelihood - expected
        )
        conditions = kinds.conditions(self.covariance, after.covariances, after.k)
        total = float(statistics.weight.sum())
        return MixtureUpdate(after, bound, total, statistics.weight, conditions, rescued)

    def to_vector(self, params: MixtureParams, about: MixtureParams) -> Array | None:
        """Return log weights, means and log-Cholesky factors of the covariances."""
        return mixture_vectors.to_vector(params, about)

    def from_vector(self, vector: Array, about: MixtureParams) -> MixtureParams | None:
        """Make params from the coordinates of `to_vector`."""
        return mixture_vectors.from_vector(vector, about)

    def assign(
        self, params: MixtureParams, rows: Rows, on_part: Callable[[Responsibilities], None] | None = None
    ) -> Assignment:
        """Label rows with their components of largest responsibility."""
        return gather_assignment(self.e_step(params, rows), len(rows), params.k, on_part)

    @property
    def has_density(self) -> bool:
        """Whether rows have a density under the model."""
        return True

    def log_density(self, params: MixtureParams, log_prob_norm: Array, observed: Array) -> Array:
        """Return the log densities of rows ``(m,)``: for a mixture they are `log_prob_norm` itself."""
        return log_prob_norm

    def chi_squared(self, params: MixtureParams, divergences: Array, observed: Array) -> tuple[Array, Array]:
        """Return own divergences, which are squared Mahalanobis distances, and numbers of observed features ``(m,)``.

        Parameters
        ----------
        params, divergences
            Params of the fit, and own divergences of rows ``(m,)``.
        observed
            Number of observed features of each row ``(m,)``.
        """
        return divergences, observed

    def e_step(self, params: MixtureParams, rows: Rows) -> Iterator[Responsibilities]:
        """Responsibilities of rows, a sub-block at a time; their density is that of the mixture."""
        full = rows if rows.has_missing is None else rows.select(~rows.has_missing)
        parts = with_row_index(self._complete_rows(params, full), rows.has_missing, missing=False)
        if rows.has_missing is not None:
            incomplete = (part for part, *_ in self._rows_with_missing(params, rows.select(rows.has_missing)))
            parts = chain(parts, with_row_index(incomplete, rows.has_missing, missing=True))
        rank = partial(ranks_of_components, self.covariance, params)
        yield from resolve_overflow(parts, rows, params.origin, rank)

    @property
    def distance_attributes(self) -> Mapping[str, str]:
        """CF attributes of its distances."""
        return MEASURE

    def distances(
        self, params: MixtureParams, rows: Rows, own: NDArray[np.int32] | None = None
    ) -> Iterator[RowDistances]:
        """Compute the row distances from every component, or from one, each under its own covariance."""
        for row_distances in from_components(self.covariance, params, rows):
            if own is not None:
                row_distances = row_distances._replace(
                    distances=np.take_along_axis(row_distances.distances, own[None, row_distances.row_index], axis=0)
                )
            yield row_distances

    def to_user_objective(self, objective: Any, weight: float) -> Any:
        """Return the mean log-likelihood per unit weight."""
        return -objective / weight

    def params_from_arrays(self, arrays: Mapping[str, Array]) -> MixtureParams:
        """Make params from stored arrays."""
        return MixtureParams(
            origin=arrays["shift"],
            centers=arrays["centers"],
            weights=arrays["weights"],
            covariances=arrays.get("covariances", np.zeros(0)),
            feature_variance=arrays["spread"],
            kind=self.covariance,
            rescues=int(arrays["rescues"]),
        )

    def components(self, params: MixtureParams) -> Components:
        """Describe the components: mixing weights and covariances."""
        covariances = params.covariances if params.covariances.size else None
        return Components(params.weights, covariances, self.covariance)

    def embed(self, params: MixtureParams, points: Array) -> Array:
        """Return points ``(m, d)`` less the origin: their distances depend on the covariances, see `components`."""
        return points - params.origin

    def summary(
        self, params: MixtureParams, objective: float, weight: float, *, prepared: bool
    ) -> Sequence[tuple[float, str]]:
        """Give the log-likelihood, its mean first, with their names."""
        of = " of prepared rows" * prepared
        mean, whole = f"log-likelihood{of} per unit weight", f"log-likelihood log L{of}"
        return (objective, mean), (objective * weight, whole)

    def run_facts(self, params: MixtureParams) -> Mapping[str, float]:
        """Return nothing: all models record the same."""
        return {}

    def generative(self, params: MixtureParams) -> GenerativeMixture:
        """Describe the model as a mixture that rows can be drawn from (lecture, "The Generative Model")."""
        weights = params.weights / params.weights.sum()
        return GenerativeMixture(weights, params.origin + params.centers, params.covariances, self.covariance)

    def probed(self) -> GaussianMixture:
        """Return the model itself: no option needs a search."""
        return self

    def row_products(self, d: int) -> int:
        """Estimate how many products a pass computes for each row."""
        return self.k * d * (d if self.covariance in ("full", "tied") else 1)

    def _rows_with_missing(
        self, params: MixtureParams, rows: Rows
    ) -> Iterator[tuple[Responsibilities, Callable[[kinds.Accumulator], None], float]]:
        """Yield responsibilities of rows with missing features, a function that adds their moments, and Σ s E log N."""
        kind, k = self.covariance, params.k
        half, logs = np.full(k, HALF), params.log_weights
        whole = params.constants - logs
        if kind in ("tied", "full"):
            for group in missing_features.group_by_pattern(rows, params.origin, k):
                given = missing_features.condition_components(kind, params.centers, params.covariances, group)
                part = missing_features.softmax(
                    given.squares, given.offsets, half, logs, rows.weights[group.row_index], 0
                )
                part = part._replace(row_index=group.row_index)
                missing = missing_features.expected_missing(group.columns, whole, given.offsets, part.weighted_resp)
                yield part, partial(missing_features.add_dependent, group, given, part.weighted_resp), missing
            return
        variances, scales, densities = missing_features.independent(kind, params.centers, params.factors)
        for start, stop, columns in columns_of(rows, params.origin, k):
            out, offsets = np.empty((k, stop - start)), np.empty((k, stop - start))
            missing_kernels.squares(columns, params.centers, scales, densities, out, offsets)
            part = missing_features.softmax(out, offsets, half, logs, rows.weights[start:stop], start)
            missing = missing_features.expected_missing(columns, whole, offsets, part.weighted_resp)
            yield part, partial(missing_features.add_independent, columns, variances, part.weighted_resp), missing

    def _complete_rows(self, params: MixtureParams, rows: Rows) -> Iterator[Responsibilities]:
        components = kinds.make_kind(self.covariance, params.centers, params.factors)
        squares = kinds.make_squared_mahalanobis(components)
        return e_step(rows, params.origin, params.k, squares, np.full(params.k, HALF), params.constants)

    def _m_step(self, params: MixtureParams, statistics: Moments) -> tuple[MixtureParams, tuple[str, ...]]:
        """Fit components to moments, and reset those that collapsed; return the params and messages."""
        kind, k = self.covariance, params.k
        floor = self.regularization * float(params.feature_variance.mean())
        weight, total = statistics.weight, float(statistics.weight.sum())
        alive = weight > EMPTY_SHARE * total
        # Empty components are reset below. Until then a weight of 1 keeps them from being NaN.
        safe = np.where(alive, weight, 1.0)
        step = np.where(alive[:, None], statistics.first / safe[:, None], 0.0)
        centers = params.centers + step
        # A tied covariance is divided by the weight of all, which an empty component must not raise.
        shared_by = np.where(alive, weight, 0.0) if kind == "tied" else safe
        made = kinds.update_covariances(
            kind, shared_by, step, statistics.second, statistics.overlap, params.centers, floor
        )
        weights = weight / total
        after = replace(params, centers=centers, weights=weights, covariances=made)
        if alive.all() and is_valid_covariance(kind, made, params.feature_variance):
            return after, ()
        collapsed = [
            i
            for i in range(k)
            if not alive[i]
            or not is_valid_covariance(kind, component_covariance(kind, made, i), params.feature_variance)
        ]
        return self._reset_collapsed(after, statistics, collapsed, alive)

    def _reset_collapsed(
        self, params: MixtureParams, statistics: Moments, collapsed: list[int], alive: NDArray[np.bool_]
    ) -> tuple[MixtureParams, tuple[str, ...]]:
        kind, k = self.covariance, params.k
        healthy = [i for i in range(k) if i not in collapsed]
        weight = statistics.weight
        pooled = pooled_covariance(kind, params, weight, healthy)
        if not healthy or not is_valid_covariance(kind, pooled, params.feature_variance):
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
        # A row at its own center is no place for a second component.
        new_centers = [
            statistics.farthest.rows[row]
            for row in distinct_rows(statistics.farthest)
            if statistics.farthest.distances[row] > 0.0
        ]
        centers, weights, made = params.centers.copy(), params.weights.copy(), params.covariances.copy()
        notes = []
        for number, i in enumerate(collapsed):
            why = "collapsed" if alive[i] else "lost all its rows"
            where = "left in place"
            if number < len(new_centers):
                centers[i], where = new_centers[number], "placed anew at the row farthest from its component"
            # With its former weight of about 0, the component would get no rows again.
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


def _expected_complete_log_likelihood(
    model: GaussianMixture, before: MixtureParams, after: MixtureParams, statistics: Moments
) -> float:
    """Compute Σ_k N_k (log π_k + E log N(x | k)) at the new params, from the moments of the rows."""
    weight, (k, d) = statistics.weight, after.centers.shape
    if model.covariance == "identity":
        # Where Σ = I, a step to the mean raises the sum by ½ N ‖step‖².
        moved = np.sum((after.centers - before.centers) ** 2, axis=1)
        return (
            float(weight @ (after.constants - before.constants + 0.5 * moved))
            - statistics.neg_expected_complete_log_likelihood
        )
    # Covariances are those of the rows plus the floor, so that E ‖A(x − μ)‖² = d − floor · ‖A‖².
    parts = after.factors.reshape(1 if model.covariance == "tied" else k, -1)
    floor = model.regularization * float(after.feature_variance.mean())
    # Factors of tiny variances are multiplied by √floor first, because their squares may be beyond float64.
    lifted = np.sum((np.sqrt(floor) * parts) ** 2, axis=1) * (d if model.covariance == "spherical" else 1)
    return float(weight @ (after.constants - 0.5 * (d - lifted)))
