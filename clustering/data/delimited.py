"""Reading tables of text: each column of numbers, flags or dates becomes a variable along ``row``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.readers import FileContents, FileVariable, VariableGroup, in_slabs, missing_reader, variable_name
from clustering.data.table_layout import (
    GROUPS,
    MISSING,
    NUMBER,
    WITH_COMMA,
    WITH_POINT,
    TableLayout,
    find_layout,
    line_numbers,
    open_text,
    quotes_left_open,
    tabbed,
    uneven_line,
)
from clustering.data.tables import EXACT, NO_DATE, even
from clustering.errors import DataError

_BLOCK = 1 << 20
"""Characters read at once."""
HELD_BYTES = 256 << 20
"""Memory for columns that are held at once, in bytes, so that a file is not read once for each column."""
_NOTATIONS = ("int64", "uint64", "float64", "point", "comma", "bool", "date")
"""Notations of cells, the strictest first. ``point`` and ``comma`` are decimal signs, with separated thousands."""
_DATE = {"units": "microseconds since 1970-01-01", "calendar": "proleptic_gregorian"}


@dataclass
class _Column:
    """Facts about the cells of a column, collected in one pass over all rows."""

    notations: list[str] = field(default_factory=lambda: list(_NOTATIONS))
    """Notations in which every cell so far can be read."""
    has_missing: bool = False
    cells: int = 0
    """Cells with a value."""
    numbers: int = 0
    """Cells with a number, in any notation."""
    bad: tuple[int, str] | None = None
    """Row and text of the first cell that is no number."""
    large: bool = False
    """Whether it holds whole numbers beyond the exact ones of float64."""
    beyond: bool = False
    """Whether it holds numbers that are too large for float64."""
    ambiguous: bool = False
    """Whether a cell means one number with a decimal point and another one with a decimal comma."""


def read_delimited(path: Path, _: ExitStack) -> FileContents:
    """Read a table of text and detect its separator, encoding, header and decimal sign.

    Parameters
    ----------
    path
        File to read; it may be compressed.
    _
        Exit stack that every reader takes. It stays unused, as the file is opened anew for each pass over it.

    Raises
    ------
    MissingDependencyError
        If pyarrow is not installed.
    DataError
        If the file is no table: without rows, no text, or with rows of different lengths.
    """
    try:
        import pyarrow as pa
        import pyarrow.compute
        import pyarrow.csv
    except ImportError as error:
        raise missing_reader("pyarrow", path) from error
    layout, warnings = find_layout(path)
    # The encoding is guessed from the start of the file, and a later line may prove it wrong.
    try:
        columns, n = _survey(path, layout, pa)
    except UnicodeDecodeError:
        layout, warnings = find_layout(path, "latin-1")
        warnings.append(f"{path.name!r} is no UTF-8; its text is read as Latin-1")
        columns, n = _survey(path, layout, pa)
    if not n:
        raise DataError(f"{str(path)!r} holds no rows below its header")
    chosen, reasons = _choose(columns)
    if quotes_left_open(path, layout):
        warnings.append(
            f"the quotation marks of {path.name!r} are odd in number: one of them may never be closed, and hide rows"
        )
    lines = line_numbers(
        path, layout, {column.bad[0] for i, column in enumerate(columns) if i in reasons and column.bad}
    )
    values = _Values(path, layout, n, pa)
    pieces: list[FileVariable] = []
    for i, column in enumerate(columns):
        name = layout.names[i] or f"column {i + 1}"
        if i in reasons:
            warnings.append(f"column {name!r} is left out: {reasons[i] or _bad_cell(column, lines)}")
            continue
        variable = variable_name(layout.names[i], {piece.name for piece in pieces})
        if layout.names[i] and layout.names.index(layout.names[i]) != i:
            warnings.append(f"column {i + 1} is named {name!r} as an earlier one is; it becomes {variable!r}")
        elif layout.names[i] and variable != layout.names[i]:
            warnings.append(f"column {name!r} becomes variable {variable!r}")
        notation = chosen[i]
        dtype = np.dtype({"point": "f8", "comma": "f8", "date": "i8"}.get(notation, notation))
        attributes: dict[str, Any] = {}
        if notation == "date":
            attributes = {**_DATE, "_FillValue": NO_DATE} if column.has_missing else dict(_DATE)
        # Whole numbers and flags have no NaN for empty cells.
        elif column.has_missing and dtype.kind != "f":
            dtype = np.dtype("f8")
        if column.beyond and dtype.kind == "f":
            warnings.append(f"column {name!r} holds numbers larger than float64 has; they are kept as infinite")
        if column.large and dtype.kind == "f":
            warnings.append(f"column {name!r} is rounded: it is kept as float64, which holds 15 to 17 digits")
        values.kinds[i] = notation, dtype
        pieces.append(FileVariable(variable, ("row",), (n,), dtype, values.slabs(i), attributes))
    return FileContents({"": VariableGroup(pieces, {"title": path.name})}, warnings)


class _Text:
    """The rows of a file as a stream for pyarrow: in UTF-8, without header and comments, with one separator."""

    def __init__(self, path: Path, layout: TableLayout) -> None:
        self.file = open_text(path, layout.encoding)
        self.layout = layout
        self.rest = b""
        self.skipped = layout.first

    @property
    def closed(self) -> bool:
        return self.file.closed

    def close(self) -> None:
        self.file.close()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        parts = [self.rest]
        held = len(self.rest)
        while (size < 0 or held < size) and (block := self._block()):
            parts.append(block)
            held += len(block)
        joined = b"".join(parts)
        cut = len(joined) if size < 0 else size
        self.rest = joined[cut:]
        return joined[:cut]

    def _block(self) -> bytes:
        while self.skipped:
            self.file.readline()
            self.skipped -= 1
        while text := self.file.read(_BLOCK):
            # Comments and runs of spaces can only be replaced in whole lines.
            text += self.file.readline()
            if self.layout.comments:
                text = re.sub(r"^[ \t]*[#%].*\n?", "", text, flags=re.MULTILINE)
            if not self.layout.separator:
                text = tabbed(text)
            if text:
                return text.encode()
        return b""


def _batches(path: Path, layout: TableLayout, wanted: Sequence[int], pa: Any) -> Iterator[Any]:
    """Yield batches of columns as text, so that missing values and notations are judged here and not by pyarrow."""
    names = [str(i) for i in range(len(layout.names))]
    text = _Text(path, layout)
    try:
        with pa.csv.open_csv(
            text,
            read_options=pa.csv.ReadOptions(column_names=names, block_size=8 * _BLOCK, use_threads=False),
            # A cell in quotation marks may go on over several lines.
            parse_options=pa.csv.ParseOptions(delimiter=layout.separator or "\t", newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=[str(i) for i in wanted],
                strings_can_be_null=False,
            ),
        ) as reader:
            yield from reader
    except pa.ArrowInvalid as error:
        if "Empty CSV file" in str(error):
            return
        # Messages of pyarrow count rows, so the line is looked up in the file.
        if uneven := uneven_line(path, layout):
            line, cells = uneven
            separator = {"\t": "tabs", "": "spaces"}.get(layout.separator, repr(layout.separator))
            raise DataError(
                f"cannot read {str(path)!r}: line {line} has {cells} columns, and the table has {len(names)} "
                f"(separated by {separator}); mend that line"
            ) from error
        raise
    finally:
        text.close()


def _cells(values: Any, pa: Any) -> Any:
    """Strip spaces from cells, and turn those that mean a missing value into nulls."""
    compute = pa.compute
    values = compute.utf8_trim_whitespace(values)
    is_missing = compute.is_in(values, value_set=pa.array(MISSING))
    return compute.if_else(is_missing, pa.scalar(None, pa.string()), values)


def _survey(path: Path, layout: TableLayout, pa: Any) -> tuple[list[_Column], int]:
    """Collect the facts about all columns in one pass, and count the rows."""
    columns = [_Column() for _ in layout.names]
    n = 0
    for batch in _batches(path, layout, range(len(columns)), pa):
        for i, column in enumerate(columns):
            _learn(column, _cells(batch.column(i), pa), n, pa)
        n += batch.num_rows
    return columns, n


def _learn(column: _Column, values: Any, start: int, pa: Any) -> None:
    """Add the facts from a batch of cells to those of a column."""
    compute = pa.compute
    present = len(values) - values.null_count
    column.has_missing |= values.null_count > 0
    column.cells += present
    if not present:
        return
    integers = _converted(values, "int64", pa)
    # Most columns hold plain integers: these need not be tried in every notation.
    if integers is not None:
        column.numbers += present
        ends = compute.min_max(integers).as_py()
        column.large |= ends["max"] > EXACT or ends["min"] < -EXACT
        negative = {"uint64", "bool"} if ends["min"] < 0 else set()
        unfit = {"date", *negative, *(["bool"] if ends["max"] > 1 else [])}
        column.notations = [kind for kind in column.notations if kind not in unfit]
        return
    read: dict[str, Any] = {}
    for kind in column.notations:
        # Plain numbers need no second conversion: with separated thousands they are the same.
        plain = read.get("float64") if kind == "point" else None
        read[kind] = _converted(values, kind, pa) if plain is None and kind != "int64" else plain
    column.notations = [kind for kind, numbers in read.items() if numbers is not None]
    if (comma := read.get("comma")) is not None:
        # "1,234" is 1234 with a decimal point and 1.234 with a decimal comma.
        column.ambiguous |= not comma.equals(read[column.notations[0]].cast(comma.type, safe=False))
    if (floats := read.get("float64")) is not None:
        column.numbers += present
        if max(map(abs, compute.min_max(floats).as_py().values())) > EXACT:
            # These floats are rounded already, so the digits are counted in the text.
            column.large |= bool(compute.any(compute.match_substring_regex(values, r"^[+-]?\d{16,}$")).as_py())
            # An infinity that the file names is no number too large for float64.
            named = compute.match_substring(values, "inf", ignore_case=True)
            column.beyond |= bool(compute.any(compute.and_not(compute.is_inf(floats), named)).as_py())
        return
    # Missing cells count as numbers at first, so that the search below does not find them.
    numbers = compute.fill_null(compute.match_substring_regex(values, NUMBER), True)
    column.numbers += compute.sum(numbers).as_py() - values.null_count
    if column.bad is None and (row := compute.index(numbers, False).as_py()) >= 0:
        column.bad = start + row, values[row].as_py()


def _converted(values: Any, notation: str, pa: Any) -> Any:
    """Convert cells in a notation; None where one of them is not written in it."""
    compute = pa.compute
    try:
        if notation == "date":
            # Arrow wants a type with a zone for times such as 12:00Z or 12:00+01:00, and one without for others.
            zoned = compute.all(compute.match_substring_regex(values, r"\d(Z|[+-]\d\d(:?\d\d)?)$"))
            clock = compute.all(compute.match_substring_regex(values, r"\d:\d\d"))
            return values.cast(pa.timestamp("us", "UTC" if zoned.as_py() and clock.as_py() else None))
        if notation == "bool":
            return values.cast(pa.bool_())
        if notation in ("point", "comma"):
            pattern, between = (WITH_POINT, f"[,{GROUPS}]") if notation == "point" else (WITH_COMMA, f"[.{GROUPS}]")
            if not compute.all(compute.match_substring_regex(values, pattern)).as_py():
                return None
            values = compute.replace_substring_regex(values, between, "")
            values = compute.replace_substring(values, ",", ".")
        # Arrow reads no plus sign before whole numbers.
        values = compute.replace_substring_regex(values, r"^\+", "")
        return values.cast(pa.float64() if notation in ("point", "comma") else pa.type_for_alias(notation))
    except pa.ArrowInvalid:
        return None


def _choose(columns: Sequence[_Column]) -> tuple[dict[int, str], dict[int, str]]:
    """Choose the notation of each column, or give the reason why it has none; an empty one where a cell is at fault.

    Other columns of the file decide on ambiguous numbers: ``1.234`` is 1234 if another column has ``0,5``.
    """
    plain = [c.notations for c in columns if "int64" not in c.notations]
    commas = any("comma" in kinds and not {"float64", "point"} & {*kinds} for kinds in plain)
    points = any({"float64", "point"} & {*kinds} and "comma" not in kinds for kinds in plain)
    chosen: dict[int, str] = {}
    reasons: dict[int, str] = {}
    for i, column in enumerate(columns):
        kinds = column.notations
        if not column.cells:
            reasons[i] = "it holds no value"
        elif not kinds:
            mixed = "its cells are numbers in different notations, with a decimal point and with a comma"
            reasons[i] = mixed if column.bad is None else ""
        elif column.ambiguous and "comma" in kinds and kinds[0] != "comma" and (commas or kinds[0] == "point"):
            # Other columns show neither decimal sign, or both.
            if commas == points:
                reasons[i] = "its numbers can be read in two ways, as 1,234 can mean 1234 or 1.234; write 1234 or 1.234"
            else:
                chosen[i] = "comma" if commas else kinds[0]
        else:
            chosen[i] = kinds[0]
    return chosen, reasons


def _bad_cell(column: _Column, lines: dict[int, int]) -> str:
    """Describe the first cell of a column that is no number."""
    row, text = column.bad or (0, "")
    where = f"line {lines.get(row, row)}"
    text = repr(text if len(text) <= 40 else text[:39] + "…")
    # With numbers in half of its cells, a column was meant as numbers; otherwise it holds text.
    if 2 * column.numbers >= column.cells:
        return (
            f"{where} holds {text}, which is no number ({column.cells - column.numbers:,} of {column.cells:,} "
            "cells are no numbers); correct it, or leave it empty if the value is missing"
        )
    return f"it holds text, such as {text} in {where}"


class _Values:
    """The values of the chosen columns. A pass over the file reads as many columns as fit in `HELD_BYTES`."""

    def __init__(self, path: Path, layout: TableLayout, n: int, pa: Any) -> None:
        self.path = path
        self.layout = layout
        self.n = n
        self.pa = pa
        self.kinds: dict[int, tuple[str, np.dtype[Any]]] = {}
        self.held: dict[int, NDArray[Any]] = {}

    def slabs(self, i: int) -> Callable[[int], Iterator[NDArray[Any]]]:
        """Return the function that yields the slabs of a column.

        Parameters
        ----------
        i
            Index of the column in the file.
        """
        return lambda length: self._slabs(i, length)

    def _slabs(self, i: int, length: int) -> Iterator[NDArray[Any]]:
        # A column that is too large to be held is streamed in a pass of its own.
        together = HELD_BYTES // (8 * self.n)
        if together < 2:
            return even((parts[i] for parts in self._parts([i])), length)
        if i not in self.held:
            wanted = [j for j in sorted(self.kinds) if j >= i][:together]
            self.held = {j: np.empty(self.n, self.kinds[j][1]) for j in wanted}
            start = 0
            for parts in self._parts(wanted):
                for j, values in parts.items():
                    self.held[j][start : start + len(values)] = values
                start += len(parts[i])
        return in_slabs(self.held[i])(length)

    def _parts(self, wanted: Sequence[int]) -> Iterator[dict[int, NDArray[Any]]]:
        """Read columns, batch by batch."""
        for batch in _batches(self.path, self.layout, wanted, self.pa):
            yield {j: self._numbers(batch.column(column), *self.kinds[j]) for column, j in enumerate(wanted)}

    def _numbers(self, column: Any, notation: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        values = _converted(_cells(column, self.pa), notation, self.pa)
        if values is None:
            raise DataError(f"cannot read {str(self.path)!r}: it changed while it was read")
        if notation == "date":
            values = values.cast(self.pa.int64()).fill_null(NO_DATE)
        numbers: NDArray[Any] = values.to_numpy(zero_copy_only=False)
        return numbers.astype(dtype)
