"""A fit that goes on from an earlier one: its params, and the statistics that it kept of every block.

The first pass takes the statistics of blocks that are as they were from the ledger of the earlier version, and reads
the others. Statistics are additive, and added in their places of the tree: the update is that of a pass over all rows,
to the last bit (partial E-steps, Neal and Hinton 1998, doi:10.1007/978-94-011-5014-9_12, without their approximation).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np

from clustering.execution.passes import BlockRecords, PassRunner
from clustering.fitting.fitted_model import FittedModel
from clustering.fitting.loop import Candidate, PassRecord, State, Stop, StoppingRule, apply_limits, iterate
from clustering.models.farthest import FARTHEST
from clustering.models.model import Params, params_to_arrays

Refresh = Literal["full", "new-only", "none"]


def continue_fit(
    runner: PassRunner,
    previous: FittedModel,
    rule: StoppingRule,
    refresh: Refresh,
    records: BlockRecords | None,
    unchanged: bool,
) -> tuple[State, PassRecord | None]:
    """Take the params of an earlier fit through the update that the rows of today ask for.

    Parameters
    ----------
    runner
        With the plan that the records were made with.
    previous
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
    model, as_it_was = previous.model, State((Candidate(previous.model, previous.params),))
    if refresh == "none":
        return _stop_all(as_it_was, Stop.REFRESH), None
    if unchanged and (previous.converged or refresh == "new-only"):
        return _stop_all(as_it_was, previous.stop), None
    if apply_limits(as_it_was, rule).done:
        return apply_limits(as_it_was, rule), None
    start = State((Candidate(model, model.without_survey_of(previous.params)),))
    state, record = next(iterate(start, partial(runner.run, records=records), rule))
    if _same(state.best.params, start.best.params):
        # What was new left every sum as it was: another pass would find the same.
        return _stop_all(state, Stop.CONVERGED), record
    if refresh == "new-only":
        return _stop_all(state, Stop.REFRESH), record
    return state, record


def statistics_bytes(params: Params) -> int:
    """Size of the statistics of a block, in bytes: sums as large as the params, and far rows."""
    k, d = params.centers.shape
    return sum(int(array.nbytes) for array in params_to_arrays(params).values()) + 8 * int(min(k, FARTHEST) * d)


def _stop_all(state: State, stop: Stop) -> State:
    return replace(state, candidates=tuple(replace(candidate, stop=stop) for candidate in state.candidates))


def _same(one: Params, other: Params) -> bool:
    a, b = params_to_arrays(one), params_to_arrays(other)
    return all(np.array_equal(a[name], b[name]) for name in a)
