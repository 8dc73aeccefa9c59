"""Classes of ocean profiles, from the shipped config over made-up data of planted classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture as Reference

import clustering as c
from benchmarks import fields
from clustering_flows.cli import run

CONFIG = Path(__file__).parents[2] / "configs" / "ocean-profiles.yaml"
LAYOUTS = {"whole-profiles": False, "by-depth": True}
OPTIONS: dict[str, Any] = {
    "variables": ["temp", "salt"], "sample_dims": ["time", "lat", "lon"], "feature_dims": ["depth"],
    "select": {"depth": {"start": 0, "stop": 800}}, "standardize": "per_variable", "pca": 0.999,
    "pca_per_variable": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Store and output of a run, for each layout."""
    paths = {}
    for name, by_depth in LAYOUTS.items():
        folder = tmp_path_factory.mktemp(name)
        store, out = folder / "ocean.zarr", folder / "out"
        fields.ocean(store, by_depth=by_depth)
        settings = [f"--set=source.store={store}", f"--set=output.store={out}"]
        assert run(["fit", str(CONFIG), "--no-prefect", *settings]) == 0
        paths[name] = (store, out)
    return paths


def opened(path: Path) -> xr.Dataset:
    with xr.open_zarr(path, consolidated=False, chunks=None) as dataset:
        return dataset.load()


@pytest.fixture(scope="module")
def data(places: dict[str, tuple[Path, Path]]) -> xr.Dataset:
    return opened(places["whole-profiles"][0])


@pytest.fixture(scope="module")
def whole(data: xr.Dataset) -> np.ndarray:
    """Which places have all depths down to 800 m, in both variables."""
    upper = data[["temp", "salt"]].sel(depth=slice(0, 800))
    return (upper["temp"].notnull() & upper["salt"].notnull()).all("depth").values


def test_both_layouts_hold_the_same_data(places: dict[str, tuple[Path, Path]], data: xr.Dataset) -> None:
    other = opened(places["by-depth"][0])
    xr.testing.assert_identical(other.drop_encoding(), data.drop_encoding())
    assert other["temp"].encoding["chunks"] != data["temp"].encoding["chunks"]


def test_both_layouts_give_one_answer(places: dict[str, tuple[Path, Path]]) -> None:
    (one, other) = (opened(out / "labels.zarr") for _, out in places.values())
    np.testing.assert_array_equal(one["labels"], other["labels"])
    for name in ("responsibility", "margin"):
        np.testing.assert_allclose(one[name], other[name], atol=1e-3)
    records = [json.loads((out / "run.json").read_text()) for _, out in places.values()]
    assert records[0]["objective"] == pytest.approx(records[1]["objective"], rel=1e-9)
    assert records[0]["converged"]
    assert records[0]["iterations"] > 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_planted_classes_are_found_where_profiles_are_whole(
    layout: str, places: dict[str, tuple[Path, Path]], data: xr.Dataset, whole: np.ndarray
) -> None:
    labels = opened(places[layout][1] / "labels.zarr")
    predicted = labels["labels"].values
    assert 0.05 < (data["truth"].values < 0).mean() < (~whole).mean() < 0.5
    np.testing.assert_array_equal(predicted == -1, ~whole)
    np.testing.assert_array_equal(np.isnan(labels["responsibility"]), ~whole)
    assert adjusted_rand_score(data["truth"].values[whole], predicted[whole]) >= 0.95
    for name in ("time", "lat", "lon"):
        xr.testing.assert_identical(labels[name].variable, data[name].variable)
    assert labels["labels"].dtype == np.int8


def test_mean_profiles_come_back_in_their_units(
    places: dict[str, tuple[Path, Path]], data: xr.Dataset, whole: np.ndarray
) -> None:
    out = places["whole-profiles"][1]
    center_fields, truth = c.load_fit(out).fields, data["truth"].values
    labels = opened(out / "labels.zarr")["labels"].values
    table = np.zeros((6, 6))
    np.add.at(table, (truth[whole], labels[whole]), 1)
    own = linear_sum_assignment(-table)[1]
    upper = data["depth"].sel(depth=slice(0, 800))
    for name, planted in fields.profiles(upper.values).items():
        assert center_fields[name].attrs["units"] == data[name].attrs["units"]
        xr.testing.assert_identical(center_fields["depth"].variable, upper.variable)
        spread = planted.std()
        # Means of at least some hundreds of profiles, which stray by a third of the spread.
        np.testing.assert_allclose(center_fields[name].values[own], planted, atol=0.1 * spread)


