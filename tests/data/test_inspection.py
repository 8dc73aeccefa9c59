"""Inspection reports the layout, bytes and reads of the source and the plan exactly."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

from clustering.data import codecs
from clustering.data.access import open_source
from clustering.data.inspection import Inspection, VariableLayout, count_chunk_reads, inspect_source
from clustering.data.plan import MIB
from clustering.data.reading import read_block
from clustering.data.source import Source

SELECTIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "inside-chunks": {"y": {"start": 3, "stop": 19}, "x": {"start": 2}},
    "step": {"y": {"start": 1, "step": 3}},
    "long-step": {"y": {"step": 11}},
    "scattered": {"y": [1, 2, 6, 8, 19]},
    "there-and-back": {"y": [1, 9, 2, 8, 19]},
    "one-feature": {"f": [3]},
}


def inspect(source: Source, **options: Any) -> Inspection:
    return inspect_source(source, source.plan(**options), source.plan(**options, whole_chunks=False))


def stored_size(path: Path) -> int:
    """Add up the bytes of all chunks under a folder."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file() and not p.name.startswith(("zarr.json", ".z")))


def grid(path: Path, shape: tuple[int, ...], chunks: tuple[int, ...], **options: Any) -> Path:
    """Write an array of random numbers. All chunks have the same size, because they are not compressed."""
    array = zarr.create_array(path, shape=shape, chunks=chunks, dtype="f4", compressors=None, **options)
    array[...] = np.random.default_rng(0).standard_normal(shape, np.float32)
    return path


def test_numbers_are_those_of_the_source_and_the_plan(field_store: Path) -> None:
    source = open_source(field_store, variables=["t", "q"], feature_dims=["lon"], isel={"time": {"start": 5}})
    plan = source.plan(block_bytes=1)
    inspection = inspect_source(source, plan)
    assert (inspection.sample_dims, inspection.feature_dims) == ({"time": 7, "lat": 9}, {"lon": 10})
    assert (inspection.cells, inspection.n_features) == (63, 20)
    assert (inspection.row_bytes, inspection.kept_row_bytes, inspection.pass_bytes) == (80, 80, 63 * 80)
    assert (inspection.n_blocks, inspection.block_shape, inspection.block_bytes) == (len(plan), (5, 4), 5 * 4 * 80)
    assert inspection.n_blocks == 2 * 3
    assert inspection.same_blocks


