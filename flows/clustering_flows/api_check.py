"""Checks whether a configured Prefect API answers, without importing Prefect, which takes seconds."""

from __future__ import annotations

import json
import re
import ssl
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from threading import Thread
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from clustering.data.addresses import shown
from clustering.errors import ConfigError, ExecutionError

SECONDS = 5.0
"""Time within which an API has to answer, in seconds."""
SUCH_AS = "such as http://127.0.0.1:4200/api"


def parts_of(url: str) -> SplitResult:
    """Split the URL of an API.

    Raises
    ------
    ConfigError
        If it is not a URL of HTTP.
    """
    try:
        parts = urlsplit(url)
        # `urlsplit` accepts a port that is not a number; reading `port` raises the error.
        whole = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        if whole and not re.search(r"\s", url):
            return parts
    except ValueError:
        pass
    raise ConfigError(f"PREFECT_API_URL is {shown(url)!r}; it has to be a URL, {SUCH_AS}")


def check_reachable(url: str, otherwise: str = "") -> None:
    """Check that an API answers. Prefect's own client checks the login later.

    Parameters
    ----------
    url
        URL of the API.
    otherwise
        Another remedy, which the message ends with.

    Raises
    ------
    ConfigError
        If `url` is not a URL.
    ExecutionError
        If there is no answer within `SECONDS`, or the answer is not that of an API.
    """
    parts = parts_of(url)
    if parts.scheme in getproxies() and not proxy_bypass(str(parts.hostname)):
        # Prefect's own client can use a proxy; this check cannot.
        return
    faults: list[str] = []
    # A DNS lookup has no timeout, so the check runs in a thread that can be left behind.
    thread = Thread(target=lambda: faults.append(_fault(parts)), name="clustering-reach", daemon=True)
    thread.start()
    thread.join(SECONDS)
    fault = faults[0] if faults else f"does not answer (no answer within {SECONDS:g} s)"
    if fault:
        raise ExecutionError(
            f"the Prefect API at {shown(url)} {fault}; see that the server runs, and check PREFECT_API_URL, "
            f"{SUCH_AS}{otherwise}"
        )


def _fault(parts: SplitResult) -> str:
    """Describe what is wrong with an answer; empty for a good answer, and for one that asks for a login."""
    host, path = str(parts.hostname), f"{parts.path.rstrip('/')}/health"
    try:
        # No secret is sent, and Prefect's client checks the certificate later, by its own settings.
        unchecked = ssl._create_unverified_context()
        connection = (
            HTTPSConnection(host, parts.port, timeout=SECONDS, context=unchecked)
            if parts.scheme == "https"
            else HTTPConnection(host, parts.port, timeout=SECONDS)
        )
        with closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read(1000)
    except TimeoutError:
        return f"does not answer (no answer within {SECONDS:g} s)"
    except OSError as error:
        reason = error.strerror or getattr(error, "reason", "") or "the connection was cut"
        return f"does not answer ({reason.lower()})"
    except (HTTPException, ValueError):
        return "does not answer as one"
    if answer.status == 404 or answer.status >= 500:
        return f"answers {answer.status} {answer.reason}"
    return "does not answer as one" if answer.status == 200 and not _is_json(body) else ""


def _is_json(body: bytes) -> bool:
    """Return whether a body is JSON. The page of another server may answer with status 200 too."""
    try:
        json.loads(body)
    except ValueError:
        return False
    return True
