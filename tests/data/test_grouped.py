"""Only named variables must decode: a damaged one blocks no other, and odd attributes keep their plain meaning."""

from __future__ import annotations

import base64
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from s3 import web

from clustering.data.access import open_source
from clustering.data.feature_weights import feature_weights
from clustering.data.reading import read_block
from clustering.data.source import Source
from clustering.errors import SourceError

VALUES = np.array([10, 50, 10, 50, -9999], "f4")
formats = pytest.mark.parametrize("zarr_format", [2, 3], ids=["v2", "v3"])


def group_of(
    path: Path, arrays: dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, Any]]], zarr_format: Any = 3,
    fill: Any = 99,
) -> Path:  # fmt: skip
    """Write arrays with zarr alone."""
    group = zarr.create_group(path, zarr_format=zarr_format)
    for name, (dims, values, attributes) in arrays.items():
        how: dict[str, Any] = {"dimension_names": dims} if zarr_format == 3 else {}
        own = attributes if zarr_format == 3 else {**attributes, "_ARRAY_DIMENSIONS": list(dims)}
        fill_value = None if values.dtype.kind not in "iuf" else np.array(fill).astype(values.dtype)
        array = group.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=values.shape or (), attributes=own,
            fill_value=fill_value, **how,
        )  # fmt: skip
        array[...] = values
    return path


def one(path: Path, attributes: dict[str, Any], values: np.ndarray = VALUES, zarr_format: Any = 3) -> Path:
    return group_of(path, {"t": (("cell",), values, attributes)}, zarr_format)


def rows(source: Source) -> list[Any]:
    plan = source.plan()
    return [v for i in range(len(plan)) for v in read_block(source, plan.block(i)).values.ravel().tolist()]


# Neighbours


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def spoil(path: Path, key: str, change: Callable[[dict[str, Any]], Any]) -> Path:
    edit(path / "other" / key, change)
    return path


def pair(path: Path, attributes: dict[str, Any], values: np.ndarray = VALUES, zarr_format: Any = 3) -> Path:
    dims = ("cell", "more", "most")[: values.ndim]
    return group_of(path, {"t": (("cell",), VALUES, {}), "other": (dims, values, attributes)}, zarr_format)


ODD: dict[str, Callable[[Path], Path]] = {
    "units": lambda p: pair(p, {"units": "(days since 2000-01-01)-1"}),
    "units-of-a-number": lambda p: pair(p, {"units": 3}),
    "codec-v3": lambda p: spoil(pair(p, {}), "zarr.json", lambda d: d["codecs"][-1].update(name="imagecodecs_jpegxl")),
    "codec-v2": lambda p: spoil(
        pair(p, {}, zarr_format=2), ".zarray", lambda d: d.update(compressor={"id": "no-such-codec"})
    ),
    "type-v3": lambda p: spoil(pair(p, {}), "zarr.json", lambda d: d.update(data_type="bfloat16")),
    "type-v2": lambda p: spoil(pair(p, {}, zarr_format=2), ".zarray", lambda d: d.update(dtype="<f9")),
    "structured": lambda p: pair(p, {}, np.zeros(5, [("a", "f4"), ("b", "i4")]), 2),
    "metadata-that-is-no-json": lambda p: (pair(p, {}) / "other" / "zarr.json").write_text("{") and p,
    "plain-fill": lambda p: pair(p, {"_FillValue": -9999.0}),
    "scale": lambda p: pair(p, {"scale_factor": [1, 2]}),
    "no-names": lambda p: spoil(pair(p, {}), "zarr.json", lambda d: d.pop("dimension_names")),
    "another-length": lambda p: pair(p, {}, np.zeros(7)),
    "the-same-name-twice": lambda p: spoil(
        pair(p, {}, np.zeros((5, 5))), "zarr.json", lambda d: d.update(dimension_names=["cell", "cell"])
    ),
    "coordinates": lambda p: pair(p, {"coordinates": {"a": 1}, "bounds": ["x", "y"]}),
}


