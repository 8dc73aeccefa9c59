"""What the commands print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from clustering.data.inspection import Inspection
from clustering.storage.places import place_at
from flows.watch import duration


def size(n: float) -> str:
    """Write a size in bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:,.0f} {unit}" if unit == "B" else f"{n:,.1f} {unit}"
        n /= 1024
    return f"{n:,.1f} TiB"


def _times(lengths: Any) -> str:
    return " × ".join(f"{n:,}" for n in lengths) or "1"


def inspection_lines(found: Inspection) -> Iterator[str]:
    """Lay out an inspection."""
    for v in found.variables:
        dims = ", ".join(f"{d} {n:,}" for d, n in zip(v.dims, v.shape, strict=True))
        stored = f"chunks {_times(v.chunks)}" if v.chunks else "in memory"
        if v.shards:
            stored += f", shards {_times(v.shards)}"
        yield f"variable   {v.name} ({dims}) {v.dtype}, {stored}"
    yield f"samples    {', '.join(f'{d} {n:,}' for d, n in found.sample_dims.items())}: {found.cells:,} cells"
    along = ", ".join(f"{d} {n:,}" for d, n in found.feature_dims.items()) or "one per variable"
    yield f"features   {found.n_features:,} ({along}), {size(found.row_bytes)} a row"
    yield f"masked     about {100 * found.masked_share:.1f} % (of {found.probed_blocks} blocks read for a probe)"
    yield f"blocks     {found.n_blocks:,} of {_times(found.block_shape)}, {size(found.block_bytes)} decoded"
    yield f"one read   {size(found.pass_bytes)} decoded, about {duration(found.seconds_per_read)}"
    yield f"in memory  {100 * found.resident_share:.0f} % of the rows stay between passes"
    yield f"memory     about {size(found.memory_bytes)} a worker"
    for advice in found.advice:
        yield f"advice     {advice}"


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
    yield f"output     {folder}"
    if record["config"]["output"]["report"]:
        yield f"report     {folder / 'report.html'}"
