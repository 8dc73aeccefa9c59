"""NetCDF and HDF5 files of all makers are taken as they are stored, every group, and parts left out are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np
import pytest
import xarray as xr
import zarr

from clustering.data.access import open_source
from clustering.data.ingest import ingest
from clustering.errors import DataError
from tests.ingested import take

X = np.arange(12.0).reshape(4, 3)


def hdf5(path: Path, fill: Callable[[Any], None]) -> Path:
    with h5py.File(path, "w") as file:
        file["x"] = X
        fill(file)
    return path


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
@pytest.mark.parametrize(
    ("units", "calendar"),
    [
        ("months since 1960-01-01", "360_day"),
        ("common_years since 1960-01-01", "noleap"),
        ("fortnights since 1960-01-01", "standard"),
        ("days since yesterday", "julian"),
        ("days since 0001-01-01", "no such calendar"),
    ],
)
def test_times_that_cannot_be_decoded_are_kept_as_they_are(
    tmp_path: Path, engine: Any, units: str, calendar: str
) -> None:
    attributes = {"units": units, "calendar": calendar, "bounds": "time_bounds"}
    times = ("time", np.arange(6.0), attributes)
    xr.Dataset({"t": (("time", "lat"), np.ones((6, 4), "f4"))}, {"time": times}).to_netcdf(
        tmp_path / "a.nc", engine=engine, encoding={"time": {"_FillValue": None}}
    )
    ingest(tmp_path / "a.nc", tmp_path / "out.zarr")
    array = zarr.open_array(tmp_path / "out.zarr" / "time", mode="r")
    assert array[:].tolist() == [0, 1, 2, 3, 4, 5]
    assert array.metadata.dimension_names == ("time",)
    assert dict(array.attrs) == attributes


def test_every_group_is_taken_with_the_coordinates_of_the_groups_above(tmp_path: Path) -> None:
    with h5netcdf.File(tmp_path / "a.nc", "w") as file:
        file.dimensions = {"x": 3, "unnamed": 2}
        file.create_variable("x", ("x",), "f8", data=np.array([10.0, 20.0, 30.0]))
        below = file.create_group("bands").create_group("r10")
        below.create_variable("y", ("unnamed", "x"), "i2", data=np.arange(6, dtype="i2").reshape(2, 3), fillvalue=-9)
        below.attrs["title"] = "ten metres"
    taken = take(tmp_path / "a.nc")
    assert {name: values.tolist() for name, values in taken.arrays.items()} == {"bands/r10/y": [[0, 1, 2], [3, 4, 5]]}
    assert taken.warnings == []
    dataset = xr.open_zarr(tmp_path / "taken.zarr", group="bands/r10", consolidated=False, chunks=None)
    assert (dataset["x"].values.tolist(), dataset["y"].dims, dataset.title) == (
        [10, 20, 30],
        ("unnamed", "x"),
        "ten metres",
    )
    source = open_source(tmp_path / "taken.zarr", group="bands/r10", variables=["y"], feature_dims=["x"])
    assert source.shape == (2,)


def references(file: Any) -> None:
    file.create_dataset("odd", (1,), dtype=h5py.ref_dtype)[0] = file["x"].ref


def regions(file: Any) -> None:
    file.create_dataset("odd", (1,), dtype=h5py.regionref_dtype)[0] = file["x"].regionref[:2]


def ragged(file: Any) -> None:
    file.create_dataset("odd", (2,), dtype=h5py.vlen_dtype("f4"))[0] = [1, 2]


LEFT: dict[str, tuple[Callable[[Any], None], str]] = {
    "nothing": (lambda file: file.update(odd=h5py.Empty("f4")), "it is empty"),
    "no rows": (lambda file: file.update(odd=np.zeros((0, 3))), "empty, of shape (0, 3)"),
    "no text": (lambda file: file.create_dataset("odd", (0,), h5py.string_dtype()), "empty, of shape (0,)"),
    "complex numbers": (lambda file: file.update(odd=np.zeros(4, complex)), "complex"),
    "long double": (lambda file: file.update(odd=np.zeros(4, np.longdouble)), "128 bits"),
    "bytes": (lambda file: file.update(odd=np.array([np.void(b"abc")] * 4)), "bytes"),
    "references": (references, "references"),
    "regions": (regions, "references"),
    "lists": (ragged, "lists of different lengths"),
    "a link within": (lambda file: file.update(odd=h5py.SoftLink("/x")), "link to '/x'"),
    "a link to nothing": (lambda file: file.update(odd=h5py.ExternalLink("no.h5", "/x")), "does not exist"),
    "another name": (lambda file: file.update(odd=file["x"]), "'x' is left out: it is another name of '/odd'"),
    "a circle": (lambda file: file.update(odd=file["/"]), "another name of '/'"),
}


@pytest.mark.parametrize(("fill", "reason"), LEFT.values(), ids=LEFT.keys())
def test_what_is_left_out_of_an_hdf5_file_is_named(tmp_path: Path, fill: Callable[[Any], None], reason: str) -> None:
    taken = take(hdf5(tmp_path / "a.h5", fill))
    # If an array has two names, the first is taken.
    assert np.array_equal(taken.arrays.get("x", taken.arrays.get("odd")), X)
    assert len(taken.warnings) == len(taken.arrays) == 1
    assert taken.said("left out", reason)


def test_arrays_of_all_other_types_are_taken(tmp_path: Path) -> None:
    table = np.array([(1, (2, 3), b"a")] * 4, [("i", "i8"), ("v", "f4", (2,)), ("s", "S3")])

    def fill(file: Any) -> None:
        flags = h5py.enum_dtype({"land": 0, "sea": 1}, "i1")
        file.create_dataset("enum", data=np.array([0, 1, 0, 1], "i1"), dtype=flags)
        file["flag"], file["half"], file["big"] = X[:, 0] > 4, X.astype("f2"), X.astype(">i4")
        file["table"], file["names"], file["one"] = table, ["a", "bb", "c", "d"], 3.0

    taken = take(hdf5(tmp_path / "a.h5", fill))
    expected = {"x": X, "enum": [0, 1, 0, 1], "flag": X[:, 0] > 4, "half": X, "big": X}
    expected |= {"table.i": [1] * 4, "table.v": [[2, 3]] * 4}
    assert sorted(taken.arrays) == sorted(expected)
    assert {name: np.array_equal(taken.arrays[name], expected[name]) for name in expected} == dict.fromkeys(
        expected, True
    )
    assert taken.warnings == []
    group: Any = zarr.open_group(tmp_path / "taken.zarr", mode="r")
    assert dict(group["enum"].attrs) == {"flag_values": [0, 1], "flag_meanings": "land sea"}
    assert (group["names"][:].tolist(), group["table.s"][:].tolist()) == (["a", "bb", "c", "d"], ["a"] * 4)
    assert group["one"][...] == 3.0


@pytest.mark.parametrize(
    ("kind", "stated", "more", "expected"),
    [
        ("i2", -9999.0, {}, -9999),
        ("i4", "-1", {}, -1),
        ("i1", 255, {"_Unsigned": "true"}, -1),
        ("u1", np.array([7]), {}, 7),
        ("i2", np.nan, {}, None),
        ("u1", -9999, {}, None),
        ("i4", 1.5, {}, None),
        ("i4", "none", {}, None),
        ("f4", np.array([1.0, 2.0]), {}, None),
    ],
)
def test_a_fill_value_of_another_type_becomes_one_of_the_type_or_is_named(
    tmp_path: Path, kind: str, stated: Any, more: dict[str, Any], expected: Any
) -> None:
    def fill(file: Any) -> None:
        file["v"] = np.arange(4).astype(kind)
        file["v"].attrs.update(_FillValue=stated, **more)

    taken = take(hdf5(tmp_path / "a.h5", fill))
    array = zarr.open_array(tmp_path / "taken.zarr" / "v", mode="r")
    assert (array[:].tolist(), array.attrs.get("_FillValue")) == ([0, 1, 2, 3], expected)
    assert taken.said("'_FillValue' of variable 'v'") == (expected is None)


def test_attributes_that_have_no_place_in_zarr_are_named(tmp_path: Path) -> None:
    def fill(file: Any) -> None:
        file["x"].attrs["good"] = np.float32(0.5)
        file["x"].attrs["link"] = file["x"].ref
        file["x"].attrs["nothing"] = h5py.Empty("f4")
        file["x"].attrs["record"] = np.zeros(1, [("u", "f4")])
        file["x"].attrs["coordinates"] = ["lat", "lon"]
        file.attrs["link"] = file["x"].ref
        file["y"] = X
        file["y"].attrs["coordinates"] = np.array([1, 2])

    taken = take(hdf5(tmp_path / "a.h5", fill))
    for name in ("link", "nothing", "record"):
        assert taken.said(f"attribute '{name}' of variable 'x' is left out")
    assert taken.said("attribute 'link' of the file")
    assert taken.said("attribute 'coordinates' of variable 'y'", "[1, 2]")
    array = zarr.open_array(tmp_path / "taken.zarr" / "x", mode="r")
    assert dict(array.attrs) == {"good": 0.5, "coordinates": "lat lon"}


def test_an_array_that_is_shorter_than_its_growing_dimension_is_filled_up(tmp_path: Path) -> None:
    def fill(file: Any) -> None:
        file.create_dataset("time", data=np.arange(4.0), maxshape=(None,)).make_scale("time")
        file.create_dataset("v", data=np.ones((2, 3)), maxshape=(None, 3)).dims[0].attach_scale(file["time"])
        file["v"].attrs["_FillValue"] = -5.0

    taken = take(hdf5(tmp_path / "a.h5", fill))
    assert taken.dims["v"][0] == "time"
    assert taken.arrays["v"].tolist() == [[1] * 3] * 2 + [[-5] * 3] * 2


def test_dimensions_of_one_name_and_two_lengths_are_kept_apart(tmp_path: Path) -> None:
    def fill(file: Any) -> None:
        for name, n in (("a", 4), ("b", 5)):
            file[name] = np.arange(n)
            file[name].dims[0].label = "place"

    taken = take(hdf5(tmp_path / "a.h5", fill))
    assert (taken.dims["a"], taken.dims["b"]) == (("place",), ("b_place",))
    assert xr.open_zarr(tmp_path / "taken.zarr", consolidated=False).sizes["b_place"] == 5


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
def test_a_growing_dimension_without_places_is_named(tmp_path: Path, engine: Any) -> None:
    variables = {"t": (("time", "lat"), np.ones((0, 4), "f4")), "h": ("lat", np.arange(4.0))}
    xr.Dataset(variables, {"time": np.zeros(0)}).to_netcdf(tmp_path / "a.nc", engine=engine, unlimited_dims=["time"])
    taken = take(tmp_path / "a.nc")
    assert taken.arrays["h"].tolist() == [0, 1, 2, 3]
    assert taken.said("'t'", "empty, of shape (0, 4)")
    assert taken.said("'time'", "empty, of shape (0,)")


def test_characters_of_a_netcdf_file_become_text(tmp_path: Path) -> None:
    with h5netcdf.File(tmp_path / "a.nc", "w") as file:
        file.dimensions = {"station": 2, "length": 3}
        file.create_variable("name", ("station", "length"), "S1", data=np.array([list("abc"), list("de\0")], "S1"))
        file.create_variable("v", ("station",), "f4", data=np.ones(2, "f4"))
    take(tmp_path / "a.nc")
    dataset = xr.open_zarr(tmp_path / "taken.zarr", consolidated=False, chunks=None)
    assert (dataset["name"].dims, dataset["name"].values.tolist()) == (("station",), ["abc", "de"])


def test_names_that_zarr_keeps_for_itself_are_changed_and_reported(tmp_path: Path) -> None:
    xr.DataArray(np.ones(3), dims="x").to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    taken = take(tmp_path / "a.nc")
    assert list(taken.arrays) == ["_xarray_dataarray_variable__"]
    assert taken.said("'__xarray_dataarray_variable__' becomes")


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
@pytest.mark.parametrize("part", [0.3, 0.8, 0.98])
def test_a_grid_that_is_cut_short_is_refused(tmp_path: Path, engine: Any, part: float) -> None:
    path = tmp_path / "a.nc"
    xr.Dataset({"t": (("time", "lat"), np.ones((60, 40), "f4"))}).to_netcdf(path, engine=engine)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(DataError, match=r"cannot read '.*(cut short|truncated)"):
        ingest(path, tmp_path / "out.zarr")


@pytest.mark.parametrize("names", [[], ["a", "b"]], ids=["nothing", "text"])
def test_a_file_without_numbers_is_refused(tmp_path: Path, names: list[str]) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        if names:
            file["names"] = names
    with pytest.raises(DataError, match="nothing that can be converted"):
        ingest(tmp_path / "a.h5", tmp_path / "out.zarr")
