from __future__ import annotations

from dataclasses import replace
from typing import Any

import mpmath as mp
import numpy as np
import pytest
from brute import relative, softmax
from scipy.special import logsumexp

import clustering as c
from clustering.data.rows import in_memory_rows
from clustering.models.directional import MOST_KAPPA, log_uniform_density
from clustering.models.directional_mixture import DirectionalMixture
from clustering.models.von_mises_fisher import VonMisesFisher
from clustering.models.von_mises_fisher_params import VonMisesFisherParams

KAPPAS = np.array([0.0, 3.0, 40.0])
EPS = float(np.finfo(float).eps)


def directions(rng: np.random.Generator, k: int, d: int) -> np.ndarray:
    rows = rng.standard_normal((k, d))
    return rows / np.linalg.norm(rows, axis=1)[:, None]


def params_of(seed: int, d: int, kappas: np.ndarray = KAPPAS) -> VonMisesFisherParams:
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.5, 1.5, len(kappas))
    return VonMisesFisherParams(np.zeros(d), directions(rng, len(kappas), d), weights / weights.sum(), kappas, 0.5)


def drawn(seed: int, n: int, d: int, kappas: np.ndarray) -> tuple[np.ndarray, np.ndarray, DirectionalMixture]:
    """Rows of any length whose directions come from a mixture, with the components they come from."""
    params = params_of(seed, d, kappas)
    mixture = DirectionalMixture(params.weights, params.centers, kappas)
    ((rows, components),) = mixture.draw(n, seed, n)
    return rows * np.random.default_rng(seed).uniform(0.5, 4.0, (n, 1)), components, mixture


def log_normalizer(d: int, kappa: float) -> float:
    """log c_d(κ) by mpmath's Bessel function."""
    order = mp.mpf(d) / 2 - 1
    if kappa == 0:
        return float(mp.loggamma(mp.mpf(d) / 2) - mp.log(2) - mp.mpf(d) / 2 * mp.log(mp.pi))
    return float(order * mp.log(kappa) - mp.mpf(d) / 2 * mp.log(2 * mp.pi) - mp.log(mp.besseli(order, kappa)))


def resultant_of(d: int, kappa: float) -> mp.mpf:
    return mp.besseli(mp.mpf(d) / 2, kappa) / mp.besseli(mp.mpf(d) / 2 - 1, kappa)


def log_joint(params: VonMisesFisherParams, rows: np.ndarray) -> np.ndarray:
    """Log of weight times density, of each row and component ``(n, k)``."""
    unit = rows / np.linalg.norm(rows, axis=1)[:, None]
    d = rows.shape[1]
    constants = [
        np.log(w) + log_normalizer(d, kappa) for w, kappa in zip(params.weights, params.concentrations, strict=True)
    ]
    return np.array(constants) + params.concentrations * (unit @ params.centers.T)


@pytest.mark.parametrize("d", [2, 3, 20, 200])
@pytest.mark.parametrize("assignment", ["soft", "hard"])
def test_a_pass_is_that_of_the_definition(assignment: Any, d: int, rng: np.random.Generator) -> None:
    params, model = params_of(d, d), VonMisesFisher(3, assignment, regularization=0.0)
    rows, weights = rng.standard_normal((400, d)) * rng.uniform(0.1, 9.0, (400, 1)), rng.random(400)
    unit = rows / np.linalg.norm(rows, axis=1)[:, None]
    logs = log_joint(params, rows)
    resp = np.array([softmax(row)[0] for row in logs])
    if assignment == "hard":
        resp = (logs.argmax(axis=1)[:, None] == np.arange(3)).astype(float)
        expected = -float(weights @ logs.max(axis=1))
    else:
        expected = -float(weights @ logsumexp(logs, axis=1))
    statistics = model.statistics(params, in_memory_rows(rows, weights))
    shares = resp * weights[:, None]
    assert statistics.objective == pytest.approx(expected, rel=1e-12)
    assert statistics.neg_expected_complete_log_likelihood == pytest.approx(-float(np.sum(shares * logs)), rel=1e-12)
    np.testing.assert_allclose(statistics.weight, shares.sum(axis=0), rtol=1e-12)
    about = statistics.first + statistics.weight[:, None] * params.centers
    np.testing.assert_allclose(about, shares.T @ unit, rtol=0, atol=1e-12 * len(rows))

    update = model.update(params, statistics)
    sums = shares.T @ unit
    lengths = np.linalg.norm(sums, axis=1)
    np.testing.assert_allclose(update.params.centers, sums / lengths[:, None], atol=1e-13)
    np.testing.assert_allclose(update.params.weights, shares.sum(axis=0) / weights.sum(), rtol=1e-13)
    for kappa, length, weight in zip(update.params.concentrations, lengths, shares.sum(axis=0), strict=True):
        assert float(resultant_of(d, kappa)) == pytest.approx(length / weight, rel=1e-10)
    # The objective of the same assignment at the new params.
    entropy = -float(np.sum(weights * np.sum(np.where(resp > 0, resp * np.log(np.maximum(resp, 1e-300)), 0.0), axis=1)))
    after = -float(np.sum(shares * log_joint(update.params, rows))) - entropy
    assert update.objective == pytest.approx(after, rel=1e-10)
    assert model.statistics(update.params, in_memory_rows(rows, weights)).objective <= update.objective + 1e-9


