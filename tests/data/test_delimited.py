"""Tables of text of all kinds are read as a person would read them, and parts left out are named."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from clustering.data import delimited
from clustering.data.ingest import ingest
from clustering.errors import DataError
from tests.ingested import take

ONE = {"a": [1, 3], "b": [2, 4]}
NUMBERS: dict[str, tuple[str | bytes, Mapping[str, list[float]]]] = {
    "tabs": ("a\tb\n1\t2\n3\t4\n", ONE),
    "semicolons": ("a;b\n1;2\n3;4\n", ONE),
    "bars": ("a|b\n1|2\n3|4\n", ONE),
    "runs of spaces": ("  a   b\n 1   2\n  3  4 \n", ONE),
    "runs of spaces beside words in quotes": ('"a"  "b"\n1 "2"\n "3"  4\n', ONE),
    "a line that names the separator": ("sep=;\na;b\n1;2\n3;4\n", ONE),
    "comments": ("# one\n\n# two\na,b\n1,2\n# middle\n3,4\n", ONE),
    "lines without anything": ("\n\na,b\n\n1,2\n\n3,4\n\n", ONE),
    "a byte-order mark": (b"\xef\xbb\xbfa,b\n1,2\n3,4\n", ONE),
    "utf-16": ("a,b\n1,2\n3,4\n".encode("utf-16"), ONE),
    "utf-16 without a mark": ("a,b\n1,2\n3,4\n".encode("utf-16-be"), ONE),
    "packed": (gzip.compress(b"a,b\n1,2\n3,4\n"), ONE),
    "carriage returns": ("a,b\r1,2\r3,4\r", ONE),
    "separators at the ends": ("a,b,\n1,2\n3,4\n", ONE),
    "quoted numbers": ('a,"b"\n1,"2"\n"3",4\n', ONE),
    "decimal commas": ("a;b\n1,5;2\n-3,25;4\n", {"a": [1.5, -3.25], "b": [2, 4]}),
    "decimal commas, and points between thousands": (
        "a;b\n1.234,5;1.234\n3,25;12.345\n",
        {"a": [1234.5, 3.25], "b": [1234, 12345]},
    ),
    "commas between thousands": ('a,b\n"1,234",2\n"12,345.5",4\n', {"a": [1234, 12345.5], "b": [2, 4]}),
    "apostrophes between thousands": ("a,b\n1'234,2\n12'345,4\n", {"a": [1234, 12345], "b": [2, 4]}),
    "decimal points like thousands": ("a,b\n1.234,2\n12.345,4\n", {"a": [1.234, 12.345], "b": [2, 4]}),
    "exponents and signs": ("a,b\n+1e5,2\n-1E-3,4\n", {"a": [1e5, -1e-3], "b": [2, 4]}),
    "infinite numbers": ("a,b\ninf,2\n-Infinity,4\n", {"a": [np.inf, -np.inf], "b": [2, 4]}),
    "large whole numbers": ("a,b\n18446744073709551615,2\n5,4\n", {"a": [2**64 - 1, 5], "b": [2, 4]}),
    "missing values": (
        "a,b\n1,2\nNA,4\n  ,6\n n/a,7\nNone,8\n",
        {"a": [1, np.nan, np.nan, np.nan, np.nan], "b": [2, 4, 6, 7, 8]},
    ),
    "flags with gaps": ("a,b\ntrue,2\nFalse,4\n,6\n", {"a": [1, 0, np.nan], "b": [2, 4, 6]}),
    "names of rows without a header": ('"a","b"\n"7",1,2\n"8",3,4\n', {"column": [7, 8], **ONE}),
}


@pytest.mark.parametrize(("text", "expected"), NUMBERS.values(), ids=NUMBERS.keys())
def test_numbers_are_read_as_they_are_meant(
    tmp_path: Path, text: str | bytes, expected: Mapping[str, list[float]]
) -> None:
    (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    taken = take(tmp_path / "t.csv")
    assert sorted(taken.arrays) == sorted(expected)
    for name, values in expected.items():
        assert np.array_equal(taken.arrays[name], np.array(values), equal_nan=True), name
    assert taken.warnings == []


WARNED: dict[str, tuple[str, Mapping[str, list[float]], tuple[str, ...]]] = {
    "one bad cell": ("a,b\n1,2\n-,4\n5,6\n", {"b": [2, 4, 6]}, ("'a'", "line 3", "'-'", "1 of 3 cells")),
    "one bad cell below a comment": ("# x\na,b\n1,2\n?,4\n5,6\n", {"b": [2, 4, 6]}, ("'a'", "line 4", "'?'")),
    "text": ("w,b\nred,2\nblue,4\n", {"b": [2, 4]}, ("'w'", "text, such as 'red' in line 2")),
    "text with spaces": ('w b\n"dark red"  2\n"blue" 4\n', {"b": [2, 4]}, ("'w'", "'dark red' in line 2")),
    "no value": ("a,b\n,2\n,4\n", {"b": [2, 4]}, ("'a'", "holds no value")),
    "both notations": ('a,b\n"1,5",2\n1.5,4\n', {"b": [2, 4]}, ("'a'", "different notations")),
    "two meanings": ('a,b\n"1,234",2\n"12,345",4\n', {"b": [2, 4]}, ("'a'", "two ways", "1,234")),
    "too many digits": ("a,b\n,2\n9007199254740993,4\n", {"a": [np.nan, 2**53], "b": [2, 4]}, ("'a'", "rounded")),
    "numbers beyond float64": ("a,b\n1e400,2\ninf,4\n", {"a": [np.inf, np.inf], "b": [2, 4]}, ("'a'", "infinite")),
    "names given twice": ("x,x,y\n1,2,3\n", {"x": [1], "x_": [2], "y": [3]}, ("column 2", "'x'", "'x_'")),
    "a name with a slash": ("a/b,y\n1,3\n", {"a_b": [1], "y": [3]}, ("'a/b' becomes variable 'a_b'",)),
    "a name of a dimension": ("row,y\n1,3\n", {"row_": [1], "y": [3]}, ("'row' becomes variable 'row_'",)),
    "no header": ("0.5,1.25\n1.5,2.25\n", {"column_1": [0.5, 1.5], "column_2": [1.25, 2.25]}, ("no header",)),
    "no header, one word": ("5.1,3.5,a\n4.9,3.0,a\n", {"column_1": [5.1, 4.9], "column_2": [3.5, 3.0]}, ("no header",)),
    "a comment for a header": ("# x y\n1.5 2\n3.5 4\n", {"x": [1.5, 3.5], "y": [2, 4]}, ("comment", "x, y")),
    "a header of numbers": (
        "id,400,410,420\nr,1,2,3\ns,4,5,6\n",
        {"400": [1, 4], "410": [2, 5], "420": [3, 6]},
        ("first line", "names of the columns", "'400'"),
    ),
    "an open quote": ('a,t\n1,"x\n2,y\n', {"a": [1]}, ("quotation marks", "odd")),
}


@pytest.mark.parametrize("name", WARNED)
def test_what_is_left_out_or_guessed_is_reported(tmp_path: Path, name: str) -> None:
    text, expected, fragments = WARNED[name]
    (tmp_path / "t.csv").write_text(text)
    taken = take(tmp_path / "t.csv")
    assert sorted(taken.arrays) == sorted(expected)
    for column, values in expected.items():
        assert np.array_equal(taken.arrays[column], np.array(values), equal_nan=True), column
    assert taken.said(*fragments)


@pytest.mark.parametrize("place", [2, 60_000], ids=["at-the-start", "far-below"])
def test_text_in_another_encoding_is_reported(tmp_path: Path, place: int) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,b,c\n" + b"1,2,x\n" * place + b"1,2,\xfc\n")
    taken = take(tmp_path / "t.csv")
    assert taken.said("no UTF-8", "Latin-1")
    assert taken.arrays["b"].tolist() == [2] * (place + 1)


def test_the_line_of_a_bad_cell_counts_the_lines_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('# made\nt,a,b\n"x\ny",1,1\n\nz,?,2\nu,3,3\n')
    assert take(tmp_path / "t.csv").said("'a'", "line 6", "'?'")


def test_dates_become_counts_with_a_unit(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("t,a\n2001-01-01,1\n,2\n2001-01-02 03:04:05,3\n")
    ingest(tmp_path / "t.csv", tmp_path / "out.zarr")
    times = xr.open_zarr(tmp_path / "out.zarr", consolidated=False, chunks=None)["t"].values
    assert [str(time)[:19] for time in times] == ["2001-01-01T00:00:00", "NaT", "2001-01-02T03:04:05"]


def test_moments_with_a_zone_are_counted_in_utc(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("t,a\n2001-01-01T12:00:00Z,1\n2001-01-01T12:00:00+02:00,3\n")
    ingest(tmp_path / "t.csv", tmp_path / "out.zarr")
    times = xr.open_zarr(tmp_path / "out.zarr", consolidated=False, chunks=None)["t"].values
    assert [str(time)[:13] for time in times] == ["2001-01-01T12", "2001-01-01T10"]


REFUSED: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "a short line": ("x,y\n1,2\n3\n", ("line 3 has 1 columns", "has 2", "','")),
    "a long line": ("x\ty\n1\t2\n3\t4\t5\n", ("line 3 has 3 columns", "tabs")),
    "a long line far below": ("x,y\n" + "1,2\n" * 300 + "3,4,5\n", ("line 302 has 3 columns",)),
    "a last line about the rest": ("a,b\n1,2\n3,4\nTotal: 2 rows\n", ("line 4 has 1 columns",)),
    "nothing": ("", ("empty",)),
    "a header alone": ("x,y\n", ("holds no rows",)),
    "comments alone": ("# x\n# y\n", ("holds no rows",)),
    "bytes": (b"a,b\n" + bytes(range(1, 30)) * 20 + b"\0" * 30, ("no text",)),
    "words": ("x,y\na,b\n", ("nothing that can be converted", "'x'", "'a'")),
}


@pytest.mark.parametrize(("text", "fragments"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_table_is_refused_in_one_line(tmp_path: Path, text: str | bytes, fragments: tuple[str, ...]) -> None:
    (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError) as caught:
        ingest(tmp_path / "t.csv", tmp_path / "out.zarr")
    said = str(caught.value)
    assert [fragment for fragment in fragments if fragment not in said] == []
    assert "\n" not in said
    assert not (tmp_path / "out.zarr").exists()


def test_a_notation_holds_for_all_batches(tmp_path: Path) -> None:
    n = 40_000
    (tmp_path / "t.csv").write_text("a;b;t\n" + f"1;2;{'x' * 250}\n" * n + "1,5;2;x\n")
    taken = take(tmp_path / "t.csv")
    assert taken.arrays["a"].shape == (n + 1,)
    assert taken.arrays["a"][[0, -1]].tolist() == [1.0, 1.5]
    assert taken.arrays["b"].dtype == "i8"


@pytest.mark.parametrize("held", [0, 8 * 50 * 2, 1 << 20], ids=["none", "two-columns", "all"])
def test_columns_are_the_same_however_many_are_held_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    monkeypatch.setattr(delimited, "HELD_BYTES", held)
    values = np.random.default_rng(2).random((50, 5)).round(6)
    lines = "".join(",".join([*map(str, row), "x"]) + "\n" for row in values)
    (tmp_path / "t.csv").write_text("a,b,c,d,e,w\n" + lines)
    arrays = take(tmp_path / "t.csv").arrays
    assert list(arrays) == ["a", "b", "c", "d", "e"]
    assert np.array_equal(np.column_stack(list(arrays.values())), values)
