"""The steps of a job. Plain functions: Prefect may wrap each, and the same steps run without it."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from clustering.api import check_features
from clustering.data.addresses import shown
from clustering.data.codecs import unchecked
from clustering.data.plan import Plan
from clustering.data.preparation import room
from clustering.data.source import Source
from clustering.errors import ConfigError, DataError, OutputError
from clustering.execution.engine import Engine, connect
from clustering.execution.passes import Rounds, rounds
from clustering.fitting import start as starting
from clustering.fitting.fitted import Fitted, Summary, fitted
from clustering.fitting.labelling import LabelStatistics, Wanted, label, nowhere
from clustering.fitting.loop import Rule, Stop, iterate
from clustering.fitting.preprocessing import Preprocess, fingerprint
from clustering.storage import checkpoints
from clustering.storage.checkpoints import Checkpoint, Identity
from clustering.storage.label_pass import RESUMABLE, write_labels
from clustering.storage.labels import check_names
from clustering.storage.ledger import FOLDER, Ledger
from clustering.storage.model import load_model, save_model
from clustering.storage.output import Output, new_run, write_json
from flows.config import JobConfig
from flows.credentials import open_configured
from flows.report import write_report
from flows.watch import Watch

T = TypeVar("T")
Step = Callable[[str, Callable[[], T]], T]
"""Runs a named step; Prefect's version makes it a task."""

_PACKAGES = ("zarr-clustering", "numpy", "numba", "zarr", "xarray", "dask")


def call(_: str, step: Callable[[], T]) -> T:
    """Run a step as it is."""
    return step()


@dataclass(frozen=True, eq=False)
class Job:
    """A checked config with what it names, opened."""

    config: JobConfig
    source: Source
    plan: Plan
    output: Output
    identity: Identity
    options: starting.Options
    model: Any
    """What is fitted."""
    known: Fitted | None
    """The model to label with; None for a fit."""
    wanted: Wanted
    """What is told of each row."""
    remarks: tuple[str, ...] = ()
    """What a user should know of the config and the source."""

    @property
    def unfinished(self) -> str | None:
        """Name of the run that may go on in this output."""
        return checkpoints.unfinished(self.output.checkpoints, self.output.finished)


@dataclass(frozen=True, eq=False)
class Labelled:
    """What is known once every row is labelled."""

    run: str
    fitted: Fitted
    folder: Path
    """Staging folder of the run."""
    seconds: dict[str, float]
    labels: bool
    """Whether labels were written."""
    rows: int
    masked: int
    """Cells of the source without a row."""


def run_fit(config: JobConfig, watch: Watch, step: Step[Any] = call) -> dict[str, Any]:
    """Fit a model and write it with its labels and its report.

    Returns
    -------
    dict
        The content of ``run.json``.
    """
    job: Job = step("open", partial(open_job, config, watch))
    with job.output.locked(lambda: job.unfinished), _working(job) as work:
        _refuse_finished(job)
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
        Path of a ``model.zarr``, or of the output of a run.
    """
    known, _ = load_model(model)
    job: Job = step("open", partial(open_job, config, watch, known))
    with job.output.locked(lambda: job.unfinished), _working(job) as work:
        _refuse_finished(job)
        labelled: Labelled = step("label", partial(label_with, job, work, known, watch))
        record: dict[str, Any] = step("report", partial(publish, job, work.engine, labelled, watch))
    return record


def open_job(config: JobConfig, watch: Watch, model: Fitted | None = None) -> Job:
    """Open the source and check the output; nothing is written and no data are read.

    Raises
    ------
    ClusteringError
        For anything the config names that is not there or does not fit.
    """
    output = Output(config.output.store)
    output.check()
    source = open_configured(config.source)
    if model is not None:
        check_features(source, model)
        _check_preprocess(config, model)
    fitted_model = config.model.build() if model is None else model.model
    tolerance = fitted_model.tolerance if config.fit.tolerance is None else config.fit.tolerance
    rule = Rule(tolerance, config.fit.max_iterations, config.fit.max_seconds)
    keys = ("seed", "restarts", "finalists", "sample_rows", "init", "fraction")
    wish = Preprocess(**config.preprocess.model_dump())
    options = starting.Options(**{key: getattr(config.fit, key) for key in keys}, rule=rule, preprocess=wish)
    if model is None:
        starting.check_combination(source, fitted_model, options)
    wanted = Wanted(**config.output.model_dump(exclude={"store", "report", "overwrite"}))
    wanted.check(fitted_model)
    check_names(source, fitted_model.k, wanted)
    identity = Identity(config.identity, fingerprint(wish, source) if model is None else source.fingerprint())
    within = room(source, config.memory_bytes, bool(wish.asked) if model is None else model.preparation is not None)
    plan = source.plan(block_bytes=config.block_bytes, memory=within)
    remarks = (*wanted.remarks(fitted_model.k), *_integrity(source))
    job = Job(config, source, plan, output, identity, options, fitted_model, model, wanted, remarks)
    _refuse_finished(job)
    for caution in source.cautions:
        watch.warn(caution)
    shape = " × ".join(f"{d} {n:,}" for d, n in zip(source.sample_dims, source.shape, strict=True))
    watch.say(f"source {shown(config.source.store)}: {shape}; {source.n_features:,} features; {len(plan):,} blocks")
    for remark in remarks:
        watch.say(remark)
    return job


def _integrity(source: Source) -> tuple[str, ...]:
    """Remark on a stored source without checksums."""
    arrays = [stored.array.metadata.to_dict() for stored in source.stored.values()]
    return tuple(filter(None, [unchecked(arrays)]))


def _check_preprocess(config: JobConfig, model: Fitted) -> None:
    """Refuse another preprocessing than the model's own, which is applied whether the config names it or not."""
    own = {} if model.preparation is None else model.preparation.wish
    for key, value in config.preprocess.model_dump(exclude_defaults=True).items():
        if value != own.get(key):
            raise ConfigError(
                f"preprocess.{key} is {value!r}, and the model was fitted with {own.get(key)!r}; leave 'preprocess' "
                "out, as the model's own is applied, or fit a new model"
            )


