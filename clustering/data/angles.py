"""Coordinates in degrees and in radians: what their units say, and the cosine of latitudes."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from clustering.errors import DataError

EAST = ("degrees_east", "degree_east", "degree_e", "degrees_e", "degreee", "degreese", "deg_e", "deg_east", "°e")
"""Units of longitudes alone (CF conventions, section 4.2), in lower case."""
NORTH = ("degrees_north", "degree_north", "degree_n", "degrees_n", "degreen", "degreesn", "deg_n", "deg_north", "°n")
"""Units of latitudes alone (section 4.1)."""
DEGREES = (
    "degrees", "degree", "deg", "°", "arc_degree", "arc_degrees", "arcdeg", "angular_degree", "degrees_true",
    "decimal_degrees", "decimal_degree",
)  # fmt: skip
RADIANS = ("radian", "radians", "rad")
QUARTER = np.pi / 2
"""A quarter of a turn, in radians: the latitude of a pole."""
_ROUNDING = 1e-4
"""Rounding of single precision at the poles, in radians or degrees, that is no fault."""


def units_of(coordinate: xr.DataArray | xr.Variable) -> str:
    """Read the units of a coordinate as ``degrees_north`` is written; empty where there are none.

    xarray moves some of them to the encoding.
    """
    units = coordinate.attrs.get("units", coordinate.encoding.get("units"))
    return "" if units is None else "_".join(str(units).lower().split())


def full_turn(units: str) -> float | None:
    """Give the length of a full turn in these units; None where they are no angle, or unknown."""
    if units in RADIANS:
        return 2 * np.pi
    return 360.0 if units in (*EAST, *NORTH, *DEGREES) else None


def in_radian_range(values: NDArray[Any], largest: float) -> bool:
    """Tell numbers that may be radians, of which none is beyond the largest."""
    return bool(np.nanmax(np.abs(np.asarray(values, np.float64)), initial=0.0) <= largest + _ROUNDING)


def cosine(values: NDArray[Any], coordinate: xr.Variable, name: str) -> NDArray[np.float64]:
    """Give the cosine of latitudes in the units of their coordinate, in their shape.

    Raises
    ------
    DataError
        For values beyond the poles.
    """
    radians = units_of(coordinate) in RADIANS
    angles = np.asarray(values, np.float64) if radians else np.deg2rad(np.asarray(values, np.float64))
    beyond = np.abs(angles) > QUARTER + _ROUNDING
    if beyond.any():
        value = np.asarray(values)[beyond].flat[0]
        raise DataError(
            f"{name!r} holds {value:g} {'radians' if radians else 'degrees'}, which is beyond the poles; "
            "name a latitude in degrees or radians, with units, or a variable of cell areas"
        )
    # At the poles the cosine of the rounded angle may fall a hair below zero.
    return np.asarray(np.maximum(np.cos(angles), 0.0))
