"""Farthest rows: rows far from their centers, from which empty clusters restart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FARTHEST = 64
"""Largest number of farthest rows that a pass keeps; further empty clusters wait for the next pass."""


class BlockPosition(NamedTuple):
    """Position of a block on the sample grid."""

    start: tuple[int, ...]
    """First position of the block along each sample dimension."""
    grid: tuple[int, ...]
    """Length of each sample dimension."""


class FarthestRows(NamedTuple):
    """Rows far from their centers: farthest first, and lower position first among equals."""

    distances: Array
    """Own divergences ``(t,)``; for a mixture, squared Mahalanobis distances."""
    positions: NDArray[np.int64]
    """Positions on the sample grid ``(t,)``."""
    labels: NDArray[np.int32]
    """Clusters ``(t,)``."""
    weights: Array
    """Weights ``(t,)``."""
    rows: Array
    """Rows less the origin ``(t, d)``."""

    def repositioned(self, before: BlockPosition, now: BlockPosition) -> FarthestRows:
        """Return the same rows in a block that lies elsewhere on another sample grid.

        Parameters
        ----------
        before, now
            Position of the block on the previous sample grid and on the present one.
        """
        index = np.unravel_index(self.positions, before.grid)
        moved = [p - old + new for p, old, new in zip(index, before.start, now.start, strict=True)]
        flat = np.ravel_multi_index(moved, now.grid) if len(self.positions) else self.positions
        return self._replace(positions=np.asarray(flat, np.int64))

    def merged(self, other: FarthestRows, most: int) -> FarthestRows:
        """Keep the farthest rows of two sets.

        Parameters
        ----------
        other
            The second set.
        most
            Largest number of rows to keep.
        """
        distances = np.concatenate([self.distances, other.distances])
        positions = np.concatenate([self.positions, other.positions])
        # Positions break ties, so that the order of merging does not matter.
        first = np.lexsort((positions, -distances))[:most]
        return FarthestRows(
            distances[first],
            positions[first],
            np.concatenate([self.labels, other.labels])[first],
            np.concatenate([self.weights, other.weights])[first],
            np.concatenate([self.rows, other.rows])[first],
        )


def distinct_rows(farthest: FarthestRows) -> Iterator[int]:
    """Yield the indices of rows that differ from all farther ones.

    Parameters
    ----------
    farthest
        Farthest rows of a pass.
    """
    # Two clusters that restart at equal rows would never part.
    seen: set[bytes] = set()
    for i, row in enumerate(farthest.rows):
        # Adding 0.0 turns −0.0 into 0.0, so that equal rows have equal bytes.
        key = (row + 0.0).tobytes()
        if key not in seen:
            seen.add(key)
            yield i
