"""Arrays and statistics as bytes, to the last bit and without pickle.

Statistics are frozen values of arrays and numbers, nested or not. Files are those of `numpy.savez`, and reading them
never takes more memory than the file is large.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

_ON_DISK = {
    "farthest": "distant",
    "neg_expected_complete_log_likelihood": "energy",
    "zero_rows": "undirected",
}
"""Names on disk that differ from the fields of statistics, so that ledgers of earlier versions can be read."""
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?P<dtype>[<>|][a-zA-Z]\d+(?:\[\w+\])?)', "
    rb"'fortran_order': (?P<fortran>True|False), 'shape': \((?P<shape>(?:\d+(?:, ?)?)*)\), \} *\n",
    re.DOTALL,
)
"""Header that `numpy.savez` writes before the numbers of an array."""


def read_arrays(content: bytes) -> dict[str, NDArray[Any]] | None:
    """Read the arrays of an npz file by name; None where it is damaged or has another form.

    Compressed members are refused, so that a small file cannot fill the memory. Each array must fill its member.

    Parameters
    ----------
    content
        Bytes of a file that `numpy.savez` wrote.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            stored = all(m.compress_type == zipfile.ZIP_STORED and m.file_size == m.compress_size for m in members)
            # Members may overlap, so that a small file would unpack to many times its size.
            if not stored or sum(m.file_size for m in members) > len(content):
                return None
            arrays = {m.filename.removesuffix(".npy"): _array(archive.read(m)) for m in members}
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, TypeError, zipfile.BadZipFile, zlib.error):
        return None
    # Of two members with one name, the second would hide the first.
    return arrays if len(arrays) == len(members) else None


def _array(member: bytes) -> NDArray[Any]:
    """Read one array.

    The header is matched with a pattern. `numpy.load` evaluates it as Python, and Python 3.11 sometimes fails where
    several threads parse at once.
    """
    header = _HEADER.match(member)
    if header is None or header.end() != 10 + int.from_bytes(member[8:10], "little"):
        raise ValueError("the header is none that numpy.savez writes")
    dtype = np.dtype(header["dtype"].decode())
    shape = tuple(map(int, header["shape"].decode().replace(",", " ").split()))
    count = math.prod(shape)
    # Objects would need pickle, which can run any code.
    if dtype.hasobject or count * dtype.itemsize != len(member) - header.end():
        raise ValueError("the array does not fill its member")
    values = np.frombuffer(member, dtype, count, header.end())
    return values.reshape(shape, order="F" if header["fortran"] == b"True" else "C").copy(order="K")


def pack_statistics(statistics: Mapping[str, Any], **more: Any) -> bytes:
    """Write statistics as bytes: the SHA-256 of the rest, then an npz of their arrays.

    Parameters
    ----------
    statistics
        Dataclasses or named tuples of arrays, numbers and further ones, by name.
    more
        Arrays to keep beside them; their names have no dot.
    """
    arrays = {name: np.asarray(value) for name, value in more.items()}
    for name, value in statistics.items():
        arrays |= _flat(value, name)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    record = buffer.getvalue()
    return hashlib.sha256(record).digest() + record


def unpack_statistics(
    content: bytes, kinds: Mapping[str, type]
) -> tuple[tuple[Any, ...], dict[str, NDArray[Any]]] | None:
    """Read statistics that `pack_statistics` wrote; None where the bytes are damaged or a kind is missing.

    Parameters
    ----------
    content
        Bytes of `pack_statistics`.
    kinds
        Classes of the wanted statistics, by name.

    Returns
    -------
    tuple
        Statistics, in the order of `kinds`.
    dict
        The arrays that were kept beside them.
    """
    digest, record = content[:32], content[32:]
    if hashlib.sha256(record).digest() != digest:
        return None
    arrays = read_arrays(record)
    if arrays is None:
        return None
    try:
        statistics = tuple(_nested(kind, arrays, name) for name, kind in kinds.items())
    except (ValueError, KeyError):
        return None
    return statistics, {name: array for name, array in arrays.items() if "." not in name}


def _names(kind: type) -> Sequence[str]:
    return [f.name for f in fields(kind)] if is_dataclass(kind) else getattr(kind, "_fields", ())


def _defaults(kind: type) -> set[str]:
    """Name the fields that have a default."""
    return {f.name for f in fields(kind) if f.default is not MISSING} if is_dataclass(kind) else set()


def _flat(value: Any, prefix: str) -> dict[str, NDArray[Any]]:
    """Collect the arrays of a value and of the values inside it, by name with dots."""
    arrays: dict[str, NDArray[Any]] = {}
    for name in _names(type(value)):
        inner, name = getattr(value, name), _ON_DISK.get(name, name)
        arrays |= _flat(inner, f"{prefix}.{name}") if _names(type(inner)) else {f"{prefix}.{name}": np.asarray(inner)}
    return arrays


def _nested(kind: type, arrays: Mapping[str, NDArray[Any]], prefix: str) -> Any:
    """Rebuild a value of a class from its arrays."""
    hints, made = get_type_hints(kind), {}
    for name in _names(kind):
        key = f"{prefix}.{_ON_DISK.get(name, name)}"
        if _names(hints[name]):
            made[name] = _nested(hints[name], arrays, key)
            continue
        if key not in arrays and name in _defaults(kind):
            # A record of an earlier version lacks this field, so it keeps its default.
            continue
        array = arrays[key]
        # Arrays of statistics have dimensions, so a 0-d array was a plain number.
        made[name] = array.item() if array.ndim == 0 else array
    return kind(**made)
