"""The steps of a sweep over choices: pass 0 and starts, shared passes, criteria, and the recommendation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, get_args

from clustering.data.source import Source
from clustering.errors import ConfigError
from clustering.execution.passes import PassRunner
from clustering.fitting.choices import Choice, choices_of
from clustering.fitting.fitted_model import FittedModel, Summary
from clustering.fitting.initialization import SurveyedRows
from clustering.fitting.loop import State, Stop, StoppingRule, iterate
from clustering.fitting.options import Options, options_for
from clustering.fitting.recommendation import Recommendation, recommend
from clustering.fitting.sample_criteria import ON_SAMPLE, sample_criteria
from clustering.fitting.sweep import (
    Measures,
    check_memory,
    failures,
    label_result,
    measure,
    start_sweep,
    survey_for,
)
from clustering.models.model import AnyModel
from clustering.option_values import expanded
from clustering.options import Criterion, FitOptions, PreprocessOptions, SelectOptions
from clustering.run.fit import fitted_model
from clustering.run.watch import Watch, counted
from clustering.storage.checkpoints import Checkpoint

CRITERIA: tuple[Criterion, ...] = get_args(Criterion)
"""All criteria."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a sweep compares, and how."""

    choices: tuple[Choice, ...]
    references: tuple[Choice, ...]
    """Mixtures of one component, which any recommended one must beat; empty where the choices have them, or no
    likelihood."""
    options: Mapping[str, Options]
    """How to fit each choice, by its name."""
    criteria: tuple[Criterion, ...]
    """Criteria that choices are compared by."""
    memory: int
    """Memory budget of a worker, in bytes."""

    @property
    def all(self) -> tuple[Choice, ...]:
        """The choices and the references."""
        return (*self.choices, *self.references)

    @property
    def rule(self) -> StoppingRule:
        """When the passes stop; models of one kind have one tolerance."""
        return next(iter(self.options.values())).rule


@dataclass(frozen=True, eq=False)
class SweepResult:
    """Outcome of a sweep."""

    sweep: Sweep
    table: tuple[dict[str, Any], ...]
    """One row for each choice, with its criteria by name, or with the reason of its failure."""
    recommendation: Recommendation
    measures: Measures
    checkpoint: Checkpoint
    """State after the last pass of all choices."""

    def checkpoint_of(self, name: str) -> Checkpoint:
        """Return the state of a fit of one choice alone.

        Parameters
        ----------
        name
            Name of the choice.
        """
        state = self.checkpoint.state
        candidate = self.measures.choices[name].candidate
        return replace(
            self.checkpoint,
            state=State((candidate,), state.iteration, state.seconds),
            remarks=self._own(name, self.checkpoint.remarks),
            warnings=self._own(name, self.checkpoint.warnings),
            read_stats=self.checkpoint.read_stats + self.measures.read_stats,
        )

    def _own(self, name: str, lines: Sequence[str]) -> tuple[str, ...]:
        """Keep the lines about all rows and about one choice."""
        others = tuple(f"{choice.name}: " for choice in self.sweep.all if choice.name != name)
        return tuple(line.removeprefix(f"{name}: ") for line in lines if not line.startswith(others))

    def fitted(self, name: str, source: Source, blocks: int) -> FittedModel:
        """Make the fitted model of a choice.

        Parameters
        ----------
        name
            Name of the choice.
        source
            Source of the rows.
        blocks
            Number of blocks of the plan.
        """
        result = fitted_model(self.checkpoint_of(name), source, blocks, drawn=True)
        measured = label_result(self.measures.choices[name], self.measures)
        # The reads of the measurement are those of the checkpoint already.
        return result.with_measured(replace(measured, read_stats=replace(measured.read_stats, blocks=0, bytes=0)), 1)


def plan_sweep(
    model: AnyModel, select: SelectOptions, fit: FitOptions, preprocess: PreprocessOptions, memory: int
) -> Sweep:
    """Make the choices of a sweep, and the options of each.

    Parameters
    ----------
    model
        Gives the kind and the options that do not vary.
    select
        What is compared.
    fit
        How to fit.
    preprocess
        Preprocessing of the rows.
    memory
        Memory budget of a worker, in bytes.

    Raises
    ------
    ConfigError
        If a choice is not allowed, or starts are not drawn.
    """
    if not (isinstance(fit.init, str) and fit.init in ("kmeans++", "random")):
        shown = repr(fit.init) if isinstance(fit.init, str) else "an array"
        raise ConfigError(
            f"fit.init is {shown}, which has one number of clusters, and a sweep compares several; set fit.init to "
            "'kmeans++' or 'random'"
        )
    varied = {"covariance": select.covariance, "beta": select.beta, "divergence": select.divergence}
    choices = choices_of(model, expanded(select.k), {name: values or () for name, values in varied.items()})
    # Whether a model has a likelihood does not depend on the number of features.
    single = choices_of(model, [1], {name: values or () for name, values in varied.items()})
    likely = model.free_parameters(1) is not None
    references = tuple(choice for choice in single if likely and choice not in choices)
    options = {choice.name: options_for(choice.model, fit, preprocess) for choice in (*choices, *references)}
    return Sweep(choices, references, options, tuple(select.criteria or CRITERIA), memory)


def begin(runner: PassRunner, sweep: Sweep, run: str, watch: Watch) -> tuple[SurveyedRows, Checkpoint]:
    """Make pass 0, and choose the starts of all choices.

    Parameters
    ----------
    runner
        Runs pass 0.
    sweep
        The sweep.
    run
        Name of the run.
    watch
        Receives messages.
    """
    surveyed = survey(runner, sweep, watch)
    return surveyed, start(surveyed, sweep, run, watch)


