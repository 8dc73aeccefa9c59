"""Labels on disk: one integer per cell of the sample grid, with the source's coordinates."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from clustering.data.plan import Plan
from clustering.data.source import Source
from clustering.fitting.labelling import label_type

NAME = "labels"
SMALL_CHUNK = 4096
"""Chunks of fewer labels than this are joined to the size of a block."""


def label_attributes(k: int) -> dict[str, Any]:
    """CF attributes of labels 0 … k − 1."""
    return {
        "long_name": "cluster of each sample; -1 where masked",
        "flag_values": list(range(k)),
        "flag_meanings": " ".join(f"cluster_{i}" for i in range(k)),
    }


def create_labels(path: str | Path, source: Source, plan: Plan, k: int, attributes: Mapping[str, Any]) -> LabelWriter:
    """Create the labels of a source, all masked, and what writes regions of them.

    Chunk edges lie on those of the source, and each chunk belongs to one block of the plan, so that no two tasks ever
    write the same chunk. Every chunk is checksummed.

    Parameters
    ----------
    plan
        Blocks counted from the start of the selection, see `Source.plan`.
    attributes
        JSON attributes of the group.
    """
    coordinates = source.dataset.drop_vars(list(source.dataset.data_vars))
    # A coordinate that has the labels' own name gives way to them.
    keep = [name for name, c in coordinates.coords.items() if set(c.dims) <= set(source.sample_dims) and name != NAME]
    with warnings.catch_warnings():
        # String coordinates have no final Zarr v3 specification yet; the source's own are copied all the same.
        warnings.filterwarnings("ignore", category=zarr.errors.UnstableSpecificationWarning)
        plain = xr.Dataset(coords={name: coordinates[name].variable.copy() for name in keep}, attrs=dict(attributes))
        for name in plain.variables:
            # Times keep their units; numbers were decoded, and are kept as such.
            kept = ("units", "calendar", "dtype") if plain[name].dtype.kind in "mM" else ()
            plain[name].encoding = {key: value for key, value in plain[name].encoding.items() if key in kept}
        plain.to_zarr(str(path), mode="w", consolidated=False, zarr_format=3)
    chunks = tuple(min(c, n) for c, n in zip(source.chunks, source.shape, strict=True))
    if math.prod(chunks) < SMALL_CHUNK:
        chunks = tuple(min(c, n) for c, n in zip(plan.step, source.shape, strict=True))
    zarr.open_group(str(path), mode="r+").create_array(
        NAME,
        shape=source.shape,
        chunks=chunks,
        dtype=label_type(k),
        fill_value=-1,
        dimension_names=source.sample_dims,
        attributes=label_attributes(k),
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
        # Every chunk is written, so that a chunk that is missing is known to be lost.
        config={"write_empty_chunks": True},
    )
    return LabelWriter(str(path))


@dataclass(frozen=True)
class LabelWriter:
    """Writes regions of labels; picklable."""

    path: str

    def __call__(self, region: tuple[slice, ...], labels: NDArray[Any]) -> None:
        """Write the labels of a region of the sample grid."""
        _open(self.path)[region] = labels


@lru_cache(maxsize=4)
def _open(path: str) -> zarr.Array[Any]:
    # Opening does not take this setting from its arguments, although it has one for it.
    return zarr.open_array(f"{path}/{NAME}", mode="r+").with_config({"write_empty_chunks": True})


def labels_in_memory(source: Source, k: int) -> tuple[NDArray[Any], xr.DataArray]:
    """Make labels of a source in memory, all masked: the array, and the same with coordinates."""
    array = np.full(source.shape, -1, label_type(k))
    coordinates = {name: c for name, c in source.dataset.coords.items() if set(c.dims) <= set(source.sample_dims)}
    return array, xr.DataArray(array, coordinates, source.sample_dims, NAME, label_attributes(k))
