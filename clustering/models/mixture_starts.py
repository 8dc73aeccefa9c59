"""Which start a mixture goes on from: EM from each on rows of the sample, ranked by likelihood.

Hard clusters of the least J need not lead to the likeliest mixture, as J knows neither weights nor covariances.
"""

from __future__ import annotations

import time
from functools import partial
from itertools import pairwise
from typing import ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.errors import DataError
from clustering.models.kmeans_params import KMeansParams
from clustering.models.ranking import EQUAL_OBJECTIVES, rank_candidates
from clustering.models.starts import MOST_SAMPLE_PASSES, RESTART_TOLERANCE, SampleCandidate, Starts
from clustering.models.survey import Survey

ROWS = 10_000
"""Rows that EM runs on."""
ROWS_PER_CLUSTER = 200
ROWS_PER_MEAN = 10
"""Rows for each feature of each cluster: with fewer, covariances follow single rows, and the likelihood ranks those."""
MOST_PASSES = 100
SECONDS_SHARE = 0.5
"""Of the seconds that a fit may take, those for the runs on the sample."""

P = TypeVar("P")
P_co = TypeVar("P_co", covariant=True)
S = TypeVar("S")


class MixtureModel(Protocol[P_co, S]):
    """A mixture that follows from the moments of hard clusters."""

    tolerance: ClassVar[float]

    def initial_moments(self, params: KMeansParams, variance: NDArray[np.float64], use_labels: bool, rows: Rows) -> S:
        """Add up the rows of each hard cluster."""

    def initial_params(self, survey: Survey, params: KMeansParams, statistics: S) -> P_co:
        """Fit components to hard clusters."""


def likeliest(model: MixtureModel[P, S], starts: Starts) -> list[P]:
    """Choose the params to start from: run EM from each drawn start on the same rows, and keep the likeliest.

    The best are then run on the whole sample.

    Parameters
    ----------
    model
        The mixture.
    starts
        Drawn ones. Of those of equal J one runs.

    Returns
    -------
    list of params
        The likeliest first. A run that ends in a singular covariance is left out, so there may be none.
    """
    seconds = None if starts.max_seconds is None else SECONDS_SHARE * starts.max_seconds
    best = _compete(model, starts, max(model.tolerance, starts.tolerance), seconds)
    if not best or starts.survey.sample.complete:
        # Passes over all rows would be no longer, and are seen and kept.
        return best
    try:
        with starts.on_sample(starts.survey.sample) as sample:
            tolerance = max(RESTART_TOLERANCE, starts.tolerance)
            return [end.params for end in sample.converge(model, best, tolerance, MOST_SAMPLE_PASSES)]
    except DataError:
        return best


def _compete(model: MixtureModel[P, S], starts: Starts, tolerance: float, seconds: float | None) -> list[P]:
    """Run EM from each start on the same rows; the likeliest comes first."""
    hard = starts.hard_restarts()
    survey, (k, d) = starts.survey, hard[0].params.centers.shape
    rows = survey.sample.highest(max(ROWS, ROWS_PER_CLUSTER * k, ROWS_PER_MEAN * k * d))
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
            if ends and left is not None and left <= 0:
                break
            # One by one: an error of one run leaves the others.
            try:
                first = model.initial_params(survey, start, statistics)
                limit = None if left is None else max(left, 1e-3)
                ends += sample.converge(model, [first], tolerance, MOST_PASSES, limit)
            except DataError:
                continue
    return [end.params for end in rank_candidates(ends)[: starts.finalists]]
