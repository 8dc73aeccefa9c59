"""From pass 0 to the candidates that go over the full data: seeding and restarts, all on the sample in memory."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.plan import MIB
from clustering.data.source import open_source
from clustering.errors import ConfigError, DataError
from clustering.execution.engine import Engine, connect
from clustering.execution.passes import Passed, Rounds, rounds
from clustering.fitting.loop import Candidate, Rule, State, halted, iterate
from clustering.fitting.seeding import Init, as_centers, generators, seed_centers
from clustering.models.kmeans import KMeansParams
from clustering.models.survey import Sample, Survey, SurveyModel, priority_floor

Array = NDArray[np.float64]

SCOUT_ROWS = 25_000
"""Rows of the nested sample on which restarts compete, or 200 per cluster where that is more."""
SCOUT_TOLERANCE = 1e-4
POLISH_PASSES = 300
_SAMPLE_SHARE = 16
_SLICE = 16_384


@dataclass(frozen=True)
class Options:
    """How to fit; see the keys of `fit` in the config.

    Raises
    ------
    ConfigError
        For a value outside its range.
    """

    seed: int = 0
    restarts: int = 10
    """Starts that compete on the sample."""
    finalists: int = 1
    """Best of them carried to the full data."""
    sample_rows: int = 200_000
    init: Init | NDArray[Any] = "kmeans++"
    """``kmeans++``, ``random``, or centers ``(k, d)`` in the data's units, which no restart competes with."""
    rule: Rule = field(default_factory=Rule)

    def __post_init__(self) -> None:
        for name, least in (("restarts", 1), ("finalists", 1), ("sample_rows", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise ConfigError(f"{name} is {value!r}; a whole number of {least} or more is needed")
        if self.seed >= 2**63:
            raise ConfigError(f"seed is {self.seed}; a whole number below 2**63 is needed")
        if self.finalists > self.restarts:
            raise ConfigError(
                f"finalists is {self.finalists} and restarts is {self.restarts}; there cannot be more finalists"
            )
        if isinstance(self.init, str) and self.init not in ("kmeans++", "random"):
            raise ConfigError(f"init is {self.init!r}; allowed: kmeans++, random, or an array of centers (k, d)")


def survey(rounds: Rounds, k: int, options: Options, memory: int) -> tuple[Survey, Passed]:
    """Make pass 0 and check that k clusters can be found.

    Parameters
    ----------
    memory
        Memory budget of a worker, in bytes; a sixteenth bounds the row sample.

    Raises
    ------
    DataError
        If no row takes part, all weights are zero, or k is above the number of distinct rows.
    """
    fitting = max(k, memory // _SAMPLE_SHARE // max(1, rounds.source.row_bytes))
    m = min(options.sample_rows, fitting)
    even = rounds.source.weights is None and rounds.source.mask is None
    floor = priority_floor(rounds.plan.cells, m) if even else 0.0
    passed = rounds.run([SurveyModel(options.seed, m, k, floor).statistics])
    found: Survey = passed.statistics[0]
    if floor and len(found.sample.weights) < min(m, found.count):
        # Most cells turned out to be missing: without a floor the sample gets its rows.
        again = rounds.run([SurveyModel(options.seed, m, k).statistics])
        found = again.statistics[0]
        passed = Passed((found,), passed.reading + again.reading, passed.seconds + again.seconds)
    if found.count == 0:
        raise DataError(
            f"no row takes part: all {found.cells} cells are masked or have missing features; "
            "check source.mask, source.select and the fill values"
        )
    if found.weight <= 0:
        raise DataError(f"the weights of all {found.count} rows are zero; check source.weights")
    if not np.isfinite(found.scatter).all():
        raise DataError(
            f"the values reach {max(-found.least.min(), found.greatest.max()):.3g}, "
            "and their squares overflow float64; rescale the data"
        )
    distinct = len(found.distinct.digests)
    if distinct < k:
        raise DataError(
            f"k is {k} and the data have {distinct} distinct row{'s' * (distinct != 1)} of positive weight; lower k"
        )
    return found, passed


def start(model: Any, found: Survey, options: Options, engine: Engine, seconds: float) -> State:
    """Choose the candidates for the full data.

    Restarts compete on a nested sample; the best are then run to convergence on the whole sample, so that the full
    data are passed over a few times only.

    Parameters
    ----------
    seconds
        Wall time since the fit began, in seconds; it counts towards ``max_seconds``, as the sample's does.
    """
    began = time.perf_counter()
    shift = found.mean
    k, d = model.k, len(shift)
    spread = float(np.sum(found.variance) * found.weight)
    if not isinstance(options.init, str):
        given = Candidate(KMeansParams(shift, as_centers(options.init, k, d) - shift, spread))
        return halted(State((given,), seconds=seconds), options.rule)
    scouts = found.sample.highest(max(SCOUT_ROWS, 200 * k))
    rows = scouts.values.astype(np.float64) - shift
    spare = found.distinct.values.astype(np.float64) - shift
    weights = scouts.represented
    seed_one = partial(seed_centers, rows, weights, k, options.init, spare)
    with _here(engine) as local:
        streams = generators(options.seed, options.restarts)
        starts = local.compute(
            {("seed", i): (partial(seed_one, s),) for i, s in enumerate(streams)},
            [("seed", i) for i in range(len(streams))],
        )
    seeded = [Candidate(KMeansParams(shift, centers)) for centers in starts]
    if any(len(centers) < k for centers in starts):
        raise DataError(
            f"k is {k} and fewer rows differ once the mean is taken off, in float64: the values span too many orders "
            "of magnitude; lower k, or rescale the data"
        )
    scouting = Rule(max(SCOUT_TOLERANCE, options.rule.tolerance), POLISH_PASSES)
    scouted = _settle(model, State(tuple(seeded)), scouts, scouting, engine)
    ranked = sorted(scouted.candidates, key=lambda candidate: candidate.objective)
    finalists = tuple(Candidate(candidate.params) for candidate in ranked[: options.finalists])
    polished = _settle(model, State(finalists), found.sample, Rule(options.rule.tolerance, POLISH_PASSES), engine)
    candidates = tuple(Candidate(replace(c.params, spread=spread)) for c in polished.candidates)
    return halted(State(candidates, seconds=seconds + time.perf_counter() - began), options.rule)


def _settle(model: Any, state: State, sample: Sample, rule: Rule, engine: Engine) -> State:
    """Run the loop on a sample in memory."""
    source = open_source(sample.values, weights=sample.represented)
    plan = source.plan(block_bytes=_SLICE * source.row_bytes)
    with _here(engine) as local, rounds(source, plan, local, memory=4 * sample.values.nbytes + 64 * MIB) as inside:
        for after, _ in iterate(model, halted(state, rule), inside.run, rule):
            state = after
    return state


def _here(engine: Engine) -> AbstractContextManager[Engine]:
    """Stay in this process: sending a sample to a cluster would take longer than working on it."""
    return nullcontext(engine) if engine.client is None else connect("threads")
