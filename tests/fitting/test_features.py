"""Predicting on other data: features are compared by name, place, label and unit; a fit remembers its dimensions."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import pytest
import xarray as xr
import zarr

import clustering as c

GROUPS = np.arange(40) % 2
DEPTH = np.array([0.0, 50.0, 100.0, 500.0])
DAYS = np.array(["2000-01-02", "2000-01-03"], "M8[ns]")


def profiles(depth: Any = DEPTH, *, units: str | None = "degC", dim: str = "depth", **attrs: str) -> xr.DataArray:
    """Profiles of temperature in two groups, along labels of a dimension; None: without labels."""
    values = GROUPS[:, None] * 5.0 + 20.0 - np.arange(4) / 2.0
    coordinates = {} if depth is None else {dim: (dim, depth, {"units": "m", **attrs})}
    return xr.DataArray(values, coordinates, ("n", dim), "temp", {} if units is None else {"units": units})


@pytest.fixture(scope="module")
def fit() -> c.Fit:
    """A model of profiles in degrees Celsius, at depths in metres."""
    return c.fit(profiles(), c.KMeans(k=2), sample_dims="n", seed=0)


REFUSED = [
    (profiles(units="K"), "'K'.*'degC'.*minus 273.15"),
    (profiles(units="m"), "'m'.*another kind"),
    (profiles([0.0, 500.0, 1000.0, 2000.0]), "500.0 where it has 50.0"),
    (profiles(DEPTH + 1.0), "1.0 where it has 0.0"),
    (profiles(DEPTH[::-1]), "another order"),
    (profiles(["a", "b", "c", "d"]), "a where it has 0.0"),
    (profiles(units="K", dim="lev"), "along lev.*along depth"),
    (profiles(DEPTH / 100, units="degC"), "0.5 where it has 50.0"),
    (profiles(DEPTH).assign_coords(depth=("depth", DEPTH, {"units": "s"})), "'s'.*another kind"),
]


@pytest.mark.parametrize(("data", "message"), REFUSED, ids=range(len(REFUSED)))
def test_other_features_are_refused(fit: c.Fit, data: xr.DataArray, message: str) -> None:
    """Other units, labels, dimensions and orders end in one line that names both sides."""
    with pytest.raises(c.ClusteringError, match=message):
        fit.predict(data, sample_dims="n")


SAME = [
    profiles(units="celsius"),
    profiles(units="degree_Celsius"),
    profiles(DEPTH.astype("f4")),
    profiles(DEPTH.astype("i8")),
    profiles(DEPTH / 1000).assign_coords(depth=("depth", DEPTH / 1000, {"units": "km"})),
    profiles(DEPTH + 1e-7),
    profiles(positive="down"),
]


@pytest.mark.parametrize("data", SAME, ids=range(len(SAME)))
def test_other_spellings_of_the_same_features_are_taken(fit: c.Fit, data: xr.DataArray) -> None:
    """Spellings of units, precision of labels and units of labels do not matter, and nothing is warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = fit.predict(data)
    assert np.array_equal(labels, fit.predict(profiles()))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (profiles(units=None), "the data have no units of 'temp'"),
        (profiles(units="tenths of something"), "the same units are assumed"),
        (profiles(None), "no labels along 'depth'"),
    ],
)
def test_what_cannot_be_compared_is_warned_of(fit: c.Fit, data: xr.DataArray, message: str) -> None:
    """Where a side has no comparable units or labels, rows are labelled and a warning says so."""
    with pytest.warns(UserWarning, match=message):
        labels = fit.predict(data)
    assert np.array_equal(labels, fit.predict(profiles()))


def test_directions_are_compared() -> None:
    """Heights are not depths."""
    fit = c.fit(profiles(positive="down"), c.KMeans(k=2), sample_dims="n")
    with pytest.raises(c.ClusteringError, match="up as positive"):
        fit.predict(profiles(positive="up"))


def test_labels_that_count_are_labels() -> None:
    """A coordinate 0, 1, 2, 3 is not taken for positions, and a shifted one is refused."""
    fit = c.fit(profiles(np.arange(4)), c.KMeans(k=2), sample_dims="n")
    with pytest.raises(c.ClusteringError, match="1 where it has 0"):
        fit.predict(profiles(np.arange(1, 5)))
    with pytest.warns(UserWarning, match="the data have no labels"):
        fit.predict(profiles(None))
    plain = c.fit(profiles(None), c.KMeans(k=2), sample_dims="n")
    with pytest.warns(UserWarning, match="the model remembers no labels"):
        plain.predict(profiles(DEPTH))


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        (DAYS.astype("M8[s]"), DAYS, True),
        (DAYS + np.timedelta64(1, "h"), DAYS, False),
        ([cftime.DatetimeNoLeap(2000, 1, 2), cftime.DatetimeNoLeap(2000, 1, 3)], DAYS, True),
        ([cftime.DatetimeNoLeap(2001, 1, 2), cftime.DatetimeNoLeap(2001, 1, 3)], DAYS, False),
        (np.array([1, 2], "m8[s]"), np.array([1000, 2000], "m8[ms]"), True),
        (np.array([1, 2], "m8[s]"), np.array([1, 2], "m8[ms]"), False),
        (["CD3", "CD8"], np.array(["CD3", "CD8"], object), True),
        (["CD3", "CD8"], ["CD3", "CD4"], False),
    ],
)  # fmt: skip
def test_dates_and_names_are_compared_by_value(ours: Any, theirs: Any, same: bool) -> None:
    """Dates are compared by the moment they name, and names by equality."""

    def data(labels: Any) -> xr.DataArray:
        return xr.DataArray(GROUPS[:, None] * np.ones(2), {"f": ("f", labels)}, ("n", "f"), "v")

    fit = c.fit(data(theirs), c.KMeans(k=2), sample_dims="n")
    if same:
        assert set(np.asarray(fit.predict(data(ours)))) == {0, 1}
    else:
        with pytest.raises(c.ClusteringError, match="labels of 'f'"):
            fit.predict(data(ours))


