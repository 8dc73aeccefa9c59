"""The plan of a race: how many restarts begin on how few rows of the sample, and what they may cost.

Restarts begin on few rows, on which a seeding and a pass cost little. From stage to stage the better half goes on, on
twice as many rows: successive halving (Jamieson & Talwalkar 2016, PMLR 51:240–248). Rows of a stage are among those of
the next, and centers settle on few rows before more of them are worth a pass (Newling & Fleuret 2016, nested
mini-batch). The plan counts products of a feature of a row and one of a center. So it follows from sizes alone, and no
result depends on the speed of a machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clustering.models.starts import MOST_SAMPLE_PASSES
from clustering.models.survey import Survey
from clustering.options import DEFAULT_RESTARTS, MANY_CLUSTERS, FitOptions

FIRST_ROWS, ROWS_PER_CLUSTER = 6250, 50
"""Rows of the first stage: the first number, or the second one per cluster where that is more."""
SEEDING_PASSES = 40
"""Passes over the rows of the first stage that the seeding of a restart takes as long as."""
STAGE_PASSES, LEAST_LAST_PASSES = 8, 80
"""Passes of a stage at most, and those that the last one may make at least; it goes on as long as the budget lasts."""
NOISE_SHARE = 0.05
"""Tolerance of a stage, in units of k / rows less k / all rows. By about that unit, the cost of centers that are fitted
to these rows is lower there than on all rows, relative to either. So smaller gains would not last."""
LEAST_TOLERANCE, MOST_TOLERANCE = 2e-5, 1e-3
"""Limits of the tolerance of a stage."""
LEAST_RESTARTS = 2
"""Least default number of restarts, even if their race costs more than it may."""
PASSES_SHARE, FULL_PASSES = 1 / 2, 15
"""Share of the passes over all rows that all stages but the last may cost, and how many passes are counted at most."""
FEW_PRODUCTS = 2e10
"""Products that a race may always cost, which take about half a second."""


class Stage(NamedTuple):
    """A stage of a race."""

    rows: int
    """Number of sampled rows, those of highest priority."""
    candidates: int
    passes: int
    """Largest number of passes."""
    tolerance: float
    """Relative change of the objective at which a candidate stops."""


def plan_race(options: FitOptions, k: int, survey: Survey) -> list[Stage]:
    """Plan the stages of a race, the last of which is over all sampled rows.

    A sample of few rows has one stage, from which all restarts go on to their end.

    Parameters
    ----------
    options
        How to fit.
    k
        Number of clusters.
    survey
        Survey of the prepared rows.
    """
    restarts, allowed = number_of_restarts(options, k, survey), _allowed_rows(options, k, survey)
    *early, (rows, candidates) = sizes = _sizes(restarts, options.finalists or 1, k, survey)
    last = (allowed - _early_rows(sizes)) // (rows * candidates)
    passes = [STAGE_PASSES] * len(early) + [int(np.clip(last, LEAST_LAST_PASSES, MOST_SAMPLE_PASSES))]
    return [Stage(m, n, most, _tolerance(k, m, survey)) for (m, n), most in zip(sizes, passes, strict=True)]


def number_of_restarts(options: FitOptions, k: int, survey: Survey) -> int:
    """Return the number of restarts: that of the user, 10 of few clusters, or one whose race costs no more than it may.

    Parameters
    ----------
    options
        How to fit.
    k
        Number of clusters.
    survey
        Survey of the prepared rows.
    """
    if options.restarts is not None:
        return options.restarts
    if k < MANY_CLUSTERS:
        return DEFAULT_RESTARTS
    finalists = options.finalists or 1
    least, allowed = max(LEAST_RESTARTS, finalists), _allowed_rows(options, k, survey)
    for restarts in range(DEFAULT_RESTARTS, least, -1):
        sizes = _sizes(restarts, finalists, k, survey)
        if _early_rows(sizes) <= allowed:
            return restarts
    return least


def _allowed_rows(options: FitOptions, k: int, survey: Survey) -> float:
    """Return how many rows the passes of a race may go over, a row once for each pass and candidate."""
    full = PASSES_SHARE * min(options.max_iterations, FULL_PASSES) * survey.count
    return max(full, FEW_PRODUCTS / (k * len(survey.mean)))


def _early_rows(sizes: Sequence[tuple[int, int]]) -> int:
    """Return how many rows the seeding and the stages but the last go over."""
    rows, restarts = sizes[0]
    return SEEDING_PASSES * rows * restarts + sum(STAGE_PASSES * m * n for m, n in sizes[:-1])


def _tolerance(k: int, rows: int, survey: Survey) -> float:
    noise = k * (1.0 / rows - 1.0 / max(rows, survey.n_positive))
    return float(np.clip(NOISE_SHARE * noise, LEAST_TOLERANCE, MOST_TOLERANCE))


def _sizes(restarts: int, finalists: int, k: int, survey: Survey) -> list[tuple[int, int]]:
    """Return the numbers of rows and of candidates of each stage."""
    most = len(survey.sample.weights)
    rows, candidates = min(most, max(FIRST_ROWS, ROWS_PER_CLUSTER * k)), restarts
    sizes = [(rows, candidates)]
    while rows < most:
        rows, candidates = min(most, 2 * rows), max(finalists, -(-candidates // 2))
        sizes.append((rows, candidates))
    return sizes
