"""The beginning of a fit: pass 0 and the choice of starts, the current model, or the checkpoint of a killed run."""

from __future__ import annotations

import time

from clustering.errors import CheckpointError
from clustering.execution.passes import PassRunner
from clustering.fitting.cluster_names import default_names
from clustering.fitting.fitted_model import Summary
from clustering.fitting.initialization import initialize
from clustering.fitting.options import Options
from clustering.fitting.race import number_of_restarts
from clustering.models.model import AnyModel
from clustering.run.following import continue_from_current
from clustering.run.prepare import PreparedJob, provenance, unfinished_run
from clustering.run.watch import Watch, counted
from clustering.storage import checkpoints
from clustering.storage.checkpoints import Checkpoint
from clustering.storage.label_pass import LABELS
from clustering.storage.labels import write_frame
from clustering.storage.output import new_run
from clustering.storage.paths import translating_write_errors


def start_or_resume(job: PreparedJob, runner: PassRunner, watch: Watch) -> Checkpoint:
    """Load the checkpoint of an unfinished run, or begin a new run.

    Parameters
    ----------
    job
        The prepared job.
    runner
        Runs the passes.
    watch
        Receives messages.

    Raises
    ------
    CheckpointError
        If the unfinished run has another config or another source, and the job does not follow versions.
    """
    checkpoint = _load_checkpoint(job, watch)
    if checkpoint is not None:
        watch.say(f"continuing unfinished run {checkpoint.run} after pass {checkpoint.state.iteration}")
        return checkpoint
    run = new_run()
    _frame(job, run)
    if job.has_model:
        begun = continue_from_current(job, runner, run, watch)
    else:
        begun = start_fresh(runner, job.model, job.options, job.config.memory_bytes, run, watch)
    # Checkpoints of an abandoned run would otherwise count as those of this one.
    checkpoints.clear(job.output.checkpoints)
    # Pass 0 and the starts take at least a read of the source, which a kill must not cost again.
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
            # A person started this job, and can decide what becomes of the unfinished run.
            raise
        # A nightly run must not wait for a person. The unfinished run belongs to data that have changed since.
        # The part after the semicolon tells a person what to do, which does not apply here.
        watch.warn(f"{str(error).partition(';')[0]}: it is abandoned, and this run begins anew")
        return None


def start_fresh(
    runner: PassRunner, model: AnyModel, options: Options, memory: int, run: str, watch: Watch
) -> Checkpoint:
    """Begin a fit by its initialization: pass 0 and the choice of starts.

    Parameters
    ----------
    runner
        Runs pass 0.
    model
        The model to fit.
    options
        How to fit.
    memory
        Memory budget of a worker, in bytes.
    run
        Name of the run.
    watch
        Receives messages.
    """
    began = time.perf_counter()
    started = initialize(runner, model, options, memory)
    survey, reading, seconds = started.survey, started.read_stats, time.perf_counter() - began
    # In pass 0, a row that was not drawn counts like a masked cell.
    without_row = f"{survey.masked:,} cells " + ("masked" if options.row_fraction is None else "masked or not drawn")
    watch.say(
        f"pass 0: {counted(survey.count, 'row')}, {without_row}; {reading.bytes / 1e6:,.1f} MB read at "
        f"{reading.bytes / 1e6 / started.seconds:,.0f} MB/s"
    )
    restarts = number_of_restarts(options.fit, model.k, survey)
    watch.say(
        f"{counted(restarts, 'start')} on {'all' if survey.sample.complete else 'a sample of'} "
        f"{counted(len(survey.sample.weights), 'row')} in {seconds - started.seconds:.1f} s"
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
        started.budget,
    )
