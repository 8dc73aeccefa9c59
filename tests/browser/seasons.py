"""Synthetic air temperature of a globe through the year, over land that is made of a few waves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr


def write_seasons(path: Path, lats: int = 720, lons: int = 1440) -> None:
    """Write ``t2m`` (month, lat, lon): far inland, summers are hot and winters cold, without sharp borders."""
    rng = np.random.default_rng(5)
    lat, lon = (np.linspace(90, -90, lats, endpoint=False) - 90 / lats, np.arange(lons) * 360 / lons)
    phi, lam = np.deg2rad(lat)[:, None], np.deg2rad(lon)[None, :]
    height = np.zeros((lats, lons))
    for m in range(1, 6):
        for n in range(1, 6):
            along, across = rng.uniform(0, 2 * np.pi, 2)
            height += rng.normal() / (m + n) * np.cos(m * lam + along) * np.cos(2 * n * phi + across)
    inland = np.clip(height - np.quantile(height, 0.35), 0, None)
    inland /= inland.max()
    yearly = 27 - 50 * np.sin(phi) ** 2 - 25 * inland**2
    swing = (2 + 26 * inland) * np.sin(phi)
    month = np.arange(12)
    values = yearly - swing * np.cos(2 * np.pi * (month - 0.5) / 12)[:, None, None]
    values += rng.normal(0, 2.0, values.shape)
    dataset = xr.Dataset(
        {"t2m": (("month", "lat", "lon"), values.astype("f4"), {"units": "degC", "long_name": "air temperature"})},
        {
            "month": month + 1,
            "lat": ("lat", lat, {"units": "degrees_north"}),
            "lon": ("lon", lon, {"units": "degrees_east"}),
        },
    )
    dataset.to_zarr(path, zarr_format=3, consolidated=False, encoding={"t2m": {"chunks": (12, 90, 360)}})
