"""Conversion of selections by label or by position into positions."""

from __future__ import annotations

import datetime
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.data.angles import full_turn, in_radian_range, units_of
from clustering.data.coordinates import PART, TURN, Window, is_longitude, period, slack, window_index, within_half_turn
from clustering.data.dimension_names import unknown_dimension
from clustering.deferred import pd, xr
from clustering.errors import SourceError, nearest

Positions = dict[Hashable, int | slice | list[int]]
"""Dimension → a single position, a slice, or a list of positions."""


def positions(
    dataset: xr.Dataset, select: Mapping[str, Any], isel: Mapping[str, Any], box: Mapping[str, Window] | None = None
) -> Positions:
    """Turn `select` (by label) and `isel` (by position) into one selection by position.

    Parameters
    ----------
    dataset
        The opened, unselected data.
    select
        For each dimension a label, a list of labels, or ``{start, stop, step}`` with both ends included. Labels are in
        the units of the coordinate. A number within rounding of a label means that label. The ends of a slice may come
        in either order, whichever way the coordinate runs. Numbers and dates need not be sorted: a slice takes all
        labels between its ends. A slice of longitudes leads from the start eastward to the stop, and −10 and 350
        degrees are the same. Dates may be strings, or parts of dates, such as a year, which stand for all dates in
        them. ``{months: [12, 1, 2]}``, alone or with start, stop and step, takes dates in these months. A single label
        at a single position drops its dimension.
    isel
        For each dimension a position, a list of positions, or ``{start, stop, step}`` with the stop excluded.
    box
        Windows along the dimensions of a box on the map; see `clustering.data.coordinates.box`.

    Returns
    -------
    dict
        Dimension → its position, a slice where the selected positions are evenly spaced, or else a list.

    Raises
    ------
    SourceError
        For an unknown dimension or label, a dimension without coordinate, or an empty selection.
    """
    for key in box or {}:
        if key in select or key in isel:
            where = "select" if key in select else "isel"
            raise SourceError(f"dimension {key!r} is in both 'bbox' and '{where}'; keep one of them")
    chosen: Positions = {
        key: _positions_of_labels(dataset, key, value) for key, value in {**select, **(box or {})}.items()
    }
    for key, value in isel.items():
        if key in chosen:
            raise SourceError(f"dimension {key!r} is in both 'select' and 'isel'; keep one of them")
        chosen[key] = _positions_by_index(dataset, key, value)
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


def _check_dimension(dataset: xr.Dataset, key: str, where: str) -> None:
    if key not in dataset.sizes:
        raise unknown_dimension(key, where, dataset.sizes)


def _slice(value: Mapping[str, Any] | slice, key: str) -> slice:
    """Read ``{start, stop, step}`` as a slice."""
    if isinstance(value, Mapping):
        unknown = set(value) - {"start", "stop", "step"}
        if unknown:
            raise SourceError(
                f"unknown key {min(unknown)!r} in the selection along {key!r}; allowed: start, stop, step, "
                "and of dates by label months"
            )
        value = slice(value.get("start"), value.get("stop"), value.get("step"))
    if value.step is not None and (not _is_whole(value.step) or value.step < 1):
        raise SourceError(f"the step along {key!r} is {value.step!r}; it must be a whole number of 1 or more")
    return value


