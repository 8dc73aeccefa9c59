"""Opening a path, a URL or data in memory as a source."""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from clustering.data import companion_groups, coordinates, grouped, in_memory_variables, layout, opening, selection
from clustering.data.alignment import align_companion
from clustering.data.chunks import nodata_of, snapshot, store_variables
from clustering.data.conditions import check_truth, mask_condition
from clustering.data.listing import Listing
from clustering.data.plain_dataset import PlainDataset, PlainVariable
from clustering.data.reading import COSINE_WEIGHTS, SMALL_COMPANION
from clustering.data.reading_options import ReadingOptions
from clustering.data.source import Source
from clustering.data.store_errors import translate_errors
from clustering.data.tables_in_memory import from_table
from clustering.deferred import xr, zarr
from clustering.errors import ConfigError
from clustering.options import SourceOptions
from clustering.policies import ValidRange
from clustering.signatures import takes


@takes(SourceOptions)
def open_source(data: Any, options: SourceOptions) -> Source:
    """Open data as a source. Only metadata and coordinates are read.

    Parameters
    ----------
    data
        Path or URL of a Zarr store; or an xarray Dataset or DataArray, a zarr array, a dask array, an ndarray
        ``(n, d)``, a list of rows, or a data frame, whose columns are the features.
    options
        Which part of the data is used.

    Raises
    ------
    ConfigError
        If an option has a value or a form that is not allowed, or is given with data that are a `Source` already.
    SourceError
        If the store, group, a variable, dimension, mask or weights is not there or does not fit.
    """
    return open_data(data, options)


def open_data(data: Any, options: SourceOptions, like: layout.FeatureLayout | None = None) -> Source:
    """Open data as a source, by checked options.

    Parameters
    ----------
    data
        As for `open_source`.
    options
        Which part of the data is used.
    like
        Feature layout of a model. It gives the variables and dimensions that are not given in the options, if the data
        have them, and what their numbers mean.

    Raises
    ------
    ConfigError, SourceError
        As `open_source`.
    """
    if isinstance(data, Source):
        check_not_opened(data, options)
        return data
    if hasattr(data, "__fspath__"):
        data = data.__fspath__()
    data = from_table(data)
    if isinstance(data, str) and "://" not in data:
        # A worker process may have another current folder.
        data = str(Path(data).absolute())
    if like is not None and like.reading.values:
        named = isinstance(data, (str, xr.Dataset, xr.DataArray))
        options = like.reading.fill_in(options, stored=isinstance(data, (str, zarr.Array)), named=named)
    plain = _plain_source(data, options)
    if plain is not None:
        return plain
    chosen = {name: getattr(options, name) for name in SourceOptions.model_fields}
    # A bare array has no names to match with those of a model. xarray is loaded for the last question alone.
    named = isinstance(data, str) or isinstance(data, zarr.Array) or isinstance(data, (xr.Dataset, xr.DataArray))  # noqa: SIM101
    chosen["like"] = like if named else None
    return _source(data, chosen, None)


def check_not_opened(data: Any, options: SourceOptions) -> None:
    """Refuse options for data that are a `Source` already.

    Parameters
    ----------
    data
        As for `open_source`.
    options
        Which part of the data is used.

    Raises
    ------
    ConfigError
        Naming the first option that is given.
    """
    given = [name for name in SourceOptions.model_fields if name in options.model_fields_set]
    if given and isinstance(data, Source):
        raise ConfigError(f"option {given[0]!r} cannot change a Source; give it when the source is opened")


def _plain_source(data: Any, options: SourceOptions) -> Source | None:
    """Open an ndarray without the help of xarray; None where the options ask for more than whole rows with weights."""
    given = {name for name in SourceOptions.model_fields if name in options.model_fields_set}
    if type(data) is not np.ndarray or data.ndim != 2 or given - {"missing", "weights"}:
        return None
    variables, weights = {opening.BARE: PlainVariable(("row", "feature"), data)}, None
    if options.weights is not None:
        # Weights of another form are matched with the rows, or refused.
        if type(options.weights) is not np.ndarray or options.weights.shape != data.shape[:1]:
            return None
        weights = "_weights"
        variables[weights] = PlainVariable(("row",), options.weights)
    dataset = cast("xr.Dataset", PlainDataset(variables))
    samples, features = layout.choose_dimensions(dataset, (opening.BARE,), None, None, set())
    if weights is not None:
        layout.check_companion(dataset, "weights", weights, samples)
    names = layout.choose_variables(dataset, opening.BARE)
    axes = layout.axes(dataset, dict.fromkeys(samples, 1), {}, samples)
    return Source(
        dataset, names, samples, features, None, weights, options.missing, axes, False, None,
        max_bad_fraction=options.max_bad_fraction,
        valid_range=options.valid_range,
    )  # fmt: skip


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
        opened = opening.open_store(data, options["group"], options["storage_options"], inside)
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
    valid_range: ValidRange = options["valid_range"]
    valid = valid_range == "cf"
    dataset, given, said = in_memory_variables.decode_in_memory(
        dataset, names if opened.node is None else (), numbers, valid=valid
    )
    opened.check_selected(options["select"])
    companion_values = {"mask": compared.variable if compared else mask, "weights": weights, "labels": labels}
    # Indexing reads the labels, which may fail as any read does.
    with translate_errors(opened.url or "the data"):
        dataset = grouped.with_indexes(dataset, _selected_dims(dataset, names, options, companion_values.values()))
    windows = {} if options["bbox"] is None else coordinates.box(dataset, names, options["bbox"], opened.unusable)
    selected = selection.positions(dataset, options["select"], options["isel"], windows)
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
        opened, names, indexers, listings, missing, options["missing_chunks"],
        options["on_bad_chunk"], numbers, options["decode"], valid_range,
    )  # fmt: skip
    used = (*names, *companions.values())
    cautions = (*opened.cautions_of(used, alone=wanted is None), *said, *cautions)
    return Source(
        cut, names, samples, features, mask, weights, missing, axes, not isinstance(data, np.ndarray),
        recipe, labels, stored, listings, cautions, options["max_bad_fraction"],
        in_memory={name: part.select(selected) for name, part in given.items()},
        unusable=opened.unusable,
        valid_range=valid_range,
        reading=ReadingOptions.from_options(options, names, stored=opened.node is not None),
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
    return [d for d in options["select"] if d in dataset.dims]


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
