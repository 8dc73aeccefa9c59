"""Stores of s3://, gs:// and https://: opened by obstore where it has all given options, otherwise by fsspec."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from clustering.data.store_errors import FIRST_WAIT, LONGEST_WAIT, MISSING_KEY, TRIES
from clustering.deferred import asyncio, zarr
from clustering.errors import ConfigError, MissingDependencyError, SourceError
from clustering.temporary import home_folder

if TYPE_CHECKING:
    from zarr.abc.store import Store

TIMEOUT = timedelta(minutes=2)
"""Time limit of one request, its body included."""
_RETRY_TIMEOUT = timedelta(minutes=3)
"""Time after which a request is not tried again; signatures of S3 are valid for five minutes."""
_FRESH = timedelta(minutes=5)
"""Time that credentials are used before botocore, which renews them, is asked again."""

_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}

_S3_NAMES = {
    "anon": "skip_signature",
    "skip_signature": "skip_signature",
    "endpoint_url": "endpoint",
    "endpoint": "endpoint",
    "region_name": "region",
    "region": "region",
    "key": "access_key_id",
    "access_key_id": "access_key_id",
    "aws_access_key_id": "access_key_id",
    "secret": "secret_access_key",
    "secret_access_key": "secret_access_key",
    "aws_secret_access_key": "secret_access_key",
    "token": "session_token",
    "session_token": "session_token",
    "aws_session_token": "session_token",
    "requester_pays": "request_payer",
    "virtual_hosted_style_request": "virtual_hosted_style_request",
}
"""Options of s3fs, boto and obstore, with the names that obstore has for them."""
_STATIC = ("access_key_id", "secret_access_key", "session_token")


def open_bucket(url: str, options: Mapping[str, Any], where: str) -> Store:
    """Open a remote store for reading, without a request to it.

    Parameters
    ----------
    url
        URL of the store, without secrets.
    options
        Options for fsspec, as users know them.
    where
        URL as messages show it.

    Raises
    ------
    MissingDependencyError
        If a package of the extra ``cloud`` is needed and not installed.
    SourceError
        If there are no credentials, or the URL or an option has no valid value.
    ConfigError
        If fsspec has no such option.
    """
    protocol = url.partition("://")[0]
    try:
        match protocol:
            case "s3" | "s3a":
                config = s3_config(options, os.environ)
                return _fsspec(url, options, where) if config is None else _s3(url, config, where)
            case "gs" | "gcs":
                config = gcs_config(options, os.environ)
                return _fsspec(url, options, where) if config is None else _gcs(url, config)
            case "http" | "https":
                headers = http_headers(options)
                return _fsspec(url, options, where) if headers is None else _http(url, headers)
        return _fsspec(url, options, where)
    except ValueError as error:
        reason = str(error).splitlines()[0] if str(error) else "a value does not fit"
        raise SourceError(
            f"cannot open {where!r}: {reason}; name a path, or a URL of s3://, gs://, https:// or one of fsspec"
        ) from None
    except ImportError as error:
        if protocol not in _PACKAGES:
            raise MissingDependencyError(
                f"reading {protocol}:// needs a package that fsspec does not find; "
                "see the list of implementations of fsspec, and install the one of this protocol"
            ) from error
        raise MissingDependencyError(
            f"reading {protocol}:// needs the packages 'obstore' and {_PACKAGES[protocol]!r}; "
            "pip install 'zarr-clustering[cloud]'"
        ) from error


def s3_config(options: Mapping[str, Any], environment: Mapping[str, str]) -> Any:
    """Translate options of s3fs to those of obstore.

    Parameters
    ----------
    options
        Options for s3fs, with ``client_kwargs`` and ``config_kwargs`` for botocore.
    environment
        Environment variables; an endpoint is read from them.

    Returns
    -------
    dict or None
        Config of ``obstore.store.S3Store``; None where it lacks an option.
    """
    flat = {name: value for name, value in options.items() if name not in ("client_kwargs", "config_kwargs")}
    flat |= options.get("client_kwargs") or {}
    config: dict[str, Any] = {}
    style = dict(options.get("config_kwargs") or {})
    addressing = dict(style.pop("s3", None) or {})
    virtual = addressing.pop("addressing_style", None)
    # obstore has no other setting of botocore than this one.
    if style or addressing or virtual not in (None, "auto", "path", "virtual"):
        return None
    if virtual == "virtual":
        config["virtual_hosted_style_request"] = True
    for name, value in flat.items():
        if name not in _S3_NAMES:
            return None
        if value is not None:
            config[_S3_NAMES[name]] = value
    # As in botocore, the variable for S3 alone comes before the one for all services.
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if environment.get(name):
            config.setdefault("endpoint", environment[name])
    if not config.get("request_payer", True):
        del config["request_payer"]
    if config.get("skip_signature"):
        # Requests to public buckets are not signed, so credentials are of no use.
        return {name: value for name, value in config.items() if name not in _STATIC}
    config.pop("skip_signature", None)
    return config


def gcs_config(options: Mapping[str, Any], environment: Mapping[str, str]) -> Any:
    """Translate options of gcsfs to those of obstore.

    Parameters
    ----------
    options
        Options for gcsfs.
    environment
        Environment variables; the place of the credentials is read from them.

    Returns
    -------
    dict or None
        Config of ``obstore.store.GCSStore``; None where it lacks an option, or where there is no file of credentials
        that obstore reads, as gcsfs looks in more places.
    """
    others = {name: v for name, v in options.items() if v is not None and name not in ("token", "project")}
    token = options.get("token")
    # Other tokens, and emulators, are only supported by gcsfs.
    if others or token not in (None, "anon", "google_default") or environment.get("STORAGE_EMULATOR_HOST"):
        return None
    if token == "anon":
        return {"skip_signature": True}
    home = Path(environment["HOME"]) if environment.get("HOME") else home_folder() or Path("/")
    usual = home / ".config" / "gcloud" / "application_default_credentials.json"
    try:
        content = json.loads(Path(environment.get("GOOGLE_APPLICATION_CREDENTIALS", usual)).read_text())
    except (OSError, ValueError):
        return None
    return {} if content.get("type") in ("service_account", "authorized_user") else None


def http_headers(options: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the headers to send with every request; None for options that only fsspec takes.

    Parameters
    ----------
    options
        Options for the HTTP file system of fsspec; ``headers`` may also lie in ``client_kwargs``.
    """
    flat = {name: value for name, value in options.items() if name != "client_kwargs"}
    flat |= options.get("client_kwargs") or {}
    return dict(flat.pop("headers", None) or {}) if not flat.keys() - {"headers"} else None


