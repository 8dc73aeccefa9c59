"""Gathered rows are those of numpy's transpose, to the last bit, whatever the layout."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustering.data.gathering import gathered
from clustering.data.reading import finite_rows


@given(
    st.sampled_from(["i1", "u1", "i2", "u2", "f2", "f4", "f8", "?"]),
    st.lists(st.sampled_from([1, 2, 3, 4, 8, 12, 16, 40]), min_size=1, max_size=4),
    st.integers(0, 23), st.data(),
)  # fmt: skip
def test_any_order_of_axes(dtype: str, shape: list[int], order: int, data: st.DataObject) -> None:
    array = np.random.default_rng(0).integers(0, 255, shape).astype(np.dtype(dtype))
    axes = list(permutations(range(len(shape))))
    chosen = list(axes[order % len(axes)])
    cut = data.draw(st.integers(1, len(chosen)))
    cells, features = chosen[:cut], chosen[cut:]
    long = [axis for axis in features if shape[axis] > 1 or data.draw(st.booleans())]
    f = int(np.prod([shape[axis] for axis in long], dtype=int))
    expected = array.transpose(chosen).reshape(-1, f)
    actual = gathered(array, cells, long)
    assert actual.flags.c_contiguous
    assert np.array_equal(actual, expected)
    assert actual.dtype == array.dtype


@pytest.mark.parametrize("dtype", ["i1", "u2"])
@pytest.mark.parametrize("shape", [(64, 128, 256), (3, 8, 24), (2, 5, 16, 8, 8)])
def test_features_before_the_last_cells(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).integers(0, 100, shape).astype(dtype)
    axis = 0 if len(shape) == 3 else 2
    cells = [i for i in range(len(shape)) if i != axis]
    assert np.array_equal(gathered(array, cells, [axis]), np.moveaxis(array, axis, -1).reshape(-1, shape[axis]))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_rows_with_nan_or_infinity_are_detected(dtype: str) -> None:
    values = np.full((40, 9), np.finfo(dtype).max, dtype)
    for place, bad in ((3, np.nan), (11, np.inf), (12, -np.inf)):
        values[place, place % 9] = bad
    values[20] = -0.0
    values[21] = np.finfo(dtype).smallest_subnormal
    assert np.flatnonzero(~finite_rows(values)).tolist() == [3, 11, 12]
    assert finite_rows(np.empty((0, 3), dtype)).tolist() == []
