from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from clustering.data.rows import Rows, in_memory_rows
from clustering.models.survey import DistinctRows, RowSample, Survey, SurveyModel

seeds = st.integers(0, 2**32 - 1)


class Problem:
    """Rows on a grid of two dimensions: few distinct rows, of which a part has weight zero or is masked."""

    def __init__(
        self, seed: int, height: int, width: int, d: int, sample_rows: int, distinct_rows: int, side_bytes: int
    ) -> None:
        rng = np.random.default_rng(seed)
        self.grid = height, width
        self.values = rng.integers(-3, 4, (height, width, d)).astype(np.float64)
        self.weights = rng.integers(0, 4, self.grid) / 2
        self.mask = rng.random(self.grid) < 0.8
        self.model = SurveyModel(seed, sample_rows, distinct_rows, side_bytes=side_bytes)

    def rows(self, down: slice = slice(None), across: slice = slice(None), *, only: np.ndarray | None = None) -> Rows:
        region = down, across
        mask = self.mask[region] if only is None else only[region]
        kept = np.flatnonzero(mask)
        start = tuple(s.start or 0 for s in region)
        return Rows(self.values[region][mask], self.weights[region][mask], kept, start, mask.shape, self.grid)

    def survey(self, *region: slice) -> Survey:
        return self.model.statistics(self.rows(*region))

    def parts(self, down: int, across: int) -> list[Survey]:
        """Blocks of the grid, `down` by `across` cells."""
        height, width = self.grid
        return [
            self.survey(slice(i, min(i + down, height)), slice(j, min(j + across, width)))
            for i in range(0, height, down)
            for j in range(0, width, across)
        ]


side = st.integers(1, 9)
problems = st.builds(
    Problem, seeds, side, side, st.integers(1, 3), st.integers(1, 90), st.integers(1, 12),
    st.sampled_from([0, 500, 2**20]),
)  # fmt: skip
"""Wherever samples of parts are joined on the way."""


def assert_same_arrays(a: RowSample | DistinctRows, b: RowSample | DistinctRows) -> None:
    for mine, others in zip(a, b, strict=True):
        np.testing.assert_array_equal(mine, others)


def assert_same(a: Survey, b: Survey) -> None:
    """Sample, distinct rows, counts and extremes agree to the last bit, moments within rounding."""
    assert (a.cells, a.count, a.masked) == (b.cells, b.count, b.masked)
    assert a.weight == b.weight
    assert_same_arrays(a.sample, b.sample)
    assert_same_arrays(a.distinct, b.distinct)
    np.testing.assert_array_equal(a.least, b.least)
    np.testing.assert_array_equal(a.greatest, b.greatest)
    if a.weight:
        np.testing.assert_allclose(a.mean, b.mean, rtol=0, atol=1e-13)
        np.testing.assert_allclose(a.scatter, b.scatter, rtol=1e-12, atol=1e-11)


@given(problems, side, side)
def test_any_blocks_add_up_to_the_whole(problem: Problem, down: int, across: int) -> None:
    assert_same(reduce(add, problem.parts(down, across)), problem.survey())


@given(problems)
def test_addition_commutes_and_associates(problem: Problem) -> None:
    a, b, c, *_ = [*problem.parts(3, 4), problem.survey(), problem.survey(slice(0, 1))]
    assert_same(a + b, b + a)
    assert_same((a + b) + c, a + (b + c))


@given(problems)
def test_the_survey_of_no_rows_changes_nothing(problem: Problem) -> None:
    whole, zero = problem.survey(), problem.survey(slice(0, 0))
    assert (zero.cells, zero.count, zero.weight) == (0, 0, 0.0)
    assert_same(zero + whole, whole)
    assert_same(whole + zero, whole)


@given(problems)
def test_weight_two_equals_a_row_twice(problem: Problem) -> None:
    rows = problem.rows()
    assume(rows.weights.any())
    twice = problem.model.statistics(in_memory_rows(np.repeat(rows.values, 2, axis=0), np.repeat(rows.weights, 2)))
    heavy = problem.model.statistics(in_memory_rows(rows.values, 2 * rows.weights))
    assert heavy.weight == twice.weight
    np.testing.assert_allclose(heavy.mean, twice.mean, rtol=0, atol=1e-13)
    np.testing.assert_allclose(heavy.scatter, twice.scatter, rtol=1e-12, atol=1e-11)
    assert_same_arrays(heavy.distinct, twice.distinct)


