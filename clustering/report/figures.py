"""Figures of a finished run, as PNG bytes. They show numbers of the model and the labels and compute nothing anew."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axis import Axis, XAxis
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from clustering.data.coordinates import period, within_half_turn
from clustering.data.encoding import in_memory
from clustering.deferred import xr
from clustering.fitting.cluster_names import ClusterNames, default_names
from clustering.fitting.fitted_model import FittedModel
from clustering.models.objective import Objective

ASSIGNMENT, UPDATE = "#2563eb", "#dc2626"
"""Blue after the assignment step, red after the update step, as in the lecture."""
MASKED = "#e5e7eb"
SAME_CHANGED = ("#bfdbfe", "#b91c1c")
FLAT = 1e-5
"""Smallest range of the cost curve's axis, as a share of the objective."""
TICKS = 32
"""Largest number of clusters with a tick each along an axis."""
_DPI = 110


def cost_curve(history: NDArray[np.float64], objective: Objective) -> bytes:
    """Draw the objective after every assignment step in blue and after every update step in red.

    Parameters
    ----------
    history
        Objective after the assignment step and after the update step of each pass ``(passes, 2)``.
    objective
        Names of the objective.
    """
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    passes = len(history)
    # The update step of a pass lies half-way between its assignment step and that of the next pass.
    steps = np.arange(2 * passes) / 2 + 1
    size = 5 if passes <= 40 else 3.5
    if passes > 40:
        # Most of the change is in the first passes.
        axes.set_xscale("log")
    axes.plot(steps, history.reshape(-1), color="0.35", linewidth=0.9, zorder=1)
    axes.plot(steps[::2], history[:, 0], "o", color=ASSIGNMENT, markersize=size, label=f"after {objective.assignment}")
    axes.plot(steps[1::2], history[:, 1], "o", color=UPDATE, markersize=size, label=f"after {objective.update}")
    axes.set_xlabel("pass")
    axes.set_ylabel(objective.axis)
    low, high, scale = history.min(), history.max(), float(np.abs(history).max())
    if high - low < FLAT * scale:
        # The changes are hardly more than rounding, and a wider axis keeps them small.
        axes.set_ylim(low - FLAT * scale, high + FLAT * scale)
        axes.ticklabel_format(axis="y", useOffset=False)
    if passes <= 40:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return png(figure)


def palette(k: int) -> NDArray[np.float64]:
    """Return the default colours of the clusters 0 … k − 1 ``(k, 3)``, in 0 … 1.

    Parameters
    ----------
    k
        Number of clusters.
    """
    return colours_of(default_names(k))


def colours_of(clusters: ClusterNames) -> NDArray[np.float64]:
    """Return the colours of clusters ``(k, 3)``, in 0 … 1.

    Parameters
    ----------
    clusters
        Ids, names and colours of the clusters.
    """
    return np.array([to_rgb(colour) for colour in clusters.hex_colours])


def sizes(fitted: FittedModel, colours: NDArray[np.float64], clusters: ClusterNames | None = None) -> bytes:
    """Draw the share of each cluster in the total weight.

    Parameters
    ----------
    fitted
        Fitted model.
    colours
        Colours of the clusters ``(k, 3)``, in 0 … 1.
    clusters
        Ids, names and colours of the clusters; ids of the model where None.
    """
    k = fitted.model.k
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    axes = figure.add_subplot()
    axes.bar(np.arange(k), 100 * fitted.shares, color=colours, edgecolor="0.25", linewidth=0.6)
    axes.set_xlabel("cluster")
    axes.set_ylabel("share of weight, %")
    tick(axes.xaxis, clusters or fitted.clusters)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return png(figure)


def tick(axis: Axis, clusters: ClusterNames) -> None:
    """Label the positions 0 … k − 1 of an axis with the names of the clusters.

    Parameters
    ----------
    axis
        Axis of matplotlib; it is changed.
    clusters
        Ids, names and colours of the clusters.
    """
    if clusters.k <= TICKS:
        axis.set_ticks(range(clusters.k), clusters.display_names)
        if isinstance(axis, XAxis) and clusters.names:
            axis.set_tick_params(rotation=30)
        return
    axis.set_major_locator(MaxNLocator(integer=True))
    # Matplotlib also asks for ticks beyond the clusters, which have no name.
    axis.set_major_formatter(
        lambda position, _: clusters.display_names[int(position)] if 0 <= position < clusters.k else ""
    )


