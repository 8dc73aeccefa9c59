"""Groups in stores that cannot list their keys, opened by consolidated metadata or by the names of variables."""

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
    """Open variables by name, with their coordinates and the bounds of the coordinates."""
    wanted = [name.removeprefix("cos(").removesuffix(")") for name in names if isinstance(name, str)]
    opened = named_members(node, wanted)
    # The first round opens coordinates of the variables, the second one bounds of the coordinates.
    for _ in range(2):
        beside = [name for array_name, array in opened.arrays.items() for name in _linked_names(array_name, array)]
        new = named_members(node, [name for name in beside if name not in opened.arrays and name not in opened.faults])
        # A coordinate that cannot be opened is kept as a fault and does not stop the others.
        opened = Members({**opened.arrays, **new.arrays}, {}, {**opened.faults, **new.faults})
    return opened


def _linked_names(name: str, array: zarr.Array[Any]) -> list[str]:
    """Name the coordinates of an array, by its dimensions and by its attributes."""
    attributes = repair_attributes(name, dict(array.attrs), array.dtype).attributes
    linked = " ".join(str(attributes.get(key, "")) for key in ("coordinates", "bounds", "climatology", "grid_mapping"))
    return [*(dimensions(array) or ()), *(word.removesuffix(":") for word in linked.split())]
