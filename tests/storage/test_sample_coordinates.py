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
from clustering.fitting.cluster_names import default_names
from clustering.fitting.labelling import LabelOutputs
from clustering.storage.labels import cautions_of, coordinate_cautions, create_labels, write_frame
from clustering.storage.sample_coordinates import _Parts

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


def labelled(source: Source, path: Path, outputs: LabelOutputs | None = None) -> xr.Dataset:
    model = c.KMeans(3)
    create_labels(path, source, source.plan(whole_chunks=False), default_names(3), {"run": "a1"}, outputs, model)
    with xr.open_zarr(path, consolidated=False, chunks=None) as opened:
        return opened.load()


@pytest.mark.parametrize("coordinate", [True, False], ids=["coordinate", "variable"])
def test_the_grid_mapping_goes_with_the_labels(coordinate: bool, tmp_path: Path) -> None:
    path = stored(raster(coordinate=coordinate), tmp_path / "in.zarr")
    source = open_source(path, variables=["red", "nir"], sample_dims=["y", "x"], feature_dims=[])
    dataset = labelled(source, tmp_path / "labels.zarr", LabelOutputs(distances=True))
    for name in ("labels", "distances"):
        assert dataset[name].attrs["grid_mapping"] == "spatial_ref"
    with xr.open_zarr(path, consolidated=False, chunks=None) as data:
        assert set(dataset["labels"].coords) == set(data["red"].coords)
        xr.testing.assert_identical(dataset["spatial_ref"].variable, data["spatial_ref"].variable.load())
    assert ("spatial_ref" in dataset.coords) == coordinate
    assert dataset.attrs == {"Conventions": "CF-1.10", "title": "two bands", "run": "a1"}
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
    # No variable names a grid mapping, but there is only one.
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
    dataset = labelled(source, tmp_path / "labels.zarr")
    with xr.open_zarr(path, consolidated=False, chunks=None) as data:
        expected = data.isel(time=slice(1, None), x=slice(1, 4)).load()
    assert set(dataset["labels"].coords) == {"time", "nav_lat", "nav_lon", "height", "member"}
    for name in ("time", "nav_lat", "height", "member", "time_bnds", "vertices_latitude"):
        xr.testing.assert_identical(dataset[name].variable, expected[name].variable)
    assert dataset["nav_lon"].attrs == {}
    assert set(dataset.data_vars) == {"labels", "time_bnds", "vertices_latitude"}
    assert dataset["time"].encoding["units"] == "hours since 1950-01-01"
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
    dataset = labelled(source, tmp_path / "labels.zarr", LabelOutputs(margin=True, distances=True))
    assert dataset["margin"].dims == ("lat", "lon")
    assert dataset["cluster"].values.tolist() == [0, 1, 2]
    assert "bounds" not in dataset["lat"].attrs


def test_attributes_that_describe_the_sources_own_arrays_stay_behind(tmp_path: Path) -> None:
    attributes = {
        "proj:code": "EPSG:32632", "spatial:dimensions": ["y", "x"], "spatial:transform": [10.0, 0, 0, 0, -10.0, 55],
        "zarr_conventions": [{"name": "proj:"}], "multiscales": {"layout": []}, "omero": {}, "run": "theirs",
        "history": np.float32(1.0),
    }  # fmt: skip
    path = stored(raster(coordinate=True).assign_attrs(attributes), tmp_path / "in.zarr")
    options: dict[str, Any] = {"variables": ["red"], "sample_dims": ["y", "x"]}
    attrs = labelled(open_source(path, **options), tmp_path / "whole.zarr").attrs
    kept = {"proj:code", "spatial:dimensions", "spatial:transform", "zarr_conventions", "history", "run", "title"}
    assert set(attrs) == kept | {"Conventions"}
    assert attrs["run"] == "a1"
    assert attrs["spatial:transform"] == attributes["spatial:transform"]
    # The transform of the whole grid is wrong for a part of it.
    for wish in ({"isel": {"x": {"start": 2}}}, {"select": {"y": [40.0]}}, {"bbox": [10.0, 10.0, 30.0, 40.0]}):
        part = labelled(open_source(path, **options, **wish), tmp_path / f"{[*wish]}.zarr")
        assert set(part.attrs) == (kept | {"Conventions"}) - {"spatial:transform"}
        assert set(part["spatial_ref"].attrs) == {"crs_wkt", "grid_mapping_name"}


