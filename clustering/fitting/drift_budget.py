"""The drift budget: exact k-means in a handful of reads, where rows do not fit into memory.

A full read splits the rows by their margins (`clustering.models.margins`). Rows far from every boundary are summed up,
and their sums stand for them. The rows near a boundary are kept, and passes go over them alone. Labels are those of
plain passes as long as no center has gone beyond its budget; then the next full read begins anew from where the centers
are. As the labels are the same, so are the centers, up to the order of additions.

Before a full read, the passes after it are estimated (`clustering.fitting.expected_passes`). The read labels all rows
in each of these passes (`clustering.models.course`), so that far rows are summed up as they will be labelled, and the
near rows are those whose label the error of the estimate may change. A wrong estimate costs reads, and no label.

Some parts were published before: the margins are Hamerly's, the net displacement is Newling & Fleuret's, and the kept
rows are the row cache of knor (Mhembere et al. 2017, doi:10.1145/3078597.3078607).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.execution.block_cache import BlockCache, give_up_memory, release
from clustering.execution.near_rows import NearRows
from clustering.execution.passes import PassResult, PassRunner
from clustering.fitting.course import choose_course
from clustering.fitting.expected_passes import LastRead, SampledRows, expected_passes
from clustering.models.course import Course, CourseStatistics, far_statistics, find_waypoint, split_rows
from clustering.models.margins import FarRows, MarginStatistics
from clustering.models.survey import RowSample

ROOM_SHARE = 0.9
"""Part of the room for near rows that budgets are chosen to fill, as the share of near rows is an estimate."""
LEAST_SHARE = 1 / 64
"""Where fewer rows would be kept, nearly every pass would have to be a full read, and plain passes are simpler."""
SAMPLE_BYTES = 2**24
"""Size of the rows by which passes are estimated, in bytes, as checkpoints hold them."""
LEAST_SAMPLED = 2**10
"""Number of those rows at least, whatever their size."""
SAMPLED_PART = 8
"""One of so many rows at most: an estimated pass goes over all of them, and must take far less than a full read."""
PLANNED_ROWS = 2**14
"""Largest number of rows by which budgets are chosen."""
LONGEST = 32
"""Passes that a full read looks ahead, at most."""
GROWTH = 4
"""A full read looks ahead at most so many times as far as the one before it has led. Each further waypoint costs a look
at the middling rows, and leaves less for budgets."""
SUMS_SHARE = 8
"""One part in this many of the room for near rows is as much as the sums at all waypoints may take."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A full read that later passes refer to."""

    course: Course[Any]
    """The expected passes, of which the first is that of the read."""
    steady: FarRows
    """Statistics of the far rows with one label along the course."""
    moving: tuple[FarRows, ...]
    """Statistics of the other far rows at each waypoint."""

    @property
    def function(self) -> MarginStatistics[Any]:
        """The function of the pass, with the centers of the read."""
        return self.course.functions[0]

    def far_rows(self, now: MarginStatistics[Any]) -> Any | None:
        """Return the statistics of the far rows in another pass; None where their labels are not known there.

        Parameters
        ----------
        now
            The function of the other pass.
        """
        waypoint = find_waypoint(self.course, self.steady, self.moving, now)
        return None if waypoint is None else far_statistics(self.course, self.steady, self.moving, waypoint, now)


@dataclass(frozen=True, eq=False)
class BudgetState:
    """What passes with a drift budget hand on; a resumed fit needs it to go on with the same bits."""

    sample: SampledRows | None = None
    """Rows to plan full reads by; None where plain passes are better."""
    reference: Reference | None = None
    """The last full read; None before the first."""


@dataclass(frozen=True)
class _SplitByMargins:
    """Splits the rows of blocks; picklable."""

    course: Course[Any]

    def __call__(self, rows: Rows) -> tuple[Any, NDArray[np.bool_]]:
        return split_rows(self.course, rows)


