"""Passes over the rows: one read of all blocks serves several candidates."""

from __future__ import annotations

import math
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from typing import Any, Protocol, TypeVar

from clustering.data.plan import MIB, Plan
from clustering.data.preparation import Preparation
from clustering.data.rows import Rows
from clustering.data.source import Source
from clustering.errors import DataError, DomainError, at_work
from clustering.execution.apart import merged, statistics_of
from clustering.execution.block_cache import (
    BlockCache,
    cached,
    cached_run,
    get_or_read,
    is_cached,
    release,
    replace_cached,
)
from clustering.execution.engine import Engine
from clustering.execution.fraction import RowFraction
from clustering.execution.held_out import HeldOut, empty_rows
from clustering.execution.homes import Homes
from clustering.execution.map_reduce import map_reduce
from clustering.execution.near_rows import NearRows
from clustering.execution.progress import ProgressReporter, progress_reporter
from clustering.execution.residency import Residency, measure_residency
from clustering.models.run_statistics import RunStatistics

MEMORY_SHARE = 2
"""One part in this many of a worker's memory is for the block cache; the rest is for blocks at work."""

LONGEST_CALL = 1e10
"""Operations of a compiled call at most: it takes about a second, in which nothing can interrupt it or see it go on."""

Statistics = Callable[[Rows], Any]
T = TypeVar("T")


class BlockRecords(Protocol):
    """Statistics of finished blocks that survive a killed pass; picklable."""

    def load(self, index: int) -> tuple[Any, ...] | None:
        """Return the statistics of a finished block; None where it is not finished.

        Parameters
        ----------
        index
            Number of the block in the plan.

        Returns
        -------
        tuple or None
            Statistics of each candidate.
        """

    def save(self, index: int, statistics: tuple[Any, ...]) -> None:
        """Keep the statistics of a block; called after all other outputs of the block are written.

        Parameters
        ----------
        index
            Number of the block in the plan.
        statistics
            Statistics of each candidate.
        """


@dataclass(frozen=True)
class ReadStats:
    """How much a pass read; ``a + b`` is the sum over two parts."""

    blocks: int = 0
    """Number of blocks read from the source."""
    bytes: int = 0
    """Decoded size of the blocks that were read, in bytes."""
    bad: tuple[str, ...] = ()
    """Names of bad chunks, sorted."""

    def __add__(self, other: ReadStats) -> ReadStats:
        bad = tuple(sorted({*self.bad, *other.bad})) if other.bad else self.bad
        return ReadStats(self.blocks + other.blocks, self.bytes + other.bytes, bad)


@dataclass(frozen=True)
class _PassSums:
    """Statistics of every candidate, with how much was read for them."""

    statistics: tuple[Any, ...]
    read_stats: ReadStats
    blocks: int = 1
    """Number of blocks that the statistics are of."""
    uncached: tuple[int, ...] = ()
    """First block of each run of which no row could be cached."""

    @property
    def read(self) -> int:
        return self.read_stats.bytes

    def __add__(self, other: _PassSums) -> _PassSums:
        sums = tuple(merged(a, b) for a, b in zip(self.statistics, other.statistics, strict=True))
        uncached = self.uncached + other.uncached
        return _PassSums(sums, self.read_stats + other.read_stats, self.blocks + other.blocks, uncached)


@dataclass(frozen=True)
class PassResult:
    """Result of a pass."""

    statistics: tuple[Any, ...]
    """Statistics of each candidate over all rows."""
    read_stats: ReadStats
    seconds: float


