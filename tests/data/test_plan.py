"""Blocks: they cover the grid once, lie on chunk edges, and cost nothing to plan."""

from __future__ import annotations

import math
import os
import pickle
import time
import tracemalloc
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustering.data.access import open_source
from clustering.data.plan import BESIDE, MIB, Axis, Block, Plan, plan_blocks


@dataclass(frozen=True)
class Grid:
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    offset: tuple[int, ...] | None
    row_bytes: int
    block_bytes: int

    def plan(self) -> Plan:
        offset = self.offset or (0,) * len(self.shape)
        axes = [Axis(*axis) for axis in zip(self.shape, self.chunks, offset, strict=True)]
        return plan_blocks(axes, row_bytes=self.row_bytes, block_bytes=self.block_bytes)


@st.composite
def grids(draw: st.DrawFn, with_offset: bool = True) -> Grid:
    axes = draw(st.lists(st.tuples(st.integers(1, 11), st.integers(1, 13)), min_size=1, max_size=4))
    offset = tuple(draw(st.integers(0, chunk - 1)) for _, chunk in axes)
    return Grid(
        tuple(length for length, _ in axes),
        tuple(chunk for _, chunk in axes),
        offset if with_offset and draw(st.booleans()) else None,
        draw(st.integers(1, 64)),
        draw(st.integers(1, 1 << 14)),
    )


def blocks(plan: Plan) -> list[Block]:
    return [plan.block(i) for i in range(len(plan))]


@given(grids())
def test_every_cell_is_in_exactly_one_block(grid: Grid) -> None:
    times = np.zeros(grid.shape, int)
    for block in blocks(grid.plan()):
        times[block.slices] += 1
        assert min(block.shape) > 0
    assert (times == 1).all()


@given(grids())
def test_blocks_are_numbered_in_c_order(grid: Grid) -> None:
    all_blocks = blocks(grid.plan())
    assert [b.number for b in all_blocks] == list(range(len(all_blocks)))
    assert [b.start for b in all_blocks] == sorted(b.start for b in all_blocks)


@given(grids())
def test_inner_edges_lie_on_chunk_edges(grid: Grid) -> None:
    offset = grid.offset or (0,) * len(grid.shape)
    for block in blocks(grid.plan()):
        for start, stop, length, chunk, skipped in zip(
            block.start, block.stop, grid.shape, grid.chunks, offset, strict=True
        ):
            assert start == 0 or (start + skipped) % chunk == 0
            assert stop == length or (stop + skipped) % chunk == 0


@given(grids())
def test_a_block_is_no_larger_than_wanted_unless_it_is_one_chunk(grid: Grid) -> None:
    plan = grid.plan()
    one_chunk = math.prod(map(min, grid.shape, grid.chunks)) * grid.row_bytes
    largest = max(math.prod(b.shape) * grid.row_bytes for b in blocks(plan))
    assert largest <= plan.block_bytes
    assert plan.block_bytes <= max(grid.block_bytes, one_chunk)


@given(grids(with_offset=False))
def test_block_bytes_is_the_size_of_the_largest_block(grid: Grid) -> None:
    plan = grid.plan()
    assert plan.block_bytes == max(math.prod(b.shape) * grid.row_bytes for b in blocks(plan))


@given(grids(with_offset=False))
def test_a_block_with_one_more_chunk_would_be_larger_than_wanted(grid: Grid) -> None:
    plan = grid.plan()
    cut = [axis for axis, count in enumerate(plan.grid) if count > 1]
    if cut:
        longer = list(plan.longest)
        longer[cut[-1]] += min(grid.chunks[cut[-1]], grid.shape[cut[-1]])
        assert math.prod(longer) * grid.row_bytes > grid.block_bytes


@st.composite
def places(draw: st.DrawFn) -> range | np.ndarray:
    """Draw selected positions along a dimension: a slice with a step, or a list in any order."""
    if draw(st.booleans()):
        start, length, step = draw(st.integers(0, 30)), draw(st.integers(1, 40)), draw(st.integers(1, 9))
        return range(start, start + length, step)
    return np.array(draw(st.lists(st.integers(0, 60), min_size=1, max_size=20)))


