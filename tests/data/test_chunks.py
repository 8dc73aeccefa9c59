"""Chunks that were never written, that do not decode, that change during a run, and how often each is read."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec
from zarr.storage import MemoryStore, WrapperStore

import clustering as c
from clustering.data.access import open_source
from clustering.data.reading import read_block
from clustering.data.source import Source
from clustering.data.source_fingerprint import check_unchanged
from clustering.errors import DataError, SourceError

RNG = np.random.default_rng(5)
VALUES = RNG.standard_normal((20, 6, 4))


def store(path: Path, fill: Any, shards: tuple[int, ...] | None = None, zarr_format: Any = 3) -> Path:
    """Write rows on a grid of 20 × 6 in chunks of 5 × 3, with four features split over two chunks."""
    names = (
        {"attributes": {"_ARRAY_DIMENSIONS": list("yxf")}} if zarr_format == 2 else {"dimension_names": tuple("yxf")}
    )
    zarr.create_group(path, zarr_format=zarr_format).create_array(
        "t", data=VALUES, chunks=(5, 3, 2), shards=shards, fill_value=fill, **names
    )
    return path


def opened(path: Path, **options: Any) -> Source:
    return open_source(path, sample_dims=["y", "x"], **options)


def kept(source: Source, block_bytes: int = 200) -> np.ndarray:
    """Return which cells of the grid are used."""
    plan = source.plan(block_bytes=block_bytes)
    used = np.zeros(plan.cells, bool)
    for i in range(len(plan)):
        rows = read_block(source, plan.block(i))
        places = rows.positions(np.arange(len(rows)))
        used[places] = True
        assert np.array_equal(rows.values, VALUES.reshape(-1, 4)[places])
    return used.reshape(source.shape)


# Never written

GONE = [("c/1/0/1", np.s_[5:10, 0:3]), ("c/3/1/0", np.s_[15:20, 3:6])]


def without(path: Path, keys: list[str]) -> Path:
    for key in keys:
        (path / "t" / key).unlink()
    return path


@pytest.mark.parametrize("fast", [False, True], ids=["zarr", "zarrs"])
@pytest.mark.parametrize(("fill", "policy"), [(0, "mask"), (np.nan, "mask"), (np.nan, None)])
def test_cells_of_chunks_that_were_never_written_are_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill: float, policy: Any, fast: bool
) -> None:
    if not fast:
        monkeypatch.setattr("clustering.data.codecs.rust", lambda: None)
    path = without(store(tmp_path / "s", fill), [key for key, _ in GONE])
    expected = np.ones((20, 6), bool)
    for _, region in GONE:
        expected[region] = False
    source = opened(path, missing_chunks=policy)
    assert np.array_equal(kept(source), expected)
    caution = "2 of 16 chunks of variable 't' were never written; their cells are masked"
    assert source.cautions == (() if policy == "mask" else (caution,))


def test_keys_of_version_2_and_of_shards_are_understood(tmp_path: Path) -> None:
    old = store(tmp_path / "old", 0, zarr_format=2)
    (old / "t" / "1.0.1").unlink()
    sharded = store(tmp_path / "sharded", 0, shards=(10, 6, 4))
    (sharded / "t" / "c" / "1" / "0" / "0").unlink()
    assert (~kept(opened(old, missing_chunks="mask"))).sum() == 15
    assert (~kept(opened(sharded, missing_chunks="mask"))).nonzero()[0].min() == 10


def test_a_fill_value_that_counts_as_data_needs_a_decision(tmp_path: Path) -> None:
    path = without(store(tmp_path / "s", 0), ["c/1/0/1"])
    with pytest.raises(DataError) as caught:
        opened(path)
    assert str(caught.value) == (
        "1 of 16 chunks of variable 't' were never written, such as 'c/1/0/1', and their fill value 0.0 would count as "
        "data; set missing_chunks to mask to leave their cells out, or to fill if they hold that value"
    )
    with pytest.raises(DataError, match="never written"):
        opened(without(store(tmp_path / "nan", np.nan), ["c/0/0/0"]), missing_chunks="error")
    filled = opened(path, missing_chunks="fill")
    rows = read_block(filled, filled.plan(block_bytes=1).block(2))
    assert rows.cells is None
    assert (rows.values[:, 2:] == 0).all()


def test_chunks_outside_the_selection_may_be_absent(tmp_path: Path) -> None:
    path = without(store(tmp_path / "s", 0), ["c/1/0/1"])
    source = opened(path, isel={"y": {"start": 10}})
    assert source.cautions == ()
    assert sum(len(read_block(source, source.plan().block(i))) for i in range(len(source.plan()))) == 60


def test_a_chunk_of_the_fill_value_is_data(tmp_path: Path) -> None:
    path = tmp_path / "s"
    array = zarr.create_array(path, shape=(8, 2), chunks=(4, 2), dtype="f8", config={"write_empty_chunks": True})
    array[:4] = 0.0
    source = open_source(path, missing_chunks="mask")
    assert read_block(source, source.plan().block(0)).positions(np.arange(4)).tolist() == [0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*were never written:clustering.ClusteringWarning")
def test_what_was_never_written_is_known_in_other_processes(tmp_path: Path) -> None:
    path = without(store(tmp_path / "s", np.nan), [key for key, _ in GONE])
    labels = [c.fit(opened(path), c.KMeans(2), cluster=where, block_bytes=300).predict(opened(path)).values
              for where in ("synchronous", "local")]  # fmt: skip
    assert np.array_equal(labels[0], labels[1])
    assert (labels[0] == -1).sum() == 30


def test_absent_chunks_are_not_asked_for_and_leading_ones_make_no_cluster(
    tmp_path: Path, requests: Counter[str]
) -> None:
    array = zarr.create_array(tmp_path / "a", shape=(400, 3), chunks=(10, 3), dtype="f4", fill_value=np.nan)
    array[300:] = RNG.standard_normal((100, 3))
    requests.clear()
    with pytest.warns(c.ClusteringWarning, match="30 of 40 chunks of variable 'values' were never written"):
        fit = c.fit(open_source(tmp_path / "a"), c.KMeans(2), cluster="synchronous", block_bytes=240)
    assert fit.fitted.summary.count == 100
    assert {key: n for key, n in requests.items() if key.startswith("c/")} == {f"c/{i}/0": 1 for i in range(30, 40)}


def test_absent_chunks_are_not_asked_for_among_others_of_a_block(tmp_path: Path, requests: Counter[str]) -> None:
    path = without(store(tmp_path / "s", np.nan), [key for key, _ in GONE])
    source = opened(path)
    requests.clear()
    assert kept(source, block_bytes=10_000).sum() == 20 * 6 - 2 * 15
    everything = {f"t/c/{i}/{j}/{k}" for i in range(4) for j in range(2) for k in range(2)}
    assert {key: n for key, n in requests.items() if key.startswith("t/c/")} == dict.fromkeys(
        everything - {f"t/{key}" for key, _ in GONE}, 1
    )


@pytest.mark.parametrize("sharded", [False, True], ids=["chunks", "shards"])
def test_absent_chunks_are_not_asked_for_beside_others(tmp_path: Path, requests: Counter[str], sharded: bool) -> None:
    array = zarr.create_array(
        tmp_path / "a", shape=(12, 8), chunks=(1, 2), shards=(2, 4) if sharded else None, dtype="f4", fill_value=np.nan
    )
    array[2:4], array[8:] = VALUES.reshape(-1, 8)[:2], VALUES.reshape(-1, 8)[2:6]
    source = open_source(tmp_path / "a", isel={"dim_0": {"step": 1}, "dim_1": [0, 1, 3, 6]})
    requests.clear()
    rows = read_block(source, source.plan(block_bytes=10**6).block(0))
    assert rows.positions(np.arange(len(rows))).tolist() == [2, 3, 8, 9, 10, 11]
    assert np.array_equal(rows.values, VALUES.reshape(-1, 8)[:6, [0, 1, 3, 6]].astype(np.float32))
    chunk_starts = {(i, j) for i in (2, 3, 8, 9, 10, 11) for j in (0, 2, 6)}
    lengths = (2, 4) if sharded else (1, 2)
    keys = {f"c/{i // lengths[0]}/{j // lengths[1]}" for i, j in chunk_starts}
    assert {key for key in requests if key.startswith("c/")} == keys


# Not decodable


def spoil(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        del content[len(content) // 2 :]
    elif how == "flipped":
        content[len(content) // 2] ^= 1
    else:
        content[:] = b"no chunk at all"
    path.write_bytes(bytes(content))


CODECS = {
    "zstd": ("rubbish", [ZstdCodec(level=1)]),
    "truncated-zstd": ("truncated", [ZstdCodec(level=1)]),
    "zstd-checksum": ("flipped", [ZstdCodec(level=1, checksum=True)]),
    "crc32c": ("flipped", [Crc32cCodec()]),
    "blosc": ("rubbish", [BloscCodec()]),
    "uncompressed": ("truncated", None),
}


@pytest.fixture(params=["zarr", "zarrs"])
def codecs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "zarr":
        monkeypatch.setattr("clustering.data.codecs.rust", lambda: None)
    return str(request.param)


@pytest.mark.usefixtures("codecs")
@pytest.mark.parametrize(("how", "compressors"), CODECS.values(), ids=CODECS.keys())
def test_a_chunk_that_does_not_decode_is_named_or_masked(tmp_path: Path, how: str, compressors: Any) -> None:
    path = tmp_path / "s"
    zarr.create_group(path).create_array(
        "t", data=VALUES, chunks=(5, 3, 4), compressors=compressors, dimension_names=tuple("yxf")
    )
    spoil(path / "t" / "c" / "2" / "1" / "0", how)
    with pytest.raises(DataError) as caught:
        kept(opened(path))
    assert str(caught.value).startswith("chunk 'c/2/1/0' of variable 't' does not decode (")
    assert str(caught.value).endswith("; write it anew, or set source.on_bad_chunk to mask")
    assert "\n" not in str(caught.value)
    expected = np.ones((20, 6), bool)
    expected[10:15, 3:6] = False
    for block_bytes in (200, 10_000):
        assert np.array_equal(kept(opened(path, on_bad_chunk="mask"), block_bytes), expected)


CHECKED: dict[str, tuple[int, dict[str, Any]]] = {
    "crc32c": (3, {"compressors": [ZstdCodec(), Crc32cCodec()]}),
    "crc32c-in-shards": (3, {"compressors": [Crc32cCodec()], "shards": (16, 4)}),
    "zstd": (3, {"compressors": [ZstdCodec(checksum=True)]}),
    "gzip": (3, {"compressors": [GzipCodec()]}),
    "gzip-in-shards": (3, {"compressors": [GzipCodec()], "shards": (16, 4)}),
    "zlib-of-version-2": (2, {"compressors": numcodecs.Zlib()}),
    "fletcher32-of-version-2": (2, {"compressors": None, "filters": [numcodecs.Fletcher32()]}),
}


@pytest.mark.usefixtures("codecs")
@pytest.mark.parametrize("selection", [{}, {"y": {"stop": 17}}], ids=["edge", "part"])
@pytest.mark.parametrize(("zarr_format", "options"), CHECKED.values(), ids=CHECKED.keys())
def test_a_flipped_bit_is_noticed_wherever_a_chunk_is_checked(
    tmp_path: Path, zarr_format: Any, options: Any, selection: Any
) -> None:
    names = {"dimension_names": ("y", "f")} if zarr_format == 3 else {"attributes": {"_ARRAY_DIMENSIONS": ["y", "f"]}}
    values = RNG.standard_normal((21, 4))
    zarr.create_group(tmp_path / "s", zarr_format=zarr_format).create_array(
        "t", data=values, chunks=(8, 4), **{**names, **options}
    )
    # This chunk covers rows 16 to 23. The array holds five of them, and the selection one.
    (last,) = (tmp_path / "s" / "t").rglob("2.0" if zarr_format == 2 else f"c/{1 if 'shards' in options else 2}/0")
    whole = last.read_bytes()
    for place in range(2, len(whole), max(1, len(whole) // 8)):
        last.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        source = open_source(tmp_path / "s", sample_dims=["y"], isel=selection)
        try:
            read = np.concatenate(
                [read_block(source, source.plan().block(i)).values for i in range(len(source.plan()))]
            )
        except DataError as error:
            assert "does not decode" in str(error)  # noqa: PT017
        else:
            # Some bits hold the time at which the chunk was compressed, and no data.
            assert np.array_equal(read, values[: len(read)])
            assert "gzip" in str(options).lower()


def test_bad_chunks_are_counted_listed_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = store(tmp_path / "s", 0)
    for key in ("c/0/0/1", "c/2/1/0"):
        spoil(path / "t" / key, "rubbish")
    fit = c.fit(opened(path, on_bad_chunk="mask"), c.KMeans(2), block_bytes=300)
    assert fit.fitted.bad_chunks == ("t/c/0/0/1", "t/c/2/1/0")
    assert fit.fitted.summary.count == 90
    log_records = {(record.name, record.levelname, record.getMessage()) for record in caplog.records}
    assert log_records == {
        ("clustering.data.stored", "WARNING", f"chunk 't/{key}' does not decode and is masked")
        for key in ("c/0/0/1", "c/2/1/0")
    }
    with pytest.raises(DataError) as caught:
        c.fit(opened(path, on_bad_chunk="mask", max_bad_fraction=0.1), c.KMeans(2), block_bytes=300)
    assert str(caught.value) == (
        "2 of 16 chunks do not decode, 't/c/0/0/1' among them, more than max_bad_fraction 0.1 allows; "
        "write them anew, or raise max_bad_fraction"
    )


# Changed during the run


def rewrite(path: Path) -> None:
    zarr.open_array(path / "t")[7, 1] = 5.0


CHANGES = {
    "rewritten": (rewrite, "chunk (1, 0, 0) of variable 't' was written anew, and 1 other changed"),
    "removed": (lambda path: (path / "t" / "c/3/1/0").unlink(), "chunk (3, 1, 0) of variable 't' was removed"),
    "metadata": (lambda path: zarr.open_array(path / "t").attrs.update(units="K"), "the metadata of variable 't'"),
    "all": (lambda path: shutil.rmtree(path / "t" / "c"), "chunk (0, 0, 0) of variable 't' was removed, and 15 other"),
    "the-variable": (lambda path: shutil.rmtree(path / "t"), "the metadata of variable 't'"),
    "the-store": (shutil.rmtree, "there is nothing at "),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES.keys())
def test_a_source_that_changes_during_the_run_fails_it(tmp_path: Path, change: Any, message: str) -> None:
    path = store(tmp_path / "s", np.nan)

    def once(record: Any) -> None:
        if record.iteration == 1:
            change(path)

    source = opened(path)
    c.fit(source, c.KMeans(3))
    with pytest.raises(DataError) as caught:
        c.fit(source, c.KMeans(3), on_pass=once, memory=1 << 30)
    assert f"the source changed during the run: {message}" in str(caught.value)


def test_a_chunk_added_during_the_run_is_reported(tmp_path: Path) -> None:
    path = without(store(tmp_path / "s", np.nan), ["c/0/0/0"])
    source = opened(path)
    zarr.open_array(path / "t")[0] = 1.0
    with pytest.raises(DataError, match=r"chunk \(0, 0, 0\) of variable 't' was added"):
        check_unchanged(source)


# Reads


SELECTIONS: dict[str, dict[str, Any]] = {
    "step": {"y": {"step": 3}},
    "step-beyond-chunks": {"y": {"start": 2, "step": 7}},
    "scattered": {"y": [1, 2, 6, 8, 19]},
    "wrapped": {"x": [4, 5, 0, 1]},
    "one-place": {"y": 7},
    "features": {"f": [0, 3], "y": {"start": 4, "stop": 17}},
    "one-feature-chunk": {"f": {"stop": 2}},
}


@pytest.mark.parametrize("zarr_format", [2, 3], ids=["v2", "v3"])
@pytest.mark.parametrize("block_bytes", [1, 300, 10_000])
@pytest.mark.parametrize("isel", SELECTIONS.values(), ids=SELECTIONS.keys())
def test_any_selection_reads_each_of_its_chunks_once(
    tmp_path: Path, requests: Counter[str], isel: dict[str, Any], block_bytes: int, zarr_format: int
) -> None:
    path = store(tmp_path / "s", 0, zarr_format=zarr_format)
    source = opened(path, isel=isel)
    requests.clear()
    plan = source.plan(block_bytes=block_bytes)
    values = np.full((plan.cells, source.n_features), np.nan)
    for i in range(len(plan)):
        rows = read_block(source, plan.block(i))
        values[rows.positions(np.arange(len(rows)))] = rows.values
    places = {d: value if isinstance(value, (int, list)) else slice(*map(value.get, ("start", "stop", "step")))
              for d, value in isel.items()}  # fmt: skip
    truth = xr.DataArray(VALUES, dims=tuple("yxf")).isel(places)
    assert np.array_equal(values, truth.values.reshape(values.shape))
    touched = np.zeros((4, 2, 2), bool)
    touched[np.ix_(*(np.unique(np.atleast_1d(np.arange(n)[places.get(d, slice(None))]) // u)
                     for d, n, u in zip("yxf", VALUES.shape, (5, 3, 2), strict=True)))] = True  # fmt: skip
    read = {key: n for key, n in requests.items() if key[-1].isdigit()}
    assert set(read.values()) == {1}
    assert len(read) == touched.sum()


def test_masks_and_weights_are_read_once_whatever_their_chunks(tmp_path: Path, requests: Counter[str]) -> None:
    dataset = xr.Dataset(
        {"t": (tuple("yxf"), VALUES), "sea": (tuple("yx"), VALUES[..., 0] > 0), "area": (("x",), np.ones(6))}
    )
    encoding = {"t": {"chunks": (5, 3, 4)}, "sea": {"chunks": (20, 2)}, "area": {"chunks": (6,)}}
    dataset.to_zarr(tmp_path / "s", consolidated=False, encoding=encoding)
    source = opened(tmp_path / "s", variables=["t"], mask="sea", weights="area")
    requests.clear()
    c.fit(source, c.KMeans(2), cluster="threads", block_bytes=1, memory=1 << 30)
    read = {key: n for key, n in requests.items() if key[-1].isdigit()}
    assert read == {
        **{f"t/c/{i}/{j}/0": 1 for i in range(4) for j in range(2)},
        **{f"sea/c/0/{j}": 1 for j in range(3)},
        "area/c/0": 1,
    }


class Silent(WrapperStore[MemoryStore]):
    """A store that cannot list its keys, like that of a web server."""

    supports_listing = False


def test_a_store_that_cannot_list_leaves_fill_values(tmp_path: Path) -> None:
    memory = MemoryStore()
    zarr.create_array(memory, data=VALUES[:, 0], chunks=(5, 4))
    array = zarr.open_array(Silent(memory))
    source = open_source(array)
    assert source.cautions == ()
    with pytest.raises(SourceError, match="cannot list its keys"):
        open_source(array, missing_chunks="mask")
