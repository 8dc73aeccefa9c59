"""The result of a fit does not depend on how the rows are cut into blocks, or on how much memory there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import clustering as c
from clustering.data.reading import read_block
from clustering.errors import DataError
from clustering.execution.passes import PassResult, ReadStats
from clustering.fitting import survey_pass
from clustering.fitting.fitted_model import order_by_size
from clustering.fitting.loop import Candidate, State, Stop, choose_best
from clustering.models.kmeans_params import KMeansParams
from clustering.models.objective import rank_candidates
from clustering.models.survey import SurveyModel


def fits(rows: np.ndarray, model: Any, **options: Any) -> list[c.Fit]:
    size = rows.dtype.itemsize * rows.shape[1]
    return [c.fit(rows, model, cluster="synchronous", block_bytes=n * size, **options) for n in (len(rows), 64, 333)]


def in_steps(dtype: str, seed: int, lowest: int = 0) -> np.ndarray:
    """Rows on a coarse scale, as packed numbers have them: many lie halfway between centers."""
    steps = np.random.default_rng(seed).integers(lowest, lowest + 10, (673, 2))
    return (steps if dtype == "int16" else steps * 0.1).astype(dtype)


HARD: dict[str, tuple[Any, dict[str, Any]]] = {
    "squared_euclidean": (c.KMeans(6), {}),
    "random": (c.KMeans(3), {"init": "random"}),
    "weights": (c.KMeans(5), {"weights": np.random.default_rng(0).integers(1, 5, 673) * 0.1}),
    "standardize": (c.KMeans(4), {"standardize": "per_feature"}),
    "pca": (c.KMeans(4), {"pca": 1}),
    "mahalanobis": (c.KMeans(4, "mahalanobis"), {}),
    "cosine": (c.KMeans(4, "cosine"), {}),
    "kullback_leibler": (c.KMeans(4, "kullback_leibler"), {}),
    "soft": (c.SoftKMeans(3, 5.0), {}),
    "mixture": (c.GaussianMixture(3, "diagonal"), {}),
}


@pytest.mark.parametrize(
    ("dtype", "name"), [*(("float64", name) for name in HARD), ("float32", "weights"), ("int16", "weights")]
)
@pytest.mark.filterwarnings("ignore:beta is:clustering.ClusteringWarning")
def test_centers_and_labels_do_not_depend_on_blocks(dtype: str, name: str) -> None:
    rows, (model, options) = in_steps(dtype, 3, lowest=1), HARD[name]
    first, *others = fits(rows, model, restarts=2, **options)
    labels = first.predict(rows)
    for other in others:
        np.testing.assert_allclose(other.centers, first.centers, rtol=0, atol=1e-10 * np.ptp(rows))
        np.testing.assert_array_equal(other.predict(rows), labels)


@pytest.mark.parametrize("seed", range(6))
def test_rows_halfway_between_centers_do_not_change_sides(seed: int) -> None:
    rows = in_steps("float64", seed)
    places = np.unique(rows, axis=0)
    init = places[np.random.default_rng(seed).permutation(len(places))[:6]]
    first, *others = fits(rows, c.KMeans(6), init=init)
    for other in others:
        np.testing.assert_allclose(other.centers, first.centers, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(other.predict(rows), first.predict(rows))


@pytest.mark.parametrize("memory", [2**24, 2**26, 2**31], ids="{:,}".format)
def test_memory_does_not_change_the_fit(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey_pass, "SAMPLE_BYTES", 2**21)
    rng = np.random.default_rng(1)
    rows = (rng.normal(size=(12, 300))[rng.integers(0, 12, 4000)] + 6 * rng.normal(size=(4000, 300))).astype("f4")
    fit = c.fit(rows, c.KMeans(12), memory=memory, block_bytes=2**20, restarts=2, max_iterations=3)
    assert fit.fitted.summary.sampled == 2**21 // 1200
    again = c.fit(rows, c.KMeans(12), memory=2**25, block_bytes=2**20, restarts=2, max_iterations=3)
    np.testing.assert_array_equal(fit.centers, again.centers)
    assert fit.objective == again.objective


MODELS: dict[str, Callable[[], Any]] = {
    "kmeans": lambda: c.KMeans(4),
    "soft_kmeans": lambda: c.SoftKMeans(4, 1.0),
    "full": lambda: c.GaussianMixture(4, "full"),
    "tied": lambda: c.GaussianMixture(4, "tied"),
    "spherical": lambda: c.GaussianMixture(4, "spherical"),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_clusters_come_in_the_order_of_their_weights(make: Callable[[], Any], rng: np.random.Generator) -> None:
    sizes, places = (50, 300, 100, 200), np.array([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0], [20.0, 20.0]])
    rows = np.repeat(places, sizes, axis=0) + rng.standard_normal((650, 2))
    fit = c.fit(rows, make())
    np.testing.assert_allclose(fit.weights, np.array([300, 200, 100, 50]) / 650, atol=1e-3)
    np.testing.assert_allclose(fit.centers, places[[1, 3, 2, 0]], atol=0.5)
    np.testing.assert_array_equal(np.bincount(fit.predict(rows)), [300, 200, 100, 50])
    sizes_by_pass = fit.fitted.track["sizes"]
    np.testing.assert_allclose(sizes_by_pass[-1] / 650, fit.weights, atol=1e-3)
    # Clusters keep the order of starting centers that the user gives.
    if isinstance(fit.model, c.KMeans):
        np.testing.assert_allclose(c.fit(rows, make(), init=places).centers, places, atol=0.5)


def test_clusters_of_one_size_come_in_the_order_of_their_centers(rng: np.random.Generator) -> None:
    places = np.array([[0.0, 5.0], [0.0, 9.0], [7.0, 1.0]])
    rows = np.repeat(places[rng.permutation(3)], 40, axis=0)
    for seed in range(4):
        np.testing.assert_array_equal(c.fit(rows, c.KMeans(3), seed=seed).centers, places)


def test_notes_name_clusters_by_their_places() -> None:
    rows = np.array([[0.0], [1.0], [1.0], [5.0], [5.0], [5.0]])
    fit = c.fit(rows, c.KMeans(3), init=np.array([[0.0], [1.0], [5.0]])).fitted
    ordered = order_by_size(
        type(fit)(**{**vars(fit), "notes": ("pass 1: empty cluster 0 re-seeded at the farthest row",)})
    )
    np.testing.assert_array_equal(ordered.centers, [[5.0], [1.0], [0.0]])
    assert ordered.notes == ("pass 1: empty cluster 2 re-seeded at the farthest row",)


def test_rounding_ranks_no_candidate() -> None:
    def candidate(objective: float) -> Candidate:
        return Candidate(None, objective, ((objective, objective),))

    candidates = [candidate(x) for x in (3.0, 2.0 + 4e-16, 2.0, 1.0 + 1e-15, 1.0, 1.0 + 1e-6)]
    assert [candidates.index(x) for x in rank_candidates(candidates)] == [3, 4, 5, 1, 2, 0]


def test_the_best_of_stopped_finalists_is_so_at_the_params_that_it_returns() -> None:
    def candidate(bound: float, objective: float, stop: Stop) -> Candidate:
        params = KMeansParams(np.zeros(1), np.array([[objective]]))
        return Candidate(model, params, ((9.0, bound),), stop=stop, scale=1.0)

    passes: list[int] = []

    def run_pass(candidates: Sequence[Any]) -> PassResult:
        passes.append(len(candidates))
        objectives = [float(made.params.centers[0, 0]) for made in candidates]
        return PassResult(tuple(SimpleNamespace(objective=one) for one in objectives), ReadStats(), 0.0)

    model: Any = c.KMeans(1)
    # By the bounds of their last updates, the first would win.
    open_ones = (candidate(2.0, 1.9, Stop.TOLERANCE), candidate(2.1, 1.5, Stop.MAX_ITERATIONS))
    state, passed = choose_best(State(open_ones), run_pass)
    assert state.candidates == open_ones[1:]
    assert passed is not None
    assert passes == [2]
    # At fixed points nothing is open, and of equals the first goes on.
    still = tuple(candidate(x, x, Stop.CONVERGED) for x in (3.0, 2.0 + 4e-16, 2.0))
    assert choose_best(State(still), run_pass)[0].candidates == still[1:2]
    assert choose_best(State(still[:1]), run_pass)[0].candidates == still[:1]
    assert passes == [2]


@pytest.mark.parametrize("n", [64, 100, 673, 1000])
@pytest.mark.parametrize("scale", [1.0, 0.1, 1e-30, 1e30], ids="{:g}".format)
def test_the_origin_does_not_depend_on_the_order_of_sums(scale: float, n: int, rng: np.random.Generator) -> None:
    rows = rng.integers(0, 4, (n, 3)) * scale + np.array([0.0, 1e3, 1e8]) * scale
    rows[:, 1] = rows[0, 1]
    look = SurveyModel(0, 10, 1)
    survey = look.statistics(read_block(c.open_source(rows), c.open_source(rows).plan().block(0)))
    whole = survey.origin
    deviation = np.sqrt(survey.variance)
    assert (np.abs(whole - survey.mean) <= deviation / 50).all()
    assert whole[1] == rows[0, 1]
    for ulps in (-4, 4):
        moved = type(survey)(**{**vars(survey), "mean": survey.mean + ulps * np.spacing(survey.mean)})
        np.testing.assert_array_equal(moved.origin[[0, 2]], whole[[0, 2]])


TINY = np.array([[0.0], [1e-165], [5e-165], [6e-165]])


@pytest.mark.parametrize(
    "model", [c.KMeans(2), c.SoftKMeans(2, 1.0), c.GaussianMixture(2), c.KMeans(2, "mahalanobis")], ids=lambda m: m.kind
)
def test_squares_that_underflow_are_refused(model: Any) -> None:
    with pytest.raises(DataError, match=r"differ by 6e-165 at most, and their squares underflow float64; rescale"):
        c.fit(TINY, model)


def test_one_feature_that_underflows_is_refused_where_it_counts() -> None:
    rows = np.hstack([TINY, np.array([[0.0], [1.0], [10.0], [11.0]])])
    assert c.fit(rows, c.KMeans(2)).objective == 1.0
    with pytest.raises(DataError, match=r"feature=0.*differ by 6e-165 at most.*rescale the data"):
        c.fit(rows, c.KMeans(2), standardize="per_feature")


@pytest.mark.parametrize("scale", [1e-130, 1e-45, 1e130], ids="{:g}".format)
def test_small_and_large_numbers_are_clustered_as_others_are(scale: float) -> None:
    rows = np.array([[0.0], [1.0], [10.0], [11.0]]) * scale
    np.testing.assert_allclose(c.fit(rows, c.KMeans(2)).centers / scale, [[0.5], [10.5]], rtol=1e-12)
    if scale == 1e-45:
        narrow = c.fit((rows * 10).astype("f4"), c.KMeans(2), init=[[0.0], [1e-43]])
        assert narrow.predict((rows * 10).astype("f4")).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("scale", [1e-310, 1e-320], ids="{:g}".format)
@pytest.mark.parametrize(
    "model",
    [c.KMeans(2, "kullback_leibler"), c.KMeans(2, "itakura_saito"), c.SoftKMeans(2, 1.0, "kullback_leibler")],
    ids=lambda model: f"{model.kind}-{model.divergence}",
)
def test_ratios_of_numbers_that_are_no_normal_ones_are_refused(model: Any, scale: float) -> None:
    rows = np.array([[1.0, 2.0], [1.1, 2.1], [9.0, 5.0], [9.1, 5.2]])
    with pytest.raises(DataError, match=rf"go down to .*, and {model.divergence} needs 2\.23e-308 or more.*rescale"):
        c.fit(rows * scale, model)
    assert c.fit(rows * 1e-300, c.KMeans(2, model.divergence)).predict(rows * 1e-300).tolist() in (
        [0, 0, 1, 1],
        [1, 1, 0, 0],
    )


def test_one_small_number_decides_nothing_beside_large_ones() -> None:
    """Shares of a row add up, so that small ones weigh little; the features of a spectrum each count by their ratio."""
    rows = np.array([[1e-310, 2.0], [2e-310, 2.1], [1e-310, 5.0], [2e-310, 5.2]])
    assert c.fit(rows, c.KMeans(2, "kullback_leibler")).objective > 0.0
    with pytest.raises(DataError, match=r"go down to 1e-310, and itakura_saito needs"):
        c.fit(rows, c.KMeans(2, "itakura_saito"))


def test_equal_rows_are_no_underflow() -> None:
    assert c.fit(np.full((5, 2), 1e-200), c.KMeans(1)).objective == 0.0
