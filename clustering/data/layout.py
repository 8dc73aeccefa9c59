"""Choice of the variables, sample dimensions and feature dimensions, and the units that data are read in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from clustering.data.alignment import is_dask, to_plain, to_plain_dataset
from clustering.data.dimension_names import numbered, unknown_dimension, with_names
from clustering.data.opening import BARE, OpenedDataset, decoded_array
from clustering.data.plan import MIB, Axis
from clustering.data.reading_options import ReadingOptions
from clustering.data.selection import Positions
from clustering.data.stored import DimIndexer
from clustering.deferred import xr, zarr
from clustering.errors import SourceError, nearest

LARGEST_SHARD = 256 * MIB
"""Largest shard that is read whole, in bytes. Larger shards are read by their inner chunks."""


class FeatureLayout(NamedTuple):
    """The variables and dimensions that a model was fitted on, and how their numbers were read."""

    variables: tuple[str, ...]
    sample_dims: tuple[str, ...]
    """Empty in models of earlier versions, which did not store them."""
    feature_dims: tuple[str, ...]
    reading: ReadingOptions

    def choose_variables(self, dataset: xr.Dataset) -> tuple[str, ...] | None:
        """Give the variables of the model if the data have all of them, and None otherwise.

        Parameters
        ----------
        dataset
            New data, for which the user named no variables.
        """
        return self.variables if {*self.variables} <= {*map(str, dataset.data_vars)} else None

    def choose_dimensions(
        self, present: Sequence[str], sample: Sequence[str] | None
    ) -> tuple[Sequence[str] | None, Sequence[str] | None]:
        """Split the dimensions of new data as the model did, where the user named no feature dimensions.

        Parameters
        ----------
        present
            Dimensions of the variables, without those selected at a single position.
        sample
            Sample dimensions that the user named; None where the user named none.

        Returns
        -------
        sequence of str or None
            Sample dimensions; None where they are still open.
        sequence of str or None
            Feature dimensions; None where the data or `sample` do not fit those of the model.
        """
        if not self.sample_dims or not {*self.feature_dims} <= {*present}:
            return sample, None
        rest = [d for d in present if d not in self.feature_dims]
        if sample is None:
            # Data on other sample dimensions, such as stations instead of a grid, have the same features.
            return self.sample_dims if {*self.sample_dims} == {*rest} else rest, self.feature_dims
        return sample, self.feature_dims if {*sample} == {*rest} else None


def wrap_in_memory(data: Any) -> OpenedDataset:
    """Wrap data that the user opened or made as a dataset.

    Parameters
    ----------
    data
        An xarray object, a zarr array, a dask array ``(n, d)`` or an ndarray ``(n, d)``.

    Raises
    ------
    SourceError
        For an array without two dimensions, and for data of any other type.
    """
    # This comes first, as a zarr array needs no xarray.
    if isinstance(data, zarr.Array):
        alone = decoded_array(data)
        return OpenedDataset(with_names(alone.dataset, data), data, cautions=alone.cautions)
    if isinstance(data, xr.Dataset):
        return OpenedDataset(to_plain_dataset(data), None)
    if isinstance(data, xr.DataArray):
        return OpenedDataset(to_plain_dataset(data.to_dataset(name=data.name or BARE)), None)
    if isinstance(data, np.ndarray) or is_dask(data):
        if data.ndim != 2:
            raise SourceError(
                f"the array has {data.ndim} dimensions, shape {tuple(data.shape)}; "
                "give rows and features, (n, d), or an xarray object that names its dimensions"
            )
        return OpenedDataset(xr.Dataset({BARE: (("row", "feature"), to_plain(data))}), None)
    # Data frames of pandas and polars are taken, so this one has its rows elsewhere.
    remedy = ", such as its to_dask_array(lengths=True)" if hasattr(data, "__dask_graph__") else ""
    raise SourceError(
        f"cannot cluster a {type(data).__name__}; allowed: path or URL of a Zarr store, xarray object, zarr array, "
        f"dask array, ndarray (n, d), list of rows, data frame{remedy}"
    )


def is_bare(data: Any) -> bool:
    """Tell whether the dimensions of the data have no names.

    Parameters
    ----------
    data
        Data as the user gave them; see `wrap_in_memory`, or a path or URL.
    """
    if isinstance(data, zarr.Array):
        return numbered(with_names(decoded_array(data).dataset, data)[BARE].dims)
    return isinstance(data, np.ndarray) or is_dask(data)


def as_list(names: str | Sequence[str] | None) -> Sequence[str] | None:
    """Turn a single name into a list of one.

    Parameters
    ----------
    names
        A name, several names, or None, which stays None.
    """
    return [names] if isinstance(names, str) else names


def as_variables(dataset: xr.Dataset, wanted: str | Sequence[str] | None) -> xr.Dataset:
    """Turn coordinates that the user named as variables into data variables.

    Parameters
    ----------
    dataset
        Opened data.
    wanted
        Variables that the user named; None where the user named none.
    """
    # The coordinate of a dimension holds its labels and has to stay; `choose_variables` refuses it.
    asked = [name for name in as_list(wanted) or () if name in dataset.coords and dataset[name].dims != (name,)]
    return dataset.reset_coords(asked) if asked else dataset


def choose_variables(dataset: xr.Dataset, wanted: str | Sequence[str] | None) -> tuple[str, ...]:
    """Check the variables that the user named, or find the only variable.

    Parameters
    ----------
    dataset
        Opened data.
    wanted
        Variables that the user named; None where the user named none.

    Raises
    ------
    SourceError
        If a variable is unknown, is named twice or cannot be clustered, or if none is named and there is not just one.
    """
    wanted = as_list(wanted)
    present = [str(v) for v in dataset.data_vars]
    if wanted is None:
        if len(present) != 1:
            raise SourceError(
                f"the group holds {len(present)} variables; name those to cluster; {nearest('', present)}"
            )
        wanted = present
    if not wanted:
        raise SourceError(f"no variables named; {nearest('', present)}")
    for name in wanted:
        if name in dataset.coords and dataset[name].dims == (name,):
            raise SourceError(
                f"{name!r} holds the labels of dimension {name!r}, which cannot be clustered under this name; "
                f"store them under another; {nearest('', present)}"
            )
        if name not in dataset.data_vars:
            raise SourceError(f"unknown variable {name!r}; {nearest(name, present)}")
        twice = [str(d) for d in dataset[name].dims if dataset[name].dims.count(d) > 1]
        if twice:
            raise SourceError(
                f"variable {name!r} has dimension {twice[0]!r} twice, so that its samples and features have one name; "
                "rename one of the two in the store"
            )
        if dataset[name].dtype.kind not in "biuf":
            raise SourceError(f"variable {name!r} has type {dataset[name].dtype}; only numbers can be clustered")
        if dataset[name].dtype.itemsize > 8:
            raise SourceError(
                f"variable {name!r} has type {dataset[name].dtype}; numbers of up to 64 bits can be clustered: give it "
                "as float64"
            )
    if len(set(wanted)) != len(wanted):
        raise SourceError(f"a variable is named twice in {list(wanted)}; name each once")
    return tuple(wanted)


def choose_dimensions(
    dataset: xr.Dataset,
    variables: tuple[str, ...],
    sample: str | Sequence[str] | None,
    feature: str | Sequence[str] | None,
    single: set[str],
    like: FeatureLayout | None = None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split the dimensions of the variables into sample and feature dimensions.

    By default the first dimension is the sample dimension.

    Parameters
    ----------
    dataset
        Opened data.
    variables
        Variables to cluster.
    sample
        Sample dimensions that the user named; the remaining dimensions where None.
    feature
        Feature dimensions that the user named; the remaining dimensions where None.
    single
        Dimensions selected at a single position. They are neither sample nor feature dimensions.
    like
        Feature layout of a model. It decides where `feature` is None and the data have its feature dimensions.

    Returns
    -------
    tuple of str
        Sample dimensions.
    tuple of str
        Feature dimensions.

    Raises
    ------
    SourceError
        If a dimension is unknown, is named twice, is empty or has no role, or a variable lacks a sample dimension.
    """
    sample, feature = as_list(sample), as_list(feature)
    present = list(dict.fromkeys(str(d) for v in variables for d in dataset[v].dims))
    for where, named in (("sample_dims", sample), ("feature_dims", feature)):
        for d in named or ():
            if d not in present:
                raise unknown_dimension(d, where, present)
        if len(set(named or ())) != len(named or ()):
            raise SourceError(f"a dimension is named twice in '{where}': {list(named or ())}; name each once")
    if like is not None and feature is None:
        sample, feature = like.choose_dimensions([d for d in present if d not in single], sample)
    if sample is None and feature is None:
        left = [d for d in present if d not in single]
        sample, feature = left[:1], left[1:]
    elif sample is None:
        sample = [d for d in present if d not in (feature or ())]
    elif feature is None:
        feature = [d for d in present if d not in sample]
    assert sample is not None
    assert feature is not None
    sample, feature = [d for d in sample if d not in single], [d for d in feature if d not in single]
    if not sample:
        raise SourceError(f"no sample dimension is left; name one in 'sample_dims'; {nearest('', present)}")
    both = sorted(set(sample) & set(feature))
    if both:
        raise SourceError(f"dimension {both[0]!r} is in both 'sample_dims' and 'feature_dims'; keep it in one")
    empty = [d for d in (*sample, *feature) if dataset.sizes[d] == 0]
    if empty:
        raise SourceError(f"dimension {empty[0]!r} has length 0; there is nothing to cluster")
    for name in variables:
        dims = [str(d) for d in dataset[name].dims if d not in single]
        spare = [d for d in dims if d not in sample and d not in feature]
        if spare:
            raise SourceError(
                f"dimension {spare[0]!r} of variable {name!r} is neither sample nor feature; "
                "add it to 'sample_dims' or 'feature_dims', or pick one place along it with 'select' or 'isel'"
            )
        lacking = [d for d in sample if d not in dims]
        if lacking:
            raise SourceError(
                f"variable {name!r} has no sample dimension {lacking[0]!r}; its dimensions are {', '.join(dims)}; "
                "every variable needs all sample dimensions"
            )
    return tuple(sample), tuple(feature)


