"""Made-up fields with planted clusters, in the layouts that people have: ocean profiles and weather regimes.

Each store holds the truth beside the data (``truth``, −1 where there is none). Values depend on the size alone, not on
the chunks; they are drawn and written slab by slab.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Ocean

PROFILES = 6
"""Classes of profiles."""
OCEAN = {"ci": (12, 20, 45, 90), "nightly": (120, 50, 180, 360)}
"""Lengths of time, depth, lat and lon."""
OCEAN_CHUNKS = {"ci": ((6, 20, 23, 45), (12, 5, 15, 30)), "nightly": ((12, 50, 90, 90), (120, 10, 30, 30))}
"""Whole profiles in a chunk, or profiles cut into pieces."""
PACKING = {"temp": ("degC", 0.001, 15.0), "salt": ("psu", 0.0005, 30.0)}
"""Units, scale_factor and add_offset of each variable."""
NOTHING = -32768
"""Stored value of cells on land and below the sea floor."""
DEEPEST = 2000.0
"""The greatest depth, in metres."""
# Columns: surface and deep temperature, depth of the thermocline, surface salinity, and its gain with depth.
_CLASSES = np.array([
    [28.0, 4.0, 120.0, 35.0, -0.4],
    [23.0, 5.0, 250.0, 36.6, -1.4],
    [16.0, 5.0, 400.0, 35.6, -0.8],
    [9.0, 3.5, 500.0, 34.6, 0.1],
    [2.0, 1.0, 200.0, 33.8, 0.9],
    [26.0, 6.0, 60.0, 32.5, 2.4],
])  # fmt: skip


def depths(n: int) -> Array:
    """Depths ``(n,)`` in metres, closer to each other near the surface."""
    return np.round(DEEPEST * (np.arange(1, n + 1) / n) ** 2, 2)


def profiles(depth: Array) -> dict[str, Array]:
    """Mean profiles of each class ``(classes, depth)``, by variable."""
    surface, deep, thermocline, salt, gain = (column[:, None] for column in _CLASSES.T)
    fall = np.exp(-depth / thermocline)
    return {"temp": deep + (surface - deep) * fall, "salt": salt + gain * (1.0 - fall)}


def ocean(destination: str | Path, size: str = "ci", *, by_depth: bool = False) -> None:
    """Write packed temperature and salinity of classes of profiles, with land and shelf.

    Parameters
    ----------
    size
        ``ci`` or ``nightly``.
    by_depth
        Cut the profiles into several chunks.
    """
    lengths = n_time, n_depth, n_lat, n_lon = OCEAN[size]
    chunks = OCEAN_CHUNKS[size][by_depth]
    depth = depths(n_depth)
    lat, lon = np.linspace(-88.0, 88.0, n_lat), np.arange(n_lon) * 360.0 / n_lon
    time = np.datetime64("2010-01-16", "ns") + np.arange(n_time) * np.timedelta64(30, "D")
    floor = _sea_floor(lat, lon)
    coordinates = xr.Dataset(
        coords={
            "time": ("time", time, {"standard_name": "time", "axis": "T"}),
            "depth": ("depth", depth, {"units": "m", "positive": "down", "standard_name": "depth", "axis": "Z"}),
            "lat": ("lat", lat, {"units": "degrees_north", "standard_name": "latitude"}),
            "lon": ("lon", lon, {"units": "degrees_east", "standard_name": "longitude"}),
        },
        attrs={"title": "made-up ocean profiles of planted classes", "Conventions": "CF-1.10"},
    )
    group = _create_group(destination, coordinates)
    dims = ("time", "depth", "lat", "lon")
    arrays = {
        name: group.create_array(
            name, shape=lengths, chunks=chunks, dtype="i2", fill_value=NOTHING, dimension_names=dims,
            attributes={"units": unit, "scale_factor": scale, "add_offset": offset, "_FillValue": NOTHING},
        )
        for name, (unit, scale, offset) in PACKING.items()
    }  # fmt: skip
    truth = group.create_array(
        "truth", shape=(n_time, n_lat, n_lon), chunks=(chunks[0], *chunks[2:]), dtype="i1", fill_value=-1,
        dimension_names=("time", "lat", "lon"),
    )  # fmt: skip
    means = profiles(depth)
    modes = _modes(depth)
    dry = depth[:, None, None] > floor

    def slab(moment: int) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        rng = np.random.default_rng([1, moment])
        classes = _ocean_classes(lat, lon, moment / n_time)
        # Each class strays along the modes in its own way, and salinity in part with temperature: covariances are full.
        size = 0.4 + 0.12 * ((classes + np.arange(3)[:, None, None]) % 4)
        first, second = rng.standard_normal((2, 3, n_lat, n_lon))
        sign = np.where(classes % 2, 1.0, -1.0)
        strength = {"temp": size * first, "salt": size * (0.6 * sign * first + 0.8 * second)}
        variables = {}
        for name, (_, scale, offset) in PACKING.items():
            spread = {"temp": 2.4, "salt": 0.5}[name]
            values = np.moveaxis(means[name][classes], -1, 0) + spread * np.einsum("mz,myx->zyx", modes, strength[name])
            values += 0.05 * spread * rng.standard_normal(values.shape)
            packed = np.rint((values - offset) / scale).astype(np.int16)
            variables[name] = np.where(dry, np.int16(NOTHING), packed)
        return np.where(floor > 0.0, classes, -1).astype(np.int8), variables

    for start in range(0, n_time, chunks[0]):
        made = [slab(moment) for moment in range(start, min(n_time, start + chunks[0]))]
        part = slice(start, start + len(made))
        truth[part] = np.stack([classes for classes, _ in made])
        for name, array in arrays.items():
            array[part] = np.stack([values[name] for _, values in made])


def _modes(depth: Array) -> Array:
    """Shapes along which profiles stray ``(3, depth)``."""
    below = depth / DEEPEST
    return np.stack([np.exp(-6 * below), np.sin(np.pi * np.sqrt(below)), np.cos(2 * np.pi * np.sqrt(below))])


def _sea_floor(lat: Array, lon: Array) -> Array:
    """Depth of the sea floor ``(lat, lon)`` in metres: 0 on land, a few hundred on the shelf."""
    y, x = np.deg2rad(lat)[:, None], np.deg2rad(lon)
    height = np.sin(2 * x + 1.0) * np.cos(1.5 * y) + 0.6 * np.sin(3 * x - 2 * y) + 0.3 * np.cos(5 * y)
    return np.round(np.clip(2500.0 * (0.7 - height), 0.0, 5000.0))


def _ocean_classes(lat: Array, lon: Array, phase: float) -> NDArray[np.int64]:
    """Class of each place ``(lat, lon)``: belts that meander and move with the seasons, and a river's plume."""
    y, x = np.abs(lat)[:, None], np.deg2rad(lon)
    belt = y + 6.0 * np.sin(3 * x + 0.05 * lat[:, None]) + 5.0 * np.sin(2 * np.pi * phase)
    classes = np.digitize(belt, [18.0, 33.0, 48.0, 62.0])
    plume = np.hypot(lat[:, None] - 8.0, (lon - 210.0) / 2.0) < 24.0
    return np.where(plume, 5, classes)