@dataclass(frozen=True)
class PassRunner:
    """Runs passes over the same rows."""

    source: Source
    plan: Plan
    engine: Engine
    cache: BlockCache
    fraction: RowFraction | None = None
    """Rows that take part; None: all."""
    preparation: Preparation | None = None
    """Map from decoded to prepared rows; None: rows are used as decoded."""
    held_out: HeldOut | None = None
    """Held-out blocks, which are not read and of which no row takes part; None: there are none."""
    near: NearRows | None = None
    """Rows near a boundary, if they alone take part. None: all."""
    homes: Homes | None = None
    """Homes of the runs on a cluster; None: any worker takes any run."""

    @property
    def keeps_prepared(self) -> bool:
        """Whether prepared rows are cached, which saves preparing them again: where they take no more memory."""
        preparation = self.preparation
        # Where rows are prepared once only, no later pass would use the prepared rows.
        if preparation is None or preparation.once:
            return False
        return preparation.row_bytes <= self.source.kept_row_bytes

    @property
    def kept_row_bytes(self) -> int:
        """Size of one row as it is cached, in bytes."""
        kept = self.source.kept_row_bytes
        return kept if self.preparation is None or not self.keeps_prepared else self.preparation.row_bytes

    def run(
        self, candidates: Sequence[Statistics], records: BlockRecords | None = None, *, apart: bool = False
    ) -> PassResult:
        """Read each block once and add up the statistics of all candidates.

        Parameters
        ----------
        candidates
            For each candidate, a function that makes its statistics from the rows of a block; picklable.
        records
            Block records of an earlier attempt at this pass: its finished blocks are not read again.
        apart
            Whether a candidate that cannot use the rows leaves the others alone.

        Returns
        -------
        PassResult
            Statistics in the order of `candidates`; where `apart`, `clustering.execution.apart.Failed` for one that
            cannot use the rows.

        Raises
        ------
        DataError
            If the rows hold values that a candidate cannot use, unless `apart`.
        """
        return self._run(tuple(candidates), records, apart=apart)

    def split(self) -> PassResult:
        """Read each block once, split its rows, and cache those near a boundary for the passes over them alone.

        Returns
        -------
        PassResult
            The statistics that the split makes of all rows.
        """
        return self._run((), splits=True)

    def _run(
        self,
        candidates: tuple[Statistics, ...],
        records: BlockRecords | None = None,
        *,
        splits: bool = False,
        apart: bool = False,
    ) -> PassResult:
        started = time.perf_counter()
        work = _Work(
            self.source, self.plan, self.cache, candidates, records, self.fraction, self.preparation, self.held_out,
            self.keeps_prepared, self.near, splits, progress_reporter(self.engine, len(self.plan)), apart,
        )  # fmt: skip
        if self.homes is not None:
            near = () if self.near is None else (self.near.cache.session,)
            self.homes.prepare(self.preparation, (self.cache.session, *near))
        sums = map_reduce(work, len(self.plan), self.engine, self.homes)
        if self.homes is not None:
            self.homes.release(sums.uncached)
        # Only the whole pass knows all bad chunks, and the limits of the source are about all of them.
        self.source.check_bad(sums.read_stats.bad)
        return PassResult(sums.statistics, sums.read_stats, time.perf_counter() - started)

    @property
    def residency(self) -> Residency:
        """Where the rows live now: in memory, on scratch, or in the source alone; without copies of near rows."""
        return measure_residency(self.engine, self.plan, self.cache.session)