@given(places(), st.integers(1, 8), st.integers(1, 6))
def test_blocks_of_selected_positions_hold_all_neighbours_of_a_chunk(place: Any, chunk: int, block_bytes: int) -> None:
    plan = plan_blocks([Axis.from_indexer(place, chunk)], row_bytes=1, block_bytes=block_bytes)
    all_blocks = blocks(plan)
    assert [i for b in all_blocks for i in range(b.start[0], b.stop[0])] == list(range(len(place)))
    assert plan.block_bytes == max(b.shape[0] for b in all_blocks) if not isinstance(place, range) else True
    chunks = np.asarray(place) // chunk
    for block in all_blocks:
        assert block.shape[0] > 0
        start, stop = block.start[0], block.stop[0]
        assert start == 0 or chunks[start - 1] != chunks[start]
        assert stop == len(place) or chunks[stop - 1] != chunks[stop]


@given(grids())
def test_cells_are_counted_over_the_blocks(grid: Grid) -> None:
    plan = grid.plan()
    assert sum(math.prod(b.shape) for b in blocks(plan)) == plan.cells


@pytest.mark.parametrize(
    ("n", "memory", "expected"),
    [
        pytest.param(8_192, 2048 * MIB, 4 * MIB, id="small-data-has-a-least-block"),
        pytest.param(1 << 20, 2048 * MIB, 16 * MIB, id="a-64th-of-the-data"),
        pytest.param(1 << 30, 2048 * MIB, 64 * MIB, id="a-32nd-of-the-memory"),
        pytest.param(1 << 30, 1 << 40, 256 * MIB, id="never-more-than-256-MiB"),
        pytest.param(1 << 30, 1024, MIB, id="never-less-than-1-MiB-of-large-data"),
    ],
)
def test_default_block_size_follows_data_and_memory(n: int, memory: int, expected: int) -> None:
    assert plan_blocks([Axis(n)], row_bytes=1024, memory=memory).block_bytes == expected


@pytest.mark.parametrize("row_bytes", [1, 4, 47, 48, 49, 1000])
def test_default_blocks_leave_room_for_the_numbers_beside_narrow_rows(row_bytes: int) -> None:
    plan = plan_blocks([Axis(1 << 33)], row_bytes=row_bytes, memory=2048 * MIB)
    rows = plan.block_bytes // row_bytes
    assert 63 * MIB < rows * max(row_bytes, BESIDE) <= 64 * MIB


@pytest.mark.parametrize("block_bytes", [None, 1], ids=["chosen-blocks", "a-block-per-chunk"])
def test_a_plan_over_1e8_chunks_is_cheap(block_bytes: int | None) -> None:
    tracemalloc.start()
    started = time.perf_counter()
    plan = plan_blocks([Axis(10_000, 10), Axis(10_000, 10), Axis(1_000, 10)], row_bytes=400, block_bytes=block_bytes)
    for index in range(0, len(plan), max(1, len(plan) // 1000)):
        assert plan.block(index).number == index
    seconds = time.perf_counter() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(plan) == 100_000_000 or block_bytes is None
    assert seconds < 2
    assert peak < 100e6


def test_a_plan_does_not_depend_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.zeros((100_000, 8))
    before = open_source(data).plan(memory=64 * MIB)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "DASK_NUM_WORKERS"):
        monkeypatch.setenv(name, "64")
    assert open_source(data).plan(memory=64 * MIB) == before


def test_plans_and_blocks_are_small_names() -> None:
    plan = plan_blocks([Axis(10_000, 7), Axis(10_000, 9)], row_bytes=4)
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert len(pickle.dumps(plan)) < 1000
    assert hash(plan.block(3)) == hash(pickle.loads(pickle.dumps(plan.block(3))))


def test_a_block_is_called_by_its_number_and_region() -> None:
    assert str(plan_blocks([Axis(6, 2), Axis(5, 3)], row_bytes=1, block_bytes=1).block(3)) == "3 [2:4, 3:5]"
