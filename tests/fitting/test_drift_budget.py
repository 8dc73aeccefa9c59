from __future__ import annotations

import os
import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pytest
import zarr
from sklearn.datasets import load_digits, load_iris

import clustering as c
from clustering.data.access import open_source
from clustering.errors import DataError
from clustering.execution.engine import connect
from clustering.execution.passes import PassRunner, pass_runner
from clustering.fitting import drift_budget, initialization, loop
from clustering.fitting.course import choose_course
from clustering.fitting.drift_budget import near_share


def blobs(seed: int, n: int, d: int, k: int, apart: float = 2.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(0, apart, (k, d))[rng.integers(0, k, n)] + rng.standard_normal((n, d))


DATA = {
    "digits": (load_digits().data, 10),
    "iris": (load_iris().data, 3),
    "blobs": (blobs(0, 4000, 5, 12), 12),
    "blobs-float32": (blobs(1, 4000, 8, 16, 1.0).astype(np.float32), 16),
    "blobs-1e6-sigma-off": (1e6 + blobs(2, 3000, 3, 7), 7),
    "grid": (np.stack(np.meshgrid(*[np.arange(50.0)] * 2), -1).reshape(-1, 2), 9),
    "uniform": (np.random.default_rng(3).random((6000, 2)), 25),
    "uint8": ((blobs(4, 4000, 3, 8) * 12 + 128).clip(0, 255).astype(np.uint8), 8),
    "many-features": (blobs(5, 800, 60, 20), 20),
}
data = pytest.mark.parametrize(("values", "k"), DATA.values(), ids=DATA)


def watched(values: Any, model: Any, accelerate: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    """A fit with room for a quarter of the rows, the params after each pass, and the blocks that each pass read."""
    size = values.nbytes if hasattr(values, "nbytes") else options.pop("size")
    updated: list[Any] = []
    params: list[Any] = []
    blocks: list[int] = []
    advance = loop.advance

    def keep(*given: Any) -> loop.Candidate:
        updated.append(advance(*given))
        return updated[-1]

    def on_pass(record: loop.PassRecord) -> None:
        params.append(updated[-1].params)
        blocks.append(record.read_stats.blocks)

    monkeypatch.setattr(loop, "advance", keep)
    options = {"block_bytes": size // 16, "memory": size // 2, "sample_rows": 500, "workers": 2, **options}
    fit = c.fit(values, model, accelerate=accelerate, on_pass=on_pass, **options)
    monkeypatch.undo()
    return fit, params, blocks


def assert_same_passes(values: Any, model: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[int]:
    """Compare each pass with that of a plain fit, and return the number of blocks that each has read."""
    plain, expected, _ = watched(values, model, "none", monkeypatch, **options)
    fit, params, blocks = watched(values, model, "auto", monkeypatch, **options)
    assert_close(fit, params, plain, expected)
    assert fit.fitted.stop == plain.fitted.stop
    assert fit.fitted.notes == plain.fitted.notes
    assert fit.reads <= plain.reads + 1
    rows = np.asarray(values)
    for passed in zip(params, expected, strict=False):
        ours, theirs = (replace(plain, fitted=replace(plain.fitted, params=p)).predict(rows) for p in passed)
        np.testing.assert_array_equal(ours, theirs)
    return blocks


def assert_close(fit: c.Fit, params: list[Any], plain: c.Fit, expected: list[Any]) -> None:
    """Compare centers and objectives of all passes.

    Convergence is noticed by equal bits of the sums. If the last pass of a plain fit falls on a full read, whose sums
    are added in another order than before it, a further pass over the near rows notices it.
    """
    assert fit.iterations in (plain.iterations, plain.iterations + 1)
    expected = expected + expected[-1:] * (fit.iterations - plain.iterations)
    for got, wanted in zip(params, expected, strict=True):
        np.testing.assert_allclose(got.centers, wanted.centers, rtol=0, atol=1e-10 * np.abs(wanted.centers).max())
    np.testing.assert_allclose(fit.history[: plain.iterations], plain.history, rtol=1e-10)
    np.testing.assert_allclose(fit.objective, plain.objective, rtol=1e-10)


@data
def test_every_pass_is_that_of_a_plain_fit(values: np.ndarray, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = assert_same_passes(values, c.KMeans(k), monkeypatch)
    # Pass 0 has seen the whole data, so the first budgets are good ones.
    assert 0 in blocks


@pytest.mark.parametrize("divergence", ["cosine", "mahalanobis"])
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_other_metrics_and_weights(divergence: Any, weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    values = blobs(6, 4000, 4, 9)
    weights = np.random.default_rng(0).random(len(values)) * 3 if weighted else None
    blocks = assert_same_passes(values, c.KMeans(9, divergence), monkeypatch, weights=weights)
    assert 0 in blocks


@pytest.mark.parametrize(
    "preprocess",
    [{"standardize": "per_feature"}, {"pca": 2}, {"unit_norm": True}, {"unit_norm": True, "pca": 2, "whiten": True}],
    ids=str,
)
def test_prepared_rows(preprocess: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    values = blobs(7, 4000, 4, 9).astype(np.float32)
    assert 0 in assert_same_passes(values, c.KMeans(9), monkeypatch, **preprocess)


@pytest.mark.filterwarnings("ignore:.*rows of zeros:clustering.ClusteringWarning")
def test_rows_of_zeros_that_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    values = blobs(7, 4000, 4, 9).astype(np.float32)
    values[::7] = 0.0
    assert 0 in assert_same_passes(values, c.KMeans(9), monkeypatch, unit_norm=True)


def test_packed_rows_of_a_store_with_a_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import xarray as xr

    values = blobs(8, 4000, 3, 8)
    values[5::11] = np.nan
    packed = {"x": {"scale_factor": 0.01, "dtype": "int16", "_FillValue": -32768, "chunks": (250, 3)}}
    xr.Dataset({"x": (("row", "feature"), values)}).to_zarr(tmp_path / "x.zarr", encoding=packed, consolidated=False)
    source = open_source(tmp_path / "x.zarr", variables=["x"], sample_dims=["row"])
    fits = [
        watched(source, c.KMeans(8), accelerate, monkeypatch, size=4000 * 6, block_bytes=250 * 12, memory=4000 * 6)
        for accelerate in ("none", "auto")
    ]
    (plain, expected, _), (fit, params, blocks) = fits
    assert_close(fit, params, plain, expected)
    assert 0 in blocks


def test_rows_with_missing_features(monkeypatch: pytest.MonkeyPatch) -> None:
    values = blobs(9, 4000, 4, 6)
    values[::40, 2] = np.nan
    blocks = assert_same_passes(values, c.KMeans(6), monkeypatch, missing="marginalize")
    assert 0 in blocks


def test_a_drawn_part_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    values = blobs(17, 8000, 4, 8)
    assert 0 in assert_same_passes(values, c.KMeans(8), monkeypatch, fraction=0.5, memory=values.nbytes // 4)


def test_a_fit_without_rows_to_plan_by_makes_plain_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    values = blobs(18, 4000, 3, 8, 1.5)
    plain, _, before = watched(values, c.KMeans(8), "none", monkeypatch)
    monkeypatch.setattr(initialization, "first_budget", lambda *_: drift_budget.BudgetState())
    fit, _, blocks = watched(values, c.KMeans(8), "auto", monkeypatch)
    np.testing.assert_array_equal(fit.history, plain.history)
    assert blocks == before


def test_empty_clusters_restart_at_the_farthest_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    values = blobs(10, 4000, 3, 6)
    init = values[:8].copy()
    # A center that gets a few rows at first, and loses them while passes go over the near rows.
    init[6:] = [[60.0, 60.0, 60.0], [70.0, 60.0, 60.0]]
    plain, _, _ = watched(values, c.KMeans(8), "none", monkeypatch, init=init)
    assert any("re-seeded" in note for note in plain.fitted.notes)
    assert_same_passes(values, c.KMeans(8), monkeypatch, init=init)


def test_a_cluster_that_becomes_empty_between_reads_calls_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    values = blobs(11, 3000, 2, 5)
    plain, _, _ = watched(values, c.KMeans(5), "none", monkeypatch)
    monkeypatch.setattr(drift_budget, "_has_all_clusters", lambda _: False)
    fit, _, blocks = watched(values, c.KMeans(5), "auto", monkeypatch)
    # A full read has the bits of a plain pass.
    np.testing.assert_array_equal(fit.history, plain.history)
    assert all(blocks)


def test_a_course_is_no_guess_far_beyond_where_the_last_one_has_led(monkeypatch: pytest.MonkeyPatch) -> None:
    values, k = DATA["uniform"]
    chosen: list[tuple[int, Any]] = []

    def watch(*given: Any) -> Any:
        course = choose_course(*given)
        chosen.append((given[3], course))
        return course

    monkeypatch.setattr(drift_budget, "choose_course", watch)
    size = values.nbytes
    c.fit(values, c.KMeans(k), block_bytes=size // 16, memory=size // 2, sample_rows=2000, init=values[:k], workers=2)
    assert any(1 < longest < drift_budget.LONGEST for longest, _ in chosen)
    for (_, before), (longest, after) in pairwise(chosen):
        assert len(after.functions) - 1 <= longest
        assert longest <= drift_budget.GROWTH * max(1, before.nearest_waypoint(after.functions[0]))


def test_several_candidates_share_plain_passes_until_one_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    values = blobs(12, 4000, 3, 10)
    options: dict[str, Any] = {"finalists": 3, "sample_rows": 300, "tolerance": 1e-7}
    plain, _, _ = watched(values, c.KMeans(10), "none", monkeypatch, **options)
    fit, _, blocks = watched(values, c.KMeans(10), "auto", monkeypatch, **options)
    np.testing.assert_allclose(fit.history, plain.history, rtol=1e-10)
    np.testing.assert_allclose(fit.centers, plain.centers, rtol=1e-9)
    assert blocks[0] > 0


@pytest.mark.parametrize(
    "model", [c.KMeans(4, "kullback_leibler"), c.SoftKMeans(4, 1.0), c.GaussianMixture(4, "diagonal")], ids=str
)
def test_models_without_margins_make_plain_passes(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.exp(blobs(13, 2000, 3, 4, 0.5))
    _, _, before = watched(values, model, "none", monkeypatch, max_iterations=6)
    _, _, blocks = watched(values, model, "auto", monkeypatch, max_iterations=6)
    # Every pass reads what does not fit into memory.
    assert set(blocks) == set(before)


def test_rows_that_fit_into_memory_are_not_split(monkeypatch: pytest.MonkeyPatch) -> None:
    values = blobs(14, 2000, 3, 6)
    plain, _, _ = watched(values, c.KMeans(6), "none", monkeypatch, memory=4 * values.nbytes)
    monkeypatch.setattr(PassRunner, "split", None)
    fit, _, _ = watched(values, c.KMeans(6), "auto", monkeypatch, memory=4 * values.nbytes)
    np.testing.assert_array_equal(fit.history, plain.history)
    assert fit.reads == 1.0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.zarr"
    zarr.create_array(path, data=blobs(15, 6000, 6, 12, 1.0), chunks=(250, 6))
    return path


def from_store(store: Path, **options: Any) -> c.Fit:
    """A fit from plain rows, with room for an eighth of all rows."""
    size = 6000 * 6 * 8
    options = {"memory": size // 4, "block_bytes": size // 24, "sample_rows": 5000, "workers": 2, **options}
    return c.fit(store, c.KMeans(12), init=zarr.open_array(store, mode="r")[:12], **options)


@pytest.fixture(scope="module")
def one_thread(store: Path) -> c.Fit:
    return from_store(store, cluster="synchronous")


def assert_same_bits(fit: c.Fit, other: c.Fit) -> None:
    assert fit.history.tobytes() == other.history.tobytes()
    assert np.asarray(fit.centers).tobytes() == np.asarray(other.centers).tobytes()


def test_the_number_of_full_reads_is_a_handful(store: Path, one_thread: c.Fit) -> None:
    plain = from_store(store, accelerate="none")
    assert plain.reads > 20
    assert one_thread.reads < plain.reads / 2
    np.testing.assert_allclose(one_thread.history, plain.history, rtol=1e-10)


@pytest.mark.parametrize("workers", [1, 2, 5], ids="workers-{}".format)
def test_any_number_of_threads_gives_the_same_bits(workers: int, store: Path, one_thread: c.Fit) -> None:
    fit = from_store(store, workers=workers)
    assert_same_bits(fit, one_thread)
    assert fit.reads == one_thread.reads


@pytest.mark.slow
def test_worker_processes_give_the_same_bits(store: Path, one_thread: c.Fit) -> None:
    assert_same_bits(from_store(store, cluster="local", workers=2), one_thread)


@pytest.mark.slow
def test_a_killed_worker_costs_reads_and_no_bit(store: Path, one_thread: c.Fit) -> None:
    # The scheduler starts another worker, which has none of the near rows.
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):

        def kill_one(record: loop.PassRecord) -> None:
            if record.iteration == 4:
                victim = next(iter(client.run(os.getpid).values()))
                os.kill(victim, signal.SIGKILL)

        assert_same_bits(from_store(store, cluster=client, on_pass=kill_one), one_thread)


def test_near_rows_without_room_are_read_again(store: Path, one_thread: c.Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    class Narrow(drift_budget.BudgetedPasses):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.room //= 3

    monkeypatch.setattr(drift_budget, "BudgetedPasses", Narrow)
    fit = from_store(store)
    assert_same_bits(fit, one_thread)
    assert fit.reads > one_thread.reads


def test_scratch_takes_near_rows_and_changes_no_bit(store: Path, one_thread: c.Fit, tmp_path: Path) -> None:
    fit = from_store(store, scratch=tmp_path / "scratch")
    assert_same_bits(fit, one_thread)
    assert fit.reads <= 2.0


def test_the_share_of_near_rows_follows_memory_alone(store: Path) -> None:
    source = open_source(store)
    shares: list[float | None] = []
    for workers, memory, count in (
        (1, 2**19, 6000),
        (3, 2**19, 6000),
        (2, 2**17, 6000),
        (2, 2**17, 10**6),
        (2, 2**19, 5461),
    ):
        with (
            connect("threads", workers) as engine,
            pass_runner(source, source.plan(block_bytes=2**12, memory=memory), engine, memory=memory) as runner,
        ):
            shares.append(near_share(runner, count))
    # Of a million rows hardly any would be kept, and 5461 rows fit.
    assert shares == [0.9 * 2**18 / 288_000, 0.9 * 2**18 / 288_000, 0.9 * 2**16 / 288_000, None, None]


def test_an_error_in_a_row_names_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    values = blobs(16, 2000, 3, 4)
    values[1500] = 0.0
    with pytest.raises(DataError, match="block"):
        watched(values, c.KMeans(4, "cosine"), "auto", monkeypatch, init=values[:4])
