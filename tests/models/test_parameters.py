from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import clustering as c
from clustering.errors import ConfigError
from clustering.models.option_names import COVARIANCES

CENTERS = np.array([[0.0, 0.0], [6.0, 6.0]])
SIGMA = np.array([[[2.0, 0.5], [0.5, 1.0]], [[1.0, -0.2], [-0.2, 3.0]]])


@pytest.fixture(scope="module")
def pair() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(0.0, 1.0, (60, 2)), rng.normal(6.0, 1.0, (40, 2))])


def initial_fit(rows: np.ndarray, weights: Any, covariances: Any, kind: Any = "full", **options: Any) -> c.Fit:
    init = {"centers": CENTERS, "weights": weights, "covariances": covariances}
    return c.fit(rows, c.GaussianMixture(2, kind), init=init, max_iterations=0, **options)


BAD: dict[str, tuple[Any, str]] = {
    "no mirror image": ([[[1, 0.9], [0.1, 1]], np.eye(2)], r"covariance of component 0 is .* not symmetric"),
    "a little off": (SIGMA + np.array([[[0, 1e-5], [0, 0]], [[0, 0], [0, 0]]]), "of component 0 is .* not symmetric"),
    "indefinite": ([np.eye(2), [[1, 2], [2, 1]]], "of component 1 is .* not positive definite"),
    "singular": ([np.eye(2), [[1, 1], [1, 1]]], "of component 1 is .* not positive definite"),
    "a variance below 0": ([np.eye(2), [[1, 0], [0, -1]]], "of component 1 is .* not positive definite"),
    "a gap": (SIGMA * np.nan, "starting covariances are .* finite"),
    "endless": ([np.eye(2), np.full((2, 2), np.inf)], "starting covariances are .* finite"),
    "a masked number": (np.ma.masked_greater(SIGMA, 2.5), "starting covariances are .* finite"),
    "truths": (np.ones((2, 2, 2), bool), "truth value"),
    "words": ("abc", "starting covariances are abc"),
    "ragged": ([[1.0], [1.0, 2.0]], "starting covariances are .* equal length"),
    "none": (None, "no covariances; covariance 'full'"),
    "one matrix": (np.eye(2), r"have shape \(2, 2\); covariance 'full' of k = 2 components of 2 features"),
    "variances": ([[1, 1], [1, 1]], r"has shape \(2, 2, 2\)"),
}


@pytest.mark.parametrize("prepared", [{}, {"standardize": "per_feature"}], ids=["", "standardize"])
@pytest.mark.parametrize(("covariances", "said"), BAD.values(), ids=BAD)
def test_a_start_from_what_is_no_covariance_is_refused(
    covariances: Any, said: str, prepared: Any, pair: np.ndarray
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        initial_fit(pair, [0.5, 0.5], covariances, **prepared)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "covariances", "said"),
    [
        ("tied", [[1.0, 0.5], [0.4, 1.0]], "the starting covariance is .* not symmetric"),
        ("tied", [[1.0, 2.0], [2.0, 1.0]], "the starting covariance is .* not positive definite"),
        ("diagonal", [[1.0, 0.0], [1.0, 1.0]], r"a variance is 0\.0"),
        ("spherical", [1.0, -2.0], r"a variance is -2\.0"),
        ("spherical", [1.0, 1e-320], r"a variance is 1e-320"),
    ],
)
def test_other_kinds_are_checked_too(kind: Any, covariances: Any, said: str, pair: np.ndarray) -> None:
    with pytest.raises(ConfigError, match=said):
        initial_fit(pair, [0.5, 0.5], covariances, kind)


def test_what_rounding_does_to_a_covariance_is_no_fault(pair: np.ndarray) -> None:
    rounded = SIGMA + np.array([[[0, 1e-9], [0, 0]], [[0, 0], [-1e-9, 0]]])
    given = initial_fit(pair, [0.5, 0.5], rounded).covariances
    np.testing.assert_array_equal(given, np.swapaxes(given, 1, 2))
    np.testing.assert_allclose(given, SIGMA, atol=1e-9)
    # Features of very different units have very different covariances.
    scale = np.array([1e8, 1e-8])
    units = np.outer(scale, scale)
    init = {"centers": CENTERS * scale, "weights": [0.5, 0.5], "covariances": rounded * units}
    other = c.fit(pair * scale, c.GaussianMixture(2), init=init, max_iterations=0).covariances
    np.testing.assert_allclose(other / units, SIGMA, atol=1e-9)


