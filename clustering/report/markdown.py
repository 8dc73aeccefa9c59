"""Pages that show a finished job in Prefect's UI: a table of its passes, and its key figures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from clustering.fitting.loop import PassRecord
from clustering.report.units import duration, size
from clustering.report.words import standing, utc

if TYPE_CHECKING:
    from clustering.report.figures import Figure

PASSES_LISTED = 500


def table_of(records: Sequence[PassRecord]) -> list[dict[str, Any]]:
    """Make a table of the passes, a row each; of the last ones where there are very many.

    Parameters
    ----------
    records
        Records of the passes.
    """
    return [
        {
            "pass": r.iteration,
            "objective": float(r.objective),
            "change": None if r.change is None else float(r.change),
            "candidates": r.active,
            "rows": int(r.rows),
            "seconds": round(r.seconds, 3),
            "rows per second": round(r.rows * r.active / r.seconds) if r.seconds else None,
            "bytes read": int(r.read_stats.bytes),
        }
        for r in records[-PASSES_LISTED:]
    ]


def page_of(record: Mapping[str, Any], pictures: Sequence[Figure]) -> str:
    """Write the key figures of a run, its changes, and the figures of its report as Markdown.

    Parameters
    ----------
    record
        Content of ``run.json``.
    pictures
        Figures of the report.
    """
    state = "converged" if record["converged"] else f"stopped by {record['stop_reason']}"
    masked = f"; {record['n_masked']:,} cells masked" if record["n_masked"] else ""
    reads = f"{record['reads']} full read{'s' * (record['reads'] != 1)} of the source, {size(record['bytes_read'])}"
    facts = {
        "run": code(record["run"]),
        **({"finished": utc(record["finished_at"])} if record.get("finished_at") else {}),
        "model": plain(f"{record['kind']}, k = {record['k']}"),
        "rows": f"{record['n_rows']:,} of {record['n_features']:,} features{masked}",
        "objective": f"{record['objective']:.10g}",
        "passes": plain(f"{record['iterations']}, {state}; {reads}"),
        "time": f"{duration(record['seconds']['total'])}, peak memory {size(record['peak_rss_bytes'])}",
        "output": code(record["config"]["output"]["store"]),
        **_since(record),
    }
    first, *others = [f"| {name} | {value} |" for name, value in facts.items()]
    lines = [f"# {record['k']} clusters of {record['n_rows']:,} rows", "", first, "|---|---|", *others]
    not_current = standing(record)
    if not_current:
        lines += ["", f"**{plain(not_current)}**"]
    worth = [*record["warnings"], *record["remarks"]]
    if worth:
        lines += ["", "## Worth knowing", "", *(f"- {plain(line)}" for line in worth)]
    for figure in pictures:
        title = plain(figure.title)
        lines += ["", f"## {title}", "", f"![{title}]({figure.uri})", "", plain(figure.caption)]
    return "\n".join(lines)


def plain(text: str) -> str:
    """Escape text from users for Markdown, so that it is shown as it is: no markup, no link, no cell of a table.

    Parameters
    ----------
    text
        Any text; line breaks become spaces.
    """
    return _MARKS.sub(r"\\\g<0>", escape(" ".join(text.split()), quote=False))


def code(text: str) -> str:
    """Write text from users as code in Markdown, also in a cell of a table.

    Parameters
    ----------
    text
        Any text; line breaks become spaces.
    """
    # A bar would end the cell even in code.
    text = " ".join(text.split()).replace("|", r"\|")
    # Backticks inside need a longer fence.
    fence = "`" * (1 + max(map(len, _TICKS.findall(text)), default=0))
    space = " " * (text.startswith("`") or text.endswith("`"))
    return f"{fence}{space}{text}{space}{fence}"


# Underscores inside a word, such as in names of options, are no marks.
_MARKS = re.compile(r"[\\`*\[\]|~#]|(?<!\w)_|_(?!\w)|!(?=\[)")
_TICKS = re.compile("`+")


def _since(record: Mapping[str, Any]) -> dict[str, str]:
    """List what was new in the data, and what changed since the previous version."""
    facts = {}
    followed, comparison = record.get("followed"), record.get("comparison")
    if followed:
        facts["follows run"] = code(followed["run"])
        facts["what was new"] = plain(followed["told"])
    if comparison:
        facts["compared with run"] = code(comparison["with"])
        if comparison["churn"] is not None:
            facts["changed their label"] = f"{100 * comparison['churn']:.3g} % of the weight"
        facts["largest change of a size"] = f"{100 * comparison['largest_size_change']:.3g} %"
        for name in ("new", "lost"):
            ids = comparison[f"{name}_clusters"]
            if ids:
                facts[f"{name} clusters"] = ", ".join(map(str, ids))
        held = comparison.get("held_out")
        if held:
            facts["held out"] = (
                f"{held['objective']:.6g} on {held['rows']:,} rows, {held['objective_before']:.6g} before"
            )
    return facts


def selection_page(selection: Mapping[str, Any]) -> str:
    """Write the outcome of a sweep over k as Markdown: the answer, the reason, and the table of choices.

    Parameters
    ----------
    selection
        Content of ``selection.json``.
    """
    recommended, rows = selection["recommended"], selection["table"]
    answer = "no clear answer" if recommended is None else ", ".join(f"{n} = {v}" for n, v in recommended.items())
    answer, reason = plain(answer), plain(selection["reason"])
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name != "failed"]
    lines = [f"# {answer}", "", reason, "", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        cells = [_cell(row.get(name)) for name in names]
        lines.append(f"| {' | '.join(cells)} |" + (f" {plain(row['failed'])}" if row["failed"] else ""))
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return "–" if value is None else f"{value:.5g}" if isinstance(value, float) else plain(str(value))
