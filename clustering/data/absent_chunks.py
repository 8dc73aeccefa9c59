"""Reading an array without requests for its absent chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from zarr import AsyncArray
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, Store
from zarr.storage import StorePath, WrapperStore

from clustering.data.listing import AbsentChunks, chunk_index


class _SparingStore(WrapperStore[Store]):
    """Returns nothing for the absent chunks of one array. This saves a request to a bucket for each of them."""

    def __init__(self, store: Store, path: str, absent: AbsentChunks) -> None:
        super().__init__(store)
        self.path, self.absent = path, absent

    def _with_store(self, store: Store) -> _SparingStore:
        return _SparingStore(store, self.path, self.absent)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        # Keys of metadata and of other arrays have no index, and go to the store.
        index = chunk_index(key, self.path, self.absent.grid)
        if index is not None and self.absent.mask([np.array([i]) for i in index]).all():
            return None
        return await self._store.get(key, prototype, byte_range)


def without_absent(array: zarr.Array[Any], absent: AbsentChunks) -> zarr.Array[Any]:
    """Return the same array over a store that is asked only for chunks that are there.

    Absent chunks read as the fill value.

    Parameters
    ----------
    array
        Zarr array to wrap; it stays as it is.
    absent
        Its absent chunks, from a complete listing.
    """
    inner = array.store_path
    store = _SparingStore(inner.store, inner.path, absent)
    # The metadata are at hand, so opening the array anew would only cost requests.
    twin: AsyncArray[Any] = AsyncArray(array.metadata, StorePath(store, inner.path))
    return zarr.Array(twin)
