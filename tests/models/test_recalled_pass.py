from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from clustering.data.rows import Rows, in_memory_rows
from clustering.models import recalled_pass
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.kmeans_passes import LloydPass
from clustering.models.kmeans_statistics import KMeansStatistics
from clustering.models.recalled_buffers import SAMPLED_SLACKS, choose_fast
from clustering.models.recalled_pass import RecallingPass, Slot, can_recall, forget


def assert_same_bits(ours: KMeansStatistics, theirs: KMeansStatistics) -> None:
    # NaN too, where distances overflow.
    np.testing.assert_array_equal(ours.objective, theirs.objective)
    assert ours.count == theirs.count
    for name, array in theirs.sums.items():
        assert ours.sums[name].tobytes() == array.tobytes()
    np.testing.assert_array_equal(ours.farthest.positions, theirs.farthest.positions)
    assert ours.farthest.distances.tobytes() == theirs.farthest.distances.tobytes()


def prepared(centers: np.ndarray) -> LloydPass:
    function = KMeans(len(centers)).for_pass(KMeansParams(np.zeros(centers.shape[1]), centers))
    assert isinstance(function, LloydPass)
    return function


def blocks_of(values: np.ndarray, weights: np.ndarray | None = None, n: int = 5) -> list[Rows]:
    parts = np.array_split(np.arange(len(values)), n)
    return [
        replace(in_memory_rows(values[p], None if weights is None else weights[p]), start=(p[0],), grid=(len(values),))
        for p in parts
    ]


def passes(
    blocks: list[Rows], centers: list[np.ndarray], check: Callable[[RecallingPass], Any] = lambda _: None
) -> None:
    """Compare passes at several centers with those that remember nothing."""
    before: tuple[Slot, LloydPass] | None = None
    for number, points in enumerate(centers):
        function, slot = prepared(points), Slot("run", number, 0)
        last, moves = (slot, np.zeros(len(points))) if before is None else (before[0], before[1].drift(function))
        recalling = RecallingPass(function, moves, last, slot)
        assert_same_bits(recalling.of_run(blocks), function.of_run(blocks))
        check(recalling)
        before = slot, function


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recalled_pass, "_bounds", {})
    monkeypatch.setattr(recalled_pass, "_closed", set())


def steps(values: np.ndarray, k: int, n: int = 12, seed: int = 0) -> list[np.ndarray]:
    """Centers on a way of Lloyd's: at first all of them move, later few, and in the end none."""
    rng = np.random.default_rng(seed)
    centers = [np.asarray(values[rng.permutation(len(values))[:k]], float)]
    for i in range(n - 2):
        scale = np.where(rng.random(k) < 0.8**i, 0.7**i, 0.0 if i > n // 2 else 1e-6)
        centers.append(centers[-1] + scale[:, None] * 0.3 * values.std() * rng.standard_normal(centers[-1].shape))
    return [*centers, centers[-1]]


@pytest.mark.parametrize(("d", "k"), [(1, 9), (3, 40), (16, 24), (20, 300), (64, 100)])
@pytest.mark.parametrize("dtype", ["f4", "f8", "u1"])
def test_passes_have_the_bits_of_those_that_remember_nothing(d: int, k: int, dtype: str) -> None:
    rng = np.random.default_rng(d)
    values = (rng.normal(0, 30, (k, d))[rng.integers(0, k, 3000)] + rng.normal(128, 12, (3000, d))).clip(0, 255)
    values = values.astype(dtype)
    passes(blocks_of(values), steps(values, k))
    passes(blocks_of(values, rng.random(3000) * (rng.random(3000) < 0.8)), steps(values, k))


def test_ties_and_equal_rows() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(40.0)] * 2), -1).reshape(-1, 2)
    rng = np.random.default_rng(0)
    centers = [np.round(rng.random((60, 2)) * 80) / 2]
    for _ in range(8):
        centers.append(centers[-1] + (rng.random((60, 1)) < 0.3) * rng.integers(-1, 2, (60, 2)) / 2)
    passes(blocks_of(grid), centers)


@pytest.mark.parametrize("scale", [1e-160, 1e-30, 1e30, 1e153, 1e160])
def test_values_beyond_the_range_of_scores(scale: float) -> None:
    values = scale * np.random.default_rng(0).standard_normal((500, 3))
    with np.errstate(all="ignore"):
        passes(blocks_of(values), steps(values, 12))


def test_far_from_the_origin_rounding_decides_nothing() -> None:
    values = 1e6 + np.random.default_rng(0).standard_normal((2000, 4))
    passes(blocks_of(values), steps(values, 30))


def test_any_centers_before_give_bounds_and_lost_ones_cost_scores_alone() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((2000, 5))
    centers = [values[rng.permutation(2000)[:20]] for _ in range(4)]

    def lose_some(now: RecallingPass) -> None:
        del recalled_pass._bounds["run"][400,]

    passes(blocks_of(values), centers, lose_some)


def test_blocks_with_missing_features_are_labelled_anew() -> None:
    values = np.random.default_rng(2).standard_normal((1000, 4))
    values[::9, 1] = np.nan
    blocks = blocks_of(values)
    blocks = [replace(rows, has_missing=np.isnan(rows.values).any(axis=1)) for rows in blocks]
    passes(blocks, steps(np.nan_to_num(values), 12))
    assert not recalled_pass._bounds


def test_bounds_of_older_passes_and_ended_runs_are_dropped() -> None:
    values = np.random.default_rng(3).standard_normal((1000, 4))
    passes(blocks_of(values), steps(values, 12, n=5))
    assert all(len(slots) == 1 for slots in recalled_pass._bounds["run"].values())
    forget("run")
    passes(blocks_of(values), steps(values, 12, n=3))
    assert not recalled_pass._bounds


def test_fast_centers_balance_their_scores_with_unsure_rows() -> None:
    moves = np.array([0.0, 5.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    # The center that moved by 5 would leave all rows unsure, and that which moved by 1 few.
    assert choose_fast(moves, np.array([0.5] + [2.0] * 99)).tolist() == [1]
    assert choose_fast(moves, np.full(100, 0.5)).tolist() == [1, 4]
    assert choose_fast(np.full(10, 5.0), np.full(100, 0.5)).tolist() == []
    # Nothing is remembered.
    assert choose_fast(np.zeros(10), np.full(100, -np.inf)).tolist() == []


def test_late_passes_score_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(4).standard_normal((4000, 8))
    scored: list[int] = []
    make = recalled_pass.make_recalled

    def count(*given: Any) -> Any:
        recalled = make(*given)
        scored.append(len(choose_fast(given[1], given[2].slacks)))
        assert len(given[2].slacks) == sum(-(-800 // SAMPLED_SLACKS) for _ in range(5))
        return recalled

    monkeypatch.setattr(recalled_pass, "make_recalled", count)
    passes(blocks_of(values), steps(values, 100))
    assert scored[0] == 0
    assert 0 < scored[-1] < 10


def test_few_centers_or_products_are_not_worth_it() -> None:
    def worth(k: int, d: int) -> bool:
        return can_recall(prepared(np.random.default_rng(0).standard_normal((k, d))))

    assert [worth(*shape) for shape in ((256, 64), (255, 256), (256, 63), (8192, 2))] == [True, False, False, True]
    assert not can_recall(KMeans(300).statistics)
