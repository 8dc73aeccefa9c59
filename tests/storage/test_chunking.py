from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

import clustering as c
from clustering.data.access import open_source
from clustering.data.plan import Axis, Plan
from clustering.fitting.cluster_names import default_names
from clustering.fitting.labelling import LabelOutputs
from clustering.storage.chunking import LARGE_CHUNK, MANY_FILES, SMALL_CHUNK, chunking, inner_chunks, units
from clustering.storage.labels import LabelWriter, create_labels


def regular(shape: tuple[int, ...], step: tuple[int, ...]) -> Plan:
    """A plan of blocks of these lengths."""
    return Plan(tuple(Axis(n, s) for n, s in zip(shape, step, strict=True)), (1,) * len(shape), 8)


@st.composite
def plans(draw: st.DrawFn) -> tuple[Plan, tuple[int, ...]]:
    """A plan, and chunks of which its blocks are runs."""
    chunks = tuple(draw(st.lists(st.integers(1, 300), min_size=1, max_size=3)))
    shape = tuple(draw(st.integers(1, 2000)) for _ in chunks)
    step = tuple(min(n, c * draw(st.integers(1, 8))) for c, n in zip(chunks, shape, strict=True))
    return regular(shape, step), chunks


@given(plans(), st.booleans(), st.lists(st.integers(1, 40), max_size=2))
def test_every_file_is_of_one_block(case: Any, sharded: bool, extra: list[int]) -> None:
    plan, inner = case
    chunks, shards = chunking(plan.shape, units(plan), inner, sharded, tuple(extra), 4)
    files = shards or chunks
    samples = len(plan.shape)
    for i in {0, len(plan) // 2, len(plan) - 1}:
        block = plan.block(i)
        for start, stop, n, file in zip(block.start, block.stop, plan.shape, files[:samples], strict=True):
            assert start % file == 0
            assert stop % file == 0 or stop == n
    if shards:
        assert all(s % c == 0 for s, c in zip(shards, chunks, strict=True))
    cells = math.prod(min(c, n) for c, n in zip(chunks, plan.shape, strict=False))
    assert cells >= min(SMALL_CHUNK, *(math.prod(plan.block(i).shape) for i in (0,)))


@given(plans())
def test_units_are_the_steps_of_a_regular_plan(case: Any) -> None:
    plan, _ = case
    assert units(plan) == plan.longest


def test_very_many_chunks_lie_in_shards() -> None:
    shape, inner = (10_000, 4096, 4096), (1, 64, 64)
    plan = regular(shape, (1, 4096, 4096))
    assert math.prod(-(-n // c) for n, c in zip(shape, inner, strict=True)) > MANY_FILES
    assert chunking(shape, units(plan), inner, False) == (inner, (1, 4096, 4096))
    few = regular((10, 4096, 4096), (1, 4096, 4096))
    assert chunking(few.shape, units(few), inner, False) == (inner, None)


def test_large_chunks_are_cut_beyond_the_samples() -> None:
    plan = regular((2**21,), (2**20,))
    assert chunking(plan.shape, plan.longest, (2**20,), False, (100,), 4) == ((2**20, LARGE_CHUNK // 2**22), None)
    assert chunking(plan.shape, plan.longest, (2**20,), False, (10,), 4) == ((2**20, 10), None)


def sharded_store(path: Path, n: int = 40_000) -> Path:
    data = xr.Dataset({"x": (("row", "feature"), np.random.default_rng(0).random((n, 2), np.float32))})
    encoding = {"x": {"chunks": (5000, 2), "shards": (10_000, 2)}}
    data.to_zarr(path, consolidated=False, zarr_format=3, encoding=encoding)
    return path


def written(path: Path, store: Path, wanted: LabelOutputs, block_bytes: int, **options: Any) -> tuple[LabelWriter, Any]:
    source = open_source(store, sample_dims=["row"], **options)
    plan = source.plan(block_bytes=block_bytes, whole_chunks=False)
    write = create_labels(path, source, plan, default_names(3), {}, wanted, c.KMeans(3))
    return write, plan


def test_labels_of_shards_lie_in_shards_of_whole_blocks(tmp_path: Path) -> None:
    store = sharded_store(tmp_path / "in.zarr")
    source = open_source(store, sample_dims=["row"])
    assert inner_chunks(source) == ((5000,), True)
    write, plan = written(tmp_path / "labels.zarr", store, LabelOutputs(distances=True), 8 * 20_000)
    assert len(plan) == 2
    group = zarr.open_group(tmp_path / "labels.zarr", mode="r")
    for name in ("labels", "distances"):
        array = group[name]
        assert isinstance(array, zarr.Array)
        assert (array.chunks[0], (array.shards or (0,))[0]) == (5000, 20_000)
    assert not write.complete()
    for i in range(2):
        block = plan.block(i)
        assert not write.holds(block.slices)
        # Masked all over: these chunks are written too.
        write(block.slices, {"labels": np.full(block.shape, -1), "distances": np.full((*block.shape, 3), np.nan)})
        assert write.holds(block.slices)
    assert write.complete()
    files = sorted(p for p in (tmp_path / "labels.zarr" / "labels" / "c").rglob("*") if p.is_file())
    assert len(files) == 2
    stored = group["labels"]
    assert isinstance(stored, zarr.Array)
    whole = files[0].read_bytes()
    for place in (0, len(whole) // 3, len(whole) - 1):
        broken = bytearray(whole)
        broken[place] ^= 1
        files[0].write_bytes(broken)
        with pytest.raises(ValueError, match="checksum"):
            np.asarray(stored[...])
    files[0].write_bytes(whole)
    assert (np.asarray(stored[...]) == -1).all()


def test_shards_are_known_where_one_place_of_a_dimension_is_taken(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "in.zarr").create_array(
        "x", shape=(2, 40_000, 3), dtype="f4", chunks=(1, 5000, 3), shards=(1, 10_000, 3), fill_value=0,
        dimension_names=("time", "row", "feature"),
    )  # fmt: skip
    source = open_source(tmp_path / "in.zarr", sample_dims=["row"], isel={"time": 1}, missing_chunks="fill")
    assert inner_chunks(source) == ((5000,), True)


@pytest.mark.parametrize("isel", [{}, {"row": {"start": 1234, "stop": 38_011}}, {"row": {"step": 3}}], ids=str)
def test_shards_hold_what_was_written(isel: Any, tmp_path: Path) -> None:
    store = sharded_store(tmp_path / "in.zarr")
    write, plan = written(tmp_path / "labels.zarr", store, LabelOutputs(), 8 * 10_000, isel=isel)
    values = np.arange(plan.cells) % 3
    for i in range(len(plan)):
        part = plan.block(i).slices
        write(part, {"labels": values[part]})
    assert write.complete()
    stored = zarr.open_array(tmp_path / "labels.zarr" / "labels", mode="r")
    np.testing.assert_array_equal(np.asarray(stored[...]), values)


def test_files_that_are_lost_or_empty_are_found(tmp_path: Path) -> None:
    store = sharded_store(tmp_path / "in.zarr")
    write, plan = written(tmp_path / "labels.zarr", store, LabelOutputs(), 8 * 10_000)
    for i in range(len(plan)):
        write(plan.block(i).slices, {"labels": np.zeros(plan.block(i).shape, np.int8)})
    folder = tmp_path / "labels.zarr" / "labels" / "c"
    (folder / ".stray").write_text("not a chunk")
    (folder / "7.0123.partial").write_text("half a chunk")
    assert write.complete()
    write.tidy()
    assert sorted(p.name for p in folder.iterdir()) == [".stray", "0", "1", "2", "3"]
    (folder / "2").write_bytes(b"")
    assert not write.complete()
    (folder / "0").unlink()
    assert [write.holds(plan.block(i).slices) for i in range(4)] == [False, True, False, True]
