"""The page of a sweep over k: its recommendation, one figure of all criteria, and its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import yaml
from matplotlib.figure import Figure as Canvas

from clustering.options import VARIED
from clustering.plots import choices
from clustering.report.figures import png
from clustering.report.page import Figure, number

TITLES = {
    "cost": "cost", "calinski_harabasz": "Calinski–Harabasz ↑", "davies_bouldin": "Davies–Bouldin ↓",
    "silhouette": "silhouette ↑", "simplified_silhouette": "simplified silhouette ↑", "gap": "gap statistic ↑",
    "stability_restarts": "stability of restarts ↑", "stability_halves": "stability of halves ↑", "aic": "AIC ↓",
    "bic": "BIC ↓", "icl": "ICL ↓",
}  # fmt: skip
"""Criteria and their titles in the table; the arrow points to better values."""
FACTS = (*TITLES, "smallest", "passes")
"""Columns of the table after those that say what varies."""


def varied(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name what varies between the rows of a table of choices: k, and perhaps more.

    Parameters
    ----------
    table
        Rows of a sweep.
    """
    return [name for name in VARIED if name in table[0]]


def criteria_picture(table: Sequence[Mapping[str, Any]], recommended: Mapping[str, Any] | None) -> Figure:
    """Draw the figure of a report.

    Parameters
    ----------
    table, recommended
        Rows of a sweep, and the recommended choice; None for none.
    """
    canvas = Canvas(layout="constrained")
    choices.selection(table, recommended, canvas)
    return Figure("Choice of k", "Criteria over k.", png(canvas), wide=True)


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
        titles={name: TITLES.get(name, name) for name in facts},
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
