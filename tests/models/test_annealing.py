from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
import pytest
from brute import blobs, divergences, holes, softmax

import clustering as c
from clustering.execution.engine import connect
from clustering.execution.passes import pass_runner
from clustering.fitting.on_sample import sample_passes
from clustering.fitting.options import Options
from clustering.fitting.survey_pass import run_survey
from clustering.models.annealing import STEP, AnnealingResult, anneal

DATA = {
    "one blob, k 3": (blobs(0, 400, 2, 1), 3),
    "four blobs": (blobs(1, 600, 2, 4, spread=15.0), 4),
    "three long blobs": (blobs(2, 600, 3, 3, spread=10.0) * np.array([5.0, 1.0, 0.2]), 3),
    "one dimension": (blobs(3, 300, 1, 2, spread=9.0), 2),
    "k 1": (blobs(4, 200, 4, 1), 1),
    "far off": (1e7 + blobs(5, 400, 2, 3, spread=15.0), 3),
}
data = pytest.mark.parametrize(("values", "k"), DATA.values(), ids=DATA)


def annealed(values: np.ndarray, model: Any, **options: Any) -> AnnealingResult:
    source = c.open_source(values, **options)
    with connect("synchronous") as engine, pass_runner(source, source.plan(), engine, memory=2**28) as inside:
        survey, _ = run_survey(inside, model, Options(), 2**28)
        return anneal(model, survey, partial(sample_passes, engine=engine), ())


def likeliest(values: np.ndarray, centers: np.ndarray, beta: float, weights: np.ndarray | None = None) -> float:
    """β of the variance that soft k-means at β finds: d W / (2 E)."""
    weights = np.ones(len(values)) if weights is None else weights
    squares = divergences("squared_euclidean", values, centers)
    shares = np.array([softmax(row)[0] for row in -beta * squares])
    seen = np.sum(weights[:, None] * ~np.isnan(values))
    return float(seen / (2 * np.sum(weights[:, None] * shares * squares)))


@data
def test_the_critical_value_is_that_of_the_largest_eigenvalue(values: np.ndarray, k: int) -> None:
    result = annealed(values, c.SoftKMeans(k, "auto"))
    centred = values - values.mean(axis=0)
    largest = np.linalg.eigvalsh(np.atleast_2d(centred.T @ centred / len(values)))[-1]
    assert result.critical == pytest.approx(1 / (2 * largest), rel=1e-8)
    if k > 1:
        betas, counts = zip(*result.splits, strict=True)
        assert result.critical <= betas[0] <= result.critical * STEP**3
        assert list(betas) == sorted(betas)
        assert list(counts) == sorted(set(counts))
        assert counts[-1] == k
    else:
        assert result.splits == ()


@data
def test_beta_fits_the_centers_or_is_where_the_last_center_split(values: np.ndarray, k: int) -> None:
    result = annealed(values, c.SoftKMeans(k, "auto"))
    beta = result.params.beta
    rule = likeliest(values, result.params.origin + result.params.centers, beta)
    assert rule <= beta * (1 + 1e-3)
    if not result.splits or beta > result.splits[-1][0] * (1 + 1e-9):
        assert rule == pytest.approx(beta, rel=1e-3)


def test_separate_blobs_get_the_beta_of_their_variance_and_their_means() -> None:
    values, k = DATA["four blobs"]
    fit = c.fit(values, c.SoftKMeans(k, "auto"), tolerance=1e-10)
    assert fit.params.beta == pytest.approx(0.5, rel=0.1)
    hard = c.fit(values, c.KMeans(k))
    order = np.argsort(fit.centers[:, 0]), np.argsort(hard.centers[:, 0])
    np.testing.assert_allclose(fit.centers[order[0]], hard.centers[order[1]], atol=0.02)
    assert fit.fitted.remarks[0].startswith(f"beta set to {fit.params.beta:.6g} by annealing; first critical value ")


def test_one_center_gets_the_beta_of_all_rows() -> None:
    values, _ = DATA["k 1"]
    result = annealed(values, c.SoftKMeans(1, "auto"))
    assert result.params.beta == pytest.approx(1 / (2 * values.var(axis=0).mean()), rel=1e-4)


def test_beta_goes_with_the_units(rng: np.random.Generator) -> None:
    values, k = DATA["three long blobs"]
    plain, scaled = (annealed(s * values, c.SoftKMeans(k, "auto")) for s in (1.0, 1024.0))
    assert scaled.params.beta * 1024**2 == pytest.approx(plain.params.beta, rel=1e-9)
    np.testing.assert_allclose(scaled.params.centers, 1024 * plain.params.centers, rtol=1e-7, atol=1e-6)


