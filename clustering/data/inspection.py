"""What a job would do, told before anything is spent."""

from __future__ import annotations

import math
import resource
import time
from dataclasses import dataclass
from typing import Any

from clustering.data.plan import MIB, Plan
from clustering.data.source import Source

PROBE_SECONDS = 2.0
"""How long blocks are read for the estimates, in seconds."""
PROBES = 8
_IN_FLIGHT = 4
"""Copies of a block at work in a thread at most: encoded, decoded, gathered, with masked rows dropped."""


@dataclass(frozen=True)
class VariableLayout:
    """How one variable is stored."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...] | None
    shards: tuple[int, ...] | None


@dataclass(frozen=True)
class Inspection:
    """Layout, plan and estimates."""

    variables: tuple[VariableLayout, ...]
    sample_dims: dict[str, int]
    feature_dims: dict[str, int]
    cells: int
    """Cells of the sample grid: rows before masking."""
    n_features: int
    row_bytes: int
    """Decoded size of a row, in bytes."""
    pass_bytes: int
    """Decoded size of all rows, in bytes: what one read of the source makes."""
    n_blocks: int
    block_shape: tuple[int, ...]
    block_bytes: int
    probed_blocks: int
    masked_share: float
    """Share of masked cells in the blocks probed."""
    seconds_per_read: float
    """Estimated time of one read of the source on all threads, in seconds."""
    resident_share: float
    """Share of the decoded rows that stays in memory between passes."""
    memory_bytes: int
    """Estimated memory of a worker, the libraries themselves included, in bytes."""
    advice: tuple[str, ...]


def inspect_source(source: Source, plan: Plan, *, threads: int, memory: int) -> Inspection:
    """Look at a source and estimate what its passes cost. Reads a few blocks spread over the plan.

    Parameters
    ----------
    threads
        Blocks read at once.
    memory
        Memory budget of a worker, in bytes.
    """
    n = len(plan)
    cells = kept = used = 0
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    started = time.perf_counter()
    # Ends and middle first, so that even one or two probes see different parts of the grid.
    order = dict.fromkeys(int(n * f) for f in (0.5, 0.0, 0.999, 0.25, 0.75, 0.125, 0.625, 0.875))
    read_bytes = 0
    for index in list(order)[:PROBES]:
        block = plan.block(min(index, n - 1))
        rows = source.read(block)
        cells += math.prod(block.shape)
        read_bytes += math.prod(block.shape) * plan.row_bytes
        kept += len(rows)
        used += 1
        if time.perf_counter() - started > PROBE_SECONDS:
            break
    seconds = time.perf_counter() - started
    pass_bytes = plan.cells * plan.row_bytes
    share = 1 - kept / cells
    resident = min(1.0, (memory // 2) / max(1, int(pass_bytes * (1 - share))))
    needed = base + int(min(memory // 2, pass_bytes * (1 - share))) + _IN_FLIGHT * threads * plan.block_bytes
    return Inspection(
        variables=tuple(_layout(source, name) for name in source.variables),
        sample_dims=dict(zip(source.sample_dims, source.shape, strict=True)),
        feature_dims={d: source.dataset.sizes[d] for d in source.feature_dims},
        cells=plan.cells,
        n_features=source.n_features,
        row_bytes=plan.row_bytes,
        pass_bytes=pass_bytes,
        n_blocks=n,
        block_shape=plan.block(0).shape,
        block_bytes=plan.block_bytes,
        probed_blocks=used,
        masked_share=share,
        seconds_per_read=seconds * pass_bytes / max(1, read_bytes) / min(threads, n),
        resident_share=resident,
        memory_bytes=needed,
        advice=tuple(_advice(source, plan, threads, memory, share, resident)),
    )


def _layout(source: Source, name: str) -> VariableLayout:
    variable = source.dataset[name].variable
    chunks, shards = variable.encoding.get("chunks"), variable.encoding.get("shards")
    return VariableLayout(
        name, tuple(map(str, variable.dims)), variable.shape, str(variable.dtype), chunks or None, shards or None
    )


def _advice(source: Source, plan: Plan, threads: int, memory: int, share: float, resident: float) -> Any:
    yield from source.cautions
    chunk_bytes = math.prod(axis.longest(1) for axis in source.axes) * plan.row_bytes
    if plan.block_bytes > memory // 2:
        yield (
            f"one chunk of samples with all its features takes {plan.block_bytes / MIB:,.0f} MiB decoded, over half of "
            "compute.memory: raise compute.memory, or store smaller chunks along the sample dimensions"
        )
    stored = any(source.dataset[name].variable.encoding.get("chunks") for name in source.variables)
    if stored and chunk_bytes < 64 * 1024 and plan.cells * plan.row_bytes > 64 * MIB:
        yield (
            f"chunks of {chunk_bytes / 1024:,.0f} KiB are small: reading spends its time on opening them; "
            "store chunks of 1 to 64 MiB, or use shards"
        )
    if len(plan) < threads and plan.cells * plan.row_bytes > 64 * MIB:
        yield f"{len(plan)} block(s) keep {threads} threads waiting: store smaller chunks along the sample dimensions"
    if any(axis.start for axis in source.axes):
        yield (
            "the selection starts inside a chunk: the labelling pass reads the source once more and decodes chunks at "
            "block edges twice; select along chunk edges to avoid it"
        )
    if resident < 1:
        yield (
            f"{int(100 * resident)} % of the decoded rows stay in memory; the others are read again in every pass: "
            "raise compute.memory, or set compute.scratch to a folder on a local disk"
        )
    if share == 1:
        yield "every cell probed is masked: check source.mask, source.select and the fill values"
