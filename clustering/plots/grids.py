"""Plots over the sample grid: labels as a map, a series or their frequency, and numbers of each row as a map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.path import Path
from numpy.typing import NDArray

from clustering.data.plain_dataset import Labelled, as_plain
from clustering.deferred import xr
from clustering.errors import ConfigError, nearest
from clustering.fitting.cluster_names import ClusterNames, default_names
from clustering.plots.canvas import (
    CLEAR,
    MASKED,
    PAPER,
    Colours,
    Place,
    axes_for,
    colours_of,
    finish,
    legend,
    tick,
    tidy,
)
from clustering.plots.coastlines import add_coastlines, is_map
from clustering.plots.positions import axis_positions, named, recentred

SAME_CHANGED = ("#bfdbfe", "#b91c1c")
SHOWN = 1000
"""Largest number of cells along a side of a drawn map."""
TIMES = ("time", "date", "t")
"""Names of a dimension that is taken for time where it has no dates."""


def slice_of(array: Labelled, at: Mapping[Any, Any], dims: int = 2) -> Any:
    """Cut an array down to what can be drawn: its last dimensions, in the middle of the others, thinned.

    Parameters
    ----------
    array
        Array on the sample grid.
    at
        Position along dimensions as a whole number, or a label of any other type; the nearest one of numbers.
    dims
        Number of dimensions that stay at most.

    Returns
    -------
    Labelled
        Of the same kind, with at most `SHOWN` cells along each dimension; the attribute ``shown_at`` says where the
        others were cut.

    Raises
    ------
    ConfigError
        If a dimension, position or label is not there.
    """
    for name, value in at.items():
        if name not in array.dims:
            raise ConfigError(f"cannot cut along {name!r}; {nearest(str(name), map(str, array.dims))}")
        array = _cut(array, str(name), value)
    places = {str(name): _place(array, str(name)) for name in at}
    middle = {d: array.sizes[d] // 2 for d in array.dims[:-dims]} if array.ndim > dims else {}
    array = array.isel(middle)
    places |= {str(d): _place(array, str(d)) for d in middle}
    # Cells are skipped and not averaged, because a mean of labels is no label.
    array = array.isel({d: slice(None, None, max(1, -(-n // SHOWN))) for d, n in array.sizes.items()})
    return array.assign_attrs(shown_at=places)


def _cut(array: Labelled, name: str, value: Any) -> Any:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if whole and not -array.sizes[name] <= value < array.sizes[name]:
        raise ConfigError(f"{name} is {value} and has {array.sizes[name]:,} positions, counted from 0")
    if whole:
        return array.isel({name: int(value)})
    number = isinstance(value, float | np.floating)
    try:
        cut = array.sel({name: value}, method="nearest" if number else None)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{name} is {value!r}, which is not along it; give a position as a whole number, or a label"
        ) from error
    # A part of a date stands for all times in it, of which the first is drawn.
    return cut.isel({name: 0}) if name in cut.dims else cut


def _place(array: Labelled, name: str) -> str:
    if name not in array.coords:
        return "half-way"
    value = array[name].values
    # Dates are cut to seconds.
    return str(value)[:19] if value.dtype.kind == "M" else f"{value:.6g}" if value.dtype.kind == "f" else str(value)


def place_text(array: Labelled) -> str:
    """Say where the other dimensions of a slice were cut; empty where there are none.

    Parameters
    ----------
    array
        Array from `slice_of`.
    """
    return ", ".join(f"{d} {value}" for d, value in array.attrs.get("shown_at", {}).items())


def labels(
    array: Labelled, clusters: ClusterNames | None = None, ax: Place = None, colours: Colours | None = None
) -> Axes:
    """Draw labels over one sample dimension as a row of strokes for each cluster, or over two as a map.

    Parameters
    ----------
    array
        Labels as ids of clusters, −1 where masked, with 1 or 2 dimensions.
    clusters
        Ids, names and colours of the clusters; ids 0 … k − 1 where None.
    ax
        See `clustering.plots.canvas.Place`.
    colours
        Colours of the clusters ``(k, 3)``, in 0 … 1; those of `clusters` where None.

    Returns
    -------
    Axes
        The axes. A map has one mesh, with the row number of the cluster in each cell; −1 where masked.
    """
    if clusters is None:
        clusters = default_names(int(array.max()) + 1 if array.size else 1)
    colours = colours_of(clusters) if colours is None else colours
    k = clusters.k
    # Ids may have gaps, while colours and ticks are found by position.
    array = as_plain(array).copy(clusters.positions(array.values))
    if array.ndim == 1:
        axes = axes_for(ax, (7.2, float(np.clip(1.4 + 0.3 * k, 2.6, 6.0))))
        along = axis_positions(array, str(array.dims[0]))
        width = float(np.clip(500 / max(1, len(along)), 0.8, 4.0))
        # Dates become numbers of days, and the axis keeps showing dates.
        axes.xaxis.update_units(along)  # type: ignore[no-untyped-call]
        along = np.asarray(axes.convert_xunits(along), np.float64)  # type: ignore[no-untyped-call]
        strokes = [_strokes(along[array.values == cluster], cluster) for cluster in range(k)]
        # A collection is drawn much faster than a line for each cluster, and that much faster than one for each stroke.
        axes.add_collection(PathCollection(strokes, facecolors="none", edgecolors=colours, linewidths=width))
        axes.autoscale_view()
        # From the top down, as in legends and tables.
        axes.set_ylim(k - 0.4, -0.6)
        axes.set_xlabel(named(array, str(array.dims[0])))
        axes.set_ylabel("cluster")
        tick(axes.yaxis, clusters)
        tidy(axes)
        finish(axes)
        return axes
    # The limits put each whole number, from −1 on, in the middle of its own colour.
    axes, mesh = _mesh(array, ax, ListedColormap([CLEAR, *map(tuple, colours)]), (-1.5, k - 0.5))
    bar = _bar_figure(axes).colorbar(mesh, ax=axes, label="cluster", shrink=0.85)
    tick(bar.ax.yaxis, clusters)
    if k > 16:
        bar.ax.tick_params(labelsize="x-small")
    if k <= 12:
        bar.set_ticks(list(range(-1, k)), labels=["masked", *clusters.display_names])
    bar.ax.set_facecolor(MASKED)
    bar.ax.minorticks_off()
    bar.ax.invert_yaxis()
    finish(axes, bar.ax)
    return axes


def _strokes(along: NDArray[Any], cluster: int) -> Path:
    """Return upright strokes at some positions in the row of a cluster."""
    ends = np.empty((len(along), 2, 2))
    ends[:, :, 0] = along[:, None]
    ends[:, :, 1] = cluster - 0.4, cluster + 0.4
    return Path(ends.reshape(-1, 2), np.tile([Path.MOVETO, Path.LINETO], len(along)))


def changes(array: Labelled, ax: Place = None) -> Axes:
    """Draw over two sample dimensions the cells whose label changed.

    Parameters
    ----------
    array
        1 where the label changed, 0 where not, −1 without a label before or now ``(y, x)``.
    ax
        See `clustering.plots.canvas.Place`.
    """
    axes, mesh = _mesh(array, ax, ListedColormap([CLEAR, *map(to_rgba, SAME_CHANGED)]), (-1.5, 1.5))
    bar = _bar_figure(axes).colorbar(mesh, ax=axes, shrink=0.85)
    bar.set_ticks([-1, 0, 1], labels=["no label before or now", "same", "changed"])
    bar.ax.set_facecolor(MASKED)
    bar.ax.minorticks_off()
    finish(axes, bar.ax)
    return axes


def quantity(array: Labelled, label: str, ax: Place = None) -> Axes:
    """Draw numbers over one sample dimension as a line, or over two as a map; masked cells are grey.

    Parameters
    ----------
    array
        Numbers with 1 or 2 dimensions, NaN where masked.
    label
        Text beside the colour scale, or the axis of the line.
    ax
        See `clustering.plots.canvas.Place`.

    Returns
    -------
    Axes
        The axes. The colour scale of a map ends at the quantiles 1 % and 99 %.
    """
    if array.ndim == 1:
        axes, dim = axes_for(ax, (7.2, 2.8)), str(array.dims[0])
        axes.plot(axis_positions(array, dim), array.values, color=SAME_CHANGED[1], linewidth=1.0, marker=".")
        axes.set_xlabel(named(array, dim))
        axes.set_ylabel(label)
        tidy(axes)
        finish(axes)
        return axes
    finite = array.values[np.isfinite(array.values)].astype(np.float64)
    # A few extreme rows must not use up the colour scale.
    low, high = np.quantile(finite, (0.01, 0.99)) if finite.size else (0.0, 1.0)
    axes, mesh = _mesh(array, ax, "viridis", (float(low), float(high)))
    # For a single value, matplotlib would invent a range around it.
    only: dict[str, Any] = {"ticks": [low]} if low == high else {"extend": "both"}
    bar = _bar_figure(axes).colorbar(mesh, ax=axes, label=label, shrink=0.85, **only)
    finish(axes, bar.ax)
    return axes


def _bar_figure(axes: Axes) -> Any:
    return axes.get_figure(root=False)


def _mesh(array: Labelled, ax: Place, cmap: Any, limits: tuple[float, float]) -> tuple[Axes, Any]:
    """Draw a value in each cell of two sample dimensions; rows of an image run downwards, coordinates upwards."""
    y, x = (str(d) for d in array.dims)
    array = recentred(array, x)
    ratio = array.sizes[y] / max(1, array.sizes[x])
    axes = axes_for(ax, (7.2, float(np.clip(7.2 * ratio, 1.8, 8.0))))
    low, high = limits
    mesh = axes.pcolormesh(
        axis_positions(array, x), axis_positions(array, y), array.values, cmap=cmap, vmin=low, vmax=high
    )
    if y not in array.coords:
        axes.invert_yaxis()
    if is_map(array):
        add_coastlines(axes)
    axes.set_facecolor(MASKED)
    axes.set_xlabel(named(array, x))
    axes.set_ylabel(named(array, y))
    return axes, mesh


def time_dimension(array: xr.DataArray) -> str | None:
    """Return the dimension of an array that is time: the first with dates, or one that is called so; None without one.

    Parameters
    ----------
    array
        Array on the sample grid.
    """
    for name in map(str, array.dims):
        if name in array.coords and (array[name].dtype.kind == "M" or _has_calendar(array[name].values)):
            return name
    return next((str(d) for d in array.dims if str(d).lower() in TIMES), None)


def _has_calendar(values: NDArray[Any]) -> bool:
    return bool(values.dtype.kind == "O" and values.size and hasattr(values.reshape(-1)[0], "calendar"))


def frequencies(array: xr.DataArray, clusters: ClusterNames, dim: str) -> NDArray[np.float64]:
    """Compute the share of each cluster in the labelled cells along a dimension ``(k, n)``; NaN where there are none.

    Parameters
    ----------
    array
        Labels as ids of clusters, −1 where masked.
    clusters
        Ids of the clusters.
    dim
        The dimension, such as time.
    """
    columns = array.transpose(dim, ...).values.reshape(array.sizes[dim], -1)
    counts = np.zeros((clusters.k, len(columns)))
    # One time after another: the labels of all times may be large.
    for place, column in enumerate(columns):
        positions = clusters.positions(column)
        counts[:, place] = np.bincount(positions[positions >= 0], minlength=clusters.k)
    total = counts.sum(axis=0)
    return np.asarray(np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0))


def frequency(
    array: xr.DataArray,
    clusters: ClusterNames,
    dim: str | None = None,
    ax: Place = None,
    colours: Colours | None = None,
) -> Axes:
    """Draw the frequency of each cluster over time, stacked: the share of the labelled cells, in percent.

    Parameters
    ----------
    array
        Labels as ids of clusters, −1 where masked, over time and further sample dimensions.
    clusters
        Ids, names and colours of the clusters.
    dim
        Dimension along the axis; time where None.
    ax
        See `clustering.plots.canvas.Place`.
    colours
        Colours of the clusters ``(k, 3)``, in 0 … 1; those of `clusters` where None.

    Returns
    -------
    Axes
        The axes, with one area for each cluster, from the lowest to the uppermost.

    Raises
    ------
    ConfigError
        If there is no such dimension.
    """
    if dim is None:
        dim = time_dimension(array)
        if dim is None:
            raise ConfigError(f"the labels have no time; name the dimension: dim, {nearest('', map(str, array.dims))}")
    if dim not in array.dims:
        raise ConfigError(f"dim is {dim!r}; {nearest(dim, map(str, array.dims))}")
    colours = colours_of(clusters) if colours is None else colours
    axes = axes_for(ax, (7.2, 3.2))
    share, along = 100 * frequencies(array, clusters, dim), axis_positions(array, dim)
    if len(along) == 1:
        # An area needs two places, so a single time is a column.
        tops = np.nan_to_num(share[:, 0])
        axes.bar(along.repeat(clusters.k), tops, bottom=np.cumsum(tops) - tops, color=colours, width=0.5)
    else:
        axes.stackplot(
            along, share, colors=list(colours), labels=clusters.display_names, linewidth=0.3, edgecolor=PAPER
        )
        legend(axes, clusters.k)
        axes.set_xlim(along.min(), along.max())
    axes.set_ylim(0, 100)
    axes.set_xlabel(named(array, dim))
    axes.set_ylabel("share of the labelled cells, %")
    axes.spines[["top", "right"]].set_visible(False)
    finish(axes)
    return axes
