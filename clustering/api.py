"""The public interface: fits a model to data, applies it, saves it, loads it, and runs whole jobs."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from clustering.config import job_config
from clustering.data.access import check_not_opened, open_data
from clustering.data.preparation import usable_memory
from clustering.data.source_fingerprint import check_unchanged
from clustering.deferred import xr
from clustering.errors import ConfigError, ConvergenceWarning
from clustering.execution.engine import connect
from clustering.execution.passes import pass_runner
from clustering.exports.content import content_of_version
from clustering.exports.targets import export
from clustering.fitted import Fit, load_fit
from clustering.fitting.fitted_model import LIMITS, early_stop_note
from clustering.fitting.labelling import discard, label_blocks
from clustering.fitting.loop import PassRecord, Stop
from clustering.fitting.options import options_for
from clustering.html_repr import page, section
from clustering.models.model import AnyModel
from clustering.models.registry import MODELS
from clustering.option_values import in_bytes
from clustering.options import FitCall, RunCall, SelectCall, cluster_of, wanted_block
from clustering.plotting import RunPlots
from clustering.progress import with_bar
from clustering.run import fit as passes
from clustering.run import sweep as sweeps
from clustering.run.initialize import start_fresh
from clustering.run.watch import LogWatch
from clustering.selected import Selection
from clustering.showing import show, show_one
from clustering.signatures import in_python_words, takes_after_two
from clustering.storage.checkpoints import Checkpoint
from clustering.storage.layout import VERSIONS
from clustering.storage.model import load_model
from clustering.storage.names_file import load_cluster_names
from clustering.storage.paths import StoragePath, storage_path, zarr_store

logger = logging.getLogger(__name__)


@takes_after_two(FitCall)
def fit(data: Any, model: AnyModel, options: FitCall) -> Fit:
    """Fit a model to data of any size.

    Objective and distances are those of prepared rows; centers are in the data's units. `clustering.run` does the same
    with checkpoints, and writes the outcome to disk.

    Parameters
    ----------
    data
        A `Source`; path or URL of a Zarr store; xarray object, zarr array, dask array, ndarray ``(n, d)``, list of
        rows, or data frame, whose columns are the features.
    model
        The model to fit, such as ``KMeans(k=8)``.
    options
        Which part of the data is clustered, how rows are prepared, how to fit, and where.

    Returns
    -------
    Fit
        The fit. Every Dask cluster and every number of workers gives the same bits.

    Raises
    ------
    ConfigError, SourceError, DataError
        For options, paths or values that do not fit; the message names the remedy.

    Warns
    -----
    ClusteringWarning
        For likely mistakes: attributes that are ignored, absent chunks, times that are no dates, and causes that
        exclude most rows. `Fit.warnings` has the same lines, and those of the fit itself.
        ``warnings.filterwarnings("ignore", category=clustering.ClusteringWarning)`` silences them.
    ConvergenceWarning
        Where `max_iterations` or `max_seconds` ended the fit before its stopping test was met.

    Examples
    --------
    >>> import numpy as np, clustering as c
    >>> rows = np.array([[0.0], [1.0], [10.0], [11.0]])
    >>> c.fit(rows, c.KMeans(k=2)).objective
    1.0
    """
    made = fit_quietly(data, model, options)
    if made.fitted.early_stop is not None:
        show((made.fitted.early_stop,), ConvergenceWarning)
    return made


def fit_quietly(data: Any, model: AnyModel, options: FitCall) -> Fit:
    """Fit a model as `fit` does, by checked options, without the warning that a limit ended the fit.

    Parameters
    ----------
    data, model, options
        As for `fit`.
    """
    _check_model(model)
    if isinstance(options.init, str) and options.init == "model":
        raise ConfigError("init is 'model', which goes on from the current model of an output; use clustering.run")
    source = open_data(data, options)
    show(source.cautions)
    fit_options, memory = options_for(model, options, options), in_bytes(options.memory)
    within = usable_memory(source, memory, bool(options.requested))
    plan = source.plan(block_bytes=wanted_block(options, options.block_bytes), memory=within)
    # Warnings of single passes are kept in the fit, and not shown.
    quiet = LogWatch(logger.info, options.on_pass)
    fraction = fit_options.row_fraction
    with (
        connect(cluster_of(options), options.workers, memory, options.wait_seconds) as engine,
        pass_runner(source, plan, engine, memory=memory, scratch=options.scratch, fraction=fraction) as runner,
        with_bar(quiet, wanted=options.progress) as watch,
        watch.working(engine),
    ):
        started: Checkpoint = watch.step("sample", partial(start_fresh, runner, model, fit_options, memory, "", watch))
        show(started.warnings)
        started = replace(started, warnings=(*source.cautions, *started.warnings))
        accelerate = options.accelerate == "auto"
        ended: Checkpoint = watch.step(
            "fit", partial(passes.fit, runner, started, fit_options.rule, watch, accelerate=accelerate)
        )
        fitted = passes.fitted_model(ended, source, len(plan), drawn=options.draws_starts)
        # The fit has seen only some of the rows, so one more pass measures the objective of all rows.
        if fraction is not None:
            with pass_runner(
                source, plan, engine, memory=memory, keep=False, preparation=ended.preparation
            ) as everywhere:
                last = watch.step("label", partial(label_blocks, everywhere, model, fitted.params, discard))
            fitted = fitted.with_measured(last, len(plan)).labelled_on_all(last.statistics[0])
        elif fitted.stop is not Stop.CONVERGED or not model.objective_at_convergence:
            # The last pass measured the objective before its own update. One more measures it for the final params.
            prepared = replace(runner, preparation=ended.preparation)
            last = watch.step("label", partial(label_blocks, prepared, model, fitted.params, discard))
            fitted = fitted.with_measured(last, len(plan))
        # If the store changed during the fit, passes have read different data.
        check_unchanged(source)
    return Fit(fitted, source.labelled)


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run: a version of an output. Immutable; its parts are read when they are asked for."""

    record: Mapping[str, Any]
    """Content of its ``run.json``."""
    path: StoragePath
    """Folder of the version, or prefix in a bucket."""

    @property
    def name(self) -> str:
        """Name of the run."""
        return str(self.record["run"])

    @property
    def published(self) -> bool:
        """Whether it became the current version of its output when it was finished."""
        return bool(self.record["status"] == "finished")

    @property
    def fit(self) -> Fit:
        """The fitted model."""
        return Fit(load_model(self.path)[0])

    @property
    def labels(self) -> xr.Dataset:
        """Labels and further outputs on the sample grid, opened without reading them."""
        labels: xr.Dataset = xr.open_zarr(zarr_store(self.path / "labels.zarr"), consolidated=False)
        return labels

    def _repr_html_(self) -> str:
        """Show the run in a notebook: its facts and its warnings."""
        named = (
            "run",
            "status",
            "kind",
            "k",
            "n_rows",
            "n_features",
            "objective",
            "iterations",
            "stop_reason",
            "reads",
        )
        facts = [(name, str(self.record[name])) for name in named if name in self.record]
        warned = self.record.get("warnings", [])
        return page(
            "clustering.Run",
            f"{self.name}: {self.record['kind']}, k = {self.record['k']}",
            section("Facts", [*facts, ("path", str(self.path))], count=None, is_open=True),
            section("Warnings", [(line,) for line in warned], count=len(warned)),
        )

    @property
    def plot(self) -> RunPlots:
        """Plots of the fit and of the labels, which return matplotlib axes: ``run.plot.labels(time=0)`` and others."""
        fit = self.fit
        names = load_cluster_names(self.path.parent.parent, fit.ids)
        return RunPlots(fit.fitted, fit, names, self.record, str(self.path), partial(getattr, self, "labels"))

    def export(self, path: str | os.PathLike[str], *, to: str, overwrite: bool = False) -> list[Path]:
        """Write the model, with the names of its clusters, or the labels for another program.

        Parameters
        ----------
        path
            Path of the file or folder, on this machine.
        to
            Target: ``sklearn``, ``faiss``, ``onnx``, ``npz``, ``netcdf``, ``csv``, ``ome-zarr`` or ``geotiff``.
        overwrite
            Whether what an earlier export wrote there is replaced. Anything else is never replaced.

        Returns
        -------
        list of Path
            The files or folders written.

        Raises
        ------
        ConfigError, OutputError, MissingDependencyError
            As `Fit.export`.
        """
        return export(content_of_version(self.path), path, to, overwrite=overwrite)

    def __repr__(self) -> str:
        state = "published" if self.published else self.record["status"]
        return f"<Run {self.name}: {self.record['kind']}, k = {self.record['k']}, {state}, at {self.path}>"


