"""Layout of a table in a text file: encoding, separator, comments, and whether the first line names the columns."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import IO, Any, TextIO

from clustering.errors import DataError

SAMPLE_BYTES = 256 * 1024
"""Number of bytes at the start of the unpacked file from which its layout is inferred."""
SAMPLE_ROWS = 200
"""Largest number of rows from which the layout is inferred."""
MISSING = (
    "",
    "NA",
    "na",
    "N/A",
    "n/a",
    "NaN",
    "nan",
    "NAN",
    "-nan",
    "-NaN",
    "NULL",
    "Null",
    "null",
    "None",
    "<NA>",
    "#N/A",
    "#N/A N/A",
    "#NA",
    "1.#IND",
    "-1.#IND",
    "1.#QNAN",
    "-1.#QNAN",
)
"""Cells that mean a missing value."""
GROUPS = " '\u00a0\u202f\u2019"
"""Characters between groups of thousands, besides comma and point."""
PLAIN = r"^[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[iI][nN][fF]([iI][nN][iI][tT][yY])?)$"
"""A number as Python reads it, with a decimal point."""
WITH_POINT = rf"{PLAIN}|^[+-]?\d{{1,3}}([,{GROUPS}]\d{{3}})+(\.\d*)?$"
"""A number with a decimal point, and perhaps with groups of thousands."""
WITH_COMMA = rf"^[+-]?((\d{{1,3}}([.{GROUPS}]\d{{3}})+|\d+)(,\d*)?|,\d+)([eE][+-]?\d+)?$"
"""A number with a decimal comma, and perhaps with groups of thousands."""
NUMBER = f"{WITH_POINT}|{WITH_COMMA}"
"""A number in any of these notations."""
_NUMBER = re.compile(NUMBER)
_SEPARATORS = (",", "\t", ";", "|", "")
"""Separators to try. The empty one stands for any run of spaces and tabs."""
_BOMS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
"""Byte order mark at the start of a file → encoding."""
_PACKED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
"""First bytes of a compressed file → function that opens it."""


@dataclass(frozen=True)
class TableLayout:
    """Rules that cut the text of a table into cells."""

    encoding: str
    separator: str
    """Character between cells; empty for any run of spaces and tabs."""
    names: tuple[str, ...]
    """Names of the columns in the file; empty for a column without a name."""
    first: int
    """Number of lines above the first row of data."""
    comments: bool = False
    """Whether lines that start with ``#`` or ``%`` are comments."""


def open_unpacked(path: Path) -> IO[bytes]:
    """Open a file as bytes, and decompress it where it is compressed by gzip, bzip2 or xz.

    Parameters
    ----------
    path
        A file.
    """
    with path.open("rb") as file:
        head = file.read(8)
    opener = next((opener for magic, opener in _PACKED.items() if head.startswith(magic)), None)
    return path.open("rb") if opener is None else opener(path, "rb")


def open_text(path: Path, encoding: str) -> TextIO:
    """Open a file as text, decompressed. Line ends of all kinds become newlines.

    Parameters
    ----------
    path
        A text file.
    encoding
        Encoding of the text.
    """
    return io.TextIOWrapper(open_unpacked(path), encoding=encoding, newline=None)


def without_comments(lines: Iterator[str], comments: bool) -> Iterator[str]:
    """Skip lines that are comments.

    Parameters
    ----------
    lines
        Lines of text.
    comments
        Whether lines that start with ``#`` or ``%`` are comments.
    """
    return (line for line in lines if not (comments and line.lstrip(" \t").startswith(("#", "%"))))


def records(lines: Iterator[str], separator: str) -> Iterator[list[str]]:
    """Cut lines into cells. Empty lines are skipped.

    Parameters
    ----------
    lines
        Lines of text. A cell in quotation marks may go on over several lines.
    separator
        Character between cells; empty for any run of spaces and tabs.
    """
    if not separator:
        lines = map(tabbed, lines)
    return (record for record in csv.reader(lines, delimiter=separator or "\t") if record)


def tabbed(text: str) -> str:
    """Replace every run of spaces and tabs by one tab, and remove runs at both ends of lines.

    Parameters
    ----------
    text
        One line or several. Text in quotation marks stays as it is.
    """
    text = re.sub(r"^[ \t]+|[ \t]+$", "", text, flags=re.MULTILINE)
    if '"' in text:
        return re.sub(r'("[^"\n]*")|[ \t]+', lambda part: part[1] or "\t", text)
    return re.sub(r"[ \t]+", "\t", text)


