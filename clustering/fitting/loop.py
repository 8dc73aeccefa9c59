"""The loop of a fit: a pass makes statistics, an update makes new params, and the stopping rule is tested."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import Any

import numpy as np

from clustering.blas import one_blas_thread
from clustering.data.rows import Rows
from clustering.errors import DataError
from clustering.execution.apart import Failed
from clustering.execution.passes import PassResult, ReadStats
from clustering.fitting.acceleration import Acceleration, next_params
from clustering.models.components import TRACKED_CLUSTERS
from clustering.models.model import AnyModel, Statistics
from clustering.models.objective import rank_candidates
from clustering.options import FitOptions

MOST_STEPS = 6
"""Steps of an accelerated fit whose mean change the tolerance is compared with, at most."""
ROUNDING = 1e-12
"""Changes of the objective below this share of it are mostly rounding, which tells nothing about a longer step."""


class Stop(StrEnum):
    """Why a candidate stopped."""

    CONVERGED = "converged"
    """The statistics equal those of the pass before to the last bit, so no assignment changes any more."""
    TOLERANCE = "tolerance"
    """The objective changed by no more than the tolerance, relative to its scale."""
    REFRESH = "refresh"
    """The config asks for no further pass after the new rows (``fit.refresh``)."""
    FAILED = "failed"
    """Its update failed, and it was one of several that must not fail together; its last note says why."""
    MAX_ITERATIONS = "max_iterations"
    MAX_SECONDS = "max_seconds"


_DEFAULTS = FitOptions()


@dataclass(frozen=True)
class StoppingRule:
    """Tolerance, largest number of iterations and time limit."""

    tolerance: float = 0.0
    """Largest change of the objective, relative to its scale, that counts as convergence. The scale is J for k-means,
    the mean divergence for soft k-means, and 1 per unit of weight for a mixture. For 0 the statistics must be equal to
    the last bit. The change of an accelerated fit is that of a plain step, and the mean since the last longer one."""
    max_iterations: int = _DEFAULTS.max_iterations
    max_seconds: float | None = _DEFAULTS.max_seconds
    """Largest wall time of the whole fit, in seconds. A pass that has begun is finished."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """Params with their history on the way to convergence."""

    model: AnyModel
    params: Any
    history: tuple[tuple[float, float], ...] = ()
    """For each pass, the objective after the assignment step and after the update step."""
    sums: Mapping[str, Any] | None = None
    """Sums of the statistics of the last pass; None before the first pass."""
    track: tuple[Mapping[str, Any], ...] = ()
    """For each pass, numbers of each cluster ``(k,)`` by name."""
    stop: Stop | None = None
    """Why it stopped; None while it goes on."""
    notes: tuple[str, ...] = ()
    """Warnings for the user, such as clusters that were empty and restarted."""
    scale: float = math.nan
    """Size that the last change of the objective was divided by."""
    acceleration: Acceleration | None = None
    """State of the acceleration; None where all steps are plain."""

    @property
    def statistics(self) -> Callable[[Rows], Statistics]:
        """Function that makes the statistics of the rows of a block at the present params; picklable."""
        return self.model.for_pass(self.params)

    @property
    def objective(self) -> float:
        """Last objective, as the passes lower it; infinite before the first pass."""
        return self.history[-1][1] if self.history else float("inf")

    @property
    def trying(self) -> bool:
        """Whether the params are extrapolated, so that only the next pass shows whether they are better."""
        return self.acceleration is not None and self.acceleration.trying

    @property
    def plain(self) -> Candidate:
        """The candidate with the params of its last plain step."""
        if self.acceleration is None or not self.acceleration.trying:
            return self
        return replace(self, params=self.acceleration.trail[-1], acceleration=self.acceleration.after_rejection)


@dataclass(frozen=True, eq=False)
class State:
    """State of the loop between two passes. A fit can go on from it."""

    candidates: tuple[Candidate, ...]
    iteration: int = 0
    """Number of finished passes."""
    seconds: float = 0.0
    """Wall time of the finished passes, in seconds."""

    @property
    def done(self) -> bool:
        """Whether every candidate has stopped."""
        return all(candidate.stop for candidate in self.candidates)

    @property
    def best(self) -> Candidate:
        """The candidate with the least objective; the first among equals. One that failed comes last."""
        return rank_candidates([c for c in self.candidates if c.stop is not Stop.FAILED] or self.candidates)[0]


@dataclass(frozen=True)
class PassRecord:
    """Summary of one pass, for logs and callbacks."""

    iteration: int
    symbol: str
    """Short name of the objective."""
    objective: float
    """Objective of the best candidate after its update step, as users read it."""
    change: float | None
    """Change of the objective since the pass before, relative to its scale; None in the first pass."""
    active: int
    """Number of candidates in this pass."""
    rows: int
    """Number of rows assigned for each candidate."""
    seconds: float
    read_stats: ReadStats
    remaining_seconds: float | None
    """Estimated wall time to convergence, in seconds; None where no estimate is possible yet."""
    notes: tuple[str, ...] = ()
    """Warnings that this pass added."""
    sizes: tuple[float, ...] = ()
    """Share of each cluster of the best candidate in the total weight, by responsibilities; empty where k is large."""


def advance(candidate: Candidate, statistics: Statistics, rule: StoppingRule) -> Candidate:
    """Update one candidate from the statistics of a pass, and test whether it has converged.

    Parameters
    ----------
    candidate
        Candidate before the update.
    statistics
        Statistics of all rows at its params.
    rule
        Stopping rule.

    Returns
    -------
    Candidate
        Candidate with the new params; with the same params where it has converged.
    """
    # An objective that is not a number is no improvement either.
    if candidate.trying and not statistics.objective <= candidate.objective:
        return _rejected(candidate)
    # The update may restart an empty cluster although the sums are equal, so it is made in any case.
    try:
        update = candidate.model.update(candidate.params, statistics)
    except DataError:
        if candidate.trying:
            return _rejected(candidate)
        raise
    if candidate.trying and update.restarted:
        return _rejected(candidate)
    before, sums = candidate.sums, statistics.sums
    unchanged = before is not None and all(np.array_equal(sums[name], before[name]) for name in sums)
    # Equal sums give equal params, so further passes would change nothing.
    if unchanged and not update.restarted and not candidate.trying:
        history = (*candidate.history, (statistics.objective, statistics.objective))
        track = (*candidate.track, update.measures)
        return replace(candidate, history=history, sums=sums, track=track, stop=Stop.CONVERGED, scale=abs(update.scale))
    history = (*candidate.history, (statistics.objective, update.objective))
    notes = candidate.notes + tuple(f"pass {len(history)}: {note}" for note in update.notes)
    scale, track = abs(update.scale), (*candidate.track, update.measures)
    stop = None
    # A restarted cluster makes the objective jump, so that its change says nothing about convergence.
    if rule.tolerance > 0 and candidate.history and not update.restarted:
        stop = Stop.TOLERANCE if _settled(candidate, update.objective, rule.tolerance * scale) else None
    params, acceleration = update.params, candidate.acceleration
    if acceleration is not None and update.restarted:
        # No path leads over a restart.
        acceleration = Acceleration()
    elif acceleration is not None and stop is None:
        change = abs(candidate.objective - update.objective)
        extrapolate = change > ROUNDING * max(scale, abs(update.objective))
        params, acceleration = next_params(
            candidate.model, acceleration, candidate.params, params, len(history), extrapolate=extrapolate
        )
    return Candidate(candidate.model, params, history, sums, track, stop, notes, scale, acceleration)


def _settled(candidate: Candidate, objective: float, most: float) -> bool:
    """Return whether a plain step to an objective changes it by no more than `most`.

    One plain step from tried params may be short although longer steps still gain much. So the mean change since the
    last longer step that was better, over `MOST_STEPS` at most, must be as small.
    """
    if candidate.trying or not abs(candidate.objective - objective) <= most:
        return False
    if candidate.acceleration is None or candidate.acceleration.success is None:
        return True
    steps = min(MOST_STEPS, len(candidate.history) + 2 - candidate.acceleration.success)
    (_, first), *_ = candidate.history[-steps:]
    return abs(first - objective) <= steps * most


def _rejected(candidate: Candidate) -> Candidate:
    """Go back to the params of the last plain step, whose objective the pass leaves as it was."""
    history = (*candidate.history, (candidate.objective, candidate.objective))
    return replace(candidate.plain, history=history, track=(*candidate.track, candidate.track[-1]))


def iterate(
    state: State,
    run_pass: Callable[[Sequence[Any]], PassResult],
    rule: StoppingRule,
    *,
    apart: bool = False,
) -> Iterator[tuple[State, PassRecord]]:
    """Pass over the rows until every candidate has stopped, and yield after each pass.

    A killed fit resumes with the last state that was saved.

    Parameters
    ----------
    state
        State to start from.
    run_pass
        Makes one pass with the statistics functions of several candidates.
    rule
        Stopping rule.
    apart
        Whether a candidate that fails stops alone, and the others go on; `run_pass` then leaves the others alone too.

    Raises
    ------
    DataError
        If the statistics of a candidate give no valid params, unless `apart`.

    Yields
    ------
    tuple of State and PassRecord
        State after the pass, and its summary.
    """
    while not state.done:
        active = [i for i, candidate in enumerate(state.candidates) if not candidate.stop]
        candidates = list(state.candidates)
        # Factors of covariances and updates are sums too, whose order must not depend on the number of threads.
        with one_blas_thread():
            # All active candidates share one read of the rows.
            result = run_pass([state.candidates[i].statistics for i in active])
            for i, outcome in zip(active, result.statistics, strict=True):
                try:
                    if isinstance(outcome, Failed):
                        raise DataError(outcome.reason)
                    candidates[i] = advance(candidates[i], outcome, rule)
                except DataError as error:
                    if not apart:
                        raise
                    failed = candidates[i].plain
                    candidates[i] = replace(failed, stop=Stop.FAILED, notes=(*failed.notes, str(error)))
        before = state
        state = apply_limits(State(tuple(candidates), state.iteration + 1, state.seconds + result.seconds), rule)
        yield state, _record(before, state, len(active), result, rule)


def choose_best(state: State, run_pass: Callable[[Sequence[Any]], PassResult]) -> tuple[State, PassResult | None]:
    """Keep the best of several stopped candidates, by the objective at their final params.

    The last objective of a candidate belongs to the assignment before its last update, which only bounds the objective
    at the final params. So one more pass measures it, unless all candidates have converged to the last bit.

    Parameters
    ----------
    state
        State of a finished loop.
    run_pass
        Makes one pass with the statistics functions of several candidates.

    Returns
    -------
    State
        State with the best candidate alone.
    PassResult or None
        Result of the pass that compared them; None where no pass was needed.
    """
    if len(state.candidates) == 1:
        return state, None
    result = None
    candidates = state.candidates
    objectives = [candidate.objective for candidate in candidates]
    if any(candidate.stop is not Stop.CONVERGED for candidate in candidates):
        result = run_pass([candidate.statistics for candidate in candidates])
        objectives = [statistics.objective for statistics in result.statistics]
    # Ranking looks at the last objective of a history, so the measured one is put there.
    seen = [
        replace(candidate, history=((objective, objective),))
        for candidate, objective in zip(candidates, objectives, strict=True)
    ]
    best = candidates[seen.index(rank_candidates(seen)[0])]
    return replace(state, candidates=(best,)), result


def apply_limits(state: State, rule: StoppingRule) -> State:
    """Stop all candidates where the rule allows no further pass.

    Parameters
    ----------
    state
        State after a pass, or before the first.
    rule
        Stopping rule.
    """
    reason = None
    if state.iteration >= rule.max_iterations:
        reason = Stop.MAX_ITERATIONS
    elif rule.max_seconds is not None and state.seconds >= rule.max_seconds:
        reason = Stop.MAX_SECONDS
    if reason is None:
        return state
    # A candidate that has converged keeps its own reason. Params that no pass has tried are no result.
    return replace(state, candidates=tuple(c if c.stop else replace(c.plain, stop=reason) for c in state.candidates))


def _record(before: State, after: State, active: int, result: PassResult, rule: StoppingRule) -> PassRecord:
    """Summarise a pass from the states before and after it."""
    best = after.best
    model = best.model
    pairs = zip(before.candidates, after.candidates, strict=True)
    notes = tuple(note for old, new in pairs for note in new.notes[len(old.notes) :])
    change = None
    if len(best.history) > 1 and best.scale:
        # Passes lower the objective; users may read it with the opposite sign, as for a log-likelihood.
        fall = (best.history[-2][1] - best.objective) / best.scale
        change = math.copysign(fall, model.to_user_objective(-fall, 1.0))
    weights = np.zeros(0) if best.sums is None else best.sums["weight"]
    weight = float(weights.sum())
    sizes = tuple((weights / weight).tolist()) if weight > 0 and len(weights) <= TRACKED_CLUSTERS else ()
    return PassRecord(
        after.iteration, model.objective.symbol, model.to_user_objective(best.objective, weight), change, active,
        _rows(result), result.seconds, result.read_stats, _remaining(after, result, rule), notes, sizes,
    )  # fmt: skip


def _rows(result: PassResult) -> int:
    """Return the number of rows of a pass; 0 where every candidate failed."""
    return next((one.count for one in result.statistics if not isinstance(one, Failed)), 0)


def _remaining(state: State, result: PassResult, rule: StoppingRule) -> float | None:
    """Estimate the wall time to convergence in seconds; None where the recent passes allow no estimate.

    Near convergence, the decrease of the objective shrinks by a constant factor per pass.
    """
    if state.done:
        return 0.0
    # Longer steps alternate with plain ones, so that only pairs of passes are alike.
    stride = 1 if state.best.acceleration is None else 2
    objectives = [after for _, after in state.best.history[-1 - 3 * stride :: stride]]
    falls = [a - b for a, b in pairwise(objectives)]
    if len(falls) < 3 or falls[-1] <= 0 or falls[0] <= falls[-1]:
        return None
    rate = (falls[-1] / falls[0]) ** (1 / (stride * (len(falls) - 1)))
    if rate >= 1.0:
        return None
    # For tolerance 0 the objective settles at about nine digits.
    last = stride * max(rule.tolerance, 1e-9) * state.best.scale
    if not 0 < last < falls[-1]:
        return result.seconds
    passes = math.ceil(max(1.0, math.log(last / falls[-1]) / math.log(rate)))
    seconds = min(passes, rule.max_iterations - state.iteration) * result.seconds
    return seconds if rule.max_seconds is None else min(seconds, rule.max_seconds - state.seconds)
