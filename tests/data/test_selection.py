"""Selections by label and by position, held against xarray's own."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

from clustering.data.selection import positions
from clustering.data.source import Source, open_source
from clustering.errors import SourceError

DAYS = np.arange("2001-01-01", "2001-03-01", dtype="datetime64[D]").astype("datetime64[ns]")
DATASET = xr.Dataset(
    {"t": (("time", "lat", "up", "bare"), np.zeros((59, 9, 5, 3)))},
    coords={"time": DAYS, "lat": np.linspace(80, -80, 9), "up": [0.0, 10.0, 25.0, 60.0, 100.0]},
)


def chosen(select: dict[str, Any] | None = None, isel: dict[str, Any] | None = None) -> xr.Dataset:
    return DATASET.isel(positions(DATASET, select or {}, isel or {}))


def rows(source: Source) -> np.ndarray:
    plan = source.plan()
    return np.concatenate([source.read(plan.block(i)).values for i in range(len(plan))])


@pytest.mark.parametrize("dim", ["lat", "up"], ids=["descending", "ascending"])
@given(ends=st.tuples(*[st.none() | st.floats(-90, 110)] * 2), step=st.sampled_from([None, 1, 2, 3]))
def test_a_slice_by_label_holds_every_label_between_its_ends(
    dim: str, ends: tuple[float | None, float | None], step: int | None
) -> None:
    labels = DATASET[dim].values
    low, high = sorted(ends) if None not in ends else ends
    inside = labels[(labels >= (-np.inf if low is None else low)) & (labels <= (np.inf if high is None else high))]
    select = {dim: {"start": ends[0], "stop": ends[1], "step": step}}
    if inside.size:
        assert chosen(select)[dim].values.tolist() == inside[::step].tolist()
    else:
        with pytest.raises(SourceError, match=f"along '{dim}' holds nothing"):
            chosen(select)


@given(
    start=st.none() | st.integers(-60, 60), stop=st.none() | st.integers(-60, 60), step=st.sampled_from([None, 1, 2, 7])
)
def test_a_slice_by_position_is_a_python_slice(start: int | None, stop: int | None, step: int | None) -> None:
    expected = DAYS[start:stop:step]
    isel = {"time": {"start": start, "stop": stop, "step": step}}
    if expected.size:
        assert (chosen(isel=isel).time.values == expected).all()
    else:
        with pytest.raises(SourceError, match="along 'time' holds nothing"):
            chosen(isel=isel)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param({"start": "2001-01-03", "stop": "2001-01-05"}, DAYS[2:5], id="date-strings"),
        pytest.param({"start": "2001-01-05", "stop": "2001-01-03"}, DAYS[2:5], id="date-strings-in-either-order"),
        pytest.param({"start": "2001-02"}, DAYS[31:], id="open-end"),
        pytest.param({"stop": "2001-01"}, DAYS[:31], id="open-start"),
        pytest.param({"start": "2001-01-03", "stop": "2001-01-09", "step": 3}, DAYS[2:9:3], id="step"),
        pytest.param("2001-02", DAYS[31:], id="a-whole-month"),
        pytest.param(["2001-01-09", "2001-01-03"], DAYS[[8, 2]], id="list-of-date-strings"),
        pytest.param("2001-01-03", DAYS[2], id="one-day"),
        pytest.param(
            {"start": datetime.date(2001, 1, 3), "stop": datetime.date(2001, 1, 5)}, DAYS[2:5], id="dates-as-yaml-reads"
        ),
        pytest.param(datetime.date(2001, 1, 3), DAYS[2], id="one-date-as-yaml-reads"),
    ],
)
def test_dates_select_days(value: Any, expected: Any) -> None:
    assert np.array_equal(chosen({"time": value}).time.values, expected)


@pytest.mark.parametrize("end", ["2001-01-02", datetime.date(2001, 1, 2)], ids=["text", "date"])
def test_the_last_day_of_a_slice_is_taken_whole(end: Any) -> None:
    hours = xr.Dataset(coords={"time": np.arange("2001-01-01", "2001-01-04", dtype="datetime64[6h]").astype("M8[ns]")})
    taken = hours.isel(positions(hours, {"time": {"stop": end}}, {}))
    assert taken.time.values.tolist() == hours.time.values[:8].tolist()


@pytest.mark.parametrize(
    ("selection", "by_xarray"),
    [
        pytest.param({"select": {"lat": 20.0}}, DATASET.sel(lat=20.0), id="label-drops-its-dimension"),
        pytest.param({"select": {"lat": [40.0, -80.0]}}, DATASET.sel(lat=[40.0, -80.0]), id="list-of-labels"),
        pytest.param(
            {"select": {"lat": np.array([40.0, -80.0])}}, DATASET.sel(lat=[40.0, -80.0]), id="array-of-labels"
        ),
        pytest.param({"select": {"up": slice(10, 60)}}, DATASET.sel(up=slice(10, 60)), id="python-slice-of-labels"),
        pytest.param({"isel": {"bare": -1}}, DATASET.isel(bare=-1), id="position-drops-its-dimension"),
        pytest.param({"isel": {"lat": [5, 1, 3]}}, DATASET.isel(lat=[5, 1, 3]), id="list-of-positions"),
        pytest.param({"isel": {"lat": np.array([5, 1])}}, DATASET.isel(lat=[5, 1]), id="array-of-positions"),
        pytest.param({"isel": {"lat": slice(1, 4)}}, DATASET.isel(lat=slice(1, 4)), id="python-slice-of-positions"),
        pytest.param(
            {"isel": {"lat": {"start": np.int64(1)}}}, DATASET.isel(lat=slice(1, None)), id="numpy-whole-numbers"
        ),
        pytest.param(
            {"select": {"lat": 20.0}, "isel": {"time": [0]}},
            DATASET.sel(lat=20.0).isel(time=[0]),
            id="label-and-position",
        ),
    ],
)
def test_a_selection_is_what_xarray_selects(selection: dict[str, Any], by_xarray: xr.Dataset) -> None:
    assert chosen(**selection).identical(by_xarray)


@pytest.mark.parametrize(
    ("selection", "fragments"),
    [
        pytest.param(
            {"select": {"lot": 1}}, ["unknown dimension 'lot'", "'select'", "did you mean 'lat'"], id="label-dim"
        ),
        pytest.param(
            {"isel": {"lot": 1}}, ["unknown dimension 'lot'", "'isel'", "did you mean 'lat'"], id="position-dim"
        ),
        pytest.param({"select": {"bare": 1}}, ["'bare' has no coordinate", "use 'isel'"], id="no-coordinate"),
        pytest.param({"select": {"lat": 20.0}, "isel": {"lat": 1}}, ["'lat' is in both", "keep one"], id="both"),
        pytest.param({"select": {"lat": 21.0}}, ["label 21.0", "'lat'", "from 80.0 to -80.0"], id="no-such-label"),
        pytest.param(
            {"select": {"lat": [20.0, 21.0]}}, ["21.0", "'lat'", "from 80.0 to -80.0"], id="no-such-label-in-list"
        ),
        pytest.param({"select": {"time": "nonsense"}}, ["'nonsense'", "'time'", "2001-01-01"], id="no-date"),
        pytest.param({"select": {"lat": {"start": "a"}}}, ["'a'", "'lat'"], id="text-on-a-number-axis"),
        pytest.param({"select": {"lat": "20"}}, ["'20'", "'lat'"], id="number-as-text"),
        pytest.param({"select": {"time": {"start": 3}}}, ["3", "'time'", "2001-01-01"], id="a-number-on-a-date-axis"),
        pytest.param({"select": {"lat": {"start": [1]}}}, ["[1]", "'lat'"], id="a-list-as-an-end"),
        pytest.param({"select": {"lat": {"from": 1}}}, ["unknown key 'from'", "start, stop, step"], id="unknown-key"),
        pytest.param({"select": {"lat": {"step": 0}}}, ["step along 'lat' is 0", "1 or more"], id="label-step-zero"),
        pytest.param({"select": {"lat": {"step": -1}}}, ["step along 'lat' is -1", "1 or more"], id="label-step-back"),
        pytest.param({"isel": {"lat": {"step": 0}}}, ["step along 'lat' is 0", "1 or more"], id="position-step-zero"),
        pytest.param({"isel": {"lat": {"step": -1}}}, ["step along 'lat' is -1", "1 or more"], id="position-step-back"),
        pytest.param({"isel": {"lat": {"start": 1.5}}}, ["'lat'", "whole numbers", "1.5"], id="fractional-position"),
        pytest.param({"isel": {"lat": 9}}, ["position 9", "'lat' of length 9"], id="position-beyond-the-end"),
        pytest.param({"isel": {"lat": -10}}, ["position -10", "'lat' of length 9"], id="position-before-the-start"),
        pytest.param({"isel": {"lat": [0, 9]}}, ["position 9", "'lat' of length 9"], id="position-in-list"),
        pytest.param({"isel": {"lat": True}}, ["position True", "'lat'"], id="truth-as-position"),
        pytest.param({"isel": {"lat": []}}, ["'lat' holds nothing", "widen the selection"], id="empty-list"),
        pytest.param({"isel": {"bare": {"start": 3}}}, ["'bare' holds nothing", "length 3"], id="empty-slice"),
    ],
)
def test_a_selection_that_does_not_fit_is_refused(selection: dict[str, Any], fragments: list[str]) -> None:
    with pytest.raises(SourceError) as caught:
        chosen(**selection)
    message = str(caught.value)
    assert "\n" not in message
    assert [f for f in fragments if f not in message] == []


SELECTIONS = {
    "aligned": {"isel": {"time": {"start": 5}, "lat": {"start": 4, "stop": 8}}},
    "inside-chunks": {"isel": {"time": {"start": 3, "stop": 11}, "lat": {"start": 1}}},
    "steps": {"isel": {"time": {"start": 1, "step": 2}, "lat": {"step": 3}}},
    "lists-out-of-order": {"isel": {"time": [7, 0, 11, 7], "lon": [9, 2]}},
    "scalar": {"isel": {"lat": -2}},
    "labels": {"select": {"lat": {"start": -45, "stop": 45}, "lon": {"start": 36, "stop": 300}}},
    "dates": {"select": {"time": {"start": "2001-01-04", "stop": "2001-01-09", "step": 2}}},
    "one-date": {"select": {"time": "2001-01-04"}},
}


@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS.keys())
def test_rows_of_a_selection_are_those_xarray_reads(field_store: Path, selection: dict[str, Any]) -> None:
    source = open_source(field_store, variables=["t"], feature_dims=["lon"], **selection)
    with xr.open_zarr(field_store, consolidated=False, chunks=None) as opened:
        expected = opened.t.isel(positions(opened, selection.get("select", {}), selection.get("isel", {})))
        expected = expected.transpose(..., "lon")
        assert source.shape == expected.shape[:-1]
        assert np.array_equal(rows(source), expected.values.reshape(-1, expected.shape[-1]))
    assert [f.at[0][1] for f in source.features] == expected.lon.values.tolist()


@pytest.mark.parametrize("bare", ["array-in-memory", "array-on-disk"])
def test_lists_and_steps_select_from_a_bare_array(field_store: Path, bare: str) -> None:
    array = zarr.open_array(field_store / "t", mode="r")
    data = array if bare == "array-in-memory" else field_store / "t"
    source = open_source(data, feature_dims=["lon"], isel={"time": [7, 0, 7], "lat": {"start": 1, "step": 3}})
    assert np.array_equal(rows(source), array[:][[7, 0, 7]][:, 1::3].reshape(-1, 10))
