"""Errors of stores: which requests are tried again, which answers mean a missing key, and one-line messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from clustering.errors import ClusteringError, StoreError

TRIES = 8
"""How often a failed request is repeated, by any client. A store that always fails is given up after about 15 s."""
FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0
"""Longest wait in seconds before the first repeat, and before any repeat. In between it doubles every time."""
ATTEMPTS_BEFORE_NOTICE = 4
"""Number of failed tries after which a warning is logged."""

MISSING_KEY = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
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


def is_of_a_store(error: BaseException) -> bool:
    """Tell whether an error comes from a store, a file or a connection.

    Parameters
    ----------
    error
        Any error.
    """
    origin = type(error).__module__.split(".")[0]
    # Some decoders, such as gzip, raise an OSError of their own for damaged data.
    return origin in _REMOTE or (isinstance(error, OSError) and origin in _PLAIN)


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
    return is_of_a_store(error) and "Credentials" not in type(error).__name__


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
    fault = fault_of(error, where)
    remedy = _REMEDIES.get(http_status(error) or fault, "check the network and the endpoint, and run the job again")
    if "://" not in where:
        remedy = "check the disk and the permissions of the files"
    return f"cannot {doing} {where}{f', key {key!r}' if key else ''}: {fault}; {remedy}"


def fault_of(error: BaseException, where: str) -> str:
    """Name the fault behind an error in a few words.

    Parameters
    ----------
    error
        Error of a store.
    where
        URL of the store without secrets.
    """
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
        if isinstance(error, but) or not is_of_a_store(error):
            raise
        # A chained error would show the answer of the store, which may hold credentials.
        raise StoreError(describe_error(error, where, doing=doing)) from None
