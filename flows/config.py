"""The config of a job: one YAML file, checked as a whole before anything is opened."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from clustering.data.addresses import absolute, check_url
from clustering.data.policies import MAX_BAD_FRACTION, Decoder, Missing, MissingChunks, OnBadChunk, ValidRange
from clustering.errors import ConfigError
from clustering.models.option_names import Covariance, Divergence
from flows.cluster_config import ClusterConfig
from flows.secret_options import BLOCK, refusal
from flows.values import Number, Size, Whole, in_bytes


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True)


Names = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
"""Names, or one by itself."""


Name = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
"""A name. Levels of image pyramids are named 0, 1, 2, which YAML reads as numbers."""


def _components(value: Any) -> Any:
    """Refuse a value of ``pca`` that is neither a number of components nor a share; a bool is no number here."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is None or (number and (value >= 1 if isinstance(value, int) else 0.0 < value < 1.0)):
        return value
    raise ValueError(
        "a whole number of components of 1 or more, a share of the variance between 0 and 1 (both excluded), or null "
        "is needed"
    )


class SourceConfig(_Section):
    """The data to cluster."""

    store: str
    """Path or URL of a Zarr store, version 2 or 3."""
    storage_options: dict[str, Any] = Field(default_factory=dict)
    """As fsspec takes them, without secrets: credentials come from the environment, or from a Prefect block."""
    credentials: str | None = None
    """Prefect Secret block that holds more storage options as a JSON object: secret/<name of the block>."""
    group: Name | None = None
    """Group inside the store."""
    variables: Names | None = None
    """Variables of the group; leave out for a bare array or a group with one variable."""
    sample_dims: Names | None = None
    """Dimensions that number the samples. Default: all that are not feature dimensions, or the first."""
    feature_dims: Names | None = None
    """Dimensions along which a sample's features lie; empty: each variable is one feature."""
    select: dict[str, Any] = Field(default_factory=dict)
    """Selection by label: {dim: {start, stop, step}}, a list, or one label; of dates also {months: [12, 1, 2]}."""
    isel: dict[str, Any] = Field(default_factory=dict)
    """Selection by position."""
    bbox: Annotated[list[Number], Field(min_length=4, max_length=4)] | None = None
    """Box on the map, [west, south, east, north]; from west eastward, so it may cross any meridian."""
    mask: str | None = None
    """Variable over sample dimensions, of true and false or 1 and 0: true = use; or one comparison of a variable, such
    as landfrac > 0.5 or surface in [1, 2]."""
    weights: str | None = None
    """Variable over sample dimensions, or cos(lat) of a latitude in degrees or radians."""
    labels: str | None = None
    """Variable with the known clusters of rows, for fit.init: labels; values other than 0, 1, … mean unknown."""
    missing: Missing = "drop"
    """A row with a missing feature is left out (drop), is an error, or counts with its other features (marginalize)."""
    missing_chunks: MissingChunks | None = None
    """A chunk that was never written is an error, masked, or holds its fill value. Default: masked where the fill value
    means missing, an error where it would count as data."""
    on_bad_chunk: OnBadChunk = "error"
    """A chunk that does not decode is an error, or masked."""
    max_bad_fraction: Number = Field(MAX_BAD_FRACTION, ge=0, le=1)
    """Largest share of the chunks that may be masked for this reason; above it, the run fails."""
    nodata: Number | dict[str, Number] | None = None
    """Stored number that means missing, besides those in the attributes; or one for each variable named."""
    decode: Decoder | dict[str, Decoder] | None = None
    """Named decoder of stored whole numbers, or one for each variable named: signed_square, (v / 127.5)^2 sign(v)."""
    valid_range: ValidRange = "cf"
    """Values outside valid_range, valid_min and valid_max of a variable are missing (cf), or these attributes are
    ignored (ignore)."""

    @model_validator(mode="after")
    def _no_secrets_in_a_config(self) -> Self:
        try:
            check_url(self.store)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        refused = refusal(self.store, self.storage_options)
        if refused is not None:
            raise ValueError(refused)
        if self.credentials is not None and not BLOCK.fullmatch(self.credentials):
            raise ValueError("source.credentials names no Prefect block; allowed: secret/<name of the block>")
        return self


