from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import clustering as c
from clustering.config import check_config
from clustering.fitting import hard_starts
from clustering.fitting.hard_starts import number_of_restarts
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
    counts = [30_000, 300_000, 1_000_000, 10_000_000]
    restarts = [number_of_restarts(FitOptions(), 1000, of_many_rows(survey, count)) for count in counts]
    assert restarts == sorted(restarts)
    assert restarts[0] == 2
    assert 2 < restarts[1] < 10
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
    monkeypatch.setattr(hard_starts, "FEW_PRODUCTS", 0.0)
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