@pytest.mark.parametrize("assignment", ["soft", "hard"])
@pytest.mark.parametrize("d", [2, 5, 64])
def test_every_step_raises_the_likelihood(assignment: Any, d: int) -> None:
    rows, _, _ = drawn(3, 800, d, np.array([1.0, 5.0, 30.0]))
    fit = c.fit(
        rows,
        VonMisesFisher(3, assignment, 0.0),
        init="random",
        restarts=1,
        sample_rows=40,
        tolerance=0,
        max_iterations=30,
    )
    steps = np.diff(fit.history.reshape(-1))
    assert len(fit.history) > 5
    assert steps.min() >= -1e-12 * np.abs(fit.history).max()


def test_planted_components_are_recovered() -> None:
    kappas = np.array([60.0, 100.0, 200.0, 400.0])
    rows, components, mixture = drawn(1, 20_000, 50, kappas)
    fit = c.fit(rows, c.VonMisesFisher(4))
    order = np.argsort(fit.params.concentrations)
    np.testing.assert_allclose(fit.params.concentrations[order], kappas, rtol=0.02)
    np.testing.assert_allclose(fit.weights[order], mixture.weights, atol=0.01)
    assert np.sum(fit.centers[order] * mixture.directions, axis=1).min() > 0.999
    assert np.mean(np.argsort(order)[fit.predict(rows)] == components) > 0.999
    assert fit.criteria is not None
    assert fit.criteria["parameters"] == 4 * 50 + 3


@pytest.mark.parametrize("kappa", [1e-9, 1e-3])
def test_without_concentration_every_direction_is_as_likely(kappa: float, rng: np.random.Generator) -> None:
    rows = rng.standard_normal((2000, 6))
    init = {"centers": directions(rng, 2, 6), "weights": [0.5, 0.5], "concentrations": [kappa, kappa]}
    fit = c.fit(rows, c.VonMisesFisher(2), init=init, max_iterations=0)
    np.testing.assert_allclose(fit.log_density(rows), log_uniform_density(6), atol=2 * kappa)
    np.testing.assert_allclose(fit.responsibilities(rows), 0.5, atol=kappa)


@pytest.mark.parametrize("kappa", [0.5, 30.0, 1e6])
def test_equal_components_assign_as_spherical_k_means(kappa: float, rng: np.random.Generator) -> None:
    rows, init = rng.standard_normal((3000, 8)), directions(rng, 5, 8)
    given = {"centers": init, "weights": np.full(5, 0.2), "concentrations": np.full(5, kappa)}
    expected = c.fit(rows, c.KMeans(5, "cosine"), init=init, max_iterations=0).predict(rows)
    for assignment in ("soft", "hard"):
        fit = c.fit(rows, VonMisesFisher(5, assignment), init=given, max_iterations=0)  # type: ignore[arg-type]
        np.testing.assert_array_equal(fit.predict(rows), expected)


def test_tight_clusters_are_those_of_spherical_k_means() -> None:
    rows, _, _ = drawn(5, 3000, 16, np.full(4, 2000.0))
    hard, spherical = (c.fit(rows, model) for model in (VonMisesFisher(4, "hard"), c.KMeans(4, "cosine")))
    np.testing.assert_array_equal(hard.predict(rows), spherical.predict(rows))
    np.testing.assert_allclose(hard.centers, spherical.centers, atol=1e-13)
    soft = c.fit(rows, c.VonMisesFisher(4))
    np.testing.assert_allclose(soft.centers, spherical.centers, atol=1e-9)


@pytest.mark.parametrize("assignment", ["soft", "hard"])
def test_rows_of_one_direction_do_not_make_a_component_collapse(assignment: Any, rng: np.random.Generator) -> None:
    rows = np.concatenate([np.repeat([[3.0, 0.0, 0.0]], 50, axis=0), rng.standard_normal((300, 3))])
    fit = c.fit(rows, VonMisesFisher(2, assignment), restarts=3)
    assert np.isfinite(fit.history).all()
    assert np.isfinite(fit.params.concentrations).all()
    free = c.fit(rows, VonMisesFisher(2, assignment, regularization=0.0), restarts=3, max_iterations=50)
    assert free.params.concentrations.max() <= MOST_KAPPA
    assert np.isfinite(free.objective)


