"""The loop on a sample of rows in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from clustering.data.access import open_source
from clustering.data.plan import MIB
from clustering.data.rows import Rows
from clustering.execution.engine import Engine, connect
from clustering.execution.passes import PassRunner, pass_runner
from clustering.fitting.loop import Candidate, State, StoppingRule, apply_limits, iterate
from clustering.models.survey import RowSample

T = TypeVar("T")

_SLICE = 16_384
"""Rows of a block."""


@dataclass(frozen=True)
class SampleRunner:
    """Passes over rows of the sample; see `clustering.models.starts.SamplePasses`."""

    runner: PassRunner

    def statistics(self, functions: Sequence[Callable[[Rows], T]]) -> Sequence[T]:
        """Add up the statistics of all rows, for each function.

        Parameters
        ----------
        functions
            Make the statistics of the rows of a block.
        """
        return self.runner.run(functions).statistics

    def converge(
        self, model: Any, starts: Sequence[Any], tolerance: float, most_passes: int, seconds: float | None = None
    ) -> Sequence[Candidate]:
        """Run the loop until every start has stopped, side by side; in the order of the starts.

        Parameters
        ----------
        model
            The model of the params.
        starts
            Params to start from.
        tolerance, most_passes, seconds
            When to stop; see `StoppingRule`.
        """
        rule = StoppingRule(tolerance, most_passes, seconds)
        state = apply_limits(State(tuple(Candidate(model, start) for start in starts)), rule)
        for after, _ in iterate(state, self.runner.run, rule):
            state = after
        return state.candidates


@contextmanager
def sample_passes(sample: RowSample, engine: Engine) -> Iterator[SampleRunner]:
    """Make passes over the rows of a sample, each with the weight that it represents.

    Parameters
    ----------
    sample
        Rows in memory.
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
        yield SampleRunner(runner)
