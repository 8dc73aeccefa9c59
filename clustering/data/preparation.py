"""Preparation: the map from decoded rows to the prepared rows that a model sees.

A row may first be divided by its norm. Then one affine map takes its features ``(d,)`` to components ``(p,)``. The map
combines, in this order, standardization, feature weights, principal components and whitening. Every sum has one fixed
order, so a prepared row depends on nothing but the decoded row and the map, to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.compiling import njit
from clustering.data.rows import Rows
from clustering.data.source import Source

Array = NDArray[np.float64]

PIECE_BYTES = 512 * 1024
"""Size in bytes of the float64 copy of the rows worked on at once: about half a second-level cache."""
TILE = 64
"""Number of rows that are multiplied by the matrix together."""
_SMALLER = 2.0**-600
"""Factor that keeps rows in the range of float64 while they are prepared. A power of two changes no digits."""


@dataclass(frozen=True, eq=False)
class Preparation:
    """The fitted map from decoded rows ``(n, d)`` to prepared rows ``(n, p)`` of float64, and back for centers."""

    unit_norm: bool
    """Whether each row is first divided by its Euclidean norm. A zero row has no direction and is left out."""
    offset: Array
    """Point ``(d,)`` that is subtracted from the features."""
    matrix: Array
    """Factor of the differences: one for each feature ``(d,)``, with p = d, or a matrix ``(d, p)``."""
    inverse: Array
    """Pseudo-inverse of `matrix`: ``(d,)`` or ``(p, d)``."""
    wish: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the config section ``preprocess`` that are set, as JSON."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Results of fitting the map, as JSON: the number of components and their share of the variance."""
    words: str = ""
    """Description of the map for users."""
    explained: Array = field(default_factory=lambda: np.zeros(0))
    """Share of each principal component in the variance ``(p,)``; empty without principal components."""
    once: bool = False
    """Whether the map serves pass 0 alone, so that its rows do not go into the block cache."""

    @property
    def diagonal(self) -> bool:
        """Whether each component is one feature in other units."""
        return self.matrix.ndim == 1

    @property
    def summary(self) -> dict[str, Any]:
        """Description and results for reports, as JSON."""
        return {"words": self.words, **self.facts}

    @property
    def rescales(self) -> bool:
        """Whether each component is one feature in other units, and no feature is lost."""
        return self.diagonal and bool((self.matrix > 0.0).all())

    @property
    def invertible(self) -> bool:
        """Whether decoded rows can be computed from prepared rows, up to rounding."""
        if self.unit_norm or self.p < len(self.offset):
            return False
        return self.rescales if self.diagonal else bool(self.matrix.any(axis=1).all())

    @property
    def p(self) -> int:
        """Number of components."""
        return int(self.matrix.shape[-1])

    @property
    def row_bytes(self) -> int:
        """Size of one prepared row, in bytes."""
        return 8 * self.p

    def apply(self, rows: Rows) -> Rows:
        """Prepare the rows of a block. Missing features stay NaN where the map is diagonal.

        Parameters
        ----------
        rows
            Decoded rows ``(n, d)``.

        Returns
        -------
        Rows
            Prepared rows; fewer than `rows` where `unit_norm` is set and there are zero rows.
        """
        values, whole = self.apply_to_values(rows.values)
        made = replace(rows, values=values, prepared=True)
        return made if whole.all() else replace(made.select(whole), zero_rows=int(np.sum(~whole)))

    def apply_to_values(self, values: NDArray[Any]) -> tuple[Array, NDArray[np.bool_]]:
        """Prepare the values of rows, without their weights and cells.

        Parameters
        ----------
        values
            Decoded rows ``(n, d)``.

        Returns
        -------
        Array
            Prepared rows ``(n, p)``.
        ndarray of bool
            False for zero rows ``(n,)`` where `unit_norm` is set. All others are True.
        """
        n, d = values.shape
        made, whole = np.empty((n, self.p)), np.ones(n, bool)
        length = max(TILE, PIECE_BYTES // (8 * d) // TILE * TILE)
        for start in range(0, n, length):
            part = slice(start, min(n, start + length))
            piece = values[part]
            if self.unit_norm:
                # Rows are divided in place, and the rows of the block must stay as they are.
                piece = piece.astype(np.float64, order="C")
                _to_unit_norm(piece, whole[part])
            _map(piece, self.offset, self.matrix, made[part])
            _restore_overflowed(piece, self.offset, self.matrix, made[part])
        return made, whole

    def to_prepared(self, centers: Array) -> Array:
        """Map centers in the units of the data to prepared centers ``(k, p)``, without dividing them by their norm.

        Parameters
        ----------
        centers
            Centers ``(k, d)`` in the units of the data, or of rows of length 1 where `unit_norm` is set.
        """
        made = np.empty((len(centers), self.p))
        _map(centers, self.offset, self.matrix, made)
        return made

    def to_data_units(self, centers: Array) -> Array:
        """Map prepared centers back to the units of the data ``(k, d)``.

        With `unit_norm`, these are the units of rows of length 1. Features of weight 0, and directions without a
        component, are lost in the map. They come back as the mean.

        Parameters
        ----------
        centers
            Prepared centers ``(k, p)``.
        """
        made = np.empty((len(centers), len(self.offset)))
        _map(centers, np.zeros(self.p), self.inverse, made)
        return made + self.offset

    def covariance_to_data_units(self, covariance: Array) -> Array:
        """Map a covariance matrix of prepared rows back to the units of the data ``(d, d)``.

        Parameters
        ----------
        covariance
            Covariance matrix ``(p, p)`` of prepared rows.
        """
        back = np.diag(self.inverse) if self.diagonal else self.inverse
        made: Array = back.T @ covariance @ back
        # Rounding leaves the product slightly unsymmetric.
        return 0.5 * (made + made.T)


def only_unit_norm(d: int) -> Preparation:
    """Make a preparation for pass 0 that only divides rows by their norm. Pass 0 fits the rest of the map to them.

    Parameters
    ----------
    d
        Number of features.
    """
    return Preparation(True, np.zeros(d), np.ones(d), np.ones(d), once=True)


def usable_memory(source: Source, memory: int, prepared: bool) -> int:
    """Reduce a memory budget by the factor by which rows grow when they are prepared as float64; in bytes.

    Parameters
    ----------
    source
        Data to cluster.
    memory
        Memory budget of a worker, in bytes.
    prepared
        Whether there is a preparation. Without one the budget stays.
    """
    return memory * source.row_bytes // max(source.row_bytes, 8 * source.n_features) if prepared else memory


def _map(values: NDArray[Any], offset: Array, matrix: Array, made: Array) -> None:
    """Fill `made` ``(n, p)`` with the affine map of `values` ``(n, d)``."""
    # Values beyond float64 are handled afterwards by `_restore_overflowed`.
    with np.errstate(over="ignore", invalid="ignore"):
        if matrix.ndim == 1:
            np.subtract(values, offset, out=made)
            made *= matrix
        else:
            _multiply(np.subtract(values, offset, order="C"), np.ascontiguousarray(matrix), made)


def _restore_overflowed(values: NDArray[Any], offset: Array, matrix: Array, made: Array) -> None:
    """Replace prepared rows ``(n, p)`` that overflowed by rows of the same direction near the largest float64."""
    if np.isfinite(made).all():
        return
    # NaN of a missing feature is no overflow. Such rows exist only where the map is diagonal.
    lacking = np.isnan(values) if matrix.ndim == 1 else np.zeros(made.shape, bool)
    beyond = np.flatnonzero(~(np.isfinite(made) | lacking).all(axis=1))
    restored = np.empty((len(beyond), made.shape[1]))
    _map(values[beyond].astype(np.float64) * _SMALLER, offset * _SMALLER, matrix, restored)
    powers = np.frexp(np.abs(np.where(lacking[beyond], 0.0, restored)).max(axis=1, initial=0.0))[1]
    made[beyond] = np.ldexp(restored, 1023 - powers[:, None])


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _multiply(values, matrix, made):  # type: ignore[no-untyped-def]
    """Multiply ``(n, d)`` by ``(d, p)`` into `made`.

    The work is always done on full tiles of rows, so that each row gets the same instructions and the same bits.
    """
    n, d = values.shape
    columns, total = np.zeros((d, TILE)), np.empty(TILE)
    # Eight features are added in one step. The rest of fewer than eight follows one by one.
    long = d - d % 8
    for start in range(0, n, TILE):
        m = min(TILE, n - start)
        # Transposed rows make the loops over rows below contiguous, so that they use vector instructions.
        for r in range(m):
            for j in range(d):
                columns[j, r] = values[start + r, j]
        for i in range(made.shape[1]):
            for r in range(TILE):
                total[r] = 0.0
            for j in range(0, long, 8):
                a0, a1, a2, a3 = matrix[j, i], matrix[j + 1, i], matrix[j + 2, i], matrix[j + 3, i]
                a4, a5, a6, a7 = matrix[j + 4, i], matrix[j + 5, i], matrix[j + 6, i], matrix[j + 7, i]
                x0, x1, x2, x3 = columns[j], columns[j + 1], columns[j + 2], columns[j + 3]
                x4, x5, x6, x7 = columns[j + 4], columns[j + 5], columns[j + 6], columns[j + 7]
                for r in range(TILE):
                    low = (a0 * x0[r] + a1 * x1[r]) + (a2 * x2[r] + a3 * x3[r])
                    high = (a4 * x4[r] + a5 * x5[r]) + (a6 * x6[r] + a7 * x7[r])
                    total[r] += low + high
            for j in range(long, d):
                a0, x0 = matrix[j, i], columns[j]
                for r in range(TILE):
                    total[r] += a0 * x0[r]
            for r in range(m):
                made[start + r, i] = total[r]


@njit(nogil=True, cache=True, error_model="numpy")
def _to_unit_norm(values, whole):  # type: ignore[no-untyped-def]
    """Divide rows ``(n, d)`` by their norm in place, and set `whole` ``(n,)`` to False for zero rows, which stay."""
    n, d = values.shape
    for r in range(n):
        total = 0.0
        for j in range(d):
            total += values[r, j] * values[r, j]
        if not 1e-280 < total < 1e280:
            # Squares of very small or very large numbers leave the range of float64. Ratios to the largest one do not.
            largest = 0.0
            for j in range(d):
                largest = max(largest, abs(values[r, j]))
            whole[r] = largest > 0.0
            if not whole[r]:
                continue
            total = 0.0
            for j in range(d):
                values[r, j] /= largest
                total += values[r, j] * values[r, j]
        norm = np.sqrt(total)
        for j in range(d):
            values[r, j] /= norm
