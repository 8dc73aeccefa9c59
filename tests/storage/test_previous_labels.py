from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from clustering.data.access import open_source
from clustering.data.source import Source
from clustering.fitting.cluster_names import default_names
from clustering.fitting.labelling import LabelOutputs
from clustering.storage.labels import create_labels
from clustering.storage.previous_labels import PreviousLabels, open_previous_labels

DIMS = ("time", "lat", "lon")
TIMES = np.arange("2001-01-01", "2001-01-13", dtype="datetime64[D]").astype("datetime64[ns]")
LATS, LONS = np.linspace(80, -80, 9), np.arange(0.0, 360.0, 36.0)


def field(times: Any = TIMES, lats: Any = LATS, lons: Any = LONS, dims: tuple[str, ...] = DIMS) -> xr.DataArray:
    """A field on a grid; a number in place of a coordinate is the length of a dimension without one."""
    given = {"time": times, "lat": lats, "lon": lons}
    shape = tuple(given[d] if isinstance(given[d], int) else len(given[d]) for d in dims)
    coords = {d: c for d, c in given.items() if not isinstance(c, int) and d in dims}
    return xr.DataArray(np.zeros(shape), coords, dims, "x")


def source_of(data: xr.DataArray) -> Source:
    return open_source(data, sample_dims=list(map(str, data.dims)), feature_dims=[])


def write_field_labels(path: Path, data: xr.DataArray, seed: int = 0) -> xr.DataArray:
    """Write random labels of a field, some masked, and return them."""
    source = source_of(data)
    labels = np.random.default_rng(seed).integers(-1, 5, data.shape).astype(np.int8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=zarr.errors.UnstableSpecificationWarning)
        write = create_labels(
            path, source, source.plan(whole_chunks=False), default_names(5), {}, LabelOutputs(responsibilities="top")
        )
    everything = tuple(slice(0, n) for n in data.shape)
    top = np.stack([labels, labels * 10, labels * 20], -1)
    write(everything, {"labels": labels, "top_clusters": top, "top_responsibilities": top.astype(np.float16)})
    return data.copy(data=labels)


def whole(earlier: PreviousLabels | None, data: xr.DataArray, name: str = "labels") -> np.ndarray:
    assert earlier is not None
    return pickle.loads(pickle.dumps(earlier)).read(name, tuple(slice(0, n) for n in data.shape))


def expected(before: xr.DataArray, now: xr.DataArray) -> np.ndarray:
    """The labels by xarray's own alignment."""
    reindexed: xr.DataArray = before.reindex({d: now[d] for d in now.dims}, fill_value=-1).transpose(*now.dims)
    return reindexed.values


@pytest.mark.parametrize(
    ("now", "offsets"),
    [
        (field(), (0, 0, 0)),
        (field(TIMES[3:]), (3, 0, 0)),
        (field(np.arange("2000-12-30", "2001-01-20", dtype="datetime64[D]").astype("datetime64[ns]")), (-2, 0, 0)),
        (field(lats=LATS[::-1]), None),
        (field(TIMES[[1, 2, 7]], LATS[2:6], LONS[[9, 0, 1]]), None),
        (field(TIMES[:1] + np.timedelta64(900, "D")), None),
        (field(dims=("lat", "lon", "time")), (0, 0, 0)),
        (field(TIMES[2:], LATS[[4, 1]], dims=("lon", "lat", "time")), None),
    ],
    ids=["same", "later", "grown at both ends", "turned", "chosen", "elsewhere", "transposed", "transposed choice"],
)
def test_samples_are_found_by_their_coordinates(
    now: xr.DataArray, offsets: tuple[int, ...] | None, tmp_path: Path
) -> None:
    before = write_field_labels(tmp_path / "labels.zarr", field())
    earlier = open_previous_labels(tmp_path / "labels.zarr", source_of(now))
    np.testing.assert_array_equal(whole(earlier, now), expected(before, now))
    assert earlier is not None
    if offsets is not None:
        assert earlier.indexers == offsets
    # Outputs with further dimensions keep these.
    top = whole(earlier, now, "top_clusters")
    labels = expected(before, now)
    filled = np.stack([labels, np.where(labels < 0, labels, labels * 10)], -1)
    there = labels >= 0
    np.testing.assert_array_equal(top[there][:, :2], filled[there])