def _refuse_finished(job: Job) -> None:
    """Keep a finished output, unless it may be replaced or the run that goes on was meant to replace it."""
    output = job.output
    if job.known is not None and job.unfinished:
        raise OutputError(
            f"output.store {job.config.output.store!r} holds an unfinished fit; finish it, or name another folder"
        )
    unfinished = job.known is None and checkpoints.latest(output.checkpoints, job.model, job.identity, output.finished)
    if output.finished and not unfinished and not job.config.output.overwrite:
        raise OutputError(
            f"output.store {job.config.output.store!r} holds a finished run; "
            "set output.overwrite to true to replace it, or name another folder"
        )


@contextmanager
def _working(job: Job) -> Iterator[Rounds]:
    compute = job.config.compute
    with (
        connect(job.config.cluster, compute.workers, job.config.memory_bytes) as engine,
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
        yield inside


def begin(job: Job, work: Rounds, watch: Watch) -> Checkpoint:
    """Find where to go on, or make pass 0 and choose starts."""
    found = checkpoints.latest(job.output.checkpoints, job.model, job.identity, job.output.finished)
    if found is not None:
        watch.say(f"continuing unfinished run {found.run} after pass {found.state.iteration}")
        return found
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
    begun = Checkpoint(
        new_run(), started.state, Summary.of(survey), reading, {"sample": seconds}, started.remarks, started.warnings,
        started.preparation,
    )  # fmt: skip
    checkpoints.clear(job.output.checkpoints)
    checkpoints.save(job.output.checkpoints, begun, job.identity)
    return begun


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
    best = now.state.best
    told = "" if best.sums is None else _told(job.model, best.objective, float(best.sums["weight"].sum()))
    watch.say(f"{_REASONS[best.stop or Stop.CONVERGED]} after {len(best.history)} passes{told}")
    return now


def _told(model: Any, objective: float, weight: float) -> str:
    return f", {model.symbol} {model.reported(objective, weight):.10g}"


_REASONS = {
    Stop.CONVERGED: "converged (nothing changes any more)",
    Stop.TOLERANCE: "converged (within the tolerance)",
    Stop.MAX_ITERATIONS: "stopped by max_iterations",
    Stop.MAX_SECONDS: "stopped by max_seconds",
}


def label_rows(job: Job, work: Rounds, ended: Checkpoint, watch: Watch) -> Labelled:
    """Label every row with the final params, and keep the model beside the labels."""
    began = time.perf_counter()
    reads = ended.reading.blocks / len(job.plan)
    result = fitted(
        job.model, ended.state, job.source.features, ended.summary, reads, ended.reading.bytes, ended.remarks,
        ended.warnings,
        ended.reading.bad, ended.preparation,
    )  # fmt: skip
    folder = job.output.stage(ended.run, RESUMABLE if job.wanted.anything else ())
    drawn = job.options.drawn is not None
    if job.wanted.anything or drawn or result.stop is not Stop.CONVERGED or job.model.kind != "kmeans":
        # At a fixed point of k-means the last pass has told all there is to know already, if it was over all rows.
        sums, result = _labels(job, work, result, folder, watch)
        result = result.extended(sums) if drawn else result
    save_model(result, folder / "model.zarr", _provenance(job, ended.run))
    seconds = {**ended.seconds, "label": time.perf_counter() - began}
    return Labelled(
        ended.run,
        result,
        folder,
        seconds,
        job.config.output.labels,
        result.summary.count,
        result.summary.cells - result.summary.count,
    )


def label_with(job: Job, work: Rounds, model: Fitted, watch: Watch) -> Labelled:
    """Label every row with a model that was fitted before."""
    began = time.perf_counter()
    run = new_run()
    folder = job.output.stage(run)
    fresh = replace(model, reads=0.0, bytes_read=0, notes=())
    sums, result = _labels(job, work, fresh, folder, watch)
    rows = int(sums.rows.sum())
    about = replace(result.summary, cells=job.plan.cells, count=rows, weight=float(sums.weight.sum()))
    result = replace(result, summary=about)
    save_model(result, folder / "model.zarr", _provenance(job, run))
    return Labelled(run, result, folder, {"label": time.perf_counter() - began}, True, rows, job.plan.cells - rows)


def _labels(job: Job, work: Rounds, known: Fitted, folder: Path, watch: Watch) -> tuple[LabelStatistics, Fitted]:
    memory, preparation = job.config.memory_bytes, known.preparation
    within = room(job.source, memory, preparation is not None)
    plan = job.source.plan(block_bytes=job.config.block_bytes, memory=within, whole_chunks=False)
    # Where the selection starts inside a chunk, blocks that match the chunks of the labels are others than the fit's;
    # and a fit over a part of the rows kept no others.
    others = partial(rounds, job.source, plan, work.engine, memory=memory, keep=False, preparation=preparation)
    same = plan == job.plan and work.fraction is None
    with nullcontext(replace(work, preparation=preparation)) if same else others() as inside:
        if job.wanted.anything:
            about = _provenance(job, folder.name)
            passed = write_labels(
                inside, known.model, known.params, folder, about, job.wanted,
                lambda finished: watch.say(f"{finished:,} of {len(plan):,} blocks are labelled already"),
            )  # fmt: skip
        else:
            passed = label(inside, known.model, known.params, nowhere, job.wanted)
    sums: LabelStatistics = passed.statistics[0]
    if not sums.rows.any():
        raise DataError(
            f"no row takes part: all {job.plan.cells} cells are masked or have missing features; "
            "check source.mask, source.select and the fill values"
        )
    result = known.measured(passed, len(plan))
    weight = float(sums.weight.sum())
    watch.say(
        f"labelled {int(sums.rows.sum()):,} rows in {passed.seconds:.1f} s{_told(known.model, sums.objective, weight)}"
    )
    return sums, result


def _provenance(job: Job, run: str) -> dict[str, Any]:
    return {
        "source": shown(job.config.source.store),
        "run": run,
        "config_sha256": job.identity.config_sha256,
        "source_fingerprint": job.identity.source,
        "version": version("zarr-clustering"),
    }


def publish(job: Job, engine: Engine, labelled: Labelled, watch: Watch) -> dict[str, Any]:
    """Write the report and ``run.json``, and switch the output to this run."""
    began = time.perf_counter()
    job.source.check_unchanged()
    record = _record(job, engine, labelled)
    bad = record["bad_chunks"]
    if bad:
        more = f" and {len(bad) - 3:,} more" * (len(bad) > 3)
        record["warnings"].append(f"{len(bad):,} chunks do not decode and are masked: {', '.join(bad[:3])}{more}")
        watch.warn(record["warnings"][-1])
    pictures: list[Any] = []
    if job.config.output.report:
        try:
            pictures = write_report(labelled.fitted, record, labelled.folder, job.source, job.config)
        except Exception as error:
            # The model and the labels are worth more than their pictures, which can be drawn again from the files.
            fault = " ".join(f"{type(error).__name__}: {error}".split())
            record["warnings"].append(f"no report could be drawn ({fault}); 'clustering report' tries again")
            watch.warn(record["warnings"][-1])
    seconds = {**labelled.seconds, "report": time.perf_counter() - began}
    record["seconds"] = _rounded(seconds)
    write_json(labelled.folder / "run.json", record)
    Ledger(str(labelled.folder / FOLDER)).remove()
    job.output.publish(labelled.run)
    if job.known is not None:
        # What an earlier fit left here no longer belongs to what is published.
        checkpoints.clear(job.output.checkpoints)
    watch.finished(record, pictures)
    return record


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in {**seconds, "total": sum(seconds.values())}.items()}


