"""Plots of a fit in numbers: its cost curve, and the sizes of its clusters."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from numpy.typing import NDArray

from clustering.errors import ConfigError
from clustering.fitting.cluster_names import ClusterNames, default_names
from clustering.fitting.fitted_model import FittedModel
from clustering.models.objective import Objective
from clustering.plots.canvas import (
    LOG_FROM,
    SOFT,
    Colours,
    Place,
    axes_for,
    colours_of,
    finish,
    legend,
    pass_axis,
    tick,
    tidy,
)
from clustering.plots.coinciding import coinciding, dashes

ASSIGNMENT, UPDATE = "#2563eb", "#dc2626"
"""Blue after the assignment step, red after the update step, as in the lecture."""
FLAT = 1e-5
"""Smallest range of the cost curve's axis, as a share of the objective."""
SEPARATE = 32
"""Largest number of bars that are artists of their own; more are drawn much faster as one collection."""
STYLES = ("-", "--", ":", "-.")
"""Styles of lines; the next one begins after each ten clusters, whose colours then tell each other apart less well."""


def cost(history: NDArray[np.float64], objective: Objective, ax: Place = None) -> Axes:
    """Draw the objective after every assignment step in blue and after every update step in red.

    Parameters
    ----------
    history
        Objective after the assignment step and after the update step of each pass ``(passes, 2)``.
    objective
        Names of the objective.
    ax
        See `clustering.plots.canvas.Place`.

    Returns
    -------
    Axes
        The axes, with a line through all steps and one line of dots for each kind of step.

    Raises
    ------
    ConfigError
        If there was no pass.
    """
    passes = len(history)
    if not passes:
        raise ConfigError("the fit made no pass, so there is no cost curve; fit with max_iterations of 1 or more")
    axes = axes_for(ax, (7.2, 3.4))
    # The update step of a pass lies half-way between its assignment step and that of the next pass.
    steps = np.arange(2 * passes) / 2 + 1
    size = 5.0 if passes <= LOG_FROM else 3.5
    axes.plot(steps, history.reshape(-1), color=SOFT, linewidth=0.9, zorder=1)
    # The marks differ as well, because some people cannot tell red from blue in print.
    axes.plot(steps[::2], history[:, 0], "o", color=ASSIGNMENT, markersize=size, label=f"after {objective.assignment}")
    axes.plot(steps[1::2], history[:, 1], "s", color=UPDATE, markersize=size - 1, label=f"after {objective.update}")
    axes.set_ylabel(objective.axis)
    low, high, scale = history.min(), history.max(), float(np.abs(history).max())
    if high - low < FLAT * scale:
        # The changes are hardly more than rounding, and a wider axis keeps them small.
        axes.set_ylim(low - FLAT * scale, high + FLAT * scale)
        axes.ticklabel_format(axis="y", useOffset=False)
    pass_axis(axes, passes)
    tidy(axes)
    axes.legend(frameon=False)
    finish(axes)
    return axes


def sizes(
    fitted: FittedModel, clusters: ClusterNames | None = None, ax: Place = None, colours: Colours | None = None
) -> Axes:
    """Draw the share of each cluster in the total weight.

    Parameters
    ----------
    fitted
        Fitted model.
    clusters
        Ids, names and colours of the clusters; ids of the model where None.
    ax
        See `clustering.plots.canvas.Place`.
    colours
        Colours of the clusters ``(k, 3)``, in 0 … 1; those of `clusters` where None.

    Returns
    -------
    Axes
        The axes, with one bar for each cluster, in percent; of many clusters, they are one collection.
    """
    clusters = clusters or fitted.clusters
    colours = colours_of(clusters) if colours is None else colours
    k, shares = fitted.model.k, 100 * fitted.shares
    axes = axes_for(ax, (7.2, 2.8))
    if k <= SEPARATE:
        bars = axes.bar(np.arange(k), shares, color=colours, edgecolor=SOFT, linewidth=0.6)
        if k <= 12:
            axes.bar_label(bars, [f"{share:.3g}" for share in shares], fontsize="small", padding=1)
    else:
        left_right, heights = np.arange(k)[:, None] + [-0.4, -0.4, 0.4, 0.4], shares[:, None] * [0.0, 1.0, 1.0, 0.0]
        # Edges would hide the colours of bars so narrow.
        shapes = PolyCollection(list(np.stack([left_right, heights], 2)), facecolors=colours, linewidths=0)
        axes.add_collection(shapes)
        axes.autoscale_view()
    axes.set_xlabel("cluster")
    axes.set_ylabel("share of weight, %")
    axes.set_ylim(bottom=0)
    # A single bar would fill the whole width.
    axes.set_xlim(-max(0.8, (3 - k) / 2), max(0.8, (3 - k) / 2) + k - 1)
    tick(axes.xaxis, clusters)
    tidy(axes, "y")
    finish(axes)
    return axes


def sizes_by_pass(
    track: NDArray[np.float64], clusters: ClusterNames | None = None, ax: Place = None, colours: Colours | None = None
) -> Axes:
    """Draw the effective size of each cluster in every pass.

    Parameters
    ----------
    track
        Effective sizes ``(passes, k)``.
    clusters
        Ids, names and colours of the clusters; ids 0 … k − 1 where None.
    ax
        See `clustering.plots.canvas.Place`.
    colours
        Colours of the clusters ``(k, 3)``, in 0 … 1; those of `clusters` where None.

    Returns
    -------
    Axes
        The axes, with one line for each cluster.
    """
    clusters = clusters or default_names(track.shape[1])
    colours = colours_of(clusters) if colours is None else colours
    axes = axes_for(ax, (7.2, 2.8))
    passes, words = np.arange(1, len(track) + 1), clusters.display_names
    # Lines that coincide alternate in dashes, so that all are seen.
    apart = dashes(coinciding(track.T), clusters.k)
    for cluster, colour in enumerate(colours):
        axes.plot(
            passes,
            track[:, cluster],
            linestyle=apart[cluster] or STYLES[cluster // 10 % len(STYLES)],
            color=colour,
            linewidth=1.4,
            marker="o" if len(track) == 1 else "",
            label=words[cluster],
        )
    pass_axis(axes, len(track))
    # Sizes are seen against 0, where a cluster dies out.
    axes.set_ylim(bottom=0)
    axes.set_ylabel("Σ weight · responsibility")
    tidy(axes)
    legend(axes, clusters.k)
    finish(axes)
    return axes
