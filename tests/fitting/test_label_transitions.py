from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustering.fitting.label_transitions import add_transitions, label_transitions
from clustering.fitting.labelling import LabelStatistics
from clustering.models.tree import fold


def table(before: np.ndarray, now: np.ndarray, weights: np.ndarray, k: int = 12) -> np.ndarray:
    """The weight of all pairs ``(k + 1, k)``, row by row."""
    sums = np.zeros((k + 1, k))
    np.add.at(sums, (before + 1, now), weights)
    return sums


def spread(moves: tuple[np.ndarray, np.ndarray], k: int = 12) -> np.ndarray:
    sums = np.zeros((k + 1, k))
    sums[moves[0][:, 0] + 1, moves[0][:, 1]] = moves[1]
    return sums


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(0, 3))
def test_pairs_have_the_bits_of_a_table_of_all(seed: int, n: int, empty: int) -> None:
    rng = np.random.default_rng(seed)
    blocks = []
    for length in (n, *(0,) * empty, 2 * n, 3):
        weights = rng.random(length) * rng.integers(0, 2, length)
        blocks.append((rng.integers(-1, 12, length), rng.integers(0, 12, length), weights))
    none = np.zeros(12)

    def leaf(block: tuple[np.ndarray, ...]) -> LabelStatistics:
        return LabelStatistics(0.0, none, none.astype(np.int64), 0.0, *label_transitions(*block))

    total = fold(map(leaf, blocks))
    np.testing.assert_array_equal(spread((total.moves, total.moved)), fold(table(*block) for block in blocks))
    assert total.moves.tolist() == sorted(map(list, set(map(tuple, total.moves.tolist()))))
    assert (total.moved > 0.0).all()


@pytest.mark.parametrize("largest", [3, 10**6], ids=["few clusters", "very many"])
def test_few_and_many_clusters_are_counted_alike(largest: int) -> None:
    rng = np.random.default_rng(1)
    before, now, weights = rng.integers(-1, 3, 1000), rng.integers(0, 3, 1000), rng.random(1000)
    pairs, moved = label_transitions(np.where(before == 2, largest, before), np.where(now == 2, largest, now), weights)
    expected = label_transitions(before, now, weights)
    np.testing.assert_array_equal(np.where(pairs == largest, 2, pairs), expected[0])
    assert moved.tobytes() == expected[1].tobytes()


def test_nothing_is_no_pair() -> None:
    nothing = label_transitions(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    assert nothing[0].shape == (0, 2)
    one_pair = label_transitions(np.array([-1]), np.array([4]), np.array([0.5]))
    for sums in (add_transitions(nothing, one_pair), add_transitions(one_pair, nothing)):
        assert sums[0].tolist() == [[-1, 4]]
        assert sums[1].tolist() == [0.5]