def _record(job: Job, engine: Engine, labelled: Labelled) -> dict[str, Any]:
    result = labelled.fitted
    reads = round(result.reads, 6)
    return {
        "status": "finished",
        "run": labelled.run,
        "kind": result.model.kind,
        "k": int(result.model.k),
        "source": shown(job.config.source.store),
        "n_rows": labelled.rows,
        "n_features": job.source.n_features,
        "n_masked": labelled.masked,
        **({} if result.summary.drawn is None else {"n_fitted": result.summary.drawn}),
        "n_sampled": result.summary.sampled,
        "objective": result.objective,
        **({} if result.preparation is None else {"preprocess": result.preparation.told}),
        **({} if result.criteria is None else {"criteria": result.criteria}),
        **({"beta": result.params.beta} if result.model.kind == "soft_kmeans" else {}),
        "iterations": result.iterations,
        "converged": result.converged,
        "stop_reason": str(result.stop),
        "reads": int(reads) if reads == int(reads) else reads,
        "bytes_read": result.bytes_read,
        "seconds": _rounded(labelled.seconds),
        "peak_rss_bytes": engine.peak_rss(),
        "seed": job.config.fit.seed,
        "config_sha256": job.identity.config_sha256,
        "source_fingerprint": job.identity.source,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "bad_chunks": list(result.bad_chunks),
        "warnings": [*job.source.cautions, *result.notes],
        "remarks": [*job.remarks, *result.remarks],
        "config": json.loads(job.config.model_dump_json(exclude={"source": {"storage_options"}})),
    }
