"""Parts of xarray that are not public."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    import zarr


def lazy_zarr_data(array: zarr.Array[Any]) -> Any:
    """Wrap a stored array as lazy data of a variable.

    ``xarray.open_zarr`` opens whole groups, which fails for all arrays where one is damaged.

    Parameters
    ----------
    array
        A stored array.
    """
    from xarray.backends.zarr import ZarrArrayWrapper
    from xarray.core.indexing import LazilyIndexedArray

    return LazilyIndexedArray(ZarrArrayWrapper(array))  # type: ignore[no-untyped-call]


def lazy_data(variable: xr.Variable) -> Any:
    """Give the data of a variable without reading lazy ones; the public ``data`` reads them.

    Parameters
    ----------
    variable
        A variable, lazy or in memory.
    """
    return variable._data


def apply_lazily(data: Any, function: Callable[[Any], Any], dtype: np.dtype[Any]) -> Any:
    """Apply a function to data element by element, when they are read.

    ``xarray.apply_ufunc`` is lazy for dask arrays alone.

    Parameters
    ----------
    data
        Data of a variable, as `lazy_data` or `lazy_zarr_data` gives them.
    function
        Takes an array and returns one of the same shape.
    dtype
        Type of its result.
    """
    from xarray.coding.common import lazy_elemwise_func

    return lazy_elemwise_func(data, function, dtype)


def encode_fill_value(value: float, dtype: np.dtype[Any]) -> Any:
    """Encode a fill value as the attribute ``_FillValue`` of Zarr format 3, as xarray reads it.

    The form is a convention of xarray, which has no public function for it.

    Parameters
    ----------
    value
        The fill value.
    dtype
        Type of the stored numbers, in the byte order of this machine.
    """
    from xarray.backends.zarr import FillValueCoder

    return FillValueCoder.encode(value, dtype)
