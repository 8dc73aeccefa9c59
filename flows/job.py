"""The steps of a job, as plain functions. Prefect may wrap each step in a task; without it they run as they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from clustering.data.excluded_rows import explain_excluded_rows, explain_no_rows
from clustering.data.preparation import usable_memory
from clustering.errors import CheckpointError, ClusteringError, DataError, ExecutionError
from clustering.execution.engine import connect
from clustering.execution.passes import PassRunner, pass_runner
from clustering.fitting.cluster_names import default_names
from clustering.fitting.fitted_model import FittedModel, Summary, from_state
from clustering.fitting.initialization import initialize
from clustering.fitting.labelling import LabelStatistics, discard, label_blocks
from clustering.fitting.loop import Stop, choose_best, iterate
from clustering.fitting.matching import match_ids
from clustering.fitting.scoring import HeldOutScorer, HeldOutScores
from clustering.models.model import AnyModel
from clustering.storage import checkpoints, versions
from clustering.storage.checkpoints import Checkpoint
from clustering.storage.label_pass import LABELS, RESUMABLE, write_labels
from clustering.storage.labels import write_frame
from clustering.storage.layout import remove_version
from clustering.storage.model import load_model, write_model
from clustering.storage.names_file import load_cluster_names
from clustering.storage.output import new_run
from clustering.storage.paths import StoragePath, translating_write_errors
from flows.config import JobConfig
from flows.following import continue_from_current, keeps_statistics
from flows.prepared_job import PreparedJob, open_job, refuse_finished, unfinished_run
from flows.publishing import LabelledRun, provenance, publish
from flows.watch import Watch

T = TypeVar("T")
Step = Callable[[str, Callable[[], T]], T]
"""Runs a named step; Prefect's version makes it a task."""


def call(_: str, step: Callable[[], T]) -> T:
    """Run a step directly, without Prefect."""
    return step()


def run_fit(config: JobConfig, watch: Watch, step: Step[Any] = call) -> dict[str, Any]:
    """Fit a model and write it with its labels and its report.

    Returns
    -------
    dict
        The content of ``run.json``.
    """
    job: PreparedJob = step("open", partial(open_job, config, watch))
    with job.output.locked(lambda: job.unfinished), _working(job, watch) as runner:
        refuse_finished(job)
        started: Checkpoint = step("sample", partial(start_or_resume, job, runner, watch))
        ended: Checkpoint = step("fit", partial(fit, job, runner, started, watch))
        labelled: LabelledRun = step("label", partial(label_rows, job, runner, ended, watch))
        record: dict[str, Any] = step("report", partial(publish, job, runner.engine, labelled, watch))
    return record


def run_predict(model: str, config: JobConfig, watch: Watch, step: Step[Any] = call) -> dict[str, Any]:
    """Label data with a fitted model and write the labels with a report.

    Parameters
    ----------
    model
        Path or URL of a ``model.zarr``, or of the output of a run.
    """
    fitted, _ = load_model(model)
    job: PreparedJob = step("open", partial(open_job, config, watch, fitted))
    with job.output.locked(lambda: job.begun), _working(job, watch) as runner:
        refuse_finished(job)
        try:
            labelled: LabelledRun = step("label", partial(label_with, job, runner, fitted, watch))
        except ClusteringError as error:
            # After a mistake of the user, the same command would fail again, so its files are removed. After a lost
            # cluster the command can resume, so they stay.
            if job.begun is not None and not isinstance(error, ExecutionError):
                remove_version(job.output.staging(job.begun))
            raise
        record: dict[str, Any] = step("report", partial(publish, job, runner.engine, labelled, watch))
    return record


@contextmanager
def _working(job: PreparedJob, watch: Watch) -> Iterator[PassRunner]:
    """Connect to the cluster of a job, and offer a pass runner for its rows."""
    compute = job.config.compute
    with (
        connect(job.config.cluster, compute.workers, job.config.memory_bytes, compute.wait_seconds) as engine,
        watch.working(engine),
        pass_runner(
            job.source,
            job.plan,
            engine,
            memory=job.config.memory_bytes,
            scratch=compute.scratch,
            keep=job.given_model is None,
            fraction=job.options.row_fraction if job.given_model is None else None,
            preparation=None if job.given_model is None else job.given_model.preparation,
        ) as runner,
    ):
        yield replace(runner, held_out=job.held_out)


def start_or_resume(job: PreparedJob, runner: PassRunner, watch: Watch) -> Checkpoint:
    """Load the checkpoint of an unfinished run, or begin a new run."""
    checkpoint = _load_checkpoint(job, watch)
    if checkpoint is not None:
        watch.say(f"continuing unfinished run {checkpoint.run} after pass {checkpoint.state.iteration}")
        return checkpoint
    run = new_run()
    _frame(job, run)
    begun = continue_from_current(job, runner, run, watch) if job.has_model else start_fresh(job, runner, run, watch)
    checkpoints.clear(job.output.checkpoints)
    checkpoints.save(job.output.checkpoints, begun, job.fingerprint)
    return begun


