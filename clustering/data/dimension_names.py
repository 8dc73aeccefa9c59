"""Names for what a store leaves unnamed: dimensions and channels of OME-Zarr images, and groups that hold arrays."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr
import zarr
from zarr.storage import LocalStore

from clustering.data.members import list_members
from clustering.errors import SourceError, nearest

_NUMBERED = re.compile(r"dim_\d+")
_LISTED = 12
"""Groups or arrays that a message lists at most."""
_LOOKED = 200
"""Groups that are looked into for them at most."""
_DEPTH = 5


def numbered(dims: Iterable[Any]) -> bool:
    """Tell whether dimensions have no names but their numbers."""
    return all(_NUMBERED.fullmatch(str(d)) for d in dims)


def unknown_dimension(name: str, where: str, present: Iterable[Any]) -> SourceError:
    """Say that a dimension is not there, and how dimensions without names are named."""
    dims = [str(d) for d in present]
    remedy = (
        "; the array names no dimensions: use these, or name them in the store (dimension_names of version 3, "
        "_ARRAY_DIMENSIONS of version 2)"
        if dims and numbered(dims)
        else ""
    )
    return SourceError(f"unknown dimension {name!r} in '{where}'; {nearest(name, dims)}{remedy}")


# OME-Zarr


class _Image(NamedTuple):
    """What an OME-Zarr image group tells of its arrays."""

    levels: tuple[str, ...]
    """Paths of the arrays, from the group."""
    axes: tuple[str, ...]
    channel: str | None
    """Axis of the channels."""
    labels: tuple[str, ...]
    """Of the channels."""


def _image(attributes: Mapping[str, Any]) -> _Image | None:
    """Read the attributes of an image group: OME-Zarr 0.4 (Zarr version 2), or 0.5 (version 3, under ``ome``)."""
    inner = attributes.get("ome")
    ome = inner if isinstance(inner, Mapping) else attributes
    scales = _entries(ome.get("multiscales"))
    if not scales:
        return None
    levels = tuple(str(level.get("path", "")).strip("/") for level in _entries(scales[0].get("datasets")))
    axes = [(str(a.get("name", "")), a.get("type")) for a in _entries(scales[0].get("axes"))]
    channel = next((name for name, kind in axes if kind == "channel" or (kind is None and name == "c")), None)
    omero = ome.get("omero")
    channels = _entries(omero.get("channels")) if isinstance(omero, Mapping) else []
    labels = tuple(str(c["label"]) for c in channels if c.get("label"))
    # Labels of some channels only would name the wrong ones.
    labels = labels if len(labels) == len(channels) else ()
    return _Image(tuple(filter(None, levels)), tuple(name for name, _ in axes), channel, labels)


def _entries(value: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def _image_of(array: zarr.Array[Any]) -> _Image | None:
    """Find the image that an array is a level of: in the group that holds it, or in the next one up."""
    store, parts = array.store, [part for part in array.path.split("/") if part]
    if not parts and isinstance(store, LocalStore):
        # The store is the array itself, and the image is the folder around it.
        root = Path(store.root).absolute()
        store, parts = LocalStore(root.parent, read_only=True), [root.name]
    for cut in range(len(parts) - 1, max(-1, len(parts) - 3), -1):
        try:
            group = zarr.open_group(store, path="/".join(parts[:cut]), mode="r", use_consolidated=False)
        except (OSError, KeyError, ValueError):
            continue
        image = _image(group.attrs.asdict())
        if image is not None:
            return image if "/".join(parts[cut:]) in image.levels else None
    return None


def with_names(dataset: xr.Dataset, array: zarr.Array[Any]) -> xr.Dataset:
    """Name the unnamed dimensions of a bare array, and its channels, as the OME-Zarr image it belongs to does.

    Parameters
    ----------
    dataset
        Of one variable, the array.
    array
        Where it is stored.
    """
    image = _image_of(array)
    dims = tuple(str(d) for d in next(iter(dataset.data_vars.values())).dims)
    if image is None or len(image.axes) != len(dims) or len(set(image.axes)) != len(dims):
        return dataset
    new = {
        old: axis
        for old, axis in zip(dims, image.axes, strict=True)
        if _NUMBERED.fullmatch(old) and axis and axis not in dims
    }
    named = dataset.rename_dims(new)
    if image.channel is None:
        return named
    along = dims[image.axes.index(image.channel)]
    along = new.get(along, along)
    if len(image.labels) != named.sizes[along] or along in named.coords:
        return named
    return named.assign_coords({along: list(image.labels)})


# Groups


def refuse_image(group: zarr.Group, where: str) -> None:
    """Refuse a group of the same image at several resolutions, which make no one dataset.

    Raises
    ------
    SourceError
        Naming its arrays.
    """
    image = _image(group.attrs.asdict())
    if image is not None and len(image.levels) > 1:
        levels = ", ".join("/".join(filter(None, (group.path, level))) for level in image.levels)
        raise SourceError(f"{where!r} is an OME-Zarr image of several resolutions; name one as its group: {levels}")


def refuse_unnamed(names: Iterable[str], group: zarr.Group, where: str) -> None:
    """Refuse a group whose arrays name no dimensions, as nothing tells which of them belong together.

    Parameters
    ----------
    names
        Of such arrays.

    Raises
    ------
    SourceError
        Naming them.
    """
    paths = sorted(f"{group.path}/{name}".strip("/") for name in names)
    raise SourceError(
        f"arrays of {where!r} name no dimensions; name one as its group: {_listing(paths)}; or name them in the "
        "store (dimension_names of version 3, _ARRAY_DIMENSIONS of version 2)"
    )


def refuse_empty(group: zarr.Group, where: str) -> None:
    """Refuse a group that holds no variables of its own.

    Raises
    ------
    SourceError
        Naming the nearest groups below that do.
    """
    inside = sorted(name for name, array in list_members(group).arrays.items() if array.ndim > 1)
    if inside:
        raise SourceError(
            f"{where!r} holds coordinates alone; name those to cluster in source.variables: {_listing(inside)}"
        )
    paths, level, looked = list[str](), [group], 0
    for _ in range(_DEPTH):
        level = [child for parent in level for child in list_members(parent).groups.values()][: _LOOKED - looked]
        looked += len(level)
        paths += sorted(child.path for child in level if list_members(child).arrays)
        if len(paths) > _LISTED:
            break
    remedy = f"name a group that does: {_listing(paths)}" if paths else "nor does any group in it"
    raise SourceError(f"{where!r} holds no variables of its own; {remedy}")


def _listing(paths: list[str]) -> str:
    return ", ".join(paths[:_LISTED]) + (", …" if len(paths) > _LISTED else "")
