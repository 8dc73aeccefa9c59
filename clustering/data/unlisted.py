"""Groups in stores that cannot list what they hold: read by consolidated metadata, or by the names of variables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import xarray as xr
import zarr
from xarray.backends import ZarrStore
from zarr.abc.store import Store
from zarr.core.group import ConsolidatedMetadata

from clustering.errors import SourceError


def unlisted_dataset(store: Store, node: zarr.Group, names: Iterable[Any], where: str) -> xr.Dataset:
    """Open a group whose members the store cannot list.

    Parameters
    ----------
    node
        The group.
    names
        Variables to open where there is no consolidated metadata, ``cos(name)`` too; what is no name of a variable that
        is there is left out.
    where
        URL of the store, fit to be shown.

    Raises
    ------
    SourceError
        If neither consolidated metadata nor names tell what the group holds.
    """
    found = _consolidated(store, node) or _named(node, names)
    if found is None:
        raise SourceError(
            f"{where} cannot list its keys and has no consolidated metadata; "
            "name the variables in source.variables, or consolidate the metadata of the store"
        )
    # As xarray opens a group: the fill value of version 2 means missing.
    opened = ZarrStore(found, mode="r", use_zarr_fill_value_as_mask=node.metadata.zarr_format == 2)
    return xr.open_dataset(opened, chunks=None, cache=False, create_default_indexes=False)


def _consolidated(store: Store, node: zarr.Group) -> zarr.Group | None:
    if node.metadata.consolidated_metadata is not None:
        return node
    if node.path:
        root = zarr.open_group(store, mode="r")
        if root.metadata.consolidated_metadata is not None:
            inner = root[node.path]
            return inner if isinstance(inner, zarr.Group) else None
    return None


def _named(node: zarr.Group, names: Iterable[Any]) -> zarr.Group | None:
    """Make a group hold the variables named, with their coordinates, as if its metadata were consolidated."""
    metadata: dict[str, Any] = {}
    for name in (name.removeprefix("cos(").removesuffix(")") for name in names if isinstance(name, str)):
        array = _array(node, name)
        if array is None:
            continue
        metadata[name] = array.metadata
        coordinates = str(array.attrs.get("coordinates", "")).split()
        for coordinate in (*_dims(array), *coordinates):
            beside = _array(node, coordinate)
            if beside is not None:
                metadata[coordinate] = beside.metadata
    if not metadata:
        return None
    known = replace(node.metadata, consolidated_metadata=ConsolidatedMetadata(metadata=metadata))
    return zarr.Group(replace(node._async_group, metadata=known))


def _array(node: zarr.Group, name: str) -> zarr.Array[Any] | None:
    try:
        found = node[name]
    except KeyError:
        return None
    return found if isinstance(found, zarr.Array) else None


def _dims(array: zarr.Array[Any]) -> Iterable[str]:
    names: Any = array.attrs.get("_ARRAY_DIMENSIONS") or getattr(array.metadata, "dimension_names", None) or ()
    return [str(name) for name in names if name]
