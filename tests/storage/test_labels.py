from __future__ import annotations

import math
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import clustering as c
from clustering.data.access import open_source
from clustering.data.plan import Axis, Plan
from clustering.data.source import Source
from clustering.fitting.cluster_names import default_names
from clustering.fitting.labelling import LabelOutputs
from clustering.storage.labels import (
    LARGE_CHUNK,
    MANY_FILES,
    SMALL_CHUNK,
    LabelWriter,
    chunking,
    create_labels,
    inner_chunks,
    results_in_memory,
    units,
)

MEMORY = 64 * 2**20
DIMS = ("time", "lat", "lon")


def cut(source: Source, block_bytes: int | None = None) -> Plan:
    return source.plan(block_bytes=block_bytes, memory=MEMORY, whole_chunks=False)


def write_all(source: Source, folder: Path, values: np.ndarray, block_bytes: int | None = None) -> zarr.Array[Any]:
    """Write labels as a run does: each block once, in the order of the plan."""
    plan = cut(source, block_bytes)
    write = create_labels(folder / "labels.zarr", source, plan, default_names(200), {"run": "a1"})
    for index in range(len(plan)):
        block = plan.block(index)
        write(block.slices, {"labels": values[block.slices]})
    stored = zarr.open_array(folder / "labels.zarr" / "labels", mode="r")
    assert isinstance(stored, zarr.Array)
    return stored


def open_labels(folder: Path) -> xr.Dataset:
    with xr.open_dataset(str(folder / "labels.zarr"), engine="zarr", consolidated=False, chunks=None) as opened:
        return opened.load()


def save(dataset: xr.Dataset, path: Path, **options: Any) -> Path:
    with warnings.catch_warnings():
        # Strings have no final Zarr v3 specification yet and packed numbers no fill value: users have both.
        warnings.filterwarnings("ignore", category=zarr.errors.UnstableSpecificationWarning)
        warnings.filterwarnings("ignore", "saving variable .* with floating point data as an integer dtype")
        dataset.to_zarr(path, consolidated=False, zarr_format=3, **options)
    return path


@pytest.fixture
def field(field_store: Path) -> Source:
    return open_source(field_store, variables=["t", "q"], sample_dims=DIMS, mask="sea")


@pytest.mark.parametrize(
    ("k", "dtype"),
    [(1, "int8"), (2, "int8"), (128, "int8"), (129, "int16"), (32768, "int16"), (32769, "int32")],
    ids=["one", "two", "last of int8", "first of int16", "last of int16", "first of int32"],
)
def test_labels_have_the_smallest_signed_type(k: int, dtype: str, field: Source, tmp_path: Path) -> None:
    create_labels(tmp_path / "labels.zarr", field, cut(field), default_names(k), {})
    assert zarr.open_array(tmp_path / "labels.zarr" / "labels", mode="r").dtype == dtype
    assert results_in_memory(field, default_names(k), LabelOutputs())["labels"].dtype == dtype


def test_labels_begin_masked(field: Source, tmp_path: Path) -> None:
    create_labels(tmp_path / "labels.zarr", field, cut(field), default_names(4), {})
    assert (open_labels(tmp_path)["labels"] == -1).all()
    assert (results_in_memory(field, default_names(4), LabelOutputs())["labels"] == -1).all()


def test_meanings_of_the_labels_follow_cf(field: Source, tmp_path: Path) -> None:
    create_labels(tmp_path / "labels.zarr", field, cut(field), default_names(3), {"run": "a1"})
    opened = open_labels(tmp_path)
    attributes = opened["labels"].attrs
    assert attributes["flag_values"] == [0, 1, 2]
    assert attributes["flag_meanings"] == "cluster_0 cluster_1 cluster_2"
    assert opened.attrs == {"run": "a1"}
    assert zarr.open_array(tmp_path / "labels.zarr" / "labels", mode="r").fill_value == -1
    assert results_in_memory(field, default_names(3), LabelOutputs())["labels"].attrs == dict(attributes)


def test_coordinates_are_those_of_the_source(field_store: Path, field: Source, tmp_path: Path) -> None:
    write_all(field, tmp_path, np.zeros(field.shape, np.int16))
    with xr.open_zarr(field_store, consolidated=False, chunks=None) as data:
        opened = open_labels(tmp_path)
        assert opened["labels"].dims == DIMS
        for dim in DIMS:
            xr.testing.assert_identical(opened[dim], data[dim].load())