def test_a_whole_weight_equals_as_many_equal_rows() -> None:
    values, k = DATA["four blobs"]
    weights = np.random.default_rng(0).integers(1, 4, len(values))
    weighted = annealed(values, c.SoftKMeans(k, "auto"), weights=weights.astype(float))
    repeated = annealed(np.repeat(values, weights, axis=0), c.SoftKMeans(k, "auto"))
    assert weighted.critical == pytest.approx(repeated.critical, rel=1e-12)
    assert weighted.params.beta == pytest.approx(repeated.params.beta, rel=1e-6)


def test_rows_with_gaps_are_annealed_by_the_features_that_they_have() -> None:
    values = holes(0, DATA["four blobs"][0], 0.2)
    fit = c.fit(values, c.SoftKMeans(4, "auto"), missing="marginalize", tolerance=1e-9)
    rule = likeliest(values, fit.centers, fit.params.beta)
    assert fit.params.beta == pytest.approx(rule, rel=2e-3)


@pytest.mark.parametrize("workers", [1, 4], ids="workers-{}".format)
def test_the_same_rows_give_the_same_bits(workers: int) -> None:
    values, k = DATA["three long blobs"]
    plain = c.fit(values, c.SoftKMeans(k, "auto"), cluster="synchronous", block_bytes=4000, seed=1)
    other = c.fit(values, c.SoftKMeans(k, "auto"), workers=workers, block_bytes=4000, seed=2)
    assert other.params.beta == plain.params.beta
    np.testing.assert_array_equal(other.centers, plain.centers)
    np.testing.assert_array_equal(other.history, plain.history)


def test_equal_rows_tell_nothing_about_beta() -> None:
    with pytest.raises(c.ClusteringError, match=r"all rows are equal and beta is 'auto'.*give beta a number"):
        c.fit(np.full((30, 2), 7.0), c.SoftKMeans(1, "auto"))


def test_rows_at_their_centers_do_not_limit_beta() -> None:
    values = np.repeat([[0.0, 1.0], [4.0, 5.0], [9.0, 0.0]], 10, axis=0)
    with pytest.raises(c.ClusteringError, match=r"all rows lie at their centers.*lower k"):
        c.fit(values, c.SoftKMeans(3, "auto"))


@pytest.mark.parametrize("name", ["mahalanobis", "cosine", "kullback_leibler", "itakura_saito"])
def test_other_divergences_are_annealed_too(name: Any) -> None:
    values = np.exp(blobs(7, 400, 3, 3, spread=6.0) / 4)
    fit = c.fit(values, c.SoftKMeans(3, "auto", name))
    assert np.isfinite(fit.params.beta)
    assert len(np.unique(fit.predict(values))) == 3
    objectives = fit.history.ravel()
    assert (np.diff(objectives) <= 1e-12 * np.abs(objectives).max()).all()


def test_a_better_start_at_the_beta_found_is_taken_with_its_own_beta() -> None:
    rng = np.random.default_rng(1)
    values = rng.uniform(-6, 6, (8, 8))[rng.integers(0, 8, 3000)] + rng.standard_normal((3000, 8))
    fit = c.fit(values, c.SoftKMeans(8, "auto"))
    # The other fit starts from hard clusters at the fitted β. The true β is 1/2.
    other = c.fit(values, c.SoftKMeans(8, fit.params.beta))
    assert fit.objective <= other.objective * (1 + 1e-6)
    energy = np.sum(fit.responsibilities(values) * ((values[:, None] - fit.centers) ** 2).sum(axis=2))
    assert fit.params.beta == pytest.approx(8 * 3000 / (2 * energy), rel=1e-2)


def test_a_beta_at_which_all_centers_become_one_is_warned_of() -> None:
    values = np.random.default_rng(0).standard_normal((300, 2))
    critical = 1 / (2 * np.linalg.eigvalsh(np.cov(values.T, bias=True))[-1])
    said = f"beta is {0.9 * critical:g}, below the critical value {critical:.4g}"
    with pytest.warns(c.ClusteringWarning, match=re.escape(said)):
        low = c.fit(values, c.SoftKMeans(3, 0.9 * critical))
    assert low.fitted.notes[0].startswith(said)
    assert not any("critical" in note for note in c.fit(values, c.SoftKMeans(3, 1.1 * critical)).fitted.notes)
