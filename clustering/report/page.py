"""The report: one HTML file that needs no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import yaml

from clustering.data.plain_dataset import Labelled
from clustering.deferred import xr
from clustering.fitting.cluster_names import ClusterNames, default_colour
from clustering.fitting.fitted_model import FittedModel
from clustering.report import label_figures, model_figures, tables
from clustering.report.figures import Figure, drawn
from clustering.report.model_figures import ModelFigures
from clustering.report.samples import PlottedRows
from clustering.report.template import compile_templates, fill
from clustering.report.units import duration, size
from clustering.report.words import answer, number, standing, utc

PARTS = {
    "clusters": "Clusters", "rows": "Rows", "changes": "What changed", "quality": "Fit and quality",
    "details": "Details",
}  # fmt: skip
"""Sections of the page, in their order."""


def rehearse() -> None:
    """Draw a small map and compile the templates: the first drawing and the first page of a process take longest."""
    drawn("", "", "", "", lambda canvas: canvas.add_subplot().pcolormesh([[0.0]]))
    compile_templates()


def draw(
    fitted: FittedModel,
    labels: Labelled | None,
    preview: xr.Dataset | None,
    sample: PlottedRows | None = None,
    degrees: Mapping[str, Labelled] | None = None,
    clusters: ClusterNames | None = None,
    changed: Labelled | None = None,
    early: ModelFigures | None = None,
) -> tuple[list[Figure], ClusterNames]:
    """Draw the figures of a run.

    Parameters
    ----------
    fitted
        Fitted model.
    labels
        Labels, cut down by `clustering.report.label_figures.drawn_part`; None where none were written.
    preview
        The source on the same thinned grid; None where it cannot be read.
    sample
        Plotted rows, from `clustering.report.samples.sample_rows`.
    degrees
        Further label outputs, cut down by `clustering.report.label_figures.drawn_degrees`, by name.
    clusters
        Ids, names and colours of the clusters; ids of the model where None.
    changed
        Which labels changed, cut down as `labels`; None where there were no labels before.
    early
        Figures of this model that were drawn before the labels were complete. They are drawn anew where None, or where
        they would be different now.

    Returns
    -------
    list of Figure
        Figures in the order of the page.
    ClusterNames
        Clusters with their colours in the figures.
    """
    # An image is drawn in its own colours, and its centers are the colours of the clusters.
    pixels = None if labels is None or preview is None else label_figures.photograph(fitted, labels, preview)
    clusters = clusters or fitted.clusters
    if pixels is not None:
        clusters = label_figures.in_own_colours(fitted, clusters)
    if early is None or not early.are_of(fitted, clusters):
        early = ModelFigures.draw(fitted, sample, clusters, photograph=pixels is not None)
    made: list[Figure] = []
    if pixels is not None and labels is not None:
        made += label_figures.before_and_after(pixels, labels, fitted)
    elif labels is not None and (labels.ndim == 2 or labels.dims[0] in labels.coords or not early.shows_rows):
        # A list of labels without a coordinate has no order of its own, and the figure of plotted rows shows more.
        made.append(label_figures.labels(labels, clusters))
    if np.isfinite(fitted.shares).all():
        made.append(model_figures.sizes(fitted, clusters))
    # The label pass may have been over other rows than the fit, and the caption says so.
    caption = model_figures.cost_caption(fitted)
    made += [replace(one, caption=caption) if one.key == "cost" else one for one in early.figures]
    made += label_figures.all_of(degrees or {}, labels, clusters)
    if changed is not None and changed.ndim == 2:
        made.append(label_figures.changes(changed))
    order = list(PARTS)
    return sorted(made, key=lambda figure: order.index(figure.part)), clusters


def render(
    fitted: FittedModel,
    run: Mapping[str, Any],
    figures: Sequence[Figure],
    clusters: ClusterNames,
    config: Mapping[str, Any] | None = None,
) -> str:
    """Fill in the HTML page.

    Parameters
    ----------
    fitted
        Fitted model.
    run
        The content of ``run.json``; of a fit in memory, the parts that it has.
    figures, clusters
        From `draw`.
    config
        Sections of the config, as JSON; None for none.

    Returns
    -------
    str
        The HTML page.
    """
    listed, parts = tables.cluster_rows(fitted, clusters), {figure.part for figure in figures}
    comparison, criteria = tables.comparison_table(run, clusters), tables.criteria_rows(run)
    colours = dict(zip(clusters.ids.tolist(), clusters.hex_colours, strict=True))
    for row in comparison["rows"] if comparison else ():
        row["colour"] = colours.get(row["id"]) or default_colour(row["id"])
    there = {"clusters", "details", *parts, *(["changes"] if comparison else []), *(["quality"] if criteria else [])}
    called = [clusters.names.get(i, f"cluster {i}") for i in clusters.ids.tolist()]
    sentence = answer(run, fitted.shares.tolist(), called)
    columns = list(tables.center_columns(fitted))
    return fill(
        "page.html",
        figures,
        run=run,
        title=f"{sentence.split(';')[0].rstrip('.')} · {run['kind']}",
        answer=sentence,
        heads=list(_heads(run)),
        sections=[(part, name) for part, name in PARTS.items() if part in there],
        figures=figures,
        parts=parts,
        tiles=_tiles(fitted, run),
        standing=standing(run),
        clusters=listed,
        facts=list(tables.component_facts(fitted)),
        columns=columns,
        more=len({f.variable for f in fitted.features}) > len(columns),
        comparison=comparison,
        criteria=criteria,
        technical=list(tables.facts_of(run)),
        config=yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True) if config else "",
    )


def _heads(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List what identifies a run: its name, date, source and version."""
    rows = f"{run['n_rows']:,} of {run['n_features']:,} features"
    if run["n_masked"]:
        rows += f"; {run['n_masked']:,} cells masked"
    named = {
        "run": run.get("run"),
        "finished": utc(run["finished_at"]) if run.get("finished_at") else None,
        "written": utc(run["written_at"]) if run.get("written_at") else None,
        "source": run.get("source"),
        "rows": rows,
        "version": f"zarr-clustering {run['versions']['zarr-clustering']}" if run.get("versions") else None,
    }
    return [(name, value) for name, value in named.items() if value]


def _tiles(fitted: FittedModel, run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List the key figures with their names."""
    objectives = fitted.model.summary(
        fitted.params, run["objective"], fitted.summary.weight, prepared=fitted.preparation is not None
    )
    tiles = [(number(value), name) for value, name in objectives]
    if run.get("task") != "predict":
        end = "converged" if run["converged"] else f"stopped by {run['stop_reason']}"
        tiles.append((number(run["iterations"]), f"passes, {end}"))
    tiles.append((number(run["reads"]), "full reads of the source"))
    if run.get("seconds"):
        tiles.append((duration(run["seconds"]["total"]), "wall time"))
    if run.get("peak_rss_bytes"):
        tiles.append((size(run["peak_rss_bytes"]), "peak memory of a process"))
    return tiles