def test_a_component_without_rows_is_placed_anew() -> None:
    rows = np.array([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [0.02, 1.0], [-1.0, 0.0], [-1.0, 0.05]])
    model = c.VonMisesFisher(3)
    params = replace(params_of(0, 2, np.full(3, 50.0)), weights=np.array([0.5, 0.5, 0.0]))
    statistics = model.statistics(params, in_memory_rows(rows, np.ones(6)))
    assert statistics.weight[2] < 1e-200
    update = model.update(params, statistics)
    assert update.restarted
    assert "component 2 lost all its rows; placed anew" in update.notes[0]
    assert any(np.allclose(update.params.centers[2], row / np.linalg.norm(row)) for row in rows)
    assert update.params.weights.sum() == pytest.approx(1.0)


def test_the_length_of_rows_does_not_matter(rng: np.random.Generator) -> None:
    rows, _, _ = drawn(2, 600, 4, np.array([10.0, 50.0]))
    one = c.fit(rows, c.VonMisesFisher(2), seed=1)
    other = c.fit(rows * 2.0 ** rng.integers(-90, 90, (600, 1)), c.VonMisesFisher(2), seed=1)
    assert relative(other.centers, one.centers) < 1e-12
    np.testing.assert_allclose(other.history, one.history, rtol=1e-10)


def test_drawn_rows_follow_from_the_seed_and_their_number() -> None:
    rows, _, mixture = drawn(4, 500, 3, np.array([5.0, 500.0]))
    fit = c.fit(rows, c.VonMisesFisher(2))
    (few, few_from), (many, many_from) = fit.sample(100, seed=3), fit.sample(70_000, seed=3)
    np.testing.assert_array_equal(few, many[:100])
    np.testing.assert_array_equal(few_from, many_from[:100])
    np.testing.assert_allclose(np.linalg.norm(many, axis=1), 1.0, atol=4 * EPS)
    parts = list(mixture.draw(70_000, 3, 4096))
    whole = np.concatenate([part for part, _ in parts])
    ((expected, _),) = mixture.draw(70_000, 3, 70_000)
    np.testing.assert_array_equal(whole, expected)
    labels = np.concatenate(list(mixture.draw_labels(70_000, 3, 1000)))
    np.testing.assert_array_equal(labels, np.concatenate([part for _, part in parts]))
    refit = c.fit(many, c.VonMisesFisher(2))
    np.testing.assert_allclose(refit.params.concentrations, fit.params.concentrations, rtol=0.05)


def test_outlier_scores_of_a_concentrated_component_are_even() -> None:
    rows, _, _ = drawn(6, 20_000, 5, np.array([5000.0]))
    scores = c.fit(rows, c.VonMisesFisher(1)).outlier_score(rows)
    for level in (0.5, 1.0, 2.0):
        assert np.mean(scores > level) == pytest.approx(10.0**-level, rel=0.15)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "assignment": ({"assignment": "fuzzy"}, "assignment is 'fuzzy'"),
    "regularization": ({"regularization": -1}, "regularization is -1; a number of 0 or more"),
    "k": ({"k": 0}, "k is 0"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_options_outside_their_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(c.ClusteringError, match=message):
        c.VonMisesFisher(**{"k": 2, **options})


def test_data_without_directions_are_refused(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((50, 3))
    with pytest.raises(c.ClusteringError, match="a row of zeros"):
        c.fit(np.concatenate([rows, np.zeros((1, 3))]), c.VonMisesFisher(2))
    with pytest.raises(c.ClusteringError, match="one feature"):
        c.fit(rows[:, :1], c.VonMisesFisher(2))
    rows[3, 1] = np.nan
    with pytest.raises(c.ClusteringError, match="only squared_euclidean leaves out single features"):
        c.fit(rows, c.VonMisesFisher(2), missing="marginalize")
    init = {"centers": rows[:2], "weights": [0.5, 0.5], "concentrations": [1.0, -1.0]}
    with pytest.raises(c.ClusteringError, match="starting concentrations are"):
        c.fit(rows, c.VonMisesFisher(2), init=init)
    with pytest.raises(c.ClusteringError, match="belong to one cluster each"):
        c.fit(rows, c.VonMisesFisher(2, "hard")).responsibilities(rows)


WRONG_STARTS: dict[str, tuple[dict[str, Any], str]] = {
    "weight of 0": ({"weights": [1.0, 0.0]}, "give shares above 0"),
    "three weights": ({"weights": [0.2, 0.3, 0.5]}, "k = 2 components have 2 weights"),
    "covariances": ({"covariances": 1.0}, "von_mises_fisher starts from .* centers, concentrations, weights"),
}


@pytest.mark.parametrize(("given", "message"), WRONG_STARTS.values(), ids=WRONG_STARTS)
def test_starts_that_do_not_fit_are_refused(given: dict[str, Any], message: str, rng: np.random.Generator) -> None:
    rows = rng.standard_normal((50, 3))
    with pytest.raises(c.ClusteringError, match=message):
        c.fit(rows, c.VonMisesFisher(2), init={"centers": rows[:2], **given})
