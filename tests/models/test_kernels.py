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
    """The two nearest centers of each row, as they are after one center after another was added."""
    n = len(rows)
    nearest = np.full(n, -1), np.full(n, -1), np.full(n, np.inf), np.full(n, np.inf)
    for i, center in enumerate(centers):
        seeding_kernels.add_center(*closer(rows, center, nearest[3]), i, *nearest)
    return nearest


def closer(rows: np.ndarray, center: np.ndarray, limits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows that are closer to a center than a limit, and their distances, as the kernels take them."""
    distances = squared_distances(rows, center[None])[:, 0]
    near = np.flatnonzero(distances < limits).astype(np.int32)
    return near, distances[near]


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


@given(seeds, st.integers(1, 60), st.integers(1, 5), st.integers(1, 8))
def test_nearest_two_centers_are_right_after_each_one_is_added(seed: int, n: int, d: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    rows, centers = whole_numbers(rng, n, d), whole_numbers(rng, k, d)
    for count in range(1, k + 1):
        assert_two_nearest(rows, centers[:count], two_nearest(rows, centers[:count]))


@given(seeds, st.integers(1, 60), st.integers(1, 5), st.integers(2, 8))
def test_swap_potentials_are_those_of_each_swap_carried_out(seed: int, n: int, d: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    rows, centers, new = whole_numbers(rng, n, d), whole_numbers(rng, k, d), whole_numbers(rng, 1, d)
    weights = rng.integers(1, 4, n).astype(np.float64)
    owner, _, first, second = two_nearest(rows, centers)
    lost, potentials = np.empty(k), np.empty(k)
    potential = seeding_kernels.losses(owner, first, second, weights, lost)
    assert potential == weights @ squared_distances(rows, centers).min(axis=1)
    near = closer(rows, new[0], second)
    seeding_kernels.swap_potentials(*near, owner, first, second, weights, potential, lost, potentials)
    for out in range(k):
        swapped = centers.copy()
        swapped[out] = new
        assert potentials[out] == weights @ squared_distances(rows, swapped).min(axis=1)


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
