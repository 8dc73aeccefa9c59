from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustering.data.rows import in_memory_rows
from clustering.models.assignment import Assignment, aligned_empty, compiled_for, sub_blocks
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.lane_types import ELEMENT_CODES
from tests.brute import least_distances

DTYPES = ("float64", "float32", "float16", "uint8", "int16")
# Few centers of few features are compared by distances, all others by scores.
PATHS = {"distances": (3, 7), "few-centers": (20, 5), "few-features": (5, 20), "scores": (40, 20)}
paths = pytest.mark.parametrize(("d", "k"), PATHS.values(), ids=PATHS)


def assign(values: np.ndarray, centers: np.ndarray, shift: np.ndarray | None = None) -> Assignment:
    shift = np.zeros(centers.shape[1]) if shift is None else shift
    return KMeans(len(centers)).assign(KMeansParams(shift, np.asarray(centers, np.float64)), in_memory_rows(values))


def assert_nearest(values: np.ndarray, centers: np.ndarray, shift: np.ndarray | None = None) -> None:
    d = centers.shape[1]
    rows = values.astype(np.float64) - (0.0 if shift is None else shift)
    with np.errstate(over="ignore", under="ignore"):
        direct = np.stack([((rows - center) ** 2).sum(axis=1) for center in centers], axis=1)
    # With a single center there is no choice of label. These distances define the expected labels.
    distances = np.stack([assign(values, center[None], shift).distances for center in centers], axis=1)
    np.testing.assert_allclose(distances, direct, rtol=(d + 4) * np.finfo(np.float64).eps, atol=0)
    assignment = assign(values, centers, shift)
    labels = least_distances(distances, centers)
    np.testing.assert_array_equal(assignment.labels, labels)
    np.testing.assert_array_equal(assignment.distances, distances[np.arange(len(values)), labels])


def random_rows(rng: np.random.Generator, dtype: str, n: int, d: int) -> np.ndarray:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return (rng.standard_normal((n, d)) * 3).astype(kind)
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max, (n, d), kind, endpoint=True)


SHAPES = [(1, 1), (1, 70), (2, 3), (3, 70), (15, 13), (16, 7), (32, 70), (33, 7), (64, 70), (300, 1), (300, 70)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("d", "k"), SHAPES, ids=[f"d{d}-k{k}" for d, k in SHAPES])
def test_labels_are_those_of_float64_distances(dtype: str, d: int, k: int, rng: np.random.Generator) -> None:
    # 300 rows of 300 features are three sub-blocks, the last one shorter.
    values = random_rows(rng, dtype, 300, d)
    assert_nearest(values, random_rows(rng, dtype, k, d) + rng.standard_normal((k, d)))


@pytest.mark.parametrize(("d", "k"), [(15, 5), (16, 20)], ids=["distances", "scores"])
def test_rows_of_many_tiles_are_all_labelled(d: int, k: int, rng: np.random.Generator) -> None:
    values = rng.standard_normal((4_226, d)).astype(np.float32)
    assert_nearest(values, rng.standard_normal((k, d)))


KINDS = ("spread", "members", "midpoints", "grid", "crowded")


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype, kind = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(KINDS))
    d = draw(st.one_of(st.integers(1, 6), st.integers(1, 300)))
    k = draw(st.integers(1, 70))
    values = random_rows(rng, dtype, 100, d)
    if kind == "grid":
        values = (values.astype(np.int64) % 3).astype(dtype)
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
    scale, offset = 1.0, 0.0
    if dtype in ("float64", "float32"):
        scale = 10.0 ** draw(st.sampled_from([-30, -20, -3, 0, 3, 15, 18, 19, 25]))
        values = values * np.asarray(scale, dtype)
    if dtype == "float64":
        offset = draw(st.sampled_from([0.0, 1e3, 1e8])) * scale
        values = values + offset
    shift = np.full(d, offset) + draw(st.sampled_from([0.0, 0.3])) * scale
    return values, centers * scale, shift


