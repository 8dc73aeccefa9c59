"""k-means: hard assignment to the nearest center, refitting to the weighted mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.errors import ConfigError
from clustering.models import kernels
from clustering.models.assignment import nearest
from clustering.models.lloyd import lloyd

Array = NDArray[np.float64]

FARTHEST = 64
"""Farthest rows kept per pass at most, as new places for empty clusters."""


@dataclass(frozen=True, eq=False)
class KMeansParams:
    """What a pass needs: where the clusters are."""

    shift: Array
    """Origin ``(d,)`` in the data's units, fixed for a run; subtracting it first keeps the digits of far-off data."""
    centers: Array
    """Centers less the shift, ``(k, d)``."""
    spread: float = np.inf
    """Σ w ‖x − shift‖² of all rows, where it is known."""

    @property
    def k(self) -> int:
        """Number of clusters."""
        return len(self.centers)


class Distant(NamedTuple):
    """Rows far from their centers, farthest first, lower position first among equals."""

    distances: Array
    """Squared distances ``(t,)``."""
    positions: NDArray[np.int64]
    """Positions on the sample grid ``(t,)``."""
    labels: NDArray[np.int32]
    """Clusters ``(t,)``."""
    weights: Array
    """Weights ``(t,)``."""
    rows: Array
    """Rows less the shift ``(t, d)``."""

    def joined(self, other: Distant, most: int) -> Distant:
        """Keep the farthest of both."""
        distances = np.concatenate([self.distances, other.distances])
        positions = np.concatenate([self.positions, other.positions])
        first = np.lexsort((positions, -distances))[:most]
        return Distant(
            distances[first],
            positions[first],
            np.concatenate([self.labels, other.labels])[first],
            np.concatenate([self.weights, other.weights])[first],
            np.concatenate([self.rows, other.rows])[first],
        )


@dataclass(frozen=True, eq=False)
class KMeansStatistics:
    """The additive statistics of one candidate: ``a + b`` are those of the rows of both."""

    weight: Array
    """Σ w of each cluster ``(k,)``."""
    first: Array
    """Σ w (x − shift) of each cluster ``(k, d)``."""
    objective: float
    """J of the assignment, Σ w ‖x − m‖², for the params that entered the pass."""
    count: int
    """Number of rows."""
    distant: Distant

    def __add__(self, other: KMeansStatistics) -> KMeansStatistics:
        return KMeansStatistics(
            self.weight + other.weight,
            self.first + other.first,
            self.objective + other.objective,
            self.count + other.count,
            self.distant.joined(other.distant, min(len(self.weight), FARTHEST)),
        )

    @classmethod
    def zero(cls, k: int, d: int) -> KMeansStatistics:
        """Return the statistics of no rows."""
        none = np.zeros(0)
        distant = Distant(none, np.zeros(0, np.int64), np.zeros(0, np.int32), none, np.zeros((0, d)))
        return cls(np.zeros(k), np.zeros((k, d)), 0.0, 0, distant)

    def same_sums(self, other: KMeansStatistics) -> bool:
        """Tell whether the sums are equal to the last bit: then another pass would change nothing."""
        return np.array_equal(self.weight, other.weight) and np.array_equal(self.first, other.first)


class Update(NamedTuple):
    """Outcome of a refitting step."""

    params: KMeansParams
    objective: float
    """J of the same assignment at the new centers."""
    reseeded: tuple[int, ...] = ()
    """Clusters that had no rows and were placed at far rows."""
    empty: tuple[int, ...] = ()
    """Clusters that had no rows and stayed where they were, for want of a distinct far row."""


class Assignment(NamedTuple):
    """Labels of the rows of a block."""

    labels: NDArray[np.int32]
    """Cluster of each row ``(n,)``."""
    distances: Array
    """Squared distance to its center ``(n,)``."""
    weight: Array
    """Σ w of each cluster ``(k,)``."""
    objective: float
    """J: Σ w · squared distance."""


