from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans as Peer

import clustering as c
from clustering.data.rows import Rows, in_memory_rows
from clustering.errors import ConfigError, DomainError
from clustering.models import covariances as kinds
from clustering.models.kmeans_params import KMeansParams
from clustering.models.mixture_distances import bhattacharyya
from tests import brute


def distances(model: Any, params: Any, rows: Rows) -> np.ndarray:
    """Distances of all rows ``(n, k)``."""
    result = np.full((len(rows), params.k), np.nan)
    for away in model.distances(params, rows):
        assert np.isnan(result[away.row_index]).all()
        result[away.row_index] = away.distances.T
    assert not np.isnan(result).any()
    return result


def params_of(centers: np.ndarray, matrix: np.ndarray | None = None, shift: float = 0.0) -> KMeansParams:
    d = centers.shape[1]
    return KMeansParams(np.full(d, shift), centers - shift, matrix=np.zeros((0, 0)) if matrix is None else matrix)


@pytest.mark.parametrize("d", [1, 3, 40])
def test_squared_euclidean_gives_the_euclidean_distance(d: int) -> None:
    values = brute.blobs(0, 3000, d, 5)
    peer = Peer(5, n_init=1, random_state=0).fit(values)
    actual = distances(c.KMeans(5), params_of(peer.cluster_centers_, shift=0.5), in_memory_rows(values))
    np.testing.assert_allclose(actual, peer.transform(values), rtol=1e-9, atol=1e-7)
    np.testing.assert_allclose(actual, cdist(values, peer.cluster_centers_), rtol=1e-12, atol=1e-14)


def test_float32_rows_far_from_zero_keep_their_digits() -> None:
    values = (1e5 + brute.blobs(1, 500, 2, 3)).astype(np.float32)
    centers = values[:3].astype(np.float64) + 1e-6
    actual = distances(c.KMeans(3), params_of(centers, shift=1e5), in_memory_rows(values))
    np.testing.assert_allclose(actual, cdist(values.astype(np.float64), centers), rtol=1e-4, atol=0)
    assert (np.diagonal(actual[:3]) > 0).all()


@pytest.mark.parametrize("d", [2, 30])
def test_mahalanobis_is_under_the_covariance_of_all_rows(d: int) -> None:
    values = brute.blobs(2, 800, d, 4) @ np.random.default_rng(0).standard_normal((d, d))
    fit = c.fit(values, c.KMeans(4, "mahalanobis"), seed=1)
    inverse = np.linalg.inv(np.cov(values.T, bias=True).reshape(d, d))
    expected = cdist(values, fit.centers, "mahalanobis", VI=inverse)
    np.testing.assert_allclose(fit.distances(values), expected, rtol=1e-7)


@pytest.mark.parametrize("name", ["cosine", "kullback_leibler", "itakura_saito"])
@pytest.mark.parametrize("make", [c.KMeans, lambda k, name: c.SoftKMeans(k, 2.0, name)], ids=["hard", "soft"])
def test_other_divergences_are_returned_as_they_are(name: Any, make: Any) -> None:
    values = np.abs(brute.blobs(3, 700, 5, 3)) + 0.01
    if name == "kullback_leibler":
        values[::7, 2] = 0.0
    fit = c.fit(values, make(3, name))
    expected = brute.divergences(name, values, fit.centers)
    np.testing.assert_allclose(fit.distances(values), expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ["cosine", "kullback_leibler", "itakura_saito"])
def test_a_row_next_to_its_center_keeps_its_digits(name: Any) -> None:
    center = np.array([[0.5, 0.5, 0.5, 0.5]])
    step = np.array([[1.0, -1.0, 1.0, -1.0]]) * 2.0**-21
    actual = distances(c.KMeans(1, name), params_of(center), in_memory_rows(center + step))
    # Near the center, each divergence is φ″/2 times the squared step, with φ″ = 1, 1/c and 1/c².
    expected = {"cosine": 0.5, "kullback_leibler": 1.0, "itakura_saito": 2.0}[name] * float(np.sum(step**2))
    np.testing.assert_allclose(actual, [[expected]], rtol=1e-5)


def test_an_empty_count_of_a_center_is_far_but_finite() -> None:
    actual = distances(c.KMeans(2, "kullback_leibler"), params_of(np.array([[0.0, 1.0], [1.0, 1.0]])),
                      in_memory_rows(np.array([[1.0, 1.0], [0.0, 1.0]])))  # fmt: skip
    assert np.isfinite(actual).all()
    np.testing.assert_allclose(actual[:, 1], [0.0, 1.0])
    np.testing.assert_allclose(actual[1, 0], 0.0, atol=1e-300)
    assert actual[0, 0] > 700


@pytest.mark.parametrize("kind", brute.KINDS)
@pytest.mark.parametrize("d", [3, 30])
def test_components_are_as_far_as_their_covariances_say(kind: Any, d: int) -> None:
    params = brute.random_params(4, kind, 4, d)
    values = brute.blobs(5, 600, d, 4)
    actual = distances(c.GaussianMixture(4, kind), params, in_memory_rows(values))
    for i in range(4):
        inverse = np.linalg.inv(kinds.as_full(kind, params.covariances, i, d))
        expected = cdist(values, (params.origin + params.centers)[i : i + 1], "mahalanobis", VI=inverse)
        np.testing.assert_allclose(actual[:, i], expected[:, 0], rtol=1e-9)


