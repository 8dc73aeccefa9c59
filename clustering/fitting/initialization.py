"""Initialization of a fit: pass 0, and the candidates that the passes over the full data start from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from clustering.data.excluded_rows import explain_excluded_rows
from clustering.data.preparation import Preparation
from clustering.data.rows import Rows
from clustering.execution.passes import PassResult, PassRunner, ReadStats
from clustering.fitting.drift_budget import BudgetState, first_budget
from clustering.fitting.hard_starts import hard_clusters, restart_sample, run_restarts
from clustering.fitting.loop import Candidate, State, apply_limits
from clustering.fitting.on_sample import SampleRunner, sample_passes
from clustering.fitting.options import Options, check_combination
from clustering.fitting.preprocessing import fit_preparation, prepare_survey, zero_row_notes
from clustering.fitting.race import number_of_restarts
from clustering.fitting.survey_pass import SurveyNeeds, fitted_share, run_survey
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.model import AnyModel
from clustering.models.option_names import Divergence
from clustering.models.starts import RESTART_TOLERANCE
from clustering.models.survey import RowSample, Survey

Array = NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Initialization:
    """Outcome of the initialization: the state that the loop starts from, and the survey."""

    survey: Survey
    """Survey of the rows in the data's units."""
    state: State
    read_stats: ReadStats
    """Reads of pass 0, and of the passes over the full data that a start took."""
    seconds: float
    """Wall time of those passes, in seconds."""
    remarks: tuple[str, ...] = ()
    """Choices that were made, in words for a user."""
    warnings: tuple[str, ...] = ()
    preparation: Preparation | None = None
    """Preparation that the passes apply to rows; None where they take rows as decoded."""
    budget: BudgetState = field(default_factory=BudgetState)
    """Rows of the row sample, where passes have a drift budget."""


class StartsFromSource:
    """Starts that a source and the options offer to a model; see `clustering.models.starts.Starts`.

    It counts the passes over the full data that a start takes.
    """

    def __init__(
        self,
        runner: PassRunner,
        model: AnyModel,
        survey: Survey,
        options: Options,
        preparation: Preparation | None,
    ) -> None:
        self.runner, self.model, self.survey, self.preparation = runner, model, survey, preparation
        self.options = options
        self.read_stats, self.seconds = ReadStats(), 0.0

    @property
    def drawn(self) -> bool:
        """Whether starts are drawn."""
        return self.options.fit.draws_starts

    @property
    def labelled(self) -> bool:
        """Whether the clusters start from labelled rows."""
        return self.options.fit.uses_labels

    @property
    def given(self) -> Mapping[str, Any]:
        """Arrays that the user gave beside the centers, by name: weights and covariances of a mixture."""
        init = self.options.fit.init
        return {name: array for name, array in init.items() if name != "centers"} if isinstance(init, Mapping) else {}

    @property
    def tolerance(self) -> float:
        """Tolerance of the stopping rule of the fit."""
        return self.options.rule.tolerance

    @property
    def max_seconds(self) -> float | None:
        """Wall time that the whole fit may take, in seconds; None for no limit."""
        return self.options.rule.max_seconds

    @property
    def finalists(self) -> int:
        """Largest number of candidates that go over the full data."""
        return self.options.finalists

    def hard_clusters(self) -> list[KMeansParams]:
        """Choose the hard clusters to start from."""
        params, labelled = hard_clusters(self.runner, self.model, self.survey, self.options, self.preparation)
        if labelled is not None:
            self._count(labelled)
        return params

    @property
    def seed(self) -> int:
        """Seed of all random draws."""
        return self.options.fit.seed

    @property
    def restarts(self) -> int:
        """Number of drawn starts."""
        return number_of_restarts(self.options.fit, self.model.k, self.survey)

    def hard_restarts(self, k: int | None = None, restarts: int | None = None) -> Sequence[Candidate]:
        """Run restarts of hard clustering on a part of the sample; the least J comes first.

        Parameters
        ----------
        k
            Number of clusters; that of the model where None.
        restarts
            Number of restarts, which run to a coarse tolerance; where None, all run to convergence.
        """
        hard = KMeans(k or self.model.k, self.model.start_divergence)
        rows, options, tolerance = restart_sample(self.survey, hard.k), self.options, 0.0
        if restarts is not None:
            tolerance = RESTART_TOLERANCE
            options = replace(options, fit=options.fit.model_copy(update={"restarts": restarts}))
        return run_restarts(hard, self.survey, rows, options, tolerance, self.runner.engine)

    def on_sample(self, rows: RowSample) -> AbstractContextManager[SampleRunner]:
        """Make passes over rows of the sample.

        Parameters
        ----------
        rows
            The row sample, or a part of it.
        """
        return sample_passes(rows, self.runner.engine, self.options.acceleration)

    def statistics(self, functions: Sequence[Callable[[Rows], T]]) -> Sequence[T]:
        """Add up the statistics of all rows of the source, in one pass.

        Parameters
        ----------
        functions
            Functions that make the statistics of the rows of a block.
        """
        result = self.runner.run(functions)
        self._count(result)
        return result.statistics

    def _count(self, result: PassResult) -> None:
        self.read_stats, self.seconds = self.read_stats + result.read_stats, self.seconds + result.seconds


