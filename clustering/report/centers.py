"""Figures of the centers: maps, profiles and series in the units of the data, otherwise a heat map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from clustering.deferred import xr
from clustering.fitting.center_fields import center_fields
from clustering.fitting.cluster_names import ClusterNames
from clustering.fitting.fitted_model import FittedModel
from clustering.report.figures import MASKED, axis_positions, named, png, tick, with_units

Colours = NDArray[np.float64]

MAPS = 12
"""Largest number of clusters with a map or a legend entry: the largest clusters."""
PANELS = 4
"""Largest number of variables drawn as profiles or maps, and of maps side by side."""
LEAST = 4
"""Smallest number of positions of a profile."""
FAINT = 0.5
"""If departures from the mean are below this share of the range of the maps, they are drawn too."""
PRESSURE = ("pa", "hpa", "mbar", "millibar", "bar", "dbar", "decibar")
"""Units of pressure, which mark a vertical coordinate (CF conventions, section 4.3.1), in lower case."""


@dataclass(frozen=True)
class CenterFigure:
    """A figure of the centers."""

    title: str
    caption: str
    png: bytes
    wide: bool = False


def draw(fitted: FittedModel, colours: Colours, clusters: ClusterNames | None = None) -> list[CenterFigure]:
    """Draw the centers in a form that suits their features: maps over two feature dimensions, lines over one.

    Parameters
    ----------
    fitted
        Fitted model.
    colours
        Colours of the clusters ``(k, 3)``, in 0 … 1.
    clusters
        Ids, names and colours of the clusters; ids of the model where None.
    """
    laid, clusters = center_fields(fitted), clusters or fitted.clusters
    if len(laid) <= PANELS:
        if all(field.ndim == 3 and min(field.shape[1:]) > 1 for field in laid.values()):
            return [
                figures for name, field in laid.items() for figures in _maps(fitted, name, field, colours, clusters)
            ]
        if all(_is_line(field) for field in laid.values()):
            return [CenterFigure("Centers", "In the data's own units.", _lines(laid, colours, clusters))]
    caption = "As standard scores: the distance from the mean in standard deviations."
    return [CenterFigure("Centers", caption, _scores(fitted, clusters))]


def largest(fitted: FittedModel) -> NDArray[np.int64]:
    """Return the positions of the largest clusters, which have maps, in the order of their ids.

    Parameters
    ----------
    fitted
        Fitted model.
    """
    return np.sort(np.argsort(-fitted.shares, kind="stable")[:MAPS])


def _is_line(field: xr.DataArray) -> bool:
    """Return whether centers of one variable can be drawn as lines."""
    if field.ndim != 2 or field.shape[1] < LEAST:
        return False
    dim = str(field.dims[1])
    # Names along a dimension have no order, so a line through them would mean nothing.
    return dim in field.coords and field[dim].dtype.kind in "iufMO"


def _maps(
    fitted: FittedModel, name: str, field: xr.DataArray, colours: Colours, clusters: ClusterNames
) -> list[CenterFigure]:
    """Draw a map of each cluster, and of its departures from the mean where the maps are much alike."""
    k, shown = len(field), largest(fitted)
    mean = _mean(fitted, name, field)
    caption = f"Of the {len(shown)} largest of {k} clusters. " if k > len(shown) else ""
    title = with_units(name, field.attrs)
    heads = [clusters.names.get(int(i), f"cluster {i}") for i in clusters.ids[shown]]
    picture = _panels(field[shown], heads, colours[shown])
    figures = [CenterFigure(f"Centers: {title}", caption + "In the data's own units.", picture, True)]
    apart = field - mean
    if float(np.abs(apart).max()) < FAINT * float(field.max() - field.min()):
        apart = apart.assign_attrs(field.attrs)
        picture = _panels(apart[shown], heads, colours[shown], around_zero=True)
        figures.append(
            CenterFigure(f"Departures: {title}", caption + "Centers less the mean of all rows.", picture, True)
        )
    return figures


def _mean(fitted: FittedModel, name: str, field: xr.DataArray) -> NDArray[np.float64]:
    """Return the mean of all rows on the grid of a field."""
    columns = [i for i, feature in enumerate(fitted.features) if feature.variable == name]
    return np.asarray(fitted.summary.mean[columns].reshape(field.shape[1:]))


def _panels(field: xr.DataArray, heads: Sequence[str], colours: Colours, around_zero: bool = False) -> bytes:
    """Draw maps side by side with one colour scale, centered at 0 where values reach about as far to both sides."""
    low, high = float(field.min()), float(field.max())
    if around_zero or (low < 0 < high and min(-low, high) > FAINT * max(-low, high)):
        # A scale of zero width would be an error.
        high = max(-low, high, 1e-300)
        low, cmap = -high, "RdBu_r"
    else:
        cmap = "viridis"
    y, x = (str(d) for d in field.dims[1:])
    columns = min(PANELS, len(heads))
    rows = -(-len(heads) // columns)
    # Panels keep the shape of their grid, within limits that fit a page.
    height = float(np.clip(11.0 / columns * field.sizes[y] / field.sizes[x], 1.2, 4.5))
    figure = Figure(figsize=(2.4 + 11.0 * max(columns, 2) / PANELS, 0.6 + rows * (height + 0.35)), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    across, up = axis_positions(field, x), axis_positions(field, y)
    mesh: Any = None
    for panel, axes in enumerate(panels.flat):
        if panel >= len(heads):
            axes.set_axis_off()
            continue
        mesh = axes.pcolormesh(across, up, field.values[panel], cmap=cmap, vmin=low, vmax=high)
        axes.set_facecolor(MASKED)
        # Bright colours are hard to read as text on white, so they are darkened.
        axes.set_title(heads[panel], fontsize="medium", color=0.8 * colours[panel])
    # All panels share their axes, so one call flips all. Without a coordinate, rows run downwards as in an image.
    if y not in field.coords or _counts_down(field[y].attrs, y):
        panels[0, 0].invert_yaxis()
    for axes in panels[-1]:
        axes.set_xlabel(named(field, x))
    for axes in panels[:, 0]:
        axes.set_ylabel(named(field, y))
    figure.colorbar(mesh, ax=panels, label=with_units("departure" if around_zero else "center", field.attrs))
    return png(figure)


def _lines(laid: Mapping[str, xr.DataArray], colours: Colours, clusters: ClusterNames) -> bytes:
    """Draw profiles: upright over a vertical coordinate, otherwise as series."""
    upright = {name: _is_vertical(field) for name, field in laid.items()}
    figure = Figure(figsize=(7.2, 4.4 if any(upright.values()) else 3.4), layout="constrained")
    panels = figure.subplots(1, len(laid), squeeze=False)[0]
    for axes, (name, field) in zip(panels, laid.items(), strict=True):
        dim = str(field.dims[1])
        along = axis_positions(field, dim)
        for cluster, colour in enumerate(colours):
            line = (field.values[cluster], along) if upright[name] else (along, field.values[cluster])
            axes.plot(*line, color=colour, label=clusters.display_names[cluster], linewidth=1.4)
        _label(axes, (with_units(name, field.attrs), named(field, dim)), upright[name])
        if upright[name] and _counts_down(field[dim].attrs, dim):
            axes.invert_yaxis()
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    if len(colours) <= MAPS:
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right upper", frameon=False, title="cluster", fontsize="small")
    return png(figure)


def _label(axes: Axes, names: tuple[str, str], upright: bool) -> None:
    across, up = names if upright else names[::-1]
    axes.set_xlabel(across)
    axes.set_ylabel(up)


def _is_vertical(field: xr.DataArray) -> bool:
    """Return whether the feature dimension is a vertical coordinate, by the CF conventions or its name."""
    dim = str(field.dims[1])
    attributes = field[dim].attrs
    # CF conventions, section 4.3: the attribute positive, or units of pressure, mark a vertical coordinate.
    return bool(attributes.get("positive")) or attributes.get("axis") == "Z" or _counts_down(attributes, dim)


def _counts_down(attributes: Mapping[Any, Any], name: str) -> bool:
    """Return whether a coordinate grows downwards, as depth and pressure do."""
    if attributes.get("positive"):
        return str(attributes["positive"]).lower() == "down"
    # Files often lack the attribute. The model NEMO calls its depth deptht.
    return name.lower() in ("depth", "deptht") or str(attributes.get("units", "")).lower() in PRESSURE


def _scores(fitted: FittedModel, clusters: ClusterNames) -> bytes:
    """Draw a heat map of standard scores."""
    # A constant feature has the score 0.
    deviations = np.sqrt(np.where(fitted.summary.variance > 0, fitted.summary.variance, 1.0))
    scores = (fitted.centers - fitted.summary.mean) / deviations
    k, d = scores.shape
    figure = Figure(figsize=(7.2, float(np.clip(0.24 * k + 1.2, 2.2, 9.0))), layout="constrained")
    axes = figure.add_subplot()
    # A scale of equal length to both sides gives the mean of the data its neutral colour.
    limit = max(1e-12, float(np.abs(scores).max()))
    image = axes.imshow(scores, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_ylabel("cluster")
    tick(axes.yaxis, clusters)
    if d <= 24:
        axes.set_xticks(
            range(d), [str(f) for f in fitted.features], rotation=45 if d > 4 else 0, ha="right" if d > 4 else "center"
        )
    else:
        axes.set_xlabel("feature")
    figure.colorbar(image, ax=axes, label="standard score")
    return png(figure)
