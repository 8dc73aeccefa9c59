"""The page of a sweep over k: the answer, its reason, the criteria as curves, and the table of choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import yaml

from clustering.fitting.recommendation import LEAST_NUMBERS
from clustering.options import VARIED
from clustering.plots import choices
from clustering.report.figures import Figure, drawn
from clustering.report.template import fill
from clustering.report.words import count, number, utc

TITLES = {
    "cost": "cost", "calinski_harabasz": "Calinski–Harabasz ↑", "davies_bouldin": "Davies–Bouldin ↓",
    "silhouette": "silhouette ↑", "simplified_silhouette": "simplified silhouette ↑", "gap": "gap statistic ↑",
    "stability_restarts": "stability of restarts ↑", "stability_halves": "stability of halves ↑", "aic": "AIC ↓",
    "bic": "BIC ↓", "icl": "ICL ↓",
}  # fmt: skip
"""Criteria and their titles in the table; the arrow points to better values."""
FACTS = (*TITLES, "bic_by_component", "smallest", "numbers_per_parameter", "passes")
"""Columns of the table after those that say what varies."""
MEANINGS = {
    "cost": "The objective of the fit. It gets better with every further cluster, so it has no vote.",
    "calinski_harabasz": "Scatter between clusters over scatter within.",
    "davies_bouldin": "How much the most alike clusters overlap.",
    "silhouette": "How much nearer rows are to their own cluster than to the next one, −1 … 1.",
    "simplified_silhouette": "The same, with distances from centers in place of rows.",
    "gap": "How much tighter the clusters are than those of rows without structure.",
    "stability_restarts": "How alike the labels from different starts are; 1 if equal.",
    "stability_halves": "How alike the labels of fits to two halves of the rows are; 1 if equal.",
    "aic": "Likelihood less a penalty for parameters.",
    "bic": "As AIC, with a penalty that grows with the rows.",
    "icl": "BIC plus twice the entropy: prefers clusters that do not overlap.",
    "bic_by_component": "BIC where the parameters of each component count against its own rows; lower is better.",
    "smallest": "Weight of the smallest cluster.",
    "numbers_per_parameter": f"Numbers of the rows of the smallest component for each of its parameters; fewer than "
    f"{LEAST_NUMBERS:g} may fit by chance.",
    "passes": "Passes over the data until the fit stopped.",
}
"""What each column says."""


def varied(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name what varies between the rows of a table of choices: k, and perhaps more.

    Parameters
    ----------
    table
        Rows of a sweep.
    """
    return [name for name in VARIED if name in table[0]]


def criteria_figure(table: Sequence[Mapping[str, Any]], recommended: Mapping[str, Any] | None) -> Figure:
    """Draw the criteria over k, as `Selection.plot` does.

    Parameters
    ----------
    table, recommended
        Rows of a sweep, and the recommended choice; None for none.
    """
    ks = [row["k"] for row in table]
    alt = (
        f"A panel for each criterion over k from {min(ks)} to {max(ks)}. "
        f"{'No choice is marked' if recommended is None else f'A dashed line marks {in_words(recommended)}'}."
    )
    plot = partial(choices.selection, table, recommended)
    return drawn("choice", "Choice of k", "Criteria over k.", alt, plot, "quality", wide=True)


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
    table, recommended = selection["table"], selection["recommended"]
    facts = [name for name in FACTS if any(row.get(name) is not None for row in table)]
    own = varied(table)
    figure = criteria_figure(table, recommended) if any(name in TITLES for name in facts) else None
    return fill(
        "choices.html",
        [] if figure is None else [figure],
        selection=selection,
        answer=selection_answer(selection),
        heads=_heads(selection),
        figure=figure,
        varied=own,
        facts=facts,
        rows=[(row, recommended is not None and all(row.get(n) == recommended.get(n) for n in own)) for row in table],
        titles={name: _title(name) for name in facts},
        meanings=[(_title(name), MEANINGS[name]) for name in facts],
        config=yaml.safe_dump(dict(selection["config"]), sort_keys=False, allow_unicode=True),
    )


def _title(name: str) -> str:
    return TITLES.get(name, name.replace("_", " "))


def _heads(selection: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List what identifies a sweep."""
    reads, published = selection["reads"], selection.get("published")
    finished = selection.get("finished_at")
    independent = number(round(selection["independent_rows"]))
    named = {
        "run": selection.get("run"),
        "published": None if published is None else in_words(published),
        "finished": None if finished is None else utc(finished),
        "source": selection["source"],
        "rows": f"{selection['n_rows']:,}, of which about {independent} are independent",
        "reads": f"{number(reads)} full {'read' if reads == 1 else 'reads'} of the source",
    }
    return [(name, value) for name, value in named.items() if value]


def selection_answer(selection: Mapping[str, Any]) -> str:
    """Write the outcome of a sweep in one sentence.

    Parameters
    ----------
    selection
        Content of ``selection.json``.
    """
    table, recommended = selection["table"], selection["recommended"]
    failed = sum(bool(row.get("failed")) for row in table)
    compared = f"{len(table)} choices compared on {count(selection['n_rows'])} rows"
    compared += f", of which {failed} failed" if failed else ""
    if recommended is None:
        return f"No clear answer; {compared}."
    return f"{in_words(recommended)} is recommended; {compared}."


def in_words(choice: Mapping[str, Any]) -> str:
    """Write a choice in words, such as ``k = 5, covariance = full``.

    Parameters
    ----------
    choice
        What varies, by name.
    """
    return ", ".join(f"{name} = {value}" for name, value in choice.items())
