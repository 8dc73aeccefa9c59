"""What a job would take: memory of a worker, and seconds of its passes, as far as that is known beforehand."""

from __future__ import annotations

import math
import os
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

from clustering.data.inspection import Inspection
from clustering.data.plan import Plan
from clustering.data.source import Source
from clustering.execution.block_cache import SCRATCH_SHARE
from clustering.execution.map_reduce import TASKS_PER_THREAD
from clustering.execution.passes import room_to_keep
from clustering.fitting.options import Options
from clustering.fitting.probe import Probe, ProbedStage
from clustering.fitting.survey_pass import sample_limit

_MERGE = 4
"""Copies of a full row sample while two become one: both, what stays of them, and its parts on their way there."""
_TRAVELLING = 6
"""The same of all that pass 0 sends at most: three rows for each one of the sample, and as many on their way."""


@dataclass(frozen=True)
class Workers:
    """Who does the work."""

    processes: int
    """Processes that keep rows."""
    threads: int
    """Blocks at work at once in each of them."""


@dataclass(frozen=True)
class Memory:
    """Memory of a worker at the point where it needs most, in bytes."""

    libraries: int
    """What the process takes before it reads."""
    labels: int
    """Large labels of dimensions that a selection looked up."""
    kept: int
    """Rows that stay between passes."""
    at_work: int
    """Blocks that threads work on: encoded, decoded, prepared, with what the model makes of them."""
    statistics: int
    """Sums of finished blocks that wait for their neighbours; the covariance of pass 0 among them."""
    sample: int
    """Row sample of pass 0, while parts of it become one."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.libraries + self.labels + self.kept + self.at_work + self.statistics + self.sample


@dataclass(frozen=True)
class Forecast:
    """Estimates; exact is only what `Inspection` tells. Seconds are None where nothing could be computed."""

    probed_blocks: int
    masked_share: float
    """Share of masked cells in the blocks probed."""
    n_components: int | None
    """Features of prepared rows; None where nothing is prepared."""
    rows_bytes: int
    """Size of all rows as they are kept, in bytes."""
    kept_share: float
    """Share of them that stays in memory."""
    scratch_share: float
    """Share of them that has room on local scratch."""
    scratch_bytes: int | None
    """Room on local scratch, in bytes; None without."""
    memory: Memory
    memory_bytes: int
    """Memory of a worker, in bytes."""
    read_seconds: float
    """One read of the whole source."""
    first_seconds: float | None
    """Pass 0, and what else goes over all rows before the loop; the starts that compete on the row sample are not in
    it."""
    kept_seconds: float | None
    """A pass, were all rows at hand."""
    reread_seconds: float | None
    """A pass, were no row at hand."""
    pass_seconds: float | None
    """A pass as it will be."""
    most_passes: int
    """Passes at most; how many it takes to converge is not known."""
    label_seconds: float | None
    first_reads: float
    """Reads of the source before the loop."""
    label_reads: float
    """Reads of the source for the labels."""
    failure: str = ""
    """Why nothing could be computed, in words."""

    @property
    def reread_share(self) -> float:
        """Share of the rows that every pass reads again."""
        return max(0.0, 1.0 - self.kept_share - self.scratch_share)


def forecast(
    source: Source,
    plan: Plan,
    inspection: Inspection,
    probed: Probe,
    options: Options,
    workers: Workers,
    *,
    memory: int,
    scratch: str | None = None,
    libraries: int | None = None,
) -> Forecast:
    """Put together what is known exactly and what a probe saw.

    Parameters
    ----------
    memory
        Budget of a worker, in bytes.
    scratch
        Folder for rows beyond that.
    libraries
        Memory of a process that has read nothing yet, in bytes; that of this process where None.
    """
    computed, share = probed.computed, probed.rows / probed.cells
    rows = inspection.cells * share
    drawn = rows * options.fraction
    kept_row = probed.kept_row_bytes if computed is None or computed.kept_row_bytes is None else computed.kept_row_bytes
    rows_bytes = drawn * kept_row
    each = rows_bytes / workers.processes
    kept = min(each, room_to_keep(source, memory))
    kept_share = _share(kept, each)
    space = None if scratch is None else int(_free(scratch) * SCRATCH_SHARE)
    scratch_share = 0.0 if space is None else min(1.0 - kept_share, _share(space / workers.processes, each))
    reread = max(0.0, 1.0 - kept_share - scratch_share)
    needed = _memory(source, plan, probed, options, workers, int(kept), reread, libraries)
    hands = min(workers.processes * workers.threads, len(plan))
    read = probed.read_seconds * inspection.cells / hands
    missed = reread
    if not inspection.same_blocks or options.fraction < 1.0:
        # Other blocks than those that are kept.
        missed = (inspection.label_stored_bytes or 1) / (inspection.stored_bytes or inspection.label_stored_bytes or 1)
    begin = again = first = full = label = None
    before = 1.0
    if computed is not None:
        first = computed.iteration.seconds * drawn / hands
        again, full = first + reread * read, first + read
        begin = read + computed.survey.seconds * drawn / hands + computed.start_passes * again
        before += computed.start_passes * reread
        label = computed.label.seconds * rows / hands + missed * read
    return Forecast(
        probed_blocks=probed.blocks,
        masked_share=1.0 - share,
        n_components=None if computed is None else computed.n_components,
        rows_bytes=int(rows_bytes),
        kept_share=kept_share,
        scratch_share=scratch_share,
        scratch_bytes=space,
        memory=needed,
        memory_bytes=needed.total,
        read_seconds=read,
        first_seconds=begin,
        kept_seconds=first,
        reread_seconds=full,
        pass_seconds=again,
        most_passes=options.rule.max_iterations,
        label_seconds=label,
        first_reads=before,
        label_reads=missed,
        failure=probed.failure,
    )


def _share(room: float, wanted: float) -> float:
    return 1.0 if room >= wanted else room / wanted


def _memory(
    source: Source,
    plan: Plan,
    probed: Probe,
    options: Options,
    workers: Workers,
    kept: int,
    reread: float,
    libraries: int | None,
) -> Memory:
    cells = math.prod(plan.longest)
    threads = min(workers.threads, len(plan))
    labels = sum(source.held_labels.values())
    # The process that is looked at holds them already.
    base = max(0, (resident_memory() if libraries is None else libraries) - labels)
    encoded = _decoding_memory(source)
    if probed.computed is None:
        return Memory(base, labels, kept, threads * int(probed.read_work * cells + encoded), 0, 0)
    tasks = min(len(plan), TASKS_PER_THREAD * workers.processes * workers.threads)
    levels = math.ceil(math.log2(-(-len(plan) // tasks))) + 1
    nodes = threads * levels + -(-tasks // workers.processes)
    m = min(sample_limit(source, options), int(plan.cells * options.fraction))
    sample = m * (source.row_bytes + 24)
    # Rows of a block that are kept are counted there already.
    packed = probed.kept_row_bytes
    ahead = packed if reread else 0.0

    def at_work(stage: ProbedStage, *, reading: float) -> int:
        one = max(probed.read_work, packed + stage.work) if reading else stage.work
        return threads * int(cells * (one + ahead) + (encoded if reading else 0))

    computed = probed.computed
    stages = (
        Memory(base, labels, kept, at_work(computed.survey, reading=1.0), nodes * computed.survey.node,
               min(_MERGE * threads, _TRAVELLING) * sample),
        Memory(base, labels, kept, at_work(computed.iteration, reading=reread), nodes * computed.iteration.node,
               sample),
        Memory(base, labels, kept, at_work(computed.label, reading=reread), nodes * computed.label.node, sample),
    )  # fmt: skip
    return max(stages, key=lambda stage: stage.total)


def _decoding_memory(source: Source) -> int:
    """Memory that decoding takes in a thread beyond what numpy knows of: a chunk, decoded and as stored; in bytes."""
    sizes = [0]
    for name, stored in source.stored.items():
        if stored.fast is not stored.array:
            listing = source.listings.get(name)
            size = 0 if listing is None else listing.size // max(1, len(listing.chunks))
            sizes.append(math.prod(stored.array.chunks) * stored.array.dtype.itemsize + size)
    return max(sizes)


def _free(scratch: str) -> int:
    """Free space on the disk of a folder, which need not be there yet, in bytes."""
    above = Path(scratch).absolute()
    while not above.exists():
        above = above.parent
    return shutil.disk_usage(above).free


def resident_memory() -> int:
    """Memory of this process, in bytes; its peak where the system tells no other."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