def check_companion(dataset: xr.Dataset, where: str, name: str, sample: tuple[str, ...]) -> None:
    """Check that a companion exists, holds numbers, and varies along sample dimensions only.

    Parameters
    ----------
    dataset
        Selected data with their companions.
    where
        Option that names the companion: ``mask``, ``weights`` or ``labels``.
    name
        Variable that holds the companion.
    sample
        Sample dimensions.

    Raises
    ------
    SourceError
        If a check fails.
    """
    if name not in dataset.variables:
        raise SourceError(f"unknown variable {name!r} in '{where}'; {nearest(name, map(str, dataset.variables))}")
    spare = [str(d) for d in dataset[name].dims if d not in sample]
    if spare:
        raise SourceError(
            f"'{where}' variable {name!r} varies along {spare[0]!r}, which is not a sample dimension; "
            f"allowed: {', '.join(sample)}"
        )
    # A boolean mask with missing values has object type. Values of objects are checked later.
    if dataset[name].dtype.kind not in ("biufO" if where == "mask" else "biuf"):
        # An array that the user gave got the name of its option with an underscore; messages leave it out.
        called = f"the {where}" if name == f"_{where}" else f"'{where}' variable {name!r}"
        raise SourceError(f"{called} has type {dataset[name].dtype}; a number or boolean is needed")