@pytest.mark.parametrize("kind", COVARIANCES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_a_mixture_starts_from_its_own_numbers(kind: Any, dtype: Any) -> None:
    rng = np.random.default_rng(1)
    rows = np.concatenate([rng.normal(7.0 * i, 1.0, (17 + i, 2)) for i in range(7)])
    fit = c.fit(rows, c.GaussianMixture(7, kind))
    covariances = None if fit.covariances is None else fit.covariances.astype(dtype)
    init = {"centers": fit.centers.astype(dtype), "weights": fit.weights.astype(dtype), "covariances": covariances}
    again = c.fit(rows, c.GaussianMixture(7, kind), init=init, max_iterations=0)
    assert again.weights.sum() == pytest.approx(1.0, abs=1e-15)
    assert again.objective == pytest.approx(fit.objective, rel=1e-6)
    np.testing.assert_array_equal(again.predict(rows), fit.predict(rows))


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([0.5, 0.5001], r"add up to 1\.0001; give a share"),
        ([0.5, 0.4], r"add up to 0\.9; give a share"),
        ([1.5, -0.5], "give a share of 0 or more"),
        ([1.0, 0.0], "give shares above 0"),
        ([0.0, 0.0], "add up to 0; give a share"),
        ([np.nan, 0.5], "starting weights are .* finite"),
        ([1.0], r"have shape \(1,\); k = 2 components have 2 weights"),
        (["a", 0.5], "starting weights are .* give numbers"),
        (None, "starting weights are"),
    ],
    ids=str,
)
def test_a_start_from_weights_that_are_no_shares_shows_their_sum(weights: Any, said: str, pair: np.ndarray) -> None:
    with pytest.raises(ConfigError, match=said):
        initial_fit(pair, weights, SIGMA)


@pytest.mark.parametrize(
    ("init", "said"),
    [
        (CENTERS * np.nan, "starting centers are .* finite"),
        (np.full((2, 2), np.inf), "starting centers are .* finite"),
        (np.ma.masked_greater(CENTERS, 1.0), "starting centers are .* finite"),
        (CENTERS[0], r"init has shape \(2,\); k = 2 centers of 2 features"),
        ([[1.0], [1.0, 2.0]], "starting centers are .* equal length"),
        (CENTERS * 1j, "complex"),
    ],
    ids=["nan", "endless", "masked", "one", "ragged", "complex"],
)
def test_a_start_from_what_are_no_centers_is_refused(init: Any, said: str, pair: np.ndarray) -> None:
    with pytest.raises(ValueError, match=said):
        c.fit(pair, c.KMeans(2), init=init)


@pytest.mark.parametrize(
    "model", [c.KMeans(2), c.KMeans(2, "mahalanobis"), c.SoftKMeans(2), c.GaussianMixture(2)], ids=str
)
def test_a_start_so_far_off_that_squares_overflow_is_refused(model: Any, pair: np.ndarray) -> None:
    init: Any = CENTERS + np.array([[0.0, 0.0], [0.0, 1e200]])
    if isinstance(model, c.GaussianMixture):
        init = {"centers": init, "weights": [0.5, 0.5], "covariances": SIGMA}
    with pytest.raises(ConfigError, match=r"starting center 1 reaches 1e\+200, and the squares .* overflow float64"):
        c.fit(pair, model, init=init)


def test_covariances_of_fixed_ones_are_refused(pair: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="covariance 'identity' are fixed"):
        initial_fit(pair, [0.5, 0.5], SIGMA, "identity")
    fit = c.fit(pair, c.GaussianMixture(2, "identity"))
    assert initial_fit(pair, fit.weights, fit.covariances, "identity").params.k == 2
