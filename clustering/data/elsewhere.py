"""Masks, weights and labels that lie in another group of the store than the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import xarray as xr

from clustering.data.alignment import same_order
from clustering.data.grouped import with_indexes
from clustering.data.names import numbered
from clustering.data.opening import open_store
from clustering.errors import SourceError, nearest


def join(
    dataset: xr.Dataset,
    recipe: Mapping[str, Any] | None,
    names: Mapping[str, Any],
    variable: str,
    sample: Sequence[str],
) -> xr.Dataset:
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

    Raises
    ------
    SourceError
        If nothing is there, or it does not fit the samples.
    """
    grid = [str(d) for d in dataset[variable].dims if d in sample]
    for where, name in names.items():
        if recipe is not None and isinstance(name, str) and "/" in name and name not in dataset.variables:
            dataset = dataset.assign({name: _fitting(dataset, where, name, recipe, grid)})
    return dataset


def _fitting(dataset: xr.Dataset, where: str, name: str, recipe: Mapping[str, Any], grid: list[str]) -> xr.Variable:
    """Open an array and bring its dimensions to those of the samples."""
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
        return array.rename(dict(zip(array.dims, long, strict=True))).variable
    for d, length in array.sizes.items():
        if length != dataset.sizes.get(d, length):
            raise SourceError(
                f"'{where}' {name!r} has length {length} along {d!r}, and the data have {dataset.sizes[d]} before the "
                "selection; name an array on the same grid"
            )
    theirs = _beside(store, path, options, opened)
    for d in array.dims:
        if d in dataset.indexes and d in theirs and not same_order(dataset.indexes[d], theirs[d]):
            raise SourceError(
                f"'{where}' {name!r} lies on other labels of {d!r} than the data, from {theirs[d][0]} to "
                f"{theirs[d][-1]}; bring it to the grid of the data first"
            )
    return array.variable


def _beside(store: str, path: str, options: Mapping[str, Any], opened: xr.Dataset) -> Mapping[Any, pd.Index]:
    """Labels of the dimensions of an array: its own, or those stored beside it."""
    if opened.indexes or opened.coords:
        return with_indexes(opened, opened.dims).indexes
    try:
        beside = open_store(store, path.rpartition("/")[0] or None, options).dataset
        return with_indexes(beside, beside.dims).indexes
    except SourceError:
        # Arrays beside it that make no one dataset, such as the levels of an image, tell no labels.
        return {}
