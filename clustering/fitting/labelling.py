"""The last pass: labels and degrees back onto the grid, and the objective at the final params on the same read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import special

from clustering.data.rows import Rows, unit_weights
from clustering.errors import ConfigError
from clustering.execution.passes import BlockRecords, PassResult, PassRunner, Statistics
from clustering.fitting.cluster_names import ClusterNames, default_names
from clustering.fitting.label_transitions import add_transitions, as_unchanged, label_transitions
from clustering.models.distances import RowDistances
from clustering.models.farthest import BlockPosition
from clustering.models.model import AnyModel, Params, is_soft
from clustering.models.soft import Responsibilities

Array = NDArray[np.float64]
Write = Callable[[tuple[slice, ...], Mapping[str, NDArray[Any]]], None]
"""Puts what is known of a region of the sample grid where it belongs, by name."""


class PreviousLabelReader(Protocol):
    """What was told of the samples before, on their grid of now; picklable."""

    def read(self, name: str, region: tuple[slice, ...]) -> NDArray[Any]:
        """Read a variable over a region of the sample grid, −1 where there was no label."""


LEVELS = 254
"""Steps of a responsibility stored in a byte; 255 is for masked cells."""
CHANGED: Mapping[str, Any] = {
    "long_name": "whether the cluster of a sample is another than before; -1 where masked, or without a label before",
    "flag_values": [0, 1],
    "flag_meanings": "same changed",
}
"""CF attributes of what tells whether labels changed."""


@dataclass(frozen=True)
class LabelOutputs:
    """What is told of each row.

    Raises
    ------
    ConfigError
        For a value outside its range.
    """

    labels: bool = True
    responsibilities: Literal["none", "max", "top", "all"] = "none"
    """Of the own cluster, of the `top` most responsible ones, or of all."""
    top: int = 3
    precision: Literal["float16", "uint8", "float64"] = "float16"
    """How responsibilities are stored."""
    log_density: bool = False
    outlier_score: bool = False
    """−log₁₀ of the share of its component's rows that are farther out, were it a Gaussian."""
    distance: bool = False
    """To the own center: of squared_euclidean and mahalanobis the root of the divergence, of other divergences the
    divergence itself; of a mixture the Mahalanobis distance under the component's covariance."""
    margin: bool = False
    """Hard assignments: by how much the nearest other center is farther than the own one; infinite where there is no
    other. Soft ones: by how much the largest responsibility exceeds the second; 1 where there is no second."""
    distances: bool = False
    """To every center."""
    changed: bool = False
    """Whether the label is another than before; needs labels of before."""

    def __post_init__(self) -> None:
        if self.responsibilities not in ("none", "max", "top", "all"):
            raise ConfigError(f"responsibilities is {self.responsibilities!r}; allowed: none, max, top, all")
        if isinstance(self.top, bool) or not isinstance(self.top, (int, np.integer)) or self.top < 1:
            raise ConfigError(f"top is {self.top!r}; a whole number of 1 or more is needed")
        if self.precision not in ("float16", "uint8", "float64"):
            raise ConfigError(f"precision is {self.precision!r}; allowed: float16, uint8")

    @property
    def anything(self) -> bool:
        """Whether anything is wanted at all."""
        asked = (self.labels, self.log_density, self.outlier_score, self.distance, self.margin, self.distances)
        return any(asked) or self.responsibilities != "none"

    def remarks(self, k: int) -> tuple[str, ...]:
        """Say what of a wish k clusters cannot fulfil, in words for a user."""
        if self.responsibilities != "top" or self.top <= k:
            return ()
        return (f"output.top is {self.top} and k is {k}: the responsibilities of all {k} clusters are told",)

    def check(self, model: AnyModel) -> None:
        """Refuse what a model does not tell.

        Raises
        ------
        ConfigError
            Naming what is wanted and which models tell it.
        """
        if self.responsibilities != "none" and not model.soft:
            raise ConfigError(
                f"responsibilities is {self.responsibilities!r} and the model is {model.kind}, whose rows belong to "
                "one cluster each; set output.responsibilities to none, or fit soft_kmeans or gaussian_mixture"
            )
        for name in ("log_density", "outlier_score"):
            if getattr(self, name) and not (is_soft(model) and model.has_density):
                raise ConfigError(
                    f"{name} is wanted, and {model} describes no density; fit a gaussian_mixture, or soft_kmeans with "
                    "the squared_euclidean or mahalanobis divergence"
                )


