"""Arrays that a user holds: masked cells are missing, lengths are known, and names and labels say what lies where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from clustering.data.coordinates import period, slack
from clustering.errors import SourceError


def is_dask(data: Any) -> bool:
    """Tell a dask array from other things that dask computes."""
    if not hasattr(data, "__dask_graph__"):
        return False
    import dask.array

    return isinstance(data, dask.array.Array)


def to_plain(data: Any, missing: float = np.nan) -> Any:
    """Give an array of known lengths and without masked cells, which become `missing`.

    Lengths that a dask array does not know, as after a selection by its values, are computed, which runs its graph.
    """
    if isinstance(data, np.ma.MaskedArray):
        return fill_masked(data, missing) if np.ma.is_masked(data) else np.asarray(data)
    if not is_dask(data):
        return data
    if not all(length == length for length in data.shape):
        # Computing them changes the array.
        data = data.copy()
        data.compute_chunk_sizes()
    if isinstance(data._meta, np.ma.MaskedArray):
        dtype = _with_missing(data.dtype)
        data = data.map_blocks(fill_masked, missing, dtype=dtype, meta=np.empty((0,) * data.ndim, dtype))
    return data


def fill_masked(data: Any, missing: float = np.nan) -> NDArray[Any]:
    """Turn masked cells into a number; whole numbers and truth values become floats."""
    return np.ma.filled(np.ma.asarray(data).astype(_with_missing(data.dtype)), missing)


def _with_missing(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Give the type that holds the numbers of another and NaN."""
    return np.result_type(dtype, np.float32) if dtype.kind in "biu" else dtype


def to_plain_dataset(dataset: xr.Dataset) -> xr.Dataset:
    """Make the lazy variables of a dataset plain; see `to_plain`."""
    lazy = {name: variable for name, variable in dataset.variables.items() if variable.chunks is not None}
    arrays = {name: to_plain(variable.data) for name, variable in lazy.items()}
    changed = {
        name: xr.Variable(variable.dims, arrays[name], variable.attrs, variable.encoding)
        for name, variable in lazy.items()
        if arrays[name] is not variable.data
    }
    if not changed:
        return dataset
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
        What it is for.
    values
        With names of dimensions (an xarray or pandas object): they are matched by name,
        and by label where both have labels, in any order; it may have further labels, and lack dimensions. Without
        names (an ndarray, a list, a dask array): by position, in the shape of the samples. Masked cells of a mask are
        not used, of weights count 0, of labels are unknown.
    dims
        Sample dimensions.
    bare
        Whether the data name no dimensions; then the only dimension of an array is taken for the samples.

    Raises
    ------
    SourceError
        If names, labels or the shape do not fit.
    """
    array = as_named(values, where, dims[0] if len(dims) == 1 else None)
    if array is not None and bare and array.ndim == len(dims) == 1:
        # Rows without names and labels have but their position.
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
    """Bring an array that names its dimensions to the labels of the data along those of `dims` that it has.

    Parameters
    ----------
    kind
        Which dimensions of the data these are: ``sample`` or ``feature``.

    Raises
    ------
    SourceError
        For other dimensions than `dims`, or none; for labels that the array lacks or has twice; for another length.
    """
    for d in [d for d in array.dims if d not in dims]:
        if d in data.coords and data.coords[d].ndim == 0 and d in array.indexes:
            # One place of the data was selected along it.
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
    """Give an array with names of dimensions; None for one without.

    Parameters
    ----------
    only
        What an index of pandas without a name counts, where that is clear.

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
    """Turn a pandas object into an array whose dimensions are named as its index is."""
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
        # Types of pandas hold a missing value of their own.
        numbers = np.where(pd.isna(numbers), np.nan, numbers)
        numbers = numbers.astype(np.float64) if all(np.isreal(one) for one in numbers.flat) else numbers
    if len(names) == len(axes):
        return xr.DataArray(numbers, dict(zip(names, axes, strict=True)), names)
    if isinstance(values, pd.DataFrame) or not values.index.is_unique:
        raise SourceError(f"'{where}' has an index that makes no grid; give an array, or one entry for each cell")
    return xr.DataArray.from_series(pd.Series(numbers, values.index))


_ARRAY = "_array"
"""Name of an array while it is looked at."""


def _period(data: xr.Dataset, d: Any) -> float | None:
    """Give after what the labels of a dimension begin anew."""
    return period(data[d], d) if d in data.coords else None


def on_labels(called: str, data: xr.Dataset, d: str, theirs: pd.Index) -> NDArray[np.intp] | None:
    """Find the place of each label of the data along a dimension among other labels; None where they are the same.

    Parameters
    ----------
    called
        How a message names what has these other labels.

    Raises
    ------
    SourceError
        For labels of the data that are not among them, or there several times.
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
"""Places of a label that is not there, and of one that is there several times."""


def _label_index(ours: pd.Index, theirs: pd.Index, whole: float | None) -> NDArray[np.intp]:
    """Find the place of each label among others; up to rounding, and up to whole turns, where they begin anew."""
    if _is_numeric(ours) and _is_numeric(theirs) and not (whole is None and _are_whole(ours, theirs)):
        near = max(slack(ours.to_numpy()), slack(theirs.to_numpy()))
        a, b = (index.to_numpy().astype(np.float64) for index in (ours, theirs))
        positions = _nearest_index(a, b, near)
        if whole is not None and (positions == _NONE).any():
            positions = _nearest_index((a + near) % whole, (b + near) % whole, near)
        return positions
    at = np.flatnonzero(~theirs.duplicated())
    try:
        positions = np.asarray(theirs[at].get_indexer(ours), np.intp)
    except (TypeError, ValueError):
        # Labels of another kind, such as dates of another calendar.
        return np.full(len(ours), _NONE, np.intp)
    several = np.isin(positions, np.flatnonzero(theirs.duplicated(keep=False)[at]))
    return np.where(several, _SEVERAL, np.where(positions < 0, _NONE, np.append(at, -1)[positions]))


def _nearest_index(ours: NDArray[np.float64], theirs: NDArray[np.float64], near: float) -> NDArray[np.intp]:
    order = np.argsort(theirs, kind="stable")
    first = np.searchsorted(theirs[order], ours - near, "left")
    count = np.searchsorted(theirs[order], ours + near, "right") - first
    return np.where(count == 1, np.append(order, -1)[first], np.where(count == 0, _NONE, _SEVERAL))


def _are_whole(*indexes: pd.Index) -> bool:
    """Tell whole numbers, which nothing rounds and floats may not hold."""
    return all(isinstance(index.dtype, np.dtype) and index.dtype.kind in "iu" for index in indexes)


def _is_numeric(index: pd.Index) -> bool:
    return isinstance(index.dtype, np.dtype) and index.dtype.kind in "iuf"


def _same_order(ours: pd.Index, theirs: pd.Index) -> bool:
    """Tell whether labels are the same in the same order, up to rounding."""
    if ours.equals(theirs):
        return True
    if len(ours) != len(theirs) or not _is_numeric(ours) or not _is_numeric(theirs) or _are_whole(ours, theirs):
        return False
    near = max(slack(ours.to_numpy()), slack(theirs.to_numpy()))
    return bool((np.abs(ours.to_numpy().astype(np.float64) - theirs.to_numpy().astype(np.float64)) <= near).all())
