"""Where most rows are excluded, messages name the attribute at fault and the key that ignores it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import clustering as c
from clustering.data.access import open_source
from clustering.data.excluded_rows import explain_excluded_rows
from clustering.errors import DataError

KELVIN = (280 + 20.0 * (np.arange(40) % 2)).astype("f4")


def field(attributes: dict[str, Any], values: np.ndarray = KELVIN) -> xr.DataArray:
    return xr.DataArray(values, dims="cell", name="lst", attrs=attributes)


def stored(path: Path, attributes: dict[str, Any], values: np.ndarray = KELVIN) -> Path:
    group = zarr.create_group(path)
    group.create_array("lst", data=values, chunks=(8,), attributes=attributes, dimension_names=("cell",))
    return path


@pytest.mark.parametrize("in_memory", [True, False], ids=["in-memory", "stored"])
def test_a_valid_range_that_takes_all_rows_is_named_with_the_remedy(tmp_path: Path, in_memory: bool) -> None:
    attributes = {"valid_range": [7500, 65535]}
    data: Any = field(attributes) if in_memory else stored(tmp_path / "s", attributes)
    with pytest.raises(DataError) as caught:
        c.fit(data, c.KMeans(2), feature_dims=[])
    message = str(caught.value)
    assert "no row takes part" in message
    assert "valid_range of variable 'lst' leaves out" in message
    assert "set valid_range to ignore" in message
    assert "\n" not in message
    assert c.fit(data, c.KMeans(2), feature_dims=[], valid_range="ignore").fitted.summary.count == 40


TAKES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "valid-max": (
        {"valid_max": 290.0},
        {},
        "valid_max of variable 'lst' leaves out 20 of 40 rows (20 values, above 290",
    ),
    "fill": ({"_FillValue": 300.0}, {}, "_FillValue of variable 'lst' leaves out 20 of 40 rows (20 values, 300 as"),
    "nodata": ({}, {"nodata": 300}, "nodata of variable 'lst' leaves out 20 of 40 rows"),
}


@pytest.mark.parametrize(("attributes", "options", "said"), TAKES.values(), ids=TAKES)
def test_what_takes_rows_is_counted(attributes: dict[str, Any], options: dict[str, Any], said: str) -> None:
    source = open_source(field(attributes), feature_dims=[], **options)
    (caution,) = explain_excluded_rows(source, source.plan())
    assert caution.startswith(said)
    with pytest.raises(DataError, match="the data have 1 distinct row of positive weight; lower k; ") as caught:
        c.fit(field(attributes), c.KMeans(2), feature_dims=[], **options)
    # The options of a call in Python belong to no section.
    assert caution.replace("source.valid_range", "valid_range") in str(caught.value)


def test_rows_that_the_mask_leaves_out_are_nobodys_fault(tmp_path: Path) -> None:
    data = xr.Dataset({"lst": field({"valid_max": 290.0}), "use": ("cell", KELVIN < 290)})
    source = open_source(data, variables="lst", feature_dims=[], mask="use")
    assert explain_excluded_rows(source, source.plan()) == ()


def test_a_fit_that_loses_most_rows_warns_and_one_that_does_not_is_silent() -> None:
    few = np.where(np.arange(40) % 8, 300, 280 + np.arange(40) / 100).astype("f4")
    with pytest.warns(c.ClusteringWarning, match="leaves out 35 of 40 rows"):
        lost = c.fit(field({"valid_max": 290.0}, few), c.KMeans(2), feature_dims=[])
    (note,) = (note for note in lost.fitted.notes if "valid_max" in note)
    assert "leaves out 35 of 40 rows" in note
    assert not c.fit(field({"valid_max": 310.0}, few), c.KMeans(2), feature_dims=[]).fitted.notes


def test_blocks_beyond_the_first_few_are_not_counted(tmp_path: Path) -> None:
    source = open_source(stored(tmp_path / "s", {"valid_max": 290.0}), feature_dims=[])
    (caution,) = explain_excluded_rows(source, source.plan(block_bytes=32))
    assert "leaves out 16 of 32 rows in 4 of 5 blocks" in caution