def sizes_by_pass(
    track: NDArray[np.float64], colours: NDArray[np.float64], clusters: ClusterNames | None = None
) -> bytes:
    """Draw the effective size of each cluster in every pass.

    Parameters
    ----------
    track
        Effective sizes ``(passes, k)``.
    colours
        Colours of the clusters ``(k, 3)``, in 0 … 1.
    clusters
        Ids, names and colours of the clusters; ids 0 … k − 1 where None.
    """
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    axes = figure.add_subplot()
    passes = np.arange(1, len(track) + 1)
    words = (clusters or default_names(len(colours))).display_names
    for cluster, colour in enumerate(colours):
        axes.plot(passes, track[:, cluster], color=colour, linewidth=1.4, label=words[cluster])
    if len(track) > 40:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    # Sizes are seen against 0, where a cluster dies out.
    axes.set_ylim(bottom=0)
    axes.set_xlabel("pass")
    axes.set_ylabel("Σ weight · responsibility")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(colours) <= 12:
        axes.legend(frameon=False, title="cluster", fontsize="small", ncols=2)
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


def label_map(labels: xr.DataArray, colours: NDArray[np.float64], clusters: ClusterNames | None = None) -> bytes:
    """Draw labels over one or two sample dimensions; masked cells are grey.

    Parameters
    ----------
    labels
        Labels as ids of clusters, −1 where masked, with 1 or 2 dimensions.
    colours
        Colours of the clusters ``(k, 3)``, in 0 … 1.
    clusters
        Ids, names and colours of the clusters; ids 0 … k − 1 where None.
    """
    k = len(colours)
    clusters = clusters or default_names(k)
    # Ids may have gaps, while colours and ticks are found by position.
    labels = labels.copy(data=in_memory(labels.dims, clusters.positions(labels.values)))
    cmap = ListedColormap([MASKED, *colours])
    if labels.ndim == 1:
        figure = Figure(figsize=(7.2, float(np.clip(1.4 + 0.3 * k, 2.6, 6.0))), layout="constrained")
        axes = figure.add_subplot()
        along = axis_positions(labels, str(labels.dims[0]))
        width = float(np.clip(500 / max(1, len(along)), 0.8, 4.0))
        for cluster, colour in enumerate(colours):
            own = along[labels.values == cluster]
            axes.vlines(own, cluster - 0.4, cluster + 0.4, color=colour, linewidth=width)
        axes.set_ylim(-0.6, k - 0.4)
        axes.set_xlabel(named(labels, str(labels.dims[0])))
        axes.set_ylabel("cluster")
        tick(axes.yaxis, clusters)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        return png(figure)
    # The limits put each whole number, from −1 on, in the middle of its own colour.
    figure, mesh = _flags(labels, cmap, (-1.5, k - 0.5))
    bar = figure.colorbar(mesh, ax=figure.axes, label="cluster (-1: masked)", shrink=0.85)
    if k <= 12:
        bar.set_ticks(list(range(-1, k)), labels=["-1", *clusters.display_names])
    else:
        tick(bar.ax.yaxis, clusters)
    return png(figure)


def change_map(changed: xr.DataArray) -> bytes:
    """Draw over two sample dimensions the cells whose label changed.

    Parameters
    ----------
    changed
        1 where the label changed, 0 where not, −1 without a label before or now ``(y, x)``.
    """
    figure, mesh = _flags(changed, ListedColormap([MASKED, *SAME_CHANGED]), (-1.5, 1.5))
    bar = figure.colorbar(mesh, ax=figure.axes, shrink=0.85)
    bar.set_ticks([-1, 0, 1], labels=["no label before or now", "same", "changed"])
    return png(figure)


def _flags(values: xr.DataArray, cmap: ListedColormap, limits: tuple[float, float]) -> tuple[Figure, Any]:
    """Draw whole numbers over two sample dimensions, each number in its own colour."""
    y, x = (str(d) for d in values.dims)
    ratio = values.sizes[y] / max(1, values.sizes[x])
    figure = Figure(figsize=(7.2, float(np.clip(7.2 * ratio, 1.8, 8.0))), layout="constrained")
    axes = figure.add_subplot()
    low, high = limits
    # Rows of an image run downwards. A coordinate runs upwards, whichever way it is stored.
    mesh = axes.pcolormesh(
        axis_positions(values, x), axis_positions(values, y), values.values, cmap=cmap, vmin=low, vmax=high
    )
    if y not in values.coords:
        axes.invert_yaxis()
    axes.set_xlabel(named(values, x))
    axes.set_ylabel(named(values, y))
    return figure, mesh


