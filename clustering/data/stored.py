"""Stored variables: one variable in its store, read region by region."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.data.decoding import Decoding
from clustering.data.gathering import gathered
from clustering.data.listing import AbsentChunks, key_shape
from clustering.data.store_errors import translate_errors
from clustering.deferred import zarr
from clustering.errors import ClusteringError, DataError, reason
from clustering.policies import OnBadChunk

logger = logging.getLogger(__name__)

DimIndexer = range | NDArray[np.int64]
"""Selected positions along a dimension, as a range or an array ``(t,)``."""


class RegionRead(NamedTuple):
    """A region of a variable, as cells by features."""

    values: NDArray[Any]
    """Stored numbers ``(cells, f)``, not decoded, with the sign that ``_Unsigned`` gives them."""
    lost: NDArray[np.bool_] | None
    """True for values ``(cells, f)`` of absent or bad chunks; None where there are none."""
    bad_chunks: tuple[str, ...]
    """Names of bad chunks."""


@dataclass(frozen=True, eq=False)
class StoredVariable:
    """A variable in its store, and the selected positions."""

    name: str
    array: zarr.Array[Any]
    fast: zarr.Array[Any]
    """The same array with a faster decoder; `array` itself where there is none."""
    dims: tuple[str, ...]
    """Names of the array's dimensions."""
    indexers: Mapping[str, DimIndexer]
    """Selected positions along each dimension."""
    decoding: Decoding
    absent: AbsentChunks | None = None
    """Absent chunks, whose cells are masked; None where absent chunks read as the fill value."""
    on_bad_chunk: OnBadChunk = "error"
    where: str = "the data"
    """URL of the store without secrets."""

    def read(self, region: Mapping[str, slice], order: Sequence[str]) -> RegionRead:
        """Read a region.

        Parameters
        ----------
        region
            Sample dimension → slice of its selected positions. These dimensions make the cells.
        order
            Sample dimensions, followed by feature dimensions. Any other dimension of the array has one selected
            position.

        Raises
        ------
        DataError
            For a bad chunk, where that is an error.
        StoreError
            If the store cannot be read.
        """
        indexers = [self.indexers[d][region[d]] if d in region else self.indexers[d] for d in self.dims]
        lost = None if self.absent is None else self._absent_cells(self.absent, indexers)
        bad: tuple[str, ...] = ()
        # Absent chunks need no request.
        if lost is not None and lost.all():
            values = np.zeros(tuple(map(len, indexers)), self.array.dtype)
        else:
            try:
                # The fast decoder reports every error as one of the disk. Then zarr's own decoder reads the region
                # again below, and its errors tell bad chunks from a failing disk.
                with nullcontext() if self.fast is not self.array else translate_errors(self.where):
                    values = read_positions(self.fast, indexers)
            except ClusteringError:
                raise
            except Exception:
                values, spoilt, bad = self._chunk_by_chunk(indexers)
                lost = spoilt if lost is None else lost | spoilt
        # Dimensions outside `order` have length 1, so leaving them out of the axes loses nothing.
        axes = [self.dims.index(d) for d in order]
        cells, features = axes[: len(region)], axes[len(region) :]
        if values.dtype != self.decoding.stored:
            # ``_Unsigned`` changes the type that the bits are read as.
            values = values.view(self.decoding.stored)
        return RegionRead(
            gathered(values, cells, features), None if lost is None else gathered(lost, cells, features), bad
        )

    @property
    def count(self) -> int:
        """Number of chunks (shards where there are shards) that hold selected positions."""
        units = zip(self.dims, key_shape(self.array), strict=True)
        return math.prod(len(chunk_numbers(self.indexers[d], unit)) for d, unit in units)

    def _absent_cells(self, absent: AbsentChunks, indexers: list[DimIndexer]) -> NDArray[np.bool_] | None:
        """Find the positions of a region in absent chunks; None where there are none."""
        chunks, own = _chunks_of(indexers, absent.unit)
        absent_cells = absent.mask(chunks)
        return absent_cells[np.ix_(*own)] if absent_cells.any() else None

    def _chunk_by_chunk(self, indexers: list[DimIndexer]) -> tuple[NDArray[Any], NDArray[np.bool_], tuple[str, ...]]:
        """Read a region chunk by chunk, so that a bad chunk does not spoil the others."""
        shape = tuple(map(len, indexers))
        values, spoilt, bad = np.zeros(shape, self.array.dtype), np.zeros(shape, bool), []
        chunks, own = _chunks_of(indexers, key_shape(self.array))
        for numbers in itertools.product(*(range(len(c)) for c in chunks)):
            within = [np.flatnonzero(o == number) for o, number in zip(own, numbers, strict=True)]
            part = [np.asarray(indexer)[w] for indexer, w in zip(indexers, within, strict=True)]
            try:
                with translate_errors(self.where):
                    values[np.ix_(*within)] = read_positions(self.array, part)
            except ClusteringError:
                raise
            except Exception as error:
                key = tuple(int(c[number]) for c, number in zip(chunks, numbers, strict=True))
                name = f"{self.name}/{self.array.metadata.encode_chunk_key(key)}"
                if self.on_bad_chunk == "error":
                    raise DataError(
                        f"chunk {name.removeprefix(self.name + '/')!r} of variable {self.name!r} does not decode "
                        f"({reason(error)}); write it anew, or set source.on_bad_chunk to mask"
                    ) from error
                logger.warning("chunk %r does not decode and is masked", name)
                spoilt[np.ix_(*within)] = True
                bad.append(name)
        return values, spoilt, tuple(bad)


