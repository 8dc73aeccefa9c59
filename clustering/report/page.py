"""The report: one HTML file that needs no other file."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
import yaml
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from clustering.data.source import Source
from clustering.deferred import xr
from clustering.fitting.cluster_names import ClusterNames
from clustering.fitting.fitted_model import FittedModel
from clustering.models.objective import Objective
from clustering.plots import grids
from clustering.plots.canvas import colours_of
from clustering.plots.centers import center_colours, largest
from clustering.plots.positions import with_units
from clustering.report import centers, figures, samples
from clustering.report.centers import CenterFigure
from clustering.report.samples import PlottedRows

Colours = NDArray[np.float64]

DEGREES = {
    "responsibility": ("Responsibility", "Of the own cluster: 1 where a row is sure of it, 1/k where it is torn."),
    "log_density": ("Log density", "Of each row under the model: low where rows like it are rare."),
    "outlier_score": (
        "Outlier score", "-log10 of the share of rows expected farther from their component: 3 is one in a thousand.",
    ),
}  # fmt: skip
"""Titles and captions of label outputs that are drawn as maps."""
LISTED = 64
"""Largest number of clusters in the table."""
COLUMNS = 12
"""Largest number of features, or of variables, with a column in the table."""
DRAWN = 32
"""Largest number of clusters drawn as lines."""
ROUNDING = 1e-9
"""A step the wrong way counts as rounding if it is at most this share of the largest objective."""


@dataclass(frozen=True)
class Figure:
    """A figure with its title and caption."""

    title: str
    caption: str
    png: bytes
    wide: bool = False
    """Whether it takes the whole width of the page."""
    of_changes: bool = False
    """Whether it shows changes since the version before."""

    @property
    def uri(self) -> str:
        """The PNG as a data URI, so that the page needs no other file."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True, eq=False)
class ModelPictures:
    """Pictures of a model, as PNG bytes. They need no labels, so they can be drawn while labels are written."""

    fitted: FittedModel
    clusters: ClusterNames
    colours: Colours
    """Colours of the clusters ``(k, 3)``, in 0 … 1."""
    sample: PlottedRows | None
    """Plotted rows; None where there are none."""
    samples: bytes | None
    curve: bytes | None
    centers: tuple[CenterFigure, ...]
    """Figures of the centers; none for a photograph."""
    sizes_by_pass: bytes | None

    @classmethod
    def draw(
        cls, fitted: FittedModel, sample: PlottedRows | None, clusters: ClusterNames, *, photograph: bool
    ) -> ModelPictures:
        """Draw the pictures of a model.

        Parameters
        ----------
        fitted
            Fitted model. What a label pass measures may be missing.
        sample
            Plotted rows; None where there are none.
        clusters
            Ids, names and colours of the clusters.
        photograph
            Whether the source is drawn as an image, whose clusters have the colours of their centers.
        """
        colours = center_colours(fitted) / 255.0 if photograph else colours_of(clusters)
        passes = fitted.track.get("sizes")
        tracked = fitted.model.soft and passes is not None and len(passes) > 1 and fitted.model.k <= DRAWN
        return cls(
            fitted,
            clusters,
            colours,
            sample,
            None if sample is None else samples.draw(sample, fitted, colours),
            figures.cost_curve(fitted.history, fitted.model.objective) if len(fitted.history) else None,
            () if photograph or len(fitted.features) == 1 else tuple(centers.draw(fitted, colours, clusters)),
            figures.sizes_by_pass(passes, colours, clusters) if tracked and passes is not None else None,
        )

    def are_of(self, fitted: FittedModel, clusters: ClusterNames, *, photograph: bool) -> bool:
        """Return whether drawing now would give the same pictures, after a label pass, which changes no params.

        Users may name clusters while a run goes on, and the pass may measure that other clusters are the largest.

        Parameters
        ----------
        fitted, clusters, photograph
            As for `draw`.
        """
        colours = center_colours(fitted) / 255.0 if photograph else colours_of(clusters)
        return (
            np.array_equal(largest(self.fitted), largest(fitted))
            and np.array_equal(self.clusters.ids, clusters.ids)
            and self.clusters.display_names == clusters.display_names
            and np.array_equal(self.colours, colours)
        )


