"""What the commands print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from clustering.storage.layout import VERSIONS
from clustering.storage.places import place_at
from flows.watch import duration


def size(n: float) -> str:
    """Write a size in bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:,.0f} {unit}" if unit == "B" else f"{n:,.1f} {unit}"
        n /= 1024
    return f"{n:,.1f} TiB"


def summary_lines(record: Mapping[str, Any]) -> Iterator[str]:
    """Lay out the outcome of a run."""
    state = "converged" if record["converged"] else f"stopped by {record['stop_reason']}"
    masked = f", {record['n_masked']:,} cells masked" if record["n_masked"] else ""
    yield f"clusters   {record['k']} of {record['n_rows']:,} rows × {record['n_features']:,} features{masked}"
    yield f"objective  {record['objective']:.12g}"
    reads = f"{record['reads']} full read{'s' * (record['reads'] != 1)} of the source"
    yield f"passes     {record['iterations']}, {state}; {reads}"
    yield f"time       {duration(record['seconds']['total'])}, peak memory {size(record['peak_rss_bytes'])}"
    for remark in record["remarks"]:
        yield f"note       {remark}"
    for warning in record["warnings"]:
        yield f"warning    {warning}"
    folder = place_at(record["config"]["output"]["store"])
    if record["status"] != "finished":
        folder = folder / VERSIONS / record["run"]
    yield f"output     {folder}"
    if record["config"]["output"]["report"]:
        yield f"report     {folder / 'report.html'}"
