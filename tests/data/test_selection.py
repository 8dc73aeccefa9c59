"""Selections by label and by position, held against xarray's own."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

import clustering
from clustering.data.access import open_source
from clustering.data.reading import read_block
from clustering.data.selection import positions
from clustering.data.source import Source
from clustering.errors import ConfigError, SourceError

DAYS = np.arange("2001-01-01", "2001-03-01", dtype="datetime64[D]").astype("datetime64[ns]")
DATASET = xr.Dataset(
    {"t": (("time", "lat", "up", "bare"), np.zeros((59, 9, 5, 3)))},
    coords={"time": DAYS, "lat": np.linspace(80, -80, 9), "up": [0.0, 10.0, 25.0, 60.0, 100.0]},
)


def chosen(select: dict[str, Any] | None = None, isel: dict[str, Any] | None = None) -> xr.Dataset:
    return DATASET.isel(positions(DATASET, select or {}, isel or {}))


def rows(source: Source) -> np.ndarray:
    plan = source.plan()
    return np.concatenate([read_block(source, plan.block(i)).values for i in range(len(plan))])


@pytest.mark.parametrize("dim", ["lat", "up"], ids=["descending", "ascending"])
@given(ends=st.tuples(*[st.none() | st.integers(-900, 1100)] * 2), step=st.sampled_from([None, 1, 2, 3]))
def test_a_slice_by_label_holds_every_label_between_its_ends(
    dim: str, ends: tuple[int | None, int | None], step: int | None
) -> None:
    ends = tuple(None if end is None else end / 10 for end in ends)
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


# Longitudes


EAST = {"units": "degrees_east"}
GLOBES = {
    "from-0": np.arange(0.0, 360.0, 5.0),
    "from-180-west": np.arange(-180.0, 180.0, 5.0),
    "westward": np.arange(355.0, -1.0, -5.0),
    "from-mid-pacific": np.roll(np.arange(0.0, 360.0, 5.0), 36),
    "single-precision": np.arange(0.0, 360.0, 0.3, dtype="f4"),
    "region-across-0": np.arange(-40.0, 41.0, 4.0),
    "region-beyond-180": np.arange(120.0, 291.0, 10.0),
    "beyond-360": np.arange(20.0, 380.0, 5.0),
}
ends = st.integers(-4000, 4000).map(lambda tenths: tenths / 10)


@pytest.mark.parametrize("labels", GLOBES.values(), ids=GLOBES.keys())
@given(start=ends, stop=ends, step=st.sampled_from([None, 1, 2, 3]))
def test_a_window_of_longitudes_is_found_by_walking_east(
    labels: np.ndarray, start: float, stop: float, step: int | None
) -> None:
    dataset = xr.Dataset(coords={"x": ("x", labels, EAST)})
    tenths = [round(float(label) * 10) for label in labels]
    wide = 3600 if round((stop - start) * 10) >= 3600 else round((stop - start) * 10) % 3600
    away = [(label - round(start * 10)) % 3600 for label in tenths]
    westward = labels is GLOBES["westward"]
    expected = sorted((a, i) for i, a in enumerate(away) if a <= wide)
    places = sorted(range(len(labels))) if wide == 3600 else [i for _, i in expected][:: -1 if westward else 1]
    select = {"x": {"start": start, "stop": stop, "step": step}}
    if not places:
        with pytest.raises(SourceError, match="along 'x' holds nothing"):
            positions(dataset, select, {})
        return
    indexer = positions(dataset, select, {})["x"]
    taken = list(range(len(labels))[indexer]) if isinstance(indexer, slice) else indexer
    assert taken == places[::step]
    assert isinstance(indexer, slice) == (len(set(np.diff(places[::step]))) < 2 and places[0] <= places[::step][-1])


@pytest.mark.parametrize(
    ("labels", "value", "expected"),
    [
        pytest.param(
            np.arange(360.0), {"start": -10, "stop": 20}, [*range(350, 360), *range(21)], id="across-greenwich"
        ),
        pytest.param(
            np.arange(-180.0, 180.0),
            {"start": 170, "stop": -170},
            [*range(350, 360), *range(11)],
            id="across-the-date-line",
        ),
        pytest.param(np.arange(360.0), {"start": 20, "stop": -10}, slice(20, 351), id="eastward-nearly-around"),
        pytest.param(np.arange(360.0), {"start": -180, "stop": 180}, slice(0, 360), id="all-around"),
        pytest.param(np.arange(360.0), {"start": -1000, "stop": 1000}, slice(0, 360), id="more-than-around"),
        pytest.param(np.arange(361.0), {"start": 0, "stop": 360}, slice(0, 361), id="all-of-a-repeated-meridian"),
        pytest.param(np.arange(361.0), {"start": 0, "stop": 20}, slice(0, 21), id="one-of-a-repeated-meridian"),
        pytest.param(np.arange(361.0), {"start": 340, "stop": 360}, slice(340, 361), id="its-other-end"),
        pytest.param(
            np.arange(361.0), {"start": -10, "stop": 20}, [*range(350, 360), *range(21)], id="once-when-across"
        ),
        pytest.param(np.arange(360.0), {"start": -10}, slice(350, 360), id="open-to-the-east"),
        pytest.param(np.arange(360.0), {"stop": -340}, slice(0, 21), id="open-to-the-west"),
        pytest.param(np.arange(360.0), {"start": -np.inf, "stop": 20}, slice(0, 21), id="infinity-is-open"),
        pytest.param(np.arange(360.0), {"start": 0.1 + 0.2 + 0.7, "stop": 1}, slice(1, 2), id="one-meridian"),
        pytest.param(np.arange(360.0), -10, 350, id="one-label"),
        pytest.param(np.arange(360.0), [-10, 370, 720], [350, 10, 0], id="labels"),
        pytest.param(np.arange(360.0), [-10, -9, -8], slice(350, 353), id="labels-of-one-run"),
        pytest.param(np.arange(0, 360, 0.1, dtype="f4"), -0.7, 3593, id="one-label-of-single-precision"),
        pytest.param(np.arange(360), -10, 350, id="whole-numbers"),
    ],
)
def test_longitudes_begin_anew_after_a_turn(labels: np.ndarray, value: Any, expected: Any) -> None:
    assert positions(xr.Dataset(coords={"lon": labels}), {"lon": value}, {}) == {"lon": expected}


@pytest.mark.parametrize(
    ("name", "attributes", "cyclic"),
    [
        pytest.param("lon", {}, True, id="name"),
        pytest.param("Longitude", {}, True, id="name-in-capitals"),
        pytest.param("x", {}, False, id="x"),
        pytest.param("x", {"units": "degrees_east"}, True, id="units"),
        pytest.param("x", {"units": "degreesE"}, True, id="units-in-short"),
        pytest.param("x", {"standard_name": "longitude"}, True, id="standard-name"),
        pytest.param("rlon", {"standard_name": "grid_longitude", "units": "degrees"}, True, id="of-a-rotated-pole"),
        pytest.param("x", {"axis": "X", "units": "degrees"}, True, id="axis-in-degrees"),
        pytest.param("x", {"axis": "X", "units": "m"}, False, id="axis-in-meters"),
        pytest.param("x", {"long_name": "Longitude of cells", "units": "degrees"}, True, id="long-name"),
        pytest.param("lon", {"units": "m"}, False, id="name-in-meters"),
        pytest.param("lon", {"standard_name": "projection_x_coordinate"}, False, id="another-standard-name"),
        pytest.param("lat", {"units": "degrees_north"}, False, id="latitude"),
    ],
)
def test_a_longitude_is_known_by_its_attributes_or_its_name(
    name: str, attributes: dict[str, str], cyclic: bool
) -> None:
    dataset = xr.Dataset(coords={name: (name, np.arange(0.0, 360.0, 10.0), attributes)})
    indexer = positions(dataset, {name: {"start": 300, "stop": 0}}, {})[name]
    assert indexer == ([*range(30, 36), 0] if cyclic else slice(0, 31))


def test_numbers_over_more_than_a_turn_are_no_longitudes() -> None:
    dataset = xr.Dataset(coords={"lon": np.arange(0.0, 1000.0, 10.0)})
    assert positions(dataset, {"lon": {"start": 400, "stop": 300}}, {}) == {"lon": slice(30, 41)}


# Numbers within rounding


@pytest.mark.parametrize(
    ("labels", "value", "expected"),
    [
        pytest.param(np.array([0.1, 0.2, 0.3]), 0.1 + 0.2, 2, id="sum"),
        pytest.param(np.array([0.1, 0.2, 0.3], "f4"), 0.3, 2, id="single-precision"),
        pytest.param(np.array([0.1, 0.2, 0.3], "f4"), [0.3, 0.1], [2, 0], id="list"),
        pytest.param(np.array([0.1, 0.2, 0.6], "f4"), {"start": 0.1, "stop": 0.6}, slice(0, 3), id="ends"),
        pytest.param(np.array([0.6, 0.2, 0.1], "f4"), {"start": 0.1, "stop": 0.6}, slice(0, 3), id="ends-downwards"),
        pytest.param(np.arange(0, 1000, 0.1, dtype="f4"), 999.9, 9999, id="far-from-zero"),
        pytest.param(np.array([5.0]), 5.000001, 0, id="single-label"),
    ],
)
def test_a_number_within_rounding_of_a_label_means_it(labels: np.ndarray, value: Any, expected: Any) -> None:
    assert positions(xr.Dataset(coords={"up": labels}), {"up": value}, {}) == {"up": expected}


def test_neighbouring_labels_are_never_taken_for_each_other() -> None:
    labels = np.array([1.0, np.nextafter(1.0, 2.0), 2.0])
    for i, label in enumerate(labels):
        assert positions(xr.Dataset(coords={"up": labels}), {"up": label}, {}) == {"up": i}
    ids = np.array([2**60, 2**60 + 1])
    assert positions(xr.Dataset(coords={"id": ids}), {"id": 2**60 + 1}, {}) == {"id": 1}


def test_the_nearest_label_is_named() -> None:
    dataset = DATASET.assign_coords(bare=["CD3", "CD8", "DAPI"], lon=np.arange(0.0, 360.0, 10.0))
    for select, fragment in [
        ({"lat": 21.0}, "the nearest is 20.0"),
        ({"lat": [20.0, 41]}, "label 41 is not"),
        ({"lon": -12}, "the nearest is 350.0"),
        ({"bare": "CD88"}, "did you mean 'CD8'? allowed: CD3, CD8, DAPI"),
    ]:
        with pytest.raises(SourceError, match=re.escape(fragment)):
            positions(dataset, select, {})


def test_a_run_of_positions_or_labels_is_a_slice() -> None:
    assert positions(DATASET, {"lat": [60.0, 40.0]}, {"time": [3, 5, 7], "up": [4], "bare": [-2, -1]}) == {
        "lat": slice(1, 3),
        "time": slice(3, 8, 2),
        "up": slice(4, 5),
        "bare": slice(1, 3),
    }


# Dates


CALENDARS = ["standard", "noleap", "360_day"]


@pytest.mark.parametrize("calendar", CALENDARS)
@pytest.mark.parametrize("falling", [False, True], ids=["rising", "falling"])
@pytest.mark.parametrize(
    ("value", "prefixes"),
    [
        pytest.param("2019-11", ["2019-11"], id="a-month"),
        pytest.param(2019, ["2019"], id="a-year-as-yaml-reads"),
        pytest.param(["2019-02", "2020-03"], ["2019-02", "2020-03"], id="months"),
        pytest.param(["2019-02-07", datetime.date(2019, 2, 9)], ["2019-02-07", "2019-02-09"], id="dates"),
        pytest.param(datetime.datetime(2019, 2, 9, 12), ["2019-02-09T12"], id="a-moment"),
    ],
)
def test_parts_of_dates_select_all_they_hold(calendar: str, falling: bool, value: Any, prefixes: list[str]) -> None:
    time = xr.date_range("2019-01-01", periods=1100, freq="12h", calendar=calendar, use_cftime=calendar != "standard")
    dataset = xr.Dataset(coords={"time": time[::-1] if falling else time})
    texts = [str(t)[:10] + "T" + str(t)[11:13] for t in dataset.time.values]
    expected = [i for prefix in prefixes for i, text in enumerate(texts) if text.startswith(prefix)]
    assert expected
    taken = dataset.isel(positions(dataset, {"time": value}, {})).time
    assert np.atleast_1d(taken.values).tolist() == dataset.time.values[expected].tolist()


@pytest.mark.parametrize("calendar", CALENDARS)
@pytest.mark.parametrize("falling", [False, True], ids=["rising", "falling"])
@pytest.mark.parametrize("step", [None, 2, 3])
@pytest.mark.parametrize("ends", [("2019-10-15", "2020-03"), ("2020-03", "2019-10-15"), (2020, None)])
def test_a_span_of_dates_takes_its_ends_whole(
    calendar: str, falling: bool, step: int | None, ends: tuple[Any, Any]
) -> None:
    time = xr.date_range("2019-01-01", periods=1200, freq="12h", calendar=calendar, use_cftime=calendar != "standard")
    dataset = xr.Dataset(coords={"time": time[::-1] if falling else time})
    first, last = ("2020", "9999") if ends[1] is None else ("2019-10-15", "2020-03")
    texts = [str(t)[:10] for t in dataset.time.values]
    expected = [i for i, text in enumerate(texts) if text >= first and (text < last or text.startswith(last))]
    indexer = positions(dataset, {"time": {"start": ends[0], "stop": ends[1], "step": step}}, {})["time"]
    assert isinstance(indexer, slice)
    assert list(range(1200))[indexer] == expected[::step]


@pytest.mark.parametrize("calendar", CALENDARS)
def test_one_label_that_stands_for_one_place_drops_its_dimension(calendar: str) -> None:
    time = xr.date_range("2019-01-01", periods=24, freq="MS", calendar=calendar, use_cftime=calendar != "standard")
    dataset = xr.Dataset({"t": (("time", "x"), np.zeros((24, 3)))}, coords={"time": time})
    assert positions(dataset, {"time": "2019-11"}, {}) == {"time": 10}
    assert positions(dataset, {"time": ["2019-11"]}, {}) == {"time": slice(10, 11)}
    assert open_source(dataset, select={"time": "2019-11"}).sample_dims == ("x",)
    assert open_source(dataset, select={"time": ["2019-11"]}, sample_dims="x").feature_dims == ("time",)


@pytest.mark.parametrize("calendar", CALENDARS)
def test_a_model_of_dates_is_kept_for_any_calendar(tmp_path: Path, calendar: str, rng: np.random.Generator) -> None:
    time = xr.date_range("2019-01-01", periods=60, calendar=calendar, use_cftime=calendar != "standard")
    dataset = xr.Dataset({"t": (("time", "x"), rng.random((60, 9)))}, coords={"time": time})
    dataset.to_zarr(tmp_path / "in", consolidated=False, zarr_format=3)
    options: dict[str, Any] = {"sample_dims": "x", "select": {"time": "2019-02"}}
    fit = clustering.fit(tmp_path / "in", clustering.KMeans(k=2), **options)
    fit.save(tmp_path / "model")
    again = clustering.load_fit(tmp_path / "model")
    assert str(again.fitted.features[0]).startswith("t[time=2019-02-01")
    assert again.predict(tmp_path / "in", **options).identical(fit.predict(tmp_path / "in", **options))


@pytest.mark.parametrize("value", ["2019-13", "2050", "2019-02-30", "soon", ["2019-01-01", "2050"]])
def test_a_date_that_is_not_there_is_refused_for_any_calendar(value: Any) -> None:
    time = xr.date_range("2019-01-01", periods=800, calendar="noleap", use_cftime=True)
    with pytest.raises(SourceError, match="is not on dimension 'time'; it runs from 2019-01-01") as caught:
        positions(xr.Dataset(coords={"time": time}), {"time": value}, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("calendar", ["standard", "360_day"])
@pytest.mark.parametrize(
    ("value", "months"),
    [
        ({"months": [12, 1, 2]}, {12, 1, 2}),
        ({"months": 7}, {7}),
        ({"months": [1, 2, 3], "start": "2001-02", "stop": "2003-01"}, {1, 2, 3}),
    ],
    ids=["winter", "july", "within"],
)
def test_months_of_any_calendar_are_selected(value: dict[str, Any], months: set[int], calendar: str) -> None:
    days = xr.date_range("2000-11-15", periods=1000, freq="D", calendar=calendar, use_cftime=calendar != "standard")
    dataset = xr.Dataset({"t": ("time", np.arange(1000.0))}, {"time": days})
    selected = dataset.isel(positions(dataset, {"time": value}, {}))
    rest = {key: end for key, end in value.items() if key != "months"}
    span = dataset.sel(time=slice(rest.get("start"), rest.get("stop")))
    expected = span.isel(time=np.flatnonzero(np.isin(span["time"].dt.month, list(months))))
    assert expected.sizes["time"] > 0
    xr.testing.assert_identical(selected, expected)


@pytest.mark.parametrize(
    ("select", "said"),
    [
        ({"time": {"months": [0, 1]}}, "months along 'time' are [0, 1]; whole numbers from 1 to 12 are needed"),
        ({"time": {"months": []}}, "whole numbers from 1 to 12"),
        ({"time": {"months": "winter"}}, "whole numbers from 1 to 12"),
        ({"time": {"months": [7]}}, "the selection along 'time' holds nothing"),
        ({"lat": {"months": [7]}}, "'months' is given for dimension 'lat', whose labels are no dates"),
        ({"time": {"months": [1], "begin": 3}}, "unknown key 'begin'"),
    ],
)
def test_months_that_do_not_fit_are_refused(select: dict[str, Any], said: str) -> None:
    with pytest.raises(SourceError, match=re.escape(said)):
        chosen(select)


# Boxes


def raster(x: dict[str, Any], y: dict[str, Any], names: tuple[str, str] = ("x", "y")) -> xr.Dataset:
    lon, lat = names
    return xr.Dataset(
        {"t": ((lat, lon), np.zeros((5, 6)))},
        coords={lon: (lon, np.arange(0.0, 360.0, 60.0), x), lat: (lat, np.linspace(60, -60, 5), y)},
    )


NORTH = {"units": "degrees_north"}
GRIDS: dict[str, tuple[xr.Dataset, str, str]] = {
    "names": (raster({}, {}, ("lon", "lat")), "lon", "lat"),
    "units": (raster(EAST, NORTH, ("a", "b")), "a", "b"),
    "standard-names": (raster({"standard_name": "longitude"}, {"standard_name": "latitude"}, ("i", "j")), "i", "j"),
    "axes": (raster({"axis": "X", "units": "degrees"}, {"axis": "Y", "units": "degrees"}), "x", "y"),
}


@pytest.mark.parametrize(("dataset", "x", "y"), GRIDS.values(), ids=GRIDS.keys())
def test_a_box_crosses_any_meridian(dataset: xr.Dataset, x: str, y: str) -> None:
    source = open_source(dataset, sample_dims=[x, y], feature_dims=[], bbox=[-60, -30, 60, 40])
    assert source.dataset[x].values.tolist() == [300.0, 0.0, 60.0]
    assert source.dataset[y].values.tolist() == [30.0, 0.0, -30.0]


@pytest.mark.parametrize(
    ("x", "y"),
    [
        pytest.param({}, {}, id="names"),
        pytest.param({"axis": "X", "units": "m"}, {"axis": "Y", "units": "m"}, id="axes"),
        pytest.param(
            {"standard_name": "projection_x_coordinate"}, {"standard_name": "projection_y_coordinate"}, id="cf"
        ),
    ],
)
def test_a_box_on_a_projection_is_in_its_units(x: dict[str, str], y: dict[str, str]) -> None:
    source = open_source(raster(x, y), sample_dims="x", feature_dims="y", bbox=(60, -30, 180, 30))
    assert source.dataset.x.values.tolist() == [60.0, 120.0, 180.0]
    assert source.dataset.y.values.tolist() == [30.0, 0.0, -30.0]
    with pytest.raises(SourceError, match="west 180 beyond its east 60"):
        open_source(raster(x, y), sample_dims="x", bbox=[180, -30, 60, 30])


BENT = raster({}, {}).assign_coords(lon=(("y", "x"), np.zeros((5, 6))), lat=(("y", "x"), np.zeros((5, 6))))
PLAIN = GRIDS["names"][0]
BOXES: dict[str, tuple[xr.Dataset, dict[str, Any], list[str]]] = {
    "three-numbers": (PLAIN, {"bbox": [0, 1, 2]}, ["bbox is [0, 1, 2]", "[west, south, east, north]"]),
    "text": (PLAIN, {"bbox": [0, 1, 2, "n"]}, ["bbox.3 is", "needed"]),
    "a-number": (PLAIN, {"bbox": 3}, ["bbox is 3", "four numbers"]),
    "ragged": (PLAIN, {"bbox": [[0], 1, 2, [3, 4]]}, ["bbox.0 is", "needed"]),
    "nan": (PLAIN, {"bbox": [0, 1, 2, np.nan]}, ["bbox is", "four numbers"]),
    "south-above-north": (PLAIN, {"bbox": [0, 30, 60, 0]}, ["south 30 above its north 0", "swap"]),
    "select-too": (PLAIN, {"bbox": [0, 0, 60, 30], "select": {"lon": 0.0}}, ["'lon' is in both 'bbox' and 'select'"]),
    "isel-too": (PLAIN, {"bbox": [0, 0, 60, 30], "isel": {"lat": 0}}, ["'lat' is in both 'bbox' and 'isel'"]),
    "nothing-inside": (PLAIN, {"bbox": [1, 0, 2, 30]}, ["'lon' holds nothing"]),
    "no-coordinates": (DATASET, {"bbox": [0, 0, 60, 30]}, ["no longitude", "time, lat, up", "'select'"]),
    "two-dimensional": (BENT, {"bbox": [0, 0, 60, 30]}, ["'lon' runs over (y, x)", "'isel'"]),
    "several": (
        raster(EAST, EAST, ("a", "b")),
        {"bbox": [0, 0, 60, 30]},
        ["several coordinates of longitude: b, a", "'select'"],
    ),
}


@pytest.mark.parametrize(("dataset", "options", "fragments"), BOXES.values(), ids=BOXES.keys())
def test_a_box_that_does_not_fit_is_refused(dataset: xr.Dataset, options: dict[str, Any], fragments: list[str]) -> None:
    with pytest.raises((SourceError, ConfigError)) as caught:
        open_source(dataset, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert [f for f in fragments if f not in message] == []


def test_labels_of_a_wrapped_window_keep_the_longitudes_of_the_source(field_store: Path) -> None:
    options: dict[str, Any] = {"variables": "t", "sample_dims": ["lat", "lon"], "feature_dims": "time"}
    fit = clustering.fit(field_store, clustering.KMeans(k=2), **options)
    whole = fit.predict(field_store, **options)
    part = fit.predict(field_store, bbox=[-75, -45, 75, 45], **options)
    assert part.lon.values.tolist() == [288.0, 324.0, 0.0, 36.0, 72.0]
    assert part.lat.values.tolist() == [40.0, 20.0, 0.0, -20.0, -40.0]
    assert part.identical(whole.isel(lon=[8, 9, 0, 1, 2], lat=slice(2, 7)))


SELECTIONS = {
    "aligned": {"isel": {"time": {"start": 5}, "lat": {"start": 4, "stop": 8}}},
    "inside-chunks": {"isel": {"time": {"start": 3, "stop": 11}, "lat": {"start": 1}}},
    "steps": {"isel": {"time": {"start": 1, "step": 2}, "lat": {"step": 3}}},
    "lists-out-of-order": {"isel": {"time": [7, 0, 11, 7], "lon": [9, 2]}},
    "scalar": {"isel": {"lat": -2}},
    "labels": {"select": {"lat": {"start": -45, "stop": 45}, "lon": {"start": 36, "stop": 300}}},
    "dates": {"select": {"time": {"start": "2001-01-04", "stop": "2001-01-09", "step": 2}}},
    "across-0": {"select": {"lon": {"start": -72, "stop": 72}, "lat": {"start": -45, "stop": 45, "step": 2}}},
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
