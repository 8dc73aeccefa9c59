"""Names of dimensions and channels in OME-Zarr images, and messages that name the groups and arrays of a store."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from clustering.data.members import list_members
from clustering.deferred import xr, zarr
from clustering.errors import SourceError, nearest

_NUMBERED = re.compile(r"dim_\d+")
_LISTED = 12
"""Groups or arrays that a message lists at most."""
_LOOKED = 200
"""Groups that are searched for them at most."""
_DEPTH = 5


def numbered(dims: Iterable[Any]) -> bool:
    """Return whether dimensions are unnamed, so that they are called ``dim_0``, ``dim_1`` and so on.

    Parameters
    ----------
    dims
        Names of all dimensions of an array.
    """
    return all(_NUMBERED.fullmatch(str(d)) for d in dims)


def unknown_dimension(name: str, where: str, present: Iterable[Any]) -> SourceError:
    """Return the error for a dimension that does not exist.

    Parameters
    ----------
    name
        The unknown dimension.
    where
        Option that names it.
    present
        Names of the dimensions that exist.
    """
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
    """Metadata of an OME-Zarr image group about its arrays."""

    levels: tuple[str, ...]
    """Paths of the arrays, one for each resolution, relative to the group."""
    axes: tuple[str, ...]
    channel: str | None
    """Axis of the channels."""
    labels: tuple[str, ...]
    """Names of the channels."""


def _image(attributes: Mapping[str, Any]) -> _Image | None:
    """Read the attributes of an OME-Zarr image of version 0.4, or of 0.5 (under ``ome``); None for other groups."""
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
    # Labels of only some of the channels would be given to wrong ones.
    labels = labels if len(labels) == len(channels) else ()
    return _Image(tuple(filter(None, levels)), tuple(name for name, _ in axes), channel, labels)


def _entries(value: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def _image_of(array: zarr.Array[Any]) -> _Image | None:
    """Find the image that has an array as a level, in the group of the array or the one above; None without it."""
    store, parts = array.store, [part for part in array.path.split("/") if part]
    if not parts and isinstance(store, zarr.storage.LocalStore):
        # The store was opened at the array itself, so the image group is the folder that holds it.
        root = Path(store.root).absolute()
        store, parts = zarr.storage.LocalStore(root.parent, read_only=True), [root.name]
    # The path of a level may have two parts, such as scale/0.
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
    """Name the unnamed dimensions and the channels of an array as its OME-Zarr image does.

    Parameters
    ----------
    dataset
        Dataset with the array as its only variable; returned as it is for other arrays than those of an image.
    array
        The stored array.
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


def finest_level(group: zarr.Group) -> str | None:
    """Return the path from the root of the array of an OME-Zarr image with the finest resolution; None without one.

    Parameters
    ----------
    group
        Opened group.
    """
    image = _image(group.attrs.asdict())
    # The specification orders levels from the finest to the coarsest.
    return "/".join(filter(None, (group.path, image.levels[0]))) if image is not None and image.levels else None


# Groups


def refuse_image(group: zarr.Group, where: str) -> None:
    """Refuse an image at several resolutions, whose arrays do not fit into one dataset.

    Parameters
    ----------
    group
        Opened group.
    where
        Store and group as messages show them.

    Raises
    ------
    SourceError
        If the group is such an image; the message names its arrays.
    """
    image = _image(group.attrs.asdict())
    if image is not None and len(image.levels) > 1:
        levels = ", ".join("/".join(filter(None, (group.path, level))) for level in image.levels)
        raise SourceError(f"{where!r} is an OME-Zarr image of several resolutions; name one as its group: {levels}")


def refuse_unnamed(names: Iterable[str], group: zarr.Group, where: str) -> None:
    """Refuse a group whose arrays have unnamed dimensions, as these cannot be matched.

    Parameters
    ----------
    names
        Names of these arrays.
    group
        Opened group.
    where
        Store and group as messages show them.

    Raises
    ------
    SourceError
        Always; the message names the arrays.
    """
    paths = sorted(f"{group.path}/{name}".strip("/") for name in names)
    raise SourceError(
        f"arrays of {where!r} name no dimensions; name one as its group: {_listing(paths)}; or name them in the "
        "store (dimension_names of version 3, _ARRAY_DIMENSIONS of version 2)"
    )


def refuse_empty(group: zarr.Group, where: str) -> None:
    """Refuse a group that holds no variables of its own.

    Parameters
    ----------
    group
        Opened group.
    where
        Store and group as messages show them.

    Raises
    ------
    SourceError
        Always; the message names the nearest groups below with arrays, or the coordinates that can be clustered.
    """
    inside = sorted(name for name, array in list_members(group).arrays.items() if array.ndim > 1)
    if inside:
        raise SourceError(
            f"{where!r} holds coordinates alone; name those to cluster in source.variables: {_listing(inside)}"
        )
    # The search goes level by level with limits, as every group of a bucket costs a request.
    paths, level, looked = list[str](), [group], 0
    for _ in range(_DEPTH):
        level = [child for parent in level for child in list_members(parent).groups.values()][: _LOOKED - looked]
        looked += len(level)
        paths += sorted(child.path for child in level if list_members(child).arrays)
        if len(paths) > _LISTED:
            break
    remedy = f"name a group that does: {_listing(paths)}" if paths else "nor does any group in it; name another store"
    raise SourceError(f"{where!r} holds no variables of its own; {remedy}")


def _listing(paths: list[str]) -> str:
    return ", ".join(paths[:_LISTED]) + (", …" if len(paths) > _LISTED else "")
