"""The label pass: writes label outputs on the sample grid, and computes the objective at the final params."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from clustering.blas import scipy
from clustering.data.rows import Rows, unit_weights
from clustering.errors import ConfigError
from clustering.execution.passes import BlockRecords, PassResult, PassRunner, Statistics
from clustering.fitting.cluster_names import ClusterNames, default_names
from clustering.fitting.label_transitions import add_transitions, as_unchanged, label_transitions
from clustering.models.distances import RowDistances
from clustering.models.farthest import BlockPosition
from clustering.models.model import AnyModel, Params, is_soft
from clustering.models.soft import Responsibilities
from clustering.options import LabelOptions

Array = NDArray[np.float64]
Write = Callable[[tuple[slice, ...], Mapping[str, NDArray[Any]]], None]
"""Function that stores label outputs: the region of the sample grid, and its arrays by name."""


class PreviousLabelReader(Protocol):
    """Reads label outputs of the previous version on the present grid; picklable."""

    def read(self, name: str, region: tuple[slice, ...]) -> NDArray[Any]:
        """Read a variable over a region of the sample grid; −1 where there was no label.

        Parameters
        ----------
        name
            Name of an output variable, such as ``labels``.
        region
            Start and stop along each sample dimension of the present grid.
        """


LEVELS = 254
"""Number of steps of a responsibility that is stored in a byte; 255 marks masked cells."""
CHANGED: Mapping[str, Any] = {
    "long_name": "whether the cluster of a sample is another than before; -1 where masked, or without a label before",
    "flag_values": [0, 1],
    "flag_meanings": "same changed",
}
"""CF attributes of the output ``changed``."""


class LabelOutputs(LabelOptions):
    """Which label outputs are written for each row."""

    changed: bool = False
    """Whether the label differs from the previous one; needs previous labels."""


def smaller_outputs(outputs: LabelOutputs, k: int) -> tuple[str, ...]:
    """Say which outputs are smaller than asked for, in words for a user.

    Parameters
    ----------
    outputs
        What is written for each row.
    k
        Number of clusters.
    """
    if outputs.responsibilities != "top" or outputs.top <= k:
        return ()
    return (f"output.top is {outputs.top} and k is {k}: the responsibilities of all {k} clusters are written",)


def check_outputs(outputs: LabelOutputs, model: AnyModel) -> None:
    """Refuse outputs that a model does not have.

    Parameters
    ----------
    outputs
        What is written for each row.
    model
        The model that labels the rows.

    Raises
    ------
    ConfigError
        If responsibilities are wanted of a hard model, or densities of a model without one.
    """
    if outputs.responsibilities != "none" and not model.soft:
        raise ConfigError(
            f"responsibilities is {outputs.responsibilities!r} and the model is {model.kind}, whose rows belong to "
            "one cluster each; set output.responsibilities to none, or fit soft_kmeans or gaussian_mixture"
        )
    for name in ("log_density", "outlier_score"):
        if getattr(outputs, name) and not (is_soft(model) and model.has_density):
            raise ConfigError(
                f"{name} is wanted, and {model} describes no density; fit a gaussian_mixture, or soft_kmeans with "
                "the squared_euclidean or mahalanobis divergence"
            )


class OutputVariable(NamedTuple):
    """Name, type and dimensions of one label output."""

    name: str
    dtype: np.dtype[Any]
    fill: Any
    """Value of masked cells."""
    extra: tuple[tuple[str, int], ...] = ()
    """Dimensions after the sample dimensions, with their lengths."""
    attributes: Mapping[str, Any] = {}


def output_variables(
    label_outputs: LabelOutputs, clusters: ClusterNames, model: AnyModel | None = None
) -> list[OutputVariable]:
    """List the variables of the label outputs.

    Parameters
    ----------
    label_outputs
        Which outputs are wanted.
    clusters
        Ids of the clusters, which labels are made of.
    model
        Model whose distances are described in the attributes; None where attributes are not needed.
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
    # Distances and densities have no fixed range, so they are never packed into a byte.
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
    """Sums over labelled rows; ``a + b`` are the sums over the rows of both."""

    objective: float
    """Objective at the final params, as the passes lower it."""
    weight: Array
    """Effective size Σ w r of each cluster ``(k,)``."""
    rows: NDArray[np.int64]
    """Number of rows with the label of each cluster ``(k,)``."""
    entropy: float = 0.0
    """Entropy of the responsibilities, −Σ w r log r."""
    moves: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    """Pairs of previous label, −1 for none, and present label ``(t, 2)``, sorted and distinct."""
    moved: Array = field(default_factory=lambda: np.zeros(0))
    """Σ w of the rows of each pair ``(t,)``, above zero."""

    zero_rows: int = 0
    """Number of zero rows, which are left out where rows are brought to length 1."""

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
        """Return the same sums, as they hold no positions of rows.

        Parameters
        ----------
        before, now
            Position of the block on the earlier grid, and on the present one.
        """
        return self

    def as_unchanged(self) -> LabelStatistics:
        """Return the sums of a pass that labels the same rows again, so that no label changes."""
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
    """Label every row, write the outputs of each block, and add up the statistics.

    Parameters
    ----------
    runner
        Runs the pass.
    model
        The fitted model.
    params
        Its final params.
    write
        Called once for each block, with arrays in the shape of the block and masked cells filled. It must be picklable
        where the engine has other processes.
    outputs
        Which outputs are written; labels alone where None.
    records
        Block records of blocks that are labelled already. These are not written again.
    clusters
        Ids of the clusters; 0 … k − 1 where None.
    previous
        Reader of previous labels to compare with; None where there are none.
    also
        Functions that make further statistics of the same rows, on the same read.

    Returns
    -------
    PassResult
        Its statistics are one `LabelStatistics`, followed by those of `also`.
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
    """Label the rows of a block, write their outputs, and return their sums."""
    collector = _OutputCollector(model, params, rows, outputs, clusters)
    assignment = (
        model.assign(params, rows, collector.add_responsibilities)
        if collector.needs_e_step and is_soft(model)
        else model.assign(params, rows)
    )
    weightless = rows.weights == 0.0
    if collector.needs_responsibilities and is_soft(model) and weightless.any():
        # Weighted responsibilities of rows of weight 0 are 0. A second E-step with weight 1 gives the unweighted ones.
        unweighted = rows.select(weightless)
        index = np.flatnonzero(weightless)
        for part in model.e_step(params, replace(unweighted, weights=unit_weights(len(index)))):
            collector.add_responsibilities(part._replace(row_index=index[part.row_index]))
    if collector.needs_distances:
        for row_distances in model.distances(params, rows, assignment.labels if collector.own_only else None):
            # Where only own distances are made, the array has a single row, number 0.
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
    # Outputs are written before the statistics are returned, so a record of a block stands for whole outputs.
    write(region, on_grid)
    counts = np.bincount(assignment.labels, minlength=clusters.k).astype(np.int64)
    return LabelStatistics(assignment.objective, assignment.weight, counts, assignment.entropy, *moves, rows.zero_rows)


class _OutputCollector:
    """Collects the outputs of the rows of a block other than labels."""

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
        """Whether an output is made of responsibilities."""
        self.needs_e_step = self.needs_responsibilities or outputs.log_density or outputs.outlier_score
        """Whether an output is made of the E-step: responsibilities or densities."""
        self.needs_distances = outputs.distance or outputs.distances or (outputs.margin and not soft_margin)
        """Whether an output is made of distances."""
        self.own_only = outputs.distance and not outputs.distances and (soft_margin or not outputs.margin)
        """Whether distances from the own centers are enough."""

    def add_responsibilities(self, part: Responsibilities) -> None:
        """Compute the wanted outputs from the responsibilities of some rows.

        Parameters
        ----------
        part
            Responsibilities of a sub-block. Its arrays are reused, so nothing of it is kept.
        """
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
                    # A stable sort puts clusters of equal responsibility in the order of their ids.
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
            arrays["outlier_score"][index] = outlier_score(
                *model.chi_squared(self.params, part.own_divergence, observed)
            )

    def add_distances(self, row_distances: RowDistances, labels: NDArray[np.int32]) -> None:
        """Compute the wanted outputs from the distances of some rows.

        Parameters
        ----------
        row_distances
            Distances of m rows.
        labels
            Row of the distances ``(m,)`` that belongs to the own center.
        """
        arrays, columns = self.arrays, np.arange(len(labels))
        own = row_distances.distances[labels, columns]
        # Distances beyond float32 become infinite.
        with np.errstate(over="ignore"):
            if self.outputs.distance:
                arrays["distance"][row_distances.row_index] = own
            if self.outputs.distances:
                arrays["distances"][row_distances.row_index] = row_distances.distances.T
            if self.outputs.margin and not self.needs_responsibilities:
                others = row_distances.distances.copy()
                others[labels, columns] = np.inf
                # In a near tie, rounding may label a row with the center that is farther here; the margin is then 0.
                # Where the own center is infinitely far, no other is farther, and the margin is 0 too.
                ties = np.isinf(own) & (len(others) > 1)
                more = others.min(axis=0) - np.where(np.isinf(own), 0.0, own)
                arrays["margin"][row_distances.row_index] = np.where(ties, 0.0, np.maximum(more, 0.0))

    def _packed(self, resp: Array) -> NDArray[Any]:
        return np.rint(resp * LEVELS) if self.outputs.precision == "uint8" else resp


def outlier_score(squared: Array, observed: Array) -> Array:
    """Compute −log₁₀ P(χ² > squared Mahalanobis distance) ``(m,)``.

    Under a Gaussian component, squared Mahalanobis distances follow the χ² distribution.

    Parameters
    ----------
    squared
        Squared Mahalanobis distances ``(m,)`` of rows from their own component.
    observed
        Number of observed features ``(m,)``, which are the degrees of freedom.
    """
    a, x = 0.5 * observed, 0.5 * squared
    tail = scipy.special.gammaincc(a, x)
    # Far out the tail underflows, and its logarithm comes from the asymptotic series
    # Γ(a, x) = xᵃ⁻¹ e⁻ˣ (1 + (a − 1)/x + (a − 1)(a − 2)/x² + …), DLMF 8.11.2.
    far = np.maximum(x, 1.0)
    series, term = np.ones_like(far), np.ones_like(far)
    for i in range(1, 40):
        term = term * (a - i) / far
        series += term
    # An infinite distance would give ∞ − ∞ here. Its score is set at the end.
    far = np.minimum(far, np.finfo(float).max)
    asymptotic = (a - 1.0) * np.log(far) - far - scipy.special.gammaln(a) + np.log(np.maximum(series, 1e-300))
    with np.errstate(divide="ignore"):
        logs = np.where(tail > 1e-290, np.log(tail), asymptotic)
    score: Array = np.where(np.isinf(squared), np.inf, np.abs(np.minimum(logs, 0.0)) / np.log(10.0))
    return score


def discard(region: tuple[slice, ...], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Discard the outputs of a block, for passes that need only the statistics.

    Parameters
    ----------
    region
        Region of the sample grid.
    arrays
        Outputs by name.
    """
