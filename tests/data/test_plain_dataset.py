"""A plain array that is opened without xarray gives what xarray gives."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import xarray as xr

import clustering as c
from clustering.data.plain_dataset import PlainDataset, PlainVariable
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