def draw(
    fitted: FittedModel,
    labels: xr.DataArray | None,
    preview: xr.Dataset | None,
    sample: PlottedRows | None = None,
    degrees: Mapping[str, xr.DataArray] | None = None,
    clusters: ClusterNames | None = None,
    changed: xr.DataArray | None = None,
    early: ModelPictures | None = None,
) -> tuple[list[Figure], Colours]:
    """Draw the figures of a run.

    Parameters
    ----------
    fitted
        Fitted model.
    labels
        Labels, cut down by `drawn_part`; None where none were written.
    preview
        The source on the same thinned grid; None where it cannot be read.
    sample
        Plotted rows, from `clustering.report.samples.sample_rows`.
    degrees
        Further label outputs, cut down by `drawn_part`, by name; the names are those of `DEGREES`.
    clusters
        Ids, names and colours of the clusters; ids of the model where None.
    changed
        Which labels changed, cut down by `drawn_part`; None where there were no labels before.
    early
        Pictures of this model that were drawn before the labels were complete. They are drawn anew where None, or where
        they would be different now.

    Returns
    -------
    list of Figure
        Figures in the order of the page.
    ndarray
        Colours of the clusters ``(k, 3)``, in 0 … 1.
    """
    k = fitted.model.k
    drawn_figures: list[Figure] = []
    # An image is drawn in its own colours, and its centers are the colours of the clusters.
    pixels = None if labels is None or preview is None else _photograph(fitted, labels, preview)
    photograph = pixels is not None
    clusters = clusters or fitted.clusters
    if early is None or not early.are_of(fitted, clusters, photograph=photograph):
        early = ModelPictures.draw(fitted, sample, clusters, photograph=photograph)
    colours = early.colours
    if pixels is not None and labels is not None:
        book = center_colours(fitted)
        # 229 is the grey of masked cells in every figure, `clustering.plots.canvas.MASKED`.
        after = np.where((labels.values >= 0)[..., None], book[clusters.positions(labels.values)], 229).astype(np.uint8)
        drawn_figures.append(Figure("Before", "The image as it is in the source.", figures.picture(pixels)))
        rate = f"{np.log2(k):.3g} bits a pixel" if k > 1 else "one colour"
        drawn_figures.append(
            Figure(
                "After",
                f"Every pixel replaced by the center of its cluster: {k} colours, {rate}.",
                figures.picture(after),
            )
        )
    elif labels is not None and not (sample is not None and labels.ndim == 1 and labels.dims[0] not in labels.coords):
        # A list of labels without a coordinate has no order of its own, and the figure of plotted rows shows more.
        caption = _position_text(labels) + _label_caption(labels)
        drawn_figures.append(Figure("Labels", caption, figures.label_map(labels, colours, clusters)))
    for name, array in (degrees or {}).items():
        if array.ndim == 2:
            title, caption = DEGREES[name]
            drawn_figures.append(Figure(title, caption, figures.quantity_map(array, title.lower())))
    if sample is not None and early.samples is not None:
        rows_caption = samples.caption(sample, fitted.components.covariance is not None)
        drawn_figures.insert(0, Figure("Samples", rows_caption, early.samples, wide=True))
    if early.curve is not None:
        objective = fitted.model.objective
        rows_caption = curve_caption(objective, fitted.history)
        if fitted.preparation is not None:
            rows_caption += " In the units of the prepared rows."
        if fitted.summary.drawn is not None:
            rows_caption += " Over the rows that were drawn for the fit."
        drawn_figures.append(Figure(objective.title, rows_caption, early.curve))
    drawn_figures += [Figure(one.title, one.caption, one.png, one.wide) for one in early.centers]
    if np.isfinite(fitted.shares).all():
        picture = figures.sizes(fitted, colours, clusters)
        drawn_figures.append(Figure("Sizes", "Share of each cluster in the total weight.", picture))
    if early.sizes_by_pass is not None:
        rows_caption = "Weight that each cluster is responsible for, after every pass."
        drawn_figures.append(Figure("Effective sizes by pass", rows_caption, early.sizes_by_pass))
    if changed is not None and changed.ndim == 2:
        rows_caption = _position_text(changed) + "Cells whose label differs from the previous version."
        drawn_figures.append(Figure("Changed cells", rows_caption, figures.change_map(changed), of_changes=True))
    return drawn_figures, colours


