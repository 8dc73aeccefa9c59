from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import clustering as c
from clustering.data.rows import in_memory_rows
from clustering.errors import ConfigError
from clustering.fitting.seeding import (
    MOST_ROUNDS,
    Draws,
    Search,
    Swaps,
    as_centers,
    generators,
    seed_centers,
    seeding_rows,
)
from clustering.models.kernels import distance_between
from clustering.models.survey import SurveyModel

INITS = ("kmeans++", "random")
inits = pytest.mark.parametrize("init", INITS)


def distinct(rows: np.ndarray) -> set[tuple[float, ...]]:
    return {tuple(row) for row in rows.tolist()}


@inits
@given(
    st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=60),
    st.integers(1, 20),
    st.integers(0, 2**32),
)
def test_centers_are_different_rows_of_the_data(init, pairs: list[tuple[int, int]], k: int, seed: int) -> None:
    rows = np.array(pairs, np.float64)
    k = min(k, len(distinct(rows)))
    weights = np.random.default_rng(seed).random(len(rows)) + 0.01
    centers = seed_centers(seeding_rows(rows, weights), k, init, rows[:0], np.random.default_rng(seed))
    assert centers.shape == (k, 2)
    assert len(distinct(centers)) == k
    assert distinct(centers) <= distinct(rows)


@inits
def test_the_same_seed_gives_the_same_centers_and_another_seed_others(init, rng: np.random.Generator) -> None:
    rows, weights = rng.standard_normal((200, 3)), rng.random(200)

    def seeded(seed: int) -> np.ndarray:
        return seed_centers(seeding_rows(rows, weights), 5, init, rows[:0], np.random.default_rng(seed))

    np.testing.assert_array_equal(seeded(4), seeded(4))
    assert len({seeded(seed).tobytes() for seed in range(6)}) == 6


@inits
def test_rows_are_left_as_they_were(init, rng: np.random.Generator) -> None:
    rows, weights = rng.standard_normal((50, 2)), rng.random(50)
    before = rows.copy(), weights.copy()
    seed_centers(seeding_rows(rows, weights), 4, init, rows[:0], rng)[:] = 0
    np.testing.assert_array_equal(rows, before[0])
    np.testing.assert_array_equal(weights, before[1])


@inits
def test_the_first_center_is_drawn_by_weight(init) -> None:
    rows, weights = np.arange(4.0)[:, None], np.array([1.0, 2.0, 3.0, 4.0])
    drawn = [seed_centers(seeding_rows(rows, weights), 1, init, rows[:0], g)[0, 0] for g in generators(0, 2000)]
    observed = np.bincount(np.array(drawn, int), minlength=4)
    expected = 2000 * weights / 10
    # Chi-squared with 3 degrees of freedom: beyond 16 once in a thousand; the draws are fixed.
    assert np.sum((observed - expected) ** 2 / expected) < 16


@inits
def test_rows_of_weight_zero_are_never_chosen(init, rng: np.random.Generator) -> None:
    values = np.concatenate([rng.standard_normal((30, 2)), 1e3 + rng.standard_normal((30, 2))])
    weights = np.repeat([1.0, 0.0], 30)
    survey = SurveyModel(0, 1000, 8).statistics(in_memory_rows(values, weights))
    for generator in generators(0, 20):
        sample = seeding_rows(survey.sample.values, survey.sample.represented)
        centers = seed_centers(sample, 8, init, survey.distinct.values, generator)
        assert np.abs(centers).max() < 10


def test_greedy_seeding_finds_every_far_blob(rng: np.random.Generator) -> None:
    places = np.stack(np.meshgrid(*[np.arange(4) * 100.0] * 2), axis=-1).reshape(-1, 2)
    rows = np.repeat(places, 20, axis=0) + rng.standard_normal((320, 2))
    for generator in generators(1, 10):
        centers = seed_centers(seeding_rows(rows, np.ones(320)), 16, "kmeans++", rows[:0], generator)
        assert len(distinct(np.round(centers / 100))) == 16


