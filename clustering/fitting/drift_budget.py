"""The drift budget: exact k-means in a handful of reads, where rows do not fit into memory.

A full read splits the rows by their margins (`clustering.models.margins`). Rows far from every boundary are summed up,
and their sums stand for them. The rows near a boundary are kept, and passes go over them alone. Labels are those of
plain passes as long as no center has drifted beyond the budget of a cluster; then the next full read begins anew from
where the centers are. As the labels are the same, so are the centers, up to the order of additions.

Passes over the near rows of the read before say where the centers will go next, although some labels of far rows are
wrong by then. So a full read measures margins along this course (`clustering.models.course`), and the budget is for how
far centers stray from it. A wrong forecast costs reads, and no label.

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
from clustering.fitting.course import SampledRows, choose_course
from clustering.models.course import split_rows, within_course
from clustering.models.margins import FarRows, MarginStatistics, SplitStatistics
from clustering.models.survey import RowSample

Array = NDArray[np.float64]

ROOM_SHARE = 0.9
"""Part of the room for near rows that budgets are chosen to fill, as the share of near rows is an estimate."""
LEAST_SHARE = 1 / 64
"""Where fewer rows would be kept, nearly every pass would have to be a full read, and plain passes are simpler."""
SAMPLED_ROWS, SAMPLE_BYTES = 2**14, 2**23
"""Largest number of rows by which a full read is planned, and their size in bytes, as checkpoints hold them."""
LEAST_SAMPLED = 2**10
"""Number of those rows at least, whatever their size."""
FORECAST_PASSES = 8
"""Passes by which the course of the centers is forecast, at most."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A full read that later passes refer to."""

    course: tuple[MarginStatistics[Any], ...]
    """Functions of the pass at the waypoints of the course; the first is that of the read."""
    budgets: Array
    """Margin above which a row of each cluster is far from every boundary ``(k,)``."""
    far: FarRows
    """Statistics of the far rows."""

    @property
    def function(self) -> MarginStatistics[Any]:
        """The function of the pass, with the centers of the read."""
        return self.course[0]

    def holds(self, now: MarginStatistics[Any]) -> bool:
        """Return whether the far rows have the same labels in another pass for sure.

        Parameters
        ----------
        now
            The function of the other pass.
        """
        return within_course([each.points for each in self.course], self.budgets, self.far.radius, now.points)


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

    course: tuple[MarginStatistics[Any], ...]
    budgets: Array

    def __call__(self, rows: Rows) -> tuple[Any, NDArray[np.bool_]]:
        return split_rows(self.course, rows, self.budgets)


class BudgetedPasses:
    """Answers passes from the near rows and the sums of the far ones, as long as the budget allows."""

    def __init__(
        self, runner: PassRunner, share: float, sample: SampledRows, state: BudgetState, say: Callable[[str], None]
    ) -> None:
        self.runner, self.share, self.sample, self.state, self.say = runner, share, sample, state, say
        self.room = runner.cache.memory
        self.near: NearRows | None = None
        if state.reference is not None:
            self._make_room(state.reference.course, state.reference.budgets)

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
        if reference is None or not reference.holds(now):
            return self._full_read(now)
        result = self._near_rows(reference, now)
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
        reference = self.state.reference
        spent: list[PassResult] = []
        reach = None if reference is None else reference.far.radius + reference.budgets
        course, budgets = choose_course(self._forecast(now, spent), self.sample, self.share, reach)
        self.close()
        result = replace(self.runner, near=self._make_room(course, budgets)).split()
        split: SplitStatistics[Any] = result.statistics[0]
        reference = Reference(course, budgets, split.far)
        self.state = BudgetState(self.sample, reference)
        near, count = split.far.near, split.far.near + split.far.count
        self.say(
            f"full read: {near:,} rows ({100 * near / max(1, count):.1f} %) near a boundary between clusters are "
            "kept; passes go over them alone until centers have moved too far"
        )
        result = replace(result, statistics=(split.statistics,))
        if _has_all_clusters(result):
            # Added up as in the passes to come: where no label changes any more, the sums of the next have equal bits.
            result = _after(result, self._near_rows(reference, now))
        for before in spent:
            result = _after(before, result)
        return result

    def _forecast(self, now: MarginStatistics[Any], spent: list[PassResult]) -> Iterator[MarginStatistics[Any]]:
        """Go on over the near rows from the present pass, and yield the functions of the passes.

        The far rows keep their labels from the read before, of which a few are wrong so far from it.
        """
        yield now
        reference = self.state.reference
        if reference is None:
            return
        for _ in range(FORECAST_PASSES):
            result = self._near_rows(reference, now)
            spent.append(result)
            if not _has_all_clusters(result):
                return
            params = now.model.update(now.params, result.statistics[0]).params
            before, now = now, now.model.for_pass(params)
            if np.array_equal(before.points, now.points):
                return
            yield now

    def _near_rows(self, reference: Reference, now: MarginStatistics[Any]) -> PassResult:
        """Pass over the near rows, and add the statistics of the far ones."""
        result = replace(self.runner, near=self.near).run([now])
        far = reference.function.far_statistics(reference.far, now)
        return replace(result, statistics=(far + result.statistics[0],))

    def _make_room(self, course: tuple[MarginStatistics[Any], ...], budgets: Array) -> NearRows:
        """Make room for the near rows of a split; a process that lacks them reads them again."""
        # All memory is for the near rows. Whole blocks stay on scratch, if there is any.
        self.runner.engine.release(give_up_memory, self.runner.cache.session)
        self.runner = replace(self.runner, cache=replace(self.runner.cache, memory=0))
        cache = BlockCache(uuid.uuid4().hex, self.room, self.runner.cache.scratch)
        self.near = NearRows(_SplitByMargins(course, budgets), cache)
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
    most = min(SAMPLED_ROWS, max(LEAST_SAMPLED, SAMPLE_BYTES // row_bytes))
    chosen = slice(None, None, -(-len(sample.weights) // most))
    values, weights = sample.values[chosen], sample.weights[chosen]
    if values.dtype.kind == "f":
        # Rows with missing features have no margin, and are always near.
        complete = ~np.isnan(values).any(axis=1)
        values, weights = values[complete], weights[complete]
    # A sampled row stands for the more rows the less it weighs, as rows are drawn by weight.
    with np.errstate(divide="ignore"):
        counts = np.maximum(1.0, sample.threshold / weights) if sample.threshold else np.ones(len(weights))
    return BudgetState(SampledRows(values, counts) if len(values) else None)


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
