from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import normalize

from clustering.data.access import open_source
from clustering.data.preparation import Preparation, only_unit_norm, usable_memory
from clustering.data.rows import in_memory_rows


def turning(rng: np.random.Generator, d: int, p: int) -> Preparation:
    """Make a preparation of full rank that maps onto p orthogonal directions."""
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0][:, :p]
    scale = rng.uniform(0.5, 2.0, d)
    return Preparation(False, rng.standard_normal(d), basis * scale[:, None], basis.T / scale)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 300),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["f8", "f4", "f2", "i2", "u1", ">f4", "?"]),
)
def test_the_map_is_the_matrix_product_of_what_is_left_after_the_offset(
    seed: int, n: int, d: int, p: int, dtype: str
) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.uniform(0, 100, (n, d))).astype(dtype)
    preparation = Preparation(False, rng.standard_normal(d), rng.standard_normal((d, p)), np.zeros((p, d)))
    prepared = preparation.apply(in_memory_rows(values)).values
    expected = (values.astype(np.float64) - preparation.offset) @ preparation.matrix
    np.testing.assert_allclose(prepared, expected, rtol=1e-12, atol=1e-10)
    assert (prepared.dtype, prepared.shape, preparation.row_bytes) == (np.float64, (n, p), 8 * p)


@pytest.mark.parametrize("unit_norm", [False, True], ids=["as it is", "unit norm"])
@pytest.mark.parametrize("p", [None, 1, 13], ids=["diagonal", "one component", "13 components"])
def test_a_prepared_row_depends_on_the_row_alone(p: int | None, unit_norm: bool, rng: np.random.Generator) -> None:
    d = 37
    values = rng.standard_normal((5000, d)).astype(np.float32)
    matrix = rng.standard_normal(d if p is None else (d, p))
    preparation = Preparation(unit_norm, rng.standard_normal(d), matrix, matrix.T)
    whole = preparation.apply_to_values(values)[0]
    order = rng.permutation(len(values))
    assert preparation.apply_to_values(values[order])[0].tobytes() == whole[order].tobytes()
    for length in (1, 3, 64, 100):
        parts = [preparation.apply_to_values(values[a : a + length])[0] for a in range(0, 1000, length)]
        assert np.concatenate(parts)[:1000].tobytes() == whole[:1000].tobytes()


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.data())
def test_what_is_taken_back_and_forward_again_is_the_same(seed: int, d: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    preparation = turning(rng, d, data.draw(st.integers(1, d)))
    places = rng.standard_normal((4, preparation.p))
    np.testing.assert_allclose(preparation.to_prepared(preparation.to_data_units(places)), places, atol=1e-10)
    if preparation.p == d:
        centers = rng.standard_normal((4, d))
        np.testing.assert_allclose(preparation.to_data_units(preparation.to_prepared(centers)), centers, atol=1e-10)


def test_a_covariance_comes_back_as_that_of_the_rows_that_come_back(rng: np.random.Generator) -> None:
    preparation = turning(rng, 6, 4)
    places = rng.standard_normal((500, 4)) @ rng.standard_normal((4, 4))
    expected = np.cov(preparation.to_data_units(places).T)
    np.testing.assert_allclose(preparation.covariance_to_data_units(np.cov(places.T)), expected, atol=1e-10)


def test_features_of_weight_zero_come_back_as_the_offset() -> None:
    preparation = Preparation(False, np.array([1.0, 7.0]), np.array([2.0, 0.0]), np.array([0.5, 0.0]))
    np.testing.assert_array_equal(preparation.to_data_units(np.array([[4.0, 0.0]])), [[3.0, 7.0]])
    assert not preparation.rescales


def test_what_a_row_lacks_stays_missing_under_a_diagonal_map() -> None:
    rows = in_memory_rows(np.array([[1.0, np.nan], [3.0, 4.0]]), allow_missing=True)
    made = Preparation(False, np.ones(2), np.array([2.0, 0.0]), np.array([0.5, 0.0])).apply(rows)
    np.testing.assert_array_equal(made.values, [[0.0, np.nan], [4.0, 0.0]])
    assert made.has_missing is rows.has_missing


@pytest.mark.parametrize("dtype", ["f8", "f4", "u1"])
def test_unit_norm_is_that_of_scikit_learn(dtype: str, rng: np.random.Generator) -> None:
    values = (rng.uniform(1, 200, (700, 9))).astype(dtype)
    prepared = only_unit_norm(9).apply_to_values(values)[0]
    np.testing.assert_allclose(prepared, normalize(values.astype(np.float64)), rtol=1e-15)


@pytest.mark.parametrize("size", [1e-320, 1e-200, 1e200, 1e308])
def test_rows_whose_squares_leave_the_range_have_unit_norm_too(size: float) -> None:
    prepared, whole = only_unit_norm(2).apply_to_values(np.array([[3.0, -4.0]]) / 4.0 * size)
    np.testing.assert_allclose(prepared, [[0.6, -0.8]], rtol=1e-3 if size < 1e-300 else 1e-14)
    assert whole.all()


def test_a_row_of_zeros_has_no_direction_and_is_left_out() -> None:
    values = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, -0.0], [3.0, 4.0]])
    weights = np.arange(4.0)
    made = only_unit_norm(2).apply(in_memory_rows(values, weights))
    np.testing.assert_allclose(made.values, [[1.0, 0.0], [0.6, 0.8]])
    np.testing.assert_array_equal(made.weights, [0.0, 3.0])
    np.testing.assert_array_equal(made.positions(np.arange(2)), [0, 3])
    assert made.to_grid(made.weights, -1.0).tolist() == [0.0, -1.0, -1.0, 3.0]


def test_preparing_leaves_what_was_decoded_as_it_is(rng: np.random.Generator) -> None:
    values = rng.standard_normal((300, 4))
    before: Any = values.copy()
    Preparation(True, np.ones(4), np.ones(4), np.ones(4)).apply_to_values(values)
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize(("dtype", "factor"), [("u1", 8), ("f4", 2), ("f8", 1)])
def test_blocks_leave_room_for_double_precision(dtype: str, factor: int) -> None:
    source = open_source(np.zeros((10, 3), dtype))
    assert usable_memory(source, 2**30, True) * factor == 2**30
    assert usable_memory(source, 2**30, False) == 2**30
