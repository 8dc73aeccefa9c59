"""Passes of k-means over rows in memory that remember the labels of the pass before, and give the same bits."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.execution.passes import PassResult, PassRunner
from clustering.models.kmeans_passes import LloydPass
from clustering.models.recalled_pass import BOUND_BYTES, RecallingPass, Slot, can_recall, forget

Array = NDArray[np.float64]


class RecalledPasses:
    """Makes passes whose functions find what the pass before has left of them."""

    def __init__(self, runner: PassRunner, count: int) -> None:
        self.runner, self.count = runner, count
        self.session = uuid.uuid4().hex
        self.number = 0
        self.before: list[tuple[Slot, LloydPass]] = []

    def run(self, functions: Sequence[Any]) -> PassResult:
        """Make one pass.

        Parameters
        ----------
        functions
            For each candidate, a function that makes its statistics from the rows of a block.
        """
        room, each = self.runner.cache.memory, self.runner.kept_row_bytes
        # Bounds come out of what the rows leave of the memory for them.
        if not all(map(can_recall, functions)) or self.count * (each + BOUND_BYTES * len(functions)) > room:
            return self.runner.run(functions)
        self.number += 1
        after = [(Slot(self.session, self.number, i), function) for i, function in enumerate(functions)]
        result = self.runner.run([self._recalling(slot, function) for slot, function in after])
        self.before = after
        return result

    def close(self) -> None:
        """Forget all rows."""
        if self.number:
            self.runner.engine.release(forget, self.session)

    def _recalling(self, slot: Slot, function: LloydPass) -> RecallingPass:
        """Make a function refer to the one of the pass before whose centers are nearest: any of them gives bounds."""
        moves = [(before, last.drift(function)) for before, last in self.before if _comparable(last, function)]
        if not moves:
            # Nothing is remembered by this name.
            return RecallingPass(function, np.zeros(function.params.k), slot, slot)
        before, least = min(moves, key=lambda named: float(named[1].sum()))
        return RecallingPass(function, least, before, slot)


def _comparable(last: LloydPass, function: LloydPass) -> bool:
    return last.points.shape == function.points.shape and np.array_equal(last.params.origin, function.params.origin)


@contextmanager
def recalled_passes(runner: PassRunner, count: int) -> Iterator[RecalledPasses]:
    """Offer passes that remember the labels of the pass before, as long as the context lasts.

    Parameters
    ----------
    runner
        Runs the passes over prepared rows.
    count
        Number of rows.
    """
    passes = RecalledPasses(runner, count)
    try:
        yield passes
    finally:
        passes.close()
