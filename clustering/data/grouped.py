"""Decoding the arrays of a group to one dataset, variable by variable, so that one fault does not block the others."""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from clustering.compat.xarray import apply_lazily, lazy_zarr_data
from clustering.compat.zarr import run_in_zarr
from clustering.data.attributes import repair_attributes
from clustering.data.plan import MIB
from clustering.data.store_errors import is_transient
from clustering.deferred import xr, zarr
from clustering.errors import ClusteringError, reason

SMALL_LABELS = 16 * MIB
"""Labels of a dimension up to this size, in bytes, are held in memory; larger ones only where they are selected by."""
DIMENSIONS = "_ARRAY_DIMENSIONS"
UNNAMED = "it names no dimensions"
UNEVEN = "its dimension"
"""Starts of the reasons why arrays are left out, by which `opening` tells them apart."""


def with_indexes(dataset: xr.Dataset, dims: Iterable[Any] | None = None) -> xr.Dataset:
    """Index the labels of dimensions, which reads them and holds them in memory.

    Parameters
    ----------
    dataset
        Dataset with or without indexes.
    dims
        Dimensions to index; those without labels are skipped. None for all whose labels are small.
    """
    for d in map(str, dataset.dims if dims is None else dict.fromkeys(dims)):
        labelled = d in dataset.coords and dataset[d].dims == (d,)
        if labelled and d not in dataset.xindexes and (dims is not None or dataset[d].nbytes <= SMALL_LABELS):
            dataset = dataset.set_xindex(d)
    return dataset


class DecodedGroup(NamedTuple):
    """The dataset of a group."""

    dataset: xr.Dataset
    unusable: Mapping[str, str]
    """Reasons why other arrays are not in it, by name."""
    cautions: Mapping[str, tuple[str, ...]]
    """Cautions for the user by variable."""


class UnusableError(Exception):
    """A variable that cannot be decoded; the message says why."""


def as_variable(
    array: zarr.Array[Any], name: str, dims: Collection[str], *, masks_fill: bool
) -> tuple[xr.Variable, tuple[str, ...]]:
    """Wrap a stored array as a lazy variable, undecoded, with attributes that xarray can decode.

    Parameters
    ----------
    array
        Stored array.
    name
        Its name, for cautions.
    dims
        Names of its dimensions.
    masks_fill
        Whether the fill value of the array means missing, as in groups of Zarr format 2.

    Returns
    -------
    xarray.Variable
        Lazy and undecoded, but for ``_Unsigned``, which is applied.
    tuple of str
        Cautions.

    Raises
    ------
    UnusableError
        If its ``scale_factor`` or ``add_offset`` is no number.
    """
    attributes, v3 = own_attributes(array), array.metadata.zarr_format == 3
    if masks_fill and array.fill_value is not None:
        fill_value = attributes.get("_FillValue")
        attributes["_FillValue"] = array.fill_value
        if fill_value is not None:
            # The array and the attribute may name two numbers; both mean missing.
            both = [fill_value, attributes.get("missing_value")]
            attributes["missing_value"] = [part for value in both if value is not None for part in np.ravel(value)]
    fixed = repair_attributes(name, attributes, array.dtype, base64_fill=v3)
    if fixed.fault is not None:
        raise UnusableError(fixed.fault)
    data = lazy_zarr_data(array)
    # ``_Unsigned`` reads the same bits as another type, so this is a view and no conversion.
    if fixed.dtype != array.dtype:
        data = apply_lazily(data, partial(np.ndarray.view, dtype=fixed.dtype), fixed.dtype)
    encoding: dict[str, Any] = {"chunks": tuple(array.chunks), "shards": array.shards}
    return xr.Variable(tuple(dims), data, fixed.attributes, encoding), fixed.cautions


def own_attributes(array: zarr.Array[Any]) -> dict[str, Any]:
    """Return the attributes of an array without those that belong to the format, such as names of dimensions.

    Parameters
    ----------
    array
        Stored array.
    """
    hidden = (DIMENSIONS,) if array.metadata.zarr_format == 2 else ()
    attributes = dict(array.attrs)
    return {
        key: value
        for key, value in attributes.items()
        if key not in hidden and not (hidden and key.lower().startswith("_nc"))
    }