def test_a_square_array_with_swapped_dimensions_is_put_right_or_refused() -> None:
    """The dimensions of the fit are remembered; those named otherwise are refused."""
    square = xr.DataArray(np.repeat(np.arange(4) // 2 * 9.0, 4).reshape(4, 4), dims=("time", "place"), name="t")
    fit = c.fit(square, c.KMeans(k=2), sample_dims="time")
    expected = fit.predict(square)
    assert np.array_equal(fit.predict(square.transpose()), expected)
    with pytest.raises(c.ClusteringError, match="along time, and the model's along place"):
        fit.predict(square, sample_dims="place", feature_dims="time")


def test_a_fit_remembers_its_dimensions_and_variables(tmp_path: Path) -> None:
    """They need not be named again, before and after saving, for data in memory and in a store."""
    rng = np.random.default_rng(0)
    field = xr.Dataset(
        {name: (("time", "lat", "lon"), rng.normal(size=(3, 4, 5))) for name in ("b", "a", "other")},
        {"time": [1, 2, 3], "lat": np.arange(4.0), "lon": np.arange(5.0)},
    )
    names: Any = {"sample_dims": ["lon", "lat"], "feature_dims": ["time"]}
    fit = c.fit(field, c.KMeans(k=2), variables=["a", "b"], **names)
    expected = fit.predict(field, variables=["a", "b"], **names)
    field.to_zarr(tmp_path / "s.zarr", consolidated=False)
    fit.save(tmp_path / "model.zarr")
    for model_fit in (fit, c.load_fit(tmp_path / "model.zarr")):
        for data in (field, field.transpose("lat", "time", "lon"), str(tmp_path / "s.zarr")):
            labels = model_fit.predict(data)
            assert labels.dims == ("lon", "lat")
            assert np.array_equal(labels, expected)
    stations = field.stack(station=("lat", "lon")).drop_vars(["station", "lat", "lon"])
    assert fit.predict(stations).dims == ("station",)
    # Sample dimensions that are named stand; the order of the features is the model's all the same.
    assert fit.predict(field, sample_dims=["lat", "lon"]).dims == ("lat", "lon")


def test_variables_as_features_need_no_dimensions_again() -> None:
    """Where each variable is one feature, all dimensions are those of samples."""
    grid = xr.Dataset({name: (("y", "x"), np.arange(12.0).reshape(3, 4) // 6) for name in ("u", "v")})
    fit = c.fit(grid, c.KMeans(k=2), variables=["u", "v"], feature_dims=[])
    assert fit.predict(grid).shape == (3, 4)
    assert fit.predict(grid.isel(x=0, drop=True).rename(y="place")).dims == ("place",)


def test_models_that_remember_no_dimensions_still_open(tmp_path: Path) -> None:
    """What earlier versions wrote asks for the dimensions, or takes the default."""
    fit = c.fit(profiles(), c.KMeans(k=2), sample_dims="n")
    fit.save(tmp_path / "model.zarr")
    attributes = zarr.open_group(tmp_path / "model.zarr").attrs
    del attributes["sample_dims"], attributes["feature_dims"]
    old = c.load_fit(tmp_path / "model.zarr")
    assert np.array_equal(old.predict(profiles()), fit.predict(profiles()))
    assert np.array_equal(old.predict(profiles().T, sample_dims="n"), fit.predict(profiles()))


def test_bare_arrays_name_nothing_and_may_hold_any(fit: c.Fit) -> None:
    """Rows and features of an ndarray are taken as they come, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(fit.predict(profiles().values), fit.predict(profiles()))
        plain = c.fit(profiles().values, c.KMeans(k=2), seed=0)
        assert np.array_equal(plain.predict(profiles(), sample_dims="n"), plain.predict(profiles().values))


def test_names_of_sensors_in_64_bits_are_compared_to_the_last_digit() -> None:
    names = 2**53 + np.arange(3)
    rows = xr.DataArray(np.random.default_rng(0).normal(size=(20, 3)), {"sensor": names}, ("row", "sensor"), name="v")
    fit = c.fit(rows, c.KMeans(2), sample_dims="row")
    assert fit.predict(rows).shape == (20,)
    with pytest.raises(ValueError, match="sensor"):
        fit.predict(rows.assign_coords(sensor=names + 1))
