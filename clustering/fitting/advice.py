"""Advice for the user before a job is run: settings of the config or of the store that would cost time or memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

from clustering.data.excluded_rows import explain_excluded_rows
from clustering.data.inspection import Inspection, VariableLayout
from clustering.data.plan import MIB, Plan
from clustering.data.source import Source
from clustering.execution.passes import MEMORY_SHARE, labels_fault
from clustering.fitting.forecast import Forecast, Workers
from clustering.fitting.options import Options
from clustering.fitting.survey_pass import SAMPLE_SHARE, sample_limit, sampled_row_bytes

SMALL_CHUNK = 64 * 1024
"""Decoded size in bytes below which a chunk takes longer to open than to read."""
SURPLUS_FACTOR = 1.5
"""Decoded values per selected value from which other chunks would save time."""
_WORTH = 64 * MIB
"""Decoded size in bytes of a source or of a row sample. Below it, advice on speed is not worth its line."""


def advise(
    source: Source, plan: Plan, inspection: Inspection, expected: Forecast, workers: Workers, options: Options, *,
    memory: int,
) -> Iterator[str]:  # fmt: skip
    """Yield one line of advice for each problem of a job.

    Parameters
    ----------
    source
        Data of the job.
    plan
        Blocks of the passes.
    inspection
        Layout of the chunks, and how often each is read.
    expected
        Estimate of the memory and time of the job.
    workers
        Number of processes and threads.
    options
        How to fit.
    memory
        Memory budget of a worker, in bytes.

    Yields
    ------
    str
        One sentence that names the problem and its remedy.
    """
    yield from source.cautions
    # Advice on speed is given for large sources only: a small one is read in a moment, whatever its layout.
    large = inspection.pass_bytes > _WORTH
    if plan.block_bytes > memory // MEMORY_SHARE:
        yield (
            f"one chunk of samples with all its features takes {plan.block_bytes / MIB:,.0f} MiB decoded, over half of "
            "compute.memory, so that the job would stop at once: raise compute.memory, or store smaller chunks along "
            "the sample dimensions"
        )
    if labels := labels_fault(source, memory):
        yield f"the job would stop at once: {labels}"
    yield from _sample(source, plan, options, memory)
    # A plan may join several chunks to one block, so the size of a single chunk is worked out from the axes.
    chunk_bytes = math.prod(axis.longest(1) for axis in source.axes) * plan.row_bytes
    if any(v.chunks for v in inspection.variables) and chunk_bytes < SMALL_CHUNK and large:
        yield (
            f"chunks of {chunk_bytes / 1024:,.0f} KiB are small: reading spends its time on opening them; "
            "store chunks of 1 to 64 MiB, or use shards"
        )
    # A thread works on a whole block. With fewer blocks than threads, the other threads have no work.
    hands = workers.processes * workers.threads
    if len(plan) < hands and large:
        yield f"{len(plan)} block(s) are too few for {hands} threads: store smaller chunks along the sample dimensions"
    for variable in inspection.variables:
        yield from _reads(variable)
        yield from _surplus(variable, expected)
        if variable.not_rust is not None and large:
            yield f"variable {variable.name!r} is decoded by zarr, not in Rust: {variable.not_rust}"
    # Where single variables are read more often for the labels, `_reads` has said so already.
    if not inspection.same_blocks and all(v.label_reads <= v.reads for v in inspection.variables):
        yield (
            "the selection starts inside a chunk: the label pass has other blocks than the passes, and reads the "
            "source once more; select along chunk edges to avoid it"
        )
    if expected.reread_share:
        # Rounded down, so that 100 % is never printed while some rows are read again.
        share = math.floor(100 * (1 - expected.reread_share))
        more = "" if expected.scratch_bytes is None else " (compute.scratch has too little room)"
        yield (
            f"{share} % of the rows stay in memory or on scratch between passes; the others are read again in every "
            f"pass over all rows{more}: "
            + ("raise compute.memory, or set compute.scratch to a folder on a local disk"
               if expected.scratch_bytes is None else "raise compute.memory, or name a larger disk")
        )  # fmt: skip
    # Some masked cells are normal, so causes are named only where most cells make no row.
    causes = explain_excluded_rows(source, plan) if expected.masked_share > 0.5 else ()
    yield from causes
    if expected.masked_share == 1 and not causes:
        yield "every cell probed is masked: check source.mask, source.select and the fill values"


def _sample(source: Source, plan: Plan, options: Options, memory: int) -> Iterator[str]:
    """Advise a smaller row sample, or more memory, where the sample takes more than its share of memory."""
    size, room = sampled_row_bytes(source, options), memory // SAMPLE_SHARE
    rows = min(sample_limit(source, options), int(plan.cells * options.fit.fraction))
    if rows * size > max(room, _WORTH):
        yield (
            f"the sample of {rows:,} rows takes {rows * size / MIB:,.0f} MiB, over a sixteenth of compute.memory, and "
            f"restarts work on copies of it: raise compute.memory, or set fit.sample_rows to {max(1, room // size):,}"
        )


def _reads(variable: VariableLayout) -> Iterator[str]:
    """Advise on chunks that are read more than once in a pass."""
    name = repr(variable.name)
    if variable.reads > 1:
        yield (
            f"each chunk of {name} is read {variable.reads:.2f} times in a pass, as blocks end inside chunks: "
            "store all variables in the same chunks, select positions in order, or raise compute.memory"
        )
    if variable.label_reads > variable.reads:
        yield (
            f"each chunk of {name} is read {variable.label_reads:.2f} times in the label pass, as the selection "
            "starts inside a chunk: select along chunk edges, or raise compute.memory for larger blocks"
        )


def _surplus(variable: VariableLayout, expected: Forecast) -> Iterator[str]:
    """Advise on chunks that hold many more values than are selected."""
    if variable.surplus_factor < SURPLUS_FACTOR or variable.surplus is None:
        return
    dim, most = max(variable.surplus.items(), key=lambda item: item[1])
    often = "each pass reads" if expected.reread_share else "the first pass reads"
    # Scratch helps only where passes read the source again.
    remedy = "" if not expected.reread_share or expected.scratch_bytes is not None else ", or set compute.scratch"
    yield (
        f"chunks of {variable.name!r} hold {variable.surplus_factor:,.1f} times the selected values "
        f"({most:,.1f} times along {dim}), and {often} all of them: store shorter chunks along {dim}{remedy}"
    )