def find_layout(path: Path, encoding: str | None = None) -> tuple[TableLayout, list[str]]:
    """Infer the layout of a table from the start of its file.

    Parameters
    ----------
    path
        A text file, which may be compressed.
    encoding
        Encoding of the text; inferred where None.

    Returns
    -------
    TableLayout
        The layout.
    list
        Warnings about guesses.

    Raises
    ------
    DataError
        If the file is no text, or holds no rows.
    """
    # Cells may be longer than the default limit of the csv module.
    csv.field_size_limit(2**31 - 1)
    with open_unpacked(path) as file:
        sample = file.read(SAMPLE_BYTES)
    encoding = encoding or _encoding(sample, path)
    text = io.StringIO(sample.decode(encoding, "replace"), newline=None).read()
    lines = text.splitlines(keepends=True)
    if len(sample) == SAMPLE_BYTES and len(lines) > 1:
        # The end of the sample cuts the last line.
        del lines[-1]
    head = 0
    separators: Sequence[str] = _SEPARATORS
    # In files for Excel, a first line such as "sep=;" names the separator.
    if lines and (hint := re.fullmatch(r'"?sep=(.)"?\s*', lines[0], re.IGNORECASE)):
        head, separators = 1, hint[1]
    comment = ""
    while head < len(lines) and (not lines[head].strip() or _is_comment(lines[head])):
        comment = lines[head].strip() or comment
        head += 1
    body = lines[head:]
    data = [line for line in body if not _is_comment(line)]
    if not data:
        raise DataError(f"{str(path)!r} holds no rows")
    separator = _separator(data, separators)
    rows = _rows(data, separator)
    width = Counter(map(len, rows[1:] or rows)).most_common(1)[0][0]
    marked = [line for line in body if _is_comment(line)]
    # A line that starts with # but has as many cells as the others is a row, such as one that starts with #ff0000.
    comments = bool(marked) and all(len(row) != width for row in _rows(marked, separator))
    warnings: list[str] = []
    names = _names(rows, width, warnings)
    first = head
    if names is not None:
        first += _lines_of_header(body, separator, comments)
    else:
        # The last comment above the data may hold the names of the columns.
        stated = _rows([comment.lstrip("#% \t")], separator) if comment else []
        if stated and len(stated[0]) == width and not any(map(_number, stated[0])):
            names = [name.strip() for name in stated[0]]
            warnings.append(
                f"the columns are named by the comment above them: {', '.join(names[:4])}{' …' if width > 4 else ''}"
            )
        else:
            names = [f"column_{i + 1}" for i in range(width)]
            warnings.append(
                "the file has no header: its first line is data, as it holds numbers, and the columns are named "
                "column_1 and so on; write a line of names above it to have others"
            )
    return TableLayout(encoding, separator, tuple(names), first, comments), warnings


def line_numbers(path: Path, layout: TableLayout, rows: set[int]) -> dict[int, int]:
    """Find the lines of the file in which some rows end, for messages.

    Parameters
    ----------
    path
        The file of the table.
    layout
        Its layout.
    rows
        Numbers of rows of data, from 0.

    Returns
    -------
    dict
        Number of a row → number of its line, from 1.
    """
    numbered = enumerate(islice(_numbered(path, layout), max(rows, default=-1) + 1))
    return {row: line for row, (line, _) in numbered if row in rows}


def uneven_line(path: Path, layout: TableLayout) -> tuple[int, int] | None:
    """Find the first line with another number of cells than the header; None where there is none.

    Parameters
    ----------
    path
        The file of the table.
    layout
        Its layout.

    Returns
    -------
    tuple or None
        Number of the line, from 1, and its number of cells.
    """
    width = len(layout.names)
    return next(((line, len(cells)) for line, cells in _numbered(path, layout) if len(cells) != width), None)


def quotes_left_open(path: Path, layout: TableLayout) -> bool:
    """Tell whether a file has an odd number of quotation marks, so that one of them is never closed.

    Parameters
    ----------
    path
        The file of the table.
    layout
        Its layout.
    """
    n = 0
    with open_text(path, layout.encoding) as file:
        while text := file.read(1 << 20):
            n += text.count('"')
    return n % 2 == 1


