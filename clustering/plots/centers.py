"""Plots of the centers, in the form that the coordinates of their features ask for, in the data's own units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from clustering.data.plain_dataset import Labelled
from clustering.deferred import xr
from clustering.errors import ConfigError, nearest
from clustering.fitting.center_fields import center_fields, plain_fields
from clustering.fitting.cluster_names import ClusterNames
from clustering.fitting.fitted_model import FittedModel
from clustering.plots.canvas import (
    MASKED,
    SOFT,
    Colours,
    Place,
    axes_for,
    colours_of,
    figure_for,
    finish,
    panels_for,
    tick,
)
from clustering.plots.coastlines import add_coastlines, is_map
from clustering.plots.positions import axis_positions, named, recentred, with_units
from clustering.plots.profiles import PANELS, counts_down, is_line, profiles
from clustering.plots.spread import Spread

Form = Literal["maps", "departures", "profiles", "heat map", "swatches"]

MAPS = 12
"""Largest number of clusters with a map: the largest clusters."""
FAINT = 0.5
"""If departures from the mean are below this share of the range of the maps, they are drawn too."""
WORDS = 24
"""Largest number of features with a tick each."""
_CHANNELS = ("channel", "channels", "band", "bands", "rgb", "c")
"""Names of a feature dimension of three labels that may be colours."""
_RGB = (("red", "green", "blue"), ("r", "g", "b"))


def centers(
    fitted: FittedModel,
    clusters: ClusterNames | None = None,
    ax: Place = None,
    *,
    form: Form | None = None,
    variable: str | None = None,
    spread: Spread | None = None,
    colours: Colours | None = None,
) -> Axes | NDArray[Any]:
    """Draw the centers as maps over two feature dimensions, lines over one, swatches of colours, or a heat map.

    Parameters
    ----------
    fitted
        Fitted model.
    clusters
        Ids, names and colours of the clusters; ids of the model where None.
    ax
        See `clustering.plots.canvas.Place`.
    form
        How they are drawn; `form_of` chooses where None.
    variable
        The variable that maps or profiles are of; all where None.
    spread
        Bands around profiles; none where None.
    colours
        Colours of the clusters ``(k, 3)``, in 0 … 1; those of `clusters` where None.

    Returns
    -------
    Axes, or ndarray of Axes
        A heat map or swatches: one. Profiles: one for each variable. Maps: one for each of the largest clusters, for
        several variables in rows.

    Raises
    ------
    ConfigError
        If the form does not suit the features, or there is no such variable.
    """
    clusters = clusters or fitted.clusters
    colours = colours_of(clusters) if colours is None else colours
    fields = plain_fields(fitted)
    if variable is not None and variable not in fields:
        raise ConfigError(f"variable is {variable!r}; {nearest(variable, fields)}")
    if form is not None and form not in get_args(Form):
        raise ConfigError(f"form is {form!r}; {nearest(form, get_args(Form))}")
    kept = fields if variable is None else {variable: fields[variable]}
    form = form or form_of(fitted, kept)
    match form:
        case "swatches":
            return swatches(fitted, clusters, ax)
        case "heat map":
            return scores(fitted, clusters, ax)
        case "profiles" if all(field.ndim == 2 for field in kept.values()):
            return profiles(kept, _columns(fitted), colours, clusters, ax, spread)
        case "maps" | "departures" if all(field.ndim == 3 for field in kept.values()):
            if len(kept) == 1:
                return maps(fitted, next(iter(kept)), clusters, ax, departures=form == "departures", colours=colours)
            if isinstance(ax, Axes | np.ndarray):
                raise ConfigError(
                    f"ax is axes, and there are maps of {len(kept)} variables; give variable, or a figure"
                )
            parts: Any = figure_for(ax, (13.0, 3.2 * len(kept))).subfigures(len(kept), 1)
            drawn = [
                maps(fitted, name, clusters, part, departures=form == "departures", colours=colours)
                for name, part in zip(kept, parts, strict=True)
            ]
            return np.array([list(np.atleast_1d(one).flat) for one in drawn], object)
    lie = "; ".join(f"{name} over {', '.join(map(str, field.dims[1:])) or 'none'}" for name, field in kept.items())
    raise ConfigError(f"form is {form!r} and the feature dimensions are: {lie}; leave form out, or take 'heat map'")


def form_of(fitted: FittedModel, fields: Mapping[str, Labelled] | None = None) -> Form:
    """Choose how centers are drawn, by the coordinates of their features.

    Parameters
    ----------
    fitted
        Fitted model.
    fields
        Centers of the variables that are drawn; of all where None.
    """
    fields = plain_fields(fitted) if fields is None else fields
    if centers_are_colours(fitted) and _have_names_of_colours(fields):
        return "swatches"
    if len(fields) <= PANELS:
        if all(field.ndim == 3 and min(field.shape[1:]) > 1 for field in fields.values()):
            return "maps"
        if all(is_line(field) for field in fields.values()):
            return "profiles"
    return "heat map"


def centers_are_colours(fitted: FittedModel) -> bool:
    """Return whether centers may be colours of 8 bits, which unit vectors are not.

    Parameters
    ----------
    fitted
        Fitted model.
    """
    if len(fitted.features) != 3 or (fitted.preparation is not None and fitted.preparation.unit_norm):
        return False
    low, high = fitted.summary.least, fitted.summary.greatest
    return bool((low >= 0).all() and (high <= 255).all() and (high > 1).any())


def _have_names_of_colours(fields: Mapping[str, Labelled]) -> bool:
    if len(fields) == 3:
        return tuple(name.lower() for name in fields) in _RGB
    dims = [str(d) for field in fields.values() for d in field.dims[1:]]
    return len(fields) == 1 and len(dims) == 1 and dims[0].lower() in _CHANNELS


def center_colours(fitted: FittedModel) -> NDArray[np.uint8]:
    """Return the centers of an 8-bit colour image ``(k, 3)`` as bytes.

    Parameters
    ----------
    fitted
        Fitted model.
    """
    return np.clip(np.rint(fitted.centers), 0, 255).astype(np.uint8)


def swatches(fitted: FittedModel, clusters: ClusterNames | None = None, ax: Place = None) -> Axes:
    """Draw each center of a colour image in its own colour, as a bar as long as its share of the weight.

    Parameters
    ----------
    fitted
        Fitted model with three features.
    clusters
        Ids and names of the clusters; ids of the model where None.
    ax
        See `clustering.plots.canvas.Place`.

    Raises
    ------
    ConfigError
        If the centers are no colours.
    """
    if not centers_are_colours(fitted):
        raise ConfigError(
            f"form is 'swatches' and the model has {len(fitted.features)} features; swatches need three channels of "
            "0 … 255: take 'heat map'"
        )
    clusters = clusters or fitted.clusters
    k, book = fitted.model.k, center_colours(fitted) / 255
    axes = axes_for(ax, (7.2, float(np.clip(0.22 * k + 1.0, 1.6, 10.0))))
    shares = 100 * np.nan_to_num(fitted.shares)
    axes.barh(np.arange(k), shares, color=book, edgecolor=SOFT, linewidth=0.5, height=0.86)
    if k <= 48:
        for cluster, colour in enumerate(book):
            text = f" {to_hex(colour)}  {shares[cluster]:.3g} %"
            axes.text(shares[cluster], cluster, text, va="center", fontsize="small" if k <= 24 else "x-small")
    axes.set_xlim(0, 1.25 * max(1e-9, shares.max()))
    axes.set_ylim(k - 0.4, -0.6)
    axes.set_xlabel("share of weight, %")
    axes.set_ylabel("cluster")
    tick(axes.yaxis, clusters)
    axes.spines[["top", "right"]].set_visible(False)
    finish(axes)
    return axes


def largest(fitted: FittedModel) -> NDArray[np.int64]:
    """Return the positions of the largest clusters, which have maps, in the order of their ids.

    Parameters
    ----------
    fitted
        Fitted model.
    """
    return np.sort(np.argsort(-fitted.shares, kind="stable")[:MAPS])


def departures_show_more(fitted: FittedModel, name: str) -> bool:
    """Return whether the maps of a variable are so much alike that their departures from the mean are needed.

    Parameters
    ----------
    fitted
        Fitted model.
    name
        Name of the variable.
    """
    field = center_fields(fitted)[name]
    apart = field - _mean(fitted, name, field)
    return fitted.model.k > 1 and float(np.abs(apart).max()) < FAINT * float(field.max() - field.min())


def _mean(fitted: FittedModel, name: str, field: xr.DataArray) -> NDArray[np.float64]:
    """Return the mean of all rows on the grid of a field."""
    return np.asarray(fitted.summary.mean[_columns(fitted)[name]].reshape(field.shape[1:]))


def _columns(fitted: FittedModel) -> dict[str, list[int]]:
    """Return the columns of each variable, by the names that fields have."""
    columns: dict[str, list[int]] = {}
    for column, feature in enumerate(fitted.features):
        columns.setdefault(feature.variable, []).append(column)
    # A variable may have another name as a field, and its place is the same.
    return dict(zip(plain_fields(fitted), columns.values(), strict=True))


def maps(
    fitted: FittedModel,
    name: str,
    clusters: ClusterNames | None = None,
    ax: Place = None,
    *,
    departures: bool = False,
    colours: Colours | None = None,
) -> NDArray[Any]:
    """Draw a map of each of the largest clusters, side by side with one colour scale.

    Parameters
    ----------
    fitted
        Fitted model.
    name
        Name of a variable with two feature dimensions.
    clusters
        Ids, names and colours of the clusters; ids of the model where None.
    ax
        See `clustering.plots.canvas.Place`.
    departures
        Whether the mean of all rows is subtracted.
    colours
        Colours of the frames ``(k, 3)``, in 0 … 1; those of `clusters` where None.

    Returns
    -------
    ndarray of Axes
        One panel for each map, in the order of the ids.
    """
    clusters = clusters or fitted.clusters
    colours = colours_of(clusters) if colours is None else colours
    shown, field = largest(fitted), center_fields(fitted)[name]
    heads = [clusters.names.get(int(i), f"cluster {i}") for i in clusters.ids[shown]]
    if departures:
        field = (field - _mean(fitted, name, field)).assign_attrs(field.attrs)
    y, x = (str(d) for d in field.dims[1:])
    field = recentred(field[shown], x)
    low, high = float(field.min()), float(field.max())
    cmap = "viridis"
    # A scale of equal length to both sides gives 0 its neutral colour.
    if departures or (low < 0 < high and min(-low, high) > FAINT * max(-low, high)):
        # A scale of zero width would be an error.
        high = max(-low, high, 1e-300)
        low, cmap = -high, "RdBu_r"
    rows = -(-len(heads) // PANELS)
    # Five maps are rows of three and two, rather than of four and one.
    columns = -(-len(heads) // rows)
    # Panels keep the shape of their grid, within limits that fit a page.
    height = float(np.clip(11.0 / columns * field.sizes[y] / field.sizes[x], 1.2, 4.5))
    size = (2.4 + 11.0 * max(columns, 2) / PANELS, 0.6 + rows * (height + 0.35))
    if isinstance(ax, Axes | np.ndarray):
        panels = panels_for(ax, 1, len(heads), size)
    else:
        panels = panels_for(ax, rows, columns, size, sharex=True, sharey=True)
    across, up = axis_positions(field, x), axis_positions(field, y)
    mesh: Any = None
    for axes in panels.flat[len(heads) :]:
        axes.set_axis_off()
    drawn = np.array(list(panels.flat[: len(heads)]), object)
    geographic = is_map(field)
    for place, axes in enumerate(drawn):
        mesh = axes.pcolormesh(across, up, field.values[place], cmap=cmap, vmin=low, vmax=high)
        axes.set_facecolor(MASKED)
        if geographic:
            add_coastlines(axes)
        axes.set_title(heads[place], fontsize="medium")
        # Bright colours are hard to read as text, so the frame has the colour of the cluster.
        for spine in axes.spines.values():
            spine.set(edgecolor=colours[shown[place]], linewidth=2.0)
    # Panels that share their axes flip together. Without a coordinate, rows run downwards as in an image.
    for axes in drawn:
        if (y not in field.coords or counts_down(field[y].attrs, y)) and not axes.yaxis_inverted():
            axes.invert_yaxis()
    for axes in drawn[-panels.shape[1] :]:
        axes.set_xlabel(named(field, x))
        # The panel below may be an empty one, which shows no labels for this one.
        axes.xaxis.set_tick_params(labelbottom=True)
    for axes in panels[:, 0]:
        axes.set_ylabel(named(field, y))
    label = with_units(f"{name}, less the mean of all rows" if departures else name, field.attrs)
    bar = drawn[0].get_figure(root=False).colorbar(mesh, ax=list(drawn), label=label)
    finish(*drawn, bar.ax)
    return drawn


def scores(fitted: FittedModel, clusters: ClusterNames | None = None, ax: Place = None) -> Axes:
    """Draw a heat map of standard scores: the distance of each center from the mean in standard deviations.

    Parameters
    ----------
    fitted
        Fitted model.
    clusters
        Ids and names of the clusters; ids of the model where None.
    ax
        See `clustering.plots.canvas.Place`.

    Returns
    -------
    Axes
        The axes, with one image ``(k, d)``.
    """
    # A constant feature has the score 0.
    deviations = np.sqrt(np.where(fitted.summary.variance > 0, fitted.summary.variance, 1.0))
    values = (fitted.centers - fitted.summary.mean) / deviations
    k, d = values.shape
    axes = axes_for(ax, (7.2, float(np.clip(0.24 * k + 1.2, 2.2, 9.0))))
    # A scale of equal length to both sides gives the mean of the data its neutral colour.
    limit = max(1e-12, float(np.abs(values).max()))
    image = axes.imshow(values, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="none")
    axes.set_ylabel("cluster")
    tick(axes.yaxis, clusters or fitted.clusters)
    if d <= WORDS:
        words = [str(feature) for feature in fitted.features]
        slanted = d > 4 or sum(map(len, words)) > 60
        axes.set_xticks(range(d), words, rotation=45 if slanted else 0, ha="right" if slanted else "center")
    else:
        axes.set_xlabel("feature")
    if k * d <= 120:
        for (row, column), value in np.ndenumerate(values):
            ink = "w" if abs(value) > 0.6 * limit else "0.1"
            axes.text(column, row, f"{value:.2g}", ha="center", va="center", fontsize="small", color=ink)
    bar: Any = axes.get_figure(root=False)
    bar = bar.colorbar(image, ax=axes, label="standard score")
    finish(axes, bar.ax)
    return axes