@dataclass(frozen=True)
class KMeans:
    """k-means with squared Euclidean distance (lecture, "K-means"; Lloyd 1982, doi:10.1109/TIT.1982.1056489).

    Parameters
    ----------
    k
        Number of clusters, 1 or more.

    Raises
    ------
    ConfigError
        If `k` is not a whole number of 1 or more.
    """

    k: int
    kind = "kmeans"

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, (int, np.integer)) or self.k < 1:
            raise ConfigError(f"k is {self.k!r}; the number of clusters is a whole number of 1 or more")

    def statistics(self, params: KMeansParams, rows: Rows) -> KMeansStatistics:
        """Assign each row to its nearest center and add up (lecture, "Assignment step")."""
        most = min(params.k, FARTHEST)
        found = lloyd(rows.values, rows.weights, params.shift, params.centers, most)
        distances, places, labels = found.far
        distant = Distant(distances, rows.positions(places), labels, rows.weights[places], found.rows)
        return KMeansStatistics(found.weight, found.first, found.objective, len(rows), distant)

    def update(self, params: KMeansParams, statistics: KMeansStatistics) -> Update:
        """Move each center to the mean of its rows (lecture, "Refitting step").

        A cluster without rows is placed at the farthest row from its center, which leaves its former cluster; so J
        falls by at least that row's share, and no center is ever NaN.
        """
        weight, first = statistics.weight.copy(), statistics.first.copy()
        objective = statistics.objective
        vacant = [int(i) for i in np.flatnonzero(weight <= 0.0)]
        reseeded: list[int] = []
        placed = params.centers.copy()
        for row in _distinct(statistics.distant):
            if len(reseeded) == len(vacant):
                break
            donor, w = int(statistics.distant.labels[row]), float(statistics.distant.weights[row])
            x = statistics.distant.rows[row]
            # A row no farther than its center is rounded is where the center is.
            if statistics.distant.distances[row] <= 1e-28 * float(x @ x + placed[donor] @ placed[donor]):
                continue
            # What rounding leaves of a cluster's weight is no row.
            if weight[donor] - w <= 1e-12 * statistics.weight[donor]:
                continue
            cluster = vacant[len(reseeded)]
            reseeded.append(cluster)
            weight[donor] -= w
            first[donor] -= w * x
            objective -= w * float(statistics.distant.distances[row])
            weight[cluster], first[cluster], placed[cluster] = w, w * x, x
        filled = weight > 0.0
        centers = placed.copy()
        centers[filled] = first[filled] / weight[filled, None]
        for cluster in reseeded:
            centers[cluster] = placed[cluster]
        # Σ w‖x − m‖² = Σ w‖x − c‖² − W‖m − c‖², which loses digits where all rows are far from their centers; then
        # from the shift, Σ w‖x − s‖² − W‖m − s‖², which loses fewer.
        base, origin = (objective, placed) if objective <= params.spread else (params.spread, np.zeros_like(placed))
        gain = float(np.sum(weight[:, None] * (centers - origin) ** 2))
        stuck = tuple(vacant[len(reseeded) :])
        moved = KMeansParams(params.shift, centers, params.spread)
        # Rounded up by the error of the two, so that J as it is told never rises.
        return Update(moved, max(0.0, base - gain) + 16 * np.finfo(float).eps * base, tuple(reseeded), stuck)

    def assign(self, params: KMeansParams, rows: Rows) -> Assignment:
        """Label rows with their nearest centers."""
        labels, distances = np.empty(len(rows), np.int32), np.empty(len(rows))
        weight, first, objective = np.zeros(params.k), np.zeros(params.centers.shape), 0.0
        for part in nearest(rows.values, params.shift, params.centers):
            labels[part.start : part.stop] = part.labels
            distances[part.start : part.stop] = part.distances
            weights = rows.weights[part.start : part.stop]
            objective += kernels.add_up(part.rows, weights, part.labels, part.distances, weight, first)
        return Assignment(labels, distances, weight, objective)


def _distinct(distant: Distant) -> Iterator[int]:
    """Places of rows that differ from all farther ones."""
    seen: set[bytes] = set()
    for i, row in enumerate(distant.rows):
        key = (row + 0.0).tobytes()
        if key not in seen:
            seen.add(key)
            yield i
