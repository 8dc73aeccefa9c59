"""Data in memory mean what their attributes say, as they would in a store; `nodata` goes for every kind of data."""

from __future__ import annotations

import pickle
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
from clustering.data.source import Source
from clustering.errors import ConfigError, SourceError

BAND = np.where(np.arange(144).reshape(12, 12) % 2, 100, 50).astype("i2")
BAND[:3] = -9999


def band(attributes: dict[str, Any], values: np.ndarray = BAND, **encoding: Any) -> xr.DataArray:
    array = xr.DataArray(values, dims=("y", "x"), attrs=attributes, name="band")
    array.encoding.update(encoding)
    return array


def rows(source: Source) -> np.ndarray:
    plan = source.plan()
    return np.concatenate([source.read(plan.block(i)).values for i in range(len(plan))]).ravel()


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


def test_unpacking_is_told() -> None:
    source = open_source(band({"scale_factor": 0.5}), feature_dims=[])
    (caution,) = source.cautions
    assert "variable 'band' is given with scale_factor among its attributes" in caution
    assert open_source(band({"scale_factor": 1.0, "add_offset": 0.0}), feature_dims=[]).cautions == ()


def test_what_is_decoded_already_is_left_as_it_is() -> None:
    values = np.where(BAND < 0, np.nan, BAND * 0.5).astype("f4")
    done = band({"units": "K"}, values, _FillValue=-9999, scale_factor=0.5, dtype=np.dtype("i2"))
    source = open_source(done, feature_dims=[])
    assert source.given == {}
    assert np.array_equal(rows(source), MASKED * 0.5)
    # A number that equals the stored fill value is none of the decoded numbers' business.
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
    read = [source.read(plan.block(i)) for i in range(len(plan))]
    found = np.concatenate([r.positions(np.arange(len(r))) for r in read])
    lacking = {0, 1, 2} if not isinstance(data, np.ma.MaskedArray) else set(range(12))
    assert set(range(12)) - set(found.tolist()) == lacking
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
    told = [f"nodata {nodata:g} can never be among the numbers" in caution for caution in source.cautions]
    assert told == ([] if nodata != nodata else [True])


def test_nodata_by_name_in_memory() -> None:
    data = xr.Dataset({"a": band({}), "b": band({}, BAND + 1)})
    options: dict[str, Any] = {"variables": ["a", "b"], "feature_dims": []}
    source = open_source(data, nodata={"b": -9998}, **options)
    assert len(source.read(source.plan().block(0)).values) == 108
    assert source.dataset["a"].dtype == np.int16
    with pytest.raises(ConfigError, match="nodata names the variable 'z'"):
        open_source(data, nodata={"z": 1}, **options)
    with pytest.raises(ConfigError, match="nodata is 'none' for variable 'a'"):
        open_source(data, nodata="none", **options)


@pytest.mark.parametrize("nodata", [0, 1, {"values": 0}], ids=str)
def test_nodata_of_truth_values_is_refused(nodata: Any) -> None:
    """A stored array of them is refused so too; in memory the number would count for nothing, without a word."""
    with pytest.raises(SourceError, match=r"nodata is given for variable 'values' of type bool; it applies to numbers"):
        open_source(np.array([[True], [False]]), nodata=nodata)
