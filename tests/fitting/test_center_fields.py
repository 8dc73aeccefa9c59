"""Centers as fields, in the data's own units and on the data's own coordinates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import clustering as c
from clustering.data.source import Feature
from clustering.fitting.center_fields import center_fields
from clustering.fitting.fitted_model import FittedModel

RNG = np.random.default_rng(4)
LAT = ("lat", [10.0, 0.0, -10.0], {"units": "degrees_north"})
LON = ("lon", [350.0, 0.0], {"units": "degrees_east", "standard_name": "longitude"})
DATES = {
    "numpy": xr.date_range("2001-01-01", periods=4, freq="D"),
    "360 days": xr.date_range("2001-02-28", periods=4, freq="D", calendar="360_day", use_cftime=True),
}


def model(data: xr.Dataset, **options: Any) -> c.Fit:
    return c.fit(data, c.KMeans(2), variables=list(data.data_vars), sample_dims=["sample"], **options)


def blocks(*shape: int) -> np.ndarray:
    """Two clusters far apart, the first half of the samples and the second."""
    return np.repeat([0.0, 100.0], 5).reshape(-1, *[1] * len(shape)) + RNG.random((10, *shape))


@pytest.fixture(scope="module")
def weather() -> xr.Dataset:
    """A map, a profile and a number of every sample."""
    units = {"z": "m", "t": "degC", "p": "Pa"}
    data = {
        "z": (("sample", "lat", "lon"), blocks(3, 2)), "t": (("sample", "depth"), blocks(4)), "p": ("sample", blocks()),
    }  # fmt: skip
    depth = ("depth", [0.5, 5.0, 10.0, 30.0], {"units": "m", "positive": "down"})
    dataset = xr.Dataset(data, {"lat": LAT, "lon": LON, "depth": depth})
    for name, unit in units.items():
        dataset[name].attrs.update(units=unit, long_name=f"the {name}", comment="not told")
    return dataset


@pytest.mark.parametrize("wish", [{}, {"standardize": "per_variable", "pca": 6}], ids=["plain", "prepared"])
def test_each_variable_has_its_centers_where_the_data_have_it(weather: xr.Dataset, wish: Any, tmp_path: Path) -> None:
    fit = model(weather, **wish)
    fit.save(tmp_path / "model.zarr")
    labels = np.asarray(fit.predict(weather, variables=list(weather.data_vars), sample_dims=["sample"]))
    for fields in (fit.fields, c.load_fit(tmp_path / "model.zarr").fields):
        for name in weather.data_vars:
            field, given = fields[name], weather[name]
            assert field.dims == ("cluster", *given.dims[1:])
            assert field.attrs == {"units": given.attrs["units"], "long_name": given.attrs["long_name"]}
            for d in given.dims[1:]:
                xr.testing.assert_identical(fields[d].variable, weather[d].variable)
            for cluster in range(2):
                mean = given.values[labels == cluster].mean(axis=0)
                # What six components lose of noise comes back as the mean of all rows.
                np.testing.assert_allclose(field[cluster], mean, atol=1e-12 if not wish else 0.5)


def test_the_model_on_disk_states_units_and_variables(weather: xr.Dataset, tmp_path: Path) -> None:
    model(weather).save(tmp_path / "many.zarr")
    model(weather[["z"]]).save(tmp_path / "one.zarr")
    with xr.open_zarr(tmp_path / "many.zarr", consolidated=False, chunks=None) as many:
        assert many["variable"].attrs == {"flag_values": [0, 1, 2], "flag_meanings": "z t p"}
        assert many["variable"].values.tolist() == [0] * 6 + [1] * 4 + [2]
        assert "units" not in many["centers"].attrs
        assert many["depth"].attrs == {"units": "m", "positive": "down"}
        profile = many["centers"].values[:, many["variable"].values == 1]
        np.testing.assert_array_equal(profile, model(weather).fields["t"])
    with xr.open_zarr(tmp_path / "one.zarr", consolidated=False, chunks=None) as one:
        assert "variable" not in one.variables
        assert one["centers"].attrs == one["mean"].attrs == {"units": "m", "long_name": "the z"}
        maps = one["centers"].set_index(feature=["lat", "lon"]).unstack("feature").reindex(lat=LAT[1], lon=LON[1])
        np.testing.assert_array_equal(maps, model(weather[["z"]]).fields["z"])


@pytest.mark.parametrize("dates", DATES.values(), ids=DATES)
def test_dates_are_dates_again(dates: Any, tmp_path: Path) -> None:
    data = xr.Dataset({"x": (("sample", "time"), blocks(4))}, {"time": dates})
    fit = model(data)
    fit.save(tmp_path / "model.zarr")
    assert fit.fields.indexes["time"].equals(dates)
    assert c.load_fit(tmp_path / "model.zarr").fields.indexes["time"].equals(dates)
    with xr.open_zarr(tmp_path / "model.zarr", consolidated=False, chunks=None) as stored:
        np.testing.assert_array_equal(stored["time"].values, data["time"].values)


def test_names_and_numbers_label_fields_too() -> None:
    data = xr.Dataset({"x": (("sample", "band"), blocks(3)), "y": (("sample", "cluster"), blocks(2))})
    fields = model(data.assign_coords(band=["B2", "B3", "2001"])).fields
    assert fields["band"].values.tolist() == ["B2", "B3", "2001"]
    assert fields["y"].dims == ("cluster", "feature_cluster")
    assert fields["feature_cluster"].values.tolist() == [0, 1]


def test_features_that_fill_no_grid_keep_their_order() -> None:
    twice = xr.Dataset({"x": (("sample", "depth"), blocks(3))}, {"depth": [1.0, 2.0, 1.0]})
    fit = model(twice)
    (field,) = center_fields(fit.fitted).values()
    assert field.dims == ("cluster", "x_feature")
    np.testing.assert_array_equal(field, fit.centers)


def test_a_bare_array_has_fields_too() -> None:
    fit = c.fit(blocks(3), c.KMeans(2))
    (field,) = fit.fields.data_vars.values()
    np.testing.assert_array_equal(field, fit.centers)
    assert isinstance(fit.fitted, FittedModel)
    assert all(isinstance(feature, Feature) for feature in fit.fitted.features)
