"""Zarr groups of plain numbers, written as xarray writes them and read as it reads them, without loading it."""

from __future__ import annotations

import base64
import struct
from typing import Any

from clustering.data.grouped import dimensions
from clustering.data.plain_dataset import PlainDataset, PlainVariable
from clustering.deferred import zarr

_DECODED = (
    "_FillValue", "missing_value", "scale_factor", "add_offset", "_Unsigned", "units", "dtype", "calendar",
    "coordinates", "bounds", "climatology", "grid_mapping",
)  # fmt: skip
"""Attributes by which xarray changes or links what it reads."""
NAN = base64.standard_b64encode(struct.pack("<d", float("nan"))).decode()
"""The fill value of floats as xarray writes it, see `clustering.compat.encode_fill_value`."""


def is_plain(dataset: PlainDataset) -> bool:
    """Return whether `write_plain` writes a dataset as xarray does.

    Parameters
    ----------
    dataset
        Arrays in memory.
    """
    variables = dataset.variables
    numbers = all(variable.dtype.kind in "iuf" and variable.dtype.isnative for variable in variables.values())
    # xarray encodes times, reads others by the attributes, and refuses names with a space as coordinates.
    labels = all(" " not in name and not {*_DECODED} & {*one.attrs} for name, one in dataset.coords.items())
    times = any(" since " in str(variable.attrs.get("units", "")) for variable in variables.values())
    linked = any({*_DECODED} - {"units"} & {*variable.attrs} for variable in dataset.data_vars.values())
    return numbers and labels and not times and not linked


def write_plain(dataset: PlainDataset, store: Any) -> None:
    """Write a dataset of `is_plain` to a new group: each array in the layout, and with the attributes, of xarray.

    Parameters
    ----------
    dataset
        Arrays in memory.
    store
        Store without a group.
    """
    group = zarr.create_group(store, zarr_format=3, attributes=dict(dataset.attrs))
    beside = {name: one for name, one in dataset.coords.items() if one.dims != (name,)}
    for name, variable in dataset.variables.items():
        attributes = dict(variable.attrs)
        labels = [] if name in dataset.coords else sorted(n for n, c in beside.items() if {*c.dims} <= {*variable.dims})
        if labels:
            attributes["coordinates"] = " ".join(labels)
        fill: Any = None
        if variable.dtype.kind == "f":
            fill, attributes["_FillValue"] = float("nan"), NAN
        array = group.create_array(
            name,
            shape=variable.shape,
            dtype=variable.dtype,
            fill_value=fill,
            attributes=attributes,
            dimension_names=variable.dims or None,
        )
        array[...] = variable.data


def open_plain(store: Any) -> dict[str, PlainVariable] | None:
    """Open the arrays of a group as xarray opens them; None where it would decode or link some.

    Parameters
    ----------
    store
        Store of a group.
    """
    group = zarr.open_group(store, mode="r", use_consolidated=False)
    arrays = dict(group.arrays())
    if any(array.dtype.kind not in "iuf" or {*_DECODED} & {*array.attrs} for array in arrays.values()):
        return None
    dims = {name: dimensions(array) or () for name, array in arrays.items()}
    # An array along a dimension of its own name holds labels.
    if any(name in own or len(own) != arrays[name].ndim for name, own in dims.items()):
        return None
    return {name: PlainVariable(dims[name], array, dict(array.attrs)) for name, array in arrays.items()}
