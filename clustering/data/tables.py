"""Reading parquet tables: each column of numbers, dates or lists of one length becomes a variable along ``row``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.readers import FileContents, FileVariable, VariableGroup, missing_reader, share_dims, variable_name
from clustering.errors import DataError, SourceError

BATCH_ROWS = 65_536
"""Number of rows read at once."""
EXACT = 1 << 53
"""Up to this number, float64 represents every whole number."""
NO_DATE = np.iinfo(np.int64).min
"""Fill value of missing dates."""
_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


@dataclass
class _Column:
    """Facts about a column, collected in one read of all rows."""

    kind: Any
    """Type in Arrow."""
    position: int
    """Position in the schema. A name alone is not enough, since it may occur twice."""
    has_missing: bool = False
    empty: bool = True
    """Whether no row has a value."""
    large: bool = False
    """Whether it holds whole numbers that float64 rounds."""
    inexact: bool = False
    """Whether it holds decimals that float64 rounds."""
    length: int | None = None
    """Length of the lists; None for other columns."""
    reason: str = ""
    """Why the column is left out; empty where it is kept."""

    @property
    def rounded(self) -> bool:
        """Whether the stored values differ from those of the file by rounding."""
        # Whole numbers become float64 only where some are missing.
        return self.inexact or (self.has_missing and self.large)


def read_table(path: Path, _: ExitStack) -> FileContents:
    """Read a parquet file, or all parquet files of a folder one after the other, in the order of their names.

    Parameters
    ----------
    path
        A parquet file, or a folder.
    _
        Exit stack that every reader takes. This reader needs none, since it opens its files again for every read.

    Raises
    ------
    MissingDependencyError
        If pyarrow is not installed.
    DataError
        If there are no rows.
    SourceError
        If the folder holds no parquet file.
    """
    try:
        import pyarrow as pa
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise missing_reader("pyarrow", path) from error
    warnings: list[str] = []
    files = _files(path, warnings) if path.is_dir() else [path]
    with pa.parquet.ParquetFile(files[0]) as file:
        schema = file.schema_arrow
    columns = [_Column(kind.type, i, reason=_reason(kind.type, pa)) for i, kind in enumerate(schema)]
    if path.is_dir():
        _compare(files, schema, columns, warnings, pa)
    n = _survey(files, schema.names, columns, pa)
    if not n:
        raise DataError(f"{str(path)!r} holds no rows")
    pieces: list[FileVariable] = []
    lengths: dict[str, int] = {}
    for name, column in zip(schema.names, columns, strict=True):
        if not column.reason and column.empty:
            column.reason = "it holds no value"
        if column.reason:
            warnings.append(f"column {name!r} is left out: {column.reason}")
            continue
        if column.rounded:
            warnings.append(f"column {name!r} is rounded: it is kept as float64, which holds 15 to 17 digits")
        variable = variable_name(name, {piece.name for piece in pieces})
        if schema.names.index(name) != column.position:
            warnings.append(
                f"column {column.position + 1} is named {name!r} as an earlier one is; it becomes {variable!r}"
            )
        elif variable != name:
            warnings.append(f"column {name!r} becomes variable {variable!r}")
        inner = () if column.length is None else (column.length,)
        dtype, attributes = _numpy_type(column, pa)
        dims = ("row", *share_dims(("feature",)[: len(inner)], inner, variable, lengths))
        slabs = _slabs(files, name, schema.names[: column.position].count(name), dtype, inner, pa)
        pieces.append(FileVariable(variable, dims, (n, *inner), dtype, slabs, attributes))
    return FileContents({"": VariableGroup(pieces, {"title": path.name})}, warnings)


def _files(folder: Path, warnings: list[str]) -> list[Path]:
    """Find the parquet files below a folder. Like pyarrow, skip names that start with a dot or an underscore."""
    files: list[Path] = []
    others: list[str] = []
    # Rows must not depend on the order in which a disk lists its files.
    for path in sorted(folder.rglob("*"), key=lambda path: path.parts):
        inside = path.relative_to(folder)
        if not path.is_file() or any(part.startswith((".", "_")) for part in inside.parts):
            continue
        if path.suffix.lower() in (".parquet", ".pq"):
            files.append(path)
        else:
            others.append(inside.as_posix())
    if not files:
        raise SourceError(f"{str(folder)!r} is a folder without a parquet file; name a file, or a folder of such files")
    if others:
        warnings.append(
            f"{others[0]!r} and other files are left out: they are no parquet files"
            if others[1:]
            else f"{others[0]!r} is left out: it is no parquet file"
        )
    # Hive partitions store the values of a column in folder names, such as year=2020.
    parts = (part for path in files for part in path.relative_to(folder).parts[:-1] if "=" in part)
    warnings.extend(
        f"column {name!r} is left out: it is in the names of folders alone"
        for name in dict.fromkeys(part.split("=")[0] for part in parts)
    )
    return files


def _compare(files: Sequence[Path], schema: Any, columns: list[_Column], warnings: list[str], pa: Any) -> None:
    """Leave out columns that are missing or have another type in some file."""
    for path in files[1:]:
        with pa.parquet.ParquetFile(path) as file:
            other = file.schema_arrow
        for column, name in zip(columns, schema.names, strict=True):
            kinds = [kind.type for kind in other if kind.name == name]
            same = schema.names.count(name)
            if len(kinds) != same:
                column.reason = column.reason or f"{path.name!r} has no such column"
            elif kinds[schema.names[: column.position].count(name)] != column.kind:
                column.reason = column.reason or f"it has type {column.kind}, and in {path.name!r} {kinds[0]}"
        warnings.extend(
            f"column {name!r} of {path.name!r} is left out: {files[0].name!r} has no such column"
            for name in other.names
            if name not in schema.names
        )


def _element(kind: Any, pa: Any) -> Any:
    """Give the type of the elements of a list type; None for other types."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return kind.value_type
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return kind.value_type if any(is_kind(kind) for is_kind in lists) else None


