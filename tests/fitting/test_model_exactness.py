from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from brute import KINDS, blobs, divergences, means, relative, softmax
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference

import clustering as c
from clustering.data.rows import in_memory_rows
from clustering.models.covariances import as_full
from clustering.models.mixture import GaussianMixture

# Tests here take a beta at which all centers may become one, of which a user is warned.
pytestmark = pytest.mark.filterwarnings("ignore:beta is:clustering.ClusteringWarning")

OFFSET = 2.0**20
"""About 1e6 standard deviations; taking it off again is exact."""
DATA = {
    "iris": (load_iris().data, 3, 0.0),
    "d-1": (blobs(0, 400, 1, 2), 2, 0.0),
    "d-2": (blobs(1, 500, 2, 4), 4, 0.0),
    "d-5": (blobs(2, 500, 5, 3), 3, 0.0),
    "d-30": (blobs(3, 600, 30, 3, spread=1.5), 3, 0.0),
    "1e6-sigma-off": (blobs(4, 500, 3, 3), 3, OFFSET),
}
data = pytest.mark.parametrize(("values", "k", "offset"), DATA.values(), ids=DATA)
kinds = pytest.mark.parametrize("kind", KINDS)
NAMES = {"spherical": "spherical", "diagonal": "diag", "tied": "tied", "full": "full"}


