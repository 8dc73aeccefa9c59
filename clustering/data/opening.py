"""Opening a store, an array or an xarray object as one lazily indexed, decoded dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import xarray as xr
import zarr
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.errors import NodeTypeValidationError

from clustering.data.addresses import shown
from clustering.data.dimension_names import refuse_empty, refuse_image, refuse_unnamed, with_names
from clustering.data.grouped import (
    UNEVEN,
    UNNAMED,
    DecodedGroup,
    UnusableError,
    as_variable,
    dataset_of,
    decode_variable,
    dimensions,
)
from clustering.data.members import list_members
from clustering.data.store_errors import UnlistableStore, translate_errors
from clustering.data.stores import connect, listable, names_in
from clustering.data.unlistable_groups import unlisted_members
from clustering.errors import ClusteringError, SourceError, nearest, reason

BARE = "values"
"""Name given to the variable of a bare array."""
_LISTED_DEPTH = 3
_LOOKED = 50
"""Folders of what is no store that are looked into."""
_UNEVEN_REMEDY = "; name one array as the group, or rename the dimension of the other in the store"
_NAMED = 5
"""Arrays that cannot be used that a caution names at most."""


class OpenedDataset(NamedTuple):
    """What a store holds, decoded by xarray and as it is."""

    dataset: xr.Dataset
    node: Any
    """The Zarr group, or the bare array; None for data that are in no store."""
    url: str | None = None
    """Where it was opened, fit to be shown; None for an array that somebody else holds."""
    unusable: Mapping[str, str] = {}
    """Why other arrays of the group cannot be used, by name."""
    cautions: Mapping[str, tuple[str, ...]] = {}
    """What a user should know of variables, by name."""

    def check_selected(self, select: Mapping[str, Any]) -> None:
        """Refuse to select by the labels of a coordinate that cannot be used.

        Raises
        ------
        SourceError
            Naming it, and why.
        """
        for key in select:
            if key in self.unusable and key in self.dataset.sizes:
                raise SourceError(
                    f"the coordinate {key!r} cannot be used: {self.unusable[key]}; select by position with 'isel'"
                )

    def cautions_of(self, names: Sequence[str], *, alone: bool) -> tuple[str, ...]:
        """Tell what a user should know of variables and of the coordinates beside them, in words.

        Parameters
        ----------
        names
            Of the variables.
        alone
            Whether nobody named them, so that what cannot be used is told of the whole group.
        """
        own = [self.dataset[name] for name in names if name in self.dataset.variables]
        dims = {str(d) for array in own for d in array.dims}
        linked = {word for array in own for word in str(array.encoding.get("coordinates", "")).split()}
        beside = [str(name) for name, c in self.dataset.coords.items() if {str(d) for d in c.dims} <= dims]
        cautions = [caution for name in dict.fromkeys([*names, *beside]) for caution in self.cautions.get(name, ())]
        lost = [name for name in sorted(self.unusable) if name in dims | linked]
        cautions += [f"the coordinate {name!r} cannot be used, and labels go without it: {self.unusable[name]}"
                  for name in lost]  # fmt: skip
        others = [name for name in sorted(self.unusable) if name not in lost] if alone else []
        if others:
            more = f", and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
            reasons = "; ".join(f"{name!r}: {self.unusable[name]}" for name in others[:_NAMED])
            cautions.append(f"{len(others)} other array{'s' * (len(others) > 1)} cannot be used ({reasons}{more})")
        return tuple(cautions)

    def array(self, name: str) -> zarr.Array[Any] | None:
        """Find the stored array behind a variable; None where there is none.

        A name with a slash counts from the root of the store.
        """
        if self.node is not None and "/" in name:
            return _only_array(_node(self.node.store_path.store, name.strip("/")))
        if isinstance(self.node, zarr.Array):
            return self.node if name == BARE else None
        if self.node is None:
            return None
        try:
            return zarr.open_array(self.node.store_path.store, path=f"{self.node.path}/{name}".strip("/"), mode="r")
        except (FileNotFoundError, NodeTypeValidationError):
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise SourceError(
                f"variable {name!r} of {self.url!r} cannot be used: {reason(error)}; write its metadata anew"
            ) from error


def decoded_array(array: zarr.Array[Any]) -> DecodedGroup:
    """Wrap a Zarr array opened by itself, decoded as in its group.

    Dimensions without names are called ``dim_0``, ``dim_1`` and so on. The fill value of a version 2 array means
    missing only where xarray wrote the array: everyone else's zero is a number.

    Raises
    ------
    SourceError
        If its attributes do not say what its numbers mean.
    """
    named = array.metadata.zarr_format == 2 and bool(dimensions(array))
    try:
        variable, cautions = as_variable(array, BARE, _numbered(array), masks_fill=named)
    except UnusableError as error:
        raise SourceError(f"the array {array.path or 'itself'!r} cannot be used: {error}") from error
    made, more = decode_variable(BARE, variable, dates=False)
    return DecodedGroup(xr.Dataset({BARE: made}), {}, {BARE: (*cautions, *more)})


def _numbered(array: zarr.Array[Any]) -> list[str]:
    """Name the dimensions of an array, by their numbers where they have no names."""
    names: Any = array.metadata.dimension_names if array.metadata.zarr_format == 3 else dimensions(array)
    return [name or f"dim_{i}" for i, name in enumerate(names or [None] * array.ndim)]


def _only_array(node: zarr.Array[Any] | zarr.Group) -> zarr.Array[Any] | None:
    """Find the array that a path leads to: itself, or the one of a group that is no coordinate."""
    if isinstance(node, zarr.Array):
        return node
    return next((a for name, a in list_members(node).arrays.items() if dimensions(a) != (name,)), None)


def open_node(store: str, group: str | None, storage_options: Mapping[str, Any]) -> zarr.Array[Any] | zarr.Group:
    """Open a Zarr group or array as it is, and read no more than its own metadata."""
    return _node(connect(store, storage_options), group)


def _node(store: Store, group: str | None) -> zarr.Array[Any] | zarr.Group:
    # Consolidated metadata may be older than the arrays, and one odd entry would stand for all.
    return zarr.open(store, path=group or "", mode="r", use_consolidated=False)


def open_store(
    store: str, group: str | None, storage_options: Mapping[str, Any], names: Iterable[Any] = ()
) -> OpenedDataset:
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
        with translate_errors(url, (FileNotFoundError, NotImplementedError)):
            opened = connect(store, storage_options)
            node = _node(opened, group)
            if isinstance(node, zarr.Array):
                alone = decoded_array(node)
                return OpenedDataset(with_names(alone.dataset, node), node, url, {}, alone.cautions)
            if not listable(opened):
                held = unlisted_members(opened, node, names, url)
            else:
                refuse_image(node, where)
                held = list_members(node)
            wanted = [n.removeprefix("cos(").removesuffix(")") for n in names if isinstance(n, str)]
            grouped = dataset_of(held.arrays, node.attrs.asdict(), wanted, held.faults)
            _check(grouped, wanted, node, where)
            return OpenedDataset(grouped.dataset, node, url, grouped.unusable, grouped.cautions)
    except ClusteringError:
        raise
    except (FileNotFoundError, KeyError) as error:
        if opened is not None and group is not None and (children := _children(opened)) is not None:
            raise SourceError(f"no group {group!r} in {url}; {nearest(group, children)}") from error
        refused = ""
        if isinstance(opened, UnlistableStore):
            refused = "; it answers 403 for what is not there, so check the credentials too"
        inside = [] if opened is None else _stores_in(opened)
        if inside:
            also = "" if group is None else f", and {group!r} from there"
            raise SourceError(
                f"{url!r} is no Zarr store itself and holds {'one' if len(inside) == 1 else 'several'} in the "
                f"folder{'s' * (len(inside) > 1)} {', '.join(map(repr, inside))}; name it in source.group{also}"
            ) from error
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


def _check(grouped: DecodedGroup, wanted: Sequence[str], node: zarr.Group, where: str) -> None:
    """Refuse a group that holds nothing to cluster, or in which a variable that is asked for cannot be used."""
    unnamed = [name for name, why in grouped.unusable.items() if why == UNNAMED]
    for name in wanted:
        if name in grouped.unusable:
            if name in unnamed:
                refuse_unnamed(unnamed, node, where)
            path, why = f"{node.path}/{name}".strip("/"), grouped.unusable[name]
            remedy = _UNEVEN_REMEDY if why.startswith(UNEVEN) else ""
            raise SourceError(f"variable {path!r} of {where!r} cannot be used: {why}{remedy}")
    uneven = next((name for name, why in grouped.unusable.items() if why.startswith(UNEVEN)), None)
    if uneven is not None and not wanted:
        raise SourceError(
            f"{uneven!r} and others of {where!r} make no one dataset: {grouped.unusable[uneven]}; name those to "
            "cluster "
            f"in source.variables{_UNEVEN_REMEDY.replace(';', ',', 1)}"
        )
    if grouped.dataset.data_vars or {*wanted} & {*grouped.dataset.variables}:
        return
    if unnamed:
        refuse_unnamed(unnamed, node, where)
    if grouped.unusable and not grouped.dataset.variables:
        name, why = next(iter(grouped.unusable.items()))
        raise SourceError(f"no array of {where!r} can be used; {name!r}: {why}")
    refuse_empty(node, where)


def _stores_in(store: Store) -> list[str]:
    """Name folders at the root of what is no Zarr store that are some, as in an archive of a folder."""
    if not listable(store):
        return []

    names = []
    for name in sync(names_in(store, ""))[:_LOOKED]:
        try:
            _node(store, name)
        except (OSError, KeyError, ValueError):
            continue
        names.append(name)
    return names


def _children(store: Store) -> list[str] | None:
    """Name what the root group of a store holds; None where there is no root group."""
    try:
        root = zarr.open_group(store, mode="r", use_consolidated=False)
    except (OSError, KeyError, ValueError):
        return None
    names: list[str] = []
    level = [root] if listable(store) else []
    for _ in range(_LISTED_DEPTH + 1):
        inside = [list_members(group) for group in level]
        names += [node.path for held in inside for part in (held.arrays, held.groups) for node in part.values()]
        level = [group for held in inside for group in held.groups.values()]
    return names
