"""Centers over one feature dimension: profiles over a vertical coordinate, and series over any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from numpy.typing import NDArray

from clustering.data.plain_dataset import Labelled
from clustering.fitting.cluster_names import ClusterNames
from clustering.plots.canvas import NAMED, SOFT, Colours, Place, finish, panels_for, tidy
from clustering.plots.coinciding import coinciding, dashes, groups_text
from clustering.plots.curves import STYLES
from clustering.plots.positions import axis_positions, named, with_units
from clustering.plots.spread import Spread

PANELS = 4
"""Largest number of variables drawn as profiles or maps, and of maps side by side."""
BARE = "feature"
"""Dimension of the features of a bare array."""
LEAST = 4
"""Smallest number of positions of a profile."""
BANDS = 8
"""Largest number of clusters with bands, which would hide each other."""
PRESSURE = ("pa", "hpa", "mbar", "millibar", "bar", "dbar", "decibar")
"""Units of pressure, which mark a vertical coordinate (CF conventions, section 4.3.1), in lower case."""


def is_line(field: Labelled) -> bool:
    """Return whether centers of one variable can be drawn as lines.

    Parameters
    ----------
    field
        Centers ``(cluster, *feature_dims)``.
    """
    if field.ndim != 2 or field.shape[1] < LEAST:
        return False
    dim = str(field.dims[1])
    # Names have no order, nor have the features of a bare array, so a line through them would mean nothing.
    return dim != BARE and dim in field.coords and field[dim].dtype.kind in "iufMO"


def profiles(
    fields: Mapping[str, Labelled],
    columns: Mapping[str, Sequence[int]],
    colours: Colours,
    clusters: ClusterNames,
    ax: Place = None,
    spread: Spread | None = None,
) -> NDArray[Any]:
    """Draw centers as lines, upright over a vertical coordinate; depth and pressure grow downwards.

    Curves that coincide alternate in dashes, and a title or the legend says which they are.

    Parameters
    ----------
    fields
        Centers of each variable ``(cluster, position)``.
    columns
        For each variable its columns in `spread`.
    colours
        Colours of the clusters ``(k, 3)``, in 0 … 1.
    clusters
        Ids and names of the clusters.
    ax
        See `clustering.plots.canvas.Place`.
    spread
        Bands around the lines of up to `BANDS` clusters; none where None.

    Returns
    -------
    ndarray of Axes
        One for each variable, with one line for each cluster.
    """
    upright = {name: _is_vertical(field) for name, field in fields.items()}
    size = (7.2 + 1.6 * max(0, len(fields) - 2), 4.4 if any(upright.values()) else 3.4)
    panels = panels_for(ax, 1, len(fields), size)[0]
    groups = {name: coinciding(field.values.astype(np.float64)) for name, field in fields.items()}
    everywhere = set.intersection(*({*one} for one in groups.values()))
    banded = spread is not None and clusters.k <= BANDS
    for axes, (name, field) in zip(panels, fields.items(), strict=True):
        dim = str(field.dims[1])
        along = axis_positions(field, dim)
        if spread is not None and banded:
            _bands(axes, along, spread, list(columns[name]), colours, upright[name])
        styles = dashes(groups[name], clusters.k)
        for cluster, colour in enumerate(colours):
            line = (field.values[cluster], along) if upright[name] else (along, field.values[cluster])
            style = styles[cluster] or STYLES[cluster // 10 % len(STYLES)]
            (curve,) = axes.plot(*line, color=colour, label=clusters.display_names[cluster], linewidth=1.6)
            curve.set_linestyle(style)
            if styles[cluster]:
                curve.set_dash_capstyle("butt")
        names = with_units(name, field.attrs), named(field, dim)
        axes.set_xlabel(names[0] if upright[name] else names[1])
        axes.set_ylabel(names[1] if upright[name] else names[0])
        if upright[name] and counts_down(field[dim].attrs, dim) and not axes.yaxis_inverted():
            axes.invert_yaxis()
        here = tuple(group for group in groups[name] if group not in everywhere)
        if here and clusters.k <= NAMED:
            axes.set_title(
                f"coinciding here: {groups_text(here, clusters.display_names)}", fontsize="small", loc="left"
            )
        tidy(axes)
    if clusters.k <= NAMED:
        _legend(panels, clusters, tuple(sorted(everywhere)), spread.words if spread is not None and banded else None)
    finish(*panels)
    return np.asarray(panels)


def _bands(
    axes: Axes, along: NDArray[Any], spread: Spread, columns: list[int], colours: Colours, upright: bool
) -> None:
    fill: Any = axes.fill_betweenx if upright else axes.fill_between
    for cluster, colour in enumerate(colours):
        low, high = spread.low[cluster, columns], spread.high[cluster, columns]
        if np.isfinite(low).any():
            fill(along, low, high, color=colour, alpha=0.16, linewidth=0)


def _legend(panels: NDArray[Any], clusters: ClusterNames, same: tuple[tuple[int, ...], ...], band: str | None) -> None:
    """Add one legend for all panels, beside the last, which also says which curves coincide and what bands are."""
    last, names = panels[-1], clusters.display_names
    handles: list[Any] = list(last.get_lines())[-clusters.k :]
    words = list(names)
    for group in same:
        for curve in group[1:]:
            words[curve] += f", as {names[group[0]]}"
    if band is not None:
        handles.append(Patch(color=SOFT, alpha=0.25, linewidth=0))
        words.append(band)
    last.legend(
        handles, words, frameon=False, title="cluster", fontsize="small", handlelength=3.2,
        ncols=-(-clusters.k // 14), loc="upper left", bbox_to_anchor=(1.01, 1.0),
    )  # fmt: skip


def _is_vertical(field: Labelled) -> bool:
    """Return whether the feature dimension is a vertical coordinate, by the CF conventions or its name."""
    dim = str(field.dims[1])
    if dim not in field.coords:
        return False
    attributes = field[dim].attrs
    # CF conventions, section 4.3: the attribute positive, or units of pressure, mark a vertical coordinate.
    return bool(attributes.get("positive")) or attributes.get("axis") == "Z" or counts_down(attributes, dim)


def counts_down(attributes: Mapping[Any, Any], name: str) -> bool:
    """Return whether a coordinate grows downwards, as depth and pressure do.

    Parameters
    ----------
    attributes
        Attributes of the coordinate.
    name
        Its name.
    """
    if attributes.get("positive"):
        return str(attributes["positive"]).lower() == "down"
    # Files often lack the attribute. The model NEMO calls its depth deptht.
    return name.lower() in ("depth", "deptht") or str(attributes.get("units", "")).lower() in PRESSURE