@pytest.mark.parametrize("how", ["named", "consolidated-web", "web"])
@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_a_neighbour_that_cannot_be_decoded_is_in_nobodys_way(
    tmp_path: Path, make: Callable[[Path], Path], how: str
) -> None:
    path = make(tmp_path / "s")
    if how == "named":
        assert rows(open_source(path, variables="t", feature_dims=[])) == VALUES.tolist()
        assert open_source(path, variables="t", feature_dims=[]).cautions == ()
        return
    if how == "consolidated-web":
        consolidate(path)
    with web(tmp_path) as url:
        assert rows(open_source(f"{url}/s", variables="t", feature_dims=[])) == VALUES.tolist()


def consolidate(path: Path) -> None:
    """Write consolidated metadata. Members whose metadata are no JSON are left out."""
    if (path / ".zgroup").exists():
        keys = [p for p in sorted(path.rglob(".z*")) if p.parent != path]
        metadata = {str(p.relative_to(path)): json.loads(p.read_text()) for p in keys}
        (path / ".zmetadata").write_text(json.dumps({"zarr_consolidated_format": 1, "metadata": metadata}))
        return
    members: dict[str, Any] = {}
    for p in sorted(path.glob("*/zarr.json")):
        try:
            members[p.parent.name] = json.loads(p.read_text())
        except ValueError:
            continue
    edit(
        path / "zarr.json",
        lambda d: d.update(consolidated_metadata={"kind": "inline", "must_understand": False, "metadata": members}),
    )


LOST = ["codec-v3", "codec-v2", "type-v3", "type-v2", "scale", "metadata-that-is-no-json", "another-length"]


@pytest.mark.parametrize("odd", LOST)
def test_a_variable_that_cannot_be_used_is_refused_by_name_where_it_is_asked_for(tmp_path: Path, odd: str) -> None:
    path = ODD[odd](tmp_path / "s")
    with pytest.raises(SourceError) as caught:
        open_source(path, variables=["t", "other"], feature_dims=[])
    message = str(caught.value)
    assert "variable 'other'" in message
    assert "cannot be used: " in message
    assert "credentials" not in message
    assert "\n" not in message
    if odd != "another-length":
        with pytest.raises(SourceError, match="variable 'other'"):
            open_source(path, variables="t", feature_dims=[], mask="other")


@pytest.mark.parametrize("name", ["other", "cos(other)", "sqrt(cos(other))"])
@pytest.mark.parametrize("odd", LOST)
def test_feature_weights_that_cannot_be_used_are_refused_with_the_cause(tmp_path: Path, odd: str, name: str) -> None:
    source = open_source(ODD[odd](tmp_path / "s"), variables="t", feature_dims=[])
    with pytest.raises(SourceError) as caught:
        feature_weights(source, name)
    assert (
        str(caught.value) == f"variable 'other' in feature_weights {name!r} cannot be used: {source.unusable['other']}"
    )
    again = pickle.loads(pickle.dumps(source))
    assert again.unusable == source.unusable


@pytest.mark.parametrize("how", ["type", "chunk"])
def test_a_box_along_a_coordinate_that_cannot_be_used_is_refused_with_the_cause(tmp_path: Path, how: str) -> None:
    field = (("lat", "lon"), np.arange(12.0).reshape(3, 4), {})
    places = {d: ((d,), np.arange(n), {}) for d, n in (("lat", 3), ("lon", 4))}
    path = group_of(tmp_path / "s", {"t": field, **places})
    if how == "type":
        edit(path / "lat" / "zarr.json", lambda d: d.update(data_type="bfloat16"))
    else:
        (path / "lat" / "c" / "0").write_bytes(b"no zstd")
    with pytest.raises(SourceError, match=r"bbox finds no latitude: the coordinate 'lat' cannot be used: .*isel"):
        open_source(path, variables="t", feature_dims=[], bbox=[0, 0, 2, 2])