@takes_after_two(RunCall)
def run(data: Any, model: AnyModel, options: RunCall) -> Run:
    """Do a whole job: fit a model, write it with labels and a report to an output, and publish the new version.

    It is the job of ``clustering fit``. After an interruption, the same call resumes after the last finished pass.

    Parameters
    ----------
    data
        Data as for `fit`.
    model
        The model to fit, such as ``KMeans(k=8)``.
    options
        Where the outcome goes, what is written and published, which part of the data is clustered, how rows are
        prepared, how to fit, and where.

    Returns
    -------
    Run
        The finished run.

    Raises
    ------
    ConfigError, SourceError, DataError, OutputError
        For options, paths or values that do not fit; the message names the remedy.

    Warns
    -----
    ClusteringWarning
        As `fit`, and for what the passes and the outputs give cause for.
    ConvergenceWarning
        As `fit`.
    """
    # A fit needs nothing of what writes labels, reports and versions.
    from clustering.run.job import run_fit
    from clustering.run.prepare import SourceAccess

    _check_model(model)
    check_not_opened(data, options)
    config = job_config(data, model, options)
    # Storage options stay in memory, as they may hold credentials.
    storage_options = options.storage_options if "storage_options" in options.model_fields_set else None
    quiet = LogWatch(lambda line: show_one(in_python_words(line, RunCall)), options.on_pass)
    with with_bar(quiet, wanted=options.progress) as watch:
        record = run_fit(config, watch, watch.step, SourceAccess(data, storage_options))
    if record["stop_reason"] in LIMITS and record["iterations"]:
        show((early_stop_note(Stop(record["stop_reason"]), record["iterations"]),), ConvergenceWarning)
    # The output itself shows the current version, which may be another one.
    return Run(record, storage_path(options.output) / VERSIONS / record["run"])


