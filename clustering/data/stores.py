"""Opening the store behind a path or a URL, and listing what it holds."""

from __future__ import annotations

import os
import pickle
import threading
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from clustering.compat.fsspec import fetch_file, find_files, list_folder
from clustering.compat.zarr import innermost_store, run_in_zarr
from clustering.data.addresses import BUCKETS, check_url, local_path, shown
from clustering.data.buckets import open_bucket
from clustering.data.store_errors import is_forbidden, s3_error_code, translate_errors
from clustering.deferred import zarr
from clustering.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from zarr.abc.store import Store

__all__ = ["Entry", "connect", "entries", "listable", "names_in", "shown"]

_SETTINGS = ("AWS_", "GOOGLE_", "STORAGE_", "AZURE_")
"""Prefixes of environment variables with endpoints and credentials."""
_VERSIONS = ("ETag", "etag", "md5Hash", "CRC", "mtime")
"""Names in fsspec for a value that changes with the content of a file."""
_LOCK = threading.Lock()
"""Keeps two threads from opening the same store at once."""


@dataclass(frozen=True)
class Entry:
    """One stored object."""

    key: str
    """Key, counted from the root of the store."""
    size: int
    """Size in bytes."""
    version: str | int | None
    """Value that changes with the content: modification time of a file in nanoseconds, ETag of an object, CRC of a zip
    member; None where the store has none."""


def connect(url: str, options: Mapping[str, Any] | None = None) -> Store:
    """Open a store for reading, once per process.

    Parameters
    ----------
    url
        Local folder or ``.zip`` file, as a path or ``file://`` URL; or a URL with ``s3://``, ``gs://``, ``https://`` or
        any other protocol of fsspec.
    options
        Storage options, as fsspec takes them. A local store takes none.

    Returns
    -------
    zarr.abc.store.Store
        Read-only and picklable. A store that answers 403 for missing keys is wrapped as `UnlistableStore`. Other stores
        of obstore are not wrapped, so that their chunks can be decoded outside Python.

    Raises
    ------
    ConfigError
        For a URL with a password, or options that do not fit.
    SourceError
        If there is no such folder or bucket, or there are no credentials.
    StoreError
        If the store cannot be reached or denies access.
    MissingDependencyError
        If a package for this protocol is not installed.
    """
    check_url(url)
    path = local_path(url)
    if path is None:
        # With other endpoints or credentials in the environment, the same URL is another store.
        settings: Any = sorted(item for item in os.environ.items() if item[0].startswith(_SETTINGS))
    else:
        if options:
            raise ConfigError(f"source.storage_options are given for the local store {url!r}; leave them out")
        try:
            status = path.stat()
        except (OSError, ValueError) as error:
            raise SourceError(f"no store at {url!r}; check source.store (a path or a URL of a Zarr store)") from error
        # An archive that was written again since has to be opened again.
        settings = (status.st_size, status.st_mtime_ns) if path.is_file() else None
    with _LOCK:
        return _connected(pickle.dumps((url, dict(options or {}), settings)))


@lru_cache(maxsize=16)
def _connected(pickled: bytes) -> Store:
    """Open a store. Pickled arguments are hashable, as the cache needs them."""
    url, options, _ = pickle.loads(pickled)
    path = local_path(url)
    if path is None:
        with translate_errors(shown(url), (FileNotFoundError, NotImplementedError)):
            return _probed(open_bucket(url, options, shown(url)), url)
    if path.suffix != ".zip" or path.is_dir():
        return zarr.storage.LocalStore(path, read_only=True)
    try:
        return run_in_zarr(zarr.storage.ZipStore.open(path, mode="r"))
    except zipfile.BadZipFile as error:
        raise SourceError(f"{url!r} is no zip archive; name a Zarr store, in a folder or a zip archive") from error


def _probed(store: Store, url: str) -> Store:
    """Request a key that does not exist, to find a missing bucket, and whether missing keys are answered by 403."""
    if "::" in url or url.partition("://")[0] not in BUCKETS:
        return store
    key = f"no-such-key-{uuid.uuid4().hex}"
    try:
        if isinstance(store, zarr.storage.ObjectStore):
            import obstore

            obstore.get(store.store, key)
        else:
            inner = innermost_store(store)
            assert isinstance(inner, zarr.storage.FsspecStore)
            # Reading through zarr would hide whether the key or the bucket is missing.
            run_in_zarr(fetch_file(inner.fs, f"{inner.path}/{key}"))
    except FileNotFoundError as error:
        if s3_error_code(error) == "NoSuchBucket" or "bucket does not exist" in str(error):
            raise SourceError(
                f"there is no bucket {urlsplit(url).netloc!r} for {shown(url)}; "
                "check its name, the endpoint and the region"
            ) from None
    except Exception as error:
        if is_forbidden(error):
            from clustering.data.wrapped_stores import UnlistableStore

            return UnlistableStore(store)
        if isinstance(store, zarr.storage.ObjectStore):
            raise
        # This request goes through the wrapper that repeats it after transient errors and describes others.
        run_in_zarr(store.get(key, zarr.buffer.default_buffer_prototype()))
    return store