@given(problems)
def test_weight_zero_equals_an_absent_row(problem: Problem) -> None:
    whole = problem.survey()
    present = problem.model.statistics(problem.rows(only=problem.mask & (problem.weights > 0)))
    assert whole.weight == present.weight
    assert_same_arrays(whole.sample, present.sample)
    assert_same_arrays(whole.distinct, present.distinct)
    if whole.weight:
        np.testing.assert_allclose(whole.mean, present.mean, rtol=0, atol=1e-13)
        np.testing.assert_allclose(whole.scatter, present.scatter, rtol=1e-12, atol=1e-11)


@given(problems)
def test_extremes_are_those_of_rows_with_weight(problem: Problem) -> None:
    survey = problem.survey()
    present = problem.values[problem.mask & (problem.weights > 0)]
    np.testing.assert_array_equal(survey.least, present.min(axis=0, initial=np.inf))
    np.testing.assert_array_equal(survey.greatest, present.max(axis=0, initial=-np.inf))


@given(problems)
def test_counts_distinguish_rows_from_masked_cells(problem: Problem) -> None:
    survey = problem.survey()
    assert survey.cells == problem.mask.size
    assert survey.count == problem.mask.sum()
    assert survey.masked == (~problem.mask).sum()
    assert survey.weight == problem.weights[problem.mask].sum()


# At 1e8 the mean itself has a resolution of 1.5e-8.
@pytest.mark.parametrize(("offset", "rtol"), [(0.0, 1e-12), (1e8, 1e-8)], ids=["centred", "1e8-sigma-off"])
@pytest.mark.parametrize("pieces", [1, 7], ids=["one-block", "seven-blocks"])
def test_moments_and_extremes_are_those_of_two_passes(
    offset: float, rtol: float, pieces: int, rng: np.random.Generator
) -> None:
    values = offset + rng.standard_normal((20_000, 5)) @ rng.standard_normal((5, 5))
    weights = rng.random(20_000)
    model = SurveyModel(0, 10, 2, full_scatter=True)
    blocks = zip(np.array_split(values, pieces), np.array_split(weights, pieces), strict=True)
    survey = reduce(add, [model.statistics(in_memory_rows(v, w)) for v, w in blocks])
    # The differences are exact, so that the reference loses no digit to the offset.
    near = values - offset
    covariance = np.cov(near.T, aweights=weights, ddof=0)
    np.testing.assert_allclose(survey.weight, weights.sum(), rtol=1e-13)
    np.testing.assert_allclose(survey.mean, offset + np.average(near, axis=0, weights=weights), rtol=1e-15, atol=1e-14)
    np.testing.assert_allclose(survey.scatter / survey.weight, covariance, rtol=rtol, atol=1e-12)
    np.testing.assert_allclose(survey.variance, np.diagonal(covariance), rtol=rtol)
    np.testing.assert_array_equal(survey.least, values.min(axis=0))
    np.testing.assert_array_equal(survey.greatest, values.max(axis=0))


def test_the_diagonal_of_the_scatter_has_the_bits_of_the_full_one(rng: np.random.Generator) -> None:
    values = 1e8 + rng.standard_normal((300, 7))
    full, diagonal = (
        reduce(add, [model.statistics(in_memory_rows(part)) for part in np.array_split(values, 3)])
        for model in (SurveyModel(0, 10, 2, full_scatter=True), SurveyModel(0, 10, 2))
    )
    assert full.scatter.shape == (7, 7)
    np.testing.assert_array_equal(np.diagonal(full.scatter), diagonal.scatter)
    np.testing.assert_allclose(diagonal.variance, (values - 1e8).var(axis=0), rtol=1e-8)


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8", "int16", "int64"])
def test_sampled_rows_keep_their_own_precision(dtype: str, rng: np.random.Generator) -> None:
    values = rng.integers(0, 100, (50, 3)).astype(dtype)
    survey = SurveyModel(0, 20, 4).statistics(in_memory_rows(values))
    assert survey.sample.values.dtype == dtype
    np.testing.assert_array_equal(survey.sample.values, values[survey.sample.positions])
    np.testing.assert_array_equal(survey.greatest, values.max(axis=0))


@given(problems)
def test_a_sample_of_everything_has_each_row_with_its_own_weight_in_order(problem: Problem) -> None:
    sample = SurveyModel(1, 81, 1).statistics(problem.rows()).sample
    assert sample.complete
    places = np.flatnonzero((problem.mask & (problem.weights > 0)).ravel())
    np.testing.assert_array_equal(sample.positions, places)
    np.testing.assert_array_equal(sample.values, problem.values.reshape(-1, problem.values.shape[-1])[places])
    np.testing.assert_array_equal(sample.represented, problem.weights.ravel()[places])


