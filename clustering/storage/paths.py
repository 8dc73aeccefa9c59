"""Storage paths: folders and files on this machine, and prefixes and objects in a bucket."""

from __future__ import annotations

import json
import math
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from clustering.data.addresses import check_url, local_path, shown
from clustering.data.buckets import gcs_config, s3_config
from clustering.data.store_errors import translate_errors
from clustering.data.stores import connect
from clustering.deferred import zarr
from clustering.errors import ConfigError, MissingDependencyError, StoreError

PROTOCOLS = ("s3", "s3a", "gs", "gcs")
"""Protocols of buckets that results can be written to."""


@dataclass(frozen=True)
class BucketPath:
    """A prefix in a bucket, or an object; picklable. Each process that uses it finds credentials in its environment."""

    url: str
    """URL of the root, which all paths of one output share."""
    # Paths are equal if they name the same object, however it is reached.
    options: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """Storage options, without secrets."""
    key: str = ""
    """Key from the root."""

    def __str__(self) -> str:
        return f"{self.root}/{self.key}".rstrip("/")

    def __truediv__(self, name: str, /) -> BucketPath:
        return replace(self, key=f"{self.key}/{name}".lstrip("/"))

    @property
    def name(self) -> str:
        """Last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> BucketPath:
        """Prefix without the last part of the key."""
        return replace(self, key=self.key.rpartition("/")[0])

    @property
    def root(self) -> str:
        """URL of the root without secrets, for messages."""
        return shown(self.url)

    @property
    def store(self) -> Any:
        """Store of obstore at the root; opened once per process."""
        return writable(self.url, self.options).store

    def is_file(self) -> bool:
        """Return whether there is an object with this key."""
        return size(self) is not None

    def read_bytes(self) -> bytes:
        """Read an object; raise `FileNotFoundError` where there is none."""
        with translate_errors(self.root, (FileNotFoundError,)):
            return bytes(_client().get(self.store, self.key).bytes())

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove an object.

        Parameters
        ----------
        missing_ok
            Whether a missing object is no error. Some buckets never report one.
        """
        try:
            with translate_errors(self.root, (FileNotFoundError,), "write to"):
                _client().delete(self.store, self.key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def objects(self) -> list[tuple[str, int]]:
        """List the objects below, in order: keys from the root, and sizes in bytes."""
        with translate_errors(self.root):
            pages = _client().list(self.store, self.key or None)
            return sorted((meta["path"], meta["size"]) for page in pages for meta in page)


StoragePath = Path | BucketPath
"""A path on this machine or in a bucket; `/`, `name`, `is_file`, `read_bytes` and `unlink` work for both."""


def _client() -> Any:
    try:
        import obstore
    except ImportError as error:
        raise MissingDependencyError(
            "keeping results in a bucket needs the package 'obstore'; pip install 'zarr-clustering[cloud]'"
        ) from error
    return obstore


def writable(url: str, options: Mapping[str, Any]) -> Any:
    """Open a bucket for writing.

    Parameters
    ----------
    url
        URL of a prefix in the bucket.
    options
        Storage options, without secrets.

    Returns
    -------
    zarr.storage.ObjectStore

    Raises
    ------
    ClusteringError
        If the bucket does not exist, its keys cannot be listed, or only fsspec can reach it.
    """
    google = url.startswith("g")
    if (gcs_config if google else s3_config)(options, os.environ) is None:
        remedy = "leave storage_options other than endpoint_url, region_name and anon out"
        if google:
            remedy = "set GOOGLE_APPLICATION_CREDENTIALS to a file of credentials, and leave storage_options out"
        raise ConfigError(f"results cannot be written to {shown(url)} in the way it is given; {remedy}")
    store = connect(url, options)
    if isinstance(store, zarr.storage.ObjectStore):
        return store.with_read_only(False)
    raise StoreError(
        f"the keys of {shown(url)} may not be listed, and an output needs that; check the credentials and their "
        "permissions"
    )


def in_bucket(store: str) -> bool:
    """Return whether a path or URL is that of a bucket that results can be written to.

    Parameters
    ----------
    store
        Path or URL.
    """
    return store.partition("://")[0] in PROTOCOLS and "://" in store and "::" not in store


def storage_path(store: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> StoragePath:
    """Return the storage path of a path or a URL.

    Parameters
    ----------
    store
        Path or URL.
    options
        Storage options of a bucket, without secrets; ignored for a local path.

    Raises
    ------
    ConfigError
        If the URL holds a password, or is neither local nor of a bucket.
    """
    text = os.fspath(store)
    if in_bucket(text):
        check_url(text, "the URL")
        return BucketPath(text.rstrip("/"), dict(options or {}))
    path = local_path(text)
    if path is None:
        raise ConfigError(f"results are not kept at {shown(text)!r}; name a folder, or a URL of s3:// or gs://")
    return path


def translating_write_errors(path: StoragePath) -> AbstractContextManager[None]:
    """Return a context that turns errors of a bucket on writing into a `StoreError` of one line.

    Parameters
    ----------
    path
        Path that is written to; on this machine, errors pass unchanged.
    """
    return translate_errors(path.root, doing="write to") if isinstance(path, BucketPath) else nullcontext()


def translating_read_errors(path: StoragePath) -> AbstractContextManager[None]:
    """Return a context that turns errors of a bucket on reading into a `StoreError` of one line.

    Parameters
    ----------
    path
        Path that is read; on this machine, errors pass unchanged.
    """
    return translate_errors(path.root) if isinstance(path, BucketPath) else nullcontext()


def zarr_store(path: StoragePath) -> Any:
    """Return the store that Zarr and xarray open at a path, to read and to write.

    Parameters
    ----------
    path
        Root of a Zarr group.
    """
    return writable(str(path), path.options) if isinstance(path, BucketPath) else str(path)


def write_json(path: StoragePath, content: Mapping[str, Any]) -> None:
    """Write JSON in one step, as `json_text` makes it.

    Parameters
    ----------
    path
        File or object to write.
    content
        JSON object, which may hold NumPy values.
    """
    write_bytes(path, (json_text(content, indent=2) + "\n").encode())


def json_text(content: Any, indent: int | None = None) -> str:
    """Encode JSON that every reader accepts: NaN becomes null, and infinity the largest float64.

    Parameters
    ----------
    content
        JSON value, which may hold NumPy values.
    indent
        Spaces per level; one line where None.
    """
    return json.dumps(_plain(content), indent=indent, allow_nan=False)


def _plain(content: Any) -> Any:
    if isinstance(content, (np.generic, np.ndarray)):
        content = content.tolist()
    if isinstance(content, Mapping):
        return {name: _plain(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(value) for value in content]
    if isinstance(content, float) and math.isnan(content):
        return None
    if isinstance(content, float) and math.isinf(content):
        return math.copysign(sys.float_info.max, content)
    return content


def write_bytes(path: StoragePath, content: bytes, *, synced: bool = True) -> None:
    """Write a file in one step, so that readers never see a part of it.

    Parameters
    ----------
    path
        File or object to write; it may exist.
    content
        All bytes of it.
    synced
        Whether the file is on the disk when this returns. Without, it may be empty after a power cut.
    """
    if isinstance(path, BucketPath):
        with translating_write_errors(path):
            # One request writes all or nothing. A killed multipart upload would leave parts that no listing shows.
            _client().put(path.store, path.key, content, use_multipart=False)
        return
    # A rename replaces the file in one step, and a sync brings its bytes to the disk before that.
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with part.open("wb") as file:
            file.write(content)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    # An interrupt from the keyboard must leave no temporary file either.
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def make_folder(path: StoragePath) -> None:
    """Make a folder and those above it; do nothing for a bucket, which has no folders.

    Parameters
    ----------
    path
        Folder or prefix.
    """
    if isinstance(path, Path):
        path.mkdir(parents=True, exist_ok=True)


def children(path: StoragePath) -> list[StoragePath]:
    """List the direct entries of a folder or prefix, by name; empty where it does not exist.

    Parameters
    ----------
    path
        Folder or prefix.
    """
    if isinstance(path, BucketPath):
        with translate_errors(path.root):
            listing = _client().list_with_delimiter(path.store, path.key or None)
        keys = [*listing["common_prefixes"], *(entry["path"] for entry in listing["objects"])]
        return [replace(path, key=key) for key in sorted(key.rstrip("/") for key in keys)]
    try:
        return list[StoragePath](sorted(path.iterdir()))
    except (FileNotFoundError, NotADirectoryError):
        return []


def remove_keys(folder: StoragePath, chosen: Callable[[str], bool]) -> None:
    """Remove chosen files below a folder, and the folders left empty.

    Links are neither followed nor removed.

    Parameters
    ----------
    folder
        Folder or prefix.
    chosen
        Returns whether to remove a file; called with its path from the folder.
    """
    if isinstance(folder, BucketPath):
        start = f"{folder.key}/".lstrip("/")
        if keys := [key for key, _ in folder.objects() if chosen(key.removeprefix(start))]:
            with translating_write_errors(folder):
                _client().delete(folder.store, keys)
        return
    if folder.is_symlink():
        return
    # From the bottom up, so that a folder is empty when its turn comes.
    for path, _, names in os.walk(folder, topdown=False):
        inside = Path(path).relative_to(folder)
        for name in names:
            if chosen((inside / name).as_posix()) and not (Path(path) / name).is_symlink():
                with suppress(OSError):
                    (Path(path) / name).unlink()
        with suppress(OSError):
            # A folder that still holds files of others stays.
            Path(path).rmdir()


def size(path: StoragePath) -> int | None:
    """Return the size of a file in bytes; None where there is none.

    Parameters
    ----------
    path
        File or object.
    """
    try:
        if isinstance(path, BucketPath):
            with translate_errors(path.root, (FileNotFoundError,)):
                return int(_client().head(path.store, path.key)["size"])
        return path.stat().st_size
    except FileNotFoundError:
        return None


def sizes(folder: StoragePath) -> Iterator[tuple[str, int]]:
    """Yield the files below a folder: last part of the name, and size in bytes.

    Parameters
    ----------
    folder
        Folder or prefix.
    """
    if isinstance(folder, BucketPath):
        yield from ((key.rpartition("/")[2], length) for key, length in folder.objects())
        return
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            if entry.is_dir():
                yield from sizes(Path(entry.path))
            else:
                yield entry.name, entry.stat().st_size
