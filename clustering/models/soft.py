"""Soft assignment of many rows, a cache-sized sub-block at a time, and the moments that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.blas import scipy
from clustering.data.rows import Rows
from clustering.models import kernels, soft_kernels
from clustering.models.assignment import Assignment, aligned_empty, compiled_for
from clustering.models.columns import sub_block_length
from clustering.models.farthest import FARTHEST, BlockPosition, FarthestRows
from clustering.models.kmeans_statistics import add_observed
from clustering.models.overflow import Ranks

Array = NDArray[np.float64]

Squares = Callable[[Array, Array, Array], None]
"""Fills its third argument ``(k, m)`` with the divergences of columns ``(d, m)``, of squared norms ``(m,)``, from every
center."""


class Responsibilities(NamedTuple):
    """Some consecutive rows with their responsibilities. All arrays are reused for the next rows."""

    start: int
    stop: int
    columns: Array
    """Rows less the origin, one row in each column ``(d, m)``."""
    weighted_resp: Array
    """Responsibilities times weights ``(k, m)``."""
    log_prob_norm: Array
    """log Σ_k exp L_k ``(m,)``."""
    labels: NDArray[np.int32]
    """Cluster of the largest responsibility ``(m,)``."""
    own_divergence: Array
    """Divergence of each row from the center of its label ``(m,)``."""
    log_likelihood: float
    """Σ w log Σ_k exp L_k."""
    expected_complete_log_likelihood: float
    """Σ w r L."""
    norms: Array = np.zeros(0)
    """Squared norms of the columns ``(m,)``."""
    row_index: NDArray[np.intp] | slice = slice(0)
    """Places of the rows in their block, where they are not ``start`` to ``stop``; see `with_row_index`."""
    overflow_weight: float = 0.0
    """Σ w of rows whose divergences are all beyond float64; `log_likelihood` leaves them out."""

    @property
    def responsibilities(self) -> Array:
        """Responsibilities ``(k, m)``; those of rows of weight 0 are lost, and given as 0."""
        total = self.weighted_resp.sum(axis=0)
        resp: Array = self.weighted_resp / np.where(total > 0.0, total, 1.0)
        return resp


def e_step(
    rows: Rows, origin: Array, k: int, squares: Squares, rates: Array, constants: Array
) -> Iterator[Responsibilities]:
    """Compute responsibilities for k clusters, the softmax of L = constant − rate · divergence.

    Parameters
    ----------
    rows
        Prepared rows of a block ``(n, d)``, none with missing features.
    origin
        Subtracted from the rows in float64 first ``(d,)``.
    k
        Number of clusters.
    squares
        Function that fills an array ``(k, m)`` with divergences.
    rates, constants
        Rate and constant of each cluster ``(k,)``.

    Yields
    ------
    Responsibilities
        Responsibilities of consecutive rows, in arrays that are reused.
    """
    n, d = rows.values.shape
    length = min(sub_block_length(d, k), n)
    values = compiled_for(rows.values)
    columns_buffer, resp_buffer = aligned_empty((d * length,)), aligned_empty((k * length,))
    norms_buffer, log_prob_norm, labels, own_divergence = (
        np.empty(length),
        np.empty(length),
        np.empty(length, np.int32),
        np.empty(length),
    )
    # A block without rows has a length of 0, which `range` refuses as a step.
    for start in range(0, n, max(1, length)):
        stop = min(n, start + length)
        m = stop - start
        # Slices of flat buffers stay contiguous where the last sub-block is shorter.
        columns, weighted_resp = columns_buffer[: d * m].reshape(d, m), resp_buffer[: k * m].reshape(k, m)
        norms = norms_buffer[:m]
        soft_kernels.center_columns(values[start:stop], origin, columns, norms)
        squares(columns, norms, weighted_resp)
        log_likelihood, expected_complete_log_likelihood = soft_kernels.softmax(
            weighted_resp,
            rates,
            constants,
            # Weights of stride 0 would compile the kernel once more.
            np.ascontiguousarray(rows.weights[start:stop]),
            weighted_resp,
            log_prob_norm[:m],
            labels[:m],
            own_divergence[:m],
        )
        yield Responsibilities(
            start,
            stop,
            columns,
            weighted_resp,
            log_prob_norm[:m],
            labels[:m],
            own_divergence[:m],
            log_likelihood,
            expected_complete_log_likelihood,
            norms,
        )


def with_row_index(
    parts: Iterable[Responsibilities], has_missing: NDArray[np.bool_] | None, *, missing: bool
) -> Iterator[Responsibilities]:
    """Set the places of rows in their block, where `parts` hold only some of its rows.

    Parameters
    ----------
    parts
        Responsibilities of the rows with missing features, or of the complete ones.
    has_missing
        True ``(n,)`` for rows of the block with missing features; None where there are none.
    missing
        Whether `parts` hold the rows with missing features.
    """
    index = None if has_missing is None else np.flatnonzero(has_missing if missing else ~has_missing)
    for part in parts:
        inside = part.row_index if isinstance(part.row_index, np.ndarray) else slice(part.start, part.stop)
        yield part._replace(row_index=inside if index is None else index[inside])


def resolve_overflow(
    parts: Iterable[Responsibilities],
    rows: Rows,
    origin: Array,
    rank: Callable[[Array], tuple[Ranks, Array]],
) -> Iterator[Responsibilities]:
    """Replace the responsibilities of rows whose divergences are all beyond float64: the nearest clusters share them.

    Parameters
    ----------
    parts
        Responsibilities of some rows, with their places in the block.
    rows
        All rows of the block ``(n, d)``.
    origin
        Origin ``(d,)`` of the columns that `rank` takes.
    rank
        Ranks clusters for columns ``(d, m)`` less the origin, and gives L ``(k, m)`` up to a constant of each row.
    """
    for part in parts:
        remote = np.flatnonzero(~np.isfinite(part.log_prob_norm))
        yield part if not len(remote) else _resolve_overflow(part, remote, rows, origin, rank)


def _resolve_overflow(
    part: Responsibilities,
    overflowed: NDArray[np.intp],
    rows: Rows,
    origin: Array,
    rank: Callable[[Array], tuple[Ranks, Array]],
) -> Responsibilities:
    row_index = np.arange(len(rows))[part.row_index]
    columns = np.ascontiguousarray((rows.values[row_index[overflowed]].astype(np.float64) - origin).T)
    (ranks, logits), weights = rank(columns), rows.weights[row_index]
    responsibilities = scipy.special.softmax(np.where(ranks.leading, logits, -np.inf), axis=0)
    # `argmax` takes the lowest index among equals, which is the tie rule of all models.
    labels = responsibilities.argmax(axis=0)
    part.labels[overflowed], part.own_divergence[overflowed] = labels, ranks.squares[labels, np.arange(len(overflowed))]
    # The density of such a row is 0 in float64, but its label and its responsibilities are known.
    part.log_prob_norm[overflowed], part.weighted_resp[:, overflowed] = -np.inf, responsibilities * weights[overflowed]
    # The sums of the part hold infinities of these rows, so they are made anew.
    finite = np.isfinite(part.log_prob_norm)
    log_likelihood = float(weights[finite] @ part.log_prob_norm[finite])
    entropy = float(
        scipy.special.entr(part.weighted_resp / np.where(weights > 0.0, weights, 1.0)).sum(axis=0) @ weights
    )
    return part._replace(
        log_likelihood=log_likelihood,
        expected_complete_log_likelihood=log_likelihood - entropy,
        overflow_weight=float(weights[overflowed].sum()),
    )


def gather_assignment(
    parts: Iterable[Responsibilities], n: int, k: int, on_part: Callable[[Responsibilities], None] | None = None
) -> Assignment:
    """Gather the labels and sums of the rows of a block; the objective is −Σ w log Σ exp L.

    Parameters
    ----------
    parts
        Responsibilities of all rows of the block, in any order.
    n, k
        Number of rows and of clusters.
    on_part
        Called with each part, whose arrays are reused after the call.
    """
    labels, distances = np.empty(n, np.int32), np.empty(n)
    weight, log_likelihood, expected_complete_log_likelihood, overflow_weight = np.zeros(k), 0.0, 0.0, 0.0
    for part in parts:
        labels[part.row_index], distances[part.row_index] = part.labels, part.own_divergence
        weight += part.weighted_resp.sum(axis=1)
        log_likelihood += part.log_likelihood
        expected_complete_log_likelihood += part.expected_complete_log_likelihood
        overflow_weight += part.overflow_weight
        if on_part is not None:
            on_part(part)
    # The entropy −Σ w r log r is Σ w (log Σ exp L − Σ r L), which rounding may take below zero.
    objective = np.inf if overflow_weight > 0.0 else -log_likelihood
    return Assignment(labels, distances, weight, objective, max(0.0, log_likelihood - expected_complete_log_likelihood))


@dataclass(frozen=True, eq=False)
class Moments:
    """Additive statistics of soft assignment, about the centers that entered the pass.

    For divergences that are not translation invariant, the sums are about zero.
    """

    weight: Array
    """Effective size Σ s of each cluster ``(k,)``, with s a row's weight times its responsibility."""
    first: Array
    """Σ s (x − center) ``(k, d)``."""
    second: Array
    """Σ s (x − center)(x − center)ᵀ, as much of it as the kind of covariance needs."""
    overlap: Array
    """Σ s_i s_j / w of each pair of clusters ``(k, k)``; empty where the kind of covariance does not need it."""
    objective: float
    """−Σ w log Σ_k exp L_k."""
    neg_expected_complete_log_likelihood: float
    """−Σ s L. For rows with missing features in a mixture, L is its expected value over these features."""
    count: int
    farthest: FarthestRows
    observed: Array = field(default_factory=lambda: np.zeros((0, 0)))
    """Σ s of the rows that have each feature ``(k, d)``; empty where no row has missing features."""

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.weight + other.weight,
            self.first + other.first,
            self.second + other.second,
            self.overlap + other.overlap,
            self.objective + other.objective,
            self.neg_expected_complete_log_likelihood + other.neg_expected_complete_log_likelihood,
            self.count + other.count,
            self.farthest.merged(other.farthest, min(len(self.weight), FARTHEST)),
            add_observed(self.weight, self.observed, other.weight, other.observed),
        )

    @property
    def sums(self) -> Mapping[str, Array]:
        """Sums that an update is made from."""
        return {
            "weight": self.weight, "first": self.first, "second": self.second, "overlap": self.overlap,
            "observed": self.observed,
        }  # fmt: skip

    def repositioned(self, before: BlockPosition, now: BlockPosition) -> Moments:
        """Return the moments of the same rows in a block that lies elsewhere on another sample grid.

        Parameters
        ----------
        before, now
            Position of the block on the previous sample grid and on the present one.
        """
        return replace(self, farthest=self.farthest.repositioned(before, now))


class FarthestRowsTracker:
    """Keeps the farthest rows of a block while its sub-blocks are worked through."""

    def __init__(self, rows: Rows, k: int) -> None:
        self.rows, self.limit = rows, min(k, FARTHEST)
        none = np.zeros(0)
        self.farthest = FarthestRows(
            none, np.zeros(0, np.int64), np.zeros(0, np.int32), none, np.zeros((0, rows.values.shape[1]))
        )

    def update(self, part: Responsibilities) -> None:
        """Compare the rows of a sub-block with the farthest ones so far.

        Parameters
        ----------
        part
            Responsibilities of consecutive rows of the block.
        """
        weights = self.rows.weights[part.start : part.stop]
        floor = float(self.farthest.distances[-1]) if len(self.farthest.distances) == self.limit else 0.0
        index = kernels.farthest_rows(part.own_divergence, weights, floor, self.limit)
        if len(index):
            new: Any = FarthestRows(
                part.own_divergence[index],
                self.rows.positions(index + part.start),
                part.labels[index],
                weights[index],
                np.ascontiguousarray(part.columns[:, index].T),
            )
            self.farthest = self.farthest.merged(new, self.limit)
