"""Masks, weights and labels that lie in another group of the store than the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import xarray as xr

from clustering.data.alignment import on_labels
from clustering.data.dimension_names import numbered
from clustering.data.grouped import with_indexes
from clustering.data.opening import open_store
from clustering.errors import SourceError, nearest


def join_companion(
    dataset: xr.Dataset,
    recipe: Mapping[str, Any] | None,
    names: Mapping[str, Any],
    variable: str,
    sample: Sequence[str],
) -> tuple[xr.Dataset, list[str]]:
    """Add what is named by a path from the root of the store, such as ``labels/tissue/0``, under this name.

    Parameters
    ----------
    dataset
        The opened, unselected data.
    recipe
        Where they were opened; None for data held in memory.
    names
        Names of the mask, weights and labels, by what they are for; a name without a slash belongs to the dataset.
    variable
        Of the data: arrays without names of dimensions lie along its sample dimensions, as it stores them.
    sample
        Sample dimensions.

    Returns
    -------
    xarray.Dataset
        What stands on the labels of the data in another order is brought to theirs.
    list of str
        Paths of the labels by which that was done.

    Raises
    ------
    SourceError
        If nothing is there, or it does not fit the samples.
    """
    grid = [str(d) for d in dataset[variable].dims if d in sample]
    labels = list[str]()
    for where, name in names.items():
        if recipe is not None and isinstance(name, str) and "/" in name and name not in dataset.variables:
            array, matched = _read_companion(dataset, where, name, recipe, grid)
            dataset = dataset.assign({name: array})
            labels += matched
    return dataset, labels


def _read_companion(
    dataset: xr.Dataset, where: str, name: str, recipe: Mapping[str, Any], grid: list[str]
) -> tuple[xr.Variable, list[str]]:
    """Open an array and bring its dimensions to those of the samples; give the paths of the labels that it takes."""
    store, options, path = recipe["data"], recipe["storage_options"] or {}, name.strip("/")
    try:
        opened = open_store(store, path, options).dataset
    except SourceError as error:
        root = "" if recipe["group"] else "; where this store lies in a larger one, name that, and the data by group"
        raise SourceError(f"'{where}' {name!r} counts from the root of the store: {error}{root}") from error
    if len(opened.data_vars) != 1:
        inside = sorted(f"{name.rstrip('/')}/{v}" for v in opened.data_vars)
        raise SourceError(f"'{where}' {name!r} is a group of {len(inside)} variables; name one; {nearest('', inside)}")
    (array,) = opened.data_vars.values()
    unnamed = numbered(array.dims)
    array = array.squeeze([d for d, n in array.sizes.items() if n == 1 and d not in grid], drop=True)
    if unnamed:
        long = [d for d in grid if dataset.sizes[d] > 1]
        expected = tuple(dataset.sizes[d] for d in long)
        if array.shape != expected:
            raise SourceError(
                f"'{where}' {name!r} names no dimensions and has shape {array.shape}; the samples ({', '.join(long)}) "
                f"have shape {expected} before the selection; name an array of that shape"
            )
        return array.rename(dict(zip(array.dims, long, strict=True))).variable, []
    indexes, group = _stored_labels(store, path, options, opened)
    matched = list[str]()
    for d, length in array.sizes.items():
        if d in dataset.indexes and d in indexes:
            places = on_labels(f"'{where}' {name!r}", dataset, str(d), indexes[d])
            if places is not None:
                array = array.isel({d: places})
                matched.append(f"{group}/{d}")
        elif length != dataset.sizes.get(d, length):
            raise SourceError(
                f"'{where}' {name!r} has length {length} along {d!r}, and the data have {dataset.sizes[d]} before the "
                "selection; name an array on the same grid"
            )
    return array.variable, matched


def _stored_labels(
    store: str, path: str, options: Mapping[str, Any], opened: xr.Dataset
) -> tuple[Mapping[Any, pd.Index], str]:
    """Give the labels of an array's dimensions, its own or those stored beside it, and the path of their group."""
    if opened.indexes or opened.coords:
        return with_indexes(opened, opened.dims).indexes, path
    group = path.rpartition("/")[0]
    try:
        beside = open_store(store, group or None, options).dataset
        return with_indexes(beside, beside.dims).indexes, group
    except SourceError:
        # Arrays beside it that make no one dataset, such as the levels of an image, tell no labels.
        return {}, group
