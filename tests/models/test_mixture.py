from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from brute import KINDS, blobs, holes, mixture_pass, random_params, relative
from sklearn.datasets import load_iris

import clustering
from clustering.data.rows import in_memory_rows
from clustering.models.mixture import GaussianMixture

kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.parametrize("share", [0.0, 0.3], ids=["complete", "with-gaps"])
@pytest.mark.parametrize("d", [1, 2, 5, 30], ids="d-{}".format)
@kinds
def test_a_pass_is_that_of_plain_numpy(kind: str, d: int, share: float, rng: np.random.Generator) -> None:
    k, n = 3, 120
    values = holes(1, blobs(0, n, d, k), share)
    weights, params = rng.random(n) * 2, random_params(3, kind, k, d)
    model = GaussianMixture(k, kind, regularization=0.05)
    statistics = model.statistics(params, in_memory_rows(values, weights, allow_missing=True))
    update = model.update(params, statistics)
    expected = mixture_pass(params, values, weights, floor=0.05)
    assert statistics.objective == pytest.approx(-expected.log_likelihood, rel=1e-12)
    np.testing.assert_allclose(statistics.weight, expected.weighted_resp.sum(axis=0), rtol=1e-11)
    assert relative(update.params.weights, expected.weights) < 1e-12
    assert relative(update.params.origin + update.params.centers, expected.centers) < 1e-11
    assert relative(update.params.covariances, expected.covariances) < 1e-11
    assert update.objective == pytest.approx(-expected.bound, rel=1e-10)


@pytest.mark.parametrize("kind", ["spherical", "diagonal", "tied", "full"])
def test_a_component_that_lost_its_rows_gets_the_covariance_of_the_others(kind: str) -> None:
    values = blobs(0, 50, 2, 1)
    # Weights are far below 1, so that a number of rows in place of a weight would show.
    weights, alone = np.full(50, 1e-3), random_params(0, kind, 1, 2)
    lost = alone.covariances if kind == "tied" else np.repeat(alone.covariances, 2, axis=0)
    centers = np.vstack([alone.centers, [[1e4, 1e4]]])
    params = replace(alone, centers=centers, weights=np.full(2, 0.5), covariances=lost)
    model = GaussianMixture(2, kind, regularization=0.0)
    update = model.update(params, model.statistics(params, in_memory_rows(values, weights)))
    assert update.notes == (
        "component 1 lost all its rows; placed anew at the row farthest from its component, with the pooled covariance",
    )
    expected = mixture_pass(alone, values, weights).covariances
    assert relative(update.params.covariances, expected if kind == "tied" else np.repeat(expected, 2, axis=0)) < 1e-12
    squares = ((update.params.origin + update.params.centers[1] - values) ** 2).sum(axis=1)
    assert squares.min() < 1e-24


def test_covariances_that_are_singular_up_to_rounding_end_no_fit() -> None:
    # With 13 components of 150 rows, one has a covariance whose correlations can be factored, and it cannot itself.
    assert np.isfinite(clustering.fit(load_iris().data, GaussianMixture(13)).objective)
