from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from clustering.data.access import open_source
from clustering.data.reading import read_block
from clustering.execution.fraction import RowFraction
from clustering.models import survey_kernels

GRID = (40, 25)


def drawn(fraction: RowFraction, block_bytes: int | None, mask: np.ndarray | None = None) -> list[int]:
    """Flat positions of the rows that take part."""
    field = xr.DataArray(np.arange(1000.0).reshape(GRID), dims=("y", "x"))
    source = open_source(field, sample_dims=["y", "x"], mask=mask)
    plan = source.plan(block_bytes=block_bytes)
    selected = [fraction.select(read_block(source, plan.block(index))) for index in range(len(plan))]
    for rows in selected:
        np.testing.assert_array_equal(rows.values[:, 0], rows.positions(np.arange(len(rows))))
    return sorted(int(value) for rows in selected for value in rows.values[:, 0])


@pytest.mark.parametrize("share", [1e-9, 0.1, 0.5, 0.999])
def test_the_same_rows_are_drawn_whatever_the_blocks(share: float) -> None:
    whole = drawn(RowFraction(share, 7), None)
    assert all(drawn(RowFraction(share, 7), size) == whole for size in (8, 100, 3000))
    assert len(whole) == pytest.approx(1000 * share, abs=5 * np.sqrt(1000 * share * (1 - share)) + 1e-6)


def test_a_mask_leaves_the_draw_of_the_others_as_it_is(rng: np.random.Generator) -> None:
    mask = rng.random(GRID) < 0.5
    whole = drawn(RowFraction(0.3, 1), 200)
    assert drawn(RowFraction(0.3, 1), 200, mask) == [place for place in whole if mask.ravel()[place]]


def test_a_larger_fraction_holds_a_smaller_one_and_seeds_differ() -> None:
    assert set(drawn(RowFraction(0.2, 1), None)) < set(drawn(RowFraction(0.4, 1), None))
    assert drawn(RowFraction(0.2, 1), None) != drawn(RowFraction(0.2, 2), None)


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_the_draw_has_nothing_to_do_with_the_priorities_of_the_sample(seed: int) -> None:
    numbers = np.empty(1000)
    survey_kernels.uniform(seed, np.arange(1000), numbers)
    chosen = np.isin(np.arange(1000), drawn(RowFraction(0.5, seed), None))
    assert abs(numbers[chosen].mean() - numbers[~chosen].mean()) < 0.1
