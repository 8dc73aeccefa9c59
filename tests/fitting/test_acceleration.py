from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from brute import KINDS
from hypothesis import given
from hypothesis import strategies as st

import clustering as c
from clustering.data.rows import in_memory_rows
from clustering.errors import DataError
from clustering.execution.passes import PassResult, ReadStats
from clustering.fitting.acceleration import LEAST_BOUND, Acceleration, next_params
from clustering.fitting.loop import Candidate, State, Stop, StoppingRule, _settled, advance, iterate
from clustering.models.param_arrays import params_to_arrays

pytestmark = pytest.mark.filterwarnings("ignore::clustering.ClusteringWarning")

MODELS: dict[str, Any] = {
    **{f"mixture-{kind}": c.GaussianMixture(4, kind) for kind in KINDS},
    "soft": c.SoftKMeans(4, beta=0.5),
    "soft-mahalanobis": c.SoftKMeans(4, 1.0, "mahalanobis"),
    "soft-cosine": c.SoftKMeans(4, 8.0, "cosine"),
    "soft-kullback": c.SoftKMeans(4, 2.0, "kullback_leibler"),
    "soft-itakura": c.SoftKMeans(4, 4.0, "itakura_saito"),
    "directions": c.VonMisesFisher(4),
}
models = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


CENTERS = np.array([[6.0, 1.5, 1.5], [1.5, 6.0, 1.5], [1.5, 1.5, 6.0], [5.0, 5.0, 5.0]])


def rows_of(seed: int, n: int = 300) -> np.ndarray:
    """Positive rows of four groups that overlap."""
    rng = np.random.default_rng(seed)
    return np.abs(CENTERS[rng.integers(4, size=n)] + rng.standard_normal((n, 3)) * rng.uniform(1.0, 1.6, (1, 3)))


def params_of(model: Any, values: np.ndarray, passes: int = 0) -> Any:
    """Params after some plain steps from four of the rows."""
    fit = c.fit(values, model, init=CENTERS + 0.5, max_iterations=passes, tolerance=0, accelerate="none")
    return fit.params


def states(model: Any, values: np.ndarray, params: Any, rule: StoppingRule, acceleration: Any) -> list[State]:
    """All states of a run, the first before its first pass."""
    rows = in_memory_rows(values)

    def run_pass(statistics: Sequence[Any]) -> PassResult:
        return PassResult(tuple(make(rows) for make in statistics), ReadStats(), 1.0)

    start = State((Candidate(model, params, acceleration=acceleration),))
    return [start, *(state for state, _ in iterate(start, run_pass, rule))]


def same(one: Any, other: Any) -> bool:
    a, b = params_to_arrays(one), params_to_arrays(other)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@lru_cache
def overlapping() -> np.ndarray:
    """Rows of five groups in a line, each near the next: the components of a mixture sort themselves out slowly."""
    rng = np.random.default_rng(3)
    return np.concatenate([rng.normal(2.2 * i, 1.0, (400, 1)) for i in range(5)])


@models
@pytest.mark.parametrize("seed", range(3))
def test_the_objective_never_rises(model: Any, seed: int) -> None:
    values = rows_of(seed)
    run = states(model, values, params_of(model, values), StoppingRule(0.0, 60), Acceleration())
    assert any(state.best.trying for state in run)
    steps = np.array(run[-1].best.history).ravel()
    assert np.isfinite(steps).all()
    # The floor of the variances lets plain steps of a mixture rise by a little too.
    assert np.diff(steps).max() <= 1e-9 * np.abs(steps).max()


@models
def test_the_optimum_is_that_of_plain_steps(model: Any) -> None:
    values = rows_of(1)
    start = params_of(model, values, 5)
    ends = [
        states(model, values, start, StoppingRule(1e-13, 3000), acceleration)[-1].best
        for acceleration in (None, Acceleration())
    ]
    assert [end.stop for end in ends] == [Stop.TOLERANCE] * 2
    plain, fast = ends
    assert fast.objective == pytest.approx(plain.objective, rel=1e-9)
    np.testing.assert_allclose(fast.params.centers, plain.params.centers, rtol=0, atol=1e-3)
    assert len(fast.history) < max(20, len(plain.history))


