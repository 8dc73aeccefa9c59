from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustering.models import survey_kernels

seeds = st.integers(0, 2**32 - 1)


def draws(seed: int, positions: np.ndarray) -> np.ndarray:
    numbers = np.empty(len(positions))
    survey_kernels.uniform(seed, positions, numbers)
    return numbers


def test_draws_are_uniform_above_zero_and_up_to_one() -> None:
    numbers = draws(3, np.arange(100_000))
    assert numbers.min() > 0
    assert numbers.max() <= 1
    # Uniform draws exceed the Kolmogorov-Smirnov bound 2 / sqrt(n) once in a thousand. These draws are fixed.
    assert np.abs(np.sort(numbers) - np.arange(1, 100_001) / 100_000).max() < 2 / np.sqrt(100_000)
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.02


@given(seeds, st.permutations(range(20)))
def test_a_draw_depends_on_seed_and_position_alone(seed: int, order: list[int]) -> None:
    positions = np.array(order, np.int64) * 10**12
    np.testing.assert_array_equal(
        draws(seed, positions), draws(seed, np.sort(positions))[np.argsort(np.argsort(order))]
    )
    assert (draws(seed, positions) != draws(seed + 1, positions)).all()


def digests(rows: np.ndarray) -> np.ndarray:
    hashes = np.empty(len(rows), np.uint64)
    survey_kernels.hash_rows(rows, rows.view(np.uint64), np.empty(rows.shape[1], np.uint64), hashes)
    return hashes


def test_equal_rows_have_equal_digests_and_no_others() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(-8.0, 8.0)] * 3), axis=-1).reshape(-1, 3)
    assert len(np.unique(digests(grid))) == len(grid)
    np.testing.assert_array_equal(digests(grid), digests(grid.copy()))


@pytest.mark.parametrize("d", [1, 2, 5], ids=["1-feature", "2-features", "5-features"])
def test_negative_zero_has_the_digest_of_zero(d: int) -> None:
    np.testing.assert_array_equal(digests(np.full((1, d), -0.0)), digests(np.zeros((1, d))))