class OutputVariable(NamedTuple):
    """One array of the output."""

    name: str
    dtype: np.dtype[Any]
    fill: Any
    """Where masked."""
    extra: tuple[tuple[str, int], ...] = ()
    """Dimensions beyond those of the samples, with their lengths."""
    attributes: Mapping[str, Any] = {}


def output_variables(
    label_outputs: LabelOutputs, clusters: ClusterNames, model: AnyModel | None = None
) -> list[OutputVariable]:
    """List the arrays of the output.

    Parameters
    ----------
    clusters
        Whose ids are told.
    model
        Its words for distances go into the attributes; None where nobody reads them.
    """
    outputs, k = [], clusters.k
    if label_outputs.labels:
        outputs.append(OutputVariable("labels", clusters.dtype, -1, (), clusters.attributes))
    if label_outputs.changed:
        outputs.append(OutputVariable("changed", np.dtype(np.int8), -1, (), CHANGED))
    packed = label_outputs.precision == "uint8"
    dtype, fill = np.dtype(label_outputs.precision), 255 if packed else np.nan
    scale = {"scale_factor": 1.0 / LEVELS, "_FillValue": 255} if packed else {}
    top = min(label_outputs.top, k)
    match label_outputs.responsibilities:
        case "max":
            about = {"long_name": "responsibility of the own cluster", **scale}
            outputs.append(OutputVariable("responsibility", dtype, fill, (), about))
        case "top":
            extra = (("rank", top),)
            about = {"long_name": "clusters by responsibility, largest first; -1 where masked"}
            outputs.append(OutputVariable("top_clusters", clusters.dtype, -1, extra, about))
            about = {"long_name": "responsibilities of top_clusters", **scale}
            outputs.append(OutputVariable("top_responsibilities", dtype, fill, extra, about))
        case "all":
            about = {"long_name": "responsibility of each cluster", **scale}
            outputs.append(OutputVariable("responsibilities", dtype, fill, (("cluster", k),), about))
    single = np.dtype(np.float64 if label_outputs.precision == "float64" else np.float32)
    if label_outputs.log_density:
        outputs.append(OutputVariable("log_density", single, np.nan, (), {"long_name": "log density under the model"}))
    if label_outputs.outlier_score:
        about = {"long_name": "-log10 of the expected share of rows farther from their component"}
        outputs.append(OutputVariable("outlier_score", single, np.nan, (), about))
    units = {} if model is None else {name: text for name, text in model.distance_attributes.items() if name == "units"}
    measure = "distance" if model is None else model.distance_attributes["long_name"]
    if label_outputs.distance:
        about = {"long_name": f"{measure} from the own center", **units}
        outputs.append(OutputVariable("distance", single, np.nan, (), about))
    if label_outputs.margin:
        about = {"long_name": f"{measure}: from the nearest other center less that from the own", **units}
        if model is not None and model.soft:
            about = {"long_name": "largest responsibility less the second largest", "units": "1"}
        outputs.append(OutputVariable("margin", single, np.nan, (), about))
    if label_outputs.distances:
        about = {"long_name": f"{measure} from each center", **units}
        outputs.append(OutputVariable("distances", single, np.nan, (("cluster", k),), about))
    return outputs


@dataclass(frozen=True, eq=False)
class LabelStatistics:
    """Sums over labelled rows; ``a + b`` are those of the rows of both."""

    objective: float
    """What the passes lower, at these params."""
    weight: Array
    """Σ w r of each cluster ``(k,)``."""
    rows: NDArray[np.int64]
    """Rows labelled with each cluster ``(k,)``."""
    entropy: float = 0.0
    """−Σ w r log r."""
    moves: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    """Labels before, −1 for none, and now ``(t, 2)`` of rows of some weight: each pair once, in order."""
    moved: Array = field(default_factory=lambda: np.zeros(0))
    """Σ w of the rows of each pair ``(t,)``."""

    zero_rows: int = 0
    """Rows of zeros that were left out, because rows are brought to length 1."""

    def __add__(self, other: LabelStatistics) -> LabelStatistics:
        return LabelStatistics(
            self.objective + other.objective,
            self.weight + other.weight,
            self.rows + other.rows,
            self.entropy + other.entropy,
            *add_transitions((self.moves, self.moved), (other.moves, other.moved)),
            self.zero_rows + other.zero_rows,
        )

    def repositioned(self, before: BlockPosition, now: BlockPosition) -> LabelStatistics:
        """Return these: they name no positions."""
        return self

    def as_unchanged(self) -> LabelStatistics:
        """Tell the same rows once more: they come from where they are now."""
        moves, moved = as_unchanged((self.moves, self.moved))
        return replace(self, moves=moves, moved=moved)


