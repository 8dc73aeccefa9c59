from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustering.data.rows import in_memory_rows
from clustering.models.assignment import FEW_FEATURES, aligned_empty, sub_block_rows, sub_blocks
from clustering.models.kmeans import Assignment, KMeans, KMeansParams

DTYPES = ("float64", "float32", "float16", "uint8", "int16")


def assign(values: np.ndarray, centers: np.ndarray, shift: np.ndarray | None = None) -> Assignment:
    shift = np.zeros(centers.shape[1]) if shift is None else shift
    return KMeans(len(centers)).assign(KMeansParams(shift, np.asarray(centers, np.float64)), in_memory_rows(values))


def direct_distances(values: np.ndarray, centers: np.ndarray, shift: np.ndarray | float = 0.0) -> np.ndarray:
    """Float64 differences, squared and added up in the order that defines the distance."""
    rows = values.astype(np.float64) - shift
    d = rows.shape[1]
    sums = np.zeros((4, len(rows), len(centers)))
    with np.errstate(over="ignore", under="ignore"):
        for j in range(d):
            lane = j % 4 if j < d - d % 4 else 0
            sums[lane] += (rows[:, None, j] - centers[None, :, j]) ** 2
        return (sums[0] + sums[1]) + (sums[2] + sums[3])


def assert_direct(values: np.ndarray, centers: np.ndarray, shift: np.ndarray | None = None) -> None:
    distances = direct_distances(values, centers, 0.0 if shift is None else shift)
    found = assign(values, centers, shift)
    np.testing.assert_array_equal(found.labels, distances.argmin(axis=1))
    np.testing.assert_array_equal(found.distances, distances.min(axis=1))


def random_rows(rng: np.random.Generator, dtype: str, n: int, d: int) -> np.ndarray:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return (rng.standard_normal((n, d)) * 3).astype(kind)
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max, (n, d), kind, endpoint=True)


SHAPES = [(1, 1), (1, 70), (2, 3), (3, 70), (7, 5), (32, 70), (33, 7), (64, 70), (300, 1), (300, 70)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("d", "k"), SHAPES, ids=[f"d{d}-k{k}" for d, k in SHAPES])
def test_labels_are_those_of_float64_distances(dtype: str, d: int, k: int, rng: np.random.Generator) -> None:
    # 300 rows of 300 features are three sub-blocks, the last one shorter.
    values = random_rows(rng, dtype, 300, d)
    assert_direct(values, random_rows(rng, dtype, k, d) + rng.standard_normal((k, d)))


def test_rows_of_several_sub_blocks_are_all_labelled(rng: np.random.Generator) -> None:
    values = rng.standard_normal((sub_block_rows(16) + 130, 16)).astype(np.float32)
    assert_direct(values, rng.standard_normal((5, 16)))


KINDS = ("spread", "members", "midpoints", "grid", "crowded")


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype, kind = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(KINDS))
    d = draw(st.one_of(st.integers(1, 6), st.integers(1, 300)))
    k = draw(st.integers(1, 70))
    values = random_rows(rng, dtype, 100, d)
    if kind == "grid":
        values = values.astype(np.int64) % 3
    values = values.astype(dtype)
    members = values[rng.integers(0, 100, k)].astype(np.float64)
    centers = {
        "spread": members + rng.standard_normal((k, d)),
        "members": members,
        "midpoints": members,
        "grid": rng.integers(0, 3, (k, d)).astype(np.float64),
        # So close together that float32 cannot tell them apart.
        "crowded": members[:1] + 1e-7 * rng.standard_normal((k, d)),
    }[kind]
    if kind == "midpoints":
        pairs = centers[rng.integers(0, k, (100, 2))].mean(axis=1)
        values = np.where(rng.random((100, 1)) < 0.8, pairs, values).astype(dtype)
    scale = 1.0
    if dtype in ("float64", "float32"):
        scale = 10.0 ** draw(st.sampled_from([-30, -20, -3, 0, 3, 15, 18, 19, 25]))
    values = (values * np.asarray(scale, values.dtype)).astype(dtype)
    offset = draw(st.sampled_from([0.0, 1e3, 1e8])) * scale if dtype == "float64" else 0.0
    shift = np.full(d, offset) + draw(st.sampled_from([0.0, 0.3])) * scale
    return values + np.asarray(offset, values.dtype), centers * scale, shift


