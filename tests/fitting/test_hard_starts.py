from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import clustering as c
from clustering.config import check_config
from clustering.fitting import hard_starts, race
from clustering.fitting.on_sample import SampleRunner
from clustering.fitting.race import Stage, number_of_restarts, plan_race
from clustering.models.survey import Survey
from clustering.options import FitOptions
from tests.fitting.test_initialization import surveyed


@pytest.fixture(scope="module")
def survey() -> Survey:
    rng = np.random.default_rng(0)
    return surveyed(rng.standard_normal((3000, 64)), k=2, sample_rows=3000)[0]


def of_many_rows(survey: Survey, count: int) -> Survey:
    """The survey of more rows, with a sample that is as large as by default."""
    repeats = min(count, 200_000) // len(survey.sample.weights)
    arrays = {name: value for name, value in survey.sample._asdict().items() if isinstance(value, np.ndarray)}
    repeated = {
        name: np.repeat(a, repeats, axis=0) for name, a in arrays.items() if len(a) == len(survey.sample.weights)
    }
    return replace(survey, count=count, sample_rows=200_000, samples=(survey.sample._replace(**repeated),))


def test_the_user_decides(survey: Survey) -> None:
    for k in (2, 5000):
        assert number_of_restarts(FitOptions(restarts=7), k, survey) == 7


def test_few_clusters_and_small_data_have_ten_restarts(survey: Survey) -> None:
    assert number_of_restarts(FitOptions(), 99, of_many_rows(survey, 30_000)) == 10
    assert number_of_restarts(FitOptions(), 100, survey) == 10


def test_restarts_of_many_clusters_grow_with_the_rows_up_to_ten(survey: Survey) -> None:
    counts = [30_000, 1_000_000, 3_000_000, 10_000_000]
    restarts = [number_of_restarts(FitOptions(), 1000, of_many_rows(survey, count)) for count in counts]
    assert restarts == sorted(restarts)
    assert restarts[0] == 2
    assert 2 < restarts[2] < 10
    assert restarts[-1] == 10
    assert number_of_restarts(FitOptions(finalists=5), 1000, of_many_rows(survey, 30_000)) == 5


def test_a_default_of_few_clusters_is_that_of_earlier_versions() -> None:
    def keys(k: int, **fit: int) -> dict[str, object]:
        config = {
            "source": {"store": "a.zarr"}, "model": {"kind": "kmeans", "k": k}, "fit": fit, "output": {"store": "out"},
        }  # fmt: skip
        return check_config(config).result_keys

    assert keys(99) == keys(99, restarts=10)
    assert keys(100) != keys(100, restarts=10)


def test_a_fit_makes_as_many_restarts_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    seed_centers = hard_starts.seed_centers
    monkeypatch.setattr(race, "FEW_PRODUCTS", 0.0)
    monkeypatch.setattr(
        hard_starts, "seed_centers", lambda rows, k, *more: drawn.append(k) or seed_centers(rows, k, *more)
    )
    c.fit(np.random.default_rng(0).standard_normal((400, 3)), c.KMeans(100), max_iterations=1, cluster="synchronous")
    assert drawn == [100, 100]


def test_a_default_number_of_finalists_is_that_of_earlier_versions_unless_the_model_has_another() -> None:
    def keys(kind: str, **fit: int) -> dict[str, object]:
        config = {
            "source": {"store": "a.zarr"}, "model": {"kind": kind, "k": 3}, "fit": fit, "output": {"store": "out"},
        }  # fmt: skip
        return check_config(config).result_keys

    assert keys("kmeans") == keys("kmeans", finalists=1)
    assert keys("gaussian_mixture") != keys("gaussian_mixture", finalists=1)


def row_passes(stages: list[Stage]) -> float:
    """Rows that the seeding and all stages but the last go over, the seeding counted as its passes."""
    first = stages[0]
    seeding = race.SEEDING_PASSES * first.rows * first.candidates
    return seeding + sum(stage.rows * stage.candidates * stage.passes for stage in stages[:-1])


@pytest.mark.parametrize("k", [100, 256, 1000])
@pytest.mark.parametrize("max_iterations", [5, 20, 300])
def test_a_race_costs_a_share_of_the_passes_over_all_rows(survey: Survey, k: int, max_iterations: int) -> None:
    for count in (10**6, 10**7, 10**8):
        stages = plan_race(FitOptions(max_iterations=max_iterations), k, of_many_rows(survey, count))
        allowed = max(race.PASSES_SHARE * min(max_iterations, race.FULL_PASSES) * count, race.FEW_PRODUCTS / (64 * k))
        assert stages[0].candidates <= 2 or row_passes(stages) <= allowed
        last = stages[-1]
        assert last.passes <= max(
            race.LEAST_LAST_PASSES, (allowed - row_passes(stages)) / (last.rows * last.candidates)
        )


def test_from_stage_to_stage_half_of_the_candidates_go_on_with_twice_the_rows(survey: Survey) -> None:
    stages = plan_race(FitOptions(restarts=10, finalists=2), 8, of_many_rows(survey, 10**6))
    assert [stage.candidates for stage in stages] == [10, 5, 3, 2, 2, 2]
    assert [stage.rows for stage in stages] == [6250, 12_500, 25_000, 50_000, 100_000, 198_000]


def test_all_restarts_on_few_rows_go_on_to_their_end(survey: Survey) -> None:
    (stage,) = plan_race(FitOptions(), 5, survey)
    assert stage == Stage(3000, 10, race.MOST_SAMPLE_PASSES, race.LEAST_TOLERANCE)


def test_a_race_keeps_the_best_and_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[list[bytes]] = []
    ended: list[list[tuple[float, bytes]]] = []
    converge = SampleRunner.converge

    def watched(runner: SampleRunner, model: Any, starts: Any, *more: Any) -> Any:
        ends = converge(runner, model, starts, *more)
        entered.append([start.centers.tobytes() for start in starts])
        ended.append([(end.objective, end.params.centers.tobytes()) for end in ends])
        return ends

    monkeypatch.setattr(SampleRunner, "converge", watched)
    rows = np.random.default_rng(1).standard_normal((30_000, 3))
    fit = c.fit(rows, c.KMeans(30), restarts=4, max_iterations=0, sample_rows=25_000)
    assert [len(starts) for starts in entered] == [4, 2, 1]
    for ends, starts in zip(ended, entered[1:], strict=False):
        most = sorted(ends)[len(starts) - 1][0]
        assert starts == [centers for objective, centers in ends if objective <= most]
    assert fit.iterations == 0
