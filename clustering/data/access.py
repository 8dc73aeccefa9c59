"""Opening a path, a URL or data in memory as a source."""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from clustering.data import companion_groups, coordinates, grouped, in_memory_variables, layout, opening, selection
from clustering.data.alignment import align_companion
from clustering.data.chunks import nodata_of, snapshot, store_variables
from clustering.data.conditions import check_truth, mask_condition
from clustering.data.listing import Listing
from clustering.data.policies import (
    MAX_BAD_FRACTION,
    MISSING,
    MISSING_CHUNKS,
    ON_BAD_CHUNK,
    VALID_RANGE,
    Missing,
    MissingChunks,
    OnBadChunk,
    ValidRange,
    is_number,
)
from clustering.data.reading import COSINE_WEIGHTS, SMALL_COMPANION
from clustering.data.source import Source
from clustering.data.store_errors import translate_errors
from clustering.errors import ConfigError


def open_source(
    data: Any,
    *,
    group: str | None = None,
    variables: str | Sequence[str] | None = None,
    sample_dims: str | Sequence[str] | None = None,
    feature_dims: str | Sequence[str] | None = None,
    select: Mapping[str, Any] | None = None,
    isel: Mapping[str, Any] | None = None,
    bbox: Sequence[float] | None = None,
    mask: Any = None,
    weights: Any = None,
    labels: Any = None,
    missing: Missing | None = None,
    missing_chunks: MissingChunks | None = None,
    on_bad_chunk: OnBadChunk | None = None,
    max_bad_fraction: float | None = None,
    nodata: float | Mapping[str, float] | None = None,
    decode: str | Mapping[str, str] | None = None,
    valid_range: ValidRange | None = None,
    storage_options: Mapping[str, Any] | None = None,
    like: layout.FeatureLayout | None = None,
) -> Source:
    """Open data as a source. Only metadata and coordinates are read.

    Parameters
    ----------
    data
        Path or URL of a Zarr store; or an xarray Dataset or DataArray, a zarr array, a dask array, or an ndarray
        ``(n, d)``.
    group
        Group inside the store.
    variables
        Variables of the group, concatenated along the features. May be left out where there is one only.
    sample_dims
        Dimensions that number the samples. Default: all that are not feature dimensions; the first if those are not
        given either.
    feature_dims
        Dimensions along which a sample's features lie. Empty: each variable is one feature. Default: all that are not
        sample dimensions.
    select, isel
        Selection by label or by position: ``{dim: {start, stop, step}}``, a list, or one value.
    bbox
        ``[west, south, east, north]``, both ends included; from west eastward, so it may cross any meridian.
    mask
        Variable of true and false, or 1 and 0, true = use; or one comparison of a variable, ``landfrac > 0.5`` or
        ``surface in [1, 2]``; or an array. Cells where it is missing are not used. A name with a slash, here and
        below, is a path from the root of the store: ``labels/tissue/0 == 3``.
    weights
        Variable, or ``cos(lat)`` of a latitude in degrees or radians, as its units say; or an array.
    labels
        Clusters to start from, for ``init="labels"``: a variable, or an array. Any number but 0, 1, … means that the
        cluster is unknown.

        Arrays for the mask, weights and labels are matched by dimension and label where they have them (xarray and
        pandas objects). Other arrays have the shape of the selected samples. Their masked cells are not used, weigh 0
        and have an unknown cluster.
    missing
        ``drop``, the default, leaves out rows with a NaN in any feature; ``error`` refuses them; ``marginalize`` uses
        their observed features.
    missing_chunks
        Treatment of absent chunks: ``error``; ``mask``, their cells take no part; ``fill``, their cells hold the fill
        value. Default: ``mask`` where the fill value counts as missing, an error where it would count as data.
    on_bad_chunk
        Treatment of bad chunks, which do not decode: ``error``, the default, or ``mask``, their cells take no part.
    max_bad_fraction
        Largest share of bad chunks that may be masked, from 0 to 1, 0.25 by default; more is an error.
    nodata
        Stored number that means a missing value, besides those that the attributes name; or a dict with one for each
        variable. For data in memory, a number among the given values.
    decode
        Named decoder of stored whole numbers, or a dict with one for each variable: ``signed_square``,
        ``(v / 127.5)² sign(v)``.
    valid_range
        ``cf``, the default: values outside the attributes ``valid_range``, ``valid_min`` and ``valid_max`` are missing,
        in the unit that the CF conventions say. ``ignore`` does not use these attributes.
    storage_options
        Options for fsspec. Credentials belong in the environment; those given here stay in memory.
    like
        Feature layout of a model. It gives the variables and dimensions that are not given here, if the data have
        them.

    Raises
    ------
    ConfigError
        If an option has a value or a form that is not allowed, or is given with data that are a `Source` already.
    SourceError
        If the store, group, a variable, dimension, mask or weights is not there or does not fit.
    """
    for key, chosen, allowed in (
        ("missing", missing, MISSING), ("missing_chunks", missing_chunks, MISSING_CHUNKS),
        ("on_bad_chunk", on_bad_chunk, ON_BAD_CHUNK), ("valid_range", valid_range, VALID_RANGE),
    ):  # fmt: skip
        if chosen is not None and chosen not in allowed:
            raise ConfigError(f"{key} is {chosen!r}; allowed: {', '.join(allowed)}")
    options: dict[str, Any] = {
        "group": group, "variables": variables, "sample_dims": sample_dims, "feature_dims": feature_dims,
        "select": select, "isel": isel, "missing": missing, "mask": mask, "weights": weights,
        "labels": labels, "missing_chunks": missing_chunks, "on_bad_chunk": on_bad_chunk,
        "max_bad_fraction": max_bad_fraction, "nodata": nodata, "decode": decode, "storage_options": storage_options,
        "bbox": bbox, "valid_range": valid_range,
    }  # fmt: skip
    if max_bad_fraction is not None and not (is_number(max_bad_fraction) and 0 <= max_bad_fraction <= 1):
        raise ConfigError(f"max_bad_fraction is {max_bad_fraction!r}; a number from 0 to 1 is needed")
    _check_forms(options)
    if isinstance(data, Source):
        given = [name for name, value in options.items() if value is not None]
        if given:
            raise ConfigError(f"option {given[0]!r} cannot change a Source; give it when the source is opened")
        return data
    if hasattr(data, "__fspath__"):
        data = data.__fspath__()
    if isinstance(data, str) and "://" not in data:
        # A worker process may have another current folder.
        data = str(Path(data).absolute())
    # A bare array has no names to match with those of a model.
    options["like"] = like if isinstance(data, (str, xr.Dataset, xr.DataArray, zarr.Array)) else None
    return _source(data, options, None)


