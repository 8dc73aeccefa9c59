"""Formats results as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

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
