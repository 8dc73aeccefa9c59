"""Stores of three users with clusters planted in them: satellite embeddings, a tissue image, a table of embeddings.

Stores are written piece by piece, so that the large sizes take little memory. Each piece has its own random generator:
the same size gives the same store.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from zarr.codecs import ZstdCodec

SIZES = ("ci", "nightly")
SITES_PER_CLUSTER = 40
"""Patches of land or tissue of each cluster."""


def _patches(side: int, k: int, seed: int) -> Callable[[int, int, int], NDArray[np.int64]]:
    """Divide a square into patches of `k` clusters; gives the clusters ``(n, n)`` of a window from ``(y, x)``."""
    sites = np.random.default_rng(seed).random((SITES_PER_CLUSTER * k, 2)) * side
    tree = cKDTree(sites)

    def window(y: int, x: int, n: int) -> NDArray[np.int64]:
        places = np.stack(np.meshgrid(np.arange(y, y + n), np.arange(x, x + n), indexing="ij"), axis=-1)
        return np.asarray(tree.query(places)[1] % k)

    return window


def _directions(k: int, d: int, rng: np.random.Generator) -> NDArray[np.float32]:
    vectors = rng.standard_normal((k, d), dtype=np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


# Satellite embeddings


def satellite(dest: str | Path, size: str = "ci", *, side: int | None = None, shard: int | None = None) -> Path:
    """Write unit vectors of 64 bands in bytes, half of the shards missing, with the 32 clusters in `planted` (y, x).

    Cells of `planted` without a cluster, which are those of missing shards and of lakes, are -1.
    """
    side = side or {"ci": 1024, "nightly": 8192}[size]
    shard = shard or side // 2
    inner, k, bands = min(256, shard // 4), 32, 64
    rng = np.random.default_rng(11)
    centers, patches = _directions(k, bands, rng), _patches(side, k, 12)
    # EPSG:4326, about 10 m a cell, rows from north to south.
    step = 360.0 / 4_009_984
    west, north = 8.0, 48.0
    root = zarr.create_group(Path(dest), overwrite=True, zarr_format=3)
    root.attrs.update(
        {
            "title": "planted satellite embeddings", "proj:code": "EPSG:4326", "spatial:dimensions": ["y", "x"],
            "spatial:transform": [step, 0.0, west, 0.0, -step, north],
        }
    )  # fmt: skip
    embeddings = root.create_array(
        "embeddings", shape=(1, bands, side, side), dtype="i1", chunks=(1, bands, inner, inner),
        shards=(1, bands, shard, shard), compressors=ZstdCodec(level=1), fill_value=-128,
        dimension_names=("time", "band", "y", "x"), attributes={"grid_mapping": "spatial_ref"},
    )  # fmt: skip
    planted = root.create_array(
        "planted", shape=(side, side), dtype="i1", chunks=(inner, inner), shards=(shard, shard), fill_value=-1,
        dimension_names=("y", "x"), attributes={"grid_mapping": "spatial_ref"},
    )  # fmt: skip
    centered = (np.arange(side) + 0.5) * step
    for name, values, about in (
        ("y", north - centered, {"standard_name": "latitude", "units": "degrees_north"}),
        ("x", west + centered, {"standard_name": "longitude", "units": "degrees_east"}),
    ):
        root.create_array(name, data=values, dimension_names=(name,), attributes=about)
    root.create_array("time", data=np.array([2024]), dimension_names=("time",))
    with warnings.catch_warnings():
        # Text has no final Zarr v3 specification yet.
        warnings.simplefilter("ignore", zarr.errors.UnstableSpecificationWarning)
        names = np.array([f"A{band:02d}" for band in range(bands)], np.dtypes.StringDType())
        root.create_array("band", data=names, dimension_names=("band",))
    root.create_array(
        "spatial_ref", data=np.int64(0), dimension_names=(),
        attributes={"grid_mapping_name": "latitude_longitude", "crs_wkt": 'GEOGCS["WGS 84"]'},
    )  # fmt: skip
    for i in range(side // shard):
        for j in range(side // shard):
            if (i + j) % 2:
                continue
            own = np.random.default_rng([13, i, j])
            bytes_, truth = np.empty((bands, shard, shard), "i1"), np.empty((shard, shard), "i1")
            for y in range(0, shard, inner):
                for x in range(0, shard, inner):
                    window = np.s_[y : y + inner, x : x + inner]
                    label = patches(i * shard + y, j * shard + x, inner)
                    vectors = centers[label] + 0.05 * own.standard_normal((inner, inner, bands), dtype=np.float32)
                    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
                    stored = np.rint(np.sign(vectors) * np.sqrt(np.abs(vectors)) * 127.5).astype("i1")
                    lake = own.random((inner, inner)) < 0.01
                    # A cell with one missing band counts as missing.
                    stored[lake, own.integers(bands)] = -128
                    bytes_[(slice(None), *window)], truth[window] = stored.transpose(2, 0, 1), np.where(lake, -1, label)
            region = np.s_[i * shard : (i + 1) * shard, j * shard : (j + 1) * shard]
            embeddings[(0, slice(None), *region)], planted[region] = bytes_, truth
    return Path(dest)


# A multiplexed tissue image

CHANNELS = (
    "DAPI", "CD3", "CD4", "CD8", "CD20", "CD31", "CD45", "CD68", "Ki67", "PanCK", "SMA", "Autofluorescence",
)  # fmt: skip


def tissue(
    dest: str | Path, size: str = "ci", *, side: int | None = None, chunk: int | None = None, zarr_format: Any = 3
) -> Path:
    """Write an OME-Zarr image, 0.5 or 0.4 by the version of Zarr, with 20 cell types in ``planted/0``.

    Each channel lies in chunks of its own. Beside the image are its smaller levels, and a mask in ``labels/tissue``.
    The last two channels do not depend on the cell types.
    """
    side = side or {"ci": 1024, "nightly": 16_384}[size]
    chunk = chunk or min(1024, side // 4)
    channels, k, levels = (len(CHANNELS) if size == "ci" else 40), 20, 3
    rng = np.random.default_rng(21)
    names = [CHANNELS[i] if i < len(CHANNELS) else f"Marker{i}" for i in range(channels)]
    means = rng.choice([300.0, 1500.0, 6000.0], (k, channels))
    means[:, [names.index("SMA"), names.index("Autofluorescence")]] = 1500.0
    patches = _patches(side, k, 22)
    root = zarr.create_group(Path(dest), overwrite=True, zarr_format=zarr_format)
    _describe(root, zarr_format, "cyx", levels, omero={"channels": [{"label": name} for name in names]})
    masks = root.create_group("labels")
    _put(masks, zarr_format, {"labels": ["tissue"]})
    mask = masks.create_group("tissue")
    _describe(mask, zarr_format, "yx", levels, **{"image-label": {}})
    planted = root.create_array("planted/0", shape=(side, side), dtype="i1", chunks=(chunk, chunk), fill_value=-1)
    nested: dict[str, Any] = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if zarr_format == 2 else {}
    images, tissues = [], []
    for level in range(levels):
        n = side >> level
        own = (min(chunk, n),) * 2
        images.append(root.create_array(str(level), shape=(channels, n, n), dtype="u2", chunks=(1, *own), **nested))
        tissues.append(mask.create_array(str(level), shape=(n, n), dtype="u1", chunks=own, **nested))
    for y in range(0, side, chunk):
        for x in range(0, side, chunk):
            own = np.random.default_rng([23, y, x])
            label = patches(y, x, chunk)
            at = np.stack(np.meshgrid(np.arange(y, y + chunk), np.arange(x, x + chunk), indexing="ij"))
            inside = ((at - side / 2) ** 2).sum(axis=0) < (0.45 * side) ** 2
            light = np.where(inside, means[label].transpose(2, 0, 1), 100.0)
            light = light * np.exp(0.15 * own.standard_normal(light.shape, dtype=np.float32))
            for level in range(levels):
                s = 1 << level
                part = np.s_[y // s : (y + chunk) // s, x // s : (x + chunk) // s]
                images[level][(slice(None), *part)] = light[:, ::s, ::s].astype("u2")
                tissues[level][part] = inside[::s, ::s].astype("u1")
            planted[y : y + chunk, x : x + chunk] = np.where(inside, label, -1)
    return Path(dest)


def _describe(group: zarr.Group, zarr_format: int, axes: str, levels: int, **more: Any) -> None:
    datasets = [
        {
            "path": str(i),
            "coordinateTransformations": [{"type": "scale", "scale": [2.0 ** (i * (a != "c")) for a in axes]}],
        }
        for i in range(levels)
    ]
    scales = {
        "axes": [{"name": a, "type": "channel" if a == "c" else "space"} for a in axes],
        "datasets": datasets,
    }
    _put(group, zarr_format, {"multiscales": [scales if zarr_format == 3 else {"version": "0.4", **scales}], **more})


def _put(group: zarr.Group, zarr_format: int, attributes: dict[str, Any]) -> None:
    group.attrs.update({"ome": {"version": "0.5", **attributes}} if zarr_format == 3 else attributes)


# A table of embeddings

NOISE = 1.5
"""Standard deviation of embeddings around their centers, which are √2 apart along each dimension."""


def codebook(
    dest: str | Path, size: str = "ci", *, rows: int | None = None, dim: int | None = None, k: int | None = None
) -> Path:
    """Write rows of embeddings of two months, as ``2026-01/emb`` and ``2026-02/emb``, with their clusters beside them.

    The second month has a tenth of the rows, around the same centers. Clusters overlap, as those of embeddings do.
    """
    rows = rows or {"ci": 200_000, "nightly": 20_000_000}[size]
    dim = dim or {"ci": 64, "nightly": 256}[size]
    k = k or {"ci": 256, "nightly": 4096}[size]
    chunk = min({"ci": 10_000, "nightly": 100_000}[size], rows // 10)
    centers = np.random.default_rng(31).standard_normal((k, dim), dtype=np.float32)
    root = zarr.create_group(Path(dest), overwrite=True, zarr_format=3)
    for month, (name, n) in enumerate((("2026-01", rows), ("2026-02", rows // 10))):
        group = root.create_group(name)
        emb = group.create_array(
            "emb", shape=(n, dim), dtype="f2", chunks=(chunk, dim), dimension_names=("row", "dim")
        )  # fmt: skip
        planted = group.create_array("planted", shape=(n,), dtype="i2", chunks=(chunk,), dimension_names=("row",))
        for start in range(0, n, chunk):
            own, stop = np.random.default_rng([32, month, start]), min(n, start + chunk)
            label = own.integers(0, k, stop - start)
            emb[start:stop] = centers[label] + NOISE * own.standard_normal((stop - start, dim), dtype=np.float32)
            planted[start:stop] = label
    return Path(dest)
