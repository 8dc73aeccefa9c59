from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from clustering.data import grouped
from clustering.data import source as source_module
from clustering.data.access import open_source
from clustering.data.plan import Plan
from clustering.data.preparation import Preparation, only_unit_norm
from clustering.data.reading import read_block
from clustering.data.rows import Rows
from clustering.data.source import Source
from clustering.errors import ClusteringError, DataError
from clustering.execution.block_cache import BlockCache, get_or_read, release
from clustering.execution.engine import connect
from clustering.execution.fraction import RowFraction
from clustering.execution.passes import PassRunner, pass_runner

BLOCK = 100
BLOCKS = 12
ROW_BYTES = 3 * 8


@pytest.fixture
def values(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((BLOCK * BLOCKS, 3))


def cut(values: np.ndarray, **options: Any) -> tuple[Source, Plan]:
    source = open_source(values, **options)
    plan = source.plan(block_bytes=BLOCK * ROW_BYTES)
    assert len(plan) == BLOCKS
    return source, plan


def budget(blocks: float) -> int:
    """Memory of a worker, half of which keeps this many blocks."""
    return int(2 * blocks * BLOCK * ROW_BYTES)


@contextmanager
def passes(
    values: np.ndarray, memory: int, scratch: Path | None = None, workers: int = 1, **options: Any
) -> Iterator[PassRunner]:
    source, plan = cut(values, **options)
    with (
        connect("threads", workers) as engine,
        pass_runner(source, plan, engine, memory=memory, scratch=None if scratch is None else str(scratch)) as inside,
    ):
        yield inside


def total(rows: Rows) -> Any:
    return np.sum(rows.values * rows.weights[:, None], axis=0)


def reads(inside: PassRunner, n: int) -> list[int]:
    return [inside.run([total]).read_stats.blocks for _ in range(n)]


def test_blocks_within_the_budget_are_read_once(values: np.ndarray) -> None:
    with passes(values, budget(BLOCKS)) as inside:
        assert reads(inside, 4) == [BLOCKS, 0, 0, 0]


@pytest.mark.parametrize("fit", [1, 5, 11], ids="room for {}".format)
def test_blocks_beyond_the_budget_are_read_in_every_pass(fit: int, values: np.ndarray) -> None:
    with passes(values, budget(fit)) as inside:
        assert reads(inside, 3) == [BLOCKS, BLOCKS - fit, BLOCKS - fit]


def test_what_is_read_is_counted_in_decoded_bytes(values: np.ndarray) -> None:
    with passes(values, budget(4)) as inside:
        sizes = [inside.run([total]).read_stats.bytes for _ in range(2)]
    assert sizes == [values.nbytes, (BLOCKS - 4) * BLOCK * ROW_BYTES]


def test_a_pass_reads_a_block_once_for_several_candidates(values: np.ndarray) -> None:
    with passes(values, budget(1)) as inside:
        passed = inside.run([total, total, total])
    assert passed.read_stats.blocks == BLOCKS
    assert len({one.tobytes() for one in passed.statistics}) == 1


def test_blocks_without_any_row_are_not_read_again(values: np.ndarray) -> None:
    mask = np.ones(len(values), bool)
    mask[BLOCK : 4 * BLOCK] = False
    with passes(values, budget(BLOCKS), mask=mask) as inside:
        assert reads(inside, 3) == [BLOCKS, 0, 0]


def mapped_bytes(folder: Path) -> int:
    """Bytes of files of a folder that this process has mapped; those without a name are marked as deleted."""
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]
    edges = [[int(edge, 16) for edge in line[0].split("-")] for line in lines]
    return sum(end - start for start, end in edges)


def test_scratch_takes_what_memory_does_not_and_leaves_nothing_even_when_killed(
    values: np.ndarray, tmp_path: Path
) -> None:
    scratch = tmp_path / "made" / "scratch"
    with passes(values, budget(2), scratch) as inside:
        assert reads(inside, 3) == [BLOCKS, 0, 0]
        assert mapped_bytes(scratch) >= (BLOCKS - 2) * BLOCK * ROW_BYTES
        # The files have no names, so whatever ends the process ends them.
        assert list(scratch.iterdir()) == []
    assert mapped_bytes(scratch) == 0


def test_a_run_that_has_ended_keeps_nothing_more(values: np.ndarray) -> None:
    source, plan = cut(values)
    residency = BlockCache("ended", 10**9)
    get_or_read(source, plan, 0, residency)
    release("ended")
    with pytest.raises(ClusteringError, match="ended"):
        get_or_read(source, plan, 1, residency)


