"""The report: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
import xarray as xr
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from clustering.data.source import Source
from clustering.fitting.clusters import Clusters
from clustering.fitting.fitted import Fitted
from clustering.report import centers, figures, samples
from clustering.report.samples import Sample
from clustering.report.words import WORDS, curve_caption, tiles

Colours = NDArray[np.float64]

SHOWN = 1000
"""Places along a side of a picture at most."""
DEGREES = {
    "responsibility": ("Responsibility", "Of the own cluster: 1 where a row is sure of it, 1/k where it is torn."),
    "log_density": ("Log density", "Of each row under the model: low where rows like it are rare."),
    "outlier_score": (
        "Outlier score", "-log10 of the share of rows expected farther from their component: 3 is one in a thousand.",
    ),
}  # fmt: skip
"""Titles and captions of what may be told of each row."""
LISTED = 64
"""Clusters listed in the table at most."""
COLUMNS = 12
"""Features with a column of their own in the table at most."""
DRAWN = 32
"""Clusters with a line of their own in a figure at most."""


@dataclass(frozen=True)
class Figure:
    """A picture with its words."""

    title: str
    caption: str
    png: bytes
    wide: bool = False
    """Whether it takes the whole width of the page."""
    of_changes: bool = False
    """Whether it belongs to what changed since the version before."""

    @property
    def uri(self) -> str:
        """The picture itself, as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


def draw(
    fitted: Fitted,
    labels: xr.DataArray | None,
    preview: xr.Dataset | None,
    sample: Sample | None = None,
    degrees: Mapping[str, xr.DataArray] | None = None,
    clusters: Clusters | None = None,
    changed: xr.DataArray | None = None,
) -> tuple[list[Figure], Colours]:
    """Draw the figures of a run.

    Parameters
    ----------
    labels
        Labels, cut down by `shown`; None where none were written.
    preview
        The source on the same thinned grid; None where it is not at hand.
    sample
        Rows to draw in a plane, from `clustering.report.samples.sample`.
    degrees
        What else was told of each row, cut down by `shown`, by name.
    clusters
        What the clusters are called; by their ids where None.
    changed
        Which labels changed, cut down by `shown`; None where there were none before.

    Returns
    -------
    list of Figure
    ndarray
        Colours of the clusters ``(k, 3)``, in 0 … 1.
    """
    k = fitted.model.k
    found: list[Figure] = []
    photograph = None if labels is None or preview is None else _photograph(fitted, labels, preview)
    clusters = clusters or fitted.clusters
    colours = figures.colours_of(clusters)
    if photograph is not None and labels is not None:
        before, book = photograph
        colours = book / 255.0
        after = np.where((labels.values >= 0)[..., None], book[clusters.places(labels.values)], 229).astype(np.uint8)
        found.append(Figure("Before", "The image as it is in the source.", figures.picture(before)))
        rate = f"{np.log2(k):.3g} bits a pixel" if k > 1 else "one colour"
        found.append(
            Figure(
                "After",
                f"Every pixel replaced by the center of its cluster: {k} colours, {rate}.",
                figures.picture(after),
            )
        )
    elif labels is not None and not (sample is not None and labels.ndim == 1 and labels.dims[0] not in labels.coords):
        # A list in no order of its own tells nothing that the rows in their plane do not tell better.
        caption = _place(labels) + _label_caption(labels)
        found.append(Figure("Labels", caption, figures.label_map(labels, colours, clusters)))
    for name, array in (degrees or {}).items():
        if array.ndim == 2:
            title, caption = DEGREES[name]
            found.append(Figure(title, caption, figures.quantity_map(array, title.lower())))
    if sample is not None:
        told = samples.caption(sample, fitted.model.kind == "gaussian_mixture")
        found.insert(0, Figure("Samples", told, samples.draw(sample, fitted, colours), wide=True))
    if len(fitted.history):
        words = WORDS[fitted.model.kind]
        curve = figures.cost_curve(fitted.history, words)
        told = curve_caption(words, fitted.history)
        if fitted.preparation is not None:
            told += " In the units of the prepared rows."
        if fitted.summary.drawn is not None:
            told += " Over the rows that were drawn for the fit."
        found.append(Figure(words.title, told, curve))
    if photograph is None and len(fitted.features) > 1:
        found += [Figure(one.title, one.caption, one.png, one.wide) for one in centers.draw(fitted, colours, clusters)]
    if np.isfinite(fitted.shares).all():
        picture = figures.sizes(fitted, colours, clusters)
        found.append(Figure("Sizes", "Share of each cluster in the total weight.", picture))
    passes = fitted.track.get("sizes")
    if fitted.model.kind != "kmeans" and passes is not None and len(passes) > 1 and k <= DRAWN:
        told = "Weight that each cluster is responsible for, after every pass."
        found.append(Figure("Effective sizes by pass", told, figures.sizes_by_pass(passes, colours, clusters)))
    if changed is not None and changed.ndim == 2:
        told = _place(changed) + "Cells whose label is another than in the version before."
        found.append(Figure("Changed cells", told, figures.change_map(changed), of_changes=True))
    return found, colours


