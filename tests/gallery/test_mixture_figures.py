"""The figures of Gaussian mixtures show what the lecture says of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import multivariate_normal

from docs.gallery.frames import EMFrames
from docs.gallery.jobs import ROOT
from docs.gallery.mixtures import Densities, ThreeGaussians, Unequal

Array = Any


@pytest.fixture
def three(shown: Callable[[str], Any]) -> ThreeGaussians:
    return shown("three-gaussians.png")


@pytest.fixture
def densities(shown: Callable[[str], Any]) -> Densities:
    return shown("densities.png")


@pytest.fixture
def unequal(shown: Callable[[str], Any]) -> Unequal:
    return shown("unequal.png")


@pytest.fixture
def em(shown: Callable[[str], Any]) -> EMFrames:
    return shown("em-frames.gif")


def drawn_from(name: str) -> dict[str, Array]:
    content = yaml.safe_load((ROOT / "configs" / "parameters" / f"{name}.yaml").read_text())
    return {key: np.array(content[key]) for key in ("weights", "means", "covariances")}


def posterior(rows: Array, weights: Array, means: Array, covariances: Array) -> Array:
    """p(z | x) by Bayes' rule, as the lecture writes it."""
    joint = np.stack(
        [
            weight * multivariate_normal(mean, covariance).pdf(rows)
            for weight, mean, covariance in zip(weights, means, covariances, strict=True)
        ],
        axis=1,
    )
    return joint / joint.sum(axis=1, keepdims=True)


def test_the_three_gaussians_are_recovered(three: ThreeGaussians) -> None:
    truth = drawn_from("lecture-mixture")
    # They overlap, so 500 rows leave about this much open.
    np.testing.assert_allclose(three.weights, truth["weights"], atol=0.05)
    np.testing.assert_allclose(three.means, truth["means"], atol=0.04)
    np.testing.assert_allclose(three.covariances, truth["covariances"], atol=0.008)


def test_the_fit_labels_the_rows_as_well_as_the_true_parameters_do(three: ThreeGaussians) -> None:
    truth = posterior(three.rows, **drawn_from("lecture-mixture")).argmax(axis=1)
    right = np.mean(three.resp.argmax(axis=1) == three.truth)
    assert right == pytest.approx(np.mean(truth == three.truth), abs=0.02)
    assert right > 0.85


def test_responsibilities_follow_from_the_drawn_ellipses_by_bayes_rule(three: ThreeGaussians) -> None:
    expected = posterior(three.rows, three.weights, three.means, three.covariances)
    np.testing.assert_allclose(three.resp, expected, atol=1e-9)


def test_one_gaussian_has_its_peak_where_the_mixture_has_few_rows(densities: Densities) -> None:
    peak = densities.x[densities.single.argmax()]
    valley = densities.mixture[densities.x.searchsorted(peak)]
    assert valley < 0.4 * densities.mixture.max()
    assert densities.likelihoods[1] > densities.likelihoods[0] + 0.2


def test_one_gaussian_has_the_mean_and_the_deviation_of_the_rows(densities: Densities) -> None:
    expected = multivariate_normal(densities.waiting.mean(), densities.waiting.var()).pdf(densities.x)
    np.testing.assert_allclose(densities.single, expected, rtol=1e-4)


def test_the_mixture_has_two_hills_in_one_dimension_and_in_two(densities: Densities) -> None:
    inner = densities.mixture[1:-1]
    assert np.sum((inner > densities.mixture[:-2]) & (inner > densities.mixture[2:])) == 2
    middle = densities.surface[1:-1, 1:-1]
    around = [
        densities.surface[1 + i : -1 + i or None, 1 + j : -1 + j or None]
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
        if i or j
    ]
    assert np.all([middle > other for other in around], axis=0).sum() == 2


def test_components_add_up_to_the_mixture_which_holds_nearly_all_probability(densities: Densities) -> None:
    np.testing.assert_allclose(densities.parts.sum(axis=0), densities.mixture, rtol=1e-9)
    assert np.trapezoid(densities.mixture, densities.x) == pytest.approx(1.0, abs=0.005)
    cell = np.prod([axis[1] - axis[0] for axis in densities.axes])
    assert densities.surface.sum() * cell == pytest.approx(1.0, abs=0.005)


def test_k_means_misplaces_rows_of_unequal_clusters_that_the_mixture_does_not(unequal: Unequal) -> None:
    k_means, mixture = unequal.misplaced
    assert k_means > 0.15
    assert mixture < 0.015


def test_the_mixture_learns_unequal_widths_and_weights(unequal: Unequal) -> None:
    truth = drawn_from("lecture-unequal")
    np.testing.assert_allclose(unequal.deviations, np.sqrt(truth["covariances"][:, 0, 0]), rtol=0.1)
    np.testing.assert_allclose(unequal.weights[1], truth["weights"], atol=0.02)
    assert abs(unequal.weights[0] - truth["weights"]).max() > 0.15


def test_the_log_likelihood_rises_in_every_frame(em: EMFrames) -> None:
    assert (np.diff(em.log_likelihood) > 0).all()
    assert em.log_likelihood[-1] - em.log_likelihood[0] > 0.3


def test_each_frame_follows_from_the_one_before_by_the_m_step_of_the_lecture(em: EMFrames) -> None:
    for t, resp in enumerate(em.resp[:-1], 1):
        size = resp.sum(axis=0)
        np.testing.assert_allclose(em.weights[t], size / len(em.rows), rtol=1e-9)
        np.testing.assert_allclose(em.means[t], resp.T @ em.rows / size[:, None], rtol=1e-9)
        for cluster, mean in enumerate(em.means[t]):
            departures = em.rows - mean
            covariance = (resp[:, cluster, None] * departures).T @ departures / size[cluster]
            # The fit adds a millionth of the variance of the features.
            np.testing.assert_allclose(em.covariances[t, cluster], covariance, rtol=1e-4)


def test_responsibilities_of_each_frame_follow_by_the_e_step_of_the_lecture(em: EMFrames) -> None:
    for t, resp in enumerate(em.resp):
        expected = posterior(em.rows, em.weights[t], em.means[t], em.covariances[t])
        np.testing.assert_allclose(resp, expected, atol=1e-9)


def test_old_faithful_is_the_set_that_r_has() -> None:
    rows = np.loadtxt(ROOT / "configs" / "lecture" / "old-faithful.csv", delimiter=",", skiprows=1)
    assert rows.shape == (272, 2)
    assert rows.mean(axis=0) == pytest.approx([3.487783, 70.89706], rel=1e-6)
    assert np.corrcoef(rows.T)[0, 1] == pytest.approx(0.9008112, rel=1e-7)
