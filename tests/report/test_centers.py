"""Which figures centers get, and on what axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.dates import num2date
from matplotlib.figure import Figure

import clustering as c
from clustering.fitting.cluster_names import default_names
from clustering.plots import curves
from clustering.plots.positions import axis_positions
from clustering.report import centers, svg
from clustering.report.figures import Figure as Drawn
from clustering.report.label_figures import degrees
from clustering.report.label_figures import labels as label_figure

RNG = np.random.default_rng(8)


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The drawings behind the figures."""
    made: list[Figure] = []
    render = svg.svg
    monkeypatch.setattr(svg, "svg", lambda figure: made.append(figure) or render(figure))
    return made


def drawn(data: xr.Dataset, k: int = 3) -> list[Drawn]:
    fit = c.fit(data, c.KMeans(k), variables=list(data.data_vars), sample_dims=["sample"], restarts=1)
    return centers.draw(fit.fitted, fit.fitted.clusters)


def maps(mean: float, lat: Any = (-10.0, 0.0, 10.0), n: int = 20) -> xr.Dataset:
    values = mean + RNG.standard_normal((n, len(lat), 4))
    dataset = xr.Dataset({"z": (("sample", "lat", "lon"), values, {"units": "m"})})
    return dataset.assign_coords(
        lat=("lat", np.array(lat), {"units": "degrees_north"}),
        lon=("lon", [340.0, 350.0, 0.0, 10.0], {"units": "degrees_east"}),
    )


