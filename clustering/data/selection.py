"""Selections by label or by position, turned into positions."""

from __future__ import annotations

import datetime
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


def _slice(value: Mapping[str, Any] | slice, key: str) -> slice:
    if isinstance(value, Mapping):
        unknown = set(value) - {"start", "stop", "step"}
        if unknown:
            raise SourceError(
                f"unknown key {min(unknown)!r} in the selection along {key!r}; allowed: start, stop, step"
            )
        value = slice(value.get("start"), value.get("stop"), value.get("step"))
    if value.step is not None and (not _is_whole(value.step) or value.step < 1):
        raise SourceError(f"the step along {key!r} is {value.step!r}; it must be a whole number of 1 or more")
    return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _labels(dataset: xr.Dataset, key: str, value: Any) -> int | slice | list[int]:
    _known(dataset, key, "select")
    index = dataset.indexes.get(key)
    if index is None:
        raise SourceError(f"dimension {key!r} has no coordinate to select by; use 'isel' with positions")
    if isinstance(value, (Mapping, slice)):
        value = _slice(value, key)
    try:
        place = _find(index, value)
    except (KeyError, TypeError, ValueError, pd.errors.InvalidIndexError) as error:
        wanted = [value.start, value.stop] if isinstance(value, slice) else value
        raise SourceError(f"label {wanted!r} is not on dimension {key!r}; {_extent(dataset, key)}") from error
    if isinstance(place, np.ndarray):
        return [int(p) for p in (np.flatnonzero(place) if place.dtype == bool else place)]
    return place if isinstance(place, slice) else int(place)


def _find(index: pd.Index, value: Any) -> Any:
    """Find the place of one label, the places of several, or the slice between two, both included."""
    if isinstance(value, slice):
        ends = [_label(index, end) for end in (value.start, value.stop)]
        if index.is_monotonic_decreasing and len(index) > 1:
            ends.reverse()
        found = index.slice_indexer(*ends, value.step)
        # Labels may be given in either order; a slice that holds nothing is looked for the other way round.
        if None not in ends and len(range(*found.indices(len(index)))) == 0:
            found = index.slice_indexer(*reversed(ends), value.step)
        return found
    if isinstance(value, (list, tuple, np.ndarray)):
        places = index.get_indexer(pd.Index([_label(index, v) for v in value]).astype(index.dtype))
        if (places < 0).any():
            raise KeyError(value)
        return places
    return index.get_loc(_label(index, value))


def _label(index: pd.Index, value: Any) -> Any:
    """Read a label as the index has them: YAML makes dates of what looks like one."""
    if isinstance(index, pd.DatetimeIndex) and isinstance(value, datetime.date):
        # A date names a whole day, as its text does; a time of day names itself.
        return pd.Timestamp(value) if isinstance(value, datetime.datetime) else value.isoformat()
    if value is not None and pd.api.types.is_numeric_dtype(index) and not isinstance(value, (int, float, np.number)):
        raise TypeError(value)
    return value


def _places(dataset: xr.Dataset, key: str, value: Any) -> int | slice | list[int]:
    _known(dataset, key, "isel")
    length = dataset.sizes[key]
    if isinstance(value, (Mapping, slice)):
        ends = _slice(value, key)
        for end in (ends.start, ends.stop):
            if end is not None and not _is_whole(end):
                raise SourceError(f"positions along {key!r} are whole numbers; got {end!r}")
        return slice(*(None if part is None else int(part) for part in (ends.start, ends.stop, ends.step)))
    several = isinstance(value, (list, tuple, np.ndarray))
    places = list(value) if several else [value]
    for place in places:
        if not _is_whole(place) or not -length <= place < length:
            raise SourceError(f"position {place!r} is not on dimension {key!r} of length {length}")
    return [int(p) for p in places] if several else int(value)


def _extent(dataset: xr.Dataset, key: str) -> str:
    index = dataset.indexes.get(key)
    if index is None or len(index) == 0:
        return f"it has length {dataset.sizes[key]}"
    return f"it runs from {index[0]} to {index[-1]}"