def start(store: Path) -> c.Fit:
    """The mixture at its start, before any iteration."""
    return c.fit(store, c.GaussianMixture(6, regularization=0.0), max_iterations=0, tolerance=0, **OPTIONS)


def given(params: Any) -> dict[str, Any]:
    return {"weights": params.weights, "covariances": params.covariances}


def test_unweighted_passes_are_those_of_scikit_learn(places: dict[str, tuple[Path, Path]]) -> None:
    store = places["by-depth"][0]
    model = c.GaussianMixture(6, regularization=0.0)
    begin = start(store)
    fit = c.fit(store, model, max_iterations=30, tolerance=0, **OPTIONS)
    preparation = fit.fitted.preparation
    assert preparation is not None
    data = opened(store)[["temp", "salt"]].sel(depth=slice(0, 800))
    rows = np.concatenate([data[name].transpose(..., "depth").values.reshape(-1, 12) for name in data], axis=1)
    rows, _ = preparation.apply_to_values(rows[np.isfinite(rows).all(axis=1)])
    theirs = Reference(
        6, tol=0, reg_covar=0, max_iter=30, weights_init=begin.params.weights,
        means_init=begin.fitted.centers_prepared, precisions_init=np.linalg.inv(begin.params.covariances),
    )  # fmt: skip
    with pytest.warns(match="did not converge"):
        theirs.fit(rows)
    assert fit.objective == pytest.approx(theirs.score(rows), rel=1e-9)
    order = np.argsort(-theirs.weights_)
    np.testing.assert_allclose(fit.params.weights, theirs.weights_[order], rtol=1e-6)
    np.testing.assert_allclose(fit.fitted.centers_prepared, theirs.means_[order], atol=1e-6)
    np.testing.assert_allclose(fit.params.covariances, theirs.covariances_[order], atol=1e-6)


def test_whole_weights_are_rows_so_many_times(places: dict[str, tuple[Path, Path]], whole: np.ndarray) -> None:
    data = opened(places["whole-profiles"][0])[["temp", "salt"]].sel(depth=slice(0, 800))
    profiles = (
        data.stack(row=("time", "lat", "lon")).isel(row=np.flatnonzero(whole.ravel())[::10]).transpose("row", ...)
    )
    profiles = profiles.reset_index("row").drop_vars(("time", "lat", "lon"))
    weights = np.random.default_rng(0).integers(1, 4, profiles.sizes["row"])
    options = {**OPTIONS, "sample_dims": ["row"], "select": {}}
    begin = c.fit(profiles, c.GaussianMixture(6), weights=weights, max_iterations=0, **options)
    init = {"centers": begin.fitted.centers, **given(begin.params)}
    many = profiles.isel(row=np.repeat(np.arange(len(weights)), weights))
    fits = [
        c.fit(rows, c.GaussianMixture(6), init=init, max_iterations=20, tolerance=0, **options, **more)
        for rows, more in ((profiles, {"weights": weights}), (many, {}))
    ]
    weighted, repeated = fits
    assert weighted.objective == pytest.approx(repeated.objective, rel=1e-9)
    np.testing.assert_allclose(weighted.centers, repeated.centers, rtol=1e-7)
    np.testing.assert_allclose(weighted.weights, repeated.weights, rtol=1e-7)
    np.testing.assert_allclose(weighted.covariances, repeated.covariances, rtol=1e-5, atol=1e-9)
    # Weights matter: without them the answer is another one.
    plain = c.fit(profiles, c.GaussianMixture(6), init=init, max_iterations=20, tolerance=0, **options)
    assert abs(plain.objective - weighted.objective) > 1e-6
