from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import pytest

from clustering.storage.npz import read_arrays

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
    """An array with a header that says something else."""
    buffer = io.BytesIO()
    about = {"descr": "<f8", "fortran_order": False, "shape": array.shape, **header}
    np.lib.format.write_array_header_1_0(buffer, about)
    return buffer.getvalue() + array.tobytes()


def test_what_was_saved_comes_back() -> None:
    found = read_arrays(saved(**ARRAYS))
    assert found is not None
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(found[name], array)


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
