from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import iris_sample_data
import numpy as np
import pytest
import xarray as xr
import zarr

import clustering as c
from clustering.data.access import open_source
from clustering.data.source import Source
from clustering.fitting.clusters import numbered
from clustering.fitting.labelling import Wanted
from clustering.storage.labels import create_labels

WKT = 'PROJCRS["WGS 84 / UTM zone 32N"]'


def stored(dataset: xr.Dataset, path: Path, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=zarr.errors.UnstableSpecificationWarning)
        dataset.to_zarr(path, consolidated=False, zarr_format=3, **options)
    return path


def raster(*, coordinate: bool) -> xr.Dataset:
    """Two bands on a grid of projected metres, with the reference system as a coordinate or as a variable."""
    y, x = np.arange(50.0, 10.0, -10.0), np.arange(5.0, 55.0, 10.0)
    dims = ("y", "x")
    data = xr.Dataset(
        {"red": (dims, np.random.default_rng(0).random((4, 5))), "nir": (dims, np.zeros((4, 5)))},
        {"y": ("y", y, {"standard_name": "projection_y_coordinate"}), "x": ("x", x)},
        {"Conventions": "CF-1.10", "title": "two bands"},
    )
    crs = xr.Variable(
        (), 0, {"crs_wkt": WKT, "grid_mapping_name": "transverse_mercator", "GeoTransform": "0 10 0 55 0 -10"}
    )
    data = data.assign_coords(spatial_ref=crs) if coordinate else data.assign(spatial_ref=crs)
    for name in ("red", "nir"):
        data[name].attrs["grid_mapping"] = "spatial_ref"
    return data


def ocean() -> xr.Dataset:
    """A curvilinear grid as ocean models have it: positions over two dimensions, and bounds of times and latitudes."""
    rng = np.random.default_rng(1)
    time = np.datetime64("2000-01-16", "ns") + np.arange(3) * np.timedelta64(30, "D")
    bounds = np.stack([time - np.timedelta64(15, "D"), time + np.timedelta64(15, "D")], axis=1)
    data = xr.Dataset(
        {
            "thetao": (("time", "y", "x", "lev"), rng.random((3, 4, 5, 2))),
            "time_bnds": (("time", "bnds"), bounds),
            "vertices_latitude": (("y", "x", "vertex"), rng.random((4, 5, 4))),
            "areacello": (("y", "x"), rng.random((4, 5))),
        },
        {
            "time": ("time", time, {"bounds": "time_bnds"}),
            "nav_lat": (("y", "x"), rng.random((4, 5)), {"bounds": "vertices_latitude", "units": "degrees_north"}),
            "nav_lon": (("y", "x"), rng.random((4, 5)), {"bounds": "not_there"}),
            "height": 2.0,
            "depth": ("lev", [5.0, 10.0]),
            "member": ((), "r1i1p1f1"),
        },
    )
    data["time"].encoding.update(units="hours since 1950-01-01", calendar="proleptic_gregorian", dtype="int64")
    return data


def labelled(source: Source, path: Path, wanted: Wanted | None = None) -> xr.Dataset:
    model = c.KMeans(3)
    create_labels(path, source, source.plan(whole_chunks=False), numbered(3), {"run": "a1"}, wanted, model)
    with xr.open_zarr(path, consolidated=False, chunks=None) as opened:
        return opened.load()


@pytest.mark.parametrize("coordinate", [True, False], ids=["coordinate", "variable"])
def test_the_grid_mapping_goes_with_the_labels(coordinate: bool, tmp_path: Path) -> None:
    path = stored(raster(coordinate=coordinate), tmp_path / "in.zarr")
    source = open_source(path, variables=["red", "nir"], sample_dims=["y", "x"], feature_dims=[])
    found = labelled(source, tmp_path / "labels.zarr", Wanted(distances=True))
    for name in ("labels", "distances"):
        assert found[name].attrs["grid_mapping"] == "spatial_ref"
    with xr.open_zarr(path, consolidated=False, chunks=None) as data:
        assert set(found["labels"].coords) == set(data["red"].coords)
        xr.testing.assert_identical(found["spatial_ref"].variable, data["spatial_ref"].variable.load())
    assert ("spatial_ref" in found.coords) == coordinate
    assert found.attrs == {"Conventions": "CF-1.10", "title": "two bands", "run": "a1"}
    with xr.open_zarr(tmp_path / "labels.zarr", consolidated=False, chunks=None, decode_coords="all") as opened:
        assert opened["labels"].encoding["grid_mapping"] == "spatial_ref"
        assert opened["labels"].coords["spatial_ref"].attrs["crs_wkt"] == WKT