def test_scratch_is_emptied_when_a_pass_fails(values: np.ndarray, tmp_path: Path) -> None:
    seen: list[int] = []

    def fail_in_the_end(rows: Rows) -> Any:
        if rows.start[0] == BLOCK * (BLOCKS - 1):
            seen.append(mapped_bytes(tmp_path))
            raise ArithmeticError("broken")
        return total(rows)

    with pytest.raises(ArithmeticError, match="broken"), passes(values, budget(1), tmp_path) as inside:
        inside.run([fail_in_the_end])
    assert max(seen) > 0
    assert mapped_bytes(tmp_path) == 0


def test_scratch_leaves_files_of_others_alone(values: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "0.npy").write_text("not ours")
    with passes(values, budget(1), tmp_path) as inside:
        reads(inside, 2)
    assert [file.name for file in tmp_path.iterdir()] == ["0.npy"]


@pytest.mark.parametrize("scratch", [False, True], ids=["in memory", "in files"])
def test_kept_rows_equal_those_of_the_source(scratch: bool, values: np.ndarray, tmp_path: Path) -> None:
    mask, weights = np.arange(len(values)) % 7 > 2, np.arange(len(values)) / 3
    source, plan = cut(values, mask=mask, weights=weights)
    residency = BlockCache(f"compare-{tmp_path}", 0 if scratch else 10**9, str(tmp_path))
    try:
        for _ in range(2):
            for index in range(len(plan)):
                kept, fresh = get_or_read(source, plan, index, residency)[0], read_block(source, plan.block(index))
                assert kept.values.tobytes() == fresh.values.tobytes()
                assert kept.weights.tobytes() == fresh.weights.tobytes()
                assert kept.positions(np.arange(len(kept))).tolist() == fresh.positions(np.arange(len(fresh))).tolist()
    finally:
        release(residency.session)


@pytest.mark.parametrize("with_scratch", [False, True], ids=["no scratch", "scratch"])
@pytest.mark.parametrize(
    "options",
    [{}, {"mask": 0.5}, {"weights": 2.0}, {"mask": 0.5, "weights": 2.0}],
    ids=["plain", "mask", "weights", "mask and weights"],
)
def test_what_is_kept_in_memory_stays_within_the_budget(
    options: dict[str, float], with_scratch: bool, values: np.ndarray, tmp_path: Path, rng: np.random.Generator
) -> None:
    noise = rng.random(len(values))
    given: dict[str, Any] = {k: noise < v if k == "mask" else noise * v for k, v in options.items()}
    source, plan = cut(values, **given)
    memory = 3 * BLOCK * ROW_BYTES
    residency = BlockCache(f"budget-{tmp_path}", memory, str(tmp_path) if with_scratch else None)

    def in_memory(array: np.ndarray | None) -> int:
        return 0 if array is None or isinstance(array, np.memmap) or not any(array.strides) else array.nbytes

    try:
        for index in range(len(plan)):
            get_or_read(source, plan, index, residency)
        again = [get_or_read(source, plan, index, residency) for index in range(len(plan))]
    finally:
        release(residency.session)
    kept = [rows for rows, size in again if size == 0]
    assert kept
    assert sum(in_memory(a) for rows in kept for a in (rows.values, rows.weights, rows.cells)) <= memory


def test_threads_share_one_budget(values: np.ndarray) -> None:
    with passes(values, budget(5), workers=4) as inside:
        assert reads(inside, 3) == [BLOCKS, BLOCKS - 5, BLOCKS - 5]


def test_two_runs_share_nothing(values: np.ndarray) -> None:
    with passes(values, budget(BLOCKS)) as one, passes(-values, budget(BLOCKS)) as other:
        for _ in range(2):
            assert np.array_equal(one.run([total]).statistics[0], -other.run([total]).statistics[0])


def test_two_plans_over_one_engine_share_nothing(values: np.ndarray) -> None:
    first, second = cut(values), cut(-values)
    with (
        connect("threads", 1) as engine,
        pass_runner(*first, engine, memory=budget(BLOCKS)) as one,
        pass_runner(*second, engine, memory=budget(BLOCKS)) as other,
    ):
        for _ in range(2):
            assert np.array_equal(one.run([total]).statistics[0], -other.run([total]).statistics[0])


def test_nothing_is_kept_after_the_run(values: np.ndarray) -> None:
    source, plan = cut(values)
    with connect("threads", 1) as engine:
        for _ in range(2):
            with pass_runner(source, plan, engine, memory=budget(BLOCKS)) as inside:
                assert reads(inside, 2) == [BLOCKS, 0]


@pytest.mark.parametrize("place", [lambda p: p / "file" / "below", lambda p: p / "file"], ids=["below", "at"])
def test_a_scratch_folder_that_cannot_be_made_is_named(
    place: Callable[[Path], Path], values: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ClusteringError, match="scratch"), passes(values, budget(1), place(tmp_path)) as inside:
        inside.run([total])


