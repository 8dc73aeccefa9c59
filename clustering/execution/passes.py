"""One pass over the rows, for several candidates at once."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from clustering.data.plan import MIB, Plan
from clustering.data.preparation import Preparation
from clustering.data.rows import Rows
from clustering.data.source import Source
from clustering.errors import DataError, at_work
from clustering.execution.ahead import read_ahead
from clustering.execution.engine import Engine
from clustering.execution.fraction import Fraction
from clustering.execution.held_out import HeldOut, no_rows
from clustering.execution.map_reduce import map_reduce
from clustering.execution.progress import Telling, telling
from clustering.execution.residency import Residency, at_hand, keep_instead, release, rows_of
from clustering.models.divergences import DomainError

MEMORY_SHARE = 2
"""One part in this many of a worker's memory is for keeping decoded rows; the rest is for blocks at work."""

Statistics = Callable[[Rows], Any]


class Records(Protocol):
    """What outlives a pass that is killed: the statistics of its finished blocks, of each candidate; picklable."""

    def find(self, index: int) -> tuple[Any, ...] | None:
        """Give what was kept of a block; None where nothing was."""

    def keep(self, index: int, statistics: tuple[Any, ...]) -> None:
        """Keep the statistics of a block; called when all else that is made of it is in its place."""


@dataclass(frozen=True)
class Reading:
    """What was read; ``a + b`` is what both read."""

    blocks: int = 0
    """Blocks read from the source."""
    bytes: int = 0
    """Decoded size of what was read, in bytes."""
    bad: tuple[str, ...] = ()
    """Chunks that do not decode, by name, in order."""

    def __add__(self, other: Reading) -> Reading:
        bad = tuple(sorted({*self.bad, *other.bad})) if other.bad else self.bad
        return Reading(self.blocks + other.blocks, self.bytes + other.bytes, bad)


@dataclass(frozen=True)
class _Sums:
    """Statistics of every candidate, with what was read for them."""

    statistics: tuple[Any, ...]
    reading: Reading

    @property
    def read(self) -> int:
        return self.reading.bytes

    def __add__(self, other: _Sums) -> _Sums:
        merged = tuple(a + b for a, b in zip(self.statistics, other.statistics, strict=True))
        return _Sums(merged, self.reading + other.reading)


@dataclass(frozen=True)
class Passed:
    """Outcome of a pass."""

    statistics: tuple[Any, ...]
    """Of each candidate."""
    reading: Reading
    seconds: float


@dataclass(frozen=True)
class Rounds:
    """Everything that passes over the same rows have in common."""

    source: Source
    plan: Plan
    engine: Engine
    residency: Residency
    fraction: Fraction | None = None
    """Which rows take part; None: all."""
    preparation: Preparation | None = None
    """What rows go through before they are used; None: they are used as decoded."""
    held_out: HeldOut | None = None
    """Blocks of which no row takes part, and which are not read; None: there are none."""

    def run(self, candidates: Sequence[Statistics], records: Records | None = None) -> Passed:
        """Read each block once and add up the statistics of all candidates.

        Parameters
        ----------
        candidates
            For each candidate, what makes its statistics from the rows of a block; picklable.
        records
            Of blocks that an earlier attempt at this pass has finished: they are not read again.
        """
        started = time.perf_counter()
        work = _Work(
            self.source, self.plan, self.residency, tuple(candidates), records, self.fraction, self.preparation,
            self.held_out, telling(self.engine, len(self.plan)),
        )  # fmt: skip
        sums = map_reduce(work, len(self.plan), self.engine)
        self.source.check_bad(sums.reading.bad)
        return Passed(sums.statistics, sums.reading, time.perf_counter() - started)


