from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustering.data.rows import Rows, in_memory_rows, unit_weights
from clustering.models import kernels
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.lloyd import LloydSums, empty_labels, label, lloyd
from clustering.models.prepared_centers import prepare_centers
from clustering.models.tree import fold
from tests.brute import least_distances

DTYPES = ("float64", "float32", "float16", ">f2", ">f4", "uint8", "int16", "int64", "bool")
# From one feature to more than the width of a tile: side by side, and by scores of one vector or several.
SHAPES = [(1, 1), (2, 3), (3, 90), (7, 2), (8, 8), (15, 70), (16, 2), (17, 4), (31, 16), (32, 17), (64, 9), (300, 40)]
FEW_SHAPES = [(1, 1), (2, 8), (3, 5), (4, 8), (5, 3), (8, 7), (11, 4), (15, 8)]
IN_PLACE_SHAPES = [(8, 9), (16, 2), (16, 70), (24, 5), (64, 9), (136, 12), (272, 3), (400, 80)]
shapes = pytest.mark.parametrize(("d", "k"), SHAPES, ids=[f"d{d}-k{k}" for d, k in SHAPES])


def random_values(rng: np.random.Generator, dtype: str, n: int, d: int) -> np.ndarray:
    scale = 50 if np.dtype(dtype).kind in "iu" else 1
    return (np.abs(rng.standard_normal((n, d))) * scale).astype(dtype)