@given(problems())
def test_labels_are_those_of_float64_distances_for_any_rows(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    assert_nearest(*problem)


# The square of a center, its product with the row, or both overflow in float32; the distances do not.
OVERFLOWING = {
    "square": ([1.8e19], [[0.0], [1.85e19]]),
    "product": ([1.5e19, 1e19], [[1.2e19, -1.2e19], [1e19, 0.0]]),
    "square-and-product": ([1.9e19, 1.0], [[1e19, 0.0], [2e19, 0.0], [0.0, 0.0]]),
    "row": ([3e38, 3e38], [[1e38, 0.0], [3e38, 2e38], [-3e38, 3e38]]),
}


@pytest.mark.parametrize("d", [2, 40], ids="d{}".format)
@pytest.mark.parametrize(("row", "centers"), OVERFLOWING.values(), ids=OVERFLOWING)
def test_scores_that_overflow_decide_nothing(row: list[float], centers: list[list[float]], d: int) -> None:
    near = np.pad(np.array(centers), ((0, 0), (0, d - len(row))))
    values = np.pad(np.array([row]), ((0, 0), (0, d - len(row))))
    # Enough centers for scores, all of them on the far side.
    others = -0.01 * np.arange(1.0, 15.0)[:, None] * values
    assert_nearest(values.astype(np.float32), np.concatenate([near, others]))


@pytest.mark.parametrize("d", [2, 40], ids="d{}".format)
@pytest.mark.parametrize("scale", [1e-19, 1e-21, 1e-22, 1e-23, 1e-30], ids="{:.0e}".format)
def test_scores_that_underflow_decide_nothing(scale: float, d: int, rng: np.random.Generator) -> None:
    values = (rng.standard_normal((500, d)) * scale).astype(np.float32)
    assert_nearest(values, rng.standard_normal((20, d)) * scale)


@paths
def test_distances_that_overflow_in_float64_still_give_a_label(d: int, k: int, rng: np.random.Generator) -> None:
    values = rng.standard_normal((50, d))
    assignment = assign(values * 1e200, values[:k] * 1e200)
    np.testing.assert_array_equal(assignment.labels, assign(values, values[:k]).labels)
    np.testing.assert_array_equal(assignment.distances, np.where(np.arange(50) < k, 0.0, np.inf))


@paths
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tie_goes_to_the_lowest_index(dtype: str, d: int, k: int, rng: np.random.Generator) -> None:
    values = random_rows(rng, dtype, 200, d)
    centers = random_rows(rng, dtype, k, d).astype(np.float64)
    np.testing.assert_array_equal(
        assign(values, np.repeat(centers, 3, axis=0)).labels, 3 * assign(values, centers).labels
    )


@paths
@pytest.mark.parametrize("dtype", ["float64", "int16"])
@pytest.mark.parametrize("far", [0.0, 1.0, 1e4], ids="shift-{:g}".format)
def test_a_tie_that_rounding_breaks_goes_to_the_lowest_index(
    dtype: str, far: float, d: int, k: int, rng: np.random.Generator
) -> None:
    # Each row lies halfway between two centers. Noise moves the centers by as much as another order of sums would.
    step = 1 if dtype == "int16" else 0.1
    low, apart = rng.integers(-50, 50, (k, d)), 2 * rng.integers(0, 3, (k, d))
    values = ((low + apart // 2) * step).astype(dtype)
    first, second = low * float(step), (low + apart) * float(step)
    centers = np.concatenate([first, second])
    expected = assign(values, centers).labels
    away = np.sort(((values[:, None] - centers[None]) ** 2).sum(axis=2), axis=1)
    assert (away[:, 1] - away[:, 0] < 1e-9).all()
    for _ in range(5):
        noise = 1 + 8 * np.finfo(float).eps * rng.uniform(-1, 1, centers.shape)
        shift = far * rng.standard_normal(d)
        assignment = assign(values, (centers - shift) * noise, shift)
        np.testing.assert_array_equal(assignment.labels, expected)


@pytest.mark.parametrize("d", [3, 20, 40], ids="d{}".format)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_at_a_center_belongs_to_it_at_no_distance(dtype: str, d: int, rng: np.random.Generator) -> None:
    values = np.unique(random_rows(rng, dtype, 60, d), axis=0)
    assignment = assign(values, values.astype(np.float64))
    np.testing.assert_array_equal(assignment.labels, np.arange(len(values)))
    assert (assignment.distances == 0).all()


@paths
@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
@given(cuts=st.sets(st.integers(1, 499), max_size=8), seed=st.integers(0, 99))
def test_labels_do_not_depend_on_how_rows_are_split(dtype: str, d: int, k: int, cuts: set[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, centers = random_rows(rng, dtype, 500, d), rng.standard_normal((k, d))
    whole = assign(values, centers)
    parts = [assign(part, centers) for part in np.split(values, sorted(cuts))]
    np.testing.assert_array_equal(np.concatenate([p.labels for p in parts]), whole.labels)
    np.testing.assert_array_equal(np.concatenate([p.distances for p in parts]), whole.distances)


def unaligned(values: np.ndarray) -> np.ndarray:
    return np.frombuffer(b"x" + values.tobytes(), np.uint8)[1:].view(values.dtype).reshape(values.shape)


LAYOUTS = {
    "column-order": np.asfortranarray,
    "strided": lambda values: np.repeat(values, 2, axis=0)[::2],
    "unaligned": unaligned,
    "other-byte-order": lambda values: values.astype(values.dtype.newbyteorder()),
}


@paths
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_labels_do_not_depend_on_how_rows_lie_in_memory(layout, d: int, k: int, rng: np.random.Generator) -> None:
    values, centers = rng.standard_normal((300, d)).astype(np.float32), rng.standard_normal((k, d))
    plain, other = assign(values, centers), assign(layout(values), centers)
    np.testing.assert_array_equal(other.labels, plain.labels)
    np.testing.assert_array_equal(other.distances, plain.distances)


@paths
def test_no_rows_have_no_labels(d: int, k: int) -> None:
    assert assign(np.empty((0, d)), np.zeros((k, d))).labels.shape == (0,)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sub_blocks_are_the_rows_in_order_less_the_shift_in_float64(dtype: str, rng: np.random.Generator) -> None:
    values, shift = random_rows(rng, dtype, 700, 200), rng.standard_normal(200) * 1e3
    parts = [(start, stop, rows.copy()) for start, stop, rows in sub_blocks(values, shift)]
    assert len(parts) > 1
    assert [p[0] for p in parts] == [0, *(p[1] for p in parts[:-1])]
    np.testing.assert_array_equal(np.concatenate([p[2] for p in parts]), values.astype(np.float64) - shift)


@pytest.mark.parametrize("dtype", ["?", "<f2", ">f2", "<f4", ">f4", ">f8", "i1", "u1", ">i2", "u2", ">u4", "i8", ">u8"])
@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray], ids=["rows", "columns"])
def test_values_of_any_type_and_layout_come_in_one_that_kernels_know(layout, dtype: str) -> None:
    values = layout(np.arange(6).reshape(2, 3) % 2).astype(dtype, order="K")
    compiled = compiled_for(values)
    assert compiled.dtype in ELEMENT_CODES
    assert compiled.flags.c_contiguous
    np.testing.assert_array_equal(compiled, values)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=3), st.sampled_from(["f8", "f4", "i4"]))
def test_buffers_start_at_a_cache_line(shape: list[int], dtype: str) -> None:
    buffer = aligned_empty(tuple(shape), dtype)
    assert buffer.shape == tuple(shape)
    assert buffer.dtype == dtype
    assert buffer.size == 0 or buffer.ctypes.data % 64 == 0
