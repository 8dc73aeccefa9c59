"""Decoding of variables that the user opened or made, by the same CF attributes as variables in a store."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.compat.xarray import apply_lazily, lazy_data
from clustering.data.attributes import PACKING, UNDECODED, meant_type, repair_attributes
from clustering.data.decoding import Decoding, InMemoryVariable, MissingRule, decoding_of, with_nodata
from clustering.data.dimension_names import numbered
from clustering.data.grouped import decode_variable
from clustering.data.opening import BARE, decoded_array
from clustering.data.plain_dataset import PlainVariable
from clustering.data.validity import valid_rules
from clustering.deferred import xr, zarr
from clustering.errors import SourceError


def decode_in_memory(
    dataset: xr.Dataset, names: Iterable[str], numbers: Mapping[str, float], *, valid: bool
) -> tuple[xr.Dataset, dict[str, InMemoryVariable], list[str]]:
    """Decode some variables of a dataset; see `decode_values`.

    Parameters
    ----------
    dataset
        Data that the user gave.
    names
        Variables to decode.
    numbers
        Name of a variable → the number among its values that means missing (the option ``nodata``).
    valid
        Whether values outside the valid range of the attributes are missing.

    Returns
    -------
    xarray.Dataset
        The dataset with decoded variables. All other variables are unchanged.
    dict
        The changed variables by name, as they were given, each with its decoding.
    list of str
        Cautions for the user.
    """
    given, cautions = dict[str, InMemoryVariable](), list[str]()
    for name in names:
        variable = dataset[name].variable
        made, decoding, said = decode_values(name, variable, numbers.get(name), valid=valid)
        cautions += said
        if decoding is not None:
            given[name] = InMemoryVariable(variable, decoding)
            dataset = dataset.assign({name: made})
    return dataset, given, cautions


def array_meant(where: str, values: Any, *, valid: bool) -> tuple[Any, tuple[str, ...]]:
    """Decode a companion or the feature weights; see `decode_values`.

    Parameters
    ----------
    where
        Option that the array was given for, such as ``mask``. Messages name it.
    values
        An xarray object or a zarr array is decoded by its attributes. Anything else has none and stays unchanged.
    valid
        Whether values outside the valid range of the attributes are missing.

    Returns
    -------
    Any
        The decoded values. A zarr array becomes an xarray object, or an ndarray where it names no dimensions.
    tuple of str
        Cautions for the user.
    """
    cautions: tuple[str, ...] = ()
    stored = isinstance(values, zarr.Array)
    if stored:
        alone = decoded_array(values)
        values, cautions = alone.dataset[BARE], alone.cautions[BARE]
        values = values.to_xarray() if isinstance(values, PlainVariable) else values
    if not isinstance(values, (xr.DataArray, xr.Variable)):
        return values, ()
    array = values if isinstance(values, xr.DataArray) else xr.DataArray(values)
    made, decoding, said = decode_values(where, array.variable, None, valid=valid)
    if decoding is not None:
        array = array.to_dataset(name=_ARRAY).assign({_ARRAY: made})[_ARRAY]
    return array.values if stored and numbered(array.dims) else array, (*cautions, *said)


_ARRAY = "_array"
"""Name of an array while it is decoded."""


def decode_values(
    name: str, variable: xr.Variable, nodata: float | None, *, valid: bool
) -> tuple[xr.Variable, Decoding | None, tuple[str, ...]]:
    """Decode a variable by its attributes.

    xarray moves the attributes that it decodes into the encoding. So a fill value, scale or offset among the attributes
    was not decoded yet, as in a raster that was opened without masking. xarray never decodes a valid range. Where the
    encoding shows that the values were unpacked already, the range is unpacked as well.

    Parameters
    ----------
    name
        Name of the variable, for messages.
    variable
        A variable of numbers. Other types are returned unchanged.
    nodata
        Number among the values that means missing; None where the user gave none.
    valid
        Whether values outside the valid range of the attributes are missing.

    Returns
    -------
    xarray.Variable
        Lazily decoded; the given variable where there is nothing to decode.
    Decoding or None
        The decoding from the given values; None where there is nothing to decode.
    tuple of str
        Cautions for the user.

    Raises
    ------
    SourceError
        If scale or offset is no number, or `nodata` is given for a variable that is not numeric.
    """
    if variable.dtype.kind not in "iuf":
        if nodata is not None:
            raise SourceError(
                f"nodata is given for variable {name!r} of type {variable.dtype}; it applies to numbers alone: leave "
                "it out, or give the variable as numbers"
            )
        return variable, None, ()
    attributes: Mapping[Any, Any] = variable.attrs
    fixed = repair_attributes(name, attributes, variable.dtype)
    if fixed.fault is not None:
        raise SourceError(f"variable {name!r} cannot be used: {fixed.fault}")
    packed = any(key in fixed.attributes for key in PACKING)
    clean = dict(fixed.attributes)
    if packed and clean.get("scale_factor", 1.0) == 1.0 and clean.get("add_offset", 0.0) == 0.0:
        # Readers of rasters add scale 1 and offset 0 although nothing is packed.
        clean = {key: value for key, value in clean.items() if key not in PACKING}
    raw = xr.Variable(
        variable.dims, lazy_data(variable) if fixed.dtype == variable.dtype else _seen(variable, fixed.dtype)
    )
    raw.attrs = {key: value for key, value in clean.items() if key in UNDECODED}
    # xarray tells the type of the decoded values, so that both ways of decoding agree.
    once, _ = decode_variable(name, raw, dates=False)
    rules, cautions = _valid(name, variable, clean, fixed.dtype) if valid else ((), ())
    decoding = decoding_of(once, fixed.dtype, rules)
    assert decoding is not None
    said = [*fixed.cautions, *cautions]
    if nodata is not None:
        decoding, more = with_nodata(decoding, name, nodata)
        said += more
    if packed and not decoding.plain:
        keys = " and ".join(key for key in PACKING if key in clean)
        said.append(f"variable {name!r} is given with {keys} among its attributes, and its values are unpacked by them")
    if not decoding.rules and decoding.plain and decoding.dtype == variable.dtype:
        return variable, None, tuple(said)
    dtype = decoding.dtype
    if decoding.rules and dtype.kind in "iu":
        # Missing values become NaN, which integers cannot hold.
        dtype = np.result_type(dtype, np.float32)
    step = partial(_apply, decoding=decoding, dtype=dtype)
    kept: dict[Hashable, Any] = {key: value for key, value in attributes.items() if key not in UNDECODED}
    data = apply_lazily(lazy_data(variable), step, dtype)
    return xr.Variable(variable.dims, data, kept, variable.encoding), decoding, tuple(said)


def _seen(variable: xr.Variable, dtype: np.dtype[Any]) -> Any:
    """View the data of a variable as another type, lazily: ``_Unsigned`` changes the type that bits stand for."""
    return apply_lazily(lazy_data(variable), partial(_view, dtype=dtype), dtype)


def _view(values: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.asarray(values).view(dtype)


def _apply(values: Any, decoding: Decoding, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Decode values of any shape. Missing values become NaN."""
    stored = _view(values, decoding.stored)
    # CF conventions, section 2.5.1: numbers are compared with missing values before they are unpacked.
    absent = decoding.is_missing(stored)
    flat = stored.reshape(-1, 1)
    out = np.empty(flat.shape, decoding.dtype)
    decoding.decode(flat, out)
    made = out.reshape(stored.shape).astype(dtype, copy=False)
    if absent is not None:
        made[absent] = np.nan
    return made


