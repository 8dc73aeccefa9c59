"""k-means: assign each row to its nearest center, then move each center to the weighted mean of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.errors import ConfigError, DataError
from clustering.models import divergences as geometry
from clustering.models import kernels, missing_kernels
from clustering.models.assignment import Assignment
from clustering.models.columns import columns_of
from clustering.models.components import Components
from clustering.models.distances import MEASURES, RowDistances, from_centers
from clustering.models.divergence_kernels import least_of
from clustering.models.farthest import distinct_rows
from clustering.models.kmeans_params import KMeansParams, KMeansUpdate
from clustering.models.kmeans_passes import LloydPass, MetricPass, add_up_rows
from clustering.models.kmeans_statistics import KMeansStatistics
from clustering.models.lloyd import empty_labels, lloyd
from clustering.models.objective import Objective
from clustering.models.option_names import Divergence
from clustering.models.overflow import rank_by_divergence
from clustering.models.prepared_centers import prepare_centers
from clustering.models.sampling import GenerativeMixture, not_generative
from clustering.models.starts import InitialParams, Starts

Array = NDArray[np.float64]


@dataclass(frozen=True)
class KMeans:
    """k-means (lecture, "K-means"; Lloyd 1982, doi:10.1109/TIT.1982.1056489).

    Parameters
    ----------
    k
        Number of clusters, 1 or more.
    divergence
        How far a row is from a center: ``squared_euclidean``, ``cosine`` (1 less the cosine of the angle),
        ``kullback_leibler`` (for counts and shares, 0 or more), ``itakura_saito`` (for spectra, above 0), or
        ``mahalanobis`` (the squared distance by the inverse covariance of all rows).

    Raises
    ------
    ConfigError
        If `k` is not a whole number of 1 or more, or the divergence is unknown.
    """

    k: int
    divergence: Divergence = "squared_euclidean"
    kind: ClassVar = "kmeans"
    statistics_type: ClassVar[type] = KMeansStatistics
    objective: ClassVar = Objective(
        "J",
        "Cost curve",
        "J after every assignment step (blue) and after every refitting step (red).",
        "J",
        "assignment",
        "refitting",
    )
    # k-means reaches a fixed point, where another pass changes no bit.
    tolerance: ClassVar = 0.0
    finalists: ClassVar = 1
    init_arrays: ClassVar[frozenset[str]] = frozenset()
    start_needs_pass: ClassVar = False
    objective_at_convergence: ClassVar = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", check_k(self.k))
        geometry.check_divergence(self.divergence)

    @property
    def soft(self) -> bool:
        """Whether a row belongs to several clusters: never."""
        return False

    @property
    def start_divergence(self) -> Divergence:
        """Divergence of the hard clusters that a fit starts from: the model's own."""
        return self.divergence

    @property
    def start_needs_covariance(self) -> bool:
        """Whether the covariance of all rows makes the divergence."""
        return self.divergence == "mahalanobis"

    def initialize(self, starts: Starts) -> InitialParams[KMeansParams]:
        """Start from hard clusters."""
        return InitialParams(starts.hard_clusters())

    def without_survey_of(self, params: KMeansParams) -> KMeansParams:
        """Remove the total scatter, which belongs to the rows of one fit."""
        return replace(params, total_scatter=np.inf)

    def statistics(self, params: KMeansParams, rows: Rows) -> KMeansStatistics:
        """Assign each row to its nearest center, and add up (lecture, "Assignment step").

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
        if self.divergence == "squared_euclidean":
            return self.for_pass(params)(rows)
        return add_up_rows(self.divergence, params, rows)

    def rows_with_missing(self, params: KMeansParams, rows: Rows) -> tuple[KMeansStatistics, NDArray[np.int32], Array]:
        """Assign rows with missing features by the distance over their observed features, and add up.

        Parameters
        ----------
        params
            Params that enter the pass.
        rows
            Prepared rows ``(n, d)``, each with a missing feature.

        Returns
        -------
        KMeansStatistics, ndarray, ndarray
            Statistics, labels and squared distances ``(n,)``.
        """
        k, d = params.centers.shape
        weight, first, observed, objective = np.zeros(k), np.zeros((k, d)), np.zeros((k, d)), 0.0
        labels, distances = np.empty(len(rows), np.int32), np.empty(len(rows))
        ones, none = np.ones((k, d)), np.zeros((k, d))
        for start, stop, columns in columns_of(rows, params.origin, k):
            out, offsets, membership = (np.zeros((k, stop - start)) for _ in range(3))
            missing_kernels.squares(columns, params.centers, ones, none, out, offsets)
            least_of(out, labels[start:stop], distances[start:stop])
            self._label_overflowed(params, columns, labels[start:stop], distances[start:stop])
            membership[labels[start:stop], np.arange(stop - start)] = rows.weights[start:stop]
            # Zeros for centers: the sums are taken about the origin.
            missing_kernels.moments(columns, none, ones, membership, weight, first, np.zeros((k, d)), observed)
            objective += float(
                rows.weights[start:stop] @ ignore_zero_weights(rows.weights[start:stop], distances[start:stop])
            )
        # A center needs all features, so no cluster restarts at a row that misses some.
        farthest = KMeansStatistics.zero(k, d).farthest
        return KMeansStatistics(weight, first, objective, len(rows), farthest, observed), labels, distances

    def _label_overflowed(
        self, params: KMeansParams, columns: Array, labels: NDArray[np.int32], distances: Array
    ) -> None:
        """Label columns ``(d, m)`` less the origin again, where all their divergences are beyond float64."""
        overflowed = np.flatnonzero(~np.isfinite(distances))
        if len(overflowed):
            columns_left = np.ascontiguousarray(columns[:, overflowed])
            labels[overflowed] = rank_by_divergence(self.divergence, params.matrix, columns_left, params.centers).labels
            distances[overflowed] = np.inf

    def for_pass(self, params: KMeansParams) -> Callable[[Rows], KMeansStatistics]:
        """Prepare the centers for a pass."""
        if self.divergence == "squared_euclidean":
            return LloydPass(self, params, prepare_centers(params.origin, params.centers))
        # The others are not squares of distances, so that nothing follows for a row from how far centers have moved.
        return (
            MetricPass(self, params) if self.divergence in geometry.METRIC_FACTOR else partial(self.statistics, params)
        )

    def labelled_statistics(self, params: KMeansParams, rows: Rows) -> KMeansStatistics:
        """Add up the rows whose clusters are known beforehand (lecture, "Observation: class means").

        Parameters
        ----------
        params
            Origin and number of clusters; the places of the centers do not matter.
        rows
            Prepared rows with known labels; rows of label −1 take no part.

        Raises
        ------
        DataError
            If a label is k or more.
        DomainError
            If a row has a value that the divergence is not defined for.
        """
        k, d = params.centers.shape
        labels = row_labels(rows, k)
        rows = rows.select(labels >= 0)
        labels = labels[labels >= 0]
        weight, first, observed = np.zeros(k), np.zeros((k, d)), np.zeros((k, d))
        geometry.check_domain(self.divergence, rows.values)
        for start, stop, columns in columns_of(rows, params.origin, k):
            membership = np.zeros((k, stop - start))
            membership[labels[start:stop], np.arange(stop - start)] = rows.weights[start:stop]
            missing_kernels.moments(
                geometry.normalized(self.divergence, columns),
                np.zeros((k, d)),
                np.ones((k, d)),
                membership,
                weight,
                first,
                np.zeros((k, d)),
                observed,
            )
        return KMeansStatistics(weight, first, 0.0, len(rows), KMeansStatistics.zero(k, d).farthest, observed)

    def update(self, params: KMeansParams, statistics: KMeansStatistics) -> KMeansUpdate:
        """Move each center to the mean of its rows (lecture, "Refitting step").

        An empty cluster restarts at the row farthest from its center, which leaves its former cluster. So J falls by at
        least the share of that row, and no center is ever NaN.

        Parameters
        ----------
        params
            Params that entered the pass.
        statistics
            Sum of the statistics of all blocks at `params`.
        """
        weight, first = statistics.weight.copy(), statistics.first.copy()
        objective = statistics.objective
        observed = statistics.observed.copy()
        vacant = [int(i) for i in np.flatnonzero(weight <= 0.0)]
        reseeded: list[int] = []
        placed = params.centers.copy()
        for row in distinct_rows(statistics.farthest):
            if len(reseeded) == len(vacant):
                break
            donor, w = int(statistics.farthest.labels[row]), float(statistics.farthest.weights[row])
            x = statistics.farthest.rows[row]
            # A row within the rounding error of its center is at its center: no cluster restarts there.
            near = geometry.rounding_error(self.divergence, params.matrix, x, placed[donor])
            if statistics.farthest.distances[row] <= near:
                continue
            # A donor must keep at least one row; a weight this small is only rounding.
            if weight[donor] - w <= 1e-12 * statistics.weight[donor]:
                continue
            cluster = vacant[len(reseeded)]
            reseeded.append(cluster)
            weight[donor] -= w
            first[donor] -= w * x
            objective -= w * float(statistics.farthest.distances[row])
            weight[cluster], first[cluster], placed[cluster] = w, w * x, x
            if observed.size:
                observed[donor] -= w
                observed[cluster] = w
        # Rounding may take off more than the whole objective.
        objective = max(0.0, objective)
        centers = geometry.update_centers(self.divergence, observed if observed.size else weight, first, placed)
        for cluster in reseeded:
            # The update gives w x / w, which may differ in its last bit from the row x that is wanted.
            centers[cluster] = placed[cluster]
        # J at the new centers m follows from J at the old ones c: Σ w‖x − m‖² = Σ w‖x − c‖² − W‖m − c‖². Where all rows
        # are far from c, this loses digits; the same identity about the origin loses fewer.
        base, reference = (
            (objective, placed) if objective <= params.total_scatter else (params.total_scatter, np.zeros_like(placed))
        )
        gain = geometry.objective_decrease(self.divergence, params.matrix, weight, first, centers, reference)
        if observed.size:
            gain = float(np.sum(observed * (centers - reference) ** 2))
        stuck = tuple(vacant[len(reseeded) :])
        moved = replace(params, centers=centers)
        # Rounded up by the error of both terms, so that the reported J never rises.
        after = max(0.0, base - gain) + 16 * np.finfo(float).eps * base
        return KMeansUpdate(moved, after, tuple(reseeded), stuck, statistics.weight)

    def to_vector(self, params: KMeansParams, about: KMeansParams) -> Array | None:
        """Return None: J is not smooth, so longer steps save no passes."""
        return None

    def from_vector(self, vector: Array, about: KMeansParams) -> KMeansParams | None:
        """Return None, as there are no vectors."""
        return None

    def assign(self, params: KMeansParams, rows: Rows) -> Assignment:
        """Label rows with their nearest centers."""
        labels, distances = np.empty(len(rows), np.int32), np.empty(len(rows))
        if rows.has_missing is not None:
            complete = self.assign(params, rows.select(~rows.has_missing))
            incomplete, labels[rows.has_missing], distances[rows.has_missing] = self.rows_with_missing(
                params, rows.select(rows.has_missing)
            )
            labels[~rows.has_missing], distances[~rows.has_missing] = complete.labels, complete.distances
            return Assignment(
                labels, distances, complete.weight + incomplete.weight, complete.objective + incomplete.objective
            )
        if self.divergence == "squared_euclidean":
            by_row = empty_labels(len(rows))
            sums = lloyd([rows], prepare_centers(params.origin, params.centers), 1, by_row)
            return self._with_overflowed(params, rows, Assignment(*by_row, sums.weight, sums.objective))
        weight, first, objective = np.zeros(params.k), np.zeros(params.centers.shape), 0.0
        for part in geometry.assign_rows(self.divergence, rows.values, params.origin, params.matrix, params.centers):
            weights = rows.weights[part.start : part.stop]
            self._label_overflowed(params, part.rows.T, part.labels, part.distances)
            labels[part.start : part.stop] = part.labels
            distances[part.start : part.stop] = part.distances
            # A row of weight 0 may be infinitely far, and 0 · ∞ would make the sum NaN.
            counted = ignore_zero_weights(weights, part.distances)
            objective += kernels.add_up(part.rows, weights, part.labels, counted, weight, first)
        return Assignment(labels, distances, weight, objective)

    def _with_overflowed(self, params: KMeansParams, rows: Rows, assigned: Assignment) -> Assignment:
        """Label rows again whose squared distances are all beyond float64."""
        if np.isfinite(assigned.objective) and np.isfinite(assigned.distances).all():
            return assigned
        columns = np.ascontiguousarray((rows.values.astype(np.float64) - params.origin).T)
        self._label_overflowed(params, columns, assigned.labels, assigned.distances)
        weight = np.bincount(assigned.labels, rows.weights, params.k).astype(np.float64)
        # A row of weight 0 may be infinitely far, and 0 · ∞ would make the sum NaN.
        objective = float(rows.weights @ ignore_zero_weights(rows.weights, assigned.distances))
        return assigned._replace(weight=weight, objective=objective)

    @property
    def distance_attributes(self) -> Mapping[str, str]:
        """CF attributes of its distances."""
        return MEASURES[self.divergence]

    def distances(
        self, params: KMeansParams, rows: Rows, own: NDArray[np.int32] | None = None
    ) -> Iterator[RowDistances]:
        """Compute the row distances from every center, or from one, a sub-block at a time."""
        return from_centers(self.divergence, params.origin, params.centers, params.matrix, rows, own)

    def to_user_objective(self, objective: Any, weight: float) -> Any:
        """Return J unchanged."""
        return objective

    def params_from_arrays(self, arrays: Mapping[str, Array]) -> KMeansParams:
        """Make params from stored arrays."""
        matrix = arrays.get("matrix", np.zeros((0, 0)))
        return KMeansParams(arrays["shift"], arrays["centers"], float(arrays["spread"]), matrix)

    def components(self, params: KMeansParams) -> Components:
        """Return nothing: k-means has only centers."""
        return Components()

    def embed(self, params: KMeansParams, points: Array) -> Array:
        """Map points ``(m, d)`` to where their Euclidean distance is near the root of the divergence."""
        # Points that come from another preparation may be below zero by a rounding error.
        least = {"kullback_leibler": 0.0, "itakura_saito": geometry.TINY}.get(self.divergence, -np.inf)
        return geometry.embed(self.divergence, np.maximum(points, least), params.origin, params.matrix)

    def free_parameters(self, d: int) -> int | None:
        """Return None: J is not a likelihood."""
        return None

    def summary(
        self, params: KMeansParams, objective: float, weight: float, *, prepared: bool
    ) -> Sequence[tuple[float, str]]:
        """Give J and the mean divergence, with their names."""
        return (objective, f"objective J{' of prepared rows' * prepared}"), (objective / weight, "J per unit weight")

    def run_facts(self, params: KMeansParams) -> Mapping[str, float]:
        """Return nothing: all models record the same."""
        return {}

    def generative(self, params: KMeansParams) -> GenerativeMixture:
        """Refuse: k-means does not describe how rows are generated.

        Raises
        ------
        ConfigError
            Always.
        """
        raise not_generative(f"{self.kind} with divergence {self.divergence!r}")

    def probed(self) -> KMeans:
        """Return the model itself: no option needs a search."""
        return self

    def row_products(self, d: int) -> int:
        """Estimate how many products a pass computes for each row."""
        return self.k * d


def ignore_zero_weights(weights: Array, distances: Array) -> Array:
    """Return distances ``(n,)`` that can be summed with weights: infinite ones of rows of weight 0 become 0.

    Parameters
    ----------
    weights, distances
        Weights and divergences of rows ``(n,)``.
    """
    return distances if np.isfinite(distances).all() else np.where(weights > 0.0, distances, 0.0)


def row_labels(rows: Rows, k: int) -> NDArray[np.int32]:
    """Return the known clusters of rows ``(n,)``, −1 where unknown.

    Parameters
    ----------
    rows
        Rows with or without known labels.
    k
        Number of clusters.

    Raises
    ------
    DataError
        If a label is k or more.
    """
    labels = np.full(len(rows), -1, np.int32) if rows.labels is None else rows.labels
    if len(labels) and labels.max() >= k:
        raise DataError(
            f"label {int(labels.max())} is known for a row, and k is {k}; labels are 0 … {k - 1}; raise model.k, or "
            "give unknown rows the label -1"
        )
    return labels


def check_k(k: Any) -> int:
    """Check the number of clusters, and return it as a plain int.

    Parameters
    ----------
    k
        A whole number of 1 or more.

    Raises
    ------
    ConfigError
        If it is not.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ConfigError(f"k is {k!r}; the number of clusters is a whole number of 1 or more")
    return int(k)