class BudgetedPasses:
    """Answers passes from the near rows and the sums of the far ones, as long as the budget allows."""

    def __init__(
        self, runner: PassRunner, share: float, sample: SampledRows, state: BudgetState, say: Callable[[str], None]
    ) -> None:
        self.runner, self.share, self.sample, self.state, self.say = runner, share, sample, state, say
        self.room = runner.cache.memory
        self.sums_room = self.room // SUMS_SHARE
        self.near: NearRows | None = None
        if state.reference is not None:
            self._make_room(state.reference.course)

    def run(self, functions: Sequence[Any]) -> PassResult:
        """Make one pass, over the near rows alone where that gives the same labels.

        Parameters
        ----------
        functions
            For each candidate, a function that makes its statistics from the rows of a block.
        """
        # Several candidates would each need rows of their own, so the budget waits until one is left.
        now = functions[0] if len(functions) == 1 else None
        if not isinstance(now, MarginStatistics):
            return self.runner.run(functions)
        reference = self.state.reference
        far = None if reference is None else reference.far_rows(now)
        if far is None:
            return self._full_read(now)
        result = self._add_near_rows(far, now)
        if _has_all_clusters(result):
            return result
        # An empty cluster restarts at the farthest of all rows.
        return _after(result, self._full_read(now))

    def close(self) -> None:
        """Drop the near rows."""
        if self.near is not None:
            self.runner.engine.release(release, self.near.cache.session)
            self.near = None

    def _full_read(self, now: MarginStatistics[Any]) -> PassResult:
        """Read all blocks, and keep the rows near a boundary."""
        spent: list[PassResult] = []
        course = self._choose_course(now, spent)
        self.close()
        result = replace(self.runner, near=self._make_room(course)).split()
        split: CourseStatistics[Any] = result.statistics[0]
        reference = Reference(course, split.steady, split.moving)
        self.state = BudgetState(self.sample, reference)
        near, count = split.steady.near, split.statistics.count
        self.say(
            f"full read: {near:,} rows ({100 * near / max(1, count):.1f} %) near a boundary between clusters are "
            "kept; passes go over them alone until centers have moved too far"
        )
        result = replace(result, statistics=(split.statistics,))
        if _has_all_clusters(result):
            # Added up as in the passes to come: where no label changes any more, the sums of the next have equal bits.
            result = _after(result, self._add_near_rows(reference.far_rows(now), now))
        for before in spent:
            result = _after(before, result)
        return result

    def _choose_course(self, now: MarginStatistics[Any], spent: list[PassResult]) -> Course[Any]:
        """Estimate the passes to come, and choose how many of them the next full read serves."""
        reference, before, longest = self.state.reference, None, LONGEST
        if reference is not None:

            def near_statistics(function: MarginStatistics[Any]) -> Any:
                result = self._near_rows(function)
                spent.append(result)
                return result.statistics[0]

            before = LastRead(reference.course, reference.steady, reference.moving, near_statistics)
            longest = min(longest, GROWTH * max(1, reference.course.nearest_waypoint(now)))
        few = self.sample.every(-(-len(self.sample.counts) // PLANNED_ROWS))
        # Sums are float64, and each task holds those of a few blocks.
        longest = min(longest, max(1, self.sums_room // now.points.nbytes))
        # The map of a pool; on a cluster this process has one thread, and its workers have the rest.
        for_each = map if self.runner.engine.pool is None else self.runner.engine.pool.map
        expected = expected_passes(now, self.sample, before, for_each)
        return choose_course(expected, few, self.share, longest, for_each)

    def _near_rows(self, now: MarginStatistics[Any]) -> PassResult:
        return replace(self.runner, near=self.near).run([now])

    def _add_near_rows(self, far: Any, now: MarginStatistics[Any]) -> PassResult:
        """Pass over the near rows, and add the statistics of the far ones."""
        result = self._near_rows(now)
        return replace(result, statistics=(far + result.statistics[0],))

    def _make_room(self, course: Course[Any]) -> NearRows:
        """Make room for the near rows of a split; a process that lacks them reads them again."""
        # All memory is for the near rows. Whole blocks stay on scratch, if there is any.
        self.runner.engine.release(give_up_memory, self.runner.cache.session)
        self.runner = replace(self.runner, cache=replace(self.runner.cache, memory=0))
        cache = BlockCache(uuid.uuid4().hex, self.room, self.runner.cache.scratch)
        self.near = NearRows(_SplitByMargins(course), cache)
        return self.near


def _has_all_clusters(result: PassResult) -> bool:
    return bool((result.statistics[0].sums["weight"] > 0.0).all())


def _after(before: PassResult, result: PassResult) -> PassResult:
    """Return a result that counts the reads and the seconds of the one before it too."""
    return PassResult(result.statistics, before.read_stats + result.read_stats, before.seconds + result.seconds)


def first_budget(runner: PassRunner, function: Any, sample: RowSample, count: int) -> BudgetState:
    """Keep some rows of the row sample, by which full reads are planned.

    Parameters
    ----------
    runner
        Runs the passes over prepared rows.
    function
        The function of the first pass.
    sample
        Row sample of prepared rows.
    count
        Number of rows.
    """
    if not has_margins(function) or near_share(runner, count) is None:
        return BudgetState()
    row_bytes = sample.values.itemsize * sample.values.shape[1]
    most = max(LEAST_SAMPLED, min(SAMPLE_BYTES // row_bytes, max(PLANNED_ROWS, count // SAMPLED_PART)))
    step = max(1, -(-len(sample.weights) // most))
    chosen = slice(None, None, step)
    values, weights = sample.values[chosen], sample.weights[chosen]
    if values.dtype.kind == "f":
        # Rows with missing features have no margin, and are always near.
        complete = ~np.isnan(values).any(axis=1)
        values, weights = values[complete], weights[complete]
    # A sampled row stands for the more rows the less it weighs, as rows are drawn by weight.
    with np.errstate(divide="ignore"):
        counts = np.maximum(1.0, sample.threshold / weights) if sample.threshold else np.ones(len(weights))
    return BudgetState(SampledRows(values, weights, step * counts) if len(values) else None)


def has_margins(function: Any) -> bool:
    """Return whether passes with a function can go over the rows near a boundary alone.

    Parameters
    ----------
    function
        The function of a pass.
    """
    return isinstance(function, MarginStatistics)


def near_share(runner: PassRunner, count: int) -> float | None:
    """Choose the share of the rows to keep near a boundary.

    It follows from the memory budget of one worker and the number of rows, so that no result depends on the workers.

    Parameters
    ----------
    runner
        Runs the passes over prepared rows.
    count
        Number of rows.

    Returns
    -------
    float or None
        Share of the rows; None where plain passes are better, as all rows fit, or hardly any.
    """
    return share_with_room(
        runner.cache.memory, count, runner.kept_row_bytes, weighted=runner.source.weights is not None
    )


def share_with_room(room: int, count: int, row_bytes: float, *, weighted: bool) -> float | None:
    """Choose the share of the rows to keep near a boundary, from the sizes alone.

    Parameters
    ----------
    room
        Memory for rows of one worker, in bytes.
    count
        Number of rows.
    row_bytes
        Size of a kept row, in bytes.
    weighted
        Whether rows have weights.

    Returns
    -------
    float or None
        As for `near_share`.
    """
    if count * row_bytes <= room:
        return None
    share = ROOM_SHARE * room / (count * (row_bytes + 8 * weighted))
    return share if share >= LEAST_SHARE else None


@contextmanager
def budgeted_passes(
    runner: PassRunner, count: int, state: BudgetState, say: Callable[[str], None]
) -> Iterator[BudgetedPasses | None]:
    """Offer passes with a drift budget, as long as the context lasts; None where plain passes are better.

    Parameters
    ----------
    runner
        Runs the passes over prepared rows.
    count
        Number of rows.
    state
        State that an interrupted fit left, or rows of the row sample.
    say
        Receives lines for the user.
    """
    share = near_share(runner, count)
    if share is None or state.sample is None:
        yield None
        return
    passes = BudgetedPasses(runner, share, state.sample, state, say)
    try:
        yield passes
    finally:
        passes.close()