@inits
@given(st.integers(1, 5), st.integers(0, 5), st.integers(0, 1000))
def test_too_few_distinct_rows_in_the_sample_are_topped_up(init, present: int, lacking: int, seed: int) -> None:
    everything = np.arange(10.0)[:, None]
    sample = np.repeat(everything[:present], 7, axis=0)
    k = present + lacking
    spare = everything[np.random.default_rng(seed).permutation(10)[:k]]
    centers = seed_centers(seeding_rows(sample, np.ones(len(sample))), k, init, spare, np.random.default_rng(seed))
    assert centers.shape == (k, 1)
    assert len(distinct(centers)) == k
    assert distinct(everything[:present]) <= distinct(centers) <= distinct(everything)


@inits
def test_rare_rows_outside_the_sample_still_become_centers(init) -> None:
    rows = np.zeros((5000, 1))
    rows[[17, 1234, 4999], 0] = [1.0, 2.0, 3.0]
    fit = c.fit(rows, c.KMeans(4), init=init, sample_rows=20)
    np.testing.assert_allclose(np.sort(fit.centers[:, 0]), [0.0, 1.0, 2.0, 3.0], atol=1e-14)


@inits
def test_negative_zero_is_no_second_zero(init) -> None:
    rows = np.array([[0.0], [-0.0], [1.0], [-0.0]])
    centers = seed_centers(seeding_rows(rows, np.ones(4)), 2, init, rows[:0], np.random.default_rng(0))
    assert sorted(abs(centers[:, 0])) == [0.0, 1.0]


def test_distinct_rows_that_the_mean_drowns_are_refused_or_become_centers() -> None:
    # Less the mean, the two small rows are equal in float64.
    try:
        shape = c.fit(np.array([[1e-30], [2e-30], [1.0]]), c.KMeans(3)).centers.shape
    except c.ClusteringError:
        shape = None
    assert shape in (None, (3, 1))


def test_streams_of_a_seed_differ_and_do_not_depend_on_their_number() -> None:
    few, many = [[g.random() for g in generators(5, n)] for n in (3, 10)]
    assert few == many[:3]
    assert len(set(many)) == 10
    assert many != [g.random() for g in generators(6, 10)]


def test_given_centers_become_float64(rng: np.random.Generator) -> None:
    assert as_centers([[1, 2], [3, 4]], 2, 2).dtype == np.float64


def test_given_centers_lie_as_their_names_say() -> None:
    centers = xr.DataArray(np.arange(4.0).reshape(2, 2), dims=("cluster", "feature"))
    for way in (centers, centers.T, centers.values):
        assert as_centers(way, 2, 2).tolist() == [[0, 1], [2, 3]]
    fit = c.fit(np.arange(8.0).reshape(4, 2), c.KMeans(2), init=centers.T, max_iterations=0)
    assert fit.centers.tolist() == [[0, 1], [2, 3]]


NO_CENTERS = {
    "one-center-too-few": (np.zeros((2, 2)), r"shape \(2, 2\).*\(3, 2\)"),
    "transposed": (np.zeros((2, 3)), r"shape \(2, 3\).*\(3, 2\)"),
    "flat": (np.zeros(6), r"shape \(6,\).*\(3, 2\)"),
    "nan": (np.full((3, 2), np.nan), "numbers that are finite"),
    "infinity": (np.full((3, 2), -np.inf), "numbers that are finite"),
    "words": ([["a", "b"]] * 3, "starting centers"),
    "ragged": ([[1.0], [1.0, 2.0], [3.0]], "starting centers"),
}


