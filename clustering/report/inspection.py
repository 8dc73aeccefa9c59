"""Formats an inspection of a job for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from clustering.report.units import duration, size


def inspection_lines(inspection: Mapping[str, Any]) -> Iterator[str]:
    """Format an inspection, as `inspect_job` makes it, for a terminal.

    Parameters
    ----------
    inspection
        As `clustering.run.inspect.inspect_job` makes it.
    """
    expected, workers = inspection["forecast"], inspection["workers"]
    for variable in inspection["variables"]:
        yield from _variable_lines(variable)
    yield f"samples    {_along(inspection['sample_dims'])}: {inspection['cells']:,} cells"
    masked = f"{100 * expected['masked_share']:.1f} % (of {expected['probed_blocks']} blocks read for a probe)"
    yield f"masked     about {masked}"
    prepared = "" if expected["n_components"] is None else f"; {expected['n_components']:,} once prepared"
    features = _along(inspection["feature_dims"]) or "one per variable"
    yield f"features   {inspection['n_features']:,} ({features}), {size(inspection['row_bytes'])} a row{prepared}"
    blocks = (
        f"{inspection['n_blocks']:,} of {_times(inspection['block_shape'])}, {size(inspection['block_bytes'])} decoded"
    )
    yield f"blocks     {blocks}"
    stored = "" if inspection["stored_bytes"] is None else f", {size(inspection['stored_bytes'])} as stored"
    yield f"one read   {size(inspection['pass_bytes'])} decoded{stored}, about {duration(expected['read_seconds'])}"
    kept = f"{size(expected['rows_bytes'])} of rows; {100 * expected['kept_share']:.0f} % stay in memory"
    if expected["scratch_bytes"] is not None:
        kept += f", {100 * expected['scratch_share']:.0f} % on scratch ({size(expected['scratch_bytes'])} there)"
    lives = expected["residency"]
    if lives["source"]:
        often = "pass" if expected["near_share"] is None else "full read"
        kept += f"; {size(lives['source'])} decoded are read again in every {often}"
    yield f"kept       {kept}"
    if workers["processes"] > 1:
        share = [f"{size(lives[key] / workers['processes'])} {place}" for key, place in _PLACES.items() if lives[key]]
        if share:
            yield f"homes      each of {workers['processes']:,} workers keeps {' and '.join(share)} from pass to pass"
    parts = expected["memory"]
    each = ", ".join(f"{name} {size(parts[key])}" for key, name in _PARTS.items() if parts[key])
    who = "process" if workers["processes"] == 1 else "worker"
    yield f"memory     about {size(expected['memory_bytes'])} a {who}: {each}"
    yield from _time_lines(inspection, expected)
    for remark in inspection["remarks"]:
        yield f"note       {remark}"
    for fault in inspection["faults"]:
        yield f"fault      {fault}"
    for advice in inspection["advice"]:
        yield f"advice     {advice}"


_PLACES = {"memory": "in memory", "scratch": "on scratch"}
_PARTS = {
    "libraries": "libraries",
    "labels": "labels",
    "kept": "kept rows",
    "at_work": "blocks at work",
    "statistics": "statistics",
    "sample": "row sample",
}


def _variable_lines(v: Mapping[str, Any]) -> Iterator[str]:
    dims = ", ".join(f"{d} {n:,}" for d, n in zip(v["dims"], v["shape"], strict=True))
    types = v["dtype"] if v["dtype"] == v["stored_dtype"] else f"{v['stored_dtype']} decoded to {v['dtype']}"
    if not v["chunks"]:
        yield f"variable   {v['name']} ({dims}) {types}, in memory"
        return
    layout = f"chunks {_times(v['chunks'])}"
    if v["shards"]:
        layout += f", shards {_times(v['shards'])}"
    yield f"variable   {v['name']} ({dims}) {types}, {layout}"
    codecs = ", ".join(v["codecs"]) or "none"
    checksum_text = "" if v["checksums"] is None else ", checksums" if v["checksums"] else ", no checksums"
    where = {"zarrs": "in Rust by zarrs", "zarr": "by zarr", "xarray": "by xarray"}[v["decoder"]]
    yield f"           codecs {codecs}{checksum_text}; decoded {where}"
    if v["read_chunks"] is not None:
        absent = v["absent_chunks"]
        gone = "" if not absent else f", {absent:,} of them never written"
        stored = "" if v["stored_bytes"] is None else f", {size(v['stored_bytes'])} in a read"
        unit = "shards" if v["shards"] else "chunks"
        surplus = math.prod(v["surplus"].values())
        more = "" if surplus < 1.005 else f", which hold {surplus:,.2f} times the selected values"
        yield f"           {v['read_chunks']:,} {unit} to read{gone}{stored}{more}"


def _time_lines(inspection: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    if expected["pass_seconds"] is None:
        yield f"time       not known: {expected['failure']}"
        return
    yield f"pass 0     about {duration(expected['first_seconds'])}, and in addition the starts on a sample of the rows"
    seconds, near, most = expected["pass_seconds"], expected["near_seconds"], expected["most_passes"]
    now, kept, again = (duration(expected[key]) for key in ("pass_seconds", "kept_seconds", "reread_seconds"))
    if near is None:
        each = f"about {now} each"
        if expected["reread_share"]:
            each += f" ({kept} if all rows stayed in memory, {again} if none did)"
        yield f"passes     {each}; {most:,} at most, {duration(most * seconds)}; without compiling"
    else:
        # The first pass is a full read, and no pass can be more.
        least = seconds + (most - 1) * near if most else 0.0
        yield (
            f"passes     about {duration(near)} each over the {100 * expected['near_share']:.0f} % of the rows near a "
            f"boundary between clusters, and {now} for the full read before them, which is made again when centers "
            f"have moved far; {most:,} at most, {duration(least)} to {duration(most * seconds)}; without compiling"
        )
    yield f"labels     about {duration(expected['label_seconds'])}"
    first, label, (fewest, largest) = expected["first_reads"], expected["label_reads"], expected["fit_reads"]
    share = largest / max(1, most)
    if near is None:
        often = f"{share:.2g} for each pass"
    else:
        often = f"{fewest:.3g} to {largest:.3g} for the passes, the fewer the less centers move"
    reads = f"{first:.3g} for pass 0, {often}, {label:.2g} for the labels"
    if inspection["stored_bytes"] is not None:
        low, high = ((first + label + passes) * inspection["stored_bytes"] for passes in (fewest, largest))
        if near is None:
            reads += f": {size((first + label) * inspection['stored_bytes'])} from the store"
            if share:
                reads += f" and {size(share * inspection['stored_bytes'])} a pass, {size(high)} at most"
        else:
            reads += f": {size(low)} to {size(high)} from the store"
    yield f"reads      {reads}"


def _along(dims: Mapping[str, int]) -> str:
    return ", ".join(f"{d} {n:,}" for d, n in dims.items())


def _times(lengths: Any) -> str:
    return " × ".join(f"{n:,}" for n in lengths) or "1"