@pytest.mark.parametrize("odd", ["codec-v3", "type-v2", "scale"])
def test_what_cannot_be_used_is_reported_where_no_variable_is_named(tmp_path: Path, odd: str) -> None:
    source = open_source(ODD[odd](tmp_path / "s"), feature_dims=[])
    assert source.variables == ("t",)
    (caution,) = source.cautions
    assert caution.startswith("1 other array cannot be used ('other': ")


def test_arrays_of_different_lengths_are_refused_where_no_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"dimension 'cell' is 5 long, and 7 in 'other'; name those to cluster in "):
        open_source(ODD["another-length"](tmp_path / "s"), feature_dims=[])


def test_a_coordinate_that_cannot_be_used_is_left_out_and_named(tmp_path: Path) -> None:
    path = group_of(tmp_path / "s", {"t": (("cell",), VALUES, {}), "cell": (("cell",), np.arange(5), {})})
    edit(path / "cell" / "zarr.json", lambda d: d.update(data_type="bfloat16"))
    source = open_source(path, variables="t", feature_dims=[])
    assert "cell" not in source.dataset.coords
    (caution,) = source.cautions
    assert "the coordinate 'cell' cannot be used, and labels go without it" in caution
    with pytest.raises(SourceError, match="the coordinate 'cell' cannot be used"):
        open_source(path, variables="t", feature_dims=[], select={"cell": 3})


def test_a_coordinate_whose_chunks_do_not_decode_is_left_out(tmp_path: Path) -> None:
    path = group_of(tmp_path / "s", {"t": (("cell",), VALUES, {}), "cell": (("cell",), np.arange(5), {})})
    (path / "cell" / "c" / "0").write_bytes(b"no zstd")
    source = open_source(path, variables="t", feature_dims=[])
    assert rows(source) == VALUES.tolist()
    assert "the coordinate 'cell' cannot be used" in source.cautions[0]


# Times


@pytest.mark.parametrize(
    ("units", "calendar"),
    [("months since 1979-01-01", "standard"), ("years since 1948-1-1", "noleap"), ("days since 1960-01-01", "360"),
     ("days since yesterday", None)],
)  # fmt: skip
def test_times_that_cannot_be_decoded_stay_numbers(tmp_path: Path, units: str, calendar: str | None) -> None:
    about = {"units": units} | ({"calendar": calendar} if calendar else {})
    times = np.arange(5.0)
    path = group_of(tmp_path / "s", {"t": (("time",), VALUES, {}), "time": (("time",), times, about)})
    source = open_source(path, variables="t", feature_dims=[], select={"time": {"start": 1, "stop": 2}})
    assert rows(source) == [50, 10]
    assert source.dataset["time"].values.tolist() == [1, 2]
    (caution,) = source.cautions
    assert repr(units) in caution
    assert "of 'time' cannot be decoded to dates, so that it stays numbers" in caution


@pytest.mark.parametrize("units", ["days", "hours", "days since 2000-01-01", "months since 2000-01-01"])
def test_a_variable_of_times_is_clustered_as_its_numbers(tmp_path: Path, units: str) -> None:
    source = open_source(one(tmp_path / "s", {"units": units}), variables="t", feature_dims=[])
    assert rows(source) == VALUES.tolist()
    assert [units in caution for caution in source.cautions] == ([True] if "since" in units else [])


def test_dates_that_can_be_decoded_are(tmp_path: Path) -> None:
    about = {"units": "days since 2000-01-01"}
    path = group_of(
        tmp_path / "s",
        {
            "t": (("time",), VALUES, {}),
            "time": (("time",), np.arange(5), {**about, "bounds": "edges"}),
            "edges": (("time", "edge"), np.arange(10).reshape(5, 2), {}),
        },
    )
    dataset = open_source(path, variables="t", feature_dims=[]).dataset
    assert dataset["time"].dtype.kind == dataset["edges"].dtype.kind == "M"


# Fill values


def eight_bytes(value: float) -> str:
    return base64.b64encode(struct.pack("<d", value)).decode()