@dataclass(frozen=True)
class _Work:
    """The work on the blocks of a pass; picklable."""

    source: Source
    plan: Plan
    cache: BlockCache
    candidates: tuple[Statistics, ...]
    records: BlockRecords | None
    fraction: RowFraction | None
    preparation: Preparation | None
    held_out: HeldOut | None
    keeps_prepared: bool
    near: NearRows | None
    splits: bool
    """Whether the pass goes over all rows to find the near ones; otherwise over these alone, if there are any."""
    reporter: ProgressReporter | None
    apart: bool
    """Whether a candidate that cannot use the rows leaves the others alone."""
    keep: bool = True
    """Whether rows that are read are cached."""

    def __call__(self, run: range, *, keep: bool = True) -> Iterator[_PassSums]:
        """Yield the statistics of a run of blocks, in order; of many at once where all rows of the run are cached."""
        return self._sums_of(run) if keep else replace(self, keep=False)._sums_of(run)

    def _sums_of(self, run: range) -> Iterator[_PassSums]:
        of_runs = [candidate for candidate in self.candidates if isinstance(candidate, RunStatistics)]
        at_once = len(of_runs) == len(self.candidates) and self.records is None and not self.splits
        sums = self._run_sums(run, of_runs) if at_once and self._is_ready(run) else self._block_sums(run)
        return sums if self.reporter is None else self.reporter.of_blocks(sums)

    @property
    def _used_cache(self) -> BlockCache:
        """The cache of the rows that take part."""
        return self.cache if self.near is None or self.splits else self.near.cache

    @property
    def _filled_cache(self) -> BlockCache:
        """The cache of the rows that the next pass goes over."""
        return self.cache if self.near is None else self.near.cache

    def _is_ready(self, run: range) -> bool:
        """Return whether all rows of a run are cached as the candidates take them."""
        prepared = self.preparation is not None
        blocks = cached_run(self._used_cache, run)
        return blocks is not None and all(rows.packing is None and rows.prepared == prepared for rows in blocks)

    def _run_sums(self, run: range, of_runs: Sequence[RunStatistics[Any]]) -> Iterator[_PassSums]:
        """Make the statistics of a run of cached blocks in a few calls for each candidate."""
        operations = math.prod(self.plan.longest) * sum(candidate.row_operations for candidate in of_runs)
        # Equal powers of two are nodes of the tree, so the sums do not depend on the length of a call.
        length = 1 << int(math.log2(max(1.0, min(len(run), LONGEST_CALL / operations))))
        for start in range(0, len(run), length):
            part = run[start : start + length]
            # The cache is asked once more, because it ends with its pass; until then no block leaves it.
            blocks = cached_run(self._used_cache, part)
            assert blocks is not None
            bad = tuple(sorted({name for rows in blocks for name in rows.bad_chunks}))
            try:
                with at_work(f"blocks {part[0]} to {part[-1]}"):
                    statistics = tuple(candidate.of_run(blocks) for candidate in of_runs)
            except DomainError:
                # One block after the other, the error names its block.
                yield from self._block_sums(part)
                continue
            yield _PassSums(statistics, ReadStats(bad=bad), len(part))

    def _block_sums(self, run: range) -> Iterator[_PassSums]:
        for index, prepared in zip(run, read_ahead(self._load_block, run, self._needs_reading), strict=True):
            if isinstance(prepared, _PassSums):
                sums = prepared
            else:
                with at_work(f"block {self.plan.block(index)}"):
                    sums = self._sums(index, *prepared)
            if index == run[-1] and self.keep and not any(is_cached(self._filled_cache, i) for i in run):
                sums = replace(sums, uncached=(run.start,))
            yield sums

    def _needs_reading(self, index: int) -> bool:
        return not is_cached(self._used_cache, index)

    def _load_block(self, index: int) -> _PassSums | tuple[Rows, int]:
        """Return the cached or read rows of a block and the bytes read; or the statistics that its record holds."""
        if self.records is not None and (recorded := self.records.load(index)) is not None:
            return _PassSums(recorded, ReadStats())
        block = self.plan.block(index)
        if self.held_out is not None and self.held_out.contains(block.start):
            return empty_rows(self.source, block), 0
        if self.near is not None and not self.splits:
            return self._load_near(self.near, index)
        with at_work(f"block {block}"):
            # Only one form of the rows is cached, because both would take twice the memory.
            return self._read(index)

    def _read(self, index: int) -> tuple[Rows, int]:
        """Return all rows of a block, cached or read, and the bytes read."""
        keep = self.keep and not self.keeps_prepared
        return get_or_read(self.source, self.plan, index, self.cache, self.fraction, keep=keep)

    def _load_near(self, near: NearRows, index: int) -> tuple[Rows, int]:
        """Return the near rows of a block, cached or split again, and the bytes read."""
        rows = cached(near.cache, index)
        if rows is not None:
            return rows, 0
        with at_work(f"block {self.plan.block(index)}"):
            kept, size = self._read(index)
            prepared = self._prepare_rows(index, kept)
            split = near.split_block(index, self._kept_form(kept, prepared), prepared, keep=self.keep)
            return split[1], size

    def _kept_form(self, kept: Rows, prepared: Rows) -> Rows:
        """Return the rows of a block in the form in which they are cached."""
        return prepared if self.keeps_prepared else kept

    def _prepare_rows(self, index: int, kept: Rows) -> Rows:
        """Decode and prepare the rows of a block, unless they were cached as prepared rows."""
        rows = kept.decoded()
        if self.preparation is None or rows.prepared:
            return rows
        prepared = self.preparation.apply(rows)
        if len(prepared) < len(rows) and self.source.missing == "error":
            raise DataError(
                f"a row of zeros in block {self.plan.block(index)} has no direction, and preprocess.unit_norm asks for "
                "one; set source.missing to 'drop' to leave such rows out"
            )
        # Later passes find the rows of this block prepared.
        if self.keep and self.keeps_prepared:
            replace_cached(self.cache, index, prepared)
        return prepared

    def _sums(self, index: int, kept: Rows, size: int) -> _PassSums:
        """Make the statistics of a block for all candidates."""
        rows = self._prepare_rows(index, kept)
        if self.near is not None and self.splits:
            candidates: tuple[Statistics, ...] = (partial(self._split, self.near, index, self._kept_form(kept, rows)),)
        else:
            candidates = self.candidates
        statistics = tuple(self._statistics(candidate, index, rows) for candidate in candidates)
        if self.records is not None:
            # A record says that its block is done, so it comes after the outputs that candidates write.
            self.records.save(index, statistics)
        # A cached block has size 0, and was not read.
        return _PassSums(statistics, ReadStats(int(size > 0), size, rows.bad_chunks))

    def _statistics(self, candidate: Statistics, index: int, rows: Rows) -> Any:
        return statistics_of(candidate, rows, self.source.features, self.plan.block(index), apart=self.apart)

    def _split(self, near: NearRows, index: int, kept: Rows, rows: Rows) -> Any:
        return near.split_block(index, kept, rows, keep=self.keep)[0]


