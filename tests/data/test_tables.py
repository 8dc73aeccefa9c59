"""Every column of a parquet table is taken as it is meant, or left out by name."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr

from clustering.data.ingest import ingest
from clustering.errors import DataError
from tests.ingested import take

NAN = np.nan
LARGE = 2**60 + 1


def tensors() -> Any:
    kind = pa.fixed_shape_tensor(pa.float32(), (2, 2))
    return pa.ExtensionArray.from_storage(kind, pa.array([[1, 2, 3, 4]] * 3, pa.list_(pa.float32(), 4)))


TAKEN: dict[str, tuple[Any, Any, str]] = {
    "lists of a fixed length": (pa.array([[1, 2], [3, 4]], pa.list_(pa.float32(), 2)), [[1, 2], [3, 4]], "f4"),
    "lists of one length": (pa.array([[1, 2]] * 3, pa.list_(pa.float32())), [[1, 2]] * 3, "f4"),
    "lists with gaps": (pa.array([[1, None], [3, 4], [5, 6]], pa.list_(pa.int32())), [[1, NAN], [3, 4], [5, 6]], "f8"),
    "large lists": (pa.array([[1], [2], [3]], pa.large_list(pa.int16())), [[1], [2], [3]], "i2"),
    "tensors": (tensors(), [[1, 2, 3, 4]] * 3, "f4"),
    "decimals": (pa.array([Decimal("1.25"), None, Decimal("3.5")], pa.decimal128(9, 2)), [1.25, NAN, 3.5], "f8"),
    "flags": (pa.array([True, False, True]), [True, False, True], "?"),
    "flags with gaps": (pa.array([True, None, False]), [1, NAN, 0], "f8"),
    "whole numbers with gaps": (pa.array([1, None, 3]), [1, NAN, 3], "f8"),
    "large whole numbers": (pa.array([LARGE, 1, 3]), [LARGE, 1, 3], "i8"),
    "largest whole numbers": (pa.array([2**64 - 1, 1, 3], pa.uint64()), [2**64 - 1, 1, 3], "u8"),
    "half precision": (pa.array(np.arange(3, dtype="f2")), [0, 1, 2], "f2"),
    "categories of numbers": (pa.DictionaryArray.from_arrays([0, 1, None], [10, 20]), [10, 20, NAN], "f8"),
    "durations": (pa.array([1, 2, 3], pa.duration("s")), [1, 2, 3], "i8"),
    "times of day": (pa.array([datetime.time(1), None, datetime.time(2)], pa.time32("s")), [3.6e6, NAN, 7.2e6], "f8"),
}  # fmt: skip


@pytest.mark.parametrize(("column", "values", "kind"), TAKEN.values(), ids=TAKEN.keys())
def test_a_column_is_taken_as_it_is_meant(tmp_path: Path, column: Any, values: Any, kind: str) -> None:
    pq.write_table(pa.table({"a": column}), tmp_path / "t.parquet", row_group_size=2)
    taken = take(tmp_path / "t.parquet")
    assert np.array_equal(taken.arrays["a"], np.array(values, kind), equal_nan=kind[0] == "f")
    assert (taken.arrays["a"].dtype, taken.warnings) == (np.dtype(kind), [])
    assert taken.dims["a"] == ("row", "feature")[: taken.arrays["a"].ndim]


@pytest.mark.skipif(int(pa.__version__.split(".")[0]) < 26, reason="pyarrow reads them from version 26 on")
def test_a_missing_list_of_a_fixed_length_is_a_missing_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([[1, 2], None], pa.list_(pa.float32(), 2))}), tmp_path / "t.parquet")
    assert np.array_equal(take(tmp_path / "t.parquet").arrays["a"], [[1, 2], [NAN, NAN]], equal_nan=True)


NOON = datetime.datetime(2001, 1, 1, 12)
DATES: dict[str, tuple[Any, list[str]]] = {
    "dates": (pa.array([datetime.date(1960, 1, 1), None]), ["1960-01-01T00", "NaT"]),
    "dates in milliseconds": (pa.array([86_400_000 * 2] * 3, pa.date64()), ["1970-01-03T00"] * 3),
    **{f"moments in {u}": (pa.array([NOON, None], pa.timestamp(u)), ["2001-01-01T12", "NaT"]) for u in ("s", "ns")},
    "moments of a time zone": (pa.array([NOON] * 3, pa.timestamp("ms", "Europe/Berlin")), ["2001-01-01T12"] * 3),
}  # fmt: skip


@pytest.mark.parametrize(("column", "moments"), DATES.values(), ids=DATES.keys())
def test_dates_become_counts_with_a_unit(tmp_path: Path, column: Any, moments: list[str]) -> None:
    pq.write_table(pa.table({"a": column}), tmp_path / "t.parquet")
    ingest(tmp_path / "t.parquet", tmp_path / "out.zarr")
    variable = xr.open_zarr(tmp_path / "out.zarr", consolidated=False, chunks=None)["a"]
    assert [str(moment)[:13] for moment in variable.values] == moments
    assert variable.attrs.get("time_zone") == (column.type.tz if hasattr(column.type, "tz") else None)


LEFT: dict[str, tuple[Any, str]] = {
    "lists of several lengths": (pa.array([[1, 2], [3, 4], [5]]), "different lengths: row 2 holds 1 numbers"),
    "lists of text": (pa.array([["a"], ["b"], []]), "lists of text"),
    "lists of lists": (pa.array([[[1]], [[2]], [[3]]]), "lists of lists"),
    "empty lists": (pa.array([[], [], []], pa.list_(pa.float32())), "holds no value"),
    "records": (pa.array([{"x": 1, "y": 2}] * 3), "records (with 'x', 'y')"),
    "maps": (pa.array([[("a", 1)]] * 3, pa.map_(pa.string(), pa.int64())), "maps"),
    "text": (pa.array(["a", "b", "c"]), "text"),
    "long text": (pa.array(["a", "b", "c"], pa.large_string()), "text"),
    "categories": (pa.array(["a", "b", "a"]).dictionary_encode(), "categories of text"),
    "bytes": (pa.array([b"a", b"b", b"c"]), "bytes"),
    "nothing": (pa.nulls(3), "no value"),
    "gaps alone": (pa.array([None] * 3, pa.float32()), "no value"),
}


@pytest.mark.parametrize(("column", "reason"), LEFT.values(), ids=LEFT.keys())
def test_a_column_that_is_left_out_is_named(tmp_path: Path, column: Any, reason: str) -> None:
    pq.write_table(pa.table({"emb": column, "x": [1.0, 2.0, 3.0]}), tmp_path / "t.parquet")
    taken = take(tmp_path / "t.parquet")
    assert list(taken.arrays) == ["x"]
    assert len(taken.warnings) == 1
    assert taken.said("column 'emb' is left out", reason)
    pq.write_table(pa.table({"emb": column}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="nothing that can be converted: column 'emb'"):
        ingest(tmp_path / "t.parquet", tmp_path / "out.zarr")


@pytest.mark.parametrize(
    "column",
    [
        pytest.param(pa.array([LARGE, None, 3]), id="whole numbers beside a gap"),
        pytest.param(pa.array([[LARGE, 1], None, [1, 2]]), id="lists of whole numbers beside a gap"),
        pytest.param(pa.array([Decimal("12345678901234567890.12")], pa.decimal128(38, 2)), id="decimals"),
    ],
)  # fmt: skip
def test_rounding_is_reported(tmp_path: Path, column: Any) -> None:
    pq.write_table(pa.table({"a": column}), tmp_path / "t.parquet", row_group_size=1)
    taken = take(tmp_path / "t.parquet")
    assert taken.arrays["a"].dtype == "f8"
    assert taken.said("'a'", "rounded", "float64")


def test_names_given_twice_and_names_with_points_are_kept_apart(tmp_path: Path) -> None:
    columns = [pa.array([1, 2]), pa.array(["a", "b"]), pa.array([3, 4]), pa.array([5, 6])]
    pq.write_table(pa.Table.from_arrays(columns, names=["x", "x", "x", "a.b"]), tmp_path / "t.parquet")
    taken = take(tmp_path / "t.parquet")
    assert {name: values.tolist() for name, values in taken.arrays.items()} == {
        "x": [1, 2],
        "x_": [3, 4],
        "a.b": [5, 6],
    }
    assert taken.said("column 3", "'x'", "'x_'")


def test_lists_of_other_lengths_have_dimensions_of_their_own(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [[1, 2]], "b": [[1, 2]], "c": [[1, 2, 3]]}), tmp_path / "t.parquet")
    dims = take(tmp_path / "t.parquet").dims
    assert dims == {"a": ("row", "feature"), "b": ("row", "feature"), "c": ("row", "c_feature")}


def test_the_files_of_a_folder_are_read_one_after_the_other(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    (folder / "year=2001").mkdir(parents=True)
    tables = {
        "p0.parquet": {"x": [1, 2], "y": [1.0, 2.0], "k": [1, 2]},
        "p1.PARQUET": {"y": [3.0], "x": [3], "z": [1], "k": [1.5]},
        "year=2001/p2.pq": {"x": [4], "y": [4.0], "k": [1]},
        "_hidden.parquet": {"q": [1]},
    }
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / name)
    (folder / "notes.txt").write_text("")
    taken = take(folder)
    assert {name: values.tolist() for name, values in taken.arrays.items()} == {"x": [1, 2, 3, 4], "y": [1, 2, 3, 4]}
    for fragments in (("'k'", "p1.PARQUET", "double"), ("'z'", "p1.PARQUET"), ("notes.txt",), ("'year'", "folders")):
        assert taken.said(*fragments), fragments


def test_a_table_of_no_rows_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": pa.array([], pa.float64())}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="holds no rows"):
        ingest(tmp_path / "t.parquet", tmp_path / "out.zarr")