def start(surveyed: SurveyedRows, sweep: Sweep, run: str, watch: Watch) -> Checkpoint:
    """Choose the starts of all choices.

    Parameters
    ----------
    surveyed
        Rows after pass 0.
    sweep
        The sweep.
    run
        Name of the run.
    watch
        Receives messages.
    """
    began = time.perf_counter()
    started = start_sweep(surveyed, sweep.choices, sweep.options, sweep.references)
    check_memory(sweep.all, started.state, sweep.memory)
    watch.say(f"starts of {counted(len(sweep.choices), 'choice')} on the row sample in {started.seconds:.1f} s")
    for remark in started.remarks:
        watch.say(remark)
    for warning in started.warnings:
        watch.warn(warning)
    for name, reason in started.failed.items():
        watch.warn(f"{name} fails: {reason}")
    return Checkpoint(
        run,
        started.state,
        Summary.from_survey(surveyed.survey),
        surveyed.result.read_stats + started.read_stats,
        {"sample": surveyed.result.seconds + time.perf_counter() - began},
        started.remarks,
        started.warnings,
        surveyed.preparation,
        failed=started.failed,
    )


def survey(runner: PassRunner, sweep: Sweep, watch: Watch) -> SurveyedRows:
    """Make pass 0 of a sweep.

    Parameters
    ----------
    runner
        Runs pass 0.
    sweep
        The sweep.
    watch
        Receives messages.
    """
    surveyed = survey_for(runner, sweep.choices, sweep.options, sweep.memory)
    reading, seconds = surveyed.result.read_stats, surveyed.result.seconds
    watch.say(
        f"pass 0: {surveyed.survey.count:,} rows, {surveyed.survey.masked:,} cells masked; "
        f"{reading.bytes / 1e6:,.1f} MB read at {reading.bytes / 1e6 / seconds:,.0f} MB/s"
    )
    return surveyed


def run_passes(
    runner: PassRunner,
    sweep: Sweep,
    checkpoint: Checkpoint,
    watch: Watch,
    save: Callable[[Checkpoint], None] = lambda _: None,
) -> Checkpoint:
    """Pass over the rows until every choice has stopped; each pass reads a block once for all of them.

    Parameters
    ----------
    runner
        Runs passes over prepared rows.
    sweep
        The sweep.
    checkpoint
        Where to begin.
    watch
        Receives messages and the record of every pass.
    save
        Called with the checkpoint after every pass, before the watch learns of the pass.
    """
    now = checkpoint
    for state, record in iterate(now.state, partial(runner.run, apart=True), sweep.rule, apart=True):
        before = now.state
        seconds = {**now.seconds, "fit": now.seconds.get("fit", 0.0) + record.seconds}
        now = replace(now, state=state, read_stats=now.read_stats + record.read_stats, seconds=seconds)
        save(now)
        watch.passed(record, sweep.rule, now.read_stats.blocks / len(runner.plan))
        for line in _notes_of_pass(sweep, before, state):
            watch.warn(line)
    return now


def _notes_of_pass(sweep: Sweep, before: State, after: State) -> Iterator[str]:
    """Yield the warnings that a pass added, with the choice that each is of."""
    names = {choice.model: choice.name for choice in sweep.all}
    for old, new in zip(before.candidates, after.candidates, strict=True):
        name, notes = names[new.model], new.notes[len(old.notes) :]
        for note in notes[: len(notes) - (new.stop is Stop.FAILED)]:
            yield f"{name}: {note}"
        if notes and new.stop is Stop.FAILED:
            yield f"{name} fails: {new.notes[-1]}"


def conclude(surveyed: SurveyedRows, sweep: Sweep, checkpoint: Checkpoint, watch: Watch) -> SweepResult:
    """Measure the criteria of all choices in two passes and on the row sample, and recommend one.

    Parameters
    ----------
    surveyed
        Rows after pass 0.
    sweep
        The sweep.
    checkpoint
        State after the last pass.
    watch
        Receives messages.
    """
    began = time.perf_counter()
    measures = measure(surveyed.runner, sweep.choices, sweep.references, checkpoint.state, checkpoint.failed)
    for name in measures.failed.keys() - failures(sweep.all, checkpoint.state, checkpoint.failed).keys():
        watch.warn(f"{name} fails: {measures.failed[name]}")
    wanted = [criterion for criterion in ON_SAMPLE if criterion in sweep.criteria]
    compared = {choice.name: one for choice in sweep.choices if (one := measures.choices.get(choice.name))}
    sampled, one_cluster = sample_criteria(compared, surveyed, sweep.options, wanted, watch.say)
    rows = []
    for choice in sweep.choices:
        if choice.name not in measures.choices:
            rows.append({**choice.about, "failed": measures.failed[choice.name]})
            continue
        candidate = measures.choices[choice.name].candidate
        facts = {"passes": len(candidate.history), "stopped_by": str(candidate.stop), "failed": None}
        rows.append({**choice.about, **measures.choices[choice.name].criteria, **sampled[choice.name], **facts})
    references = [
        {**choice.about, **one.criteria} for choice in sweep.references if (one := measures.choices.get(choice.name))
    ]
    varied = [name for name, _ in sweep.choices[0].options]
    recommendation = recommend(rows, varied, sweep.criteria, one_cluster, references)
    seconds = {**checkpoint.seconds, "choose": time.perf_counter() - began}
    return SweepResult(sweep, tuple(rows), recommendation, measures, replace(checkpoint, seconds=seconds))
