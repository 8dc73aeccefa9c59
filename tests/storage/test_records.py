from __future__ import annotations

import hashlib
import io
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clustering as c
from clustering.data.rows import in_memory_rows
from clustering.fitting.labelling import LabelStatistics
from clustering.models.farthest import BlockPosition, FarthestRows
from clustering.models.kmeans_statistics import KMeansStatistics
from clustering.storage.records import pack_statistics, read_arrays, unpack_statistics

MODELS: list[Any] = [
    c.KMeans(3),
    c.SoftKMeans(3),
    c.GaussianMixture(3, "tied"),
    c.GaussianMixture(3),
    c.VonMisesFisher(3),
]


def flat(value: Any) -> list[Any]:
    names = getattr(value, "_fields", None) or getattr(value, "__dataclass_fields__", None)
    if names is None:
        return [(type(value), np.asarray(value).dtype, np.shape(value), np.asarray(value).tobytes())]
    return [part for name in names for part in flat(getattr(value, name))]


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_statistics_of_every_model_come_back_to_the_last_bit(model: Any, gaps: bool, rng: np.random.Generator) -> None:
    values = rng.standard_normal((50, 2))
    fit = c.fit(values, model)
    if gaps:
        values[::7, 0] = np.nan
    statistics = model.statistics(fit.params, in_memory_rows(values, allow_missing=gaps))
    unpacked = unpack_statistics(
        pack_statistics({"model": statistics}, name=np.arange(3)), {"model": model.statistics_type}
    )
    assert unpacked is not None
    (again,), more = unpacked
    assert type(again) is type(statistics)
    assert flat(again) == flat(statistics)
    assert more["name"].tolist() == [0, 1, 2]
    # Their sums are equal too.
    assert flat(again + again) == flat(statistics + statistics)


def test_what_is_damaged_or_lacks_something_is_none(rng: np.random.Generator) -> None:
    content = pack_statistics({"model": KMeansStatistics.zero(2, 3)})
    assert unpack_statistics(content, {"other": KMeansStatistics}) is None
    assert unpack_statistics(content[:-1], {"model": KMeansStatistics}) is None
    for place in rng.integers(0, len(content), 50):
        broken = bytearray(content)
        broken[place] ^= 4
        assert unpack_statistics(bytes(broken), {"model": KMeansStatistics}) is None


@given(
    st.tuples(st.integers(0, 5), st.integers(0, 5)), st.tuples(st.integers(0, 5), st.integers(0, 5)), st.integers(0, 20)
)
def test_far_rows_are_placed_in_the_grid_that_the_block_lies_in_now(
    old: tuple[int, int], new: tuple[int, int], seed: int
) -> None:
    """A block of 3 × 4 cells, in grids of 8 × 9 and 9 × 11."""
    cells = np.random.default_rng(seed).integers(0, (3, 4), (6, 2))
    before, now = BlockPosition(old, (8, 9)), BlockPosition(new, (9, 11))
    far = FarthestRows(
        np.arange(6.0), np.ravel_multi_index((cells + old).T, before.grid), np.zeros(6, np.int32), np.ones(6),
        np.zeros((6, 1)),
    )  # fmt: skip
    moved = far.repositioned(before, now)
    assert np.array_equal(moved.positions, np.ravel_multi_index((cells + new).T, now.grid))
    assert moved.repositioned(now, before).positions.tolist() == far.positions.tolist()


def test_what_an_earlier_version_did_not_record_has_its_default() -> None:
    whole = LabelStatistics(1.5, np.array([1.0, 2.0]), np.array([3, 4]), 0.25, zero_rows=7)
    with np.load(io.BytesIO(pack_statistics({"s": whole})[32:])) as archive:
        arrays = {name: array for name, array in archive.items() if name != "s.undirected"}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    earlier = buffer.getvalue()
    unpacked = unpack_statistics(hashlib.sha256(earlier).digest() + earlier, {"s": LabelStatistics})
    assert unpacked is not None
    assert (unpacked[0][0].objective, unpacked[0][0].entropy, unpacked[0][0].zero_rows) == (1.5, 0.25, 0)


ARRAYS = {
    "meta": np.frombuffer(b"{}", np.uint8),
    "0.params.centers": np.arange(6.0).reshape(2, 3),
    "summary.none": np.zeros((0, 3)),
    "one": np.array(1.5, np.float32),
    "flat": np.asfortranarray(np.arange(6).reshape(2, 3)),
}


def saved(save: Any = np.savez, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()


def zipped(members: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(array: Any, **header: Any) -> bytes:
    """An array in the npy format, with a header that need not match it."""
    buffer = io.BytesIO()
    about = {"descr": "<f8", "fortran_order": False, "shape": array.shape, **header}
    np.lib.format.write_array_header_1_0(buffer, about)
    return buffer.getvalue() + array.tobytes()


def test_what_was_saved_comes_back() -> None:
    arrays = read_arrays(saved(**ARRAYS))
    assert arrays is not None
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(arrays[name], array)


def overlapping() -> bytes:
    """Two members that are the same bytes of the file."""
    content = bytearray(zipped({"a.npy": npy(np.zeros(1000)), "b.npy": npy(np.zeros(1000))}))
    second = content.rindex(b"PK\x01\x02")
    content[second + 42 : second + 46] = (0).to_bytes(4, "little")
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(saved(np.savez_compressed, a=np.zeros(1 << 20)), id="unpacks to more than is stored"),
        pytest.param(zipped({"a.npy": npy(np.zeros(4))}, zipfile.ZIP_BZIP2), id="another compression"),
        pytest.param(zipped({"a.npy": npy(np.zeros(4), shape=(1 << 40,))}), id="a shape beyond all memory"),
        pytest.param(zipped({"a.npy": npy(np.zeros(4), shape=(2,))}), id="a shape of less"),
        pytest.param(zipped({"a.npy": npy(np.zeros(4), descr="|O")}), id="objects"),
        pytest.param(zipped({"a.npy": npy(np.zeros(4), shape=(-4,))}), id="a negative shape"),
        pytest.param(zipped({"a.npy": npy(np.zeros(4), shape=(1 << 60, 0, 4))}), id="a shape that holds nothing"),
        pytest.param(zipped({"a.npy": b"\x93NUMPY\x01\x00" + b"\xff\xff" + b"[" * 1000}), id="no header"),
        pytest.param(zipped({"a.npy": b""}), id="nothing"),
        pytest.param(zipped({"a.npy": npy(np.zeros(1)), "a": npy(np.zeros(1))}), id="one name twice"),
        pytest.param(overlapping(), id="members that overlap"),
        pytest.param(b"PK", id="no zip"),
        pytest.param(b"", id="empty"),
    ],
)
def test_what_numpy_does_not_save_like_that_is_damaged(content: bytes) -> None:
    assert read_arrays(content) is None
