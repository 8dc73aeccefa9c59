"""Weather regimes, from the shipped config over made-up data of planted regimes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score
from zarr.storage import LocalStore

import clustering as c
from benchmarks import fields
from clustering.data import codecs
from clustering_flows.cli import run

CONFIG = Path(__file__).parents[2] / "configs" / "weather-regimes.yaml"
WINTER = (10, 11, 12, 1, 2, 3)


def fit(store: Path, out: Path, *more: str) -> int:
    settings = [f"--set=source.store={store}", f"--set=output.store={out}"]
    return run(["fit", str(CONFIG), "--no-prefect", *settings, *more])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Counter[str]]:
    """Store and output of a run, and how often each of its keys was asked for."""
    folder = tmp_path_factory.mktemp("weather")
    fields.weather(folder / "weather.zarr")
    keys: Counter[str] = Counter()
    original = LocalStore.get

    async def get(self: LocalStore, key: str, *args: Any, **kwargs: Any) -> Any:
        if "weather.zarr" in str(self.root):
            keys[key] += 1
        return await original(self, key, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        # The codecs in Rust are switched off, because they read the disk themselves.
        patch.setattr(codecs, "rust", lambda: None)
        patch.setattr(LocalStore, "get", get)
        assert fit(folder / "weather.zarr", folder / "out") == 0
    return folder / "weather.zarr", folder / "out", keys


@pytest.fixture(scope="module")
def data(place: tuple[Path, Path, Counter[str]]) -> xr.Dataset:
    """The winter days of the region, by xarray."""
    with xr.open_zarr(place[0], consolidated=False, chunks=None) as dataset:
        winter = dataset.isel(time=np.flatnonzero(np.isin(dataset["time"].dt.month, WINTER)))
        inside = (winter["lon"] >= 270) | (winter["lon"] <= 30)
        return winter.isel(lon=np.roll(np.flatnonzero(inside), int((winter["lon"] >= 270).sum()))).load()


@pytest.fixture(scope="module")
def labels(place: tuple[Path, Path, Counter[str]]) -> xr.Dataset:
    with xr.open_zarr(place[1] / "labels.zarr", consolidated=False, chunks=None) as dataset:
        return dataset.load()


def test_days_that_were_never_written_make_no_cluster_and_are_not_asked_for(
    place: tuple[Path, Path, Counter[str]], data: xr.Dataset, labels: xr.Dataset
) -> None:
    written = data["truth"].values >= 0
    assert 0 < (~written).sum() < written.sum()
    np.testing.assert_array_equal(labels["labels"].values == -1, ~written)
    assert np.isnan(labels["distances"].values[~written]).all()
    assert np.bincount(labels["labels"].values[written]).min() > 50
    # One read serves the fit and the labels.
    assert json.loads((place[1] / "run.json").read_text())["reads"] == 1
    days = {int(key.split("/")[2]) for key in place[2] if key.startswith("z500/c/")}
    with xr.open_zarr(place[0], consolidated=False, chunks=None) as dataset:
        expected = np.isin(dataset["time"].dt.month, WINTER) & (dataset["truth"].values >= 0)
    assert days == set(np.flatnonzero(expected).tolist())


def test_regimes_are_the_planted_ones_in_metres(
    place: tuple[Path, Path, Counter[str]], data: xr.Dataset, labels: xr.Dataset
) -> None:
    written = data["truth"].values >= 0
    truth, predicted = data["truth"].values[written], labels["labels"].values[written]
    assert adjusted_rand_score(truth, predicted) >= 0.95
    table = np.zeros((4, 4))
    np.add.at(table, (truth, predicted), 1)
    own = linear_sum_assignment(-table)[1]
    maps = c.load_fit(place[1]).fields["z500"]
    assert maps.attrs["units"] == "m"
    # Eastward across Greenwich, and southward as the data are.
    np.testing.assert_array_equal(maps["lon"], data["lon"])
    np.testing.assert_array_equal(maps["lat"], data["lat"])
    planted = fields.patterns(data["lat"].values, data["lon"].values)
    for regime in range(4):
        center = maps.values[own[regime]]
        assert np.corrcoef(center.ravel(), planted[regime].ravel())[0, 1] > 0.99
        days = data["z500"].values[written][predicted == own[regime]].astype(np.float64)
        # A center differs from the mean of its days only by the noise that fourteen components leave out.
        assert np.sqrt(np.mean((center - days.mean(axis=0)) ** 2)) < 2.0


def test_distances_are_those_of_the_weighted_components(
    place: tuple[Path, Path, Counter[str]], data: xr.Dataset, labels: xr.Dataset
) -> None:
    written = data["truth"].values >= 0
    model = c.load_fit(place[1]).fitted
    assert model.preparation is not None
    days = data["z500"].values[written]
    rows, _ = model.preparation.apply_to_values(days.reshape(len(days), -1))
    expected = np.linalg.norm(rows[:, None] - model.centers_prepared, axis=2)
    np.testing.assert_allclose(labels["distances"].values[written], expected, rtol=1e-5)
    np.testing.assert_array_equal(labels["labels"].values[written], expected.argmin(axis=1))
    components = (
        model.preparation.matrix
        / np.repeat(np.sqrt(np.cos(np.deg2rad(data["lat"].values))), data.sizes["lon"])[:, None]
    )
    np.testing.assert_allclose(components.T @ components, np.eye(14), atol=1e-9)


def test_a_finished_run_is_refused_in_one_line(
    place: tuple[Path, Path, Counter[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    store, out, _ = place
    before = json.loads((out / "run.json").read_text())
    assert fit(store, out) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds a finished run; set output.overwrite to true" in line
    assert json.loads((out / "run.json").read_text()) == before
