"""Starts of a mixture: moments of rows in hard clusters, and the choice among starts.

The moments are the sufficient statistics of complete data (lecture, "if we knew z for every x"). EM runs from each
start on rows of the sample, and the likeliest are kept. Hard clusters of the least J need not lead to the likeliest
mixture, as J has neither mixing weights nor covariances.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.errors import DataError
from clustering.models import covariances as kinds
from clustering.models import missing_features
from clustering.models.columns import columns_of, sub_block_length
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.lloyd import nearest
from clustering.models.objective import EQUAL_OBJECTIVES, rank_candidates
from clustering.models.option_names import Covariance
from clustering.models.soft import FarthestRowsTracker, Moments, Responsibilities
from clustering.models.starts import MOST_SAMPLE_PASSES, RESTART_TOLERANCE, SampleCandidate, Starts

Array = NDArray[np.float64]

ROWS = 10_000
"""Least number of rows that EM runs on; the largest of this and the next two counts."""
ROWS_PER_CLUSTER = 200
ROWS_PER_MEAN = 10
"""Rows for each feature of each cluster. With fewer, covariances adapt to single rows, and so does the ranking."""
MOST_PASSES = 100
SECONDS_SHARE = 0.5
"""Share of the time limit of a fit that the runs on the sample may take."""

P = TypeVar("P")
S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)
FromHard = Callable[[KMeansParams, S], P]
"""Makes params from hard clusters and their moments."""


class MixtureModel(Protocol[S_co]):
    """A mixture whose first params come from the moments of hard clusters."""

    tolerance: ClassVar[float]

    def initial_moments(self, params: KMeansParams, variance: Array, use_labels: bool, rows: Rows) -> S_co:
        """Add up the moments of rows about the centers of their hard clusters.

        Parameters
        ----------
        params
            Hard clusters.
        variance
            Variance of each feature ``(d,)``, taken for missing ones.
        use_labels
            Whether to take the known labels of rows, and not their nearest centers.
        rows
            Prepared rows of a block ``(n, d)``.
        """


def hard_moments(kind: Covariance, params: KMeansParams, use_labels: bool, rows: Rows) -> Moments:
    """Add up the moments of complete rows about the centers of their clusters.

    Parameters
    ----------
    kind
        Kind of covariance, which says which second moments are needed.
    params
        Hard clusters.
    use_labels
        Whether to take the known labels of rows, and not their nearest centers.
    rows
        Prepared rows ``(n, d)`` without missing features; with `use_labels`, all labels are 0 or more.

    Returns
    -------
    Moments
        Moments with an objective of 0.
    """
    k, d = params.centers.shape
    sums, tracker = kinds.Accumulator(kind, kinds.make_kind(kind, params.centers, None)), FarthestRowsTracker(rows, k)
    # `nearest` works on longer runs of rows than the cache holds beside their responsibilities.
    length = sub_block_length(d, k)
    for assigned in nearest(rows.values, params.origin, params.centers):
        for start in range(0, assigned.stop - assigned.start, length):
            stop = min(assigned.stop - assigned.start, start + length)
            columns = np.ascontiguousarray(assigned.rows[start:stop].T)
            labels, own_divergence = assigned.labels[start:stop], assigned.distances[start:stop]
            if use_labels and rows.labels is not None:
                labels = rows.labels[assigned.start + start : assigned.start + stop]
            first_row = assigned.start + start
            weights = rows.weights[first_row : first_row + stop - start]
            weighted_resp = np.zeros((k, stop - start))
            weighted_resp[labels, np.arange(stop - start)] = weights
            sums.add(columns, weighted_resp, weights)
            tracker.update(
                Responsibilities(
                    first_row,
                    first_row + stop - start,
                    columns,
                    weighted_resp,
                    own_divergence,
                    labels,
                    own_divergence,
                    0.0,
                    0.0,
                )
            )
    return Moments(*sums.total(), 0.0, 0.0, len(rows), tracker.farthest)


def hard_moments_with_missing(
    kind: Covariance, params: KMeansParams, variance: Array, use_labels: bool, rows: Rows
) -> Moments:
    """Add up the moments of rows with missing features, which are expected at the center of their cluster.

    Parameters
    ----------
    kind
        Kind of covariance, which says which second moments are needed.
    params
        Hard clusters.
    variance
        Variance of each feature ``(d,)``, taken for the missing ones.
    use_labels
        Whether to take the known labels of rows, and not their nearest centers.
    rows
        Prepared rows ``(n, d)``, NaN where missing.
    """
    k, _d = params.centers.shape
    sums = kinds.Accumulator(kind, kinds.make_kind(kind, params.centers, None))
    labels = rows.labels if use_labels else KMeans(k).assign(params, rows).labels
    assert labels is not None
    for start, stop, columns in columns_of(rows, params.origin, k):
        weighted_resp = np.zeros((k, stop - start))
        weighted_resp[labels[start:stop], np.arange(stop - start)] = rows.weights[start:stop]
        if kind in ("tied", "full"):
            missing_features.add_at_centers(columns, variance, weighted_resp, sums)
        else:
            missing_features.add_independent(columns, np.repeat(variance[None], k, axis=0), weighted_resp, sums)
    return Moments(*sums.total(), 0.0, 0.0, len(rows), FarthestRowsTracker(rows, k).farthest)


def likeliest(model: MixtureModel[S], starts: Starts, from_hard: FromHard[S, P]) -> list[P]:
    """Choose the params to start from: EM runs from each drawn start on the same rows, and the likeliest are kept.

    The best are then run on the whole sample.

    Parameters
    ----------
    model
        The mixture.
    starts
        Drawn starts. Of starts of equal J, one runs.
    from_hard
        Makes params from hard clusters and their moments.

    Returns
    -------
    list of params
        The likeliest first. Runs that end in a singular covariance are left out, so the list may be empty.
    """
    seconds = None if starts.max_seconds is None else SECONDS_SHARE * starts.max_seconds
    best = _compete(model, starts, from_hard, max(model.tolerance, starts.tolerance), seconds)
    if not best or starts.survey.sample.complete:
        # The sample holds all rows: passes of the fit itself take no longer, and they are logged and kept.
        return best
    try:
        with starts.on_sample(starts.survey.sample) as sample:
            tolerance = max(RESTART_TOLERANCE, starts.tolerance)
            return [end.params for end in sample.converge(model, best, tolerance, MOST_SAMPLE_PASSES)]
    except DataError:
        return best


def _compete(
    model: MixtureModel[S], starts: Starts, from_hard: FromHard[S, P], tolerance: float, seconds: float | None
) -> list[P]:
    """Run EM from each start on the same rows, and return the results by likelihood."""
    hard = starts.hard_restarts()
    survey, (k, d) = starts.survey, hard[0].params.centers.shape
    rows = survey.sample.highest(max(ROWS, ROWS_PER_CLUSTER * k, ROWS_PER_MEAN * k * d))
    # Starts of equal J are mostly the same clusters in another order. Starts are sorted by J, so neighbours are
    # compared.
    distinct = [hard[0].params]
    for before, candidate in pairwise(hard):
        if candidate.objective - before.objective > EQUAL_OBJECTIVES * candidate.objective:
            distinct.append(candidate.params)
    ends: list[SampleCandidate[P]] = []
    began = time.perf_counter()
    with starts.on_sample(rows) as sample:
        moments = sample.statistics(
            [partial(model.initial_moments, start, survey.variance, False) for start in distinct]
        )
        for start, statistics in zip(distinct, moments, strict=True):
            left = None if seconds is None else began + seconds - time.perf_counter()
            # One run is made in any case, because a fit needs a start even where the time is up.
            if ends and left is not None and left <= 0:
                break
            # Starts run one by one, so that an error of one run does not stop the others.
            try:
                first = from_hard(start, statistics)
                limit = None if left is None else max(left, 1e-3)
                ends += sample.converge(model, [first], tolerance, MOST_PASSES, limit)
            except DataError:
                continue
    return [end.params for end in rank_candidates(ends)[: starts.finalists]]
