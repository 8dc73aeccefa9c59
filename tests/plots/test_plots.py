"""Plots show the numbers of the fit, on axes that are given or made, and change nothing else."""

from __future__ import annotations

import itertools
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import clustering as c
from clustering.fitting.cluster_names import ClusterNames, default_names
from clustering.plots import curves, grids
from clustering.plots.canvas import palette
from clustering.plots.choices import selection
from clustering.plots.coastlines import add_coastlines, is_map
from clustering.plots.coinciding import coinciding, dashes
from clustering.plots.positions import recentred
from clustering.plots.profiles import profiles
from clustering.plots.single_rows import principal_plane, simplified_silhouettes
from clustering.plots.spread import spread_of_rows
from clustering.plots.versions import transition_shares, transitions

RNG = np.random.default_rng(5)
LIKE_GRID: dict[str, Any] = {"sample_dims": ["time", "lat", "lon"], "feature_dims": []}


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    pyplot.close("all")


def rows(n: int = 400, d: int = 3) -> Any:
    rng = np.random.default_rng(1)
    return rng.integers(0, 3, n)[:, None] * 5.0 + rng.standard_normal((n, d))


def globe(times: int = 6) -> xr.DataArray:
    lon = np.arange(0.0, 360, 30)
    values = 20 * np.cos(np.deg2rad(lon)) + RNG.standard_normal((times, 5, 12))
    values[:, 0, 0] = np.nan
    return xr.DataArray(
        values,
        {
            "time": xr.date_range("2001-01-01", periods=times),
            "lat": ("lat", np.linspace(-60, 60, 5), {"units": "degrees_north"}),
            "lon": ("lon", lon, {"units": "degrees_east"}),
        },
        ("time", "lat", "lon"),
        "t",
    )


def casts() -> xr.Dataset:
    kind = np.arange(90) % 3
    temp = np.array([20.0, 10, 5])[kind][:, None] + RNG.standard_normal((90, 8))
    return xr.Dataset(
        {"temp": (("cast", "depth"), temp, {"units": "degC"})},
        {"depth": ("depth", 10.0 * np.arange(8), {"units": "m", "positive": "down"})},
    )


@cache
def fits() -> dict[str, c.Fit]:
    return {
        "kmeans": c.fit(rows(), c.KMeans(3)),
        "mixture": c.fit(rows(), c.GaussianMixture(3)),
        "soft": c.fit(rows(), c.SoftKMeans(3, beta=1.0)),
        "one": c.fit(rows(), c.KMeans(1)),
        "many": c.fit(rows(), c.KMeans(40), restarts=2),
    }


PLOTS: dict[str, Callable[[c.Fit, Any], Any]] = {
    "centers": lambda fit, ax: fit.plot.centers(ax=ax, form="heat map"),
    "labels": lambda fit, ax: fit.plot.labels(rows(), ax=ax),
    "frequency": lambda fit, ax: fit.plot.labels(rows(), frequency="row", ax=ax),
    "sizes": lambda fit, ax: fit.plot.sizes(ax=ax),
    "cost": lambda fit, ax: fit.plot.cost(ax=ax),
    "silhouette": lambda fit, ax: fit.plot.silhouette(rows(), ax=ax),
    "margin": lambda fit, ax: fit.plot.margin(rows(), ax=ax),
    "pca": lambda fit, ax: fit.plot.pca(rows(), ax=ax),
}


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("name", ["kmeans", "mixture", "one", "many"])
def test_plots_are_drawn_on_given_axes_and_pyplot_knows_nothing_of_it(name: str, plot: str) -> None:
    axes = Figure().add_subplot()
    assert PLOTS[plot](fits()[name], axes) is axes
    assert pyplot.get_fignums() == []
    figure: Any = axes.figure
    figure.draw_without_rendering()


@pytest.mark.parametrize("plot", PLOTS)
def test_without_axes_a_figure_of_pyplot_is_made(plot: str) -> None:
    drawn = PLOTS[plot](fits()["mixture"], None)
    assert isinstance(drawn, Axes)
    assert pyplot.get_fignums() == [drawn.figure.number]


def test_matplotlib_is_loaded_by_the_first_plot_alone() -> None:
    code = """if True:
        import sys, clustering, numpy
        clustering.fit(numpy.eye(4), clustering.KMeans(2)).plot
        sys.exit("matplotlib" in sys.modules)
    """
    root = Path(c.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=root).returncode == 0