def _numbered(path: Path, layout: TableLayout) -> Iterator[tuple[int, list[str]]]:
    """Give each row of data with the number of the line on which it ends."""
    with open_text(path, layout.encoding) as file:
        line = 0

        def counted() -> Iterator[str]:
            nonlocal line
            for line, text in enumerate(file, 1):
                if line > layout.first:
                    yield text

        for cells in records(without_comments(counted(), layout.comments), layout.separator):
            yield line, cells


def _encoding(sample: bytes, path: Path) -> str:
    """Infer the encoding from a byte order mark, or from zero bytes."""
    for mark, encoding in _BOMS.items():
        if sample.startswith(mark):
            return encoding
    if b"\0" not in sample:
        return "utf-8"
    # UTF-16 has two bytes a character, and in Latin text every second one is zero.
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if max(even, odd) < len(sample) // 4:
        raise DataError(f"cannot read {str(path)!r}: it holds bytes that are zero, so it is no text")
    return "utf-16-le" if odd > even else "utf-16-be"


def _is_comment(line: str) -> bool:
    return line.lstrip(" \t").startswith(("#", "%"))


def _number(cell: str) -> bool:
    """Tell whether a cell holds a number. Words such as inf are none here."""
    cell = cell.strip()
    return any(character.isdigit() for character in cell) and _NUMBER.match(cell) is not None


def _missing(cell: str) -> bool:
    return cell.strip() in MISSING


def _rows(lines: Sequence[str], separator: str) -> list[list[str]]:
    """Cut the first lines into cells."""
    rows: list[list[str]] = []
    for row in records(iter(lines), separator):
        rows.append(row)
        if len(rows) == SAMPLE_ROWS:
            break
    return rows


def _separator(lines: Sequence[str], allowed: Sequence[str]) -> str:
    """Choose the separator that gives all rows the same number of cells, and then the largest share of numbers."""
    best, choice = (-1.0, -1.0), allowed[0]
    for separator in allowed:
        rows = _rows(lines, separator)
        below = rows[1:] or rows
        width, count = Counter(map(len, below)).most_common(1)[0]
        cells = [cell for row in below for cell in row]
        numbers = sum(_number(cell) or _missing(cell) for cell in cells) / max(1, len(cells))
        # Words of a text are no columns, although spaces separate them.
        if width < 2 or count < len(below) / 2 or (not separator and numbers < 0.5):
            continue
        even = count == len(below) and (len(rows[0]) == width or abs(len(rows[0]) - width) == 1 < width - 1)
        if (score := (float(even), numbers)) > best:
            best, choice = score, separator
    return choice


def _names(rows: list[list[str]], width: int, warnings: list[str]) -> list[str] | None:
    """Read the names of the columns from the first row; None where the first row is data."""
    header = [cell.strip() for cell in rows[0]]
    below = [row for row in rows[1:] if len(row) == width]
    if len(header) == width - 1 > 1 and below:
        # Either every row ends with a separator, or the first column holds names of rows and has no name itself.
        header = [*header, ""] if all(not row[-1].strip() for row in below) else ["", *header]
    elif len(header) == width + 1 and not header[-1]:
        header = header[:-1]
    if len(header) != width:
        return header
    columns = [[row[i] for row in below if not _missing(row[i])] for i in range(width)]
    # Words above numbers make a header, even if other names in it are numbers, such as years.
    above_numbers = [
        not _number(cell) and not _missing(cell) and bool(column) and all(map(_number, column))
        for cell, column in zip(header, columns, strict=True)
    ]
    numbers = [cell for cell in header if _number(cell)]
    if not numbers:
        return header
    if not any(above_numbers):
        # A row of rising numbers beside words may be a header too, such as one of years or depths.
        values = [float(cell) for cell in numbers if re.match(PLAIN, cell)]
        rising = len(values) == len(numbers) >= 3 and all(a < b for a, b in pairwise(values))
        if not (below and rising and any(cell and not _number(cell) for cell in header)):
            return None
    warnings.append(
        f"the first line is read as the names of the columns, although {numbers[0]!r} in it is a number; "
        "if it is data, write a line of names above it"
    )
    return header


def _lines_of_header(body: Sequence[str], separator: str, comments: bool) -> int:
    """Count the lines down to the end of the header. A quoted name may go on over several lines."""
    n = 0

    def counted() -> Iterator[str]:
        nonlocal n
        for line in body:
            n += 1
            yield line

    next(records(without_comments(counted(), comments), separator))
    return n