FILLS: dict[str, tuple[Any, str, Any]] = {
    "number": (-9999.0, "f4", -9999),
    "whole": (-9999, "f8", -9999),
    "base64": (eight_bytes(-9999.0), "f4", -9999),
    "base64-nan": (eight_bytes(np.nan), "f4", None),
    "nan": ("NaN", "f4", None),
    "null": (None, "f4", None),
    "null-of-integers": (None, "i2", None),
    "nan-of-integers": ("NaN", "i2", None),
    "list-of-one": ([-9999], "f4", -9999),
    "text": ("-9999", "f4", -9999),
    "text-of-cdl": ("-9999.f", "f4", -9999),
    "float-of-integers": (-9999.0, "i4", -9999),
    "rounded": (np.float64(np.float32(0.1)).item(), "f4", None),
    "several": ([-9999, 50], "i2", (-9999, 50)),
}


@formats
@pytest.mark.parametrize("key", ["_FillValue", "missing_value"])
@pytest.mark.parametrize(("fill", "dtype", "masked"), FILLS.values(), ids=FILLS)
def test_fill_values_are_read_however_they_are_written(
    tmp_path: Path, key: str, fill: Any, dtype: str, masked: Any, zarr_format: int
) -> None:
    if str(fill).endswith("=") and (key == "missing_value" or zarr_format == 2):
        pytest.skip("xarray writes base64 to the fill value of format 3 alone")
    source = open_source(one(tmp_path / "s", {key: fill}, VALUES.astype(dtype), zarr_format), feature_dims=[])
    lost = set(np.ravel(masked if masked is not None else []).tolist())
    assert rows(source) == [v for v in VALUES.tolist() if v not in lost]
    assert source.cautions == ()


@pytest.mark.parametrize(
    ("attributes", "dtype"),
    [({"_FillValue": -1}, "u1"), ({"missing_value": [300, 50]}, "u1"), ({"_FillValue": 0.5}, "i2"),
     ({"missing_value": 1e300}, "f4")],
    ids=str,
)  # fmt: skip
def test_a_fill_value_that_no_number_can_be_is_reported(tmp_path: Path, attributes: dict[str, Any], dtype: str) -> None:
    values = np.array([10, 20, 255 if dtype == "u1" else 30]).astype(dtype)
    source = open_source(one(tmp_path / "s", attributes, values), feature_dims=[])
    assert rows(source) == values.tolist()
    (caution,) = source.cautions
    assert "of variable 't' can never be among its numbers" in caution


@pytest.mark.parametrize("value", ["n. a. (ocean)", {"a": 1}, [[1, "x"]], True], ids=str)
def test_a_missing_value_that_is_no_number_is_passed_over(tmp_path: Path, value: Any) -> None:
    source = open_source(one(tmp_path / "s", {"missing_value": value}), feature_dims=[])
    assert rows(source) == VALUES.tolist()
    assert "missing_value of variable 't'" in source.cautions[0]


def test_a_fill_attribute_beside_the_fill_value_of_format_2_masks_too(tmp_path: Path) -> None:
    path = group_of(tmp_path / "s", {"t": (("cell",), VALUES, {"_FillValue": -9999.0})}, 2, fill=10)
    assert rows(open_source(path, feature_dims=[])) == [50, 50]


@formats
@pytest.mark.parametrize("dtype", [">i2", ">f4", ">u4"])
def test_big_endian_numbers_are_decoded(tmp_path: Path, dtype: str, zarr_format: int) -> None:
    values = np.array([1, 2, 3, 300], dtype)
    path = one(tmp_path / "s", {"scale_factor": 0.5, "_FillValue": 3, "valid_max": 200}, values, zarr_format)
    assert rows(open_source(path, feature_dims=[])) == [0.5, 1.0]


# Packing


PACKED: dict[str, tuple[dict[str, Any], list[float], int]] = {
    "text": ({"scale_factor": "0.01", "add_offset": "0"}, [1.0, 5.0], 2),
    "list-of-one": ({"scale_factor": [0.01]}, [1.0, 5.0], 0),
    "list-of-one-text": ({"scale_factor": ["0.01"]}, [1.0, 5.0], 0),
    "whole": ({"scale_factor": 2}, [200.0, 1000.0], 0),
    "whole-with-a-fill": ({"scale_factor": 2, "_FillValue": 500}, [200.0], 0),
    "null": ({"scale_factor": None, "add_offset": 1}, [101.0, 501.0], 1),
}


