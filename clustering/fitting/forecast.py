"""Forecast of a job: memory of a worker and seconds of its passes, estimated from a probe before the job runs."""

from __future__ import annotations

import math
import os
import resource
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clustering.data.inspection import Inspection
from clustering.data.plan import Plan
from clustering.data.source import Source
from clustering.execution.block_cache import SCRATCH_SHARE
from clustering.execution.map_reduce import FAN_IN, most_tasks
from clustering.execution.passes import room_to_keep
from clustering.fitting.drift_budget import share_with_room
from clustering.fitting.options import Options
from clustering.fitting.probe import Probe, ProbedStage
from clustering.fitting.survey_pass import sample_limit

_MERGE = 4
"""Copies of a full row sample in memory while two samples merge: both, the merged one, and its arrays in the making."""
_TRAVELLING = 6
"""Upper limit of such copies over all threads. Pass 0 sends about three rows for each row that the sample keeps, and
they exist twice while they merge."""


@dataclass(frozen=True)
class Workers:
    """Number of worker processes, and of threads in each."""

    processes: int
    """Number of processes. Each keeps its share of the rows between passes."""
    threads: int
    """Number of threads of a process. Each works on one block at a time."""


@dataclass(frozen=True)
class Memory:
    """Memory of a worker in the stage that needs most, in bytes."""

    libraries: int
    """Memory of the process before it reads anything."""
    labels: int
    """Large coordinates that a selection read into memory."""
    kept: int
    """Rows that stay in memory between passes."""
    at_work: int
    """Blocks that threads work on: encoded, decoded and prepared, with the temporary arrays of the model."""
    statistics: int
    """Statistics of finished blocks that wait in the tree to be added; the covariance of pass 0 among them."""
    sample: int
    """Row sample of pass 0, while its parts merge."""

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return self.libraries + self.labels + self.kept + self.at_work + self.statistics + self.sample


@dataclass(frozen=True)
class Forecast:
    """Estimates of memory and time. Exact numbers are in `Inspection`. Seconds are None where the probe had no rows."""

    probed_blocks: int
    masked_share: float
    """Share of masked cells in the probed blocks."""
    n_components: int | None
    """Number of components of prepared rows; None where nothing is prepared."""
    rows_bytes: int
    """Size of all rows as they are kept, in bytes."""
    kept_share: float
    """Share of the rows that stays in memory between passes."""
    scratch_share: float
    """Share of the rows that stays on local scratch."""
    scratch_bytes: int | None
    """Room on local scratch, in bytes; None where no scratch is set."""
    memory: Memory
    memory_bytes: int
    """Memory of a worker, in bytes."""
    read_seconds: float
    """Seconds of one read of the whole source."""
    first_seconds: float | None
    """Seconds of pass 0 and of any further pass before the loop. Restarts on the row sample are not included."""
    kept_seconds: float | None
    """Seconds of a pass, if all rows were kept."""
    reread_seconds: float | None
    """Seconds of a pass, if every row were read again."""
    pass_seconds: float | None
    """Seconds of a pass over all rows, with the expected shares of kept and reread rows."""
    most_passes: int
    """Largest number of passes that the stopping rule allows. The number to convergence cannot be forecast."""
    label_seconds: float | None
    first_reads: float
    """Number of full reads of the source before the loop."""
    fit_reads: tuple[float, float]
    """Smallest and largest number of full reads of the source by the passes of the loop, if it makes `most_passes`."""
    near_share: float | None
    """Share of the rows near a boundary between clusters, which passes of k-means go over alone until centers have
    moved too far (`clustering.fitting.drift_budget`); None where every pass goes over all rows."""
    near_seconds: float | None
    """Seconds of a pass over the rows near a boundary alone; None where there are no such passes."""
    label_reads: float
    """Number of full reads of the source by the label pass."""
    residency: Mapping[str, int]
    """Bytes of the rows of all workers in ``memory`` and on ``scratch`` between passes, and the decoded size of those
    that stay in the ``source`` alone; as in ``run.json``."""
    failure: str = ""
    """Why the probe could compute nothing, in words; empty where it could."""

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
    scratch: str | os.PathLike[str] | None = None,
    libraries: int | None = None,
) -> Forecast:
    """Estimate memory and time of a job from its layout and a probe.

    Parameters
    ----------
    source
        Data of the job.
    plan
        Blocks of the passes.
    inspection
        Layout of the source, and the bytes of a pass.
    probed
        Times and sizes that a probe measured.
    options
        How to fit.
    workers
        Number of processes and threads.
    memory
        Memory budget of a worker, in bytes.
    scratch
        Folder on a local disk for rows beyond that budget; None for no such folder.
    libraries
        Memory of a process that has read nothing yet, in bytes; that of this process where None.
    """
    computed, share = probed.computed, probed.rows / probed.cells
    rows = inspection.cells * share
    # The passes go over a fraction of the rows, but the labels are for all of them.
    drawn = rows * options.fit.fraction
    kept_row = probed.kept_row_bytes if computed is None or computed.kept_row_bytes is None else computed.kept_row_bytes
    rows_bytes = drawn * kept_row
    each = rows_bytes / workers.processes
    kept = min(each, room_to_keep(source, memory))
    kept_share = _share(kept, each)
    space = None if scratch is None else int(_free(scratch) * SCRATCH_SHARE)
    scratch_share = 0.0 if space is None else min(1.0 - kept_share, _share(space / workers.processes, each))
    reread = max(0.0, 1.0 - kept_share - scratch_share)
    needed = _memory(source, plan, probed, options, workers, int(kept), reread, libraries)
    # Threads beyond the number of blocks have no work.
    hands = min(workers.processes * workers.threads, len(plan))
    read = probed.read_seconds * inspection.cells / hands
    near = None
    if computed is not None and computed.has_margins and options.fit.accelerate == "auto":
        # Several finalists each need rows of their own, so only the last one left is accelerated.
        near = share_with_room(room_to_keep(source, memory), int(drawn), kept_row, weighted=source.weights is not None)
    # Rows near a boundary take the memory of all others. What is on scratch stays there.
    full = reread if near is None else 1.0 - scratch_share
    # The label pass finds its rows in the block cache where its blocks are those of the fit.
    missed = full
    if not inspection.same_blocks or options.fit.fraction < 1.0:
        # The block cache holds other blocks, or only the drawn rows, so the label pass reads everything again.
        missed = (inspection.label_stored_bytes or 1) / (inspection.stored_bytes or inspection.label_stored_bytes or 1)
    begin = again = first = whole = label = near_pass = None
    before = 1.0
    if computed is not None:
        first = computed.iteration.seconds * drawn / hands
        again, whole = first + full * read, first + read
        begin = read + computed.survey.seconds * drawn / hands + computed.start_passes * (first + reread * read)
        near_pass = None if near is None else near * first
        before += computed.start_passes * reread
        label = computed.label.seconds * rows / hands + missed * read
    most = options.rule.max_iterations
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
        reread_seconds=whole,
        pass_seconds=again,
        most_passes=most,
        label_seconds=label,
        first_reads=before,
        fit_reads=(full * (most if near is None else min(1, most)), full * most),
        near_share=near,
        near_seconds=near_pass,
        label_reads=missed,
        residency={
            "memory": int(kept * workers.processes),
            "scratch": int(scratch_share * rows_bytes),
            "source": int(reread * inspection.pass_bytes),
        },
        failure=probed.failure,
    )


