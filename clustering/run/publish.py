"""Publishes a finished run: writes `run.json` and the report, and switches the output to it if the config allows."""

from __future__ import annotations

import platform
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from clustering.data.addresses import shown
from clustering.data.source_fingerprint import check_unchanged
from clustering.errors import ClusteringError, reason
from clustering.execution.engine import Engine
from clustering.fitting.fitted_model import FittedModel
from clustering.models.registry import MODELS
from clustering.run.drawing import EarlyDrawing
from clustering.run.drawing_process import DrawingProcess
from clustering.run.following import update_summary
from clustering.run.gate import gate_failures, unmeasured_limits
from clustering.run.prepare import PreparedJob
from clustering.run.report import write_report
from clustering.run.watch import Watch
from clustering.storage import checkpoints, versions
from clustering.storage.ledger import FOLDER, Ledger
from clustering.storage.names_file import load_cluster_names
from clustering.storage.paths import StoragePath, write_json

_PACKAGES = ("zarr-clustering", "numpy", "numba", "zarr", "xarray", "dask")


@dataclass(frozen=True, eq=False)
class LabelledRun:
    """Outcome of the label pass of a run."""

    run: str
    fitted: FittedModel
    folder: StoragePath
    """Staging folder of the run."""
    seconds: dict[str, float]
    labels: bool
    """Whether labels were written."""
    rows: int
    masked: int
    """Number of cells of the source without a row."""
    comparison: dict[str, Any] | None = None
    """Comparison with the previous version, see `clustering.fitting.comparison`; None where there is none."""
    residency: dict[str, Any] | None = None
    """Where the rows lived between passes, see `clustering.execution.residency`."""
    drawing: EarlyDrawing | DrawingProcess | None = None
    """Draws pictures of the model since before the label pass; None for a run without a report."""
    selection: Mapping[str, Any] | None = None
    """Content of ``selection.json``, where a sweep chose the model; None otherwise."""


def publish(job: PreparedJob, engine: Engine, labelled: LabelledRun, watch: Watch) -> dict[str, Any]:
    """Write the report and ``run.json``, and switch the output to this run, if ``output.publish`` allows it.

    Parameters
    ----------
    job
        The prepared job.
    engine
        Engine of the run, which knows its peak memory.
    labelled
        Outcome of the label pass.
    watch
        Receives messages.

    Returns
    -------
    dict
        The content of ``run.json``.
    """
    began = time.perf_counter()
    # Blocks are read at different times. If the store changed meanwhile, the result belongs to no state of it.
    check_unchanged(job.source)
    record = _record(job, engine, labelled)
    bad = record["bad_chunks"]
    if bad:
        more = f" and {len(bad) - 3:,} more" * (len(bad) > 3)
        record["warnings"].append(f"{len(bad):,} chunks do not decode and are masked: {', '.join(bad[:3])}{more}")
        watch.warn(record["warnings"][-1])
    # The report shows the warnings and remarks of the decision, so the decision comes first.
    record |= _decide(job, record, watch)
    # The report shows the time, so it is that before the drawing.
    record["finished_at"] = versions.now()
    pictures: list[Any] = []
    if job.config.output.report:
        try:
            pictures = _draw_report(job, labelled, record)
        except Exception as error:
            # A fault in drawing must not cost the model and the labels. The report can be drawn again from the files.
            record["warnings"].append(f"no report could be drawn ({reason(error)}); 'clustering report' tries again")
            watch.warn(record["warnings"][-1])
    seconds = {**labelled.seconds, "report": time.perf_counter() - began}
    record["seconds"] = _rounded(seconds)
    # A folder with run.json counts as a finished version, so this file is written last.
    write_json(labelled.folder / "run.json", record)
    # Records named by block numbers serve a killed pass of this run, and no later run.
    if job.block_fingerprints is None:
        Ledger(labelled.folder / FOLDER).remove()
    record = _switch_output(job, record, watch)
    watch.finished(record, pictures)
    return record


def _draw_report(job: PreparedJob, labelled: LabelledRun, record: Mapping[str, Any]) -> list[Any]:
    """Write the report, and return its figures; those that a process has drawn stay there."""
    contents = labelled.fitted, record, labelled.folder, job.source, job.config, job.output
    if isinstance(labelled.drawing, DrawingProcess):
        return [] if labelled.drawing.write(record, job.config, job.output) else write_report(*contents)
    return write_report(*contents, labelled.drawing)