def quantity_map(values: xr.DataArray, label: str) -> bytes:
    """Draw numbers over two sample dimensions; masked cells are grey.

    Parameters
    ----------
    values
        Numbers ``(y, x)``, NaN where masked.
    label
        Text beside the colour scale.
    """
    y, x = (str(d) for d in values.dims)
    ratio = values.sizes[y] / max(1, values.sizes[x])
    figure = Figure(figsize=(7.2, float(np.clip(7.2 * ratio, 1.8, 8.0))), layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor(MASKED)
    finite = values.values[np.isfinite(values.values)].astype(np.float64)
    # A few extreme rows must not use up the colour scale.
    low, high = np.quantile(finite, (0.01, 0.99)) if finite.size else (0.0, 1.0)
    mesh = axes.pcolormesh(
        axis_positions(values, x), axis_positions(values, y), values.values, cmap="viridis", vmin=low, vmax=high
    )
    if y not in values.coords:
        axes.invert_yaxis()
    axes.set_xlabel(named(values, x))
    axes.set_ylabel(named(values, y))
    # For a single value, matplotlib would invent a range around it.
    only = {"ticks": [low]} if low == high else {"extend": "both"}
    figure.colorbar(mesh, ax=axes, label=label, shrink=0.85, **only)
    return png(figure)


def axis_positions(array: xr.DataArray, dim: str) -> NDArray[Any]:
    """Return positions for an axis: the coordinate of a dimension if it is monotonic without gaps, else 0 … n − 1.

    Longitudes are brought to one turn, and dates of other calendars to the same part of the same year.

    Parameters
    ----------
    array
        Array with the dimension.
    dim
        Name of the dimension.

    Returns
    -------
    ndarray
        Positions ``(n,)``.
    """
    positions = np.arange(array.sizes[dim])
    if dim not in array.coords:
        return positions
    values = np.asarray(array[dim].values)
    if values.dtype.kind == "O":
        values = _dates(values)
    if values.dtype.kind not in "iufM":
        return positions
    whole = period(array[dim], dim)
    if values.dtype.kind != "M" and whole is not None and np.isfinite(values).all():
        values = _one_turn(values.astype(np.float64), whole)
    # Falling unsigned numbers would wrap around in a difference, so numbers become floats first.
    steps = np.diff(values.astype(np.float64)) if values.dtype.kind != "M" else np.diff(values).astype(np.float64)
    has_gap = np.isnat(values) if values.dtype.kind == "M" else ~np.isfinite(values)
    return positions if has_gap.any() or not ((steps > 0).all() or (steps < 0).all()) else values


def _one_turn(longitudes: NDArray[np.float64], whole: float) -> NDArray[np.float64]:
    """Unwrap longitudes ``(n,)`` across the end of a turn, with their middle within half a turn of 0."""
    line = np.unwrap(longitudes, period=whole)
    if np.array_equal(line, longitudes):
        return longitudes
    middle = (line[0] + line[-1]) / 2 if line.size else 0.0
    return np.asarray(line + (float(within_half_turn(np.asarray(middle), whole)) - middle))


def _dates(values: NDArray[Any]) -> NDArray[Any]:
    """Convert dates of any calendar ``(n,)`` to numpy's, which can be drawn; return other values unchanged."""
    if not all(hasattr(value, "calendar") for value in values):
        return values
    dates = np.empty(len(values), "datetime64[s]")
    for i, value in enumerate(values):
        begin = value.replace(month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
        # The dates below are written with four digits of the year.
        if not 1 <= value.year <= 9998:
            return values
        # Years of 360 or 365 days are stretched to the length of a real one, which keeps the seasons in place.
        passed = (value - begin) / (begin.replace(year=value.year + 1) - begin)
        first, second = (np.datetime64(f"{year:04d}-01-01", "s") for year in (value.year, value.year + 1))
        dates[i] = first + np.timedelta64(round(passed * int((second - first).astype(np.int64))), "s")
    return dates


def named(array: xr.DataArray, dim: str) -> str:
    """Return the name of a dimension with the units of its coordinate.

    Parameters
    ----------
    array
        Array with the dimension.
    dim
        Name of the dimension.
    """
    return dim if dim not in array.coords else with_units(dim, array[dim].attrs)


def with_units(name: str, attributes: Mapping[Any, Any]) -> str:
    """Return the name of a variable with its units.

    Parameters
    ----------
    name
        Name of the variable.
    attributes
        Attributes of the variable; ``units`` is read.
    """
    units = str(attributes.get("units", ""))
    return f"{name} ({units})" if units not in ("", "1") else name


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