def _share(room: float, wanted: float) -> float:
    """Return the share of the wanted bytes that has room, 0 to 1."""
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
    """Estimate the memory of pass 0, of an iteration and of the label pass, and return the largest."""
    cells = math.prod(plan.longest)
    threads = min(workers.threads, len(plan))
    labels = sum(source.held_labels.values())
    # This process opened the source, so its memory includes the labels. They are counted on their own.
    base = max(0, (resident_memory() if libraries is None else libraries) - labels)
    encoded = _decoding_memory(source)
    if probed.computed is None:
        return Memory(base, labels, kept, threads * int(probed.read_work * cells + encoded), 0, 0)
    tasks = most_tasks(len(plan), workers.processes * workers.threads)
    # A task holds one partial sum for each level of its part of the tree. Finished tasks wait beside them.
    levels = math.ceil(math.log2(-(-len(plan) // tasks))) + 1
    nodes = threads * levels + -(-tasks // workers.processes)
    if workers.processes > 1:
        # A task that adds up nodes of other workers holds all of them.
        nodes += threads * FAN_IN
    m = min(sample_limit(source, options), int(plan.cells * options.fit.fraction))
    sample = m * (source.row_bytes + 24)
    # While rows are reread, a thread also prefetches the next block. Kept rows are counted in `kept` already.
    packed = probed.kept_row_bytes
    ahead = packed if reread else 0.0

    def at_work(stage: ProbedStage, *, reading: float) -> int:
        # The peak is either at the read of a block, or at the work on its rows.
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
    # Stages follow one another, so the largest decides alone.
    return max(stages, key=lambda stage: stage.total)


def _decoding_memory(source: Source) -> int:
    """Estimate the memory in bytes that decoding in Rust takes in a thread: one chunk, decoded and as stored.

    The probe traces allocations of Python and numpy, and does not see this memory.
    """
    sizes = [0]
    for name, stored in source.stored.items():
        if stored.fast is not stored.array:
            listing = source.listings.get(name)
            size = 0 if listing is None else listing.size // max(1, len(listing.chunks))
            sizes.append(math.prod(stored.array.chunks) * stored.array.dtype.itemsize + size)
    return max(sizes)


def _free(scratch: str | os.PathLike[str]) -> int:
    """Return the free space in bytes on the disk of a folder, which need not exist yet."""
    above = Path(scratch).absolute()
    while not above.exists():
        above = above.parent
    return shutil.disk_usage(above).free


def resident_memory() -> int:
    """Return the resident memory of this process in bytes; its peak on systems without ``/proc``."""
    # The peak also counts memory that is free again, so the present size is preferred.
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
