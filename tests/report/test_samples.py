"""Soft models are reported in their own words, with the lecture's figure where rows have two features."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from test_page import Page, run_of, titles

import clustering
from clustering.plots.canvas import palette
from clustering.plots.rows import SampledRows
from clustering.report import samples
from clustering.report.figures import Figure
from clustering.report.model_figures import DRAWN
from clustering.report.page import draw, render

MODELS: dict[str, Any] = {
    **{kind: clustering.GaussianMixture(3, kind) for kind in ("identity", "spherical", "diagonal", "tied", "full")},
    "soft": clustering.SoftKMeans(3, beta=2.0),
    "soft cosine": clustering.SoftKMeans(3, beta=20.0, divergence="cosine"),
}
CENTERS = np.array([[3.0, 0.0], [0.0, 4.0], [6.0, 6.0]])


def data(n: int = 300, holes: bool = False, features: int = 2) -> xr.Dataset:
    rng = np.random.default_rng(2)
    true_labels = rng.integers(0, 3, n)
    values = np.concatenate([CENTERS, CENTERS], axis=1)[true_labels, :features] + rng.standard_normal((n, features))
    if holes:
        values[::7, 1] = np.nan
    truth = xr.DataArray(np.where(np.arange(n) % 10 == 0, -1, true_labels), dims="row")
    return xr.Dataset({"rows": (("row", "feature"), values), "z": truth})


def report(
    model: Any, dataset: xr.Dataset, labels: str | None = "z", with_labels: bool = True, **options: Any
) -> tuple[Page, list[Figure]]:
    """Fit, sample, draw and fill in the page."""
    where = {"variables": ["rows"], "sample_dims": ["row"], **options}
    source = clustering.open_source(dataset, labels=labels, **where)
    fit = clustering.fit(source, model)
    predicted = fit.predict(dataset, **where) if with_labels else None
    sample = samples.sample_rows(source, fit.fitted)
    pictures, clusters = draw(fit.fitted, predicted, None, sample)
    run = run_of(fit, kind=model.kind)
    return Page(render(fit.fitted, run, pictures, clusters, {"model": {}})), pictures


@cache
def plain(name: str) -> tuple[Page, list[Figure]]:
    return report(MODELS[name], data())


def samples_of(pictures: list[Figure]) -> Figure:
    return next(picture for picture in pictures if picture.key == "samples")


def panels(picture: Figure) -> int:
    assert picture.canvas is not None
    return len(picture.canvas.axes)


@pytest.mark.parametrize("name", MODELS)
def test_rows_of_two_features_are_drawn_with_their_responsibilities(name: str) -> None:
    _, pictures = plain(name)
    (first,) = (picture for picture in pictures if picture.key == "samples")
    caption = first.caption
    assert "samples from p(x | z)" in caption
    assert "samples from p(x);" in caption
    assert ("1 and 2 standard deviations" in caption) == (MODELS[name].kind == "gaussian_mixture")
    assert first.wide
    # A list of labels in no order is left out where the rows are drawn.
    assert "Labels" not in titles(pictures)


def test_without_known_components_there_are_two_panels() -> None:
    with_truth, without = samples_of(plain("full")[1]), samples_of(report(MODELS["full"], data(), None)[1])
    assert (panels(with_truth), panels(without)) == (3, 2)
    assert "p(x | z)" not in without.caption
    unknown = data().assign(z=("row", np.full(300, -1)))
    assert panels(samples_of(report(MODELS["full"], unknown)[1])) == 2


def test_no_written_labels_are_needed() -> None:
    assert "Samples" in titles(report(MODELS["full"], data(), with_labels=False)[1])


@pytest.mark.parametrize("missing", ["drop", "marginalize"])
def test_rows_with_gaps_are_left_out(missing: str) -> None:
    _, pictures = report(MODELS["diagonal"], data(holes=True), missing=missing, with_labels=False)
    assert samples_of(pictures).caption.startswith("257 rows")


def test_many_rows_are_thinned_and_it_is_said() -> None:
    dataset = data(50_000).chunk(row=500)
    source = clustering.open_source(dataset, variables=["rows"], sample_dims=["row"], labels="z")
    fit = clustering.fit(source, MODELS["full"])
    sample = samples.sample_rows(source, fit.fitted)
    assert sample is not None
    assert samples.SHOWN * 0.9 <= len(sample.rows) <= samples.SHOWN
    assert "2,000 rows taken from all over the source" in samples.caption(sample, mixture=True)
    assert np.allclose(sample.resp.sum(axis=1), 1.0)
    assert sample.true_labels is not None
    assert np.abs(sample.rows[sample.true_labels == 2].mean(axis=0) - CENTERS[2]).max() < 0.5


def test_responsibilities_are_those_of_the_model_whatever_the_weights() -> None:
    dataset = data().assign(w=("row", np.arange(300.0) % 3))
    where: Any = {"variables": ["rows"], "sample_dims": ["row"], "weights": "w"}
    source = clustering.open_source(dataset, **where)
    fit = clustering.fit(source, clustering.SoftKMeans(3, beta=0.7))
    sample = samples.sample_rows(source, fit.fitted)
    assert sample is not None
    squares = ((sample.rows[:, None] - fit.fitted.centers) ** 2).sum(axis=2)
    expected = np.exp(-0.7 * squares)
    assert np.allclose(sample.resp, expected / expected.sum(axis=1, keepdims=True))


def plotted(shares: np.ndarray[Any, Any], true_labels: np.ndarray[Any, Any]) -> samples.PlottedRows:
    sampled = SampledRows(shares[:, :2], shares[:, :2], shares.argmax(axis=1), True)
    return samples.PlottedRows(sampled, shares, true_labels)


def test_true_components_have_the_colours_of_the_clusters_that_found_them() -> None:
    shares = np.eye(3)[[2, 2, 0, 0, 1, 1]]
    true_labels = np.array([0, 0, 1, 1, 2, -1], np.int32)
    colours = palette(3)
    own = samples._true_colours(plotted(shares, true_labels), true_labels, colours)
    assert np.array_equal(own[:5], colours[[2, 2, 0, 0, 1]])
    assert not (own[5] == colours).all(axis=1).any()


def test_more_true_components_than_clusters_have_colours_of_their_own() -> None:
    shares = np.eye(2)[[0, 1, 0, 0]]
    true_labels = np.array([0, 1, 2, 3], np.int32)
    own = samples._true_colours(plotted(shares, true_labels), true_labels, palette(2))
    assert len(np.unique(own, axis=0)) == 4


@pytest.mark.parametrize("features", [1, 3])
def test_rows_of_other_than_two_features_are_not_drawn(features: int) -> None:
    assert "Samples" not in titles(report(MODELS["full"], data(features=features))[1])


def test_k_means_has_no_responsibilities_to_draw() -> None:
    page, pictures = report(clustering.KMeans(3), data())
    assert titles(pictures) == ["Labels", "Sizes", "Centers", "Cost curve", "Simplified silhouettes"]
    assert "J per unit weight" in page.text
    assert "mixing weight" not in page.text


def test_a_source_without_rows_is_not_drawn() -> None:
    dataset = data().assign(none=("row", np.zeros(300, bool)))
    fit = clustering.fit(dataset, MODELS["full"], variables=["rows"], sample_dims=["row"])
    source = clustering.open_source(dataset, variables=["rows"], sample_dims=["row"], mask="none")
    assert samples.sample_rows(source, fit.fitted) is None


def test_a_mixture_is_reported_by_its_likelihood() -> None:
    page, pictures = plain("full")
    assert titles(pictures) == [
        "Sizes", "Centers", "Samples", "Log-likelihood", "Effective sizes by pass", "Simplified silhouettes",
    ]  # fmt: skip
    assert pictures[3].caption.endswith("It never falls.")
    for said in ("log-likelihood per unit weight", "mixing weight", "effective size", "condition of Σ"):
        assert said in page.text
    assert "J" not in {word.strip(".,") for word in page.text.split()}
    sizes = [float(page.cells[i + 3].replace(",", "")) for i, cell in enumerate(page.cells) if cell.endswith(" %")]
    assert sum(float(cell.split()[0]) for cell in page.cells if cell.endswith(" %")) == pytest.approx(100, abs=0.03)
    assert len(sizes) == 3


def test_effective_sizes_add_up_to_the_weight() -> None:
    page, _ = plain("full")
    rows = [i for i, cell in enumerate(page.cells) if cell.endswith(" %")]
    assert sum(float(page.cells[i + 1]) for i in rows) == pytest.approx(1.0, abs=1e-5)
    assert sum(float(page.cells[i + 2]) for i in rows) == pytest.approx(300.0, abs=1e-3)
    assert all(float(page.cells[i + 3]) >= 1.0 for i in rows)


def test_soft_k_means_is_reported_by_its_free_energy() -> None:
    page, pictures = plain("soft")
    assert titles(pictures) == [
        "Sizes", "Centers", "Samples", "Free energy", "Effective sizes by pass", "Simplified silhouettes",
    ]  # fmt: skip
    assert pictures[3].caption.endswith("It never rises.")
    assert "free energy F at β = 2" in page.text
    assert "F per unit weight" in page.text
    assert "J" not in {word.strip(".,") for word in page.text.split()}


def test_too_many_clusters_for_lines_are_not_drawn_by_pass() -> None:
    for k in (DRAWN, DRAWN + 1):
        _, pictures = report(clustering.SoftKMeans(k, beta=5.0), data())
        assert ("Effective sizes by pass" in titles(pictures)) == (k <= DRAWN)


def test_importing_the_library_loads_no_matplotlib() -> None:
    import subprocess
    import sys

    look = "import clustering, sys; clustering.fit; clustering.GaussianMixture; sys.exit('matplotlib' in sys.modules)"
    root = Path(clustering.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", look], check=False, cwd=root).returncode == 0


@pytest.mark.parametrize(
    "wish", [{"standardize": "per_feature"}, {"pca": 1}, {"unit_norm": True}, {"pca": 2, "whiten": True}], ids=str
)
def test_prepared_rows_are_drawn_where_centers_come_back_to(wish: dict[str, Any]) -> None:
    source = clustering.open_source(data(), variables=["rows"], sample_dims=["row"])
    fit = clustering.fit(source, clustering.GaussianMixture(3), **wish)
    sample = samples.sample_rows(source, fit.fitted)
    assert sample is not None
    assert np.allclose(np.linalg.norm(sample.rows, axis=1), 1.0) == ("unit_norm" in wish)
    expected = fit.responsibilities(data(), variables=["rows"], sample_dims=["row"]).values
    np.testing.assert_allclose(sample.resp, expected, atol=1e-9)
    assert samples.draw(sample, fit.fitted, fit.fitted.clusters).png.startswith(b"\x89PNG")


def test_rows_without_a_direction_are_left_out_and_the_rest_is_not_all() -> None:
    values = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 2.0], [5.0, 0.0]])
    fit = clustering.fit(values[[0, 2, 3]], clustering.KMeans(2), unit_norm=True)
    for rows, complete in ((values, False), (values[[0, 2, 3]], True)):
        sample = samples.sample_rows(clustering.open_source(rows), fit.fitted)
        assert sample is not None
        np.testing.assert_allclose(sample.rows, [[0.6, 0.8], [0.0, 1.0], [1.0, 0.0]])
        assert sample.complete == complete
