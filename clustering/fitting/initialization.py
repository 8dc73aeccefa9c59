"""From pass 0 to the candidates that go over the full data."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.excluded_rows import explain_excluded_rows
from clustering.data.preparation import Preparation
from clustering.errors import DataError
from clustering.execution.engine import Engine
from clustering.execution.passes import PassRunner, ReadStats
from clustering.fitting.annealing import anneal, critical_value
from clustering.fitting.hard_starts import RESTART_TOLERANCE, converged_on, hard_clusters, restart_sample, run_restarts
from clustering.fitting.loop import Candidate, State, apply_limits
from clustering.fitting.mixture_starts import likeliest
from clustering.fitting.options import Options, check_combination
from clustering.fitting.preprocessing import (
    fit_preparation,
    prepare_survey,
    zero_row_notes,
)
from clustering.fitting.survey_pass import fitted_share, run_survey
from clustering.models import covariances as kinds
from clustering.models.mixture import GaussianMixture
from clustering.models.mixture_params import MixtureParams
from clustering.models.parameters import starting_covariances
from clustering.models.soft_kmeans import SoftKMeans
from clustering.models.survey import Survey

Array = NDArray[np.float64]

STARTS_SHARE = 0.5
"""Of the seconds that a fit may take, those for restarts of a mixture."""


@dataclass(frozen=True, eq=False)
class Initialization:
    """What is known before the first pass."""

    survey: Survey
    """Of the rows in the data's units."""
    state: State
    read_stats: ReadStats
    """Read so far: pass 0, and what a start from full data takes."""
    seconds: float
    """Of that, the passes over the full data took this wall time, in seconds."""
    remarks: tuple[str, ...] = ()
    """What was chosen on the way."""
    warnings: tuple[str, ...] = ()
    preparation: Preparation | None = None
    """What the passes have to put rows through; None: they take them as decoded."""


def initialize(runner: PassRunner, model: Any, options: Options, memory: int) -> Initialization:
    """Make pass 0, and choose the candidates for the full data.

    Restarts of hard clustering compete by J on a nested sample, mixtures that start from their clusters by likelihood.
    The best are then run on the whole sample, so that the full data are passed over a few times only.

    Parameters
    ----------
    memory
        Memory budget of a worker, in bytes: what does not fit is refused. It changes nothing else.

    Raises
    ------
    ConfigError
        If a start that the user gives does not fit.
    DataError
        If no row takes part, all weights are zero, or k is above the number of distinct rows.
    """
    began = time.perf_counter()
    check_combination(runner.source, model, options)
    surveyed, result = run_survey(runner, model, options, memory)
    reading, seconds = result.read_stats, result.seconds
    remarks: tuple[str, ...] = ()
    prepared_survey, preparation = surveyed, fit_preparation(options.preprocess, surveyed, runner.source)
    if preparation is not None:
        prepared_survey = prepare_survey(surveyed, preparation, model.initial_model.divergence)
        runner = replace(runner, preparation=preparation)
        remarks = (f"preprocessing: {preparation.words}",)
    # Where a part of the rows is drawn, the labels tell how many of all are left out.
    warnings = zero_row_notes(surveyed.zero_rows if options.row_fraction is None else 0)
    most = surveyed.count * 2 < surveyed.cells * fitted_share(runner, options)
    warnings = (*warnings, *(explain_excluded_rows(runner.source, runner.plan) if most else ()))
    params: list[Any] = []
    if isinstance(model, GaussianMixture) and options.draws_starts:
        params = _mixtures_on_sample(model, prepared_survey, options, runner.engine)
    if not params:
        hard_params, labelled = hard_clusters(runner, model, prepared_survey, options, preparation)
        if labelled is not None:
            reading, seconds = reading + labelled.read_stats, seconds + labelled.seconds
        params = list(hard_params)
        if isinstance(model, SoftKMeans):
            if model.beta == "auto":
                annealed = anneal(model, prepared_survey, runner.engine, hard_params)
                params, remarks = [annealed.params], (*remarks, annealed.note)
            else:
                params = [model.from_hard_clusters(start, float(model.beta)) for start in hard_params]
                warnings = (*warnings, *_low_beta_warning(model, prepared_survey))
                if options.draws_starts:
                    params = converged_on(model, params, prepared_survey.sample, options.rule.tolerance, runner.engine)
        elif isinstance(model, GaussianMixture) and isinstance(options.init, Mapping):
            covariances = _user_covariances(model, options.init, preparation)
            params = [
                model.params_from_user(
                    prepared_survey,
                    options.init["weights"],
                    hard_params[0].origin + hard_params[0].centers,
                    covariances,
                )
            ]
        elif isinstance(model, GaussianMixture):
            initial_moments = runner.run(
                [
                    partial(model.initial_moments, start, prepared_survey.variance, options.uses_labels)
                    for start in hard_params
                ]
            )
            pairs = zip(hard_params, initial_moments.statistics, strict=True)
            params = [model.initial_params(prepared_survey, start, statistics) for start, statistics in pairs]
            reading, seconds = reading + initial_moments.read_stats, seconds + initial_moments.seconds
    state = State(tuple(Candidate(start) for start in params), seconds=time.perf_counter() - began)
    return Initialization(surveyed, apply_limits(state, options.rule), reading, seconds, remarks, warnings, preparation)


def _mixtures_on_sample(
    model: GaussianMixture, survey: Survey, options: Options, engine: Engine
) -> list[MixtureParams]:
    """Choose the mixtures to start from; none where all runs on the sample end in a singular covariance."""
    restart_rows = restart_sample(survey, model.k)
    hard = run_restarts(model.initial_model, survey, restart_rows, options, 0.0, engine)
    tolerance = max(GaussianMixture.tolerance, options.rule.tolerance)
    seconds = math.inf if options.rule.max_seconds is None else STARTS_SHARE * options.rule.max_seconds
    best = likeliest(model, survey, hard, tolerance, seconds, options.finalists, engine)
    if not best or survey.sample.complete:
        # Passes over all rows would be no longer, and are seen and kept.
        return best
    try:
        return converged_on(model, best, survey.sample, max(RESTART_TOLERANCE, options.rule.tolerance), engine)
    except DataError:
        return best


def _user_covariances(model: GaussianMixture, init: Mapping[str, Any], preparation: Preparation | None) -> Any:
    """Take starting covariances to where the prepared rows are, if they are in the data's units."""
    kind, given = model.covariance, init.get("covariances")
    if preparation is None or not preparation.rescales or kind not in kinds.SCALABLE:
        return given
    return kinds.scaled_covariances(kind, starting_covariances(kind, model.k, preparation.p, given), preparation.matrix)


def _low_beta_warning(model: SoftKMeans, survey: Survey) -> tuple[str, ...]:
    """Warn of a β at which no center can differ from another."""
    if model.k == 1 or model.divergence != "squared_euclidean":
        return ()
    critical = critical_value(model.divergence, survey.covariance)
    if float(model.beta) >= critical:
        return ()
    return (
        f"beta is {model.beta:g}, below the critical value {critical:.4g} of these data: all centers become one; "
        "raise beta, or set it to auto",
    )
