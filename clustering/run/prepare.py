"""Prepared jobs: a config is checked, and its source, model and output are opened. Nothing is written yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any

from clustering.config import JobConfig, SourceSection
from clustering.data.access import open_data
from clustering.data.addresses import local_path, shown
from clustering.data.block_fingerprints import BlockFingerprints
from clustering.data.codecs import checksum_remark
from clustering.data.layout import FeatureLayout
from clustering.data.plan import Plan, plan_like
from clustering.data.preparation import usable_memory
from clustering.data.source import Source
from clustering.data.source_fingerprint import source_fingerprint
from clustering.errors import ClusteringError, ConfigError, OutputError, PlaceError
from clustering.execution.held_out import HeldOut
from clustering.execution.passes import MEMORY_SHARE
from clustering.fitting.cluster_names import default_names
from clustering.fitting.features import check_features
from clustering.fitting.fitted_model import FittedModel
from clustering.fitting.labelling import LabelOutputs, check_outputs, smaller_outputs
from clustering.fitting.options import Options, check_combination, options_for
from clustering.fitting.preprocessing import fingerprint
from clustering.models.model import AnyModel
from clustering.options import LabelOptions, SourceOptions
from clustering.run.drawing import check_drawing
from clustering.run.previous import PreviousVersion
from clustering.run.watch import Watch, counted
from clustering.storage import checkpoints, versions
from clustering.storage.bucket_output import BucketOutput, open_output
from clustering.storage.checkpoints import Checkpoint, RunFingerprint
from clustering.storage.labels import check_names, coordinate_cautions
from clustering.storage.ledger import FOLDER, Ledger
from clustering.storage.names_file import read_names
from clustering.storage.output import Output

HELD_OUT_BLOCK = 256 * 1024
"""Least size of the default blocks where some are held out, in bytes."""


@dataclass(frozen=True, eq=False)
class PreparedJob:
    """A checked config with its source, model and output opened."""

    config: JobConfig
    source: Source
    plan: Plan
    output: Output | BucketOutput
    fingerprint: RunFingerprint
    options: Options
    model: AnyModel
    """The model to fit, or that of `given_model`."""
    given_model: FittedModel | None
    """The fitted model to label with; None for a fit."""
    label_outputs: LabelOutputs
    """Which label outputs the config asks for."""
    remarks: tuple[str, ...] = ()
    """Remarks on the config and the source, for the user."""
    block_fingerprints: BlockFingerprints | None = None
    """Fingerprints of the blocks, where a later run may use the ledger of the label pass; None otherwise."""
    previous: PreviousVersion | None = None
    """The version that was current when the run began; None in a new output."""

    @property
    def begun(self) -> str | None:
        """Name of an unfinished run that this job resumes: a fit with checkpoints, or a prediction; None for none."""
        if self.given_model is None or self.unfinished is not None:
            return self.unfinished
        return next(iter(versions.list_staged(self.output)), None)

    @property
    def held_out(self) -> HeldOut | None:
        """Rule for held-out blocks, which the fit never sees; None where there are none."""
        share = self.config.held_out if self.given_model is None else 0.0
        return HeldOut(self.plan, round(1 / share)) if share else None

    @property
    def follows(self) -> bool:
        """Whether it adds a version to those of the output: a fit from the current model, or a prediction."""
        return self.given_model is not None or _follows(self.config)

    @property
    def row_variables(self) -> LabelOutputs:
        """Label outputs that are written; ``changed`` only where there are previous labels to compare with."""
        output = self.config.output
        compared = output.labels and output.changed and self.previous is not None and self.previous.labels is not None
        return self.label_outputs.model_copy(update={"changed": compared})

    @property
    def has_model(self) -> bool:
        """Whether the job begins with a fitted model, given or current. Then there is no pass 0."""
        return self.given_model is not None or (self.follows and self.previous is not None)

    @property
    def unfinished(self) -> str | None:
        """Name of the unfinished fit of this output; None where there is none."""
        return versions.unfinished(self.output)


@dataclass(frozen=True, eq=False)
class SourceAccess:
    """How a job reaches its source, as far as its config cannot hold it."""

    data: Any = None
    """Opened source or data in memory; None for the store of the config."""
    storage_options: Mapping[str, Any] | None = None
    """Storage options with credentials; None for those of the config."""


def open_job(
    config: JobConfig,
    watch: Watch,
    model: FittedModel | None = None,
    access: SourceAccess | None = None,
    compared: Mapping[str, Any] | None = None,
) -> PreparedJob:
    """Prepare a job, check its output, and show its cautions. Nothing is written and no data are read.

    Parameters
    ----------
    config
        The job.
    watch
        Receives messages.
    model, access, compared
        As for `prepare_job`.

    Raises
    ------
    ClusteringError
        If something that the config names is missing or does not fit.
    """
    open_output(config.output.store, config.output.storage_options).check()
    _check_report(config)
    job = prepare_job(config, model, access, compared)
    refuse_finished(job)
    # A damaged names.json would otherwise stop the run only after its passes.
    read_names(job.output.path)
    source = job.source
    for caution in source.cautions:
        watch.warn(caution)
    shape = " × ".join(f"{d} {n:,}" for d, n in zip(source.sample_dims, source.shape, strict=True))
    size = f"{counted(source.n_features, 'feature')}; {counted(len(job.plan), 'block')}"
    watch.say(f"source {shown(config.source.store)}: {shape}; {size}")
    for remark in job.remarks:
        watch.say(remark)
    return job


def open_configured(
    section: SourceSection,
    like: FeatureLayout | None = None,
    access: SourceAccess | None = None,
) -> Source:
    """Open the source of a config.

    Parameters
    ----------
    section
        The section ``source`` of the config.
    like
        Feature layout of a model, which gives variables and dimensions that the config does not name.
    access
        What the config cannot hold; None where it says all.

    Raises
    ------
    ClusteringError
        If the source is missing or does not fit, or its credentials are in a Prefect block that nobody read.
    """
    access = access or SourceAccess()
    if section.credentials is not None and access.storage_options is None:
        raise ConfigError(
            f"source.credentials names the Prefect block {section.credentials!r}, which only commands and flows read; "
            "give its content as storage_options"
        )
    if isinstance(access.data, Source):
        # The section tells how it was opened.
        return access.data
    # Only options that the config sets are passed on, as the feature layout of a model gives the others.
    options = {name: getattr(section, name) for name in SourceOptions.model_fields if name in section.model_fields_set}
    if access.storage_options is not None:
        options["storage_options"] = access.storage_options
    return open_data(
        section.store if access.data is None else access.data, SourceOptions.model_construct(**options), like
    )


def prepare_job(
    config: JobConfig,
    model: FittedModel | None = None,
    access: SourceAccess | None = None,
    compared: Mapping[str, Any] | None = None,
) -> PreparedJob:
    """Open the source and check the config. Whether the output may be written to is not checked here.

    Parameters
    ----------
    config
        The job.
    model
        Fitted model to label with; None to fit.
    access
        As for `open_configured`.
    compared
        What a sweep compares, as a part of the fingerprint of the run; None for other jobs.

    Raises
    ------
    ClusteringError
        If something that the config names is missing or does not fit.
    """
    source = open_configured(config.source, None if model is None else model.layout, access)
    check_apart(config.source.store, config.output.store)
    if model is not None:
        source = replace(source, cautions=(*source.cautions, *check_features(source, model)))
        _check_preprocess(config, model)
    fitted_model = config.model.build() if model is None else model.model
    # In a new output there is no model yet, so the first run starts as usual.
    fit_options = config.fit.model_copy(update={"init": "kmeans++"}) if _follows(config) else config.fit
    options = options_for(fitted_model, fit_options, config.preprocess)
    if model is None:
        check_combination(source, fitted_model, options)
    label_outputs, cautions = _checked_outputs(config, source, fitted_model)
    source = replace(source, cautions=(*source.cautions, *cautions))
    output = open_output(config.output.store, config.output.storage_options)
    run, follows = output.finished, _follows(config) or model is not None
    content = config.result_keys if compared is None else {**config.result_keys, "select": compared}
    if run is not None and model is None and follows:
        # A model that does not fit is refused before blocks are planned and fingerprinted.
        _check_current(config, PreviousVersion(run, output.published, source).fitted, source, fitted_model)
        # A start from another version gives other bits, so checkpoints of one are no use to the other.
        content = {**content, "follows": run}
    # A prediction takes feature weights from its model, so only the source counts.
    run_fingerprint = RunFingerprint(
        content, fingerprint(config.preprocess, source) if model is None else source_fingerprint(source)
    )
    prepares = bool(config.preprocess.requested) if model is None else model.preparation is not None
    plan = _plan(config, source, output, prepares=prepares, follows=follows)
    block_fingerprints = BlockFingerprints.for_plan(source, plan) if follows else None
    previous = None if run is None else PreviousVersion(run, output.published, source, block_fingerprints)
    remarks = (*smaller_outputs(label_outputs, fitted_model.k), *_integrity(source))
    return PreparedJob(
        config,
        source,
        plan,
        output,
        run_fingerprint,
        options,
        fitted_model,
        model,
        label_outputs,
        remarks,
        block_fingerprints,
        previous,
    )


def _checked_outputs(config: JobConfig, source: Source, model: AnyModel) -> tuple[LabelOutputs, tuple[str, ...]]:
    """Collect the label outputs, and refuse those that cannot be made; with cautions on their coordinates."""
    outputs = LabelOutputs(**{name: getattr(config.output, name) for name in LabelOptions.model_fields})
    check_outputs(outputs, model)
    check_names(source, default_names(model.k), outputs)
    if not outputs.anything:
        return outputs, ()
    return outputs, tuple(coordinate_cautions(source, default_names(model.k), outputs, model))


def _plan(config: JobConfig, source: Source, output: Output | BucketOutput, *, prepares: bool, follows: bool) -> Plan:
    """Plan the blocks of a job; those of a job that follows a version are like the blocks of that version."""
    within = usable_memory(source, config.memory_bytes, prepares)
    # Ledgers and held-out scores belong to blocks of the label pass. A fit that uses them must have the same blocks.
    cut = partial(source.plan, memory=within, whole_chunks=not (follows or config.held_out))
    plan = cut(block_bytes=config.block_bytes)
    if config.held_out and config.block_bytes is None:
        # Whole blocks are held out, so small data are cut into more of them.
        plan = cut(block_bytes=min(plan.block_bytes, max(HELD_OUT_BLOCK, plan.cells * plan.row_bytes // 64)))
    if output.finished is not None and follows and config.block_bytes is None:
        # Blocks of other shapes than before would all count as new.
        plan = plan_like(plan, Ledger(output.published / FOLDER).about.get("joined", ()), within // MEMORY_SHARE)
    return plan


def _follows(config: JobConfig) -> bool:
    """Return whether a fit begins with the current model of its output."""
    return isinstance(config.fit.init, str) and config.fit.init == "model"


def check_apart(source: str, output: str) -> None:
    """Refuse a source inside the output, where old versions are removed, and an output inside the source.

    Parameters
    ----------
    source, output
        Paths or URLs of the two stores.

    Raises
    ------
    OutputError
        If one is inside the other; the message names both.
    """
    paths = [local_path(store) for store in (source, output)]
    one, other = (
        store.rstrip("/") if path is None else str(path.resolve())
        for store, path in zip((source, output), paths, strict=True)
    )
    for inner, outer in ((one, other), (other, one)):
        # The slash keeps a folder apart from one whose name only begins alike.
        if f"{inner}/".startswith(f"{outer}/"):
            raise PlaceError(
                f"output.store {shown(output)!r} and source.store {shown(source)!r} are one inside the other; "
                "name another output.store"
            )


def _check_current(config: JobConfig, current: FittedModel, source: Source, model: AnyModel) -> None:
    """Refuse to go on from the current model where the config asks for a different one."""
    if current.model != model:
        raise ConfigError(
            f"fit.init is 'model' and the current model of output.store {config.output.store!r} is {current.model}, "
            f"and the config asks for {model}; set fit.init to 'kmeans++' to begin anew, or name another output.store"
        )
    check_features(source, current)
    _check_preprocess(config, current)


def preflight_errors(job: PreparedJob) -> tuple[str, ...]:
    """List the errors that would stop the job as soon as it runs, with the present content of its output.

    Parameters
    ----------
    job
        The prepared job.
    """
    # All errors are collected, so that the user can mend them together.
    errors = []
    checks: tuple[Callable[[], Any], ...] = (
        job.output.check,
        partial(_check_report, job.config),
        partial(refuse_finished, job),
        partial(read_names, job.output.path),
    )
    for check in checks:
        try:
            check()
        except ClusteringError as error:
            errors.append(str(error))
    return tuple(errors)


def _check_report(config: JobConfig) -> None:
    """Refuse a report that nothing can draw, before data are read."""
    if config.output.report:
        check_drawing(", or set output.report to false")


def _integrity(source: Source) -> tuple[str, ...]:
    """Remark on a stored source without checksums."""
    arrays = [stored.array.metadata.to_dict() for stored in source.stored.values()]
    return tuple(filter(None, [checksum_remark(arrays)]))


def _check_preprocess(config: JobConfig, model: FittedModel) -> None:
    """Refuse a different preprocessing than the model's own, which is always applied."""
    own = {} if model.preparation is None else model.preparation.wish
    for key, value in config.preprocess.requested.items():
        if value != own.get(key):
            raise ConfigError(
                f"preprocess.{key} is {value!r}, and the model was fitted with {own.get(key)!r}; leave 'preprocess' "
                "out, as the model's own is applied, or fit a new model"
            )


