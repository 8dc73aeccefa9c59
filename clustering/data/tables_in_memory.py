"""Lists of rows and data frames as arrays; and results as series and data frames with the index of the rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from clustering.data.opening import BARE
from clustering.deferred import pd, xr
from clustering.errors import SourceError

_ROW, _COLUMN = "row", "column"
"""Dimensions of a data frame."""


def is_frame(data: Any) -> bool:
    """Return whether data are a data frame in memory, of pandas or polars.

    Parameters
    ----------
    data
        Data as a user gave them.
    """
    # The packages are asked by name, because loading one takes longer than a fit.
    return type(data).__name__ == "DataFrame" and type(data).__module__.partition(".")[0] in ("pandas", "polars")


def from_table(data: Any) -> Any:
    """Turn a list of rows into an ndarray, and a data frame into an array with the names of its columns.

    Parameters
    ----------
    data
        Data as a user gave them. Other types are returned as they are.

    Raises
    ------
    SourceError
        If rows differ in length, or a column holds no numbers.
    """
    if isinstance(data, (list, tuple)):
        return _from_rows(data)
    if not is_frame(data):
        return data
    columns = [_numbers(name, data[name]) for name in data.columns if list(data.columns).count(name) == 1]
    if len(columns) != len(data.columns):
        twice = next(name for name in data.columns if list(data.columns).count(name) > 1)
        raise SourceError(f"the data frame has the column {str(twice)!r} twice; rename one of the two")
    if not columns:
        raise SourceError("the data frame has no columns; give columns of numbers")
    # Whole numbers that count features would be taken for positions, so names are always text.
    names = [str(name) for name in data.columns]
    return xr.DataArray(np.stack(columns, axis=1), {_COLUMN: names}, (_ROW, _COLUMN), name=BARE)


def _from_rows(rows: Any) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(rows)
    except ValueError:
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        raise SourceError(
            f"cannot cluster a {type(rows).__name__} that is no list of rows of numbers of equal length, (n, d); give "
            "such a list or an array"
        )
    return array


def _numbers(name: Any, column: Any) -> np.ndarray[Any, Any]:
    """Return the values of a column; missing values of the types of pandas and polars that have some become NaN."""
    values = np.asarray(column.to_numpy())
    if values.dtype.kind == "O" and type(column).__module__.startswith("pandas"):
        masked = pd.api.types.is_extension_array_dtype(column.dtype) and pd.api.types.is_numeric_dtype(column.dtype)
        values = column.to_numpy(dtype=np.float64, na_value=np.nan) if masked else values
    if values.dtype.kind not in "biuf":
        raise SourceError(
            f"column {str(name)!r} of the data frame has type {column.dtype}; only numbers can be clustered: leave it "
            "out, or give it as numbers"
        )
    return values


def like_table(data: Any, result: xr.DataArray) -> Any:
    """Give a result the form of the data frame that it belongs to.

    Parameters
    ----------
    data
        Data as a user gave them.
    result
        A result for each row ``(row,)``, or for each row and cluster.

    Returns
    -------
    pandas.Series, pandas.DataFrame, ndarray or xarray.DataArray
        With the index of a data frame of pandas; an ndarray for one of polars; the result itself for other data.
    """
    if not is_frame(data):
        return result
    if type(data).__module__.startswith("polars"):
        return result.values
    if result.ndim == 1:
        return pd.Series(result.values, data.index, name=result.name)
    return pd.DataFrame(result.values, data.index, columns=pd.Index(result[result.dims[1]].values, name=result.dims[1]))