def defined(rows: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distances = np.array([[kernels.distance_between(row, center) for center in centers] for row in rows])
    labels = least_distances(distances, centers)
    return labels, distances[np.arange(len(rows)), labels]


def everything(values: np.ndarray, weights: np.ndarray, shift: np.ndarray, centers: np.ndarray) -> LloydSums:
    """Sums that keep all rows away from their centers as the farthest."""
    return sums_of(values, weights, shift, centers, len(values) + 1)


def sums_of(values: np.ndarray, weights: np.ndarray, shift: np.ndarray, centers: np.ndarray, most: int) -> LloydSums:
    return lloyd([in_memory_rows(values, weights)], prepare_centers(shift, centers), most)


def assert_defined(values: np.ndarray, shift: np.ndarray, centers: np.ndarray) -> None:
    rows = values.astype(np.float64) - shift
    labels, distances = defined(rows, centers)
    weights = np.linspace(0.5, 2, len(values))
    sums = everything(values, weights, shift, centers)
    order = sorted(np.flatnonzero(distances > 0).tolist(), key=lambda r: (-distances[r], r))
    np.testing.assert_array_equal(sums.farthest.positions, np.array(order, int))
    np.testing.assert_array_equal(sums.farthest.distances, distances[order])
    np.testing.assert_array_equal(sums.farthest.labels, labels[order])
    np.testing.assert_array_equal(sums.farthest.weights, weights[order])
    np.testing.assert_array_equal(sums.farthest.rows, rows[order])
    block, prepared = in_memory_rows(values, weights), prepare_centers(shift, centers)
    added = empty_labels(len(values))
    sums_beside = lloyd([block], prepared, 1, added)
    for by_row in (label(block, prepared), added):
        np.testing.assert_array_equal(by_row.labels, labels)
        np.testing.assert_array_equal(by_row.distances, distances)
    np.testing.assert_array_equal(sums_beside.weight, sums.weight)
    np.testing.assert_array_equal(sums_beside.first, sums.first)
    shares = (labels[:, None] == np.arange(len(centers))) * weights[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_allclose(sums.weight, shares.sum(axis=0), rtol=1e-12)
        scale = np.abs(shares).T @ np.abs(rows)
        assert (np.abs(sums.first - shares.T @ rows) <= 1e-12 * scale).all()
        np.testing.assert_allclose(sums.objective, weights @ distances, rtol=1e-12)


@shapes
@pytest.mark.parametrize("dtype", DTYPES)
def test_labels_distances_and_sums_are_those_of_the_definition(
    dtype: str, d: int, k: int, rng: np.random.Generator
) -> None:
    # There are more rows than are added up in one partial sum, and the last tile is shorter.
    values = random_values(rng, dtype, 1101, d)
    assert_defined(values, rng.standard_normal(d), values[:k] - 0.5 * rng.standard_normal((k, d)))


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["float64", "float32"]),
    st.one_of(st.integers(1, 20), st.integers(1, 80)),
    st.integers(1, 40),
    st.sampled_from(["ties", "crowded", "midpoints"]),
    st.sampled_from([1e-300, 1e-30, 1.0, 1e18, 1e100]),
)
def test_close_calls_are_settled_by_the_definition(
    seed: int, dtype: str, d: int, k: int, kind: str, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        scale = float(np.clip(scale, 1e-30, 1e18))
    values = rng.integers(0, 3, (50, d)) * 1.0 if kind == "ties" else rng.standard_normal((50, d))
    centers = values[rng.integers(0, 50, k)]
    if kind == "crowded":
        centers = centers[:1] + 1e-8 * rng.standard_normal((k, d))
    if kind == "midpoints":
        values = centers[rng.integers(0, k, (50, 2))].mean(axis=1)
    assert_defined((values * scale).astype(dtype), np.zeros(d), centers * scale)


@pytest.mark.parametrize(("d", "k"), [(3, 7), (3, 9), (20, 3), (20, 20)])
def test_distances_beyond_float64_still_give_a_label(d: int, k: int, rng: np.random.Generator) -> None:
    values = rng.standard_normal((70, d)) * 1e200
    labels, distances = defined(values, values[:k])
    sums = everything(values, np.ones(70), np.zeros(d), values[:k])
    np.testing.assert_array_equal(sums.weight, np.bincount(labels, minlength=k))
    np.testing.assert_array_equal(sums.farthest.distances, np.sort(distances)[::-1][: 70 - k])


@shapes
def test_weights_of_one_give_the_bits_of_unit_weights(d: int, k: int, rng: np.random.Generator) -> None:
    values = random_values(rng, "float32", 700, d)
    centers = values[:k].astype(np.float64)
    unit = sums_of(values, np.broadcast_to(np.float64(1), (700,)), np.zeros(d), centers, 5)
    ones = sums_of(values, np.ones(700), np.zeros(d), centers, 5)
    again = sums_of(values.copy(), np.ones(700), np.zeros(d), centers, 5)
    for other in (ones, again):
        np.testing.assert_array_equal(unit.weight, other.weight)
        np.testing.assert_array_equal(unit.first, other.first)
        assert unit.objective == other.objective


@shapes
def test_parts_add_up_to_the_whole(d: int, k: int, rng: np.random.Generator) -> None:
    values, weights = random_values(rng, "float32", 3000, d), rng.random(3000)
    centers, shift = values[:k].astype(np.float64), np.zeros(d)
    whole = sums_of(values, weights, shift, centers, 1)
    parts = [sums_of(values[a:b], weights[a:b], shift, centers, 1) for a, b in ((0, 1), (1, 1027), (1027, 3000))]
    np.testing.assert_allclose(sum(p.weight for p in parts), whole.weight, rtol=1e-12)
    np.testing.assert_allclose(sum(p.first for p in parts), whole.first, rtol=1e-12)
    assert sum(p.objective for p in parts) == pytest.approx(whole.objective, rel=1e-12)


def single_problem(rng: np.random.Generator, d: int, k: int, scale: float) -> tuple[np.ndarray, ...]:
    """Rows in float32, weights, an origin of float32 and centers; many rows are near ties."""
    # Numbers near the greatest overflow where the origin is subtracted.
    values = np.clip(scale * rng.standard_normal((1101, d)), -3e38, 3e38).astype(np.float32)
    origin = (scale * rng.standard_normal(d)).astype(np.float32).astype(np.float64)
    centers = values[:k] - origin
    values[200:400] = values[rng.integers(0, k, 200)] / 2 + values[rng.integers(0, k, 200)] / 2
    return values, rng.random(len(values)), origin, centers


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1.0, 1e38])
@pytest.mark.parametrize(("d", "k"), [*FEW_SHAPES, *IN_PLACE_SHAPES])
def test_rows_that_are_read_in_the_source_give_the_bits_of_those_in_a_tile(
    d: int, k: int, scale: float, rng: np.random.Generator
) -> None:
    values, weights, origin, centers = single_problem(rng, d, k, scale)
    prepared = prepare_centers(origin, centers)
    assert prepared.centers.exact
    # Rows of float64 always go through a tile. Any address that numbers may have is tried.
    unaligned = np.concatenate([np.zeros(3, np.float32), values.ravel()])[3:].reshape(values.shape)
    for single in (values, unaligned):
        for own in (weights, np.broadcast_to(np.float64(1), (len(values),))):
            beside, beside_double = empty_labels(len(values)), empty_labels(len(values))
            sums = lloyd([in_memory_rows(single, own)], prepared, 2000, beside)
            double = lloyd([in_memory_rows(values.astype(np.float64), own)], prepared, 2000, beside_double)
            assert_same_sums(sums, double)
            only = label(in_memory_rows(single, own), prepared)
            for by_row in (beside, only):
                np.testing.assert_array_equal(by_row.labels, beside_double.labels)
                np.testing.assert_array_equal(by_row.distances, beside_double.distances)


