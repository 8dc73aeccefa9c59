"""The page of a sweep over k: its recommendation, one figure of all criteria, and its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from clustering.report.figures import png
from clustering.report.page import Figure, number

PANELS = {
    "cost": "cost", "calinski_harabasz": "Calinski–Harabasz ↑", "davies_bouldin": "Davies–Bouldin ↓",
    "silhouette": "silhouette ↑", "simplified_silhouette": "simplified silhouette ↑", "gap": "gap statistic ↑",
    "stability_restarts": "stability of restarts ↑", "stability_halves": "stability of halves ↑", "aic": "AIC ↓",
    "bic": "BIC ↓", "icl": "ICL ↓",
}  # fmt: skip
"""Criteria with a panel, and the titles of these; the arrow points to better values."""
FACTS = (*PANELS, "smallest", "passes")
"""Columns of the table after those that say what varies."""
_COLUMNS = 4
_COLOURS = ("#2563eb", "#d97706", "#059669", "#7c3aed", "#dc2626", "#0891b2", "#4b5563", "#db2777")
_MARKERS = "osD^vP*X"


def varied(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name what varies between the rows of a table of choices: k, and perhaps more.

    Parameters
    ----------
    table
        Rows of a sweep.
    """
    return ["k", *(name for name in ("covariance", "beta", "divergence") if name in table[0])]


def draw_criterion(
    axes: Axes, table: Sequence[Mapping[str, Any]], name: str, recommended: Mapping[str, Any] | None = None
) -> Axes:
    """Draw one criterion over k, a line for each combination of the other options.

    Parameters
    ----------
    axes
        Axes of matplotlib to draw on.
    table
        Rows of a sweep.
    name
        Name of the criterion.
    recommended
        The recommended choice, which is marked; None for none.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    families: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    others = varied(table)[1:]
    for row in table:
        families.setdefault(tuple(row[option] for option in others), []).append(row)
    for i, (family, rows) in enumerate(families.items()):
        values = [np.nan if row.get(name) is None else float(row[name]) for row in rows]
        errors = [row.get(f"{name}_error") for row in rows]
        style: dict[str, Any] = {
            "color": _COLOURS[i % len(_COLOURS)],
            "marker": _MARKERS[i % len(_MARKERS)],
            "markersize": 3.5,
        }
        label = ", ".join(str(value) for value in family) or None
        ks = [row["k"] for row in rows]
        if any(error is not None for error in errors):
            spread = [error or 0.0 for error in errors]
            axes.errorbar(ks, values, spread, linewidth=1.1, label=label, **style)
        else:
            axes.plot(ks, values, linewidth=1.1, label=label, **style)
    if recommended is not None:
        axes.axvline(recommended["k"], color="0.35", linewidth=0.9, linestyle="--", zorder=0)
    axes.set_title(PANELS.get(name, name), fontsize=9)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def drawn_criteria(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the criteria that any row of a table has.

    Parameters
    ----------
    table
        Rows of a sweep.
    """
    return [name for name in PANELS if any(row.get(name) is not None for row in table)]


def criteria_figure(table: Sequence[Mapping[str, Any]], recommended: Mapping[str, Any] | None) -> Canvas:
    """Draw all criteria over k in one figure, a panel each.

    Parameters
    ----------
    table
        Rows of a sweep.
    recommended
        The recommended choice; None for none.
    """
    names = drawn_criteria(table)
    columns = min(_COLUMNS, max(1, len(names)))
    rows = max(1, -(-len(names) // columns))
    figure = Canvas(figsize=(2.75 * columns, 2.1 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axes, name in zip(panels, names, strict=False):
        draw_criterion(axes, table, name, recommended)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    figure.supxlabel("k", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside upper center", ncols=min(6, len(labels)), fontsize=8, frameon=False)
    return figure


def criteria_picture(table: Sequence[Mapping[str, Any]], recommended: Mapping[str, Any] | None) -> Figure:
    """Draw the figure of a report.

    Parameters
    ----------
    table, recommended
        As for `criteria_figure`.
    """
    line = "" if recommended is None else " The dashed line is the recommended k."
    caption = f"Criteria over k; arrows point to better values.{line}"
    return Figure("Choice of k", caption, png(criteria_figure(table, recommended)), wide=True)


def render_selection(selection: Mapping[str, Any]) -> str:
    """Fill in the page of a sweep.

    Parameters
    ----------
    selection
        Content of ``selection.json``.

    Returns
    -------
    str
        The HTML page.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("clustering.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["short"] = _short
    table, recommended = selection["table"], selection["recommended"]
    facts = [name for name in FACTS if any(row.get(name) is not None for row in table)]
    return environment.get_template("choices.html").render(
        selection=selection,
        answer="No clear answer" if recommended is None else in_words(recommended),
        figure=criteria_picture(table, recommended),
        varied=varied(table),
        facts=facts,
        titles={name: PANELS.get(name, name) for name in facts},
        config=yaml.safe_dump(dict(selection["config"]), sort_keys=False, allow_unicode=True),
    )


def in_words(choice: Mapping[str, Any]) -> str:
    """Write a choice in words, such as ``k = 5, covariance = full``.

    Parameters
    ----------
    choice
        What varies, by name.
    """
    return ", ".join(f"{name} = {value}" for name, value in choice.items())


def _short(value: float | None) -> str:
    """Write a number with four digits, so that the columns of all criteria fit on a page."""
    return "" if value is None else f"{value:.4g}"