@pytest.mark.parametrize("kind", KINDS)
def test_where_plain_steps_are_short_half_the_passes_are_enough(kind: Any) -> None:
    values, init = overlapping(), overlapping()[[0, 1, 2, 500, 900]]
    options: dict[str, Any] = {"init": init, "tolerance": 1e-12, "max_iterations": 3000}
    plain, fast = (c.fit(values, c.GaussianMixture(5, kind), accelerate=way, **options) for way in ("none", "auto"))
    near = [int(np.argmax(fit.history[:, 0] >= fit.history.max() - 1e-6)) for fit in (plain, fast)]
    assert near[0] > 60
    assert fast.objective == pytest.approx(plain.objective, abs=1e-6)
    assert near[1] <= near[0] / 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_tolerance_ends_no_lower_than_that_of_plain_steps(kind: Any) -> None:
    values = overlapping()
    plain, fast = (
        c.fit(values, c.GaussianMixture(5, kind), init=values[[0, 1, 2, 500, 900]], accelerate=way)
        for way in ("none", "auto")
    )
    assert fast.objective >= plain.objective - 1e-6


@models
def test_without_it_every_step_is_an_update(model: Any) -> None:
    values = rows_of(2)
    rows, params, objectives = in_memory_rows(values), params_of(model, values), []
    for _ in range(8):
        statistics = model.statistics(params, rows)
        params = model.update(params, statistics).params
        objectives.append(statistics.objective)
    run = states(model, values, params_of(model, values), StoppingRule(0.0, 8), None)
    assert [first for first, _ in run[-1].best.history] == objectives
    assert same(run[-1].best.params, params)


@pytest.mark.parametrize("model", [c.KMeans(4), c.VonMisesFisher(4, "hard")], ids=["kmeans", "hard-directions"])
def test_models_that_are_not_smooth_take_plain_steps(model: Any) -> None:
    values = rows_of(0)
    plain, fast = (c.fit(values, model, init=values[:4], accelerate=way) for way in ("none", "auto"))
    np.testing.assert_array_equal(fast.history, plain.history)
    assert same(fast.params, plain.params)


@models
def test_a_run_goes_on_from_any_state_as_if_never_stopped(model: Any) -> None:
    values, rule = rows_of(4), StoppingRule(0.0, 14)
    run = states(model, values, params_of(model, values), rule, Acceleration())
    rows = in_memory_rows(values)

    def run_pass(statistics: Sequence[Any]) -> PassResult:
        return PassResult(tuple(make(rows) for make in statistics), ReadStats(), 1.0)

    for cut in run[1:-1]:
        *_, (end, _) = iterate(cut, run_pass, rule)
        assert end.best.history == run[-1].best.history
        assert same(end.best.params, run[-1].best.params)


@models
@pytest.mark.parametrize("most", range(3, 9))
def test_a_limit_leaves_no_params_that_were_not_measured(model: Any, most: int) -> None:
    values = rows_of(5)
    *_, before, end = states(model, values, params_of(model, values), StoppingRule(0.0, most), Acceleration())
    assert end.best.stop is Stop.MAX_ITERATIONS
    assert not end.best.trying
    statistics = model.statistics(before.best.params, in_memory_rows(values))
    rejected = before.best.trying and same(end.best.params, before.best.plain.params)
    assert rejected or same(end.best.params, model.update(before.best.params, statistics).params)
    # The last objective bounds that of the final params.
    final = model.statistics(end.best.params, in_memory_rows(values)).objective
    assert final <= end.best.objective + 1e-9 * abs(end.best.objective)


def trying(worse: Any) -> tuple[Candidate, np.ndarray]:
    """A candidate whose tried params are replaced by others."""
    values = rows_of(6)
    run = states(
        MODELS["mixture-full"], values, params_of(MODELS["mixture-full"], values), StoppingRule(0.0, 9), Acceleration()
    )
    candidate = next(state.best for state in run if state.best.trying)
    return replace(candidate, params=worse(candidate.params)), values


def farther(params: Any) -> Any:
    return replace(params, centers=params.centers + 5.0)


def one_empty(params: Any) -> Any:
    weights = np.array([1.0, 1.0, 1.0, 0.0]) / 3
    return replace(params, centers=params.centers + 1e6 * np.eye(4)[:, 3:], weights=weights)