def _s3(url: str, config: Any, where: str) -> Store:
    from obstore.store import S3Store

    url_parts = urlsplit(url)
    provider: Any = None
    # Keys from options or the environment are fixed. All other credentials expire, and botocore renews them.
    has_credentials = config.get("skip_signature") or "access_key_id" in config
    if not has_credentials and not (os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_SECRET_ACCESS_KEY")):
        provider = aws_credentials
        if _session().get_credentials() is None:
            raise SourceError(
                f"no credentials for {where}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, "
                "or storage_options {anon: true} for a public bucket"
            )
    if "endpoint" not in config and "region" not in config:
        # The environment names the region of the user's machines, and a public bucket may lie in any other.
        region = bucket_region(url_parts.netloc)
        config = {**config, **({"region": region} if region else {})}
    client = _client(str(config.get("endpoint", "")))
    return zarr.storage.ObjectStore(
        S3Store(
            url_parts.netloc,
            prefix=url_parts.path.strip("/") or None,
            config=config,
            client_options=client,
            retry_config=_retry(),
            credential_provider=provider,
        ),
        read_only=True,
    )


def bucket_region(bucket: str, service: str = "https://s3.amazonaws.com") -> str | None:
    """Ask S3 for the region of a bucket; None where there is no answer.

    Parameters
    ----------
    bucket
        Name of the bucket.
    service
        URL of the S3 service.
    """
    try:
        with urlopen(Request(f"{service}/{bucket}", method="HEAD"), timeout=5) as answer:
            headers: Any = answer.headers
    except HTTPError as error:
        # S3 names the region even when it refuses access.
        with error:
            headers = error.headers
    except OSError:
        return None
    region: str | None = headers.get("x-amz-bucket-region")
    return region


@lru_cache(maxsize=1)
def _session() -> Any:
    """Return one botocore session for the process, which caches and renews credentials."""
    from botocore.session import get_session

    return get_session()


def aws_credentials() -> dict[str, Any]:
    """Ask botocore for credentials from profiles, single sign-on, and the roles of machines and containers."""
    credentials = _session().get_credentials().get_frozen_credentials()
    return {
        "access_key_id": credentials.access_key,
        "secret_access_key": credentials.secret_key,
        "token": credentials.token,
        "expires_at": datetime.now(UTC) + _FRESH,
    }


def _gcs(url: str, config: Any) -> Store:
    from obstore.store import GCSStore

    url_parts = urlsplit(url)
    prefix = url_parts.path.strip("/") or None
    store = GCSStore(url_parts.netloc, prefix=prefix, config=config, client_options=_client(""), retry_config=_retry())
    return zarr.storage.ObjectStore(store, read_only=True)


def _http(url: str, headers: dict[str, str]) -> Store:
    from obstore.store import HTTPStore

    client = _client(url)
    if headers:
        client["default_headers"] = headers
    return zarr.storage.ObjectStore(
        HTTPStore.from_url(url.rstrip("/"), client_options=client, retry_config=_retry()), read_only=True
    )


def _client(endpoint: str) -> Any:
    # obstore refuses connections without encryption unless they are allowed.
    return {"timeout": TIMEOUT, **({"allow_http": True} if endpoint.startswith("http://") else {})}


def _retry() -> Any:
    waits = {"init_backoff": timedelta(seconds=FIRST_WAIT), "max_backoff": timedelta(seconds=LONGEST_WAIT), "base": 2}
    return {"max_retries": TRIES, "backoff": waits, "retry_timeout": _RETRY_TIMEOUT}


def _for_archives(store: zarr.storage.FsspecStore) -> zarr.storage.FsspecStore:
    """Adapt a store to what fsspec does with archives."""
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

    files = store.fs
    protocols = {files.protocol} if isinstance(files.protocol, str) else {*files.protocol}
    if not isinstance(files, AsyncFileSystemWrapper) or not protocols & {"zip", "tar", "libarchive"}:
        return store
    if "zip" not in protocols:
        # All members are read through one shared file position, and so in turn.
        files = AsyncFileSystemWrapper(files.sync_fs, asynchronous=True, semaphore=asyncio.Semaphore(1))
    # Early versions raise KeyError where a zip archive has no such member.
    return zarr.storage.FsspecStore(files, read_only=True, path=store.path, allowed_exceptions=(*MISSING_KEY, KeyError))


def _fsspec(url: str, options: Mapping[str, Any], where: str) -> Store:
    from clustering.data.wrapped_stores import RetryingStore

    given = dict(options)
    protocol = url.partition("://")[0]
    if "::" not in url and protocol in ("s3", "s3a", "gs", "gcs"):
        # A cached listing may lack chunks that were written since.
        given.setdefault("use_listings_cache", False)
    if "::" not in url and protocol in ("s3", "s3a"):
        # RetryingStore alone tries again, instead of three layers inside each other. With a concurrency of 1, s3fs
        # does not ask for the size before every read.
        given.setdefault("max_concurrency", 1)
        config = dict(given.get("config_kwargs") or {})
        given["config_kwargs"] = {"retries": {"total_max_attempts": 1}, **config}
    try:
        store = zarr.storage.FsspecStore.from_url(url, storage_options=given, read_only=True)
        return RetryingStore(_for_archives(store), where)
    except TypeError as error:
        raise ConfigError(
            f"source.storage_options do not fit {protocol}://, which does not know one of {', '.join(sorted(options))}"
        ) from error
