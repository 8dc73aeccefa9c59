"""Coordinates of the samples: their bounds, grid mappings, and attributes of the group.

Names are those of the CF conventions (sections 5 to 7) and of GeoZarr's ``proj:`` and ``spatial:`` attributes.
"""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any, cast

import numpy as np

from clustering.data.encoding import dataset, part_length, reason_of, split_writable
from clustering.data.plain_dataset import PlainDataset
from clustering.data.source import Source
from clustering.deferred import xr, zarr
from clustering.errors import SourceError
from clustering.storage.layout import is_of_a_group, is_of_an_array
from clustering.storage.paths import StoragePath, remove_keys, zarr_store

FOREIGN = (
    "multiscales", "omero", "ome", "plate", "well", "image-label", "labels", "bioformats2raw.layout",
    "_ARRAY_DIMENSIONS", "coordinates",
)  # fmt: skip
"""Attributes of a group that describe its own arrays, and would be wrong beside the results."""
PLACED = ("spatial:transform", "spatial:bbox", "spatial:shape", "GeoTransform")
"""Attributes that place the whole grid, and would be wrong for a part of it."""
_BOUNDS = ("bounds", "climatology")
_FAULTS = (SourceError, ValueError, TypeError, LookupError, ArithmeticError)
"""Errors of a variable that cannot be written; a disk that refuses raises others."""


def coordinates_of(source: Source, taken: Collection[str]) -> xr.Dataset:
    """Return the variables and attributes that are written beside the results.

    Bounds and grid mappings are data variables, unless they are coordinates in the source.

    Parameters
    ----------
    source
        Source to label.
    taken
        Names of results and of their own dimensions; a variable of the source with such a name is left out.

    Returns
    -------
    xarray.Dataset
        Variables as they are to be written, with attributes of the source that hold for the results.
    """
    data, samples = source.dataset, set(source.sample_dims)
    if isinstance(data, PlainDataset) and not data.coords:
        return cast("xr.Dataset", PlainDataset({}, attrs=_json_attributes(data.attrs, _is_part(source))))
    kept = [str(name) for name, c in data.coords.items() if set(c.dims) <= samples and name not in taken]
    for name in tuple(kept):
        kept += [n for n in _bounds(data, name) if n not in kept and not {n, *map(str, data[n].dims)} & {*taken}]
    kept += [name for name in _mapping_names(source) if name not in kept and name not in taken]
    moved = _is_part(source)
    made: dict[str, xr.Variable] = {}
    for name in kept:
        variable = data[name].variable.copy(deep=False)
        # Times keep their units. Other numbers are already decoded and are written as values.
        timed = variable.dtype.kind in "mM" or "calendar" in variable.encoding
        encoding = variable.encoding
        attributes = {key: value for key, value in variable.attrs.items() if not (moved and key in PLACED)}
        for key in _BOUNDS:
            attributes.pop(key, None)
            if _attribute(variable, key) in kept:
                attributes[key] = _attribute(variable, key)
        variable.attrs = attributes
        variable.encoding = {k: v for k, v in encoding.items() if timed and k in ("units", "calendar", "dtype")}
        if name not in data.coords:
            # Only results refer to coordinates; xarray would add the attribute to bounds and grid mappings too.
            variable.encoding["coordinates"] = None
        made[name] = variable
    coordinates = {name: variable for name, variable in made.items() if name in data.coords}
    others = {name: variable for name, variable in made.items() if name not in coordinates}
    return dataset(others, coordinates, _json_attributes(data.attrs, moved))


def left_out(carried: xr.Dataset) -> tuple[str, ...]:
    """List, in words for a user, the variables that cannot be written.

    Parameters
    ----------
    carried
        Dataset of `coordinates_of`.
    """
    if not carried.variables:
        return ()
    return tuple(_left_out(name, reason) for name, reason in split_writable(carried)[1].items())


def given_way(source: Source, taken: Collection[str]) -> tuple[str, ...]:
    """List, in words for a user, the coordinates that are left out because a result has the same name.

    Parameters
    ----------
    source
        Source to label.
    taken
        Names of results and of their own dimensions.
    """
    samples = set(source.sample_dims)
    return tuple(
        _left_out(str(name), "a result is called so; rename it in the source")
        for name, coordinate in source.dataset.coords.items()
        if name in taken and set(coordinate.dims) <= samples
    )


def write_carried(path: StoragePath, carried: xr.Dataset) -> tuple[xr.Dataset, tuple[str, ...]]:
    """Write the dataset of `coordinates_of` to a new group; large variables are written in parts.

    Parameters
    ----------
    path
        Path of the group. What an earlier attempt of the same run wrote there is removed, and other files stay.
    carried
        Dataset of `coordinates_of`.

    Returns
    -------
    xarray.Dataset
        The variables that were written.
    tuple of str
        Words for a user about each variable that was left out.
    """
    # Zarr would remove all files of a group that it replaces.
    remove_keys(path, is_of_a_group)
    if not carried.variables:
        zarr.create_group(zarr_store(path), zarr_format=3, attributes=dict(carried.attrs))
        return carried, ()
    carried, reasons = split_writable(carried)
    cautions = [_left_out(name, reason) for name, reason in reasons.items()]
    large = [str(name) for name, v in carried.variables.items() if v.ndim and part_length(v) < v.shape[0]]
    with warnings.catch_warnings():
        # Strings have no final Zarr v3 specification yet, but the source has them already.
        warnings.filterwarnings("ignore", category=zarr.errors.UnstableSpecificationWarning)
        warnings.filterwarnings("ignore", "Variable .* has datetime type and a bounds variable")
        warnings.filterwarnings("ignore", "coordinate .* has a space in its name")
        try:
            _write(path, carried.drop_vars(large))
        except _FAULTS:
            # Each variable can be written alone, but not all together: write them one by one.
            large = [str(name) for name in carried.variables]
            remove_keys(path, is_of_a_group)
            _write(path, carried.drop_vars(large))
        for name in large:
            try:
                _write_in_parts(path, name, carried[name].variable, name in carried.coords)
            except _FAULTS as error:
                remove_keys(path / name, is_of_an_array)
                carried = carried.drop_vars(name)
                cautions.append(_left_out(name, reason_of(error)))
    return carried, tuple(cautions)


