"""Passes of k-means that remember the labels of the pass before, see `clustering.models.recalling_kernels`.

What is remembered of a block lies in the process that worked on it. Where another process or a resumed fit lacks it,
all centers are scored. So no result depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.models.kmeans_passes import LloydPass
from clustering.models.kmeans_statistics import KMeansStatistics
from clustering.models.recalled_buffers import SAMPLED_SLACKS, RowBounds, forgotten, make_recalled
from clustering.models.run_statistics import RunStatistics

Array = NDArray[np.float64]

FEWEST_CENTERS, FEWEST_PRODUCTS = 256, 2**14
"""With fewer centers, or fewer products for a row, the scores of a row take no longer than the other work on it."""
MOST_FEATURES = 2**13
"""With more features, the rounding of distances is above the slack of the bounds."""
BOUND_BYTES = 14
"""Memory of what is remembered of a row, at most, in bytes."""


class Slot(NamedTuple):
    """Names the bounds that a pass leaves for one of its candidates."""

    session: str
    """Unique name of the run."""
    number: int
    """Number of the pass."""
    candidate: int
    """Number of the candidate."""


_bounds: dict[str, dict[tuple[int, ...], dict[Slot, RowBounds]]] = {}
"""For each run, what is remembered of the block at each place."""
_closed: set[str] = set()
_lock = Lock()


def can_recall(function: object) -> bool:
    """Return whether it pays to remember the labels that a function of a pass gives.

    It follows from sizes alone.

    Parameters
    ----------
    function
        Function that makes the statistics of blocks.
    """
    if not isinstance(function, LloydPass):
        return False
    k, d = function.params.centers.shape
    many = k >= FEWEST_CENTERS and k * d >= FEWEST_PRODUCTS
    return many and d <= MOST_FEATURES and function.centers.scores is not None


@dataclass(frozen=True, eq=False)
class RecallingPass(RunStatistics[KMeansStatistics]):
    """Gives the same statistics as the function it is made of."""

    function: LloydPass
    moves: Array
    """How far each center has moved since the pass that left `before` ``(k,)``."""
    before: Slot
    """Where the bounds are remembered."""
    after: Slot
    """Where this pass leaves its bounds."""

    @property
    def row_operations(self) -> float:
        """Operations of a row whose label is not remembered."""
        return self.function.row_operations

    def of_run(self, blocks: Sequence[Rows]) -> KMeansStatistics:
        """Make the statistics of a run of blocks, and remember the labels where no row has missing features."""
        if any(rows.has_missing is not None for rows in blocks):
            return self.function.of_run(blocks)
        taken = [_take(self.before, self.after, rows) for rows in blocks]
        before = RowBounds(*(np.concatenate(arrays) for arrays in zip(*taken, strict=True)))
        recalled = make_recalled(self.function.centers, self.moves, before)
        statistics = self.function.recalled(blocks, recalled)
        ends = np.cumsum([len(rows) for rows in blocks])
        for rows, start, end in zip(blocks, (0, *ends[:-1]), ends, strict=True):
            bounds, sampled = recalled.bounds[start:end], slice(start, end, SAMPLED_SLACKS)
            slacks = recalled.bounds[sampled] - np.sqrt(recalled.squares[sampled])
            _keep(self.after, rows, RowBounds(recalled.labels[start:end], bounds, slacks))
        return statistics


def _take(slot: Slot, now: Slot, rows: Rows) -> RowBounds:
    """Take the bounds of a block out, so that no failed pass leaves half of them."""
    with _lock:
        slots = _bounds.get(slot.session, {}).get(rows.start, {})
        bounds = slots.pop(slot, None)
        # A candidate that has stopped leaves bounds that nobody asks for.
        for old in [other for other in slots if other.number < now.number - 1]:
            del slots[old]
    return forgotten(len(rows)) if bounds is None or len(bounds.labels) != len(rows) else bounds


def _keep(slot: Slot, rows: Rows, bounds: RowBounds) -> None:
    """Remember the bounds of a block."""
    with _lock:
        # A task that still runs after the end of its run must not leave bounds that nobody would drop.
        if slot.session not in _closed:
            _bounds.setdefault(slot.session, {}).setdefault(rows.start, {})[slot] = bounds


def forget(session: str) -> None:
    """Forget all bounds of a run in this process.

    Parameters
    ----------
    session
        Name of the run.
    """
    with _lock:
        _closed.add(session)
        _bounds.pop(session, None)
