"""The block cache: decoded rows stay in memory, then on local scratch, up to a budget each.

Every process has its own cache. A block that does not fit is read and decoded again in each pass.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.data.plan import Plan
from clustering.data.reading import read_block
from clustering.data.rows import Rows
from clustering.data.source import Source
from clustering.errors import ExecutionError, OutputError
from clustering.execution.fraction import RowFraction

logger = logging.getLogger(__name__)

SCRATCH_SHARE = 0.8
"""Share of the free scratch space that may be used, because other programs use the disk too."""


@dataclass(frozen=True)
class BlockCache:
    """Limits of the block cache of a run, in each process; picklable."""

    session: str
    """Unique name of the run; two runs never share a cache."""
    memory: int
    """Budget for decoded rows in memory, in bytes."""
    scratch: str | None = None
    """Folder on a local disk for decoded rows that do not fit into memory; None for none."""


class CachedBytes(NamedTuple):
    """Size of the rows that a process caches, in bytes."""

    memory: int = 0
    """Rows in memory."""
    scratch: int = 0
    """Rows on the local disk."""
    decoded: int = 0
    """Decoded size of their blocks, which is what a read would cost."""


class _ProcessCache:
    """The cached blocks of one run in this process."""

    def __init__(self, limits: BlockCache) -> None:
        self.lock = Lock()
        self.memory_left = limits.memory
        self.in_memory: dict[int, Rows] = {}
        self.scratch = limits.scratch
        self.scratch_left = 0
        if self.scratch is not None:
            try:
                Path(self.scratch).mkdir(parents=True, exist_ok=True)
                # Only a file shows that the folder can be written to.
                with tempfile.TemporaryFile(dir=self.scratch):
                    self.scratch_left = int(shutil.disk_usage(self.scratch).free * SCRATCH_SHARE)
            except OSError as error:
                raise OutputError(
                    f"cannot write to the scratch folder {self.scratch!r}: {error.strerror}; name another folder"
                ) from error
        self.on_disk: dict[int, Rows] = {}
        self.decoded: dict[int, int] = {}

    def sizes(self) -> CachedBytes:
        with self.lock:
            memory = sum(rows.nbytes for rows in self.in_memory.values())
            scratch = sum(rows.nbytes for rows in self.on_disk.values())
            decoded = sum(self.decoded[index] for index in chain(self.in_memory, self.on_disk))
        return CachedBytes(memory, scratch, decoded)

    def get(self, index: int) -> Rows | None:
        rows = self.in_memory.get(index)
        return self.on_disk.get(index) if rows is None else rows

    def drop(self, index: int) -> None:
        with self.lock:
            if index in self.in_memory:
                self.memory_left += self.in_memory.pop(index).nbytes
            elif index in self.on_disk:
                self.scratch_left += self.on_disk.pop(index).nbytes

    def give_up_memory(self) -> None:
        with self.lock:
            blocks, self.in_memory, self.memory_left = self.in_memory, {}, 0
        # Without room in memory, they go to scratch.
        while blocks:
            self.put(*blocks.popitem())

    def put(self, index: int, rows: Rows) -> None:
        size = rows.nbytes
        with self.lock:
            if index in self.in_memory or index in self.on_disk:
                return
            if size <= self.memory_left:
                self.memory_left -= size
                self.in_memory[index] = rows
                return
            if self.scratch is None or size > self.scratch_left:
                return
            # The room is reserved under the lock, and the slow writing is done without it.
            self.scratch_left -= size
        try:
            mapped = replace(
                rows,
                values=self._map(rows.values),
                # Weights that are all 1 have stride 0 and take no memory, so they need no file.
                weights=self._map(rows.weights) if any(rows.weights.strides) else rows.weights,
                cells=None if rows.cells is None else self._map(rows.cells),
            )
        except OSError as error:
            # The disk had less room than it reported, because others wrote to it.
            logger.warning("scratch %r: %s; further blocks are read again in every pass", self.scratch, error.strerror)
            self.scratch_left = 0
            return
        with self.lock:
            self.on_disk[index] = mapped

    def _map(self, array: NDArray[Any]) -> NDArray[Any]:
        """Write an array to an unnamed file, which disappears with the process, and map it into memory."""
        if not array.size:
            return array
        with tempfile.TemporaryFile(dir=self.scratch) as file:
            file.write(np.ascontiguousarray(array).view(np.uint8).data)
            file.flush()
            # The mapping stays valid after the file is closed.
            return np.memmap(file, array.dtype, "r", shape=array.shape)


_caches: dict[str, _ProcessCache] = {}
_closed: set[str] = set()
_lock = Lock()


def get_or_read(
    source: Source,
    plan: Plan,
    index: int,
    cache: BlockCache,
    fraction: RowFraction | None = None,
    *,
    keep: bool = True,
) -> tuple[Rows, int]:
    """Return the rows of a block from the cache, or read them.

    Parameters
    ----------
    source
        Source of the rows.
    plan
        Plan of the pass.
    index
        Number of the block in the plan.
    cache
        Limits of the cache, and the name of the run.
    fraction
        Rows that take part; only these are cached. None: all.
    keep
        Whether to cache the rows as they were read; False where prepared rows will be cached, see `replace_cached`.

    Returns
    -------
    Rows
        The rows of the block.
    int
        Bytes decoded from the source; 0 where the block was cached.

    Raises
    ------
    ExecutionError
        If the run has ended meanwhile, for example by an error: a task that still runs stops here.
    """
    local = _process_cache(cache)
    rows = local.get(index)
    if rows is not None:
        return rows, 0
    block = plan.block(index)
    # Stored integers take less memory than decoded floats, so more blocks fit. Decoding anew costs less than a read.
    rows = read_block(source, block, packed=True)
    if fraction is not None:
        rows = fraction.select(rows)
    # The whole block was decoded, also its masked cells and the rows that were not drawn.
    size = local.decoded[index] = int(np.prod(block.shape)) * plan.row_bytes
    if keep:
        local.put(index, rows)
    return rows, size


def is_cached(cache: BlockCache, index: int) -> bool:
    """Return whether the rows of a block are cached in this process.

    Parameters
    ----------
    cache
        Limits of the cache, and the name of the run.
    index
        Number of the block in the plan.
    """
    return _process_cache(cache).get(index) is not None


def cached_run(cache: BlockCache, run: range) -> list[Rows] | None:
    """Return the cached rows of a run of blocks; None unless all of them are cached in this process.

    Parameters
    ----------
    cache
        Limits of the cache, and the name of the run.
    run
        Numbers of the blocks in the plan.
    """
    local = _process_cache(cache)
    blocks = []
    for index in run:
        rows = local.get(index)
        if rows is None:
            return None
        blocks.append(rows)
    return blocks


def replace_cached(cache: BlockCache, index: int, rows: Rows) -> None:
    """Replace the cached rows of a block, if there is room for the new ones.

    Parameters
    ----------
    cache
        Limits of the cache, and the name of the run.
    index
        Number of the block in the plan.
    rows
        Rows to cache, such as prepared rows.
    """
    local = _process_cache(cache)
    local.drop(index)
    local.put(index, rows)


def cached(cache: BlockCache, index: int) -> Rows | None:
    """Return the cached rows of a block; None where they are not cached in this process.

    Parameters
    ----------
    cache
        Limits of the cache, and the name of the run.
    index
        Number of the block in the plan.
    """
    return _process_cache(cache).get(index)


def give_up_memory(session: str) -> None:
    """Move the blocks of a run that are in memory in this process to scratch, or drop them, and keep no others there.

    Parameters
    ----------
    session
        Name of the run.
    """
    with _lock:
        local = _caches.get(session)
    if local is not None:
        local.give_up_memory()


def cached_bytes(session: str) -> CachedBytes:
    """Return the size of the rows that this process caches.

    Parameters
    ----------
    session
        Name of the run.
    """
    with _lock:
        local = _caches.get(session)
    return CachedBytes() if local is None else local.sizes()


def drop_blocks(session: str, runs: Iterable[range]) -> None:
    """Drop the rows of runs of blocks in this process, if it caches any.

    Parameters
    ----------
    session
        Name of the run.
    runs
        Numbers of the blocks in the plan.
    """
    with _lock:
        local = _caches.get(session)
    if local is not None:
        for index in chain.from_iterable(runs):
            local.drop(index)


def _process_cache(cache: BlockCache) -> _ProcessCache:
    """Return the cache of a run in this process; it is made at the first use."""
    with _lock:
        if cache.session in _closed:
            raise ExecutionError("the passes that this task belongs to have ended")
        local = _caches.get(cache.session)
        if local is None:
            local = _caches[cache.session] = _ProcessCache(cache)
        return local


def release(session: str) -> None:
    """Drop the cache of a run in this process.

    Parameters
    ----------
    session
        Name of the run.
    """
    with _lock:
        # Tasks that still run must not fill a new cache that nobody would drop.
        _closed.add(session)
        _caches.pop(session, None)
