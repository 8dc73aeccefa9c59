"""Units of coordinates in degrees and in radians, and the cosine of latitudes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.deferred import xr
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
"""Tolerance for rounding to float32 at the poles, in radians or degrees."""


def units_of(coordinate: xr.DataArray | xr.Variable) -> str:
    """Return the units of a coordinate in lower case with underscores, such as ``degrees_north``; empty without units.

    Parameters
    ----------
    coordinate
        Its units are among the attributes, or in the encoding, where xarray moves some of them.
    """
    units = coordinate.attrs.get("units", coordinate.encoding.get("units"))
    return "" if units is None else "_".join(str(units).lower().split())


def full_turn(units: str) -> float | None:
    """Return the length of a full turn in these units; None where they are no angle, or unknown.

    Parameters
    ----------
    units
        From `units_of`.
    """
    if units in RADIANS:
        return 2 * np.pi
    return 360.0 if units in (*EAST, *NORTH, *DEGREES) else None


def in_radian_range(values: NDArray[Any], largest: float) -> bool:
    """Return whether numbers may be radians, as their absolute values stay below a limit.

    Parameters
    ----------
    values
        Array of any shape; NaN are skipped.
    largest
        Largest angle in radians, such as π / 2 for latitudes.
    """
    return bool(np.nanmax(np.abs(np.asarray(values, np.float64)), initial=0.0) <= largest + _ROUNDING)


def cosine(values: NDArray[Any], coordinate: xr.Variable, name: str) -> NDArray[np.float64]:
    """Return the cosine of latitudes, in their shape.

    Parameters
    ----------
    values
        Latitudes of any shape, in the units of `coordinate`.
    coordinate
        Coordinate whose units are read: radians, or else degrees.
    name
        Name of the coordinate in messages.

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
    # At the poles the cosine of a rounded angle may be slightly negative, and weights may not.
    return np.asarray(np.maximum(np.cos(angles), 0.0))
