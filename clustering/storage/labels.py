"""Labels and what else is told of each row, on disk: arrays on the sample grid, with the source's coordinates."""

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
from clustering.fitting.labelling import Wanted, variables

NAME = "labels"
SMALL_CHUNK = 4096
"""Chunks of fewer labels than this are joined to the size of a block."""


def create_labels(
    path: str | Path, source: Source, plan: Plan, k: int, attributes: Mapping[str, Any], wanted: Wanted | None = None
) -> LabelWriter:
    """Create the labels of a source and what else is wanted, all masked, and what writes regions of them.

    Chunk edges lie on those of the source, and each chunk belongs to one block of the plan, so that no two tasks ever
    write the same chunk. Every chunk is checksummed.

    Parameters
    ----------
    plan
        Blocks counted from the start of the selection, see `Source.plan`.
    attributes
        JSON attributes of the group.
    """
    arrays = variables(wanted or Wanted(), k)
    taken = {array.name for array in arrays}
    coordinates = source.dataset.drop_vars(list(source.dataset.data_vars))
    # A coordinate that has the name of a result gives way to it.
    samples = set(source.sample_dims)
    keep = [name for name, c in coordinates.coords.items() if set(c.dims) <= samples and name not in taken]
    with warnings.catch_warnings():
        # String coordinates have no final Zarr v3 specification yet; the source's own are copied all the same.
        warnings.filterwarnings("ignore", category=zarr.errors.UnstableSpecificationWarning)
        plain = xr.Dataset(coords={name: coordinates[name].variable.copy() for name in keep}, attrs=dict(attributes))
        for name in plain.variables:
            # Times keep their units; numbers were decoded, and are kept as such.
            kept = ("units", "calendar", "dtype") if plain[name].dtype.kind in "mM" else ()
            plain[name].encoding = {key: value for key, value in plain[name].encoding.items() if key in kept}
        plain.to_zarr(str(path), mode="w", consolidated=False, zarr_format=3)
    chunks = tuple(axis.regular.longest(1) for axis in source.axes)
    if math.prod(chunks) < SMALL_CHUNK:
        chunks = plan.longest
    group = zarr.open_group(str(path), mode="r+")
    for array in arrays:
        lengths = tuple(length for _, length in array.extra)
        group.create_array(
            array.name,
            shape=(*source.shape, *lengths),
            chunks=(*chunks, *lengths),
            dtype=array.dtype,
            fill_value=array.fill,
            dimension_names=(*source.sample_dims, *(d for d, _ in array.extra)),
            attributes=dict(array.attributes),
            compressors=[ZstdCodec(level=3), Crc32cCodec()],
            # Every chunk is written, so that a chunk that is missing is known to be lost.
            config={"write_empty_chunks": True},
        )
    for name, length in dict.fromkeys(dim for array in arrays for dim in array.extra):
        numbers = np.arange(length) + (name == "rank")
        group.create_array(name, data=numbers, dimension_names=(name,))
    return LabelWriter(str(path))


@dataclass(frozen=True)
class LabelWriter:
    """Writes regions of labels and what else is told; picklable."""

    path: str

    def __call__(self, region: tuple[slice, ...], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write what is known of a region of the sample grid."""
        for name, array in arrays.items():
            _open(self.path, name)[region] = array


@lru_cache(maxsize=16)
def _open(path: str, name: str) -> zarr.Array[Any]:
    # Opening does not take this setting from its arguments, although it has one for it.
    return zarr.open_array(f"{path}/{name}", mode="r+").with_config({"write_empty_chunks": True})


def in_memory(source: Source, k: int, wanted: Wanted) -> dict[str, xr.DataArray]:
    """Make the results of a source in memory, all masked, with coordinates."""
    coordinates = {name: c for name, c in source.dataset.coords.items() if set(c.dims) <= set(source.sample_dims)}
    made = {}
    for array in variables(wanted, k):
        values = np.full((*source.shape, *(n for _, n in array.extra)), array.fill, array.dtype)
        dims = (*source.sample_dims, *(d for d, _ in array.extra))
        known = {name: c for name, c in coordinates.items() if name not in dict(array.extra)}
        made[array.name] = xr.DataArray(values, known, dims, array.name, dict(array.attributes))
    return made