def _frame(job: PreparedJob, run: str) -> None:
    """Write the coordinates of the label outputs first, so that an output that cannot be written costs no passes.

    A run that fails before its first checkpoint removes them. A run that is killed leaves them to the next run.
    """
    if not job.row_variables.anything:
        return
    path = job.output.stage(run) / LABELS
    with translating_write_errors(path):
        write_frame(path, job.source, default_names(job.model.k), provenance(job, run), job.row_variables, job.model)


def _load_checkpoint(job: PreparedJob, watch: Watch) -> Checkpoint | None:
    """Load the checkpoint of an unfinished run of this job; None where there is none to go on from."""
    try:
        return unfinished_run(job)
    except CheckpointError as error:
        if not job.follows:
            raise
        # A nightly run must not wait for a person. The unfinished run belongs to data that have changed since.
        watch.warn(f"{str(error).partition(';')[0]}: it is abandoned, and this run begins anew")
        return None


def start_fresh(job: PreparedJob, runner: PassRunner, run: str, watch: Watch) -> Checkpoint:
    """Begin a run by its initialization: pass 0 and the choice of starts."""
    began = time.perf_counter()
    config = job.config.fit
    started = initialize(runner, job.model, job.options, job.config.memory_bytes)
    survey, reading, seconds = started.survey, started.read_stats, time.perf_counter() - began
    left = f"{survey.masked:,} cells " + ("masked" if job.options.row_fraction is None else "masked or not drawn")
    watch.say(
        f"pass 0: {survey.count:,} rows, {left}; {reading.bytes / 1e6:,.1f} MB read at "
        f"{reading.bytes / 1e6 / started.seconds:,.0f} MB/s"
    )
    watch.say(
        f"{config.restarts} starts on {'all' if survey.sample.complete else 'a sample of'} "
        f"{len(survey.sample.weights):,} rows in {seconds - started.seconds:.1f} s"
    )
    for remark in started.remarks:
        watch.say(remark)
    for warning in started.warnings:
        watch.warn(warning)
    return Checkpoint(
        run,
        started.state,
        Summary.from_survey(survey),
        reading,
        {"sample": seconds},
        started.remarks,
        started.warnings,
        started.preparation,
    )


def fit(job: PreparedJob, runner: PassRunner, checkpoint: Checkpoint, watch: Watch) -> Checkpoint:
    """Pass over the data until the loop stops, with a checkpoint after every pass."""
    now, rule = checkpoint, job.options.rule
    runner = replace(runner, preparation=checkpoint.preparation)
    for state, record in iterate(checkpoint.state, runner.run, rule):
        seconds = {**now.seconds, "fit": now.seconds.get("fit", 0.0) + record.seconds}
        now = replace(now, state=state, read_stats=now.read_stats + record.read_stats, seconds=seconds)
        checkpoints.save(job.output.checkpoints, now, job.fingerprint)
        watch.passed(record, rule, now.read_stats.blocks / len(job.plan))
        for note in record.notes:
            watch.warn(note)
    state, judgement = choose_best(now.state, runner.run)
    if state is not now.state:
        reading = now.read_stats if judgement is None else now.read_stats + judgement.read_stats
        now = replace(now, state=state, read_stats=reading)
        checkpoints.save(job.output.checkpoints, now, job.fingerprint)
    best = now.state.best
    objective_text = (
        "" if best.sums is None else _objective_text(job.model, best.objective, float(best.sums["weight"].sum()))
    )
    watch.say(f"{_REASONS[best.stop or Stop.CONVERGED]} after {len(best.history)} passes{objective_text}")
    return now


def _objective_text(model: AnyModel, objective: float, weight: float) -> str:
    return f", {model.objective.symbol} {model.to_user_objective(objective, weight):.10g}"


_REASONS = {
    Stop.CONVERGED: "converged (nothing changes any more)",
    Stop.TOLERANCE: "converged (within the tolerance)",
    Stop.REFRESH: "stopped as fit.refresh asks",
    Stop.MAX_ITERATIONS: "stopped by max_iterations",
    Stop.MAX_SECONDS: "stopped by max_seconds",
}


def label_rows(job: PreparedJob, runner: PassRunner, checkpoint: Checkpoint, watch: Watch) -> LabelledRun:
    """Label every row with the final params, and keep the model beside the labels."""
    began = time.perf_counter()
    reads = checkpoint.read_stats.blocks / len(job.plan)
    result = from_state(
        job.model,
        checkpoint.state,
        job.source.features,
        checkpoint.summary,
        reads,
        checkpoint.read_stats.bytes,
        checkpoint.remarks,
        checkpoint.warnings,
        checkpoint.read_stats.bad,
        checkpoint.preparation,
        job.source.about,
        (job.source.sample_dims, job.source.feature_dims),
        drawn=job.options.draws_starts and not job.has_model,
    )
    previous = job.previous
    if previous is not None:
        given = max(previous.fitted.largest_id, versions.largest_id(job.output))
        result = match_ids(result, replace(previous.fitted, largest_id=given))
    for remark in result.remarks[len(checkpoint.remarks) :]:
        watch.say(remark)
    folder = job.output.stage(checkpoint.run, RESUMABLE if job.label_outputs.anything else ())
    part, sums, scores = job.options.row_fraction is not None or job.held_out is not None, None, None
    asked = job.label_outputs.anything or part or job.follows
    if asked or result.stop is not Stop.CONVERGED or not job.model.objective_at_convergence:
        # Otherwise the last pass went over all rows at the final params, and no further pass is needed.
        sums, scores, result = _write_labels(job, runner, result, folder, watch)
        if scores is not None:
            result = result.labelled_over(sums, job.plan.cells, held_out=scores.rows)
        elif part:
            result = result.labelled_on_all(sums)
        elif job.follows:
            result = result.labelled_over(sums, job.plan.cells)
    write_model(result, folder / "model.zarr", provenance(job, checkpoint.run))
    seconds = {**checkpoint.seconds, "label": time.perf_counter() - began}
    return LabelledRun(
        checkpoint.run,
        result,
        folder,
        seconds,
        job.config.output.labels,
        result.summary.count,
        result.summary.cells - result.summary.count,
        None if previous is None else previous.compare(result, sums, scores),
    )


