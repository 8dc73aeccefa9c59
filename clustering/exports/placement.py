"""Where samples lie: evenly spaced coordinates, and the coordinate reference system."""

from __future__ import annotations

import numpy as np

from clustering.deferred import xr

NEAR = 1e-3
"""Coordinates are evenly spaced if they are this near to a line, in units of their step."""


def line(labels: xr.DataArray, dim: str) -> tuple[float, float] | None:
    """Return the first value and the step of the coordinate of a dimension.

    Parameters
    ----------
    labels
        Labels with their coordinates.
    dim
        Name of the dimension.

    Returns
    -------
    tuple of float, or None
        None where there is no coordinate of numbers, or it is not evenly spaced.
    """
    if dim not in labels.coords or labels[dim].dtype.kind not in "iuf":
        return None
    values = np.asarray(labels[dim].values, float)
    if len(values) < 2:
        return None
    step = float(values[-1] - values[0]) / (len(values) - 1)
    even = values[0] + step * np.arange(len(values))
    return (float(values[0]), step) if step and np.abs(values - even).max() <= NEAR * abs(step) else None


def reference_system(dataset: xr.Dataset, dims: tuple[str, ...]) -> str | None:
    """Return the coordinate reference system of labels as WKT or a code; None where there is none.

    Parameters
    ----------
    dataset
        Labels with their grid mapping.
    dims
        The two dimensions of the map.
    """
    named = dataset["labels"].attrs.get("grid_mapping") or dataset["labels"].encoding.get("grid_mapping")
    names = [named] if named in dataset.variables else [n for n, v in dataset.variables.items() if not v.dims]
    for name in names:
        attributes = dataset[name].attrs
        for key in ("crs_wkt", "spatial_ref"):
            if isinstance(attributes.get(key), str):
                return str(attributes[key])
    code = dataset.attrs.get("proj:code")
    if isinstance(code, str):
        return code
    units = [str(dataset[d].attrs.get("units", "")) if d in dataset.coords else "" for d in dims]
    degrees = units[0].startswith("degree") and units[1].startswith("degree")
    named_so = dims[0].lower() in ("lat", "latitude") and dims[1].lower() in ("lon", "longitude")
    return "EPSG:4326" if degrees or named_so else None
