"""Plots of versions of an output: what went from each cluster to each, and how objective, sizes and centers moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from clustering.errors import ConfigError
from clustering.fitting.cluster_names import ClusterNames
from clustering.plots.canvas import SOFT, TICKS, Place, axes_for, colours_of, finish, legend, panels_for, tidy
from clustering.plots.curves import STYLES

Array = NDArray[np.float64]

KEPT = "#dc2626"
WRITTEN = 14
"""Largest number of clusters with numbers in the cells."""


def transitions(
    pairs: NDArray[np.int64], weights: Array, ax: Place = None, *, names: Sequence[str] = ("before", "now")
) -> Axes:
    """Draw a heat map of the weight of each pair of labels, as a share of the previous cluster, in percent.

    Parameters
    ----------
    pairs
        Pairs of previous and present labels ``(t, 2)``; −1 for none.
    weights
        Their weights ``(t,)``.
    ax
        See `clustering.plots.canvas.Place`.
    names
        Names of the previous and the present version.

    Returns
    -------
    Axes
        The axes, with one image: a row for each previous cluster, a column for each present one. Each row adds up to
        100.

    Raises
    ------
    ConfigError
        If there is no pair.
    """
    if not len(pairs):
        raise ConfigError("no cell has a label in one of the versions, so there are no transitions to draw")
    befores, nows, shares = transition_shares(pairs, weights)
    width, height = np.clip([2.4 + 0.42 * len(nows), 1.4 + 0.36 * len(befores)], (4.0, 2.8), (9.0, 8.0))
    axes = axes_for(ax, (float(width), float(height)))
    image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100, aspect="auto", interpolation="none")
    axes.set_xlabel(f"cluster, {names[1]}")
    axes.set_ylabel(f"cluster, {names[0]}")
    for axis, ids in ((axes.xaxis, nows), (axes.yaxis, befores)):
        step = -(-len(ids) // TICKS)
        axis.set_ticks(range(0, len(ids), step), ["none" if i < 0 else str(i) for i in ids[::step]])
    if max(shares.shape) <= WRITTEN:
        for (row, column), share in np.ndenumerate(shares):
            if share > 0:
                text, ink = f"{100 * share:.3g}", "w" if share > 0.6 else "0.1"
                axes.text(column, row, text, ha="center", va="center", fontsize="small", color=ink)
    # A frame shows where a cluster keeps its rows.
    for row, i in enumerate(befores):
        for column in np.flatnonzero(nows == i):
            axes.add_patch(
                Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=KEPT, linewidth=1.2, clip_on=False)
            )
    figure: Any = axes.get_figure(root=False)
    bar = figure.colorbar(image, ax=axes, label="share of the previous cluster, %")
    finish(axes, bar.ax)
    return axes


def transition_shares(pairs: NDArray[np.int64], weights: Array) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """Arrange transitions as a table of shares of the previous cluster.

    Parameters
    ----------
    pairs, weights
        As for `transitions`.

    Returns
    -------
    tuple of ndarray
        Previous labels ``(a,)``, present labels ``(b,)``, and shares ``(a, b)``, whose rows add up to 1.
    """
    befores, rows = np.unique(pairs[:, 0], return_inverse=True)
    nows, columns = np.unique(pairs[:, 1], return_inverse=True)
    table = np.zeros((len(befores), len(nows)))
    np.add.at(table, (rows.reshape(-1), columns.reshape(-1)), weights)
    total = table.sum(axis=1, keepdims=True)
    return befores, nows, np.divide(table, total, out=np.zeros_like(table), where=total > 0)


@dataclass(frozen=True, eq=False)
class VersionTrack:
    """Numbers of the last versions of an output, the earliest first."""

    names: tuple[str, ...]
    """Name of each version, such as its date ``(v,)``."""
    objectives: Array
    """Objective of each ``(v,)``; NaN where unknown."""
    ids: NDArray[np.int64]
    """Ids of all clusters of these versions ``(k,)``, ascending."""
    shares: Array
    """Share of each cluster in the total weight ``(v, k)``; NaN where a version lacks it."""
    shifts: Array
    """How far each center moved since the version before, in standard deviations ``(v, k)``; NaN where unknown."""


def drift(track: VersionTrack, clusters: ClusterNames, label: str, ax: Place = None) -> NDArray[Any]:
    """Draw the objective, the sizes of clusters and the shifts of centers over the last versions, a panel each.

    Parameters
    ----------
    track
        The versions.
    clusters
        Names and colours of the clusters of `track`.
    label
        Label of the objective.
    ax
        See `clustering.plots.canvas.Place`.

    Returns
    -------
    ndarray of Axes
        Three, the second and third with one line for each cluster.
    """
    panels = panels_for(ax, 1, 3, (12.0, 3.4))[0]
    at = np.arange(len(track.names))
    panels[0].plot(at, track.objectives, "o-", color=SOFT, markersize=4, linewidth=1.2)
    panels[0].set_ylabel(label)
    for axes, values in ((panels[1], 100 * track.shares), (panels[2], track.shifts)):
        for cluster, colour in enumerate(colours_of(clusters)):
            style, name = STYLES[cluster // 10 % len(STYLES)], clusters.display_names[cluster]
            axes.plot(at, values[:, cluster], style, color=colour, marker="o", markersize=4, linewidth=1.4, label=name)
        axes.set_ylim(bottom=0)
    panels[1].set_ylabel("share of weight, %")
    panels[2].set_ylabel("shift of centers, σ")
    for axes in panels:
        # Of many versions, every second or third is named.
        step = -(-len(at) // 6)
        axes.set_xticks(at[::step], track.names[::step], rotation=30, ha="right", fontsize="small")
        axes.set_xlim(at[0] - 0.3, at[-1] + 0.3)
        tidy(axes)
    legend(panels[2], clusters.k)
    finish(*panels)
    return np.asarray(panels)
