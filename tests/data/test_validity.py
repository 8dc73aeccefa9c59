"""Valid ranges are in stored or decoded units, as their type says, for every writer and every place of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from clustering.data.access import open_source
from clustering.data.reading import read_block
from clustering.data.source import Source

STORED = np.arange(-20, 380, 10, dtype="i2")
"""Temperatures of −2 to 37 degrees, in tenths of a degree."""


def store(path: Path, values: np.ndarray, attributes: dict[str, Any], zarr_format: Any = 3) -> Path:
    group = zarr.create_group(path, zarr_format=zarr_format)
    dims = {"dimension_names": ("cell",)} if zarr_format == 3 else {}
    named = {} if zarr_format == 3 else {"_ARRAY_DIMENSIONS": ["cell"]}
    group.create_array(
        "t", data=values, chunks=(16,), attributes={**attributes, **named}, **dims,
        fill_value=np.array(99).astype(values.dtype),
    )  # fmt: skip
    return path


def kept(source: Source) -> np.ndarray:
    """Return the positions of the rows that are used."""
    plan = source.plan()
    return np.concatenate(
        [(rows := read_block(source, plan.block(i))).positions(np.arange(len(rows))) for i in range(len(plan))]
    )


def opened(path: Path, how: str, **options: Any) -> Source:
    match how:
        case "undecoded":
            return open_source(xr.open_zarr(path, consolidated=False, mask_and_scale=False, chunks=None), **options)
        case "decoded":
            return open_source(xr.open_zarr(path, consolidated=False, chunks=None), **options)
        case "dask":
            return open_source(xr.open_zarr(path, consolidated=False, chunks={"cell": 16}), **options)
        case "array":
            return open_source(zarr.open_array(path / "t", mode="r"), **options)
    return open_source(path, **options)


SCALED: dict[str, Any] = {"scale_factor": 0.1}
RANGES: dict[str, tuple[str, dict[str, Any], Any]] = {
    "packed": ("i2", {**SCALED, "valid_min": 0, "valid_max": 200}, (STORED >= 0) & (STORED <= 200)),
    "packed-range": ("i2", {**SCALED, "valid_range": [0, 200]}, (STORED >= 0) & (STORED <= 200)),
    "unpacked": ("i2", {**SCALED, "valid_min": -1.0, "valid_max": 20.0}, (STORED >= -10) & (STORED <= 200)),
    "unpacked-range": ("i2", {**SCALED, "valid_range": [-1.0, 20.0]}, (STORED >= -10) & (STORED <= 200)),
    "unpacked-at-a-rounded-end": ("i2", {**SCALED, "valid_max": 3.0000000000000004}, STORED <= 30),
    "one-of-both-unpacked": ("i2", {**SCALED, "valid_min": -1.5, "valid_max": 20}, (STORED >= -15) & (STORED <= 200)),
    "wider-than-the-packed-type": ("i2", {"scale_factor": 1000, "valid_max": 200_000}, STORED <= 200),
    "falling": ("i2", {"scale_factor": -0.1, "valid_min": -20.0, "valid_max": 1.0}, (STORED <= 200) & (STORED >= -10)),
    "offset": ("i2", {**SCALED, "add_offset": 273.15, "valid_max": 293.15}, STORED <= 200),
    "offset-alone": ("i2", {"add_offset": 1000.0, "valid_min": 1100.0}, STORED >= 100),
    "no-packing": ("i2", {"valid_min": -5.0, "valid_max": 100.5}, (STORED >= -5) & (STORED <= 100)),
    "floats": ("f4", {"valid_range": [0, 100]}, (STORED >= 0) & (STORED <= 100)),
    "packed-floats": ("f4", {**SCALED, "valid_max": 200.0}, STORED <= 200),
    "text": ("f4", {"valid_range": "0, 100"}, (STORED >= 0) & (STORED <= 100)),
    "list-of-one": ("f8", {"valid_min": [0]}, STORED >= 0),
    "infinite": ("f8", {"valid_range": ["-Infinity", 100]}, STORED <= 100),
    "min-beside-a-range": ("i2", {"valid_range": [0, 10], "valid_min": 100}, STORED >= 100),
}


@pytest.mark.parametrize("how", ["path", "array", "undecoded", "decoded", "dask"])
@pytest.mark.parametrize(("dtype", "attributes", "inside"), RANGES.values(), ids=RANGES)
def test_a_valid_range_counts_in_its_own_unit_however_data_are_opened(
    tmp_path: Path, dtype: str, attributes: dict[str, Any], inside: Any, how: str
) -> None:
    path = store(tmp_path / "s", STORED.astype(dtype), attributes)
    source = opened(path, how, feature_dims=[])
    assert np.array_equal(kept(source), np.flatnonzero(inside))
    assert not [caution for caution in source.cautions if "ignored" in caution]
    assert len(kept(opened(path, how, feature_dims=[], valid_range="ignore"))) == len(STORED)


SIGNED: dict[str, tuple[str, dict[str, Any], Any]] = {
    "signed-attribute": ("i1", {"_Unsigned": "true", "valid_range": [0, -6]}, lambda v: v <= 250),
    "unsigned-attribute": ("i1", {"_Unsigned": "true", "valid_max": 250}, lambda v: v <= 250),
    "truth": ("i1", {"_Unsigned": True, "valid_max": -6}, lambda v: v <= 250),
    "fill-of-the-stored-type": ("i1", {"_Unsigned": "true", "_FillValue": -1}, lambda v: v != 255),
    "fill-of-the-meant-type": ("i1", {"_Unsigned": "true", "_FillValue": 255}, lambda v: v != 255),
    "missing-of-the-stored-type": ("i1", {"_Unsigned": "true", "missing_value": [-1, -2]}, lambda v: v < 254),
    "scaled": ("i1", {"_Unsigned": "true", "scale_factor": 2.0, "valid_max": 500.0}, lambda v: v <= 250),
    "to-signed": ("u1", {"_Unsigned": "false", "valid_min": -3}, lambda v: (v <= 127) | (v >= 253)),
    "to-signed-fill": ("u1", {"_Unsigned": "false", "_FillValue": 255}, lambda v: v != 255),
}


@pytest.mark.parametrize("how", ["path", "array", "undecoded"])
@pytest.mark.parametrize(("dtype", "attributes", "inside"), SIGNED.values(), ids=SIGNED)
def test_numbers_of_the_other_sign_are_read_as_such(
    tmp_path: Path, dtype: str, attributes: dict[str, Any], inside: Any, how: str
) -> None:
    bits = np.arange(256, dtype="u1")
    source = opened(store(tmp_path / "s", bits.view(dtype), attributes), how, feature_dims=[])
    keep = np.flatnonzero(inside(bits))
    assert np.array_equal(kept(source), keep)
    plan = source.plan()
    read = np.concatenate([read_block(source, plan.block(i)).values.ravel() for i in range(len(plan))])
    meant = bits.view("u1" if dtype == "i1" else "i1").astype("f8") * attributes.get("scale_factor", 1.0)
    assert np.array_equal(read, meant[keep])


MALFORMED: list[dict[str, Any]] = [
    {"valid_range": "0 - 500 N"}, {"valid_range": []}, {"valid_range": [0]}, {"valid_range": [0, 1, 2]},
    {"valid_range": [5, 1]}, {"valid_range": 3}, {"valid_range": {"min": 0}}, {"valid_range": [None, 3]},
    {"valid_range": ["NaN", 1]}, {"valid_min": "none"}, {"valid_min": [0, 1]}, {"valid_max": True},
    {"valid_min": "NaN"}, {"valid_max": ""}, {"valid_min": 5, "valid_max": 1},
]  # fmt: skip


@pytest.mark.parametrize("how", ["path", "decoded"])
@pytest.mark.parametrize("attributes", MALFORMED, ids=map(str, MALFORMED))
def test_a_valid_range_that_says_nothing_is_passed_over_and_named(
    tmp_path: Path, attributes: dict[str, Any], how: str
) -> None:
    path = store(tmp_path / "s", STORED.astype("f4"), attributes)
    source = opened(path, how, feature_dims=[])
    assert len(kept(source)) == len(STORED)
    (caution,) = source.cautions
    assert next(iter(attributes)) in caution
    assert "of variable 't'" in caution
    assert "ignored" in caution
    assert opened(path, how, feature_dims=[], valid_range="ignore").cautions == ()


@pytest.mark.parametrize("zarr_format", [2, 3], ids=["v2", "v3"])
def test_null_is_no_valid_range(tmp_path: Path, zarr_format: int) -> None:
    source = open_source(store(tmp_path / "s", STORED.astype("f4"), {"valid_min": None}, zarr_format), feature_dims=[])
    assert (len(kept(source)), source.cautions) == (len(STORED), ())
