"""Whether anything answers where a Prefect API is configured: asked without Prefect, which takes seconds to import."""

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
"""How long an API may take to answer, in seconds."""
SUCH_AS = "such as http://127.0.0.1:4200/api"


def parts_of(url: str) -> SplitResult:
    """Take the URL of an API apart.

    Raises
    ------
    ConfigError
        If it is none.
    """
    try:
        parts = urlsplit(url)
        # A port that is no number shows only when it is asked for.
        whole = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        if whole and not re.search(r"\s", url):
            return parts
    except ValueError:
        pass
    raise ConfigError(f"PREFECT_API_URL is {shown(url)!r}; it has to be a URL, {SUCH_AS}")


def check_reachable(url: str, otherwise: str = "") -> None:
    """Ask an API for a sign of life. Whether it knows who asks is left to Prefect's own client.

    Parameters
    ----------
    otherwise
        What else would do, for the message.

    Raises
    ------
    ConfigError
        For a URL that is none.
    ExecutionError
        If nothing answers within `SECONDS`, or what answers is no API.
    """
    parts = parts_of(url)
    if parts.scheme in getproxies() and not proxy_bypass(str(parts.hostname)):
        # What is behind a proxy is asked by Prefect's own client, which knows how.
        return
    faults: list[str] = []
    # The search for a name knows no limit of time.
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
    """Say what is wrong with what answers; empty where nothing is, or it does not know who asks."""
    host, path = str(parts.hostname), f"{parts.path.rstrip('/')}/health"
    try:
        # Nothing is told to it, and Prefect's client looks at its certificate as it is set to.
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
    try:
        json.loads(body)
    except ValueError:
        return False
    return True
