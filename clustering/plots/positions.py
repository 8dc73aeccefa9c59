"""Positions and names of the axes of a plot, from the coordinates of an array."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.coordinates import period, within_half_turn
from clustering.data.plain_dataset import Labelled


def axis_positions(array: Labelled, dim: str) -> NDArray[Any]:
    """Return positions for an axis: the coordinate of a dimension if it is monotonic without gaps, else 0 … n − 1.

    Longitudes are brought to one turn, and dates of other calendars to the same part of the same year.

    Parameters
    ----------
    array
        Array with the dimension.
    dim
        Name of the dimension.

    Returns
    -------
    ndarray
        Positions ``(n,)``.
    """
    positions = np.arange(array.sizes[dim])
    if dim not in array.coords:
        return positions
    values = np.asarray(array[dim].values)
    if values.dtype.kind == "O":
        values = _dates(values)
    if values.dtype.kind not in "iufM":
        return positions
    whole = period(array[dim], dim)
    if values.dtype.kind != "M" and whole is not None and np.isfinite(values).all():
        values = _one_turn(values.astype(np.float64), whole)
    # Falling unsigned numbers would wrap around in a difference, so numbers become floats first.
    steps = np.diff(values.astype(np.float64)) if values.dtype.kind != "M" else np.diff(values).astype(np.float64)
    has_gap = np.isnat(values) if values.dtype.kind == "M" else ~np.isfinite(values)
    return positions if has_gap.any() or not ((steps > 0).all() or (steps < 0).all()) else values


def _one_turn(longitudes: NDArray[np.float64], whole: float) -> NDArray[np.float64]:
    """Unwrap longitudes ``(n,)`` across the end of a turn, with their middle within half a turn of 0."""
    line = np.unwrap(longitudes, period=whole)
    if np.array_equal(line, longitudes):
        return longitudes
    middle = (line[0] + line[-1]) / 2 if line.size else 0.0
    return np.asarray(line + (float(within_half_turn(np.asarray(middle), whole)) - middle))


def _dates(values: NDArray[Any]) -> NDArray[Any]:
    """Convert dates of any calendar ``(n,)`` to numpy's, which can be drawn; return other values unchanged."""
    if not all(hasattr(value, "calendar") for value in values):
        return values
    dates = np.empty(len(values), "datetime64[s]")
    for i, value in enumerate(values):
        begin = value.replace(month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
        # The dates below are written with four digits of the year.
        if not 1 <= value.year <= 9998:
            return values
        # Years of 360 or 365 days are stretched to the length of a real one, which keeps the seasons in place.
        passed = (value - begin) / (begin.replace(year=value.year + 1) - begin)
        first, second = (np.datetime64(f"{year:04d}-01-01", "s") for year in (value.year, value.year + 1))
        dates[i] = first + np.timedelta64(round(passed * int((second - first).astype(np.int64))), "s")
    return dates


def named(array: Labelled, dim: str) -> str:
    """Return the name of a dimension with the units of its coordinate.

    Parameters
    ----------
    array
        Array with the dimension.
    dim
        Name of the dimension.
    """
    return dim if dim not in array.coords else with_units(dim, array[dim].attrs)


def with_units(name: str, attributes: Mapping[Any, Any]) -> str:
    """Return the name of a variable with its units.

    Parameters
    ----------
    name
        Name of the variable.
    attributes
        Attributes of the variable; ``units`` is read.
    """
    units = str(attributes.get("units", ""))
    return f"{name} ({units})" if units not in ("", "1") else name


def recentred(array: Labelled, dim: str) -> Any:
    """Put longitudes that go around the whole globe into the order −180 … 180; other arrays stay as they are.

    Parameters
    ----------
    array
        Array with the dimension.
    dim
        Name of the dimension.
    """
    if dim not in array.coords or array[dim].dtype.kind not in "iuf" or array.sizes[dim] < 3:
        return array
    whole, values = period(array[dim], dim), array[dim].values.astype(np.float64)
    if whole is None or not np.isfinite(values).all():
        return array
    steps = np.abs(np.diff(np.unwrap(values, period=whole)))
    # A map of the Pacific stays in one piece, as it does not go around.
    if abs(steps.sum() + np.median(steps) - whole) > 0.5 * np.median(steps):
        return array
    wrapped = (values + whole / 2) % whole - whole / 2
    order = np.argsort(wrapped, kind="stable")
    if np.array_equal(wrapped[order], values) or not (np.diff(wrapped[order]) > 0).all():
        return array
    return array.isel({dim: order}).assign_coords({dim: (dim, wrapped[order], array[dim].attrs)})
