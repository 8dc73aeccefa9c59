"""Drawings as SVG inside a page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import matplotlib
import matplotlib.style
import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from clustering.fitting.cluster_names import default_names
from clustering.plots import grids
from clustering.plots.canvas import INK
from clustering.report.figures import Figure, drawn, picture
from clustering.report.label_figures import DEGREES, all_of, drawn_degrees, drawn_part, labels
from clustering.report.svg import styled

RNG = np.random.default_rng(5)


def example(key: str, text: str = "name") -> Figure:
    def plot(canvas: Canvas) -> Axes:
        axes: Axes = canvas.subplots()
        axes.plot([0, 1, 2], [3, 5, 4], "o-", label=text)
        axes.fill_between([0, 1, 2], 0, 1)
        axes.pcolormesh(RNG.random((3, 4)))
        axes.set_title(text)
        axes.legend()
        return axes

    global RNG
    RNG = np.random.default_rng(5)
    return drawn(key, "Title", "Caption.", "What is seen.", plot)


def test_the_same_figure_gives_the_same_bytes_whatever_style_the_process_has() -> None:
    first = example("a")
    with matplotlib.rc_context(
        {"lines.linewidth": 9.0, "font.size": 20.0, "text.color": "red", "svg.fonttype": "path"}
    ):
        matplotlib.style.use("dark_background")
        second = example("a")
        assert matplotlib.rcParams["text.color"] == "white"
        assert matplotlib.rcParams["svg.hashsalt"] is None
    assert str(first.markup) == str(second.markup)
    assert first.png == second.png


def test_ids_differ_between_figures_and_every_reference_is_met() -> None:
    one, other = str(example("a").markup), str(example("b").markup)
    ids = [set(re.findall(r'\bid="([^"]*)"', markup)) for markup in (one, other)]
    assert not ids[0] & ids[1]
    assert set(re.findall(r'url\(#([^)]*)\)|xlink:href="#([^"]*)"', one)) != set()
    for match in re.finditer(r'url\(#([^)]*)\)|xlink:href="#([^"]*)"', one):
        assert (match[1] or match[2]) in ids[0]


def test_there_is_no_date_no_style_of_the_whole_page_and_no_font() -> None:
    markup = str(example("a").markup)
    assert not re.findall(r"<style|<metadata|font-family|<\?xml|<!DOCTYPE", markup)
    assert INK not in markup
    assert "var(--ink)" in markup


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", 'a" id="x', "$\\frac{$", "温度", "stroke: #111827"])
def test_texts_are_shown_as_they_are(text: str) -> None:
    markup = str(example("a", text).markup).replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1)
    root = ElementTree.fromstring(markup)
    assert [one.text for one in root.iter("text")].count(text) == 2


def test_maps_and_many_points_are_pixels() -> None:
    array = xr.DataArray(RNG.integers(-1, 4, (200, 300)), dims=("y", "x"))
    markup = str(labels(array, default_names(4)).markup)
    assert 1 <= markup.count("<image") <= 2
    assert len(markup) < 300_000


def test_a_page_of_noise_stays_small() -> None:
    """Noise does not compress, so this is the most that maps can take."""
    k = 12
    noise = xr.DataArray(RNG.integers(0, k, (1100, 1100)), dims=("y", "x"))
    values = xr.DataArray(RNG.random((1100, 1100)), dims=("y", "x"))
    cut = drawn_part(noise)
    numbers = ("responsibility", "margin", "distance", "log_density", "outlier_score")
    made = [
        labels(cut, default_names(k)),
        *all_of({n: drawn_degrees(n, values) for n in numbers}, cut, default_names(k)),
    ]
    assert len(made) == 6
    assert sum(len(one.markup) for one in made) < 3_000_000


def test_large_pictures_are_kept_small() -> None:
    pixels = RNG.integers(0, 256, (1000, 1000, 3)).astype(np.uint8)
    large, small = picture("p", "t", "c", "a", pixels), picture("p", "t", "c", "a", pixels[:100, :100])
    assert len(large.markup) < 1_400_000
    assert 'src="data:image/jpeg' in large.markup
    assert 'src="data:image/png' in small.markup


@pytest.mark.parametrize("name", DEGREES)
@pytest.mark.parametrize("lengths", [(9,), (6, 8), (3, 6, 8)], ids=["list", "map", "several maps"])
def test_every_output_has_a_figure(name: str, lengths: tuple[int, ...]) -> None:
    dims, k = ("time", "y", "x")[-len(lengths) :], 3
    many = name in ("responsibilities", "top_responsibilities", "distances")
    values = RNG.random((*lengths, k)) if many else RNG.random(lengths)
    values[(0,) * len(lengths)] = np.nan
    array = xr.DataArray(values, dims=(*dims, "cluster") if many else dims)
    ids = xr.DataArray(RNG.integers(0, k, lengths), dims=dims)
    cut = drawn_degrees(name, array)
    own = values[1] if len(lengths) == 3 else values
    expected = own.max(axis=-1) if many and name != "distances" else own.min(axis=-1) if many else own
    np.testing.assert_array_equal(cut.values, expected)
    (figure,) = all_of({name: cut}, drawn_part(ids), default_names(k))
    assert figure.part == "rows"
    assert figure.title == DEGREES[name][0]
    assert "half below" in figure.alt
    assert ("steps" in figure.caption) == (len(lengths) == 1)
    nothing = all_of({name: cut.copy(data=np.full(cut.shape, np.nan))}, drawn_part(ids), default_names(k))
    assert nothing == []


def test_labels_of_a_thinned_list_stand_at_their_positions() -> None:
    array = xr.DataArray(np.arange(5000) % 2, dims="row")
    figure = labels(drawn_part(array), default_names(2))
    assert figure.canvas is not None
    low, high = figure.canvas.axes[0].get_xlim()
    assert low <= 0
    assert 4900 < high < 5400


def test_cells_that_are_masked_show_the_ground_of_the_map() -> None:
    array = xr.DataArray([[-1, 0], [1, 0]], dims=("y", "x"))
    with styled():
        canvas = Canvas()
        grids.labels(array, default_names(2), canvas)
    assert canvas.axes[0].collections[0].get_cmap()(0)[3] == 0.0
    assert "var(--masked)" in str(labels(array, default_names(2)).markup)
