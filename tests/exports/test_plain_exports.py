"""Round trips through npz, csv and NetCDF, and the places that exports may write to."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import clustering as c
from clustering.errors import ConfigError, MissingDependencyError, OutputError
from clustering.exports.netcdf import time_encoding
from clustering_flows.cli import run as command

MODELS = [c.KMeans(3), c.GaussianMixture(3, covariance="full"), c.VonMisesFisher(3)]


@pytest.fixture
def job(field_store: Path, tmp_path: Path) -> c.Run:
    dims = {"variables": ["t"], "sample_dims": ["lat", "lon"], "feature_dims": ["time"]}
    return c.run(str(field_store), c.KMeans(3), output=tmp_path / "out", report=False, mask="sea", **dims)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.kind)
def test_npz_holds_the_model_to_the_last_bit(model: c.KMeans, blobs: np.ndarray, tmp_path: Path) -> None:
    fit = c.fit(blobs, model, standardize="per_feature")

    assert fit.export(tmp_path / "model.npz", to="npz") == [tmp_path / "model.npz"]

    with np.load(tmp_path / "model.npz", allow_pickle=False) as held:
        assert held["centers"].tobytes() == fit.centers.tobytes()
        assert held["weights"].tobytes() == fit.weights.tobytes()
        assert held["cluster"].tolist() == [0, 1, 2]
        assert json.loads(str(held["attributes"]))["kind"] == model.kind
        if fit.covariances is not None:
            assert held["covariances"].tobytes() == fit.covariances.tobytes()


def test_csv_holds_centers_and_samples_to_the_last_bit(blobs: np.ndarray, tmp_path: Path) -> None:
    rows = xr.DataArray(blobs, dims=("row", "band"), coords={"row": np.arange(600) * 0.1}, name="v")
    rows.to_dataset().to_zarr(tmp_path / "rows.zarr", consolidated=False)
    job = c.run(str(tmp_path / "rows.zarr"), c.KMeans(3), sample_dims=["row"], output=tmp_path / "out", report=False)

    written = job.export(tmp_path / "m.csv", to="csv")

    assert written == [tmp_path / "m.csv", tmp_path / "m-labels.csv"]
    with (tmp_path / "m.csv").open() as file:
        clusters = list(csv.reader(file))
    assert clusters[0][:4] == ["cluster", "name", "share", "weight"]
    assert np.array([row[4:] for row in clusters[1:]], float).tobytes() == job.fit.centers.values.tobytes()
    with (tmp_path / "m-labels.csv").open() as file:
        samples = list(csv.DictReader(file))
    assert [int(sample["labels"]) for sample in samples] == job.labels["labels"].values.tolist()
    assert [float(sample["row"]) for sample in samples] == (np.arange(600) * 0.1).tolist()


def test_netcdf_holds_centers_on_their_dimensions_and_labels_on_theirs(job: c.Run, tmp_path: Path) -> None:
    job.export(tmp_path / "m.nc", to="netcdf")

    with xr.open_dataset(tmp_path / "m.nc", engine="h5netcdf") as model:
        field = job.fit.fields["t"]
        assert model["t_center"].values.tobytes() == field.values.tobytes()
        assert model["t_center"].attrs["units"] == "K"
        assert (model["time"].values == field["time"].values).all()
        assert model.attrs["Conventions"].startswith("CF-")
    with xr.open_dataset(tmp_path / "m-labels.nc", engine="h5netcdf") as labels:
        assert labels["labels"].dtype == np.int8
        assert (labels["labels"].values == job.labels["labels"].values).all()
        assert labels["labels"].attrs["flag_meanings"] == "cluster_0 cluster_1 cluster_2"
        assert (labels["lat"].values == job.labels["lat"].values).all()
        assert "_FillValue" not in {**labels["lat"].attrs, **labels["lat"].encoding}


def test_netcdf_has_no_half_precision_and_keeps_dates(field_store: Path, tmp_path: Path) -> None:
    options = {"variables": ["t"], "sample_dims": ["time", "lat", "lon"], "responsibilities": "all"}
    job = c.run(str(field_store), c.SoftKMeans(2), output=tmp_path / "out", report=False, **options)

    job.export(tmp_path / "m.nc", to="netcdf")

    with xr.open_dataset(tmp_path / "m-labels.nc", engine="h5netcdf") as labels:
        assert labels["responsibilities"].dtype == np.float32
        assert (labels["responsibilities"].values == job.labels["responsibilities"].values).all()
        assert (labels["time"].values == job.labels["time"].values).all()


def test_netcdf_keeps_to_the_rules_that_a_checker_of_cf_asks_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 3)) + 9.0 * (np.arange(60) % 2)[:, None]
    when = np.datetime64("2020-01-01", "ns") + np.arange(60) * np.timedelta64(12, "h")
    store = xr.Dataset(
        {"t": (("time", "depth"), values, {"grid_mapping": "crs"})},
        {
            "time": when,
            "depth": ("depth", [0.0, 5.0, 10.0], {"units": "m"}),
            "crs": ((), 0, {"grid_mapping_name": "latitude_longitude"}),
        },
        {"history": "drawn"},
    )
    store.to_zarr(tmp_path / "s.zarr", zarr_format=3, consolidated=False)
    options = {"variables": "t", "sample_dims": ["time"], "responsibilities": "all", "report": False}
    job = c.run(tmp_path / "s.zarr", c.SoftKMeans(2), output=tmp_path / "out", **options)

    job.export(tmp_path / "m.nc", to="netcdf")

    with xr.open_dataset(tmp_path / "m-labels.nc", engine="h5netcdf", decode_cf=False) as labels:
        assert labels["labels"].attrs["flag_values"].dtype == labels["labels"].dtype
        assert labels["time"].attrs["units"] == "hours since 1970-01-01"
        assert labels["time"].dtype == labels["cluster"].dtype == np.int32
        assert "coordinates" not in labels["labels"].attrs
        assert labels["labels"].attrs["grid_mapping"] == "crs"
        assert labels["crs"].attrs["long_name"] == "coordinate reference system"
        assert labels["cluster"].attrs["long_name"] == "id of the cluster"
        assert labels.attrs["title"] == "labels of soft_kmeans with 2 clusters"
        assert labels.attrs["history"].startswith("drawn\nlabelled by zarr-clustering ")
    with xr.open_dataset(tmp_path / "m.nc", engine="h5netcdf", decode_cf=False) as model:
        assert "_FillValue" not in model["depth"].attrs
        assert model.attrs["history"].startswith("fitted by zarr-clustering ")
    with xr.open_dataset(tmp_path / "m-labels.nc", engine="h5netcdf") as labels:
        assert (labels["time"].values == when).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2020-01-01", "2020-03-01"], {"units": "days since 1970-01-01", "dtype": "int32"}),
        (["2020-01-01", "2020-01-01T00:00:00.001"], {"units": "milliseconds since 1970-01-01", "dtype": "int64"}),
        (["2020-01-01T00:00:01", "NaT"], {"units": "seconds since 1970-01-01"}),
        (["2020-01-01T00:00:00.000000001"], {}),
    ],
)
def test_dates_are_counted_in_the_longest_unit_that_loses_nothing(values: list[str], expected: dict[str, str]) -> None:
    assert time_encoding(np.array(values, "M8[ns]")) == expected


def test_names_of_clusters_go_along(job: c.Run, tmp_path: Path) -> None:
    (tmp_path / "out" / "names.json").write_text(json.dumps({"1": {"name": "warm pool"}}))

    job.export(tmp_path / "m.nc", to="netcdf")
    job.export(tmp_path / "m.csv", to="csv")

    with xr.open_dataset(tmp_path / "m.nc", engine="h5netcdf") as model:
        assert model["cluster_name"].values.tolist() == ["0", "warm pool", "2"]
    assert "\n1,warm pool," in (tmp_path / "m.csv").read_text()


def test_the_command_exports_and_lists_what_it_wrote(
    job: c.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert command(["export", "out", "--to", "npz", "--json"]) == 0

    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"to": "npz", "files": ["out.npz"]}
    assert command(["export", "out", "--to", "npz"]) == 2
    assert capsys.readouterr().err.endswith(
        "'out.npz' exists; name another destination, or use --overwrite (overwrite=True in Python)\n"
    )
    assert command(["export", "out", "--to", "npz", "--overwrite"]) == 0
    assert command(["export", "out", "--to", "npy"]) == 2
    assert "did you mean 'npz'?" in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if path.is_dir() and path.name.startswith(".")]


@pytest.mark.parametrize("changed", [False, True])
def test_a_file_of_someone_else_is_never_replaced(blobs: np.ndarray, tmp_path: Path, changed: bool) -> None:
    fit, place = c.fit(blobs, c.KMeans(3)), tmp_path / "m.csv"
    if changed:
        fit.export(place, to="csv")
    place.write_text("mine")

    with pytest.raises(OutputError, match="not a file as 'export' wrote it"):
        fit.export(place, to="csv", overwrite=True)

    assert place.read_text() == "mine"


def test_wrong_targets_and_places_are_refused(blobs: np.ndarray, tmp_path: Path) -> None:
    fit = c.fit(blobs, c.KMeans(3))
    fit.save(tmp_path / "model.zarr")

    with pytest.raises(ConfigError, match="there is no target 'pickle'"):
        fit.export(tmp_path / "m.pkl", to="pickle")
    with pytest.raises(OutputError, match="is a URL"):
        fit.export("s3://bucket/m.npz", to="npz")
    with pytest.raises(OutputError, match="inside the Zarr store"):
        fit.export(tmp_path / "model.zarr" / "m.npz", to="npz")


def test_a_missing_package_is_named_with_its_extra(
    blobs: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5netcdf", None)

    with pytest.raises(MissingDependencyError, match=r"'h5netcdf'; pip install 'zarr-clustering\[export\]'$"):
        c.fit(blobs, c.KMeans(3)).export(tmp_path / "m.nc", to="netcdf")

    assert not list(tmp_path.iterdir())