def test_a_scratch_disk_that_takes_less_than_it_said_is_logged(
    values: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with passes(values, budget(2), tmp_path) as inside:
        resource.setrlimit(resource.RLIMIT_FSIZE, (BLOCK * ROW_BYTES - 1, limits[1]))
        try:
            assert reads(inside, 3) == [BLOCKS, BLOCKS - 2, BLOCKS - 2]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (line,) = {record.getMessage() for record in caplog.records}
    assert line == f"scratch '{tmp_path}': File too large; further blocks are read again in every pass"


def test_a_block_of_over_half_the_memory_is_refused(values: np.ndarray) -> None:
    source, plan = cut(values)
    with connect("threads", 1) as engine:
        with pass_runner(source, plan, engine, memory=2 * plan.block_bytes) as inside:
            reads(inside, 1)
        with (
            pytest.raises(DataError, match=r"compute\.memory is .* raise compute\.memory"),
            pass_runner(source, plan, engine, memory=2 * plan.block_bytes - 1),
        ):
            pass


@pytest.mark.parametrize(
    ("select", "held"),
    [({"x": {"start": 3, "stop": 20}}, 40 * 8), ({"x": [3, 5, 6]}, 0), ({}, 0)],
    ids=["span", "few", "none"],
)
def test_labels_that_a_selection_holds_count_against_the_memory(
    select: dict[str, Any], held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (grouped, source_module):
        monkeypatch.setattr(module, "SMALL_LABELS", 100)
    stored = xr.Dataset({"t": ("x", np.arange(40.0)), "u": ("x", np.arange(40.0))}, {"x": np.arange(40.0)})
    stored.to_zarr(tmp_path / "s.zarr", zarr_format=3, consolidated=False)
    source = open_source(tmp_path / "s.zarr", select=select, variables=["t", "u"], sample_dims=["x"])
    assert source.held_labels == ({"x": held} if held else {})
    plan = source.plan()
    assert plan.block_bytes <= 640
    with connect("threads", 1) as engine:
        with pass_runner(source, plan, engine, memory=2 * 640 + 2) as inside:
            assert inside.cache.memory == 641 - held
        if held:
            with (
                pytest.raises(DataError, match=r"labels of 'x', .* over half of compute\.memory: raise .*'isel'"),
                pass_runner(source, plan, engine, memory=2 * held - 2),
            ):
                pass
    with connect("threads", 1) as engine, pass_runner(source, plan, engine, memory=10**6, keep=False) as inside:
        assert inside.cache.memory == 0


def test_smaller_rows_take_the_place_of_what_is_kept(values: np.ndarray, tmp_path: Path) -> None:
    preparation = Preparation(False, np.zeros(3), np.ones((3, 1)), np.ones((1, 3)))
    for scratch in (None, tmp_path):
        with passes(values, budget(4 + 1e-9), scratch) as inside:
            first = inside.run([total])
            after = replace(inside, preparation=preparation)
            sums = [after.run([total]) for _ in range(3)]
            # With one component instead of three features, room for four blocks holds all twelve.
            reads_after = [passed.read_stats.blocks for passed in sums]
            assert reads_after == ([BLOCKS - 4, 0, 0] if scratch is None else [0, 0, 0])
            assert all(passed.statistics[0] == pytest.approx(first.statistics[0].sum()) for passed in sums)


def test_rows_that_would_grow_are_kept_as_decoded(values: np.ndarray) -> None:
    preparation = Preparation(False, np.zeros(6), np.full(6, 2.0), np.full(6, 0.5))
    single = np.concatenate([values, -values], axis=1).astype(np.float32)
    with passes(single, budget(BLOCKS)) as inside:
        first = inside.run([total]).statistics[0]
        after = replace(inside, preparation=preparation).run([total])
        assert after.read_stats.blocks == 0
        assert np.array_equal(after.statistics[0], 2.0 * first)
        assert np.array_equal(inside.run([total]).statistics[0], first)


def test_rows_of_pass_0_are_not_kept_as_it_uses_them(values: np.ndarray) -> None:
    preparation = Preparation(True, np.zeros(3), np.full(3, 2.0), np.full(3, 0.5))
    with passes(values, budget(BLOCKS)) as inside:
        replace(inside, preparation=only_unit_norm(3)).run([total])
        both = replace(inside, preparation=preparation)
        expected = 2.0 * (values / np.linalg.norm(values, axis=1)[:, None]).sum(axis=0)
        for _ in range(2):
            passed = both.run([total])
            assert passed.read_stats.blocks == 0
            np.testing.assert_allclose(passed.statistics[0], expected)


def test_only_the_rows_of_a_fraction_are_kept(values: np.ndarray) -> None:
    with passes(values, budget(4)) as inside:
        runner = replace(inside, fraction=RowFraction(0.25, 3))
        first = runner.run([total])
        # Room for four blocks holds a quarter of the rows of all twelve blocks, with the index of these rows.
        assert [runner.run([total]).read_stats.blocks for _ in range(2)] == [0, 0]
        assert np.array_equal(runner.run([total]).statistics[0], first.statistics[0])