def test_without_matplotlib_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clustering.plotting.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"^plots need the package 'matplotlib'; pip install 'zarr-.*\[plot\]'$"):
        fits()["kmeans"].plot.sizes()


def test_bars_are_shares_and_the_curve_is_the_history() -> None:
    fit = fits()["mixture"]
    bars = fit.plot.sizes(ax=Figure()).patches
    np.testing.assert_array_equal([bar.get_height() for bar in bars], 100 * fit.fitted.shares)
    many = replace(fit.fitted, model=replace(fit.fitted.model, k=40), shares=np.arange(40) / 780)
    tops = [
        path.vertices[:, 1].max() for path in curves.sizes(many, default_names(40), Figure()).collections[0].get_paths()
    ]
    np.testing.assert_array_equal(tops, 100 * many.shares)
    through, after_e, after_m = fit.plot.cost(ax=Figure()).lines
    np.testing.assert_array_equal(through.get_ydata(), fit.history.reshape(-1))
    np.testing.assert_array_equal(after_e.get_ydata(), fit.history[:, 0])
    np.testing.assert_array_equal(after_m.get_ydata(), fit.history[:, 1])


def test_profiles_are_the_centers_with_depth_downwards_and_bands_of_one_deviation() -> None:
    data = casts()
    fit = c.fit(data, c.GaussianMixture(3, "diagonal"), variables=["temp"], sample_dims=["cast"])
    (axes,) = fit.plot.centers(ax=Figure())
    assert axes.yaxis_inverted()
    for line, center in zip(axes.lines, fit.centers.values, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), center)
        np.testing.assert_array_equal(line.get_ydata(), data["depth"])
    edges = axes.collections[0].get_paths()[0].vertices[:, 0]
    deviation = np.sqrt(fit.covariances.values[0])
    assert edges.min() == pytest.approx((fit.centers.values[0] - deviation).min())
    assert edges.max() == pytest.approx((fit.centers.values[0] + deviation).max())
    assert axes.get_legend().get_texts()[-1].get_text() == "±σ of the component"


def test_bands_of_other_models_are_quantiles_of_rows_and_the_legend_says_of_how_many() -> None:
    data = casts()
    where: dict[str, Any] = {"variables": ["temp"], "sample_dims": ["cast"]}
    fit = c.fit(data, c.KMeans(3), **where)
    (axes,) = fit.plot.centers(ax=Figure())
    assert not axes.collections
    (axes,) = fit.plot.centers(data, ax=Figure(), **where)
    assert axes.get_legend().get_texts()[-1].get_text() == "10–90 % of 90 rows"
    own = data["temp"].values[fit.predict(data, **where).values == 1]
    edges = axes.collections[1].get_paths()[0].vertices[:, 0]
    assert (edges.min(), edges.max()) == pytest.approx(
        (np.quantile(own, 0.1, axis=0).min(), np.quantile(own, 0.9, axis=0).max())
    )


def test_a_cluster_of_few_rows_has_no_quantiles() -> None:
    spread = spread_of_rows(np.arange(12.0)[:, None], np.array([0] * 11 + [1]), 3)
    assert np.isfinite(spread.low[0]).all()
    assert np.isnan(spread.high[1:]).all()


@given(st.lists(st.integers(0, 4), min_size=2, max_size=12))
def test_equal_curves_are_one_group_and_all_their_dashes_together_fill_the_line(kinds: list[int]) -> None:
    curves = np.array(kinds, float)[:, None] * np.ones(5) + np.arange(5)
    groups = coinciding(curves)
    assert {frozenset(group) for group in groups} == {
        frozenset(np.flatnonzero(np.array(kinds) == kind).tolist()) for kind in kinds if kinds.count(kind) > 1
    }
    styles = dashes(groups, len(kinds))
    for first, *others in groups:
        assert styles[first] is None
        offsets = [styles[one][0] for one in others]
        assert len(set(offsets)) == len(offsets)


