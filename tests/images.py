"""Small OME-Zarr images and trees of groups, as other programs write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

formats = pytest.mark.parametrize("zarr_format", [2, 3], ids=["0.4", "0.5"])

CHANNELS = ("DAPI", "CD3", "CD8")
PIXELS = np.random.default_rng(3).integers(1, 4000, (3, 16, 12)).astype("u2")
TISSUE = (np.arange(16 * 12).reshape(16, 12) % 5).astype("u1")


def scales(levels: int, axes: str) -> list[dict[str, Any]]:
    kinds = {"c": "channel", "t": "time"}
    return [
        {
            "axes": [{"name": a, "type": kinds.get(a, "space")} for a in axes],
            "datasets": [{"path": str(i)} for i in range(levels)],
        }
    ]


def image(
    path: Path, zarr_format: Any, labels: Any = CHANNELS, named: bool = False, inside: str = "", levels: int = 2
) -> Path:
    """Write an image as OME-Zarr 0.4 (version 2) or 0.5 (version 3), with a tissue mask of the same levels."""
    root = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    group = root.require_group(inside) if inside else root
    attributes: dict[str, Any] = {"multiscales": scales(levels, "cyx")}
    if labels is not None:
        attributes["omero"] = {"channels": [{"label": label, "color": "FFFFFF"} for label in labels]}
    put(group, attributes, zarr_format)
    for level in range(levels):
        names = ("c", "y", "x") if named else None
        group.create_array(
            str(level), data=PIXELS[:, :: 2**level, :: 2**level], chunks=(1, 8, 8), dimension_names=names
        )
    tissue = group.require_group("labels").require_group("tissue")
    put(tissue, {"multiscales": scales(levels, "yx"), "image-label": {"version": "0.4"}}, zarr_format)
    for level in range(levels):
        tissue.create_array(str(level), data=TISSUE[:: 2**level, :: 2**level], chunks=(8, 8))
    return path


def put(group: zarr.Group, attributes: dict[str, Any], zarr_format: int) -> None:
    group.attrs.update(attributes if zarr_format == 2 else {"ome": {"version": "0.5", **attributes}})


def tree(path: Path, zarr_format: Any = 3) -> Path:
    place = {"y": np.arange(8.0), "x": np.arange(6.0)}
    field = xr.Dataset({"t": (("y", "x"), np.arange(48.0).reshape(8, 6))}, place)
    nodes = {"/": xr.Dataset(attrs={"title": "scene"}), "/bands/r10m": field, "/bands/r20m": field[{"y": slice(4)}]}
    nodes["/quality"] = xr.Dataset({"good": (("y", "x"), TISSUE[:8, :6] > 1)}, place)
    xr.DataTree.from_dict(nodes).to_zarr(path, zarr_format=zarr_format, consolidated=False)
    return path
