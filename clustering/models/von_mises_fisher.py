"""Mixtures of von Mises–Fisher distributions, for rows of which only the direction counts, such as embeddings.

A row x of length 1 has the density c_d(κ) exp(κ μ·x) under a component of mean direction μ and concentration κ
(Banerjee, Dhillon, Ghosh & Sra 2005, JMLR 6, 1345–1382). It depends on x by 1 − μ·x, the cosine divergence, as a
Gaussian depends on the squared distance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.errors import ConfigError, DataError, nearest
from clustering.models import directional, parameters
from clustering.models import divergences as geometry
from clustering.models.assignment import Assignment
from clustering.models.columns import columns_of
from clustering.models.components import EMPTY_SHARE, Components
from clustering.models.directional import MeanResultant
from clustering.models.directional_mixture import DirectionalMixture
from clustering.models.distances import MEASURES, RowDistances, from_centers
from clustering.models.farthest import distinct_rows
from clustering.models.kmeans import KMeans, check_k, row_labels
from clustering.models.kmeans_params import KMeansParams
from clustering.models.mixture_starts import likeliest
from clustering.models.objective import LOG_LIKELIHOOD
from clustering.models.option_names import Divergence
from clustering.models.products import CenteredSums, SquaredDistances
from clustering.models.soft import (
    FarthestRowsTracker,
    Moments,
    Responsibilities,
    e_step,
    gather_assignment,
    with_row_index,
)
from clustering.models.starts import InitialParams, Starts
from clustering.models.survey import Survey
from clustering.models.von_mises_fisher_params import (
    VonMisesFisherParams,
    VonMisesFisherUpdate,
    from_vector,
    to_vector,
)

Array = NDArray[np.float64]
Assignments = Literal["soft", "hard"]

_NO_MATRIX = np.zeros((0, 0))


@dataclass(frozen=True)
class VonMisesFisher:
    """A mixture of k von Mises–Fisher distributions on the unit sphere (Banerjee et al. 2005, JMLR 6, 1345–1382).

    Rows are brought to length 1. Densities are those with respect to the area of the sphere.

    Parameters
    ----------
    k
        Number of components, 1 or more.
    assignment
        How rows count: ``soft``, for all components by their responsibilities; ``hard``, for their likeliest component
        alone (classification EM, Celeux & Govaert 1992, doi:10.1016/0167-9473(92)90042-E), which with equal
        concentrations and weights is spherical k-means.
    regularization
        Added to 1 less the mean resultant length of each component, in units of that of all rows, so that no
        component collapses onto one direction. 0 fits by maximum likelihood alone.

    Raises
    ------
    ConfigError
        For a value outside its range.
    """

    k: int
    assignment: Assignments = "soft"
    regularization: float = 1e-6
    kind: ClassVar = "von_mises_fisher"
    statistics_type: ClassVar[type] = Moments
    objective: ClassVar = LOG_LIKELIHOOD
    tolerance: ClassVar = 1e-6
    finalists: ClassVar = 3
    init_arrays: ClassVar[frozenset[str]] = frozenset({"weights", "concentrations"})
    start_needs_pass: ClassVar = True
    objective_at_convergence: ClassVar = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", check_k(self.k))
        if self.assignment not in get_args(Assignments):
            raise ConfigError(
                f"assignment is {self.assignment!r}; {nearest(str(self.assignment), get_args(Assignments))}"
            )
        object.__setattr__(self, "regularization", parameters.check_regularization(self.regularization))

    @property
    def soft(self) -> bool:
        """Whether a row belongs to several clusters."""
        return self.assignment == "soft"

    @property
    def has_density(self) -> bool:
        """Whether rows have a density under the model."""
        return True

    @property
    def start_divergence(self) -> Divergence:
        """Divergence of the hard clusters that it starts from."""
        return "cosine"

    @property
    def start_needs_covariance(self) -> bool:
        """No start uses the covariance of all rows."""
        return False

    def initialize(self, starts: Starts) -> InitialParams[VonMisesFisherParams]:
        """Start from drawn clusters, ranked by the likelihood that they lead to; from labelled rows; or as given.

        Parameters
        ----------
        starts
            Survey, row sample, hard clusters and user input that the model may start from.
        """
        dispersion = _dispersion(starts.survey)
        best = likeliest(self, starts, partial(self.initial_params, dispersion), "spherical")
        if best:
            return InitialParams(best)
        hard = starts.hard_clusters()
        if "concentrations" in starts.given:
            return InitialParams([self._from_user(starts.given, hard[0], dispersion)])
        moments = starts.statistics(
            [partial(self.initial_moments, start, starts.survey.variance, starts.labelled) for start in hard]
        )
        pairs = zip(hard, moments, strict=True)
        params = [self.initial_params(dispersion, start, sums) for start, sums in pairs]
        if "weights" in starts.given:
            params = [replace(params[0], weights=parameters.starting_weights(self.k, starts.given["weights"]))]
        return InitialParams(params)

    def _from_user(self, given: Mapping[str, Any], hard: KMeansParams, dispersion: float) -> VonMisesFisherParams:
        kappa = parameters.read_array("starting concentrations", given["concentrations"])
        kappa = np.full(self.k, kappa) if kappa.ndim == 0 else kappa
        if kappa.shape != (self.k,) or not ((kappa >= 0.0) & (kappa <= directional.MOST_KAPPA)).all():
            raise ConfigError(
                f"starting concentrations are {parameters.short(kappa)}; k = {self.k} components have {self.k} numbers "
                f"from 0 to {directional.MOST_KAPPA:g}"
            )
        weights = parameters.starting_weights(self.k, given["weights"])
        return VonMisesFisherParams(hard.origin, hard.centers, weights, kappa, dispersion)

    def initial_moments(self, params: KMeansParams, variance: Array, use_labels: bool, rows: Rows) -> Moments:
        """Moments of the rows of each hard cluster about its center.

        Parameters
        ----------
        params
            Hard clusters.
        variance
            Not needed, as rows have all their features.
        use_labels
            Whether to take the known labels, and leave out other rows; if not, labels are nearest centers.
        rows
            Rows of a block.
        """
        if use_labels:
            rows = rows.select(row_labels(rows, params.k) >= 0)
        geometry.check_domain("cosine", rows.values)
        labels = rows.labels if use_labels else KMeans(params.k, "cosine").assign(params, rows).labels
        assert labels is not None
        sums, tracker = CenteredSums(params.centers, np.inf, squared=True), FarthestRowsTracker(rows, params.k)
        for start, stop, columns in columns_of(rows, params.origin, params.k):
            columns = geometry.normalized("cosine", columns)
            own, weights = labels[start:stop], rows.weights[start:stop]
            weighted = np.zeros((params.k, stop - start))
            weighted[own, np.arange(stop - start)] = weights
            # The columns have length 1 by now.
            norms = np.ones(stop - start)
            sums.add(columns, norms, weighted)
            away = 0.5 * np.sum((columns - params.centers[own].T) ** 2, axis=0)
            tracker.update(Responsibilities(start, stop, columns, weighted, away, own, away, 0.0, 0.0))
        return _moments(sums, 0.0, 0.0, len(rows), tracker)

    def initial_params(self, dispersion: float, params: KMeansParams, statistics: Moments) -> VonMisesFisherParams:
        """Fit components to hard clusters: the maximum likelihood of complete data.

        Parameters
        ----------
        dispersion
            1 − mean resultant length of all rows.
        params
            Hard clusters.
        statistics
            Their moments.
        """
        shares = np.full(params.k, 1.0 / params.k)
        before = VonMisesFisherParams(params.origin, params.centers, shares, np.zeros(params.k), dispersion)
        return self._m_step(before, statistics)[0]

    def without_survey_of(self, params: VonMisesFisherParams) -> VonMisesFisherParams:
        """Return the params: the dispersion of the rows stays the scale of all versions."""
        return params

    def statistics(self, params: VonMisesFisherParams, rows: Rows) -> Moments:
        """Take the expectation step, and add up the moments about the mean directions.

        Parameters
        ----------
        params
            Params of the pass.
        rows
            Rows of a block.
        """
        sums = CenteredSums(params.centers, _sharpness(params), squared=True)
        tracker = FarthestRowsTracker(rows, params.k)
        objective = neg_expected_complete_log_likelihood = 0.0
        for part in self.e_step(params, rows):
            sums.add(part.columns, part.norms, part.weighted_resp)
            objective -= part.log_likelihood
            neg_expected_complete_log_likelihood -= part.expected_complete_log_likelihood
            tracker.update(part)
        return _moments(sums, objective, neg_expected_complete_log_likelihood, len(rows), tracker)

    def for_pass(self, params: VonMisesFisherParams) -> Callable[[Rows], Moments]:
        """Bind the params."""
        return partial(self.statistics, params)

    def update(self, params: VonMisesFisherParams, statistics: Moments) -> VonMisesFisherUpdate:
        """Take the maximisation step (Banerjee et al. 2005, section 3).

        A component without rows is placed at a far row, with the concentration of all components.

        Parameters
        ----------
        params
            Params of the pass.
        statistics
            Statistics of all rows.
        """
        after, lengths, notes = self._m_step(params, statistics)
        # Σ s (log π' + log c(κ') + κ' μ'·x) needs no row: Σ s μ'·x is the weight times the mean resultant length.
        expected = float(statistics.weight @ (after.constants - after.concentrations * lengths.complement))
        objective = statistics.objective
        if not notes:
            objective -= statistics.neg_expected_complete_log_likelihood + expected
        total = float(statistics.weight.sum())
        return VonMisesFisherUpdate(after, objective, total, statistics.weight, notes)

    def to_vector(self, params: VonMisesFisherParams, about: VonMisesFisherParams) -> Array | None:
        """Return log weights, directions and log concentrations; None for hard assignment, which is not smooth."""
        return to_vector(params, about) if self.soft else None

    def from_vector(self, vector: Array, about: VonMisesFisherParams) -> VonMisesFisherParams | None:
        """Make params from the coordinates of `to_vector`."""
        return from_vector(vector, about)

    def _m_step(
        self, params: VonMisesFisherParams, statistics: Moments
    ) -> tuple[VonMisesFisherParams, MeanResultant, tuple[str, ...]]:
        """Refit, and place empty components anew."""
        weight, total, d = statistics.weight, float(statistics.weight.sum()), params.centers.shape[1]
        centers, lengths = directional.mean_resultant(weight, statistics.first, statistics.second, params.centers)
        kappa = self._concentrations(d, lengths, params.dispersion)
        weights = weight / total
        empty = np.flatnonzero(weight <= EMPTY_SHARE * total)
        if not len(empty):
            return replace(params, centers=centers, weights=weights, concentrations=kappa), lengths, ()
        pooled = MeanResultant(np.atleast_1d(weights @ lengths.length), np.atleast_1d(weights @ lengths.complement))
        new = [statistics.farthest.rows[row] for row in distinct_rows(statistics.farthest)]
        notes = []
        for number, component in enumerate(empty):
            where = "left in place"
            if number < len(new):
                centers[component], where = new[number], "placed anew at the row farthest from its component"
            # With its former weight of about 0, the component would get no rows again.
            weights[component] = 1.0 / params.k
            kappa[component] = self._concentrations(d, pooled, params.dispersion)[0]
            notes.append(f"component {component} lost all its rows; {where}, with the pooled concentration")
        after = replace(params, centers=centers, weights=weights / weights.sum(), concentrations=kappa)
        return after, lengths, tuple(notes)

    def _concentrations(self, d: int, lengths: MeanResultant, dispersion: float) -> Array:
        floor = self.regularization * dispersion
        # A mean resultant length of 1 has an infinite concentration, so the floor keeps lengths below 1.
        raised = MeanResultant(np.maximum(lengths.length - floor, 0.0), np.minimum(lengths.complement + floor, 1.0))
        return directional.concentration(d, raised)

    def e_step(self, params: VonMisesFisherParams, rows: Rows) -> Iterator[Responsibilities]:
        """Compute responsibilities of rows, a sub-block at a time; they are 0 and 1 where assignment is hard.

        The divergence is 2 κ (1 − μ·x), which is near a squared Mahalanobis distance where κ is large.

        Parameters
        ----------
        params
            Params of the pass.
        rows
            Rows of a block.
        """
        geometry.check_domain("cosine", rows.values)
        # The divergence is 2 κ (1 − μ·x), and the log density holds half of it, hence the rates of 0.5.
        fill, constants = _Divergences(params), params.constants
        for part in e_step(rows, params.origin, params.k, fill, np.full(params.k, 0.5), constants):
            yield part if self.soft else _hardened(part, constants, rows.weights[part.start : part.stop])

    def assign(
        self, params: VonMisesFisherParams, rows: Rows, on_part: Callable[[Responsibilities], None] | None = None
    ) -> Assignment:
        """Label rows with their likeliest components.

        Parameters
        ----------
        params
            Params of the fit.
        rows
            Rows of a block.
        on_part
            Called with the responsibilities of each sub-block.
        """
        parts = with_row_index(self.e_step(params, rows), None, missing=False)
        return gather_assignment(parts, len(rows), params.k, on_part)

    def log_density(self, params: VonMisesFisherParams, log_prob_norm: Array, observed: Array) -> Array:
        """Return the log density of rows ``(m,)``, as the responsibilities have it."""
        return log_prob_norm

    def chi_squared(self, params: VonMisesFisherParams, divergences: Array, observed: Array) -> tuple[Array, Array]:
        """Return 2 κ (1 − μ·x) ``(m,)``: about χ² with d − 1 degrees of freedom (Mardia & Jupp 2000, section 10.3)."""
        return divergences, observed - 1.0

    @property
    def distance_attributes(self) -> Mapping[str, str]:
        """CF attributes of its distances."""
        return MEASURES["cosine"]

    def distances(
        self, params: VonMisesFisherParams, rows: Rows, own: NDArray[np.int32] | None = None
    ) -> Iterator[RowDistances]:
        """Compute 1 − μ·x of rows and every component, or their `own` ``(n,)``; a sub-block at a time.

        Parameters
        ----------
        params
            Params of the fit.
        rows
            Rows of a block.
        own
            The one component ``(n,)`` that each row is measured from; all where None.
        """
        return from_centers("cosine", params.origin, params.centers, _NO_MATRIX, rows, own)

    def to_user_objective(self, objective: Any, weight: float) -> Any:
        """Return the mean log-likelihood per unit weight."""
        return -objective / weight

    def params_from_arrays(self, arrays: Mapping[str, Array]) -> VonMisesFisherParams:
        """Make params of stored arrays.

        Parameters
        ----------
        arrays
            As `params_to_arrays` gave them.
        """
        return VonMisesFisherParams(
            arrays["shift"], arrays["centers"], arrays["weights"], arrays["concentrations"], float(arrays["dispersion"])
        )

    def components(self, params: VonMisesFisherParams) -> Components:
        """Describe the components: mixing weights and concentrations."""
        return Components(params.weights, numbers={"concentration κ": params.concentrations})

    def embed(self, params: VonMisesFisherParams, points: Array) -> Array:
        """Bring points ``(m, d)`` to length 1: the squared distance of directions is twice their divergence."""
        return geometry.embed("cosine", points, params.origin, _NO_MATRIX)

    def free_parameters(self, d: int) -> int | None:
        """Count the free parameters for d features: weights, directions and concentrations."""
        # A direction has d − 1 free numbers, and κ is one more for each component.
        return self.k - 1 + self.k * d

    def summary(
        self, params: VonMisesFisherParams, objective: float, weight: float, *, prepared: bool
    ) -> Sequence[tuple[float, str]]:
        """Give the log-likelihood, its mean first, with their names."""
        of = " of prepared rows" * prepared
        return (objective, f"log-likelihood{of} per unit weight"), (objective * weight, f"log-likelihood log L{of}")

    def run_facts(self, params: VonMisesFisherParams) -> Mapping[str, float]:
        """Return nothing: all models record the same."""
        return {}

    def generative(self, params: VonMisesFisherParams) -> DirectionalMixture:
        """Describe the model as a mixture that rows can be drawn from."""
        return DirectionalMixture(params.weights / params.weights.sum(), params.centers, params.concentrations)

    def probed(self) -> VonMisesFisher:
        """Return the model itself: nothing is searched for."""
        return self

    def row_products(self, d: int) -> int:
        """Estimate how many products a pass computes for each row of d features."""
        return self.k * d


class _Divergences:
    """Fills ``(k, m)`` with 2 κ (1 − μ·x), and brings the columns to length 1 on the way."""

    def __init__(self, params: VonMisesFisherParams) -> None:
        self.squares = SquaredDistances(params.centers, _sharpness(params))
        self.concentrations = params.concentrations[:, None]

    def __call__(self, columns: Array, norms: Array, out: Array) -> None:
        columns[:] = geometry.normalized("cosine", columns)
        norms[:] = 1.0
        # ‖x − μ‖² = 2 (1 − μ·x), and keeps its digits where rows are near.
        self.squares(columns, norms, out)
        out *= self.concentrations


def _sharpness(params: VonMisesFisherParams) -> float:
    """Greatest factor of squared distances."""
    return float(params.concentrations.max())


def _moments(
    sums: CenteredSums, objective: float, neg_expected: float, count: int, tracker: FarthestRowsTracker
) -> Moments:
    """Make moments of the sums; the second moment is Σ s (1 − μ·x) ``(k,)``."""
    weight, first, second = sums.total()
    away = 0.5 * second.sum(axis=1)
    return Moments(weight, first, away, np.zeros(0), objective, neg_expected, count, tracker.farthest)


def _hardened(part: Responsibilities, constants: Array, weights: Array) -> Responsibilities:
    """Give each row to its likeliest component alone."""
    columns = np.arange(len(part.labels))
    part.weighted_resp[:] = 0.0
    part.weighted_resp[part.labels, columns] = weights
    # Classification EM counts the chosen component alone, so the norm is that of one component.
    part.log_prob_norm[:] = constants[part.labels] - 0.5 * part.own_divergence
    total = float(weights @ part.log_prob_norm)
    return part._replace(log_likelihood=total, expected_complete_log_likelihood=total)


def _dispersion(survey: Survey) -> float:
    """1 − mean resultant length of the rows of the sample.

    Raises
    ------
    DataError
        If there is one feature, where directions are signs.
    """
    rows = survey.sample.values.astype(np.float64)
    if rows.shape[1] < 2:
        raise DataError("the data have one feature, and directions of one feature are signs; fit another model")
    shares = survey.sample.represented / survey.sample.represented.sum()
    directions = geometry.unit_rows(rows)
    mean = shares @ directions
    away = shares @ (0.5 * np.sum((directions - mean) ** 2, axis=1))
    # E ‖x − m‖² = 1 − ‖m‖² for the mean m.
    return float(2.0 * away / (1.0 + np.sqrt(mean @ mean)))
