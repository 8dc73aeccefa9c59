"""Listings: the chunks that an array has in its store, read from the names of its keys, and changes of them."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.data import stores
from clustering.deferred import zarr

_NUMBERS = re.compile(r"(?:c[/.])?(\d+(?:[/.]\d+)*)|c")
"""Keys of chunks, such as ``c/0/1`` or ``0.1``; ``c`` alone is the chunk of an array without dimensions."""


class Listing(NamedTuple):
    """The keys of an array at one time."""

    metadata: str
    """JSON of the array's metadata."""
    grid: tuple[int, ...]
    """Number of chunks along each dimension; of shards where there are shards."""
    chunks: NDArray[np.int64]
    """Flat numbers ``(t,)`` on the grid of the present chunks, ascending."""
    versions: NDArray[np.uint64]
    """Digests ``(t,)`` that change when a chunk is written again: of its size and time, or of the tag of the store."""
    complete: bool = True
    """False where the store cannot list. Then nothing is known about the chunks."""
    size: int = 0
    """Stored size of all present chunks, in bytes."""

    @property
    def digest(self) -> bytes:
        """Digest of the metadata, the chunks and their versions."""
        sha256 = hashlib.sha256(self.metadata.encode())
        sha256.update(np.ascontiguousarray(self.chunks).tobytes())
        sha256.update(np.ascontiguousarray(self.versions).tobytes())
        return sha256.digest()


def key_shape(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Give the lengths of the shard, or of the chunk where there are no shards, which one key of the store holds.

    Parameters
    ----------
    array
        A stored array.
    """
    return tuple(array.shards or array.chunks)


def chunk_index(key: str, path: str, grid: tuple[int, ...]) -> tuple[int, ...] | None:
    """Read the index of a chunk from its key; None for any other key.

    Parameters
    ----------
    key
        Key in the store, counted from its root.
    path
        Path of the array in the store.
    grid
        Number of chunks along each dimension.
    """
    numbers = _NUMBERS.fullmatch(key.removeprefix(path).lstrip("/"))
    if numbers is None:
        return None
    index = tuple(map(int, re.split("[/.]", numbers[1]))) if numbers[1] else (0,) * len(grid)
    # Arrays that were made smaller may have kept chunks outside the grid. An array without dimensions has one chunk.
    inside = len(index) == max(1, len(grid)) and all(i < n for i, n in zip(index, grid, strict=False))
    return index if inside else None


def list_keys(array: zarr.Array[Any]) -> Listing:
    """List the keys of an array.

    Parameters
    ----------
    array
        A stored array.

    Returns
    -------
    Listing
        Not complete where the store cannot list.
    """
    grid = tuple(-(-n // c) for n, c in zip(array.shape, key_shape(array), strict=True))
    metadata = json.dumps(array.metadata.to_dict(), default=str, sort_keys=True)
    indices, versions, total = [], [], 0
    path = array.path
    entries = stores.entries(array.store_path.store, path)
    if entries is None:
        return Listing(metadata, grid, np.empty(0, np.int64), np.empty(0, np.uint64), complete=False)
    for entry in entries:
        # Some stores give no version. A new size shows most changes there.
        version = f"{entry.size} {entry.version}".encode()
        index = chunk_index(entry.key, path, grid)
        if index is not None:
            indices.append(int(np.ravel_multi_index(index, grid)) if grid else 0)
            versions.append(int.from_bytes(hashlib.blake2b(version, digest_size=8).digest(), "little"))
            total += entry.size
    chunks = np.array(indices, np.int64)
    # Keys are sorted as text, in which c/10 comes before c/2.
    order = np.argsort(chunks, kind="stable")
    return Listing(metadata, grid, chunks[order], np.array(versions, np.uint64)[order], size=total)


@dataclass(frozen=True, eq=False)
class AbsentChunks:
    """The chunks of an array that were never written."""

    unit: tuple[int, ...]
    """Lengths of a chunk."""
    grid: tuple[int, ...]
    """Number of chunks along each dimension."""
    present: NDArray[np.int64]
    """Flat numbers of the present chunks, ascending."""

    def mask(self, chunks: Sequence[NDArray[np.int64]]) -> NDArray[np.bool_]:
        """Find which chunks of a selection are absent.

        Parameters
        ----------
        chunks
            Chunk numbers ``(t_0,)``, ``(t_1,)``, … along each dimension. The selection is their outer product.

        Returns
        -------
        ndarray
            True for absent chunks ``(t_0, t_1, …)``.
        """
        flat = np.ravel_multi_index(np.ix_(*chunks), self.grid)
        if not len(self.present):
            return np.ones(flat.shape, bool)
        at = np.searchsorted(self.present, flat)
        # Numbers beyond the last present chunk equal no chunk, so any valid position serves for them.
        at[at == len(self.present)] = 0
        return np.asarray(self.present[at] != flat)

    def count(self, chunks: Sequence[NDArray[np.int64]]) -> int:
        """Count the absent chunks of a selection.

        Parameters
        ----------
        chunks
            Chunk numbers ``(t_0,)``, ``(t_1,)``, … along each dimension.
        """
        # The loop runs over present chunks alone, since the outer product may be very large.
        inside = np.ones(len(self.present), bool)
        for index, wanted, length in zip(np.unravel_index(self.present, self.grid), chunks, self.grid, strict=True):
            asked = np.zeros(length, bool)
            asked[wanted] = True
            inside &= asked[index]
        return math.prod(map(len, chunks)) - int(inside.sum())

    def first(self, chunks: Sequence[NDArray[np.int64]]) -> tuple[int, ...]:
        """Find the first absent chunk of a selection that has one.

        Parameters
        ----------
        chunks
            Chunk numbers ``(t_0,)``, ``(t_1,)``, … along each dimension.
        """
        if len(chunks) > 1:
            # A mask of the whole selection may be too large for memory: it is made for one slab that has some.
            for number in chunks[0]:
                rest = (np.array([number]), *chunks[1:])
                if self.count(rest):
                    break
            chunks = rest
        index = np.argwhere(self.mask(chunks))[0]
        return tuple(int(c[i]) for c, i in zip(chunks, index, strict=True))


def describe_changes(before: Listing, after: Listing | None, name: str) -> str | None:
    """Say how an array has changed, in words; None where it has not.

    Parameters
    ----------
    before
        Listing at an earlier time.
    after
        Listing now; None where the array is gone.
    name
        Name of the variable.
    """
    if after is None or after.metadata != before.metadata:
        return f"the metadata of variable {name!r}"
    both, old, new = np.intersect1d(before.chunks, after.chunks, assume_unique=True, return_indices=True)
    kinds = {
        "was removed": np.setdiff1d(before.chunks, after.chunks, assume_unique=True),
        "was added": np.setdiff1d(after.chunks, before.chunks, assume_unique=True),
        "was written anew": both[before.versions[old] != after.versions[new]],
    }
    for what, chunks in kinds.items():
        if len(chunks):
            index = ", ".join(str(i) for i in np.unravel_index(int(chunks[0]), before.grid or (1,)))
            others = sum(map(len, kinds.values())) - 1
            more = f", and {others} other{'s' * (others > 1)} changed" if others else ""
            return f"chunk ({index}) of variable {name!r} {what}{more}"
    return None
