"""The lecture's figure of a mixture: rows by true component, all in one colour, and by responsibilities."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from numpy.typing import NDArray

from clustering.data.preparation import only_unit_norm
from clustering.data.reading import read_block
from clustering.data.rows import Rows, unit_weights
from clustering.data.source import Source
from clustering.fitting.fitted_model import FittedModel
from clustering.models import covariances as kinds
from clustering.models.model import is_soft
from clustering.report.figures import palette, png

Array = NDArray[np.float64]

SHOWN = 2000
"""Largest number of rows that are drawn."""
PLACES = 8
"""Largest number of blocks that the rows are taken from."""
UNKNOWN = "#9ca3af"


@dataclass(frozen=True, eq=False)
class PlottedRows:
    """Plotted rows: some rows of a source with two features."""

    rows: Array
    """Decoded rows ``(n, 2)``, of length 1 where the preparation has unit norm."""
    resp: Array
    """Responsibilities ``(n, k)``."""
    true_labels: NDArray[np.int32] | None
    """True components ``(n,)``, −1 where unknown; None where the source has no labels."""
    complete: bool
    """Whether these are all rows of the source."""


def may_be_sampled(fitted: FittedModel) -> bool:
    """Return whether the model has two features and responsibilities, which the figure shows.

    Parameters
    ----------
    fitted
        Fitted model.
    """
    return len(fitted.features) == 2 and fitted.model.soft


def sample_rows(source: Source, fitted: FittedModel) -> PlottedRows | None:
    """Read some rows, spread over the source, and compute their responsibilities; None where no row is complete.

    Parameters
    ----------
    source
        Source that the model was fitted on.
    fitted
        Fitted model, for which `may_be_sampled` holds.
    """
    # Blocks are small, so that hardly more rows are read than are drawn.
    plan = source.plan(block_bytes=SHOWN * source.row_bytes // PLACES)
    blocks = np.unique(np.linspace(0, len(plan) - 1, PLACES).astype(np.int64))
    each = -(-SHOWN // len(blocks))
    parts, read = [], 0
    for index in blocks:
        rows = read_block(source, plan.block(int(index)))
        read += len(rows)
        chosen = np.zeros(len(rows), bool)
        chosen[np.unique(np.linspace(0, len(rows) - 1, min(each, len(rows))).astype(np.int64))] = True
        # Rows with missing features cannot be plotted in 2-D.
        part = rows.select(chosen if rows.has_missing is None else chosen & ~rows.has_missing)
        if fitted.preparation is not None and fitted.preparation.unit_norm:
            # A zero row has no cluster. The other rows are drawn with length 1, as the model sees them.
            part = only_unit_norm(part.values.shape[1]).apply(part)
        if len(part):
            parts.append((part, _responsibilities(fitted, part)))
    if not parts:
        return None
    values = np.concatenate([part.values for part, _ in parts]).astype(np.float64)
    true_labels = None if source.labels is None else np.concatenate([_labels(part) for part, _ in parts])
    complete = len(blocks) == len(plan) and len(values) == read
    return PlottedRows(values, np.concatenate([shares for _, shares in parts]), true_labels, complete)


def _labels(rows: Rows) -> NDArray[np.int32]:
    return np.full(len(rows), -1, np.int32) if rows.labels is None else rows.labels


def _responsibilities(fitted: FittedModel, rows: Rows) -> Array:
    """Return the responsibilities of rows ``(n, k)``."""
    resp = np.empty((len(rows), fitted.model.k))
    if fitted.preparation is not None:
        rows = fitted.preparation.apply(rows)
    model = fitted.model
    assert is_soft(model)
    # All weights are 1 here, because rows of weight 0 have responsibilities too.
    for part in model.e_step(fitted.params, replace(rows, weights=unit_weights(len(rows)))):
        resp[part.row_index] = (part.weighted_resp / part.weighted_resp.sum(axis=0)).T
    return resp


def caption(sample: PlottedRows, mixture: bool) -> str:
    """Return the caption of the figure.

    Parameters
    ----------
    sample
        Plotted rows.
    mixture
        Whether ellipses of components are drawn.
    """
    count_text = f"{len(sample.rows):,} rows" + ("" if sample.complete else " taken from all over the source")
    count_text += (
        ": coloured by the components that they came from, samples from p(x | z); "
        if _has_true_labels(sample)
        else ": "
    )
    count_text += "in one colour, samples from p(x); by responsibilities p(z | x), which mix the clusters' colours."
    return count_text + (" Ellipses: 1 and 2 standard deviations of the fitted components." if mixture else "")


def draw(sample: PlottedRows, fitted: FittedModel, colours: Array) -> bytes:
    """Draw two panels, or three where true components are known, as PNG bytes.

    Parameters
    ----------
    sample
        Plotted rows.
    fitted
        Fitted model.
    colours
        Colours of the clusters ``(k, 3)``, in 0 … 1.
    """
    truth = _has_true_labels(sample)
    names = ["p(x | z): true components"] * truth + ["p(x): the rows", "p(z | x): responsibilities"]
    figure = Figure(figsize=(4.6 * len(names), 4.4), layout="constrained")
    panels = list(figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0])
    if sample.true_labels is not None and truth:
        _scatter(panels[0], sample.rows, _true_colours(sample, sample.true_labels, colours))
    _scatter(panels[-2], sample.rows, "#6d28d9")
    _scatter(panels[-1], sample.rows, np.clip(sample.resp @ colours, 0.0, 1.0))
    components = fitted.components
    if components.covariance is not None:
        covariances = np.zeros(0) if components.covariances is None else components.covariances
        for cluster in range(fitted.model.k):
            width = fitted.params.centers.shape[1]
            covariance = kinds.as_full(components.covariance, covariances, cluster, width)
            if fitted.preparation is not None:
                # Components describe prepared rows, and the points are drawn in the units of the data.
                covariance = fitted.preparation.covariance_to_data_units(covariance)
            _ellipses(panels[-1], fitted.centers[cluster], covariance, colours[cluster])
    panels[-1].plot(*fitted.centers.T, "x", color="#111827", markersize=6, markeredgewidth=1.6)
    for axes, name in zip(panels, names, strict=True):
        axes.set_title(name, fontsize="medium")
        axes.set_xlabel(str(fitted.features[0]))
        axes.grid(alpha=0.2)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(str(fitted.features[1]))
    _frame(panels[0], sample.rows)
    return png(figure)


def _has_true_labels(sample: PlottedRows) -> bool:
    return sample.true_labels is not None and bool((sample.true_labels >= 0).any())


def _true_colours(sample: PlottedRows, true_labels: NDArray[np.int32], colours: Array) -> Any:
    """Give true components the colours of clusters, so that as many rows as possible match.

    Two components never share a colour. Components without a cluster of their own get further colours.
    """
    from scipy.optimize import linear_sum_assignment

    components = np.unique(true_labels[true_labels >= 0])
    overlap = np.array([sample.resp[true_labels == component].sum(axis=0) for component in components])
    # The function finds the smallest sum, and overlaps are to be large.
    pairs = dict(zip(*linear_sum_assignment(-overlap), strict=True))
    spare = iter(palette(len(colours) + len(components))[len(colours) :])
    own = np.full((len(true_labels), 3), int(UNKNOWN[1:3], 16) / 255)
    for i, component in enumerate(components):
        own[true_labels == component] = colours[pairs[i]] if i in pairs else next(spare)
    return own


def _scatter(axes: Axes, rows: Array, colour: Any) -> None:
    size = float(np.clip(9000 / len(rows), 5.0, 18.0))
    axes.scatter(rows[:, 0], rows[:, 1], c=colour, s=size, linewidths=0, alpha=0.85)


def _ellipses(axes: Axes, center: Array, covariance: Array, colour: Any) -> None:
    variances, directions = np.linalg.eigh(covariance)
    # The variances of eigh ascend, so the last direction is that of the long axis.
    angle = float(np.degrees(np.arctan2(directions[1, 1], directions[0, 1])))
    for sigmas, width in ((1, 1.8), (2, 1.1)):
        # Rounding may leave a variance slightly below 0.
        short, long = 2 * sigmas * np.sqrt(np.clip(variances, 0.0, None))
        shape = Ellipse((center[0], center[1]), long, short, angle=angle)
        shape.set(fill=False, edgecolor=0.7 * np.asarray(colour), linewidth=width)
        axes.add_patch(shape)


def _frame(axes: Axes, rows: Array) -> None:
    """Frame all rows; use one scale for both features where their ranges are alike, so that circles are round."""
    low, high = rows.min(axis=0), rows.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    # With more different ranges, one scale would squeeze all rows into a line.
    if max(span) < 4 * min(span):
        middle, span = (low + high) / 2, np.full(2, max(span))
        low, high = middle - span / 2, middle + span / 2
    axes.set_xlim(low[0] - 0.06 * span[0], high[0] + 0.06 * span[0])
    axes.set_ylim(low[1] - 0.06 * span[1], high[1] + 0.06 * span[1])