def _is_whole(value: Any) -> bool:
    """Tell whether a value is an integer. True and False are none here."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _positions_of_labels(dataset: xr.Dataset, key: str, value: Any) -> int | slice | list[int]:
    """Find the positions of one entry of `select`, or of a window of `box`."""
    _check_dimension(dataset, key, "select")
    index = dataset.indexes.get(key)
    if index is None:
        raise SourceError(f"dimension {key!r} has no coordinate to select by; use 'isel' with positions")
    whole = value.whole if isinstance(value, Window) else period(dataset[key], key)
    axis = _DimLabels(index, _within_turn(index, whole), slack(index.to_numpy()) if _numeric(index) else 0.0)
    if isinstance(value, Window):
        return _positions_between(axis, slice(value.start, value.stop))
    if isinstance(value, Mapping) and "months" in value:
        # First start, stop and step; months are chosen from what they leave.
        rest = {name: end for name, end in value.items() if name != "months"}
        return _in_months(index, key, _positions_of_labels(dataset, key, rest), value["months"])
    if isinstance(value, (Mapping, slice)):
        ends = _slice(value, key)
        if _numeric(index) and is_longitude(dataset[key], key):
            _check_window(dataset[key], key, axis, ends)
        if not (_sorted(index) or _numeric(index) or isinstance(index, _time_indexes())):
            raise SourceError(
                f"the labels of {key!r} are words and not sorted, so that no span of them is clear; "
                "give a list of them, or use 'isel' with positions"
            )
        try:
            return _positions_between(axis, ends)
        except _missing_label() as error:
            raise SourceError(
                f"label {[ends.start, ends.stop]!r} is not on dimension {key!r}; {_extent(dataset, key)}"
            ) from error
    several = isinstance(value, (list, tuple, np.ndarray))
    indices: list[int] = []
    for one in value if several else [value]:
        try:
            matches = _positions_of_label(axis, one)
        except _missing_label() as error:
            raise SourceError(
                f"label {one!r} is not on dimension {key!r}; {_closest(axis, one)}{_extent(dataset, key)}"
            ) from error
        indices += matches
    # A single label at a single position drops the dimension. Part of a date, such as a month, may be at several.
    return indices[0] if not several and len(indices) == 1 else _as_slice(indices)


def _time_indexes() -> tuple[type, ...]:
    return pd.DatetimeIndex, pd.TimedeltaIndex, xr.CFTimeIndex


def _missing_label() -> tuple[type[Exception], ...]:
    """List the errors of pandas and xarray for a label that an index does not hold."""
    return KeyError, TypeError, ValueError, pd.errors.InvalidIndexError


class _DimLabels(NamedTuple):
    """The labels of a dimension."""

    index: pd.Index
    whole: float | None
    """Length of a full turn of longitudes, in their units; None for labels that do not repeat."""
    near: float
    """Largest distance at which a number means a label."""

    def exact(self, label: Any) -> bool:
        """Tell whether a label must match exactly, as integers among integers do.

        Parameters
        ----------
        label
            Label that the user gave.
        """
        return self.whole is None and self.index.dtype.kind in "iu" and _is_whole(label)

    def closest(self, label: Any) -> tuple[int, float]:
        """Find the position of the nearest label, the first of equals, and its distance.

        Parameters
        ----------
        label
            A number that the user gave.
        """
        place, least = 0, np.inf
        # Parts keep the float64 copy of millions of labels out of memory.
        for start in range(0, len(self.index), PART):
            differences = self.index[start : start + PART].to_numpy().astype(np.float64) - float(label)
            distances = np.abs(differences if self.whole is None else within_half_turn(differences, self.whole))
            distances[np.isnan(distances)] = np.inf
            first = int(np.argmin(distances))
            if distances[first] < least:
                place, least = start + first, float(distances[first])
        return place, least


def _in_months(index: pd.Index, key: str, indices: Any, months: Any) -> slice | list[int]:
    """Keep those of some positions whose dates lie in some months of the year."""
    if not isinstance(index, (pd.DatetimeIndex, xr.CFTimeIndex)):
        raise SourceError(f"'months' is given for dimension {key!r}, whose labels are no dates; use start and stop")
    wanted = months if isinstance(months, (list, tuple)) else [months]
    if not wanted or not all(_is_whole(month) and 1 <= month <= 12 for month in wanted):
        raise SourceError(f"months along {key!r} are {months!r}; whole numbers from 1 to 12 are needed")
    chosen = np.arange(len(index))[indices]
    return _as_slice(chosen[np.isin(np.asarray(index.month)[chosen], wanted)])


def _numeric(index: pd.Index) -> bool:
    """Tell whether an index holds plain numbers."""
    return isinstance(index.dtype, np.dtype) and index.dtype.kind in "iuf" and len(index) > 0


def _within_turn(index: pd.Index, whole: float | None) -> float | None:
    """Give the length of a turn if all labels lie within one. Longer coordinates are treated as plain numbers."""
    if whole is None or not _numeric(index) or float(index.max()) - float(index.min()) > whole * (1 + 1e-6):
        return None
    return whole


def _check_window(coordinate: xr.DataArray, key: str, axis: _DimLabels, ends: slice) -> None:
    """Refuse a window of longitudes that has several meanings because units are missing or wrong.

    Raises
    ------
    SourceError
        Saying how to give the window or the units.
    """
    units = units_of(coordinate)
    labels, given = axis.index.to_numpy().astype(np.float64), [ends.start, ends.stop]
    numbers = [float(end) for end in given if isinstance(end, (int, float, np.number))]
    if units and full_turn(units) is None:
        raise SourceError(
            f"{key!r} is a longitude with the units {units!r}, which are neither degrees nor radians; correct them, "
            "or use 'isel' with positions"
        )
    if axis.whole is None or not numbers:
        return
    most = axis.whole * (1 + 1e-6)
    if axis.whole != TURN and max(*map(abs, numbers), numbers[-1] - numbers[0]) > most:
        raise SourceError(
            f"the window {given!r} along {key!r} is not in radians, the units of its labels, which run from "
            f"{labels.min():g} to {labels.max():g}; give it in radians, or a box in degrees by 'bbox'"
        )
    # Without units, small labels may be radians or a narrow strip in degrees. Both are tried.
    if not units and len(numbers) == 2 and in_radian_range(labels, 2 * np.pi):
        in_degrees, in_radians = (
            window_index(labels, numbers[0], numbers[1], axis.near, whole) for whole in (TURN, 2 * np.pi)
        )
        if not np.array_equal(in_degrees, in_radians):
            raise SourceError(
                f"{key!r} has no units, and the window {given!r} holds other labels in degrees than in radians; "
                "give the coordinate the attribute units (degrees_east or radian), or use 'isel'"
            )


def _sorted(index: pd.Index) -> bool:
    """Tell whether labels are sorted, upward or downward."""
    return bool(index.is_monotonic_increasing or index.is_monotonic_decreasing)


def _positions_between(axis: _DimLabels, ends: slice) -> slice | list[int]:
    """Find the positions between two labels, both included."""
    index, step = axis.index, ends.step
    first, last = (_label(index, end) for end in (ends.start, ends.stop))
    if axis.whole is not None:
        labels = index.to_numpy().astype(np.float64)
        return _as_slice(window_index(labels, first, last, axis.near, axis.whole)[::step])
    if _numeric(index):
        first, last = (_snapped(axis, end) for end in (first, last))
    if not _sorted(index) and (first is not None or last is not None):
        # Labels are sorted for the search, and the positions found are brought back to the order of the data.
        present = np.flatnonzero(~index.isna())
        order = present[index[present].argsort()]
        start, stop = _span(index[order], first, last)
        return _as_slice(np.sort(order[start:stop])[::step])
    # A descending coordinate is searched in reverse, since part of a date stands for its first moment as the start of
    # a slice, and for its last moment as the stop.
    falls = index.is_monotonic_decreasing and len(index) > 1
    start, stop = _span(index[::-1] if falls else index, first, last)
    if falls:
        start, stop = len(index) - stop, len(index) - start
    return slice(start, stop, None if step is None else int(step))


def _span(rising: pd.Index, first: Any, last: Any) -> tuple[int, int]:
    """Find start and stop of the positions between two labels in a rising index."""
    start, stop, _ = rising.slice_indexer(first, last).indices(len(rising))
    # The ends may be given in either order: an empty slice is tried with its ends swapped.
    if start >= stop and first is not None and last is not None:
        start, stop, _ = rising.slice_indexer(last, first).indices(len(rising))
    return int(start), int(stop)


def _snapped(axis: _DimLabels, end: Any) -> Any:
    """Replace the end of a slice by a label that it differs from by rounding only."""
    if end is None or axis.exact(end):
        return end
    place, distance = axis.closest(end)
    return axis.index[place] if distance <= axis.near else end


def _positions_of_label(axis: _DimLabels, value: Any) -> list[int]:
    """Find the positions of a label. Part of a date, or a repeated label, has several."""
    label = _label(axis.index, value)
    # pandas remembers that an index is sorted and then searches it. Otherwise it would build a table of all labels.
    _sorted(axis.index)
    try:
        location = axis.index.get_loc(label)
    except KeyError:
        if not _numeric(axis.index) or axis.exact(label):
            raise
        closest, distance = axis.closest(label)
        if not distance <= axis.near:
            raise
        location = axis.index == axis.index[closest]
    if isinstance(location, slice):
        indices = list(range(*location.indices(len(axis.index))))
    elif isinstance(location, np.ndarray):
        indices = [int(p) for p in (np.flatnonzero(location) if location.dtype == bool else location)]
    else:
        indices = [int(location)]
    if not indices:
        raise KeyError(value)
    return indices


def _label(index: pd.Index, value: Any) -> Any:
    """Convert a label to the type of the index. YAML turns dates into date objects and years into numbers."""
    if isinstance(index, (pd.DatetimeIndex, xr.CFTimeIndex)):
        if _is_whole(value) and 1000 <= value <= 9999:
            return str(value)
        if isinstance(value, (datetime.date, np.datetime64)):
            # A date stands for the whole day, as its text does. A date with a time stands for that moment.
            if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
                return value.isoformat()
            moment = pd.Timestamp(value)
            return moment if isinstance(index, pd.DatetimeIndex) else moment.isoformat()
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if value is not None and pd.api.types.is_numeric_dtype(index) and not number:
        # pandas would accept some of these, such as True for 1.
        raise TypeError(value)
    return value


def _closest(axis: _DimLabels, value: Any) -> str:
    """Suggest the label closest to an unknown one, for a message."""
    if _numeric(axis.index) and isinstance(value, (int, float, np.number)) and np.isfinite(value):
        return f"the nearest is {axis.index[axis.closest(value)[0]]}; "
    if isinstance(value, str) and len(axis.index) and isinstance(axis.index[0], str):
        return f"{nearest(value, axis.index[:_LISTED])}; "
    return ""


_LISTED = 50
"""Number of text labels that are searched for a suggestion."""


def _as_slice(indices: NDArray[np.intp] | list[int]) -> slice | list[int]:
    """Turn evenly spaced positions into a slice, which is read faster than a list."""
    indices = np.asarray(indices, np.intp)
    steps = np.diff(indices)
    step = int(steps[0]) if steps.size else 1
    if not indices.size or step < 1 or (steps != step).any():
        listed: list[int] = indices.tolist()
        return listed
    return slice(int(indices[0]), int(indices[-1]) + 1, None if step == 1 else step)


def _positions_by_index(dataset: xr.Dataset, key: str, value: Any) -> int | slice | list[int]:
    """Check the positions of one entry of `isel`."""
    _check_dimension(dataset, key, "isel")
    length = dataset.sizes[key]
    if isinstance(value, (Mapping, slice)):
        ends = _slice(value, key)
        for end in (ends.start, ends.stop):
            if end is not None and not _is_whole(end):
                raise SourceError(f"positions along {key!r} are whole numbers; got {end!r}")
        return slice(*(None if part is None else int(part) for part in (ends.start, ends.stop, ends.step)))
    several = isinstance(value, (list, tuple, np.ndarray))
    indices = list(value) if several else [value]
    for index in indices:
        if not _is_whole(index) or not -length <= index < length:
            raise SourceError(f"position {index!r} is not on dimension {key!r} of length {length}")
    return _as_slice([int(p) % length for p in indices]) if several else int(value)


def _extent(dataset: xr.Dataset, key: str) -> str:
    """Describe the labels of a dimension, for a message."""
    index = dataset.indexes.get(key)
    if index is None or len(index) == 0:
        return f"it has length {dataset.sizes[key]}"
    return f"it runs from {index[0]} to {index[-1]}"
