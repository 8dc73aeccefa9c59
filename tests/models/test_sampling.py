"""Drawn rows follow the distribution of the parameters, and depend on the seed alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

import clustering
from clustering.errors import ConfigError
from clustering.models.option_names import COVARIANCES
from clustering.models.sampling import BLOCK, GenerativeMixture, mixture_from_user

WEIGHTS = [0.2, 0.5, 0.3]
MEANS = [[0.0, 100.0], [3.0, -1e4], [-50.0, 0.5]]
MATRICES = [[[2.0, 1.2], [1.2, 1.0]], [[9.0, -0.3], [-0.3, 0.04]], [[1e-6, 0.0], [0.0, 1e6]]]
GIVEN: dict[str, Any] = {
    "identity": None,
    "spherical": [0.25, 4.0, 100.0],
    "diagonal": [[1.0, 4.0], [0.01, 9.0], [25.0, 1e-4]],
    "tied": MATRICES[0],
    "full": MATRICES,
}


def matrices(mixture: GenerativeMixture) -> np.ndarray:
    """Covariances ``(k, d, d)``, written out for each kind."""
    k, d, c = mixture.k, mixture.d, mixture.covariances
    match mixture.kind:
        case "identity":
            return np.broadcast_to(np.eye(d), (k, d, d))
        case "spherical":
            return c[:, None, None] * np.eye(d)
        case "diagonal":
            return c[:, :, None] * np.eye(d)
        case "tied":
            return np.broadcast_to(c, (k, d, d))
        case _:
            return c


def drawn(
    mixture: GenerativeMixture, n: int, seed: int = 0, length: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    parts = list(mixture.draw(n, seed, length or n))
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([labels for _, labels in parts])


def assert_moments(mixture: GenerativeMixture, rows: np.ndarray, labels: np.ndarray, sigmas: float = 5.0) -> None:
    """Shares, means and covariances lie within so many standard errors of the parameters."""
    n = len(rows)
    shares = np.bincount(labels, minlength=mixture.k) / n
    assert (np.abs(shares - mixture.weights) <= sigmas * np.sqrt(mixture.weights * (1 - mixture.weights) / n)).all()
    for component, covariance in enumerate(matrices(mixture)):
        own = rows[labels == component]
        variances = np.diagonal(covariance)
        away = own - mixture.means[component]
        assert (np.abs(away.mean(axis=0)) <= sigmas * np.sqrt(variances / len(own))).all()
        # Var of the product of two centred Gaussians: σ²σ'² + cov².
        error = np.sqrt((np.outer(variances, variances) + covariance**2) / len(own))
        assert (np.abs(away.T @ away / len(own) - covariance) <= sigmas * error).all()


@pytest.mark.parametrize("kind", COVARIANCES)
def test_a_large_draw_has_the_moments_of_the_parameters(kind: str) -> None:
    mixture = mixture_from_user(WEIGHTS, MEANS, GIVEN[kind])
    assert mixture.kind == kind
    assert_moments(mixture, *drawn(mixture, 300_000))


def test_many_features_that_depend_on_each_other_are_drawn(rng: np.random.Generator) -> None:
    root = rng.standard_normal((12, 12))
    mixture = mixture_from_user([0.4, 0.6], rng.standard_normal((2, 12)), np.array([root @ root.T, np.eye(12)]))
    assert_moments(mixture, *drawn(mixture, 100_000))


@pytest.mark.parametrize("kind", COVARIANCES)
def test_a_longer_draw_begins_with_a_shorter_one_and_a_seed_gives_the_same_bits(kind: str) -> None:
    mixture = mixture_from_user(WEIGHTS, MEANS, GIVEN[kind])
    rows, labels = drawn(mixture, BLOCK + 1000)
    for n in (1, 1000, BLOCK - 1, BLOCK, BLOCK + 999):
        shorter, of = drawn(mixture, n)
        assert np.array_equal(shorter, rows[:n])
        assert np.array_equal(of, labels[:n])


@pytest.mark.parametrize("length", [1000, BLOCK, 50_001, 3 * BLOCK])
def test_what_is_in_memory_at_once_changes_nothing(length: int) -> None:
    mixture = mixture_from_user(WEIGHTS, MEANS, GIVEN["full"])
    rows, labels = drawn(mixture, 2 * BLOCK + 5)
    pieces = list(mixture.draw(2 * BLOCK + 5, 0, length))
    assert {len(part) for part, _ in pieces[:-1]} <= {length}
    assert np.array_equal(np.concatenate([part for part, _ in pieces]), rows)
    alone = list(mixture.draw_labels(2 * BLOCK + 5, 0, length))
    assert [len(part) for part in alone] == [len(part) for part, _ in pieces]
    assert np.array_equal(np.concatenate(alone), labels)


def test_seeds_and_blocks_differ() -> None:
    mixture = mixture_from_user(WEIGHTS, MEANS)
    rows, _ = drawn(mixture, 2 * BLOCK)
    assert not np.isin(rows[:BLOCK, 0], rows[BLOCK:, 0]).any()
    assert not np.isin(drawn(mixture, 100, seed=1)[0][:, 0], rows[:, 0]).any()


def test_a_component_without_weight_is_never_drawn() -> None:
    mixture = mixture_from_user([0.0, 1.0, 0.0], [[0.0], [1.0], [2.0]])
    assert np.unique(drawn(mixture, 3 * BLOCK)[1]).tolist() == [1]


@pytest.fixture(scope="module")
def pair() -> np.ndarray:
    rng = np.random.default_rng(5)
    return np.concatenate([rng.normal(size=(400, 2)), rng.normal(size=(200, 2)) * [3.0, 0.5] + [20.0, 5.0]])


@pytest.mark.parametrize("kind", COVARIANCES)
def test_a_fitted_mixture_draws_rows_like_its_data(pair: np.ndarray, kind: Any) -> None:
    fit = clustering.fit(pair, clustering.GaussianMixture(2, covariance=kind))
    rows, labels = fit.sample(200_000, seed=3)
    assert (type(rows), rows.shape, labels.shape) == (np.ndarray, (200_000, 2), (200_000,))
    assert labels.dtype.kind == "i"
    described = fit.model.generative(fit.params)
    assert np.allclose(described.weights, fit.weights)
    assert np.allclose(described.means, fit.centers)
    assert_moments(described, rows, labels)
    again, _ = fit.sample(100, seed=3)
    assert np.array_equal(again, rows[:100])


def test_a_mixture_fitted_to_its_own_sample_finds_its_parameters(pair: np.ndarray) -> None:
    fit = clustering.fit(pair, clustering.GaussianMixture(2))
    rows, _ = fit.sample(50_000)
    again = clustering.fit(rows, clustering.GaussianMixture(2))
    order, theirs = np.argsort(fit.centers[:, 0]), np.argsort(again.centers[:, 0])
    assert np.allclose(again.centers[theirs], fit.centers[order], atol=0.15)
    assert np.allclose(again.weights[theirs], fit.weights[order], atol=0.02)


def test_soft_k_means_draws_equal_clusters_of_width_one_over_two_beta(pair: np.ndarray) -> None:
    fit = clustering.fit(pair, clustering.SoftKMeans(2, beta=0.125))
    described = fit.model.generative(fit.params)
    assert (described.kind, described.weights.tolist()) == ("spherical", [0.5, 0.5])
    assert np.allclose(described.covariances, 4.0)
    assert_moments(described, *fit.sample(100_000))


def test_soft_k_means_with_the_mahalanobis_distance_draws_in_its_metric(pair: np.ndarray) -> None:
    fit = clustering.fit(pair, clustering.SoftKMeans(2, beta=1.5, divergence="mahalanobis"))
    described = fit.model.generative(fit.params)
    # MᵀM is the inverse of the covariance of all rows.
    assert np.allclose(described.covariances, np.cov(pair.T, ddof=0) / 3.0)
    assert_moments(described, *fit.sample(100_000))


@pytest.mark.parametrize(
    "model",
    [
        clustering.KMeans(2),
        clustering.KMeans(2, "mahalanobis"),
        clustering.SoftKMeans(2, divergence="cosine"),
        clustering.SoftKMeans(2, divergence="kullback_leibler"),
    ],
    ids=str,
)
def test_other_models_have_no_distribution_of_rows(pair: np.ndarray, model: Any) -> None:
    fit = clustering.fit(np.abs(pair) + 0.1, model)
    with pytest.raises(
        ConfigError, match=r"so none can be drawn; fit gaussian_mixture, von_mises_fisher, or soft_kmeans with"
    ) as caught:
        fit.sample(10)
    assert model.divergence in str(caught.value)


LOSSY: dict[str, dict[str, Any]] = {
    "unit norm": {"unit_norm": True},
    "one component of two": {"pca": 1},
    "a share of the variance": {"pca": 0.5},
    "one component, whitened": {"pca": 1, "whiten": True},
    "a feature of weight 0": {"feature_weights": np.array([1.0, 0.0])},
    "that and components": {"feature_weights": np.array([1.0, 0.0]), "pca": 2},
}


@pytest.mark.parametrize("options", LOSSY.values(), ids=LOSSY)
@pytest.mark.parametrize("model", [clustering.GaussianMixture(2), clustering.SoftKMeans(2)], ids=["mixture", "soft"])
def test_rows_do_not_follow_from_prepared_rows_that_lost_something(pair: np.ndarray, options: Any, model: Any) -> None:
    fit = clustering.fit(pair, model, **options)
    with pytest.raises(
        ConfigError, match=r"one of prepared rows \(.*\), and rows of all features do not follow"
    ) as caught:
        fit.sample(10)
    with pytest.raises(ConfigError) as also:
        fit.model.generative(fit.params).before(fit.fitted.preparation)
    assert str(caught.value) == str(also.value)


WHOLE: dict[str, dict[str, Any]] = {
    "standardize": {"standardize": "per_feature"},
    "feature weights": {"feature_weights": np.array([1.0, 0.25])},
    "all components": {"pca": 2},
    "all components, whitened": {"standardize": "per_variable", "whiten": True},
}


@pytest.mark.parametrize("options", WHOLE.values(), ids=WHOLE)
def test_rows_follow_from_prepared_rows_that_lost_nothing(pair: np.ndarray, options: Any) -> None:
    plain = clustering.fit(pair, clustering.GaussianMixture(2, regularization=0.0), tolerance=1e-12)
    fit = clustering.fit(pair, clustering.GaussianMixture(2, regularization=0.0), tolerance=1e-12, **options)
    described = fit.model.generative(fit.params).before(fit.fitted.preparation)
    mine, theirs = np.argsort(described.means[:, 0]), np.argsort(plain.centers[:, 0])
    assert np.allclose(described.means[mine], plain.centers[theirs], rtol=1e-5)
    assert np.allclose(described.covariances[mine], plain.covariances[theirs], rtol=1e-4)
    assert_moments(described, *fit.sample(200_000, seed=3))


@pytest.mark.parametrize("n", [0, -3, 2.0, 1.5, True, "5", None], ids=repr)
def test_a_number_of_rows_that_is_none_is_refused(pair: np.ndarray, n: Any) -> None:
    fit = clustering.fit(pair, clustering.GaussianMixture(2))
    with pytest.raises(ConfigError, match=r"n is .*; a whole number of 1 or more is needed"):
        fit.sample(n)


@pytest.mark.parametrize("seed", [-1, 0.5, False], ids=repr)
def test_a_seed_that_is_none_is_refused(pair: np.ndarray, seed: Any) -> None:
    fit = clustering.fit(pair, clustering.GaussianMixture(2))
    with pytest.raises(ConfigError, match=r"seed is .*; a whole number of 0 or more is needed"):
        fit.sample(3, seed)


LABELLED = {
    "variables": xr.Dataset({"t": ("time", np.arange(40.0) % 7), "q": ("time", np.arange(40.0) % 3)}),
    "profile": xr.DataArray(
        (np.arange(80.0) % 7).reshape(40, 2), dims=("time", "depth"), coords={"depth": [10.0, 20.0]}, name="t"
    ),
    "a dimension called sample": xr.DataArray(
        (np.arange(80.0) % 7).reshape(40, 2), dims=("time", "sample"), coords={"sample": [10.0, 20.0]}, name="t"
    ),
}


@pytest.mark.parametrize("name", LABELLED)
def test_a_labelled_fit_gives_labelled_rows(name: str, tmp_path: Any) -> None:
    data = LABELLED[name]
    names = {"variables": ["t", "q"]} if isinstance(data, xr.Dataset) else {}
    fit = clustering.fit(data, clustering.GaussianMixture(2, "diagonal"), sample_dims=["time"], **names)
    sample = fit.sample(12)
    assert (sample["rows"].dims, sample["rows"].shape) == (("sample", "feature"), (12, 2))
    assert (sample["labels"].dims, sample["labels"].dtype.kind) == (("sample",), "i")
    assert sample["feature"].values.tolist() == [str(feature) for feature in fit.fitted.features]
    place = {"profile": "depth", "a dimension called sample": "feature_sample"}.get(name)
    assert place is None or sample[place].values.tolist() == [10.0, 20.0]
    fit.save(tmp_path / "model.zarr")
    assert clustering.load_fit(tmp_path / "model.zarr").sample(12).identical(sample)


K3 = "weights are .*; give a share"
BAD: dict[str, tuple[Any, str]] = {
    "weights over 1": (([0.5, 0.5, 0.1], MEANS), r"add up to 1\.1; give a share of 0 or more"),
    "weights below 1": (([0.2, 0.5, 0.2], MEANS), K3),
    "a weight below 0": (([1.2, -0.5, 0.3], MEANS), K3),
    "two weights": (([0.5, 0.5], MEANS), r"weights have shape \(2,\), and there are 3 means; give 3 weights"),
    "no weights": ((None, MEANS), "weights are None"),
    "a word": ((["a", 0.5, 0.5], MEANS), "weights are .* give numbers"),
    "a truth value": (([True, 0.0, 0.0], MEANS), "weights are .*truth value.* give numbers"),
    "a gap": (([float("nan"), 0.5, 0.5], MEANS), "weights are .* finite"),
    "ragged means": (([0.5, 0.5], [[0.0], [1.0, 2.0]]), "means are .* equal length"),
    "flat means": (([0.5, 0.5], [0.0, 1.0]), r"means have shape \(2,\)"),
    "no means": (([], []), r"means have shape \(0,\)"),
    "endless means": (([1.0], [[float("inf")]]), "means are .* finite"),
    "two variances": ((WEIGHTS, MEANS, [1.0, 2.0]), r"covariances have shape \(2,\).*allowed: one variance, spherical"),
    "too large a matrix": ((WEIGHTS, MEANS, np.eye(3)), r"covariances have shape \(3, 3\).*tied \(2, 2\)"),
    "a variance of 0": ((WEIGHTS, MEANS, 0.0), "a variance is 0.0"),
    "a variance below 0": ((WEIGHTS, MEANS, [1.0, -1.0, 2.0]), "a variance is -1.0"),
    "an indefinite matrix": ((WEIGHTS, MEANS, [[1.0, 2.0], [2.0, 1.0]]), "the covariance is .* not positive definite"),
    "one indefinite matrix": (
        (WEIGHTS, MEANS, [*MATRICES[:2], [[1.0, 0.0], [0.0, 0.0]]]),
        "the covariance of component 2 is .* not positive definite",
    ),
    "a matrix that is not symmetric": ((WEIGHTS, MEANS, [[1.0, 0.5], [0.0, 1.0]]), "not symmetric"),
    "a matrix or variances": (([0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]], [[2.0, 1.0], [1.0, 2.0]]), "say which with"),
    "an unknown kind": ((WEIGHTS, MEANS, 1.0, "diag"), "covariance is 'diag'; did you mean 'diagonal'"),
    "another kind": ((WEIGHTS, MEANS, np.eye(2), "full"), r"covariances have shape \(2, 2\).*full \(3, 2, 2\)"),
}


@pytest.mark.parametrize(("parameters", "said"), BAD.values(), ids=BAD)
def test_parameters_that_make_no_mixture_are_refused_in_one_line(parameters: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        mixture_from_user(*parameters)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("covariances", "kind", "expected"),
    [
        (None, None, "identity"),
        (2.0, None, "spherical"),
        ([1.0, 2.0], None, "spherical"),
        ([[1.0, 0.5], [0.4, 1.0]], None, "diagonal"),
        ([[1.0, 0.0], [0.0, 1.0]], None, "tied"),
        ([[2.0, 1.0], [1.0, 2.0]], "tied", "tied"),
        ([[2.0, 1.0], [1.0, 2.0]], "diagonal", "diagonal"),
        ([np.eye(2), np.eye(2)], None, "full"),
    ],
    ids=str,
)
def test_the_shape_and_the_numbers_determine_the_kind(covariances: Any, kind: Any, expected: str) -> None:
    assert mixture_from_user([0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]], covariances, kind).kind == expected
