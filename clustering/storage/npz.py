"""Reading what `numpy.savez` wrote, and nothing that takes more memory than is stored."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray


def arrays_of(content: bytes) -> dict[str, NDArray[Any]] | None:
    """Read the arrays of an npz file by name; None where it is damaged, or not as `numpy.savez` writes it.

    Members are stored as they are, so that all of them together are no larger than the file; and each array fills its
    member.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            stored = all(m.compress_type == zipfile.ZIP_STORED and m.file_size == m.compress_size for m in members)
            if not stored or sum(m.file_size for m in members) > len(content):
                return None
            found = {m.filename.removesuffix(".npy"): _array(archive.read(m)) for m in members}
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, SyntaxError, zipfile.BadZipFile, zlib.error):
        return None
    return found if len(found) == len(members) else None


def _array(member: bytes) -> NDArray[Any]:
    file = io.BytesIO(member)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(file)]
    shape, _, dtype = read(file)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(member) - file.tell():
        raise ValueError("the array does not fill its member")
    return np.asarray(np.load(io.BytesIO(member), allow_pickle=False))