def label_blocks(
    runner: PassRunner,
    model: AnyModel,
    params: Params,
    write: Write,
    outputs: LabelOutputs | None = None,
    records: BlockRecords | None = None,
    clusters: ClusterNames | None = None,
    previous: PreviousLabelReader | None = None,
    also: Sequence[Statistics] = (),
) -> PassResult:
    """Label every row, hand what is wanted of each block to `write`, and add up.

    Parameters
    ----------
    write
        Called once per block with arrays in the block's shape, masked cells filled; picklable where the engine has
        other processes.
    outputs
        What is told of each row; labels alone where None.
    records
        Of blocks that were labelled before: nothing is written of them again.
    clusters
        Whose ids are told; 0 … k − 1 where None.
    previous
        Labels that these are compared with; None where there are none.
    also
        What else makes statistics of the same rows, on the same read.

    Returns
    -------
    Passed
        With one `LabelStatistics`, and the statistics of `also`.
    """
    clusters = clusters or default_names(params.k)
    work = partial(_label_block, model, params, write, outputs or LabelOutputs(), clusters, previous)
    return runner.run([work, *also], records)


@np.errstate(over="ignore", invalid="ignore")
def _label_block(
    model: AnyModel,
    params: Params,
    write: Write,
    outputs: LabelOutputs,
    clusters: ClusterNames,
    previous: PreviousLabelReader | None,
    rows: Rows,
) -> LabelStatistics:
    collector = _OutputCollector(model, params, rows, outputs, clusters)
    assignment = (
        model.assign(params, rows, collector.add_responsibilities)
        if collector.needs_e_step and is_soft(model)
        else model.assign(params, rows)
    )
    weightless = rows.weights == 0.0
    if collector.needs_responsibilities and is_soft(model) and weightless.any():
        # Their shares are 0, but they have responsibilities like other rows.
        unweighted = rows.select(weightless)
        index = np.flatnonzero(weightless)
        for part in model.e_step(params, replace(unweighted, weights=unit_weights(len(index)))):
            collector.add_responsibilities(part._replace(row_index=index[part.row_index]))
    if collector.needs_distances:
        for row_distances in model.distances(params, rows, assignment.labels if collector.own_only else None):
            labels = assignment.labels[row_distances.row_index]
            collector.add_distances(row_distances, np.zeros_like(labels) if collector.own_only else labels)
    arrays = {"labels": clusters.ids.astype(clusters.dtype)[assignment.labels], **collector.arrays}
    region = tuple(slice(a, a + n) for a, n in zip(rows.start, rows.shape, strict=True))
    previous_labels = np.full(len(rows), -1, np.int64)
    if previous is not None:
        cells = previous.read("labels", region).reshape(-1).astype(np.int64)
        previous_labels = cells if rows.cells is None else cells[rows.cells]
        arrays["changed"] = np.where(previous_labels < 0, -1, previous_labels != arrays["labels"])
    moves = label_transitions(previous_labels, arrays["labels"], rows.weights)
    on_grid = {}
    for variable in output_variables(outputs, clusters, model):
        cells = rows.to_grid(arrays[variable.name].astype(variable.dtype, copy=False), variable.fill)
        on_grid[variable.name] = cells.reshape(*rows.shape, *(length for _, length in variable.extra))
    write(region, on_grid)
    counts = np.bincount(assignment.labels, minlength=clusters.k).astype(np.int64)
    return LabelStatistics(assignment.objective, assignment.weight, counts, assignment.entropy, *moves, rows.zero_rows)


