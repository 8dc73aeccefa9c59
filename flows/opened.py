"""A job, opened: what its config names is there and fits, and nothing is written yet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from clustering.data.addresses import shown
from clustering.data.codecs import unchecked
from clustering.data.identity import Identities
from clustering.data.plan import Plan, plan_like
from clustering.data.preparation import room
from clustering.data.source import Source
from clustering.errors import ClusteringError, ConfigError, OutputError
from clustering.execution.passes import MEMORY_SHARE
from clustering.fitting import start as starting
from clustering.fitting.features import check_features
from clustering.fitting.fitted import Fitted
from clustering.fitting.labelling import Wanted
from clustering.fitting.loop import Rule
from clustering.fitting.preprocessing import Preprocess, fingerprint
from clustering.storage import checkpoints, versions
from clustering.storage.bucket_output import BucketOutput, open_output
from clustering.storage.checkpoints import Checkpoint, Identity
from clustering.storage.labels import check_names
from clustering.storage.model import load_model
from clustering.storage.output import Output
from clustering.storage.places import Place
from flows.config import JobConfig
from flows.credentials import open_configured
from flows.following import Predecessor
from flows.watch import Watch


@dataclass(frozen=True, eq=False)
class Job:
    """A checked config with what it names, opened."""

    config: JobConfig
    source: Source
    plan: Plan
    output: Output | BucketOutput
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
    identities: Identities | None = None
    """Of the blocks, where the ledger of the label pass is to be gone on from."""
    before: Predecessor | None = None
    """The version that this run follows."""
    start: Fitted | None = None
    """The model that a fit goes on from."""

    @property
    def unfinished(self) -> str | None:
        """Name of the run that may go on in this output."""
        return versions.unfinished(self.output)


def open_job(config: JobConfig, watch: Watch, model: Fitted | None = None) -> Job:
    """Open the source and check the output; nothing is written and no data are read.

    Raises
    ------
    ClusteringError
        For anything the config names that is not there or does not fit.
    """
    open_output(config.output.store, config.output.storage_options).check()
    job = described(config, model)
    refuse_finished(job)
    source = job.source
    for caution in source.cautions:
        watch.warn(caution)
    shape = " × ".join(f"{d} {n:,}" for d, n in zip(source.sample_dims, source.shape, strict=True))
    watch.say(f"source {shown(config.source.store)}: {shape}; {source.n_features:,} features; {len(job.plan):,} blocks")
    for remark in job.remarks:
        watch.say(remark)
    return job


def described(config: JobConfig, model: Fitted | None = None) -> Job:
    """Open the source and check what the config wishes, whatever stands in the output.

    Raises
    ------
    ClusteringError
        For anything the config names that is not there or does not fit.
    """
    source = open_configured(config.source)
    if model is not None:
        check_features(source, model)
        _check_preprocess(config, model)
    fitted_model = config.model.build() if model is None else model.model
    tolerance = fitted_model.tolerance if config.fit.tolerance is None else config.fit.tolerance
    rule = Rule(tolerance, config.fit.max_iterations, config.fit.max_seconds)
    keys = ("seed", "restarts", "finalists", "sample_rows", "init", "fraction")
    wish = Preprocess(**config.preprocess.model_dump())
    asked = {key: getattr(config.fit, key) for key in keys}
    # Where there is no model to go on from yet.
    asked["init"] = "kmeans++" if asked["init"] == "model" else asked["init"]
    options = starting.Options(**asked, rule=rule, preprocess=wish)
    if model is None:
        starting.check_combination(source, fitted_model, options)
    others = {"store", "storage_options", "report", "overwrite", "publish", "gate", "keep"}
    wanted = Wanted(**config.output.model_dump(exclude=others))
    wanted.check(fitted_model)
    check_names(source, fitted_model.k, wanted)
    output = open_output(config.output.store, config.output.storage_options)
    follows = config.fit.init == "model" or model is not None
    run = output.finished if follows else None
    start = None if run is None or model is not None else _current(config, output.published, source, fitted_model)
    content = config.identity if start is None else {**config.identity, "follows": run}
    identity = Identity(content, fingerprint(wish, source) if model is None else source.fingerprint())
    within = room(source, config.memory_bytes, bool(wish.asked) if model is None else model.preparation is not None)
    # What a ledger knows are blocks of the label pass, so that runs that follow one another have no others.
    plan = source.plan(block_bytes=config.block_bytes, memory=within, whole_chunks=not follows)
    before = None if run is None else Predecessor(run, output.published, None)
    if before is not None and config.block_bytes is None:
        plan = plan_like(plan, before.about.get("joined", ()), within // MEMORY_SHARE)
    identities = Identities.of(source, plan) if follows else None
    before = None if before is None else replace(before, identities=identities)
    remarks = (*wanted.remarks(fitted_model.k), *_integrity(source))
    return Job(
        config, source, plan, output, identity, options, fitted_model, model, wanted, remarks, identities, before, start
    )  # fmt: skip


def _current(config: JobConfig, place: Place, source: Source, model: Any) -> Fitted:
    """Load the current model of an output, for a fit that goes on from it."""
    found, _ = load_model(place)
    if found.model != model:
        raise ConfigError(
            f"fit.init is 'model' and the current model of {str(place)!r} is {found.model}, and the config asks for "
            f"{model}; set fit.init to 'kmeans++' to begin anew, or name another output.store"
        )
    check_features(source, found)
    _check_preprocess(config, found)
    return found


def faults(job: Job) -> tuple[str, ...]:
    """Say why the job would stop as soon as it is run, as things stand in its output."""
    found = []
    for check in (job.output.check, partial(refuse_finished, job)):
        try:
            check()
        except ClusteringError as error:
            found.append(str(error))
    return tuple(found)


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


def refuse_finished(job: Job) -> None:
    """Keep a finished output, unless it may be replaced or the run that goes on was meant to replace it."""
    output = job.output
    if job.known is not None and job.unfinished:
        raise OutputError(
            f"output.store {job.config.output.store!r} holds an unfinished fit; finish it, or name another folder"
        )
    if job.config.fit.init == "model" and job.known is None:
        # It adds a version to those that are there.
        return
    if job.known is not None and output.finished and output.read_json("run.json").get("task") == "predict":
        return
    unfinished = job.known is None and unfinished_run(job)
    if output.finished and not unfinished and not job.config.output.overwrite:
        raise OutputError(
            f"output.store {job.config.output.store!r} holds a finished run; "
            "set output.overwrite to true to make another version there, or name another folder"
        )


def unfinished_run(job: Job) -> Checkpoint | None:
    """Find where an unfinished run of this job stopped.

    Raises
    ------
    CheckpointError
        If the unfinished run has another config or another source; the message names what differs.
    """
    return checkpoints.latest(job.output.checkpoints, job.model, job.identity, job.output.finished)
