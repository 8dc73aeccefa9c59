from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn import datasets
from sklearn.mixture import GaussianMixture as Reference

import clustering as c
from clustering.errors import DataError
from clustering.fitting.on_sample import SampleRunner
from clustering.models import mixture_starts
from clustering.models.mixture import GaussianMixture
from clustering.models.survey import RowSample


def unequal(seed: int) -> np.ndarray:
    """Rows of six components of unequal sizes and shapes ``(400, 4)``."""
    rng = np.random.default_rng(seed)
    sizes = rng.multinomial(400, rng.dirichlet(np.ones(6)))
    maps = rng.standard_normal((6, 4, 4)) * rng.uniform(0.2, 2.0, (6, 1, 1))
    middles = 3 * rng.standard_normal((6, 4))
    return np.concatenate([rng.standard_normal((m, 4)) @ a + b for m, a, b in zip(sizes, maps, middles, strict=True)])


DATA = {
    "iris": (datasets.load_iris().data, 3),
    "wine": (datasets.load_wine().data, 3),
    "unequal volumes": (unequal(2), 6),
}


@pytest.mark.parametrize(("values", "k"), DATA.values(), ids=DATA)
@pytest.mark.parametrize("covariance", ["full", "diagonal", "spherical", "tied"])
def test_more_restarts_give_no_less_likely_mixture(values: np.ndarray, k: int, covariance: Any) -> None:
    fit = partial(c.fit, values, c.GaussianMixture(k, covariance))
    logs = [fit(restarts=restarts).objective for restarts in (1, 3, 8)]
    # Each run stops within the tolerance of its optimum.
    assert logs[0] <= logs[1] + 1e-4
    assert logs[1] <= logs[2] + 1e-4