def test_blocks_with_and_without_weights_share_a_call(rng: np.random.Generator) -> None:
    values, weights, origin, centers = single_problem(rng, 4, 8, 1.0)
    prepared = prepare_centers(origin, centers)
    unit = np.broadcast_to(np.float64(1), (len(values),))
    one = lloyd([in_memory_rows(values, own) for own in (weights, unit)], prepared, 5)
    # The second call works in the memory of the first, and in rows of another type there is none to share.
    again = lloyd([in_memory_rows(values, own) for own in (weights, unit)], prepared, 5)
    double = lloyd([in_memory_rows(values.astype(np.float64), own) for own in (weights, unit)], prepared, 5)
    for other in (again, double):
        assert_same_sums(one, other)


def test_memory_of_a_call_is_not_what_it_returned(rng: np.random.Generator) -> None:
    values = random_values(rng, "float32", 500, 4)
    prepared = prepare_centers(np.zeros(4), values[:8].astype(np.float64))
    one = lloyd([in_memory_rows(values)], prepared, 5)
    kept = [np.copy(array) for array in (one.weight, one.first, *one.farthest)]
    lloyd([in_memory_rows(values[::-1] * 2)], prepared, 5)
    for before, after in zip(kept, (one.weight, one.first, *one.farthest), strict=True):
        np.testing.assert_array_equal(before, after)


def test_memory_stays_in_its_process(rng: np.random.Generator) -> None:
    values = random_values(rng, "float32", 500, 4)
    prepared = prepare_centers(np.zeros(4), values[:8].astype(np.float64))
    one = lloyd([in_memory_rows(values)], prepared, 5)
    copied = pickle.loads(pickle.dumps(prepared))
    assert copied.spare.take((True, 1, 5)) is None
    assert_same_sums(one, lloyd([in_memory_rows(values)], copied, 5))


def assert_same_sums(one: LloydSums, other: LloydSums) -> None:
    for name in ("weight", "first", "objective"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for a, b in zip(one.farthest, other.farthest, strict=True):
        np.testing.assert_array_equal(a, b)


def random_blocks(rng: np.random.Generator, n_blocks: int, d: int, dtype: str, *, masked: bool) -> list[Rows]:
    """Blocks of a grid of rows of blocks, whose C order is not that of positions; many distances are equal."""
    blocks = []
    for i in range(n_blocks):
        cells = np.flatnonzero(rng.random(40) < 0.7) if masked else None
        values = rng.integers(0, 3, (40 if cells is None else len(cells), d)).astype(dtype)
        weights = rng.integers(0, 3, len(values)) / 2 if masked else unit_weights(len(values))
        blocks.append(Rows(values, weights, cells, (0, 4 * i), (10, 4), (10, 4 * n_blocks)))
    return blocks


def assert_same_statistics(one, other) -> None:
    for name in ("weight", "first", "objective", "count"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for a, b in zip(one.farthest, other.farthest, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("masked", [False, True], ids=["all-cells", "masked"])
@pytest.mark.parametrize(("d", "k", "dtype"), [(3, 7, "float32"), (20, 3, "uint8"), (20, 20, "float64")])
@given(n_blocks=st.integers(1, 20), seed=st.integers(0, 999))
def test_a_run_of_blocks_gives_the_bits_of_its_blocks(
    d: int, k: int, dtype: str, masked: bool, n_blocks: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    blocks = random_blocks(rng, n_blocks, d, dtype, masked=masked)
    params = KMeansParams(rng.random(d), rng.integers(0, 3, (k, d)) + 0.3)
    of_pass = KMeans(k).for_pass(params)
    assert_same_statistics(of_pass.of_run(blocks), fold(map(of_pass, blocks)))
