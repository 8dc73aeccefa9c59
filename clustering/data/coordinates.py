"""Longitudes and latitudes: how they are recognized, and which positions a window or a box selects."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.data.angles import DEGREES, EAST, NORTH, QUARTER, RADIANS, full_turn, in_radian_range, units_of
from clustering.data.attributes import PACKING, number_of
from clustering.deferred import xr
from clustering.errors import SourceError

Array = NDArray[np.float64]

TURN = 360.0
"""Period of longitudes in degrees."""
PART = 2**18
"""Number of labels that are read at once, as there may be millions."""
_SMALL = 64 * 2**20
"""Coordinates up to this size, in bytes, are read whole to find their unit."""
_THINNED = 16
"""Number of positions along each dimension at which larger coordinates are read."""


class _MapAxis(NamedTuple):
    """Marks by which the coordinates of one direction on the map are recognized."""

    word: str
    """CF standard name; long names contain it."""
    units: tuple[str, ...]
    """Units of this direction alone."""
    names: tuple[str, ...]
    letter: str
    """CF axis; in lower case the usual name of a coordinate of a projection."""
    radians: float
    """Largest absolute value in radians."""


_EAST = _MapAxis(
    "longitude",
    EAST,
    ("lon", "longitude", "nav_lon", "lons"),
    "X",
    2 * np.pi,
)
_NORTH = _MapAxis(
    "latitude",
    NORTH,
    ("lat", "latitude", "nav_lat", "lats"),
    "Y",
    np.pi / 2,
)


class Window(NamedTuple):
    """Interval of labels along a dimension, both ends included, in the units of the labels."""

    start: float
    stop: float
    whole: float | None
    """Period of longitudes; None for other labels."""


def is_longitude(coordinate: xr.DataArray | xr.Variable, name: Hashable) -> bool:
    """Return whether a coordinate is a longitude, also of a rotated pole, by its CF attributes or its name.

    Parameters
    ----------
    coordinate
        Coordinate with its attributes.
    name
        Its name in the dataset.
    """
    return _is(_EAST, coordinate, name) or _cf_attributes(coordinate)["standard_name"] == "grid_longitude"


def is_latitude(coordinate: xr.DataArray | xr.Variable, name: Hashable) -> bool:
    """Return whether a coordinate is a latitude, by its CF attributes or its name.

    Parameters
    ----------
    coordinate
        Coordinate with its attributes.
    name
        Its name in the dataset.
    """
    return _is(_NORTH, coordinate, name)


def period(coordinate: xr.DataArray | xr.Variable, name: Hashable) -> float | None:
    """Return the period of a longitude in its units, or in degrees where it has none; None for other coordinates.

    Parameters
    ----------
    coordinate
        Coordinate with its attributes.
    name
        Its name in the dataset.
    """
    if not is_longitude(coordinate, name):
        return None
    units = units_of(coordinate)
    return full_turn(units) if units else TURN


def _cf_attributes(coordinate: xr.DataArray | xr.Variable) -> dict[str, str]:
    keys = ("standard_name", "axis", "long_name")
    attributes = {key: str(coordinate.attrs.get(key, "")).strip().lower() for key in keys}
    return {**attributes, "units": units_of(coordinate)}


def _is(axis: _MapAxis, coordinate: xr.DataArray | xr.Variable, name: Hashable) -> bool:
    attributes = _cf_attributes(coordinate)
    if coordinate.dtype.kind not in "iuf":
        return False
    # A standard name is decisive. The others are guesses, the surest first.
    if attributes["standard_name"]:
        return attributes["standard_name"] == axis.word
    if attributes["units"] in axis.units:
        return True
    # Axis X alone may as well be a projected coordinate in metres, so the unit has to be an angle.
    if attributes["units"] in DEGREES and attributes["axis"] == axis.letter.lower():
        return True
    angles = (*DEGREES, *RADIANS, "")
    return attributes["units"] in angles and (axis.word in attributes["long_name"] or str(name).lower() in axis.names)


def _is_projected(axis: _MapAxis, coordinate: xr.DataArray | xr.Variable, name: Hashable) -> bool:
    attributes = _cf_attributes(coordinate)
    if coordinate.dtype.kind not in "iuf":
        return False
    if attributes["standard_name"]:
        return attributes["standard_name"] in (f"projection_{axis.letter.lower()}_coordinate", f"grid_{axis.word}")
    return axis.letter.lower() in (attributes["axis"], str(name).lower())


def check_latitude(coordinate: xr.Variable, name: str, formula: str) -> None:
    """Refuse a coordinate whose cosine is no weight for the area of a cell.

    Parameters
    ----------
    coordinate
        Whole coordinate, before the selection. Without units, its values are read, of a large one only some; they are
        in degrees where they are too large for radians.
    name
        Its name, for the message.
    formula
        Weights as the user wrote them, such as ``cos(lat)``, for the message.

    Raises
    ------
    SourceError
        For units that are no angle, longitudes, coordinates of a projection, and numbers that may be in degrees or
        in radians.
    """
    check_unpacked(coordinate, name)
    units, standard = units_of(coordinate), _cf_attributes(coordinate)["standard_name"]
    subject = f"{formula}: {name!r}"
    remedy = "name a latitude in degrees or radians, or a variable of cell areas"
    if coordinate.dtype.kind not in "iuf":
        raise SourceError(f"{subject} has type {coordinate.dtype}; {remedy}")
    if standard.startswith("projection_"):
        raise SourceError(f"{subject} is a {standard}, and no latitude; {remedy}")
    if is_longitude(coordinate, name):
        raise SourceError(f"{subject} is a longitude, and areas go by the latitude; {remedy}")
    if full_turn(units) is not None:
        return
    if units:
        raise SourceError(
            f"{subject} has the units {coordinate.attrs.get('units', units)!r}, which are neither degrees nor radians; "
            f"{remedy}"
        )
    if in_radian_range(_thinned(coordinate).values, QUARTER):
        raise SourceError(
            f"{subject} has no units, and its values may be degrees or radians; give it the attribute units "
            "(degrees_north or radian)"
        )


def check_unpacked(coordinate: xr.Variable, name: str) -> None:
    """Refuse the labels of a dataset in memory that are still packed, as their numbers are not in their units.

    Parameters
    ----------
    coordinate
        Coordinate; packing in its attributes was not applied, while applied packing is in the encoding.
    name
        Its name, for the message.

    Raises
    ------
    SourceError
        If the coordinate is packed; the message says how to unpack it.
    """
    for key, nothing in zip(PACKING, (1.0, 0.0), strict=True):
        if key in coordinate.attrs and number_of(coordinate.attrs[key]) != nothing:
            raise SourceError(
                f"the coordinate {name!r} is packed: its attributes hold {key} {coordinate.attrs[key]}; unpack it with "
                "xarray.decode_cf, or open the data with mask_and_scale=True"
            )


def _thinned(coordinate: xr.Variable) -> xr.Variable:
    """Take values of a large coordinate at equal distances; all values of a small one."""
    if coordinate.nbytes <= _SMALL:
        return coordinate
    indexers = {d: np.unique(np.linspace(0, n - 1, _THINNED).astype(np.intp)) for d, n in coordinate.sizes.items()}
    return coordinate.isel(indexers)


def slack(labels: NDArray[Any]) -> float:
    """Return the largest distance between a number and the label that it means, for rounding.

    Parameters
    ----------
    labels
        Labels ``(n,)`` of numbers.

    Returns
    -------
    float
        A millionth of the smallest spacing, or a few units in the last place where these are more.
    """
    if labels.dtype.kind in "iu":
        # The spacing of whole numbers is at least 1. As floats, those beyond 2⁵³ would coincide.
        return 1e-6
    largest, gap = _extremes(labels)
    # A single label has no spacing; its size is the scale then.
    gap = gap or largest or 1.0
    rounding = 4.0 * float(np.spacing(labels.dtype.type(largest))) if labels.dtype.kind == "f" else 0.0
    return min(max(1e-6 * gap, rounding), 0.25 * gap)


def _extremes(labels: NDArray[Any]) -> tuple[float, float]:
    """Return the largest absolute value of finite labels, and their smallest spacing; 0 where all are equal."""
    gap, signs = math.inf, set[float]()
    for start in range(0, len(labels) - 1, PART):
        # Parts overlap by one label, so that no step between two parts is lost.
        steps = np.diff(labels[start : start + PART + 1].astype(np.float64))
        gap = min(gap, float(np.abs(steps[steps != 0.0]).min(initial=math.inf)))
        signs |= {*np.unique(np.sign(steps)).tolist()}
        if not (signs <= {0.0, 1.0} or signs <= {0.0, -1.0}):
            break
    else:
        if len(labels) and np.isfinite(labels[[0, -1]]).all():
            # Sorted labels need no sorted copy of all of them, which may be millions.
            return max(abs(float(labels[0])), abs(float(labels[-1]))), gap if math.isfinite(gap) else 0.0
    numbers = np.unique(labels[np.isfinite(labels)].astype(np.float64))
    return float(np.abs(numbers).max(initial=0.0)), float(np.diff(numbers).min()) if numbers.size > 1 else 0.0


def within_half_turn(differences: Array, whole: float = TURN) -> Array:
    """Wrap differences of longitudes to half a turn at most, such as −180 to 180 degrees.

    Parameters
    ----------
    differences
        Array of any shape, in the unit of `whole`.
    whole
        Length of a turn.

    Returns
    -------
    ndarray
        In the shape of `differences`.
    """
    return (differences + whole / 2) % whole - whole / 2


def window_index(
    labels: Array, start: float | None, stop: float | None, near: float, whole: float = TURN
) -> NDArray[np.intp]:
    """Find the longitudes from `start` eastward to `stop`, both included, up to whole turns.

    Parameters
    ----------
    labels
        Longitudes ``(n,)`` within one turn, in any order.
    start, stop
        Ends in the units of `labels`; None for an end of the coordinate. The window from 20 to −10 degrees goes nearly
        around the globe, as in the boxes of GeoJSON (RFC 7946, section 5.2). A turn or more selects everything.
    near
        Distance up to which two longitudes are the same, from `slack`.
    whole
        Length of a turn, in the units of `labels`.

    Returns
    -------
    ndarray
        Positions ``(m,)`` in the direction of the labels, so that the window is one piece on the globe; ascending
        where the labels are not sorted. A meridian that is stored at both ends of the turn is taken once, unless
        everything is selected.
    """
    start, stop = (None if end is None or np.isinf(end) else end for end in (start, stop))
    everything = np.arange(len(labels))
    line = labels
    # Labels such as 0 … 180, −180 … −1 increase once the jump by a turn is undone.
    if not _runs(labels):
        unrolled = np.unwrap(labels, period=whole)
        line = unrolled if _runs(unrolled) else labels
    if start is None or stop is None:
        # With one end open, the other is taken in the turn that is nearest to the middle of the labels.
        middle = (np.nanmin(line) + np.nanmax(line)) / 2
        first, last = (
            end if given is None else middle + float(within_half_turn(np.asarray(given - middle), whole))
            for given, end in ((start, -np.inf), (stop, np.inf))
        )
        return everything[(line >= first - near) & (line <= last + near)]
    if stop - start >= whole - near:
        return everything
    width = (stop - start) % whole
    # Rounding may turn a width of 0 into nearly a turn; the same goes for the offset of the first label.
    width = 0.0 if whole - width <= near else width
    offsets = (labels - start) % whole
    offsets[whole - offsets <= near] = 0.0
    inside = np.flatnonzero(offsets <= width + near)
    # Ordered by the distance from its start, a window across a seam of the labels is one piece.
    inside = inside[np.argsort(offsets[inside], kind="stable")]
    inside = inside[_once(labels[inside] - offsets[inside], offsets[inside], near, whole)]
    steps = np.diff(line)
    if (steps > 0).all():
        return inside
    return inside[::-1] if (steps < 0).all() else np.sort(inside)


def _runs(labels: Array) -> bool:
    """Return whether labels are sorted, ascending or descending."""
    steps = np.diff(labels)
    return bool((steps >= 0).all() or (steps <= 0).all())


def _once(starts: Array, offsets: Array, near: float, whole: float) -> NDArray[np.intp]:
    """Keep one of several labels at the same sorted offset ``(m,)``: that in the turn with most labels.

    Parameters
    ----------
    starts
        Start of the turn of each label ``(m,)``.
    """
    # Starts of the same turn differ by rounding.
    _, turns, counts = np.unique(np.round(starts / whole, 6), return_inverse=True, return_counts=True)
    group = np.cumsum(np.diff(offsets, prepend=-whole) > near) - 1
    order = np.lexsort((-counts[turns], group))
    _, first = np.unique(group[order], return_index=True)
    kept = turns[order[first]]
    return np.flatnonzero(turns == kept[group]) if len(group) else group


def box(
    dataset: xr.Dataset, variables: Sequence[str], bounds: Sequence[float], unusable: Mapping[str, str] | None = None
) -> dict[str, Window]:
    """Turn a box on the map into a window along each of two dimensions.

    Parameters
    ----------
    dataset
        Dataset with labels along its dimensions.
    variables
        Variables to cluster; the box is along two of their dimensions.
    bounds
        ``[west, south, east, north]``, in degrees, also where the coordinates are in radians; along coordinates of a
        projection, in their units.
    unusable
        Reasons why other coordinates cannot be used, by name, for the message.

    Returns
    -------
    dict
        The windows by dimension, in the units of the coordinates.

    Raises
    ------
    SourceError
        If the bounds are not four numbers or in a wrong order, if the variables have no pair of one-dimensional
        coordinates for the box, or if the units of these are no angle.
    """
    numbers = list(bounds) if isinstance(bounds, (list, tuple, np.ndarray)) else []
    real = [isinstance(b, (int, float, np.number)) and not isinstance(b, bool) and np.isfinite(b) for b in numbers]
    if len(real) != 4 or not all(real):
        raise SourceError(f"bbox is {bounds!r}; four numbers are needed: [west, south, east, north]")
    west, south, east, north = (float(b) for b in numbers)
    if south > north:
        raise SourceError(f"bbox {numbers} has its south {south:g} above its north {north:g}; swap the two")
    dims = [str(d) for d in dict.fromkeys(d for name in variables for d in dataset[name].dims)]
    x, y = (_along(dataset, dims, axis, unusable or {}) for axis in (_EAST, _NORTH))
    for name in (x, y):
        check_unpacked(dataset[name].variable, name)
    # A box across a meridian has its west beyond its east, which only longitudes allow.
    around = is_longitude(dataset[x], x)
    if not around and west > east:
        raise SourceError(
            f"bbox {numbers} has its west {west:g} beyond its east {east:g}, which only longitudes allow, and {x!r} "
            "holds none; swap the two"
        )
    radians = _in_radians(dataset, {n: axis for n, axis in ((x, _EAST), (y, _NORTH)) if _is(axis, dataset[n], n)})
    whole = period(dataset[x], x)
    if x in radians:
        west, east, whole = math.radians(west), math.radians(east), 2 * math.pi
    if y in radians:
        south, north = math.radians(south), math.radians(north)
    return {x: Window(west, east, whole), y: Window(south, north, None)}


def _in_radians(dataset: xr.Dataset, axes: Mapping[str, _MapAxis]) -> set[str]:
    """Return the longitudes and latitudes that are in radians; the others are in degrees.

    A coordinate without units has the unit of the other. Where neither has units, they are in degrees if one of them
    has numbers too large for radians.

    Raises
    ------
    SourceError
        For units that are no angle, and for numbers that may be in degrees or in radians.
    """
    units = {name: units_of(dataset[name]) for name in axes}
    for name, text in units.items():
        if text and full_turn(text) is None:
            raise SourceError(
                f"bbox is in degrees, and {name!r} has the units {text!r}, which are neither degrees nor radians; "
                "correct them, or use 'select' in the units of its labels"
            )
    silent = [name for name in axes if not units[name]]
    given = {name for name in axes if units[name] in RADIANS}
    if not silent or len(silent) < len(axes):
        return set(axes) if given and silent else given
    if all(in_radian_range(dataset[name].values, axes[name].radians) for name in silent):
        raise SourceError(
            f"bbox is in degrees, and {' and '.join(map(repr, silent))} without units may be in degrees or radians; "
            "give the coordinates the attribute units (degrees_east and degrees_north, or radian)"
        )
    return set()


def _along(dataset: xr.Dataset, dims: Sequence[str], axis: _MapAxis, unusable: Mapping[str, str]) -> str:
    """Find the dimension of the variables along an axis of the map."""
    indexed = [d for d in dims if d in dataset.indexes]
    matching = [d for d in indexed if _is(axis, dataset[d], d)]
    # Curvilinear grids have coordinates over two dimensions, for which a box is no window along each of them.
    bent = [str(n) for n, v in dataset.variables.items() if n not in dataset.sizes and _is(axis, v, n) and v.ndim > 0]
    bent = [name for name in bent if set(dataset[name].dims) <= set(dims)]
    if not matching and bent:
        over = ", ".join(map(str, dataset[bent[0]].dims))
        raise SourceError(
            f"bbox needs a {axis.word} along a dimension of its own, and {bent[0]!r} runs over ({over}); "
            f"choose along {over} with 'isel', or by label with 'select'"
        )
    matching = matching or [d for d in indexed if _is_projected(axis, dataset[d], d)]
    if not matching:
        for name, why in unusable.items():
            if name in dims or name.lower() in axis.names:
                raise SourceError(
                    f"bbox finds no {axis.word}: the coordinate {name!r} cannot be used: {why}; choose by position "
                    "with 'isel'"
                )
        raise SourceError(
            f"bbox finds no {axis.word} among the coordinates {', '.join(indexed) or 'none'}; give the coordinate the "
            f"standard_name {axis.word}, or use 'select' or 'isel'"
        )
    if len(matching) > 1:
        raise SourceError(f"bbox finds several coordinates of {axis.word}: {', '.join(matching)}; use 'select' instead")
    return matching[0]