def _check_forms(options: Mapping[str, Any]) -> None:
    """Refuse options of a wrong form before anything is opened."""
    for key in ("variables", "sample_dims", "feature_dims"):
        names = options[key]
        several = isinstance(names, Collection) and all(isinstance(name, str) for name in names)
        if names is not None and not several:
            raise ConfigError(f"{key} is {names!r}; a name or a list of names is needed")
    for key in ("select", "isel", "storage_options"):
        if not isinstance(options[key], (Mapping, type(None))):
            # The value may be a secret, so the message does not show it.
            value = "not what is needed" if key == "storage_options" else repr(options[key])
            raise ConfigError(f"{key} is {value}; names and values are needed: {{name: value}}")
    if not isinstance(options["group"], (str, type(None))):
        raise ConfigError(f"group is {options['group']!r}; the path of a group is needed, such as '0'")


def _source(data: Any, options: Mapping[str, Any], listings: Mapping[str, Listing] | None) -> Source:
    """Open data; `listings` are None where the store is yet to be listed."""
    mask, weights, labels, missing = (options[key] for key in ("mask", "weights", "labels", "missing"))
    like: layout.FeatureLayout | None = options["like"]
    compared = mask_condition(mask)
    recipe: dict[str, Any] | None = None
    if isinstance(data, str):
        recipe = {**options, "data": data}
        named = layout.as_list(options["variables"]) or (() if like is None else like.variables)
        asked = [*named, None if compared is None else compared.variable, weights, labels]
        # Names with a slash belong to other groups, which are opened later.
        inside = [name for name in asked if isinstance(name, str) and "/" not in name]
        opened = opening.open_store(data, options["group"], options["storage_options"] or {}, inside)
    else:
        opened = layout.wrap_in_memory(data)
    wanted = options["variables"]
    opened = opened._replace(dataset=layout.as_variables(opened.dataset, wanted))
    dataset = opened.dataset
    if wanted is None and like is not None:
        wanted = like.choose_variables(dataset)
    names = layout.choose_variables(dataset, wanted)
    # Stores decode while they are read; data in memory are decoded here, so that both go by the same rules.
    numbers = nodata_of(options["nodata"], names)
    valid_range: ValidRange = options["valid_range"] or "cf"
    valid = valid_range == "cf"
    dataset, given, said = in_memory_variables.decode_in_memory(
        dataset, names if opened.node is None else (), numbers, valid=valid
    )
    opened.check_selected(options["select"] or {})
    companion_values = {"mask": compared.variable if compared else mask, "weights": weights, "labels": labels}
    # Indexing reads the labels, which may fail as any read does.
    with translate_errors(opened.url or "the data"):
        dataset = grouped.with_indexes(dataset, _selected_dims(dataset, names, options, companion_values.values()))
    windows = {} if options["bbox"] is None else coordinates.box(dataset, names, options["bbox"], opened.unusable)
    selected = selection.positions(dataset, options["select"] or {}, options["isel"] or {}, windows)
    indexers = layout.select_positions(dataset, selected)
    # A dimension at a single position is neither a sample nor a feature dimension.
    single = {str(d) for d, position in selected.items() if isinstance(position, int)}
    samples, features = layout.choose_dimensions(
        dataset, names, options["sample_dims"], options["feature_dims"], single, like
    )
    dataset, matched = companion_groups.join_companion(dataset, recipe, companion_values, names[0], samples)
    # Coordinates of dimensions are labels and keep their numbers, and other variables were decoded above.
    counted = {*given, *dataset.sizes}
    undecoded = [
        name for name in _companions(companion_values).values() if name in dataset.variables and name not in counted
    ]
    dataset, _, more = in_memory_variables.decode_in_memory(dataset, dict.fromkeys(undecoded), {}, valid=valid)
    said += more
    cut = dataset.isel(selected)
    bare = layout.is_bare(data)
    # Arrays join the dataset under names of their own. No recipe holds them, so workers get the source with its data.
    for where, array in companion_values.items():
        if array is not None and not isinstance(array, str):
            decoded, cautions = in_memory_variables.array_meant(where, array, valid=valid)
            said += cautions
            cut = cut.assign({f"_{where}": align_companion(cut, where, decoded, samples, bare)})
            companion_values[where], recipe = f"_{where}", None
    weights, labels = companion_values["weights"], companion_values["labels"]
    companions = _companions(companion_values)
    for where, name in companions.items():
        layout.check_companion(cut, where, name, samples)
    mask = mask if compared else companion_values["mask"]
    if mask is not None and (compared is None or compared.comparison is None):
        check_truth(cut, mask)
    # The names differ for cos(name) alone.
    if companions.get("weights") != weights:
        coordinates.check_latitude(dataset[companions["weights"]].variable, companions["weights"], weights)
    # Small companions are read once as a whole, so only the chunks of large ones matter for the edges of blocks.
    large = [name for name in companions.values() if name in dataset.variables and cut[name].nbytes > SMALL_COMPANION]
    axes = layout.axes(dataset, layout.read_units(dataset, (*names, *large), samples), indexers, samples)
    if listings is None:
        # Labels decide which data are selected, so a change of them counts as a change of the source.
        labelling = [d for d in (*samples, *features, *selected) if d in dataset.coords]
        listings = snapshot(opened, dict.fromkeys((*names, *companions.values(), *map(str, labelling), *matched)))
    stored, cautions = store_variables(
        opened, names, indexers, listings, missing or "drop", options["missing_chunks"],
        options["on_bad_chunk"] or "error", numbers, options["decode"], valid_range,
    )  # fmt: skip
    worst = options["max_bad_fraction"]
    used = (*names, *companions.values())
    cautions = (*opened.cautions_of(used, alone=wanted is None), *said, *cautions)
    return Source(
        cut, names, samples, features, mask, weights, missing or "drop", axes, not isinstance(data, np.ndarray),
        recipe, labels, stored, listings, cautions, MAX_BAD_FRACTION if worst is None else float(worst),
        in_memory={name: part.select(selected) for name, part in given.items()},
        unusable=opened.unusable,
        valid_range=valid_range,
    )  # fmt: skip


