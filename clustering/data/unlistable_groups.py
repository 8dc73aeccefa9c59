"""Groups in stores that cannot list what they hold: read by consolidated metadata, or by the names of variables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import zarr
from zarr.abc.store import Store

from clustering.data.attributes import repair_attributes
from clustering.data.grouped import dimensions
from clustering.data.members import Members, consolidated_members, named_members
from clustering.errors import SourceError


def unlisted_members(store: Store, node: zarr.Group, names: Iterable[Any], where: str) -> Members:
    """Open what a group holds whose members the store cannot list.

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
    consolidated = consolidated_members(store, node)
    if consolidated is None or not (consolidated.arrays or consolidated.faults):
        consolidated = _with_coordinates(node, names)
    if not (consolidated.arrays or consolidated.faults):
        raise SourceError(
            f"{where} cannot list its keys and has no consolidated metadata; "
            "name the variables in source.variables, or consolidate the metadata of the store"
        )
    return consolidated


def _with_coordinates(node: zarr.Group, names: Iterable[Any]) -> Members:
    """Open the variables named, with their coordinates, and the bounds of these."""
    wanted = [name.removeprefix("cos(").removesuffix(")") for name in names if isinstance(name, str)]
    opened = named_members(node, wanted)
    for _ in range(2):
        beside = [name for array_name, array in opened.arrays.items() for name in _linked_names(array_name, array)]
        new = named_members(node, [name for name in beside if name not in opened.arrays and name not in opened.faults])
        # What cannot be opened and was not asked for is in nobody's way.
        opened = Members({**opened.arrays, **new.arrays}, {}, {**opened.faults, **new.faults})
    return opened


def _linked_names(name: str, array: zarr.Array[Any]) -> list[str]:
    """Name what belongs to an array: coordinates of its dimensions, and what its attributes name."""
    attributes = repair_attributes(name, dict(array.attrs), array.dtype).attributes
    linked = " ".join(str(attributes.get(key, "")) for key in ("coordinates", "bounds", "climatology", "grid_mapping"))
    return [*(dimensions(array) or ()), *(word.removesuffix(":") for word in linked.split())]
