from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from clustering.data.access import open_source
from clustering.data.preparation import only_unit_norm
from clustering.data.rows import Rows, in_memory_rows
from clustering.data.source import Source
from clustering.execution.block_cache import BlockCache, cached, give_up_memory, release
from clustering.execution.engine import Engine, connect
from clustering.execution.near_rows import NearRows
from clustering.execution.passes import PassRunner, pass_runner


@dataclass(frozen=True)
class Sum:
    """Sum and number of the first features; whole numbers, so that every order gives the same."""

    total: float
    count: int

    def __add__(self, other: Sum) -> Sum:
        return Sum(self.total + other.total, self.count + other.count)


def add_up(rows: Rows) -> Sum:
    return Sum(float(rows.values[:, 0].sum()), len(rows))


def odd(rows: Rows) -> tuple[Sum, np.ndarray]:
    """Rows whose first feature is odd are near."""
    return add_up(rows), rows.values[:, 0] % 2 == 1


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    path = tmp_path_factory.mktemp("near") / "rows.zarr"
    zarr.create_array(path, data=np.stack([np.arange(1000.0), np.ones(1000)], 1), chunks=(100, 2))
    return open_source(path)


def runner_of(source: Source, engine: Engine, room: int) -> tuple[PassRunner, NearRows]:
    plan = source.plan(block_bytes=1600, memory=2**20)
    assert len(plan) == 10
    near = NearRows(odd, BlockCache("near", room))
    return PassRunner(source, plan, engine, BlockCache("all", 0), near=near), near


@pytest.mark.parametrize("room", [0, 2000, 10**6], ids="room-{}".format)
@pytest.mark.parametrize("cluster", ["synchronous", "threads"])
def test_passes_go_over_the_near_rows_alone(cluster: str, room: int, source: Source) -> None:
    with connect(cluster, 2) as engine:
        runner, near = runner_of(source, engine, room)
        # A session is closed for good, so each case has its own.
        near = replace(near, cache=replace(near.cache, session=f"near-{cluster}-{room}"))
        runner = replace(runner, near=near, cache=replace(runner.cache, session=f"all-{cluster}-{room}"))
        whole = runner.split()
        assert whole.statistics == (Sum(499_500.0, 1000),)
        assert whole.read_stats.blocks == 10
        for _ in range(2):
            result = runner.run([add_up, add_up])
            assert result.statistics == (Sum(250_000.0, 500),) * 2
            # Fifty near rows of 16 bytes, of each block.
            assert result.read_stats.blocks == 10 - min(10, room // 800)
        # A process that has lost them reads them again.
        engine.release(release, near.cache.session)
        again = replace(runner, near=replace(near, cache=replace(near.cache, session=f"{near.cache.session}-again")))
        assert again.run([add_up]).statistics == (Sum(250_000.0, 500),)
        engine.release(release, runner.cache.session)


def test_near_rows_take_no_memory_for_their_places(source: Source) -> None:
    with connect("synchronous") as engine:
        runner, near = runner_of(source, engine, 10**6)
        runner.split()
        rows = cached(near.cache, 3)
        assert rows is not None
        assert rows.nbytes == 50 * 16
        assert len(rows.positions(np.arange(50))) == 50
        for session in ("near", "all"):
            engine.release(release, session)


def test_rows_that_preparation_leaves_out_are_not_near() -> None:
    values = np.array([[3.0, 4.0], [0.0, 0.0], [5.0, 12.0], [8.0, 6.0]])
    kept = in_memory_rows(values, np.array([1.0, 2.0, 3.0, 4.0]))
    prepared = only_unit_norm(2).apply(kept)
    assert len(prepared) == 3

    def last_two(rows: Rows) -> tuple[Any, np.ndarray]:
        return None, np.array([False, True, True])

    cache = BlockCache("zero-rows", 10**6)
    _, near = NearRows(last_two, cache).split_block(0, kept, prepared, keep=True)
    np.testing.assert_array_equal(near.values, values[2:])
    np.testing.assert_array_equal(near.weights, [3.0, 4.0])
    release(cache.session)


def test_blocks_that_give_up_memory_go_to_scratch_or_are_dropped(source: Source, tmp_path: Path) -> None:
    plan = source.plan(block_bytes=1600, memory=2**20)
    for scratch, blocks in ((None, 10), (tmp_path, 0)):
        with (
            connect("synchronous") as engine,
            pass_runner(source, plan, engine, memory=2**20, scratch=scratch) as runner,
        ):
            assert runner.run([add_up]).read_stats.blocks == 10
            assert runner.run([add_up]).read_stats.blocks == 0
            engine.release(give_up_memory, runner.cache.session)
            runner = replace(runner, cache=replace(runner.cache, memory=0))
            result = runner.run([add_up])
            assert result.read_stats.blocks == blocks
            assert result.statistics == (Sum(499_500.0, 1000),)
