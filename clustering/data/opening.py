"""Opening a store, an array or an xarray object as one lazily indexed, decoded dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.backends.zarr import FillValueCoder
from xarray.core import indexing

from clustering.data.names import refuse_empty, refuse_image, refuse_unnamed, with_names
from clustering.errors import SourceError, nearest

BARE = "values"
"""Name given to the variable of a bare array."""
_LISTED_DEPTH = 3


class Opened(NamedTuple):
    """What a store holds, decoded by xarray and as it is."""

    dataset: xr.Dataset
    node: Any
    """The Zarr group, or the bare array; None for data that are in no store."""
    ours: bool = False
    """Whether it was opened here, and nobody else holds it."""

    def array(self, name: str) -> zarr.Array[Any] | None:
        """Find the stored array behind a variable; None where there is none.

        A name with a slash counts from the root of the store.
        """
        if self.node is not None and "/" in name:
            return _only_array(zarr.open(self.node.store_path.store, path=name.strip("/"), mode="r"))
        if isinstance(self.node, zarr.Array):
            return self.node if name == BARE else None
        if self.node is None or not isinstance(self.node.get(name), zarr.Array):
            return None
        # Opened by itself, as metadata consolidated in the group may be older.
        return zarr.open_array(self.node.store_path.store, path=f"{self.node.path}/{name}".strip("/"), mode="r")


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


def _only_array(node: zarr.Array[Any] | zarr.Group) -> zarr.Array[Any] | None:
    """Find the array that a path leads to: itself, or the one of a group that is no coordinate."""
    if isinstance(node, zarr.Array):
        return node
    arrays = dict(node.arrays())
    return next((a for name, a in arrays.items() if list(bare_dataset(a)[BARE].dims) != [name]), None)


def open_store(store: str, group: str | None, storage_options: Mapping[str, Any]) -> Opened:
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
            return Opened(with_names(bare_dataset(node), node), node, ours=True)
        refuse_image(node, where)
        try:
            dataset = xr.open_dataset(
                store, engine="zarr", group=group, chunks=None, cache=False, consolidated=False, storage_options=options
            )
        except KeyError:
            refuse_unnamed(node, where)
            raise
        if not dataset.data_vars:
            refuse_empty(node, where)
        return Opened(dataset, node, ours=True)
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