def render(
    fitted: FittedModel,
    run: Mapping[str, Any],
    pictures: Sequence[Figure],
    colours: Colours,
    config: Mapping[str, Any],
    clusters: ClusterNames | None = None,
) -> str:
    """Fill in the HTML page.

    Parameters
    ----------
    fitted
        Fitted model.
    run
        The content of ``run.json``.
    pictures, colours
        From `draw`.
    config
        Sections of the config, as JSON.
    clusters
        Ids, names and colours of the clusters; ids of the model where None.

    Returns
    -------
    str
        The HTML page.
    """
    names = clusters or fitted.clusters
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("clustering.report", "."),
        # Names of variables and clusters come from users, and must not become HTML.
        autoescape=True,
        # A misspelt name in the template is an error, instead of an empty place on the page.
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    # Equal shares stay in the order of the ids, so that one run always gives the same page.
    order = np.argsort(-fitted.shares, kind="stable")[:LISTED]
    facts, columns = _facts(fitted), _columns(fitted)
    listed = [
        {
            "id": int(names.ids[c]),
            "name": names.names.get(int(names.ids[c])),
            "share": float(fitted.shares[c]),
            "center": [float(values[c]) for values in columns.values()],
            "colour": to_hex(colours[c]),
            "facts": [float(values[c]) for values in facts.values()],
        }
        for c in order
    ]
    return environment.get_template("page.html").render(
        run=run,
        figures=pictures,
        tiles=fitted.model.summary(
            fitted.params, run["objective"], fitted.summary.weight, prepared=fitted.preparation is not None
        ),
        clusters=listed,
        comparison=_comparison(run, names),
        facts=list(facts),
        columns=list(columns),
        more=len({f.variable for f in fitted.features}) > len(columns),
        config=yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True),
    )


def _comparison(run: Mapping[str, Any], clusters: ClusterNames) -> dict[str, Any] | None:
    """Prepare the changes since the version before for the template; None where there was none."""
    comparison = run.get("comparison")
    if comparison is None:
        return None
    rows = [
        {"id": i, "name": clusters.names.get(int(i)), "sizes": sizes, "churn": comparison["churn_by_cluster"].get(i)}
        for i, sizes in comparison["sizes"].items()
    ]
    # A cluster that was large and is empty now matters as much as one that has grown.
    rows.sort(key=lambda row: -max(row["sizes"]))
    sentences = [f"Compared with run {comparison['with']}."]
    if comparison["churn"] is not None:
        sentences.append(f"{100 * comparison['churn']:.2f} % of the weight that had a label has another now.")
    for word in ("new", "lost"):
        ids = [str(i) for i in comparison[f"{word}_clusters"]]
        if ids:
            more = f" and {len(ids) - LISTED:,} more" * (len(ids) > LISTED)
            sentences.append(f"{word.capitalize()} clusters: {', '.join(ids[:LISTED])}{more}.")
    return {**comparison, "rows": rows[:LISTED], "sentences": " ".join(sentences)}


def _facts(fitted: FittedModel) -> dict[str, NDArray[np.float64]]:
    """Return numbers of each component of a mixture ``(k,)``, by the head of their column."""
    components = fitted.components
    if components.weights is None:
        return {}
    columns = {"mixing weight": fitted.weights, "effective size": fitted.shares * fitted.summary.weight}
    conditions = fitted.track.get("conditions")
    if conditions is not None and len(conditions):
        columns["condition of Σ"] = conditions[-1]
    return {**columns, **components.numbers}


