"""Which start a mixture goes on from: EM from each on rows of the sample, ranked by likelihood.

Hard clusters of the least J need not lead to the likeliest mixture, as J knows neither weights nor covariances.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from clustering.errors import DataError
from clustering.execution.engine import Engine
from clustering.fitting.loop import EQUAL_OBJECTIVES, Candidate, StoppingRule, rank_candidates
from clustering.fitting.on_sample import converge, sample_passes
from clustering.models.mixture import GaussianMixture
from clustering.models.mixture_params import MixtureParams
from clustering.models.survey import Survey

ROWS = 10_000
"""Rows that EM runs on."""
ROWS_PER_CLUSTER = 200
ROWS_PER_MEAN = 10
"""Rows for each feature of each cluster: with fewer, covariances follow single rows, and the likelihood ranks those."""
MOST_PASSES = 100


def likeliest(
    model: GaussianMixture,
    survey: Survey,
    hard: Sequence[Candidate],
    tolerance: float,
    seconds: float,
    most: int,
    engine: Engine,
) -> list[MixtureParams]:
    """Run EM from each start on the same rows, and keep the likeliest.

    Parameters
    ----------
    survey
        Of all rows, with their sample.
    hard
        Clusters, by their J, whose moments are where EM starts. Of those of equal J one runs.
    tolerance
        Change of the log-likelihood per weight at which a run stops.
    seconds
        Wall time for all runs, in seconds; the first one runs in any case.
    most
        How many to keep.

    Returns
    -------
    list of MixtureParams
        The likeliest first. A run that ends in a singular covariance is left out, so there may be none.
    """
    k, d = hard[0].params.centers.shape
    sample = survey.sample.highest(max(ROWS, ROWS_PER_CLUSTER * k, ROWS_PER_MEAN * k * d))
    starts = [hard[0].params]
    for before, candidate in pairwise(hard):
        if candidate.objective - before.objective > EQUAL_OBJECTIVES * candidate.objective:
            starts.append(candidate.params)
    runs: list[Candidate] = []
    end = time.perf_counter() + seconds
    with sample_passes(sample, engine) as runner:
        moments = runner.run([partial(model.initial_moments, start, survey.variance, False) for start in starts])
        for start, statistics in zip(starts, moments.statistics, strict=True):
            left = end - time.perf_counter()
            if runs and left <= 0:
                break
            # One by one: an error of one run leaves the others.
            try:
                first = model.initial_params(survey, start, statistics)
                limit = max(left, 1e-3) if math.isfinite(seconds) else None
                runs += converge(model, runner, [first], StoppingRule(tolerance, MOST_PASSES, limit)).candidates
            except DataError:
                continue
    return [candidate.params for candidate in rank_candidates(runs)[:most]]