_KEYS = {
    "kmeans": ("k", "divergence"),
    "soft_kmeans": ("k", "divergence", "beta"),
    "gaussian_mixture": ("k", "covariance", "regularization"),
    "von_mises_fisher": ("k", "assignment", "regularization"),
}
"""Keys of each kind of model."""


class ModelConfig(_Section):
    """The model to fit."""

    kind: Literal["kmeans", "soft_kmeans", "gaussian_mixture", "von_mises_fisher"] = "kmeans"
    """The model."""
    k: Whole = Field(8, ge=1)
    """Number of clusters."""
    divergence: Divergence | None = None
    """How far a row is from a center; of kmeans and soft_kmeans. Default: squared_euclidean."""
    beta: Literal["auto"] | Annotated[Number, Field(gt=0, allow_inf_nan=False)] | None = None
    """Stiffness of soft_kmeans, in one over squared units of the data; auto finds it by annealing. Default: 1."""
    covariance: Covariance | None = None
    """Shape of the components of a gaussian_mixture. Default: full."""
    regularization: Annotated[Number, Field(ge=0, allow_inf_nan=False)] | None = None
    """Keeps components from collapsing. Added to every variance of a gaussian_mixture, in units of the features' mean
    variance, or to 1 less the mean resultant length of a von_mises_fisher, in units of that of all rows. Default: 1e-6.
    """
    assignment: Literal["soft", "hard"] | None = None
    """Whether rows of a von_mises_fisher belong to several components, or to the likeliest alone. Default: soft."""

    @model_validator(mode="after")
    def _keys_are_the_kinds(self) -> Self:
        for name in ("divergence", "beta", "covariance", "regularization", "assignment"):
            if getattr(self, name) is not None and name not in _KEYS[self.kind]:
                owners = [kind for kind, keys in _KEYS.items() if name in keys]
                raise ValueError(f"model.{name} is no key of {self.kind}; it belongs to {' and '.join(owners)}")
        return self

    def build(self) -> Any:
        """Make the model; keys that are not given have the model's own defaults."""
        # Importing the models loads compiled kernels, which takes time. A wrong config is refused before.
        from clustering.models.registry import MODELS

        given = {name: getattr(self, name) for name in _KEYS[self.kind] if getattr(self, name) is not None}
        return MODELS[self.kind](**given)


class PreprocessConfig(_Section):
    """Preprocessing of rows, in this order: unit_norm, standardize, feature_weights, pca, whiten."""

    standardize: Literal[False, "per_feature", "per_variable"] = False
    """Bring each feature, or all values of a variable together, to mean 0 and variance 1."""
    unit_norm: bool = False
    """Divide each row by its Euclidean norm; rows of zeros are left out."""
    pca: Annotated[int | float | None, BeforeValidator(_components)] = None
    """Number of principal components, or the share of the variance that they have to exceed, such as 0.999."""
    pca_per_variable: bool = False
    """Principal components of each variable on its own."""
    whiten: bool = False
    """Divide components by their standard deviation."""
    feature_weights: str | None = None
    """Multiplies features: a variable along feature dimensions, cos(lat) or sqrt(cos(lat))."""

    @model_validator(mode="after")
    def _per_variable_needs_components(self) -> Self:
        if self.pca_per_variable and self.pca is None and not self.whiten:
            raise ValueError("preprocess.pca_per_variable is true and preprocess.pca is null; give preprocess.pca")
        return self


