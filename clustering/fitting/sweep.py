"""A sweep over choices of k and other options: all choices share pass 0, the row sample and every later pass."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.errors import DataError, DomainError
from clustering.execution.apart import Failed
from clustering.execution.passes import PassResult, PassRunner, ReadStats
from clustering.fitting.choices import Choice
from clustering.fitting.criteria import (
    bic_by_component,
    likelihood_criteria,
    numbers_per_parameter,
    partition_criteria,
)
from clustering.fitting.initialization import StartsFromSource, SurveyedRows, survey_rows
from clustering.fitting.labelling import LabelStatistics
from clustering.fitting.loop import Candidate, State, Stop, apply_limits
from clustering.fitting.options import Options, check_combination
from clustering.fitting.survey_pass import check_range, few_distinct_rows
from clustering.models import divergences as geometry
from clustering.models.neighbours import NeighbourPass, NeighbourSums
from clustering.models.objective import rank_candidates
from clustering.models.option_names import Divergence
from clustering.models.partition import PartitionPass, PartitionSums, SilhouettePass, SilhouetteSums, silhouette_pass

Array = NDArray[np.float64]

COPIES = 4
"""Copies of the params and statistics of a candidate that a worker holds in a pass: of a block, a run, and the tree."""


@dataclass(frozen=True)
class SweepNeeds:
    """What pass 0 has to know of a sweep."""

    k: int
    start_divergence: Divergence | None
    """None where choices have several: rows outside the domain of one may be inside that of another."""
    start_needs_covariance: bool


@dataclass(frozen=True, eq=False)
class SweepStart:
    """A sweep before its first pass over all rows."""

    state: State
    """Candidates of all choices that have a start."""
    failed: Mapping[str, str]
    """Why choices have no start, by the name of the choice."""
    read_stats: ReadStats
    seconds: float
    """Wall time of the starts and their passes, in seconds."""
    remarks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class MeasuredChoice:
    """The best candidate of a choice, with its criteria."""

    choice: Choice
    candidate: Candidate
    sums: PartitionSums
    criteria: Mapping[str, float | None]


@dataclass(frozen=True, eq=False)
class Measures:
    """Outcome of the two passes that measure criteria."""

    choices: Mapping[str, MeasuredChoice]
    """Choices with a model, by name."""
    failed: Mapping[str, str]
    """Why choices have no model, by name."""
    independent_share: float
    """Share of the rows that are independent, in 0 … 1."""
    read_stats: ReadStats
    seconds: float


def survey_for(
    runner: PassRunner, choices: Sequence[Choice], options: Mapping[str, Options], memory: int
) -> SurveyedRows:
    """Make pass 0 for all choices.

    Parameters
    ----------
    runner
        Runs passes over decoded rows.
    choices
        The choices.
    options
        How to fit each of them, by name.
    memory
        Memory budget of a worker, in bytes.

    Raises
    ------
    ConfigError
        If options cannot be combined.
    DataError
        If no choice can be fitted, as `clustering.fitting.survey_pass.run_survey` says.
    """
    for choice in choices:
        check_combination(runner.source, choice.model, options[choice.name])
    divergences = {choice.model.start_divergence for choice in choices}
    needs = SweepNeeds(
        max(choice.k for choice in choices),
        divergences.pop() if len(divergences) == 1 else None,
        any(choice.model.start_needs_covariance for choice in choices),
    )
    least = min(choice.k for choice in choices)
    return survey_rows(runner, needs, options[choices[0].name], memory, least)


def start_sweep(
    surveyed: SurveyedRows, choices: Sequence[Choice], options: Mapping[str, Options], references: Sequence[Choice] = ()
) -> SweepStart:
    """Choose the starts of every choice on the row sample. A choice that fails takes no other down.

    Parameters
    ----------
    surveyed
        Rows after pass 0.
    choices
        The choices.
    options
        How to fit each of them, by name.
    references
        Further models, which are fitted to compare the choices with.

    Raises
    ------
    DataError
        If all choices fail.
    """
    began = time.perf_counter()
    candidates: list[Candidate] = []
    failed: dict[str, str] = {}
    remarks, warnings, read_stats = list(surveyed.remarks), list(surveyed.warnings), ReadStats()
    for choice in (*choices, *references):
        own = options[choice.name]
        try:
            _check_start(surveyed, choice, own)
            survey = surveyed.prepared(choice.model.start_divergence)
            starts = StartsFromSource(surveyed.runner, choice.model, survey, own, surveyed.preparation)
            initial = choice.model.initialize(starts)
        except DataError as error:
            failed[choice.name] = str(error)
            continue
        candidates += [Candidate(choice.model, params, acceleration=own.acceleration) for params in initial.params]
        read_stats += starts.read_stats
        remarks += [f"{choice.name}: {remark}" for remark in initial.remarks]
        warnings += [f"{choice.name}: {warning}" for warning in initial.warnings]
    refuse_no_choice(choices, failed)
    seconds = time.perf_counter() - began
    state = apply_limits(State(tuple(candidates), seconds=seconds), options[choices[0].name].rule)
    return SweepStart(state, failed, read_stats, seconds, tuple(remarks), tuple(warnings))


def _check_start(surveyed: SurveyedRows, choice: Choice, options: Options) -> None:
    """Refuse a choice that the rows do not allow."""
    survey, divergence = surveyed.survey, choice.model.start_divergence
    if len(survey.distinct.digests) < choice.k:
        raise DataError(few_distinct_rows(choice.k, survey, options))
    check_range(survey, divergence, options.preprocess, surveyed.runner.source)
    _check_domain(surveyed, divergence)


def _check_domain(surveyed: SurveyedRows, divergence: Divergence) -> None:
    """Refuse rows outside the domain of a divergence, as far as pass 0 shows them; a later pass finds the others."""
    survey = surveyed.prepared(divergence)
    try:
        for values in (survey.sample.values, survey.distinct.values):
            geometry.check_domain(divergence, values)
        # A row of the least values may be no row of the data, and the cosine is about whole rows.
        if divergence != "cosine" and surveyed.preparation is None:
            geometry.check_domain(divergence, survey.least[None])
    except DomainError as error:
        place = "the data"
        if error.column is not None and surveyed.preparation is None:
            place = f"variable {surveyed.runner.source.features[error.column].variable!r}"
        raise error.in_block(place) from None


def check_memory(choices: Sequence[Choice], state: State, memory: int) -> None:
    """Refuse a sweep whose params and statistics do not fit beside the rows.

    Parameters
    ----------
    choices
        The choices.
    state
        Candidates of all choices.
    memory
        Memory budget of a worker, in bytes.

    Raises
    ------
    DataError
        Naming the choice that takes most.
    """
    sizes = [COPIES * _params_bytes(candidate.params) for candidate in state.candidates]
    if sum(sizes) <= memory // 4:
        return
    most = state.candidates[int(np.argmax(sizes))].model
    name = next(choice.name for choice in choices if choice.model == most)
    raise DataError(
        f"the statistics of {len(sizes)} candidates take {sum(sizes):,} bytes in every worker, those of {name} "
        f"{max(sizes):,}, and a quarter of compute.memory is {memory // 4:,}; raise compute.memory, sweep over fewer "
        "or smaller k in select.k, or lower fit.finalists"
    )


def _params_bytes(params: Any) -> int:
    arrays = (getattr(params, field.name) for field in fields(params))
    return sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))


def of_choice(choice: Choice, state: State) -> list[Candidate]:
    """Return the candidates of a choice.

    Parameters
    ----------
    choice
        The choice.
    state
        Candidates of all choices.
    """
    return [candidate for candidate in state.candidates if candidate.model == choice.model]


def failures(choices: Sequence[Choice], state: State, failed: Mapping[str, str]) -> dict[str, str]:
    """Say why choices have no model, by name: those without a start, and those of which every candidate failed.

    Parameters
    ----------
    choices
        The choices.
    state
        Candidates of all choices.
    failed
        Why choices have no start, by name.
    """
    reasons = dict(failed)
    for choice in choices:
        own = of_choice(choice, state)
        if own and all(candidate.stop is Stop.FAILED for candidate in own):
            reasons[choice.name] = own[0].notes[-1]
    return reasons


def refuse_no_choice(choices: Sequence[Choice], failed: Mapping[str, str]) -> None:
    """Refuse a sweep of which every choice fails.

    Parameters
    ----------
    choices
        The choices.
    failed
        Why choices have no model, by name.

    Raises
    ------
    DataError
        With the reason of the first choice.
    """
    if all(choice.name in failed for choice in choices):
        first = choices[0].name
        raise DataError(f"every choice fails; the first, {first}: {failed[first]}")


def measure(
    runner: PassRunner, choices: Sequence[Choice], references: Sequence[Choice], state: State, failed: Mapping[str, str]
) -> Measures:
    """Measure all choices in two passes: objectives and sums of partitions, then silhouettes.

    Silhouettes need the means and spreads of the clusters of all rows, so they wait for the second pass.

    Parameters
    ----------
    runner
        Runs passes over prepared rows.
    choices
        The choices.
    references
        Further models, which the choices are compared with.
    state
        Candidates of all choices, which have all stopped.
    failed
        Why choices have no start, by name.

    Raises
    ------
    DataError
        If all choices fail.
    """
    reasons = failures((*choices, *references), state, failed)
    refuse_no_choice(choices, reasons)
    live = [c for c in state.candidates if c.stop is not Stop.FAILED]
    # Where no pass was allowed, this is the first one that sees all rows.
    first = runner.run([PartitionPass(candidate.model, candidate.params) for candidate in live], apart=True)
    best = _best((*choices, *references), live, first.statistics, reasons)
    refuse_no_choice(choices, reasons)
    silhouettes = [silhouette_pass(candidate.model, candidate.params, sums) for _, candidate, sums in best]
    neighbours = _neighbour_pass(silhouettes)
    second = runner.run([*silhouettes, neighbours])
    pairs: NeighbourSums = second.statistics[-1]
    rows = int(best[0][2].rows.sum())
    share = pairs.independent_share(rows)
    measured = {
        choice.name: MeasuredChoice(choice, candidate, sums, _criteria(candidate, two_reads, sums, own, share))
        for (choice, candidate, sums), two_reads, own in zip(best, silhouettes, second.statistics[:-1], strict=True)
    }
    return Measures(measured, reasons, share, first.read_stats + second.read_stats, first.seconds + second.seconds)


def _best(
    choices: Sequence[Choice],
    live: Sequence[Candidate],
    statistics: Sequence[PartitionSums | Failed],
    failed: dict[str, str],
) -> list[tuple[Choice, Candidate, PartitionSums]]:
    """Keep the best candidate of each choice, by the objective at its final params, and note choices that fail."""
    best = []
    for choice in choices:
        pairs = [(c, sums) for c, sums in zip(live, statistics, strict=True) if c.model == choice.model]
        own = [_Final(candidate, sums) for candidate, sums in pairs if not isinstance(sums, Failed)]
        if own:
            first = rank_candidates(own)[0]
            best.append((choice, first.candidate, first.sums))
        elif pairs:
            failed[choice.name] = next(sums.reason for _, sums in pairs if isinstance(sums, Failed))
    return best


@dataclass(frozen=True, eq=False)
class _Final:
    """A candidate with its objective at its final params."""

    candidate: Candidate
    sums: PartitionSums

    @property
    def objective(self) -> float:
        return self.sums.objective

    @property
    def scale(self) -> float:
        return self.candidate.scale


def _neighbour_pass(passes: Sequence[SilhouettePass]) -> NeighbourPass:
    # The finest partition leaves the smallest residuals, and so the fewest doubts about independence.
    finest = max(passes, key=lambda one: len(one.sizes))
    return NeighbourPass(finest.model, finest.params, finest.means)


def _criteria(
    candidate: Candidate, measured: SilhouettePass, sums: PartitionSums, silhouettes: SilhouetteSums, share: float
) -> dict[str, float | None]:
    """Compute all criteria of a choice that need no sample."""
    weight = float(sums.responsible.sum())
    criteria: dict[str, float | None] = {"cost": candidate.model.to_user_objective(sums.objective, weight)}
    criteria |= partition_criteria(measured.means, sums, silhouettes)
    features = candidate.params.centers.shape[1]
    parameters = candidate.model.free_parameters(features)
    if parameters is not None and weight > 0.0:
        # The objective of a mixture is −log L.
        likelihood: dict[str, Any] = {**likelihood_criteria(parameters, -sums.objective, sums.entropy, weight, share)}
        further: Any = replace(candidate.model, k=candidate.model.k + 1)
        # A further component has a mixing weight beside its own parameters.
        own = further.free_parameters(features) - parameters - 1
        likelihood["bic_by_component"] = bic_by_component(likelihood["bic"], own, sums.responsible)
        criteria |= likelihood
        criteria["numbers_per_parameter"] = numbers_per_parameter(parameters, sums, features, share)
    return criteria


def label_result(measured: MeasuredChoice, measures: Measures) -> PassResult:
    """Return what a label pass at the final params of a choice would measure.

    Parameters
    ----------
    measured
        The choice.
    measures
        The passes that measured it.
    """
    sums = measured.sums
    statistics = LabelStatistics(sums.objective, sums.responsible, sums.rows, sums.entropy)
    return PassResult((statistics,), measures.read_stats, measures.seconds)
