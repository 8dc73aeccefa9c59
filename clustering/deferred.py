"""Loading of modules without delay, and of xarray, pandas, zarr and asyncio when they are first used.

Together with the packages that xarray loads to recognize their arrays, these take longer than fitting a small array,
and a fit of plain arrays needs none of them.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Type checkers and editors find the packages themselves here.
    import asyncio

    import pandas as pd
    import xarray as xr
    import zarr
    import zarr.abc.buffer
    import zarr.abc.store
    import zarr.buffer
    import zarr.codecs
    import zarr.errors
    import zarr.storage

__all__ = ["asyncio", "load_module", "pd", "without_collections", "xr", "zarr"]


@contextmanager
def without_collections() -> Iterator[None]:
    """Pause the garbage collector, for work that makes much that stays."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def load_module(name: str) -> ModuleType:
    """Import a module while the garbage collector pauses.

    What modules make as they load stays, and looking through it again and again takes a fifth of the time.

    Parameters
    ----------
    name
        Full name of the module.
    """
    with without_collections():
        return import_module(name)


class _Deferred:
    """The names of a package, which is loaded when one of them is first used."""

    def __init__(self, package: str, after: str | None = None) -> None:
        self._package, self._after = package, after

    def __getattr__(self, name: str) -> Any:
        package = load_module(self._package)
        if self._after is not None:
            load_module(self._after)
        # Not every package loads all of its modules with itself.
        value = getattr(package, name) if hasattr(package, name) else load_module(f"{self._package}.{name}")
        # The next use finds the name without this function.
        setattr(self, name, value)
        return value


if not TYPE_CHECKING:
    asyncio, pd, zarr = _Deferred("asyncio"), _Deferred("pandas"), _Deferred("zarr")
    # The accessor exists wherever this library has loaded xarray.
    xr = _Deferred("xarray", after="clustering.xarray")
