from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans as Reference
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from zarr.storage import LocalStore, WrapperStore

import clustering as c
from clustering.fitting import loop


def blobs(seed: int, n: int, d: int, k: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(-8, 8, (k, d))[rng.integers(0, k, n)] + rng.standard_normal((n, d))


DATA = {
    "digits": (load_digits().data, 10),
    "iris": (load_iris().data, 3),
    "blobs": (blobs(0, 3000, 5, 12), 12),
    "blobs-1e6-sigma-off": (1e6 + blobs(1, 3000, 3, 7), 7),
    "many-features": (blobs(2, 400, 60, 20), 20),
}
data = pytest.mark.parametrize(("values", "k"), DATA.values(), ids=DATA)


def starts(values: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.unique(values, axis=0), k, replace=False)


def assert_close(centers: Any, expected: Any, values: np.ndarray) -> None:
    # The second term is the resolution of float64 at the place of the data.
    atol = 1e-10 * np.ptp(values) + 8 * np.spacing(np.abs(values).max())
    np.testing.assert_allclose(np.asarray(centers), np.asarray(expected), rtol=0, atol=atol)


def reference(values: np.ndarray, init: np.ndarray, passes: int, weights: np.ndarray | None = None) -> Reference:
    estimator = Reference(len(init), init=init, n_init=1, algorithm="lloyd", tol=0, max_iter=passes)
    with warnings.catch_warnings():
        # It warns where a cluster is empty in the end.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(values, sample_weight=weights)


@data
def test_every_pass_is_that_of_scikit_learn(values: np.ndarray, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    init = starts(values, k)
    params: list[Any] = []

    def watched(*given: Any) -> loop.Candidate:
        candidate = advance(*given)
        params.append(candidate.params)
        return candidate

    advance = loop.advance
    monkeypatch.setattr(loop, "advance", watched)
    objectives: list[float] = []
    whole = c.fit(values, c.KMeans(k), init=init, on_pass=lambda record: objectives.append(record.objective))
    monkeypatch.undo()
    assert whole.converged
    assert len(params) == whole.iterations
    np.testing.assert_array_equal(objectives, whole.history[:, 1])
    for passes in range(1, min(whole.iterations, 25) + 1):
        # The fit as it was after so many passes.
        fit = replace(whole, fitted=replace(whole.fitted, params=params[passes - 1]))
        theirs = reference(values, init, passes)
        assert_close(fit.centers, theirs.cluster_centers_, values)
        np.testing.assert_array_equal(fit.predict(values), theirs.labels_)
        np.testing.assert_allclose(fit.score(values), theirs.inertia_, rtol=1e-12)
        if passes < whole.iterations:
            # The labels of their final centers are those of our next assignment.
            np.testing.assert_allclose(whole.history[passes, 0], theirs.inertia_, rtol=1e-12)


@data
def test_a_limit_of_passes_gives_the_bits_of_the_fit_so_far(values: np.ndarray, k: int) -> None:
    init = starts(values, k)
    whole = c.fit(values, c.KMeans(k), init=init)
    for passes in {1, 2, whole.iterations // 2, whole.iterations}:
        fit = c.fit(values, c.KMeans(k), init=init, max_iterations=passes)
        theirs = reference(values, init, passes)
        assert_close(fit.centers, theirs.cluster_centers_, values)
        np.testing.assert_array_equal(fit.predict(values), theirs.labels_)
        np.testing.assert_array_equal(fit.history, whole.history[:passes])


@data
def test_a_fit_ends_where_scikit_learn_does(values: np.ndarray, k: int) -> None:
    init = starts(values, k, seed=1)
    fit, theirs = c.fit(values, c.KMeans(k), init=init), reference(values, init, 1000)
    assert_close(fit.centers, theirs.cluster_centers_, values)
    np.testing.assert_array_equal(fit.predict(values), theirs.labels_)
    np.testing.assert_allclose(fit.objective, theirs.inertia_, rtol=1e-12)
    np.testing.assert_allclose(fit.weights, np.bincount(theirs.labels_, minlength=k) / len(values), rtol=1e-12)


@data
def test_the_objective_after_an_update_is_that_of_the_same_labels(values: np.ndarray, k: int) -> None:
    init = starts(values, k)
    labels = c.fit(values, c.KMeans(k), init=init, max_iterations=0).predict(values)
    fit = c.fit(values, c.KMeans(k), init=init, max_iterations=1)
    np.testing.assert_allclose(fit.history[0, 0], np.sum((values - init[labels]) ** 2), rtol=1e-12)
    np.testing.assert_allclose(fit.history[0, 1], np.sum((values - fit.centers[labels]) ** 2), rtol=1e-9)
    assert fit.objective == fit.score(values)


def test_weighted_passes_are_those_of_scikit_learn(rng: np.random.Generator) -> None:
    values, weights = blobs(3, 1000, 4, 6), rng.random(1000) * 3
    init = starts(values, 6)
    for passes in (1, 2, 5, 50):
        fit = c.fit(values, c.KMeans(6), init=init, weights=weights, max_iterations=passes)
        theirs = reference(values, init, passes, weights)
        assert_close(fit.centers, theirs.cluster_centers_, values)
        np.testing.assert_array_equal(fit.predict(values), theirs.labels_)
        np.testing.assert_allclose(fit.score(values, weights=weights), theirs.inertia_, rtol=1e-12)


@given(st.integers(0, 1000), st.integers(0, 4))
@settings(max_examples=15)
def test_a_single_empty_cluster_is_placed_as_scikit_learn_places_it(seed: int, empty: int) -> None:
    values = blobs(seed, 200, 3, 5)
    init = starts(values, 5, seed)
    init[empty] = 1e3
    fit, theirs = c.fit(values, c.KMeans(5), init=init, max_iterations=1), reference(values, init, 1)
    assert fit.fitted.notes[0] == f"pass 1: empty cluster {empty} re-seeded at the farthest row"
    assert_close(fit.centers, theirs.cluster_centers_, values)
    np.testing.assert_array_equal(fit.predict(values), theirs.labels_)


@pytest.fixture(scope="module")
def field() -> np.ndarray:
    return blobs(4, 3000, 4, 6)


@pytest.fixture(scope="module")
def default_fit(field: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    fit = c.fit(field, c.KMeans(6), sample_rows=1000)
    return fit.centers, fit.predict(field), fit.objective


def assert_same_fit(fit: c.Fit, data: Any, expected: tuple[np.ndarray, np.ndarray, float], **options: Any) -> None:
    centers, labels, objective = expected
    np.testing.assert_allclose(np.asarray(fit.centers), centers, rtol=1e-10)
    np.testing.assert_array_equal(np.asarray(fit.predict(data, **options)), labels)
    np.testing.assert_allclose(fit.objective, objective, rtol=1e-12)


@pytest.mark.parametrize("block_bytes", [100, 1000, 30_001, 10**9], ids=["three-rows", "many", "few", "one"])
def test_blocks_of_any_size_give_the_same_default_fit(block_bytes: int, field: np.ndarray, default_fit: tuple) -> None:
    fit = c.fit(field, c.KMeans(6), sample_rows=1000, block_bytes=block_bytes)
    assert_same_fit(fit, field, default_fit, block_bytes=block_bytes)


@pytest.mark.parametrize("rows", [50, 333, 3000], ids="chunks-of-{}".format)
@pytest.mark.parametrize("columns", [1, 4], ids=["split-features", "whole-features"])
def test_zarr_chunks_of_any_size_give_the_same_default_fit(
    rows: int, columns: int, field: np.ndarray, default_fit: tuple, tmp_path: Path
) -> None:
    array = zarr.create_array(tmp_path / "rows.zarr", data=field, chunks=(rows, columns))
    for stored in (array, tmp_path / "rows.zarr"):
        fit = c.fit(stored, c.KMeans(6), sample_rows=1000, block_bytes=rows * 32)
        assert_same_fit(fit, stored, default_fit)


@pytest.mark.parametrize("chunks", [(1000, 4), ((17, 2000, 983), (3, 1))], ids=["even", "uneven"])
def test_dask_chunks_of_any_size_give_the_same_default_fit(
    chunks: tuple, field: np.ndarray, default_fit: tuple
) -> None:
    array = dask.array.from_array(field, chunks=chunks)
    assert_same_fit(c.fit(array, c.KMeans(6), sample_rows=1000, block_bytes=20_000), array, default_fit)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int16"])
def test_rows_of_any_precision_give_the_fit_of_their_float64_values(dtype: str, field: np.ndarray) -> None:
    values = np.round((field - field.min()) * 4).astype(dtype)
    narrow, wide = c.fit(values, c.KMeans(6)), c.fit(values.astype(np.float64), c.KMeans(6))
    np.testing.assert_array_equal(narrow.centers, wide.centers)
    np.testing.assert_array_equal(narrow.predict(values), wide.predict(values))
    np.testing.assert_array_equal(narrow.history, wide.history)


@pytest.fixture(scope="module")
def plain_fit(field: np.ndarray) -> c.Fit:
    return c.fit(field, c.KMeans(6), cluster="synchronous", block_bytes=3000)


@pytest.mark.parametrize("workers", [1, 2, 5], ids="workers-{}".format)
def test_any_number_of_workers_gives_the_same_bits(workers: int, field: np.ndarray, plain_fit: c.Fit) -> None:
    plain, fit = plain_fit, c.fit(field, c.KMeans(6), workers=workers, block_bytes=3000)
    np.testing.assert_array_equal(fit.centers, plain.centers)
    np.testing.assert_array_equal(fit.history, plain.history)


@pytest.fixture(scope="module")
def started_fit(field: np.ndarray) -> c.Fit:
    """From the first rows."""
    return c.fit(field, c.KMeans(6), init=field[:6])


@pytest.mark.parametrize("seed", range(4), ids="seed-{}".format)
def test_the_order_of_rows_does_not_matter(seed: int, field: np.ndarray, started_fit: c.Fit) -> None:
    order = np.random.default_rng(seed).permutation(len(field))
    fit, permuted = started_fit, c.fit(field[order], c.KMeans(6), init=field[:6])
    np.testing.assert_allclose(permuted.centers, fit.centers, rtol=1e-10)
    np.testing.assert_array_equal(permuted.predict(field[order]), fit.predict(field)[order])


def test_a_whole_weight_equals_as_many_equal_rows(field: np.ndarray, rng: np.random.Generator) -> None:
    weights = rng.integers(0, 4, len(field))
    init = field[:6]
    weighted = c.fit(field, c.KMeans(6), init=init, weights=weights.astype(float))
    repeated = c.fit(np.repeat(field, weights, axis=0), c.KMeans(6), init=init)
    assert weighted.iterations == repeated.iterations
    np.testing.assert_allclose(weighted.centers, repeated.centers, rtol=1e-10)
    np.testing.assert_allclose(weighted.history, repeated.history, rtol=1e-12)
    np.testing.assert_allclose(weighted.weights, repeated.weights, rtol=1e-12)


def test_the_same_seed_gives_the_same_bits_and_another_seed_another_start(rng: np.random.Generator) -> None:
    values = rng.random((500, 2))
    fits = [c.fit(values, c.KMeans(9), seed=seed, restarts=1) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(fits[0].centers, fits[1].centers)
    np.testing.assert_array_equal(fits[0].history, fits[1].history)
    assert not np.array_equal(fits[0].centers, fits[2].centers)


@pytest.mark.parametrize("sample_rows", [200_000, 500], ids=["whole-sample", "small-sample"])
@pytest.mark.parametrize("seed", range(10), ids="seed-{}".format)
def test_default_options_find_planted_blobs(seed: int, sample_rows: int) -> None:
    rng = np.random.default_rng(100 + seed)
    places = np.stack(np.meshgrid(*[np.arange(5) * 10.0] * 2), axis=-1).reshape(-1, 2)
    truth = np.repeat(np.arange(25), 60)
    values = places[truth] + rng.standard_normal((1500, 2))
    means = np.stack([values[truth == i].mean(axis=0) for i in range(25)])
    fit = c.fit(values, c.KMeans(25), seed=seed, sample_rows=sample_rows)
    assert fit.objective <= np.sum((values - means[truth]) ** 2) * (1 + 1e-12)


class CountingStore(WrapperStore):
    """Counts how often each chunk is fetched."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.fetched: Counter[str] = Counter()

    async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        if key.startswith("c/"):
            self.fetched[key] += 1
        return await super().get(key, *args, **kwargs)


@pytest.mark.parametrize("finalists", [1, 3], ids=["one-finalist", "three-finalists"])
def test_a_pass_reads_each_block_once_whatever_the_number_of_candidates(finalists: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((4000, 2))
    zarr.create_array(tmp_path / "rows.zarr", data=values, chunks=(500, 2))
    store = CountingStore(LocalStore(tmp_path / "rows.zarr", read_only=True))
    per_pass, active, reads = [], [], []

    def watch(record: Any) -> None:
        per_pass.append(sum(store.fetched.values()))
        active.append(record.active)
        reads.append(record.read_stats.blocks)

    # Room for three of the eight blocks; the others are read again in each pass.
    fit = c.fit(
        zarr.open_array(store, mode="r"), c.KMeans(20), finalists=finalists, sample_rows=300,
        block_bytes=8000, memory=2 * 3 * 8000, max_iterations=6, cluster="synchronous", on_pass=watch,
        accelerate="none",
    )  # fmt: skip
    assert active[0] == finalists
    # Pass 0, the passes, the measurement of stopped finalists where there are several, and that at the final centers,
    # as a limit stopped the fit.
    assert max(store.fetched.values()) == 1 + len(per_pass) + (finalists > 1) + 1
    assert per_pass == [8 + 5 * passes for passes in range(1, len(per_pass) + 1)]
    assert reads == [5] * len(per_pass)
    assert fit.reads == sum(store.fetched.values()) / 8


def test_rows_that_fit_in_memory_are_read_once(tmp_path: Path, field: np.ndarray) -> None:
    zarr.create_array(tmp_path / "rows.zarr", data=field, chunks=(500, 4))
    store = CountingStore(LocalStore(tmp_path / "rows.zarr", read_only=True))
    fit = c.fit(zarr.open_array(store, mode="r"), c.KMeans(6), sample_rows=300)
    assert fit.iterations > 1
    assert set(store.fetched.values()) == {1}
    assert fit.reads == 1.0


def test_more_finalists_are_never_worse_and_the_best_is_returned() -> None:
    values = np.random.default_rng(5).random((1000, 2))
    objectives = []
    for seed in range(5):
        fits = [c.fit(values, c.KMeans(12), seed=seed, sample_rows=100, finalists=n) for n in (1, 3)]
        objectives.append([fit.objective for fit in fits])
        np.testing.assert_allclose(fits[1].score(values), fits[1].objective, rtol=1e-12)
    one, three = np.array(objectives).T
    assert (three <= one).all()
    assert (three < one).any()


def test_more_restarts_are_not_worse_on_average() -> None:
    values = np.random.default_rng(6).random((300, 2))
    one, ten = (
        np.mean([c.fit(values, c.KMeans(12), seed=seed, restarts=n).objective for seed in range(5)]) for n in (1, 10)
    )
    assert ten < one