def _companions(beside: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that mask, weights and labels name, by their use; arrays have none."""
    names = {where: name for where, name in beside.items() if isinstance(name, str)}
    cosine = COSINE_WEIGHTS.fullmatch(names.get("weights", ""))
    return {**names, "weights": cosine[1]} if cosine else names


def _selected_dims(
    dataset: xr.Dataset, names: Sequence[str], options: Mapping[str, Any], companion_values: Collection[Any]
) -> Collection[Any]:
    """Return the dimensions whose labels are needed, for the selection or to match companions."""
    matched = any(array is not None and (not isinstance(array, str) or "/" in array) for array in companion_values)
    if matched or options["bbox"] is not None:
        return [d for name in names for d in dataset[name].dims]
    return [d for d in options["select"] or () if d in dataset.dims]


@dataclass(frozen=True, eq=False)
class _UnhashedListings:
    """Listings that compare equal, so that the cache of `_once` goes by the recipe and the name of the opening."""

    listings: Mapping[str, Listing]

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _UnhashedListings)


def _pickled(source: Source) -> tuple[Any, ...]:
    """Give what is pickled of a source: of a store what opens it again, of data in memory all that they are."""
    # A worker opens the store by itself, so that the dataset with its labels is not sent to it.
    if source.recipe is not None:
        return _reopen, (source.recipe, source.opening, source.listings)
    return Source, tuple(getattr(source, field.name) for field in fields(source))


# A source is a value that does not know how it was opened. Every source of a store is made by this module, so that
# wherever there is one, this is known.
copyreg.pickle(Source, _pickled)


def _reopen(recipe: Mapping[str, Any], opening: str, listings: Mapping[str, Listing]) -> Source:
    """Open a source in another process, once per process."""
    # A dict cannot be a key of the cache, and its pickle can.
    return _once(pickle.dumps(recipe), opening, _UnhashedListings(listings))


@lru_cache(maxsize=16)
def _once(recipe: bytes, _: str, listings: _UnhashedListings) -> Source:
    options = pickle.loads(recipe)
    return _source(options.pop("data"), options, listings.listings)
