"""Some rows of the source for figures, and the lecture's figure: by component, in one colour, by responsibilities."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.data.source import Source
from clustering.fitting.cluster_names import ClusterNames
from clustering.fitting.fitted_model import FittedModel
from clustering.plots.canvas import INK, colours_of, palette
from clustering.plots.ellipses import draw_ellipses
from clustering.plots.rows import PLACES, SampledRows, SpreadRows, labelled_rows, responsibilities, spread_rows
from clustering.plots.spread import covariances_in_data_units
from clustering.report.figures import Figure, drawn

Array = NDArray[np.float64]

SHOWN = 2000
"""Largest number of rows that are drawn."""
MOST = 256 * 2**20
"""Largest number of bytes that are decoded for them."""
UNKNOWN = "#9ca3af"


@dataclass(frozen=True, eq=False)
class PlottedRows:
    """Plotted rows: some rows of a source, spread over it."""

    sampled: SampledRows
    """The rows with their labels."""
    resp: Array | None = None
    """Responsibilities ``(n, k)``, where the model has two features and is soft; None otherwise."""
    true_labels: NDArray[np.int32] | None = None
    """True components ``(n,)``, −1 where unknown; None where the source has no labels."""

    @property
    def rows(self) -> Array:
        """Decoded rows ``(n, d)``, of length 1 where the preparation has unit norm."""
        return np.asarray(self.sampled.values, np.float64)

    @property
    def complete(self) -> bool:
        """Whether these are all rows of the source."""
        return self.sampled.complete


def may_be_sampled(fitted: FittedModel) -> bool:
    """Return whether the model has two features and responsibilities, which the lecture's figure shows.

    Parameters
    ----------
    fitted
        Fitted model.
    """
    return len(fitted.features) == 2 and fitted.model.soft


def read_rows(source: Source) -> SpreadRows | None:
    """Read some rows, spread over the source; None where chunks are large.

    Parameters
    ----------
    source
        Source to read from.
    """
    plan = source.plan(block_bytes=max(1, SHOWN * source.row_bytes // PLACES))
    if min(PLACES, len(plan)) * plan.block_bytes > MOST:
        return None
    return spread_rows(source, SHOWN)


def sample_rows(source: Source, fitted: FittedModel) -> PlottedRows | None:
    """Read and label some rows; None where no row is complete, or chunks are large.

    Parameters
    ----------
    source
        Source with the features of the model.
    fitted
        Fitted model.
    """
    return label_rows(read_rows(source), fitted)


def label_rows(rows: SpreadRows | None, fitted: FittedModel) -> PlottedRows | None:
    """Label rows for the figures; None where no row is complete.

    Parameters
    ----------
    rows
        From `read_rows`.
    fitted
        Fitted model.
    """
    rows = None if rows is None else rows.with_length_one(fitted)
    if rows is None or not rows.parts:
        return None
    sampled, parts = labelled_rows(rows, fitted), rows.parts
    if not may_be_sampled(fitted):
        return PlottedRows(sampled)
    true_labels = np.concatenate([_labels(part) for part in parts]) if parts[0].labels is not None else None
    return PlottedRows(sampled, np.concatenate([responsibilities(fitted, part) for part in parts]), true_labels)


def _labels(rows: Rows) -> NDArray[np.int32]:
    return np.full(len(rows), -1, np.int32) if rows.labels is None else rows.labels


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


def draw(sample: PlottedRows, fitted: FittedModel, clusters: ClusterNames) -> Figure:
    """Draw two panels, or three where true components are known.

    Parameters
    ----------
    sample
        Plotted rows with responsibilities.
    fitted
        Fitted model.
    clusters
        Ids, names and colours of the clusters.
    """
    mixture = fitted.components.covariance is not None
    alt = (
        f"{2 + _has_true_labels(sample)} scatter plots of {len(sample.rows):,} rows over {fitted.features[0]} and "
        f"{fitted.features[1]}, with the centers of {clusters.k} clusters as crosses."
    )
    plot = partial(_panels, sample, fitted, colours_of(clusters))
    return drawn("samples", "Samples", caption(sample, mixture), alt, plot, "rows", wide=True)


def _panels(sample: PlottedRows, fitted: FittedModel, colours: Array, canvas: Canvas) -> None:
    assert sample.resp is not None
    truth = _has_true_labels(sample)
    names = ["p(x | z): true components"] * truth + ["p(x): the rows", "p(z | x): responsibilities"]
    canvas.set_size_inches(4.6 * len(names), 4.4)
    panels = list(canvas.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0])
    if sample.true_labels is not None and truth:
        _scatter(panels[0], sample.rows, _true_colours(sample, sample.true_labels, colours))
    _scatter(panels[-2], sample.rows, "#6d28d9")
    _scatter(panels[-1], sample.rows, np.clip(sample.resp @ colours, 0.0, 1.0))
    if fitted.components.covariance is not None:
        for cluster, covariance in enumerate(covariances_in_data_units(fitted)):
            draw_ellipses(panels[-1], fitted.centers[cluster], covariance, colours[cluster])
    panels[-1].plot(*fitted.centers.T, "x", color=INK, markersize=6, markeredgewidth=1.6)
    for axes, name in zip(panels, names, strict=True):
        axes.set_title(name, fontsize="medium")
        axes.set_xlabel(str(fitted.features[0]))
        axes.grid(alpha=0.2)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(str(fitted.features[1]))
    _frame(panels[0], sample.rows)


def _has_true_labels(sample: PlottedRows) -> bool:
    return sample.true_labels is not None and bool((sample.true_labels >= 0).any())


def _true_colours(sample: PlottedRows, true_labels: NDArray[np.int32], colours: Array) -> Any:
    """Give true components the colours of clusters, so that as many rows as possible match.

    Two components never share a colour. Components without a cluster of their own get further colours.
    """
    from scipy.optimize import linear_sum_assignment

    components = np.unique(true_labels[true_labels >= 0])
    assert sample.resp is not None
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
