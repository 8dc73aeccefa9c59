"""Reads npz files of `numpy.savez`, and never takes more memory than the file is large."""

from __future__ import annotations

import io
import math
import re
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
            if not stored or sum(m.file_size for m in members) > len(content):
                return None
            arrays = {m.filename.removesuffix(".npy"): _array(archive.read(m)) for m in members}
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, TypeError, zipfile.BadZipFile, zlib.error):
        return None
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
