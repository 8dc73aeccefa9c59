"""The arrays of params: under the names that they have on disk, and as views that nobody can write to."""

from __future__ import annotations

from dataclasses import fields
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from clustering.models.model import Params

Array = NDArray[np.float64]
P = TypeVar("P", bound=Params)

_ON_DISK = {"origin": "shift", "total_scatter": "spread", "feature_variance": "spread"}
"""Names of arrays on disk where they differ from the fields, so that every version opens the outputs of all others."""


def params_to_arrays(params: Params) -> dict[str, Array]:
    """Give the arrays of params by their names on disk; empty arrays are left out.

    Parameters
    ----------
    params
        Params of any model.
    """
    arrays = {_ON_DISK.get(name, name): np.asarray(getattr(params, name)) for name in params.dims}
    return {name: array for name, array in arrays.items() if array.size}


def array_dims(params: Params) -> dict[str, tuple[str, ...]]:
    """Give the names of the dimensions of each array of `params_to_arrays`.

    Parameters
    ----------
    params
        Params of any model.
    """
    return {_ON_DISK.get(name, name): dims for name, dims in params.dims.items()}


def read_only(params: P) -> P:
    """Copy params with views of the same arrays that cannot be written to.

    Parameters
    ----------
    params
        Params of any model.
    """
    # The constructor is not called, because it may copy or check the arrays again.
    changed = object.__new__(type(params))
    for field in fields(params):
        value = getattr(params, field.name)
        if isinstance(value, np.ndarray):
            # A view has a flag of its own, so the arrays of the caller stay writable.
            value = value.view()
            value.flags.writeable = False
        object.__setattr__(changed, field.name, value)
    return changed
