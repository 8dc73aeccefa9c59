"""Soft assignment of many rows, a cache-sized sub-block at a time, and the moments that it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from clustering.data.rows import Rows
from clustering.models import kernels, soft_kernels
from clustering.models.assignment import aligned_empty, compiled_for
from clustering.models.columns import sub_block_length
from clustering.models.kmeans import FARTHEST, Distant, seen
from clustering.models.model import Assignment
from clustering.models.remote import Ranks

Array = NDArray[np.float64]

Squares = Callable[[Array, Array, Array], None]
"""Fills ``(k, m)`` with the divergences of columns ``(d, m)``, of squared norms ``(m,)``, from every center."""


class Shared(NamedTuple):
    """Some consecutive rows with their responsibilities. All arrays are reused for the next ones."""

    start: int
    stop: int
    columns: Array
    """Rows less the shift, side by side ``(d, m)``."""
    shares: Array
    """Responsibilities times weights ``(k, m)``."""
    density: Array
    """log Σ_k exp L_k ``(m,)``."""
    labels: NDArray[np.int32]
    """Cluster of the largest responsibility ``(m,)``."""
    least: Array
    """Divergence from its center ``(m,)``."""
    likelihood: float
    """Σ w log Σ_k exp L_k."""
    energy: float
    """Σ w r L."""
    norms: Array = np.zeros(0)
    """Squared norms of the columns ``(m,)``."""
    places: NDArray[np.intp] | slice = slice(0)
    """Of the rows in their block, where they are not ``start`` to ``stop``; see `placed`."""
    remote: float = 0.0
    """Σ w of rows whose divergences are all beyond float64; what they are does not count in the sums."""

    @property
    def responsibilities(self) -> Array:
        """Responsibilities ``(k, m)``; of rows of weight 0 they cannot be told, and are 0."""
        total = self.shares.sum(axis=0)
        found: Array = self.shares / np.where(total > 0.0, total, 1.0)
        return found


def shared(rows: Rows, shift: Array, k: int, squares: Squares, rates: Array, constants: Array) -> Iterator[Shared]:
    """Share rows among k clusters by the softmax of L = constant − rate · divergence.

    Parameters
    ----------
    shift
        Taken off the rows in float64 first ``(d,)``.
    rates, constants
        ``(k,)``.
    """
    n, d = rows.values.shape
    length = min(sub_block_length(d, k), n)
    values = compiled_for(rows.values)
    columns_of, shares_of = aligned_empty((d * length,)), aligned_empty((k * length,))
    norms_of, density, labels, least = np.empty(length), np.empty(length), np.empty(length, np.int32), np.empty(length)
    for start in range(0, n, max(1, length)):
        stop = min(n, start + length)
        m = stop - start
        columns, shares = columns_of[: d * m].reshape(d, m), shares_of[: k * m].reshape(k, m)
        norms = norms_of[:m]
        soft_kernels.turn(values[start:stop], shift, columns, norms)
        squares(columns, norms, shares)
        likelihood, energy = soft_kernels.soften(
            shares, rates, constants, rows.weights[start:stop], shares, density[:m], labels[:m], least[:m]
        )
        yield Shared(start, stop, columns, shares, density[:m], labels[:m], least[:m], likelihood, energy, norms)


def placed(parts: Iterable[Shared], gaps: NDArray[np.bool_] | None, *, with_gaps: bool) -> Iterator[Shared]:
    """Tell where rows are in their block, of which `parts` are those with gaps, or the others."""
    places = None if gaps is None else np.flatnonzero(gaps if with_gaps else ~gaps)
    for part in parts:
        inside = part.places if isinstance(part.places, np.ndarray) else slice(part.start, part.stop)
        yield part._replace(places=inside if places is None else places[inside])


def settled(
    parts: Iterable[Shared],
    rows: Rows,
    shift: Array,
    rank: Callable[[Array], tuple[Ranks, Array]],
) -> Iterator[Shared]:
    """Share rows, all of whose divergences are beyond float64, among the nearest clusters.

    Parameters
    ----------
    parts
        Some rows with their responsibilities, at their places in the block.
    rank
        Ranks clusters for columns ``(d, m)`` less the shift, and gives L ``(k, m)`` as it is among equals.
    """
    for part in parts:
        remote = np.flatnonzero(~np.isfinite(part.density))
        yield part if not len(remote) else _settled(part, remote, rows, shift, rank)


def _settled(
    part: Shared,
    remote: NDArray[np.intp],
    rows: Rows,
    shift: Array,
    rank: Callable[[Array], tuple[Ranks, Array]],
) -> Shared:
    places = np.arange(len(rows))[part.places]
    columns = np.ascontiguousarray((rows.values[places[remote]].astype(np.float64) - shift).T)
    (ranks, logits), weights = rank(columns), rows.weights[places]
    responsibilities = special.softmax(np.where(ranks.leading, logits, -np.inf), axis=0)
    labels = responsibilities.argmax(axis=0)
    part.labels[remote], part.least[remote] = labels, ranks.squares[labels, np.arange(len(remote))]
    part.density[remote], part.shares[:, remote] = -np.inf, responsibilities * weights[remote]
    near = np.isfinite(part.density)
    likelihood = float(weights[near] @ part.density[near])
    entropy = float(special.entr(part.shares / np.where(weights > 0.0, weights, 1.0)).sum(axis=0) @ weights)
    return part._replace(
        likelihood=likelihood, energy=likelihood - entropy, remote=float(weights[remote].sum()),
    )  # fmt: skip


def assignment(parts: Iterable[Shared], n: int, k: int, see: Callable[[Shared], None] | None = None) -> Assignment:
    """Gather what is known of the n rows of a block; the objective is −Σ w log Σ exp L.

    Parameters
    ----------
    see
        Called with each part, whose arrays are reused afterwards.
    """
    labels, distances = np.empty(n, np.int32), np.empty(n)
    weight, likelihood, energy, remote = np.zeros(k), 0.0, 0.0, 0.0
    for part in parts:
        labels[part.places], distances[part.places] = part.labels, part.least
        weight += part.shares.sum(axis=1)
        likelihood += part.likelihood
        energy += part.energy
        remote += part.remote
        if see is not None:
            see(part)
    # −Σ w r log r = Σ w (log Σ exp L − Σ r L), zero or more but for rounding.
    objective = np.inf if remote > 0.0 else -likelihood
    return Assignment(labels, distances, weight, objective, max(0.0, likelihood - energy))


@dataclass(frozen=True, eq=False)
class Moments:
    """The additive statistics of soft assignment, about the centers that entered the pass.

    Of divergences that are no distances, sums are about zero.
    """

    weight: Array
    """Σ s of each cluster ``(k,)``, with s a row's weight times its responsibility."""
    first: Array
    """Σ s (x − center) ``(k, d)``."""
    second: Array
    """Σ s (x − center)(x − center)ᵀ, as much of it as the covariance asks for."""
    overlap: Array
    """Σ s_i s_j / w of each pair of clusters ``(k, k)``; empty where it is not asked for."""
    objective: float
    """−Σ w log Σ_k exp L_k."""
    energy: float
    """−Σ s L; of rows with gaps in a mixture, L is what it is expected to be for the whole row."""
    count: int
    distant: Distant
    observed: Array = field(default_factory=lambda: np.zeros((0, 0)))
    """Σ s of the rows that have each feature ``(k, d)``; empty where all rows have all."""

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.weight + other.weight,
            self.first + other.first,
            self.second + other.second,
            self.overlap + other.overlap,
            self.objective + other.objective,
            self.energy + other.energy,
            self.count + other.count,
            self.distant.joined(other.distant, min(len(self.weight), FARTHEST)),
            seen(self.weight, self.observed, other.weight, other.observed),
        )

    @property
    def sums(self) -> Mapping[str, Array]:
        """The sums that the update is made of."""
        return {
            "weight": self.weight, "first": self.first, "second": self.second, "overlap": self.overlap,
            "observed": self.observed,
        }  # fmt: skip


class Gathered:
    """Keeps the farthest rows of a block while it is worked through."""

    def __init__(self, rows: Rows, k: int) -> None:
        self.rows, self.most = rows, min(k, FARTHEST)
        none = np.zeros(0)
        self.distant = Distant(
            none, np.zeros(0, np.int64), np.zeros(0, np.int32), none, np.zeros((0, rows.values.shape[1]))
        )

    def take(self, part: Shared) -> None:
        """Look at some more rows."""
        weights = self.rows.weights[part.start : part.stop]
        floor = float(self.distant.distances[-1]) if len(self.distant.distances) == self.most else 0.0
        places = kernels.farthest(part.least, weights, floor, self.most)
        if len(places):
            found: Any = Distant(
                part.least[places],
                self.rows.positions(places + part.start),
                part.labels[places],
                weights[places],
                np.ascontiguousarray(part.columns[:, places].T),
            )
            self.distant = self.distant.joined(found, self.most)
