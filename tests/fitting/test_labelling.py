from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import clustering as c
from clustering.data.access import open_source
from clustering.errors import ConfigError
from clustering.execution.engine import connect
from clustering.execution.passes import pass_runner
from clustering.fitting.cluster_names import default_names
from clustering.fitting.labelling import (
    LEVELS,
    LabelOutputs,
    label_blocks,
    outlier_score,
    output_variables,
    smaller_outputs,
)
from clustering.storage.labels import create_labels

MODELS = {
    "full": c.GaussianMixture(3),
    "tied": c.GaussianMixture(3, "tied"),
    "spherical": c.GaussianMixture(3, "spherical"),
    "soft": c.SoftKMeans(3, beta=0.4),
    "mahalanobis": c.SoftKMeans(3, beta=1.0, divergence="mahalanobis"),
}
models = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(-4, 4, (3, 2))[rng.integers(0, 3, 500)] + rng.standard_normal((500, 2))


def log_densities(fit: c.Fit, rows: np.ndarray) -> np.ndarray:
    """Log of weight times density of every component ``(n, k)``, one by one."""
    k, d = fit.centers.shape
    logs = []
    for i in range(k):
        match fit.model:
            case c.GaussianMixture(covariance="spherical"):
                covariance = fit.covariances[i] * np.eye(d)
            case c.GaussianMixture(covariance="tied"):
                covariance = fit.covariances
            case c.GaussianMixture():
                covariance = fit.covariances[i]
            case c.SoftKMeans(divergence="mahalanobis"):
                covariance = np.linalg.inv(fit.params.matrix.T @ fit.params.matrix) / (2 * fit.params.beta)
            case _:
                covariance = np.eye(d) / (2 * fit.params.beta)
        weight = fit.weights[i] if fit.model.kind == "gaussian_mixture" else 1 / k
        logs.append(np.log(weight) + stats.multivariate_normal(fit.centers[i], covariance).logpdf(rows))
    return np.array(logs).T


def written(fit: c.Fit, data: Any, outputs: LabelOutputs, path: Any, **options: Any) -> xr.Dataset:
    source = open_source(data, **options)
    plan = source.plan(block_bytes=1000)
    with connect("threads", 2) as engine, pass_runner(source, plan, engine, memory=2**26, keep=False) as inside:
        write = create_labels(path, source, plan, default_names(fit.model.k), {}, outputs, fit.model)
        label_blocks(inside, fit.model, fit.params, write, outputs)
    return xr.open_dataset(path, engine="zarr", consolidated=False, chunks=None)


