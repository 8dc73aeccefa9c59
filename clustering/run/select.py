"""The job of `select-k`: a resumable sweep over k, its outcome on disk, and the recommended model, published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from clustering.config import JobConfig, SelectSection
from clustering.data.addresses import shown
from clustering.data.source_fingerprint import check_unchanged
from clustering.errors import DataError, PlaceError, reason
from clustering.execution.passes import PassRunner
from clustering.fitting.initialization import SurveyedRows
from clustering.option_values import expanded
from clustering.run import sweep as sweeps
from clustering.run.drawing import EarlyDrawing
from clustering.run.job import Step, call, working
from clustering.run.label import label_rows
from clustering.run.prepare import PreparedJob, SourceAccess, open_job, prepare_job, refuse_finished, unfinished_run
from clustering.run.publish import publish
from clustering.run.report import draw_selection
from clustering.run.sweep import Sweep, SweepResult
from clustering.run.watch import Watch
from clustering.storage import checkpoints, versions
from clustering.storage.checkpoints import Checkpoint
from clustering.storage.layout import SELECTION, SELECTION_PAGE
from clustering.storage.output import new_run
from clustering.storage.paths import write_bytes, write_json

_RECORDED = ("recommended", "reason", "votes", "criteria", "independent_rows", "table")
"""What the ``run.json`` of a published model says of the sweep that chose it."""


def run_select(
    config: JobConfig,
    watch: Watch,
    step: Step[Any] = call,
    access: SourceAccess | None = None,
) -> dict[str, Any]:
    """Compare choices of k, write the outcome, and publish the recommended model like that of a fit.

    Parameters
    ----------
    config
        The job; the section ``select`` says what is compared, and the section ``model`` gives the rest.
    watch, step, access
        As for `clustering.run.job.run_fit`.

    Returns
    -------
    dict
        The content of ``selection.json``.

    Raises
    ------
    ClusteringError
        If the job cannot run. An interrupted one goes on when it is called again.
    """
    job, sweep = step("open", partial(open_selection, config, watch, access))
    with job.output.locked(lambda: job.unfinished), working(job, watch) as runner:
        # Another run may have been published after the first check and before the lock.
        _refuse_finished(job)
        drawing = EarlyDrawing(job.source) if config.output.report else None
        surveyed, started = step("sample", partial(_start_or_resume, job, sweep, runner, watch))
        save = partial(_save, job)
        ended: Checkpoint = step("fit", partial(sweeps.run_passes, surveyed.runner, sweep, started, watch, save))
        result: SweepResult = step("choose", partial(sweeps.conclude, surveyed, sweep, ended, watch))
        name = _published(result, config.select)
        content = _content(job, result, name)
        check_unchanged(job.source)
        watch.say(content["reason"])
        _write(job, content, watch)
        if name is None:
            # With checkpoints, the sweep would count as unfinished.
            checkpoints.clear(job.output.checkpoints)
        else:
            chosen = _job_of(job, result, name, access)
            labelled = step("label", partial(label_rows, chosen, runner, result.checkpoint_of(name), watch, drawing))
            labelled = replace(labelled, selection={key: content[key] for key in _RECORDED})
            step("report", partial(publish, chosen, runner.engine, labelled, watch))
        watch.finished(content, ())
    return content


def open_selection(config: JobConfig, watch: Watch, access: SourceAccess | None = None) -> tuple[PreparedJob, Sweep]:
    """Prepare a sweep, and check its output. Nothing is written and no data are read.

    Parameters
    ----------
    config
        The job.
    watch
        Receives messages.
    access
        As for `clustering.run.prepare.prepare_job`.

    Raises
    ------
    ClusteringError
        If something that the config names is missing or does not fit.
    """
    section = config.select
    # The largest k decides which labels the output must have room for.
    config = _with_model(config, k=max(expanded(section.k)))
    model, memory = config.model.build(), config.memory_bytes
    sweep = sweeps.plan_sweep(model, section, config.fit, config.preprocess, memory)
    # A killed sweep may go on to publish another choice.
    job = open_job(config, watch, None, access, section.model_dump(mode="json", exclude={"publish"}))
    _refuse_finished(job)
    return job, sweep


def _with_model(config: JobConfig, **options: Any) -> JobConfig:
    # The section accepts options of any model, and its own check is made where it builds the model.
    section = type(config.model).model_validate({**config.model.model_dump(), **options})
    return config.model_copy(update={"model": section})


def _refuse_finished(job: PreparedJob) -> None:
    """Refuse to replace the outcome of an earlier sweep, or a finished run, unless the config allows it."""
    output = job.config.output
    # An unfinished sweep of the same config goes on in any case.
    if unfinished_run(job) is None and not output.overwrite and (job.output.path / SELECTION).is_file():
        raise PlaceError(
            f"output.store {output.store!r} holds the outcome of a sweep over k; set output.overwrite to true to "
            "replace it, or name another folder"
        )
    refuse_finished(job)


def _start_or_resume(
    job: PreparedJob, sweep: Sweep, runner: PassRunner, watch: Watch
) -> tuple[SurveyedRows, Checkpoint]:
    """Begin a sweep, or go on from the last checkpoint of an unfinished one."""
    checkpoint = unfinished_run(job)
    if checkpoint is not None:
        watch.say(f"continuing unfinished sweep {checkpoint.run} after pass {checkpoint.state.iteration}")
        # The row sample is no part of a checkpoint. Pass 0 draws the same one again.
        surveyed = sweeps.survey(runner, sweep, watch)
        read_stats = checkpoint.read_stats + surveyed.result.read_stats
        return surveyed, replace(checkpoint, read_stats=read_stats)
    surveyed, begun = sweeps.begin(runner, sweep, new_run(), watch)
    # Checkpoints of an abandoned run would otherwise count as those of this one.
    checkpoints.clear(job.output.checkpoints)
    _save(job, begun)
    return surveyed, begun


def _save(job: PreparedJob, checkpoint: Checkpoint) -> None:
    checkpoints.save(job.output.checkpoints, checkpoint, job.fingerprint)


def _published(result: SweepResult, section: SelectSection) -> str | None:
    """Return the name of the choice that is published; None for none."""
    wanted: Mapping[str, Any] | None = section.requested
    if section.publish == "recommended":
        wanted = result.recommendation.recommended
    if wanted is None:
        return None
    choices = zip(result.sweep.choices, result.table, strict=True)
    choice, row = next((choice, row) for choice, row in choices if wanted.items() <= choice.about.items())
    if row["failed"]:
        raise DataError(f"select.publish is {section.publish}, and that choice has no model: {row['failed']}")
    return choice.name


def _content(job: PreparedJob, result: SweepResult, name: str | None) -> dict[str, Any]:
    """Make the content of ``selection.json``."""
    answer, measures = result.recommendation, result.measures
    rows = int(next(iter(measures.choices.values())).sums.rows.sum())
    reads = (result.checkpoint.read_stats + measures.read_stats).blocks / len(job.plan)
    return {
        "recommended": answer.recommended,
        "reason": answer.reason,
        "votes": answer.votes,
        "table": list(result.table),
        "kind": job.model.kind,
        "criteria": list(result.sweep.criteria),
        "n_rows": rows,
        "independent_rows": rows * measures.independent_share,
        "published": None if name is None else next(c.about for c in result.sweep.choices if c.name == name),
        "run": None if name is None else result.checkpoint.run,
        "source": shown(job.config.source.store),
        "iterations": result.checkpoint.state.iteration,
        "reads": round(reads, 6),
        "seed": job.config.fit.seed,
        "config_sha256": job.fingerprint.config_sha256,
        "source_fingerprint": job.fingerprint.source,
        "warnings": [*job.source.cautions, *result.checkpoint.warnings],
        "finished_at": versions.now(),
        "config": job.config.to_json(),
    }


def _write(job: PreparedJob, content: Mapping[str, Any], watch: Watch) -> None:
    """Write the page of the sweep, and then its outcome, each in one step."""
    if job.config.output.report:
        try:
            write_bytes(job.output.path / SELECTION_PAGE, draw_selection(content).encode())
        except Exception as error:
            # A fault in drawing must not cost the outcome.
            watch.warn(f"no page of the sweep could be drawn ({reason(error)})")
    write_json(job.output.path / SELECTION, content)


def _job_of(job: PreparedJob, result: SweepResult, name: str, access: SourceAccess | None) -> PreparedJob:
    """Prepare the job of a fit of one choice, with the blocks of the sweep."""
    choice = next(one for one in result.sweep.choices if one.name == name)
    config = _with_model(job.config, **choice.about)
    own = prepare_job(config, None, access)
    return replace(own, source=job.source, plan=job.plan, fingerprint=job.fingerprint, output=job.output)
