"""Selections by label or by position, turned into positions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from clustering.errors import SourceError, nearest

Positions = dict[Hashable, int | slice | list[int]]


def positions(dataset: xr.Dataset, select: Mapping[str, Any], isel: Mapping[str, Any]) -> Positions:
    """Turn `select` (by label) and `isel` (by position) into one selection by position.

    Parameters
    ----------
    dataset
        The opened, unselected data.
    select
        For each dimension a label, a list of labels, or ``{start, stop, step}`` with both ends included. Labels of a
        slice may be given in either order, whichever way the coordinate runs; dates may be strings.
    isel
        For each dimension a position, a list of positions, or ``{start, stop, step}`` with the stop excluded.

    Raises
    ------
    SourceError
        For an unknown dimension or label, a dimension without coordinate, or a selection that holds nothing.
    """
    chosen: Positions = {key: _labels(dataset, key, value) for key, value in select.items()}
    for key, value in isel.items():
        if key in chosen:
            raise SourceError(f"dimension {key!r} is in both 'select' and 'isel'; keep one of them")
        chosen[key] = _places(dataset, key, value)
    for dim, value in chosen.items():
        length = dataset.sizes[dim]
        empty = (
            len(value) == 0
            if isinstance(value, list)
            else (isinstance(value, slice) and len(range(*value.indices(length))) == 0)
        )
        if empty:
            raise SourceError(
                f"the selection along {dim!r} holds nothing; {_extent(dataset, str(dim))}; widen the selection"
            )
    return chosen


def _known(dataset: xr.Dataset, key: str, where: str) -> None:
    if key not in dataset.sizes:
        raise SourceError(f"unknown dimension {key!r} in '{where}'; {nearest(key, map(str, dataset.sizes))}")


def _slice(value: Mapping[str, Any], key: str) -> slice:
    unknown = set(value) - {"start", "stop", "step"}
    if unknown:
        raise SourceError(f"unknown key {min(unknown)!r} in the selection along {key!r}; allowed: start, stop, step")
    return slice(value.get("start"), value.get("stop"), value.get("step"))


def _labels(dataset: xr.Dataset, key: str, value: Any) -> int | slice | list[int]:
    _known(dataset, key, "select")
    index = dataset.indexes.get(key)
    if index is None:
        raise SourceError(f"dimension {key!r} has no coordinate to select by; use 'isel' with positions")
    try:
        if isinstance(value, Mapping):
            value = _slice(value, key)
        if isinstance(value, slice):
            start, stop = value.start, value.stop
            if start is not None and stop is not None and not isinstance(start, str):
                low, high = sorted((start, stop))
                start, stop = (high, low) if index.is_monotonic_decreasing and len(index) > 1 else (low, high)
            found = index.slice_indexer(start, stop, value.step)
            assert isinstance(found, slice)
            return found
        if isinstance(value, (list, tuple, np.ndarray)):
            wanted = pd.Index(value)
            if isinstance(index, pd.DatetimeIndex):
                wanted = pd.DatetimeIndex(wanted)
            places = index.get_indexer(wanted)
            if (places < 0).any():
                raise KeyError(wanted[int(np.argmin(places))])
            return [int(p) for p in places]
        place = index.get_loc(value)
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"label {value!r} is not on dimension {key!r}; {_extent(dataset, key)} ({type(error).__name__})"
        ) from error
    if isinstance(place, (int, np.integer)):
        return int(place)
    return place if isinstance(place, slice) else [int(p) for p in np.flatnonzero(place)]


def _places(dataset: xr.Dataset, key: str, value: Any) -> int | slice | list[int]:
    _known(dataset, key, "isel")
    length = dataset.sizes[key]
    if isinstance(value, Mapping):
        value = _slice(value, key)
    if isinstance(value, slice):
        if any(not isinstance(v, (int, type(None))) for v in (value.start, value.stop, value.step)):
            raise SourceError(f"positions along {key!r} are whole numbers; got {value!r}")
        if value.step is not None and value.step < 1:
            raise SourceError(f"the step along {key!r} is {value.step}; it must be 1 or more")
        return value
    places = value if isinstance(value, (list, tuple)) else [value]
    for place in places:
        if isinstance(place, bool) or not isinstance(place, (int, np.integer)) or not -length <= place < length:
            raise SourceError(f"position {place!r} is not on dimension {key!r} of length {length}")
    return [int(p) for p in places] if isinstance(value, (list, tuple)) else int(value)


def _extent(dataset: xr.Dataset, key: str) -> str:
    index = dataset.indexes.get(key)
    if index is None or len(index) == 0:
        return f"it has length {dataset.sizes[key]}"
    return f"it runs from {index[0]} to {index[-1]}"
