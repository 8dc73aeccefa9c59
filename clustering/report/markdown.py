"""Pages that show a finished job in Prefect's UI: a table of its passes, and its key figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clustering.fitting.loop import PassRecord
from clustering.report.units import duration, size

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
    """Write the key figures of a run, its changes, and the pictures of its report as Markdown.

    Parameters
    ----------
    record
        Content of ``run.json``.
    pictures
        Pictures of the report.
    """
    state = "converged" if record["converged"] else f"stopped by {record['stop_reason']}"
    masked = f"; {record['n_masked']:,} cells masked" if record["n_masked"] else ""
    reads = f"{record['reads']} full read{'s' * (record['reads'] != 1)} of the source, {size(record['bytes_read'])}"
    facts = {
        "run": f"`{record['run']}`",
        "model": f"{record['kind']}, k = {record['k']}",
        "rows": f"{record['n_rows']:,} of {record['n_features']:,} features{masked}",
        "objective": f"{record['objective']:.10g}",
        "passes": f"{record['iterations']}, {state}; {reads}",
        "time": f"{duration(record['seconds']['total'])}, peak memory {size(record['peak_rss_bytes'])}",
        "output": f"`{record['config']['output']['store']}`",
        **_since(record),
    }
    first, *others = [f"| {name} | {value} |" for name, value in facts.items()]
    lines = [f"# {record['k']} clusters of {record['n_rows']:,} rows", "", first, "|---|---|", *others]
    worth = [*record["warnings"], *record["remarks"]]
    if worth:
        lines += ["", "## Worth knowing", "", *(f"- {line}" for line in worth)]
    for figure in pictures:
        lines += ["", f"## {figure.title}", "", f"![{figure.title}]({figure.uri})", "", figure.caption]
    return "\n".join(lines)


def _since(record: Mapping[str, Any]) -> dict[str, str]:
    """List what was new in the data, and what changed since the previous version."""
    facts = {}
    followed, comparison = record.get("followed"), record.get("comparison")
    if followed:
        facts["follows run"] = f"`{followed['run']}`"
        facts["what was new"] = followed["told"]
    if comparison:
        facts["compared with run"] = f"`{comparison['with']}`"
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
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name != "failed"]
    lines = [f"# {answer}", "", selection["reason"], "", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        cells = [_cell(row.get(name)) for name in names]
        lines.append(f"| {' | '.join(cells)} |" + (f" {row['failed']}" if row["failed"] else ""))
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return "–" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)
