"""Coastlines on maps of longitude and latitude, where cartopy and its data are installed. Nothing is downloaded."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from clustering.data.angles import DEGREES, EAST, NORTH, units_of
from clustering.data.coordinates import is_longitude
from clustering.data.plain_dataset import Labelled
from clustering.deferred import xr

Line = NDArray[np.float64]

COAST = "0.25"
_FILE = "shapefiles/natural_earth/physical/ne_{}_coastline.shp"
_SCALES = ("50m", "110m")
"""Scales of Natural Earth, the finest first that suits a map of a page."""


def is_map(array: Labelled) -> bool:
    """Return whether the last two dimensions are latitude and longitude in degrees, in this order.

    Parameters
    ----------
    array
        Array of two or more dimensions.
    """
    y, x = (str(d) for d in array.dims[-2:])
    if y not in array.coords or x not in array.coords:
        return False
    # Longitudes of a rotated pole are other longitudes, and those in radians have other numbers.
    true_east = is_longitude(array[x], x) and array[x].attrs.get("standard_name") != "grid_longitude"
    return true_east and units_of(array[x]) in (*EAST, *DEGREES, "") and _is_latitude(array[y], y)


def _is_latitude(coordinate: xr.DataArray, name: str) -> bool:
    if coordinate.attrs.get("standard_name"):
        return bool(coordinate.attrs["standard_name"] == "latitude")
    units = units_of(coordinate)
    return units in NORTH or (units in (*DEGREES, "") and name.lower() in ("lat", "latitude", "nav_lat", "lats"))


def add_coastlines(axes: Axes, lines: tuple[Line, ...] | None = None) -> None:
    """Draw coastlines behind the frame of a map, at the longitudes that it shows; its limits stay.

    Parameters
    ----------
    axes
        Axes over longitude and latitude in degrees.
    lines
        Coastlines ``(n, 2)`` each, as longitude in −180 … 180 and latitude; those of cartopy where None.
        Without cartopy, or before its data were downloaded once, there are none.
    """
    lines = _coastlines() if lines is None else lines
    if not lines:
        return
    (west, east), (low, high) = sorted(axes.get_xlim()), axes.get_ylim()
    # A map may begin at any meridian, so the coastlines are drawn in each turn that it reaches into.
    turns = np.arange(np.floor((west + 180) / 360), np.ceil((east - 180) / 360) + 1)
    shifted = [line + np.array([360 * turn, 0.0]) for turn in turns for line in lines]
    axes.add_collection(LineCollection(shifted, colors=COAST, linewidths=0.6, label="coastlines"), autolim=False)
    axes.set_xlim(west, east)
    axes.set_ylim(low, high)


@cache
def _coastlines() -> tuple[Line, ...]:
    """Read the coastlines of Natural Earth that cartopy has on this machine."""
    if find_spec("cartopy") is None:
        return ()
    import cartopy
    from cartopy.io import shapereader

    homes = [cartopy.config.get(key) for key in ("pre_existing_data_dir", "data_dir", "repo_data_dir")]
    for scale in _SCALES:
        for home in filter(None, homes):
            path = Path(home) / _FILE.format(scale)
            if path.is_file():
                return tuple(
                    np.asarray(part.coords)[:, :2]
                    for shape in shapereader.Reader(str(path)).geometries()
                    for part in getattr(shape, "geoms", [shape])
                )
    return ()