def test_the_grid_mapping_is_found_in_the_encoding_and_in_its_long_form(tmp_path: Path) -> None:
    data = raster(coordinate=True)
    for name in ("red", "nir"):
        data[name].encoding["grid_mapping"] = data[name].attrs.pop("grid_mapping")
    source = open_source(data, variables=["red"], sample_dims=["y", "x"])
    assert labelled(source, tmp_path / "encoded.zarr")["labels"].attrs["grid_mapping"] == "spatial_ref"
    del data["red"].encoding["grid_mapping"]
    # No variable says so, but there is one only.
    source = open_source(data, variables=["red"], sample_dims=["y", "x"])
    assert labelled(source, tmp_path / "unsaid.zarr")["labels"].attrs["grid_mapping"] == "spatial_ref"
    data["red"].attrs["grid_mapping"] = "spatial_ref: x y"
    source = open_source(data, variables=["red"], sample_dims=["y", "x"])
    assert labelled(source, tmp_path / "long.zarr")["labels"].attrs["grid_mapping"] == "spatial_ref: x y"
    data["red"].attrs["grid_mapping"] = "not_there"
    source = open_source(data, variables=["red"], sample_dims=["y", "x"])
    assert "grid_mapping" not in labelled(source, tmp_path / "lost.zarr")["labels"].attrs


def test_labels_in_memory_have_the_grid_mapping_too() -> None:
    for coordinate in (True, False):
        data = raster(coordinate=coordinate)
        options = {"variables": ["red", "nir"], "sample_dims": ["y", "x"], "feature_dims": []}
        labels = c.fit(data, c.KMeans(2), **options).predict(data, **options)
        assert labels.attrs["grid_mapping"] == "spatial_ref"
        assert labels.coords["spatial_ref"].attrs["crs_wkt"] == WKT


def test_bounds_and_positions_over_two_dimensions_are_kept(tmp_path: Path) -> None:
    path = stored(ocean(), tmp_path / "in.zarr")
    isel = {"time": {"start": 1}, "x": {"start": 1, "stop": 4}}
    source = open_source(path, variables=["thetao"], sample_dims=["time", "y", "x"], feature_dims=["lev"], isel=isel)
    found = labelled(source, tmp_path / "labels.zarr")
    with xr.open_zarr(path, consolidated=False, chunks=None) as data:
        expected = data.isel(time=slice(1, None), x=slice(1, 4)).load()
    assert set(found["labels"].coords) == {"time", "nav_lat", "nav_lon", "height", "member"}
    for name in ("time", "nav_lat", "height", "member", "time_bnds", "vertices_latitude"):
        xr.testing.assert_identical(found[name].variable, expected[name].variable)
    assert found["nav_lon"].attrs == {}
    assert set(found.data_vars) == {"labels", "time_bnds", "vertices_latitude"}
    assert found["time"].encoding["units"] == "hours since 1950-01-01"
    group = zarr.open_group(tmp_path / "labels.zarr", mode="r")
    assert set(str(group["labels"].attrs["coordinates"]).split()) == {"nav_lat", "nav_lon", "height", "member"}
    assert "coordinates" not in group.attrs
    assert "coordinates" not in group["vertices_latitude"].attrs


