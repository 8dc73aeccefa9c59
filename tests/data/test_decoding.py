"""Stored numbers mean what xarray and the CF conventions say, packed or not, in both formats of Zarr."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import clustering as c
from clustering.data.access import open_source
from clustering.data.reading import read_block
from clustering.data.source import Source
from clustering.errors import ConfigError, DataError, SourceError

RNG = np.random.default_rng(11)


def rows_of(source: Source, **options: Any) -> np.ndarray:
    """Return the values of all rows on the grid `(cells, d)`, with NaN at cells that are not used."""
    plan = source.plan(block_bytes=64)
    values = np.full((plan.cells, source.n_features), np.nan)
    for i in range(len(plan)):
        rows = read_block(source, plan.block(i), **options)
        values[rows.positions(np.arange(len(rows)))] = rows.decoded().values
    return values


CF: dict[str, tuple[str, dict[str, Any]]] = {
    "scale-and-offset": ("i2", {"scale_factor": 0.01, "add_offset": 20.0, "_FillValue": -32768}),
    "float32-scale": ("i2", {"scale_factor": np.float32(0.01), "add_offset": np.float32(20), "_FillValue": -32768}),
    "scale-alone": ("i1", {"scale_factor": 0.5, "_FillValue": -128}),
    "offset-alone": ("u2", {"add_offset": 1000.0, "_FillValue": 65535}),
    "fill-of-zero": ("u1", {"scale_factor": 2.0, "_FillValue": 0}),
    "missing-value": ("i4", {"missing_value": -99, "scale_factor": 0.25}),
    "whole-numbers-with-a-fill": ("i2", {"_FillValue": -1}),
    "float-fill": ("f4", {"_FillValue": np.float32(1e20)}),
    "double-fill": ("f8", {"_FillValue": -9999.0}),
    "half-precision": ("f2", {"_FillValue": np.float16(-1)}),
    "nothing-to-decode": ("i2", {"_FillValue": None}),
    "unsigned": ("i1", {"_Unsigned": "true", "_FillValue": np.int8(-1), "scale_factor": 0.1}),
}


def packed_store(path: Path, dtype: str, attributes: dict[str, Any], zarr_format: int) -> Path:
    """Write two variables of stored numbers with CF attributes. If there is a fill value, each lacks one number."""
    kind = np.dtype(dtype)
    stored = {name: RNG.integers(0, 100, (12, 5)).astype(kind) for name in "ab"}
    fill = attributes.get("_FillValue", attributes.get("missing_value"))
    if fill is not None:
        stored["a"][3, 2] = stored["b"][7, 0] = fill
    attributes = {key: value for key, value in attributes.items() if value is not None}
    raw = xr.Dataset({name: (("row", "feature"), values, attributes) for name, values in stored.items()})
    decoded = xr.conventions.decode_cf(raw)
    for name in "ab":
        decoded[name].encoding["chunks"] = (4, 5)
    decoded.to_zarr(path, zarr_format=zarr_format, consolidated=False)
    return path


@pytest.mark.parametrize("zarr_format", [2, 3], ids=["v2", "v3"])
@pytest.mark.parametrize(("dtype", "attributes"), CF.values(), ids=CF.keys())
def test_values_are_those_of_xarray_to_the_last_bit(
    tmp_path: Path, dtype: str, attributes: dict[str, Any], zarr_format: int
) -> None:
    path = packed_store(tmp_path / "s", dtype, attributes, zarr_format)
    source = open_source(path, variables=["a", "b"])
    with xr.open_dataset(path, engine="zarr", consolidated=False, chunks=None) as dataset:
        truth = np.concatenate([dataset["a"].values, dataset["b"].values], axis=1)
        assert source.dtype == np.result_type(dataset["a"], dataset["b"])
    truth = np.where(np.isnan(truth).any(axis=1, keepdims=True), np.nan, truth)
    for packed in (False, True):
        assert np.array_equal(rows_of(source, packed=packed), truth, equal_nan=True)
    if attributes.get("_FillValue") is not None or "missing_value" in attributes:
        assert np.isnan(truth).any(axis=1).sum() == 2


@pytest.mark.parametrize("name", ["scale-and-offset", "float32-scale", "offset-alone", "whole-numbers-with-a-fill"])
def test_packed_rows_take_the_room_of_what_is_stored(tmp_path: Path, name: str) -> None:
    dtype, attributes = CF[name]
    source = open_source(packed_store(tmp_path / "s", dtype, attributes, 3), variables=["a", "b"])
    block = source.plan().block(0)
    packed, decoded = read_block(source, block, packed=True), read_block(source, block)
    assert packed.values.dtype == np.dtype(dtype)
    assert decoded.values.dtype == source.dtype
    assert packed.values.nbytes * (source.dtype.itemsize // packed.values.itemsize) == decoded.values.nbytes
    assert np.array_equal(packed.decoded().values, decoded.values)


def test_variables_of_different_kinds_are_gathered_side_by_side(tmp_path: Path) -> None:
    small, wide = RNG.integers(0, 9, (6, 2)).astype("i2"), RNG.standard_normal((6, 3))
    dataset = xr.Dataset({"small": (("row", "a"), small), "wide": (("row", "b"), wide)})
    dataset["small"].attrs["scale_factor"] = 0.5
    dataset.to_zarr(tmp_path / "s", consolidated=False)
    source = open_source(tmp_path / "s", variables=["small", "wide"], sample_dims=["row"])
    assert source.packing is None
    assert np.array_equal(rows_of(source), np.concatenate([small * 0.5, wide], axis=1))


@pytest.mark.parametrize("zarr_format", [2, 3], ids=["v2", "v3"])
@pytest.mark.parametrize(
    "attributes", [{"valid_range": [10, 50]}, {"valid_min": 10, "valid_max": 50}], ids=["range", "min-and-max"]
)
def test_numbers_outside_the_valid_range_are_missing(
    tmp_path: Path, attributes: dict[str, Any], zarr_format: Any
) -> None:
    stored = np.arange(60, dtype="i2").reshape(20, 3)
    group = zarr.create_group(tmp_path / "s", zarr_format=zarr_format)
    about = {"scale_factor": 0.1, **attributes, "_ARRAY_DIMENSIONS": ["row", "feature"]}
    names = {} if zarr_format == 2 else {"dimension_names": ("row", "feature")}
    group.create_array("t", data=stored, chunks=(7, 3), attributes=about, fill_value=-1, **names)
    decoded = rows_of(open_source(tmp_path / "s"))
    inside = ((stored >= 10) & (stored <= 50)).all(axis=1)
    assert np.array_equal(~np.isnan(decoded).any(axis=1), inside)
    assert np.allclose(decoded[inside], stored[inside] * 0.1, rtol=1e-15)


def test_nodata_is_a_stored_number_beside_the_fill_value(tmp_path: Path) -> None:
    stored = RNG.integers(-127, 127, (30, 4)).astype("i1")
    stored[4, 1], stored[9] = -128, -128
    zarr.create_array(tmp_path / "a", data=stored, chunks=(7, 4), fill_value=0)
    source = open_source(tmp_path / "a", nodata=-128)
    decoded = rows_of(source)
    assert np.flatnonzero(np.isnan(decoded).any(axis=1)).tolist() == [4, 9]
    assert np.array_equal(decoded[[0, 29]], stored[[0, 29]])
    assert source.dtype == np.int8
    with pytest.raises(DataError, match=r"missing value in variable 'values', block 0 .*missing"):
        read_block(source_with(tmp_path / "a", missing="error", nodata=-128), source.plan().block(0))
    assert len(read_block(open_source(tmp_path / "a"), source.plan().block(0))) == 30


def source_with(path: Path, **options: Any) -> Source:
    return open_source(path, **options)


def test_nodata_may_differ_by_variable(tmp_path: Path) -> None:
    values = np.arange(12.0).reshape(6, 2)
    xr.Dataset(dict.fromkeys("ab", (("row", "f"), values))).to_zarr(tmp_path / "s", consolidated=False)
    decoded = rows_of(open_source(tmp_path / "s", variables=["a", "b"], nodata={"a": 3, "b": 8.0}))
    assert np.flatnonzero(np.isnan(decoded).any(axis=1)).tolist() == [1, 4]


def test_missing_whole_numbers_are_integrated_out_as_gaps(tmp_path: Path) -> None:
    stored = RNG.integers(0, 100, (10, 3)).astype("i2")
    stored[2, 1], stored[5] = -1, -1
    zarr.create_array(tmp_path / "a", data=stored, chunks=(5, 3), fill_value=0)
    source = open_source(tmp_path / "a", nodata=-1, missing="marginalize")
    rows = read_block(source, source.plan().block(0))
    truth = np.where(stored == -1, np.nan, stored)
    assert np.array_equal(rows.values, truth[[i for i in range(10) if i != 5]], equal_nan=True)
    assert np.flatnonzero(rows.has_missing).tolist() == [2]


def test_signed_squares_of_embeddings(tmp_path: Path) -> None:
    stored = np.arange(-128, 127, dtype="i1").reshape(-1, 5)
    zarr.create_array(tmp_path / "a", data=stored, chunks=(20, 5), fill_value=0)
    source = open_source(tmp_path / "a", decode="signed_square", nodata=-128)
    wide = stored.astype("f8")
    truth = (wide / 127.5) ** 2 * np.sign(wide)
    truth[0] = np.nan
    decoded = rows_of(source, packed=True)
    assert np.allclose(decoded, truth, rtol=4e-16, atol=0, equal_nan=True)
    assert read_block(source, source.plan().block(0), packed=True).values.dtype == np.int8


def test_the_decoder_travels_with_the_source(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a", data=np.arange(20, dtype="i1").reshape(10, 2) + 1, chunks=(5, 2))
    source = open_source(tmp_path / "a", decode="signed_square")
    assert np.array_equal(rows_of(pickle.loads(pickle.dumps(source))), rows_of(source))


def test_packed_data_give_the_bits_of_decoded_data(tmp_path: Path) -> None:
    path = packed_store(tmp_path / "s", *CF["scale-and-offset"], 3)
    with xr.open_dataset(path, engine="zarr", consolidated=False, chunks=None) as dataset:
        loaded = dataset.load()
    fits = [c.fit(data, c.KMeans(k=3), variables=["a", "b"], block_bytes=64) for data in (path, loaded)]
    assert fits[0].objective == fits[1].objective
    assert np.array_equal(fits[0].centers, fits[1].centers)


FAULTS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "decoder": ({"decode": "square"}, ConfigError, "decode is 'square'; allowed: signed_square"),
    "decoder-of-another": ({"decode": {"z": "signed_square"}}, ConfigError, "decode names the variable 'z', which"),
    "decoder-of-scaled": ({"decode": "signed_square"}, SourceError, "named decoders are for plain whole numbers"),
    "nodata-word": ({"nodata": "none"}, ConfigError, "nodata is 'none'; allowed: a number"),
    "bad-share": ({"max_bad_fraction": 2}, ConfigError, "max_bad_fraction is 2; 1 or less is needed"),
    "bad-chunk": ({"on_bad_chunk": "skip"}, ConfigError, "on_bad_chunk is 'skip'; allowed: error, mask"),
    "chunks": ({"missing_chunks": "skip"}, ConfigError, "missing_chunks is 'skip'; allowed: error, mask, fill"),
}


@pytest.mark.parametrize(("options", "kind", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_wishes_that_do_not_fit_are_refused_on_one_line(
    tmp_path: Path, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    path = packed_store(tmp_path / "s", *CF["scale-and-offset"], 3)
    with pytest.raises(kind) as caught:
        open_source(path, variables=["a", "b"], **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_named_decoders_do_not_fit_data_in_memory() -> None:
    with pytest.raises(SourceError, match="decode is given for variable 'values', which is no stored array"):
        open_source(np.zeros((4, 2), "i1"), decode="signed_square")
