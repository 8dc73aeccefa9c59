"""The steps of a job. Plain functions: Prefect may wrap each, and the same steps run without it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from clustering.data.causes import nothing_left, why_left_out
from clustering.data.preparation import room
from clustering.errors import CheckpointError, ClusteringError, DataError, ExecutionError
from clustering.execution.engine import connect
from clustering.execution.passes import Rounds, rounds
from clustering.fitting import start as starting
from clustering.fitting.clusters import numbered
from clustering.fitting.fitted import Fitted, Summary, fitted
from clustering.fitting.labelling import LabelStatistics, label, nowhere
from clustering.fitting.loop import Stop, iterate, judged
from clustering.fitting.matching import identified
from clustering.fitting.scoring import Scores, Scoring
from clustering.storage import checkpoints, versions
from clustering.storage.checkpoints import Checkpoint
from clustering.storage.label_pass import LABELS, RESUMABLE, write_labels
from clustering.storage.labels import write_frame
from clustering.storage.layout import drop
from clustering.storage.model import load_model, write_model
from clustering.storage.names import called
from clustering.storage.output import new_run
from clustering.storage.places import Place, writing
from flows.config import JobConfig
from flows.following import go_on, keeps_statistics
from flows.opened import Job, open_job, refuse_finished, unfinished_run
from flows.publishing import Labelled, provenance, publish
from flows.watch import Watch

T = TypeVar("T")
Step = Callable[[str, Callable[[], T]], T]
"""Runs a named step; Prefect's version makes it a task."""


def call(_: str, step: Callable[[], T]) -> T:
    """Run a step as it is."""
    return step()


def run_fit(config: JobConfig, watch: Watch, step: Step[Any] = call) -> dict[str, Any]:
    """Fit a model and write it with its labels and its report.

    Returns
    -------
    dict
        The content of ``run.json``.
    """
    job: Job = step("open", partial(open_job, config, watch))
    with job.output.locked(lambda: job.unfinished), _working(job, watch) as work:
        refuse_finished(job)
        begun: Checkpoint = step("sample", partial(begin, job, work, watch))
        ended: Checkpoint = step("fit", partial(fit, job, work, begun, watch))
        labelled: Labelled = step("label", partial(label_rows, job, work, ended, watch))
        record: dict[str, Any] = step("report", partial(publish, job, work.engine, labelled, watch))
    return record


def run_predict(model: str, config: JobConfig, watch: Watch, step: Step[Any] = call) -> dict[str, Any]:
    """Label data with a fitted model and write the labels with a report.

    Parameters
    ----------
    model
        Path or URL of a ``model.zarr``, or of the output of a run.
    """
    known, _ = load_model(model)
    job: Job = step("open", partial(open_job, config, watch, known))
    with job.output.locked(lambda: job.begun), _working(job, watch) as work:
        refuse_finished(job)
        try:
            labelled: Labelled = step("label", partial(label_with, job, work, known, watch))
        except ClusteringError as error:
            # What a mistake left would be made again by the same mistake; a cluster that is lost is none.
            if job.begun is not None and not isinstance(error, ExecutionError):
                drop(job.output.staging(job.begun))
            raise
        record: dict[str, Any] = step("report", partial(publish, job, work.engine, labelled, watch))
    return record


@contextmanager
def _working(job: Job, watch: Watch) -> Iterator[Rounds]:
    compute = job.config.compute
    with (
        connect(job.config.cluster, compute.workers, job.config.memory_bytes, compute.wait_seconds) as engine,
        watch.working(engine),
        rounds(
            job.source,
            job.plan,
            engine,
            memory=job.config.memory_bytes,
            scratch=compute.scratch,
            keep=job.known is None,
            fraction=job.options.drawn if job.known is None else None,
            preparation=None if job.known is None else job.known.preparation,
        ) as inside,
    ):
        yield replace(inside, held_out=job.held_out)


def begin(job: Job, work: Rounds, watch: Watch) -> Checkpoint:
    """Find where to go on, or begin."""
    found = _resumed(job, watch)
    if found is not None:
        watch.say(f"continuing unfinished run {found.run} after pass {found.state.iteration}")
        return found
    run = new_run()
    _frame(job, run)
    begun = go_on(job, work, run, watch) if job.has_model else from_nothing(job, work, run, watch)
    checkpoints.clear(job.output.checkpoints)
    checkpoints.save(job.output.checkpoints, begun, job.identity)
    return begun


