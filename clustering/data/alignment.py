"""Arrays from the user: unmasking them, computing unknown lengths, and matching them to the labels of the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.compat.dask import holds_masked_arrays
from clustering.data.coordinates import period, slack
from clustering.deferred import pd, xr
from clustering.errors import SourceError


def is_dask(data: Any) -> bool:
    """Return whether an object is a dask array.

    Parameters
    ----------
    data
        Any object; dask bags, data frames and delayed values are no arrays.
    """
    if not hasattr(data, "__dask_graph__"):
        return False
    # Importing dask takes long, and most arrays are none of its own.
    import dask.array

    return isinstance(data, dask.array.Array)


def to_plain(data: Any, missing: float = np.nan) -> Any:
    """Return an array with known lengths and without masked cells.

    Unknown lengths of a dask array, such as after a selection by its values, are computed. This runs its graph.

    Parameters
    ----------
    data
        A numpy array, masked array or dask array; anything else is returned as it is.
    missing
        Value of masked cells in the result.
    """
    if isinstance(data, np.ma.MaskedArray):
        return fill_masked(data, missing) if np.ma.is_masked(data) else np.asarray(data)
    if not is_dask(data):
        return data
    # Unknown lengths are NaN.
    if not all(length == length for length in data.shape):
        # compute_chunk_sizes changes the array in place, and it belongs to the user.
        data = data.copy()
        data.compute_chunk_sizes()
    if holds_masked_arrays(data):
        dtype = _with_missing(data.dtype)
        data = data.map_blocks(fill_masked, missing, dtype=dtype, meta=np.empty((0,) * data.ndim, dtype))
    return data


def fill_masked(data: Any, missing: float = np.nan) -> NDArray[Any]:
    """Replace masked cells by a number; whole numbers and truth values become floats.

    Parameters
    ----------
    data
        Masked or plain array of any shape.
    missing
        Value of masked cells in the result.

    Returns
    -------
    ndarray
        In the shape of `data`.
    """
    return np.ma.filled(np.ma.asarray(data).astype(_with_missing(data.dtype)), missing)


def _with_missing(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the smallest type that holds the numbers of another and NaN."""
    return np.result_type(dtype, np.float32) if dtype.kind in "biu" else dtype


def to_plain_dataset(dataset: xr.Dataset) -> xr.Dataset:
    """Apply `to_plain` to the lazy variables of a dataset.

    Parameters
    ----------
    dataset
        Returned as it is where no variable changes.
    """
    lazy = {name: variable for name, variable in dataset.variables.items() if variable.chunks is not None}
    arrays = {name: to_plain(variable.data) for name, variable in lazy.items()}
    changed = {
        name: xr.Variable(variable.dims, arrays[name], variable.attrs, variable.encoding)
        for name, variable in lazy.items()
        if arrays[name] is not variable.data
    }
    if not changed:
        return dataset
    # Variables are dropped and added anew, as computed lengths may differ from those that the dataset holds.
    beside = {name: variable for name, variable in changed.items() if name in dataset.coords}
    within = {name: variable for name, variable in changed.items() if name not in beside}
    return dataset.drop_vars(list(changed)).assign(within).assign_coords(beside)


def align_companion(data: xr.Dataset, where: str, values: Any, dims: Sequence[str], bare: bool) -> xr.Variable:
    """Bring a mask, weights or labels given as an array to the samples.

    Parameters
    ----------
    data
        The selected data.
    where
        Use of the array, for messages: ``mask``, ``weights`` or ``labels``.
    values
        An xarray or pandas object is matched by the names of its dimensions, and by label where both have labels, in
        any order; it may have further labels, and lack dimensions. An ndarray, a list or a dask array is taken by
        position, in the shape of the samples. Its masked cells are not used, weigh 0 or have an unknown
        cluster.
    dims
        Sample dimensions.
    bare
        Whether the data name no dimensions; then the only dimension of an array is that of the samples.

    Returns
    -------
    xarray.Variable
        Along the sample dimensions, or some of them.

    Raises
    ------
    SourceError
        If names, labels or the shape do not fit.
    """
    array = as_named(values, where, dims[0] if len(dims) == 1 else None)
    if array is not None and bare and array.ndim == len(dims) == 1:
        # The rows of bare data have no labels to match, so the array is taken by position.
        values, array = array.variable.data, None
    if array is not None:
        return align_by_name(data, where, array, dims, "sample").variable
    try:
        given = values if isinstance(values, np.ndarray) or is_dask(values) else np.asarray(values)
    except ValueError:
        raise SourceError(f"'{where}' is a list of lists of several lengths; give an array") from None
    given = to_plain(given, 0.0 if where == "weights" else np.nan)
    shape = tuple(data.sizes[d] for d in dims)
    if given.shape != shape:
        raise SourceError(f"the {where} has shape {given.shape}; the samples have shape {shape}")
    return xr.Variable(tuple(dims), given)


