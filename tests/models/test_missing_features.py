from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from brute import KINDS, blobs, divergences, holes, means, mixture_pass, of_kind, random_params, relative

import clustering as c
from clustering.data.rows import in_memory_rows
from clustering.models import missing_features
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.mixture import GaussianMixture

# test_mixture.py and test_soft_kmeans.py compare passes over rows with gaps with plain numpy, beside complete rows.
MODELS: dict[str, Any] = {
    "k-means": c.KMeans(3),
    "soft k-means": c.SoftKMeans(3, 0.5),
    **{kind: c.GaussianMixture(3, kind, regularization=0.0) for kind in KINDS},
}
models = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


@pytest.fixture
def gappy() -> np.ndarray:
    return holes(1, blobs(0, 400, 4, 3), 0.25)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7], ids="missing-{}".format)
def test_a_pass_of_k_means_measures_what_was_observed(share: float, rng: np.random.Generator) -> None:
    values, weights, centers = holes(1, blobs(0, 300, 4, 3), share), rng.random(300) * 2, blobs(5, 3, 4, 3)
    params, model = KMeansParams(np.full(4, 0.5), centers - 0.5), KMeans(3)
    rows = in_memory_rows(values, weights, allow_missing=True)
    away = divergences("squared_euclidean", values, centers)
    assignment = model.assign(params, rows)
    np.testing.assert_array_equal(assignment.labels, away.argmin(axis=1))
    np.testing.assert_allclose(assignment.distances, away.min(axis=1), rtol=1e-12)
    statistics = model.statistics(params, rows)
    assert statistics.objective == pytest.approx(weights @ away.min(axis=1), rel=1e-13)
    update = model.update(params, statistics)
    shares = (assignment.labels[:, None] == np.arange(3)) * weights[:, None]
    new = means("squared_euclidean", values, shares)
    assert relative(update.params.origin + update.params.centers, new) < 1e-13
    after = np.sum(shares * divergences("squared_euclidean", values, new))
    assert update.objective == pytest.approx(after, rel=1e-11)


