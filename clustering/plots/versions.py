"""The plot of two versions of an output: the weight that went from each cluster to each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from clustering.errors import ConfigError
from clustering.plots.canvas import TICKS, Place, axes_for, finish

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
    image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100, aspect="auto", interpolation="nearest")
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
                Rectangle(
                    (column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#dc2626", linewidth=1.2, clip_on=False
                )
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
