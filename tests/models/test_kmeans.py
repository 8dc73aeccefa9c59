from __future__ import annotations

from dataclasses import replace
from functools import reduce
from itertools import pairwise
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustering.data.rows import Rows, in_memory_rows
from clustering.errors import ConfigError
from clustering.models.farthest import FARTHEST
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.kmeans_statistics import KMeansStatistics

seeds = st.integers(0, 2**32 - 1)


class Problem:
    """Rows, weights and centers of small whole numbers and halves: every sum is exact, in any order."""

    def __init__(self, seed: int, n: int, d: int, k: int, *, zeros: bool = True) -> None:
        rng = np.random.default_rng(seed)
        self.values = rng.integers(-4, 5, (n, d)).astype(np.float64)
        self.weights = rng.integers(0 if zeros else 1, 5, n) / 2
        self.model = KMeans(k)
        self.params = KMeansParams(np.ones(d), rng.integers(-4, 5, (k, d)).astype(np.float64))
        self.cuts = np.sort(rng.integers(0, n + 1, 3))

    def rows(self, start: int = 0, stop: int | None = None) -> Rows:
        n, stop = len(self.values), len(self.values) if stop is None else stop
        part = slice(start, stop)
        return Rows(self.values[part], self.weights[part], None, (start,), (stop - start,), (n,))

    def statistics(self, rows: Rows | None = None) -> KMeansStatistics:
        return self.model.statistics(self.params, self.rows() if rows is None else rows)

    def parts(self) -> list[KMeansStatistics]:
        edges = [0, *self.cuts.tolist(), len(self.values)]
        return [self.statistics(self.rows(a, b)) for a, b in pairwise(edges)]


problems = st.builds(Problem, seeds, st.integers(0, 60), st.integers(1, 4), st.integers(1, 15))
filled = st.builds(Problem, seeds, st.integers(1, 60), st.integers(1, 4), st.integers(1, 15))


def assert_same_sums(a: KMeansStatistics, b: KMeansStatistics) -> None:
    np.testing.assert_array_equal(a.weight, b.weight)
    np.testing.assert_array_equal(a.first, b.first)
    assert a.objective == b.objective


def assert_same(a: KMeansStatistics, b: KMeansStatistics) -> None:
    assert_same_sums(a, b)
    assert a.count == b.count
    for mine, others in zip(a.farthest, b.farthest, strict=True):
        np.testing.assert_array_equal(mine, others)


def spread_sum(problem: Problem, values: np.ndarray, labels: np.ndarray, centers: np.ndarray) -> float:
    return float(np.sum(problem.weights[:, None] * (values - centers[labels]) ** 2))


@given(problems)
def test_statistics_are_the_sums_over_the_rows_of_each_cluster(problem: Problem) -> None:
    statistics = problem.statistics()
    shifted = problem.values - problem.params.origin
    labels = ((shifted[:, None] - problem.params.centers) ** 2).sum(axis=2).argmin(axis=1)
    shares = (labels[:, None] == np.arange(problem.model.k)) * problem.weights[:, None]
    np.testing.assert_array_equal(statistics.weight, shares.sum(axis=0))
    np.testing.assert_array_equal(statistics.first, shares.T @ shifted)
    assert statistics.objective == spread_sum(problem, shifted, labels, problem.params.centers)
    assert statistics.count == len(problem.values)


@given(problems)
def test_the_farthest_rows_are_kept_in_order(problem: Problem) -> None:
    distant = problem.statistics().farthest
    assignment = problem.model.assign(problem.params, problem.rows())
    eligible = np.flatnonzero((assignment.distances > 0) & (problem.weights > 0))
    places = sorted(eligible, key=lambda i: (-assignment.distances[i], i))[: problem.model.k]
    np.testing.assert_array_equal(distant.positions, np.array(places, int))
    np.testing.assert_array_equal(distant.distances, assignment.distances[places])
    np.testing.assert_array_equal(distant.labels, assignment.labels[places])
    np.testing.assert_array_equal(distant.weights, problem.weights[places])
    np.testing.assert_array_equal(distant.rows, problem.values[places] - problem.params.origin)