def listable(store: Store) -> bool:
    """Tell whether a store can list its keys. Web servers cannot.

    Parameters
    ----------
    store
        An opened store.
    """
    inner = innermost_store(store)
    if isinstance(inner, zarr.storage.ObjectStore):
        return store.supports_listing and type(inner.store).__name__ != "HTTPStore"
    if isinstance(inner, zarr.storage.FsspecStore):
        protocols = inner.fs.protocol
        web = {"http", "https"} & set((protocols,) if isinstance(protocols, str) else protocols)
        return store.supports_listing and not web
    return store.supports_listing


async def names_in(store: Store, path: str) -> list[str]:
    """Name the files and folders directly below a path, sorted.

    Parameters
    ----------
    store
        A store that can list its keys.
    path
        Path of a group; empty for the root.
    """
    inner = innermost_store(store)
    if isinstance(inner, zarr.storage.FsspecStore) and not inner.path.strip("/"):
        # Zarr puts a slash before the path, which archives do not understand.
        try:
            listing = await list_folder(inner.fs, path)
        except FileNotFoundError:
            return []
    else:
        listing = [name async for name in store.list_dir(path)]
    return sorted({name.rstrip("/").rpartition("/")[2] for name in listing} - {""})


def entries(store: Store, prefix: str = "") -> Iterator[Entry] | None:
    """List the objects below a prefix, sorted by key and lazily.

    Parameters
    ----------
    store
        An opened store.
    prefix
        Path of a group or array; empty for the whole store.

    Returns
    -------
    iterator of Entry, or None
        None for a store that cannot list.
    """
    if not listable(store):
        return None
    prefix = prefix.strip("/")
    inner = innermost_store(store)
    match inner:
        case zarr.storage.LocalStore():
            return _files(inner.root / prefix, prefix)
        case zarr.storage.ZipStore():
            return _members(inner.path, prefix)
        case zarr.storage.ObjectStore():
            return _objects(inner, prefix)
        case zarr.storage.FsspecStore():
            return _found_entries(inner, prefix)
    return (Entry(key, run_in_zarr(inner.getsize(key)), None) for key in sorted(_keys(inner, prefix)))


def _files(folder: Path | str, prefix: str) -> Iterator[Entry]:
    """List the files of a local store."""
    try:
        with os.scandir(folder) as scan:
            # A slash after the names of folders gives the order in which full keys are sorted.
            children = sorted((f"{child.name}/" if child.is_dir() else child.name, child) for child in scan)
    except (FileNotFoundError, NotADirectoryError):
        return
    start = f"{prefix}/" if prefix else ""
    for name, child in children:
        if name.endswith("/"):
            yield from _files(child.path, start + child.name)
        else:
            status = child.stat()
            yield Entry(start + name, status.st_size, status.st_mtime_ns)


def _members(path: Path, prefix: str) -> Iterator[Entry]:
    """List the members of a zip archive."""
    start = f"{prefix}/" if prefix else ""
    with zipfile.ZipFile(path) as archive:
        # A zip archive may hold several members of one name, of which the last one counts.
        infos = {i.filename: i for i in archive.infolist() if i.filename.startswith(start) and not i.is_dir()}
    for name in sorted(infos):
        yield Entry(name, infos[name].file_size, infos[name].CRC)


def _objects(store: Any, prefix: str) -> Iterator[Entry]:
    """List the objects of a bucket by obstore."""
    import obstore

    for page in obstore.list(store.store, prefix or None):
        for meta in page:
            yield Entry(meta["path"], meta["size"], meta["e_tag"])


def _found_entries(store: Any, prefix: str) -> Iterator[Entry]:
    """List the files of a file system of fsspec."""
    # The root of archives and references is an empty path, and some file systems start paths with a slash.
    root = store.path.strip("/")
    under = "/".join(part for part in (root, prefix) if part)
    asked = f"{store.path.rstrip('/')}/{prefix}".rstrip("/") if store.path.strip("/") else prefix
    for path, about in sorted(run_in_zarr(find_files(store.fs, asked)).items()):
        name = path.strip("/")
        if under and not name.startswith(f"{under}/"):
            continue
        version = next((about[key] for key in _VERSIONS if about.get(key)), None)
        key = name.removeprefix(root).lstrip("/") if root else name
        yield Entry(key, int(about.get("size") or 0), version)


def _keys(store: Store, prefix: str) -> list[str]:
    """List the keys of any other store."""

    async def collect() -> list[str]:
        return [key async for key in store.list_prefix(f"{prefix}/" if prefix else "")]

    return run_in_zarr(collect())
