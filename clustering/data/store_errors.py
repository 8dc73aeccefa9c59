"""What stores answer when they fail: what is tried again, what means missing, and what is told in one line."""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from clustering.errors import ClusteringError, StoreError

TRIES = 8
"""How often a request is tried again, whatever speaks to the store: about 15 seconds of a store that fails always."""
FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0
"""Seconds before the second try, at most; they double with every try up to the longest."""
ATTEMPTS_BEFORE_NOTICE = 4
"""Tries after which it is worth telling."""

logger = logging.getLogger(__name__)

T = TypeVar("T")
Request = tuple[str, ByteRequest | None]

_MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_REMOTE = ("obstore", "botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "requests", "urllib3", "fsspec")
"""Packages whose errors tell of a store."""
_PLAIN = ("builtins", "asyncio", "socket", "ssl", "http", "urllib")
"""Where the errors of files and connections come from in Python itself."""
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
    403: "check the credentials and what they allow",
    404: "check the URL",
    _UNKNOWN: "set them in the environment, or storage_options {anon: true} for a public store",
    _ELSEWHERE: "set AWS_REGION to its region",
}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def http_status(error: BaseException) -> int | None:
    """Tell the HTTP status behind an error of obstore, s3fs, gcsfs or aiohttp; None where there was no answer."""
    for link in _chain(error):
        answer = getattr(link, "response", None)
        code = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
        # Of aiohttp and of gcsfs; other errors have attributes of these names that mean something else.
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
    """Tell the word by which S3 names a fault, such as ``NoSuchBucket``; empty where there is none."""
    for link in _chain(error):
        answer = getattr(link, "response", None)
        if isinstance(answer, dict) and answer.get("Error", {}).get("Code"):
            return str(answer["Error"]["Code"])
        match = _CODE.search(str(link))
        if match:
            return match[1]
    return ""


def is_forbidden(error: BaseException) -> bool:
    """Tell whether a store answered 403 to a key, rather than to credentials it does not know."""
    return http_status(error) == 403 and s3_error_code(error) in ("", "AccessDenied", "403", "Forbidden")


def _of_a_store(error: BaseException) -> bool:
    origin = type(error).__module__.split(".")[0]
    # A decoder may raise an OSError of its own, as gzip does.
    return origin in _REMOTE or (isinstance(error, (OSError, asyncio.TimeoutError)) and origin in _PLAIN)


def is_transient(error: BaseException) -> bool:
    """Tell whether an error may be gone at the next try: 5xx, 429, timeouts and cut connections."""
    status = http_status(error)
    if status is not None:
        return status >= 500 or status in (408, 429)
    return _of_a_store(error) and "Credentials" not in type(error).__name__


def describe_error(error: BaseException, where: str, key: str | None = None, doing: str = "read") -> str:
    """Say in one line what a store answered: nothing of the answer itself, which may tell credentials.

    Parameters
    ----------
    where
        URL of the store, fit to be shown.
    key
        Key that was asked for; found in the error where None.
    doing
        What failed: ``read``, or ``write to``.
    """
    if key is None:
        match = _KEY.search(str(error))
        key = next((part for part in match.groups() if part), None) if match else None
    key = key.partition("?")[0] if key else None
    fault = _fault(error, where)
    remedy = _REMEDIES.get(http_status(error) or fault, "check the network and the endpoint, and run the job again")
    if "://" not in where:
        remedy = "check the disk and what may be read there"
    return f"cannot {doing} {where}{f', key {key!r}' if key else ''}: {fault}; {remedy}"


def _fault(error: BaseException, where: str) -> str:
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
    """Turn what a store answers into one line.

    Parameters
    ----------
    where
        URL of the store, fit to be shown.
    but
        Errors that pass as they are.
    doing
        See `describe_error`.

    Raises
    ------
    StoreError
        For an error of a store that is not one of this library already.
    """
    try:
        yield
    except ClusteringError:
        raise
    except Exception as error:
        if isinstance(error, but) or not _of_a_store(error):
            raise
        # The answer itself, which a chained error would show, may tell the credentials.
        raise StoreError(describe_error(error, where, doing=doing)) from None


class RetryingStore(WrapperStore[Store]):
    """Tries again what fails for the moment, for stores whose own client does not."""

    def __init__(self, store: Store, where: str = "") -> None:
        super().__init__(store)
        self.where = where

    def _with_store(self, store: Store) -> RetryingStore:
        return RetryingStore(store, self.where)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        return await self._retry(key, lambda: self._store.get(key, prototype, byte_range))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[Request]
    ) -> list[Buffer | None]:
        wanted = list(key_ranges)
        key = wanted[0][0] if wanted else ""
        return await self._retry(key, lambda: self._store.get_partial_values(prototype, wanted))

    async def exists(self, key: str) -> bool:
        return await self._retry(key, lambda: self._store.exists(key))

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        for request in requests:
            yield request[0], await self.get(*request)

    async def _retry(self, key: str, ask: Callable[[], Awaitable[T]]) -> T:
        for tried in range(TRIES + 1):
            try:
                return await ask()
            except _MISSING:
                raise
            except Exception as error:
                if tried < TRIES and is_transient(error):
                    if tried + 1 == ATTEMPTS_BEFORE_NOTICE:
                        fault = _fault(error, self.where)
                        logger.warning(
                            "%s, key %r: %s, %d times so far; trying on", self.where, key, fault, ATTEMPTS_BEFORE_NOTICE
                        )
                    # Jitter keeps many workers from asking again in step.
                    await asyncio.sleep(random.random() * min(LONGEST_WAIT, FIRST_WAIT * 2**tried))
                elif _of_a_store(error):
                    raise StoreError(describe_error(error, self.where, key)) from None
                else:
                    raise
        raise AssertionError("the last try returns or raises")


class UnlistableStore(WrapperStore[Store]):
    """A store that answers 403 for keys that are not there, as its keys may be read and not listed."""

    @property
    def supports_listing(self) -> bool:
        return False

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        try:
            return await self._store.get(key, prototype, byte_range)
        except Exception as error:
            if is_forbidden(error):
                return None
            raise

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[Request]
    ) -> list[Buffer | None]:
        return list(await asyncio.gather(*(self.get(key, prototype, wanted) for key, wanted in key_ranges)))

    async def exists(self, key: str) -> bool:
        try:
            return await self._store.exists(key)
        except Exception as error:
            if is_forbidden(error):
                return False
            raise

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        for request in requests:
            yield request[0], await self.get(*request)

    def list(self) -> AsyncIterator[str]:
        raise NotImplementedError("the keys of this store may be read and not listed")

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        return self.list()

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        return self.list()