def test_a_legend_names_the_curves_that_coincide() -> None:
    curves = np.array([[0.0, 1, 2, 3], [5, 6, 7, 8], [5, 6, 7, 8.01]])
    fields = {name: xr.DataArray(curves * factor, dims=("cluster", "time")) for name, factor in (("t", 1), ("q", 2))}
    panels = profiles({**fields}, {}, palette(3), default_names(3), Figure())
    assert [text.get_text() for text in panels[-1].get_legend().get_texts()] == ["0", "1", "2, as 1"]
    assert panels[0].lines[2].get_linestyle() == "--"
    fields["q"] = fields["q"] * [[1], [1], [-1]]
    panels = profiles(fields, {}, palette(3), default_names(3), Figure())
    assert [axes.get_title(loc="left") for axes in panels] == ["coinciding here: 1 = 2", ""]
    assert [text.get_text() for text in panels[-1].get_legend().get_texts()] == ["0", "1", "2"]


def test_maps_of_the_globe_begin_at_the_date_line() -> None:
    array = globe()
    turned = recentred(array, "lon")
    assert turned["lon"].values.tolist() == list(np.arange(-180.0, 180, 30))
    np.testing.assert_array_equal(turned.sel(lon=-30), array.sel(lon=330))
    pacific = array.sel(lon=slice(120, 300))
    assert recentred(pacific, "lon") is pacific