def coordinate_cases() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Coordinates with the encoding they are stored in."""
    hours = np.arange(6) * np.timedelta64(3600 * 10**9, "ns")
    return {
        "strings": ({"lat": ["ab", "c", "däf", "g", "h"]}, {}),
        "auxiliary strings": ({"station": ("lat", np.array(["ab", "c", "d", "e", "fgh"], object))}, {}),
        "time of another calendar unit": (
            {"time": np.datetime64("2001-01-01", "ns") + hours},
            {"time": {"units": "hours since 1950-01-01", "dtype": "int32"}},
        ),
        "time stored as floats": (
            {"time": np.datetime64("2001-01-01", "ns") + hours},
            {"time": {"units": "days since 1950-01-01", "dtype": "float64"}},
        ),
        "lead time": ({"lead": ("time", hours)}, {}),
        "packed": (
            {"lat": np.array([80.25, 40.5, 0.25, -40.0, -80.75])},
            {"lat": {"dtype": "i4", "scale_factor": 0.01}},
        ),
        "packed with a gap": (
            {"height": ("lat", np.array([1.25, np.nan, 2.5, 3.75, 4.0]))},
            {"height": {"dtype": "i2", "scale_factor": 0.25, "_FillValue": -9999}},
        ),
        "whole numbers": ({"lat": np.arange(5)}, {}),
        "booleans": ({"land": ("lat", np.array([True, False, True, True, False]))}, {}),
        "over two dimensions": ({"lon2": (("time", "lat"), np.arange(30.0).reshape(6, 5) / 7)}, {}),
        "a single value": ({"level": 850.5}, {}),
        "chunked": ({"lat": np.linspace(-1, 1, 5)}, {"lat": {"chunks": (2,)}}),
        "called like the labels": ({"labels": ("lat", np.arange(5.0))}, {}),
    }


@pytest.mark.parametrize(("coordinates", "encoding"), coordinate_cases().values(), ids=coordinate_cases())
def test_coordinates_of_every_kind_keep_their_values(
    coordinates: dict[str, Any], encoding: dict[str, Any], tmp_path: Path, rng: np.random.Generator
) -> None:
    data = xr.Dataset({"x": (("time", "lat"), rng.random((6, 5)))}, coordinates)
    path = save(data, tmp_path / "data.zarr", encoding=encoding)
    source = open_source(path, sample_dims=["time", "lat"])
    labels = np.arange(30).reshape(6, 5)
    write_all(source, tmp_path, labels)
    opened = open_labels(tmp_path)
    assert opened["labels"].values.tolist() == labels.tolist()
    with xr.open_zarr(path, consolidated=False, chunks=None) as stored:
        for name in coordinates:
            if name != "labels":
                xr.testing.assert_equal(opened[name].variable, stored[name].variable.load())


def test_a_sample_dimension_may_be_called_labels(tmp_path: Path, rng: np.random.Generator) -> None:
    data = xr.Dataset({"x": (("labels",), rng.random(6))}, {"labels": np.arange(6.0)})
    path = save(data, tmp_path / "data.zarr")
    stored = write_all(open_source(path), tmp_path, np.arange(6))
    assert np.asarray(stored[...]).tolist() == list(range(6))


def test_chunks_are_those_of_the_source_where_they_are_large_enough(tmp_path: Path) -> None:
    data = xr.Dataset({"x": (("row", "feature"), np.zeros((20_000, 2), np.float32))})
    path = save(data, tmp_path / "data.zarr", encoding={"x": {"chunks": (SMALL_CHUNK, 2)}})
    stored = write_all(
        open_source(path, sample_dims=["row"]), tmp_path, np.zeros(20_000), block_bytes=3 * 8 * SMALL_CHUNK
    )
    assert stored.chunks == (SMALL_CHUNK,)


def test_tiny_chunks_are_joined_to_blocks(tmp_path: Path) -> None:
    data = xr.Dataset({"x": (("row", "feature"), np.zeros((20_000, 2), np.float32))})
    path = save(data, tmp_path / "data.zarr", encoding={"x": {"chunks": (100, 2)}})
    source = open_source(path, sample_dims=["row"])
    stored = write_all(source, tmp_path, np.zeros(20_000), block_bytes=8 * 5000)
    assert stored.chunks == cut(source, 8 * 5000).longest == (5000,)


def test_every_chunk_is_written_and_checksummed(field: Source, tmp_path: Path) -> None:
    stored = write_all(field, tmp_path, np.full(field.shape, -1), block_bytes=1600)
    assert math.prod(stored.cdata_shape) > 4
    assert stored.nchunks_initialized == stored.nchunks
    for file in [f for f in (tmp_path / "labels.zarr" / "labels" / "c").rglob("*") if f.is_file()]:
        whole = file.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            broken = bytearray(whole)
            broken[place] ^= 1
            file.write_bytes(broken)
            with pytest.raises(ValueError, match="checksum"):
                np.asarray(stored[...])
        file.write_bytes(whole)
    assert (np.asarray(stored[...]) == -1).all()


@st.composite
def selections(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], int]:
    """Shape, chunks, a selection and the requested size of a block."""
    shape = tuple(draw(st.lists(st.integers(1, 30), min_size=1, max_size=3)))
    chunks = tuple(draw(st.integers(1, n)) for n in shape)
    isel: dict[str, Any] = {}
    for dim, n in zip(DIMS, shape, strict=False):
        start = draw(st.integers(0, n - 1))
        part = {"start": start, "stop": draw(st.integers(start + 1, n)), "step": draw(st.integers(1, 3))}
        isel[dim] = draw(st.sampled_from([part, {"start": start}, list(range(start, n))]))
    return shape, chunks, isel, draw(st.integers(1, 20_000))


def in_chunks(shape: tuple[int, ...], chunks: tuple[int, ...]) -> xr.Dataset:
    data = xr.Dataset({"x": (DIMS[: len(shape)], np.zeros(shape, np.float32))})
    data["x"].encoding = {"chunks": chunks}
    return data


@given(selections())
def test_no_two_blocks_share_a_chunk_of_the_labels(case: Any) -> None:
    shape, chunks, isel, block_bytes = case
    source = open_source(in_chunks(shape, chunks), sample_dims=DIMS[: len(shape)], isel=isel)
    plan = cut(source, block_bytes)
    with tempfile.TemporaryDirectory() as folder:
        create_labels(Path(folder, "labels.zarr"), source, plan, default_names(3), {})
        stored = zarr.open_array(f"{folder}/labels.zarr/labels", mode="r")
    assert stored.shape == source.shape
    for block in map(plan.block, range(len(plan))):
        for start, stop, length, chunk in zip(block.start, block.stop, stored.shape, stored.chunks, strict=True):
            assert start % chunk == 0
            assert stop % chunk == 0 or stop == length


@settings(max_examples=20)
@given(selections())
def test_unaligned_selections_are_written_in_the_right_places(case: Any) -> None:
    shape, chunks, isel, block_bytes = case
    source = open_source(in_chunks(shape, chunks), sample_dims=DIMS[: len(shape)], isel=isel)
    labels = np.arange(math.prod(source.shape)).reshape(source.shape) % 200
    with tempfile.TemporaryDirectory() as folder:
        stored = write_all(source, Path(folder), labels, block_bytes)
        assert np.array_equal(stored[...], labels)


def test_labels_in_memory_carry_the_coordinates(field_store: Path, field: Source) -> None:
    labelled = results_in_memory(field, default_names(4), LabelOutputs())["labels"]
    labelled.values[2, 3, 4] = 1
    assert int(labelled.sel(time="2001-01-03")[3, 4]) == 1
    with xr.open_zarr(field_store, consolidated=False, chunks=None) as data:
        assert set(labelled.coords) == set(data["t"].coords)


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


def written(
    path: Path, store: Path, outputs: LabelOutputs, block_bytes: int, **options: Any
) -> tuple[LabelWriter, Any]:
    source = open_source(store, sample_dims=["row"], **options)
    plan = source.plan(block_bytes=block_bytes, whole_chunks=False)
    write = create_labels(path, source, plan, default_names(3), {}, outputs, c.KMeans(3))
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
        # Chunks in which every label is masked are written too.
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


def test_shards_are_recognized_where_one_place_of_a_dimension_is_taken(tmp_path: Path) -> None:
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


def test_files_that_are_lost_or_empty_are_detected(tmp_path: Path) -> None:
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
