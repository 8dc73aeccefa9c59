"""Coordinates in degrees and in radians: what their units say, and the cosine of latitudes."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from clustering.errors import DataError, SourceError

EAST = ("degrees_east", "degree_east", "degree_e", "degrees_e", "degreee", "degreese")
"""Units of longitudes alone (CF conventions, section 4.2), in lower case."""
NORTH = ("degrees_north", "degree_north", "degree_n", "degrees_n", "degreen", "degreesn")
"""Units of latitudes alone (section 4.1)."""
DEGREES = ("degrees", "degree", "deg", "°", "arc_degree", "arc_degrees", "arcdeg", "angular_degree", "degrees_true")
RADIANS = ("radian", "radians", "rad")
_QUARTER = np.pi / 2
_HAIR = 1e-4
"""Rounding of single precision at the poles, in radians or degrees, that is no fault."""


def units_of(coordinate: xr.DataArray | xr.Variable) -> str:
    """Read the units of a coordinate in lower case, wherever xarray keeps them; empty where there are none."""
    found = coordinate.attrs.get("units", coordinate.encoding.get("units"))
    return "" if found is None else str(found).strip().lower()


def turn(units: str) -> float | None:
    """Give the length of a full turn in these units; None where they are no angle, or unknown."""
    if units in RADIANS:
        return 2 * np.pi
    return 360.0 if units in (*EAST, *NORTH, *DEGREES) else None


def in_radian_range(values: NDArray[Any], largest: float) -> bool:
    """Tell numbers that may be radians, of which none is beyond the largest."""
    return bool(np.nanmax(np.abs(np.asarray(values, np.float64)), initial=0.0) <= largest + _HAIR)


def check_angles(coordinate: xr.Variable, name: str, formula: str) -> None:
    """Refuse a coordinate whose cosine is not the area of a cell.

    Parameters
    ----------
    coordinate
        Whole, before the selection: where it has no units, its values are read, and tell degrees by being too large
        for radians.
    formula
        In which it stands, for the message.

    Raises
    ------
    SourceError
        For units that are no angle, longitudes, coordinates of a projection, and numbers that may be either.
    """
    units, standard = units_of(coordinate), str(coordinate.attrs.get("standard_name", "")).strip().lower()
    told = f"{formula}: {name!r}"
    remedy = "name a latitude in degrees or radians, or a variable of cell areas"
    if coordinate.dtype.kind not in "iuf":
        raise SourceError(f"{told} has type {coordinate.dtype}; {remedy}")
    if standard.startswith("projection_"):
        raise SourceError(f"{told} is a {standard}, and no latitude; {remedy}")
    if units in EAST or standard in ("longitude", "grid_longitude"):
        raise SourceError(f"{told} is a longitude, and areas go by the latitude; {remedy}")
    if turn(units) is not None:
        return
    if units:
        raise SourceError(
            f"{told} has the units {coordinate.attrs.get('units', units)!r}, which are neither degrees nor radians; "
            f"{remedy}"
        )
    if in_radian_range(coordinate.values, _QUARTER):
        raise SourceError(
            f"{told} has no units, and its values may be degrees or radians; give it the attribute units "
            "(degrees_north or radian)"
        )


def cosine(values: NDArray[Any], coordinate: xr.Variable, name: str) -> NDArray[np.float64]:
    """Give the cosine of latitudes in the units of their coordinate, in their shape.

    Raises
    ------
    DataError
        For values beyond the poles.
    """
    radians = units_of(coordinate) in RADIANS
    angles = np.asarray(values, np.float64) if radians else np.deg2rad(np.asarray(values, np.float64))
    beyond = np.abs(angles) > _QUARTER + _HAIR
    if beyond.any():
        value = np.asarray(values)[beyond].flat[0]
        raise DataError(
            f"{name!r} holds {value:g} {'radians' if radians else 'degrees'}, which is beyond the poles; "
            "name a latitude in degrees or radians, with units, or a variable of cell areas"
        )
    # At the poles the cosine of the rounded angle may fall a hair below zero.
    return np.asarray(np.maximum(np.cos(angles), 0.0))
