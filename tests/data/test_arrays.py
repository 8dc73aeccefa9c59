"""Arrays of numpy's files are taken, or named where they are left out."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clustering.data.ingest import ingest
from clustering.errors import DataError
from tests.ingested import take

RECORDS = np.array(
    [(1, 2.5, "a", (1, 2)), (3, 4.5, "b", (3, 4))], [("i", ">i4"), ("grün", "f8"), ("s", "U3"), ("v", "f4", (2,))]
)
FIELDS = {"i": [1, 3], "grün": [2.5, 4.5], "v": [[1, 2], [3, 4]]}


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_the_fields_of_records_become_variables(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    np.save(path, RECORDS) if suffix == ".npy" else np.savez(path, r=RECORDS)
    prefix = "" if suffix == ".npy" else "r."
    taken = take(path)
    assert {name: values.tolist() for name, values in taken.arrays.items()} == {
        f"{prefix}{name}": values for name, values in FIELDS.items()
    }
    assert taken.said(f"'{prefix}s'", "text")


LEFT: dict[str, tuple[Any, str]] = {
    "objects": (np.array([{}], object), "pickle"),
    "records with objects": (np.array([(1, {})], [("a", "i4"), ("o", object)]), "pickle"),
    "complex numbers": (np.zeros(3, complex), "complex"),
    "dates": (np.array(["2001-01-01"], "M8[D]"), "dates"),
    "durations": (np.array([1], "m8[s]"), "durations"),
    "text": (np.array(["a"]), "text"),
    "bytes": (np.array([b"a"]), "text"),
    "one number": (np.float64(3), "one number"),
    "no rows": (np.zeros((0, 3)), "empty, of shape (0, 3)"),
    "no columns": (np.zeros((3, 0)), "empty, of shape (3, 0)"),
    "long double": (np.zeros(3, np.longdouble), "128 bits"),
}


@pytest.mark.parametrize(("array", "reason"), LEFT.values(), ids=LEFT.keys())
def test_an_array_that_is_left_out_is_named(tmp_path: Path, array: Any, reason: str) -> None:
    np.savez(tmp_path / "a.npz", odd=array, x=np.arange(3))
    taken = take(tmp_path / "a.npz")
    assert list(taken.arrays) == ["x"]
    assert len(taken.warnings) == 1
    assert taken.said("array 'odd' is left out", reason)
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match="nothing that can be converted") as caught:
        ingest(tmp_path / "a.npy", tmp_path / "out.zarr")
    assert reason in str(caught.value)


def test_members_that_are_no_arrays_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3)))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("notes.txt", "x")
    taken = take(tmp_path / "a.npz")
    assert taken.arrays["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert taken.said("'notes.txt'")
