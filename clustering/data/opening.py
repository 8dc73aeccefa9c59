"""Opening a store or an array as one decoded dataset that reads its values lazily."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from clustering.compat.zarr import run_in_zarr
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
    own_attributes,
)
from clustering.data.members import list_members, unlisted_members
from clustering.data.plain_dataset import PlainDataset, PlainVariable
from clustering.data.store_errors import translate_errors
from clustering.data.stores import connect, listable, names_in
from clustering.deferred import xr, zarr
from clustering.errors import ClusteringError, SourceError, nearest, reason

if TYPE_CHECKING:
    from zarr.abc.store import Store

BARE = "values"
"""Name given to the variable of a bare array."""
_LISTED_DEPTH = 3
"""Levels of groups below the root whose members a message suggests."""
_LOOKED = 50
"""Largest number of subfolders that are searched for a store, where the folder itself is none."""
_UNEVEN_REMEDY = "; name one array as the group, or rename the dimension of the other in the store"
_NAMED = 5
"""Largest number of unusable arrays that a caution names."""


class OpenedDataset(NamedTuple):
    """A dataset with decoded variables, and the stored group or array behind it."""

    dataset: xr.Dataset
    node: Any
    """The Zarr group, or the bare array; None for data in memory."""
    url: str | None = None
    """Path or URL without secrets, for messages; None for data that the user opened or made."""
    unusable: Mapping[str, str] = {}
    """Name of an array of the group that cannot be used → the reason."""
    cautions: Mapping[str, tuple[str, ...]] = {}
    """Name of a variable → cautions for the user."""

    def check_selected(self, select: Mapping[str, Any]) -> None:
        """Refuse to select by the labels of a coordinate that cannot be used.

        Parameters
        ----------
        select
            Selection by labels: dimension → labels.

        Raises
        ------
        SourceError
            Naming the coordinate and the reason.
        """
        for key in select:
            if key in self.unusable and key in self.dataset.sizes:
                raise SourceError(
                    f"the coordinate {key!r} cannot be used: {self.unusable[key]}; select by position with 'isel'"
                )

    def cautions_of(self, names: Sequence[str], *, alone: bool) -> tuple[str, ...]:
        """Collect the cautions about variables and about the coordinates beside them.

        Parameters
        ----------
        names
            Variables to cluster, and companions.
        alone
            Whether the user named no variables. Then the cautions list all unusable arrays of the group, since one of
            them may be the wanted one.
        """
        own = [self.dataset[name] for name in names if name in self.dataset.variables]
        dims = {str(d) for array in own for d in array.dims}
        linked = {word for array in own for word in str(array.encoding.get("coordinates", "")).split()}
        beside = [str(name) for name, c in self.dataset.coords.items() if {str(d) for d in c.dims} <= dims]
        cautions = [caution for name in dict.fromkeys([*names, *beside]) for caution in self.cautions.get(name, ())]
        # Unusable coordinates are no part of the dataset. Variables name them by their dimensions or by attributes.
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

        Parameters
        ----------
        name
            Name of a variable in the group. A name with a slash is a path from the root of the store.

        Raises
        ------
        SourceError
            If the metadata of the array are damaged.
        """
        if self.node is not None and "/" in name:
            return _only_array(_node(self.node.store_path.store, name.strip("/")))
        if isinstance(self.node, zarr.Array):
            return self.node if name == BARE else None
        if self.node is None:
            return None
        try:
            return zarr.open_array(self.node.store_path.store, path=f"{self.node.path}/{name}".strip("/"), mode="r")
        except (FileNotFoundError, zarr.errors.NodeTypeValidationError):
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise SourceError(
                f"variable {name!r} of {self.url!r} cannot be used: {reason(error)}; write its metadata anew"
            ) from error


def decoded_array(array: zarr.Array[Any]) -> DecodedGroup:
    """Wrap a single Zarr array as a dataset, decoded as in its group.

    Dimensions without names are called ``dim_0``, ``dim_1`` and so on. The fill value of a format 2 array means missing
    only where xarray wrote the array. Other programs fill with 0, which is a number.

    Parameters
    ----------
    array
        The stored array.

    Raises
    ------
    SourceError
        If its attributes do not say what its numbers mean.
    """
    # In format 2, only xarray (and programs that follow it) stores names of dimensions.
    named = array.metadata.zarr_format == 2 and bool(dimensions(array))
    if not named and not own_attributes(array) and array.dtype.kind in "iuf" and array.dtype.isnative:
        # There is nothing to decode, so the array is used without xarray.
        encoding = {"chunks": tuple(array.chunks), "shards": array.shards, "dtype": array.dtype}
        plain = PlainDataset({BARE: PlainVariable(tuple(_numbered(array)), array, encoding=encoding)})
        return DecodedGroup(cast("xr.Dataset", plain), {}, {BARE: ()})
    try:
        variable, cautions = as_variable(array, BARE, _numbered(array), masks_fill=named)
    except UnusableError as error:
        raise SourceError(f"the array {array.path or 'itself'!r} cannot be used: {error}") from error
    made, more = decode_variable(BARE, variable, dates=False)
    return DecodedGroup(xr.Dataset({BARE: made}), {}, {BARE: (*cautions, *more)})


