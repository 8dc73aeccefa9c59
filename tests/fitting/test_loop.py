from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

import clustering as c
from clustering.data.access import open_source
from clustering.data.rows import Rows, in_memory_rows
from clustering.execution.engine import connect
from clustering.execution.passes import PassResult, ReadStats, pass_runner
from clustering.fitting.labelling import LabelStatistics, label_blocks
from clustering.fitting.loop import (
    Candidate,
    PassRecord,
    State,
    Stop,
    StoppingRule,
    _remaining,
    advance,
    apply_limits,
    iterate,
)
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.param_arrays import params_to_arrays

seeds = st.integers(0, 2**32 - 1)


def state_of(*starts: Any) -> State:
    centers = [np.asarray(start, np.float64) for start in starts]
    return State(
        tuple(Candidate(KMeans(len(start)), KMeansParams(np.zeros(start.shape[1]), start)) for start in centers)
    )


class Passes:
    """Passes over rows in memory that are said to take one second each."""

    def __init__(self, values: np.ndarray, weights: np.ndarray | None = None) -> None:
        self.rows = in_memory_rows(values, weights)
        self.made: list[int] = []

    def __call__(self, candidates: Sequence[Any]) -> PassResult:
        self.made.append(len(candidates))
        return PassResult(
            tuple(statistics(self.rows) for statistics in candidates), ReadStats(1, self.rows.nbytes), 1.0
        )


def run(
    values: np.ndarray, state: State, rule: StoppingRule, weights: np.ndarray | None = None
) -> list[tuple[State, PassRecord]]:
    return list(iterate(state, Passes(values, weights), rule))


class Problem:
    """Rows with duplicates, constant columns and weights; starts among the rows, far off, or all at one place."""

    def __init__(self, seed: int, n: int, d: int, share: float, kind: str) -> None:
        rng = np.random.default_rng(seed)
        self.values = rng.standard_normal((n, d)) if kind == "spread" else rng.integers(-2, 3, (n, d)).astype(float)
        if d > 1 and kind == "constant":
            self.values[:, 1] = 7.25
        self.weights = rng.random(n) + 0.1 if seed % 2 else np.ones(n)
        distinct = np.unique(self.values, axis=0)
        self.k = max(1, int(share * len(distinct)))
        self.init = rng.permutation(distinct)[: self.k]
        if kind == "far":
            self.init = self.init + 50.0 * (rng.random((self.k, 1)) < 0.5)
        elif kind == "together":
            self.init = np.repeat(self.init[:1], self.k, axis=0)

    def fit(self, **options: Any) -> c.Fit:
        return c.fit(self.values, c.KMeans(self.k), init=self.init, weights=self.weights, **options)


problems = st.builds(
    Problem,
    seeds,
    st.integers(1, 60),
    st.integers(1, 4),
    st.sampled_from([0.1, 0.5, 1.0]),
    st.sampled_from(["spread", "few-places", "constant", "far", "together"]),
)


@given(problems)
def test_the_objective_never_rises(problem: Problem) -> None:
    fit = problem.fit()
    assert fit.converged
    assert np.isfinite(fit.centers).all()
    steps = fit.history.ravel()
    # The objective after an update is exact to a rounding of the one before it, a center to a rounding of its rows.
    rounding = 1e-12 * np.repeat(fit.history[:, 0], 2)[:-1] + 1e-30 * np.sum(problem.values**2)
    assert (np.diff(steps) <= rounding).all()
    assert fit.objective == fit.history[-1, 1]


@given(problems)
def test_a_converged_fit_is_a_fixed_point(problem: Problem) -> None:
    fit = problem.fit()
    rows = in_memory_rows(problem.values, problem.weights)
    update = fit.model.update(fit.params, fit.model.statistics(fit.params, rows))
    np.testing.assert_array_equal(update.params.centers, fit.params.centers)
    np.testing.assert_array_equal(fit.model.assign(update.params, rows).labels, fit.predict(problem.values))
    assert fit.score(problem.values, weights=problem.weights) == pytest.approx(fit.objective, rel=1e-12, abs=1e-300)


@given(problems, st.integers(1, 4))
def test_centers_are_finite_after_every_pass(problem: Problem, passes: int) -> None:
    fit = problem.fit(max_iterations=passes)
    assert np.isfinite(fit.centers).all()
    assert fit.iterations <= passes
    labels = fit.predict(problem.values)
    assert labels.min() >= 0
    assert labels.max() < problem.k


