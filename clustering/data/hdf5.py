"""Reading the tree of an HDF5 file: its groups, its arrays and the dimensions that they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from clustering.data.readers import FileArray

_INTERNAL = frozenset(
    (
        "CLASS",
        "DIMENSION_LABELS",
        "DIMENSION_LIST",
        "NAME",
        "REFERENCE_LIST",
        "_NCProperties",
        "_Netcdf4Coordinates",
        "_Netcdf4Dimid",
        "_nc3_strict",
    )
)
"""Attributes by which HDF5 files link their dimensions. They mean nothing in a Zarr store and are dropped."""
_NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"
"""Start of the NAME attribute of a dimension that has a length and no labels."""
_HIDDEN = "_nc4_non_coord_"
"""Prefix that NetCDF adds to a variable that has the name of a dimension and does not lie along it."""
Groups = dict[str, tuple[dict[str, FileArray], Mapping[str, Any]]]


@dataclass
class _Tree:
    """State of one walk through the tree of a file."""

    warnings: list[str] = field(default_factory=list)
    """One line for each object that is left out, with the reason."""
    groups: Groups = field(default_factory=dict)
    """Path of a group → its arrays by name, its attributes."""
    seen: dict[Any, str] = field(default_factory=dict)
    """Path by which each object was first reached. HDF5 allows several paths to one object."""
    dims: dict[int, str] = field(default_factory=dict)
    """Names of dimensions by their number in a NetCDF file."""
    unnamed: dict[tuple[str, int, int], str] = field(default_factory=dict)
    """Made-up names of unnamed dimensions, by group, length, and the number of earlier axes of that length in the
    same array."""


def read_groups(path: Path, stack: ExitStack) -> tuple[Groups, list[str]]:
    """Read the arrays and the attributes of each group.

    Parameters
    ----------
    path
        An HDF5 file.
    stack
        Closes the file. Until then the arrays read from it.

    Returns
    -------
    dict
        Path of a group → its arrays by name, its attributes. The path of the root is empty.
    list
        One line for each object that is left out, with the reason.
    """
    file = stack.enter_context(h5py.File(path, "r"))
    tree = _Tree()

    # Variables refer to dimensions by number, and a dimension may lie in another group: numbers are read first.
    def number(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and "_Netcdf4Dimid" in item.attrs and item.is_scale:
            tree.dims[int(item.attrs["_Netcdf4Dimid"])] = _base(item.name)

    file.visititems(number)
    tree.seen[_object_id(file)] = "/"
    _visit_group(file, "", tree)
    return tree.groups, tree.warnings


def _visit_group(group: h5py.Group, path: str, tree: _Tree) -> None:
    """Read a group and the groups inside it."""
    arrays: dict[str, FileArray] = {}
    borrowed: dict[str, h5py.Dataset] = {}
    tree.groups[path] = arrays, _attributes(group)
    below: list[tuple[str, h5py.Group]] = []
    for name in group:
        where = f"{path}/{name}".lstrip("/")
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.SoftLink):
            tree.warnings.append(f"{where!r} is left out: it is a link to {link.path!r}")
            continue
        try:
            item = group[name]
        except (KeyError, OSError):
            tree.warnings.append(f"{where!r} is left out: it is a link to something that does not exist")
            continue
        first = tree.seen.setdefault(_object_id(item), f"/{where}")
        if first != f"/{where}":
            tree.warnings.append(f"{where!r} is left out: it is another name of {first!r}")
            continue
        if isinstance(item, h5py.Group):
            below.append((where, item))
        elif isinstance(item, h5py.Dataset) and not _only_a_dimension(item):
            arrays.update(_arrays(name.removeprefix(_HIDDEN), item, path, tree, borrowed))
    for name, scale in borrowed.items():
        # A NetCDF group may use dimensions of the groups above it. A Zarr group has to hold their coordinates itself,
        # so the coordinates are copied into it.
        if name not in arrays and not _only_a_dimension(scale):
            arrays.update(_arrays(name, scale, path, tree, {}))
    for where, item in below:
        _visit_group(item, where, tree)


def _object_id(item: Any) -> tuple[int, int]:
    """Identify an object by file and address, because one object may have several names."""
    info = h5py.h5o.get_info(item.id)
    return info.fileno, info.addr


def _arrays(
    name: str, data: h5py.Dataset, path: str, tree: _Tree, borrowed: dict[str, h5py.Dataset]
) -> dict[str, FileArray]:
    """Describe a dataset as arrays by name: one array, or one for each column of a table."""
    nothing = FileArray((), (), np.dtype("V1"), lambda *_: np.empty(0), {})
    if data.shape is None:
        return {name: replace(nothing, reason="it is empty")}
    if filters := _filters_lacking(data):
        return {name: replace(nothing, reason=f"it is compressed by filters that are not installed: {filters}")}
    dims, shape = _dims(data, path, tree, borrowed)
    attributes = _attributes(data)
    dtype = data.dtype
    if h5py.check_string_dtype(dtype) is not None or dtype.kind == "S":
        return {name: FileArray(dims, shape, dtype, _reader(data, shape, attributes), attributes, text=True)}
    if (codes := h5py.check_enum_dtype(dtype)) is not None and dtype.kind in "iu":
        # The CF conventions describe an enumeration by these two attributes.
        meanings = {"flag_values": list(codes.values()), "flag_meanings": " ".join(codes)}
        attributes, dtype = {**meanings, **attributes}, np.dtype(dtype.str)
    if reason := _reason(dtype):
        return {name: replace(nothing, reason=reason)}
    if dtype.names is None:
        return {name: FileArray(dims, shape, dtype, _reader(data, shape, attributes), attributes)}
    columns: dict[str, FileArray] = {}
    for column in dtype.names:
        kind = dtype[column]
        inner = tuple(_unnamed(n, i, path, tree) for i, n in enumerate(kind.shape))
        text = h5py.check_string_dtype(kind) is not None or kind.base.kind == "S"
        columns[f"{name}.{column}"] = FileArray(
            (*dims, *inner),
            (*shape, *kind.shape),
            kind.base,
            _reader(data.fields(column), shape, {}),
            {},
            reason="" if text else _reason(kind.base),
            text=text,
        )
    return columns


def _reason(dtype: np.dtype[Any]) -> str:
    """Say why a type cannot be stored in Zarr; empty where it can."""
    if h5py.check_ref_dtype(dtype) is not None:
        return "it holds references to other parts of the file"
    if h5py.check_vlen_dtype(dtype) is not None:
        return "it holds lists of different lengths"
    return "it holds bytes without a meaning" if dtype.kind == "V" and dtype.names is None else ""


def _filters_lacking(data: h5py.Dataset) -> str:
    """Name the compression filters of a dataset that are not installed."""
    made = data.id.get_create_plist()
    filters = [made.get_filter(i) for i in range(made.get_nfilters())]
    return ", ".join(
        f"filter {code} {name.decode(errors='replace')}".strip()
        for code, _, _, name in filters
        if not h5py.h5z.filter_avail(code)
    )


def _dims(
    data: h5py.Dataset, path: str, tree: _Tree, borrowed: dict[str, h5py.Dataset]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Name the dimensions of a dataset, and give its shape.

    An unlimited dimension grows with any array along it. Shorter arrays count as long as the dimension.
    """
    shape = list(data.shape)
    # A dimension scale with one axis lies along itself.
    if data.is_scale and data.ndim == 1:
        return (_base(data.name).removeprefix(_HIDDEN),), tuple(shape)
    numbers = data.attrs.get("_Netcdf4Coordinates")
    if data.is_scale and numbers is not None:
        return tuple(tree.dims.get(int(i), f"dim_{i}") for i in numbers), tuple(shape)
    names: list[str] = []
    for axis, dimension in enumerate(data.dims):
        before = list(data.shape[:axis]).count(data.shape[axis])
        scales = _scales(dimension)
        if not scales:
            names.append(dimension.label or _unnamed(data.shape[axis], before, path, tree))
            continue
        scale = scales[0]
        # HDF5 allows several scales on one axis; NetCDF writes one.
        names.append(_base(scale.name))
        if scale.ndim == 1 and data.maxshape[axis] is None:
            shape[axis] = max(shape[axis], scale.shape[0])
        if scale.parent != data.parent:
            borrowed[names[-1]] = scale
    if len(set(names)) < len(names):
        # Readers of Zarr need different names for the dimensions of one array.
        names = [name if names.index(name) == i else f"{name}_{i}" for i, name in enumerate(names)]
    return tuple(names), tuple(shape)


