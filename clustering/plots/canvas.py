"""What all plots share: the axes they draw on, the names and colours of clusters, and plain text."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, FigureBase
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from clustering.errors import ConfigError
from clustering.fitting.cluster_names import ClusterNames, default_names

Place = Axes | FigureBase | NDArray[Any] | None
"""Where a plot goes: on given axes, on new axes of a given figure, or on those of a new figure of pyplot where None."""
Colours = NDArray[np.float64]

MASKED = "#e5e7eb"
"""Grey of masked cells."""
INK = "#111827"
"""Colour of texts and of marks that are no data. In a report, this and the next two follow the colours of the page."""
SOFT = "#6b7280"
"""Colour of lines that only join or frame data."""
PAPER = "#fefefe"
"""Colour of gaps between data, and of the edges of texts that lie on data."""
CLEAR = (0.0, 0.0, 0.0, 0.0)
"""Colour of masked cells in a mesh, which lets the grey of its axes show through."""
LINE = 13.0
"""Height of a name with the space around it, in points."""
TICKS = 32
"""Largest number of clusters with a tick each along an axis."""
NAMED = 40
"""Largest number of clusters with a legend entry each."""
LOG_FROM = 40
"""Above this number of passes their axis is logarithmic, as most of the change is in the first passes."""


def axes_for(place: Place, size: tuple[float, float]) -> Axes:
    """Return the axes to draw on.

    Parameters
    ----------
    place
        See `Place`.
    size
        Width and height of a new figure, in inches; a given figure without axes gets it too.

    Raises
    ------
    ConfigError
        If the place is neither axes nor a figure.
    """
    if isinstance(place, Axes):
        return place
    axes: Axes = panels_for(place, 1, 1, size)[0, 0]
    return axes


def panels_for(place: Place, rows: int, columns: int, size: tuple[float, float], **shared: Any) -> NDArray[Any]:
    """Return axes ``(rows, columns)`` to draw on.

    Parameters
    ----------
    place
        See `Place`; given axes must be as many.
    rows, columns
        Number of panels down and across.
    size
        As for `axes_for`.
    **shared
        ``sharex`` and ``sharey`` of new axes.

    Raises
    ------
    ConfigError
        If the place is neither axes nor a figure, or there are fewer or more axes.
    """
    if isinstance(place, Axes | np.ndarray):
        given = np.atleast_1d(np.asarray(place, object)).reshape(-1)
        if not all(isinstance(one, Axes) for one in given):
            raise ConfigError(f"ax is an array of {type(given[0]).__name__}; give axes or a figure of matplotlib")
        if len(given) != rows * columns:
            raise ConfigError(
                f"ax has {len(given)} axes, and this plot has {rows * columns} panels; give a figure, or as many axes"
            )
        return given.reshape(rows, columns)
    panels: NDArray[Any] = figure_for(place, size).subplots(rows, columns, squeeze=False, **shared)
    return panels


def figure_for(place: Place, size: tuple[float, float]) -> FigureBase:
    """Return the figure to draw on: the given one, or a new one of pyplot, which notebooks show.

    Parameters
    ----------
    place, size
        As for `axes_for`.
    """
    if place is None:
        from matplotlib import pyplot

        return pyplot.figure(figsize=size, layout="constrained")
    if not isinstance(place, FigureBase):
        raise ConfigError(f"ax is of type {type(place).__name__}; give axes or a figure of matplotlib, or leave it out")
    if isinstance(place, Figure) and not place.axes:
        place.set_size_inches(*size)
    return place


def finish(*panels: Axes) -> None:
    """Make texts plain: names come from the data, and a ``$`` in them must not begin a formula.

    Parameters
    ----------
    *panels
        Axes that are drawn.
    """
    # In the style of reports, all texts are plain from the beginning.
    if not matplotlib.rcParams["text.parse_math"]:
        return
    for axes in panels:
        for text in axes.findobj(Text):
            text.set_parse_math(False)


def tidy(axes: Axes, grid: str = "both") -> None:
    """Give axes a light grid behind the data, and no frame at the top and on the right.

    Parameters
    ----------
    axes
        Axes to change.
    grid
        Which grid lines are drawn: ``both``, ``x`` or ``y``.
    """
    axes.grid(axis=grid, alpha=0.25)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def palette(k: int) -> Colours:
    """Return the default colours of the clusters 0 … k − 1 ``(k, 3)``, in 0 … 1.

    Parameters
    ----------
    k
        Number of clusters.
    """
    return colours_of(default_names(k))


def colours_of(clusters: ClusterNames) -> Colours:
    """Return the colours of clusters ``(k, 3)``, in 0 … 1.

    Parameters
    ----------
    clusters
        Ids, names and colours of the clusters.
    """
    return np.array([to_rgb(colour) for colour in clusters.hex_colours])


def tick(axis: Axis, clusters: ClusterNames, at: NDArray[Any] | None = None) -> None:
    """Label positions along an axis with the names of the clusters.

    Parameters
    ----------
    axis
        Axis of matplotlib; it is changed.
    clusters
        Ids, names and colours of the clusters.
    at
        Position of each cluster ``(k,)`` along a vertical axis whose limits are set, in their order; 0 … k − 1 where
        None.
    """
    if at is None:
        # Of many clusters, every second or fifth is named, as names would overlap; side by side, long ids do so sooner.
        characters = 1 if clusters.names or not isinstance(axis, XAxis) else len(clusters.display_names[-1])
        named = list(range(0, clusters.k, -(-clusters.k * (characters + 1) // (2 * TICKS))))
        at = np.arange(clusters.k)
    else:
        axes = axis.axes
        points = axes.bbox.height * 72.0 / axes.figure.dpi
        named = apart(at, float(np.ptp(axis.get_view_interval())) * LINE / points)
    axis.set_ticks(at[named], [clusters.display_names[i] for i in named])
    if isinstance(axis, XAxis) and clusters.names:
        axis.set_tick_params(rotation=30)
    elif isinstance(axis, XAxis) and clusters.k > 24:
        axis.set_tick_params(labelsize="small")


def apart(positions: NDArray[Any], distance: float) -> list[int]:
    """Choose positions that are far enough from each other: each that is so from the last one chosen.

    Parameters
    ----------
    positions
        Positions in their order ``(k,)``, up or down.
    distance
        Least distance of two of them.
    """
    chosen: list[int] = []
    for i, position in enumerate(positions):
        if not chosen or abs(position - positions[chosen[-1]]) >= distance:
            chosen.append(i)
    return chosen


def pass_axis(axes: Axes, passes: int) -> None:
    """Label the horizontal axis with the numbers of passes.

    Parameters
    ----------
    axes
        Axes to change.
    passes
        Number of passes.
    """
    axes.set_xlabel("pass")
    if passes > LOG_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def legend(axes: Axes, k: int, title: str = "cluster") -> None:
    """Add a legend of the clusters beside the axes; more than `NAMED` would fill the page, and get none.

    Parameters
    ----------
    axes
        Axes with labelled lines.
    k
        Number of clusters.
    title
        Title of the legend.
    """
    if k <= NAMED:
        # Beside the axes, it hides no data.
        axes.legend(
            frameon=False,
            title=title,
            fontsize="small",
            ncols=-(-k // 14),
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
        )
