"""Data in memory mean what their attributes say, as they would in a store; `nodata` goes for every kind of data."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

import clustering as c
from clustering.data.access import open_source
from clustering.data.reading import read_block
from clustering.data.source import Source
from clustering.errors import ConfigError, DataError, SourceError

BAND = np.where(np.arange(144).reshape(12, 12) % 2, 100, 50).astype("i2")
BAND[:3] = -9999


def band(attributes: dict[str, Any], values: np.ndarray = BAND, **encoding: Any) -> xr.DataArray:
    array = xr.DataArray(values, dims=("y", "x"), attrs=attributes, name="band")
    array.encoding.update(encoding)
    return array


def rows(source: Source) -> np.ndarray:
    plan = source.plan()
    return np.concatenate([read_block(source, plan.block(i)).values for i in range(len(plan))]).ravel()


MASKED = BAND[3:].ravel()
UNDECODED: dict[str, tuple[dict[str, Any], np.ndarray]] = {
    "fill": ({"_FillValue": -9999}, MASKED),
    "fill-of-numpy": ({"_FillValue": np.int16(-9999)}, MASKED),
    "fill-as-text": ({"_FillValue": "-9999"}, MASKED),
    "missing-value": ({"missing_value": [-9999.0, 7]}, MASKED),
    "scale": ({"_FillValue": -9999, "scale_factor": 0.5, "add_offset": 1.0}, MASKED * 0.5 + 1.0),
    "scale-of-single-precision": ({"_FillValue": -9999, "scale_factor": np.float32(0.5)}, MASKED * 0.5),
    "nothing-packed": ({"_FillValue": -9999, "scale_factor": 1.0, "add_offset": 0.0}, MASKED),
    "valid": ({"valid_min": 0}, MASKED),
    "valid-packed": ({"_FillValue": -9999, "scale_factor": 0.5, "valid_max": 30.0}, MASKED[MASKED == 50] * 0.5),
}
HOLDS: dict[str, Callable[[np.ndarray], Any]] = {
    "numpy": lambda values: values,
    "dask": lambda values: da.from_array(values, chunks=(5, 12)),
}


@pytest.mark.parametrize("held", HOLDS.values(), ids=HOLDS)
@pytest.mark.parametrize(("attributes", "expected"), UNDECODED.values(), ids=UNDECODED)
def test_attributes_that_were_not_decoded_count(attributes: dict[str, Any], expected: np.ndarray, held: Any) -> None:
    source = open_source(band(attributes, held(BAND)), feature_dims=[])
    assert np.array_equal(rows(source), expected)
    again = pickle.loads(pickle.dumps(source))
    assert np.array_equal(rows(again), expected)
    assert np.array_equal(rows(open_source(band(attributes, held(BAND)).to_dataset(), feature_dims=[])), expected)


def test_unpacking_is_reported() -> None:
    source = open_source(band({"scale_factor": 0.5}), feature_dims=[])
    (caution,) = source.cautions
    assert "variable 'band' is given with scale_factor among its attributes" in caution
    assert open_source(band({"scale_factor": 1.0, "add_offset": 0.0}), feature_dims=[]).cautions == ()


def test_what_is_decoded_already_is_left_as_it_is() -> None:
    values = np.where(BAND < 0, np.nan, BAND * 0.5).astype("f4")
    done = band({"units": "K"}, values, _FillValue=-9999, scale_factor=0.5, dtype=np.dtype("i2"))
    source = open_source(done, feature_dims=[])
    assert source.in_memory == {}
    assert np.array_equal(rows(source), MASKED * 0.5)
    # Decoded numbers are not compared with the stored fill value.
    odd = band({}, np.full((4, 4), -9999.0), _FillValue=-9999.0)
    assert len(rows(open_source(odd, feature_dims=[]))) == 16


def test_a_stored_field_gives_the_same_rows_however_xarray_opened_it(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "s")
    about = {"_FillValue": -9999, "scale_factor": 0.01, "add_offset": 5.0, "valid_max": 5.7}
    group.create_array("band", data=BAND, chunks=(4, 12), attributes=about, dimension_names=("y", "x"))
    truth = rows(open_source(tmp_path / "s", feature_dims=[]))
    assert len(truth) == (MASKED <= 70).sum()
    for options in ({}, {"mask_and_scale": False}, {"chunks": {"y": 4}}, {"chunks": None}):
        data = xr.open_zarr(tmp_path / "s", consolidated=False, **options)
        assert np.array_equal(rows(open_source(data, feature_dims=[])), truth)


def test_nothing_of_a_lazy_object_is_loaded_at_opening(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "s")
    group.create_array("band", data=BAND, chunks=(4, 12), attributes={"_FillValue": -9999}, dimension_names=("y", "x"))
    data = xr.open_zarr(tmp_path / "s", consolidated=False, mask_and_scale=False, chunks=None)
    (tmp_path / "s" / "band" / "c" / "2" / "0").write_bytes(b"no zstd")
    source = open_source(data, feature_dims=[], isel={"y": {"stop": 8}})
    assert np.array_equal(rows(source), BAND[3:8].ravel())


def test_a_fit_of_a_raster_with_its_fill_value_among_the_attributes_masks_it() -> None:
    data = band({"_FillValue": -9999})
    fit = c.fit(data, c.KMeans(k=2), feature_dims=[], restarts=2)
    assert (fit.fitted.summary.count, sorted(np.ravel(fit.centers))) == (108, [50, 100])
    labels = fit.predict(data, feature_dims=[])
    assert (labels.values < 0).sum() == 36


# nodata


def stored(folder: Path) -> Path:
    zarr.create_array(folder / "a", data=BAND, chunks=(5, 12), fill_value=0)
    return folder / "a"


KINDS: dict[str, Callable[[Path], Any]] = {
    "ndarray": lambda _: BAND,
    "masked-array": lambda _: np.ma.masked_equal(BAND, 50),
    "dask": lambda _: da.from_array(BAND, chunks=(5, 12)),
    "zarr-array": lambda folder: zarr.open_array(stored(folder), mode="r"),
    "DataArray": lambda _: band({}),
    "Dataset": lambda _: band({}).to_dataset(),
    "store": stored,
}


@pytest.mark.parametrize("dtype", ["i2", "f4", "f8"])
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_nodata_goes_for_every_kind_of_data(tmp_path: Path, make: Callable[[Path], Any], dtype: str) -> None:
    data = make(tmp_path)
    if isinstance(data, (np.ndarray, da.Array, xr.DataArray, xr.Dataset)):
        data = data.astype(dtype)
    source = open_source(data, nodata=-9999, sample_dims=None)
    plan = source.plan()
    read = [read_block(source, plan.block(i)) for i in range(len(plan))]
    positions = np.concatenate([r.positions(np.arange(len(r))) for r in read])
    lacking = {0, 1, 2} if not isinstance(data, np.ma.MaskedArray) else set(range(12))
    assert set(range(12)) - set(positions.tolist()) == lacking
    if not isinstance(data, np.ma.MaskedArray):
        assert np.array_equal(np.concatenate([r.values for r in read]), BAND[3:])


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("nodata", [np.nan, 40_000.0, 0.5, np.inf], ids=str)
def test_nodata_that_no_number_can_be_masks_nothing(tmp_path: Path, make: Callable[[Path], Any], nodata: float) -> None:
    data = make(tmp_path)
    if isinstance(data, np.ma.MaskedArray):
        data = np.asarray(data)
    source = open_source(data, nodata=nodata)
    assert len(rows(source)) == 144
    warned = [f"nodata {nodata:g} can never be among the numbers" in caution for caution in source.cautions]
    assert warned == ([] if nodata != nodata else [True])


def test_nodata_by_name_in_memory() -> None:
    data = xr.Dataset({"a": band({}), "b": band({}, BAND + 1)})
    options: dict[str, Any] = {"variables": ["a", "b"], "feature_dims": []}
    source = open_source(data, nodata={"b": -9998}, **options)
    assert len(read_block(source, source.plan().block(0)).values) == 108
    assert source.dataset["a"].dtype == np.int16
    with pytest.raises(ConfigError, match="nodata names the variable 'z'"):
        open_source(data, nodata={"z": 1}, **options)
    with pytest.raises(ConfigError, match="nodata is 'none'; allowed: a number"):
        open_source(data, nodata="none", **options)


@pytest.mark.parametrize("nodata", [0, 1, {"values": 0}], ids=str)
def test_nodata_of_truth_values_is_refused(nodata: Any) -> None:
    """A stored array of truth values is refused too. In memory, `nodata` would otherwise be ignored silently."""
    with pytest.raises(SourceError, match=r"nodata is given for variable 'values' of type bool; it applies to numbers"):
        open_source(np.array([[True], [False]]), nodata=nodata)


# Masks, weights and labels


PLACE = {"y": np.arange(3), "x": np.arange(4)}
GRID = xr.DataArray(np.arange(12.0).reshape(3, 4), PLACE, ("y", "x"), name="t")
LACKING = np.arange(12).reshape(3, 4) % 4 == 3
"""The cells at which the arrays beside the data have no value."""
BESIDE: dict[str, tuple[dict[str, Any], Callable[[np.ndarray], np.ndarray]]] = {
    "fill": ({"_FillValue": np.int16(-9)}, lambda v: np.where(LACKING, -9, v)),
    "fill-as-list": ({"_FillValue": [-9]}, lambda v: np.where(LACKING, -9, v)),
    "missing-value-as-text": ({"missing_value": "-9"}, lambda v: np.where(LACKING, -9, v)),
    "packed": ({"_FillValue": -9, "scale_factor": 0.5, "add_offset": -1.0}, lambda v: np.where(LACKING, -9, 2 * v + 2)),
    "valid-range": ({"valid_range": [0, 1]}, lambda v: np.where(LACKING, 7, v)),
    "valid-range-of-packed": (
        {"scale_factor": 0.5, "valid_min": 0.0, "valid_max": 1.0}, lambda v: np.where(LACKING, 7, 2 * v)
    ),
}  # fmt: skip


def as_given(array: xr.DataArray, where: str, folder: Path) -> Source:
    return open_source(GRID, feature_dims=[], **{where: array})


def as_variable(array: xr.DataArray, where: str, folder: Path) -> Source:
    data = xr.Dataset({"t": GRID, "beside": array})
    return open_source(data, variables="t", feature_dims=[], **{where: "beside"})


def as_stored(array: xr.DataArray, where: str, folder: Path) -> Source:
    root = zarr.create_group(folder / "s")
    root.create_array("t", data=GRID.values, dimension_names=("y", "x"), fill_value=np.nan)
    about = {key: getattr(value, "tolist", lambda v=value: v)() for key, value in array.attrs.items()}
    root.create_array("beside", data=array.values, dimension_names=("y", "x"), attributes=about)
    return open_source(folder / "s", variables="t", feature_dims=[], **{where: "beside"})


def as_array_of_zarr(array: xr.DataArray, where: str, folder: Path) -> Source:
    named = zarr.create_array({}, data=array.values, dimension_names=("y", "x"), attributes=dict(array.attrs))
    return open_source(GRID, feature_dims=[], **{where: named})


def as_bare_array_of_zarr(array: xr.DataArray, where: str, folder: Path) -> Source:
    about = {key: getattr(value, "tolist", lambda v=value: v)() for key, value in array.attrs.items()}
    return open_source(GRID, feature_dims=[], **{where: zarr.create_array({}, data=array.values, attributes=about)})


def lazily(array: xr.DataArray, where: str, folder: Path) -> Source:
    return as_given(array[::-1].chunk(y=2), where, folder)


GIVEN = [as_given, lazily, as_variable, as_stored, as_array_of_zarr, as_bare_array_of_zarr]


@pytest.mark.parametrize("give", GIVEN, ids=lambda give: give.__name__)
@pytest.mark.parametrize(("attributes", "written"), BESIDE.values(), ids=BESIDE)
@pytest.mark.parametrize("where", ["mask", "weights", "labels"])
def test_attributes_of_arrays_beside_the_data_count(
    tmp_path: Path, where: str, attributes: dict[str, Any], written: Any, give: Any
) -> None:
    meant = np.arange(12).reshape(3, 4) % 2
    if give is as_array_of_zarr:
        attributes = {key: getattr(value, "tolist", lambda v=value: v)() for key, value in attributes.items()}
    source = give(xr.DataArray(written(meant).astype("i2"), PLACE, ("y", "x"), attrs=attributes), where, tmp_path)
    block = source.plan().block(0)
    if where == "weights":
        # A fill value is not used as a weight.
        with pytest.raises(DataError, match=r"weights '\w+' are missing, negative or not finite"):
            read_block(source, block)
        return
    block_rows = read_block(source, pickle.loads(pickle.dumps(source)).plan().block(0))
    if where == "mask":
        assert np.array_equal(block_rows.values.ravel(), GRID.values[(meant == 1) & ~LACKING])
    else:
        assert np.array_equal(block_rows.labels, np.where(LACKING, -1, meant).ravel())


@pytest.mark.parametrize("give", GIVEN, ids=lambda give: give.__name__)
def test_weights_are_unpacked(tmp_path: Path, give: Any) -> None:
    weights = np.arange(12, dtype="i2").reshape(3, 4)
    source = give(xr.DataArray(weights, PLACE, ("y", "x"), attrs={"scale_factor": 0.25}), "weights", tmp_path)
    assert np.array_equal(read_block(source, source.plan().block(0)).weights, weights.ravel() / 4)
    if give is as_given:
        assert "variable 'weights' is given with scale_factor among its attributes" in source.cautions[0]


@pytest.mark.parametrize("give", GIVEN, ids=lambda give: give.__name__)
def test_valid_ranges_of_arrays_beside_the_data_are_passed_over_on_wish(tmp_path: Path, give: Any) -> None:
    array = xr.DataArray(np.full((3, 4), 5, "i2"), PLACE, ("y", "x"), attrs={"valid_max": 1})
    source = give(array, "labels", tmp_path)
    assert set(read_block(source, source.plan().block(0)).labels.tolist()) == {-1}
    source = as_given(array, "labels", tmp_path)
    ignoring = open_source(GRID, feature_dims=[], labels=array, valid_range="ignore")
    assert set(read_block(ignoring, ignoring.plan().block(0)).labels.tolist()) == {5}


def test_a_mask_and_weights_of_one_variable_are_decoded_once() -> None:
    area = xr.DataArray(np.arange(12, dtype="i2").reshape(3, 4), PLACE, ("y", "x"))
    area.attrs |= {"scale_factor": 0.5, "valid_range": [2, 8]}
    data = xr.Dataset({"t": GRID, "area": area})
    source = open_source(data, variables="t", feature_dims=[], mask="area > 0", weights="area", labels="area")
    block_rows = read_block(source, source.plan().block(0))
    assert np.array_equal(block_rows.values.ravel(), np.arange(2.0, 9.0))
    assert np.array_equal(block_rows.weights, np.arange(2.0, 9.0) / 2)


@pytest.mark.parametrize("kind", ["name", "array", "of-a-store", "by-position"])
def test_attributes_of_feature_weights_count(tmp_path: Path, kind: str) -> None:
    thickness = xr.DataArray(np.array([4, 8, 2], "i2"), {"z": [0, 1, 2]}, ("z",), attrs={"scale_factor": 0.5})
    data = xr.Dataset({"t": (("x", "z"), np.random.default_rng(0).normal(size=(20, 3))), "thickness": thickness})
    weights: Any = "thickness" if kind in ("name", "of-a-store") else thickness
    given: Any = data
    if kind == "of-a-store":
        data.to_zarr(tmp_path / "s", consolidated=False, zarr_format=3)
        given = tmp_path / "s"
    if kind == "by-position":
        given, weights = data.t.values, thickness.drop_vars("z")
    options: dict[str, Any] = {} if kind == "by-position" else {"variables": "t", "sample_dims": ["x"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", c.ClusteringWarning)
        fit = c.fit(given, c.KMeans(k=2), feature_weights=weights, restarts=1, **options)
    assert fit.fitted.preparation is not None
    assert np.array_equal(fit.fitted.preparation.matrix, [2.0, 4.0, 1.0])
    lacking = thickness.assign_attrs(_FillValue=8)
    if kind == "name":
        given, lacking = data.assign(thickness=lacking), "thickness"
    elif kind == "by-position":
        lacking = lacking.drop_vars("z")
    with pytest.raises(DataError, match=r"feature_weights.* are nan for feature 1"):
        c.fit(given, c.KMeans(k=2), feature_weights=lacking, **options)


@pytest.mark.parametrize("options", [{"weights": "cos(lat)"}, {"bbox": [0, 0, 2, 20]}], ids=["weights", "bbox"])
def test_packed_labels_have_no_unit(options: dict[str, Any]) -> None:
    lat = xr.Variable("lat", np.array([0, 10, 20], "i2"), {"units": "degrees_north", "scale_factor": 2.0})
    data = GRID.rename(y="lat", x="lon").assign_coords(lat=lat)
    with pytest.raises(SourceError, match=r"the coordinate 'lat' is packed: .* scale_factor 2\.0; .*mask_and_scale"):
        open_source(data, feature_dims=[], **options)
    plain = data.assign_coords(lat=lat.copy()).copy()
    plain["lat"].attrs |= {"scale_factor": 1.0, "add_offset": 0}
    assert len(rows(open_source(plain, feature_dims=[], **options))) > 0


def test_a_packed_latitude_over_two_dimensions_is_unpacked() -> None:
    degrees = np.array([0.0, 60.0, 90.0])
    lat = xr.Variable(("y", "x"), np.repeat(degrees[:, None] * 100, 4, 1).astype("i2"))
    lat.attrs |= {"units": "degrees_north", "scale_factor": 0.01}
    source = open_source(GRID.assign_coords(lat=lat), feature_dims=[], weights="cos(lat)")
    weights = read_block(source, source.plan().block(0)).weights
    np.testing.assert_allclose(weights, np.repeat([1.0, 0.5, 0.0], 4), atol=1e-12)
