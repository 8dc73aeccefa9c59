from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

import clustering as c
from clustering.fitting import matching
from clustering.fitting.component_space import ComparedComponents, compare_components
from clustering.fitting.fitted_model import FittedModel
from clustering.fitting.matching import match, match_ids, renumber, reorder

seeds = st.integers(0, 2**32 - 1)
PLACES = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [12.0, 12.0]])


def drawn(n: int = 400, places: np.ndarray = PLACES, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Positive rows, which every divergence takes, around places far apart."""
    rng = np.random.default_rng(seed)
    return 20.0 + places[np.arange(n) % len(places)] + scale * rng.standard_normal((n, 2))


MODELS = {
    "kmeans": c.KMeans(4),
    "mahalanobis": c.KMeans(4, "mahalanobis"),
    "kullback_leibler": c.KMeans(4, "kullback_leibler"),
    "itakura_saito": c.KMeans(4, "itakura_saito"),
    "cosine": c.KMeans(3, "cosine"),
    "soft": c.SoftKMeans(4, beta=0.5),
    "identity": c.GaussianMixture(4, "identity"),
    "spherical": c.GaussianMixture(4, "spherical"),
    "diagonal": c.GaussianMixture(4, "diagonal"),
    "tied": c.GaussianMixture(4, "tied"),
    "full": c.GaussianMixture(4, "full"),
}
models = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def shuffled(fitted: FittedModel, seed: int) -> FittedModel:
    """The same model with its components in another order, as another start leaves them."""
    order = np.random.default_rng(seed).permutation(fitted.model.k)
    return replace(reorder(fitted, order), ids=np.arange(fitted.model.k))


def equal(one: FittedModel, other: FittedModel) -> None:
    assert one.ids.tolist() == other.ids.tolist()
    for name in one.params.dims:
        assert np.asarray(getattr(one.params, name)).tobytes() == np.asarray(getattr(other.params, name)).tobytes()
    assert one.shares.tobytes() == other.shares.tobytes()
    assert {name: array.tobytes() for name, array in one.track.items()} == {
        name: np.ascontiguousarray(array).tobytes() for name, array in other.track.items()
    }


@models
def test_components_in_another_order_come_back_in_the_old_one(model: Any) -> None:
    previous = renumber(c.fit(drawn(), model, max_iterations=5).fitted, 3)
    for seed in range(5):
        other = shuffled(previous, seed)
        back = match_ids(other, previous)
        equal(back, previous)
        assert back.largest_id == previous.largest_id == previous.ids.max()
        rows = drawn(50)
        assert c.Fit(back, False).predict(rows).tolist() == c.Fit(previous, False).predict(rows).tolist()


@pytest.mark.parametrize("preprocess", [{}, {"standardize": "per_feature"}, {"pca": 2}], ids=["plain", "scores", "pca"])
@pytest.mark.parametrize("name", ["kmeans", "mahalanobis", "spherical", "tied", "full"])
def test_another_seed_on_other_rows_keeps_the_ids(name: str, preprocess: dict[str, Any]) -> None:
    one, other = (c.fit(drawn(600, seed=seed), MODELS[name], seed=seed, **preprocess).fitted for seed in (1, 2))
    kept = match_ids(shuffled(other, 1), one)
    assert kept.ids.tolist() == [0, 1, 2, 3]
    assert kept.remarks == other.remarks
    rows = drawn(200, seed=5)
    assert (c.Fit(one, False).predict(rows) == c.Fit(kept, False).predict(rows)).mean() > 0.97


@pytest.mark.parametrize("name", ["kullback_leibler", "itakura_saito", "cosine", "soft"])
def test_every_divergence_keeps_the_ids(name: str) -> None:
    places = PLACES[[0, 1, 3][: MODELS[name].k]] if name == "cosine" else PLACES
    one, other = (c.fit(drawn(600, places, seed), MODELS[name], seed=seed).fitted for seed in (1, 2))
    assert match_ids(shuffled(other, 1), one).ids.tolist() == one.ids.tolist()


def points(seed: int, k: int, d: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((k, d)) * 10


@given(seeds, st.integers(1, 12), st.floats(0.0, 0.49))
def test_small_moves_keep_every_component(seed: int, k: int, far: float) -> None:
    old = points(seed, k)
    apart = cdist(old, old) + np.diag(np.full(k, np.inf))
    limit = np.where(np.isinf(apart.min(axis=1)), 1.0, apart.min(axis=1))
    assume(limit.min() > 1e-3)
    rng = np.random.default_rng(seed + 1)
    direction = rng.standard_normal((k, 2))
    moved = old + far * limit[:, None] * direction / np.linalg.norm(direction, axis=1)[:, None]
    order = rng.permutation(k)
    assert match(ComparedComponents(moved[order]), ComparedComponents(old)).tolist() == order.tolist()


@given(seeds, st.integers(1, 8), st.integers(1, 8))
def test_who_is_matched_is_nearer_than_half_way_and_nearest(seed: int, k: int, other: int) -> None:
    new, old = points(seed, k), points(seed + 1, other)
    matches = match(ComparedComponents(new), ComparedComponents(old))
    assert len(set(matches[matches >= 0])) == (matches >= 0).sum()
    apart, among = cdist(new, old), cdist(old, old) + np.diag(np.full(other, np.inf))
    for i, j in enumerate(matches):
        if j >= 0:
            assert apart[i, j] == apart[i].min()
            assert apart[i, j] < among[j].min() / 2
            # Of the new components that might be old component j, i is the nearest.
            assert apart[i, j] == apart[:, j].min()
        elif other == 1:
            assert matches.max() == 0
        else:
            inside = apart[i] < among.min(axis=1) / 2
            assert all(j in matches and apart[i, j] >= apart[:, j].min() for j in np.flatnonzero(inside))


@given(seeds, st.integers(1, 8))
def test_neither_units_nor_places_matter(seed: int, k: int) -> None:
    new, old = points(seed, k), points(seed + 1, 5)
    matches = match(ComparedComponents(new), ComparedComponents(old)).tolist()
    assert match(ComparedComponents(1e-6 * new + 3e-6), ComparedComponents(1e-6 * old + 3e-6)).tolist() == matches


def test_parts_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = ComparedComponents(points(1, 60) + 0.1), ComparedComponents(points(1, 60)[::-1])
    whole = match(new, old)
    assert (whole >= 0).sum() > 40
    monkeypatch.setattr(matching, "AT_ONCE", 130)
    assert match(new, old).tolist() == whole.tolist()


def test_components_from_nowhere_drag_nobody_away() -> None:
    old, new = np.array([[0.0], [10.0]]), np.array([[10.0], [20.0]])
    # By the sum of squares alone, 0 → 10 and 10 → 20 would be the cheapest pairs.
    assert match(ComparedComponents(new), ComparedComponents(old)).tolist() == [1, -1]


def test_one_component_is_always_found_again() -> None:
    assert match(ComparedComponents(np.array([[1e6, -3.0]])), ComparedComponents(np.zeros((1, 2)))).tolist() == [0]
    assert match(
        ComparedComponents(np.array([[9.0], [5.0], [7.0]])), ComparedComponents(np.zeros((1, 1)))
    ).tolist() == [-1, 0, -1]


def test_components_at_one_place_are_found_again() -> None:
    old = np.array([[0.0], [0.0], [10.0]])
    assert sorted(match(ComparedComponents(old[::-1]), ComparedComponents(old)).tolist()) == [0, 1, 2]
    assert match(ComparedComponents(old[::-1]), ComparedComponents(old))[0] == 2
    # All are at one place, so that each new component is one of the old ones.
    assert sorted(match(ComparedComponents(np.full((2, 1), 3.0)), ComparedComponents(np.zeros((2, 1)))).tolist()) == [
        0,
        1,
    ]


def test_of_a_split_the_nearer_part_keeps_the_id() -> None:
    old = np.array([[0.0, 0.0], [10.0, 0.0]])
    new = np.array([[0.0, 2.0], [0.0, -1.5], [10.0, 0.0]])
    assert match(ComparedComponents(new), ComparedComponents(old)).tolist() == [-1, 0, 1]


@pytest.mark.parametrize(("place", "expected"), [(4.9, 0), (5.0, -1), (5.1, 1)])
def test_of_a_merge_the_nearer_one_goes_on(place: float, expected: int) -> None:
    old = np.array([[0.0], [10.0], [40.0]])
    assert match(ComparedComponents(np.array([[place], [40.0]])), ComparedComponents(old)).tolist() == [expected, 2]


def fit_of(places: np.ndarray, k: int, **options: Any) -> FittedModel:
    return c.fit(drawn(600, places), c.KMeans(k), **options).fitted


def test_more_and_fewer_clusters_take_new_ids_and_never_old_ones() -> None:
    three, four = PLACES[:3], PLACES
    first = fit_of(three, 3)
    second = match_ids(fit_of(four, 4), first)
    assert second.ids.tolist() == [0, 1, 2, 3]
    assert np.abs(second.centers[3] - [32.0, 32.0]).max() < 0.5
    third = match_ids(fit_of(three, 3), second)
    assert (third.ids.tolist(), third.largest_id) == ([0, 1, 2], 3)
    fourth = match_ids(fit_of(four, 4), third)
    assert (fourth.ids.tolist(), fourth.largest_id) == ([0, 1, 2, 4], 4)
    np.testing.assert_allclose(fourth.centers[:3], first.centers, atol=1.0)


def test_new_components_are_counted_by_their_size() -> None:
    first = fit_of(PLACES[:1], 1)
    fitted = fit_of(PLACES[[0, 1, 1, 1, 2, 2, 3]], 4)
    for seed in range(4):
        matched = match_ids(shuffled(fitted, seed), first)
        assert matched.ids.tolist() == [0, 1, 2, 3]
        assert (np.diff(matched.shares[1:]) < 0).all()


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_components_with_one_mean_are_told_apart_by_shape(covariance: Any) -> None:
    rng = np.random.default_rng(3)
    widths = np.where(np.arange(4000)[:, None] % 2 == 0, [8.0, 0.5], [0.5, 8.0])
    rows = rng.standard_normal((4000, 2)) * widths
    init = {
        "centers": np.array([[0.1, 0.1], [-0.1, -0.1]]), "weights": [0.5, 0.5],
        "covariances": np.array([[64.0, 0.25], [0.25, 64.0]]),
    }  # fmt: skip
    if covariance == "full":
        init["covariances"] = np.array([np.diag(v) for v in init["covariances"]])
    one = c.fit(rows[:2000], c.GaussianMixture(2, covariance), init=init).fitted
    other = c.fit(rows[2000:], c.GaussianMixture(2, covariance), init=init).fitted
    assert np.abs(one.centers).max() < 0.5
    for seed in range(4):
        kept = match_ids(shuffled(other, seed), one)
        assert kept.ids.tolist() == [0, 1]
        assert (c.Fit(kept, False).predict(rows[:200]) == c.Fit(one, False).predict(rows[:200])).all()


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (lambda: c.fit(drawn(), c.SoftKMeans(4, beta=1.0)).fitted, "the model was kmeans and is soft_kmeans"),
        (lambda: c.fit(drawn()[:, :1], c.KMeans(3)).fitted, "the 1 features are others than the 2 of before"),
        (lambda: c.fit(drawn(), c.KMeans(4), unit_norm=True).fitted, "preprocess.unit_norm was false and is true"),
    ],
    ids=["kind", "features", "unit norm"],
)
def test_models_that_cannot_be_compared_start_anew_with_a_remark(other: Any, why: str) -> None:
    previous = renumber(fit_of(PLACES, 4), 5)
    fitted = other()
    matched = match_ids(fitted, previous)
    assert matched.ids.tolist() == list(range(9, 9 + fitted.model.k))
    assert matched.remarks[-1] == f"labels start anew at 9: {why}"
    assert matched.centers.tobytes() == fitted.centers.tobytes()


def test_a_model_of_fewer_directions_is_compared_in_its_own() -> None:
    rng = np.random.default_rng(4)
    rows = np.concatenate([drawn(), 0.1 * rng.standard_normal((400, 1))], axis=1)
    for model in (c.KMeans(4), c.GaussianMixture(4)):
        wide, narrow = (c.fit(rows, model, pca=p).fitted for p in (3, 2))
        for one, other in ((wide, narrow), (narrow, wide)):
            new, _ = compare_components(shuffled(one, 1), other)
            assert new.centers.shape == (4, 2)
            assert match_ids(shuffled(one, 1), other).ids.tolist() == [0, 1, 2, 3]


def test_a_feature_of_weight_zero_has_no_effect() -> None:
    rows = np.concatenate([drawn(), np.random.default_rng(4).standard_normal((400, 1))], axis=1)
    weights = np.array([1.0, 1.0, 0.0])
    for covariance in ("full", "diagonal"):
        one, other = (
            c.fit(part, c.GaussianMixture(4, covariance), standardize="per_feature", feature_weights=weights).fitted
            for part in (rows[:200], rows[200:])
        )
        assert match_ids(shuffled(other, 2), one).ids.tolist() == [0, 1, 2, 3]
