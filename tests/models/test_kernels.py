from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clustering.models import kernels, seeding_kernels

# Whole numbers keep every distance and sum exact, so that results are compared to the last bit.
seeds = st.integers(0, 2**32 - 1)


def squared_distances(rows: np.ndarray, centers: np.ndarray) -> np.ndarray:
    return ((rows[:, None] - centers[None]) ** 2).sum(axis=2)


def whole_numbers(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    return rng.integers(-4, 5, (n, d)).astype(np.float64)


def two_nearest(rows: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, ...]:
    n = len(rows)
    nearest = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n), np.empty(n)
    seeding_kernels.two_nearest(rows, centers, *nearest)
    return nearest


def assert_two_nearest(rows: np.ndarray, centers: np.ndarray, nearest: tuple[np.ndarray, ...]) -> None:
    owner, runner, first, second = nearest
    distances = squared_distances(rows, centers)
    places = np.arange(len(rows))
    ranked = np.sort(distances, axis=1)
    np.testing.assert_array_equal(first, ranked[:, 0])
    np.testing.assert_array_equal(distances[places, owner], ranked[:, 0])
    if len(centers) == 1:
        assert (runner == -1).all()
        assert np.isinf(second).all()
    else:
        np.testing.assert_array_equal(second, ranked[:, 1])
        np.testing.assert_array_equal(distances[places, runner], ranked[:, 1])
        assert (owner != runner).all()


@given(seeds, st.integers(1, 60), st.integers(1, 5), st.integers(1, 8), st.integers(0, 12))
def test_nearest_two_centers_stay_right_after_any_swaps(seed: int, n: int, d: int, k: int, swaps: int) -> None:
    rng = np.random.default_rng(seed)
    rows, centers = whole_numbers(rng, n, d), whole_numbers(rng, k, d)
    columns = np.ascontiguousarray(rows.T)
    nearest = two_nearest(rows, centers)
    assert_two_nearest(rows, centers, nearest)
    for out, place in zip(rng.integers(k, size=swaps), rng.integers(n, size=swaps), strict=True):
        away = np.full(n, np.inf)
        seeding_kernels.approach(columns, rows[place], away)
        centers[out] = rows[place]
        seeding_kernels.after_swap(rows, centers, out, away, *nearest)
        assert_two_nearest(rows, centers, nearest)


@given(seeds, st.integers(1, 60), st.integers(1, 5), st.integers(1, 8))
def test_swap_potentials_are_those_of_each_swap_carried_out(seed: int, n: int, d: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    rows, centers, new = whole_numbers(rng, n, d), whole_numbers(rng, k, d), whole_numbers(rng, 1, d)
    weights = rng.integers(1, 4, n).astype(np.float64)
    owner, _, first, second = two_nearest(rows, centers)
    potentials = np.empty(k)
    seeding_kernels.swap_potentials(squared_distances(rows, new)[:, 0], owner, first, second, weights, potentials)
    for out in range(k):
        swapped = centers.copy()
        swapped[out] = new
        assert potentials[out] == weights @ squared_distances(rows, swapped).min(axis=1)


@given(seeds, st.integers(1, 400), st.integers(1, 5), st.integers(1, 4))
def test_trial_potentials_are_those_of_each_trial_chosen(seed: int, n: int, d: int, trials: int) -> None:
    rng = np.random.default_rng(seed)
    rows, points = whole_numbers(rng, n, d), whole_numbers(rng, trials, d)
    weights, closest = rng.integers(1, 4, n).astype(np.float64), rng.integers(0, 60, n).astype(np.float64)
    columns = np.ascontiguousarray(rows.T)
    potentials = np.empty(trials)
    seeding_kernels.potentials_after(columns, points, closest, weights, potentials)
    for trial, point in enumerate(points):
        lowered = closest.copy()
        seeding_kernels.approach(columns, point, lowered)
        np.testing.assert_array_equal(lowered, np.minimum(closest, squared_distances(rows, point[None])[:, 0]))
        assert potentials[trial] == weights @ lowered


@given(
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from([0.0, 1.0, 2.5])), max_size=40),
    st.integers(0, 4),
    st.integers(1, 10),
)
def test_farthest_rows_come_farthest_first_and_earlier_first_among_equals(
    pairs: list[tuple[int, float]], floor: int, most: int
) -> None:
    distances = np.array([p[0] for p in pairs], np.float64)
    weights = np.array([p[1] for p in pairs], np.float64)
    eligible = [i for i in range(len(pairs)) if distances[i] > floor and weights[i] > 0]
    expected = sorted(eligible, key=lambda i: (-distances[i], i))[:most]
    assert kernels.farthest_rows(distances, weights, float(floor), most).tolist() == expected


@given(seeds, st.integers(0, 60), st.integers(1, 5), st.integers(1, 6))
def test_add_up_adds_to_what_was_there(seed: int, n: int, d: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    rows, weights = whole_numbers(rng, n, d), rng.integers(0, 3, n) / 2
    labels, distances = rng.integers(0, k, n).astype(np.int32), rng.integers(0, 9, n).astype(np.float64)
    weight, first = np.full(k, 5.0), np.full((k, d), 7.0)
    objective = kernels.add_up(rows, weights, labels, distances, weight, first)
    one_hot = (labels[:, None] == np.arange(k)) * weights[:, None]
    np.testing.assert_array_equal(weight, 5 + one_hot.sum(axis=0))
    np.testing.assert_array_equal(first, 7 + one_hot.T @ rows)
    assert objective == weights @ distances