def test_as_many_clusters_as_rows_cost_nothing(rng: np.random.Generator) -> None:
    values = rng.standard_normal((30, 2))
    fit = c.fit(values, c.KMeans(30))
    assert fit.objective == pytest.approx(0.0, abs=1e-28)
    assert sorted(fit.predict(values).tolist()) == list(range(30))


@pytest.mark.parametrize("apart", [1e3, 1e6, 1e9], ids=["1e3-sigma", "1e6-sigma", "1e9-sigma"])
def test_the_objective_after_an_update_keeps_its_digits_when_centers_come_from_afar(
    apart: float, rng: np.random.Generator
) -> None:
    values = rng.standard_normal((100, 2))
    fit = c.fit(values, c.KMeans(1), init=[[apart, 0.0]])
    np.testing.assert_allclose(fit.history[0, 1], np.sum((values - values.mean(axis=0)) ** 2), rtol=1e-9)
    assert fit.history[1, 0] <= fit.history[0, 1] * (1 + 1e-12)


@pytest.mark.parametrize("apart", [1e3, 1e6], ids=["1e3-sigma", "1e6-sigma"])
def test_the_objective_never_rises_when_both_starts_are_in_one_of_two_far_clusters(
    apart: float, rng: np.random.Generator
) -> None:
    values = rng.standard_normal((200, 2))
    values[100:, 0] += apart
    steps = c.fit(values, c.KMeans(2), init=values[:2]).history.ravel()
    assert len(steps) >= 6
    assert (np.diff(steps) <= 1e-9 * steps[:-1]).all()


def test_empty_clusters_are_placed_anew_and_noted() -> None:
    values = np.array([[0.0], [1.0], [2.0], [30.0], [50.0]])
    records: list[PassRecord] = []
    fit = c.fit(values, c.KMeans(3), init=[[1.0], [900.0], [-900.0]], on_pass=records.append)
    np.testing.assert_array_equal(fit.centers[:, 0], [1.0, 50.0, 30.0])
    notes = tuple(f"pass 1: empty cluster {i} re-seeded at the farthest row" for i in (1, 2))
    assert fit.fitted.notes == notes
    assert records[0].notes == notes
    assert all(record.notes == () for record in records[1:])


def test_places_with_many_equal_rows_are_all_found_from_one_start() -> None:
    # Each pass the equal rows farthest away crowd out the others, so that clusters stay empty for several passes.
    places = np.array([0.0, 1.0, 10.0, 1e2, 1e3, 1e4, 1e5])
    fit = c.fit(np.repeat(places, 10)[:, None], c.KMeans(7), init=np.zeros((7, 1)))
    assert fit.converged
    np.testing.assert_allclose(np.sort(fit.centers[:, 0]), places, rtol=1e-12, atol=1e-9)


def test_a_fit_does_not_converge_while_a_cluster_is_empty() -> None:
    values = np.repeat([0.0, 5.0, 9.0], 20)[:, None]
    for passes in range(1, 6):
        fit = c.fit(values, c.KMeans(3), init=np.zeros((3, 1)), max_iterations=passes)
        assert not fit.converged or len(np.unique(fit.predict(values))) == 3


def test_a_cluster_that_must_stay_empty_does_not_keep_the_loop_going() -> None:
    # This happens on a sample with fewer distinct rows than clusters.
    steps = run(np.zeros((5, 1)), state_of([[0.0], [7.0]]), StoppingRule())
    assert len(steps) <= 3
    np.testing.assert_array_equal(steps[-1][0].best.params.centers, [[0.0], [7.0]])


def test_equal_rows_are_not_taken_for_far_ones_when_their_mean_is_rounded() -> None:
    # The mean of ten times 0.1 is not 0.1.
    steps = run(np.full((10, 1), 0.1), state_of([[0.1], [7.0]]), StoppingRule())
    assert len(steps) <= 5
    np.testing.assert_allclose(steps[-1][0].best.params.centers, [[0.1], [7.0]], rtol=1e-14)


def test_the_end_is_reported_with_its_reason(rng: np.random.Generator) -> None:
    values = rng.standard_normal((600, 3))
    start = values[:4]
    assert c.fit(values, c.KMeans(4), init=start).fitted.stop == Stop.CONVERGED
    limited = c.fit(values, c.KMeans(4), init=start, max_iterations=2)
    assert (limited.fitted.stop, limited.iterations, limited.converged) == (Stop.MAX_ITERATIONS, 2, False)
    assert "stopped by max_iterations after 2 passes" in limited.fitted.notes[-1]
    loose = c.fit(values, c.KMeans(4), init=start, tolerance=0.01)
    assert (loose.fitted.stop, loose.converged) == (Stop.TOLERANCE, True)


