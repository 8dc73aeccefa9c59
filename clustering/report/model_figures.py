"""Figures of a fitted model. They need no labels, so they can be drawn while labels are written."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from clustering.fitting.cluster_names import ClusterNames
from clustering.fitting.fitted_model import FittedModel
from clustering.models.objective import Objective
from clustering.plots import curves, single_rows
from clustering.plots.rows import distances
from clustering.report import centers, samples
from clustering.report.figures import Figure, drawn
from clustering.report.samples import PlottedRows
from clustering.report.words import number, percent

DRAWN = 32
"""Largest number of clusters drawn as lines or blades."""
NAMED = 12
"""Largest number of clusters that a description names."""
ROUNDING = 1e-9
"""A step the wrong way counts as rounding if it is at most this share of the largest objective."""


@dataclass(frozen=True, eq=False)
class ModelFigures:
    """Figures of a model, with all that they depend on."""

    fitted: FittedModel
    clusters: ClusterNames
    sample: PlottedRows | None
    """Plotted rows; None where there are none."""
    figures: tuple[Figure, ...]

    @classmethod
    def draw(
        cls, fitted: FittedModel, sample: PlottedRows | None, clusters: ClusterNames, *, photograph: bool
    ) -> ModelFigures:
        """Draw the figures of a model.

        Parameters
        ----------
        fitted
            Fitted model. What a label pass measures may be missing.
        sample
            Plotted rows; None where there are none.
        clusters
            Ids, names and colours of the clusters.
        photograph
            Whether the source is drawn as an image, whose centers are colours.
        """
        made: list[Figure] = []
        sampled = None if sample is None else sample.sampled
        if sample is not None and sample.resp is not None:
            made.append(samples.draw(sample, fitted, clusters))
        if not photograph and len(fitted.features) > 1:
            made += centers.draw(fitted, clusters, sampled)
        if len(fitted.history):
            made.append(cost(fitted))
        passes = fitted.track.get("sizes")
        if fitted.model.soft and passes is not None and len(passes) > 1 and fitted.model.k <= DRAWN:
            made.append(_sizes_by_pass(passes, clusters))
        if sample is not None and 1 < fitted.model.k <= DRAWN:
            made.append(_silhouettes(fitted, sample, clusters))
        return cls(fitted, clusters, sample, tuple(made))

    @property
    def shows_rows(self) -> bool:
        """Whether the plotted rows are drawn as points."""
        return self.sample is not None and self.sample.resp is not None

    def are_of(self, fitted: FittedModel, clusters: ClusterNames) -> bool:
        """Return whether drawing now would give the same figures, after a label pass, which changes no params.

        Users may name clusters while a run goes on, and the pass may measure other shares of the clusters.

        Parameters
        ----------
        fitted, clusters
            As for `draw`.
        """
        return (
            np.array_equal(centers.shares_shown(self.fitted), centers.shares_shown(fitted), equal_nan=True)
            and np.array_equal(self.clusters.ids, clusters.ids)
            and self.clusters.display_names == clusters.display_names
            and self.clusters.hex_colours == clusters.hex_colours
        )


def sizes(fitted: FittedModel, clusters: ClusterNames) -> Figure:
    """Draw the share of each cluster in the total weight.

    Parameters
    ----------
    fitted
        Fitted model with finite shares.
    clusters
        Ids, names and colours of the clusters.
    """
    order = np.argsort(-fitted.shares, kind="stable")[:NAMED]
    named = ", ".join(f"{clusters.display_names[c]} {percent(fitted.shares[c])}" for c in order)
    more = "" if clusters.k <= NAMED else f", and {clusters.k - NAMED:,} smaller ones"
    alt = f"A bar for each of {clusters.k} clusters. Largest first: {named}{more}."
    plot = partial(curves.sizes, fitted, clusters)
    return drawn("sizes", "Sizes", "Share of each cluster in the total weight.", alt, plot)


def cost(fitted: FittedModel) -> Figure:
    """Draw the cost curve.

    Parameters
    ----------
    fitted
        Fitted model of one pass or more.
    """
    objective, history = fitted.model.objective, fitted.history
    alt = (
        f"A line over {len(history):,} passes, from {number(float(history[0, 0]))} after the first "
        f"{objective.assignment} to {number(float(history[-1, -1]))} at the end."
    )
    plot = partial(curves.cost, history, objective)
    return drawn("cost", objective.title, cost_caption(fitted), alt, plot, "quality")


def cost_caption(fitted: FittedModel) -> str:
    """Describe the cost curve of a fit.

    Parameters
    ----------
    fitted
        Fitted model. After a label pass over all rows, it knows whether the fit went over a part of them.
    """
    caption = curve_caption(fitted.model.objective, fitted.history)
    if fitted.preparation is not None:
        caption += " In the units of the prepared rows."
    if fitted.summary.drawn is not None:
        caption += " Over the rows that were drawn for the fit."
    return caption


def _sizes_by_pass(passes: NDArray[np.float64], clusters: ClusterNames) -> Figure:
    alt = f"A line for each of {clusters.k} clusters over {len(passes):,} passes."
    caption = "Weight that each cluster is responsible for, after every pass."
    plot = partial(curves.sizes_by_pass, passes, clusters)
    return drawn("sizes-by-pass", "Effective sizes by pass", caption, alt, plot, "quality")


def _silhouettes(fitted: FittedModel, sample: PlottedRows, clusters: ClusterNames) -> Figure:
    values = single_rows.simplified_silhouettes(distances(fitted, sample.sampled), sample.sampled.positions)
    caption = (
        "How much nearer rows are to their own center than to the next one: 1 where clusters are far apart, 0 on a "
        "boundary. "
        f"{sample.sampled.words[0].upper()}{sample.sampled.words[1:]}."
    )
    alt = (
        f"A blade of rows for each of {clusters.k} clusters. The mean of all rows is {values.mean():.3f}; "
        f"{percent(float((values > 0.5).mean()))} of the rows are above 0.5."
    )
    plot = partial(single_rows.silhouette, fitted, sample.sampled, clusters)
    return drawn("silhouettes", "Simplified silhouettes", caption, alt, plot, "quality")


def curve_caption(objective: Objective, history: NDArray[np.float64]) -> str:
    """Describe the cost curve, and say whether it ever goes the wrong way, as it may when an empty cluster restarts.

    Parameters
    ----------
    objective
        Names of the objective.
    history
        Objective after the assignment step and after the update step of each pass ``(passes, 2)``.
    """
    steps = np.diff(history.reshape(-1))
    wrong = -steps if objective.rises else steps
    if len(steps) and wrong.max() > ROUNDING * np.abs(history).max():
        return f"{objective.caption} It {'falls' if objective.rises else 'rises'} only where a cluster was placed anew."
    return f"{objective.caption} It never {'falls' if objective.rises else 'rises'}."