@pytest.mark.parametrize(("init", "message"), NO_CENTERS.values(), ids=NO_CENTERS)
def test_given_centers_must_be_k_finite_points(init: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        as_centers(init, 3, 2)


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 300),
    d=st.integers(1, 20),
    scale=st.sampled_from([1e-200, 1e-30, 1.0, 1e30, 1e200]),
    offset=st.sampled_from([0.0, 10.0, 1e6]),
)
def test_estimates_never_hide_a_closer_row(seed: int, n: int, d: int, scale: float, offset: float) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.integers(-2, 3, (n, d)) * 0.1 + offset) * scale
    search = Search(seeding_rows(values, rng.random(n) + 0.1), n, rng)
    chosen = rng.integers(0, n, 3)
    compared = search.rows.compared
    exact = np.array([[distance_between(row, compared[i]) for row in compared] for i in chosen])
    search.second[:] = limits = rng.choice(exact.ravel(), n)
    search.try_rows(chosen)
    for trial, distances in enumerate(exact):
        near, near_distances = search.closer(trial)
        np.testing.assert_array_equal(near, np.flatnonzero(distances < limits))
        np.testing.assert_array_equal(near_distances, distances[near])


@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(1, 5), st.integers(1, 5), st.sampled_from([0.0, 1e4]))
def test_the_best_trial_leaves_the_least_potential(seed: int, n: int, d: int, count: int, offset: float) -> None:
    rng = np.random.default_rng(seed)
    # Groups far apart: float32 cannot tell the rows of a group from each other.
    values = rng.standard_normal((n, d)) + offset * rng.integers(-1, 2, (n, 1))
    search = Search(seeding_rows(values, rng.random(n) + 0.1), 100, rng)
    search.chosen = [0]
    search.first[:] = [distance_between(row, values[0]) for row in values]
    index = rng.integers(0, n, count)
    exact = np.array([[distance_between(row, values[i]) for row in values] for i in index])
    potentials = np.minimum(exact, search.first) @ search.rows.weights
    search.try_rows(index)
    best = search.best(range(count))
    assert potentials[best] <= potentials.min() * (1 + 1e-12)


def test_draws_of_a_block_follow_the_distances_of_their_turn() -> None:
    rng = np.random.default_rng(0)
    before, now = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 0.5, 3.0, 0.0])
    drawn = rng.choice(4, 6000, p=before / before.sum())
    draws = Draws(before[drawn], rng.uniform(size=6000))
    counted = drawn[draws.next(now[drawn], 6000)]
    observed, expected = np.bincount(counted, minlength=4), len(counted) * now / now.sum()
    assert observed[3] == 0
    # Chi-squared with 2 degrees of freedom: beyond 14 once in a thousand; the draws are fixed.
    assert np.sum((observed - expected)[:3] ** 2 / expected[:3]) < 14


def test_draws_are_used_once_in_their_order_and_all_count_at_first() -> None:
    before = np.array([5e-324, 1.0, 2.0, 3.0, 4.0])
    draws = Draws(before, np.full(5, 1 - 2**-53))
    assert draws.next(before, 2) == [0, 1]
    assert draws.next(np.array([0.0, 0.0, 0.5, 3.0, 4.0]), 2) == [3, 4]
    assert draws.next(before, 2) == []


def nearest_two(search: Search) -> tuple[np.ndarray, ...]:
    return search.owner, search.runner, search.first, search.second


def assert_nearest_two(search: Search, compared: np.ndarray) -> None:
    exact = np.array([[distance_between(row, compared[i]) for i in search.chosen] for row in compared])
    ranked, places = np.sort(exact, axis=1), np.arange(len(exact))
    owner, runner, first, second = nearest_two(search)
    np.testing.assert_array_equal(first, ranked[:, 0])
    np.testing.assert_array_equal(second, ranked[:, 1])
    np.testing.assert_array_equal(exact[places, owner], first)
    np.testing.assert_array_equal(exact[places, runner], second)
    assert (owner != runner).all()


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(3, 80),
    d=st.integers(1, 20),
    k=st.integers(2, 40),
    scale=st.sampled_from([1e-200, 1.0, 1e200]),
    offset=st.sampled_from([0.0, 1e6]),
)
def test_any_swaps_of_a_block_leave_the_two_nearest_centers_right(
    seed: int, n: int, d: int, k: int, scale: float, offset: float
) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.integers(-4, 5, (n, d)) * 0.1 + offset) * scale
    rows = seeding_rows(values, rng.integers(1, 4, n).astype(float))
    search = Search(rows, min(k, len(distinct(values))), rng)
    search._greedy()
    if len(search.chosen) < 2:
        return
    swaps = Swaps(search)
    for _ in range(2):
        points = rng.integers(0, n, 5)
        swaps.try_rows(points)
        for t, row in enumerate(points):
            out, bound = swaps.best(t)
            swaps.swap(out, int(row), t)
            assert_nearest_two(search, rows.compared)
            potential = float(rows.weights @ search.first)
            assert swaps.potential == pytest.approx(potential, rel=1e-12, abs=1e-300)
            # Centers that are equal make differences that are rounding alone.
            assert potential <= bound + 1e-9 * float(rows.weights @ search.second)