def refuse_finished(job: PreparedJob) -> None:
    """Refuse to run in an output that holds a finished run, unless the config or an unfinished run allows it.

    Parameters
    ----------
    job
        The prepared job.

    Raises
    ------
    OutputError
        If the output must stay as it is; the message names the remedy.
    """
    output = job.output
    if job.given_model is not None and job.unfinished:
        raise PlaceError(
            f"output.store {job.config.output.store!r} holds an unfinished fit; finish it, or name another folder"
        )
    # Ids, labels and records come from the version that was current at the start, so it must be current still.
    if job.follows and (None if job.previous is None else job.previous.run) != output.finished:
        raise OutputError(
            f"another run was published in output.store {job.config.output.store!r} while this one began; run again"
        )
    if job.follows and job.given_model is None:
        # Such a fit adds a version and replaces nothing.
        return
    # Predictions follow one another freely. A finished fit gives way only to output.overwrite.
    if job.given_model is not None and output.finished and output.read_json("run.json").get("task") == "predict":
        return
    # An unfinished run was allowed when it began, so it may go on without output.overwrite.
    unfinished = job.given_model is None and unfinished_run(job)
    if output.finished and not unfinished and not job.config.output.overwrite:
        raise PlaceError(
            f"output.store {job.config.output.store!r} holds a finished run; "
            "set output.overwrite to true to make another version there, or name another folder"
        )


def unfinished_run(job: PreparedJob) -> Checkpoint | None:
    """Load the last checkpoint of an unfinished run of this job; None where there is none.

    Parameters
    ----------
    job
        The prepared job.

    Raises
    ------
    CheckpointError
        If the unfinished run has another config or another source; the message names the difference.
    """
    return checkpoints.latest(job.output.checkpoints, job.model, job.fingerprint, job.output.finished)


def provenance(job: PreparedJob, run: str) -> dict[str, Any]:
    """Return the attributes that say which source, config and run a model and its labels come from.

    Parameters
    ----------
    job
        The prepared job.
    run
        Name of the run.
    """
    return {
        "source": shown(job.config.source.store),
        "run": run,
        "config_sha256": job.fingerprint.config_sha256,
        "source_fingerprint": job.fingerprint.source,
        "version": version("zarr-clustering"),
    }