def test_nothing_is_read(field_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(field_store, variables=["t", "q"])
    monkeypatch.delattr("clustering.data.reading._values")
    assert inspect(source).n_features == 180


def test_the_layout_of_each_variable_is_reported(tmp_path: Path) -> None:
    dataset = xr.Dataset({n: (("row", "feature"), np.zeros((8, 6), "f4") + 1) for n in ("plain", "sharded")})
    encoding = {"plain": {"chunks": (4, 6)}, "sharded": {"chunks": (2, 3), "shards": (4, 6)}}
    dataset.to_zarr(tmp_path / "s", consolidated=False, zarr_format=3, encoding=encoding)
    variables = inspect(open_source(tmp_path / "s", variables=["sharded", "plain"])).variables
    assert [(v.name, v.dims, v.shape, v.dtype, v.chunks, v.shards, v.read_chunks) for v in variables] == [
        ("sharded", ("row", "feature"), (8, 6), "float32", (2, 3), (4, 6), 2),
        ("plain", ("row", "feature"), (8, 6), "float32", (4, 6), None, 2),
    ]
    assert [v.stored_bytes for v in variables] == [stored_size(tmp_path / "s" / n) for n in ("sharded", "plain")]


CODECS: dict[str, tuple[list[Any] | None, tuple[str, ...], bool]] = {
    "none": (None, (), False),
    "zstd": ([ZstdCodec()], ("zstd",), False),
    "checked-zstd": ([ZstdCodec(checksum=True)], ("zstd",), True),
    "blosc-and-crc": ([BloscCodec(), Crc32cCodec()], ("blosc", "crc32c"), True),
    "gzip": ([GzipCodec()], ("gzip",), True),
}


@pytest.mark.parametrize("shards", [None, (8, 4)], ids=["chunks", "shards"])
@pytest.mark.parametrize(("codecs", "names", "checked"), CODECS.values(), ids=CODECS.keys())
def test_codecs_and_checksums_are_reported(
    tmp_path: Path, codecs: Any, names: tuple[str, ...], checked: bool, shards: Any
) -> None:
    array = zarr.create_array(
        tmp_path / "a", shape=(16, 4), chunks=(4, 4), shards=shards, dtype="f4", compressors=codecs
    )
    array[...] = 1.5
    (v,) = inspect(open_source(tmp_path / "a")).variables
    assert (v.codecs, v.checksums) == (names, checked)


def test_codecs_of_the_second_version_are_reported(tmp_path: Path) -> None:
    dataset = xr.Dataset({"a": (("x", "y"), np.ones((4, 2)))})
    dataset.to_zarr(tmp_path / "s", zarr_format=2, consolidated=False)
    (v,) = inspect(open_source(tmp_path / "s")).variables
    assert (v.codecs, v.decoder) == (("blosc",), "zarrs" if codecs.rust() else "zarr")


def test_types_are_reported_as_stored_and_as_decoded(tmp_path: Path) -> None:
    dataset = xr.Dataset({"t": (("x", "y"), np.linspace(0, 1, 12).reshape(4, 3).astype("f4"))})
    packed = {"t": {"dtype": "i2", "scale_factor": np.float32(0.001), "_FillValue": -1}}
    dataset.to_zarr(tmp_path / "s", zarr_format=3, consolidated=False, encoding=packed)
    inspection = inspect(open_source(tmp_path / "s"))
    assert (inspection.variables[0].stored_dtype, inspection.variables[0].dtype) == ("int16", "float64")
    assert (inspection.row_bytes, inspection.kept_row_bytes) == (24, 6)


def test_the_decoder_is_reported(tmp_path: Path, field_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decoders(source: Source) -> list[tuple[str, bool]]:
        return [(v.decoder, v.not_rust is not None) for v in inspect(source).variables]

    assert decoders(open_source(np.ones((4, 2)))) == [("none", False)]
    rust = codecs.rust() is not None
    assert decoders(open_source(field_store, variables=["t"])) == [("zarrs" if rust else "zarr", False)]
    # The store of an array that the caller opened is unknown.
    assert decoders(open_source(zarr.open_array(field_store, path="t"))) == [("zarr", rust)]
    monkeypatch.setattr(codecs, "rust", lambda: None)
    monkeypatch.setattr("clustering.data.inspection.rust", lambda: None)
    assert decoders(open_source(field_store, variables=["t"])) == [("zarr", False)]


def test_stored_bytes_are_those_of_the_files(tmp_path: Path) -> None:
    path = grid(tmp_path / "a", (40, 6), (8, 6))
    whole = inspect(open_source(path))
    assert whole.stored_bytes == whole.label_stored_bytes == stored_size(path) == 40 * 6 * 4
    # Two of the five chunks hold selected values.
    part = inspect(open_source(path, isel={"dim_0": {"start": 12, "stop": 20}}))
    assert part.stored_bytes == 2 * 8 * 6 * 4


def test_of_a_shard_only_what_is_selected_counts(tmp_path: Path) -> None:
    path = grid(tmp_path / "a", (64, 8), (8, 2), shards=(32, 8))
    size = stored_size(path)
    inspection = inspect(open_source(path, isel={"dim_1": [0, 1]}))
    assert inspection.variables[0].read_chunks == 2
    # One chunk of four along the features is read, as a whole.
    assert inspection.stored_bytes == pytest.approx(size / 4, abs=1)
    assert inspection.variables[0].surplus_factor == 1


@pytest.mark.parametrize("fill", [np.nan, 0.0], ids=["masked", "filled"])
def test_chunks_that_were_never_written_are_counted(tmp_path: Path, fill: float) -> None:
    array = zarr.create_array(tmp_path / "a", shape=(40, 6), chunks=(8, 3), dtype="f4", fill_value=fill)
    array[8:24] = 1.0
    array[32:, :3] = 1.0
    policy = {} if np.isnan(fill) else {"missing_chunks": "fill"}
    (v,) = inspect(open_source(tmp_path / "a", **policy)).variables
    assert (v.read_chunks, v.absent_chunks) == (10, 5)
    (v,) = inspect(open_source(tmp_path / "a", isel={"dim_0": {"start": 9}}, **policy)).variables
    assert (v.read_chunks, v.absent_chunks) == (8, 3)


SURPLUS: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    "everything": ({}, {"x": 1.0, "depth": 1.0}),
    "one-of-37-levels": ({"isel": {"depth": 4}}, {"x": 1.0, "depth": 37.0}),
    "a-list-of-levels": ({"isel": {"depth": [0, 36]}}, {"x": 1.0, "depth": 18.5}),
    "inside-a-chunk": ({"isel": {"x": {"start": 4, "stop": 12}}}, {"x": 2.0, "depth": 1.0}),
    "the-short-last-chunk": ({"isel": {"x": {"start": 16}}}, {"x": 1.0, "depth": 1.0}),
    "every-second": ({"isel": {"x": {"step": 2}}}, {"x": 2.0, "depth": 1.0}),
    "one-of-each-chunk": ({"isel": {"x": {"step": 8}}}, {"x": 20 / 3, "depth": 1.0}),
}


@pytest.mark.parametrize(("options", "expected"), SURPLUS.values(), ids=SURPLUS.keys())
def test_values_that_are_decoded_for_nothing_are_counted(
    tmp_path: Path, options: dict[str, Any], expected: dict[str, float]
) -> None:
    path = grid(tmp_path / "a", (20, 37), (8, 37), dimension_names=("x", "depth"))
    (v,) = inspect(open_source(path, sample_dims=["x"], **options)).variables
    assert v.surplus == pytest.approx(expected)
    assert v.surplus_factor == pytest.approx(math.prod(expected.values()))


def test_reads_of_the_labelling_pass_are_counted(tmp_path: Path) -> None:
    path = grid(tmp_path / "a", (40, 6), (8, 6))
    source = open_source(path, isel={"dim_0": {"start": 4}})
    inspection = inspect(source, block_bytes=8 * 6 * 4)
    (v,) = inspection.variables
    # Five chunks; blocks 4–12, 12–20, … of the labels end inside them.
    assert (v.reads, v.label_reads, inspection.same_blocks) == (1.0, 9 / 5, False)
    assert (inspection.stored_bytes, inspection.label_stored_bytes) == (5 * 192, 9 * 192)
    assert (inspection.n_blocks, inspection.label_blocks) == (5, 5)


def test_variables_in_other_chunks_are_read_more_than_once(tmp_path: Path) -> None:
    dataset = xr.Dataset({n: (("x", "y"), np.ones((34, 2), "f4")) for n in ("a", "b")})
    encoding = {"a": {"chunks": (5, 2)}, "b": {"chunks": (17, 2)}}
    dataset.to_zarr(tmp_path / "s", zarr_format=3, consolidated=False, encoding=encoding)
    source = open_source(tmp_path / "s", variables=["a", "b"])
    # Blocks 0–17 and 17–34: of the seven chunks of five rows, the fourth lies in both.
    assert {v.name: v.reads for v in inspect(source, block_bytes=1).variables} == {"a": 8 / 7, "b": 1.0}


def test_data_in_memory_have_no_chunks() -> None:
    inspection = inspect(open_source(np.ones((8, 3))))
    assert inspection.variables == (
        VariableLayout("values", ("row", "feature"), (8, 3), "float64", "float64", None, None),
    )
    assert (inspection.stored_bytes, inspection.pass_bytes) == (None, 8 * 3 * 8)


def test_a_large_grid_takes_no_memory_of_its_own(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a", shape=(10**11, 4), chunks=(10**6, 4), dtype="f4", fill_value=np.nan)
    inspection = inspect(open_source(tmp_path / "a"), memory=64 * MIB)
    assert (inspection.variables[0].absent_chunks, inspection.stored_bytes) == (10**5, 0)


@pytest.mark.parametrize("whole_chunks", [True, False])
@pytest.mark.parametrize("block_bytes", [1, 300, 10_000])
@pytest.mark.parametrize("isel", SELECTIONS.values(), ids=SELECTIONS.keys())
def test_reads_are_announced_exactly(
    tmp_path: Path, requests: Counter[str], isel: dict[str, Any], block_bytes: int, whole_chunks: bool
) -> None:
    group = zarr.create_group(tmp_path / "s")
    for name, chunks in {"a": (5, 3, 2), "b": (4, 6, 4)}.items():
        group.create_array(name, data=np.ones((20, 6, 4)), chunks=chunks, dimension_names=tuple("yxf"))
    source = open_source(tmp_path / "s", variables=["a", "b"], sample_dims=["y", "x"], isel=isel)
    plan = source.plan(block_bytes=block_bytes, whole_chunks=whole_chunks)
    requests.clear()
    for i in range(len(plan)):
        read_block(source, plan.block(i))
    for chunk_reads in count_chunk_reads(source, plan):
        read = {key: n for key, n in requests.items() if key.startswith(f"{chunk_reads.variable}/c/")}
        assert (chunk_reads.chunks, chunk_reads.reads) == (len(read), sum(read.values()))
    if whole_chunks and isel.get("y") != [1, 9, 2, 8, 19]:
        assert all(
            chunk_reads.amplification == 1
            for chunk_reads in count_chunk_reads(source, plan)
            if chunk_reads.variable == "a"
        )