def read_positions(array: zarr.Array[Any], indexers: Sequence[DimIndexer]) -> NDArray[Any]:
    """Read selected positions of an array. Each chunk is read once.

    Parameters
    ----------
    array
        A stored array.
    indexers
        Selected positions along each dimension.
    """
    # It needs asyncio, which takes as long to load as some fits of plain arrays take.
    from clustering.local_arrays import read

    runs = [_as_slice(indexer) for indexer in indexers]
    slices = tuple(run for run in runs if isinstance(run, slice))
    return read(array, slices) if len(slices) == len(runs) else np.asarray(array.oindex[tuple(runs)])


def chunk_numbers(indexer: DimIndexer, unit: int) -> NDArray[np.int64]:
    """Find the chunks that hold selected positions along a dimension.

    Parameters
    ----------
    indexer
        Selected positions along the dimension.
    unit
        Length of a chunk, in positions.

    Returns
    -------
    ndarray
        Chunk numbers ``(t,)``, ascending.
    """
    if isinstance(indexer, range):
        # Steps shorter than a chunk skip none.
        if indexer.step < unit:
            return np.arange(indexer[0] // unit, indexer[-1] // unit + 1)
        indexer = np.asarray(indexer, np.int64)
    numbers: NDArray[np.int64] = np.unique(indexer // unit)
    return numbers


def _as_slice(indexer: DimIndexer) -> slice | NDArray[np.int64]:
    """Turn neighbouring positions into a slice, which zarr reads faster than an array of positions."""
    if isinstance(indexer, range):
        return slice(indexer.start, indexer.stop, indexer.step)
    if len(indexer) and indexer[-1] - indexer[0] == len(indexer) - 1 and (np.diff(indexer) == 1).all():
        return slice(int(indexer[0]), int(indexer[-1]) + 1)
    return indexer


def _chunks_of(
    indexers: Sequence[DimIndexer], unit: tuple[int, ...]
) -> tuple[tuple[NDArray[np.int64], ...], tuple[NDArray[np.intp], ...]]:
    """Find the chunks that hold positions along each dimension, and for each position the index of its chunk."""
    pairs = [np.unique(np.asarray(p, np.int64) // u, return_inverse=True) for p, u in zip(indexers, unit, strict=True)]
    return tuple(chunks for chunks, _ in pairs), tuple(own for _, own in pairs)
