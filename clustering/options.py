"""All options, each declared once with its type, default, range and text.

Configs, ``--set``, Prefect's form, the signatures of functions in Python and the reference page are made from these
classes. Options of the models are declared by the model classes. This module loads no heavy package, so that a wrong
config is refused at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from clustering.cluster_options import ClusterOptions
from clustering.option_texts import Described
from clustering.option_values import (
    Count,
    Flag,
    Folder,
    InMemory,
    InMemoryCluster,
    InMemoryNumbers,
    ManyCounts,
    Name,
    Names,
    Natural,
    NonNegative,
    Number,
    Numbers,
    Positive,
    Seed,
    Selection,
    Share,
    Size,
    StoredWhole,
    in_bytes,
    in_python,
    number,
)
from clustering.policies import MAX_BAD_FRACTION, Decoder, Missing, MissingChunks, OnBadChunk, ValidRange


class OptionGroup(Described):
    """A group of options."""

    # Inputs are hidden because the text of an error of pydantic would show them, and they may hold secrets.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
    )


def _components(value: Any, info: ValidationInfo) -> Any:
    """Refuse a value of ``pca`` that is neither a number of components nor a share; a bool is no number here."""
    value = value.item() if hasattr(value, "item") else value
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is None or (number and (value >= 1 if isinstance(value, int) else 0.0 < value < 1.0)):
        return value
    raise ValueError(
        "a whole number of components of 1 or more, a share of the variance between 0 and 1 (both excluded), or "
        f"{'None' if in_python(info) else 'null'} is needed"
    )


class SourceOptions(OptionGroup):
    """Which part of the data is clustered, and what counts as missing."""

    storage_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the file system of the store, as fsspec takes them, such as {anon: true}. A config holds no secrets:
    credentials come from the environment or a Prefect block. In Python they may be given here."""
    group: Name | None = None
    """Group of the store that holds the variables. Default: the root."""
    variables: Names | None = None
    """Variables to cluster, concatenated along the features. Default: the array itself, or the only variable of the
    group."""
    sample_dims: Names | None = None
    """Dimensions along which rows are counted, such as [time, lat, lon]. Default: all that are not feature dimensions;
    where these are not given either, the first."""
    feature_dims: Names | None = None
    """Dimensions along which the features of one row lie, such as [depth]; an empty list: each variable is one feature.
    Default: all that are not sample dimensions."""
    select: Selection = Field(default_factory=dict)
    """Selection by label along dimensions, such as {depth: {start: 0, stop: 800}} with both ends included; also with a
    step, as a list of labels, or as one label; of dates also {months: [12, 1, 2]}."""
    isel: Selection = Field(default_factory=dict)
    """Selection by position along dimensions, counted from 0, such as {time: {start: 0, stop: 100, step: 2}} without
    the stop, a list of positions, or one position."""
    bbox: Annotated[Numbers, Field(min_length=4, max_length=4)] | None = None
    """Box on the map, [west, south, east, north] in degrees, ends included; from west eastward, so it may cross any
    meridian."""
    mask: str | InMemory | None = None
    """Which cells are used: a variable over sample dimensions, of true and false or 1 and 0, where true means use; or
    one comparison of a variable, such as landfrac > 0.5 or surface in [1, 2]. A name with a slash is a path from the
    root of the store. In Python also an array; xarray objects are matched by dimension and label, other arrays have the
    shape of the selected samples."""
    weights: str | InMemory | None = None
    """How much each row counts: a variable over sample dimensions, or cos(lat) of a latitude in degrees or radians. A
    name with a slash is a path from the root of the store. In Python also an array. Default: every row counts 1."""
    labels: str | InMemory | None = None
    """Variable over sample dimensions with the clusters of labelled rows, 0, 1, …, which init: labels starts from; any
    other value means no label. A name with a slash is a path from the root of the store. In Python also an array."""
    missing: Missing = "drop"
    """What becomes of a row with a missing feature: it is left out (drop), is an error (error), or counts with
    its other features (marginalize)."""
    missing_chunks: MissingChunks | None = None
    """What a chunk that was never written means: an error (error), cells that are masked (mask), or cells with the fill
    value (fill). Default: mask where the fill value means missing, error where it would count as data."""
    on_bad_chunk: OnBadChunk = "error"
    """What becomes of a chunk that exists and does not decode: it is an error (error), or its cells are masked
    (mask)."""
    max_bad_fraction: Share = MAX_BAD_FRACTION
    """Largest share of the chunks that on_bad_chunk: mask may mask, 0 to 1; above it, the run fails."""
    # Whole numbers stay integers, because a float cannot hold every number of 64 bits.
    nodata: StoredWhole | Number | dict[str, StoredWhole | Number] | None = None
    """Stored number that means missing, besides those in the attributes; or a mapping of variables to such numbers."""
    decode: Decoder | dict[str, Decoder] | None = None
    """Decoder of stored whole numbers, besides scale and offset: signed_square, which is (v / 127.5)^2 sign(v); or a
    mapping of variables to decoders."""
    valid_range: ValidRange = "cf"
    """Values outside valid_range, valid_min and valid_max of a variable are missing (cf), or these attributes are
    ignored (ignore)."""