def test_the_first_swap_of_a_block_is_the_best_one(rng: np.random.Generator) -> None:
    search = Search(seeding_rows(rng.standard_normal((200, 3)), rng.random(200) + 0.1), 12, rng)
    search._greedy()
    swaps, weights = Swaps(search), search.rows.weights
    swaps.try_rows(np.arange(5))
    for t in range(5):
        out, potential = swaps.best(t)
        exact = []
        for other in range(12):
            chosen = [t if i == other else row for i, row in enumerate(search.chosen)]
            centers = search.rows.rows[chosen]
            distances = np.array([[distance_between(row, center) for center in centers] for row in search.rows.rows])
            exact.append(float(weights @ distances.min(axis=1)))
        assert out == int(np.argmin(exact))
        assert potential == pytest.approx(min(exact), rel=1e-12)


class Counting(Search):
    """A search that notes the potential before each sweep."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.potentials: list[float] = []

    def try_rows(self, points: np.ndarray) -> None:
        self.potentials.append(float(self.rows.weights @ self.first) if len(self.chosen) == self.k else np.inf)
        super().try_rows(points)


def test_swaps_only_lower_the_potential(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((400, 2)) + 30.0 * rng.integers(0, 4, (400, 2))
    search = Counting(seeding_rows(rows, rng.random(400) + 0.1), 20, rng)
    search.run()
    potentials = np.array([p for p in search.potentials if np.isfinite(p)])
    assert len(potentials) > 3
    assert (np.diff(potentials) <= 0).all()
    assert_nearest_two(search, rows)


def test_the_local_search_goes_on_while_it_pays(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    make_round = Swaps.make_round
    monkeypatch.setattr(Swaps, "make_round", lambda swaps, draws: tried.append(draws) or make_round(swaps, draws))

    def draws(rows: np.ndarray) -> int:
        tried.clear()
        Search(seeding_rows(rows, np.ones(len(rows))), 64, np.random.default_rng(0)).run()
        return sum(tried)

    # Greedy draws miss some of many far blobs of different sizes; in noise of many features all rows are as good.
    places, shares = 1e3 * rng.standard_normal((64, 2)), rng.random(64)
    blobs = places[rng.choice(64, 3000, p=shares / shares.sum())] + rng.standard_normal((3000, 2))
    assert draws(rng.standard_normal((3000, 100))) < draws(blobs) <= 64 * MOST_ROUNDS


def test_a_start_that_is_perfect_ends_the_search() -> None:
    rows = np.repeat(np.arange(3.0)[:, None], 5, axis=0)
    search = Counting(seeding_rows(rows, np.ones(15)), 3, np.random.default_rng(0))
    assert sorted(search.run()[:, 0]) == [0, 1, 2]
    assert not np.isfinite(search.potentials).any()


def test_starts_of_many_clusters_do_not_depend_on_threads(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((6000, 5)).astype(np.float32)
    fits = [
        c.fit(rows, c.KMeans(120), max_iterations=0, cluster="synchronous"),
        *(c.fit(rows, c.KMeans(120), max_iterations=0, workers=workers) for workers in (1, 2, 5)),
    ]
    assert len({fit.centers.tobytes() for fit in fits}) == 1
