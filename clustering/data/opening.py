"""Opening a store, an array or an xarray object as one lazily indexed, decoded dataset."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing

from clustering.errors import SourceError, nearest

BARE = "values"
"""Name given to the variable of a bare array."""
LISTED = 100_000
"""Files of a variable that enter its fingerprint at most, so that a store of very many chunks still opens fast."""


class _BareArray(BackendArray):
    """A Zarr array outside any group, indexed lazily by xarray."""

    def __init__(self, array: zarr.Array[Any]) -> None:
        self.array = array
        self.shape = array.shape
        self.dtype = array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, lambda k: self.array.oindex[k]
        )


def bare_dataset(array: zarr.Array[Any]) -> xr.Dataset:
    """Wrap a Zarr array outside any group; dimensions without names are called ``dim_0``, ``dim_1`` and so on."""
    attributes: dict[str, Any] = dict(array.attrs)
    named = getattr(array.metadata, "dimension_names", None) or attributes.pop("_ARRAY_DIMENSIONS", None)
    dims = [name or f"dim_{i}" for i, name in enumerate(named or [None] * array.ndim)]
    variable = xr.Variable(dims, indexing.LazilyIndexedArray(_BareArray(array)), attributes)
    variable.encoding = {"chunks": array.chunks, "shards": array.shards}
    decoded = xr.decode_cf(xr.Dataset({BARE: variable}))
    decoded[BARE].encoding.update(variable.encoding)
    return decoded


def open_store(store: str, group: str | None, storage_options: Mapping[str, Any]) -> xr.Dataset:
    """Open a Zarr group, or a bare array, without reading any data but the index coordinates.

    Raises
    ------
    SourceError
        If there is no Zarr store, or no such group in it.
    """
    where = store if group is None else f"{store} (group {group!r})"
    options = dict(storage_options) or None
    try:
        node = zarr.open(store, path=group or "", mode="r", storage_options=options)
        if isinstance(node, zarr.Array):
            return bare_dataset(node)
        return xr.open_dataset(
            store, engine="zarr", group=group, chunks=None, cache=False, consolidated=False, storage_options=options
        )
    except (FileNotFoundError, KeyError) as error:
        if group is not None and _is_group(store, options):
            children = [key for key, _ in zarr.open_group(store, mode="r", storage_options=options).members()]
            raise SourceError(f"no group {group!r} in {store}; {nearest(group, children)}") from error
        if "://" not in store and not Path(store).exists():
            raise SourceError(f"no store at {store!r}; check source.store (a path or a URL of a Zarr store)") from error
        raise SourceError(f"{where!r} holds no Zarr array or group; name one, or convert it with 'ingest'") from error
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SourceError(f"cannot open {where!r}: {reason}; check the path, the group and the credentials") from error


def _is_group(store: str, options: dict[str, Any] | None) -> bool:
    try:
        zarr.open_group(store, mode="r", storage_options=options)
    except (OSError, KeyError, ValueError):
        return False
    return True


def store_fingerprint(store: str, group: str | None, names: tuple[str, ...], options: Mapping[str, Any]) -> str:
    """Digest what identifies the stored variables: metadata and, on a local disk, names, sizes and times of files.

    Returns
    -------
    str
        Hexadecimal SHA-256.
    """
    node = zarr.open(store, path=group or "", mode="r", storage_options=dict(options) or None)
    arrays = {BARE: node} if isinstance(node, zarr.Array) else {name: node[name] for name in names if name in node}
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        assert isinstance(array, zarr.Array)
        digest.update(json.dumps([name, array.metadata.to_dict()], default=str, sort_keys=True).encode())
        folder = Path(store, group or "", "" if name == BARE else name)
        if "://" not in store and folder.is_dir():
            for entry in islice(_files(folder), LISTED):
                digest.update(repr(entry).encode())
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[tuple[str, int, int]]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            status = os.stat(os.path.join(root, name))
            yield os.path.relpath(os.path.join(root, name), folder), status.st_size, status.st_mtime_ns


def memory_fingerprint(dataset: xr.Dataset, names: tuple[str, ...]) -> str:
    """Digest data held in memory: names, dimensions and bytes. Hexadecimal SHA-256."""
    digest = hashlib.sha256()
    for name in names:
        array = dataset[name]
        digest.update(repr((name, array.dims, array.shape, str(array.dtype))).encode())
        if isinstance(array.variable._data, np.ndarray):
            digest.update(np.ascontiguousarray(array.values).view(np.uint8).data)
    return digest.hexdigest()
