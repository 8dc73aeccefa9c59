"""Formats results as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from clustering.options import VARIED
from clustering.report.units import duration, size
from clustering.storage.layout import VERSIONS
from clustering.storage.paths import storage_path

LISTED = 12
"""Largest number of clusters that a line lists."""


def change_line(comparison: Mapping[str, Any]) -> str:
    """Summarise a comparison with the previous version in one line."""
    churn, parts = comparison["churn"], []
    if churn is not None:
        parts.append(f"{100 * churn:.3g} % of the weight has another label than in run {comparison['with']}")
    else:
        parts.append(f"compared with run {comparison['with']}")
    parts.append(f"sizes differ by {100 * comparison['largest_size_change']:.3g} % at most")
    for word, clusters in (("new", comparison["new_clusters"]), ("lost", comparison["lost_clusters"])):
        if clusters:
            more = f" and {len(clusters) - LISTED:,} more" * (len(clusters) > LISTED)
            parts.append(f"{word}: {', '.join(map(str, clusters[:LISTED]))}{more}")
    return "; ".join(parts)


COLUMNS = {
    "cost": "cost", "calinski_harabasz": "CH", "davies_bouldin": "DB", "silhouette": "silhouette",
    "simplified_silhouette": "simplified", "gap": "gap", "stability_restarts": "restarts",
    "stability_halves": "halves", "aic": "AIC", "bic": "BIC", "icl": "ICL",
}  # fmt: skip
"""Criteria of the printed table of a sweep, with the heads of their columns."""


def selection_lines(selection: Mapping[str, Any]) -> Iterator[str]:
    """Format the outcome of a sweep over k, from the content of ``selection.json``."""
    table, recommended = selection["table"], selection["recommended"]
    names = [name for name in VARIED if name in table[0]]
    shown = [name for name in COLUMNS if any(row.get(name) is not None for row in table)]
    lines = [[*names, *(COLUMNS[name] for name in shown)]]
    for row in table:
        cells = ["–" if row.get(name) is None else f"{row[name]:.4g}" for name in shown]
        lines.append([*(str(row[name]) for name in names), *([""] * len(shown) if row["failed"] else cells)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line, row in zip(lines, [None, *table], strict=True):
        chosen = row is not None and recommended is not None and all(row[n] == recommended[n] for n in recommended)
        failed = f"  failed: {row['failed']}" if row is not None and row["failed"] else ""
        yield ("* " if chosen else "  ") + "  ".join(map(str.rjust, line, widths)).rstrip() + failed
    answer = "no clear answer" if recommended is None else ", ".join(f"{n} = {v}" for n, v in recommended.items())
    yield f"choice     {answer}"
    yield f"why        {selection['reason']}"
    if selection["published"] not in (None, recommended):
        yield f"published  {', '.join(f'{n} = {v}' for n, v in selection['published'].items())}, on request"
    reads = f"{selection['reads']:g} full read{'s' * (selection['reads'] != 1)} of the source"
    yield f"passes     {selection['iterations']} for all choices together; {reads}"
    for warning in selection["warnings"]:
        yield f"warning    {warning}"
    yield f"output     {storage_path(selection['config']['output']['store'])}"


def summary_lines(record: Mapping[str, Any]) -> Iterator[str]:
    """Format the outcome of a run, from the content of ``run.json``."""
    state = "converged" if record["converged"] else f"stopped by {record['stop_reason']}"
    masked = f", {record['n_masked']:,} cells masked" if record["n_masked"] else ""
    yield f"clusters   {record['k']} of {record['n_rows']:,} rows × {record['n_features']:,} features{masked}"
    if record.get("names"):
        yield f"names      {'; '.join(f'{i} {name}' for i, name in record['names'].items())}"
    yield f"objective  {record['objective']:.12g}"
    if record.get("followed"):
        yield f"new        {record['followed']['told']}, since run {record['followed']['run']}"
    if record.get("comparison"):
        yield f"changed    {change_line(record['comparison'])}"
    reads = f"{record['reads']} full read{'s' * (record['reads'] != 1)} of the source"
    yield f"passes     {record['iterations']}, {state}; {reads}"
    yield f"time       {duration(record['seconds']['total'])}, peak memory {size(record['peak_rss_bytes'])}"
    for remark in record["remarks"]:
        yield f"note       {remark}"
    for warning in record["warnings"]:
        yield f"warning    {warning}"
    folder = storage_path(record["config"]["output"]["store"])
    # The output itself shows the current version. A version that waits or is held back is in a folder of its own.
    if record["status"] != "finished":
        folder = folder / VERSIONS / record["run"]
    yield f"output     {folder}"
    if record["config"]["output"]["report"]:
        yield f"report     {folder / 'report.html'}"
