"""Companions (mask, weights and labels) from another group of the store than that of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clustering.data.alignment import on_labels
from clustering.data.dimension_names import numbered
from clustering.data.grouped import with_indexes
from clustering.data.opening import open_store
from clustering.deferred import pd, xr
from clustering.errors import SourceError, nearest


def join_companion(
    dataset: xr.Dataset,
    recipe: Mapping[str, Any] | None,
    names: Mapping[str, Any],
    variable: str,
    sample: Sequence[str],
) -> tuple[xr.Dataset, list[str]]:
    """Add companions that are named by a path from the root of the store, such as ``labels/tissue/0``.

    Parameters
    ----------
    dataset
        The opened, unselected data.
    recipe
        Arguments by which the data were opened; None for data held in memory, which have no other group.
    names
        Companions by their use (``mask``, ``weights``, ``labels``): names without a slash belong to the dataset, and
        arrays are skipped.
    variable
        Variable of the data. Companions without names of dimensions lie along its sample dimensions, in its order.
    sample
        Sample dimensions.

    Returns
    -------
    xarray.Dataset
        The data and the companions, which are named by their paths and put in the order of the labels of the data.
    list of str
        Paths of the labels that decided this order.

    Raises
    ------
    SourceError
        If there is no array at a path, or it does not fit the samples.
    """
    grid = [str(d) for d in dataset[variable].dims if d in sample]
    labels = list[str]()
    for where, name in names.items():
        # One array may be named for two uses. It is in the dataset after the first.
        if recipe is not None and isinstance(name, str) and "/" in name and name not in dataset.variables:
            array, matched = _read_companion(dataset, where, name, recipe, grid)
            dataset = dataset.assign({name: array})
            labels += matched
    return dataset, labels


def _read_companion(
    dataset: xr.Dataset, where: str, name: str, recipe: Mapping[str, Any], grid: list[str]
) -> tuple[xr.Variable, list[str]]:
    """Open an array on the grid of the samples; return it with the paths of the labels that were used for this."""
    store, options, path = recipe["data"], recipe["storage_options"] or {}, name.strip("/")
    try:
        opened = open_store(store, path, options).dataset
    except SourceError as error:
        root = (
            ""
            if recipe["group"]
            else "; if this store is part of a larger one, name the larger one, and the data by group"
        )
        raise SourceError(f"'{where}' {name!r} counts from the root of the store: {error}{root}") from error
    if len(opened.data_vars) != 1:
        inside = sorted(f"{name.rstrip('/')}/{v}" for v in opened.data_vars)
        raise SourceError(f"'{where}' {name!r} is a group of {len(inside)} variables; name one; {nearest('', inside)}")
    (array,) = opened.data_vars.values()
    unnamed = numbered(array.dims)
    # A dimension of length 1 that the samples lack, such as the only channel of an image, chooses nothing.
    array = array.squeeze([d for d, n in array.sizes.items() if n == 1 and d not in grid], drop=True)
    if unnamed:
        # Images often have dimensions of length 1, which a mask of them may lack.
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
        # A dimension that the data lack is refused later, by `check_companion`.
        elif length != dataset.sizes.get(d, length):
            raise SourceError(
                f"'{where}' {name!r} has length {length} along {d!r}, and the data have {dataset.sizes[d]} before the "
                "selection; name an array on the same grid"
            )
    return array.variable, matched


def _stored_labels(
    store: str, path: str, options: Mapping[str, Any], opened: xr.Dataset
) -> tuple[Mapping[Any, pd.Index], str]:
    """Return the labels along the dimensions of an array, from it or from its group, and the path of that group."""
    if opened.indexes or opened.coords:
        return with_indexes(opened, opened.dims).indexes, path
    group = path.rpartition("/")[0]
    try:
        beside = open_store(store, group or None, options).dataset
        return with_indexes(beside, beside.dims).indexes, group
    except SourceError:
        # The arrays of the group may not fit into one dataset, as the levels of an image do not. Then there are none.
        return {}, group
