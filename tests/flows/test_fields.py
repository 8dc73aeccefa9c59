"""Real fields: the shipped configs over an air temperature of a climate model, against scikit-learn in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cftime
import iris_sample_data
import numpy as np
import pytest
import xarray as xr
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

import clustering
from clustering.data.ingest import ingest
from clustering.run.job import run_fit
from clustering_flows.loading import load_config
from tests.run.test_job import Notes

CONFIGS = Path(__file__).parents[2] / "configs"
FILE = Path(iris_sample_data.path) / "E1_north_america.nc"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fields") / "north-america.zarr"
    ingest(FILE, path)
    return path


@pytest.fixture(scope="module")
def field(store: Path) -> xr.DataArray:
    """The field as the file has it."""
    with xr.open_dataset(FILE, engine="h5netcdf") as given:
        return given["air_temperature"].load()


@pytest.fixture(scope="module")
def runs(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    """The output and the record of a run of each config."""
    results = {}
    for name in ("climate-zones", "temperature-regimes"):
        out = tmp_path_factory.mktemp("runs") / name
        config = load_config(CONFIGS / f"{name}.yaml", [f"source.store={store}", f"output.store={out}"])
        results[name] = (out, run_fit(config, Notes()))
    return results


def labels_of(out: Path) -> xr.Dataset:
    with xr.open_zarr(out / "labels.zarr", consolidated=False, chunks=None) as opened:
        return opened.load()


def renamed(theirs: np.ndarray, ours: np.ndarray, k: int) -> np.ndarray:
    """Our cluster for each of theirs, matched so that the pairs share the most rows."""
    table = np.zeros((k, k))
    np.add.at(table, (theirs.ravel(), ours.ravel()), 1)
    return linear_sum_assignment(-table)[1]


def test_ingest_keeps_what_the_file_holds(store: Path, field: xr.DataArray) -> None:
    with xr.open_zarr(store, consolidated=False, chunks=None) as given:
        ingested = given["air_temperature"].load()
        assert {"latitude_longitude", "time_bnds"} <= {*given.variables}
        assert given.attrs["Conventions"] == "CF-1.5"
        bounds = given["time_bnds"].load()
    xr.testing.assert_identical(ingested.drop_encoding(), field.drop_encoding())
    assert {str(c) for c in ingested.coords} == {
        "time", "latitude", "longitude", "forecast_period", "forecast_reference_time", "height"
    }  # fmt: skip
    assert ingested.attrs["units"] == "K"
    # Bounds are dates too, because they take the units of the coordinate that they bound.
    assert isinstance(bounds.values[0, 0], cftime.Datetime360Day)


def test_climate_zones_are_those_of_weighted_kmeans(
    runs: dict[str, tuple[Path, dict[str, Any]]], field: xr.DataArray
) -> None:
    out, record = runs["climate-zones"]
    rows = field.stack(place=("latitude", "longitude")).transpose("place", "time").values.astype(np.float64)
    weights = np.cos(np.deg2rad(np.repeat(field["latitude"].values.astype(np.float64), field.sizes["longitude"])))
    best = KMeans(5, n_init=25, random_state=0, tol=0).fit(rows, sample_weight=weights)
    label_outputs = labels_of(out)
    ours = label_outputs["labels"].values.ravel()
    name = renamed(best.labels_, ours, 5)
    np.testing.assert_array_equal(name[best.labels_], ours)
    model = clustering.load_fit(out)
    np.testing.assert_allclose(model.centers.values[name], best.cluster_centers_, rtol=0, atol=1e-6)
    assert record["objective"] == pytest.approx(best.inertia_, rel=1e-10)
    series = model.fields["air_temperature"]
    assert (series.dims, series.attrs["units"]) == (("cluster", "time"), "K")
    assert series.indexes["time"].equals(field.indexes["time"])
    for coordinate in ("latitude", "longitude"):
        xr.testing.assert_identical(label_outputs[coordinate].variable, field[coordinate].variable)
    distances = np.sort(best.transform(rows), axis=1)
    np.testing.assert_allclose(
        label_outputs["margin"].values.ravel(), distances[:, 1] - distances[:, 0], rtol=1e-4, atol=1e-4
    )


def test_temperature_regimes_are_those_of_kmeans_in_principal_components(
    runs: dict[str, tuple[Path, dict[str, Any]]], field: xr.DataArray
) -> None:
    out, record = runs["temperature-regimes"]
    cells = np.sqrt(np.cos(np.deg2rad(field["latitude"].values.astype(np.float64))))
    scale = np.repeat(cells, field.sizes["longitude"])
    rows = field.values.astype(np.float64).reshape(240, 1813) * scale
    components = PCA(14, svd_solver="full").fit(rows)
    scores = components.transform(rows)
    best = KMeans(3, n_init=50, random_state=0, tol=0).fit(scores)
    label_outputs = labels_of(out)
    ours = label_outputs["labels"].values
    name = renamed(best.labels_, ours, 3)
    np.testing.assert_array_equal(name[best.labels_], ours)
    model = clustering.load_fit(out)
    # The sign of a component is a convention.
    prepared = model.fitted.centers_prepared
    matrix = model.fitted.preparation.matrix / scale[:, None]
    signs = np.sign((matrix * components.components_.T).sum(axis=0))
    np.testing.assert_allclose(prepared[name] * signs, best.cluster_centers_, rtol=0, atol=1e-8)
    back = components.inverse_transform(best.cluster_centers_) / scale
    maps = model.fields["air_temperature"]
    np.testing.assert_allclose(maps.values.reshape(3, -1)[name], back, rtol=0, atol=1e-6)
    assert record["objective"] == pytest.approx(best.inertia_, rel=1e-10)
    assert record["preprocess"]["explained_variance"] == pytest.approx(components.explained_variance_ratio_.sum())
    assert (maps.dims, maps.attrs["units"]) == (("cluster", "latitude", "longitude"), "K")
    assert label_outputs.indexes["time"].equals(field.indexes["time"])
    np.testing.assert_allclose(label_outputs["distances"].values[:, name], best.transform(scores), rtol=1e-6)


def test_reports_show_fields_as_series_and_as_maps(runs: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    zones, regimes = ((runs[name][0] / "report.html").read_text() for name in ("climate-zones", "temperature-regimes"))
    assert "<h3>Centers</h3>" in zones
    assert "<h3>Centers: air_temperature (K)</h3>" in regimes
    assert "<h3>Departures: air_temperature (K)</h3>" in regimes
    assert "air_temperature (K), mean of 1,813" in regimes
