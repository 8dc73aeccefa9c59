from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import clustering
from clustering.fitting.cluster_names import ClusterNames, default_names
from clustering.models import registry
from clustering.plots.canvas import MASKED, palette
from clustering.plots.grids import SAME_CHANGED
from clustering.report.figures import Figure
from clustering.report.label_figures import drawn_part
from clustering.report.label_figures import labels as label_figure
from clustering.report.model_figures import curve_caption
from clustering.report.page import draw, render
from clustering.report.tables import LISTED
from clustering.report.words import number

RNG = np.random.default_rng(3)


class Page(HTMLParser):
    """Collects what a browser would load, run and show."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.styles = ""
        self.text = ""
        self.cells: list[str] = []
        self.alts: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = ("src", "href", "xlink:href", "srcset", "data", "action")
        self.links += [value or "" for name, value in attrs if name in named]
        self.alts += [value or "" for name, value in attrs if name == "alt"]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.open = [tag]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.styles += "".join(value or "" for name, value in attrs if name == "style")
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self.open = []

    def handle_data(self, data: str) -> None:
        if self.open == ["style"]:
            self.styles += data
        else:
            self.text += data
        if self.cells and self.tags[-1] in ("td", "th", "i"):
            self.cells[-1] += data.strip()


def run_of(fit: clustering.Fit, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "kmeans",
        "k": fit.model.k,
        "source": "data.zarr",
        "n_rows": fit.fitted.summary.count,
        "n_features": len(fit.fitted.features),
        "n_masked": 0,
        "objective": fit.objective,
        "iterations": fit.iterations,
        "converged": fit.converged,
        "stop_reason": str(fit.fitted.stop),
        "reads": 2,
        "bytes_read": 123_456,
        "seconds": {"fit": 1.5, "total": 2.5},
        "peak_rss_bytes": 300 * 2**20,
        "seed": 77,
        "config_sha256": "c" * 64,
        "source_fingerprint": "f" * 64,
        "versions": {"numpy": "9.8.7", "zarr-clustering": "1.2.3"},
        "run": "a1b2c3d4e5f6",
        "finished_at": "2026-11-30T08:15:16.123+00:00",
        "warnings": [],
        **changes,
    }


def make(
    data: xr.Dataset,
    k: int = 3,
    with_labels: bool = True,
    preview: bool = False,
    config: Any = None,
    **run: Any,
) -> tuple[Page, list[Figure], str]:
    """Fit, draw and fill in the page."""
    samples = [str(d) for d in next(iter(data.data_vars.values())).dims if d not in ("depth", "channel")]
    options = {"variables": list(data.data_vars), "sample_dims": samples}
    fit = clustering.fit(data, clustering.KMeans(k), sample_rows=100, **options)
    labels = fit.predict(data, **options) if with_labels else None
    pictures, clusters = draw(fit.fitted, None if labels is None else drawn_part(labels), data if preview else None)
    html = render(fit.fitted, run_of(fit, **run), pictures, clusters, config or {"model": {}})
    return Page(html), pictures, html


def field(*lengths: int, names: tuple[str, ...] = ("t", "q"), **coordinates: Any) -> xr.Dataset:
    dims = ("time", "lat", "lon")[-len(lengths) :]
    return xr.Dataset({name: (dims, RNG.standard_normal(lengths)) for name in names}, coordinates)


def colours_of(png: bytes) -> set[int]:
    """The colours of a picture, as 0xRRGGBB."""
    pixels = np.rint(matplotlib.image.imread(io.BytesIO(png))[..., :3] * 255).astype(np.int64)
    return set(np.unique(pixels @ [1 << 16, 1 << 8, 1]).tolist())


def titles(pictures: list[Figure]) -> list[str]:
    return [picture.title for picture in pictures]


@pytest.fixture(scope="module")
def plain() -> tuple[Page, list[Figure], str]:
    return make(field(6, 7))


def test_the_page_needs_nothing_else(plain: tuple[Page, list[Figure], str]) -> None:
    page, _, html = plain
    # Links lead to places of the page, and pixels are in it.
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not page.handlers
    assert "@import" not in page.styles
    assert set(re.findall(r"url\(#([^)]*)\)", html)) <= set(page.ids)
    assert not re.findall(r"url\((?!#)", html)


def test_ids_are_unique_in_the_page(plain: tuple[Page, list[Figure], str]) -> None:
    ids = plain[0].ids
    assert len(ids) == len(set(ids)) > 10


def test_every_figure_is_on_the_page_with_its_words(plain: tuple[Page, list[Figure], str]) -> None:
    page, pictures, _ = plain
    assert titles(pictures) == ["Labels", "Sizes", "Centers", "Cost curve"]
    for picture in pictures:
        assert picture.markup in plain[2]
        assert len(colours_of(picture.png)) > 3
        for said in (picture.title, picture.caption, picture.alt):
            assert said in page.text
    assert page.tags.count("svg") == page.tags.count("desc") == 4


def test_the_key_figures_are_on_the_page() -> None:
    run = {"objective": 1234.5, "n_rows": 4321, "n_masked": 987, "reads": 17, "warnings": ["beware of the dog"]}
    page, _, _ = make(field(6, 7), with_labels=False, config={"fit": {"seed": 77}}, **run)
    for said in ("1,234.5", "4,321", "987 cells masked", "17", "beware of the dog", "c" * 64, "f" * 64, "9.8.7"):
        assert said in page.text
    assert "fit:\n  seed: 77" in page.text


def test_the_same_run_gives_the_same_page() -> None:
    data = field(6, 7)
    assert make(data)[2] == make(data)[2]


HOSTILE = {
    "markup": "<script>alert(1)</script>",
    "an attribute": '" onload="alert(1)',
    "an entity": "&lt;b&gt;",
    "a template": "{{ 7 * 7 }}{% raw %}",
    "mathematics": "$\\frac{$",
    "no Latin letters": "温度",
    "a line break": "a\nb",
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_the_page_shows_any_text_as_it_is(name: str) -> None:
    data = field(6, 7, names=(name, "q"))
    fit = clustering.fit(data, clustering.KMeans(2), variables=[name, "q"], sample_dims=["lat", "lon"])
    clusters = ClusterNames(fit.fitted.ids, {0: name})
    pictures, clusters = draw(fit.fitted, None, None, clusters=clusters)
    run = run_of(fit, source=name, warnings=[name], kind=name, stop_reason=name, converged=False, run=name)
    html = render(fit.fitted, run, pictures, clusters, {"name": name})
    page = Page(html)
    shown = page.text if "\n" not in name else page.text.replace(" ", "\n")
    # Run, source, kind twice, reason to stop twice, warning, name of the cluster thrice, feature; and in figures.
    assert shown.count(name) >= 12
    assert not {"script", "b"} & set(page.tags) - {"b"}
    assert not page.handlers
    assert "<script" not in html
    picture = Figure(name, name, name, name, pixels=b"\x89PNG")
    assert name in Page(str(picture.markup)).alts


@pytest.mark.parametrize("name", [HOSTILE["mathematics"], HOSTILE["no Latin letters"]], ids=["mathematics", "script"])
def test_pictures_take_any_name(name: str) -> None:
    profile = xr.Dataset({name: ((f"{name}-s", "depth"), RNG.standard_normal((30, 6)))}, {"depth": np.arange(6.0)})
    assert titles(make(profile)[1]) == ["Labels", "Sizes", "Centers", "Cost curve"]
    scores = xr.Dataset({n: ((f"{name}-y", f"{name}-x"), RNG.standard_normal((6, 7))) for n in (name, "q")})
    assert titles(make(scores)[1]) == ["Labels", "Sizes", "Centers", "Cost curve"]


def test_a_single_sample_dimension_is_drawn() -> None:
    assert titles(make(field(40))[1]) == ["Labels", "Sizes", "Centers", "Cost curve"]


def test_a_run_without_labels_is_drawn() -> None:
    assert titles(make(field(6, 7), with_labels=False)[1]) == ["Sizes", "Centers", "Cost curve"]


@pytest.mark.parametrize("dated", [True, False], ids=["with dates", "without"])
def test_of_three_dimensions_the_middle_is_shown_and_said(dated: bool) -> None:
    time = np.arange("2001-01-01", "2001-01-06", dtype="datetime64[D]").astype("datetime64[ns]")
    _, pictures, _ = make(field(5, 6, 7, **({"time": time} if dated else {})))
    assert titles(pictures) == ["Labels", "Sizes", "Centers", "Cost curve"]
    assert pictures[0].caption.startswith("At time 2001-01-03" if dated else "At time half-way")


COORDINATES = {
    "longitudes that wrap": ((6, 8), {"lon": [0.0, 45, 90, 135, -180, -135, -90, -45]}),
    "a missing latitude": ((6, 8), {"lat": [np.nan, 1, 2, 3, 4, 5]}),
    "falling latitudes": ((6, 8), {"lat": np.arange(6)[::-1]}),
    "equal latitudes": ((6, 8), {"lat": np.zeros(6)}),
    "dates": ((6, 8), {"lat": np.arange(6).astype("datetime64[D]").astype("datetime64[ns]")}),
    "a missing date": ((6, 8), {"lat": np.array(["NaT", *range(5)], "datetime64[ns]")}),
    "strings": ((6, 8), {"lon": list("abcdefgh")}),
    "one row": ((1, 8), {"lat": [3.0]}),
    "one column": ((8, 1), {}),
    "one cell across": ((8, 1), {"lon": [2.0], "lat": np.arange(8.0)}),
    "a series that wraps": ((8,), {"lon": [0.0, 45, 90, 135, -180, -135, -90, -45]}),
    "a series with a gap": ((8,), {"lon": [np.nan, *range(7)]}),
}


@pytest.mark.parametrize(("lengths", "coordinates"), COORDINATES.values(), ids=COORDINATES)
def test_labels_over_any_coordinates_are_drawn(lengths: tuple[int, ...], coordinates: dict[str, Any]) -> None:
    labels = xr.DataArray(RNG.integers(-1, 3, lengths), coordinates, ("lat", "lon")[-len(lengths) :])
    shown = colours_of(label_figure(labels, default_names(3)).png)
    expected = set((np.rint(palette(3) * 255).astype(np.int64) @ [1 << 16, 1 << 8, 1]).tolist())
    # The dots of a series are too small for pure colours.
    assert expected <= shown or (len(lengths) == 1 and len(shown) > 10)


@pytest.mark.parametrize("k", [1, 100], ids="k={}".format)
def test_any_number_of_clusters_is_drawn(k: int) -> None:
    page, pictures, _ = make(field(12, 15), k=k)
    assert titles(pictures) == ["Labels", "Sizes", "Centers", "Cost curve"]
    assert page.tags.count("i") == min(k, LISTED)
    assert (f"The {LISTED} largest of {k} clusters" in page.text) == (k > LISTED)


@pytest.mark.parametrize("k", [1, 10, 11, 20, 21, 100], ids="k={}".format)
def test_clusters_have_different_colours(k: int) -> None:
    assert len(np.unique(palette(k), axis=0)) == k


def test_clusters_are_listed_in_the_order_of_the_figures(plain: tuple[Page, list[Figure], str]) -> None:
    page, _, _ = plain
    shares = [float(cell.split()[0]) for cell in page.cells if cell.endswith(" %")]
    assert [cell for cell in page.cells if cell in ("0", "1", "2")][:3] == ["0", "1", "2"]
    assert sum(shares) == pytest.approx(100, abs=0.03)


def test_a_single_feature_and_many_features_are_drawn() -> None:
    assert titles(make(field(6, 7, names=("t",)))[1]) == ["Labels", "Sizes", "Cost curve"]
    wide = xr.Dataset({"x": (("row", "depth"), RNG.standard_normal((30, 40)))})
    page, pictures, _ = make(wide)
    assert "Centers" in titles(pictures)
    assert "x, mean of 40" in page.text
    assert "x[depth=" not in page.text
    assert "…" not in page.text
    page, _, _ = make(field(6, 7, names=tuple("abcdefghijklmn")))
    assert (page.text.count("…"), "l" in page.text, "m\n" in page.text) == (1, True, False)


def test_masked_cells_are_counted_in_the_caption() -> None:
    data = field(5, 8)
    data["t"][0] = np.nan
    _, pictures, _ = make(data)
    assert "20.0 % of the cells shown are masked" in pictures[0].caption


def test_a_photograph_is_shown_before_and_after() -> None:
    image = RNG.integers(0, 256, (60, 80, 3)).astype(np.uint8)
    data = xr.Dataset({"image": (("y", "x", "channel"), image)})
    _, pictures, _ = make(data, k=5, preview=True)
    assert titles(pictures)[:2] == ["Before", "After"]
    before = matplotlib.image.imread(io.BytesIO(pictures[0].png))[..., :3] * 255
    assert np.array_equal(np.rint(before), image)
    assert len(colours_of(pictures[1].png)) == 5
    assert "5 colours, 2.32 bits a pixel" in pictures[1].caption


def test_other_data_of_three_features_are_no_photograph() -> None:
    data = xr.Dataset({"image": (("y", "x", "channel"), RNG.random((6, 8, 3)))})
    assert "Before" not in titles(make(data, preview=True)[1])


def test_a_run_that_did_not_converge_says_so() -> None:
    page, _, _ = make(field(6, 7), with_labels=False, converged=False, stop_reason="max_iterations")
    assert "stopped by max_iterations" in page.text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_for_people_keep_their_size(value: float) -> None:
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=6e-6, abs=1e-300)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (1234567, "1,234,567"),
        (1234567.8, "1,234,568"),
        (0.000012345678, "1.23457e-05"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
    ids=["none", "zero", "whole", "large", "tiny", "not a number", "infinite"],
)
def test_numbers_for_people_read_well(value: Any, text: str) -> None:
    assert number(value) == text


def test_pixels_of_length_one_are_no_colours() -> None:
    pixels = xr.DataArray(RNG.integers(1, 255, (20, 30, 3), dtype=np.uint8), dims=("y", "x", "band"), name="rgb")
    where: dict[str, Any] = {"sample_dims": ["y", "x"], "feature_dims": ["band"]}
    for wish, expected in (({}, True), ({"standardize": "per_feature"}, True), ({"unit_norm": True}, False)):
        fit = clustering.fit(pixels, clustering.KMeans(3), **where, **wish)
        labels = fit.predict(pixels, **where)
        pictures, _ = draw(fit.fitted, labels, pixels.to_dataset())
        assert ("Before" in [picture.title for picture in pictures]) == expected


CHANGES = {
    "with": "a1b2", "churn": 0.125, "churn_by_cluster": {"0": 0.25, "7": 1.0}, "largest_size_change": 0.3,
    "sizes": {"0": [0.6, 0.5], "1": [0.0, 0.3], "2": [0.1, 0.2], "7": [0.3, 0.0]},
    "new_clusters": [1, 2], "lost_clusters": [7], "held_out": None,
}  # fmt: skip


def test_what_changed_has_a_section_with_every_cluster_of_before_and_now() -> None:
    page, _, _ = make(field(6, 8), comparison=CHANGES)
    assert "What changed" in page.text
    assert (
        "Compared with run a1b2. 12.50 % of the weight that had a label has another now. New clusters: 1, 2. "
        "Lost clusters: 7."
    ) in page.text
    start = page.cells.index("60.00 %") - 1
    cells = page.cells[start : start + 16]
    rows = [cells[i : i + 4] for i in range(0, 16, 4)]
    assert rows[0] == ["0", "60.00 %", "50.00 %", "25.00 %"]
    assert {row[0]: row[3] for row in rows} == {"0": "25.00 %", "1": "–", "7": "100.00 %", "2": "–"}
    assert "What changed" not in make(field(6, 8), comparison=None)[2]
    silent, _, _ = make(field(6, 8), comparison={**CHANGES, "churn": None, "churn_by_cluster": {}})
    assert "has another now" not in silent.text


@pytest.mark.parametrize("lengths", [(5,), (6, 8), (3, 6, 8)], ids=["series", "map", "several maps"])
def test_changed_cells_are_drawn_on_the_map(lengths: tuple[int, ...]) -> None:
    data = field(*lengths)
    options = {"variables": ["t", "q"], "sample_dims": list(map(str, data["t"].dims))}
    fit = clustering.fit(data, clustering.KMeans(3), **options)
    labels = fit.predict(data, **options)
    changed = labels.copy(data=np.resize([-1, 0, 1], labels.shape).astype(np.int8))
    pictures, _ = draw(fit.fitted, drawn_part(labels), None, changed=drawn_part(changed))
    change_maps = [picture for picture in pictures if picture.part == "changes"]
    assert len(change_maps) == (len(lengths) > 1)
    if change_maps:
        expected = {int(colour[1:], 16) for colour in (MASKED, *SAME_CHANGED)}
        assert expected <= colours_of(change_maps[0].png)
        assert change_maps[0].caption.startswith("At time half-way. " if len(lengths) == 3 else "Cells")


@pytest.mark.parametrize("k", [3, 40])
def test_clusters_are_called_by_their_ids_and_names(k: int) -> None:
    data = field(12, 15)
    options = {"variables": ["t", "q"], "sample_dims": ["lat", "lon"]}
    fit = clustering.fit(data, clustering.KMeans(k), restarts=1, **options)
    fitted = replace(fit.fitted, ids=2 * np.arange(k) + 5)
    clusters = ClusterNames(fitted.ids, {7: "warm <pool>"}, {7: "#123456"})
    labels = clustering.Fit(fitted).predict(data, **options)
    pictures, clusters = draw(fitted, drawn_part(labels), None, clusters=clusters)
    assert 0x123456 in colours_of(pictures[0].png)
    page = Page(render(fitted, run_of(fit), pictures, clusters))
    assert {"5", "7 warm <pool>", "9"} <= set(page.cells)
    assert "background: #123456" in page.styles


@pytest.mark.parametrize("kind", registry.MODELS)
def test_a_step_the_wrong_way_is_not_denied(kind: str) -> None:
    right = np.array([[4.0, 3.0], [3.0, 2.0]]) * (-1 if registry.MODELS[kind].objective.rises else 1)
    assert "It never" in curve_caption(registry.MODELS[kind].objective, right)
    assert "only where a cluster was placed anew" in curve_caption(registry.MODELS[kind].objective, right[::-1])
    assert "It never" in curve_caption(registry.MODELS[kind].objective, right[:1, :1])