def test_a_start_may_be_taken_as_it_is(blobs: np.ndarray) -> None:
    fit = c.fit(blobs, c.KMeans(4), init=blobs[:4], max_iterations=0)
    np.testing.assert_allclose(fit.centers, blobs[:4], rtol=0, atol=1e-14)
    assert fit.history.shape == (0, 2)
    assert (fit.fitted.stop, fit.iterations, fit.converged) == (Stop.MAX_ITERATIONS, 0, False)


@pytest.mark.parametrize("init", ["kmeans++", "given"])
def test_a_fit_out_of_time_has_finite_centers(init: str, blobs: np.ndarray) -> None:
    fit = c.fit(blobs, c.KMeans(4), init=blobs[:4] if init == "given" else init, max_seconds=1e-9)
    assert (fit.fitted.stop, fit.converged) == (Stop.MAX_SECONDS, False)
    assert np.isfinite(fit.centers).all()
    assert np.isfinite(fit.score(blobs))


def test_time_is_up_after_the_pass_under_way(blobs: np.ndarray) -> None:
    steps = run(blobs, state_of(blobs[:4]), StoppingRule(max_seconds=2.5))
    assert len(steps) == 3
    assert steps[-1][0].best.stop == Stop.MAX_SECONDS
    assert steps[-1][0].seconds == 3.0


@given(problems, st.sampled_from([1e-1, 1e-3, 1e-6]))
def test_tolerance_stops_at_the_first_change_within_it(problem: Problem, tolerance: float) -> None:
    final = run(problem.values, state_of(problem.init), StoppingRule(tolerance), problem.weights)[-1][0].best
    after = [objective for _, objective in final.history]
    reseeded = {int(note.split(":")[0].removeprefix("pass ")) for note in final.notes if "re-seeded" in note}
    small = [abs(a - b) <= tolerance * b for a, b in pairwise(after)]
    within = [i for i, settled in enumerate(small, 2) if settled and i not in reseeded]
    if final.stop == Stop.TOLERANCE:
        assert within[0] == len(final.history)
    else:
        assert final.stop == Stop.CONVERGED
        assert not [i for i in within if i < len(final.history)]


def test_a_pass_serves_the_candidates_that_have_not_stopped(blobs: np.ndarray) -> None:
    passes = Passes(blobs)
    starts = [blobs[:4], blobs[4:8], c.fit(blobs, c.KMeans(4)).centers]
    steps = list(iterate(state_of(*starts), passes, StoppingRule()))
    lengths = [len(candidate.history) for candidate in steps[-1][0].candidates]
    assert len(set(lengths)) > 1
    assert passes.made == [sum(length > i for length in lengths) for i in range(max(lengths))]
    assert [record.active for _, record in steps] == passes.made


@given(problems)
def test_candidates_do_not_see_each_other(problem: Problem) -> None:
    starts = [problem.init, problem.init[::-1], problem.init + 0.25]
    together = run(problem.values, state_of(*starts), StoppingRule(), problem.weights)[-1][0]
    for start, candidate in zip(starts, together.candidates, strict=True):
        alone = run(problem.values, state_of(start), StoppingRule(), problem.weights)[-1][0].best
        assert candidate.history == alone.history
        assert (candidate.stop, candidate.notes) == (alone.stop, alone.notes)
        np.testing.assert_array_equal(candidate.params.centers, alone.params.centers)
    least = min(candidate.objective for candidate in together.candidates)
    assert together.best is next(x for x in together.candidates if x.objective == least)


@given(problems, st.integers(1, 4))
def test_a_run_goes_on_from_any_state_as_if_never_stopped(problem: Problem, cut: int) -> None:
    steps = run(problem.values, state_of(problem.init), StoppingRule(), problem.weights)
    resumed = run(problem.values, steps[min(cut, len(steps)) - 1][0], StoppingRule(), problem.weights)
    final = (steps[:cut] + resumed)[-1][0]
    assert len(steps[:cut] + resumed) == len(steps)
    assert final.iteration == len(steps)
    assert final.best.history == steps[-1][0].best.history
    np.testing.assert_array_equal(final.best.params.centers, steps[-1][0].best.params.centers)


