"""The page of a fit in memory, and the drift over the versions of an output."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import clustering as c
from clustering.run.drift import VERSIONS, version_track
from clustering.storage.bucket_output import open_output
from clustering.storage.model import load_model

WHERE: dict[str, Any] = {"variables": ["t"], "sample_dims": ["y", "x"], "feature_dims": ["month"]}


def series(shift: float = 0.0) -> xr.Dataset:
    rng, month = np.random.default_rng(0), np.arange(6.0)
    kind = np.repeat(np.arange(3), 4)[:, None, None]
    values = 20 * kind + (kind + 1) * month + rng.normal(0, 1, (12, 10, 6)) + shift * (kind == 2)
    values[0, 0] = np.nan
    return xr.Dataset({"t": (("y", "x", "month"), values, {"units": "K"})}, {"month": month})


def titles(page: Path) -> list[str]:
    return re.findall(r"<h3>([^<]*)</h3>", page.read_text())


@pytest.fixture(scope="module")
def fit() -> c.Fit:
    return c.fit(series(), c.KMeans(3), **WHERE)


def test_the_page_of_a_model_needs_no_data(fit: c.Fit, tmp_path: Path) -> None:
    page = fit.report(tmp_path / "new" / "report.html")
    assert page == tmp_path / "new" / "report.html"
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]
    assert titles(page) == ["Sizes", "Centers", "All clusters", "Cost curve"]
    text = page.read_text()
    assert "Three clusters of 119 rows; each has" in text or "Three clusters of 119 rows; the largest" in text
    assert "1 cells masked" in text
    assert "wall time" not in text


def test_with_data_the_page_shows_their_rows(fit: c.Fit, tmp_path: Path) -> None:
    page = fit.report(tmp_path / "report.html", data=series(), **WHERE)
    assert titles(page) == [
        "Labels", "Sizes", "Centers", "All clusters", "Margin", "Cost curve", "Simplified silhouettes",
    ]  # fmt: skip
    assert "10–90 % of 119 rows" in page.read_text()
    soft = c.fit(series(), c.GaussianMixture(3, "diagonal"), **WHERE)
    page = soft.report(
        tmp_path / "soft.html", data=series(), mask=xr.DataArray(np.ones((12, 10), bool), dims=("y", "x"))
    )
    assert {"Responsibility", "Information criteria"} <= set(titles(page))


def test_a_page_is_replaced_only_when_wished_and_nothing_else_ever(fit: c.Fit, tmp_path: Path) -> None:
    page = fit.report(tmp_path / "report.html")
    with pytest.raises(c.ClusteringError, match="exists; name another file, or replace it with overwrite=True"):
        fit.report(page)
    assert fit.report(page, overwrite=True) == page
    other = tmp_path / "index.html"
    other.write_text("<!doctype html><title>mine</title>")
    with pytest.raises(c.ClusteringError, match="is not a page of this library, so it is not replaced"):
        fit.report(other, overwrite=True)
    assert other.read_text().endswith("mine</title>")
    link = tmp_path / "link.html"
    link.symlink_to(page)
    for place, message in (
        (tmp_path, "is a folder; name a file in it"),
        (link, "is a link"),
        ("s3://b/r.html", "a URL"),
    ):
        with pytest.raises(c.ClusteringError, match=message):
            fit.report(place, overwrite=True)
    fit.save(tmp_path / "model.zarr")
    with pytest.raises(c.ClusteringError, match="is inside the Zarr store"):
        fit.report(tmp_path / "model.zarr" / "report.html")


def test_a_failed_drawing_leaves_the_earlier_page(fit: c.Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = fit.report(tmp_path / "report.html")
    before = page.read_bytes()
    with pytest.raises(c.ClusteringError, match="the data have"):
        fit.report(page, data=series().isel(month=slice(3)), overwrite=True, **WHERE)
    monkeypatch.setattr("clustering.report.page.render", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit.report(page, overwrite=True)
    assert page.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_reports_follow_the_clusters_over_the_versions(tmp_path: Path) -> None:
    store, out = tmp_path / "series.zarr", tmp_path / "out"
    runs = []
    for night in range(3):
        series(3.0 * night).to_zarr(store, mode="w", consolidated=False, zarr_format=3)
        later = {"init": "model"} if night else {}
        runs.append(c.run(str(store), c.KMeans(3), output=str(out), overwrite=True, **WHERE, **later))
    output = open_output(str(out))
    record = output.read_json("run.json")
    drawn = version_track(output, record, load_model(output.published)[0], output.published)
    assert drawn is not None
    track, unread = drawn
    assert unread == 0
    assert (len(track.names), track.shares.shape, VERSIONS) == (3, (3, 3), 12)
    np.testing.assert_allclose(track.objectives, [run.fit.objective / 119 for run in runs])
    np.testing.assert_allclose(track.shares, [run.fit.fitted.shares for run in runs])
    # Cluster of the third kind moves by 3 K in each night, and the others stay.
    assert np.isnan(track.shifts[0]).all()
    deviations = np.sqrt(runs[2].fit.fitted.summary.variance)
    steps = np.diff([run.fit.fitted.centers for run in runs], axis=0) / deviations
    np.testing.assert_allclose(track.shifts[1:], np.sqrt((steps**2).mean(axis=2)))
    assert (track.shifts[1:] > 0.05).sum(axis=1).tolist() == [1, 1]
    page = out / "report.html"
    assert {"Transitions", "Changed cells", "Drift over versions"} <= set(titles(page))
    assert "Drift over versions" not in (out / "versions" / runs[0].name / "report.html").read_text()
    # A damaged version is left out, and the caption says so.
    (out / "versions" / runs[0].name / "model.zarr" / "zarr.json").write_text("{")
    again = version_track(output, record, load_model(output.published)[0], output.published)
    assert again is not None
    assert (len(again[0].names), again[1]) == (2, 1)
