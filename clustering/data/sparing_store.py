"""A store around a store that is asked for no absent chunk."""

from __future__ import annotations

import numpy as np
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, Store
from zarr.storage import WrapperStore

from clustering.data.listing import AbsentChunks, chunk_index


class SparingStore(WrapperStore[Store]):
    """Returns nothing for the absent chunks of one array. This saves a request to a bucket for each of them."""

    def __init__(self, store: Store, path: str, absent: AbsentChunks) -> None:
        super().__init__(store)
        self.path, self.absent = path, absent

    def _with_store(self, store: Store) -> SparingStore:
        return SparingStore(store, self.path, self.absent)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Get a value; None for an absent chunk.

        Parameters
        ----------
        key
            Key, counted from the root of the store.
        prototype
            Type of the buffer to return.
        byte_range
            Part of the value; all of it where None.
        """
        # Keys of metadata and of other arrays have no index, and go to the store.
        index = chunk_index(key, self.path, self.absent.grid)
        if index is not None and self.absent.mask([np.array([i]) for i in index]).all():
            return None
        return await self._store.get(key, prototype, byte_range)