def test_halting_leaves_candidates_alone_that_have_stopped() -> None:
    state = state_of([[0.0]], [[1.0]])
    state = replace(state, candidates=(replace(state.candidates[0], stop=Stop.CONVERGED), state.candidates[1]))
    assert [x.stop for x in apply_limits(state, StoppingRule(max_iterations=0)).candidates] == [
        Stop.CONVERGED,
        Stop.MAX_ITERATIONS,
    ]
    assert apply_limits(state, StoppingRule()) is state


def test_advancing_leaves_the_candidate_as_it_was(blobs: np.ndarray) -> None:
    candidate = state_of(blobs[:4]).best
    centers = candidate.params.centers.copy()
    advance(candidate, KMeans(4).statistics(candidate.params, in_memory_rows(blobs)), StoppingRule())
    np.testing.assert_array_equal(candidate.params.centers, centers)
    assert candidate.history == ()


@given(problems)
def test_records_tell_what_the_passes_did(problem: Problem) -> None:
    steps = run(problem.values, state_of(problem.init), StoppingRule(), problem.weights)
    history = steps[-1][0].best.history
    for i, (state, record) in enumerate(steps):
        assert record.iteration == state.iteration == i + 1
        assert record.objective == history[i][1]
        assert record.rows == len(problem.values)
        assert record.remaining_seconds is None or record.remaining_seconds >= 0
        if i == 0 or not history[i][1]:
            assert record.change is None
        else:
            expected = (history[i][1] - history[i - 1][1]) / history[i][1]
            assert record.change == pytest.approx(expected, rel=1e-9, abs=1e-300)
        sums = state.best.sums
        assert sums is not None
        np.testing.assert_array_equal(record.sizes, sums["weight"] / sums["weight"].sum())
    assert steps[-1][1].remaining_seconds == 0
    assert tuple(note for _, record in steps for note in record.notes) == steps[-1][0].best.notes


def test_time_left_is_estimated_while_the_objective_falls(rng: np.random.Generator) -> None:
    values = rng.standard_normal((2000, 2))
    steps = run(values, state_of(values[:12]), StoppingRule())
    estimates = [record.remaining_seconds for _, record in steps]
    assert estimates[:3] == [None, None, None]
    assert any(estimate for estimate in estimates)
    limited = run(values, state_of(values[:12]), StoppingRule(max_iterations=len(steps) - 1, max_seconds=len(steps)))
    for state, record in limited:
        assert record.remaining_seconds is None or record.remaining_seconds <= len(steps) - 1 - state.iteration


def test_time_left_is_reported_for_an_objective_that_has_come_to_zero() -> None:
    places = np.array([0.0, 1.0, 10.0, 1e2, 1e3, 1e4, 1e5])
    steps = run(np.repeat(places, 10)[:, None], state_of(np.zeros((7, 1))), StoppingRule())
    assert steps[-1][1].objective == 0.0
    assert steps[-1][1].remaining_seconds == 0.0