def read_units(dataset: xr.Dataset, variables: Sequence[str], sample: tuple[str, ...]) -> dict[str, int]:
    """Find the smallest length to read at once along each sample dimension.

    It is the length of the chunk, or of the shard where shards are small enough. For variables with different chunks it
    is the least common multiple, so that blocks cut no chunk; where that is too large, it is the largest length.

    Parameters
    ----------
    dataset
        Opened data, without selection.
    variables
        Variables that a pass reads.
    sample
        Sample dimensions.

    Returns
    -------
    dict
        Sample dimension → length, in positions.
    """
    units = dict.fromkeys(sample, 1)
    for name in variables:
        variable = dataset[name].variable
        for d, length in zip(variable.dims, _stored_chunks(variable), strict=True):
            if d in units:
                # Lengths such as 7 and 8 would make blocks of 56; four times the larger one is the limit.
                common = math.lcm(units[str(d)], length)
                units[str(d)] = common if common <= 4 * max(units[str(d)], length) else max(units[str(d)], length)
    return units


def _stored_chunks(variable: xr.Variable) -> tuple[int, ...]:
    """Length along each dimension of the unit that is read whole; 1 for data in memory."""
    if variable.chunks is not None:
        # The chunks of a dask array may differ in length.
        return tuple(max(lengths) for lengths in variable.chunks)
    # xarray keeps the layout of a stored array in the encoding of its variable.
    shards, chunks = variable.encoding.get("shards"), variable.encoding.get("chunks")
    if shards and math.prod(shards) * variable.dtype.itemsize <= LARGEST_SHARD:
        return tuple(shards)
    if isinstance(chunks, tuple) and len(chunks) == variable.ndim:
        return chunks
    return (1,) * variable.ndim


def axes(
    dataset: xr.Dataset, units: Mapping[str, int], indexers: Mapping[str, DimIndexer], sample: tuple[str, ...]
) -> tuple[Axis, ...]:
    """Describe the sample dimensions for a plan.

    Parameters
    ----------
    dataset
        Opened data, without selection.
    units
        Length to read at once along each sample dimension; see `read_units`.
    indexers
        Selected positions by dimension; all of them for a dimension that is not named.
    sample
        Sample dimensions.
    """
    return tuple(Axis.from_indexer(indexers.get(d, range(dataset.sizes[d])), units[d]) for d in sample)


def select_positions(dataset: xr.Dataset, positions: Positions) -> dict[str, DimIndexer]:
    """Find the selected positions along each dimension.

    Parameters
    ----------
    dataset
        Opened data, without selection.
    positions
        A slice, a single position or an array ``(t,)`` of positions for each dimension with a selection.

    Returns
    -------
    dict
        Indexers by dimension, of all dimensions of `dataset`.
    """
    indexers: dict[str, DimIndexer] = {str(d): range(n) for d, n in dataset.sizes.items()}
    for d, position in positions.items():
        whole = range(dataset.sizes[d])
        if isinstance(position, slice):
            indexers[str(d)] = whole[position]
        elif isinstance(position, int):
            # A stored array keeps this dimension, with length 1.
            indexers[str(d)] = range(whole[position], whole[position] + 1)
        else:
            indexers[str(d)] = np.asarray(position)
    return indexers