def start(kind: str, values: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Starting params, the same for every implementation."""
    rng = np.random.default_rng(8)
    d = values.shape[1]
    full = np.atleast_2d(np.cov(values.T)) + 0.1 * np.eye(d)
    weights = rng.uniform(0.5, 1.5, k)
    params = {"centers": values[rng.choice(len(values), k, replace=False)], "weights": weights / weights.sum()}
    covariances = {
        "spherical": np.full(k, np.trace(full) / d),
        "diagonal": np.repeat(np.diag(full)[None], k, axis=0),
        "tied": full,
        "full": np.repeat(full[None], k, axis=0),
    }
    return params if kind == "identity" else {**params, "covariances": covariances[kind]}


def reference(kind: str, values: np.ndarray, init: dict[str, np.ndarray], passes: int, floor: float) -> Reference:
    covariances = init["covariances"]
    precisions = np.linalg.inv(covariances) if kind in ("tied", "full") else 1 / covariances
    estimator = Reference(
        len(init["weights"]), covariance_type=NAMES[kind], tol=0, reg_covar=floor, max_iter=passes,
        weights_init=init["weights"], means_init=init["centers"], precisions_init=precisions,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(values)


@data
@pytest.mark.parametrize("kind", NAMES)
def test_ten_passes_are_those_of_scikit_learn(kind: str, values: np.ndarray, k: int, offset: float) -> None:
    init = start(kind, values, k)
    far, regularization = offset + values, 1e-3
    floor = regularization * values.var(axis=0).mean()
    fit = c.fit(
        far, c.GaussianMixture(k, kind, regularization), init={**init, "centers": offset + init["centers"]},
        max_iterations=10, tolerance=0, accelerate="none",
    )  # fmt: skip
    near = far - offset
    theirs = reference(kind, near, {**init, "centers": (offset + init["centers"]) - offset}, 10, floor)
    assert fit.iterations == 10
    np.testing.assert_allclose(fit.weights, theirs.weights_, rtol=1e-8)
    assert relative(fit.centers - offset, theirs.means_) < max(1e-8, 1e-15 * offset)
    assert relative(fit.covariances, theirs.covariances_) < 1e-8
    np.testing.assert_allclose(fit.objective, theirs.score(near), rtol=1e-10)
    np.testing.assert_allclose(fit.history[-1, 0], theirs.lower_bound_, rtol=1e-10)
    np.testing.assert_array_equal(fit.predict(far), theirs.predict(near))


@data
def test_ten_passes_of_identity_covariance_are_those_of_plain_numpy(values: np.ndarray, k: int, offset: float) -> None:
    init = start("identity", values, k)
    centers, weights = init["centers"], init["weights"]
    objectives = []
    for _ in range(10):
        logs = np.log(weights) - 0.5 * divergences("squared_euclidean", values, centers)
        shared = [softmax(row) for row in logs - 0.5 * values.shape[1] * np.log(2 * np.pi)]
        shares = np.array([share for share, _ in shared])
        objectives.append(np.mean([density for _, density in shared]))
        weights, centers = shares.mean(axis=0), means("squared_euclidean", values, shares)
    far = {**init, "centers": offset + init["centers"]}
    fit = c.fit(
        offset + values, c.GaussianMixture(k, "identity"), init=far, max_iterations=10, tolerance=0, accelerate="none"
    )
    np.testing.assert_allclose(fit.weights, weights, rtol=1e-8)
    assert relative(fit.centers - offset, centers) < 1e-8
    np.testing.assert_allclose(fit.history[:, 0], objectives, rtol=1e-8 if offset else 1e-12)


@data
@pytest.mark.parametrize("beta", [0.05, 1.0, 20.0], ids="beta-{}".format)
def test_ten_passes_of_soft_k_means_are_those_of_plain_numpy(
    beta: float, values: np.ndarray, k: int, offset: float
) -> None:
    centers = init = start("identity", values, k)["centers"]
    objectives = []
    for _ in range(10):
        shared = [softmax(row) for row in -beta * divergences("squared_euclidean", values, centers)]
        shares = np.array([share for share, _ in shared])
        objectives.append(-sum(density for _, density in shared) / beta)
        centers = means("squared_euclidean", values, shares)
    fit = c.fit(
        offset + values, c.SoftKMeans(k, beta), init=offset + init, max_iterations=10, tolerance=0, accelerate="none"
    )
    assert relative(fit.centers - offset, centers) < 1e-8
    np.testing.assert_allclose(fit.history[:, 0], objectives, rtol=1e-8 if offset else 1e-12)
    np.testing.assert_allclose(fit.weights.sum(), 1.0, rtol=1e-14)


def test_full_and_diagonal_are_one_in_one_dimension() -> None:
    values = DATA["d-1"][0]
    init = start("full", values, 2)
    full = c.fit(values, c.GaussianMixture(2, "full"), init=init, max_iterations=20, tolerance=0)
    init["covariances"] = init["covariances"][:, 0]
    diagonal = c.fit(values, c.GaussianMixture(2, "diagonal"), init=init, max_iterations=20, tolerance=0)
    np.testing.assert_allclose(full.centers, diagonal.centers, rtol=1e-12)
    np.testing.assert_allclose(full.covariances[:, 0], diagonal.covariances, rtol=1e-12)
    np.testing.assert_allclose(full.history, diagonal.history, rtol=1e-12)


def test_k_means_is_where_soft_models_end_as_clusters_get_sharp() -> None:
    values = DATA["d-2"][0]
    init = values[[3, 100, 200, 300]]
    hard = c.fit(values, c.KMeans(4), init=init)
    soft = c.fit(values, c.SoftKMeans(4, 1e6), init=init, accelerate="none")
    scale = 1e4
    even = {"centers": scale * init, "weights": np.full(4, 0.25)}
    sharp = c.fit(
        scale * values, c.GaussianMixture(4, "identity"), init=even, max_iterations=hard.iterations, accelerate="none"
    )
    np.testing.assert_allclose(soft.centers, hard.centers, rtol=1e-9)
    np.testing.assert_allclose(soft.objective, hard.objective, rtol=1e-9)
    np.testing.assert_allclose(sharp.centers / scale, hard.centers, rtol=1e-9)
    for fit, rows in ((soft, values), (sharp, scale * values)):
        np.testing.assert_array_equal(fit.predict(rows), hard.predict(values))


@pytest.mark.parametrize("beta", [0.01, 0.3, 5.0], ids="beta-{}".format)
def test_soft_k_means_is_a_mixture_of_equal_weights(beta: float) -> None:
    values, k, _ = DATA["d-5"]
    init = values[:k]
    soft = c.fit(values, c.SoftKMeans(k, beta), init=init, max_iterations=0)
    even = {"centers": init, "weights": np.full(k, 1 / k), "covariances": np.full(k, 1 / (2 * beta))}
    mixture = c.fit(values, c.GaussianMixture(k, "spherical"), init=even, max_iterations=0)
    rows = in_memory_rows(values)
    ours = [part.weighted_resp.copy() for part in soft.model.e_step(soft.params, rows)]
    theirs = [part.weighted_resp.copy() for part in mixture.model.e_step(mixture.params, rows)]
    np.testing.assert_allclose(np.hstack(ours), np.hstack(theirs), rtol=1e-10, atol=1e-300)
    # log L = −β F / n + what the equal weights and the normalisation add.
    constant = -np.log(k) + 2.5 * np.log(beta / np.pi)
    np.testing.assert_allclose(mixture.objective, -beta * soft.objective / len(values) + constant, rtol=1e-12)


def hard_covariances(kind: str, values: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Two-pass covariances of labelled rows, in long double."""
    wide = values.astype(np.longdouble)
    each, sizes = [], np.bincount(labels, minlength=k)
    for i in range(k):
        away = wide[labels == i] - wide[labels == i].mean(axis=0)
        each.append((away.T @ away / sizes[i]).astype(np.float64))
    d = values.shape[1]
    match kind:
        case "spherical":
            return np.array([np.trace(one) / d for one in each])
        case "diagonal":
            return np.array([np.diag(one) for one in each])
        case "tied":
            return np.tensordot(sizes / sizes.sum(), np.array(each), axes=1)
    return np.array(each)


@pytest.mark.parametrize("far", ["from the origin", "apart"])
@pytest.mark.parametrize("kind", NAMES)
def test_covariances_keep_nine_digits_far(kind: str, far: str) -> None:
    rng = np.random.default_rng(2)
    labels = np.arange(900) % 3
    gap, offset = (1e6, 0.0) if far == "apart" else (30.0, 1e8)
    values = offset + gap * np.array([[0.0, 0.0], [1.0, 0.2], [0.3, 1.0]])[labels]
    values = values + rng.standard_normal((900, 2)) @ np.array([[1.0, 0.4], [0.0, 0.7]])
    # The floor that regularization adds grows with the distance of the components.
    fit = c.fit(values, c.GaussianMixture(3, kind, regularization=0.0))
    predicted = fit.predict(values)
    truth = np.empty(3, int)
    truth[predicted[:3]] = np.arange(3)
    np.testing.assert_array_equal(truth[predicted], labels)
    order = predicted[:3]
    covariances = fit.covariances if kind == "tied" else fit.covariances[order]
    assert relative(covariances, hard_covariances(kind, values, labels, 3)) < 1e-9
    exact = np.array([values[labels == i].astype(np.longdouble).mean(axis=0) for i in range(3)], float)
    np.testing.assert_allclose(fit.centers[order], exact, rtol=0, atol=2 * np.spacing(np.abs(values).max()))
    assert fit.converged


MODELS: dict[str, Any] = {
    "k-means": c.KMeans(3),
    "soft k-means": c.SoftKMeans(3, 0.4),
    "kullback_leibler": c.KMeans(3, "kullback_leibler"),
    "soft cosine": c.SoftKMeans(3, 20.0, "cosine"),
    "directions": c.VonMisesFisher(3),
    "directions, hard": c.VonMisesFisher(3, "hard"),
    **{kind: c.GaussianMixture(3, kind) for kind in KINDS},
}
models = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


@pytest.fixture(scope="module")
def field() -> np.ndarray:
    return np.abs(blobs(9, 1500, 3, 3)) + 0.1


def init_for(model: Any, values: np.ndarray) -> Any:
    return start(model.covariance, values, model.k) if isinstance(model, GaussianMixture) else values[: model.k]


def assert_same(fit: c.Fit, other: c.Fit, rtol: float) -> None:
    names = ["centers", "weights", "history"] + ["covariances"] * (fit.covariances is not None)
    for name in names:
        actual, expected = getattr(fit, name), getattr(other, name)
        if rtol:
            assert relative(actual, expected) < rtol, name
        else:
            np.testing.assert_array_equal(actual, expected, err_msg=name)


@models
def test_the_order_of_rows_and_the_blocks_do_not_matter(model: Any, field: np.ndarray) -> None:
    how: dict[str, Any] = {"init": init_for(model, field), "max_iterations": 8, "tolerance": 0}
    fit = c.fit(field, model, **how)
    order = np.random.default_rng(0).permutation(len(field))
    permuted = c.fit(field[order], model, **how)
    assert_same(permuted, fit, 1e-12)
    np.testing.assert_array_equal(permuted.predict(field[order]), fit.predict(field)[order])
    for block_bytes in (2_000, 20_001):
        assert_same(c.fit(field, model, block_bytes=block_bytes, **how), fit, 1e-12)


@models
def test_any_number_of_workers_gives_the_same_bits(model: Any, field: np.ndarray) -> None:
    # Nine blocks, and a sample of a few rows: runs on the sample take most of the time.
    how: dict[str, Any] = {"max_iterations": 4, "block_bytes": 4000, "sample_rows": 150, "restarts": 2}
    plain = c.fit(field, model, cluster="synchronous", **how)
    for workers in (1, 2, 4):
        assert_same(c.fit(field, model, workers=workers, **how), plain, 0.0)


@models
def test_float32_rows_get_the_labels_of_their_float64_values(model: Any, field: np.ndarray) -> None:
    narrow = field.astype(np.float32)
    how: dict[str, Any] = {"init": init_for(model, narrow.astype(float)), "max_iterations": 5}
    fit, wide = c.fit(narrow, model, **how), c.fit(narrow.astype(np.float64), model, **how)
    assert_same(fit, wide, 0.0)
    np.testing.assert_array_equal(fit.predict(narrow), wide.predict(narrow.astype(np.float64)))


@models
def test_a_whole_weight_equals_as_many_equal_rows(model: Any, field: np.ndarray, rng: np.random.Generator) -> None:
    weights = rng.integers(0, 4, len(field))
    how: dict[str, Any] = {"init": init_for(model, field), "max_iterations": 6, "tolerance": 0}
    weighted = c.fit(field, model, weights=weights.astype(float), **how)
    repeated = c.fit(np.repeat(field, weights, axis=0), model, **how)
    assert_same(weighted, repeated, 1e-12)
    np.testing.assert_allclose(weighted.objective, repeated.objective, rtol=1e-12)


@models
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
def test_the_start_from_labels_is_the_complete_data_fit(model: Any, weighted: bool, field: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    weights = rng.random(len(field)) if weighted else np.ones(len(field))
    labels = rng.integers(-1, 3, len(field)).astype(float)
    labels[5] = np.nan
    if isinstance(model, GaussianMixture):
        model = c.GaussianMixture(3, model.covariance, regularization=0.0)
    options: dict[str, Any] = {"labels": labels, "init": "labels", "max_iterations": 0}
    fit = c.fit(field, model, weights=weights, **options)
    shares = (labels[:, None] == np.arange(3)) * weights[:, None]
    centers = means(model.start_divergence, field, shares)
    assert relative(fit.centers, centers) < 1e-13
    if not isinstance(model, GaussianMixture):
        return
    np.testing.assert_allclose(fit.weights, shares.sum(axis=0) / shares.sum(), rtol=1e-13)
    each = []
    for i in range(3):
        away = field - centers[i]
        each.append((shares[:, i, None] * away).T @ away / shares[:, i].sum())
    match model.covariance:
        case "spherical":
            expected: Any = [np.trace(one) / 3 for one in each]
        case "diagonal":
            expected = [np.diag(one) for one in each]
        case "tied":
            expected = np.tensordot(fit.weights, np.array(each), axes=1)
        case "full":
            expected = each
        case _:
            assert fit.covariances is None
            return
    assert relative(fit.covariances, expected) < 1e-12


@models
def test_labels_that_leave_a_class_empty_or_go_beyond_k_are_named(model: Any, field: np.ndarray) -> None:
    labels = np.arange(len(field)) % 2
    with pytest.raises(c.ClusteringError, match=r"has label 2.*needs all of 0 … 2"):
        c.fit(field, model, labels=labels, init="labels")
    with pytest.raises(c.ClusteringError, match=r"label 3 .*k is 3"):
        c.fit(field, model, labels=labels + 2, init="labels")


def test_components_are_labelled_by_the_density_of_their_full_covariance(field: np.ndarray) -> None:
    for kind in KINDS:
        fit = c.fit(field, c.GaussianMixture(3, kind), max_iterations=3, restarts=1)
        covariances = np.zeros(0) if fit.covariances is None else fit.covariances
        logs = []
        for i in range(3):
            full = as_full(kind, covariances, i, 3)
            away = field - fit.centers[i]
            squares = np.einsum("nd,nd->n", away, np.linalg.solve(full, away.T).T)
            logs.append(np.log(fit.weights[i]) - 0.5 * squares - 0.5 * np.linalg.slogdet(2 * np.pi * full)[1])
        np.testing.assert_array_equal(fit.predict(field), np.argmax(logs, axis=0))
        np.testing.assert_allclose(fit.score(field), np.logaddexp.reduce(logs, axis=0).mean(), rtol=1e-12)
