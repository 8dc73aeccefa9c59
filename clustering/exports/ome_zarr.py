"""OME-Zarr: the labels as a label image with levels, colours and properties of the clusters (versions 0.5 and 0.4).

::

    DEST/zarr.json                {"ome": {"labels": ["clusters"]}}: a group of labels of its own
    DEST/clusters/0, 1, 2 …       levels, each half as long as the one before along the last two axes

If DEST is ``<image>/labels/<name>``, the label image becomes a part of that image, is listed there, and lies where the
level of its size lies. Label 0 means background, so cluster i has label i + 1.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clustering.data.ownership import EXPORTED, check_place, check_target, mark_folder
from clustering.data.replacing import staged
from clustering.deferred import xr, zarr
from clustering.errors import OutputError
from clustering.exports.content import Content
from clustering.exports.placement import line
from clustering.exports.placing import REMEDY

NAME = "clusters"
CHUNK = 1024
"""Longest chunk along the last two axes."""
SMALLEST = 512
"""Levels end where the last two axes are no longer than this."""
_TYPES = {"t": "time", "time": "time", "c": "channel", "channel": "channel"}
_UNITS = {"nanometer", "micrometer", "millimeter", "centimeter", "meter"}


def export(content: Content, path: Path, overwrite: bool) -> list[Path]:
    """Write the label image.

    Parameters
    ----------
    content
        Labels to write.
    path
        A new folder, or ``<image>/labels/<name>`` in an OME-Zarr image.
    overwrite
        Whether labels that an export wrote there are replaced.

    Returns
    -------
    list of Path
        The folder.
    """
    labels = content.open_labels("ome-zarr")["labels"]
    axes, lines = _axes(labels), [line(labels, str(d)) for d in labels.dims]
    # Scales are above zero, so an axis that runs backwards is counted in cells.
    places = [(step, start) if step > 0 else (1.0, 0.0) for start, step in (at or (0.0, 1.0) for at in lines)]
    image = _image_of(path)
    if image is None:
        check_place(os.fspath(path))
    else:
        axes, places = image_places(image, labels.sizes) or (axes, places)
    version: Literal[2, 3] = 2 if image is not None and not (image / "zarr.json").is_file() else 3
    with staged(path, partial(check_target, path, EXPORTED, overwrite, REMEDY)) as staging:
        root = zarr.open_group(str(staging), mode="w-", zarr_format=version)
        group = root if image is not None else root.create_group(NAME)
        if image is None:
            root.attrs["ome"] = {"version": "0.5", "labels": [NAME]}
        levels = _write_levels(group, labels, version)
        described = _description(content, axes, places, len(levels), path.name if image else NAME, bool(image))
        if version == 3:
            group.attrs["ome"] = {"version": "0.5", **described}
        else:
            described["multiscales"][0]["version"] = described["image-label"]["version"] = "0.4"
            group.attrs.update(described)
        if version == 3:
            mark_folder(staging, EXPORTED)
    if image is not None:
        _list_in(image, path.name, version)
    return [path]


def _image_of(path: Path) -> Path | None:
    """Return the image that a label image becomes a part of; None where it stands alone."""
    image = path.absolute().parent.parent
    there = any((image / name).is_file() for name in ("zarr.json", ".zattrs"))
    if path.absolute().parent.name != "labels" or not there:
        return None
    attributes = dict(zarr.open_group(str(image), mode="r").attrs)
    about: Any = attributes.get("ome", attributes)
    return image if "multiscales" in about else None


def image_places(
    image: Path, sizes: Mapping[Any, int]
) -> tuple[list[dict[str, str]], list[tuple[float, float]]] | None:
    """Return the axes of an image, and where the cells of its level of some size lie along them.

    Parameters
    ----------
    image
        Path of an OME-Zarr image.
    sizes
        Dimension of the labels → its length, in their order.

    Returns
    -------
    tuple or None
        Axes, and step and first place along each, in the units of the image; None where no level has this size.
    """
    group = zarr.open_group(str(image), mode="r")
    about: Any = dict(group.attrs)
    scales = about.get("ome", about)["multiscales"][0]
    # Early versions name axes without their type and unit.
    axes = [axis for axis in scales.get("axes", ()) if isinstance(axis, dict)]
    names = [axis["name"] for axis in axes]
    if not {*map(str, sizes)} <= {*names}:
        return None
    own = [names.index(str(d)) for d in sizes]
    for level in scales["datasets"]:
        array: Any = group[level["path"]]
        if [array.shape[i] for i in own] == list(sizes.values()):
            steps = [*level.get("coordinateTransformations", ()), *scales.get("coordinateTransformations", ())]
            placed = [_composed(steps, i) for i in own]
            return [axes[i] for i in own], placed
    return None


def _composed(transforms: Sequence[Mapping[str, Any]], axis: int) -> tuple[float, float]:
    """Apply transformations in turn along an axis; transformations of other kinds than these two have no numbers."""
    step, start = 1.0, 0.0
    for one in transforms:
        if one["type"] == "scale":
            step, start = step * one["scale"][axis], start * one["scale"][axis]
        elif one["type"] == "translation":
            start += one["translation"][axis]
    return step, start


def _list_in(image: Path, name: str, version: Literal[2, 3]) -> None:
    """Add a label image to the list of an image; all other attributes stay."""
    group = zarr.open_group(str(image / "labels"), mode="a", zarr_format=version)
    attributes: dict[str, Any] = dict(group.attrs)
    about = attributes.get("ome", {"version": "0.5"}) if version == 3 else attributes
    listed = about.get("labels", [])
    about = {**about, "labels": [*listed, *([] if name in listed else [name])]}
    group.attrs.update({"ome": about} if version == 3 else about)


def _axes(labels: xr.DataArray) -> list[dict[str, str]]:
    """Describe the axes, and refuse what OME-Zarr does not hold."""
    dims = list(map(str, labels.dims))
    types = [_TYPES.get(d.lower(), "space") for d in dims]
    # Time comes before channels, and both before space.
    order = ["time", "channel", "space"]
    once = types.count("time") <= 1 and types.count("channel") <= 1
    if not once or types != sorted(types, key=order.index) or types.count("space") not in (2, 3):
        raise OutputError(
            f"OME-Zarr holds labels along (t, c, z, y, x), of which y and x are needed, and these lie along "
            f"({', '.join(dims)}); export to netcdf"
        )
    units = [str(labels[d].attrs.get("units", "")) if d in labels.coords else "" for d in dims]
    return [
        {"name": d, "type": kind, **({"unit": unit} if unit in _UNITS else {})}
        for d, kind, unit in zip(dims, types, units, strict=True)
    ]


def _write_levels(group: Any, labels: xr.DataArray, version: Literal[2, 3]) -> list[tuple[int, ...]]:
    """Write all levels, a block at a time, and return their shapes."""
    largest = int(max(labels.attrs["flag_values"])) + 1
    dtype = next(np.dtype(t) for t in ("u1", "u2", "u4", "u8") if largest <= np.iinfo(t).max)
    stored = labels.variable
    shape, finer = tuple(stored.shape), None
    shapes: list[tuple[int, ...]] = []
    while True:
        level = group.create_array(
            str(len(shapes)),
            shape=shape,
            chunks=(*(1 for _ in shape[:-2]), *(min(CHUNK, n) for n in shape[-2:])),
            dtype=dtype,
            fill_value=0,
            chunk_key_encoding={"name": "v2" if version == 2 else "default", "separator": "/"},
            **({} if version == 2 else {"dimension_names": tuple(map(str, labels.dims))}),
        )
        for region in _regions(shape):
            if finer is None:
                # Masked cells are −1, and become background.
                level[region] = np.asarray(stored[region].values, np.int64) + 1
            else:
                wide = (*region[:-2], *(slice(2 * part.start, 2 * part.stop) for part in region[-2:]))
                level[region] = mode_of_squares(np.asarray(finer[wide]))
        shapes.append(shape)
        if max(shape[-2:]) <= SMALLEST:
            return shapes
        shape, finer = (*shape[:-2], *(-(-n // 2) for n in shape[-2:])), level


def _regions(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Cut a grid into the regions of its chunks."""
    lengths = (*(1 for _ in shape[:-2]), CHUNK, CHUNK)
    starts = (range(0, n, length) for n, length in zip(shape, lengths, strict=True))
    for corner in product(*starts):
        yield tuple(slice(i, min(n, i + length)) for i, n, length in zip(corner, shape, lengths, strict=True))