class PreprocessOptions(OptionGroup):
    """Preprocessing of rows, in this order: unit_norm, standardize, feature_weights, pca, whiten."""

    standardize: Literal[False, "per_feature", "per_variable"] = False
    """Bring each feature (per_feature), or all values of a variable together (per_variable), to mean 0 and variance
    1."""
    unit_norm: Flag = False
    """Divide each row by its Euclidean norm; rows of zeros are left out."""
    pca: Annotated[int | float | None, BeforeValidator(_components)] = None
    """Number of principal components, or the share of the variance that they have to exceed, such as 0.999. Default:
    rows keep their features."""
    pca_per_variable: Flag = False
    """Compute the principal components of each variable on its own, with the number or share of pca for each."""
    whiten: Flag = False
    """Divide principal components by their standard deviations; without pca, all components are kept."""
    feature_weights: str | InMemoryNumbers | None = None
    """Factors of the features: a variable along feature dimensions, cos(lat) or sqrt(cos(lat)); in Python also an array
    (d,)."""

    @model_validator(mode="after")
    def _per_variable_needs_components(self) -> Self:
        if self.pca_per_variable and not self.needs_covariance:
            raise ValueError(
                "pca_per_variable is true and pca is null; set pca to a number of components or a share of the variance"
            )
        return self

    @property
    def needs_covariance(self) -> bool:
        """Whether the covariance of the features is needed, as principal components mix them."""
        return self.pca is not None or self.whiten

    @property
    def removes_mean(self) -> bool:
        """Whether the mean is subtracted from rows."""
        return self.needs_covariance or self.standardize is not False

    @property
    def requested(self) -> dict[str, Any]:
        """Options that differ from their defaults, as JSON."""
        names = PreprocessOptions.model_fields
        values = self.model_dump(mode="json", include=set(names))
        return {name: value for name, value in values.items() if value != names[name].default}


DEFAULT_RESTARTS = 10
"""Number of restarts by default, of fewer than `MANY_CLUSTERS`."""
MANY_CLUSTERS = 100
"""From this k on, the default number of restarts may be lower."""