@dataclass(frozen=True, eq=False)
class SurveyedRows:
    """Rows after pass 0: their survey, and how they are prepared from now on."""

    runner: PassRunner
    """Runs passes over prepared rows."""
    survey: Survey
    """Survey of the rows in the data's units."""
    preparation: Preparation | None
    result: PassResult
    """Reads and time of pass 0."""
    remarks: tuple[str, ...]
    warnings: tuple[str, ...]

    def prepared(self, divergence: Divergence) -> Survey:
        """Return the survey of the prepared rows.

        Parameters
        ----------
        divergence
            Divergence of the model that starts from them.
        """
        if self.preparation is None:
            return self.survey
        return prepare_survey(self.survey, self.preparation, divergence)


def survey_rows(
    runner: PassRunner, model: SurveyNeeds, options: Options, memory: int, least_k: int | None = None
) -> SurveyedRows:
    """Make pass 0, and fit the preparation of the rows.

    Parameters
    ----------
    runner
        Runs passes over decoded rows.
    model
        The model that starts from the survey.
    options
        How to fit.
    memory
        Memory budget of a worker, in bytes.
    least_k
        As for `run_survey`.

    Raises
    ------
    DataError
        As `run_survey`.
    """
    survey, result = run_survey(runner, model, options, memory, least_k)
    remarks: tuple[str, ...] = ()
    preparation = fit_preparation(options.preprocess, survey, runner.source)
    # Where only a part of the rows is drawn, the label pass counts the excluded rows of all.
    warnings = zero_row_notes(survey.zero_rows if options.row_fraction is None else 0)
    # Where more than half of the cells make no row, the user gets a warning with the causes.
    most = survey.count * 2 < survey.cells * fitted_share(runner, options)
    warnings = (*warnings, *(explain_excluded_rows(runner.source, runner.plan) if most else ()))
    if preparation is not None:
        runner = replace(runner, preparation=preparation)
        remarks = (f"preprocessing: {preparation.words}",)
    return SurveyedRows(runner, survey, preparation, result, remarks, warnings)


def initialize(runner: PassRunner, model: AnyModel, options: Options, memory: int) -> Initialization:
    """Make pass 0, and let the model choose the candidates for the full data.

    Restarts compete on a part of the row sample: hard clusters by J, mixtures that start from them by likelihood. The
    best then run on the whole sample, so that few passes over the full data remain.

    Parameters
    ----------
    runner
        Runs passes over decoded rows.
    model
        The model to fit.
    options
        How to fit.
    memory
        Memory budget of a worker, in bytes. Pass 0 is refused where it needs more; results do not depend on it.

    Raises
    ------
    ConfigError
        If options cannot be combined, or a start that the user gives does not fit.
    DataError
        If no row takes part, all weights are zero, or k is above the number of distinct rows.
    """
    began = time.perf_counter()
    check_combination(runner.source, model, options)
    surveyed = survey_rows(runner, model, options, memory)
    runner, survey, preparation = surveyed.runner, surveyed.survey, surveyed.preparation
    prepared_survey = surveyed.prepared(model.start_divergence)
    starts = StartsFromSource(runner, model, prepared_survey, options, preparation)
    initial = model.initialize(starts)
    candidates = tuple(Candidate(model, params, acceleration=options.acceleration) for params in initial.params)
    accelerate = options.fit.accelerate == "auto"
    sample = prepared_survey.sample
    budget = first_budget(runner, candidates[0].statistics, sample, survey.count) if accelerate else BudgetState()
    # The time limit is for the whole fit, so the time of the starts counts.
    state = State(candidates, seconds=time.perf_counter() - began)
    return Initialization(
        survey,
        # No pass follows where max_iterations is 0, or where the starts used up max_seconds.
        apply_limits(state, options.rule),
        surveyed.result.read_stats + starts.read_stats,
        surveyed.result.seconds + starts.seconds,
        (*surveyed.remarks, *initial.remarks),
        (*surveyed.warnings, *initial.warnings),
        preparation,
        budget,
    )
