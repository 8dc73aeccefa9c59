"""Stores around stores: they repeat requests, or do without a listing."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, Store
from zarr.storage import WrapperStore

from clustering.data.store_errors import (
    ATTEMPTS_BEFORE_NOTICE,
    FIRST_WAIT,
    LONGEST_WAIT,
    MISSING_KEY,
    TRIES,
    describe_error,
    fault_of,
    is_forbidden,
    is_of_a_store,
    is_transient,
)
from clustering.errors import StoreError

logger = logging.getLogger(__name__)

T = TypeVar("T")
Request = tuple[str, ByteRequest | None]


class RetryingStore(WrapperStore[Store]):
    """Repeats requests that failed for the moment, for clients that do not repeat them by themselves."""

    def __init__(self, store: Store, where: str = "") -> None:
        super().__init__(store)
        self.where = where

    def _with_store(self, store: Store) -> RetryingStore:
        return RetryingStore(store, self.where)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Get a value.

        Parameters
        ----------
        key
            Key, counted from the root of the store.
        prototype
            Type of the buffer to return.
        byte_range
            Part of the value; all of it where None.
        """
        return await self._retry(key, lambda: self._store.get(key, prototype, byte_range))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[Request]
    ) -> list[Buffer | None]:
        """Get several values, or parts of them.

        Parameters
        ----------
        prototype
            Type of the buffers to return.
        key_ranges
            Pairs of a key and a byte range, or None for the whole value.
        """
        wanted = list(key_ranges)
        key = wanted[0][0] if wanted else ""
        return await self._retry(key, lambda: self._store.get_partial_values(prototype, wanted))

    async def exists(self, key: str) -> bool:
        """Tell whether a key exists.

        Parameters
        ----------
        key
            Key, counted from the root of the store.
        """
        return await self._retry(key, lambda: self._store.exists(key))

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        # The method of `WrapperStore` would pass by `get`, and ask the inner store itself.
        for request in requests:
            yield request[0], await self.get(*request)

    async def _retry(self, key: str, ask: Callable[[], Awaitable[T]]) -> T:
        """Send a request, and repeat it as long as its error is transient."""
        for tried in range(TRIES + 1):
            try:
                return await ask()
            # A missing key is an answer of the store.
            except MISSING_KEY:
                raise
            except Exception as error:
                if tried < TRIES and is_transient(error):
                    if tried + 1 == ATTEMPTS_BEFORE_NOTICE:
                        fault = fault_of(error, self.where)
                        logger.warning(
                            "%s, key %r: %s, %d times so far; trying on", self.where, key, fault, ATTEMPTS_BEFORE_NOTICE
                        )
                    # Random waits keep many workers from repeating their requests at the same moment.
                    await asyncio.sleep(random.random() * min(LONGEST_WAIT, FIRST_WAIT * 2**tried))
                elif is_of_a_store(error):
                    raise StoreError(describe_error(error, self.where, key)) from None
                else:
                    raise
        raise AssertionError("the last try returns or raises")


class UnlistableStore(WrapperStore[Store]):
    """A store whose keys may be read and not listed. Such a store answers 403 for keys that do not exist."""

    @property
    def supports_listing(self) -> bool:
        return False

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Get a value; None for a key that does not exist.

        Parameters
        ----------
        key
            Key, counted from the root of the store.
        prototype
            Type of the buffer to return.
        byte_range
            Part of the value; all of it where None.
        """
        try:
            return await self._store.get(key, prototype, byte_range)
        except Exception as error:
            if is_forbidden(error):
                return None
            raise

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[Request]
    ) -> list[Buffer | None]:
        """Get several values, or parts of them; None for keys that do not exist.

        Parameters
        ----------
        prototype
            Type of the buffers to return.
        key_ranges
            Pairs of a key and a byte range, or None for the whole value.
        """
        return list(await asyncio.gather(*(self.get(key, prototype, wanted) for key, wanted in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Tell whether a key exists.

        Parameters
        ----------
        key
            Key, counted from the root of the store.
        """
        try:
            return await self._store.exists(key)
        except Exception as error:
            if is_forbidden(error):
                return False
            raise

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        # The method of `WrapperStore` would pass by `get`, and ask the inner store itself.
        for request in requests:
            yield request[0], await self.get(*request)

    def list(self) -> AsyncIterator[str]:
        """Refuse to list keys."""
        raise NotImplementedError("the keys of this store may be read and not listed")

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Refuse to list keys.

        Parameters
        ----------
        prefix
            Start of the keys.
        """
        return self.list()

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Refuse to list keys.

        Parameters
        ----------
        prefix
            Path of a group or array.
        """
        return self.list()
