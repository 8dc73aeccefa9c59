"""The drift budget: exact k-means in a handful of reads, where rows do not fit into memory.

A full read splits the rows by their margins (`clustering.models.margins`). Rows far from every boundary are summed up,
and their sums stand for them. The rows near a boundary are kept, and passes go over them alone. Labels are those of
plain passes as long as no center has drifted beyond the budget of a cluster; then the next full read begins anew from
where the centers are. As the labels are the same, so are the centers, up to the order of additions.

The parts are known: the margins are Hamerly's, the net displacement is Newling & Fleuret's, and the kept rows are the
row cache of knor (Mhembere et al. 2017, doi:10.1145/3078597.3078607).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.blas import one_blas_thread
from clustering.data.rows import Rows, in_memory_rows
from clustering.execution.block_cache import BlockCache, give_up_memory, release
from clustering.execution.near_rows import NearRows
from clustering.execution.passes import PassResult, PassRunner
from clustering.models.margins import FarRows, MarginSample, MarginStatistics, SplitStatistics, within_budgets
from clustering.models.survey import RowSample

Array = NDArray[np.float64]

ROOM_SHARE = 0.9
"""Part of the room for near rows that budgets are chosen to fill, as the share of near rows is an estimate."""
LEAST_SHARE = 1 / 64
"""Where fewer rows would be kept, nearly every pass would have to be a full read, and plain passes are simpler."""
SAMPLED_MARGINS = 2**14
"""About this number of margins is kept to choose the next budgets by."""
SLOWEST = 0.05
"""Least expected movement of a boundary, as a part of the largest."""
CENTERS_AT_ONCE = 256
"""Centers whose distances from all others are held in memory together."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A full read that later passes refer to."""

    function: MarginStatistics[Any]
    """The function of the pass, with the centers of the read."""
    budgets: Array
    """Margin above which a row of each cluster is far from every boundary ``(k,)``."""
    far: FarRows
    """Statistics of the far rows."""

    def holds(self, now: MarginStatistics[Any]) -> bool:
        """Return whether the far rows have the same labels in another pass for sure.

        Parameters
        ----------
        now
            The function of the other pass.
        """
        return within_budgets(self.function.points, self.budgets, self.far.radius, self.function.drift(now))


@dataclass(frozen=True, eq=False)
class BudgetState:
    """What passes with a drift budget hand on; a resumed fit needs it to go on with the same bits."""

    margins: MarginSample | None = None
    """Margins to choose the next budgets by; None where none were measured."""
    reference: Reference | None = None
    """The last full read; None before the first."""


@dataclass(frozen=True)
class _SplitByMargins:
    """Splits the rows of blocks; picklable."""

    function: MarginStatistics[Any]
    budgets: Array
    stride: int

    def __call__(self, rows: Rows) -> tuple[Any, NDArray[np.bool_]]:
        return self.function.split(rows, self.budgets, self.stride)