class FitConfig(_Section):
    """How to fit."""

    seed: Whole = Field(0, ge=0, le=2**63 - 1)
    """Seed of all random draws."""
    restarts: Whole = Field(10, ge=1)
    """Starts that compete on the row sample, in memory."""
    finalists: Whole = Field(1, ge=1)
    """Best starts carried to the full data; each block is read once whatever their number."""
    sample_rows: Whole = Field(200_000, ge=1)
    """Rows of the sample drawn in the first read."""
    init: Literal["kmeans++", "random", "labels", "model"] = "kmeans++"
    """How starts are chosen; labels: from the rows that source.labels gives clusters to; model: from the current model
    of the output, or from kmeans++ in a new output."""
    refresh: Literal["full", "new-only", "none"] = "full"
    """With init: model, how new data change the model: by an update and passes over all rows until nothing changes
    (full); by the update alone, which reads only new blocks (new-only); or not at all, so that only labels are made
    (none)."""
    max_iterations: Whole = Field(300, ge=0)
    """Passes over the full data at most."""
    tolerance: Number | None = Field(None, ge=0)
    """Stop when the objective changes by no more than this, relative to its scale; 0: when nothing changes. Default: 0
    for kmeans, 1e-6 for the others."""
    max_seconds: Number | None = Field(None, gt=0)
    """Stop after this wall time, in seconds, with a valid model."""
    fraction: Number = Field(1.0, gt=0, le=1)
    """Share of the rows, drawn at random, that the fit goes over; labels and the objective are of all rows."""
    held_out: Number | None = Field(None, ge=0, le=0.5)
    """Share of the blocks that the fit never sees, on which a new version is scored against the current one. Default:
    0.1 with output.publish: gate, 0 otherwise."""

    @model_validator(mode="after")
    def _finalists_are_restarts(self) -> Self:
        if self.finalists > self.restarts:
            raise ValueError(f"fit.finalists is {self.finalists}, above fit.restarts, {self.restarts}; lower it")
        return self


class ComputeConfig(_Section):
    """Where the passes run. Only `memory` and `block` can change the result, as they decide the blocks."""

    cluster: ClusterConfig = "threads"
    """Threads of this process, worker processes on this machine (local), or a mapping that names another cluster:
    address, slurm, kubernetes, gateway or class."""
    workers: Whole | None = Field(None, ge=1)
    """Threads or worker processes; of an address, workers to wait for. Default: the number of processors; on other
    machines the least."""
    wait_seconds: Number | None = Field(None, gt=0)
    """How long to wait for workers, at the start and when all are gone. Default: 30 for an address and on this machine,
    1800 for workers that others start."""
    memory: Size = "2GiB"
    """Memory budget of each worker; half of it keeps decoded rows between passes."""
    scratch: str | None = None
    """Folder on a local disk for decoded rows beyond the memory budget."""
    block: Literal["auto"] | Size = "auto"
    """Wanted size of a decoded block."""


class GateConfig(_Section):
    """Limits within which a new version becomes the current one by itself, with output.publish: gate."""

    objective: Number | None = Field(0.01, ge=0)
    """By which share of itself the objective on held-out rows may be worse than the current version's on the same rows;
    0.01 is one percent; null: not checked."""
    sizes: Number | None = Field(0.1, ge=0, le=1)
    """By how much a cluster's share of the total weight may change; 0.1 is from 20 % to 30 %; null: not checked."""
    churn: Number | None = Field(0.2, ge=0, le=1)
    """Which share of the total weight may change its cluster; null: not checked."""
    clusters: Whole | None = Field(None, ge=0)
    """How many clusters may be new or lost; null: not checked."""