@models
def test_every_output_of_a_row_equals_a_direct_evaluation(model: Any, rows: np.ndarray, tmp_path: Any) -> None:
    fit = c.fit(rows, model)
    logs = log_densities(fit, rows)
    density = np.logaddexp.reduce(logs, axis=1)
    shares = np.exp(logs - density[:, None])
    np.testing.assert_allclose(fit.responsibilities(rows), shares, atol=1e-12)
    np.testing.assert_allclose(fit.log_density(rows), density, rtol=1e-10)
    np.testing.assert_array_equal(fit.predict(rows), shares.argmax(axis=1))
    dataset = written(
        fit, rows, LabelOutputs(responsibilities="all", log_density=True, outlier_score=True), tmp_path / "all"
    )
    np.testing.assert_allclose(dataset["responsibilities"], shares, atol=1e-3)
    np.testing.assert_allclose(dataset["log_density"], density, rtol=1e-6)
    assert dataset["responsibilities"].dims == ("row", "cluster")
    own = np.take_along_axis(logs, shares.argmax(axis=1)[:, None], axis=1)[:, 0]
    centers = log_densities(fit, fit.centers)
    far = 2 * (np.diagonal(centers)[shares.argmax(axis=1)] - own)
    expected = -stats.chi2.logsf(far, 2) / np.log(10)
    np.testing.assert_allclose(dataset["outlier_score"], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(fit.outlier_score(rows), expected, rtol=1e-8, atol=1e-10)


def test_the_largest_responsibilities_are_written_with_their_clusters(rows: np.ndarray, tmp_path: Any) -> None:
    fit = c.fit(rows, MODELS["full"])
    shares = fit.responsibilities(rows)
    order = np.argsort(-shares, axis=1, kind="stable")[:, :2]
    dataset = written(fit, rows, LabelOutputs(responsibilities="top", top=2, precision="uint8"), tmp_path / "top")
    np.testing.assert_array_equal(dataset["top_clusters"], order)
    expected = np.take_along_axis(shares, order, axis=1)
    np.testing.assert_allclose(dataset["top_responsibilities"], expected, atol=0.51 / LEVELS)
    best = written(fit, rows, LabelOutputs(responsibilities="max"), tmp_path / "max")
    np.testing.assert_allclose(best["responsibility"], shares.max(axis=1), atol=1e-3)
    np.testing.assert_array_equal(best["labels"], order[:, 0])


def test_masked_cells_are_missing_in_every_output(rows: np.ndarray, tmp_path: Any) -> None:
    fit = c.fit(rows, MODELS["full"])
    mask = np.arange(500) % 7 != 3
    for precision in ("float16", "uint8"):
        outputs = LabelOutputs(responsibilities="all", precision=precision, log_density=True, outlier_score=True)
        dataset = written(fit, rows, outputs, tmp_path / precision, mask=mask)
        assert (dataset["labels"].values[~mask] == -1).all()
        for name in ("responsibilities", "log_density", "outlier_score"):
            missing = np.isnan(dataset[name].values).reshape(500, -1)
            assert missing[~mask].all()
            assert not missing[mask].any()


def test_rows_of_weight_zero_have_responsibilities_too(rows: np.ndarray) -> None:
    fit = c.fit(rows, MODELS["full"])
    weights = np.where(np.arange(500) % 5, 1.0, 0.0)
    np.testing.assert_array_equal(fit.responsibilities(rows, weights=weights), fit.responsibilities(rows))
    np.testing.assert_array_equal(fit.log_density(rows, weights=weights), fit.log_density(rows))


def test_rows_with_gaps_get_responsibilities_from_the_features_they_have(rows: np.ndarray) -> None:
    fit = c.fit(rows, MODELS["full"])
    holed = rows.copy()
    holed[::3, 1] = np.nan
    shares = fit.responsibilities(holed, missing="marginalize")
    alone = [
        stats.norm(fit.centers[i, 0], np.sqrt(fit.covariances[i, 0, 0])).logpdf(rows[::3, 0]) + np.log(fit.weights[i])
        for i in range(3)
    ]
    expected = np.exp(alone - np.logaddexp.reduce(alone, axis=0)).T
    np.testing.assert_allclose(shares[::3], expected, atol=1e-12)
    complete = np.arange(500) % 3 != 0
    np.testing.assert_allclose(shares[complete], fit.responsibilities(rows)[complete], atol=1e-14)
    density = fit.log_density(holed, missing="marginalize")
    np.testing.assert_allclose(density[::3], np.logaddexp.reduce(alone, axis=0), rtol=1e-10)


METRICS = {**MODELS, "hard": c.KMeans(3), "hard cosine": c.KMeans(3, "cosine")}


@pytest.mark.parametrize("model", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize("weightless", [False, True])
def test_distances_and_margins_belong_to_the_labels(
    model: Any, weightless: bool, rows: np.ndarray, tmp_path: Any
) -> None:
    fit = c.fit(rows, model)
    mask = np.arange(500) % 7 != 3
    options: dict[str, Any] = {"mask": mask}
    if weightless:
        options["weights"] = np.where(np.arange(500) % 5, 1.0, 0.0)
    dataset = written(fit, rows, LabelOutputs(distance=True, margin=True, distances=True), tmp_path / "all", **options)
    every = fit.distances(rows)
    assert every.shape == (500, 3)
    assert every.dtype == np.float64
    labels = fit.predict(rows)
    np.testing.assert_array_equal(fit.distance(rows), every[np.arange(500), labels])
    if hasattr(model, "e_step"):
        shares = np.sort(fit.responsibilities(rows), axis=1)
        margin = shares[:, -1] - shares[:, -2]
    else:
        order = np.sort(every, axis=1)
        np.testing.assert_array_equal(order[:, 0], fit.distance(rows))
        margin = order[:, 1] - order[:, 0]
    np.testing.assert_allclose(fit.margin(rows), margin, rtol=1e-12, atol=1e-15)
    for name, expected in (("distance", fit.distance(rows)), ("margin", margin), ("distances", every)):
        assert dataset[name].dtype == np.float32
        np.testing.assert_array_equal(dataset[name].values[mask], expected.astype(np.float32)[mask])
        assert np.isnan(dataset[name].values[~mask]).all()
        assert dataset[name].attrs["long_name"]
    assert dataset["distances"].dims == ("row", "cluster")
    assert dataset["cluster"].values.tolist() == [0, 1, 2]


def test_attributes_say_what_the_numbers_are(rows: np.ndarray, tmp_path: Any) -> None:
    def about(model: Any) -> dict[str, dict[str, Any]]:
        fit = c.fit(rows, model)
        dataset = written(fit, rows, LabelOutputs(distance=True, margin=True), tmp_path / model.kind)
        return {name: dataset[name].attrs for name in ("distance", "margin")}

    assert about(c.KMeans(2)) == {
        "distance": {"long_name": "Euclidean distance from the own center"},
        "margin": {"long_name": "Euclidean distance: from the nearest other center less that from the own"},
    }
    assert about(c.GaussianMixture(2)) == {
        "distance": {
            "long_name": "Mahalanobis distance under the component's covariance from the own center", "units": "1",
        },
        "margin": {"long_name": "largest responsibility less the second largest", "units": "1"},
    }  # fmt: skip


def test_a_single_cluster_is_all_the_margin_there_is(rows: np.ndarray) -> None:
    assert (c.fit(rows, c.KMeans(1)).margin(rows) == np.inf).all()
    np.testing.assert_allclose(c.fit(rows, c.GaussianMixture(1)).margin(rows), 1.0)


def test_distances_of_labelled_data_are_labelled(rows: np.ndarray) -> None:
    data = xr.DataArray(rows.reshape(20, 25, 2), dims=("lat", "lon", "feature"), coords={"lat": np.arange(20.0)})
    options: dict[str, Any] = {"sample_dims": ["lat", "lon"], "feature_dims": ["feature"]}
    fit = c.fit(data, c.KMeans(3), **options)
    distances = fit.distances(data, **options)
    assert distances.dims == ("lat", "lon", "cluster")
    xr.testing.assert_equal(distances["lat"], data["lat"])
    assert fit.margin(data, **options).min() >= 0


@pytest.mark.parametrize("freedom", [1, 2, 7, 40])
def test_outlier_scores_stay_right_where_the_tail_underflows(freedom: int) -> None:
    squared = np.array([0.0, 1.0, 10.0, 100.0, 1000.0, 1330.0, 1400.0, 5000.0, 1e6])
    score = outlier_score(squared, np.full(len(squared), float(freedom)))
    assert np.isfinite(score).all()
    assert (np.diff(score[1:]) > 0).all()
    inside = squared < 1300
    np.testing.assert_allclose(score[inside], -stats.chi2.logsf(squared[inside], freedom) / np.log(10), atol=1e-9)
    # The leading term of the tail, where no library has a value.
    a, x = freedom / 2, squared[-1] / 2
    leading = x - (a - 1) * np.log(x) + np.log(float(np.prod(np.arange(a - 1, 0, -1)))) if freedom % 2 == 0 else None
    if leading is not None:
        np.testing.assert_allclose(score[-1], leading / np.log(10), rtol=1e-4)


def test_outputs_that_a_model_does_not_have_are_refused(rows: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="the model is kmeans, whose rows belong to one cluster each"):
        c.fit(rows, c.KMeans(2)).responsibilities(rows)
    positive = np.abs(rows) + 0.1
    with pytest.raises(ConfigError, match="describes no density"):
        c.fit(positive, c.SoftKMeans(2, 1.0, "kullback_leibler")).log_density(positive)


def test_no_more_than_k_are_the_largest() -> None:
    assert smaller_outputs(LabelOutputs(responsibilities="top", top=9), 4) == (
        "output.top is 9 and k is 4: the responsibilities of all 4 clusters are written",
    )
    assert smaller_outputs(LabelOutputs(responsibilities="top", top=4), 4) == ()
    assert smaller_outputs(LabelOutputs(top=9), 4) == ()
    assert {v.name: v.extra for v in output_variables(LabelOutputs(responsibilities="top", top=9), default_names(4))}[
        "top_clusters"
    ] == (("rank", 4),)
