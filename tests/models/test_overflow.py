"""Rows whose squares are beyond float64 are labelled and measured as exact arithmetic says."""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from brute import KINDS, blobs, holes

import clustering as c
from clustering.models import covariances as kinds

FAR = [1e155, 1.7e308]
HARD = {name: c.KMeans(3, name) for name in ("squared_euclidean", "mahalanobis")}
SOFT: dict[str, Any] = {
    "soft": c.SoftKMeans(3, 0.5),
    "soft mahalanobis": c.SoftKMeans(3, 0.5, "mahalanobis"),
    **{kind: c.GaussianMixture(3, kind) for kind in KINDS},
}
MODELS: dict[str, Any] = {**HARD, **SOFT}
every = pytest.mark.parametrize("name", MODELS)
far = pytest.mark.parametrize("length", FAR, ids="{:g}".format)


@functools.cache
def fitted(name: str) -> c.Fit:
    return c.fit(rows_of(), MODELS[name])


def rows_of(d: int = 3) -> np.ndarray:
    return blobs(4, 90, d, 3)


def remote_rows(length: float, d: int = 3) -> np.ndarray:
    directions = np.random.default_rng(5).uniform(-1.0, 1.0, (40, d))
    directions[0], directions[1] = np.eye(d)[0], -np.eye(d)[0]
    return directions * length


def precisions(fit: c.Fit) -> list[np.ndarray]:
    """Inverse covariances that define the distances of a fit."""
    k, d = fit.params.centers.shape
    matrix = getattr(fit.params, "matrix", np.zeros((0, 0)))
    if matrix.size:
        return [matrix.T @ matrix] * k
    if isinstance(fit.model, c.GaussianMixture):
        return [np.linalg.inv(kinds.as_full(fit.model.covariance, fit.params.covariances, i, d)) for i in range(k)]
    return [np.eye(d)] * k


def exact_labels(fit: c.Fit, values: np.ndarray) -> list[int]:
    """Nearest center of each row, computed with exact fractions."""
    labels = []
    for x in values:
        have = np.flatnonzero(~np.isnan(x))
        divergences = []
        for center, precision in zip(fit.centers, precisions(fit), strict=True):
            inverse = precision if len(have) == len(x) else np.linalg.inv(np.linalg.inv(precision)[np.ix_(have, have)])
            away = [Fraction(float(x[j])) - Fraction(float(center[j])) for j in have]
            terms = (
                away[i] * away[j] * Fraction(float(inverse[i, j])) for i in range(len(have)) for j in range(len(have))
            )
            divergences.append(sum(terms))
        labels.append(int(np.argmin(np.array(divergences, object))))
    return labels


@far
@every
def test_the_label_is_that_of_exact_arithmetic(name: str, length: float) -> None:
    fit, rows = fitted(name), remote_rows(length)
    np.testing.assert_array_equal(fit.predict(rows), exact_labels(fit, rows))


@far
@pytest.mark.parametrize("name", SOFT)
def test_soft_models_report_that_a_row_is_infinitely_far_out(name: str, length: float) -> None:
    fit, rows = fitted(name), remote_rows(length)
    labels = fit.predict(rows)
    np.testing.assert_array_equal(fit.responsibilities(rows), np.eye(3)[labels])
    assert (fit.margin(rows) == 1.0).all()
    assert (fit.log_density(rows) == -np.inf).all()
    assert (fit.outlier_score(rows) == np.inf).all()
    assert not np.isnan(fit.distances(rows)).any()
    assert abs(fit.score(rows)) == np.inf


@far
@pytest.mark.parametrize("name", HARD)
def test_distances_are_what_they_are_where_float64_holds_them(name: str, length: float) -> None:
    fit, rows = fitted(name), remote_rows(length)[:2]
    matrix = fit.params.matrix if fit.params.matrix.size else np.eye(3)
    reach = np.abs(matrix[:, 0] / np.linalg.norm(matrix[:, 0]))
    with np.errstate(over="ignore"):
        expected = np.linalg.norm(matrix[:, 0]) * length * np.linalg.norm(reach)
    np.testing.assert_allclose(fit.distances(rows), np.full((2, 3), expected), rtol=1e-13)
    np.testing.assert_allclose(fit.distance(rows), [expected] * 2, rtol=1e-13)
    assert (fit.margin(rows) >= 0.0).all()
    assert fit.score(rows) == np.inf


@every
def test_other_rows_of_the_same_block_stay_what_they_are(name: str) -> None:
    fit, near = fitted(name), rows_of()[:20]
    both = np.concatenate([near, remote_rows(1e200)])[np.random.default_rng(0).permutation(60)]
    mine = np.abs(both).max(axis=1) < 1e100
    np.testing.assert_array_equal(fit.predict(both)[mine], fit.predict(both[mine]))
    np.testing.assert_allclose(fit.distances(both)[mine], fit.distances(both[mine]), rtol=1e-13)
    np.testing.assert_allclose(fit.margin(both)[mine], fit.margin(both[mine]), rtol=1e-13)
    weights = mine.astype(float)
    assert fit.score(both, weights=weights) == pytest.approx(fit.score(both[mine]), rel=1e-13)