def nested(seed: int) -> np.ndarray:
    """Rows of four round components about nearly the same place ``(600, 2)``, of sizes that differ thirtyfold."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, 600, p=[0.4, 0.3, 0.2, 0.1])
    sizes = np.array([3.0, 0.3, 1.0, 0.1])
    return rng.standard_normal((4, 2))[labels] + sizes[labels, None] * rng.standard_normal((600, 2))


NAMES = {"full": "full", "diagonal": "diag", "spherical": "spherical", "tied": "tied"}
AGAINST = {**DATA, "nested": (nested(2), 4), "other unequal volumes": (unequal(5), 6)}


@pytest.mark.parametrize(("values", "k"), AGAINST.values(), ids=AGAINST)
@pytest.mark.parametrize("covariance", ["diagonal", "spherical", "tied"])
def test_no_likelihood_is_lost_to_the_best_of_five_of_scikit_learn(values: np.ndarray, k: int, covariance: Any) -> None:
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    theirs = [
        Reference(k, covariance_type=NAMES[covariance], n_init=5, init_params=init, random_state=0).fit(values)
        for init in ("kmeans", "k-means++", "random")
    ]
    best = max(estimator.score(values) for estimator in theirs)
    assert c.fit(values, c.GaussianMixture(k, covariance)).objective > best - 0.01


@pytest.mark.parametrize("model", [c.GaussianMixture(4, "diagonal"), c.VonMisesFisher(4)], ids=["rows", "directions"])
def test_starts_do_not_depend_on_the_number_of_threads(model: Any) -> None:
    fit = partial(c.fit, unequal(6), model, restarts=4, max_iterations=20)
    one, other = fit(cluster="synchronous"), fit(cluster="threads", workers=3)
    np.testing.assert_array_equal(one.centers, other.centers)
    np.testing.assert_array_equal(one.history, other.history)


def test_another_seed_draws_other_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    first = partitions_of(monkeypatch, seed=0)
    again, other = partitions_of(monkeypatch, seed=0), partitions_of(monkeypatch, seed=1)

    def drawn(partitions: list[Any]) -> list[bytes]:
        return [one.clusters.centers.tobytes() if one.labels is None else one.labels.tobytes() for one in partitions]

    assert drawn(first) == drawn(again)
    assert drawn(first) != drawn(other)
    # Every kind is among the first few, so that a short competition has them too.
    assert [one.labels is None for one in first[:4]] == [True, False, True, False]


def partitions_of(monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[Any]:
    """All starts of the competition of a fit."""
    starts: list[Any] = []
    make = mixture_starts._partitions
    with monkeypatch.context() as patch:
        patch.setattr(mixture_starts, "_partitions", lambda *given: starts.append(make(*given)) or starts[-1])
        c.fit(unequal(7), c.GaussianMixture(4), restarts=4, **options)
    (one,) = starts
    return list(one)


def test_work_on_the_sample_is_bounded_by_that_of_passes_over_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    values, passes, converge = unequal(8), [], SampleRunner.converge

    def counted(runner: SampleRunner, model: Any, *given: Any) -> Any:
        ends = converge(runner, model, *given)
        if isinstance(model, GaussianMixture):
            passes.append(sum(len(end.history) for end in ends))
        return ends

    monkeypatch.setattr(SampleRunner, "converge", counted)
    monkeypatch.setattr(mixture_starts, "LEAST_WORK", 0.0)
    monkeypatch.setattr(mixture_starts, "WORK_SHARE", 5.0 * mixture_starts.FEW_PASSES)
    c.fit(values, c.GaussianMixture(6), restarts=8)
    assert len(passes) == 5 + mixture_starts.GO_ON
    assert max(passes[:5]) == mixture_starts.FEW_PASSES


class End(NamedTuple):
    params: int
    objective: float
    scale: float = 100.0


@pytest.mark.parametrize(
    ("of_all", "most", "kept"), [(True, 3, [0]), (False, 3, [0, 2, 3]), (False, 2, [0, 2]), (False, 1, [0])]
)
def test_finalists_are_apart_and_near_the_best(of_all: bool, most: int, kept: list[int]) -> None:
    rows = RowSample(np.ones(100), np.arange(100), np.ones(100), np.zeros((100, 1)), 0.0 if of_all else 0.5)
    # With 100 rows of 1000, differences up to 0.3 per unit weight may come from the draw.
    ends = [End(0, 50.0), End(1, 50.005), End(2, 60.0), End(3, 79.0), End(4, 81.0)]
    assert [end.params for end in mixture_starts._finalists(ends[::-1], most, rows)] == kept


def test_the_hard_clusters_of_least_j_need_not_win() -> None:
    values, k = DATA["wine"]
    hard = c.fit(values, c.KMeans(k), restarts=10)
    from_hard = c.fit(values, c.GaussianMixture(k), labels=hard.predict(values), init="labels")
    assert c.fit(values, c.GaussianMixture(k), restarts=10).objective > from_hard.objective + 0.05


@pytest.mark.parametrize("rows", [100, 400])
def test_a_run_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    values, converge = unequal(3)[:rows], SampleRunner.converge
    calls: list[int] = []

    def first_fails(runner: SampleRunner, model: Any, *arguments: Any) -> Any:
        if isinstance(model, GaussianMixture):
            calls.append(1)
            if len(calls) == 1:
                raise DataError("the covariance of the data is singular")
        return converge(runner, model, *arguments)

    monkeypatch.setattr(SampleRunner, "converge", first_fails)
    assert np.isfinite(c.fit(values, c.GaussianMixture(6), restarts=5).objective)
    assert len(calls) > 1


def test_where_every_run_on_the_sample_fails_all_rows_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    converge = SampleRunner.converge

    def fails(runner: SampleRunner, model: Any, *arguments: Any) -> Any:
        if isinstance(model, GaussianMixture):
            raise DataError("the covariance of the data is singular")
        return converge(runner, model, *arguments)

    values = unequal(4)
    usual = c.fit(values, c.GaussianMixture(2, "diagonal"))
    monkeypatch.setattr(GaussianMixture, "initial_params", _once_failing(GaussianMixture.initial_params))
    monkeypatch.setattr(SampleRunner, "converge", fails)
    fit = c.fit(values, c.GaussianMixture(2, "diagonal"))
    assert fit.objective == pytest.approx(usual.objective, abs=1e-3)


def _once_failing(method: Any) -> Any:
    calls: list[int] = []

    def failing(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise DataError("the covariance of the data is singular")
        return method(*arguments)

    return failing


def test_restarts_leave_time_for_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Any] = []
    converge = SampleRunner.converge

    def counting(runner: SampleRunner, model: Any, *arguments: Any) -> Any:
        # The seconds are the last argument of the runs that compete.
        if isinstance(model, GaussianMixture) and len(arguments) == 4:
            runs.append(arguments[-1])
        return converge(runner, model, *arguments)

    monkeypatch.setattr(SampleRunner, "converge", counting)
    c.fit(unequal(5), c.GaussianMixture(6), restarts=8, max_seconds=1e-6)
    assert len(runs) == 1
    c.fit(unequal(5), c.GaussianMixture(6), restarts=8, max_seconds=1e6)
    assert len(runs) > 2
    assert 0 < runs[-1] < 0.5e6


def test_a_sample_of_fewer_rows_than_clusters_is_enough() -> None:
    values = unequal(9)
    fit = c.fit(values, c.GaussianMixture(6, "spherical"), sample_rows=5, restarts=4)
    assert np.isfinite(fit.objective)