def infinite(params: Any) -> Any:
    return replace(params, centers=params.centers + 1e200)


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
@pytest.mark.parametrize("worse", [farther, one_empty, infinite])
def test_a_worse_step_is_given_up_for_the_plain_one(worse: Any) -> None:
    candidate, values = trying(worse)
    statistics = candidate.model.statistics(candidate.params, in_memory_rows(values))
    after = advance(candidate, statistics, StoppingRule(1e-3))
    assert same(after.params, candidate.plain.params)
    assert after.history == (*candidate.history, (candidate.objective, candidate.objective))
    assert len(after.track) == len(after.history)
    assert after.stop is None
    assert not after.notes
    assert after.acceleration is not None
    assert candidate.acceleration is not None
    assert not after.acceleration.trying
    assert after.acceleration.bound <= max(LEAST_BOUND, candidate.acceleration.bound)


def test_a_step_whose_update_fails_is_given_up_and_a_plain_one_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    candidate, values = trying(lambda params: params)
    statistics = candidate.model.statistics(candidate.params, in_memory_rows(values))

    def update(*_: Any) -> Any:
        raise DataError("singular")

    monkeypatch.setattr(c.GaussianMixture, "update", update)
    assert same(advance(candidate, statistics, StoppingRule()).params, candidate.plain.params)
    with pytest.raises(DataError, match="singular"):
        advance(candidate.plain, statistics, StoppingRule())


def test_a_path_ends_where_a_component_restarts() -> None:
    model, values = MODELS["mixture-diagonal"], rows_of(7)
    params = params_of(model, values, 3)
    # A component without weight is placed anew by the update.
    params = replace(params, weights=np.array([0.5, 0.3, 0.2, 0.0]), centers=params.centers + 1e6 * np.eye(4)[:, 3:])
    candidate = Candidate(model, params, ((1e9, 1e9),), None, ({},), acceleration=Acceleration((params,), 64.0))
    after = advance(candidate, model.statistics(params, in_memory_rows(values)), StoppingRule(1e-3))
    assert after.notes
    assert after.acceleration is not None
    assert after.acceleration.trail == ()
    assert not after.acceleration.trying


@given(st.floats(0.05, 0.98), st.floats(1.0, 64.0))
def test_the_step_length_is_that_of_the_rate_up_to_its_bound(rate: float, bound: float) -> None:
    # Steps that shrink by a constant rate end at step / (1 − rate), which is the step length less one.
    model = c.SoftKMeans(1)
    at = [model.params_from_arrays({"shift": np.zeros(1), "centers": np.array([[x]]), "beta": np.ones(())})
          for x in (0.0, 1.0, 1.0 + rate)]  # fmt: skip
    params, after = next_params(model, Acceleration((at[0],), bound), at[1], at[2], 3, extrapolate=True)
    length = 1.0 / (1.0 - rate)
    if min(length, bound) < 1.01:
        assert params is at[2]
        return
    assert after.length == pytest.approx(min(length, bound))
    if length <= bound:
        assert params.centers[0, 0] == pytest.approx(length)
    kept, plain = next_params(model, Acceleration((at[0],), bound), at[1], at[2], 3, extrapolate=False)
    assert kept is at[2]
    assert plain.length is None


@pytest.mark.parametrize(
    ("changes", "success", "settled"),
    [
        ([5.0, 0.5], None, True),
        ([5.0, 1.5], None, False),
        # The longer step, the pass before the last, gained much.
        ([5.0, 3.0, 0.5], 3, False),
        ([5.0, 1.2, 0.5], 3, True),
        # A rejected step changes nothing, and says little.
        ([5.0, 2.8, 0.9, 0.0, 0.9], 3, False),
        # A longer step of long ago does not count for ever.
        ([50.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9], 2, True),
    ],
)
def test_the_tolerance_is_that_of_a_plain_step_and_of_the_mean_since_the_last_longer_one(
    changes: list[float], success: int | None, settled: bool
) -> None:
    objectives = (100.0 - np.cumsum([0.0, *changes])).tolist()
    history = tuple((objective, objective) for objective in objectives[:-1])
    acceleration = Acceleration(success=success)
    candidate = Candidate(c.KMeans(1), None, history, acceleration=acceleration)
    assert _settled(candidate, objectives[-1], 1.0) == settled
    assert not _settled(replace(candidate, acceleration=replace(acceleration, length=2.0)), objectives[-1], 1.0)