def test_projections_of_an_array_go_to_its_labels(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "in.zarr", data=np.random.default_rng(0).random((6, 4)), dimension_names=("y", "x")
    )
    array.attrs.update({"proj:code": "EPSG:4326", "valid_range": [0, 1]})
    dataset = labelled(open_source(tmp_path / "in.zarr", sample_dims=["y", "x"]), tmp_path / "labels.zarr")
    assert dataset["labels"].attrs["proj:code"] == "EPSG:4326"
    assert "valid_range" not in dataset["labels"].attrs


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
    dataset = labelled(source, tmp_path / "labels.zarr")
    with xr.open_zarr(tmp_path / "in.zarr", consolidated=False, chunks=None) as data:
        field = data[REAL[name]]
        assert set(dataset["labels"].coords) == set(field.coords)
        for carried in {*dataset.variables} - {"labels"}:
            xr.testing.assert_identical(dataset[carried].variable, data[carried].variable.load())
        bounds = {c.attrs.get("bounds", c.encoding.get("bounds")) for c in field.coords.values()} - {None}
        assert bounds <= {*dataset.data_vars}
        assert dataset["labels"].attrs.get("grid_mapping") == field.attrs.get("grid_mapping")
        assert dataset.attrs == {**data.attrs, "run": "a1"}


def odd(kind: str, path: Path) -> None:
    """Store rows along a coordinate that cannot be written back as it is stored."""
    native = kind.startswith(("M8", "m8"))
    group = zarr.create_group(path, zarr_format=2 if native else 3)
    rows = np.arange(40.0) % 2 * 40
    labels: Any = np.arange(40).astype(kind) if native else np.arange(40.0)
    dims: Any = {"attributes": {"_ARRAY_DIMENSIONS": ["when"]}} if native else {"dimension_names": ["when"]}
    group.create_array("t", data=rows, **dims)
    group.create_array("when", data=labels, **dims)
    if not native:
        units, calendar = kind.split(", ")
        group["when"].attrs.update({"units": units, "calendar": calendar})


@pytest.mark.parametrize(
    "kind",
    [
        "months since 1960-01-01, 360_day",
        "common_years since 1960-01-01, noleap",
        "M8[ns]",
        "M8[D]",
        "m8[s]",
    ],
)
def test_dates_of_any_encoding_are_written_and_come_back(tmp_path: Path, kind: str) -> None:
    """Where the encoding of the source cannot be written, xarray chooses another."""
    odd(kind, tmp_path / "in.zarr")
    source = open_source(tmp_path / "in.zarr", variables=["t"], sample_dims=["when"], feature_dims=[])
    dataset = labelled(source, tmp_path / "labels.zarr")
    assert dataset["when"].variable.equals(source.dataset["when"].variable)
    assert cautions_of(tmp_path / "labels.zarr") == ()


@pytest.mark.parametrize("calendar", ["standard", "proleptic_gregorian", "julian", "noleap"])
def test_dates_of_every_calendar_are_kept(tmp_path: Path, calendar: str) -> None:
    """Dates of the usual calendars are read back as dates of numpy, which is no reason to leave them out."""
    times = xr.date_range("2001-02-20", periods=4, calendar=calendar, use_cftime=True)
    rows = xr.DataArray(np.zeros((4, 2)), {"time": times}, ("time", "f"), "v")
    dataset = labelled(open_source(rows, sample_dims="time"), tmp_path / "labels.zarr")
    assert [str(label)[:10] for label in dataset["time"].values] == [str(label)[:10] for label in times]