def label_with(job: PreparedJob, runner: PassRunner, model: FittedModel, watch: Watch) -> LabelledRun:
    """Label every row with a given fitted model."""
    began = time.perf_counter()
    run = job.begun or new_run()
    folder = job.output.stage(run, RESUMABLE)
    fresh = replace(model, reads=0.0, bytes_read=0, notes=())
    sums, _, result = _write_labels(job, runner, fresh, folder, watch)
    result = result.labelled_over(sums, job.plan.cells)
    write_model(result, folder / "model.zarr", provenance(job, run))
    rows, seconds = result.summary.count, {"label": time.perf_counter() - began}
    compared = None if job.previous is None else job.previous.compare(result, sums, None)
    return LabelledRun(run, result, folder, seconds, True, rows, job.plan.cells - rows, compared)


def _write_labels(
    job: PreparedJob, runner: PassRunner, fitted_model: FittedModel, folder: StoragePath, watch: Watch
) -> tuple[LabelStatistics, HeldOutScores | None, FittedModel]:
    """Make the label pass: write label outputs if any are wanted, and measure the objective at the final params."""
    memory, preparation = job.config.memory_bytes, fitted_model.preparation
    within = usable_memory(job.source, memory, preparation is not None)
    plan = job.plan
    if job.block_fingerprints is None:
        plan = job.source.plan(block_bytes=job.config.block_bytes, memory=within, whole_chunks=False)
    # A second runner is needed in two cases. If the selection starts inside a chunk, blocks that match the chunks of
    # the labels differ from those of the fit. If the fit drew a part of the rows, its cache lacks the other rows.
    others = partial(pass_runner, job.source, plan, runner.engine, memory=memory, keep=False, preparation=preparation)
    same = plan == job.plan and runner.fraction is None
    previous = job.previous
    previous_labels = None if previous is None else previous.labels
    scoring, left_out = None, list[str]()
    if job.held_out is not None:
        scoring = HeldOutScorer.compare(job.held_out, fitted_model, None if previous is None else previous.fitted)
    with nullcontext(replace(runner, preparation=preparation, held_out=None)) if same else others() as label_runner:
        if job.label_outputs.anything:
            about = provenance(job, folder.name)
            passed = write_labels(
                label_runner,
                fitted_model,
                folder,
                about,
                job.row_variables,
                lambda finished: watch.say(f"{finished:,} of {len(plan):,} blocks are labelled already"),
                load_cluster_names(job.output.path, fitted_model.ids),
                previous_labels,
                fingerprints=job.block_fingerprints,
                statistics=keeps_statistics(job, fitted_model.params),
                held_out=job.held_out,
                scoring=scoring,
                reusable=None if previous is None else previous.reusable_labels,
                on_caution=left_out.append,
            )
        else:
            also = () if scoring is None else (scoring,)
            passed = label_blocks(
                label_runner,
                fitted_model.model,
                fitted_model.params,
                discard,
                None,
                None,
                fitted_model.clusters,
                previous_labels,
                also,
            )
    sums: LabelStatistics = passed.statistics[0]
    if not sums.rows.any():
        raise DataError(explain_no_rows(job.source, plan))
    # Cautions that were known when the job was opened have been shown already.
    left_out = [caution for caution in left_out if caution not in job.source.cautions]
    if job.has_model and int(sums.rows.sum()) * 2 < plan.cells:
        # In other fits, pass 0 explains excluded rows. A run that begins with a model has no pass 0.
        left_out += explain_excluded_rows(job.source, plan)
    for caution in left_out:
        watch.warn(caution)
    result = fitted_model.with_measured(passed, len(plan))
    for note in result.notes[len(fitted_model.notes) :]:
        watch.warn(note)
    result = replace(result, notes=(*result.notes, *left_out))
    weight = float(sums.weight.sum())
    watch.say(
        f"labelled {int(sums.rows.sum()):,} rows in {passed.seconds:.1f} s"
        f"{_objective_text(fitted_model.model, sums.objective, weight)}"
    )
    return sums, None if scoring is None else passed.statistics[1], result
