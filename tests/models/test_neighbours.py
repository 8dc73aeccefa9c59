from __future__ import annotations

import numpy as np
import pytest

from clustering.data.rows import Rows, in_memory_rows, unit_weights
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.neighbours import NeighbourPass, NeighbourSums

ONE = KMeansParams(np.zeros(2), np.zeros((1, 2)))


def compare(rows: Rows) -> NeighbourSums:
    return NeighbourPass(KMeans(1), ONE, np.zeros((1, 2)))(rows)


def test_rows_of_a_table_are_independent() -> None:
    rows = in_memory_rows(np.random.default_rng(0).normal(size=(4000, 2)))
    assert compare(rows).independent_share(4000) == 1.0


def test_autocorrelated_rows_count_in_part() -> None:
    generator, correlation = np.random.default_rng(0), 0.9
    values = generator.normal(size=(4000, 2))
    for i in range(1, len(values)):
        values[i] = correlation * values[i - 1] + np.sqrt(1 - correlation**2) * values[i]
    share = compare(in_memory_rows(values)).independent_share(len(values))
    assert share == pytest.approx((1 - correlation) / (1 + correlation), rel=0.3)


def test_a_table_sorted_by_cluster_is_independent() -> None:
    generator = np.random.default_rng(0)
    centers = np.array([[0.0, 0.0], [50.0, 0.0]])
    values = generator.normal(size=(2000, 2)) + np.repeat(centers, 1000, axis=0)
    sums = NeighbourPass(KMeans(2), KMeansParams(np.zeros(2), centers), centers)(in_memory_rows(values))
    assert sums.independent_share(2000) == 1.0


def test_each_dimension_has_pairs_of_its_own_and_masked_cells_have_none() -> None:
    values = np.random.default_rng(0).normal(size=(5, 2))
    cells = np.array([0, 1, 2, 4, 5])
    rows = Rows(values, unit_weights(5), cells, (0, 0), (2, 3), (2, 3))
    sums = compare(rows)
    np.testing.assert_array_equal(sums.pairs, [2, 3])
    down = (values[1] * values[3]).sum() + (values[2] * values[4]).sum()
    assert sums.products[0] == pytest.approx(down)


def test_equal_neighbours_leave_one_row() -> None:
    sums = NeighbourSums(np.array([10.0]), np.array([10.0]), np.array([1000]))
    assert sums.independent_share(1001) == 1 / 1001