def _frame(job: Job, run: str) -> None:
    """Write what says where samples are to where the labels of a run will be, so that it costs no passes if it fails.

    A run that ends before its first checkpoint leaves none of it, and one that was killed leaves it to the next one.
    """
    if not job.row_variables.anything:
        return
    path = job.output.stage(run) / LABELS
    with writing(path):
        write_frame(path, job.source, numbered(job.model.k), provenance(job, run), job.row_variables, job.model)


def _resumed(job: Job, watch: Watch) -> Checkpoint | None:
    try:
        return unfinished_run(job)
    except CheckpointError as error:
        if not job.follows:
            raise
        # Nobody looks after a run every night; and what it would have gone on from is no longer what there is.
        watch.warn(f"{str(error).partition(';')[0]}: it is given up, and this run begins anew")
        return None


def from_nothing(job: Job, work: Rounds, run: str, watch: Watch) -> Checkpoint:
    """Make pass 0 and choose starts, as the beginning of a run."""
    began = time.perf_counter()
    config = job.config.fit
    started = starting.begin(work, job.model, job.options, job.config.memory_bytes)
    survey, reading, seconds = started.survey, started.reading, time.perf_counter() - began
    left = f"{survey.masked:,} cells " + ("masked" if job.options.drawn is None else "masked or not drawn")
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
        run, started.state, Summary.of(survey), reading, {"sample": seconds}, started.remarks, started.warnings,
        started.preparation,
    )  # fmt: skip


def fit(job: Job, work: Rounds, begun: Checkpoint, watch: Watch) -> Checkpoint:
    """Pass over the data until the loop stops, with a checkpoint after every pass."""
    now, rule = begun, job.options.rule
    work = replace(work, preparation=begun.preparation)
    for state, record in iterate(job.model, begun.state, work.run, rule):
        seconds = {**now.seconds, "fit": now.seconds.get("fit", 0.0) + record.seconds}
        now = replace(now, state=state, reading=now.reading + record.reading, seconds=seconds)
        checkpoints.save(job.output.checkpoints, now, job.identity)
        watch.passed(record, rule, now.reading.blocks / len(job.plan))
        for note in record.notes:
            watch.warn(note)
    state, judgement = judged(job.model, now.state, work.run)
    if state is not now.state:
        reading = now.reading if judgement is None else now.reading + judgement.reading
        now = replace(now, state=state, reading=reading)
        checkpoints.save(job.output.checkpoints, now, job.identity)
    best = now.state.best
    told = "" if best.sums is None else _told(job.model, best.objective, float(best.sums["weight"].sum()))
    watch.say(f"{_REASONS[best.stop or Stop.CONVERGED]} after {len(best.history)} passes{told}")
    return now


def _told(model: Any, objective: float, weight: float) -> str:
    return f", {model.symbol} {model.reported(objective, weight):.10g}"


_REASONS = {
    Stop.CONVERGED: "converged (nothing changes any more)",
    Stop.TOLERANCE: "converged (within the tolerance)",
    Stop.REFRESH: "stopped as fit.refresh asks",
    Stop.MAX_ITERATIONS: "stopped by max_iterations",
    Stop.MAX_SECONDS: "stopped by max_seconds",
}


def label_rows(job: Job, work: Rounds, ended: Checkpoint, watch: Watch) -> Labelled:
    """Label every row with the final params, and keep the model beside the labels."""
    began = time.perf_counter()
    reads = ended.reading.blocks / len(job.plan)
    result = fitted(
        job.model, ended.state, job.source.features, ended.summary, reads, ended.reading.bytes, ended.remarks,
        ended.warnings, ended.reading.bad, ended.preparation, job.source.about,
        (job.source.sample_dims, job.source.feature_dims), drawn=job.options.draws and not job.has_model,
    )  # fmt: skip
    before = job.before
    if before is not None:
        given = max(before.fitted.largest_id, versions.largest_id(job.output))
        result = identified(result, replace(before.fitted, largest_id=given))
    for remark in result.remarks[len(ended.remarks) :]:
        watch.say(remark)
    folder = job.output.stage(ended.run, RESUMABLE if job.wanted.anything else ())
    part, sums, scores = job.options.drawn is not None or job.held_out is not None, None, None
    asked = job.wanted.anything or part or job.follows
    if asked or result.stop is not Stop.CONVERGED or job.model.kind != "kmeans":
        # At a fixed point of k-means the last pass has told all there is to know already, if it was over all rows.
        sums, scores, result = _labels(job, work, result, folder, watch)
        if scores is not None:
            result = result.over(sums, job.plan.cells, held_out=scores.rows)
        elif part:
            result = result.extended(sums)
        elif job.follows:
            result = result.over(sums, job.plan.cells)
    write_model(result, folder / "model.zarr", provenance(job, ended.run))
    seconds = {**ended.seconds, "label": time.perf_counter() - began}
    return Labelled(
        ended.run,
        result,
        folder,
        seconds,
        job.config.output.labels,
        result.summary.count,
        result.summary.cells - result.summary.count,
        None if before is None else before.compare(result, sums, scores),
    )


