"""Draws the picture of docs/plots.md: every kind of plot. Its argument is the file to write."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import iris_sample_data
import numpy as np
import xarray as xr
from matplotlib.figure import Figure, FigureBase

import clustering as c
from clustering.plots.choices import selection
from clustering.plots.versions import transitions

RNG = np.random.default_rng(3)
CLIMATE = Path(iris_sample_data.path) / "A1B_north_america.nc"


def ocean(n: int = 600) -> xr.Dataset:
    """Profiles of temperature and salinity of three kinds of water, and of a fourth that differs in salinity alone."""
    depth, kind = np.linspace(5, 800, 25), RNG.integers(0, 4, n)
    surface, scale = np.array([28.0, 18.0, 6.0, 6.0])[kind], np.array([120.0, 300.0, 500.0, 500.0])[kind]
    temp = 3 + (surface[:, None] - 3) * np.exp(-depth / scale[:, None]) + RNG.normal(0, 0.6, (n, 25))
    salt = np.array([36.0, 35.4, 34.0, 34.7])[kind][:, None] + 0.3 * np.tanh(depth / 300) + RNG.normal(0, 0.1, (n, 25))
    along = ("depth", depth, {"units": "m", "positive": "down"})
    return xr.Dataset(
        {"temp": (("profile", "depth"), temp, {"units": "degC"}), "salt": (("profile", "depth"), salt, {"units": "1"})},
        {"depth": along},
    )


def points(k: int, n: int) -> np.ndarray[Any, Any]:
    """Rows around k places of the plane, in five features."""
    places = 6 * RNG.standard_normal((k, 5)) * [1.5, 1, 0.4, 0.2, 0.1]
    return places[RNG.integers(0, k, n)] + RNG.standard_normal((n, 5)) * [1, 0.7, 0.5, 0.3, 0.3]


def photograph() -> xr.DataArray:
    """A picture in the colours of a sunset over hills."""
    y, x = np.mgrid[0:120, 0:180]
    sky = np.stack([250 - 0.6 * y, 170 - 1.0 * y + 0.1 * x, 90 + 0.4 * y], axis=-1)
    hills = y > 75 + 14 * np.sin(x / 17) + 8 * np.sin(x / 7)
    image = np.where(hills[..., None], np.array([30, 70, 40]) + 0.4 * x[..., None], sky)
    return xr.DataArray(np.clip(image, 0, 255).astype(np.uint8), dims=("y", "x", "channel"), name="image")


def draw(figure: FigureBase) -> None:
    """Draw every kind of plot."""
    parts = iter(figure.subfigures(8, 2, wspace=0.03, hspace=0.03).flat)

    def part(title: str) -> Any:
        panel = next(parts)
        panel.suptitle(title, fontsize="medium", fontweight="bold")
        return panel

    field = xr.open_dataset(CLIMATE)["air_temperature"]
    years = {"sample_dims": ["time"], "feature_dims": ["latitude", "longitude"]}
    places = {"sample_dims": ["latitude", "longitude"], "feature_dims": ["time"]}
    profiles = ocean()
    rows = {"variables": ["temp", "salt"], "sample_dims": ["profile"]}
    water = c.fit(profiles, c.GaussianMixture(4, "diagonal"), **rows)
    water.plot.centers(ax=part("plot.centers(): profiles, ±σ bands, coinciding curves"))
    by_year = c.fit(field, c.KMeans(3), **years)
    by_year.plot.centers(ax=part("plot.centers(form='departures'): maps"), form="departures")
    by_place = c.fit(field, c.KMeans(5), **places)
    by_place.plot.centers(field, ax=part("plot.centers(data): series, quantile bands"), **places)
    by_place.plot.labels(field, ax=part("plot.labels(data)"), **places)
    cells = {"sample_dims": ["time", "latitude", "longitude"], "feature_dims": []}
    by_cell = c.fit(field, c.KMeans(10), **cells)
    by_cell.plot.labels(field, frequency=True, ax=part("plot.labels(data, frequency=True)"), **cells)
    image = photograph()
    shades = {"sample_dims": ["y", "x"], "feature_dims": ["channel"]}
    c.fit(image, c.KMeans(8), **shades).plot.centers(ax=part("plot.centers(): swatches"))
    many = points(40, 8000)
    forty = c.fit(many, c.KMeans(40))
    forty.plot.sizes(ax=part("plot.sizes(): 40 clusters"))
    forty.plot.pca(many, ax=part("plot.pca(data): 40 clusters"))
    few = points(4, 1500)
    mixture = c.fit(few, c.GaussianMixture(4))
    by_cell.plot.cost(ax=part("plot.cost()"))
    mixture.plot.pca(few, ax=part("plot.pca(data)"))
    mixture.plot.silhouette(few, ax=part("plot.silhouette(data)"))
    near = few / [3, 3, 1, 1, 1] + RNG.standard_normal(few.shape)
    soft = c.fit(near, c.GaussianMixture(4, "tied"))
    soft.plot.margin(near, ax=part("plot.margin(data)"))
    soft.plot.responsibilities(near, ax=part("plot.responsibilities(data)"))
    c.fit(image, c.KMeans(40), restarts=2, **shades).plot.labels(
        image, ax=part("plot.labels(data): 40 clusters"), **shades
    )
    table = [
        {"k": k, "covariance": kind, "silhouette": 0.6 - 0.05 * abs(k - 4) - shift / 90, "bic": (k - 4) ** 2 + shift}
        for kind, shift in (("full", 0.0), ("diagonal", 9.0))
        for k in range(2, 11)
    ]  # fmt: skip
    selection(table, {"k": 4, "covariance": "full"}, part("selection(table, recommended)"))
    pairs = np.array([[0, 0], [0, 1], [1, 1], [1, 2], [2, 2], [3, 3], [3, 0], [-1, 2]])
    transitions(pairs, np.array([90.0, 10, 70, 30, 100, 55, 45, 20]), part("run.plot.transitions()"))


if __name__ == "__main__":
    sheet = Figure(figsize=(17, 34), layout="constrained")
    draw(sheet)
    sheet.savefig(sys.argv[1], dpi=65)
