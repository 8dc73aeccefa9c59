"""Opening a store, an array or an xarray object as one lazily indexed, decoded dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.backends.zarr import FillValueCoder
from xarray.core import indexing
from zarr.abc.store import Store

from clustering.data.addresses import shown
from clustering.data.faults import Unlisted, told
from clustering.data.names import refuse_empty, refuse_image, refuse_uneven, refuse_unnamed, with_names
from clustering.data.plan import MIB
from clustering.data.stores import connect, listable
from clustering.data.unlisted import unlisted_dataset
from clustering.errors import ClusteringError, SourceError, nearest, reason

BARE = "values"
"""Name given to the variable of a bare array."""
SMALL_LABELS = 16 * MIB
"""Labels of a dimension of up to this size, in bytes, are held in memory; larger ones where they are selected by."""
_LISTED_DEPTH = 3


def with_indexes(dataset: xr.Dataset, dims: Iterable[Any] | None = None) -> xr.Dataset:
    """Index the labels of dimensions, which reads them and holds them in memory.

    Parameters
    ----------
    dims
        Those to index; None: all whose labels are small.
    """
    for d in map(str, dataset.dims if dims is None else dict.fromkeys(dims)):
        labelled = d in dataset.coords and dataset[d].dims == (d,)
        if labelled and d not in dataset.xindexes and (dims is not None or dataset[d].nbytes <= SMALL_LABELS):
            dataset = dataset.set_xindex(d)
    return dataset


class Opened(NamedTuple):
    """What a store holds, decoded by xarray and as it is."""

    dataset: xr.Dataset
    node: Any
    """The Zarr group, or the bare array; None for data that are in no store."""
    url: str | None = None
    """Where it was opened, fit to be shown; None for an array that somebody else holds."""

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


def open_node(store: str, group: str | None, storage_options: Mapping[str, Any]) -> zarr.Array[Any] | zarr.Group:
    """Open a Zarr group or array as it is, and read no more than its own metadata."""
    return zarr.open(connect(store, storage_options), path=group or "", mode="r")


def open_store(store: str, group: str | None, storage_options: Mapping[str, Any], names: Iterable[Any] = ()) -> Opened:
    """Open a Zarr group, or a bare array, without reading any data but the index coordinates.

    Parameters
    ----------
    names
        Variables that will be asked for, and what stands for one: a store that cannot list its keys has no other way to
        tell what it holds.

    Raises
    ------
    SourceError
        If there is no Zarr store, or no such group in it.
    StoreError
        If the store cannot be reached or refuses.
    """
    url = shown(store)
    where = url if group is None else f"{url} (group {group!r})"
    opened: Any = None
    try:
        with told(url, (FileNotFoundError, NotImplementedError)):
            opened = connect(store, storage_options)
            node = zarr.open(opened, path=group or "", mode="r")
            if isinstance(node, zarr.Array):
                return Opened(with_names(bare_dataset(node), node), node, url)
            if not listable(opened):
                return Opened(with_indexes(unlisted_dataset(opened, node, names, url)), node, url)
            refuse_image(node, where)
            try:
                dataset = xr.open_dataset(
                    opened, engine="zarr", group=group, chunks=None, cache=False, consolidated=False,
                    create_default_indexes=False,
                )  # fmt: skip
                dataset = with_indexes(dataset)
            except KeyError:
                refuse_unnamed(node, where)
                raise
            except ValueError:
                refuse_uneven(node, where)
                raise
            if not dataset.data_vars and not {*names} & {*dataset.variables}:
                refuse_empty(node, where)
            return Opened(dataset, node, url)
    except ClusteringError:
        raise
    except (FileNotFoundError, KeyError) as error:
        if opened is not None and group is not None and (children := _children(opened)) is not None:
            raise SourceError(f"no group {group!r} in {url}; {nearest(group, children)}") from error
        refused = ""
        if isinstance(opened, Unlisted):
            refused = "; it answers 403 for what is not there, so check the credentials too"
        raise SourceError(
            f"{where!r} holds no Zarr array or group; name one, or convert it with 'ingest'{refused}"
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        # Metadata, and labels that do not decode, fail in every way.
        raise SourceError(
            f"cannot open {where!r}: {reason(error)}; check the path, the group and the credentials, and that what is "
            "stored is whole"
        ) from error


def _children(store: Store) -> list[str] | None:
    """Name what the root group of a store holds; None where there is no root group."""
    try:
        root = zarr.open_group(store, mode="r")
        return [key for key, _ in root.members(max_depth=_LISTED_DEPTH)] if listable(store) else []
    except (OSError, KeyError, ValueError):
        return None