def mode_of_squares(labels: NDArray[Any]) -> NDArray[Any]:
    """Halve labels along the last two axes: each square of 2 × 2 becomes its most frequent label.

    Parameters
    ----------
    labels
        ``(…, y, x)``. Odd lengths are continued by their last cells.

    Returns
    -------
    ndarray
        ``(…, ⌈y / 2⌉, ⌈x / 2⌉)``. Among labels that are equally frequent, that of the first cell wins.
    """
    odd = [(0, 0)] * (labels.ndim - 2) + [(0, n % 2) for n in labels.shape[-2:]]
    whole = np.pad(labels, odd, mode="edge")
    cells = np.stack([whole[..., i::2, j::2] for i in (0, 1) for j in (0, 1)])
    counts = (cells[:, None] == cells[None]).sum(axis=1)
    made: NDArray[Any] = np.take_along_axis(cells, counts.argmax(axis=0)[None], axis=0)[0]
    return made


def _description(
    content: Content,
    axes: list[dict[str, str]],
    places: list[tuple[float, float]],
    levels: int,
    name: str,
    within: bool,
) -> dict[str, Any]:
    """Make the metadata of the label image."""
    datasets = []
    for i in range(levels):
        factors = [1.0] * (len(axes) - 2) + [2.0**i] * 2
        scale = [step * f for (step, _), f in zip(places, factors, strict=True)]
        # The first cell of a coarse level lies between the cells that it stands for.
        shift = [start + 0.5 * (f - 1.0) * step for (step, start), f in zip(places, factors, strict=True)]
        transforms = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]
        datasets.append({"path": str(i), "coordinateTransformations": transforms})
    clusters, fitted = content.clusters, content.fitted
    columns = (clusters.ids.tolist(), clusters.display_names, clusters.hex_colours, fitted.shares.tolist())
    colors, properties = [], []
    for i, shown, colour, share in zip(*columns, strict=True):
        rgba = [*bytes.fromhex(colour[1:]), 255]
        colors.append({"label-value": i + 1, "rgba": rgba})
        size = share * fitted.summary.weight
        properties.append({"label-value": i + 1, "cluster": i, "name": shown, "share": share, "size": size})
    about = {"colors": colors, "properties": properties, **({"source": {"image": "../../"}} if within else {})}
    multiscale = {"name": name, "type": "mode", "axes": axes, "datasets": datasets}
    # JSON has no NaN, which the sizes of a model without rows are; they become null.
    made: dict[str, Any] = json.loads(
        json.dumps({"multiscales": [multiscale], "image-label": about}), parse_constant=lambda _: None
    )
    return made
