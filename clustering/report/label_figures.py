"""Figures of what a run wrote for each row: labels, how sure they are, and what changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from clustering.data.plain_dataset import Labelled, as_plain
from clustering.data.source import Source
from clustering.deferred import xr
from clustering.fitting.cluster_names import ClusterNames
from clustering.fitting.fitted_model import FittedModel
from clustering.plots import grids, single_rows
from clustering.plots.centers import center_colours
from clustering.report.figures import Figure, drawn, picture
from clustering.report.words import percent

DEGREES = {
    "responsibility": ("Responsibility", "Of the own cluster: 1 where a row is sure of it, 1/k where it is torn."),
    "responsibilities": (
        "Largest responsibility", "Of the own cluster: 1 where a row is sure of it, 1/k where it is torn.",
    ),
    "top_responsibilities": (
        "Largest responsibility", "Of the own cluster: 1 where a row is sure of it, 1/k where it is torn.",
    ),
    "margin": ("Margin", "How clear each label is: 0 on a boundary between clusters."),
    "distance": ("Distance", "Of each row from the center of its cluster: large where no center is near."),
    "distances": ("Distance from the nearest center", "Large where no center is near."),
    "log_density": ("Log density", "Of each row under the model: low where rows like it are rare."),
    "outlier_score": (
        "Outlier score", "-log10 of the share of rows expected farther from their component: 3 is one in a thousand.",
    ),
}  # fmt: skip
"""Titles and captions of label outputs that are numbers."""
_OF_EACH = {"responsibilities": "max", "top_responsibilities": "max", "distances": "min"}
"""Outputs with a number for each cluster along a last dimension, and what is drawn of them."""
CELLS = 500
"""Largest number of cells along a side of a map of numbers. Noise does not compress, and the page must stay small."""


def drawn_part(labels: Labelled) -> Any:
    """Return the part of the labels that is drawn: the last two dimensions, thinned, in the middle of the others.

    Parameters
    ----------
    labels
        Array on the sample grid.

    Returns
    -------
    Labelled
        Of the same kind, with at most `clustering.plots.grids.SHOWN` cells along each dimension; the attribute
        ``shown_at`` names the cut.
    """
    cut = grids.slice_of(labels, {})
    return cut.assign_attrs(step=-(-labels.sizes[labels.dims[-1]] // cut.sizes[cut.dims[-1]])) if cut.ndim == 1 else cut


def drawn_degrees(name: str, array: Labelled) -> Any:
    """Return the part of a label output of `DEGREES` that is drawn, as one number for each cell.

    Parameters
    ----------
    name
        Name of the output.
    array
        The output.

    Returns
    -------
    Labelled
        As from `drawn_part`, with at most `CELLS` cells along each side of a map.
    """
    own = None if name not in _OF_EACH else str(array.dims[-1])
    # The last dimension must not be taken for one of the grid.
    grid = array if own is None else array.isel({own: 0})
    cut = drawn_part(grid)
    if own is not None:
        steps = {d: slice(None, None, max(1, -(-n // grids.SHOWN))) for d, n in grid.sizes.items()}
        middle = {d: grid.sizes[d] // 2 for d in grid.dims[:-2]} if grid.ndim > 2 else {}
        values = array.isel({**steps, **middle})
        values = values.max(own, skipna=False) if _OF_EACH[name] == "max" else values.min(own, skipna=False)
        cut = cut.copy(data=values.values)
    if cut.ndim < 2:
        return cut
    return cut.isel({d: slice(None, None, max(1, -(-n // CELLS))) for d, n in cut.sizes.items()})


def labels(array: Labelled, clusters: ClusterNames) -> Figure:
    """Draw labels over one or two sample dimensions.

    Parameters
    ----------
    array
        Labels, cut down by `drawn_part`.
    clusters
        Ids, names and colours of the clusters.
    """
    masked = float((array.values < 0).mean()) if array.size else 0.0
    grey = " (grey)" * (array.ndim == 2)
    caption = _position_text(array) + "Cluster of each sample."
    caption += f" {100 * masked:.1f} % of the cells shown are masked{grey}." if masked else ""
    over = " and ".join(str(d) for d in array.dims)
    positions = clusters.positions(array.values)
    counts = np.bincount(positions[positions >= 0], minlength=clusters.k)
    first = ", ".join(
        f"{clusters.display_names[c]} {percent(counts[c] / max(1, counts.sum()))}"
        for c in np.argsort(-counts, kind="stable")[:5]
        if counts[c]
    )
    alt = (
        f"{'A map' if array.ndim == 2 else 'Strokes'} of labels over {over}. Of the labelled cells: {first or 'none'}."
    )
    if array.ndim == 1 and array.dims[0] not in array.coords:
        # Positions of the source, which skipped cells would shift.
        dim = str(array.dims[0])
        array = as_plain(array).assign_coords({dim: array.attrs.get("step", 1) * np.arange(array.sizes[dim])})
    plot = partial(grids.labels, array, clusters)
    return drawn("labels", "Labels", caption, alt, plot, wide=array.ndim == 1)


def degrees(name: str, array: Labelled, labels: Labelled | None, clusters: ClusterNames) -> Figure | None:
    """Draw numbers of each row: a map, a line over a coordinate, or a histogram of rows in no order.

    Parameters
    ----------
    name
        Name of the output in `DEGREES`.
    array
        Numbers, from `drawn_degrees`.
    labels
        Labels of the same cells, which stack a histogram by cluster; None where none were written.
    clusters
        Ids, names and colours of the clusters.

    Returns
    -------
    Figure or None
        None where no cell has a number.
    """
    title, caption = DEGREES[name]
    finite = array.values[np.isfinite(array.values)].astype(np.float64)
    if not finite.size:
        return None
    low, middle, high = np.quantile(finite, (0.1, 0.5, 0.9))
    alt = f"{title}: 10 % of the cells shown are below {low:.4g}, half below {middle:.4g}, 90 % below {high:.4g}."
    label = title.lower() + (f" ({array.attrs['units']})" if str(array.attrs.get("units", "1")) != "1" else "")
    if array.ndim == 2 or str(array.dims[0]) in array.coords:
        plot: Any = partial(grids.quantity, array, label)
        return drawn(name, title, _position_text(array) + caption, alt, plot, "rows", wide=array.ndim == 1)
    if labels is None:
        positions, clusters = np.zeros(array.shape, np.int64), ClusterNames(np.zeros(1, np.int64), {0: "all rows"})
    else:
        positions = clusters.positions(labels.values)
    used = (positions >= 0) & ~np.isnan(array.values)
    values = array.values[used].astype(np.float64)
    ends = (0.0, 1.0) if name.endswith(("responsibility", "responsibilities")) else None
    plot = partial(single_rows.histogram, values, positions[used], clusters, label, ends=ends)
    return drawn(name, title, f"{caption} {used.sum():,} rows at equal steps.", alt, plot, "rows")


def changes(array: Labelled) -> Figure:
    """Draw over two sample dimensions the cells whose label changed.

    Parameters
    ----------
    array
        Which labels changed, cut down by `drawn_part`.
    """
    caption = _position_text(array) + "Cells whose label differs from the previous version."
    compared = array.values[array.values >= 0]
    share = float((compared == 1).mean()) if compared.size else 0.0
    alt = f"A map of changed labels: {percent(share)} of the cells shown."
    return drawn("changed", "Changed cells", caption, alt, partial(grids.changes, array), "changes")


def photograph(fitted: FittedModel, labels: Labelled, preview: xr.Dataset) -> NDArray[np.uint8] | None:
    """Return the pixels ``(y, x, 3)`` of an 8-bit colour image as bytes; None for other data.

    Parameters
    ----------
    fitted
        Fitted model.
    labels
        Labels, cut down by `drawn_part`.
    preview
        The source on the same thinned grid.
    """
    variables = list(preview.data_vars)
    if labels.ndim != 2 or len(variables) != 1 or not _centers_are_colours(fitted):
        return None
    array = preview[variables[0]]
    if array.dtype != np.uint8 or array.ndim != 3:
        return None
    pixels: NDArray[np.uint8] = array.transpose(*labels.dims, ...).values
    return pixels


def may_be_photograph(source: Source, fitted: FittedModel) -> bool:
    """Return whether a source is laid out like an 8-bit colour image; no values are read.

    Parameters
    ----------
    source
        Source of the run.
    fitted
        Fitted model.
    """
    image = len(source.shape) == 2 and len(source.variables) == 1 and source.dtype == np.uint8
    return image and _centers_are_colours(fitted)


def in_own_colours(fitted: FittedModel, clusters: ClusterNames) -> ClusterNames:
    """Give clusters of a photograph the colours of their centers.

    Parameters
    ----------
    fitted
        Fitted model, whose centers are colours.
    clusters
        Ids and names of the clusters.
    """
    colours = {int(i): to_hex(colour) for i, colour in zip(clusters.ids, center_colours(fitted) / 255, strict=True)}
    return replace(clusters, colours=colours)


def before_and_after(pixels: NDArray[np.uint8], labels: Labelled, fitted: FittedModel) -> list[Figure]:
    """Make pictures of a photograph, and of its pixels replaced by the colours of their clusters.

    Parameters
    ----------
    pixels
        From `photograph`.
    labels
        Labels of the same pixels.
    fitted
        Fitted model.
    """
    k, book = fitted.model.k, center_colours(fitted)
    positions = fitted.clusters.positions(labels.values)
    # 229 is the grey of masked cells, `clustering.plots.canvas.MASKED`.
    after = np.where((positions >= 0)[..., None], book[positions], 229).astype(np.uint8)
    rate = f"{np.log2(k):.3g} bits a pixel" if k > 1 else "one colour"
    reduced = f"Every pixel replaced by the center of its cluster: {k} colours, {rate}."
    return [
        picture("before", "Before", "The image as it is in the source.", "The image of the source.", pixels),
        picture("after", "After", reduced, f"The same image in the {k} colours of the centers.", after),
    ]


def _centers_are_colours(fitted: FittedModel) -> bool:
    """Return whether centers may be colours, which unit vectors are not."""
    return len(fitted.features) == 3 and not (fitted.preparation is not None and fitted.preparation.unit_norm)


def _position_text(shown: Labelled) -> str:
    """Say at which positions of the other dimensions a map was cut."""
    positions = grids.place_text(shown)
    return f"At {positions}. " if positions else ""


def all_of(degree_arrays: Mapping[str, Labelled], labels: Labelled | None, clusters: ClusterNames) -> list[Figure]:
    """Draw all outputs that are numbers.

    Parameters
    ----------
    degree_arrays
        Numbers by the name of their output, from `drawn_degrees`.
    labels, clusters
        As for `degrees`.
    """
    made = [degrees(name, array, labels, clusters) for name, array in degree_arrays.items()]
    return [figure for figure in made if figure is not None]
