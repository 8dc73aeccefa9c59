"""xarray, pandas and zarr, which are loaded when they are first used.

Together with the packages that xarray loads to recognize their arrays, they take longer than fitting a small array, and
a fit of plain arrays needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Type checkers and editors find the packages themselves here.
    import pandas as pd
    import xarray as xr
    import zarr
    import zarr.abc.buffer
    import zarr.abc.store
    import zarr.buffer
    import zarr.codecs
    import zarr.errors
    import zarr.storage
else:

    class _Deferred:
        """The names of a package, which is loaded when one of them is first used."""

        def __init__(self, package: str) -> None:
            self._package = package

        def __getattr__(self, name: str) -> Any:
            package = import_module(self._package)
            # Not every package loads all of its modules with itself.
            value = getattr(package, name) if hasattr(package, name) else import_module(f"{self._package}.{name}")
            # The next use finds the name without this function.
            setattr(self, name, value)
            return value

    pd, xr, zarr = _Deferred("pandas"), _Deferred("xarray"), _Deferred("zarr")

__all__ = ["pd", "xr", "zarr"]
