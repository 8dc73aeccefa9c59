"""A fit that goes on from an earlier one, with its params and the block records that it kept.

The first pass takes the statistics of unchanged blocks from the ledger of the earlier version, and reads only the other
blocks. Statistics are added in the same tree as in a full pass, so the update equals that of a pass over all rows to
the last bit. These are the partial E-steps of Neal and Hinton (1998, doi:10.1007/978-94-011-5014-9_12), without their
approximation: recorded statistics are used only at the params they were made with.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np

from clustering.execution.passes import BlockRecords, PassRunner
from clustering.fitting.acceleration import Acceleration
from clustering.fitting.fitted_model import FittedModel
from clustering.fitting.loop import Candidate, PassRecord, State, Stop, StoppingRule, apply_limits, iterate
from clustering.models.farthest import FARTHEST
from clustering.models.model import Params
from clustering.models.param_arrays import params_to_arrays

Refresh = Literal["full", "new-only", "none"]


def continue_fit(
    runner: PassRunner,
    previous: FittedModel,
    rule: StoppingRule,
    refresh: Refresh,
    records: BlockRecords | None,
    unchanged: bool,
    acceleration: Acceleration | None = None,
) -> tuple[State, PassRecord | None]:
    """Update the params of an earlier fit to the present rows, by one pass at most.

    Parameters
    ----------
    runner
        Pass runner with the plan that the records were made with.
    previous
        The earlier fit.
    rule
        Stopping rule.
    refresh
        What to do about new rows: ``none`` keeps the params, ``new-only`` makes one update, ``full`` lets the loop go
        on to convergence.
    records
        Block records of unchanged blocks, made at the params of `previous`; None where there are none.
    unchanged
        Whether all blocks are unchanged.
    acceleration
        State of the acceleration before the first pass; None where all steps are plain.

    Returns
    -------
    State
        State from which the loop goes on; done where no further pass is needed.
    PassRecord or None
        Record of the update; None where none was made.
    """
    # The earlier params, which are returned where no update is due.
    model, as_it_was = previous.model, State((Candidate(previous.model, previous.params),))
    if refresh == "none":
        return _stop_all(as_it_was, Stop.REFRESH), None
    # With refresh "full", a fit that a limit stopped goes on even if no row is new.
    if unchanged and (previous.converged or refresh == "new-only"):
        return _stop_all(as_it_was, previous.stop), None
    if apply_limits(as_it_was, rule).done:
        return apply_limits(as_it_was, rule), None
    # Bounds that were made of the earlier rows, such as the total scatter, do not hold for the present ones.
    first = Candidate(model, model.without_survey_of(previous.params), acceleration=acceleration)
    start = State((first,))
    state, record = next(iterate(start, partial(runner.run, records=records), rule))
    if _same(state.best.params, start.best.params):
        # The new rows changed no param, so another pass would give the same params again.
        return _stop_all(state, Stop.CONVERGED), record
    if refresh == "new-only":
        return _stop_all(state, Stop.REFRESH), record
    return state, record


def statistics_bytes(params: Params) -> int:
    """Estimate the size of the statistics of a block in bytes: sums as large as the params, and farthest rows.

    Parameters
    ----------
    params
        Params at which the statistics are made.
    """
    k, d = params.centers.shape
    return sum(int(array.nbytes) for array in params_to_arrays(params).values()) + 8 * int(min(k, FARTHEST) * d)


def _stop_all(state: State, stop: Stop) -> State:
    """Mark every candidate as stopped for this reason."""
    return replace(state, candidates=tuple(replace(candidate, stop=stop) for candidate in state.candidates))


def _same(one: Params, other: Params) -> bool:
    """Return whether two params are equal to the last bit."""
    a, b = params_to_arrays(one), params_to_arrays(other)
    return all(np.array_equal(a[name], b[name]) for name in a)