class FitOptions(OptionGroup):
    """How to fit."""

    seed: Seed = 0
    """Seed of all random draws."""
    restarts: Count | None = None
    """Number of starts that compete on the row sample, in memory. The better half goes on, again and again, on
    twice as many rows. Default: 10; for 100 clusters and more as few as 2, so that starts cost no more than half of
    the passes over all rows."""
    finalists: Count | None = None
    """Largest number of best starts that are fitted to the full data, at most restarts; each pass serves all of them.
    Mixtures leave out starts that are clearly less likely on the sample. Default: 3 for mixtures, 1 for others."""
    sample_rows: Count = 200_000
    """Number of rows of the sample that is drawn in the first read, and that starts are chosen from."""
    init: Annotated[
        Literal["kmeans++", "random", "labels", "model"] | InMemoryNumbers, Field(union_mode="left_to_right")
    ] = "kmeans++"
    """How starts are chosen. kmeans++: sampled rows far from each other; random: any sampled rows; labels: means of the
    rows that the option labels gives clusters to; model: the current model of the output, or kmeans++ in a new output.
    In Python also centers (k, d), or a dict of centers, weights and more of a
    mixture."""
    max_iterations: Natural = 300
    """Largest number of passes over the full data that update the model."""
    tolerance: NonNegative | None = None
    """Stop when a pass changes the objective by no more than this, relative to J of kmeans, to the mean divergence of
    soft_kmeans, or per unit of weight of a mixture; 0: when nothing changes. Default: 0 for kmeans, 1e-6 for others."""
    accelerate: Literal["auto", "none"] = "auto"
    """How passes are saved. auto: mixtures and soft k-means try longer steps, and keep those that are better; where
    rows do not fit into memory, passes of kmeans go over the rows near a boundary between clusters alone, as long as
    that gives the same labels; where they fit and the clusters are many, passes remember the labels of the pass before,
    which changes no bit. none: every pass compares all rows with all centers and makes a plain step."""
    max_seconds: Positive | None = None
    """Stop after this wall time, in seconds, with a valid model. Default: no limit."""
    fraction: Annotated[float, Gt(0), Le(1), BeforeValidator(number)] = 1.0
    """Share of the rows that the fit goes over, drawn at random, 0 to 1; labels and the objective are of all rows."""

    @model_validator(mode="after")
    def _finalists_are_restarts(self) -> Self:
        most = DEFAULT_RESTARTS if self.restarts is None else self.restarts
        if self.finalists is not None and self.finalists > most:
            raise ValueError(
                f"finalists is {self.finalists} and restarts is {most}; there cannot be more finalists: lower finalists"
            )
        return self

    @property
    def draws_starts(self) -> bool:
        """Whether starts are drawn at random, so that the order of the clusters has no meaning."""
        # `init` may be an array, and comparing an array with a text gives no single truth value.
        return isinstance(self.init, str) and self.init != "labels"

    @property
    def uses_labels(self) -> bool:
        """Whether clusters start from the means of labelled rows."""
        return isinstance(self.init, str) and self.init == "labels"


class BlockOptions(OptionGroup):
    """How blocks are read and worked on."""

    workers: Count | None = None
    """Number of threads or of worker processes; of a running cluster, the number of workers to wait for. Default: the
    number of processors on this machine, and 1 worker on others."""
    memory: Size = "2GiB"
    """Memory budget of each worker, such as 2GiB, 500MB or a number of bytes; half of it keeps decoded rows between
    passes."""
    block: Literal["auto"] | Size = "auto"
    """Wanted size of a decoded block, such as 64MiB; auto: chosen by the chunks and the memory budget."""


class ComputeOptions(BlockOptions):
    """Where the passes run. Only `memory` and `block` can change the result, by the blocks and the kept rows."""

    cluster: Annotated[ClusterOptions | InMemoryCluster, Field(union_mode="left_to_right")] = "threads"
    """Threads of this process (threads), one thread (synchronous), worker processes on this machine (local), or a
    mapping that names another cluster:
    address, slurm, kubernetes, gateway or class. In Python also a distributed.Client."""
    wait_seconds: Positive | None = None
    """Seconds to wait for workers, at the start and when all are gone. Default: 30 for an address and on this machine,
    1800 for workers that others start."""
    scratch: Folder | None = None
    """Folder on a local disk for decoded rows beyond the memory budget. Default: such rows are read again in each
    pass."""