def test_what_has_the_name_of_a_result_gives_way(tmp_path: Path) -> None:
    data = xr.Dataset(
        {
            "t": (("lat", "lon"), np.random.default_rng(0).random((3, 4))),
            "margin": (("lat", "cluster"), np.zeros((3, 2))),
        },
        {"lat": ("lat", np.arange(3.0), {"bounds": "margin"}), "cluster": ("lon", np.arange(4))},
    )
    source = open_source(data, variables=["t"], sample_dims=["lat", "lon"])
    found = labelled(source, tmp_path / "labels.zarr", Wanted(margin=True, distances=True))
    assert found["margin"].dims == ("lat", "lon")
    assert found["cluster"].values.tolist() == [0, 1, 2]
    assert "bounds" not in found["lat"].attrs


def test_attributes_that_describe_the_sources_own_arrays_stay_behind(tmp_path: Path) -> None:
    attributes = {
        "proj:code": "EPSG:32632", "spatial:dimensions": ["y", "x"], "spatial:transform": [10.0, 0, 0, 0, -10.0, 55],
        "zarr_conventions": [{"name": "proj:"}], "multiscales": {"layout": []}, "omero": {}, "run": "theirs",
        "history": np.float32(1.0),
    }  # fmt: skip
    path = stored(raster(coordinate=True).assign_attrs(attributes), tmp_path / "in.zarr")
    options: dict[str, Any] = {"variables": ["red"], "sample_dims": ["y", "x"]}
    found = labelled(open_source(path, **options), tmp_path / "whole.zarr").attrs
    kept = {"proj:code", "spatial:dimensions", "spatial:transform", "zarr_conventions", "history", "run", "title"}
    assert set(found) == kept | {"Conventions"}
    assert found["run"] == "a1"
    assert found["spatial:transform"] == attributes["spatial:transform"]
    # The transform of the whole says the wrong thing of a part.
    for wish in ({"isel": {"x": {"start": 2}}}, {"select": {"y": [40.0]}}, {"bbox": [10.0, 10.0, 30.0, 40.0]}):
        part = labelled(open_source(path, **options, **wish), tmp_path / f"{[*wish]}.zarr")
        assert set(part.attrs) == (kept | {"Conventions"}) - {"spatial:transform"}
        assert set(part["spatial_ref"].attrs) == {"crs_wkt", "grid_mapping_name"}


def test_projections_of_an_array_go_to_its_labels(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "in.zarr", data=np.random.default_rng(0).random((6, 4)), dimension_names=("y", "x")
    )
    array.attrs.update({"proj:code": "EPSG:4326", "valid_range": [0, 1]})
    found = labelled(open_source(tmp_path / "in.zarr", sample_dims=["y", "x"]), tmp_path / "labels.zarr")
    assert found["labels"].attrs["proj:code"] == "EPSG:4326"
    assert "valid_range" not in found["labels"].attrs


REAL = {
    "rotated_pole": "air_pressure_at_sea_level",
    "orca2_votemper": "votemper",
    "ostia_monthly": "surface_temperature",
    "hybrid_height": "air_potential_temperature",
}


@pytest.mark.parametrize("name", REAL)
def test_real_fields_lend_their_labels_all_that_places_them(name: str, tmp_path: Path) -> None:
    folder = Path(iris_sample_data.__file__).parent / "sample_data"
    with xr.open_dataset(folder / f"{name}.nc") as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stored(opened, tmp_path / "in.zarr")
    source = open_source(tmp_path / "in.zarr", variables=[REAL[name]], feature_dims=[])
    found = labelled(source, tmp_path / "labels.zarr")
    with xr.open_zarr(tmp_path / "in.zarr", consolidated=False, chunks=None) as data:
        field = data[REAL[name]]
        assert set(found["labels"].coords) == set(field.coords)
        for carried in {*found.variables} - {"labels"}:
            xr.testing.assert_identical(found[carried].variable, data[carried].variable.load())
        bounds = {c.attrs.get("bounds", c.encoding.get("bounds")) for c in field.coords.values()} - {None}
        assert bounds <= {*found.data_vars}
        assert found["labels"].attrs.get("grid_mapping") == field.attrs.get("grid_mapping")
        assert found.attrs == {**data.attrs, "run": "a1"}