def read_ahead(read: Callable[[int], T], indices: Iterable[int], takes_time: Callable[[int], bool]) -> Iterator[T]:
    """Yield the results of reading blocks in order; each is read while the caller works on the one before.

    Parameters
    ----------
    read
        Reads the block of an index.
    indices
        Numbers of the blocks, in order.
    takes_time
        Returns whether a block must be read; a cached one is not worth a thread.
    """
    with ExitStack() as stack:
        thread: ThreadPoolExecutor | None = None
        coming: Future[T] | None = None
        # No more than one block is read ahead, because each of them waits in memory.
        order = list(indices)
        for index, following in zip_longest(order, order[1:]):
            now = read(index) if coming is None else coming.result()
            coming = None
            if following is not None and takes_time(following):
                if thread is None:
                    thread = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="clustering-read"))
                coming = thread.submit(read, following)
            yield now


def room_to_keep(source: Source, memory: int) -> int:
    """Return the part of a memory budget that the block cache may use, in bytes.

    Parameters
    ----------
    source
        Source, whose labels of a selection are held in memory too.
    memory
        Memory budget of a worker, in bytes.
    """
    return max(0, memory // MEMORY_SHARE - sum(source.held_labels.values()))


def labels_fault(source: Source, memory: int) -> str:
    """Say that the labels of a selection do not fit a memory budget; empty where they do.

    Parameters
    ----------
    source
        Source that may hold the labels of a selection in memory.
    memory
        Memory budget of a worker, in bytes.
    """
    held = source.held_labels
    size = sum(held.values())
    if size <= memory // MEMORY_SHARE:
        return ""
    return (
        f"the labels of {' and '.join(map(repr, held))}, which a selection by label holds in memory, take "
        f"{size / MIB:,.0f} MiB, over half of compute.memory: raise compute.memory, or select by position with 'isel'"
    )


@contextmanager
def pass_runner(
    source: Source,
    plan: Plan,
    engine: Engine,
    *,
    memory: int,
    scratch: str | os.PathLike[str] | None = None,
    keep: bool = True,
    fraction: RowFraction | None = None,
    preparation: Preparation | None = None,
) -> Iterator[PassRunner]:
    """Yield a pass runner, whose block cache lasts as long as the context.

    Parameters
    ----------
    source
        Source of the rows.
    plan
        Plan of the passes.
    engine
        Engine that runs the tasks.
    memory
        Memory budget of each worker, in bytes; at most half of it is for the block cache.
    scratch
        Folder on a local disk of each worker for rows that do not fit into memory; None for none.
    keep
        Whether rows are cached; False for a single pass, which needs no row twice.
    fraction
        Rows that take part; None: all.
    preparation
        Map from decoded to prepared rows; None: rows are used as decoded.

    Raises
    ------
    DataError
        If a single block, or the labels of a selection, do not fit the memory budget.
    """
    if plan.block_bytes > memory // MEMORY_SHARE:
        raise DataError(
            f"one block of whole chunks takes {plan.block_bytes:,} bytes and compute.memory is {memory:,} bytes; "
            "raise compute.memory to twice the block at least, or store the data in smaller chunks"
        )
    if labels := labels_fault(source, memory):
        raise DataError(labels)
    folder = None if scratch is None else os.fspath(scratch)
    cache = BlockCache(uuid.uuid4().hex, room_to_keep(source, memory) if keep else 0, folder if keep else None)
    try:
        homes = Homes(keep=keep)
        yield PassRunner(source, plan, engine, cache, fraction, preparation, homes=homes)
    finally:
        # Workers of a running cluster outlive this run, and would hold its rows for ever.
        engine.release(release, cache.session)
