"""The label step of a run: labels every row with the final params, and writes the model beside the labels."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from clustering.data.excluded_rows import explain_excluded_rows, explain_no_rows
from clustering.data.plan import Plan
from clustering.data.preparation import usable_memory
from clustering.errors import DataError
from clustering.execution.passes import PassResult, PassRunner, pass_runner
from clustering.fitting.fitted_model import FittedModel
from clustering.fitting.labelling import LabelStatistics, discard, label_blocks
from clustering.fitting.loop import Stop
from clustering.fitting.matching import match_ids
from clustering.fitting.scoring import HeldOutScorer, HeldOutScores
from clustering.run.drawing import EarlyDrawing
from clustering.run.drawing_process import DrawingProcess
from clustering.run.fit import fitted_model, objective_text
from clustering.run.following import keeps_statistics
from clustering.run.prepare import PreparedJob, provenance
from clustering.run.publish import LabelledRun
from clustering.run.watch import Watch
from clustering.storage import versions
from clustering.storage.checkpoints import Checkpoint
from clustering.storage.label_pass import RESUMABLE, write_labels
from clustering.storage.model import write_model
from clustering.storage.names_file import load_cluster_names
from clustering.storage.output import new_run
from clustering.storage.paths import StoragePath


def label_rows(
    job: PreparedJob,
    runner: PassRunner,
    checkpoint: Checkpoint,
    watch: Watch,
    drawing: EarlyDrawing | DrawingProcess | None,
) -> LabelledRun:
    """Label every row with the final params, and keep the model beside the labels.

    Parameters
    ----------
    job
        The prepared job.
    runner
        Runner of the fit; its cache may hold the rows.
    checkpoint
        State after the last pass.
    watch
        Receives messages.
    drawing
        Draws the report, and has begun to read rows; None without a report.
    """
    began = time.perf_counter()
    # Clusters that continue an earlier model keep their order, and `match_ids` keeps their ids.
    result = fitted_model(
        checkpoint, job.source, len(job.plan), drawn=job.options.fit.draws_starts and not job.has_model
    )
    previous = job.previous
    if previous is not None:
        # An id that any version has used is never given to another cluster.
        largest_id = max(previous.fitted.largest_id, versions.largest_id(job.output))
        result = match_ids(result, replace(previous.fitted, largest_id=largest_id))
    for remark in result.remarks[len(checkpoint.remarks) :]:
        watch.say(remark)
    # A killed label pass goes on from its labels and its ledger, so these stay.
    folder = job.output.stage(checkpoint.run, RESUMABLE if job.label_outputs.anything else ())
    sums = scores = None
    drawing = _begin_drawing(job, result, drawing)
    fitted_on_part = job.options.row_fraction is not None or job.held_out is not None
    needs_pass = job.label_outputs.anything or fitted_on_part or job.follows
    if needs_pass or result.stop is not Stop.CONVERGED or not job.model.objective_at_convergence:
        # Otherwise the last pass went over all rows at the final params, and no further pass is needed.
        sums, scores, result = _write_labels(job, runner, result, folder, watch)
        if scores is not None:
            result = result.labelled_over(sums, job.plan.cells, held_out=scores.rows)
        elif fitted_on_part:
            result = result.labelled_on_all(sums)
        elif job.follows:
            result = result.labelled_over(sums, job.plan.cells)
    if isinstance(drawing, DrawingProcess):
        drawing.labelled(result, folder)
    # The model comes after the labels, because their pass measures the objective and sizes that it holds.
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
        runner.residency.to_json(),
        drawing,
    )


def label_with(
    job: PreparedJob,
    runner: PassRunner,
    model: FittedModel,
    watch: Watch,
    drawing: EarlyDrawing | DrawingProcess | None,
) -> LabelledRun:
    """Label every row with a given fitted model.

    Parameters
    ----------
    job
        The prepared job, of a prediction.
    runner
        Runs the label pass.
    model
        The fitted model.
    watch, drawing
        As for `label_rows`.
    """
    began = time.perf_counter()
    # A prediction has no checkpoints, so its staging folder alone shows that it was begun.
    run = job.begun or new_run()
    folder = job.output.stage(run, RESUMABLE)
    # Reads and warnings of the fit are not those of this run.
    fresh = replace(model, reads=0.0, bytes_read=0, notes=())
    drawing = _begin_drawing(job, fresh, drawing)
    sums, _, result = _write_labels(job, runner, fresh, folder, watch)
    result = result.labelled_over(sums, job.plan.cells)
    if isinstance(drawing, DrawingProcess):
        drawing.labelled(result, folder)
    write_model(result, folder / "model.zarr", provenance(job, run))
    rows, seconds = result.summary.count, {"label": time.perf_counter() - began}
    compared = None if job.previous is None else job.previous.compare(result, sums, None)
    lives = runner.residency.to_json()
    return LabelledRun(run, result, folder, seconds, True, rows, job.plan.cells - rows, compared, lives, drawing)


def _begin_drawing(
    job: PreparedJob, fitted: FittedModel, drawing: EarlyDrawing | DrawingProcess | None
) -> EarlyDrawing | DrawingProcess | None:
    """Begin to draw what the report shows of the model, which needs no labels; in a thread if the process cannot."""
    path, labels = job.output.path, job.config.output.labels
    if drawing is None or drawing.begin(fitted, path, labels=labels):
        return drawing
    thread = EarlyDrawing(job.source)
    thread.begin(fitted, path, labels=labels)
    return thread


def _write_labels(
    job: PreparedJob, runner: PassRunner, fitted: FittedModel, folder: StoragePath, watch: Watch
) -> tuple[LabelStatistics, HeldOutScores | None, FittedModel]:
    """Make the label pass, and add what it has measured to the fitted model."""
    cautions = list[str]()
    plan, passed = _label_pass(job, runner, fitted, folder, watch, cautions.append)
    sums: LabelStatistics = passed.statistics[0]
    if not sums.rows.any():
        raise DataError(explain_no_rows(job.source, plan))
    # Cautions from when the job was opened have been shown already.
    cautions = [caution for caution in cautions if caution not in job.source.cautions]
    if job.has_model and int(sums.rows.sum()) * 2 < plan.cells:
        # In other fits, pass 0 explains excluded rows. A run that begins with a model has no pass 0.
        cautions += explain_excluded_rows(job.source, plan)
    for caution in cautions:
        watch.warn(caution)
    result = fitted.with_measured(passed, len(plan))
    for note in result.notes[len(fitted.notes) :]:
        watch.warn(note)
    result = replace(result, notes=(*result.notes, *cautions))
    weight = float(sums.weight.sum())
    watch.say(
        f"labelled {int(sums.rows.sum()):,} rows in {passed.seconds:.1f} s"
        f"{objective_text(fitted.model, sums.objective, weight)}"
    )
    return sums, None if job.held_out is None else passed.statistics[1], result


def _label_pass(
    job: PreparedJob,
    runner: PassRunner,
    fitted: FittedModel,
    folder: StoragePath,
    watch: Watch,
    on_caution: Callable[[str], None],
) -> tuple[Plan, PassResult]:
    """Label every row, and write the label outputs if any are wanted; with the plan of the pass."""
    memory, preparation = job.config.memory_bytes, fitted.preparation
    within = usable_memory(job.source, memory, preparation is not None)
    plan = job.plan
    # Fingerprints belong to the blocks of the job's plan. Where there are any, the label pass keeps that plan.
    if job.block_fingerprints is None:
        plan = job.source.plan(block_bytes=job.config.block_bytes, memory=within, whole_chunks=False)
    # A second runner is needed in two cases. If the selection starts inside a chunk, blocks that match the chunks of
    # the labels differ from those of the fit. If the fit drew a part of the rows, its cache lacks the other rows.
    others = partial(pass_runner, job.source, plan, runner.engine, memory=memory, keep=False, preparation=preparation)
    same = plan == job.plan and runner.fraction is None
    previous = job.previous
    previous_labels = None if previous is None else previous.labels
    scoring = None
    if job.held_out is not None:
        scoring = HeldOutScorer.compare(job.held_out, fitted, None if previous is None else previous.fitted)
    # Held-out blocks are labelled like all others, and scored on the same read.
    with nullcontext(replace(runner, preparation=preparation, held_out=None)) if same else others() as label_runner:
        if job.label_outputs.anything:
            about = provenance(job, folder.name)
            passed = write_labels(
                label_runner,
                fitted,
                folder,
                about,
                job.row_variables,
                lambda finished: watch.say(f"{finished:,} of {len(plan):,} blocks are labelled already"),
                load_cluster_names(job.output.path, fitted.ids),
                previous_labels,
                fingerprints=job.block_fingerprints,
                statistics=keeps_statistics(job, fitted.params),
                held_out=job.held_out,
                scoring=scoring,
                reusable=None if previous is None else previous.reusable_labels,
                on_caution=on_caution,
            )
        else:
            # The sums are needed without labels too, for the objective at the final params.
            also = () if scoring is None else (scoring,)
            passed = label_blocks(
                label_runner,
                fitted.model,
                fitted.params,
                discard,
                None,
                None,
                fitted.clusters,
                previous_labels,
                also,
            )
    return plan, passed
