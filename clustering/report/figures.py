"""Figures of a finished run, as PNG bytes: the plots of `clustering.plots`, each on a figure of its own."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from clustering.deferred import xr
from clustering.fitting.cluster_names import ClusterNames
from clustering.fitting.fitted_model import FittedModel
from clustering.models.objective import Objective
from clustering.plots import curves, grids
from clustering.plots.canvas import Colours

_DPI = 110


def new_figure() -> Figure:
    """Make a figure that no window or notebook knows; a plot gives it its size."""
    return Figure(layout="constrained")


def cost_curve(history: NDArray[np.float64], objective: Objective) -> bytes:
    """Draw `clustering.plots.curves.cost`.

    Parameters
    ----------
    history, objective
        As there.
    """
    figure = new_figure()
    curves.cost(history, objective, figure)
    return png(figure)


def sizes(fitted: FittedModel, colours: Colours, clusters: ClusterNames | None = None) -> bytes:
    """Draw `clustering.plots.curves.sizes`.

    Parameters
    ----------
    fitted, colours, clusters
        As there.
    """
    figure = new_figure()
    curves.sizes(fitted, clusters, figure, colours)
    return png(figure)


def sizes_by_pass(track: NDArray[np.float64], colours: Colours, clusters: ClusterNames | None = None) -> bytes:
    """Draw `clustering.plots.curves.sizes_by_pass`.

    Parameters
    ----------
    track, colours, clusters
        As there.
    """
    figure = new_figure()
    curves.sizes_by_pass(track, clusters, figure, colours)
    return png(figure)


def picture(pixels: NDArray[Any]) -> bytes:
    """Draw an image with one pixel per sample.

    Parameters
    ----------
    pixels
        Colours ``(y, x, 3)`` as bytes.
    """
    # Each sample is one pixel of the PNG, so that no colour is mixed.
    figure = Figure(figsize=(pixels.shape[1] / _DPI, pixels.shape[0] / _DPI))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(pixels, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    return png(figure)


def label_map(labels: xr.DataArray, colours: Colours, clusters: ClusterNames | None = None) -> bytes:
    """Draw `clustering.plots.grids.labels`.

    Parameters
    ----------
    labels, colours, clusters
        As there.
    """
    figure = new_figure()
    grids.labels(labels, clusters, figure, colours)
    return png(figure)


def change_map(changed: xr.DataArray) -> bytes:
    """Draw `clustering.plots.grids.changes`.

    Parameters
    ----------
    changed
        As there.
    """
    figure = new_figure()
    grids.changes(changed, figure)
    return png(figure)


def quantity_map(values: xr.DataArray, label: str) -> bytes:
    """Draw `clustering.plots.grids.quantity`.

    Parameters
    ----------
    values, label
        As there.
    """
    figure = new_figure()
    grids.quantity(values, label, figure)
    return png(figure)


def png(figure: Figure) -> bytes:
    """Render a figure as PNG bytes, which are the same for the same figure.

    Parameters
    ----------
    figure
        Figure of matplotlib; its texts are changed.
    """
    buffer = io.BytesIO()
    # Names from the data are plain text: a $ in them must not begin a formula. The font may lack their script.
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    # The filter stays. Restoring the filters here would undo those that another thread sets while this one draws.
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")
    # Without software and date, the same run gives the same bytes.
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()
