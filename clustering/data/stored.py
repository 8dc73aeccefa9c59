"""One variable as it lies in its store, read region by region."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from clustering.data.decoding import Decoding
from clustering.data.gathering import gathered
from clustering.data.listing import AbsentChunks, key_shape
from clustering.data.policies import OnBadChunk
from clustering.data.store_errors import translate_errors
from clustering.errors import ClusteringError, DataError, reason

logger = logging.getLogger(__name__)

DimIndexer = range | NDArray[np.int64]
"""Selected positions along a dimension."""


class RegionRead(NamedTuple):
    """A region of a variable, cells by features."""

    values: NDArray[Any]
    """As stored ``(cells, f)``, in the type that the stored bits are read as."""
    lost: NDArray[np.bool_] | None
    """Where a chunk is not there or does not decode ``(cells, f)``; None where all are."""
    bad_chunks: tuple[str, ...]
    """Chunks that do not decode, by name."""


@dataclass(frozen=True, eq=False)
class StoredVariable:
    """A variable in its store, with what is selected of it."""

    name: str
    array: zarr.Array[Any]
    fast: zarr.Array[Any]
    """The same array, decoded in another way where there is a faster one."""
    dims: tuple[str, ...]
    """Names of the array's dimensions."""
    indexers: Mapping[str, DimIndexer]
    """What is selected along each of them."""
    decoding: Decoding
    absent: AbsentChunks | None = None
    """Chunks that are not read, as they were never written; None where the fill value stands for them."""
    on_bad_chunk: OnBadChunk = "error"
    where: str = "the data"
    """Store, fit to be shown."""

    def read(self, region: Mapping[str, slice], order: Sequence[str]) -> RegionRead:
        """Read a region.

        Parameters
        ----------
        region
            Among the selected positions, for some dimensions.
        order
            Dimensions, those of the cells first and then those of the features; each of the other dimensions has one
            position. The lengths of the dimensions in `region` make the cells.

        Raises
        ------
        DataError
            For a chunk that does not decode, where that is an error.
        """
        indexers = [self.indexers[d][region[d]] if d in region else self.indexers[d] for d in self.dims]
        lost = None if self.absent is None else self._absent_cells(self.absent, indexers)
        bad: tuple[str, ...] = ()
        if lost is not None and lost.all():
            values = np.zeros(tuple(map(len, indexers)), self.array.dtype)
        else:
            try:
                # What decodes faster calls every fault one of the disk; zarr's own decoding tells them apart below.
                with nullcontext() if self.fast is not self.array else translate_errors(self.where):
                    values = read_positions(self.fast, indexers)
            except ClusteringError:
                raise
            except Exception:
                values, spoilt, bad = self._chunk_by_chunk(indexers)
                lost = spoilt if lost is None else lost | spoilt
        axes = [self.dims.index(d) for d in order]
        cells, features = axes[: len(region)], axes[len(region) :]
        if values.dtype != self.decoding.stored:
            values = values.view(self.decoding.stored)
        return RegionRead(
            gathered(values, cells, features), None if lost is None else gathered(lost, cells, features), bad
        )

    @property
    def count(self) -> int:
        """Chunks that hold what is selected."""
        units = zip(self.dims, key_shape(self.array), strict=True)
        return math.prod(len(chunk_numbers(self.indexers[d], unit)) for d, unit in units)

    def _absent_cells(self, absent: AbsentChunks, indexers: list[DimIndexer]) -> NDArray[np.bool_] | None:
        chunks, own = _chunks_of(indexers, absent.unit)
        absent_cells = absent.mask(chunks)
        return absent_cells[np.ix_(*own)] if absent_cells.any() else None

    def _chunk_by_chunk(self, indexers: list[DimIndexer]) -> tuple[NDArray[Any], NDArray[np.bool_], tuple[str, ...]]:
        """Read what can be read of a region in which something cannot."""
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
    """Read positions of an array, each chunk once."""
    runs = [_as_slice(indexer) for indexer in indexers]
    if all(isinstance(run, slice) for run in runs):
        return np.asarray(array[tuple(runs)])
    return np.asarray(array.oindex[tuple(runs)])


def chunk_numbers(indexer: DimIndexer, unit: int) -> NDArray[np.int64]:
    """Numbers, ascending, of the chunks of this length that hold positions along a dimension."""
    if isinstance(indexer, range):
        if indexer.step < unit:
            return np.arange(indexer[0] // unit, indexer[-1] // unit + 1)
        indexer = np.asarray(indexer, np.int64)
    numbers: NDArray[np.int64] = np.unique(indexer // unit)
    return numbers


def _as_slice(indexer: DimIndexer) -> slice | NDArray[np.int64]:
    if isinstance(indexer, range):
        return slice(indexer.start, indexer.stop, indexer.step)
    if len(indexer) and indexer[-1] - indexer[0] == len(indexer) - 1 and (np.diff(indexer) == 1).all():
        return slice(int(indexer[0]), int(indexer[-1]) + 1)
    return indexer


def _chunks_of(
    indexers: Sequence[DimIndexer], unit: tuple[int, ...]
) -> tuple[tuple[NDArray[np.int64], ...], tuple[NDArray[np.intp], ...]]:
    """Chunks that hold some positions along each dimension, and for each position the number of its own."""
    pairs = [np.unique(np.asarray(p, np.int64) // u, return_inverse=True) for p, u in zip(indexers, unit, strict=True)]
    return tuple(chunks for chunks, _ in pairs), tuple(own for _, own in pairs)
