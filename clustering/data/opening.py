"""Opening a store, an array or an xarray object as one lazily indexed, decoded dataset."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.backends.zarr import FillValueCoder
from xarray.core import indexing

from clustering.errors import SourceError, nearest

BARE = "values"
"""Name given to the variable of a bare array."""
_LISTED_DEPTH = 3
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
    """Wrap a Zarr array opened by itself, decoded as xarray decodes it in its group.

    Dimensions without names are called ``dim_0``, ``dim_1`` and so on. The fill value of a version 2 array means
    missing only where xarray wrote the array: everyone else's zero is a number.
    """
    attributes: dict[str, Any] = dict(array.attrs)
    dims = attributes.pop("_ARRAY_DIMENSIONS", None)
    if array.metadata.zarr_format == 2:
        if dims and array.fill_value is not None:
            attributes["_FillValue"] = array.fill_value
    else:
        dims = array.metadata.dimension_names
        if "_FillValue" in attributes:
            attributes["_FillValue"] = FillValueCoder.decode(attributes["_FillValue"], array.dtype)
    names = [name or f"dim_{i}" for i, name in enumerate(dims or [None] * array.ndim)]
    variable = xr.Variable(names, indexing.LazilyIndexedArray(_BareArray(array)), attributes)
    decoded = xr.decode_cf(xr.Dataset({BARE: variable}))
    decoded[BARE].encoding.update(chunks=array.chunks, shards=array.shards)
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
            members = zarr.open_group(store, mode="r", storage_options=options).members(max_depth=_LISTED_DEPTH)
            children = [key for key, _ in members]
            raise SourceError(f"no group {group!r} in {store}; {nearest(group, children)}") from error
        if "://" not in store and not Path(store).exists():
            raise SourceError(f"no store at {store!r}; check source.store (a path or a URL of a Zarr store)") from error
        raise SourceError(f"{where!r} holds no Zarr array or group; name one, or convert it with 'ingest'") from error
    except (OSError, ValueError, TypeError, ImportError) as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise SourceError(f"cannot open {where!r}: {reason}; check the path, the group and the credentials") from error


def _is_group(store: str, options: dict[str, Any] | None) -> bool:
    try:
        zarr.open_group(store, mode="r", storage_options=options)
    except (OSError, KeyError, ValueError):
        return False
    return True


def array_metadata(store: str, group: str | None, names: Iterable[str], options: Mapping[str, Any]) -> list[Any]:
    """Give the metadata of stored variables as JSON has them."""
    node = zarr.open(store, path=group or "", mode="r", storage_options=dict(options) or None)
    arrays = [node] if isinstance(node, zarr.Array) else [node[name] for name in names]
    return [array.metadata.to_dict() for array in arrays]


def store_fingerprint(store: str, group: str | None, names: Iterable[str], options: Mapping[str, Any]) -> str:
    """Digest what identifies stored variables: metadata and, on a local disk, names, sizes and times of files.

    Returns
    -------
    str
        Hexadecimal SHA-256.
    """
    node = zarr.open(store, path=group or "", mode="r", storage_options=dict(options) or None)
    digest = hashlib.sha256()
    root = Path(store.removeprefix("file://"), (group or "").strip("/"))
    for name in [""] if isinstance(node, zarr.Array) else sorted(names):
        array = node if isinstance(node, zarr.Array) else node[name]
        digest.update(json.dumps([name, array.metadata.to_dict()], default=str, sort_keys=True).encode())
        for entry in islice(_files(root / name), LISTED):
            digest.update(repr(entry).encode())
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[tuple[str, int, int]]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            status = os.stat(os.path.join(root, name))
            yield os.path.relpath(os.path.join(root, name), folder), status.st_size, status.st_mtime_ns