def align_by_name(data: xr.Dataset, where: str, array: xr.DataArray, dims: Sequence[str], kind: str) -> xr.DataArray:
    """Select from an array so that it has the labels of the data along each of its dimensions.

    Parameters
    ----------
    data
        The selected data.
    where
        Use of the array, for messages.
    array
        Named array; a dimension along which one place of the data was selected is dropped.
    dims
        Dimensions of the data that the array may have.
    kind
        Kind of these dimensions, for messages: ``sample`` or ``feature``.

    Raises
    ------
    SourceError
        For other dimensions than `dims`, or none; for labels that the array lacks or has twice; for another length.
    """
    for d in [d for d in array.dims if d not in dims]:
        if d in data.coords and data.coords[d].ndim == 0 and d in array.indexes:
            # The data were selected at one label of this dimension; take the same one of the array.
            index = _label_index(pd.Index([data.coords[d].values[()]]), array.indexes[d], _period(data, d))[0]
        else:
            index = 0 if d not in data.dims and array.sizes[d] == 1 else -1
        if index < 0:
            raise SourceError(
                f"'{where}' lies along {', '.join(map(str, array.dims))}, and {str(d)!r} is no {kind} dimension; "
                f"allowed: {', '.join(dims) or 'none'}; rename it, select one place along it, or give a plain array in "
                f"the shape of the {kind}s"
            )
        array = array.isel({d: int(index)})
    if not array.dims:
        raise SourceError(f"'{where}' has no dimension of the {kind}s; give an array along {', '.join(dims) or 'one'}")
    for d in map(str, array.dims):
        if d in data.indexes and d in array.indexes:
            places = on_labels(f"'{where}'", data, d, array.indexes[d])
            array = array if places is None else array.isel({d: places})
        elif array.sizes[d] != data.sizes[d]:
            raise SourceError(
                f"'{where}' has length {array.sizes[d]} along {d!r}, and the selected {kind}s have {data.sizes[d]}; "
                "select the same of both, or give both labels"
            )
    return array


def as_named(values: Any, where: str, only: str | None) -> xr.DataArray | None:
    """Turn an xarray or pandas object into a named array; None for other objects.

    Parameters
    ----------
    values
        Object from the user.
    where
        Use of the array, for messages.
    only
        Dimension of a pandas index without a name; None where several dimensions are possible.

    Raises
    ------
    SourceError
        For several arrays at once, or a pandas object that does not name its dimensions.
    """
    if isinstance(values, xr.Dataset):
        raise SourceError(f"'{where}' is a Dataset; give one of its variables, such as dataset[name]")
    if isinstance(values, (pd.Series, pd.DataFrame)):
        return _of_pandas(values, where, only)
    if isinstance(values, xr.Variable):
        values = xr.DataArray(values)
    if not isinstance(values, xr.DataArray):
        return None
    return to_plain_dataset(values.to_dataset(name=_ARRAY))[_ARRAY]


def _of_pandas(values: Any, where: str, only: str | None) -> xr.DataArray:
    """Turn a pandas object into an array whose dimensions have the names of its index."""
    axes = [values.index] if isinstance(values, pd.Series) else [values.index, values.columns]
    names = [name for axis in axes for name in axis.names]
    if names == [None] and only is not None:
        names = [only]
    if None in names or len(set(names)) != len(names):
        raise SourceError(
            f"'{where}' is a {type(values).__name__} whose index has no name; name it after the dimension, "
            "or give its values, to_numpy(), to take them by position"
        )
    numbers = values.to_numpy()
    if numbers.dtype.kind == "O":
        # Types of pandas have a missing value of their own, pd.NA, which numpy does not know.
        numbers = np.where(pd.isna(numbers), np.nan, numbers)
        numbers = numbers.astype(np.float64) if all(np.isreal(one) for one in numbers.flat) else numbers
    if len(names) == len(axes):
        return xr.DataArray(numbers, dict(zip(names, axes, strict=True)), names)
    if isinstance(values, pd.DataFrame) or not values.index.is_unique:
        raise SourceError(f"'{where}' has an index that makes no grid; give an array, or one entry for each cell")
    return xr.DataArray.from_series(pd.Series(numbers, values.index))