def render(
    fitted: Fitted,
    run: Mapping[str, Any],
    pictures: Sequence[Figure],
    colours: Colours,
    config: str,
    clusters: Clusters | None = None,
) -> str:
    """Fill in the page.

    Parameters
    ----------
    run
        The content of ``run.json``.
    pictures, colours
        From `draw`.
    config
        The config as YAML.
    clusters
        What the clusters are called; by their ids where None.
    """
    known = clusters or fitted.clusters
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("clustering.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    order = np.argsort(-fitted.shares, kind="stable")[:LISTED]
    facts, columns = _facts(fitted), _columns(fitted)
    listed = [
        {
            "id": int(known.ids[c]),
            "name": known.names.get(int(known.ids[c])),
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
        tiles=tiles(fitted, run["objective"]),
        clusters=listed,
        comparison=_comparison(run, known),
        facts=list(facts),
        columns=list(columns),
        more=len({f.variable for f in fitted.features}) > len(columns),
        config=config,
    )


def _comparison(run: Mapping[str, Any], clusters: Clusters) -> dict[str, Any] | None:
    """Lay out what changed since the version before; None where there was none."""
    told = run.get("comparison")
    if told is None:
        return None
    rows = [
        {"id": i, "name": clusters.names.get(int(i)), "sizes": sizes, "churn": told["churn_by_cluster"].get(i)}
        for i, sizes in told["sizes"].items()
    ]
    rows.sort(key=lambda row: -max(row["sizes"]))
    sentences = [f"Compared with run {told['with']}."]
    if told["churn"] is not None:
        sentences.append(f"{100 * told['churn']:.2f} % of the weight that had a label has another now.")
    for word in ("new", "lost"):
        found = [str(i) for i in told[f"{word}_clusters"]]
        if found:
            more = f" and {len(found) - LISTED:,} more" * (len(found) > LISTED)
            sentences.append(f"{word.capitalize()} clusters: {', '.join(found[:LISTED])}{more}.")
    return {**told, "rows": rows[:LISTED], "sentences": " ".join(sentences)}


def _facts(fitted: Fitted) -> dict[str, NDArray[np.float64]]:
    """Numbers of each component of a mixture ``(k,)``, by the heads of their columns."""
    if fitted.model.kind != "gaussian_mixture":
        return {}
    found = {"mixing weight": fitted.weights, "effective size": fitted.shares * fitted.summary.weight}
    conditions = fitted.track.get("conditions")
    if conditions is not None and len(conditions):
        found["condition of Σ"] = conditions[-1]
    return found


def _columns(fitted: Fitted) -> dict[str, NDArray[np.float64]]:
    """Numbers of each center ``(k,)``, by the heads of their columns: its features, or of many the mean."""
    found = fitted.centers
    units = {name: figures.with_units("", told) for name, told in fitted.about.items()}
    if len(fitted.features) <= COLUMNS:
        return {str(f) + units.get(f.variable, ""): found[:, i] for i, f in enumerate(fitted.features)}
    places: dict[str, list[int]] = {}
    for place, feature in enumerate(fitted.features):
        places.setdefault(feature.variable, []).append(place)
    return {
        f"{name}{units.get(name, '')}" + f", mean of {len(own):,}" * (len(own) > 1): found[:, own].mean(axis=1)
        for name, own in list(places.items())[:COLUMNS]
    }


def number(value: Any) -> str:
    """Write a number for people: grouped digits, six significant ones where it is not large."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return str(value)
    if 1e5 <= abs(value) < 1e12:
        return f"{value:,.0f}"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.6g}" if abs(value) >= 1e-4 and abs(value) < 1e5 else f"{value:.6g}"
    return f"{int(value):,}" if abs(value) < 1e15 else f"{value:.6g}"


def _photograph(
    fitted: Fitted, labels: xr.DataArray, preview: xr.Dataset
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """Find the pixels ``(y, x, 3)`` and the code book ``(k, 3)`` where the source is a colour image of 8 bits."""
    variables = list(preview.data_vars)
    if labels.ndim != 2 or len(fitted.features) != 3 or len(variables) != 1:
        return None
    if fitted.preparation is not None and fitted.preparation.unit_norm:
        # Centers are of pixels of length 1, which are no colours.
        return None
    array = preview[variables[0]]
    if array.dtype != np.uint8 or array.ndim != 3:
        return None
    pixels = array.transpose(*labels.dims, ...).values
    return pixels, np.clip(np.rint(fitted.centers), 0, 255).astype(np.uint8)


def _place(shown: xr.DataArray) -> str:
    """Say where in the other dimensions a picture is."""
    places = ", ".join(f"{d} {value}" for d, value in shown.attrs.get("shown_at", {}).items())
    return f"At {places}. " if places else ""


def _label_caption(labels: xr.DataArray) -> str:
    masked, grey = float((labels.values < 0).mean()), " (grey)" * (labels.ndim == 2)
    return "Cluster of each sample." + (f" {100 * masked:.1f} % of the cells shown are masked{grey}." if masked else "")


def shown(labels: xr.DataArray) -> xr.DataArray:
    """Choose what of the labels is drawn: the last two dimensions, thinned, in the middle of the others."""
    leading = labels.dims[:-2]
    cut = labels.isel({d: labels.sizes[d] // 2 for d in leading})
    cut = cut.isel({d: slice(None, None, max(1, -(-n // SHOWN))) for d, n in cut.sizes.items()})
    return cut.assign_attrs(shown_at={str(d): _at(cut, str(d)) for d in leading})


def may_be_photograph(source: Source) -> bool:
    """Tell a colour image of 8 bits from other data, by its layout alone."""
    return len(source.shape) == 2 and source.n_features == 3 and len(source.variables) == 1 and source.dtype == np.uint8


def _at(array: xr.DataArray, dim: str) -> str:
    if dim not in array.coords:
        return "half-way"
    value = array[dim].values
    return str(value)[:19] if value.dtype.kind == "M" else str(value)