def _decide(job: PreparedJob, record: Mapping[str, Any], watch: Watch) -> dict[str, Any]:
    """Decide whether a version becomes the current one, and return the entries of ``run.json`` that say so."""
    output, current = job.config.output, job.output.finished
    warnings, remarks = list(record["warnings"]), list(record["remarks"])
    decision: dict[str, Any] = {"gate": None, "warnings": warnings, "remarks": remarks}
    # The first version of an output has nothing to be compared with, and readers wait for it.
    if current is None or output.publish == "always":
        return decision
    remedy = f"'{promotion(output.store, record['run'])}' makes it the current version"
    if output.publish == "manual":
        if record["repeats"] == current:
            # The version is equal to the current one, so nobody has to decide.
            return decision
        remarks.append(f"it waits for a person, and {current} stays the current version: {remedy}")
        watch.say(remarks[-1])
        return {**decision, "status": "waiting"}
    comparison = record["comparison"], output.gate, MODELS[record["kind"]].objective.rises
    reasons, unmeasured = gate_failures(*comparison), unmeasured_limits(*comparison)
    decision["gate"] = {"reasons": reasons, "unchecked": unmeasured, "limits": output.gate.model_dump()}
    if reasons:
        warnings.append(
            f"held back, and {current} stays the current version: {'; '.join(reasons)}; {remedy} all the same"
        )
        watch.warn(warnings[-1])
        return {**decision, "status": "held"}
    if unmeasured:
        remarks.append(f"not measured, and so not checked: {', '.join(f'output.gate.{name}' for name in unmeasured)}")
        watch.say(remarks[-1])
    return decision


def promotion(store: str, run: str) -> str:
    """Write the command that makes a version the current one.

    Parameters
    ----------
    store
        Path or URL of the output.
    run
        Name of the version.
    """
    return f"clustering models promote {shlex.quote(store)} {run}"


def _switch_output(job: PreparedJob, record: dict[str, Any], watch: Watch) -> dict[str, Any]:
    """Make a version the current one if its status allows, remove old versions, and emit an event."""
    output, config, before = job.output, job.config.output, job.output.finished
    if record["status"] == "finished":
        record = versions.promote(output, record["run"])
    elif job.given_model is None:
        # With checkpoints, the version would count as an unfinished run.
        checkpoints.clear(output.checkpoints)
    # A version that was held back must stay until a person has decided, so it is spared.
    if config.keep is not None:
        try:
            versions.prune(output, config.keep, {record["run"]})
        except (ClusteringError, OSError) as error:
            # A new version must not fail because old ones cannot be removed.
            watch.warn(f"old versions could not be removed ({error}); 'clustering models prune' tries again")
    held = record["status"] != "finished"
    # The event comes last, so that whoever acts on it finds the new version.
    event = {
        "store": shown(config.store),
        "run": record["run"],
        "current": before if held else record["run"],
        "before": before,
        **{name: record[name] for name in ("kind", "k", "n_rows", "objective")},
        "reasons": (record["gate"] or {}).get("reasons", []),
        "remedy": promotion(config.store, record["run"]) if held else None,
    }
    watch.event(f"model.{record['status'] if held else 'published'}", event)
    return record


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in {**seconds, "total": sum(seconds.values())}.items()}


def _record(job: PreparedJob, engine: Engine, labelled: LabelledRun) -> dict[str, Any]:
    result = labelled.fitted
    # Shares of blocks add up with rounding errors, and three reads should not be told as 2.9999999.
    reads = round(result.reads, 6)
    names = {str(i): name for i, name in load_cluster_names(job.output.path, result.ids).names.items()}
    return {
        "status": "finished",
        "task": "fit" if job.given_model is None else "predict",
        "run": labelled.run,
        "kind": result.model.kind,
        "k": int(result.model.k),
        "largest_id": result.largest_id,
        "source": shown(job.config.source.store),
        "n_rows": labelled.rows,
        "n_features": job.source.n_features,
        "n_masked": labelled.masked,
        **({} if result.summary.drawn is None else {"n_fitted": result.summary.drawn}),
        "n_sampled": result.summary.sampled,
        "objective": result.objective,
        **({} if result.preparation is None else {"preprocess": result.preparation.summary}),
        **({} if result.criteria is None else {"criteria": result.criteria}),
        **result.model.run_facts(result.params),
        **({} if labelled.selection is None else {"selection": labelled.selection}),
        **({} if (followed := update_summary(job)) is None else {"followed": followed}),
        "repeats": None
        if job.previous is None or not job.previous.is_repeated_by(labelled.folder)
        else job.previous.run,
        **({"names": names} if names else {}),
        "comparison": labelled.comparison,
        "iterations": result.iterations,
        "converged": result.converged,
        "stop_reason": str(result.stop),
        "reads": int(reads) if reads == int(reads) else reads,
        "bytes_read": result.bytes_read,
        "residency": labelled.residency,
        "seconds": _rounded(labelled.seconds),
        "peak_rss_bytes": engine.peak_rss(),
        "seed": job.config.fit.seed,
        "config_sha256": job.fingerprint.config_sha256,
        "source_fingerprint": job.fingerprint.source,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "bad_chunks": list(result.bad_chunks),
        "warnings": [*job.source.cautions, *result.notes],
        "remarks": [*result.remarks, *job.remarks],
        "config": job.config.to_json(),
    }