@given(problems())
def test_labels_are_those_of_float64_distances_for_any_rows(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    values, centers, shift = problem
    assert_direct(values, centers, shift)


# Squares and products of these overflow in float32, alone or before they cancel.
OVERFLOWING = {
    "square": ([[1.8e19]], [[0.0], [1.85e19]]),
    "product": ([[1.5e19, 1e19]], [[1.2e19, -1.2e19], [1e19, 0.0]]),
    "both": ([[1.9e19, 1.0]], [[1e19, 0.0], [2e19, 0.0], [0.0, 0.0]]),
    "row": ([[3e38, 3e38]], [[1e38, 0.0], [3e38, 2e38], [-3e38, 3e38]]),
}


@pytest.mark.parametrize("d", [2, FEW_FEATURES + 1], ids=["own-products", "blas-products"])
@pytest.mark.parametrize(("row", "centers"), OVERFLOWING.values(), ids=OVERFLOWING)
def test_scores_that_overflow_decide_nothing(row: list, centers: list, d: int) -> None:
    def wide(rows: list) -> np.ndarray:
        return np.pad(np.array(rows), ((0, 0), (0, d - len(rows[0]))))

    assert_direct(wide(row).astype(np.float32), wide(centers))


@pytest.mark.parametrize("d", [2, FEW_FEATURES + 1], ids=["own-products", "blas-products"])
def test_distances_that_overflow_in_float64_still_give_a_label(d: int, rng: np.random.Generator) -> None:
    values = rng.standard_normal((50, d)) * 1e200
    assert_direct(values, values[:3])


@pytest.mark.parametrize("d", [3, 40], ids=["own-products", "blas-products"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tie_goes_to_the_lowest_index(dtype: str, d: int, rng: np.random.Generator) -> None:
    values = random_rows(rng, dtype, 200, d)
    centers = np.repeat(random_rows(rng, dtype, 4, d).astype(np.float64), 3, axis=0)
    labels = assign(values, centers).labels
    assert set(labels.tolist()) <= {0, 3, 6, 9}
    np.testing.assert_array_equal(assign(values, centers[::3]).labels * 3, labels)


@pytest.mark.parametrize("d", [3, 40], ids=["own-products", "blas-products"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_at_a_center_belongs_to_it_at_no_distance(dtype: str, d: int, rng: np.random.Generator) -> None:
    values = np.unique(random_rows(rng, dtype, 60, d), axis=0)
    found = assign(values, values.astype(np.float64))
    np.testing.assert_array_equal(found.labels, np.arange(len(values)))
    assert (found.distances == 0).all()


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
@pytest.mark.parametrize("d", [3, 40, 300], ids=["own-products", "blas-products", "many-sub-blocks"])
@given(cuts=st.sets(st.integers(1, 499), max_size=8), seed=st.integers(0, 99))
def test_labels_do_not_depend_on_how_rows_are_split(dtype: str, d: int, cuts: set[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, centers = random_rows(rng, dtype, 500, d), rng.standard_normal((9, d))
    whole = assign(values, centers)
    parts = [assign(part, centers) for part in np.split(values, sorted(cuts))]
    np.testing.assert_array_equal(np.concatenate([p.labels for p in parts]), whole.labels)
    np.testing.assert_array_equal(np.concatenate([p.distances for p in parts]), whole.distances)


LAYOUTS = {
    "column-order": np.asfortranarray,
    "strided": lambda values: np.repeat(values, 2, axis=0)[::2],
    "unaligned": lambda values: np.frombuffer(b"x" + values.tobytes(), np.uint8)[1:].view(values.dtype).reshape(
        values.shape
    ),
    "other-byte-order": lambda values: values.astype(values.dtype.newbyteorder()),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("d", [3, 40], ids=["own-products", "blas-products"])
def test_labels_do_not_depend_on_how_rows_lie_in_memory(layout, d: int, rng: np.random.Generator) -> None:
    values, centers = rng.standard_normal((300, d)).astype(np.float32), rng.standard_normal((9, d))
    plain, other = assign(values, centers), assign(layout(values), centers)
    np.testing.assert_array_equal(other.labels, plain.labels)
    np.testing.assert_array_equal(other.distances, plain.distances)


def test_no_rows_have_no_labels() -> None:
    assert assign(np.empty((0, 3)), np.zeros((2, 3))).labels.shape == (0,)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sub_blocks_are_the_rows_in_order_less_the_shift_in_float64(dtype: str, rng: np.random.Generator) -> None:
    values, shift = random_rows(rng, dtype, 700, 200), rng.standard_normal(200) * 1e3
    parts = [(start, stop, rows.copy()) for start, stop, rows in sub_blocks(values, shift)]
    assert [p[0] for p in parts] == [0, *(p[1] for p in parts[:-1])]
    assert len(parts) > 1
    np.testing.assert_array_equal(np.concatenate([p[2] for p in parts]), values.astype(np.float64) - shift)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=3), st.sampled_from(["f8", "f4", "i4"]))
def test_buffers_start_at_a_cache_line(shape: list[int], dtype: str) -> None:
    buffer = aligned_empty(tuple(shape), dtype)
    assert buffer.shape == tuple(shape)
    assert buffer.dtype == dtype
    assert buffer.size == 0 or buffer.ctypes.data % 64 == 0