@dataclass(frozen=True)
class _Work:
    """What is done with the blocks of a pass; picklable."""

    source: Source
    plan: Plan
    residency: Residency
    candidates: tuple[Statistics, ...]
    records: Records | None
    fraction: Fraction | None
    preparation: Preparation | None
    held_out: HeldOut | None
    telling: Telling | None

    def __call__(self, run: range) -> Iterator[_Sums]:
        """Make the statistics of some blocks, one after the other."""
        return self._made(run) if self.telling is None else self.telling.of_blocks(self._made(run))

    def _made(self, run: range) -> Iterator[_Sums]:
        for index, found in zip(run, read_ahead(self._find, run, self._is_far), strict=True):
            if isinstance(found, _Sums):
                yield found
                continue
            with at_work(f"block {self.plan.block(index)}"):
                sums = self._sums(index, *found)
            yield sums

    def _is_far(self, index: int) -> bool:
        return not at_hand(self.residency, index)

    def _find(self, index: int) -> _Sums | tuple[Rows, int]:
        """Find the rows of a block as they are kept; or what an earlier attempt made of them."""
        if self.records is not None and (known := self.records.find(index)) is not None:
            return _Sums(known, Reading())
        block = self.plan.block(index)
        if self.held_out is not None and self.held_out.holds(block.start):
            return no_rows(self.source, block), 0
        with at_work(f"block {block}"):
            return rows_of(self.source, self.plan, index, self.residency, self.fraction, keep=not self._keeps_prepared)

    @property
    def _keeps_prepared(self) -> bool:
        """Whether prepared rows are kept, which spares the way to them: where they take no more room."""
        preparation = self.preparation
        if preparation is None or preparation.once:
            return False
        return preparation.row_bytes <= self.source.kept_row_bytes

    def _used(self, index: int, kept: Rows) -> Rows:
        """Turn the rows of a block as they are kept into rows as they are used."""
        rows = kept.decoded()
        if self.preparation is None or rows.prepared:
            return rows
        used = self.preparation.apply(rows)
        if len(used) < len(rows) and self.source.missing == "error":
            raise DataError(
                f"a row of zeros in block {self.plan.block(index)} has no direction, and preprocess.unit_norm asks for "
                "one; set source.missing to 'drop' to leave such rows out"
            )
        if self._keeps_prepared:
            keep_instead(self.residency, index, used)
        return used

    def _sums(self, index: int, kept: Rows, size: int) -> _Sums:
        rows = self._used(index, kept)
        try:
            statistics = tuple(candidate(rows) for candidate in self.candidates)
        except DomainError as error:
            where = f"block {self.plan.block(index)}"
            if error.column is not None:
                feature = self.source.features[error.column]
                where = f"variable {feature.variable!r} ({feature}), {where}"
            raise DataError(
                f"{error.what} in {where}: {error.why}; mask such rows with source.mask, or choose another "
                "model.divergence"
            ) from None
        if self.records is not None:
            self.records.keep(index, statistics)
        return _Sums(statistics, Reading(int(size > 0), size, rows.bad))


def room_to_keep(source: Source, memory: int) -> int:
    """Give what of a memory budget decoded rows may take between passes, in bytes."""
    return max(0, memory // MEMORY_SHARE - sum(source.held_labels.values()))


def labels_fault(source: Source, memory: int) -> str:
    """Say that the labels which a selection holds do not fit a memory budget, in bytes; empty where they do."""
    held = source.held_labels
    size = sum(held.values())
    if size <= memory // MEMORY_SHARE:
        return ""
    return (
        f"the labels of {' and '.join(map(repr, held))}, which a selection by label holds in memory, take "
        f"{size / MIB:,.0f} MiB, over half of compute.memory: raise compute.memory, or select by position with 'isel'"
    )


@contextmanager
def rounds(
    source: Source,
    plan: Plan,
    engine: Engine,
    *,
    memory: int,
    scratch: str | None = None,
    keep: bool = True,
    fraction: Fraction | None = None,
    preparation: Preparation | None = None,
) -> Iterator[Rounds]:
    """Keep decoded rows at hand for the passes inside the context.

    Parameters
    ----------
    memory
        Memory budget of each worker, in bytes; half of it is for decoded rows.
    scratch
        Folder for more of them, on a local disk of each worker.
    keep
        False for a single pass, which needs no row a second time.
    fraction
        Which rows take part; None: all.
    preparation
        What rows go through before they are used; None: they are used as decoded.

    Raises
    ------
    DataError
        If a single block, or the labels that a selection holds, do not fit the memory budget.
    """
    if plan.block_bytes > memory // MEMORY_SHARE:
        raise DataError(
            f"one block of whole chunks takes {plan.block_bytes:,} bytes and compute.memory is {memory:,} bytes; "
            "raise compute.memory to twice the block at least, or store the data in smaller chunks"
        )
    if labels := labels_fault(source, memory):
        raise DataError(labels)
    residency = Residency(uuid.uuid4().hex, room_to_keep(source, memory) if keep else 0, scratch if keep else None)
    try:
        yield Rounds(source, plan, engine, residency, fraction, preparation)
    finally:
        engine.release(release, residency.session)