class OutputConfig(_Section):
    """Where the results go."""

    store: str
    """Path of the output folder, or URL of a bucket (s3://, gs://)."""
    storage_options: dict[str, Any] = Field(default_factory=dict)
    """Of a bucket, as fsspec takes them, without secrets: credentials come from the environment, on the workers too."""
    labels: bool = True
    """Write labels on the sample grid."""
    responsibilities: Literal["none", "max", "top", "all"] = "none"
    """Beside the labels: the responsibility of the own cluster (max), of the top few with their clusters, or of all."""
    top: Whole = Field(3, ge=1)
    """Number of clusters that responsibilities: top writes."""
    precision: Literal["float16", "uint8"] = "float16"
    """How responsibilities are stored; uint8 in steps of 1/254."""
    log_density: bool = False
    """Write the log density of each row under the model."""
    outlier_score: bool = False
    """Write -log10 of the expected share of rows that are farther from their component."""
    distance: bool = False
    """Write the distance of each row from its center."""
    margin: bool = False
    """Write how clear each label is: how much farther the next center is, or how much smaller its responsibility."""
    distances: bool = False
    """Write the distance of each row from every center."""
    changed: bool = True
    """Write beside the labels whether each differs from the previous version, where there is one."""
    report: bool = True
    """Write report.html."""
    overwrite: bool = False
    """Make another version where a finished one is. An unfinished run of the same config always resumes."""
    publish: Literal["always", "gate", "manual"] = "always"
    """When a new version becomes the current one: as soon as it is finished (always), if it is within the limits of
    gate, or when a person says so (manual), by clustering models promote. The first one always does, and one that
    repeats the current one."""
    gate: GateConfig = Field(default_factory=lambda: GateConfig())
    """Limits of publish: gate."""
    keep: Whole | None = Field(5, ge=1)
    """Latest versions that stay when a run is finished; the current one and the one before it stay in any case.
    null: all."""

    @model_validator(mode="after")
    def _no_secrets_in_a_config(self) -> Self:
        try:
            check_url(self.store, "output.store")
        except ConfigError as error:
            raise ValueError(str(error)) from None
        refused = refusal(self.store, self.storage_options, "output")
        if refused is not None:
            raise ValueError(refused)
        return self


class JobConfig(_Section):
    """A clustering job."""

    source: SourceConfig
    preprocess: PreprocessConfig = Field(default_factory=lambda: PreprocessConfig())
    model: ModelConfig = Field(default_factory=lambda: ModelConfig())
    fit: FitConfig = Field(default_factory=lambda: FitConfig())
    compute: ComputeConfig = Field(default_factory=lambda: ComputeConfig())
    output: OutputConfig

    @model_validator(mode="before")
    @classmethod
    def _sections_may_be_empty(cls, content: Any) -> Any:
        """Read a section whose keys are all commented out as one without keys."""
        if not isinstance(content, dict):
            return content
        return {key: {} if value is None and key in cls.model_fields else value for key, value in content.items()}

    @property
    def result_keys(self) -> dict[str, Any]:
        """The keys that decide the result to the last bit."""
        # A key that was added later counts only where it is set. Otherwise runs of earlier versions could not resume.
        unsaid = {"valid_range"} if self.source.valid_range == "cf" else set()
        source = self.source.model_dump(mode="json", exclude={"storage_options", "credentials", *unsaid})
        return {
            # The path is absolute, so that a run started by hand can be resumed by a schedule in another folder.
            "source": {**source, "store": absolute(self.source.store)},
            "preprocess": self.preprocess.model_dump(mode="json"),
            "model": self.model.model_dump(mode="json"),
            "fit": {**self.fit.model_dump(mode="json"), "held_out": self.held_out},
            "compute": {"memory": in_bytes(self.compute.memory), "block": self.block_bytes},
        }

    @property
    def held_out(self) -> float:
        """Share of the blocks that the fit never sees."""
        if self.fit.held_out is not None:
            return self.fit.held_out
        return 0.1 if self.output.publish == "gate" else 0.0

    @property
    def memory_bytes(self) -> int:
        """Memory budget of a worker, in bytes."""
        return in_bytes(self.compute.memory)

    @property
    def block_bytes(self) -> int | None:
        """Wanted size of a decoded block, in bytes; None to choose."""
        return None if self.compute.block == "auto" else in_bytes(self.compute.block)

    @property
    def cluster(self) -> Any:
        """The cluster as `clustering.execution.engine.connect` takes it."""
        chosen = self.compute.cluster
        return chosen if isinstance(chosen, str) else chosen.model_dump(exclude_defaults=True)