def test_any_region_reads_what_the_whole_reads(tmp_path: Path) -> None:
    write_field_labels(tmp_path / "labels.zarr", field())
    now = field(TIMES[[0, 1, 5, 6]], LATS, LONS[3:])
    earlier = open_previous_labels(tmp_path / "labels.zarr", source_of(now))
    assert earlier is not None
    everything = whole(earlier, now)
    for region in [(slice(0, 2), slice(4, 9), slice(1, 2)), (slice(3, 4), slice(0, 1), slice(0, 7))]:
        np.testing.assert_array_equal(earlier.read("labels", region), everything[region])


@pytest.mark.parametrize("coordinate", [7, np.array([0.0, 1, 1, 2, 3, 4, 5])], ids=["none", "repeating"])
def test_without_a_coordinate_samples_are_found_by_position(coordinate: Any, tmp_path: Path) -> None:
    before = write_field_labels(tmp_path / "labels.zarr", field(times=5, lats=7, lons=4))
    now = field(times=6, lats=coordinate, lons=3)
    earlier = open_previous_labels(tmp_path / "labels.zarr", source_of(now))
    assert earlier is not None
    assert earlier.indexers == (0, 0, 0)
    labels = whole(earlier, now)
    np.testing.assert_array_equal(labels[:5], before.values[:, :, :3])
    assert (labels[5] == -1).all()


@pytest.mark.parametrize("calendar", ["noleap", "standard"])
def test_dates_of_any_calendar_are_coordinates(calendar: str, tmp_path: Path) -> None:
    times = xr.date_range("2001-02-20", periods=12, calendar=calendar, use_cftime=True)
    before = write_field_labels(tmp_path / "labels.zarr", field(times))
    now = field(times[5:])
    labels = whole(open_previous_labels(tmp_path / "labels.zarr", source_of(now)), now)
    np.testing.assert_array_equal(labels, before.values[5:])
    # Dates of another calendar match none of these.
    other = field()
    assert (whole(open_previous_labels(tmp_path / "labels.zarr", source_of(other)), other) == -1).all()


def test_names_are_coordinates(tmp_path: Path) -> None:
    before = write_field_labels(tmp_path / "labels.zarr", field(np.array(["a", "b", "c", "d"])))
    now = field(np.array(["c", "x", "a"]))
    labels = whole(open_previous_labels(tmp_path / "labels.zarr", source_of(now)), now)
    np.testing.assert_array_equal(labels[[0, 2]], before.values[[2, 0]])
    assert (labels[1] == -1).all()


def test_a_long_dimension_takes_no_list(tmp_path: Path) -> None:
    long = np.arange(100_000) * 2
    write_field_labels(tmp_path / "labels.zarr", field(long, dims=("time",)))
    earlier = open_previous_labels(tmp_path / "labels.zarr", source_of(field(long[4:], dims=("time",))))
    assert len(pickle.dumps(earlier)) < 1000


def test_other_dimensions_or_no_labels_are_nothing_to_compare_with(tmp_path: Path) -> None:
    write_field_labels(tmp_path / "labels.zarr", field())
    assert open_previous_labels(tmp_path / "labels.zarr", source_of(field(dims=("time", "lat")))) is None
    assert open_previous_labels(tmp_path / "nothing.zarr", source_of(field())) is None
    source = source_of(field())
    plan = source.plan(whole_chunks=False)
    create_labels(tmp_path / "bare.zarr", source, plan, default_names(5), {}, LabelOutputs(labels=False, margin=True))
    assert open_previous_labels(tmp_path / "bare.zarr", source) is None