def label_with(job: Job, work: Rounds, model: Fitted, watch: Watch) -> Labelled:
    """Label every row with a model that was fitted before."""
    began = time.perf_counter()
    run = job.begun or new_run()
    folder = job.output.stage(run, RESUMABLE)
    fresh = replace(model, reads=0.0, bytes_read=0, notes=())
    sums, _, result = _labels(job, work, fresh, folder, watch)
    result = result.over(sums, job.plan.cells)
    write_model(result, folder / "model.zarr", provenance(job, run))
    rows, seconds = result.summary.count, {"label": time.perf_counter() - began}
    compared = None if job.before is None else job.before.compare(result, sums, None)
    return Labelled(run, result, folder, seconds, True, rows, job.plan.cells - rows, compared)


def _labels(
    job: Job, work: Rounds, known: Fitted, folder: Place, watch: Watch
) -> tuple[LabelStatistics, Scores | None, Fitted]:
    memory, preparation = job.config.memory_bytes, known.preparation
    within = room(job.source, memory, preparation is not None)
    plan = job.plan
    if job.identities is None:
        plan = job.source.plan(block_bytes=job.config.block_bytes, memory=within, whole_chunks=False)
    # Where the selection starts inside a chunk, blocks that match the chunks of the labels are others than the fit's;
    # and a fit over a part of the rows kept no others.
    others = partial(rounds, job.source, plan, work.engine, memory=memory, keep=False, preparation=preparation)
    same = plan == job.plan and work.fraction is None
    before = job.before
    earlier = None if before is None else before.labels
    scoring, left_out = None, list[str]()
    if job.held_out is not None:
        scoring = Scoring.of(job.held_out, known, None if before is None else before.fitted)
    with nullcontext(replace(work, preparation=preparation, held_out=None)) if same else others() as inside:
        if job.wanted.anything:
            about = provenance(job, folder.name)
            passed = write_labels(
                inside, known, folder, about, job.row_variables,
                lambda finished: watch.say(f"{finished:,} of {len(plan):,} blocks are labelled already"),
                called(job.output.path, known.ids), earlier, identities=job.identities,
                statistics=keeps_statistics(job, known.params),
                held_out=job.held_out, scoring=scoring, kept=None if before is None else before.kept,
                on_caution=left_out.append,
            )  # fmt: skip
        else:
            beside = () if scoring is None else (scoring,)
            passed = label(inside, known.model, known.params, nowhere, None, None, known.clusters, earlier, beside)
    sums: LabelStatistics = passed.statistics[0]
    if not sums.rows.any():
        raise DataError(nothing_left(job.source, plan))
    # What was known when the job was opened has been told then.
    left_out = [caution for caution in left_out if caution not in job.source.cautions]
    if job.has_model and int(sums.rows.sum()) * 2 < plan.cells:
        # Pass 0 would have told.
        left_out += why_left_out(job.source, plan)
    for caution in left_out:
        watch.warn(caution)
    result = known.measured(passed, len(plan))
    for note in result.notes[len(known.notes) :]:
        watch.warn(note)
    result = replace(result, notes=(*result.notes, *left_out))
    weight = float(sums.weight.sum())
    watch.say(
        f"labelled {int(sums.rows.sum()):,} rows in {passed.seconds:.1f} s{_told(known.model, sums.objective, weight)}"
    )
    return sums, None if scoring is None else passed.statistics[1], result
