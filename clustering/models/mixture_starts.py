"""Starts of a mixture: moments of rows in hard clusters, and the choice among starts.

The moments are the sufficient statistics of complete data (lecture, "if we knew z for every x"). EM runs from each
start on rows of the sample, and the likeliest are kept. Hard clusters of the least J need not lead to the likeliest
mixture, as J has neither mixing weights nor covariances.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise, zip_longest
from typing import ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows, in_memory_rows
from clustering.errors import DataError
from clustering.models import covariances as kinds
from clustering.models import divergences as geometry
from clustering.models import missing_features
from clustering.models.columns import columns_of, sub_block_length
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.lloyd import nearest
from clustering.models.merging import merged_labels
from clustering.models.missing_features import fill_missing
from clustering.models.objective import EQUAL_OBJECTIVES, rank_candidates
from clustering.models.option_names import Covariance, Divergence
from clustering.models.soft import FarthestRowsTracker, Moments, Responsibilities
from clustering.models.starts import MOST_SAMPLE_PASSES, RESTART_TOLERANCE, SampleCandidate, Starts
from clustering.models.survey import RowSample

Array = NDArray[np.float64]

ROWS = 10_000
"""Least number of rows that EM runs on; the largest of this and the next two counts."""
ROWS_PER_CLUSTER = 200
ROWS_PER_MEAN = 10
"""Rows for each feature of each cluster. With fewer, covariances adapt to single rows, and so does the ranking."""
FEW_PASSES = 20
"""Passes of every start."""
GO_ON = 3
"""Starts that go on to the end, at least."""
MOST_PASSES = 100
"""Passes of those that go on, at most."""
SMALL_PER_CLUSTER, MOST_SMALL, ROWS_PER_SMALL = 4, 100, 5
"""Small clusters that are merged, for each cluster; more than k at most; and rows for each of them at least."""
DEVIATIONS = 3.0
"""Mean log-likelihoods of m rows that differ by no more than this over √m may change places on all rows. Log densities
of one row under two good mixtures are taken to differ by 1."""
SAME = 1e-4
"""Runs whose mean log-likelihoods differ by no more than this are taken for the same optimum."""
LEAST_WORK, WORK_SHARE = 2e10, 10.0
"""Products that the runs of all starts may take in any case; and beyond, passes over all rows that they may take."""
_STREAM = 0x4D5853
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

    @property
    def start_divergence(self) -> Divergence:
        """Divergence of the hard clusters."""

    def row_products(self, d: int) -> int:
        """Estimate how many products a pass computes for each row.

        Parameters
        ----------
        d
            Number of features.
        """

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


def likeliest(model: MixtureModel[S], starts: Starts, from_hard: FromHard[S, P], shape: Covariance) -> list[P]:
    """Choose the params to start from: EM runs from many starts on the same rows, and the likeliest are kept.

    The best are then run on the whole sample.

    Parameters
    ----------
    model
        The mixture.
    starts
        Starts. Of hard clusters of equal J, one runs.
    from_hard
        Makes params from hard clusters and their moments.
    shape
        Kind of covariance that clusters are compared by where small ones are merged.

    Returns
    -------
    list of params
        The likeliest first; empty where no starts are drawn, or all runs end in a singular covariance.
    """
    if not starts.drawn:
        return []
    seconds = None if starts.max_seconds is None else SECONDS_SHARE * starts.max_seconds
    tolerance = max(model.tolerance, starts.tolerance)
    ends = _compete(model, starts, from_hard, shape, tolerance, seconds)
    # Where the sample holds all rows, passes of the fit itself take no longer, and they are logged and kept.
    if ends and not starts.survey.sample.complete:
        try:
            with starts.on_sample(starts.survey.sample) as sample:
                start = [end.params for end in ends]
                whole = sample.converge(model, start, max(RESTART_TOLERANCE, starts.tolerance), MOST_SAMPLE_PASSES)
            ends = _finalists(whole, starts.finalists, starts.survey.sample)
        except DataError:
            pass
    return [end.params for end in ends]


def _finalists(ends: Sequence[SampleCandidate[P]], most: int, rows: RowSample) -> list[SampleCandidate[P]]:
    """Keep the likeliest, and others that may be as likely on all rows; one of those that are in the same optimum."""
    # The likelihood on all rows is known where the rows are all, and otherwise up to the draw of the rows.
    near = 0.0 if rows.complete else DEVIATIONS / np.sqrt(len(rows.values))
    kept: list[SampleCandidate[P]] = []
    for end in rank_candidates(ends):
        if kept and end.objective - kept[0].objective > near * abs(end.scale):
            break
        if not kept or end.objective - kept[-1].objective > SAME * abs(end.scale):
            kept.append(end)
    return kept[:most]


def _compete(
    model: MixtureModel[S],
    starts: Starts,
    from_hard: FromHard[S, P],
    shape: Covariance,
    tolerance: float,
    seconds: float | None,
) -> list[SampleCandidate[P]]:
    """Run EM from each start on the same rows for a few passes, and from the best of them to the end."""
    hard = [restart.params for restart in _distinct(starts.hard_restarts())]
    survey, (k, d) = starts.survey, hard[0].centers.shape
    rows = survey.sample.highest(max(ROWS, ROWS_PER_CLUSTER * k, ROWS_PER_MEAN * k * d))
    work = float(len(rows.values) * FEW_PASSES * model.row_products(d))
    allowed = max(LEAST_WORK, WORK_SHARE * survey.count * model.row_products(d))
    partitions = _partitions(model.start_divergence, shape, starts, hard, rows, max(1, int(allowed / work)))
    moments_of = [partition.moments(model, survey.variance) for partition in partitions]
    began = time.perf_counter()

    def left() -> float:
        return np.inf if seconds is None else began + seconds - time.perf_counter()

    def run(params: P, passes: int) -> list[SampleCandidate[P]]:
        # Starts run one by one, so that an error of one run does not stop the others.
        limit = None if seconds is None else max(left(), 1e-3)
        return list(sample.converge(model, [params], tolerance, passes, limit))

    ends: list[SampleCandidate[P]] = []
    holds = False
    with starts.on_sample(rows) as sample:
        for partition, statistics in zip(partitions, sample.statistics(moments_of), strict=True):
            # One run is made in any case, because a fit needs a start even where the time is up.
            if ends and left() <= 0:
                break
            with suppress(DataError):
                ends += run(from_hard(partition.clusters, statistics), FEW_PASSES)
                holds |= partition.hard
        # Where all hard clusters end in a singular covariance, so do the data. Other runs stopped on the way there.
        if not holds:
            return []
        ends = rank_candidates(ends)[: max(GO_ON, starts.finalists)]
        for rank, end in enumerate(ends):
            if left() <= 0:
                break
            with suppress(DataError):
                (ends[rank],) = run(end.params, MOST_PASSES)
    return _finalists(ends, starts.finalists, rows)


class _Partition(NamedTuple):
    """A partition of rows: by nearest centers, or by labels where there are any."""

    clusters: KMeansParams
    labels: NDArray[np.int32] | None = None
    hard: bool = False
    """Whether the parts are the clusters that k-means converged to."""

    def moments(self, model: MixtureModel[S], variance: Array) -> Callable[[Rows], S]:
        """Make the function that adds up the moments of its parts."""
        if self.labels is None:
            return partial(model.initial_moments, self.clusters, variance, False)
        return partial(_labelled_moments, model, self.clusters, variance, self.labels)


def _labelled_moments(
    model: MixtureModel[S], clusters: KMeansParams, variance: Array, labels: NDArray[np.int32], rows: Rows
) -> S:
    own = labels[rows.positions(np.arange(len(rows)))]
    return model.initial_moments(clusters, variance, True, replace(rows, labels=own))


def _distinct(hard: Sequence[SampleCandidate[KMeansParams]]) -> list[SampleCandidate[KMeansParams]]:
    """Leave out starts of equal J, which are mostly the same clusters in another order."""
    distinct = [hard[0]]
    # Starts are sorted by J, so neighbours are compared.
    for before, candidate in pairwise(hard):
        if candidate.objective - before.objective > EQUAL_OBJECTIVES * candidate.objective:
            distinct.append(candidate)
    return distinct


def _partitions(
    divergence: Divergence,
    shape: Covariance,
    starts: Starts,
    hard: Sequence[KMeansParams],
    rows: RowSample,
    most: int,
) -> list[_Partition]:
    """Give the starts of the competition: of each kind but the first, half as many as there are restarts at most.

    They are hard clusters; merged ones, for unequal volumes; rows nearest to random ones; and random parts, from which
    components come apart as the data ask for it. The kinds take turns, so that a few starts are of several kinds.
    """
    # The first start is a hard one, and of four more, one is of each kind.
    k, each = hard[0].k, min(starts.restarts // 2, (most + 2) // 4)
    points = geometry.embed(divergence, fill_missing(rows.values, starts.survey.mean), hard[0].origin, hard[0].matrix)
    streams = [np.random.Generator(np.random.PCG64([starts.seed, _STREAM, i])) for i in range(each)]
    drawn, random = [], []
    for stream in streams:
        # A small sample may have fewer than k rows.
        chosen = stream.choice(len(points), k, replace=len(points) < k)
        drawn.append(_Partition(replace(hard[0], centers=points[chosen])))
        random.append(_Partition(hard[0], stream.integers(0, k, len(points), dtype=np.int32)))
    merged = [
        _Partition(hard[0], merged_labels(points, rows.represented, labels, k, shape))
        for labels in _small_clusters(starts, divergence, k, each, rows)
    ]
    kinds = ([_Partition(params, hard=True) for params in hard], merged, drawn, random)
    return [one for turn in zip_longest(*kinds) for one in turn if one is not None][:most]


def _small_clusters(
    starts: Starts, divergence: Divergence, k: int, most: int, rows: RowSample
) -> Iterator[NDArray[np.int32]]:
    """Yield labels of the rows by hard clusters that are more than k and smaller."""
    m = min(SMALL_PER_CLUSTER * k, k + MOST_SMALL, len(rows.values) // ROWS_PER_SMALL)
    if m <= k or not most:
        return
    try:
        restarts = starts.hard_restarts(m, most)
    except DataError:
        # So many rows do not differ.
        return
    whole = in_memory_rows(rows.values, rows.represented, allow_missing=True)
    for restart in restarts:
        labels = KMeans(m, divergence).assign(restart.params, whole).labels
        if len(np.unique(labels)) >= k:
            yield labels