def dimensions(array: zarr.Array[Any]) -> tuple[str, ...] | None:
    """Return the names of the dimensions of an array; None where one of them has none.

    Parameters
    ----------
    array
        Stored array of Zarr format 2 or 3.
    """
    if array.metadata.zarr_format == 3:
        names: Any = array.metadata.dimension_names
    else:
        names = array.attrs.get(DIMENSIONS)
        if names is None and array.ndim:
            names = _nczarr(array)
    if names is None or isinstance(names, str) or not isinstance(names, Iterable):
        return () if not array.ndim else None
    names = tuple(names)
    # Other programs may store anything under these keys.
    right = len(names) == array.ndim and all(isinstance(name, str) and name for name in names)
    return names if right else None


def _nczarr(array: zarr.Array[Any]) -> Any:
    """Read the names of dimensions that NCZarr keeps in the metadata of format 2 as paths; None without them."""
    key, prototype = f"{array.path}/.zarray".strip("/"), zarr.buffer.default_buffer_prototype()
    buffer = run_in_zarr(array.store_path.store.get(key, prototype))
    try:
        content = {} if buffer is None else json.loads(buffer.to_bytes())
        return [str(path).rpartition("/")[2] for path in content["_NCZARR_ARRAY"]["dimrefs"]]
    except (ValueError, KeyError, TypeError):
        return None


def dataset_of(
    arrays: Mapping[str, zarr.Array[Any]],
    attributes: Mapping[str, Any],
    wanted: Collection[str],
    faults: Mapping[str, str],
) -> DecodedGroup:
    """Decode the arrays of a group, each by itself, into one dataset.

    Parameters
    ----------
    arrays
        Arrays of the group by name.
    attributes
        Attributes of the group.
    wanted
        Variables that the user named. They decide the lengths of dimensions, and their numbers stay numbers where the
        units are those of times.
    faults
        Reasons why other arrays cannot be opened, by name.
    """
    unusable, cautions = dict(faults), dict[str, tuple[str, ...]]()
    raw: dict[str, xr.Variable] = {}
    for name, array in arrays.items():
        dims = dimensions(array)
        try:
            if dims is None:
                raise UnusableError(UNNAMED)
            twice = next((d for d in dims if dims.count(d) > 1), None)
            if twice is not None:
                raise UnusableError(
                    f"it has dimension {twice!r} twice, so that its samples and features have one name; rename one of "
                    "the two in the store"
                )
            raw[name], cautions[name] = as_variable(array, name, dims, masks_fill=array.metadata.zarr_format == 2)
        except (UnusableError, NotImplementedError, ValueError, TypeError) as error:
            unusable[name] = reason(error)
    raw = _of_one_grid(raw, wanted, {name: array.path for name, array in arrays.items()}, unusable)
    _bounds_of_times(raw)
    return _decoded(raw, attributes, wanted, unusable, cautions)


def _of_one_grid(
    raw: Mapping[str, xr.Variable], wanted: Collection[str], paths: Mapping[str, str], unusable: dict[str, str]
) -> dict[str, xr.Variable]:
    """Keep the variables that agree on the lengths of dimensions, the wanted ones first."""
    lengths: dict[str, tuple[int, str]] = {}
    first = [name for name in wanted if name in raw]
    # Labels of the wanted variables come before variables that nobody asked for.
    first += [str(d) for name in first for d in raw[name].dims if d in raw]
    kept = {}
    for name in dict.fromkeys([*first, *sorted(raw)]):
        sizes = {str(d): n for d, n in raw[name].sizes.items()}
        other = next((d for d, n in sizes.items() if lengths.get(d, (n, ""))[0] != n), None)
        if other is not None:
            length, by = lengths[other]
            unusable[name] = f"{UNEVEN} {other!r} is {sizes[other]} long, and {length} in {by!r}"
            continue
        for d, n in sizes.items():
            lengths.setdefault(d, (n, paths[name]))
        kept[name] = raw[name]
    return kept


def _bounds_of_times(raw: Mapping[str, xr.Variable]) -> None:
    """Copy the units of times to their bounds, which may lack them (CF conventions, section 7.1)."""
    for variable in raw.values():
        bounds = raw.get(str(variable.attrs.get("bounds")))
        if bounds is not None and "since" in str(variable.attrs.get("units")):
            for key in ("units", "calendar"):
                if key in variable.attrs:
                    bounds.attrs.setdefault(key, variable.attrs[key])