def _valid(
    name: str, variable: xr.Variable, clean: Mapping[Any, Any], dtype: np.dtype[Any]
) -> tuple[tuple[MissingRule, ...], tuple[str, ...]]:
    """Read the valid range, converted to the unit of the given values."""
    if any(key in clean for key in PACKING):
        # Values are still packed, and so is the range.
        whole = {**variable.attrs, **clean}
        return valid_rules(name, whole, dtype, clean.get("scale_factor"), clean.get("add_offset"))
    fixed = repair_attributes(name, {key: variable.encoding[key] for key in PACKING if key in variable.encoding}, dtype)
    packing = fixed.attributes if fixed.fault is None else {}
    # xarray notes in the encoding which type the values had in the store.
    packed_type = np.dtype(variable.encoding.get("dtype") or dtype)
    if not packing or packed_type.kind not in "iuf":
        return valid_rules(name, variable.attrs, dtype)
    scale, offset = packing.get("scale_factor"), packing.get("add_offset")
    sign = {"_Unsigned": variable.encoding["_Unsigned"]} if "_Unsigned" in variable.encoding else {}
    packed_type = meant_type(sign, packed_type)
    rules, cautions = valid_rules(name, {**variable.attrs, **sign}, packed_type, scale, offset)
    # Bounds are unpacked by the same arithmetic as the values, so that a value on a bound equals it exactly.
    unpack = Decoding(packed_type, dtype if dtype.kind == "f" else np.dtype(np.float64), (), scale, offset)
    return tuple(MissingRule(rule.name, (), *_ends(rule, unpack)) for rule in rules), cautions


def _ends(rule: MissingRule, unpack: Decoding) -> tuple[float, float]:
    """Unpack the bounds of a range. A negative scale swaps them."""
    ends = np.array([[rule.low], [rule.high]], unpack.dtype)
    with np.errstate(all="ignore"):
        unpack.decode(ends, out := np.empty_like(ends))
    low, high = sorted(out.ravel().tolist())
    return low, high