# Calls in Python take the other outputs without this one, because their option `labels` names known clusters.
class _Labels(OptionGroup):
    labels: Flag = True
    """Write labels on the sample grid."""


class RowOutputs(OptionGroup):
    """What is written for each row beside its label."""

    responsibilities: Literal["none", "max", "top", "all"] = "none"
    """Which responsibilities of a soft model are written: none, that of the own cluster (max), those of the likeliest
    clusters with their ids (top), or those of all clusters (all)."""
    top: Count = 3
    """Number of clusters of each row that responsibilities: top writes."""
    precision: Literal["float16", "uint8", "float64"] = "float16"
    """Type of stored responsibilities; uint8 has steps of 1/254. With float64, distances and densities have double
    precision too."""
    log_density: Flag = False
    """Write the natural logarithm of the density of each row under a mixture."""
    outlier_score: Flag = False
    """Write -log10 of the share of rows that a mixture expects farther from their component; 3 is one in a thousand."""
    distance: Flag = False
    """Write the distance of each row from its center: for squared_euclidean and mahalanobis the root of the divergence,
    for other divergences the divergence itself, for a mixture the Mahalanobis distance."""
    margin: Flag = False
    """Write how clear each label is: how much farther the next center is, or how much smaller its responsibility."""
    distances: Flag = False
    """Write the distance of each row from every center."""


class LabelOptions(RowOutputs, _Labels):
    """What is written for each row."""

    @property
    def anything(self) -> bool:
        """Whether any output is wanted."""
        flags = (self.labels, self.log_density, self.outlier_score, self.distance, self.margin, self.distances)
        return any(flags) or self.responsibilities != "none"


class GateOptions(OptionGroup):
    """Limits within which a new version becomes the current one by itself, with publish: gate."""

    objective: NonNegative | None = 0.01
    """Largest share of itself by which the objective on held-out rows may be worse than that of the current version on
    the same rows; 0.01 is one percent; null: not checked."""
    sizes: Share | None = 0.1
    """Largest change of the share of a cluster in the total weight; 0.1 allows from 20 % to 30 %; null: not checked."""
    churn: Share | None = 0.2
    """Largest share of the total weight that may change its cluster, 0 to 1; null: not checked."""
    clusters: Natural | None = None
    """Largest number of clusters that may be new or lost; null: not checked."""


class PublishOptions(OptionGroup):
    """What a run writes beside model and labels, and when it is published."""

    changed: Flag = True
    """Write beside the labels whether each differs from the previous version, where there is one."""
    report: Flag = True
    """Write report.html, a page with figures and numbers of the run."""
    overwrite: Flag = False
    """Make another version in an output that holds a finished run. An unfinished run of the same config always
    resumes."""
    publish: Literal["always", "gate", "manual"] = "always"
    """When a new version becomes the current one: as soon as it is finished (always), if it is within the limits of
    gate, or when a person says so (manual), by clustering models promote. The first one always does, and one that
    repeats the current one."""
    gate: GateOptions = Field(default_factory=lambda: GateOptions())
    """Limits that a version has to keep with publish: gate."""
    keep: Count | None = 5
    """Number of latest versions that stay when a run is finished; the current one and the one before it stay in any
    case; null: all stay."""


class RunOptions(PublishOptions, LabelOptions):
    """What a run writes, and when it is published."""


class FollowOptions(FitOptions):
    """How to fit, and how a run follows the version before."""

    refresh: Literal["full", "new-only", "none"] = "full"
    """With init: model, how new data change the model: by an update and passes over all rows until nothing changes
    (full); by the update alone, which reads only new blocks (new-only); or not at all, so that only labels are made
    (none)."""
    held_out: Annotated[float, Ge(0), Le(0.5), BeforeValidator(number)] | None = None
    """Share of the blocks that the fit never sees, 0 to 0.5, on which a new version is scored against the current one.
    Default: 0.1 with publish: gate, 0 otherwise."""