def _reason(kind: Any, pa: Any) -> str:
    """Say why a type cannot be stored as numbers; an empty text where it can."""
    types = pa.types
    element = _element(kind, pa)
    if element is not None:
        numbers = types.is_integer(element) or types.is_floating(element) or types.is_boolean(element)
        return "" if numbers or types.is_decimal(element) else f"it holds lists of {_plain_words(element, pa)}"
    if types.is_dictionary(kind):
        return _reason(kind.value_type, pa).replace("it holds text", "it holds categories of text")
    taken = (
        types.is_integer,
        types.is_floating,
        types.is_boolean,
        types.is_decimal,
        types.is_date,
        types.is_timestamp,
        types.is_time,
        types.is_duration,
    )
    return "" if any(is_kind(kind) for is_kind in taken) else f"it holds {_plain_words(kind, pa)}"


def _plain_words(kind: Any, pa: Any) -> str:
    """Describe a type that is left out, for a warning."""
    types = pa.types
    if types.is_struct(kind):
        fields = ", ".join(repr(part.name) for part in kind)
        return f"records (with {fields}); write each of their fields as a column"
    words = {
        "text": ("is_string", "is_large_string", "is_string_view"),
        "bytes": ("is_binary", "is_large_binary", "is_fixed_size_binary", "is_binary_view"),
        "maps": ("is_map",),
        "lists": ("is_list", "is_large_list", "is_fixed_size_list"),
        "no value": ("is_null",),
    }
    return next((word for word, tests in words.items() if any(getattr(types, t)(kind) for t in tests)), str(kind))


def _batches(files: Sequence[Path], columns: list[str] | None, pa: Any) -> Iterator[Any]:
    """Read columns of all files, batch by batch."""
    for path in files:
        with pa.parquet.ParquetFile(path) as file:
            yield from file.iter_batches(BATCH_ROWS, columns=columns)


def _survey(files: Sequence[Path], names: list[str], columns: list[_Column], pa: Any) -> int:
    """Read all rows once to collect facts about the columns, and return the number of rows."""
    compute = pa.compute
    wanted = sorted({names[column.position] for column in columns if not column.reason})
    n = 0
    for path in files:
        with pa.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=wanted):
                for column in columns:
                    if not column.reason:
                        values = _chosen(
                            batch, names[column.position], names[: column.position].count(names[column.position])
                        )
                        _learn(column, values, n, compute, pa)
                n += batch.num_rows
            # Without columns to read, there are no batches whose rows could be counted.
            if not wanted:
                n += file.metadata.num_rows
    return n


def _chosen(batch: Any, name: str, before: int) -> Any:
    """Give the column of a batch with this name that comes after `before` others of the same name."""
    # Arrow refuses to find a name that occurs twice, so the column is found by position.
    return batch.column([i for i, other in enumerate(batch.schema.names) if other == name][before])


def _learn(column: _Column, values: Any, start: int, compute: Any, pa: Any) -> None:
    """Add the facts from one batch to a column."""
    values = _flat(values, pa)
    if _element(column.kind, pa) is not None:
        counts = compute.unique(compute.list_value_length(values).drop_null()).to_pylist()
        if column.length is None and counts:
            column.length = counts[0]
        if other := next((count for count in counts if count != column.length), None):
            row = start + compute.index(compute.list_value_length(values), other).as_py()
            column.reason = (
                f"its lists have different lengths: row {row} holds {other} numbers, another one {column.length}"
            )
            return
        column.has_missing |= values.null_count > 0
        # The line above counts missing lists, because flatten leaves them out.
        values = values.flatten()
    column.has_missing |= values.null_count > 0
    column.empty &= values.null_count == len(values)
    if len(values) == values.null_count:
        return
    if pa.types.is_decimal(values.type):
        column.inexact |= not _exact(values, compute, pa)
    elif pa.types.is_integer(values.type):
        ends = compute.min_max(values).as_py()
        column.large |= ends["max"] > EXACT or ends["min"] < -EXACT