def test_ids_side_by_side_do_not_overlap() -> None:
    fit = fits()["mixture"]
    for k in (30, 256, 1200):
        many = replace(fit.fitted, model=replace(fit.fitted.model, k=k), shares=np.full(k, 1 / k))
        figure = Figure(layout="constrained")
        axes = curves.sizes(many, default_names(k), figure)
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in axes.get_xticklabels()]
        assert len(boxes) > 10
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_label_maps_show_any_slice_with_its_labels_where_they_are() -> None:
    array = globe()
    fit = c.fit(array, c.KMeans(3), **LIKE_GRID)
    labels = fit.predict(array, **LIKE_GRID)
    for wanted, position in ({"time": 2}, 2), ({"time": "2001-01-04"}, 3), ({"time": -1}, 5), ({}, 3):
        axes = fit.plot.labels(array, ax=Figure(), **LIKE_GRID, **wanted)
        expected = recentred(labels.isel(time=position), "lon").values
        np.testing.assert_array_equal(axes.collections[0].get_array(), expected)
        again = fit.plot.labels(labels, ax=Figure(), **wanted)
        np.testing.assert_array_equal(again.collections[0].get_array(), expected)
    series = fit.plot.labels(labels, ax=Figure(), lat=1, lon=31.0)
    strokes = series.collections[0].get_paths()
    assert [len(path.vertices) // 2 for path in strokes] == np.bincount(labels.isel(lat=1, lon=1), minlength=3).tolist()


def test_frequencies_over_time_are_shares_of_the_labelled_cells() -> None:
    array = globe()
    fit = c.fit(array, c.KMeans(3), **LIKE_GRID)
    labels = fit.predict(array, **LIKE_GRID)
    share = grids.frequencies(labels, ClusterNames(fit.ids), "time")
    np.testing.assert_allclose(share.sum(axis=0), 1.0)
    for i in range(3):
        np.testing.assert_allclose(share[i], (labels == i).sum(("lat", "lon")) / 59)
    axes = fit.plot.labels(labels, frequency=True, ax=Figure())
    tops = [area.get_paths()[0].vertices[:, 1].max() for area in axes.collections]
    np.testing.assert_allclose(tops, 100 * np.cumsum(share, axis=0).max(axis=1), rtol=1e-6)
    empty = grids.frequencies(xr.full_like(labels, -1), ClusterNames(fit.ids), "time")
    assert np.isnan(empty).all()


@pytest.mark.parametrize("form", ["map", "series", "frequency"])
def test_nothing_but_masked_cells_is_drawn(form: str) -> None:
    labels = xr.DataArray(np.full((3, 4), -1), dims=("time", "x"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = Figure(layout="constrained")
        if form == "frequency":
            grids.frequency(labels, default_names(2), None, figure)
        else:
            grids.labels(labels if form == "map" else labels[0], default_names(2), figure)
        grids.quantity(xr.DataArray(np.full((3, 4), np.nan), dims=("y", "x")), "margin", Figure())
        figure.draw_without_rendering()


def test_responsibilities_stack_up_to_one_and_hard_models_have_none() -> None:
    axes = fits()["soft"].plot.responsibilities(rows(), ax=Figure())
    tops = axes.collections[-1].get_paths()[0].vertices[:, 1]
    assert tops.max() == pytest.approx(1.0)
    assert "400 rows" in axes.get_xlabel()
    with pytest.raises(c.ClusteringError, match=r"have no responsibilities; draw plot\.margin"):
        fits()["kmeans"].plot.responsibilities(rows())


def test_responsibilities_and_margins_of_a_grid_are_maps() -> None:
    array = globe()
    fit = c.fit(array, c.GaussianMixture(2), **LIKE_GRID)
    largest = fit.responsibilities(array, **LIKE_GRID).max("cluster", skipna=False)
    for drawn, expected in (
        (fit.plot.responsibilities(array, ax=Figure(), time=1, **LIKE_GRID), largest),
        (fit.plot.margin(array, ax=Figure(), time=1, **LIKE_GRID), fit.margin(array, **LIKE_GRID)),
    ):
        shown = np.ma.filled(drawn.collections[0].get_array(), np.nan)
        np.testing.assert_array_equal(shown, recentred(expected.isel(time=1), "lon"))


def test_names_of_thin_silhouettes_do_not_overlap() -> None:
    sizes = [400, 2, 2, 2, 300, 1, 1, 200]
    centers = 50.0 * np.arange(8)
    data = np.repeat(centers, sizes)[:, None] + np.random.default_rng(0).normal(size=(sum(sizes), 1))
    fit = c.fit(data, c.KMeans(8), init=centers[:, None])
    axes = fit.plot.silhouette(data, ax=Figure())
    axes.figure.canvas.draw()
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "1", "4", "5", "7"]
    assert not any(one.overlaps(other) for one, other in itertools.pairwise(boxes))


def test_silhouettes_compare_the_own_with_the_nearest_other_center() -> None:
    fit, data = fits()["kmeans"], rows()
    axes = fit.plot.silhouette(data, ax=Figure())
    far = np.sort(np.linalg.norm(data[:, None] - fit.centers, axis=2), axis=1)
    expected = 1 - far[:, 0] / far[:, 1]
    assert axes.lines[0].get_xdata()[0] == pytest.approx(expected.mean())
    assert max(area.get_paths()[0].vertices[:, 0].max() for area in axes.collections) == pytest.approx(expected.max())
    assert simplified_silhouettes(np.array([[0.0, 0], [3, 1]]), np.array([0, 0])).tolist() == [0.0, -2 / 3]


def test_principal_components_are_those_of_the_covariance() -> None:
    data = rows() @ RNG.standard_normal((3, 3))
    mean, plane, shares = principal_plane(data)
    variances = np.linalg.eigvalsh(np.cov(data.T))[::-1]
    np.testing.assert_allclose(shares, variances[:2] / variances.sum())
    np.testing.assert_allclose(plane.T @ plane, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(mean, data.mean(axis=0))
    assert principal_plane(np.ones((4, 1)))[2].tolist() == [0.0, 0.0]


def test_ellipses_are_those_of_the_components() -> None:
    fit = c.fit(rows(d=2), c.GaussianMixture(3))
    axes = fit.plot.pca(rows(d=2), ax=Figure())
    assert sum(len(points.get_offsets()) for points in axes.collections) == 400
    for cluster in range(3):
        one = axes.patches[2 * cluster]
        variances = np.linalg.eigvalsh(fit.fitted.covariances[cluster])
        assert (one.height, one.width) == pytest.approx(tuple(2 * np.sqrt(variances)))


def test_a_selection_marks_the_recommended_choice() -> None:
    table = [{"k": k, "cost": 1.0 / k, "bic": float(k), "reason": "x", "fit": None} for k in (2, 3, 5)]
    panels = selection([*table, {"k": 7, "reason": "it failed"}], {"k": 3}, Figure())
    assert [axes.get_title() for axes in panels] == ["cost", "bic (lower is better)"]
    np.testing.assert_array_equal(panels[0].lines[0].get_ydata(), [1 / 2, 1 / 3, 1 / 5, np.nan])
    assert panels[0].lines[1].get_xdata()[0] == 3
    one = selection(table, None, Figure(), criteria=["bic"])
    assert [text.get_text() for text in one.get_legend().get_texts()] == ["bic", "no clear answer"]
    for wrong, message in (([], "is empty"), ([{"cost": 1.0}], "row without k"), ([{"k": 2}], "no choice was fitted")):
        with pytest.raises(c.ClusteringError, match=message):
            selection(wrong)


def test_transitions_are_shares_of_the_previous_cluster() -> None:
    pairs, weights = np.array([[0, 0], [0, 4], [2, 4], [-1, 0]]), np.array([3.0, 1.0, 2.0, 5.0])
    before, now, shares = transition_shares(pairs, weights)
    assert (before.tolist(), now.tolist()) == ([-1, 0, 2], [0, 4])
    np.testing.assert_array_equal(shares, [[1, 0], [0.75, 0.25], [0, 1]])
    image = transitions(pairs, weights, Figure()).images[0]
    np.testing.assert_array_equal(image.get_array(), 100 * shares)


def test_coastlines_go_on_in_every_turn_and_the_limits_stay() -> None:
    axes = Figure().add_subplot()
    axes.set(xlim=(100, 300), ylim=(-10, 10))
    add_coastlines(axes, (np.array([[-170.0, 0], [-160.0, 5]]),))
    ends = [line[0, 0] for line in axes.collections[0].get_segments()]
    assert 190.0 in ends
    assert (axes.get_xlim(), axes.get_ylim()) == ((100, 300), (-10, 10))
    assert is_map(globe())
    assert not is_map(globe().drop_vars("lon"))


def test_a_dollar_in_a_name_is_no_formula() -> None:
    names = ClusterNames(np.arange(3), {0: "a $x$ b"})
    axes = Figure().add_subplot()
    from clustering.plots.curves import sizes

    sizes(fits()["kmeans"].fitted, names, axes)
    assert not any(label.get_parse_math() for label in axes.get_xticklabels())


WRONG: dict[str, tuple[Callable[[c.Fit], Any], str]] = {
    "axes": (lambda fit: fit.plot.sizes(ax=3), "ax is of type int; give axes or a figure"),
    "number of axes": (lambda fit: fit.plot.cost(ax=Figure().subplots(1, 2)), "ax has 2 axes, and this plot has 1"),
    "form": (lambda fit: fit.plot.centers(form="map"), "form is 'map'; did you mean 'maps'"),
    "form of other features": (lambda fit: fit.plot.centers(form="maps"), "form is 'maps' and the feature dimensions"),
    "variable": (lambda fit: fit.plot.centers(variable="u"), "variable is 'u'; allowed: "),
    "sample": (lambda fit: fit.plot.pca(rows(), sample=0), "sample is 0; a whole number of rows"),
    "option": (lambda fit: fit.plot.pca(rows(), sampel=9), "sampel"),
    "dimension": (lambda fit: fit.plot.labels(rows(), depth=3), "cannot cut along 'depth'; allowed: row"),
    "position": (lambda fit: fit.plot.labels(rows(), row=999), "row is 999 and has 400 positions"),
    "time": (lambda fit: fit.plot.labels(rows(), frequency=True), "the labels have no time"),
    "features": (lambda fit: fit.plot.pca(rows(d=2)), "feature"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_refused_in_one_line(name: str) -> None:
    call, message = WRONG[name]
    with pytest.raises((c.ClusteringError, TypeError), match=message) as caught:
        call(fits()["kmeans"])
    assert "\n" not in str(caught.value)


def test_default_colours_stay_apart_without_red_or_green() -> None:
    """Distances in OKLab of the colours as they are, and as people without red or green cones see them."""
    views = (
        np.eye(3),
        np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
        np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]),
    )
    lms = [[0.41222, 0.53633, 0.05145], [0.2119, 0.6807, 0.1074], [0.0883, 0.28172, 0.62998]]
    lab = [[0.21045, 0.79362, -0.00407], [1.978, -2.42859, 0.45059], [0.0259, 0.78277, -0.80868]]
    for k, least in ((2, 0.2), (10, 0.055), (40, 0.05)):
        colours = np.vstack([palette(k), to_rgb("w")])
        linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
        for view in views:
            seen = np.cbrt(np.clip(linear @ view.T, 0, 1) @ np.transpose(lms)) @ np.transpose(lab)
            apart = np.linalg.norm(seen[:, None] - seen, axis=2) + 9 * np.eye(k + 1)
            assert apart.min() > least
