"""A plain array that is opened without xarray gives what xarray gives."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from xarray.core.indexing import LazilyIndexedArray

import clustering as c
from clustering.compat.xarray import lazy_data
from clustering.data.plain_dataset import PlainDataset, PlainVariable, as_plain
from clustering.data.reading import read_block
from clustering.data.source import Source
from clustering.errors import SourceError

ROWS = np.random.default_rng(0).standard_normal((70, 3))
ROWS[5, 1] = np.nan


def opened(rows: Any, **options: Any) -> tuple[Source, Source]:
    """The source of an array, and that of the same array by way of xarray."""
    plain = c.open_source(rows, **options)
    assert isinstance(plain.dataset, PlainDataset)
    # A selection of all rows needs xarray.
    general = c.open_source(rows, isel={"row": {"start": 0}}, **options)
    assert isinstance(general.dataset, xr.Dataset)
    return plain, general


@pytest.mark.parametrize("missing", ["drop", "marginalize"])
@pytest.mark.parametrize("weights", [None, np.arange(70), np.linspace(0, 1, 70, dtype=np.float32)])
@pytest.mark.parametrize(
    "rows", [ROWS, ROWS[::2, ::-1][:35], ROWS.astype("f4"), (100 * np.nan_to_num(ROWS)).astype("i2")]
)
def test_both_ways_read_the_same_rows(rows: Any, weights: Any, missing: str) -> None:
    options = {} if weights is None else {"weights": weights[: len(rows)]}
    plain, general = opened(rows, missing=missing, **options)
    for name in (
        "shape", "chunks", "dtype", "features", "about", "n_features", "row_bytes", "kept_row_bytes", "variables",
        "sample_dims", "feature_dims", "weights", "mask", "labels", "missing", "labelled", "recipe", "held_labels",
        "stored", "listings", "cautions", "max_bad_fraction", "in_memory", "unusable", "valid_range",
    ):  # fmt: skip
        assert getattr(plain, name) == getattr(general, name), name
    plan = plain.plan(block_bytes=512)
    assert plan == general.plan(block_bytes=512)
    for i in range(len(plan)):
        ours, theirs = read_block(plain, plan.block(i)), read_block(general, plan.block(i))
        np.testing.assert_array_equal(ours.values, theirs.values)
        np.testing.assert_array_equal(ours.weights, theirs.weights)
        np.testing.assert_array_equal(ours.cells, theirs.cells)
        assert (ours.values.dtype, ours.shape) == (theirs.values.dtype, theirs.shape)


def test_what_is_not_answered_here_is_answered_by_xarray() -> None:
    dataset = PlainDataset({"values": PlainVariable(("row", "feature"), ROWS)})
    whole = xr.Dataset({"values": (("row", "feature"), ROWS)})
    assert dataset.isel({"row": [4, 2]}).equals(whole.isel(row=[4, 2]))
    assert dataset[["values"]].equals(whole)
    assert dataset["row"].equals(whole["row"])
    assert dataset["values"].mean("row").equals(whole["values"].mean("row"))
    assert dataset.nbytes == whole.nbytes
    (preview,) = opened(ROWS)[0].preview(7).data_vars.values()
    np.testing.assert_array_equal(preview.values, ROWS[::10])


@pytest.mark.parametrize(
    ("rows", "options", "fault"),
    [
        (np.zeros(3), {}, "the array has 1 dimensions"),
        (np.zeros((0, 3)), {}, "dimension 'row' has length 0"),
        (np.zeros((3, 3), complex), {}, "only numbers can be clustered"),
        (np.zeros((3, 3)), {"weights": np.zeros(4)}, r"the weights has shape \(4,\)"),
        (np.zeros((3, 3)), {"weights": np.array(["a", "b", "c"])}, "the weights has type <U1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_as_ever(rows: Any, options: Any, fault: str) -> None:
    with pytest.raises(SourceError, match=fault):
        c.open_source(rows, **options)


def test_a_worker_gets_the_array() -> None:
    plain, _ = opened(ROWS, weights=np.ones(70))
    again = pickle.loads(pickle.dumps(plain))
    block = plain.plan().block(0)
    np.testing.assert_array_equal(read_block(again, block).values, read_block(plain, block).values)
    assert again.features == plain.features


def stored(version: int, dims: tuple[str, ...] | None = None, **options: Any) -> zarr.Array[Any]:
    options = {"chunks": (20, 3), "dtype": "f4", **options}
    array = zarr.create_array({}, shape=ROWS.shape, zarr_format=version, dimension_names=dims, **options)
    array[:] = np.nan_to_num(ROWS).astype(array.dtype)
    return array


@pytest.mark.parametrize(
    "array",
    [
        stored(3), stored(2), stored(3, ("y", "x")), stored(3, ("y", "x"), dtype="i2"),
        stored(3, chunks=(10, 3), shards=(20, 3)), stored(3, fill_value=np.nan), stored(2, fill_value=None),
    ],
)  # fmt: skip
def test_both_ways_open_the_same_stored_array(array: zarr.Array[Any]) -> None:
    plain = c.open_source(array)
    general = c.open_source(array, isel={plain.sample_dims[0]: {"start": 0}})
    assert isinstance(plain.dataset, PlainDataset)
    assert isinstance(general.dataset, xr.Dataset)
    assert plain.dataset.in_xarray.identical(general.dataset)
    assert plain.dataset["values"].encoding == general.dataset["values"].encoding
    for name in (
        "shape", "chunks", "dtype", "features", "about", "n_features", "row_bytes", "kept_row_bytes", "variables",
        "sample_dims", "feature_dims", "labelled", "cautions", "axes", "packing",
    ):  # fmt: skip
        assert getattr(plain, name) == getattr(general, name), name
    decodings = [source.stored["values"].decoding for source in (plain, general)]
    assert decodings[0] == decodings[1]
    plan = plain.plan(block_bytes=512)
    assert plan == general.plan(block_bytes=512)
    for i in range(len(plan)):
        ours, theirs = read_block(plain, plan.block(i)), read_block(general, plan.block(i))
        np.testing.assert_array_equal(ours.values, theirs.values)
        assert ours.values.dtype == theirs.values.dtype
    assert plain.preview(7).identical(general.preview(7))


def test_a_stored_array_with_something_to_decode_is_left_to_xarray() -> None:
    for array in (
        stored(3, attributes={"scale_factor": 2.0}), stored(2, attributes={"_ARRAY_DIMENSIONS": ["y", "x"]}),
        stored(3, dtype=">f4"), stored(3, dtype="bool"),
    ):  # fmt: skip
        assert isinstance(c.open_source(array).dataset, xr.Dataset)


def test_a_selection_of_a_stored_array_stays_lazy() -> None:
    source = c.open_source(stored(3), isel={"dim_0": {"start": 10, "stop": 30}})
    rows = read_block(source, source.plan().block(0)).values
    np.testing.assert_array_equal(rows, np.nan_to_num(ROWS[10:30]).astype("f4"))
    assert isinstance(lazy_data(source.dataset["values"].variable), LazilyIndexedArray)


def test_a_plain_array_is_cut_and_labelled_as_in_xarray() -> None:
    labels = {"y": PlainVariable(("y",), np.arange(70.0), {"units": "m"})}
    plain = PlainVariable(("y", "x"), ROWS, {"units": "K"}, coords=labels)
    whole = xr.DataArray(ROWS, {"y": ("y", np.arange(70.0), {"units": "m"})}, ("y", "x"), attrs={"units": "K"})
    assert plain.to_xarray().identical(whole)
    assert as_plain(whole).to_xarray().identical(whole)
    for cut in ({"y": slice(3, 40, 7)}, {"y": 4, "x": slice(1, None)}, {"x": 2}, {}):
        assert plain.isel(cut).to_xarray().identical(whole.isel(cut))
    assert plain.isel({"y": [3, 1]}).identical(whole.isel({"y": [3, 1]}))
    assert plain.assign_attrs(step=2).to_xarray().identical(whole.assign_attrs(step=2))
    along = {"x": np.arange(3)}
    assert plain.assign_coords(along).to_xarray().identical(whole.assign_coords(along))
    assert plain.copy(2 * ROWS).to_xarray().identical(whole.copy(data=2 * ROWS))
    assert plain["y"] is labels["y"]