Criterion = Literal[
    "elbow", "calinski_harabasz", "davies_bouldin", "silhouette", "simplified_silhouette", "gap", "stability", "aic",
    "bic", "icl",
]  # fmt: skip
"""A criterion by which a sweep compares choices of k."""


VARIED = ("k", "covariance", "beta", "divergence")
"""Options of models that a sweep may vary."""


class SelectOptions(OptionGroup):
    """Choices that a sweep compares."""

    k: ManyCounts = "2..20"
    """Numbers of clusters to compare: a list, or a range with both ends such as 2..40."""
    covariance: list[str] | None = None
    """Covariances to compare, for a gaussian_mixture, such as [diagonal, full]. Default: that of the model."""
    beta: list[Number | Literal["auto"]] | None = None
    """Values of beta to compare, for soft_kmeans. Default: that of the model."""
    divergence: list[str] | None = None
    """Divergences to compare, for kmeans and soft_kmeans. Default: that of the model."""
    criteria: list[Criterion] | None = None
    """Criteria to compare choices by. Default: all that the model has; gap and stability fit the row sample many times,
    and take most of the time of a small job."""


def wanted_block(options: BlockOptions, number: int | None = None) -> int | None:
    """Return the wanted size of a decoded block in bytes; None to choose.

    Parameters
    ----------
    options
        How blocks are read.
    number
        The size in bytes, which comes before that of the options; None for that.
    """
    if number is not None:
        return number
    return None if options.block == "auto" else in_bytes(options.block)


def cluster_of(options: ComputeOptions) -> Any:
    """Return the cluster as `clustering.execution.engine.connect` takes it.

    Parameters
    ----------
    options
        Where the passes run.
    """
    chosen = options.cluster
    return chosen.model_dump(exclude_defaults=True) if isinstance(chosen, BaseModel) else chosen


class _InBytes(OptionGroup):
    """The size of a block as a number, for calls in Python."""

    block_bytes: Count | None = None
    """Wanted size of a decoded block in bytes; it comes before block."""


class _Watched(OptionGroup):
    """How a program follows a fit, for calls in Python."""

    on_pass: Callable[[Any], object] | None = None
    """Called with a PassRecord after each pass."""
    progress: Flag = False
    """Show a progress bar in the terminal or the notebook; needs the package rich."""


# pydantic lists the fields of the last base first, so signatures and help begin with the source.
class FitCall(_Watched, _InBytes, ComputeOptions, PreprocessOptions, FitOptions, SourceOptions):
    """Options of `clustering.fit`."""


class SelectCall(FitCall, SelectOptions):
    """Options of `clustering.select_k`."""


class LabelCall(_InBytes, BlockOptions, SourceOptions):
    """Options of methods that label data in memory."""


class ReportCall(LabelCall):
    """Options of `Fit.report`."""

    data: Any = None
    """Data as for predict, for a map of the labels, silhouettes and bands. Default: the page shows the model alone."""
    overwrite: Flag = False
    """Replace a page that was written there before. Anything else is never replaced."""


class LabelToCall(_InBytes, ComputeOptions, SourceOptions, RowOutputs):
    """Options of `Fit.label`."""

    to: Folder
    """Path of the new Zarr group, such as labels.zarr."""
    overwrite: Flag = False
    """Replace labels that were written there before. Anything else is never replaced."""


class RunCall(
    _Watched, _InBytes, ComputeOptions, PublishOptions, RowOutputs, PreprocessOptions, FollowOptions, SourceOptions
):
    """Options of `clustering.run`."""

    output: Folder
    """Path of the output folder, or URL of a bucket (s3://, gs://)."""
    output_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the file system of a bucket, as fsspec takes them, without secrets: credentials come from the
    environment, on the workers too."""
    write_labels: Flag = True
    """Write labels on the sample grid. The option labels names known clusters."""
