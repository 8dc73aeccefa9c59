"""Members of a Zarr group. Each is opened by itself, so that a damaged one does not keep others from being read.

Stores that cannot list their keys give members by consolidated metadata or by the names of variables.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from clustering.compat.zarr import array_of_metadata, async_group, run_in_zarr
from clustering.data.attributes import repair_attributes
from clustering.data.grouped import dimensions
from clustering.data.store_errors import is_transient
from clustering.data.stores import names_in
from clustering.deferred import asyncio, zarr
from clustering.errors import ClusteringError, SourceError, reason

if TYPE_CHECKING:
    from zarr.abc.store import Store

AT_ONCE = 32
"""Number of members that are opened at the same time."""


class Members(NamedTuple):
    """Arrays and groups of a group, by name, sorted."""

    arrays: Mapping[str, zarr.Array[Any]]
    groups: Mapping[str, zarr.Group]
    faults: Mapping[str, str]
    """Name of a member that cannot be opened → the reason."""


def list_members(group: zarr.Group) -> Members:
    """Open all members that the store lists in a group, whatever its consolidated metadata say.

    Parameters
    ----------
    group
        A group in a store that can list its keys.

    Raises
    ------
    StoreError
        If the store does not answer.
    """

    async def opened() -> dict[str, Any]:
        inner = async_group(group)
        limit = asyncio.Semaphore(AT_ONCE)
        names = await names_in(inner.store, inner.path)

        async def one(name: str) -> Any:
            async with limit:
                return await inner.getitem(name)

        opened_members = await asyncio.gather(*map(one, names), return_exceptions=True)
        return dict(zip(names, opened_members, strict=True))

    return _sort_members(run_in_zarr(opened()))


def unlisted_members(store: Store, node: zarr.Group, names: Iterable[Any], where: str) -> Members:
    """Open the members of a group whose store cannot list its keys.

    Parameters
    ----------
    store
        The store that holds the group.
    node
        The group.
    names
        Variables to open where there are no consolidated metadata. ``cos(name)`` stands for its variable. Other values,
        and names without a variable, are ignored.
    where
        URL of the store without secrets.

    Raises
    ------
    SourceError
        If neither consolidated metadata nor names lead to a variable.
    """
    consolidated = _consolidated_members(store, node)
    if consolidated is None or not (consolidated.arrays or consolidated.faults):
        consolidated = _with_coordinates(node, names)
    if not (consolidated.arrays or consolidated.faults):
        raise SourceError(
            f"{where} cannot list its keys and has no consolidated metadata; "
            "name the variables in source.variables, or consolidate the metadata of the store"
        )
    return consolidated


def _with_coordinates(node: zarr.Group, names: Iterable[Any]) -> Members:
    """Open variables by name, with their coordinates and the bounds of the coordinates."""
    wanted = [name.removeprefix("cos(").removesuffix(")") for name in names if isinstance(name, str)]
    opened = _named_members(node, wanted)
    # The first round opens coordinates of the variables, the second one bounds of the coordinates.
    for _ in range(2):
        beside = [name for array_name, array in opened.arrays.items() for name in _linked_names(array_name, array)]
        new = _named_members(node, [name for name in beside if name not in opened.arrays and name not in opened.faults])
        # A coordinate that cannot be opened is kept as a fault and does not stop the others.
        opened = Members({**opened.arrays, **new.arrays}, {}, {**opened.faults, **new.faults})
    return opened


def _linked_names(name: str, array: zarr.Array[Any]) -> list[str]:
    """Name the coordinates of an array, by its dimensions and by its attributes."""
    attributes = repair_attributes(name, dict(array.attrs), array.dtype).attributes
    linked = " ".join(str(attributes.get(key, "")) for key in ("coordinates", "bounds", "climatology", "grid_mapping"))
    return [*(dimensions(array) or ()), *(word.removesuffix(":") for word in linked.split())]


def _named_members(group: zarr.Group, names: Iterable[str]) -> Members:
    """Open members by name, for a store that cannot list its keys; names without a member are left out."""

    async def opened() -> dict[str, Any]:
        wanted = list(dict.fromkeys(names))
        opened_members = await asyncio.gather(*map(async_group(group).getitem, wanted), return_exceptions=True)
        return dict(zip(wanted, opened_members, strict=True))

    return _sort_members(run_in_zarr(opened()))


def _consolidated_members(store: Store, group: zarr.Group) -> Members | None:
    """Read the arrays of a group from metadata consolidated in it, or in the root of the store; None without them."""
    v3 = group.metadata.zarr_format == 3
    for parent_path in dict.fromkeys((group.path, "")):
        documents = _documents(store, parent_path, v3)
        if documents is None:
            continue
        # Keep direct members of the group. Consolidated metadata also describe those of groups below.
        inside = group.path.removeprefix(parent_path).strip("/")
        start = f"{inside}/" if inside else ""
        own = {
            path.removeprefix(start): metadata
            for path, metadata in documents.items()
            if path.startswith(start) and "/" not in path.removeprefix(start)
        }
        opened: dict[str, Any] = {}
        for name, metadata in sorted(own.items()):
            try:
                opened[name] = array_of_metadata(metadata, store, f"{group.path}/{name}".strip("/"), v3=v3)
            except Exception as error:
                # One faulty entry must not hide the others. `_sort_members` keeps it as a fault.
                opened[name] = error
        return _sort_members(opened)
    return None


def _documents(store: Store, parent: str, v3: bool) -> dict[str, dict[str, Any]] | None:
    """Read the metadata of arrays that are consolidated in a group, by path below that group; None where none are."""
    key = f"{parent}/{'zarr.json' if v3 else '.zmetadata'}".strip("/")
    buffer = run_in_zarr(store.get(key, zarr.buffer.default_buffer_prototype()))
    try:
        content = {} if buffer is None else json.loads(buffer.to_bytes())
        content = content.get("consolidated_metadata") or {} if v3 else content
        documents = content.get("metadata")
    except (ValueError, AttributeError):
        return None
    if not isinstance(documents, dict):
        return None
    if v3:
        return {path: dict(about) for path, about in documents.items() if about.get("node_type") == "array"}
    # Format 2 keeps the attributes of an array in a document of their own.
    ends = "/.zarray"
    return {
        path.removesuffix(ends): {**about, "attributes": documents.get(path.removesuffix(ends) + "/.zattrs") or {}}
        for path, about in documents.items()
        if path.endswith(ends)
    }


def _sort_members(opened: Mapping[str, Any]) -> Members:
    """Sort opened members, and errors of those that did not open, by kind."""
    arrays, groups, faults = dict[str, zarr.Array[Any]](), dict[str, zarr.Group](), dict[str, str]()
    for name, member in opened.items():
        if isinstance(member, zarr.AsyncArray):
            arrays[name] = zarr.Array(member)
        elif isinstance(member, zarr.AsyncGroup):
            groups[name] = zarr.Group(member)
        elif isinstance(member, ClusteringError) or (isinstance(member, Exception) and is_transient(member)):
            # The next attempt may succeed. If the member were left out, the result would depend on chance.
            raise member
        elif not isinstance(member, Exception):
            # An interrupt, such as Ctrl-C.
            raise member
        elif not (isinstance(member, KeyError) and isinstance(member.__cause__, FileNotFoundError)):
            # This KeyError comes from files and folders without Zarr metadata, which are no members.
            faults[name] = reason(member)
    return Members(arrays, groups, faults)
