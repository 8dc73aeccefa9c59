"""Errors of stores: which requests are tried again, which answers mean a missing key, and one-line messages."""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, Store
from zarr.storage import WrapperStore

from clustering.errors import ClusteringError, StoreError

TRIES = 8
"""How often a failed request is repeated, by any client. A store that always fails is given up after about 15 s."""
FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0
"""Longest wait in seconds before the first repeat, and before any repeat. In between it doubles every time."""
ATTEMPTS_BEFORE_NOTICE = 4
"""Number of failed tries after which a warning is logged."""

logger = logging.getLogger(__name__)

T = TypeVar("T")
Request = tuple[str, ByteRequest | None]

_MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
"""Errors that mean that a key does not exist."""
_REMOTE = ("obstore", "botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "requests", "urllib3", "fsspec")
"""Packages whose errors come from a store."""
_PLAIN = ("builtins", "asyncio", "socket", "ssl", "http", "urllib")
"""Modules of Python whose errors come from files and connections."""
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_KEY = re.compile(r"for path (\S+): |Object at location (\S+) not found|Error performing \w+ \w+://[^/\s]+/(\S+) in ")
_WORDS = {
    401: "not authenticated",
    403: "permission denied",
    404: "not found",
    429: "too many requests",
    500: "internal error",
    503: "slow down",
}
_UNKNOWN, _ELSEWHERE = "no credentials were found", "the bucket is in another region"
_REMEDIES = {
    301: "set AWS_REGION to the region of the bucket",
    400: "check the credentials and the region",
    401: "check the credentials",
    403: "check the credentials and their permissions",
    404: "check the URL",
    _UNKNOWN: "set them in the environment, or storage_options {anon: true} for a public store",
    _ELSEWHERE: "set AWS_REGION to its region",
}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error and the errors that caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def http_status(error: BaseException) -> int | None:
    """Find the HTTP status behind an error of obstore, s3fs, gcsfs or aiohttp; None where there was no answer.

    Parameters
    ----------
    error
        Any error of reading or writing a store.
    """
    for link in _chain(error):
        answer = getattr(link, "response", None)
        code = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
        # Errors of aiohttp and of gcsfs. Other errors use these attributes for something else.
        held = {"ClientResponseError": "status", "HttpError": "code"}.get(type(link).__name__)
        for number in (code, getattr(link, held, None) if held else None):
            if str(number).isdigit():
                return int(str(number))
        match = _STATUS.search(str(link))
        if match:
            return int(match[1])
        if isinstance(link, PermissionError):
            return 403
    return None


def s3_error_code(error: BaseException) -> str:
    """Find the error code of S3, such as ``NoSuchBucket``; empty where there is none.

    Parameters
    ----------
    error
        Any error of reading or writing a store.
    """
    for link in _chain(error):
        answer = getattr(link, "response", None)
        if isinstance(answer, dict) and answer.get("Error", {}).get("Code"):
            return str(answer["Error"]["Code"])
        match = _CODE.search(str(link))
        if match:
            return match[1]
    return ""


def is_forbidden(error: BaseException) -> bool:
    """Tell whether a store denied access to a key, rather than rejected unknown credentials.

    Parameters
    ----------
    error
        Any error of reading or writing a store.
    """
    return http_status(error) == 403 and s3_error_code(error) in ("", "AccessDenied", "403", "Forbidden")


def _of_a_store(error: BaseException) -> bool:
    """Tell whether an error comes from a store, a file or a connection."""
    origin = type(error).__module__.split(".")[0]
    # Some decoders, such as gzip, raise an OSError of their own for damaged data.
    return origin in _REMOTE or (isinstance(error, (OSError, asyncio.TimeoutError)) and origin in _PLAIN)


def is_transient(error: BaseException) -> bool:
    """Tell whether the next try may succeed, as after 5xx, 408, 429, timeouts and cut connections.

    Parameters
    ----------
    error
        Any error of reading or writing a store.
    """
    status = http_status(error)
    if status is not None:
        return status >= 500 or status in (408, 429)
    # Credentials that are missing stay missing. Other errors without a status come from the connection.
    return _of_a_store(error) and "Credentials" not in type(error).__name__


def describe_error(error: BaseException, where: str, key: str | None = None, doing: str = "read") -> str:
    """Describe an error of a store in one line. The answer is not quoted, since it may hold credentials.

    Parameters
    ----------
    error
        The error.
    where
        URL of the store without secrets.
    key
        Requested key; taken from the error where None.
    doing
        The failed action, such as ``read`` or ``write to``.
    """
    if key is None:
        match = _KEY.search(str(error))
        key = next((part for part in match.groups() if part), None) if match else None
    # The query of a signed URL holds a secret.
    key = key.partition("?")[0] if key else None
    fault = _fault(error, where)
    remedy = _REMEDIES.get(http_status(error) or fault, "check the network and the endpoint, and run the job again")
    if "://" not in where:
        remedy = "check the disk and the permissions of the files"
    return f"cannot {doing} {where}{f', key {key!r}' if key else ''}: {fault}; {remedy}"


def _fault(error: BaseException, where: str) -> str:
    """Name the fault behind an error in a few words."""
    number, word = http_status(error), s3_error_code(error)
    if number is not None:
        word = _WORDS.get(number, "") if word in ("", str(number)) else word
        return f"{number} {word}".rstrip()
    names = " ".join(type(link).__name__ for link in _chain(error))
    if isinstance(error, OSError) and error.strerror and "://" not in where:
        return error.strerror.lower()
    if "Credentials" in names:
        return _UNKNOWN
    if "redirect" in str(error):
        return _ELSEWHERE
    return "no answer in time" if "Timeout" in names or "timed out" in str(error) else "no answer"


@contextmanager
def translate_errors(where: str, but: tuple[type[Exception], ...] = (), doing: str = "read") -> Iterator[None]:
    """Turn errors of a store in the body into a StoreError with a one-line message.

    Parameters
    ----------
    where
        URL of the store without secrets.
    but
        Types of errors that are raised unchanged.
    doing
        The failed action, such as ``read`` or ``write to``.

    Raises
    ------
    StoreError
        For an error of a store. Errors of this library and of other code are raised unchanged.
    """
    try:
        yield
    except ClusteringError:
        raise
    except Exception as error:
        if isinstance(error, but) or not _of_a_store(error):
            raise
        # A chained error would show the answer of the store, which may hold credentials.
        raise StoreError(describe_error(error, where, doing=doing)) from None


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
            except _MISSING:
                raise
            except Exception as error:
                if tried < TRIES and is_transient(error):
                    if tried + 1 == ATTEMPTS_BEFORE_NOTICE:
                        fault = _fault(error, self.where)
                        logger.warning(
                            "%s, key %r: %s, %d times so far; trying on", self.where, key, fault, ATTEMPTS_BEFORE_NOTICE
                        )
                    # Random waits keep many workers from repeating their requests at the same moment.
                    await asyncio.sleep(random.random() * min(LONGEST_WAIT, FIRST_WAIT * 2**tried))
                elif _of_a_store(error):
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
