"""The job: its steps one after another, as plain functions. Prefect may wrap each step in a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from clustering.config import JobConfig
from clustering.errors import ClusteringError, ExecutionError
from clustering.execution.engine import connect
from clustering.execution.passes import PassRunner, pass_runner
from clustering.run.drawing_process import DrawingProcess, begin_drawing
from clustering.run.fit import fit
from clustering.run.initialize import start_or_resume
from clustering.run.label import label_rows, label_with
from clustering.run.prepare import PreparedJob, SourceAccess, open_job, refuse_finished
from clustering.run.publish import LabelledRun, publish
from clustering.run.watch import Watch
from clustering.storage import checkpoints
from clustering.storage.checkpoints import Checkpoint
from clustering.storage.layout import remove_version
from clustering.storage.model import load_model

T = TypeVar("T")
Step = Callable[[str, Callable[[], T]], T]
"""Runs a named step; Prefect's version makes it a task."""


def call(_: str, step: Callable[[], T]) -> T:
    """Run a step directly, without Prefect.

    Parameters
    ----------
    _
        Name of the step.
    step
        The step.
    """
    return step()


def run_fit(
    config: JobConfig,
    watch: Watch,
    step: Step[Any] = call,
    access: SourceAccess | None = None,
    process: DrawingProcess | None = None,
) -> dict[str, Any]:
    """Fit a model and write it with its labels and its report.

    Parameters
    ----------
    config
        The job.
    watch
        Receives messages and progress.
    step
        Runs a named step.
    access
        What the config cannot hold of the source; None where it says all.
    process
        Draws the report; a thread where None.

    Returns
    -------
    dict
        The content of ``run.json``.

    Raises
    ------
    ClusteringError
        If the job cannot run. An interrupted one goes on when it is called again.
    """
    job: PreparedJob = step("open", partial(open_job, config, watch, None, access))
    # The unfinished run is asked for at the end, when this run may have left checkpoints.
    with job.output.locked(lambda: job.unfinished), working(job, watch) as runner:
        # Another run may have been published after the first check and before the lock.
        refuse_finished(job)
        drawing = begin_drawing(job.source, job.output, process) if config.output.report else None
        started: Checkpoint = step("sample", partial(start_or_resume, job, runner, watch))

        def save(checkpoint: Checkpoint) -> None:
            checkpoints.save(job.output.checkpoints, checkpoint, job.fingerprint)

        accelerate = job.options.fit.accelerate == "auto"
        passes = partial(fit, runner, started, job.options.rule, watch, save, accelerate=accelerate)
        ended: Checkpoint = step("fit", passes)
        labelled: LabelledRun = step("label", partial(label_rows, job, runner, ended, watch, drawing))
        record: dict[str, Any] = step("report", partial(publish, job, runner.engine, labelled, watch))
    return record


def run_predict(
    model: str,
    config: JobConfig,
    watch: Watch,
    step: Step[Any] = call,
    access: SourceAccess | None = None,
    process: DrawingProcess | None = None,
) -> dict[str, Any]:
    """Label data with a fitted model and write the labels with a report.

    Parameters
    ----------
    model
        Path or URL of a ``model.zarr``, or of the output of a run.
    config
        The job, of which source, compute and output are used.
    watch, step, access, process
        As for `run_fit`.

    Returns
    -------
    dict
        The content of ``run.json``.

    Raises
    ------
    ClusteringError
        If the job cannot run.
    """
    fitted, _ = load_model(model)
    opened = partial(open_job, config, watch, fitted, access)
    job: PreparedJob = step("open", opened)
    with job.output.locked(lambda: job.begun), working(job, watch) as runner:
        refuse_finished(job)
        drawing = begin_drawing(job.source, job.output, process) if config.output.report else None
        try:
            labelled: LabelledRun = step("label", partial(label_with, job, runner, fitted, watch, drawing))
        except ClusteringError as error:
            # After a mistake of the user, the same command would fail again, so its files are removed. After a lost
            # cluster the command can resume, so they stay.
            if job.begun is not None and not isinstance(error, ExecutionError):
                remove_version(job.output.staging(job.begun))
            raise
        record: dict[str, Any] = step("report", partial(publish, job, runner.engine, labelled, watch))
    return record


@contextmanager
def working(job: PreparedJob, watch: Watch) -> Iterator[PassRunner]:
    """Connect to the cluster of a job, and offer a pass runner for its rows.

    Parameters
    ----------
    job
        The prepared job.
    watch
        Receives messages and progress.

    Yields
    ------
    PassRunner
        Runner of passes over decoded rows.
    """
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
            # A prediction makes a single pass, so no row is needed twice.
            keep=job.given_model is None,
            fraction=job.options.row_fraction if job.given_model is None else None,
            # A fit learns its preparation from pass 0.
            preparation=None if job.given_model is None else job.given_model.preparation,
        ) as runner,
    ):
        yield replace(runner, held_out=job.held_out)