@pytest.mark.parametrize("kind", brute.KINDS)
def test_of_rows_with_gaps_what_was_observed_counts(kind: Any) -> None:
    params = brute.random_params(6, kind, 3, 4)
    values = brute.holes(7, brute.blobs(8, 400, 4, 3), 0.15)
    actual = distances(c.GaussianMixture(3, kind), params, in_memory_rows(values, allow_missing=True))
    for r, row in enumerate(values):
        o = np.flatnonzero(~np.isnan(row))
        for i in range(3):
            away = row[o] - (params.origin + params.centers[i])[o]
            covariance = kinds.as_full(kind, params.covariances, i, 4)[np.ix_(o, o)]
            assert actual[r, i] == pytest.approx(np.sqrt(away @ np.linalg.solve(covariance, away)), rel=1e-9)


def test_of_rows_with_gaps_the_distance_is_over_what_was_observed() -> None:
    values = brute.holes(9, brute.blobs(10, 1500, 3, 3), 0.2)
    centers = brute.blobs(11, 3, 3, 3)
    actual = distances(c.KMeans(3), params_of(centers), in_memory_rows(values, allow_missing=True))
    np.testing.assert_allclose(actual**2, brute.divergences("squared_euclidean", values, centers), rtol=1e-12)


def test_what_has_no_distance_is_refused() -> None:
    with pytest.raises(DomainError, match="itakura_saito compares numbers above zero"):
        distances(c.KMeans(1, "itakura_saito"), params_of(np.ones((1, 2))), in_memory_rows(np.zeros((1, 2))))
    holed = in_memory_rows(np.array([[1.0, np.nan]]), allow_missing=True)
    with pytest.raises(ConfigError, match="only squared_euclidean leaves out single features"):
        distances(c.KMeans(1, "cosine"), params_of(np.ones((1, 2))), holed)


@pytest.mark.filterwarnings("ignore:beta is:clustering.ClusteringWarning")
@pytest.mark.parametrize(
    "model",
    [
        *(c.KMeans(4, name) for name in ("squared_euclidean", "mahalanobis", "cosine", "kullback_leibler")),
        c.KMeans(4, "itakura_saito"), c.SoftKMeans(4, beta=0.1), c.GaussianMixture(4, "diagonal"), c.GaussianMixture(4),
    ],
    ids=lambda model: f"{model.kind}-{getattr(model, 'divergence', None) or model.covariance}",
)  # fmt: skip
@pytest.mark.parametrize("d", [2, 40])
def test_the_distance_from_one_center_alone_is_the_one_among_all(model: Any, d: int) -> None:
    values = 0.1 + np.abs(brute.blobs(3, 3000, d, 4))
    params = c.fit(values, model, seed=1, max_iterations=3).params
    rows = in_memory_rows(values)
    own = np.random.default_rng(0).integers(0, 4, len(values)).astype(np.int32)
    actual = np.full(len(values), np.nan)
    for away in model.distances(params, rows, own):
        assert away.distances.shape[0] == 1
        actual[away.row_index] = away.distances[0]
    expected = distances(model, params, rows)[np.arange(len(values)), own]
    np.testing.assert_allclose(actual, expected, rtol=1e-13)
    if getattr(model, "divergence", None) == "squared_euclidean":
        assert np.array_equal(actual, expected)


def test_distances_are_the_overlap_of_densities() -> None:
    means, widths = np.array([0.0, 1.0, 5.0]), np.array([1.0, 0.3, 2.0])
    actual = bhattacharyya(means[:, None], widths[:, None] ** 2, means[:, None], widths[:, None] ** 2)
    for i in range(3):
        for j in range(3):
            one, other = stats.norm(means[i], widths[i]), stats.norm(means[j], widths[j])
            overlap, _ = integrate.quad(lambda x, p=one, q=other: np.sqrt(p.pdf(x) * q.pdf(x)), -40, 40)
            np.testing.assert_allclose(actual[i, j], -np.log(overlap), atol=1e-7)


def test_matrices_and_variances_say_the_same(rng: np.random.Generator) -> None:
    centers, others = rng.standard_normal((4, 3)), rng.standard_normal((5, 3))
    widths, other_widths = rng.random((4, 3)) + 0.1, rng.random((5, 3)) + 0.1
    diagonal = bhattacharyya(centers, widths, others, other_widths)
    full = bhattacharyya(centers, widths[:, :, None] * np.eye(3), others, other_widths[:, :, None] * np.eye(3))
    np.testing.assert_allclose(full, diagonal, rtol=1e-12)
    # A linear map of the rows leaves the distances unchanged.
    turn = rng.standard_normal((3, 3))
    turned = bhattacharyya(
        centers @ turn, turn.T @ (widths[:, :, None] * np.eye(3)) @ turn,
        others @ turn, turn.T @ (other_widths[:, :, None] * np.eye(3)) @ turn,
    )  # fmt: skip
    np.testing.assert_allclose(turned, full, rtol=1e-9)


def test_a_gaussian_is_at_no_distance_from_itself(rng: np.random.Generator) -> None:
    root = rng.standard_normal((3, 4, 4))
    shapes, centers = root @ root.transpose(0, 2, 1) + np.eye(4), rng.standard_normal((3, 4))
    actual = bhattacharyya(centers, shapes, centers, shapes)
    assert (np.diagonal(actual) < 1e-13).all()
    assert (actual >= 0.0).all()