_ARRAY = "_array"
"""Name of an array inside a temporary dataset."""


def _period(data: xr.Dataset, d: Any) -> float | None:
    """Return the period of the labels of a dimension, such as 360 degrees; None where they have none."""
    return period(data[d], d) if d in data.coords else None


def on_labels(called: str, data: xr.Dataset, d: str, theirs: pd.Index) -> NDArray[np.intp] | None:
    """Find the position of each label of the data along a dimension among other labels.

    Parameters
    ----------
    called
        Name of the other array in messages.
    data
        Dataset with labels along `d`.
    d
        Dimension.
    theirs
        Labels of the other array.

    Returns
    -------
    ndarray or None
        Positions in `theirs` ``(n,)``, one for each label of the data; None where both are equal and in order.

    Raises
    ------
    SourceError
        If a label of the data is not among `theirs`, or is there several times.
    """
    ours = data.indexes[d]
    if _same_order(ours, theirs):
        return None
    places = _label_index(ours, theirs, _period(data, d))
    for fault, words in ((_NONE, "no value"), (_SEVERAL, "several values")):
        at = np.flatnonzero(places == fault)
        if len(at):
            extent = f"its labels run from {theirs[0]} to {theirs[-1]}" if len(theirs) else "it has no labels"
            raise SourceError(
                f"{called} has {words} for {len(at):,} of {len(ours):,} labels of {d!r}, {ours[at[0]]} among them; "
                f"{extent}; bring it to the labels of the data, or give a plain array to take it by position"
            )
    return places


_NONE, _SEVERAL = -1, -2
"""Positions that stand for a label that is not there, and for one that is there several times."""


def _label_index(ours: pd.Index, theirs: pd.Index, whole: float | None) -> NDArray[np.intp]:
    """Find the position of each label among others, up to rounding, and for longitudes up to whole turns."""
    if _is_numeric(ours) and _is_numeric(theirs) and not (whole is None and _are_whole(ours, theirs)):
        near = max(slack(ours.to_numpy()), slack(theirs.to_numpy()))
        a, b = (index.to_numpy().astype(np.float64) for index in (ours, theirs))
        positions = _nearest_index(a, b, near)
        if whole is not None and (positions == _NONE).any():
            # One side may count from −180 and the other from 0. `near` keeps 0 and a rounded 360 together.
            positions = _nearest_index((a + near) % whole, (b + near) % whole, near)
        return positions
    # get_indexer refuses duplicates, so it gets the first of each label, and the others are marked afterwards.
    at = np.flatnonzero(~theirs.duplicated())
    try:
        positions = np.asarray(theirs[at].get_indexer(ours), np.intp)
    except (TypeError, ValueError):
        # Labels that cannot be compared, such as dates of two calendars.
        return np.full(len(ours), _NONE, np.intp)
    several = np.isin(positions, np.flatnonzero(theirs.duplicated(keep=False)[at]))
    return np.where(several, _SEVERAL, np.where(positions < 0, _NONE, np.append(at, -1)[positions]))


def _nearest_index(ours: NDArray[np.float64], theirs: NDArray[np.float64], near: float) -> NDArray[np.intp]:
    """Find the one label within a distance of each label."""
    order = np.argsort(theirs, kind="stable")
    first = np.searchsorted(theirs[order], ours - near, "left")
    count = np.searchsorted(theirs[order], ours + near, "right") - first
    # searchsorted gives the length for labels beyond the last, and the appended entry is for these.
    return np.where(count == 1, np.append(order, -1)[first], np.where(count == 0, _NONE, _SEVERAL))


def _are_whole(*indexes: pd.Index) -> bool:
    """Return whether all labels are whole numbers. They need no tolerance, and float64 may not hold them."""
    return all(isinstance(index.dtype, np.dtype) and index.dtype.kind in "iu" for index in indexes)


def _is_numeric(index: pd.Index) -> bool:
    return isinstance(index.dtype, np.dtype) and index.dtype.kind in "iuf"


def _same_order(ours: pd.Index, theirs: pd.Index) -> bool:
    """Return whether labels are the same in the same order, up to rounding."""
    if ours.equals(theirs):
        return True
    if len(ours) != len(theirs) or not _is_numeric(ours) or not _is_numeric(theirs) or _are_whole(ours, theirs):
        return False
    near = max(slack(ours.to_numpy()), slack(theirs.to_numpy()))
    return bool((np.abs(ours.to_numpy().astype(np.float64) - theirs.to_numpy().astype(np.float64)) <= near).all())