# Weather

REGIMES = 4
WEATHER = {"ci": (1460, 16, 72, 200), "nightly": (14600, 61, 360, 2000)}
"""Lengths of time, lat and lon, and the days before them that were never written."""
STAY = 0.85
"""Chance that a regime lasts another day."""


def patterns(lat: Array, lon: Array) -> Array:
    """Planted departures of each regime ``(regimes, lat, lon)``, in metres."""
    y, x = np.deg2rad(lat)[:, None], np.deg2rad((lon + 180.0) % 360.0 - 180.0)
    arch = np.sin(np.pi * np.clip((np.rad2deg(y) - 20.0) / 60.0, 0.0, 1.0))
    waves = [
        np.cos(3 * x + 1.0) * arch,
        np.sin(3 * x + 1.0) * arch,
        np.cos(6 * (y - 0.9)) * np.cos(x + 0.4),
        np.sin(6 * (y - 0.9)) * np.cos(2 * x + 0.4),
    ]
    return np.stack([90.0 * wave for wave in waves])


def weather(destination: str | Path, size: str = "ci") -> None:
    """Write daily maps of geopotential height, less the mean of the day of the year, one day a chunk.

    The first days of the axis were never written, longitudes are 0 … 360 and latitudes fall. Outside 90 W … 30 E the
    weather has more noise, and does not depend on the regimes.

    Parameters
    ----------
    size
        ``ci`` or ``nightly``.
    """
    n_time, n_lat, n_lon, before = WEATHER[size]
    lat, lon = np.linspace(80.0, 20.0, n_lat), np.arange(n_lon) * 360.0 / n_lon
    time = np.datetime64("2001-01-01", "ns") + np.arange(-before, n_time) * np.timedelta64(1, "D")
    coordinates = xr.Dataset(
        coords={
            "time": ("time", time, {"standard_name": "time", "axis": "T"}),
            "lat": ("lat", lat, {"units": "degrees_north", "standard_name": "latitude"}),
            "lon": ("lon", lon, {"units": "degrees_east", "standard_name": "longitude"}),
        },
        attrs={"title": "made-up weather of planted regimes", "Conventions": "CF-1.10"},
    )
    group = _create_group(destination, coordinates)
    about = {"units": "m", "long_name": "geopotential height at 500 hPa, less the mean of the day of the year"}
    array = group.create_array(
        "z500", shape=(before + n_time, n_lat, n_lon), chunks=(1, n_lat, n_lon), dtype="f4", fill_value=np.nan,
        dimension_names=("time", "lat", "lon"), attributes=about,
    )  # fmt: skip
    regimes = chain(n_time)
    group.create_array(
        "truth", data=np.concatenate([np.full(before, -1), regimes]).astype(np.int8), dimension_names=("time",)
    )
    planted = patterns(lat, lon)
    outside = (lon > 30.0) & (lon < 270.0)
    y, x = np.deg2rad(lat)[:, None], np.deg2rad(lon)
    for day, regime in enumerate(regimes):
        rng = np.random.default_rng([2, day])
        # Noise in waves is drawn anew each day. The values below also get noise from cell to cell.
        noise = sum(
            height * np.cos(m * x + n * y + turn)
            for m, n, height, turn in zip(
                (1, 2, 4, 5), (3, 5, 2, 7), 12.0 * rng.standard_normal(4), rng.uniform(0, 2 * np.pi, 4), strict=True
            )
        )
        values = planted[regime] * rng.normal(1.0, 0.15) + noise + 6.0 * rng.standard_normal((n_lat, n_lon))
        values[:, outside] = (4.0 * noise + 60.0 * rng.standard_normal((n_lat, n_lon)))[:, outside]
        array[before + day] = values.astype(np.float32)


def chain(n: int) -> NDArray[np.int64]:
    """Regime of each day ``(n,)``."""
    rng = np.random.default_rng(3)
    moves, others = rng.random(n) > STAY, rng.integers(1, REGIMES, n)
    return np.asarray(np.cumsum(np.where(moves, others, 0)) % REGIMES)


def _create_group(destination: str | Path, coordinates: xr.Dataset) -> zarr.Group:
    coordinates.to_zarr(str(destination), mode="w", consolidated=False, zarr_format=3)
    return zarr.open_group(str(destination), mode="r+")
