"""Overflow: nearest centers of rows so far out that their squares are beyond float64.

A row x = 2ᵉ u, the largest feature of u near 1, has ‖A (x − c)‖² = 4ᵉ ‖A (u − 2⁻ᵉ c)‖², which is in range without the
power. Where it is equal for several centers, their difference is linear in the row, and in range without 2ᵉ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.models.divergences import TINY
from clustering.models.option_names import Divergence

Array = NDArray[np.float64]
Turn = Callable[[int, Array], Array]
"""Multiplies columns ``(d, m)`` by the factor A of the cluster of this index."""

SCALE = 2.0**-600
"""Rows times this number have squares in range, and keep their digits."""


class Ranks(NamedTuple):
    """Comparison of the clusters for some rows."""

    leading: NDArray[np.bool_]
    """True ``(k, m)`` for the nearest clusters, and for those whose divergence equals theirs in float64."""
    remainder: Array
    """Divergences of leading clusters less that of one of them ``(k, m)``."""
    squares: Array
    """Divergences of all ``(k, m)``, infinite where they are beyond float64."""

    @property
    def labels(self) -> NDArray[np.intp]:
        """The nearest cluster ``(m,)``, the lowest among equals."""
        # `argmax` of truth values takes the first one that is true, which is the lowest index.
        first: NDArray[np.intp] = _least(self.remainder, self.leading).argmax(axis=0)
        return first


def _least(key: Array, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where a key ``(k, m)`` is least among the chosen clusters ``(k, m)``."""
    least: NDArray[np.bool_] = among & (key <= np.where(among, key, np.inf).min(axis=0))
    return least


def _ranked(leading: NDArray[np.bool_], key: Array, powers: NDArray[np.intc], rest: Array, squares: Array) -> Ranks:
    """Rank clusters whose divergences differ by 2ᵖ·key + rest ``(k, m)``, also where that is −∞ in float64."""
    whole = np.ldexp(key, powers) + rest
    beyond = leading & np.isneginf(whole)
    overflowed = beyond.any(axis=0)
    leading = np.where(overflowed, _least(key, beyond), leading)
    return Ranks(leading, np.where(overflowed, rest, whole), squares)


def rank_by_squares(columns: Array, centers: Array, turn: Turn) -> Ranks:
    """Rank centers by ‖A (x − c)‖² over the features that are not NaN.

    Parameters
    ----------
    columns
        Rows less the origin as columns ``(d, m)``, NaN where missing.
    centers
        Centers less the origin ``(k, d)``.
    turn
        Multiplies columns by the factor A of a center, given its index.
    """
    seen = ~np.isnan(columns)
    # Subtracting the origin may have made a row infinite that was close to the largest float64.
    rows = np.where(seen, np.nan_to_num(columns, nan=0.0), 0.0)
    powers = np.frexp(np.abs(rows).max(axis=0, initial=0.0))[1]
    first, key, rest = (np.empty((len(centers), columns.shape[1])) for _ in range(3))
    with np.errstate(over="ignore", invalid="ignore"):
        for i, center in enumerate(centers):
            near = np.where(seen, np.ldexp(center[:, None], -powers), 0.0)
            first[i] = np.sum(turn(i, np.ldexp(rows, -powers) - near) ** 2, axis=0)
        leading = _least(first, np.ones(first.shape, bool))
        one = np.where(seen, centers[leading.argmax(axis=0)].T, 0.0)
        diff = np.ldexp(rows, -powers) - np.ldexp(one, -powers)
        for i, center in enumerate(centers):
            # ‖A (x − c)‖² less that of the one is −2 A (x − one)·A (c − one) + ‖A (c − one)‖².
            step = turn(i, np.where(seen, center[:, None] - one, 0.0))
            key[i] = -2.0 * np.sum(turn(i, diff) * step, axis=0)
            rest[i] = np.sum(step**2, axis=0)
        return _ranked(leading, key, powers, rest, np.ldexp(first, 2 * powers))


def rank_by_divergence(divergence: Divergence, matrix: Array, columns: Array, centers: Array) -> Ranks:
    """Rank centers by the divergence of k-means or soft k-means.

    Parameters
    ----------
    divergence
        Divergence other than the cosine, which never overflows.
    matrix
        M of the Mahalanobis distance ``(d, d)``.
    columns
        Rows less the origin as columns ``(d, m)``.
    centers
        Centers less the origin ``(k, d)``.
    """
    if divergence == "squared_euclidean":
        return rank_by_squares(columns, centers, lambda _, values: values)
    if divergence == "mahalanobis":
        return rank_by_squares(columns, centers, lambda _, values: matrix @ values)
    # Differences of these divergences between centers are linear in the row.
    # The further 64 powers of two leave room for sums of products with 1 / c, which may be near the largest number.
    powers = np.frexp(columns.max(axis=0))[1] + 64
    along, floored = np.ldexp(columns, -powers), np.maximum(centers, TINY)
    if divergence == "kullback_leibler":
        key, rest = -np.log(floored) @ along, centers.sum(axis=1)
    else:
        key, rest = (1.0 / floored) @ along, np.log(floored).sum(axis=1)
    key -= key.min(axis=0)
    everywhere = np.ones(key.shape, bool)
    with np.errstate(over="ignore"):
        whole = np.ldexp(key, powers) + (rest - rest.min())[:, None]
    return Ranks(everywhere, whole, np.full(key.shape, np.inf))


def overflow_safe_roots(squares: Callable[[Array, Array], Array], columns: Array, centers: Array) -> Array:
    """Compute roots of squared distances ``(k, m)``; where squares are beyond float64, from rescaled rows.

    Parameters
    ----------
    squares
        Makes squared distances of columns and centers; if both are scaled by a, the squares must be scaled by a².
    columns
        Rows less the origin as columns ``(d, m)``.
    centers
        Centers less the origin ``(k, d)``.
    """
    distances = squares(columns, centers)
    remote = ~np.isfinite(distances)
    if remote.any():
        distances[remote] = squares(columns * SCALE, centers * SCALE)[remote]
    np.sqrt(distances, out=distances)
    distances[remote] /= SCALE
    return distances