@given(st.integers(0, 60), st.integers(1, 5), st.lists(st.integers(0, 60), max_size=3), seeds)
def test_sums_over_labelled_rows_add_up(n: int, k: int, cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, weights = rng.integers(-4, 5, (n, 2)).astype(float), rng.integers(0, 5, n) / 2
    model, params = KMeans(k), KMeansParams(np.zeros(2), rng.integers(-4, 5, (k, 2)).astype(float))

    def labelled(start: int, stop: int) -> LabelStatistics:
        assigned = model.assign(params, in_memory_rows(values[start:stop]))
        w = weights[start:stop]
        return LabelStatistics(
            float(w @ assigned.distances),
            np.bincount(assigned.labels, weights=w, minlength=k).astype(float),
            np.bincount(assigned.labels, minlength=k).astype(np.int64),
        )

    edges = [0, *sorted(min(cut, n) for cut in cuts), n]
    parts = [labelled(a, b) for a, b in pairwise(edges)]
    whole = labelled(0, n)
    for total in (reduce(add, parts), reduce(add, parts[::-1]), whole + labelled(0, 0)):
        assert total.objective == whole.objective
        np.testing.assert_array_equal(total.weight, whole.weight)
        np.testing.assert_array_equal(total.rows, whole.rows)


@pytest.mark.parametrize("block_bytes", [64, 10**6], ids=["many-blocks", "one-block"])
def test_labelling_writes_every_cell_once_and_sums_the_rows_that_take_part(
    block_bytes: int, rng: np.random.Generator
) -> None:
    values, weights, mask = rng.standard_normal((40, 2)), rng.integers(0, 3, 40) / 2, rng.random(40) < 0.7
    source = open_source(values, weights=weights, mask=mask)
    params = KMeansParams(np.zeros(2), rng.standard_normal((3, 2)))
    labels, written = np.full(40, 99), np.zeros(40, int)

    def write(region: tuple[slice, ...], arrays: dict[str, np.ndarray]) -> None:
        part = arrays["labels"]
        labels[region] = part
        written[region] += 1

    with (
        connect("synchronous") as engine,
        pass_runner(source, source.plan(block_bytes=block_bytes), engine, memory=10**8) as inside,
    ):
        sums = label_blocks(inside, KMeans(3), params, write).statistics[0]
    distances = ((values[:, None] - params.centers) ** 2).sum(axis=2)
    np.testing.assert_array_equal(written, 1)
    np.testing.assert_array_equal(labels, np.where(mask, distances.argmin(axis=1), -1))
    np.testing.assert_array_equal(sums.rows, np.bincount(labels[mask], minlength=3))
    np.testing.assert_array_equal(sums.weight, np.bincount(labels[mask], weights[mask], 3))
    assert sums.objective == pytest.approx(weights[mask] @ distances.min(axis=1)[mask], rel=1e-13)


def test_rows_of_weight_zero_get_a_label_and_move_nothing(blobs: np.ndarray) -> None:
    far = np.concatenate([blobs, [[1e4, 0.0, 0.0]]])
    weights = np.append(np.ones(len(blobs)), 0.0)
    with_far = c.fit(far, c.KMeans(4), init=blobs[:4], weights=weights)
    without = c.fit(blobs, c.KMeans(4), init=blobs[:4])
    np.testing.assert_allclose(with_far.centers, without.centers, rtol=0, atol=1e-12)
    assert with_far.predict(far)[-1] == np.argmax(without.centers[:, 0])


def test_blocks_without_rows_change_nothing(blobs: np.ndarray) -> None:
    rows = in_memory_rows(blobs)
    none = Rows(blobs[:0], rows.weights[:0], np.zeros(0, np.int64), (0,), (5,), (605,))
    for k in (4, 30):
        params = KMeansParams(np.zeros(3), blobs[:k])
        total = KMeans(k).statistics(params, none) + KMeans(k).statistics(params, rows)
        again = KMeans(k).statistics(params, rows).sums
        assert all(total.sums[name].tobytes() == again[name].tobytes() for name in again)


def test_falls_equal_but_for_rounding_say_nothing_about_the_end() -> None:
    objectives = (4.0, 2.0, -(2.0**-52), -2.0)
    state = State((Candidate(None, None, tuple((after, after) for after in objectives)),), 4)
    assert _remaining(state, PassResult((), ReadStats(), 1.0), StoppingRule()) is None


def test_candidates_of_other_models_share_a_pass(blobs: np.ndarray) -> None:
    rows = in_memory_rows(blobs)
    models: list[Any] = [KMeans(2), KMeans(5), c.SoftKMeans(3, 0.5), c.GaussianMixture(3), c.VonMisesFisher(2)]
    starts = [c.fit(blobs, model, max_iterations=0, sample_rows=30).params for model in models]
    rule = StoppingRule(1e-9, 12)
    passes = Passes(blobs)

    def ends(*numbers: int) -> list[Candidate]:
        state = State(tuple(Candidate(models[i], starts[i]) for i in numbers))
        *_, (last, _) = iterate(state, passes, rule)
        return list(last.candidates)

    together = ends(*range(len(models)))
    # One read serves all that have not stopped.
    assert passes.made[0] == len(models)
    for number, candidate in enumerate(together):
        (alone,) = ends(number)
        assert candidate.model == models[number]
        assert candidate.history == alone.history
        arrays, others = params_to_arrays(candidate.params), params_to_arrays(alone.params)
        assert all(np.array_equal(arrays[name], others[name]) for name in others)
        assert candidate.statistics(rows).count == len(blobs)


def test_an_update_has_one_blas_thread(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    update, threads = KMeans.update, []

    def counted(*arguments: Any) -> Any:
        threads.extend(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")
        return update(*arguments)

    monkeypatch.setattr(KMeans, "update", counted)
    values = rng.standard_normal((20, 2))
    with threadpool_limits(2, "blas"):
        list(iterate(state_of(values[:3]), Passes(values), StoppingRule(max_iterations=2)))
    assert set(threads) == {1}
