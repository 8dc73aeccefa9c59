"""A store that is not asked for chunks that are known to be absent."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.array import AsyncArray
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import StorePath, WrapperStore

from clustering.data.listing import AbsentChunks, chunk_index


class _SparingStore(WrapperStore[Store]):
    """Answers for the absent chunks of one array by itself: a request that is spared is a way to a bucket and back."""

    def __init__(self, store: Store, path: str, absent: AbsentChunks) -> None:
        super().__init__(store)
        self.path, self.absent = path, absent

    def _with_store(self, store: Store) -> _SparingStore:
        return _SparingStore(store, self.path, self.absent)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        index = chunk_index(key, self.path, self.absent.grid)
        if index is not None and self.absent.mask([np.array([i]) for i in index]).all():
            return None
        return await self._store.get(key, prototype, byte_range)


def without_absent(array: zarr.Array[Any], absent: AbsentChunks) -> zarr.Array[Any]:
    """Give a twin of an array that reads fill values where chunks are absent, and asks for the others alone."""
    inner = array.store_path
    store = _SparingStore(inner.store, inner.path, absent)
    twin: AsyncArray[Any] = AsyncArray(array.metadata, StorePath(store, inner.path))
    return zarr.Array(twin)