@given(problems)
def test_a_sample_holds_the_highest_priorities_and_the_threshold_is_the_next(problem: Problem) -> None:
    everything = SurveyModel(problem.model.seed, 81, 1).statistics(problem.rows()).sample
    sample = problem.survey().sample
    m = problem.model.sample_rows
    ranked = np.sort(everything.priorities)[::-1]
    np.testing.assert_array_equal(np.sort(sample.priorities)[::-1], ranked[:m])
    assert sample.threshold == (ranked[m] if len(ranked) > m else 0.0)
    assert sample.complete == (len(ranked) <= m)
    np.testing.assert_array_equal(sample.represented, np.maximum(sample.weights, sample.threshold))


@given(problems, st.integers(1, 90))
def test_samples_are_nested(problem: Problem, fewer: int) -> None:
    sample = problem.survey().sample
    smaller = (
        SurveyModel(problem.model.seed, min(fewer, problem.model.sample_rows), 1).statistics(problem.rows()).sample
    )
    assert_same_arrays(sample.highest(min(fewer, problem.model.sample_rows)), smaller)
    assert set(smaller.positions.tolist()) <= set(sample.positions.tolist())


def test_sums_estimated_from_samples_are_unbiased(rng: np.random.Generator) -> None:
    weights, values = rng.pareto(1.5, 300) + 0.1, rng.standard_normal((300, 1)) + 2
    rows = in_memory_rows(values, weights)
    samples = [SurveyModel(seed, 40, 1).statistics(rows).sample for seed in range(600)]
    for name, of, truth in (
        ("weight", lambda s: s.represented.sum(), weights.sum()),
        ("first moment", lambda s: s.represented @ s.values[:, 0], weights @ values[:, 0]),
        ("weight of a part", lambda s: s.represented[s.positions < 50].sum(), weights[:50].sum()),
    ):
        estimates = np.array([of(sample) for sample in samples])
        assert abs(estimates.mean() - truth) < 4 * estimates.std() / np.sqrt(len(estimates)), name


def test_samples_of_different_seeds_differ(rng: np.random.Generator) -> None:
    rows = in_memory_rows(rng.standard_normal((200, 1)))
    samples = [SurveyModel(seed, 20, 1).statistics(rows).sample.positions.tolist() for seed in range(5)]
    assert len({tuple(s) for s in samples}) == 5


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 300)), min_size=1, max_size=6),
    st.integers(1, 4),
    st.integers(1, 3),
    seeds,
)
def test_distinct_rows_are_counted_exactly_up_to_the_limit(
    runs: list[tuple[int, int]], limit: int, pieces: int, seed: int
) -> None:
    values = np.repeat([float(v) for v, _ in runs], [n for _, n in runs])[:, None]
    values = np.random.default_rng(seed).permutation(values)
    model = SurveyModel(seed, 5, limit)
    distinct = reduce(add, [model.statistics(in_memory_rows(part)) for part in np.array_split(values, pieces)]).distinct
    present = np.unique(values).tolist()
    assert len(distinct.digests) == min(limit, len(present))
    assert len(np.unique(distinct.values)) == len(distinct.digests)
    assert set(distinct.values[:, 0].tolist()) <= set(present)
    # Which rows are kept does not depend on how often or where each occurs.
    assert_same_arrays(distinct, model.statistics(in_memory_rows(np.array(present)[:, None])).distinct)


def test_rows_of_weight_zero_are_no_distinct_rows_among_many() -> None:
    values, weights = np.arange(4000.0)[:, None], np.arange(4000.0) % 2
    distinct = SurveyModel(0, 5, 20).statistics(in_memory_rows(values, weights)).distinct
    assert_same_arrays(distinct, SurveyModel(0, 5, 20).statistics(in_memory_rows(values[1::2])).distinct)
    assert (distinct.values % 2 == 1).all()


def test_negative_zero_is_the_same_row_as_zero() -> None:
    values = np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, -1.0]])
    model = SurveyModel(0, 5, 5)
    assert len(model.statistics(in_memory_rows(values)).distinct.digests) == 2
    both = model.statistics(in_memory_rows(values[:1])) + model.statistics(in_memory_rows(values[1:2]))
    assert len(both.distinct.digests) == 1


def test_rows_that_differ_in_the_last_bit_are_distinct() -> None:
    values = np.array([[1.0], [np.nextafter(1.0, 2.0)], [5e-324], [0.0]])
    assert len(SurveyModel(0, 5, 5).statistics(in_memory_rows(values)).distinct.digests) == 4


def test_parts_without_rows_leave_no_samples_behind(rng: np.random.Generator) -> None:
    model, none = SurveyModel(0, 500, 1), np.empty((0, 2))
    surveys = [model.statistics(in_memory_rows(none if i % 3 else rng.standard_normal((1, 2)))) for i in range(300)]
    total = reduce(add, surveys)
    assert len(total.samples) < 100
    assert len(total.sample.weights) == 100
