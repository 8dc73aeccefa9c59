"""On a cluster, cached rows are found again in every pass; only those of workers that come and go are read again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from daskworkers import scheduler, worker

import clustering as c
from clustering.data.access import open_source
from clustering.data.rows import Rows
from clustering.execution.dask_clusters import SETTINGS
from clustering.execution.engine import Engine, connect
from clustering.execution.homes import Homes
from clustering.execution.map_reduce import split_runs
from clustering.execution.passes import PassResult, PassRunner, pass_runner

ROWS, BLOCK = 4800, 100
BLOCKS, RUNS = ROWS // BLOCK, 6
RUN_BLOCKS = BLOCKS // RUNS
ROW_BYTES = 3 * 8
RUN_BYTES = RUN_BLOCKS * BLOCK * ROW_BYTES


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    return np.random.default_rng(5).standard_normal((ROWS, 3))


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Engine]:
    """An engine on two workers, which are not restarted when they die."""
    with dask.config.set(SETTINGS), scheduler() as address, ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(worker(address))
        yield stack.enter_context(connect({"address": address}, 2))


def passes(values: np.ndarray, engine: Engine, *, runs: float, scratch: Path | None = None) -> Any:
    """Offer a pass runner whose workers have memory for so many runs each."""
    source = open_source(values)
    plan = source.plan(block_bytes=BLOCK * ROW_BYTES)
    assert len(plan) == BLOCKS
    return pass_runner(source, plan, engine, memory=int(2 * runs * RUN_BYTES), scratch=scratch)


@pytest.fixture(scope="module")
def statistics(values: np.ndarray) -> Any:
    """Statistics of k-means, which other processes can import."""
    model = c.KMeans(4)
    return model.for_pass(c.fit(values, model, max_iterations=2, restarts=1, cluster="synchronous").params)


def bits(result: PassResult) -> bytes:
    return b"".join(np.asarray(array).tobytes() for _, array in sorted(result.statistics[0].sums.items()))


def blocks_read(runner: PassRunner, statistics: Any, n: int) -> list[int]:
    return [runner.run([statistics]).read_stats.blocks for _ in range(n)]


def wait_for(engine: Engine, workers: int) -> None:
    end = time.monotonic() + 60
    # A worker that has just come takes no task before its plugins are set up.
    while [w["status"] for w in engine.client.scheduler_info()["workers"].values()] != ["running"] * workers:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_workers_find_their_rows_in_every_pass(values: np.ndarray, two_workers: Engine, statistics: Any) -> None:
    with passes(values, two_workers, runs=3) as runner:
        assert blocks_read(runner, statistics, 5) == [BLOCKS, 0, 0, 0, 0]
        lives = runner.residency
    assert [cached.memory for cached in lives.workers.values()] == [values.nbytes // 2] * 2
    assert (lives.memory, lives.scratch, lives.source) == (values.nbytes, 0, 0)


def test_workers_find_what_they_had_room_for_and_the_rest_is_read(
    values: np.ndarray, two_workers: Engine, statistics: Any, tmp_path: Path
) -> None:
    with passes(values, two_workers, runs=2) as runner:
        assert blocks_read(runner, statistics, 4) == [BLOCKS, *[2 * RUN_BLOCKS] * 3]
        lives = runner.residency
        assert (lives.memory, lives.source) == (4 * RUN_BYTES, 2 * RUN_BYTES)
        assert runner.run([statistics]).read_stats.bytes == lives.source
        # What nobody caches is for whoever has nothing to do.
        homes = runner.homes.update(two_workers.client, split_runs(BLOCKS, two_workers.threads))
        assert [name for name, _ in homes].count("") == 2
    with passes(values, two_workers, runs=2, scratch=tmp_path) as runner:
        assert blocks_read(runner, statistics, 3) == [BLOCKS, 0, 0]
        lives = runner.residency
        assert (lives.memory, lives.scratch, lives.source) == (4 * RUN_BYTES, 2 * RUN_BYTES, 0)


class AwayFromHome(Homes):
    """Homes of a worker that has left as soon as it was asked for."""

    def update(self, client: Any, runs: Sequence[range]) -> list[tuple[str, str | None]]:
        return [("gone", "tcp://127.0.0.1:1") for _ in super().update(client, runs)]


def test_a_run_without_its_home_is_done_by_others_which_cache_nothing(
    values: np.ndarray, two_workers: Engine, statistics: Any
) -> None:
    with passes(values, two_workers, runs=3) as runner:
        expected = bits(runner.run([statistics]))
    with passes(values, two_workers, runs=3) as runner:
        away = replace(runner, homes=AwayFromHome())
        results = [away.run([statistics]) for _ in range(2)]
        assert [result.read_stats.blocks for result in results] == [BLOCKS, BLOCKS]
        assert (runner.residency.memory, runner.residency.source) == (0, values.nbytes)
        # Their next homes have room for them.
        homes = Homes.update(away.homes, two_workers.client, split_runs(BLOCKS, two_workers.threads))
        assert all(name for name, _ in homes)
    assert {bits(result) for result in results} == {expected}


def test_workers_that_come_and_go_move_their_share_alone_and_no_bit(
    values: np.ndarray, two_workers: Engine, statistics: Any
) -> None:
    with connect("synchronous") as engine, passes(values, engine, runs=RUNS) as runner:
        expected = bits(runner.run([statistics]))
    with passes(values, two_workers, runs=3) as runner:
        results = [runner.run([statistics])]
        with worker(two_workers.client.scheduler.address) as third:
            wait_for(two_workers, 3)
            results += [runner.run([statistics]) for _ in range(2)]
            shares = sorted(cached.memory for cached in runner.residency.workers.values())
            third.kill()
            third.wait()
        wait_for(two_workers, 2)
        results += [runner.run([statistics]) for _ in range(2)]
        lives = runner.residency
    # A third of the runs moves to the third worker, and these alone are read again when it is gone.
    share = 2 * RUN_BLOCKS
    assert [result.read_stats.blocks for result in results] == [BLOCKS, share, 0, share, 0]
    assert shares == [2 * RUN_BYTES] * 3
    assert [cached.memory for cached in lives.workers.values()] == [3 * RUN_BYTES] * 2
    assert {bits(result) for result in results} == {expected}


def rows_total(rows: Rows) -> Any:
    return rows.values.sum(axis=0)


@pytest.mark.parametrize("with_scratch", [False, True], ids=["read again", "on scratch"])
@pytest.mark.parametrize("runs", [0.5, 2, 6])
def test_what_lives_in_the_source_alone_is_what_a_pass_reads(
    runs: float, with_scratch: bool, values: np.ndarray, tmp_path: Path
) -> None:
    with (
        connect("threads", 2) as engine,
        passes(values, engine, runs=runs, scratch=tmp_path if with_scratch else None) as runner,
    ):
        assert runner.residency.source == values.nbytes
        runner.run([rows_total])
        lives = runner.residency
        assert lives.source == runner.run([rows_total]).read_stats.bytes
        assert list(lives.workers) == ["threads"]
        assert lives.memory == min(runs, RUNS) * RUN_BYTES
        assert lives.memory + lives.scratch + lives.source == values.nbytes
