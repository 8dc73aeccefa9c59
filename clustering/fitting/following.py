"""A fit that goes on from an earlier one: its params, and the statistics that it kept of every block.

The first pass takes the statistics of blocks that are as they were from the ledger of the earlier version, and reads
the others. Statistics are additive, and added in their places of the tree: the update is that of a pass over all rows,
to the last bit (partial E-steps, Neal and Hinton 1998, doi:10.1007/978-94-011-5014-9_12, without their approximation).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np

from clustering.execution.passes import Records, Rounds
from clustering.fitting.fitted import Fitted
from clustering.fitting.loop import Candidate, PassRecord, Rule, State, Stop, halted, iterate
from clustering.models.kmeans import FARTHEST, KMeansParams
from clustering.models.model import stored

Refresh = Literal["full", "new-only", "none"]


def follow(
    rounds: Rounds, known: Fitted, rule: Rule, refresh: Refresh, records: Records | None, unchanged: bool
) -> tuple[State, PassRecord | None]:
    """Take the params of an earlier fit through the update that the rows of today ask for.

    Parameters
    ----------
    rounds
        With the plan that the records were made with.
    known
        The earlier fit.
    rule
        When to stop.
    refresh
        What follows from rows that are new: see the config.
    records
        Statistics of the blocks that are as they were, at its params; None where they are not known.
    unchanged
        Whether all blocks are as they were.

    Returns
    -------
    State
        Where the loop goes on from, if it has to.
    PassRecord or None
        Of the update; None where none was called for.
    """
    model, as_it_was = known.model, State((Candidate(known.params),))
    if refresh == "none":
        return _stopped(as_it_was, Stop.REFRESH), None
    if unchanged and (known.converged or refresh == "new-only"):
        return _stopped(as_it_was, known.stop), None
    if halted(as_it_was, rule).done:
        return halted(as_it_was, rule), None
    start = State((Candidate(_unbounded(known.params)),))
    state, record = next(iterate(model, start, partial(rounds.run, records=records), rule))
    if _same(state.best.params, start.best.params):
        # What was new left every sum as it was: another pass would find the same.
        return _stopped(state, Stop.CONVERGED), record
    if refresh == "new-only":
        return _stopped(state, Stop.REFRESH), record
    return state, record


def statistics_bytes(params: Any) -> int:
    """Size of the statistics of a block, in bytes: sums as large as the params, and far rows."""
    k, d = params.centers.shape
    return sum(int(array.nbytes) for array in stored(params).values()) + 8 * int(min(k, FARTHEST) * d)


def _unbounded(params: Any) -> Any:
    """Forget what was known of the scatter of all rows, as there may be more of them."""
    return replace(params, spread=np.inf) if isinstance(params, KMeansParams) else params


def _stopped(state: State, stop: Stop) -> State:
    return replace(state, candidates=tuple(replace(candidate, stop=stop) for candidate in state.candidates))


def _same(one: Any, other: Any) -> bool:
    a, b = stored(one), stored(other)
    return all(np.array_equal(a[name], b[name]) for name in a)