def _columns(fitted: FittedModel) -> dict[str, NDArray[np.float64]]:
    """Return numbers of each center ``(k,)``, by the head of their column.

    Each feature has a column, or each variable with its mean where there are many features.
    """
    columns = fitted.centers
    units = {name: with_units("", attributes) for name, attributes in fitted.about.items()}
    if len(fitted.features) <= COLUMNS:
        return {str(f) + units.get(f.variable, ""): columns[:, i] for i, f in enumerate(fitted.features)}
    indices: dict[str, list[int]] = {}
    for column, feature in enumerate(fitted.features):
        indices.setdefault(feature.variable, []).append(column)
    return {
        f"{name}{units.get(name, '')}" + f", mean of {len(own):,}" * (len(own) > 1): columns[:, own].mean(axis=1)
        for name, own in list(indices.items())[:COLUMNS]
    }


def number(value: Any) -> str:
    """Format a number for the page: grouped digits, and six significant ones where it is not large.

    Parameters
    ----------
    value
        Number; None becomes a dash.
    """
    if value is None:
        return "–"
    if not math.isfinite(value):
        return str(value)
    if 1e5 <= abs(value) < 1e12:
        return f"{value:,.0f}"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.6g}" if abs(value) >= 1e-4 and abs(value) < 1e5 else f"{value:.6g}"
    return f"{int(value):,}" if abs(value) < 1e15 else f"{value:.6g}"


def _photograph(fitted: FittedModel, labels: xr.DataArray, preview: xr.Dataset) -> NDArray[np.uint8] | None:
    """Return the pixels ``(y, x, 3)`` of an 8-bit colour image as bytes; None for other data."""
    variables = list(preview.data_vars)
    if labels.ndim != 2 or len(variables) != 1 or not _centers_are_colours(fitted):
        return None
    array = preview[variables[0]]
    if array.dtype != np.uint8 or array.ndim != 3:
        return None
    pixels: NDArray[np.uint8] = array.transpose(*labels.dims, ...).values
    return pixels


def _centers_are_colours(fitted: FittedModel) -> bool:
    """Return whether centers may be colours, which unit vectors are not."""
    return len(fitted.features) == 3 and not (fitted.preparation is not None and fitted.preparation.unit_norm)


def _position_text(shown: xr.DataArray) -> str:
    """Say at which positions of the other dimensions a map was cut."""
    positions = grids.place_text(shown)
    return f"At {positions}. " if positions else ""


def curve_caption(objective: Objective, history: NDArray[np.float64]) -> str:
    """Describe the cost curve, and say whether it ever goes the wrong way, as it may when an empty cluster restarts.

    Parameters
    ----------
    objective
        Names of the objective.
    history
        Objective after the assignment step and after the update step of each pass ``(passes, 2)``.
    """
    steps = np.diff(history.reshape(-1))
    wrong = -steps if objective.rises else steps
    if len(steps) and wrong.max() > ROUNDING * np.abs(history).max():
        return f"{objective.caption} It {'falls' if objective.rises else 'rises'} only where a cluster was placed anew."
    return f"{objective.caption} It never {'falls' if objective.rises else 'rises'}."


def _label_caption(labels: xr.DataArray) -> str:
    masked, grey = float((labels.values < 0).mean()), " (grey)" * (labels.ndim == 2)
    return "Cluster of each sample." + (f" {100 * masked:.1f} % of the cells shown are masked{grey}." if masked else "")


def drawn_part(labels: xr.DataArray) -> xr.DataArray:
    """Return the part of the labels that is drawn: the last two dimensions, thinned, in the middle of the others.

    Parameters
    ----------
    labels
        Array on the sample grid.

    Returns
    -------
    xarray.DataArray
        At most `clustering.plots.grids.SHOWN` cells along each dimension; the attribute ``shown_at`` names the cut.
    """
    return grids.slice_of(labels, {})


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