def _numbered(array: zarr.Array[Any]) -> list[str]:
    """Name the dimensions of an array, by their axis numbers where they have no names."""
    names: Any = array.metadata.dimension_names if array.metadata.zarr_format == 3 else dimensions(array)
    return [name or f"dim_{i}" for i, name in enumerate(names or [None] * array.ndim)]


def _only_array(node: zarr.Array[Any] | zarr.Group) -> zarr.Array[Any] | None:
    """Find the array behind a path: the node itself, or the first array of a group that is no coordinate."""
    if isinstance(node, zarr.Array):
        return node
    return next((a for name, a in list_members(node).arrays.items() if dimensions(a) != (name,)), None)


def open_node(store: str, group: str | None, storage_options: Mapping[str, Any]) -> zarr.Array[Any] | zarr.Group:
    """Open a Zarr group or array without decoding, and read only its own metadata.

    Parameters
    ----------
    store
        Path or URL of the store.
    group
        Path of a group or array in the store; the root where None.
    storage_options
        Options of the file system, such as credentials.
    """
    return _node(connect(store, storage_options), group)


def _node(store: Store, group: str | None) -> zarr.Array[Any] | zarr.Group:
    # Consolidated metadata may be older than the arrays, and one damaged entry in them would block the whole group.
    return zarr.open(store, path=group or "", mode="r", use_consolidated=False)


def open_store(
    store: str, group: str | None, storage_options: Mapping[str, Any], names: Iterable[Any] = ()
) -> OpenedDataset:
    """Open a Zarr group or a bare array. Of its data, only index coordinates are read.

    Parameters
    ----------
    store
        Path or URL of the store.
    group
        Path of a group or array in the store; the root where None.
    storage_options
        Options of the file system, such as credentials.
    names
        Variables and companions that the user named. A store that cannot list its keys is searched for these names
        alone.

    Raises
    ------
    SourceError
        If there is no Zarr store or no such group, or the group cannot be used.
    StoreError
        If the store cannot be reached or denies access.
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
            # Weights may be given as cos(latitude).
            wanted = [n.removeprefix("cos(").removesuffix(")") for n in names if isinstance(n, str)]
            grouped = dataset_of(held.arrays, node.attrs.asdict(), wanted, held.faults)
            _check(grouped, wanted, node, where)
            return OpenedDataset(grouped.dataset, node, url, grouped.unusable, grouped.cautions)
    except ClusteringError:
        raise
    except (FileNotFoundError, KeyError) as error:
        if opened is not None and group is not None and (children := _children(opened)) is not None:
            raise SourceError(f"no group {group!r} in {url}; {nearest(group, children)}") from error
        from clustering.data.wrapped_stores import UnlistableStore

        refused = ""
        if isinstance(opened, UnlistableStore):
            refused = "; it answers 403 for missing keys, so check the credentials too"
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
    # A lack of memory is no fault of the store.
    except MemoryError:
        raise
    except Exception as error:
        # Damaged metadata, and coordinates that do not decode, raise errors of every type.
        raise SourceError(
            f"cannot open {where!r}: {reason(error)}; check the path, the group and the credentials, and whether the "
            "store is damaged"
        ) from error


def _check(grouped: DecodedGroup, wanted: Sequence[str], node: zarr.Group, where: str) -> None:
    """Refuse a group that holds nothing to cluster, or in which a named variable cannot be used."""
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
    """Name the Zarr stores in the top folders of a place that is no Zarr store itself, such as a zipped folder."""
    if not listable(store):
        return []

    names = []
    # Each name costs requests, and a folder of other files may hold very many.
    for name in run_in_zarr(names_in(store, ""))[:_LOOKED]:
        try:
            _node(store, name)
        except (OSError, KeyError, ValueError):
            continue
        names.append(name)
    return names


def _children(store: Store) -> list[str] | None:
    """Name the arrays and groups of a store, a few levels deep; None where there is no root group."""
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
