"""Stored variables of a source: listings of their chunks, their decoding, and the treatment of absent chunks."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from clustering.data.attributes import PACKING, meant_type
from clustering.data.codecs import accelerated
from clustering.data.decoding import Decoding, MissingRule, decoding_of, with_decoder, with_nodata
from clustering.data.grouped import own_attributes
from clustering.data.listing import AbsentChunks, Listing, key_shape, list_keys
from clustering.data.opening import OpenedDataset
from clustering.data.store_errors import translate_errors
from clustering.data.stored import DimIndexer, StoredVariable, chunk_numbers
from clustering.data.validity import valid_rules
from clustering.deferred import xr, zarr
from clustering.errors import ConfigError, DataError, SourceError, nearest
from clustering.policies import Missing, MissingChunks, OnBadChunk, ValidRange


def snapshot(opened: OpenedDataset, names: Iterable[str]) -> dict[str, Listing]:
    """List the keys of variables.

    Parameters
    ----------
    opened
        Opened group.
    names
        Names of variables; those that are no stored arrays are skipped.

    Returns
    -------
    dict
        Listings by variable.
    """
    with translate_errors(opened.url or "the data"), warnings.catch_warnings():
        # Zarr warns of text, such as names of stations, as its specification is not final. It is only listed here.
        warnings.filterwarnings("ignore", category=zarr.errors.UnstableSpecificationWarning)
        arrays = {name: opened.array(name) for name in names}
        return {name: list_keys(array) for name, array in arrays.items() if array is not None}


def store_variables(
    opened: OpenedDataset,
    names: Sequence[str],
    indexers: Mapping[str, DimIndexer],
    listings: Mapping[str, Listing],
    missing: Missing,
    missing_chunks: MissingChunks | None,
    on_bad_chunk: OnBadChunk,
    numbers: Mapping[str, float],
    decode: Any,
    valid_range: ValidRange,
) -> tuple[dict[str, StoredVariable], tuple[str, ...]]:
    """Make the stored variables, with cautions for the user.

    Parameters
    ----------
    opened
        Opened group.
    names
        Variables to cluster; those that xarray alone can decode are skipped.
    indexers
        Selected positions by dimension.
    listings
        Listings by variable, from `snapshot`.
    missing, missing_chunks, on_bad_chunk, decode, valid_range
        As for `open_source`.
    numbers
        Numbers that mean missing by variable, from `nodata_of`.

    Returns
    -------
    dict
        Stored variables by name.
    tuple of str
        Cautions.

    Raises
    ------
    ConfigError, SourceError
        If an option does not fit a variable.
    DataError
        If there are absent chunks, where these are an error.
    """
    decoders = _by_name("decode", decode, names)
    variables, cautions = dict[str, StoredVariable](), list[str]()
    for name in names:
        array, variable = opened.array(name), opened.dataset[name].variable
        decoding = None if array is None else _decoding(name, array, variable, valid_range, cautions)
        if array is None or decoding is None:
            # An option without effect is an error. Of data in memory, nodata was applied when they were decoded.
            for key, wishes in (("nodata", {} if array is None else numbers), ("decode", decoders)):
                if name in wishes:
                    raise SourceError(
                        f"{key} is given for variable {name!r}, which is no stored array of plain numbers; "
                        "it applies to such arrays alone: leave it out"
                    )
            continue
        if name in numbers:
            decoding, more = with_nodata(decoding, name, numbers[name])
            cautions += more
        if name in decoders:
            decoding = with_decoder(decoding, name, decoders[name])
        if missing == "marginalize" and decoding.dtype.kind in "iu":
            # Missing features are NaN in their row, which whole numbers cannot hold.
            decoding = replace(decoding, dtype=np.result_type(decoding.dtype, np.float32))
        if variable.encoding.get("_FillValue") == 0 and decoding.stored.kind in "iu":
            cautions.append(
                f"zeros of variable {name!r} count as missing, as 0 is its fill value; if they are numbers, "
                "store the array with fill_value null"
            )
        dims = tuple(map(str, variable.dims))
        own = {d: indexers[d] for d in dims}
        absent, caution = _absent_chunks(name, array, listings[name], own, decoding, missing_chunks)
        cautions += caution
        fast = array if opened.url is None else accelerated(array)
        if absent is not None:
            # The pipeline in Rust reads the disk by itself, where asking for an absent chunk costs nothing.
            spared = _without_absent(array, absent)
            fast, array = spared if fast is array else fast, spared
        variables[name] = StoredVariable(
            name, array, fast, dims, own, decoding, absent, on_bad_chunk, opened.url or "the data"
        )
    return variables, tuple(cautions)


def nodata_of(nodata: Any, names: Sequence[str]) -> dict[str, float]:
    """Return the numbers that mean missing by variable.

    Parameters
    ----------
    nodata
        Option of `open_source`: None, one number for all variables, or a dict of numbers by variable.
    names
        Variables to cluster.

    Raises
    ------
    ConfigError
        If a key is no variable.
    """
    return _by_name("nodata", nodata, names)


def _decoding(
    name: str, array: zarr.Array[Any], variable: xr.Variable, valid_range: ValidRange, cautions: list[str]
) -> Decoding | None:
    """Return the decoding of a stored array, and add to the cautions; None where only xarray can decode it."""
    attributes = own_attributes(array)
    stored = meant_type(attributes, array.dtype)
    scale, offset = (variable.encoding.get(key) for key in PACKING)
    rules: tuple[MissingRule, ...] = ()
    if valid_range == "cf" and stored.kind in "iuf":
        rules, more = valid_rules(name, attributes, stored, scale, offset)
        cautions += more
    return decoding_of(variable, stored, rules)


def _absent_chunks(
    name: str,
    array: zarr.Array[Any],
    listing: Listing,
    indexers: Mapping[str, DimIndexer],
    decoding: Decoding,
    policy: MissingChunks | None,
) -> tuple[AbsentChunks | None, list[str]]:
    """Return the absent chunks to mask, with a caution where the user did not ask for that.

    None where the fill value stands for them, or none is absent.

    Raises
    ------
    SourceError
        If the store cannot list, and the policy needs a listing.
    DataError
        If there are absent chunks, and their fill value would be read as data.
    """
    if policy == "fill":
        return None, []
    if not listing.complete:
        if policy is None:
            # Without a listing, absent chunks read as the fill value, as zarr does.
            return None, []
        raise SourceError(
            f"missing_chunks is {policy!r} and the store of variable {name!r} cannot list its keys, so chunks that "
            "were never written cannot be found; set source.missing_chunks to fill, or copy the store"
        )
    absent = AbsentChunks(key_shape(array), listing.grid, listing.chunks)
    chunks = [chunk_numbers(indexer, unit) for indexer, unit in zip(indexers.values(), absent.unit, strict=True)]
    count = absent.count(chunks)
    if not count:
        return None, []
    what = f"{count:,} of {np.prod([len(c) for c in chunks]):,} chunks of variable {name!r} were never written"
    # The fill value is tested as data are: reinterpreted by ``_Unsigned`` and compared by the missing rules.
    fill = np.asarray(array.fill_value if array.fill_value is not None else 0, array.dtype).reshape(1, 1)
    fill = fill.view(decoding.stored)
    means_missing = bool(fill.dtype.kind == "f" and np.isnan(fill).any()) or decoding.is_missing(fill) is not None
    if policy == "error" or (policy is None and not means_missing):
        key = array.metadata.encode_chunk_key(absent.first(chunks))
        raise DataError(
            f"{what}, such as {key!r}, and their fill value {fill.item()} would count as data; set "
            "source.missing_chunks to mask to leave their cells out, or to fill if they hold that value"
        )
    # Who asked for the mask knows of it.
    return absent, [] if policy == "mask" else [f"{what}; their cells are masked"]


def _without_absent(array: zarr.Array[Any], absent: AbsentChunks) -> zarr.Array[Any]:
    """Return the same array over a store that is asked for no absent chunk; absent chunks read as the fill value."""
    from clustering.data.sparing_store import SparingStore

    inner = array.store_path
    store = SparingStore(inner.store, inner.path, absent)
    # The metadata are at hand, so opening the array anew would only cost requests.
    twin: zarr.AsyncArray[Any] = zarr.AsyncArray(array.metadata, zarr.storage.StorePath(store, inner.path))
    return zarr.Array(twin)


def _by_name(key: str, wish: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return the values of an option by variable: one value for all, or the given dict, whose names are checked."""
    if wish is None:
        return {}
    if not isinstance(wish, Mapping):
        return dict.fromkeys(names, wish)
    for name in wish:
        if name not in names:
            raise ConfigError(f"{key} names the variable {name!r}, which is not clustered; {nearest(str(name), names)}")
    return dict(wish)
