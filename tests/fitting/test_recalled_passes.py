from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from sklearn.datasets import load_digits, load_iris

import clustering as c
from clustering.execution.passes import PassRunner
from clustering.models import recalled_pass
from clustering.models.recalled_pass import RecallingPass


def blobs(seed: int, n: int, d: int, k: int, apart: float = 2.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(0, apart, (k, d))[rng.integers(0, k, n)] + rng.standard_normal((n, d))


DATA = {
    "digits": (load_digits().data, 10),
    "iris": (load_iris().data, 9),
    "blobs": (blobs(0, 4000, 5, 12), 12),
    "blobs-float32": (blobs(1, 4000, 8, 16, 1.0).astype(np.float32), 16),
    "blobs-1e6-sigma-off": (1e6 + blobs(2, 3000, 3, 9), 9),
    "grid": (np.stack(np.meshgrid(*[np.arange(50.0)] * 2), -1).reshape(-1, 2), 9),
    "uniform": (np.random.default_rng(3).random((6000, 2)), 25),
    "uint8": ((blobs(4, 4000, 3, 9) * 12 + 128).clip(0, 255).astype(np.uint8), 9),
    "many-features": (blobs(5, 800, 60, 20, 0.5), 20),
}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets small fits remember labels, and collects the numbers of their passes that do."""
    monkeypatch.setattr(recalled_pass, "FEWEST_CENTERS", 2)
    monkeypatch.setattr(recalled_pass, "FEWEST_PRODUCTS", 2)
    numbers: list[int] = []
    run = PassRunner.run

    def watch(runner: PassRunner, functions: Any, *given: Any) -> Any:
        numbers.extend(function.after.number for function in functions if isinstance(function, RecallingPass))
        return run(runner, functions, *given)

    monkeypatch.setattr(PassRunner, "run", watch)
    return numbers


def fits(values: Any, model: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[c.Fit, c.Fit]:
    """Fit with and without remembered labels."""
    options = {"sample_rows": 500, "memory": "1GiB", "block_bytes": 2**14, "workers": 2, **options}
    fit = c.fit(values, model, **options)
    with monkeypatch.context() as context:
        context.setattr(recalled_pass, "FEWEST_CENTERS", 10**9)
        return fit, c.fit(values, model, **{**options, "accelerate": "none"})


def assert_same_bits(fit: c.Fit, other: c.Fit) -> None:
    assert fit.iterations == other.iterations
    assert fit.history.tobytes() == other.history.tobytes()
    assert np.asarray(fit.centers).tobytes() == np.asarray(other.centers).tobytes()
    assert fit.fitted.stop == other.fitted.stop


@pytest.mark.parametrize(("values", "k"), DATA.values(), ids=DATA)
@pytest.mark.parametrize("start", ["default", "rows"])
def test_fits_have_the_bits_of_plain_ones(
    values: np.ndarray, k: int, start: str, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = np.random.default_rng(0).permutation(len(values))[:k]
    options = {"init": values[chosen]} if start == "rows" else {}
    assert_same_bits(*fits(values, c.KMeans(k), monkeypatch, **options))
    assert max(counted) > 2


@pytest.mark.parametrize("workers", [1, 3])
def test_weights_missing_features_and_preparation(
    workers: int, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = blobs(6, 4000, 4, 20).astype(np.float32)
    # One block has rows with missing features.
    values[:300:40, 2] = np.nan
    weights = np.random.default_rng(0).random(len(values)) * 3
    options = {"weights": weights, "missing": "marginalize", "standardize": "per_feature"}
    assert_same_bits(*fits(values, c.KMeans(20), monkeypatch, workers=workers, **options))
    assert max(counted) > 2


def test_other_divergences_remember_nothing(counted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert_same_bits(*fits(blobs(7, 2000, 4, 9), c.KMeans(9, "cosine"), monkeypatch))
    assert not counted


def test_finalists_find_their_own_rows(counted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert_same_bits(*fits(blobs(8, 4000, 3, 10), c.KMeans(10), monkeypatch, finalists=3, tolerance=1e-7))
    assert counted


def test_empty_clusters_restart_alike(counted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    values = blobs(10, 4000, 3, 6)
    init = np.concatenate([values[:10], [[60.0, 60.0, 60.0], [70.0, 60.0, 60.0]]])
    fit, plain = fits(values, c.KMeans(12), monkeypatch, init=init)
    assert any("re-seeded" in note for note in plain.fitted.notes)
    assert fit.fitted.notes == plain.fitted.notes
    assert_same_bits(fit, plain)


def test_rows_without_room_for_bounds_remember_nothing(counted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    values = blobs(11, 4000, 3, 10)
    # All rows fit, and hardly anything beside them.
    assert_same_bits(*fits(values, c.KMeans(10), monkeypatch, init=values[:10], memory=2 * values.nbytes + 2**14))
    assert not counted


@pytest.mark.slow
def test_worker_processes_remember_their_own_blocks(
    tmp_path: Path, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = blobs(12, 20_000, 8, 40)
    zarr.create_array(tmp_path / "x.zarr", data=values, chunks=(1000, 8))
    options: dict[str, Any] = {"init": values[:40], "max_iterations": 12, "block_bytes": 1000 * 64}
    assert_same_bits(*fits(tmp_path / "x.zarr", c.KMeans(40), monkeypatch, cluster="local", **options))
    assert max(counted) == 12