@formats
@pytest.mark.parametrize(("attributes", "expected", "cautions"), PACKED.values(), ids=PACKED)
def test_packing_is_read_where_its_meaning_is_plain(
    tmp_path: Path, attributes: dict[str, Any], expected: list[float], cautions: int, zarr_format: int
) -> None:
    path = one(tmp_path / "s", attributes, np.array([100, 500], "i2"), zarr_format)
    source = open_source(path, feature_dims=[])
    assert rows(source) == expected
    assert len(source.cautions) == cautions


@pytest.mark.parametrize("value", [[0.1, 0.2], "a tenth", {"a": 1}, 0, "NaN", True], ids=str)
@pytest.mark.parametrize("how", ["group", "array", "object"])
def test_a_packing_that_is_no_number_is_refused(tmp_path: Path, value: Any, how: str) -> None:
    path = one(tmp_path / "s", {"scale_factor": value}, np.array([100, 500], "i2"))
    data: Any = {
        "group": path,
        "array": path / "t",
        "object": xr.DataArray(np.array([100, 500]), dims="cell", attrs={"scale_factor": value}, name="t"),
    }[how]
    with pytest.raises(SourceError) as caught:
        open_source(data, variables="t" if how == "group" else None, feature_dims=[])
    assert "scale_factor is " in str(caught.value)
    assert "correct the attribute" in str(caught.value)


# Links


@pytest.mark.parametrize("value", [["lat"], "lat", ["lat", "nowhere"]], ids=str)
def test_coordinates_may_be_a_list(tmp_path: Path, value: Any) -> None:
    lat = (("cell",), np.arange(5.0), {})
    path = group_of(tmp_path / "s", {"t": (("cell",), VALUES, {"coordinates": value}), "lat": lat})
    source = open_source(path, variables="t", feature_dims=[])
    assert "lat" in source.dataset.coords
    assert source.cautions == ()


@pytest.mark.parametrize("key", ["coordinates", "bounds", "grid_mapping", "cell_measures"])
@pytest.mark.parametrize("value", [3, {"a": 1}, [1, 2], True], ids=str)
def test_links_that_name_nothing_are_passed_over(tmp_path: Path, key: str, value: Any) -> None:
    source = open_source(one(tmp_path / "s", {key: value}), feature_dims=[])
    assert rows(source) == VALUES.tolist()
    assert f"{key} of variable 't' is {value!r}" in source.cautions[0]


@pytest.mark.parametrize("value", [["x", "y"], "cell", 3, [3]], ids=str)
def test_odd_names_of_dimensions_in_format_2_are_none(tmp_path: Path, value: Any) -> None:
    path = pair(tmp_path / "s", {}, zarr_format=2)
    edit(path / "other" / ".zattrs", lambda d: d.update(_ARRAY_DIMENSIONS=value))
    assert rows(open_source(path, variables="t", feature_dims=[])) == VALUES.tolist()
    with pytest.raises(SourceError, match="name no dimensions"):
        open_source(path, variables="other", feature_dims=[])


def test_dimensions_of_nczarr_are_read(tmp_path: Path) -> None:
    path = one(tmp_path / "s", {}, zarr_format=2)
    edit(path / "t" / ".zattrs", lambda d: d.clear())
    edit(path / "t" / ".zarray", lambda d: d.update(_NCZARR_ARRAY={"dimrefs": ["/group/cell"]}))
    assert open_source(path, feature_dims=[]).sample_dims == ("cell",)


@formats
def test_an_encoding_of_text_makes_no_text_of_numbers(tmp_path: Path, zarr_format: int) -> None:
    assert (
        rows(open_source(one(tmp_path / "a.zarr", {"_Encoding": "utf-8"}, zarr_format=zarr_format))) == VALUES.tolist()
    )