def cut_off(seed: int, n: int, d: int, k: int) -> np.ndarray:
    """Rows that end at one of three features. Every seventh row has holes of its own instead."""
    values = blobs(seed, n, d, k)
    ends = np.random.default_rng(seed).choice([d // 3, d // 2, d], n)
    values[np.arange(d) >= ends[:, None]] = np.nan
    values[::7] = holes(seed, blobs(seed, n, d, k), 0.4)[::7]
    return values


@pytest.mark.parametrize("d", [5, 30, 70], ids="d-{}".format)
@pytest.mark.parametrize("kind", ["tied", "full"])
def test_patterns_of_many_rows_and_of_few_are_those_of_plain_numpy(kind: Any, d: int) -> None:
    values, weights = cut_off(2, 150, d, 2), np.random.default_rng(0).random(150)
    params, model = random_params(3, kind, 2, d), GaussianMixture(2, kind, regularization=0.05)
    rows = in_memory_rows(values, weights, allow_missing=True)
    statistics = model.statistics(params, rows)
    update, expected = model.update(params, statistics), mixture_pass(params, values, weights, floor=0.05)
    assert statistics.objective == pytest.approx(-expected.log_likelihood, rel=1e-12)
    assert relative(update.params.origin + update.params.centers, expected.centers) < 1e-11
    assert relative(update.params.covariances, expected.covariances) < 1e-11
    assert update.objective == pytest.approx(-expected.bound, rel=1e-10)
    gappy = np.isnan(values).any(axis=1)
    patterns = list(missing_features.group_by_pattern(rows.select(gappy), params.origin, 2))
    assert {pattern.by_blas for pattern in patterns} == ({False, True} if d > 24 else {False})
    places = np.concatenate([pattern.row_index for pattern in patterns])
    np.testing.assert_array_equal(np.sort(places), np.arange(gappy.sum()))


@pytest.mark.parametrize("kind", ["tied", "full"])
@pytest.mark.parametrize("name", ["MANY_ROWS", "CONDITIONED_BYTES"])
def test_how_patterns_are_worked_on_together_changes_nothing(
    kind: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = in_memory_rows(cut_off(2, 150, 30, 2), allow_missing=True)
    params, model = random_params(3, kind, 2, 30), GaussianMixture(2, kind)
    plain, assigned = model.statistics(params, rows), model.assign(params, rows)
    monkeypatch.setattr(missing_features, name, 1)
    other, again = model.statistics(params, rows), model.assign(params, rows)
    np.testing.assert_array_equal(again.labels, assigned.labels)
    np.testing.assert_allclose(again.distances, assigned.distances, rtol=1e-12)
    for key, total in plain.sums.items():
        assert relative(other.sums[key], total) < 1e-12
    assert other.objective == pytest.approx(plain.objective, rel=1e-13)


def test_a_covariance_that_is_none_raises_an_error(gappy: np.ndarray) -> None:
    params = random_params(0, "full", 3, 4)
    params.covariances[1, 0, 0] = -1.0
    pattern = next(missing_features.group_by_pattern(in_memory_rows(gappy, allow_missing=True), params.origin, 3))
    with pytest.raises(np.linalg.LinAlgError):
        missing_features.condition_components("full", params.centers, params.covariances, pattern)


@models
def test_where_nothing_is_missing_nothing_changes(model: Any) -> None:
    values = blobs(0, 400, 4, 3)
    plain, fit = c.fit(values, model), c.fit(values, model, missing="marginalize")
    np.testing.assert_allclose(fit.centers, plain.centers, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(fit.history, plain.history, rtol=1e-12)
    np.testing.assert_array_equal(fit.predict(values, missing="marginalize"), plain.predict(values))


@models
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
def test_no_objective_is_worse_than_the_one_before(model: Any, weighted: bool, gappy: np.ndarray) -> None:
    weights = np.random.default_rng(0).random(len(gappy)) if weighted else None
    fit = c.fit(
        gappy, model, weights=weights, init="random", restarts=1, max_iterations=40, tolerance=0, missing="marginalize"
    )
    assert not [note for note in fit.fitted.notes if "placed" in note or "seeded" in note]
    objectives = fit.history.ravel() * (-1 if isinstance(model, GaussianMixture) else 1)
    assert (np.diff(objectives) <= 1e-12 * np.abs(objectives).max()).all()
    assert fit.objective == pytest.approx(fit.score(gappy, weights=weights, missing="marginalize"), rel=1e-11)


@models
def test_a_feature_that_a_row_lacks_takes_no_part_in_its_label(model: Any, gappy: np.ndarray) -> None:
    fit = c.fit(gappy, model, missing="marginalize", max_iterations=5)
    labels = fit.predict(gappy, missing="marginalize")
    row = holes(0, gappy[:1], 0.0)
    for place in (0, 100, 399):
        row = gappy[place : place + 1]
        assert fit.predict(row, missing="marginalize") == labels[place]


def test_missing_features_are_recovered_as_well_as_they_can_be(rng: np.random.Generator) -> None:
    # Of two features of correlation 0.9, the second is missing where the first is high: the mean of what was observed
    # is biased, and that of the mixture is not.
    values = rng.standard_normal((40_000, 2)) @ np.linalg.cholesky(np.array([[1.0, 0.9], [0.9, 1.0]])).T
    values[values[:, 0] > 0.5, 1] = np.nan
    assert np.nanmean(values[:, 1]) < -0.3
    fit = c.fit(values, c.GaussianMixture(1, "full", regularization=0.0), missing="marginalize", tolerance=1e-10)
    np.testing.assert_allclose(fit.centers, [[0.0, 0.0]], atol=0.03)
    np.testing.assert_allclose(fit.covariances[0], [[1.0, 0.9], [0.9, 1.0]], atol=0.04)


@pytest.mark.parametrize("kind", KINDS)
def test_the_place_of_rows_with_gaps_among_others_does_not_matter(kind: Any, gappy: np.ndarray) -> None:
    model, params = GaussianMixture(3, kind), random_params(0, kind, 3, 4)
    order = np.random.default_rng(0).permutation(len(gappy))
    plain, permuted = (model.assign(params, in_memory_rows(rows, allow_missing=True)) for rows in (gappy, gappy[order]))
    np.testing.assert_array_equal(permuted.labels, plain.labels[order])
    np.testing.assert_allclose(permuted.distances, plain.distances[order], rtol=1e-12)
    parts = list(model.e_step(params, in_memory_rows(gappy, allow_missing=True)))
    places = np.concatenate([np.arange(len(gappy))[part.row_index] for part in parts])
    np.testing.assert_array_equal(np.sort(places), np.arange(len(gappy)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_start_from_labels_takes_missing_features_at_the_class_mean(kind: Any, gappy: np.ndarray) -> None:
    labels = np.arange(len(gappy)) % 3
    model = c.GaussianMixture(3, kind, regularization=0.0)
    fit = c.fit(gappy, model, labels=labels, init="labels", max_iterations=0, missing="marginalize")
    shares = (labels[:, None] == np.arange(3)).astype(float)
    observed = means("squared_euclidean", gappy, shares)
    assert relative(fit.centers, observed) < 1e-12
    np.testing.assert_allclose(fit.weights, shares.mean(axis=0), rtol=1e-13)
    if kind == "identity":
        return
    # A missing feature is expected at the mean, with the variance of all rows.
    away = gappy - observed[labels]
    lacking = np.isnan(away)[:, :, None] * np.diag(np.nanvar(gappy, axis=0))
    away = np.where(np.isnan(away), 0.0, away)
    each = np.array([(away[:, :, None] * away[:, None] + lacking)[labels == i].mean(axis=0) for i in range(3)])
    assert relative(fit.covariances, of_kind(kind, each, shares.sum(axis=0), 0.0)) < 1e-12


def test_a_row_that_has_no_feature_takes_no_part() -> None:
    values = np.array([[1.0, np.nan], [np.nan, np.nan], [2.0, 3.0], [9.0, 9.0], [np.nan, 8.0]])
    for model in (c.KMeans(2), c.SoftKMeans(2), c.GaussianMixture(2, "full", regularization=1e-2)):
        fit = c.fit(values, model, missing="marginalize")
        assert fit.predict(values, missing="marginalize").tolist() in ([1, -1, 1, 0, 0], [0, -1, 0, 1, 1])
