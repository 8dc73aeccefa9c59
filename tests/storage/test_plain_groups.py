"""Groups of plain numbers are written and read as xarray writes and reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import clustering as c
from clustering.compat.xarray import encode_fill_value
from clustering.data.plain_dataset import PlainDataset, PlainVariable
from clustering.storage.model import describe, save_model
from clustering.storage.plain_groups import NAN, is_plain, open_plain, write_plain

RNG = np.random.default_rng(0)
ARRAYS = {
    "centers": PlainVariable(("cluster", "feature"), RNG.normal(size=(5, 3)), {"units": "K", "long_name": "a"}),
    "large": PlainVariable(("cluster", "feature", "more"), RNG.normal(size=(5, 3, 300_000)).astype("f4")),
    "scalar": PlainVariable((), np.array(2.0)),
    "missing": PlainVariable((), np.array(np.nan)),
    "zeros": PlainVariable(("feature",), np.zeros(3)),
    "history": PlainVariable(("pass", "step"), np.zeros((0, 2)), {"steps": ["assignment", "update"]}),
    "counts": PlainVariable(("cluster",), np.arange(5, dtype="i4")),
    "large_counts": PlainVariable(("cluster",), np.arange(5, dtype="u8")),
}
LABELS = {
    "cluster": PlainVariable(("cluster",), np.arange(5)),
    "depth": PlainVariable(("feature",), np.array([1.0, 2.0, np.nan]), {"positive": "down"}),
    "variable": PlainVariable(("feature",), np.zeros(3, np.int32), {"flag_values": [0, 1], "flag_meanings": "a b"}),
}
ATTRIBUTES = {"k": 5, "nested": [1, {"a": None}], "number": 1.5, "text": "ü", "nan": float("nan")}


def by_xarray(dataset: xr.Dataset) -> dict[str, bytes]:
    """The objects that xarray writes."""
    content: dict[str, Any] = {}
    dataset.to_zarr(zarr.storage.MemoryStore(content), mode="w-", consolidated=False, zarr_format=3)
    return {key: value.to_bytes() for key, value in content.items()}


def by_ours(dataset: PlainDataset) -> dict[str, bytes]:
    content: dict[str, Any] = {}
    write_plain(dataset, zarr.storage.MemoryStore(content))
    return {key: value.to_bytes() for key, value in content.items()}


def test_a_group_has_the_bytes_that_xarray_writes() -> None:
    dataset = PlainDataset(ARRAYS, LABELS, ATTRIBUTES)
    assert is_plain(dataset)
    assert by_ours(dataset) == by_xarray(dataset.in_xarray)


@pytest.mark.parametrize("kind", [c.KMeans(3), c.GaussianMixture(3), c.SoftKMeans(3, beta=1.0)])
def test_the_model_of_a_bare_array_has_the_bytes_that_xarray_writes(kind: Any) -> None:
    array = zarr.create_array({}, shape=(90, 4), chunks=(30, 4), dtype="f4")
    array[:] = RNG.normal(size=(90, 4)).astype("f4")
    fit = c.fit(array, kind, seed=0)
    dataset = describe(fit.fitted)
    assert is_plain(dataset)
    assert by_ours(dataset) == by_xarray(dataset.in_xarray)


def test_the_code_of_nan_is_that_of_xarray() -> None:
    assert encode_fill_value(np.nan, np.dtype(np.float64)) == encode_fill_value(np.nan, np.dtype(np.float32)) == NAN


@pytest.mark.parametrize(
    ("arrays", "labels"),
    [
        ({"names": PlainVariable(("feature",), np.array(["a", "b"], object))}, {}),
        ({"flags": PlainVariable(("feature",), np.array([True, False]))}, {}),
        ({"swapped": PlainVariable(("feature",), np.arange(2.0).astype(">f8"))}, {}),
        ({"times": PlainVariable(("feature",), np.arange(2.0), {"units": "days since 2000-01-01"})}, {}),
        ({"packed": PlainVariable(("feature",), np.arange(2.0), {"scale_factor": 2.0})}, {}),
        ({}, {"spans": PlainVariable(("feature",), np.arange(2.0), {"units": "days"})}),
        ({}, {"with space": PlainVariable(("feature",), np.arange(2.0))}),
        ({}, {"dates": PlainVariable(("feature",), np.array(["2000-01-01"], "datetime64[ns]"))}),
    ],
)
def test_what_xarray_encodes_is_left_to_it(arrays: Any, labels: Any) -> None:
    assert not is_plain(PlainDataset(arrays, labels))


def test_a_model_goes_where_nothing_is(tmp_path: Any) -> None:
    fit = c.fit(RNG.normal(size=(90, 4)), c.KMeans(3), seed=0)
    write_plain(describe(fit.fitted), str(tmp_path / "model.zarr"))
    with pytest.raises(zarr.errors.ContainsGroupError):
        write_plain(describe(fit.fitted), str(tmp_path / "model.zarr"))
    save_model(fit.fitted, tmp_path / "saved.zarr", {"note": "a"})
    with xr.open_zarr(tmp_path / "saved.zarr", consolidated=False) as saved:
        assert saved.attrs["note"] == "a"
        np.testing.assert_array_equal(saved["centers"], fit.centers)


def test_arrays_are_read_as_xarray_reads_them(tmp_path: Any) -> None:
    group = zarr.open_group(str(tmp_path / "labels"), mode="w", zarr_format=3)
    values = RNG.integers(-1, 3, (40, 30)).astype("i1")
    attributes = {"flag_values": [0, 1, 2], "flag_meanings": "a b c"}
    group.create_array("labels", data=values, dimension_names=("y", "x"), attributes=attributes, chunks=(20, 30))
    plain = open_plain(str(tmp_path / "labels"))
    assert plain is not None
    with xr.open_zarr(tmp_path / "labels", consolidated=False, chunks=None) as opened:
        assert plain["labels"].to_variable().load().identical(opened["labels"].variable.load())
        cut = {"y": slice(None, None, 7), "x": 4}
        np.testing.assert_array_equal(plain["labels"].isel(cut).values, opened["labels"].isel(cut).values)
    # A coordinate, and numbers that stand for others, are left to xarray.
    group.create_array("y", data=np.arange(40.0), dimension_names=("y",))
    assert open_plain(str(tmp_path / "labels")) is None
    del group["y"]
    group.create_array("margin", data=values, dimension_names=("y", "x"), attributes={"scale_factor": 0.5})
    assert open_plain(str(tmp_path / "labels")) is None
