"""Rows so far out that their squares are beyond float64: which center is nearest all the same.

A row x = 2ᵉ u, the largest feature of u near 1, has ‖A (x − c)‖² = 4ᵉ ‖A (u − 2⁻ᵉ c)‖², which is in range but for the
power. Where it is equal for several centers, what they differ by is linear in the row, and in range but for 2ᵉ.
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
"""Takes columns ``(d, m)`` through the factor A of a cluster."""

SCALE = 2.0**-600
"""Rows times this have squares in range, and keep their digits."""


class Ranks(NamedTuple):
    """What tells which clusters are nearest."""

    leading: NDArray[np.bool_]
    """Clusters ``(k, m)`` that no other is nearer than by more than float64 can tell."""
    remainder: Array
    """Divergences of these less that of one of them ``(k, m)``."""
    squares: Array
    """Divergences of all ``(k, m)``, infinite where they are beyond float64."""

    @property
    def labels(self) -> NDArray[np.intp]:
        """The nearest cluster ``(m,)``, the lowest among equals."""
        first: NDArray[np.intp] = _least(self.remainder, self.leading).argmax(axis=0)
        return first


def _least(key: Array, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell where a key ``(k, m)`` is least among some clusters."""
    least: NDArray[np.bool_] = among & (key <= np.where(among, key, np.inf).min(axis=0))
    return least


def _ranked(leading: NDArray[np.bool_], key: Array, powers: NDArray[np.intc], rest: Array, squares: Array) -> Ranks:
    """Rank clusters whose divergences differ by 2ᵖ·key + rest ``(k, m)``, and say which are beyond all others."""
    whole = np.ldexp(key, powers) + rest
    beyond = leading & np.isneginf(whole)
    overflowed = beyond.any(axis=0)
    leading = np.where(overflowed, _least(key, beyond), leading)
    return Ranks(leading, np.where(overflowed, rest, whole), squares)


def rank_by_squares(columns: Array, centers: Array, turn: Turn) -> Ranks:
    """Rank centers ``(k, d)`` by ‖A (x − c)‖² for columns ``(d, m)``, over the features that are not NaN."""
    seen = ~np.isnan(columns)
    # At the very end of float64 the origin may have carried a row beyond it.
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
    """Rank centers by a divergence of `clustering.models.divergences`, as k-means and soft k-means compare them."""
    if divergence == "squared_euclidean":
        return rank_by_squares(columns, centers, lambda _, values: values)
    if divergence == "mahalanobis":
        return rank_by_squares(columns, centers, lambda _, values: matrix @ values)
    # What differs from center to center is linear in the row.
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
    """Take roots of squared distances ``(k, m)``, of those beyond float64 by way of smaller numbers.

    Parameters
    ----------
    squares
        Makes them of columns ``(d, m)`` and centers ``(k, d)``; of all times a number, they are that times its square.
    """
    distances = squares(columns, centers)
    remote = ~np.isfinite(distances)
    if remote.any():
        distances[remote] = squares(columns * SCALE, centers * SCALE)[remote]
    np.sqrt(distances, out=distances)
    distances[remote] /= SCALE
    return distances
