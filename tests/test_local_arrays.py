"""Local arrays are read and written in the calling thread, with the same numbers as by zarr's own loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from clustering import local_arrays
from clustering.data.codecs import accelerated

SHAPE, CHUNKS = (23, 9), (5, 4)
CHECKSUM: Any = [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()]
BOUNDS = st.tuples(*(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True).map(sorted) for n in SHAPE))


def values() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


def stored(folder: Path, compressors: Any = "auto") -> zarr.Array[Any]:
    array = zarr.create_array(folder, shape=SHAPE, chunks=CHUNKS, dtype="f4", compressors=compressors)
    array[:] = values()
    return array


def slices(bounds: Sequence[Sequence[int]]) -> tuple[slice, ...]:
    return tuple(slice(*ends) for ends in bounds)


@pytest.fixture(scope="module", params=["auto", CHECKSUM], ids=["rust", "checksum"])
def array(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> zarr.Array[Any]:
    return accelerated(stored(tmp_path_factory.mktemp("array"), request.param))


@given(bounds=BOUNDS)
def test_a_part_is_read_as_it_was_written(array: zarr.Array[Any], bounds: Sequence[Sequence[int]]) -> None:
    np.testing.assert_array_equal(local_arrays.read(array, slices(bounds)), values()[slices(bounds)])


@given(bounds=BOUNDS)
def test_a_part_is_written_and_the_rest_stays(
    tmp_path_factory: pytest.TempPathFactory, bounds: Sequence[Sequence[int]]
) -> None:
    array, expected = stored(tmp_path_factory.mktemp("written"), CHECKSUM), values()
    expected[slices(bounds)] *= 2
    local_arrays.write(array, slices(bounds), expected[slices(bounds)])
    np.testing.assert_array_equal(array[:], expected)


def test_nothing_is_handed_to_another_thread(array: zarr.Array[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("work for another thread")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse)
    whole = local_arrays.read(array, slices(((0, 23), (0, 9))))
    local_arrays.write(array, slices(((0, 23), (0, 9))), whole)
    with pytest.raises(AssertionError, match="another thread"):
        array[:]


def test_a_thread_with_an_event_loop_of_its_own_reads_and_writes_too(tmp_path: Path) -> None:
    array, part = stored(tmp_path), slices(((2, 8), (0, 9)))

    async def notebook() -> np.ndarray:
        local_arrays.write(array, part, np.zeros((6, 9), np.float32))
        return local_arrays.read(array, part)

    assert not asyncio.run(notebook()).any()


def test_threads_share_their_loops(array: zarr.Array[Any]) -> None:
    part = slices(((0, 23), (0, 9)))
    with ThreadPoolExecutor(4) as pool:
        for read in pool.map(lambda _: local_arrays.read(array, part), range(64)):
            np.testing.assert_array_equal(read, values())
    assert len(local_arrays._idle) <= 5


@pytest.mark.filterwarnings("error")
def test_a_bad_chunk_is_an_error_and_leaves_no_work_behind(tmp_path: Path) -> None:
    array = stored(tmp_path, CHECKSUM)
    file = tmp_path / "c" / "0" / "0"
    file.write_bytes(file.read_bytes()[::-1])
    before = len(local_arrays._idle)
    for ends in ((5, 4), SHAPE):
        with pytest.raises(ValueError, match="checksum"):
            local_arrays.read(array, slices([(0, end) for end in ends]))
    gc.collect()
    assert len(local_arrays._idle) <= before
    rest = slices(((5, 10), (4, 8)))
    np.testing.assert_array_equal(local_arrays.read(array, rest), values()[rest])
