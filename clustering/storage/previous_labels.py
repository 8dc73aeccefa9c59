"""Label outputs of an earlier run, read on the sample grid of a new one."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.source import Source
from clustering.deferred import pd, xr, zarr
from clustering.errors import OutputError, damaged
from clustering.storage.labels import NAME
from clustering.storage.paths import StoragePath, translating_read_errors, zarr_store

Along = int | NDArray[np.int64]
"""Positions of a dimension in the earlier grid: a constant offset, or one index each with −1 where there is none."""


@dataclass(frozen=True, eq=False)
class PreviousLabels:
    """The ``labels.zarr`` of an earlier run, seen from a new sample grid; picklable."""

    path: StoragePath
    indexers: tuple[Along, ...]
    """For each sample dimension of the new grid, its positions in the earlier grid."""
    order: tuple[int, ...]
    """For each sample dimension of the new grid, the number of its dimension in the earlier grid."""
    run: str = ""
    """Name of the run that wrote the labels."""
    opening: str = field(default_factory=lambda: uuid.uuid4().hex, repr=False)
    """Unique name of this reader: a process opens the arrays once for it."""

    @property
    def fingerprint(self) -> list[Any]:
        """Path, run and positions, as JSON: equal ones read the same labels."""
        along = [a if isinstance(a, int) else hashlib.sha256(a.tobytes()).hexdigest() for a in self.indexers]
        return [str(self.path), self.run, along, list(self.order)]

    def read(self, name: str, region: tuple[slice, ...]) -> NDArray[Any]:
        """Read an output variable in a region of the new grid, as it is stored.

        Parameters
        ----------
        name
            Name of an output variable, such as ``labels``.
        region
            Start and stop along each sample dimension of the new grid.

        Returns
        -------
        ndarray
            Values in the shape of the region, then the variable's own dimensions. Cells that the earlier grid lacks
            have the fill value (−1 for labels).

        Raises
        ------
        OutputError
            If the array is damaged or missing.
        """
        remedy = "restore it, or name another output.store"
        with (
            translating_read_errors(self.path),
            damaged(OutputError, f"{name!r} of the version before, {str(self.path)!r},", remedy),
        ):
            array = _open(self.path, name, self.opening)
            beyond = array.shape[len(self.order) :]
            lengths = tuple(part.stop - part.start for part in region)
            result = np.full((*lengths, *beyond), array.fill_value, array.dtype)
            index: list[Any] = []
            previous_index: list[Any] = [slice(None)] * array.ndim
            for along, part, axis in zip(self.indexers, region, self.order, strict=True):
                mine, previous_index[axis] = _overlap(along, part, array.shape[axis])
                index.append(mine)
            if not all(len(mine) for mine in index):
                return result
            # The earlier grid may have its dimensions in another order.
            axes = (*self.order, *range(len(self.order), array.ndim))
            values = np.asarray(array.oindex[tuple(previous_index)]).transpose(axes)
        result[np.ix_(*index) if any(isinstance(m, np.ndarray) for m in index) else tuple(map(_slice, index))] = values
        return result


def _overlap(along: Along, part: slice, length: int) -> tuple[range | NDArray[np.int64], slice | NDArray[np.int64]]:
    """Find the part of a dimension that the earlier grid has: positions in the part, and in the earlier grid."""
    if isinstance(along, int):
        first, last = max(0, part.start + along), min(length, part.stop + along)
        # Where nothing overlaps, `last` lies before `first`; the slice must not count from the end then.
        return range(first - along - part.start, last - along - part.start), slice(first, max(first, last))
    index = along[part]
    mine = np.flatnonzero(index >= 0)
    return mine, index[mine]


def _slice(index: range) -> slice:
    return slice(index.start, index.stop)


@lru_cache(maxsize=64)
def _open(path: StoragePath, name: str, _: str) -> zarr.Array[Any]:
    return zarr.open_array(zarr_store(path), path=name, mode="r")


def open_previous_labels(path: StoragePath, source: Source) -> PreviousLabels | None:
    """Match the samples of a source with those in the ``labels.zarr`` of an earlier run; read coordinates only.

    Two samples are the same if their coordinates along every dimension are equal. A dimension is matched by position if
    either grid has no coordinate for it, or one with repeated values.

    Parameters
    ----------
    path
        Path of the ``labels.zarr``.
    source
        Source with the new sample grid.

    Returns
    -------
    PreviousLabels or None
        None where there are no labels, or their dimensions are others.
    """
    if not (path / "zarr.json").is_file():
        return None
    with (
        translating_read_errors(path),
        xr.open_dataset(
            zarr_store(path), engine="zarr", consolidated=False, chunks=None, create_default_indexes=False
        ) as dataset,
    ):
        if NAME not in dataset or set(dataset[NAME].dims) != set(source.sample_dims):
            return None
        dims = [str(d) for d in dataset[NAME].dims]
        along = tuple(_match_positions(_index(dataset, d), _index(source.dataset, d)) for d in source.sample_dims)
        run = str(dataset.attrs.get("run", ""))
    return PreviousLabels(path, along, tuple(dims.index(d) for d in source.sample_dims), run)


def _index(dataset: xr.Dataset, d: str) -> pd.Index | None:
    """Return the coordinate of a dimension; None where it has none."""
    return dataset[d].to_index() if d in dataset.coords and dataset[d].dims == (d,) else None


def _match_positions(before: pd.Index | None, now: pd.Index | None) -> Along:
    """Find the positions of present coordinates among earlier ones; a constant offset where possible."""
    if before is None or now is None or not (before.is_unique and now.is_unique):
        return 0
    index = np.asarray(before.get_indexer(now), np.int64)
    own = np.arange(len(index))
    matched = index >= 0
    if not matched.any():
        return index
    offset = int((index - own)[matched][0])
    moved = own + offset
    inside = (moved >= 0) & (moved < len(before))
    # A constant offset needs no memory, and the region it reads is a slice.
    return offset if np.array_equal(np.where(inside, moved, -1), index) else index