def _left_out(name: str, reason: str) -> str:
    return f"coordinate {name!r} is left out of labels.zarr: {reason}"


class _Parts:
    """A variable that dask reads in parts."""

    def __init__(self, variable: xr.Variable) -> None:
        self.variable, self.shape, self.dtype, self.ndim = variable, variable.shape, variable.dtype, variable.ndim

    def __getitem__(self, key: Any) -> np.ndarray[Any, Any]:
        try:
            return np.asarray(self.variable[key].values)
        except Exception as error:
            raise SourceError(f"it cannot be read ({reason_of(error)})") from error


def _write_in_parts(path: StoragePath, name: str, variable: xr.Variable, is_coordinate: bool) -> None:
    """Add a variable to a group, holding one part of it in memory at a time."""
    import dask.array

    lengths = (part_length(variable), *variable.shape[1:])
    make: Any = dask.array.from_array
    # With a name given, dask does not hash the values, which would read all of them.
    parts = make(_Parts(variable), lengths, name=f"part-{uuid.uuid4().hex}", asarray=False, fancy=False)
    lazily = xr.Variable(variable.dims, parts, variable.attrs, variable.encoding)
    made = dataset(None, {name: lazily}) if is_coordinate else dataset({name: lazily})
    # Threads would hold several parts in memory at once.
    with dask.config.set(scheduler="synchronous"):
        _write(path, made)


def _write(path: StoragePath, made: xr.Dataset) -> None:
    made.to_zarr(zarr_store(path), mode="a", consolidated=False, zarr_format=3)


def references(source: Source, carried: xr.Dataset, dims: tuple[str, ...]) -> dict[str, Any]:
    """Return the attributes of a result that refer to its coordinates and grid mapping.

    Parameters
    ----------
    source
        Source to label.
    carried
        Dataset of `coordinates_of`, as far as it was written.
    dims
        Dimensions of the result.
    """
    attributes: dict[str, Any] = {}
    auxiliary = [
        str(name)
        for name, c in carried.coords.items()
        if name not in carried.dims and set(c.dims) <= set(dims) and " " not in str(name)
    ]
    if auxiliary:
        attributes["coordinates"] = " ".join(auxiliary)
    mapping = _mapping(source)
    if mapping and all(name in carried.variables for name in _names_of(mapping)):
        attributes["grid_mapping"] = mapping
    about = _json_attributes(source.dataset[source.variables[0]].attrs, _is_part(source))
    return attributes | {key: value for key, value in about.items() if key.startswith(("proj:", "spatial:"))}


def _attribute(variable: xr.Variable, key: str) -> Any:
    """Read an attribute that xarray may have moved to the encoding."""
    return variable.attrs.get(key, variable.encoding.get(key))


def _bounds(data: xr.Dataset, name: str) -> Iterator[str]:
    """Yield the names of the variables that bound the cells of a coordinate."""
    for key in _BOUNDS:
        bounds = _attribute(data[name].variable, key)
        if bounds in data.variables and set(data[name].dims) < set(data[bounds].dims):
            yield str(bounds)


def _mapping(source: Source) -> str | None:
    """Find the grid mapping of the variables; without one, the only scalar that describes one."""
    for name in source.variables:
        mapping = _attribute(source.dataset[name].variable, "grid_mapping")
        if mapping:
            return str(mapping)
    described = [
        str(name)
        for name, variable in source.dataset.variables.items()
        if not variable.dims and {"grid_mapping_name", "crs_wkt"} & {*variable.attrs}
    ]
    return described[0] if len(described) == 1 else None


def _names_of(mapping: str) -> list[str]:
    """Return the names of grid mappings in ``crs`` or ``crs: x y other: lat lon``."""
    words = mapping.split()
    return [word[:-1] for word in words if word.endswith(":")] or words


def _mapping_names(source: Source) -> list[str]:
    mapping = _mapping(source)
    variables = source.dataset.variables
    return [n for n in _names_of(mapping or "") if n in variables and not variables[n].dims]


def _is_part(source: Source) -> bool:
    """Return whether a selection took a part of the grid that the source's transforms describe."""
    recipe = source.recipe or {}
    if recipe.get("bbox") is not None:
        return True
    selected = {*(recipe.get("select") or {}), *(recipe.get("isel") or {})}
    variable = source.dataset[source.variables[0]]
    placed = variable.attrs.get("spatial:dimensions") or source.dataset.attrs.get("spatial:dimensions")
    return bool(selected & {*(placed or [d for d in variable.dims if d in source.sample_dims][-2:])})


def _json_attributes(attributes: Mapping[Any, Any], moved: bool) -> dict[str, Any]:
    """Keep the attributes that are right for the results and that JSON can hold."""
    kept = {}
    for key, value in attributes.items():
        if key in FOREIGN or (moved and key in PLACED):
            continue
        plain = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
        try:
            json.dumps(plain)
        except (TypeError, ValueError):
            continue
        kept[str(key)] = plain
    return kept
