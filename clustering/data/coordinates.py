"""Which coordinates are longitudes and latitudes, and which places a window or a box of them holds."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from clustering.errors import SourceError

Array = NDArray[np.float64]

TURN = 360.0
"""Degrees after which longitudes begin anew."""
_DEGREES = ("degrees", "degree", "deg")


class _Axis(NamedTuple):
    """What tells the coordinates of one direction on the map."""

    word: str
    """Standard name, and found in long names."""
    units: tuple[str, ...]
    """Units that only it has (CF conventions, sections 4.1 and 4.2), in lower case."""
    names: tuple[str, ...]
    letter: str
    """CF axis; in lower case, the name of the coordinate of a projection."""


_EAST = _Axis(
    "longitude",
    ("degrees_east", "degree_east", "degree_e", "degrees_e", "degreee", "degreese"),
    ("lon", "longitude", "nav_lon", "lons"),
    "X",
)
_NORTH = _Axis(
    "latitude",
    ("degrees_north", "degree_north", "degree_n", "degrees_n", "degreen", "degreesn"),
    ("lat", "latitude", "nav_lat", "lats"),
    "Y",
)


def is_longitude(coordinate: xr.DataArray | xr.Variable, name: Hashable) -> bool:
    """Tell whether a coordinate counts degrees around the globe, or around a rotated one, by CF or by its name."""
    return _is(_EAST, coordinate, name) or _told(coordinate)["standard_name"] == "grid_longitude"


def _told(coordinate: xr.DataArray | xr.Variable) -> dict[str, str]:
    keys = ("standard_name", "units", "axis", "long_name")
    return {key: str(coordinate.attrs.get(key, "")).strip().lower() for key in keys}


def _is(axis: _Axis, coordinate: xr.DataArray | xr.Variable, name: Hashable) -> bool:
    told = _told(coordinate)
    if coordinate.dtype.kind not in "iuf":
        return False
    if told["standard_name"]:
        return told["standard_name"] == axis.word
    if told["units"] in axis.units:
        return True
    if told["units"] in _DEGREES and told["axis"] == axis.letter.lower():
        return True
    return told["units"] in (*_DEGREES, "") and (axis.word in told["long_name"] or str(name).lower() in axis.names)


def _is_projected(axis: _Axis, coordinate: xr.DataArray | xr.Variable, name: Hashable) -> bool:
    told = _told(coordinate)
    if coordinate.dtype.kind not in "iuf":
        return False
    if told["standard_name"]:
        return told["standard_name"] in (f"projection_{axis.letter.lower()}_coordinate", f"grid_{axis.word}")
    return axis.letter.lower() in (told["axis"], str(name).lower())


def slack(labels: NDArray[Any]) -> float:
    """Distance from a label up to which a number means it: rounding, and a millionth of the least spacing."""
    numbers = np.unique(labels[np.isfinite(labels)].astype(np.float64))
    largest = float(np.abs(numbers).max(initial=0.0))
    gap = float(np.diff(numbers).min()) if numbers.size > 1 else largest or 1.0
    rounding = 4.0 * float(np.spacing(labels.dtype.type(largest))) if labels.dtype.kind == "f" else 0.0
    return min(max(1e-6 * gap, rounding), 0.25 * gap)


def turned(differences: Array) -> Array:
    """Bring differences of longitudes to −180 … 180."""
    return (differences + TURN / 2) % TURN - TURN / 2


def window(labels: Array, start: float | None, stop: float | None, near: float) -> NDArray[np.intp]:
    """Find the longitudes from `start` eastward to `stop`, both included, whatever turn either is given in.

    Parameters
    ----------
    labels
        Longitudes ``(n,)`` in degrees, within one turn.
    start, stop
        In degrees; None: the end of the coordinate. From 20 to −10 leads nearly around the globe, as in the boxes of
        GeoJSON (RFC 7946, section 5.2). A turn or more holds everything.
    near
        Distance in degrees up to which two longitudes are the same.

    Returns
    -------
    ndarray
        Positions ``(m,)`` in the direction in which the labels are stored, in one piece on the globe. A meridian that
        is stored at both ends of the turn is taken once, unless everything is.
    """
    start, stop = (None if end is None or np.isinf(end) else end for end in (start, stop))
    everything = np.arange(len(labels))
    steps = np.diff(labels)
    line = labels if (steps > 0).all() or (steps < 0).all() else np.unwrap(labels, period=TURN)
    if start is None or stop is None:
        middle = (line.min() + line.max()) / 2
        first, last = (
            end if given is None else middle + float(turned(np.asarray(given - middle)))
            for given, end in ((start, -np.inf), (stop, np.inf))
        )
        return everything[(line >= first - near) & (line <= last + near)]
    if stop - start >= TURN - near:
        return everything
    width = (stop - start) % TURN
    width = 0.0 if TURN - width <= near else width
    offsets = (labels - start) % TURN
    offsets[TURN - offsets <= near] = 0.0
    inside = np.flatnonzero(offsets <= width + near)
    inside = inside[np.argsort(offsets[inside], kind="stable")]
    once = _once(labels[inside] - offsets[inside], offsets[inside], near)
    steps = np.diff(line)
    if (steps > 0).all():
        return inside[once]
    return inside[once][::-1] if (steps < 0).all() else np.sort(inside[once])


def _once(turns: Array, offsets: Array, near: float) -> NDArray[np.intp]:
    """Keep one of each sorted offset ``(m,)``: the one in the turn that holds the most."""
    _, turn, counts = np.unique(np.round(turns), return_inverse=True, return_counts=True)
    group = np.cumsum(np.diff(offsets, prepend=-TURN) > near)
    order = np.lexsort((-counts[turn], group))
    _, first = np.unique(group[order], return_index=True)
    return order[first]


def box(dataset: xr.Dataset, variables: Sequence[str], bounds: Sequence[float]) -> dict[str, dict[str, float]]:
    """Turn a box on the map into a selection by label.

    Parameters
    ----------
    variables
        Those whose dimensions are looked at.
    bounds
        ``[west, south, east, north]``, in degrees; along coordinates of a projection, in their units.

    Returns
    -------
    dict
        ``{dim: {"start": …, "stop": …}}`` of the two dimensions.

    Raises
    ------
    SourceError
        If these are not four numbers, their order is wrong, or no pair of one-dimensional coordinates is found.
    """
    numbers = list(bounds) if isinstance(bounds, (list, tuple, np.ndarray)) else []
    real = [isinstance(b, (int, float, np.number)) and not isinstance(b, bool) and np.isfinite(b) for b in numbers]
    if len(real) != 4 or not all(real):
        raise SourceError(f"bbox is {bounds!r}; four numbers are needed: [west, south, east, north]")
    west, south, east, north = (float(b) for b in numbers)
    if south > north:
        raise SourceError(f"bbox {numbers} has its south {south:g} above its north {north:g}; swap the two")
    dims = [str(d) for d in dict.fromkeys(d for name in variables for d in dataset[name].dims)]
    x, y = _along(dataset, dims, _EAST), _along(dataset, dims, _NORTH)
    if not is_longitude(dataset[x], x) and west > east:
        raise SourceError(
            f"bbox {numbers} has its west {west:g} beyond its east {east:g}, and {x!r} counts no longitudes, "
            "which begin anew; swap the two"
        )
    return {x: {"start": west, "stop": east}, y: {"start": south, "stop": north}}


def _along(dataset: xr.Dataset, dims: Sequence[str], axis: _Axis) -> str:
    """Find the dimension of the variables that runs along an axis of the map."""
    indexed = [d for d in dims if d in dataset.indexes]
    found = [d for d in indexed if _is(axis, dataset[d], d)]
    bent = [str(n) for n, v in dataset.variables.items() if n not in dataset.sizes and _is(axis, v, n) and v.ndim > 0]
    bent = [name for name in bent if set(dataset[name].dims) <= set(dims)]
    if not found and bent:
        over = ", ".join(map(str, dataset[bent[0]].dims))
        raise SourceError(
            f"bbox needs a {axis.word} along a dimension of its own, and {bent[0]!r} runs over ({over}); "
            f"choose along {over} with 'isel', or by label with 'select'"
        )
    found = found or [d for d in indexed if _is_projected(axis, dataset[d], d)]
    if not found:
        raise SourceError(
            f"bbox finds no {axis.word} among the coordinates {', '.join(indexed) or 'none'}; give the coordinate the "
            f"standard_name {axis.word}, or use 'select' or 'isel'"
        )
    if len(found) > 1:
        raise SourceError(f"bbox finds several coordinates of {axis.word}: {', '.join(found)}; use 'select' instead")
    return found[0]
