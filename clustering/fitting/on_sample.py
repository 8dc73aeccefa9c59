"""The loop on a sample of rows in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from clustering.data.access import open_source
from clustering.data.plan import MIB
from clustering.execution.engine import Engine, connect
from clustering.execution.passes import PassRunner, pass_runner
from clustering.fitting.loop import Candidate, State, StoppingRule, apply_limits, iterate
from clustering.models.model import Model
from clustering.models.survey import RowSample

_SLICE = 16_384
"""Rows of a block."""


@contextmanager
def sample_passes(sample: RowSample, engine: Engine) -> Iterator[PassRunner]:
    """Make passes over the rows of a sample, each with the weight that it represents.

    Parameters
    ----------
    engine
        A cluster is passed by: sending it a sample would take longer than working on the sample here.
    """
    source = open_source(sample.values, weights=sample.represented, missing="marginalize")
    plan = source.plan(block_bytes=_SLICE * source.row_bytes)
    local = nullcontext(engine) if engine.client is None else connect("threads")
    with (
        local as local_engine,
        pass_runner(source, plan, local_engine, memory=4 * sample.values.nbytes + 64 * MIB) as runner,
    ):
        yield runner


def converge(model: Model, runner: PassRunner, starts: Sequence[Any], rule: StoppingRule) -> State:
    """Run the loop until every start has stopped, side by side."""
    state = State(tuple(map(Candidate, starts)))
    for after, _ in iterate(model, apply_limits(state, rule), runner.run, rule):
        state = after
    return state