def _decoded(
    raw: Mapping[str, xr.Variable],
    attributes: Mapping[str, Any],
    wanted: Collection[str],
    unusable: dict[str, str],
    cautions: dict[str, tuple[str, ...]],
) -> DecodedGroup:
    """Decode variables and join them to a dataset; those that fail are added to `unusable`."""
    own = {str(key): value for key, value in attributes.items() if not str(key).lower().startswith("_nc")}
    coordinates = set[str]()
    if isinstance(own.get("coordinates"), str):
        coordinates |= {*own.pop("coordinates").split()}
    made: dict[str, xr.Variable] = {}
    for name, variable in raw.items():
        # Times to cluster have to be numbers, while times that label a dimension are dates.
        dates = name not in wanted or name in variable.dims
        try:
            made[name], more = decode_variable(name, variable, dates=dates, stacks=_stacks(variable, raw))
            cautions[name] += more
        except ClusteringError:
            raise
        except Exception as error:
            # A fault of the network is no fault of the variable, and the caller may try again.
            if is_transient(error):
                raise
            unusable[name] = reason(error)
    for variable in made.values():
        if "coordinates" in variable.attrs:
            # xarray has this attribute in the encoding of opened data, and writes it from there.
            variable.encoding["coordinates"] = variable.attrs.pop("coordinates")
            coordinates |= {*variable.encoding["coordinates"].split()}
    coordinates = (coordinates | {str(d) for variable in made.values() for d in variable.dims}) & {*made}
    beside = xr.Coordinates({name: made[name] for name in made if name in coordinates}, indexes={})
    within = {name: variable for name, variable in made.items() if name not in coordinates}
    dataset = with_indexes(xr.Dataset(within, beside, own))
    return DecodedGroup(dataset, unusable, cautions)


def decode_variable(
    name: str, variable: xr.Variable, *, dates: bool, stacks: bool = False
) -> tuple[xr.Variable, tuple[str, ...]]:
    """Decode one variable as xarray does; dates that it cannot decode stay numbers.

    Parameters
    ----------
    name
        Name of the variable.
    variable
        Undecoded variable with repaired attributes.
    dates
        Whether to decode units such as ``days since 2000-01-01`` to dates. Durations in ``days`` stay numbers.
    stacks
        Whether to join single characters along the last dimension to texts.

    Returns
    -------
    xarray.Variable
        Lazy; in memory where it holds the labels of its own dimension and is small.
    tuple of str
        Cautions.
    """
    units = variable.attrs.get("units")
    try:
        made = _cf(name, variable, dates, stacks)
    except ClusteringError:
        raise
    except Exception as error:
        if not dates or units is None or is_transient(error):
            raise
        # The dates may be at fault, so try once more without them.
        made = _cf(name, variable, False, stacks)
        calendar = variable.attrs.get("calendar")
        units_text = repr(units) + ("" if calendar is None else f" of the calendar {calendar!r}")
        return made, (
            f"{units_text} of {name!r} cannot be decoded to dates, so that it stays numbers: select by these",
        )
    if not dates and " since " in str(units):
        return made, (f"variable {name!r} counts {units!r}, and is used as these numbers",)
    return made, ()


def _cf(name: str, variable: xr.Variable, dates: bool, stacks: bool) -> xr.Variable:
    spans = xr.coders.CFTimedeltaCoder(decode_via_units=False) if dates else False
    with warnings.catch_warnings():
        # xarray warns of cases that it decodes well, such as several fill values and dates before 1678.
        warnings.simplefilter("ignore")
        made = xr.conventions.decode_cf_variable(
            name, variable, decode_times=dates, decode_timedelta=spans, stack_char_dim=stacks
        )
        return made.to_index_variable() if made.dims == (name,) and made.nbytes <= SMALL_LABELS else made


def _stacks(variable: xr.Variable, raw: Mapping[str, xr.Variable]) -> bool:
    """Return whether the last dimension counts the characters of texts, as in NetCDF."""
    if variable.dtype != "S1" or not variable.ndim or variable.dims[-1] in raw:
        return False
    # A dimension that arrays of numbers share counts more than the characters of a text.
    users = [v for v in raw.values() if variable.dims[-1] in v.dims]
    return all(v.dtype.kind == "S" and v.dims[-1] == variable.dims[-1] for v in users)