@takes_after_two(SelectCall)
def select_k(data: Any, model: Any, options: SelectCall) -> Selection:
    """Compare numbers of clusters, and recommend one where the criteria agree.

    All choices share pass 0, the row sample and every later pass. Criteria are measured on prepared rows; weights count
    as repeated rows.

    Parameters
    ----------
    data
        Data as for `fit`.
    model
        Gives the kind and the options that do not vary, such as ``KMeans`` or ``GaussianMixture(k=2)``; its k counts
        for nothing.
    options
        Which choices are compared, by which criteria; which part of the data is clustered, how rows are prepared, how
        to fit, and where.

    Returns
    -------
    Selection
        A row of criteria for each choice, the recommended choice or None, the reason, and the fits of all choices.

    Raises
    ------
    ConfigError, SourceError, DataError
        For options, paths or values that do not fit; the message names the remedy. A choice that fails is a row with
        the reason; it is an error where all fail.

    Warns
    -----
    ClusteringWarning
        As `fit`.

    Examples
    --------
    >>> import numpy as np, clustering as c
    >>> rows = np.random.default_rng(0).normal(size=(300, 2)) + 20 * np.repeat(np.eye(3, 2), 100, axis=0)
    >>> c.select_k(rows, c.KMeans, k=range(2, 7)).recommended
    {'k': 3}
    """
    model = model(k=1) if model in MODELS.values() else model
    _check_model(model)
    sweep = sweeps.plan_sweep(model, options, options, options, in_bytes(options.memory))
    source = open_data(data, options)
    show(source.cautions)
    plan = source.plan(
        block_bytes=wanted_block(options, options.block_bytes),
        memory=usable_memory(source, sweep.memory, bool(options.requested)),
    )
    watch = LogWatch(logger.info, options.on_pass)
    fraction = next(iter(sweep.options.values())).row_fraction
    with (
        connect(cluster_of(options), options.workers, sweep.memory, options.wait_seconds) as engine,
        pass_runner(source, plan, engine, memory=sweep.memory, scratch=options.scratch, fraction=fraction) as runner,
    ):
        surveyed, started = sweeps.begin(runner, sweep, "", watch)
        show(started.warnings)
        started = replace(started, warnings=(*source.cautions, *started.warnings))
        ended = sweeps.run_passes(surveyed.runner, sweep, started, watch)
        result = sweeps.conclude(surveyed, sweep, ended, watch)
        check_unchanged(source)
    fits = tuple(
        None if row["failed"] else Fit(result.fitted(choice.name, source, len(plan)), source.labelled)
        for choice, row in zip(sweep.choices, result.table, strict=True)
    )
    answer = result.recommendation
    reads = (ended.read_stats + result.measures.read_stats).blocks / len(plan)
    return Selection(result.table, answer.recommended, answer.reason, answer.votes, fits, reads, started.warnings)


def _check_model(model: Any) -> None:
    if type(model) not in MODELS.values():
        raise ConfigError(f"cannot fit {model!r}; give a model such as KMeans(k=8)")


__all__ = ["Fit", "PassRecord", "Run", "Selection", "fit", "load_fit", "run", "select_k"]