def _flat(values: Any, pa: Any) -> Any:
    """Unwrap the values of extension and dictionary types."""
    if isinstance(values.type, pa.BaseExtensionType):
        values = values.storage
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def _exact(values: Any, compute: Any, pa: Any) -> bool:
    """Tell whether decimals survive the conversion to float64 and back."""
    try:
        back = values.cast(pa.float64()).cast(values.type)
    except pa.ArrowInvalid:
        return False
    return bool(compute.all(compute.equal(back, values)).as_py())


def _numpy_type(column: _Column, pa: Any) -> tuple[np.dtype[Any], dict[str, Any]]:
    """Choose the type and the attributes of a variable. Integers and booleans with missing values become float64."""
    types = pa.types
    kind = _element(column.kind, pa) or column.kind
    kind = kind.value_type if types.is_dictionary(kind) else kind
    # float64 rounds nanoseconds since 1970, so dates stay integers and have a fill value.
    fill = {"_FillValue": NO_DATE} if column.has_missing else {}
    if types.is_date(kind):
        return np.dtype(np.int64), {"units": "days since 1970-01-01", "calendar": "proleptic_gregorian", **fill}
    if types.is_timestamp(kind):
        # Arrow stores times with a zone as times in UTC.
        zone = {"time_zone": kind.tz, "long_name": "time in UTC"} if kind.tz else {}
        unit = f"{_UNITS[kind.unit]} since 1970-01-01"
        return np.dtype(np.int64), {"units": unit, "calendar": "proleptic_gregorian", **zone, **fill}
    if types.is_time(kind) or types.is_duration(kind):
        return np.dtype(np.float64 if column.has_missing else np.int64), {"units": kind.unit}
    if types.is_decimal(kind):
        return np.dtype(np.float64), {}
    if column.has_missing and not types.is_floating(kind):
        return np.dtype(np.float64), {}
    return np.dtype(kind.to_pandas_dtype()), {}


def _slabs(
    files: Sequence[Path],
    name: str,
    before: int,
    dtype: np.dtype[Any],
    inner: tuple[int, ...],
    pa: Any,
) -> Callable[[int], Iterator[NDArray[Any]]]:
    """Make the function `FileVariable.slabs` for a column; see `_chosen` for `before`."""

    def parts() -> Iterator[NDArray[Any]]:
        for batch in _batches(files, [name], pa):
            values = _flat(_chosen(batch, name, before), pa)
            if not inner:
                yield _numbers(values, dtype, pa)
                continue
            # A row without a list becomes a row of NaN.
            rows = np.full((len(values), *inner), np.nan if dtype.kind == "f" else 0, dtype)
            rows[~values.is_null().to_numpy(zero_copy_only=False)] = _numbers(
                values.drop_null().flatten(), dtype, pa
            ).reshape(-1, *inner)
            yield rows

    return lambda length: even(parts(), length)


def even(parts: Iterator[NDArray[Any]], length: int) -> Iterator[NDArray[Any]]:
    """Cut arrays of any lengths into slabs whose lengths are multiples of `length`. The last slab holds the rest.

    Parameters
    ----------
    parts
        Arrays that follow each other along the first dimension.
    length
        Length of a chunk along the first dimension.
    """
    kept: list[NDArray[Any]] = []
    for part in parts:
        kept.append(part)
        if sum(map(len, kept)) >= length:
            joined = np.concatenate(kept)
            # Slabs are whole chunks, so that no chunk is written twice.
            cut = len(joined) - len(joined) % length
            yield joined[:cut]
            kept = [joined[cut:]]
    if kept:
        yield np.concatenate(kept)


def _numbers(values: Any, dtype: np.dtype[Any], pa: Any) -> NDArray[Any]:
    """Convert values to numbers. Missing ones become NaN, or the fill value of dates."""
    types = pa.types
    # Dates and times are converted to the integers that Arrow stores for them.
    if types.is_date(values.type):
        values = values.cast(pa.date32()).cast(pa.int32()).cast(pa.int64())
    elif types.is_timestamp(values.type) or types.is_duration(values.type) or types.is_time64(values.type):
        values = values.cast(pa.int64())
    elif types.is_time32(values.type):
        # Arrow casts types of 32 bits only to integers of 32 bits.
        values = values.cast(pa.int32()).cast(pa.int64())
    elif types.is_decimal(values.type):
        values = values.cast(pa.float64())
    if dtype == np.int64 and values.null_count:
        values = values.fill_null(NO_DATE)
    numbers: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return numbers.astype(dtype)
