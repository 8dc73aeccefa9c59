"""GeoTIFF: a map of labels with a palette of the colours of the clusters, and a style of QGIS with their names.

Cells hold the ids of the clusters, or the nodata value where they are masked.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np

from clustering.deferred import xr
from clustering.errors import OutputError, reason
from clustering.exports.content import Content, optional
from clustering.exports.placement import line, reference_system

TARGET = "GeoTIFF"
TILE = 256
"""Length of a tile."""
ROWS = 16 * TILE
"""Number of rows of the map in memory at once."""


def style_name(path: Path) -> str:
    """Return the name of the style, which QGIS finds by that of the map.

    Parameters
    ----------
    path
        Path of the map.
    """
    return f"{path.stem}.qml"


def write(content: Content, path: Path) -> None:
    """Write the map and its style.

    Parameters
    ----------
    content
        Labels to write.
    path
        Path of the map.

    Raises
    ------
    OutputError
        If the samples are no map, or there are more ids than a palette has.
    """
    dataset = content.open_labels("geotiff")
    labels = dataset["labels"]
    rasterio = optional("rasterio", TARGET, "geotiff")
    if labels.ndim != 2:
        raise OutputError(
            f"a GeoTIFF holds a map, and the samples lie along ({', '.join(map(str, labels.dims))}); export to netcdf"
        )
    largest = int(content.clusters.ids.max())
    if largest >= 65535:
        raise OutputError(f"a palette has ids up to 65534, and the largest one is {largest}; export to netcdf")
    dtype, nodata = (np.dtype(np.uint8), 255) if largest < 255 else (np.dtype(np.uint16), 65535)
    place, upward = _placement(dataset, labels, rasterio)
    height, width = labels.shape
    options = {"tiled": True, "blockxsize": TILE, "blockysize": TILE} if min(height, width) >= TILE else {}
    palette = {int(i): (*bytes.fromhex(c[1:]), 255) for i, c in _colours(content)}
    # GDAL gives every value of a palette without an entry the colour black, and the nodata value none.
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=1, dtype=dtype.name, nodata=nodata,
        compress="deflate", BIGTIFF="IF_SAFER", **place, **options,
    ) as file:  # fmt: skip
        file.write_colormap(1, {**palette, nodata: (0, 0, 0, 0)})
        file.set_band_description(1, "cluster")
        file.update_tags(**{f"cluster_{i}": name for i, name in _names(content)})
        for start in range(0, height, ROWS):
            stop = min(height, start + ROWS)
            # The first row of the map is the northern one.
            part = slice(height - stop, height - start) if upward else slice(start, stop)
            cells = np.asarray(labels.variable[part].values, np.int64)
            cells = np.where(cells < 0, nodata, cells).astype(dtype)
            window = rasterio.windows.Window(0, start, width, stop - start)
            file.write(cells[::-1] if upward else cells, 1, window=window)
    path.with_name(style_name(path)).write_bytes(_style(content))


def _placement(dataset: xr.Dataset, labels: xr.DataArray, rasterio: Any) -> tuple[dict[str, Any], bool]:
    """Return the transform and the CRS of the map, and whether its rows run from south to north."""
    dims = tuple(map(str, labels.dims))
    if not any(d in labels.coords for d in dims):
        # Cells of a picture are places in themselves.
        return {"transform": rasterio.Affine(1.0, 0.0, 0.0, 0.0, -1.0, float(labels.shape[0]))}, False
    lines = [line(labels, d) for d in dims]
    for d, at in zip(dims, lines, strict=True):
        if at is None:
            raise OutputError(
                f"a GeoTIFF needs evenly spaced coordinates, and those of {d!r} are not; export to netcdf, or bring "
                "the data to a regular grid first"
            )
    (y, dy), (x, dx) = (at or (0.0, 1.0) for at in lines)
    if dx < 0:
        raise OutputError(f"a GeoTIFF runs from west to east, and {dims[1]!r} descends; sort the data by it first")
    upward = dy > 0
    top = (y + dy * (labels.shape[0] - 1) if upward else y) + 0.5 * abs(dy)
    transform = rasterio.Affine(dx, 0.0, x - 0.5 * dx, 0.0, -abs(dy), top)
    system = reference_system(dataset, dims)
    if system is None:
        return {"transform": transform}, upward
    try:
        return {"transform": transform, "crs": rasterio.crs.CRS.from_user_input(system)}, upward
    except rasterio.errors.CRSError as error:
        raise OutputError(
            f"the grid mapping of the labels is no coordinate reference system that GDAL reads ({reason(error)}); "
            "correct it in the source, or export to netcdf"
        ) from error


def _colours(content: Content) -> list[tuple[int, str]]:
    return list(zip(content.clusters.ids.tolist(), content.clusters.hex_colours, strict=True))


def _names(content: Content) -> list[tuple[int, str]]:
    return list(zip(content.clusters.ids.tolist(), content.clusters.display_names, strict=True))


def _style(content: Content) -> bytes:
    """Make the style of QGIS: colour and name of each value."""
    root = ET.Element("qgis", version="3.22")
    renderer = ET.SubElement(
        ET.SubElement(root, "pipe"), "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1"
    )
    entries = ET.SubElement(renderer, "colorPalette")
    names = dict(_names(content))
    for i, colour in _colours(content):
        ET.SubElement(entries, "paletteEntry", value=str(i), color=colour, alpha="255", label=names[i])
    made: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return made
