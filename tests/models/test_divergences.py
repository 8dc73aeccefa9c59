from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from brute import blobs, divergences, means, relative

import clustering as c
from clustering.data.rows import in_memory_rows
from clustering.models import divergences as geometry
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.option_names import DIVERGENCES

every = pytest.mark.parametrize("name", DIVERGENCES)
OTHERS = tuple(name for name in DIVERGENCES if name != "squared_euclidean")


def rows_for(name: str, seed: int, n: int, d: int, k: int) -> np.ndarray:
    values = blobs(seed, n, d, k)
    values[: n // 10, 0] = 0.0
    if name == "itakura_saito":
        return np.exp(values / 4)
    return np.abs(values) if name == "kullback_leibler" else values


def whole_covariance(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.atleast_2d(np.cov(values.T, aweights=weights, ddof=0))


@pytest.mark.parametrize("k", [3, 20], ids="k-{}".format)
@pytest.mark.parametrize("d", [1, 3, 40], ids="d-{}".format)
@every
def test_a_pass_is_that_of_plain_numpy(name: Any, d: int, k: int, rng: np.random.Generator) -> None:
    n = 200
    values, weights = rows_for(name, 0, n, d, k), rng.random(n) * 3
    if d == 1 and name == "cosine":
        values = values[values[:, 0] != 0]
        weights = weights[: len(values)]
        n = len(values)
    matrix = geometry.whitening(name, whole_covariance(values, weights))
    shift = geometry.choose_origin(name, values.mean(axis=0))
    # Centers are means of a few rows, so that no center holds a zero.
    centers = means(name, values[: 4 * k], np.repeat(np.eye(k), 4, axis=0) * rng.uniform(0.5, 1.5, (4 * k, 1)))
    params, model = KMeansParams(shift, centers - shift, matrix=matrix), KMeans(k, name)
    rows = in_memory_rows(values, weights)
    away = divergences(name, values, centers, matrix)
    assignment = model.assign(params, rows)
    least = away.min(axis=1)
    scale = away.max()
    np.testing.assert_allclose(assignment.distances, least, rtol=1e-9, atol=1e-14 * scale)
    ties = np.sort(away, axis=1)
    clear = ties[:, 1] - ties[:, 0] > 1e-12 * scale
    np.testing.assert_array_equal(assignment.labels[clear], away.argmin(axis=1)[clear])
    statistics = model.statistics(params, rows)
    assert statistics.objective == pytest.approx(float(weights @ least), rel=1e-11, abs=1e-13 * scale)
    update = model.update(params, statistics)
    shares = (assignment.labels[:, None] == np.arange(k)) * weights[:, None]
    if shares.any(axis=0).all():
        new = means(name, values, shares)
        assert relative(update.params.origin + update.params.centers, new) < 1e-12
        after = np.sum(shares * divergences(name, values, new, matrix))
        assert update.objective == pytest.approx(after, rel=1e-10, abs=1e-12 * statistics.objective)
    if name == "cosine":
        np.testing.assert_allclose(np.linalg.norm(update.params.centers, axis=1), 1.0, rtol=1e-14)


@every
@pytest.mark.parametrize("model", [c.KMeans, c.SoftKMeans])
def test_a_fit_ends_at_the_best_centers_of_its_labels(model: Any, name: Any) -> None:
    values = rows_for(name, 3, 300, 3, 4)
    fit = c.fit(values, model(4, divergence=name), restarts=3, tolerance=1e-13)
    # All objectives of the history, in order.
    objectives = fit.history.ravel()
    assert (np.diff(objectives) <= 1e-12 * np.abs(objectives).max()).all()
    if model is c.KMeans:
        labels = fit.predict(values)
        shares = (labels[:, None] == np.arange(4)).astype(float)
        assert relative(fit.centers, means(name, values, shares)) < 1e-12
        matrix = geometry.whitening(name, whole_covariance(values, np.ones(300)))
        direct = np.sum(shares * divergences(name, values, fit.centers, matrix))
        assert fit.objective == pytest.approx(direct, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e15], ids="{:g}".format)
@pytest.mark.parametrize("model", [c.KMeans, c.SoftKMeans])
def test_the_mahalanobis_distance_does_not_depend_on_the_units(model: Any, scale: float) -> None:
    values = rows_for("mahalanobis", 5, 400, 3, 4)
    change = scale * np.diag([2.0, 1e3, 1e-3]) @ np.array([[1.0, 0.3, 0.0], [0.5, 1.0, -0.2], [0.1, -0.5, 1.0]])
    init = np.vstack([values[:3], [[99.0, 99.0, 99.0]]])
    plain = c.fit(values, model(4, divergence="mahalanobis"), init=init, max_iterations=15)
    other = c.fit(values @ change.T, model(4, divergence="mahalanobis"), init=init @ change.T, max_iterations=15)
    np.testing.assert_array_equal(other.predict(values @ change.T), plain.predict(values))
    np.testing.assert_allclose(other.history, plain.history, rtol=1e-9)
    assert relative(other.centers @ np.linalg.inv(change).T, plain.centers) < 1e-9
    assert other.fitted.notes == plain.fitted.notes


def test_the_cosine_does_not_depend_on_the_lengths_of_rows(rng: np.random.Generator) -> None:
    values = rows_for("cosine", 6, 300, 3, 3)
    lengths = 10.0 ** rng.uniform(-120, 120, (300, 1))
    plain = c.fit(values, c.KMeans(3, "cosine"), init=values[-3:])
    other = c.fit(values / np.linalg.norm(values, axis=1)[:, None] * lengths, c.KMeans(3, "cosine"), init=values[-3:])
    assert relative(other.centers, plain.centers) < 1e-12
    np.testing.assert_allclose(other.objective, plain.objective, rtol=1e-11)


LENGTHS = [5e-324, 1e-310, 1e-160, 1e-17, 1.0, 1e17, 1e160, 1e308]


@pytest.mark.parametrize("length", LENGTHS, ids="{:g}".format)
@pytest.mark.parametrize("model", [c.KMeans(3, "cosine"), c.SoftKMeans(3, 5.0, "cosine")], ids=["hard", "soft"])
def test_starting_directions_may_have_any_length(model: Any, length: float) -> None:
    values = rows_for("cosine", 6, 300, 3, 3)
    # Entries are 0 or 1, so that multiples keep their directions even for the smallest float.
    init = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    plain = c.fit(values, model, init=init, max_iterations=0)
    other = c.fit(values, model, init=init * length, max_iterations=0)
    np.testing.assert_allclose(np.linalg.norm(other.centers, axis=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(other.centers, init / np.linalg.norm(init, axis=1)[:, None], rtol=1e-14)
    assert other.objective == pytest.approx(plain.objective, rel=1e-13)
    with pytest.raises(c.ClusteringError, match="init holds a row of zeros"):
        c.fit(values, model, init=init * [[1.0], [0.0], [1.0]])


@pytest.mark.parametrize("length", LENGTHS, ids="{:g}".format)
@pytest.mark.parametrize("model", [c.KMeans(3, "cosine"), c.SoftKMeans(3, 5.0, "cosine")], ids=["hard", "soft"])
def test_rows_of_any_length_are_labelled_by_their_directions(model: Any, length: float) -> None:
    fit = c.fit(rows_for("cosine", 6, 300, 3, 3), model)
    rows = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    np.testing.assert_array_equal(fit.predict(rows * length), fit.predict(rows))
    np.testing.assert_allclose(fit.distances(rows * length), fit.distances(rows), rtol=1e-12)
    np.testing.assert_allclose(fit.margin(rows * length), fit.margin(rows), rtol=1e-11)
    labels = np.array([0, 1, 2])
    labels_fit = c.fit(rows * min(length, 1e150), c.KMeans(3, "cosine"), labels=labels, init="labels", max_iterations=0)
    np.testing.assert_allclose(labels_fit.centers, rows / np.linalg.norm(rows, axis=1)[:, None], rtol=1e-14)


BAD = {
    "kullback_leibler": (-0.5, r"-0\.5 in variable .*: kullback_leibler compares numbers of zero or more"),
    "itakura_saito": (0.0, r"value 0 in variable .*: itakura_saito compares numbers above zero"),
    "cosine": (0.0, r"a row of zeros in block .*: it has no direction"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("model", [c.KMeans, c.SoftKMeans])
@pytest.mark.parametrize("stored", [False, True], ids=["in-memory", "zarr"])
def test_values_outside_the_domain_name_their_place(name: str, model: Any, stored: bool, tmp_path: Path) -> None:
    value, words = BAD[name]
    fields = {v: ("x", np.random.default_rng(0).uniform(1, 2, 40)) for v in ("rain", "snow")}
    for v in ("rain", "snow") if name == "cosine" else ("snow",):
        fields[v][1][25] = value
    data: Any = xr.Dataset(fields)
    if stored:
        chunks = {v: {"chunks": (10,)} for v in fields}
        data.to_zarr(tmp_path / "s.zarr", consolidated=False, zarr_format=3, encoding=chunks)
        data = tmp_path / "s.zarr"
    with pytest.raises(c.ClusteringError, match=words) as caught:
        c.fit(data, model(2, divergence=name), variables=["rain", "snow"], block_bytes=160)
    message = str(caught.value)
    assert name == "cosine" or "snow" in message
    assert "block" in message, message
