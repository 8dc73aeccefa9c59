"""Latitudes and longitudes are in degrees or radians, as their units say; numbers that may be either are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import clustering as c
from clustering.data.access import open_source
from clustering.data.block_fingerprints import BlockFingerprints
from clustering.data.feature_weights import feature_weights
from clustering.data.reading import read_block
from clustering.data.selection import positions
from clustering.errors import ClusteringError, DataError, SourceError

EAST, NORTH = {"units": "degrees_east"}, {"units": "degrees_north"}
RADIANS = {"units": "radian"}


@pytest.mark.parametrize("units", ["radian", "radians", "rad", "Radian"])
@pytest.mark.parametrize("kind", [{"standard_name": "longitude"}, {"long_name": "longitude"}, {}])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_windows_of_longitudes_in_radians_begin_anew_after_their_turn(units: str, kind: Any, dtype: str) -> None:
    lon = np.deg2rad(np.arange(0.0, 360.0, 10.0)).astype(dtype)
    dataset = xr.Dataset(coords={"lon": ("lon", lon, {"units": units, **kind})})
    start, stop = np.deg2rad([350.0, 10.0])
    for first in (start, start - 2 * np.pi):
        indexer = positions(dataset, {"lon": {"start": float(first), "stop": float(stop)}}, {})["lon"]
        assert indexer == [35, 0, 1]
    assert positions(dataset, {"lon": float(np.deg2rad(-10.0))}, {})["lon"] == 35


@pytest.mark.parametrize("window", [(0, 90), (350, 10), (-10, 10), (-180, 180), (None, 20)])
def test_a_window_in_degrees_on_radians_is_refused(window: Any) -> None:
    lon = np.deg2rad(np.arange(0.0, 360.0, 10.0))
    dataset = xr.Dataset(coords={"lon": ("lon", lon, RADIANS)})
    with pytest.raises(SourceError, match=r"is not in radians, .* from 0 to 6\.1.*'bbox'") as caught:
        positions(dataset, {"lon": {"start": window[0], "stop": window[1]}}, {})
    assert "\n" not in str(caught.value)


def test_a_window_on_longitudes_of_unknown_units_is_refused() -> None:
    metres = {"standard_name": "longitude", "units": "m"}
    dataset = xr.Dataset(coords={"x": ("x", np.arange(0.0, 360.0, 10.0), metres)})
    with pytest.raises(SourceError, match="'x' is a longitude with the units 'm', which are neither degrees nor"):
        positions(dataset, {"x": {"start": 10, "stop": 50}}, {})
    small = xr.Dataset(coords={"lon": np.arange(0.0, 6.2, 0.5)})
    assert positions(small, {"lon": {"start": 1, "stop": 2}}, {})["lon"] == slice(2, 5, None)
    with pytest.raises(SourceError, match="'lon' has no units, and the window"):
        positions(small, {"lon": {"start": -1, "stop": 1}}, {})


def sphere(x: Any, y: Any, lon: np.ndarray, lat: np.ndarray) -> xr.Dataset:
    field = np.arange(float(lat.size * lon.size)).reshape(lat.size, lon.size)
    return xr.Dataset({"t": (("lat", "lon"), field)}, {"lon": ("lon", lon, x), "lat": ("lat", lat, y)})


LON, LAT = np.arange(0.0, 360.0, 20.0), np.linspace(-85.0, 85.0, 18)


@pytest.mark.parametrize("box", [[0, -30, 90, 30], [350, -30, 40, 30], [-20, -90, 400, 90], [-180, 0, 180, 90]])
@pytest.mark.parametrize("silent", [None, "lon", "lat"])
def test_a_box_in_degrees_is_converted_to_radians(box: list[float], silent: str | None) -> None:
    degrees = sphere(EAST, NORTH, LON, LAT)
    expected = open_source(degrees, sample_dims=["lat", "lon"], bbox=box).dataset
    units = {name: {} if name == silent else RADIANS for name in ("lon", "lat")}
    radians = sphere(units["lon"], units["lat"], np.deg2rad(LON), np.deg2rad(LAT))
    actual = open_source(radians, sample_dims=["lat", "lon"], bbox=box).dataset
    assert np.array_equal(actual["t"], expected["t"])


@pytest.mark.parametrize(
    ("x", "y", "scale", "said"),
    [
        pytest.param({}, {}, np.pi / 180, "'lon' and 'lat' without units may be in degrees or radians", id="no-units"),
        pytest.param(
            {"units": "m", "standard_name": "longitude"}, {"units": "m", "standard_name": "latitude"}, 111e3,
            "'lon' has the units 'm'", id="metres",
        ),
        pytest.param(EAST, {"units": "grad", "standard_name": "latitude"}, 1.0, "'lat' has the units 'grad'"),
        pytest.param({"units": "km"}, {"units": "km"}, 111.0, "bbox finds no longitude", id="names-in-kilometres"),
    ],
)  # fmt: skip
def test_a_box_on_units_that_are_no_angle_is_refused(x: Any, y: Any, scale: float, said: str) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        open_source(sphere(x, y, LON * scale, LAT * scale), sample_dims=["lat", "lon"], bbox=[0, -30, 90, 30])
    assert "\n" not in str(caught.value)


def test_the_other_coordinate_shows_that_a_box_near_the_equator_without_units_is_in_degrees() -> None:
    lon, lat = np.arange(-5.0, 6.0), np.arange(40.0, 50.0)
    source = open_source(sphere({}, {}, lon, lat), sample_dims=["lat", "lon"], bbox=[-2, 41, 2, 43])
    assert source.shape == (3, 5)


# Cosines

CELLS = np.linspace(-85.0, 85.0, 12)
AREAS = np.cos(np.deg2rad(CELLS))


def cells(values: Any, **attributes: Any) -> xr.Dataset:
    """Make unstructured cells with a latitude that is no index."""
    field = np.arange(36.0).reshape(3, 12)
    return xr.Dataset({"t": (("time", "cell"), field)}, {"clat": ("cell", values, attributes)})


def weights(dataset: Any, formula: str = "cos(clat)", **options: Any) -> np.ndarray:
    source = open_source(
        dataset, variables=["t"], sample_dims=["cell"], feature_dims=["time"], weights=formula, **options
    )
    return np.array(read_block(source, source.plan().block(0)).weights)


def as_features(dataset: Any, formula: str) -> np.ndarray:
    return feature_weights(open_source(dataset, variables=["t"], sample_dims=["time"], feature_dims=["cell"]), formula)


DEGREES = [
    "degrees_north",
    "degree_north",
    "degrees_N",
    "degreeN",
    "degrees",
    "degree",
    "deg",
    "Degrees",
    " degrees ",
    "°",
]


@pytest.mark.parametrize("units", [*DEGREES, None, ""])
def test_degrees_are_known_by_every_spelling_of_theirs_and_without_units_by_their_size(units: str | None) -> None:
    dataset = cells(CELLS) if units is None else cells(CELLS, units=units)
    np.testing.assert_allclose(weights(dataset), AREAS, rtol=0, atol=1e-15)
    np.testing.assert_allclose(as_features(dataset, "sqrt(cos(clat))"), np.sqrt(AREAS), rtol=0, atol=1e-15)


@pytest.mark.parametrize("units", ["radian", "radians", "rad", "Radians"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_radians_are_converted(units: str, dtype: str) -> None:
    dataset = cells(np.deg2rad(CELLS).astype(dtype), units=units, standard_name="latitude")
    np.testing.assert_allclose(weights(dataset), AREAS, rtol=0, atol=1e-7)
    np.testing.assert_allclose(as_features(dataset, "cos(clat)"), AREAS, rtol=0, atol=1e-7)
    np.testing.assert_allclose(as_features(dataset, "sqrt(cos(clat))"), np.sqrt(AREAS), rtol=0, atol=1e-6)


def test_two_dimensional_latitudes_in_radians_are_converted(tmp_path: Path) -> None:
    lat = np.deg2rad(CELLS.reshape(3, 4))
    dataset = xr.Dataset(
        {"t": (("y", "x"), np.arange(12.0).reshape(3, 4))}, {"lat": (("y", "x"), lat, {"units": "radian"})}
    )
    dataset.to_zarr(tmp_path / "s", consolidated=False)
    for data in (dataset, tmp_path / "s"):
        source = open_source(data, variables=["t"], feature_dims=[], weights="cos(lat)")
        np.testing.assert_allclose(read_block(source, source.plan().block(0)).weights, AREAS, rtol=0, atol=1e-15)


NO_LATITUDES: dict[str, tuple[xr.Dataset, str]] = {
    "metres": (cells(CELLS * 111e3, units="m"), "'clat' has the units 'm', which are neither degrees nor radians"),
    "unknown": (cells(CELLS, units="grad"), "'clat' has the units 'grad'"),
    "one": (cells(np.deg2rad(CELLS), units="1"), "'clat' has the units '1'"),
    "projection": (
        cells(CELLS / 600, units="rad", standard_name="projection_y_coordinate"), "is a projection_y_coordinate"
    ),
    "longitude": (cells(CELLS, units="degrees_east"), "is a longitude, and areas go by the latitude"),
    "radians-without-units": (cells(np.deg2rad(CELLS)), "no units, and its values may be degrees or radians"),
    "metres-without-units": (cells(CELLS * 111e3), "-9.435e.06 degrees, which is beyond the poles"),
    "degrees-called-radians": (cells(CELLS, units="radian"), "-85 radians, which is beyond the poles"),
    "longitude-by-name": (cells(CELLS).rename(clat="lon"), "'lon' is a longitude"),
    "a-turn-of-degrees": (cells(CELLS + 90, units="degrees"), "holds 97.7273 degrees, which is beyond the poles"),
    "words": (cells(list("abcdefghijkl")), "clat"),
}  # fmt: skip


@pytest.mark.parametrize(("dataset", "said"), NO_LATITUDES.values(), ids=NO_LATITUDES)
def test_what_is_no_latitude_is_refused_with_the_remedy(dataset: xr.Dataset, said: str) -> None:
    for read in (weights, as_features):
        with pytest.raises(ClusteringError, match=said) as caught:
            read(dataset, "cos(lon)" if "lon" in dataset else "cos(clat)")
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, (SourceError, DataError))


def test_a_large_latitude_without_units_is_judged_by_some_of_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clustering.data.coordinates._SMALL", 8)
    assert np.allclose(weights(cells(CELLS)), AREAS)
    with pytest.raises(SourceError, match="degrees or radians"):
        weights(cells(np.deg2rad(CELLS)))


def test_degrees_without_units_are_judged_before_the_selection() -> None:
    assert np.allclose(weights(cells(CELLS), isel={"cell": [6]}), np.cos(np.deg2rad(CELLS[6])))


def test_blocks_weighed_in_other_units_are_others(tmp_path: Path) -> None:
    cells(np.deg2rad(CELLS), units="degrees_north").to_zarr(tmp_path / "s", consolidated=False, zarr_format=3)
    contents = []
    for units in ("degrees_north", "degrees", "radian"):
        zarr.open_array(tmp_path / "s" / "clat", mode="r+").attrs["units"] = units
        source = open_source(
            tmp_path / "s", variables=["t"], sample_dims=["cell"], feature_dims=["time"], weights="cos(clat)"
        )
        identities = BlockFingerprints.for_plan(source, source.plan())
        assert identities is not None
        contents.append(identities[0].content)
    assert contents[0] == contents[1] != contents[2]


def test_areas_in_radians_weigh_a_fit_as_those_in_degrees() -> None:
    polar = np.where(np.abs(CELLS) > 45, 10.0, 0.0)
    shares = []
    for values, units in ((CELLS, "degrees"), (np.deg2rad(CELLS), "radian")):
        dataset = xr.Dataset({"t": ("cell", polar)}, {"clat": ("cell", values, {"units": units})})
        fit = c.fit(dataset, c.KMeans(k=2), feature_dims=[], weights="cos(clat)", restarts=1)
        shares.append(np.sort(np.asarray(fit.weights)))
    np.testing.assert_allclose(shares[1], shares[0], atol=1e-12)