LEFT_OUT = {
    "mixed": np.array(["a", 1, None, "b"], object),
    "attribute": xr.Variable("row", np.arange(4.0), {"units": "days since nonsense"}),
    "longdouble": np.zeros(4, np.longdouble),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_cannot_be_written_is_left_out_with_a_caution(tmp_path: Path, name: str) -> None:
    """Labels are still written, open with xarray, and name what is left out; units stay under another name."""
    value = LEFT_OUT[name]
    variable = value if isinstance(value, xr.Variable) else xr.Variable("row", value)
    rows = xr.DataArray(np.zeros((4, 2)), {name: variable, "fine": ("row", np.arange(4))}, ("row", "f"), "v")
    source = open_source(rows, sample_dims="row")
    dataset = labelled(source, tmp_path / "labels.zarr")
    cautions = cautions_of(tmp_path / "labels.zarr")
    assert coordinate_cautions(source, default_names(3), LabelOutputs()) == cautions
    assert list(dataset["fine"].values) == [0, 1, 2, 3]
    if name == "attribute":
        assert cautions == ()
        assert dataset[name].attrs == {"undecoded_units": "days since nonsense"}
    else:
        assert name not in dataset.variables
        assert cautions[0].startswith(f"coordinate {name!r} is left out of labels.zarr: it cannot be written")


@pytest.mark.parametrize("dtype", ["f8", "i4", "M8[ns]", "S4"])
def test_large_coordinates_are_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    """Each part is read by itself, and the whole comes back."""
    monkeypatch.setattr("clustering.data.encoding.PART", 80)
    values = (np.arange(100) * 3).astype(dtype)
    data = xr.Dataset({"t": ("cell", np.arange(100.0))}, {"cell": ("cell", values), "beside": ("cell", values[::-1])})
    source = open_source(stored(data, tmp_path / "in.zarr"), variables=["t"], sample_dims=["cell"], feature_dims=[])
    longest = 0
    read = _Parts.__getitem__

    def watched(self: _Parts, key: Any) -> Any:
        nonlocal longest
        part = read(self, key)
        longest = max(longest, part.nbytes)
        return part

    monkeypatch.setattr(_Parts, "__getitem__", watched)
    dataset = labelled(source, tmp_path / "labels.zarr")
    assert 0 < longest <= 80
    for name in ("cell", "beside"):
        assert np.array_equal(dataset[name].values, data[name].values)
    assert set(dataset["labels"].coords) == {"cell", "beside"}


@pytest.mark.parametrize("part", [80, 16 * 2**20])
def test_a_coordinate_that_cannot_be_read_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    """A chunk that does not decode costs only its coordinate, whether that is read whole or in parts."""
    monkeypatch.setattr("clustering.data.encoding.PART", part)
    data = xr.Dataset({"t": ("cell", np.arange(100.0))}, {"beside": ("cell", np.arange(100.0))})
    path = stored(data, tmp_path / "in.zarr", encoding={"beside": {"chunks": (10,)}})
    (path / "beside/c/7").write_bytes(b"nothing")
    source = open_source(path, variables=["t"], sample_dims=["cell"], feature_dims=[])
    dataset = labelled(source, tmp_path / "labels.zarr")
    assert "beside" not in dataset.variables
    assert "coordinates" not in zarr.open_group(tmp_path / "labels.zarr")["labels"].attrs
    (caution,) = cautions_of(tmp_path / "labels.zarr")
    assert "it cannot be read" in caution


@pytest.mark.parametrize("other", ["nothing", "wish", "attributes", "half-made"])
def test_labels_take_over_the_frame_that_was_written_for_them_and_no_other(tmp_path: Path, other: str) -> None:
    path, outputs = tmp_path / "labels.zarr", LabelOutputs()
    old = xr.DataArray(np.zeros((4, 2)), {"margin": ("row", [1, 2, 3, 4])}, ("row", "f"), "v")
    now = old.assign_coords(margin=("row", [5, 6, 7, 8]))
    before, after = (open_source(rows, sample_dims="row") for rows in (old, now))
    write_frame(path, before, default_names(3), {"run": "a2" if other == "attributes" else "a1"}, outputs, c.KMeans(3))
    if other == "half-made":
        zarr.open_group(path).attrs.pop("frame")
    if other == "wish":
        outputs = LabelOutputs(margin=True)
    dataset = labelled(after, path, outputs)
    assert set(dataset.data_vars) == ({"labels", "margin"} if other == "wish" else {"labels"})
    assert (dataset["labels"] == -1).all()
    assert "frame" not in dataset.attrs
    assert dataset.attrs["run"] == "a1"
    if other == "wish":
        assert np.isnan(dataset["margin"]).all()
    else:
        assert dataset["margin"].values.tolist() == ([1, 2, 3, 4] if other == "nothing" else [5, 6, 7, 8])


@pytest.mark.filterwarnings("ignore:Object at .* is not recognized")
@pytest.mark.parametrize("with_coordinates", [True, False])
@pytest.mark.parametrize("framed", [True, False])
def test_labels_replace_files_of_their_run_and_no_others(tmp_path: Path, with_coordinates: bool, framed: bool) -> None:
    path = tmp_path / "labels.zarr"
    rows = xr.DataArray(
        np.zeros((4, 2)), {"margin": ("row", [1, 2, 3, 4])} if with_coordinates else {}, ("row", "f"), "v"
    )
    source = open_source(rows, sample_dims="row")
    labelled(source, path, LabelOutputs(distances=True))
    others = [path / "notes.txt", path / "labels" / "notes.txt", path / "distances" / "c" / "notes.txt"]
    for other in others:
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_text("mine")
    if framed:
        write_frame(path, source, default_names(3), {"run": "a1"}, model=c.KMeans(3))
        assert not (path / "labels" / "zarr.json").exists()
    assert set(labelled(source, path).data_vars) == {"labels"}
    assert [other.read_text() for other in others] == ["mine"] * 3


def test_coordinates_that_cannot_be_written_together_are_written_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coordinates that fail by themselves too are left out, and the others stay."""
    write = xr.Dataset.to_zarr

    def choosy(self: xr.Dataset, *options: Any, **more: Any) -> Any:
        if len(self.variables) > 1 or ("bad" in self.variables and more.get("mode") == "a"):
            raise ValueError("not so")
        return write(self, *options, **more)

    beside = {"bad": ("row", [1.0, 2.0, 3.0, 4.0]), "good": ("row", [5, 6, 7, 8]), "place": "here"}
    source = open_source(xr.DataArray(np.zeros((4, 2)), beside, ("row", "f"), "v"), sample_dims="row")
    with monkeypatch.context() as patched:
        patched.setattr(xr.Dataset, "to_zarr", choosy)
        dataset = labelled(source, tmp_path / "labels.zarr")
    assert set(dataset.coords) == {"good", "place"}
    assert dataset["good"].values.tolist() == [5, 6, 7, 8]
    assert dataset["place"].item() == "here"
    assert cautions_of(tmp_path / "labels.zarr") == ("coordinate 'bad' is left out of labels.zarr: not so",)