def test_far_rows_are_found_in_every_sub_block() -> None:
    # 128 rows of 600 features make a sub-block; the first has fewer far rows than the model keeps.
    values = np.zeros((600, 600))
    values[[5, 200, 201, 450, 599], 0] = [50.0, 3.0, 2.0, 4.0, 3.0]
    params = KMeansParams(np.zeros(600), np.pad([[0.0], [1e3], [2e3], [3e3]], ((0, 0), (0, 599))))
    assert KMeans(4).statistics(params, in_memory_rows(values)).farthest.positions.tolist() == [5, 450, 200, 599]


@given(problems)
def test_addition_commutes(problem: Problem) -> None:
    a, b, *_ = problem.parts()
    assert_same(a + b, b + a)


@given(problems)
def test_addition_associates(problem: Problem) -> None:
    a, b, c, d = problem.parts()
    assert_same((a + b) + (c + d), a + (b + (c + d)))
    assert_same((a + b) + (c + d), ((a + b) + c) + d)


@given(problems)
def test_zero_changes_nothing(problem: Problem) -> None:
    whole = problem.statistics()
    zero = KMeansStatistics.zero(*problem.params.centers.shape)
    assert_same(zero + whole, whole)
    assert_same(whole + zero, whole)
    assert_same(problem.statistics(problem.rows(0, 0)), zero)


@given(problems)
def test_any_partition_of_the_rows_adds_up_to_the_whole(problem: Problem) -> None:
    assert_same(reduce(add, problem.parts()), problem.statistics())


def test_partitions_of_many_rows_agree_within_rounding(rng: np.random.Generator) -> None:
    values, weights = rng.standard_normal((30_000, 7)) + 5, rng.random(30_000)
    params = KMeansParams(np.full(7, 5.0), rng.standard_normal((20, 7)))
    model = KMeans(20)
    whole = model.statistics(params, in_memory_rows(values, weights))
    parts = [
        model.statistics(params, Rows(values[a:b], weights[a:b], None, (a,), (b - a,), (30_000,)))
        for a, b in ((0, 1), (1, 9_999), (9_999, 22_000), (22_000, 30_000))
    ]
    total = reduce(add, parts)
    np.testing.assert_allclose(total.weight, whole.weight, rtol=1e-13)
    np.testing.assert_allclose(total.first, whole.first, rtol=1e-12, atol=1e-12 * np.abs(whole.first).max())
    np.testing.assert_allclose(total.objective, whole.objective, rtol=1e-13)
    for mine, others in zip(total.farthest, whole.farthest, strict=True):
        np.testing.assert_array_equal(mine, others)


@given(problems)
def test_weight_two_equals_a_row_twice(problem: Problem) -> None:
    whole = problem.statistics()
    twice = problem.statistics(in_memory_rows(np.repeat(problem.values, 2, axis=0), np.repeat(problem.weights, 2)))
    problem.weights *= 2
    assert_same_sums(problem.statistics(), twice)
    assert twice.objective == 2 * whole.objective


@given(problems)
def test_weight_zero_equals_an_absent_row(problem: Problem) -> None:
    n = (len(problem.values),)
    kept = np.flatnonzero(problem.weights > 0)
    present = Rows(problem.values[kept], problem.weights[kept], kept, (0,), n, n)
    assert_same(replace(problem.statistics(), count=len(kept)), problem.statistics(present))


@given(filled)
def test_update_moves_filled_clusters_to_their_weighted_means(problem: Problem) -> None:
    statistics = problem.statistics()
    update = problem.model.update(problem.params, statistics)
    labels = problem.model.assign(problem.params, problem.rows()).labels
    shifted = problem.values - problem.params.origin
    for cluster in update.reseeded:
        places = statistics.farthest.positions
        labels[next(i for i in places if (shifted[i] == update.params.centers[cluster]).all())] = cluster
    for cluster in range(problem.model.k):
        members = (labels == cluster) & (problem.weights > 0)
        if members.any():
            mean = np.average(shifted[members], axis=0, weights=problem.weights[members])
            np.testing.assert_allclose(update.params.centers[cluster], mean, rtol=0, atol=1e-14 * 9)
    after = spread_sum(problem, shifted, labels, update.params.centers)
    assert update.objective == pytest.approx(after, rel=1e-12, abs=1e-12 * (1 + statistics.objective))


