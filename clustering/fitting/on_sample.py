"""Runs the loop on a row sample in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from clustering.blas import one_blas_thread
from clustering.data.access import open_source
from clustering.data.plan import MIB
from clustering.data.rows import Rows
from clustering.execution.engine import Engine, connect
from clustering.execution.passes import PassRunner, pass_runner
from clustering.fitting.acceleration import Acceleration
from clustering.fitting.loop import Candidate, State, StoppingRule, apply_limits, iterate
from clustering.fitting.recalled_passes import recalled_passes
from clustering.models.survey import RowSample

T = TypeVar("T")

_SLICE = 16_384
"""Number of rows of a block of the sample."""


@dataclass(frozen=True)
class SampleRunner:
    """Runs passes over sampled rows; see `clustering.models.starts.SamplePasses`."""

    runner: PassRunner
    acceleration: Acceleration | None = None
    """State of the acceleration before the first pass of a run; None where all steps are plain."""

    def statistics(self, functions: Sequence[Callable[[Rows], T]]) -> Sequence[T]:
        """Add up the statistics of all rows, for each function.

        Parameters
        ----------
        functions
            Functions that make the statistics of the rows of a block.
        """
        return self.runner.run(functions).statistics

    def converge(
        self, model: Any, starts: Sequence[Any], tolerance: float, most_passes: int, seconds: float | None = None
    ) -> Sequence[Candidate]:
        """Run the loop from several starts side by side, until all have stopped.

        Parameters
        ----------
        model
            The model of the params.
        starts
            Params to start from.
        tolerance
            Relative change of the objective at which a start stops.
        most_passes
            Largest number of passes.
        seconds
            Largest wall time, in seconds; None for no limit.

        Returns
        -------
        sequence of Candidate
            Stopped candidates, in the order of the starts.
        """
        rule = StoppingRule(tolerance, most_passes, seconds)
        candidates = (Candidate(model, start, acceleration=self.acceleration) for start in starts)
        state = apply_limits(State(tuple(candidates)), rule)
        with recalled_passes(self.runner, self.runner.plan.cells) as passes:
            for after, _ in iterate(state, passes.run, rule):
                state = after
        return state.candidates


def threads_for(engine: Engine) -> AbstractContextManager[Engine]:
    """Offer the engine for work on a sample: that of the fit, or threads of this process in place of a cluster.

    Parameters
    ----------
    engine
        Engine of the fit.
    """
    return nullcontext(engine) if engine.client is None else connect("threads")


@contextmanager
def sample_passes(
    sample: RowSample, engine: Engine, acceleration: Acceleration | None = None
) -> Iterator[SampleRunner]:
    """Offer passes over the rows of a sample, where each row has the weight that it represents.

    Parameters
    ----------
    sample
        Sampled rows.
    engine
        Engine of the fit. In place of a cluster, threads of this process are used: sending the sample to workers would
        take longer than the work on it.
    acceleration
        State of the acceleration before the first pass of a run; None where all steps are plain.

    Yields
    ------
    SampleRunner
        Runner of passes, valid inside the context.
    """
    # Marginalizing keeps missing features, which a sample of complete rows does not have.
    source = open_source(sample.values, weights=sample.represented, missing="marginalize")
    plan = source.plan(block_bytes=_SLICE * source.row_bytes)
    with (
        threads_for(engine) as local_engine,
        # A pass over a sample is short, so the limit is not set for each anew.
        one_blas_thread(),
        # Half of the memory is for the block cache, so that it holds every row of the sample.
        pass_runner(source, plan, local_engine, memory=4 * sample.values.nbytes + 64 * MIB) as runner,
    ):
        yield SampleRunner(runner, acceleration)