def _scales(dimension: Any) -> list[h5py.Dataset]:
    """List the scales of an axis; none where the references to them are damaged."""
    try:
        return list(dimension.values())
    except (RuntimeError, KeyError, ValueError, OSError):
        return []


def _unnamed(length: int, before: int, path: str, tree: _Tree) -> str:
    """Make up the name of an unnamed dimension, the same for equal lengths in a group, as the NetCDF library does."""
    return tree.unnamed.setdefault((path, length, before), f"phony_dim_{len(tree.unnamed)}")


def _only_a_dimension(data: h5py.Dataset) -> bool:
    """Tell whether a dataset stands for a dimension without labels."""
    name = data.attrs.get("NAME", b"") if data.is_scale else b""
    return (name if isinstance(name, bytes) else str(name).encode()).startswith(_NO_VARIABLE)


def _base(name: str) -> str:
    """Last part of a path."""
    return name.rsplit("/", 1)[-1]


def _attributes(item: Any) -> dict[str, Any]:
    """Read the attributes of an object, but for those that link dimensions."""
    kept: dict[str, Any] = {}
    for name in item.attrs:
        if name in _INTERNAL:
            continue
        try:
            value = item.attrs[name]
            # NetCDF writes a single number as an array of length 1.
            kept[name] = value[0] if isinstance(value, np.ndarray) and value.shape == (1,) else value
        except (OSError, TypeError, ValueError, RuntimeError):
            # None stands for an attribute that cannot be stored. A later warning names it.
            kept[name] = None
    return kept


def _reader(data: Any, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> Callable[[int, int], NDArray[Any]]:
    """Make a function that reads the slab from ``start`` to ``stop`` along the first axis."""

    def read(start: int, stop: int) -> NDArray[Any]:
        if not shape:
            return np.asarray(data[()])
        values = np.asarray(data[start:stop])
        wanted = (stop - start, *shape[1:])
        inner = values.shape[len(wanted) :]
        if values.shape[: len(wanted)] == wanted:
            return values
        # This array is shorter than an unlimited dimension that another array has grown. The rest is the fill value.
        fill = attributes.get("_FillValue", getattr(data, "fillvalue", 0))
        padded = np.full((*wanted, *inner), np.ravel(fill)[0], values.dtype)
        padded[tuple(map(slice, values.shape))] = values
        return padded

    return read