class _OutputCollector:
    """Gathers what is told of the rows of a block beside their labels."""

    def __init__(
        self, model: AnyModel, params: Params, rows: Rows, outputs: LabelOutputs, clusters: ClusterNames
    ) -> None:
        self.model, self.params, self.rows, self.outputs, self.ids = model, params, rows, outputs, clusters.ids
        self.arrays: dict[str, NDArray[Any]] = {
            v.name: np.empty((len(rows), *(n for _, n in v.extra)), v.dtype)
            for v in output_variables(outputs, clusters, model)
            if v.name not in ("labels", "changed")
        }
        soft_margin = outputs.margin and model.soft
        self.needs_responsibilities = outputs.responsibilities != "none" or soft_margin
        """Whether responsibilities are told."""
        self.needs_e_step = self.needs_responsibilities or outputs.log_density or outputs.outlier_score
        """Whether anything is told that soft assignment gives."""
        self.needs_distances = outputs.distance or outputs.distances or (outputs.margin and not soft_margin)
        """Whether anything is told that distances give."""
        self.own_only = outputs.distance and not outputs.distances and (soft_margin or not outputs.margin)
        """Whether of all distances those from the own centers are enough."""

    def add_responsibilities(self, part: Responsibilities) -> None:
        """Take what is wanted of a part."""
        arrays, index = self.arrays, part.row_index
        columns = np.arange(part.weighted_resp.shape[1])
        if self.needs_responsibilities:
            resp = part.responsibilities
            if self.outputs.margin:
                first, second = resp[part.labels, columns], np.zeros(len(columns))
                if len(resp) > 1:
                    second = np.partition(resp, -2, axis=0)[-2]
                arrays["margin"][index] = first - second
            match self.outputs.responsibilities:
                case "max":
                    arrays["responsibility"][index] = self._packed(resp[part.labels, columns])
                case "all":
                    arrays["responsibilities"][index] = self._packed(resp.T)
                case "top":
                    count = arrays["top_clusters"].shape[1]
                    order = np.argsort(-resp, axis=0, kind="stable")[:count]
                    arrays["top_clusters"][index] = self.ids[order.T]
                    arrays["top_responsibilities"][index] = self._packed(np.take_along_axis(resp, order, axis=0).T)
        observed = np.full(len(columns), float(self.rows.values.shape[1]))
        if self.rows.has_missing is not None:
            observed = (~np.isnan(self.rows.values[index])).sum(axis=1).astype(np.float64)
        model = self.model
        assert is_soft(model)
        if self.outputs.log_density:
            arrays["log_density"][index] = model.log_density(self.params, part.log_prob_norm, observed)
        if self.outputs.outlier_score:
            squared = model.squared_mahalanobis(self.params, part.own_divergence)
            arrays["outlier_score"][index] = outlier_score(squared, observed)

    def add_distances(self, row_distances: RowDistances, labels: NDArray[np.int32]) -> None:
        """Take what is wanted of the distances of some rows; their own are at these places ``(m,)`` among them."""
        arrays, columns = self.arrays, np.arange(len(labels))
        own = row_distances.distances[labels, columns]
        # What is beyond float32 is told as infinite.
        with np.errstate(over="ignore"):
            if self.outputs.distance:
                arrays["distance"][row_distances.row_index] = own
            if self.outputs.distances:
                arrays["distances"][row_distances.row_index] = row_distances.distances.T
            if self.outputs.margin and not self.needs_responsibilities:
                others = row_distances.distances.copy()
                others[labels, columns] = np.inf
                # Of near ties, the label may be that of either. Of centers infinitely far off, none is farther.
                ties = np.isinf(own) & (len(others) > 1)
                more = others.min(axis=0) - np.where(np.isinf(own), 0.0, own)
                arrays["margin"][row_distances.row_index] = np.where(ties, 0.0, np.maximum(more, 0.0))

    def _packed(self, resp: Array) -> NDArray[Any]:
        return np.rint(resp * LEVELS) if self.outputs.precision == "uint8" else resp


def outlier_score(squared: Array, observed: Array) -> Array:
    """−log₁₀ P(χ² > squared Mahalanobis distance) ``(m,)``, with the number of observed features as its freedom."""
    a, x = 0.5 * observed, 0.5 * squared
    tail = special.gammaincc(a, x)
    # Far out, where the tail underflows: Γ(a, x) = xᵃ⁻¹ e⁻ˣ (1 + (a − 1)/x + (a − 1)(a − 2)/x² + …), DLMF 8.11.2.
    far = np.maximum(x, 1.0)
    series, term = np.ones_like(far), np.ones_like(far)
    for i in range(1, 40):
        term = term * (a - i) / far
        series += term
    far = np.minimum(far, np.finfo(float).max)
    asymptotic = (a - 1.0) * np.log(far) - far - special.gammaln(a) + np.log(np.maximum(series, 1e-300))
    with np.errstate(divide="ignore"):
        logs = np.where(tail > 1e-290, np.log(tail), asymptotic)
    score: Array = np.where(np.isinf(squared), np.inf, np.abs(np.minimum(logs, 0.0)) / np.log(10.0))
    return score


def discard(region: tuple[slice, ...], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Take what nobody asked for."""
