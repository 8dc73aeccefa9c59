"""Soft k-means: every row belongs to every cluster to a degree (lecture, "Soft K-means")."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.errors import ConfigError, DataError
from clustering.models import divergences as geometry
from clustering.models import missing_features, missing_kernels
from clustering.models.annealing import anneal, critical_value
from clustering.models.assignment import Assignment
from clustering.models.columns import columns_of
from clustering.models.components import Components
from clustering.models.distances import MEASURES, RowDistances, from_centers
from clustering.models.em import add_block, add_parts
from clustering.models.em_kernels import Alike, Sums
from clustering.models.farthest import distinct_rows
from clustering.models.kmeans import check_k
from clustering.models.objective import Objective
from clustering.models.option_names import Divergence
from clustering.models.overflow import Ranks, rank_by_divergence
from clustering.models.sampling import DESCRIBED, GenerativeMixture, not_generative
from clustering.models.soft import (
    Moments,
    Responsibilities,
    e_step,
    gather_assignment,
    resolve_overflow,
    with_row_index,
)
from clustering.models.soft_kmeans_params import SoftKMeansParams, SoftUpdate, from_vector, to_vector
from clustering.models.starts import MOST_SAMPLE_PASSES, InitialParams, Starts
from clustering.models.survey import Survey

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SoftKMeans:
    """Soft k-means: responsibilities are the softmax of −β D(x, m), centers the means by responsibility.

    It lowers the free energy F = −1/β Σ w log Σ_k exp(−β D(x, m_k)) in every step (Rose 1998, doi:10.1109/5.726788).
    With the squared Euclidean distance it is a mixture of equal weights and Σ = I / (2β).

    Parameters
    ----------
    k
        Number of clusters, 1 or more.
    beta
        Stiffness β above 0, in one over the unit of the divergence (squared units of the data); ``auto`` finds it by
        deterministic annealing on the row sample.
    divergence
        How far a row is from a center: ``squared_euclidean``, ``cosine`` (1 less the cosine of the angle),
        ``kullback_leibler`` (for counts and shares, 0 or more), ``itakura_saito`` (for spectra, above 0), or
        ``mahalanobis`` (the squared distance by the inverse covariance of all rows).

    Raises
    ------
    ConfigError
        For a value outside its range.
    """

    k: int
    beta: float | Literal["auto"] = 1.0
    divergence: Divergence = "squared_euclidean"
    kind: ClassVar = "soft_kmeans"
    statistics_type: ClassVar[type] = Moments
    objective: ClassVar = Objective(
        "F",
        "Free energy",
        "F after every assignment step (blue), and with the same responsibilities at the new centers after every "
        "refitting step (red).",
        "F",
        "assignment",
        "refitting",
    )
    tolerance: ClassVar = 1e-6
    finalists: ClassVar = 1
    init_arrays: ClassVar[frozenset[str]] = frozenset()
    start_needs_pass: ClassVar = False
    objective_at_convergence: ClassVar = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", check_k(self.k))
        geometry.check_divergence(self.divergence)
        number = isinstance(self.beta, (int, float, np.number)) and not isinstance(self.beta, bool)
        if self.beta != "auto" and not (number and 0 < float(self.beta) < np.inf):
            raise ConfigError(f"beta is {self.beta!r}; a number above 0 is needed, or auto")
        if number:
            object.__setattr__(self, "beta", float(self.beta))

    @property
    def soft(self) -> bool:
        """Whether a row belongs to several clusters: always."""
        return True

    @property
    def start_divergence(self) -> Divergence:
        """Divergence of the hard clusters that it starts from: its own."""
        return self.divergence

    @property
    def start_needs_covariance(self) -> bool:
        """The covariance gives the critical value of β."""
        return True

    def initialize(self, starts: Starts) -> InitialParams[SoftKMeansParams]:
        """Start from hard clusters, with β from annealing where it is ``auto``.

        Parameters
        ----------
        starts
            Survey, row sample, hard clusters and user input that the model may start from.
        """
        hard = starts.hard_clusters()
        if self.beta == "auto":
            annealed = anneal(self, starts.survey, starts.on_sample, hard)
            return InitialParams([annealed.params], (annealed.note,))
        params: Sequence[SoftKMeansParams] = [
            SoftKMeansParams.from_hard_clusters(start, float(self.beta)) for start in hard
        ]
        warnings = self._low_beta_warning(starts.survey)
        if starts.drawn:
            # Most iterations happen on the sample, where they are cheap, so that the full data need few passes.
            with starts.on_sample(starts.survey.sample) as sample:
                ends = sample.converge(self, params, starts.tolerance, MOST_SAMPLE_PASSES)
            params = [end.params for end in ends]
        return InitialParams(params, warnings=warnings)

    def _low_beta_warning(self, survey: Survey) -> tuple[str, ...]:
        """Warn where β is so low that all centers become one."""
        if self.k == 1 or self.divergence != "squared_euclidean":
            return ()
        critical = critical_value(self.divergence, survey.covariance)
        if float(self.beta) >= critical:
            return ()
        return (
            f"beta is {self.beta:g}, below the critical value {critical:.4g} of these data: all centers become one; "
            "raise beta, or set it to auto",
        )

    def without_survey_of(self, params: SoftKMeansParams) -> SoftKMeansParams:
        """Return the params unchanged: they hold for any rows.

        Parameters
        ----------
        params
            Params of a finished fit.
        """
        return params

    def statistics(self, params: SoftKMeansParams, rows: Rows) -> Moments:
        """Compute responsibilities (lecture, "Assignment"), and add up.

        Parameters
        ----------
        params
            Params that enter the pass.
        rows
            Prepared rows of a block ``(n, d)``.

        Raises
        ------
        DomainError
            If a row has a value that the divergence is not defined for.
        """
        k, d = params.centers.shape
        complete = rows if rows.has_missing is None else rows.select(~rows.has_missing)
        weight, first = np.zeros(k), np.zeros((k, d))
        if self.divergence == "squared_euclidean":
            empty, centers = np.zeros((0, 0)), np.ascontiguousarray(params.centers)
            sums = Sums(weight, first, empty, empty)
            totals = add_block(complete, params.origin, Alike(centers), params.beta, np.zeros(k), sums)
        else:
            # Other divergences take positive rows, whose sums about zero keep all digits. Sums about a center far above
            # all rows would lose them.
            invariant = geometry.is_translation_invariant(self.divergence)
            about = params.centers if invariant else np.zeros((k, d))
            totals = add_parts(self._complete_rows(params, complete), complete, about, weight, first)
        log_likelihood, expected_complete_log_likelihood = totals[:2]
        observed = np.zeros((0, 0))
        if rows.has_missing is not None:
            # Complete rows have every feature.
            observed = np.repeat(weight[:, None], d, axis=1)
            ones = np.ones((k, d))
            for part in self._rows_with_missing(params, rows.select(rows.has_missing)):
                missing_kernels.moments(
                    part.columns, params.centers, ones, part.weighted_resp, weight, first, np.zeros((k, d)), observed
                )
                log_likelihood += part.log_likelihood
                expected_complete_log_likelihood += part.expected_complete_log_likelihood
        none = np.zeros(0)
        return Moments(
            weight,
            first,
            none,
            none,
            -log_likelihood / params.beta,
            -expected_complete_log_likelihood / params.beta,
            len(rows),
            totals.farthest,
            observed,
        )

    def for_pass(self, params: SoftKMeansParams) -> Callable[[Rows], Moments]:
        """Bind the params."""
        return partial(self.statistics, params)

    def update(self, params: SoftKMeansParams, statistics: Moments) -> SoftUpdate:
        """Move each center to the mean of the rows by responsibility (lecture, "Refitting").

        A cluster whose responsibilities are all zero restarts at the row farthest from its center.

        Parameters
        ----------
        params
            Params that entered the pass.
        statistics
            Sum of the moments of all blocks at `params`.

        Raises
        ------
        DataError
            If the free energy is beyond float64.
        """
        if not np.isfinite(statistics.objective):
            raise DataError(
                f"beta is {params.beta:g}, and beta times the divergence of a row from its centers is beyond float64; "
                "lower model.beta, or rescale the data"
            )
        weight = statistics.weight
        if geometry.is_translation_invariant(self.divergence):
            # Steps from the old centers keep the digits of clusters far from the origin.
            weights = statistics.observed if statistics.observed.size else weight
            step = geometry.update_centers(self.divergence, weights, statistics.first, np.zeros_like(params.centers))
            centers = params.centers + step
        else:
            centers = geometry.update_centers(self.divergence, weight, statistics.first, params.centers)
        gain = geometry.objective_decrease(
            self.divergence, params.matrix, weight, statistics.first, centers, params.centers
        )
        if statistics.observed.size:
            # With missing features, each feature has a weight of its own, which the identity of whole rows does not
            # know.
            gain = float(np.sum(statistics.observed * step**2))
        reseeded: list[int] = []
        new_centers = [statistics.farthest.rows[row] for row in distinct_rows(statistics.farthest)]
        for cluster in np.flatnonzero(weight <= 0.0)[: len(new_centers)]:
            centers[cluster] = new_centers[len(reseeded)]
            reseeded.append(int(cluster))
        after = replace(params, centers=centers)
        return SoftUpdate(
            after, statistics.objective - gain, statistics.neg_expected_complete_log_likelihood, weight, tuple(reseeded)
        )

    def to_vector(self, params: SoftKMeansParams, about: SoftKMeansParams) -> Array | None:
        """Return the centers where their Euclidean distance is near the root of the divergence."""
        return to_vector(self.divergence, params)

    def from_vector(self, vector: Array, about: SoftKMeansParams) -> SoftKMeansParams | None:
        """Make centers from the coordinates of `to_vector`."""
        return from_vector(self.divergence, vector, about)

    def assign(
        self, params: SoftKMeansParams, rows: Rows, on_part: Callable[[Responsibilities], None] | None = None
    ) -> Assignment:
        """Label rows with their clusters of largest responsibility.

        Parameters
        ----------
        params, rows
            Params of a fit, and prepared rows of a block ``(n, d)``.
        on_part
            Called with the responsibilities of each sub-block.
        """
        assignment = gather_assignment(self.e_step(params, rows), len(rows), params.k, on_part)
        return assignment._replace(objective=assignment.objective / params.beta)

    @property
    def has_density(self) -> bool:
        """Whether rows have a density under the model: for the divergences of Gaussians only."""
        return geometry.is_translation_invariant(self.divergence)

    def log_density(self, params: SoftKMeansParams, log_prob_norm: Array, observed: Array) -> Array:
        """Compute the log density of rows ``(m,)`` under the Gaussian mixture that this model is.

        Parameters
        ----------
        params
            Params of the fit.
        log_prob_norm
            log Σ_k exp(−β D) of rows ``(m,)``.
        observed
            Number of observed features of each row ``(m,)``.
        """
        turned = float(np.log(np.diagonal(params.matrix)).sum()) if params.matrix.size else 0.0
        # Each of k Gaussians with Σ = I / (2β) has the density (β/π)^(d/2) exp(−β D); a turn by M adds log |M|.
        log_densities: Array = log_prob_norm - np.log(params.k) + 0.5 * observed * np.log(params.beta / np.pi) + turned
        return log_densities

    def chi_squared(self, params: SoftKMeansParams, divergences: Array, observed: Array) -> tuple[Array, Array]:
        """Turn own divergences into squared distances under Σ = I / (2β), with numbers of observed features.

        Parameters
        ----------
        params, divergences
            Params of the fit, and own divergences of rows ``(m,)``.
        observed
            Number of observed features of each row ``(m,)``.
        """
        return 2.0 * params.beta * divergences, observed

    def e_step(self, params: SoftKMeansParams, rows: Rows) -> Iterator[Responsibilities]:
        """Compute responsibilities of rows, a sub-block at a time.

        Parameters
        ----------
        params, rows
            Params of a fit, and prepared rows of a block ``(n, d)``.
        """
        complete = rows if rows.has_missing is None else rows.select(~rows.has_missing)
        parts = with_row_index(self._complete_rows(params, complete), rows.has_missing, missing=False)
        if rows.has_missing is not None:
            parts = chain(
                parts,
                with_row_index(
                    self._rows_with_missing(params, rows.select(rows.has_missing)), rows.has_missing, missing=True
                ),
            )
        yield from resolve_overflow(parts, rows, params.origin, partial(self._ranked, params))

    def _ranked(self, params: SoftKMeansParams, columns: Array) -> tuple[Ranks, Array]:
        ranks = rank_by_divergence(self.divergence, params.matrix, columns, params.centers)
        return ranks, -params.beta * ranks.remainder

    def _rows_with_missing(self, params: SoftKMeansParams, rows: Rows) -> Iterator[Responsibilities]:
        k, d = params.centers.shape
        ones, none = np.ones((k, d)), np.zeros((k, d))
        for start, stop, columns in columns_of(rows, params.origin, k):
            out, offsets = np.empty((k, stop - start)), np.empty((k, stop - start))
            missing_kernels.squares(columns, params.centers, ones, none, out, offsets)
            weights = rows.weights[start:stop]
            part = missing_features.softmax(out, offsets, np.full(k, params.beta), np.zeros(k), weights, start)
            yield part._replace(columns=columns)

    def _complete_rows(self, params: SoftKMeansParams, rows: Rows) -> Iterator[Responsibilities]:
        geometry.check_domain(self.divergence, rows.values)
        fill = geometry.make_divergences(self.divergence, params.matrix, params.centers)
        return e_step(rows, params.origin, params.k, fill, np.full(params.k, params.beta), np.zeros(params.k))

    @property
    def distance_attributes(self) -> Mapping[str, str]:
        """CF attributes of its distances."""
        return MEASURES[self.divergence]

    def distances(
        self, params: SoftKMeansParams, rows: Rows, own: NDArray[np.int32] | None = None
    ) -> Iterator[RowDistances]:
        """Compute the row distances from every center, or from one, a sub-block at a time.

        Parameters
        ----------
        params, rows
            Params of a fit, and prepared rows of a block ``(n, d)``.
        own
            One cluster ``(n,)`` for each row, to measure from that one alone.
        """
        return from_centers(self.divergence, params.origin, params.centers, params.matrix, rows, own)

    def to_user_objective(self, objective: Any, weight: float) -> Any:
        """Return the free energy unchanged.

        Parameters
        ----------
        objective, weight
            Free energy, and the total weight of its rows.
        """
        return objective

    def params_from_arrays(self, arrays: Mapping[str, Array]) -> SoftKMeansParams:
        """Make params from stored arrays.

        Parameters
        ----------
        arrays
            Arrays by their names on disk.
        """
        matrix = arrays.get("matrix", np.zeros((0, 0)))
        return SoftKMeansParams(arrays["shift"], arrays["centers"], float(arrays["beta"]), matrix)

    def components(self, params: SoftKMeansParams) -> Components:
        """Return nothing: soft k-means has only centers.

        Parameters
        ----------
        params
            Params of a fit.
        """
        return Components()

    def embed(self, params: SoftKMeansParams, points: Array) -> Array:
        """Map points to where their Euclidean distance is near the root of the divergence.

        Parameters
        ----------
        params
            Params of a fit.
        points
            Points in the space of the prepared rows ``(m, d)``.
        """
        # Points that come from another preparation may be below zero by a rounding error.
        least = {"kullback_leibler": 0.0, "itakura_saito": geometry.TINY}.get(self.divergence, -np.inf)
        return geometry.embed(self.divergence, np.maximum(points, least), params.origin, params.matrix)

    def free_parameters(self, d: int) -> int | None:
        """Return None: the free energy is not a likelihood.

        Parameters
        ----------
        d
            Number of features.
        """
        return None

    def summary(
        self, params: SoftKMeansParams, objective: float, weight: float, *, prepared: bool
    ) -> Sequence[tuple[float, str]]:
        """Give the free energy at β and its mean, with their names.

        Parameters
        ----------
        params, objective, weight
            Params of the fit, its free energy, and the total weight of the rows.
        prepared
            Whether the free energy is measured on prepared rows.
        """
        stiffness = f"free energy F{' of prepared rows' * prepared} at β = {params.beta:.6g}"
        return (objective, stiffness), (objective / weight, "F per unit weight")

    def run_facts(self, params: SoftKMeansParams) -> Mapping[str, float]:
        """Give β, which annealing may have chosen.

        Parameters
        ----------
        params
            Params of the fit.
        """
        return {"beta": params.beta}

    def generative(self, params: SoftKMeansParams) -> GenerativeMixture:
        """Describe the model as a mixture of Gaussians, where its divergence is that of a Gaussian.

        Soft k-means with the squared Euclidean distance is a mixture of equal weights with Σ = I / (2β), and with the
        Mahalanobis distance ‖M (x − m)‖² one with Σ = M⁻¹M⁻ᵀ / (2β) (lecture, "Observation").

        Parameters
        ----------
        params
            Params of the fit.

        Raises
        ------
        ConfigError
            For other divergences.
        """
        if self.divergence not in DESCRIBED:
            raise not_generative(f"{self.kind} with divergence {self.divergence!r}")
        k, width = params.k, 1.0 / (2.0 * params.beta)
        weights, means = np.full(k, 1.0 / k), params.origin + params.centers
        if self.divergence == "squared_euclidean":
            return GenerativeMixture(weights, means, np.full(k, width), "spherical")
        back = np.linalg.inv(params.matrix)
        covariance = width * (back @ back.T)
        return GenerativeMixture(weights, means, 0.5 * (covariance + covariance.T), "tied")

    def probed(self) -> SoftKMeans:
        """Return the model with a number for β, which changes nothing about the work for each row."""
        return replace(self, beta=1.0)

    def row_products(self, d: int) -> int:
        """Estimate how many products a pass computes for each row.

        Parameters
        ----------
        d
            Number of features.
        """
        return self.k * d