class BudgetedPasses:
    """Answers passes from the near rows and the sums of the far ones, as long as the budget allows."""

    def __init__(
        self, runner: PassRunner, share: float, count: int, state: BudgetState, say: Callable[[str], None]
    ) -> None:
        self.runner, self.share, self.state, self.say = runner, share, state, say
        self.stride = max(1, count // SAMPLED_MARGINS)
        self.room = runner.cache.memory
        self.near: NearRows | None = None
        if state.reference is not None:
            self._make_room(state.reference.function, state.reference.budgets)

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
        self.close()
        budgets = self._budgets(now)
        result = replace(self.runner, near=self._make_room(now, budgets)).split()
        split: SplitStatistics[Any] = result.statistics[0]
        reference = Reference(now, budgets, split.far)
        self.state = BudgetState(split.margins, reference)
        near, count = split.far.near, split.far.near + split.far.count
        # The first read of a fit without a row sample only measures margins.
        if budgets.any():
            self.say(
                f"full read: {near:,} rows ({100 * near / max(1, count):.1f} %) near a boundary between clusters are "
                "kept; passes go over them alone until centers have moved too far"
            )
        result = replace(result, statistics=(split.statistics,))
        if not _has_all_clusters(result):
            return result
        # Added up as in the passes to come: where no label changes any more, the sums of the next one have equal bits.
        return _after(result, self._near_rows(reference, now))

    def _near_rows(self, reference: Reference, now: MarginStatistics[Any]) -> PassResult:
        """Pass over the near rows, and add the statistics of the far ones."""
        result = replace(self.runner, near=self.near).run([now])
        far = reference.function.far_statistics(reference.far, now)
        return replace(result, statistics=(far + result.statistics[0],))

    def _make_room(self, function: MarginStatistics[Any], budgets: Array) -> NearRows:
        """Make room for the near rows of a split; a process that lacks them reads them again."""
        # All memory is for the near rows. Whole blocks stay on scratch, if there is any.
        self.runner.engine.release(give_up_memory, self.runner.cache.session)
        self.runner = replace(self.runner, cache=replace(self.runner.cache, memory=0))
        cache = BlockCache(uuid.uuid4().hex, self.room, self.runner.cache.scratch)
        self.near = NearRows(_SplitByMargins(function, budgets, self.stride), cache)
        return self.near

    def _budgets(self, now: MarginStatistics[Any]) -> Array:
        """Choose the budgets of a full read, so that the near rows fill their room."""
        k = len(now.points)
        if self.state.margins is None:
            # This read measures the margins for the next one.
            return np.zeros(k)
        reference = self.state.reference
        scale = np.ones(k) if reference is None else expected_drift(reference, now)
        return choose_budgets(self.state.margins, scale, self.share)


def _has_all_clusters(result: PassResult) -> bool:
    return bool((result.statistics[0].sums["weight"] > 0.0).all())


def _after(before: PassResult, result: PassResult) -> PassResult:
    """Return a result that counts the reads and the seconds of the one before it too."""
    return PassResult(result.statistics, before.read_stats + result.read_stats, before.seconds + result.seconds)


def expected_drift(reference: Reference, now: MarginStatistics[Any]) -> Array:
    """Estimate how far the boundaries of each cluster will move ``(k,)``, up to a common factor.

    Centers that have moved most since the full read before will go on to do so, as each step of k-means is a nearly
    constant part of the one before. A boundary moves with the cluster and with the fastest of its neighbours.

    Parameters
    ----------
    reference
        The full read before.
    now
        The function of the present pass.
    """
    points, drift = reference.function.points, reference.function.drift(now)
    if not drift.max() > 0.0:
        return np.ones(len(drift))
    squares = np.einsum("kp,kp->k", points, points)
    fastest = np.empty(len(drift))
    for start in range(0, len(drift), CENTERS_AT_ONCE):
        part = slice(start, start + CENTERS_AT_ONCE)
        # One thread, as the number of BLAS threads changes the order of sums, and so the budgets.
        with one_blas_thread():
            products = points[part] @ points.T
        apart = np.sqrt(np.maximum(0.0, squares[part, None] + squares - 2.0 * products))
        competing = apart < 2.0 * (reference.far.radius + reference.budgets)[part, None]
        rows = np.arange(len(competing))
        competing[rows, start + rows] = False
        fastest[part] = np.where(competing, drift, 0.0).max(axis=1)
    expected: Array = drift + fastest
    return np.asarray(np.maximum(expected, SLOWEST * expected.max()))


def choose_budgets(margins: MarginSample, scale: Array, share: float) -> Array:
    """Choose budgets proportional to a scale, so that a share of the rows is near a boundary.

    Parameters
    ----------
    margins
        Margins of some of the rows.
    scale
        Budgets ``(k,)`` up to a common factor.
    share
        Share of the rows that is to be near.

    Returns
    -------
    ndarray
        Budgets ``(k,)``.
    """
    ratios = margins.margins / scale[margins.labels]
    order = np.argsort(ratios, kind="stable")
    reached = np.cumsum(margins.counts[order])
    place = np.searchsorted(reached, share * reached[-1])
    return scale * max(0.0, float(ratios[order[min(place, len(order) - 1)]]))


def first_budget(runner: PassRunner, function: Any, sample: RowSample, count: int) -> BudgetState:
    """Measure margins on the row sample, by which the first budgets are chosen.

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
    chosen = slice(None, None, max(1, len(sample.weights) // SAMPLED_MARGINS))
    weights = sample.weights[chosen]
    rows = in_memory_rows(sample.values[chosen], weights, allow_missing=True)
    split, _ = function.split(rows, np.zeros(len(function.points)), 1)
    if rows.has_missing is not None:
        weights = weights[~rows.has_missing]
    # A sampled row stands for the more rows the less it weighs, as rows are drawn by weight.
    with np.errstate(divide="ignore"):
        counts = np.maximum(1.0, sample.threshold / weights) if sample.threshold else np.ones(len(weights))
    return BudgetState(split.margins._replace(counts=counts))


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
        State that an interrupted fit left, or margins of the row sample.
    say
        Receives lines for the user.
    """
    share = near_share(runner, count)
    if share is None:
        yield None
        return
    passes = BudgetedPasses(runner, share, count, state, say)
    try:
        yield passes
    finally:
        passes.close()