@pytest.mark.parametrize("lat", [(-10.0, 0.0, 10.0), (10.0, 0.0, -10.0)], ids=["rising", "falling"])
def test_gridded_features_are_maps_with_north_above(lat: Any, drawings: list[Figure]) -> None:
    (one,) = drawn(maps(0.0, lat))
    assert (one.title, one.wide) == ("Centers: z (m)", True)
    panels = [axes for axes in drawings[0].axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["cluster 0", "cluster 1", "cluster 2"]
    low, high = panels[0].get_ylim()
    assert low < -10 < 10 < high
    # Longitudes across the meridian go on.
    assert panels[0].get_xlim()[0] < -20 < 10 < panels[0].get_xlim()[1] < 20
    assert panels[0].get_xlabel() == "lon (degrees_east)"
    assert panels[0].get_ylabel() == "lat (degrees_north)"


def test_each_map_shows_its_center_where_it_is(drawings: list[Figure]) -> None:
    data = maps(0.0)
    fit = c.fit(data, c.KMeans(3), variables=["z"], sample_dims=["sample"], restarts=1)
    centers.draw(fit.fitted, fit.fitted.clusters)
    for cluster, axes in enumerate(drawings[0].axes[:3]):
        np.testing.assert_array_equal(axes.collections[0].get_array(), fit.fields["z"][cluster])


def test_maps_that_are_alike_are_drawn_as_departures_too(drawings: list[Figure]) -> None:
    data = maps(0.0)
    data["z"] = (data["z"] + 100 * data["lat"]).assign_attrs(units="m")
    assert [one.title for one in drawn(data)] == ["Centers: z (m)", "Departures: z (m)"]
    low, high = drawings[1].axes[0].collections[0].get_clim()
    assert low == -high
    assert high < 10 < drawings[0].axes[0].collections[0].get_clim()[1]


def test_of_many_maps_the_largest_clusters_are_drawn(drawings: list[Figure]) -> None:
    (one,) = drawn(maps(0.0, n=60), k=15)
    assert one.caption.startswith("Of the 12 largest of 15 clusters.")
    assert sum(bool(axes.get_title()) for axes in drawings[0].axes) == 12


def test_profiles_are_upright_and_series_are_not(drawings: list[Figure]) -> None:
    values = RNG.standard_normal((20, 6))
    for name, attrs, falls in (
        ("depth", {"units": "m"}, True),
        ("level", {"units": "hPa"}, True),
        ("height", {"positive": "up", "units": "m"}, False),
    ):
        along = (name, np.arange(6.0) * 10, attrs)
        data = xr.Dataset({"t": (("sample", name), values, {"units": "degC"})}, {name: along})
        assert [one.title for one in drawn(data)] == ["Centers"]
        axes = drawings[-1].axes[0]
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("t (degC)", f"{name} ({attrs['units']})")
        assert axes.yaxis_inverted() == falls
    for labels in (
        xr.date_range("1860-06-01", periods=6, freq="YS", calendar="360_day", use_cftime=True),
        xr.date_range("2001-01-01", periods=6),
        np.arange(6.0),
    ):
        drawn(xr.Dataset({"t": (("sample", "time"), values, {"units": "K"})}, {"time": labels}))
        axes = drawings[-1].axes[0]
        assert (axes.get_xlabel(), axes.get_ylabel(), len(axes.lines)) == ("time", "t (K)", 3)


def test_bands_have_no_order_to_draw_a_line_along(drawings: list[Figure]) -> None:
    data = xr.Dataset({"t": (("sample", "band"), RNG.random((20, 5)))}, {"band": list("abcde")})
    assert "standard scores" in drawn(data)[0].caption


def test_dates_of_any_calendar_are_drawn_in_their_year() -> None:
    dates = xr.date_range("1860-02-30", periods=241, freq="MS", calendar="360_day", use_cftime=True)
    places = axis_positions(xr.DataArray(np.zeros(241), {"time": dates}, "time"), "time")
    assert places.dtype.kind == "M"
    years = places.astype("datetime64[Y]").astype(int) + 1970
    assert years.tolist() == [date.year for date in dates]
    assert (np.diff(places).astype("timedelta64[D]").astype(int) > 29).all()


def test_longitudes_that_begin_anew_go_on() -> None:
    for given, expected in (
        ([340.0, 350, 0, 10], [-20.0, -10, 0, 10]),
        ([160.0, 170, 180, -170], [160.0, 170, 180, 190]),
        ([225.0, 226], [225.0, 226]),
        ([10.0, 0, 350], [10.0, 0, -10]),
    ):
        array = xr.DataArray(np.zeros(len(given)), {"lon": given}, "lon")
        assert axis_positions(array, "lon").tolist() == expected


def test_a_curve_that_hardly_moves_is_not_blown_up() -> None:
    axes = curves.cost(np.array([[1e6, 1e6 - 1e-7], [1e6 - 1e-7, 1e6]]), c.KMeans.objective, Figure())
    low, high = axes.get_ylim()
    assert high - low > 10


def test_label_maps_have_north_above_and_name_their_units(drawings: list[Figure]) -> None:
    lat = ("lat", [60.0, 50.0, 40.0], {"units": "degrees_north"})
    labels = xr.DataArray(np.arange(6).reshape(3, 2) % 3, {"lat": lat, "lon": [1.0, 2.0]}, ("lat", "lon"))
    label_figure(labels, default_names(3))
    axes = drawings[0].axes[0]
    assert not axes.yaxis_inverted()
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("lat (degrees_north)", "lon")


def test_every_label_of_a_series_is_a_stroke_at_its_date(drawings: list[Figure]) -> None:
    dates = xr.date_range("2001-01-01", periods=6)
    labels = xr.DataArray(np.array([0, 1, -1, 2, 2, 0]), {"time": dates}, "time")
    label_figure(labels, default_names(3))
    axes = drawings[0].axes[0]
    strokes = [path.vertices[::2, 0] for path in axes.collections[0].get_paths()]
    assert [num2date(days).day for days in strokes[0]] == [1, 6]
    assert [len(days) for days in strokes] == [2, 1, 2]
    # The first cluster is at the top, as in legends and tables.
    bottom, top = axes.get_ylim()
    assert top < -0.4 < 2.4 < bottom


def test_a_quantity_of_one_value_has_a_scale_of_one(drawings: list[Figure]) -> None:
    degrees("responsibility", xr.DataArray(np.ones((3, 4)), dims=("y", "x")), None, default_names(2))
    assert drawings[0].axes[1].get_yticks().tolist() == [1.0]
