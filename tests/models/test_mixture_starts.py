from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from sklearn import datasets

import clustering as c
from clustering.errors import DataError
from clustering.fitting.on_sample import SampleRunner
from clustering.models.mixture import GaussianMixture


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
