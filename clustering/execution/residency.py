"""Which decoded blocks stay at hand between passes: in memory, then on local scratch, up to a budget each.

Every process keeps its own shelf. A block that is on no shelf is read and decoded again.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.plan import Plan
from clustering.data.rows import Rows
from clustering.data.source import Source
from clustering.errors import ExecutionError, OutputError
from clustering.execution.fraction import Fraction

logger = logging.getLogger(__name__)

SCRATCH_SHARE = 0.8
"""Share of the free scratch space that may be used."""


@dataclass(frozen=True)
class Residency:
    """What a run may keep, in each process."""

    session: str
    """Name of the run; two runs share nothing."""
    memory: int
    """Decoded rows kept in memory, in bytes."""
    scratch: str | None = None
    """Folder for decoded rows beyond that, on a local disk."""


class _Shelf:
    """The blocks of one run in this process."""

    def __init__(self, residency: Residency) -> None:
        self.lock = Lock()
        self.memory = residency.memory
        self.kept: dict[int, Rows] = {}
        self.scratch = residency.scratch
        self.space = 0
        if self.scratch is not None:
            try:
                Path(self.scratch).mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=self.scratch):
                    self.space = int(shutil.disk_usage(self.scratch).free * SCRATCH_SHARE)
            except OSError as error:
                raise OutputError(
                    f"cannot write to the scratch folder {self.scratch!r}: {error.strerror}; name another folder"
                ) from error
        self.filed: dict[int, Rows] = {}

    def find(self, index: int) -> Rows | None:
        rows = self.kept.get(index)
        return self.filed.get(index) if rows is None else rows

    def drop(self, index: int) -> None:
        with self.lock:
            if index in self.kept:
                self.memory += self.kept.pop(index).nbytes
            elif index in self.filed:
                self.space += self.filed.pop(index).nbytes

    def offer(self, index: int, rows: Rows) -> None:
        size = rows.nbytes
        with self.lock:
            if index in self.kept or index in self.filed:
                return
            if size <= self.memory:
                self.memory -= size
                self.kept[index] = rows
                return
            if self.scratch is None or size > self.space:
                return
            self.space -= size
        try:
            mapped = replace(
                rows,
                values=self._map(rows.values),
                weights=self._map(rows.weights) if any(rows.weights.strides) else rows.weights,
                kept=None if rows.kept is None else self._map(rows.kept),
            )
        except OSError as error:
            # The disk has less room than it said.
            logger.warning("scratch %r: %s; further blocks are read again in every pass", self.scratch, error.strerror)
            self.space = 0
            return
        with self.lock:
            self.filed[index] = mapped

    def _map(self, array: NDArray[Any]) -> NDArray[Any]:
        """Write an array as it is to a file without a name, which is gone with the process, and map it."""
        if not array.size:
            return array
        with tempfile.TemporaryFile(dir=self.scratch) as file:
            file.write(np.ascontiguousarray(array).view(np.uint8).data)
            file.flush()
            return np.memmap(file, array.dtype, "r", shape=array.shape)


_shelves: dict[str, _Shelf] = {}
_closed: set[str] = set()
_lock = Lock()


def rows_of(
    source: Source,
    plan: Plan,
    index: int,
    residency: Residency,
    fraction: Fraction | None = None,
    *,
    keep: bool = True,
) -> tuple[Rows, int]:
    """Find the rows of a block, or read them.

    Parameters
    ----------
    fraction
        Which rows take part; others are not kept either. None: all.
    keep
        False where something smaller will be kept in their place; see `keep_instead`.

    Returns
    -------
    Rows
        The rows of the block.
    int
        Bytes decoded from the source for it; 0 where the block was at hand.

    Raises
    ------
    ExecutionError
        If the run has ended meanwhile, in an error for example: a task that is still under way stops here.
    """
    shelf = _shelf(residency)
    rows = shelf.find(index)
    if rows is not None:
        return rows, 0
    block = plan.block(index)
    rows = source.read(block, packed=True)
    if fraction is not None:
        rows = fraction.of(rows)
    if keep:
        shelf.offer(index, rows)
    return rows, int(np.prod(block.shape)) * plan.row_bytes


def at_hand(residency: Residency, index: int) -> bool:
    """Tell whether the rows of a block are kept in this process."""
    return _shelf(residency).find(index) is not None


def keep_instead(residency: Residency, index: int, rows: Rows) -> None:
    """Keep these rows of a block in the place of those that are kept, if there is room."""
    shelf = _shelf(residency)
    shelf.drop(index)
    shelf.offer(index, rows)


def _shelf(residency: Residency) -> _Shelf:
    with _lock:
        if residency.session in _closed:
            raise ExecutionError("the passes that this task belongs to have ended")
        shelf = _shelves.get(residency.session)
        if shelf is None:
            shelf = _shelves[residency.session] = _Shelf(residency)
        return shelf


def release(session: str) -> None:
    """Drop what a run kept in this process."""
    with _lock:
        _closed.add(session)
        _shelves.pop(session, None)
