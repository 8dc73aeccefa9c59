"""From decoded rows to prepared rows: what stands between the data and the model.

A row may be brought to length 1 first; then one affine map takes its features ``(d,)`` to components ``(p,)``. It
holds, in this order, what standardising, feature weights, principal components and whitening do. A prepared row depends
on the decoded row and the map alone, to the last bit: every sum has one order.
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
"""Size of the float64 copy of the rows worked on at once, in bytes: about half a second-level cache."""
TILE = 64
"""Rows that are turned together."""
_SMALLER = 2.0**-600
"""Rows times this stay in the range of float64 when they are prepared."""


@dataclass(frozen=True, eq=False)
class Preparation:
    """What turns decoded rows ``(n, d)`` into prepared rows ``(n, p)`` of float64, and centers back."""

    unit_norm: bool
    """Whether each row is divided by its Euclidean norm first. A row of zeros has no direction, and is left out."""
    offset: Array
    """Taken off the features ``(d,)``."""
    matrix: Array
    """What multiplies them then: a factor each ``(d,)``, p = d, or a matrix ``(d, p)``."""
    inverse: Array
    """Its pseudo-inverse: ``(d,)`` or ``(p, d)``."""
    wish: Mapping[str, Any] = field(default_factory=dict)
    """What was asked for: the keys of ``preprocess`` that are set, as JSON."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What came out of it, as JSON: the number of components and the share of the variance that they hold."""
    words: str = ""
    """Both for people."""
    explained: Array = field(default_factory=lambda: np.zeros(0))
    """Share of each principal component in the variance ``(p,)``; empty without principal components."""
    once: bool = False
    """Whether this is for pass 0 alone, so that rows are not kept as it makes them."""

    @property
    def diagonal(self) -> bool:
        """Whether each component is one feature, in other units."""
        return self.matrix.ndim == 1

    @property
    def summary(self) -> dict[str, Any]:
        """What is worth telling, as JSON."""
        return {"words": self.words, **self.facts}

    @property
    def rescales(self) -> bool:
        """Whether each component is one feature in other units, and no feature is lost."""
        return self.diagonal and bool((self.matrix > 0.0).all())

    @property
    def invertible(self) -> bool:
        """Whether decoded rows follow from prepared ones: nothing is lost but rounding."""
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
        """Prepare the rows of a block; what a row lacks stays NaN where the map is diagonal."""
        values, whole = self.apply_to_values(rows.values)
        made = replace(rows, values=values, prepared=True)
        return made if whole.all() else replace(made.select(whole), zero_rows=int(np.sum(~whole)))

    def apply_to_values(self, values: NDArray[Any]) -> tuple[Array, NDArray[np.bool_]]:
        """Prepare values ``(n, d)``.

        Returns
        -------
        Array
            ``(n, p)``.
        ndarray of bool
            Rows ``(n,)`` that have a direction, where that is asked for; otherwise all.
        """
        n, d = values.shape
        made, whole = np.empty((n, self.p)), np.ones(n, bool)
        length = max(TILE, PIECE_BYTES // (8 * d) // TILE * TILE)
        for start in range(0, n, length):
            part = slice(start, min(n, start + length))
            piece = values[part]
            if self.unit_norm:
                piece = piece.astype(np.float64, order="C")
                _to_unit_norm(piece, whole[part])
            _map(piece, self.offset, self.matrix, made[part])
            _restore_overflowed(piece, self.offset, self.matrix, made[part])
        return made, whole

    def to_prepared(self, centers: Array) -> Array:
        """Take centers ``(k, d)`` in the data's units to where prepared rows are ``(k, p)``; their length stays."""
        made = np.empty((len(centers), self.p))
        _map(centers, self.offset, self.matrix, made)
        return made

    def to_data_units(self, centers: Array) -> Array:
        """Take centers ``(k, p)`` back to the data's units ``(k, d)``, those of rows of length 1 with `unit_norm`.

        What the map loses comes back as the mean: features of weight 0, and directions without a component.
        """
        made = np.empty((len(centers), len(self.offset)))
        _map(centers, np.zeros(self.p), self.inverse, made)
        return made + self.offset

    def covariance_to_data_units(self, covariance: Array) -> Array:
        """Take a covariance matrix ``(p, p)`` back to the data's units ``(d, d)``."""
        back = np.diag(self.inverse) if self.diagonal else self.inverse
        made: Array = back.T @ covariance @ back
        return 0.5 * (made + made.T)


def only_unit_norm(d: int) -> Preparation:
    """Make what brings rows to length 1 for pass 0, which the rest of a preparation follows from."""
    return Preparation(True, np.zeros(d), np.ones(d), np.ones(d), once=True)


def usable_memory(source: Source, memory: int, prepared: bool) -> int:
    """Take off a memory budget, in bytes, what blocks grow by when they are turned to double precision."""
    return memory * source.row_bytes // max(source.row_bytes, 8 * source.n_features) if prepared else memory


def _map(values: NDArray[Any], offset: Array, matrix: Array, made: Array) -> None:
    """Fill `made` ``(n, p)``."""
    with np.errstate(over="ignore", invalid="ignore"):
        if matrix.ndim == 1:
            np.subtract(values, offset, out=made)
            made *= matrix
        else:
            _multiply(np.subtract(values, offset, order="C"), np.ascontiguousarray(matrix), made)


def _restore_overflowed(values: NDArray[Any], offset: Array, matrix: Array, made: Array) -> None:
    """Put prepared rows ``(n, p)`` that are beyond float64 at its end, in the same direction."""
    if np.isfinite(made).all():
        return
    # What a row lacks is still missing where the map is diagonal.
    lacking = np.isnan(values) if matrix.ndim == 1 else np.zeros(made.shape, bool)
    beyond = np.flatnonzero(~(np.isfinite(made) | lacking).all(axis=1))
    restored = np.empty((len(beyond), made.shape[1]))
    _map(values[beyond].astype(np.float64) * _SMALLER, offset * _SMALLER, matrix, restored)
    powers = np.frexp(np.abs(np.where(lacking[beyond], 0.0, restored)).max(axis=1, initial=0.0))[1]
    made[beyond] = np.ldexp(restored, 1023 - powers[:, None])


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _multiply(values, matrix, made):  # type: ignore[no-untyped-def]
    """Multiply ``(n, d)`` and ``(d, p)``; a tile is always full, so that every row takes the same way."""
    n, d = values.shape
    columns, total = np.zeros((d, TILE)), np.empty(TILE)
    long = d - d % 8
    for start in range(0, n, TILE):
        m = min(TILE, n - start)
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
    """Divide rows ``(n, d)`` by their norm in place; tell which have one, and leave the others as they are."""
    n, d = values.shape
    for r in range(n):
        total = 0.0
        for j in range(d):
            total += values[r, j] * values[r, j]
        if not 1e-280 < total < 1e280:
            # Squares of very small or very large numbers leave the range of float64; those of ratios do not.
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
