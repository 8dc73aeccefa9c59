"""Paths and URLs of stores: their check for secrets, and their form in messages."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from clustering.errors import ConfigError

BUCKETS = ("s3", "s3a", "gs", "gcs", "http", "https")
"""Protocols of object stores and of the web."""
BY_BLOCK = " or by a Prefect Secret block in source.credentials"
"""Part of a message: another place for the credentials of a source."""


def shown(url: str) -> str:
    """Return a URL as messages show it: without user, password and query.

    Parameters
    ----------
    url
        Path or URL of a store; parts of a chained URL are joined by ``::``.
    """
    if "://" not in url:
        return url
    return "::".join(_bare(part) for part in url.split("::"))


def _bare(url: str) -> str:
    protocol, sign, rest = url.partition("://")
    if not sign:
        return url
    # A query may begin right after the host, and may itself hold "@".
    host, slash, path = rest.partition("/")
    path = (slash + path).partition("?")[0]
    return f"{protocol}://{host.partition('?')[0].rpartition('@')[2]}{path}"


def check_url(url: str, key: str = "source.store") -> None:
    """Refuse a URL that holds a secret.

    Parameters
    ----------
    url
        Path or URL of a store, as the user wrote it.
    key
        Config key that holds the URL, for the message.

    Raises
    ------
    ConfigError
        For a URL with a password or a query; the message shows neither.
    """
    for part in url.split("::") if "://" in url else ():
        protocol, sign, rest = part.partition("://")
        if not sign:
            continue
        # Object stores take no user in a URL, so a text before "@" is a secret there even without a colon.
        user, at, _ = rest.partition("/")[0].rpartition("@")
        if at and (":" in user or protocol in BUCKETS):
            raise ConfigError(
                f"{key} {shown(url)!r} was given with a user or a password; leave them out of the URL, "
                f"and give credentials by the environment{BY_BLOCK if key == 'source.store' else ''}"
            )
        # The name of a file may hold a question mark.
        if "?" in rest and protocol != "file":
            raise ConfigError(
                f"{key} {shown(url)!r} was given with a query, which may hold a secret and is no part of a "
                "store's address; leave out the part from '?' on"
            )


def local_path(url: str) -> Path | None:
    """Return the path of a store on this machine; None for a remote one.

    Parameters
    ----------
    url
        Path, ``file://`` URL or other URL of a store.
    """
    if "://" not in url:
        return Path(url)
    if not url.startswith("file://"):
        return None
    # A URL without escapes is not parsed, because a plain name may hold # or ?.
    return Path(unquote(urlsplit(url).path) if "%" in url else url.removeprefix("file://"))


def absolute(url: str) -> str:
    """Return a path that is valid in any current folder.

    Parameters
    ----------
    url
        Path or URL of a store; a URL is returned as it is.
    """
    return str(Path(url).absolute()) if "://" not in url else url