@given(filled)
def test_update_never_raises_the_objective_and_leaves_no_nan(problem: Problem) -> None:
    statistics = problem.statistics()
    update = problem.model.update(problem.params, statistics)
    assert np.isfinite(update.params.centers).all()
    assert update.objective <= statistics.objective * (1 + 1e-12)
    vacant = set(np.flatnonzero(statistics.weight == 0).tolist())
    assert set(update.reseeded) | set(update.empty) == vacant
    assert not set(update.reseeded) & set(update.empty)
    following = problem.model.statistics(update.params, problem.rows())
    assert following.objective <= update.objective + 1e-12 * (1 + statistics.objective)


def one_pass(values: list[float], centers: list[float], weights: list[float] | None = None):
    rows = in_memory_rows(np.array(values)[:, None], None if weights is None else np.array(weights))
    params = KMeansParams(np.zeros(1), np.array(centers)[:, None])
    model = KMeans(len(centers))
    return model.update(params, model.statistics(params, rows))


def test_an_empty_cluster_goes_to_the_farthest_row_which_leaves_its_own() -> None:
    update = one_pass([0.0, 1.0, 2.0, 9.0], [1.0, 100.0])
    assert update.reseeded == (1,)
    assert update.empty == ()
    np.testing.assert_array_equal(update.params.centers[:, 0], [1.0, 9.0])
    assert update.objective == pytest.approx(2.0, rel=1e-13)


def test_several_empty_clusters_go_to_different_far_rows() -> None:
    update = one_pass([0.0, 1.0, 9.0, 9.0, -7.0], [1.0, 100.0, 200.0])
    assert update.reseeded == (1, 2)
    # Equal far rows count as one place.
    np.testing.assert_array_equal(update.params.centers[1:, 0], [9.0, -7.0])


def test_among_equally_far_rows_the_first_is_taken() -> None:
    update = one_pass([-5.0, 5.0, 0.0], [0.0, 100.0])
    assert update.params.centers[1, 0] == -5.0


def test_an_empty_cluster_stays_where_no_row_is_away_from_its_center() -> None:
    update = one_pass([3.0, 3.0, 3.0], [3.0, 100.0, 3.0])
    assert update.empty == (1, 2)
    np.testing.assert_array_equal(update.params.centers[:, 0], [3.0, 100.0, 3.0])


def test_the_only_row_of_a_cluster_is_not_taken_from_it() -> None:
    update = one_pass([0.0, 8.0, 8.5], [0.0, 5.0, 100.0])
    assert update.reseeded == (2,)
    np.testing.assert_array_equal(update.params.centers[:, 0], [0.0, 8.0, 8.5])
    assert one_pass([7.0], [0.0, 100.0]).empty == (1,)


def test_a_cluster_of_weight_zero_counts_as_empty_and_gets_no_row_of_weight_zero() -> None:
    update = one_pass([0.0, 1.0, 50.0, 99.0], [0.0, 99.0], [1.0, 1.0, 0.0, 0.0])
    assert update.reseeded == (1,)
    np.testing.assert_array_equal(update.params.centers[:, 0], [0.0, 1.0])


def test_the_last_row_of_a_cluster_is_known_in_spite_of_rounding() -> None:
    # (0.1 + 0.2) - 0.1 is more than 0.2 in binary.
    update = one_pass([-40.0, 40.1, 200.0, 201.0], [0.3, 1e3, 2e3, 200.2], [0.1, 0.2, 1.0, 1.0])
    np.testing.assert_allclose(update.params.centers[:, 0], [40.1, -40.0, 201.0, 200.0], rtol=1e-12)


def test_no_more_far_rows_are_kept_than_are_ever_needed(rng: np.random.Generator) -> None:
    rows = in_memory_rows(rng.standard_normal((500, 2)))
    for k, kept in ((3, 3), (200, FARTHEST)):
        params = KMeansParams(np.zeros(2), rng.standard_normal((k, 2)))
        assert len(KMeans(k).statistics(params, rows).farthest.distances) == kept


@pytest.mark.parametrize("k", [0, -3, 2.0, True, "3", None], ids=repr)
def test_k_is_a_whole_number_of_one_or_more(k: object) -> None:
    with pytest.raises(ConfigError, match=r"whole number of 1 or more") as caught:
        KMeans(k)  # type: ignore[arg-type]
    assert repr(k) in str(caught.value)


def test_k_may_be_a_numpy_integer() -> None:
    assert KMeans(np.int64(3)) == KMeans(3)
