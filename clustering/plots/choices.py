"""The plot of a selection: each criterion over the number of clusters, and the recommended choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from clustering.errors import ConfigError, nearest
from clustering.plots.canvas import Place, finish, palette, panels_for, tidy

BETTER = {
    "cost": "",
    "silhouette": "higher",
    "simplified_silhouette": "higher",
    "calinski_harabasz": "higher",
    "davies_bouldin": "lower",
    "gap": "higher",
    "stability_restarts": "higher",
    "stability_halves": "higher",
    "aic": "lower",
    "bic": "lower",
    "icl": "lower",
}
"""Which values of a criterion are better, for its label; none of the cost, which is a likelihood for mixtures."""
CHOSEN = "#dc2626"
COLUMNS = 3
_STYLES = ("o-", "s--", "^:", "D-.")


def selection(
    table: Sequence[Mapping[str, Any]],
    recommended: Mapping[str, Any] | int | None = None,
    ax: Place = None,
    *,
    criteria: Sequence[str] | None = None,
) -> Axes | NDArray[Any]:
    """Draw the criteria of a selection over k, a panel each, with the recommended choice.

    Parameters
    ----------
    table
        One mapping for each choice, with ``k``, criteria as numbers, and options that differ as text, such as
        ``covariance``; each combination of these is a line. Missing criteria, as of a choice that failed, leave a gap.
    recommended
        The recommended choice or its k; None where there is no clear answer.
    ax
        See `clustering.plots.canvas.Place`.
    criteria
        Criteria to draw; where None, all of `BETTER` that the table has, or all of its numbers if it has none of them.

    Returns
    -------
    Axes, or ndarray of Axes
        One for each criterion, with one line for each combination of options. A single one comes alone.

    Raises
    ------
    ConfigError
        If the table is empty or has no k, or a criterion is not in it.
    """
    if not table or any("k" not in row for row in table):
        raise ConfigError("the table is empty or has a row without k; give one mapping for each choice")
    names = _criteria(table)
    for name in criteria or ():
        if name not in names:
            raise ConfigError(f"there is no criterion {name!r}; {nearest(name, names)}")
    names = list(criteria or [name for name in BETTER if name in names] or names)
    if not names:
        raise ConfigError("the table of the selection has no criterion, as no choice was fitted; see its reasons")
    options = [name for name in dict.fromkeys(n for row in table for n in row) if _separates(table, name)]
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(table, key=lambda row: int(row["k"])):
        lines.setdefault(", ".join(str(row.get(name)) for name in options), []).append(row)
    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    if isinstance(ax, Axes | np.ndarray):
        rows, columns = 1, len(names)
    panels = panels_for(ax, rows, columns, (max(4.4, 3.6 * columns), 0.6 + 2.4 * rows))
    for axes in panels.flat[len(names) :]:
        axes.set_axis_off()
    drawn = np.array(list(panels.flat[: len(names)]), object)
    chosen = recommended["k"] if isinstance(recommended, Mapping) else recommended
    for axes, name in zip(drawn, names, strict=True):
        for place, (label, own) in enumerate(lines.items()):
            style, colour = _STYLES[place % len(_STYLES)], palette(len(lines))[place]
            ks, values = [int(row["k"]) for row in own], [_number(row.get(name)) for row in own]
            axes.plot(ks, values, style, color=colour, markersize=4, linewidth=1.3, label=label or name)
        if chosen is not None:
            axes.axvline(
                int(chosen),
                color=CHOSEN,
                linewidth=1.2,
                linestyle=(0, (4, 2)),
                zorder=1,
                label=f"recommended: {chosen}",
            )
            value = _of_choice(table, recommended, name)
            axes.plot([int(chosen)], [value], "o", markersize=9, markerfacecolor="none", markeredgecolor=CHOSEN)
        better = BETTER.get(name)
        axes.set_title(name.replace("_", " ") + (f" ({better} is better)" if better else ""), fontsize="small")
        axes.set_xlabel("k")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        tidy(axes)
    first = drawn[0]
    if chosen is None:
        # A line without points puts the words into the legend.
        first.plot([], [], " ", label="no clear answer")
    first.legend(frameon=False, fontsize="small", title=", ".join(options) if len(lines) > 1 else None)
    finish(*drawn)
    return drawn[0] if len(drawn) == 1 else drawn


def _number(value: Any) -> float:
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else np.nan


def _criteria(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the columns with numbers other than k and those that are known to be options."""
    names = dict.fromkeys(name for row in table for name in row if name not in ("k", *_OPTIONS))
    return [name for name in names if any(np.isfinite(_number(row.get(name))) for row in table)]


_OPTIONS = ("beta", "seed", "restarts", "covariance", "divergence", "iterations", "passes")
"""Columns with settings and facts of a choice, which are no criteria."""


def _separates(table: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Return whether a column is an option whose values differ from choice to choice."""
    values = [row.get(name) for row in table if name in row]
    option = name in ("beta", "covariance", "divergence")
    return option and len({str(value) for value in values}) > 1


def _of_choice(table: Sequence[Mapping[str, Any]], recommended: Mapping[str, Any] | int | None, name: str) -> float:
    """Return the criterion of the recommended choice; NaN where it is not in the table."""
    wanted = recommended if isinstance(recommended, Mapping) else {"k": recommended}
    keys = [key for key in ("k", "beta", "covariance", "divergence") if key in wanted]
    matches = [row for row in table if all(row.get(key) == wanted[key] for key in keys)]
    return _number(matches[0].get(name)) if matches else np.nan