@pytest.mark.parametrize("kind", [*KINDS, "soft", "hard"])
def test_an_exact_tie_of_directions_goes_to_the_nearer_center(kind: Any) -> None:
    init: Any = np.array([[0.0, 9.0], [0.0, -6.0], [0.0, 7.0]])
    model: Any = {"soft": c.SoftKMeans(3, 0.5), "hard": c.KMeans(3)}.get(kind) or c.GaussianMixture(3, kind)
    if kind in KINDS:
        ones = {"spherical": np.ones(3), "diagonal": np.ones((3, 2)), "tied": np.eye(2), "full": [np.eye(2)] * 3}
        init = {"centers": init, "weights": np.full(3, 1 / 3), "covariances": ones.get(kind)}
    fit = c.fit(np.random.default_rng(0).normal(size=(50, 2)), model, init=init, max_iterations=0)
    rows = np.array([[1e200, 0.0], [-1e300, 0.0]])
    assert fit.predict(rows).tolist() == [1, 1]
    if kind != "hard":
        # −½ (‖c‖² − ‖c′‖²) is what remains of the difference of two log densities, or −β of it.
        odds = np.exp(-0.5 * (np.array([81.0, 36.0, 49.0]) - 36.0))
        np.testing.assert_allclose(fit.responsibilities(rows), [odds / odds.sum()] * 2, rtol=1e-9)


@pytest.mark.parametrize("kind", [*KINDS, "soft", "hard"])
def test_rows_that_lack_features_are_ranked_by_what_was_observed(kind: Any) -> None:
    model: Any = {"soft": c.SoftKMeans(3, 0.5), "hard": c.KMeans(3)}.get(kind) or c.GaussianMixture(3, kind)
    fit = c.fit(holes(0, blobs(4, 200, 4, 3), 0.2), model, missing="marginalize")
    rows = holes(1, remote_rows(1e200, 4)[2:], 0.4)
    labels = fit.predict(rows, missing="marginalize")
    np.testing.assert_array_equal(labels, exact_labels(fit, rows))
    assert not np.isnan(fit.margin(rows, missing="marginalize")).any()
    assert not np.isnan(fit.distances(rows, missing="marginalize")).any()
    if kind != "hard":
        assert (fit.outlier_score(rows, missing="marginalize") == np.inf).all()
        assert (fit.log_density(rows, missing="marginalize") == -np.inf).all()


@pytest.mark.parametrize("name", ["kullback_leibler", "itakura_saito"])
@pytest.mark.parametrize("make", [c.KMeans, lambda k, name: c.SoftKMeans(k, 2.0, name)], ids=["hard", "soft"])
def test_other_divergences_compare_what_differs(name: Any, make: Any) -> None:
    rows = np.exp(blobs(4, 90, 2, 3, 1.0))
    fit = c.fit(rows, make(3, name))
    remote = np.array([[1.5e308, 1.0], [1.0, 1.5e308], [1.5e308, 1.5e308]])
    slopes = -np.log(fit.centers) if name == "kullback_leibler" else 1.0 / fit.centers
    near = (slopes @ (remote.T / 1e308)).argmin(axis=0)
    np.testing.assert_array_equal(fit.predict(remote), near)
    assert not np.isnan(fit.margin(remote)).any()
    assert not np.isnan(fit.distances(remote)).any()


@pytest.mark.filterwarnings("ignore:beta is:clustering.ClusteringWarning")
@pytest.mark.parametrize(
    "options",
    [{"standardize": "per_feature"}, {"standardize": "per_variable", "pca": 2, "whiten": True}],
    ids=["standardize", "whiten"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", ["squared_euclidean", "soft", "full"])
def test_prepared_rows_beyond_float64_keep_their_direction(name: str, options: Any, dtype: Any) -> None:
    # Features are so small that standard deviations are far below 1.
    scale = 1e-30 if dtype == np.float64 else 1e-8
    fit = c.fit((rows_of() * scale).astype(dtype), MODELS[name], **options)
    length = 1.7e308 if dtype == np.float64 else 3e38
    near = remote_rows(1e200 if dtype == np.float64 else 1e20)
    remote = (near / np.abs(near).max() * length).astype(dtype)
    np.testing.assert_array_equal(fit.predict(remote), fit.predict(near.astype(dtype)))
    for method in ("margin", "distances", *(("log_density", "outlier_score") if name in SOFT else ())):
        assert not np.isnan(getattr(fit, method)(remote)).any()
