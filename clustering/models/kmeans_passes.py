"""Passes of k-means: functions that make the statistics of blocks, with what they need of the params prepared once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.models import divergences as geometry
from clustering.models import kernels
from clustering.models.assignment import AssignedRows
from clustering.models.farthest import FARTHEST, FarthestRows
from clustering.models.kmeans_params import KMeansParams
from clustering.models.kmeans_statistics import KMeansStatistics
from clustering.models.lloyd import LloydSums, lloyd, start_split
from clustering.models.lloyd_buffers import PreparedCenters, SplitRows
from clustering.models.margins import FarRows, MarginSample, MarginStatistics, SplitStatistics
from clustering.models.option_names import Divergence
from clustering.models.recalled_buffers import Recalled
from clustering.models.run_statistics import RunStatistics
from clustering.models.tree import fold

Array = NDArray[np.float64]


class HardClusters(Protocol):
    """What the passes ask of the model."""

    @property
    def divergence(self) -> Divergence:
        """Divergence of rows from centers."""

    def rows_with_missing(self, params: KMeansParams, rows: Rows) -> tuple[KMeansStatistics, Any, Any]:
        """Make the statistics, labels and distances of rows with missing features.

        Parameters
        ----------
        params, rows
            Params of the pass, and rows that each miss a feature.
        """


@dataclass(frozen=True, eq=False)
class LloydPass(RunStatistics[KMeansStatistics], MarginStatistics[KMeansStatistics]):
    """Statistics of a pass with squared distances, whose centers are prepared once."""

    model: HardClusters
    params: KMeansParams
    centers: PreparedCenters

    @property
    def row_operations(self) -> float:
        """Operations of the products, and those that each feature needs beside."""
        k, d = self.params.centers.shape
        return float(2 * d * (k + 32))

    @property
    def points(self) -> Array:
        """Centers less the origin ``(k, d)``."""
        return self.params.centers

    def of_run(self, blocks: Sequence[Rows]) -> KMeansStatistics:
        """Make the statistics of a run of blocks by one compiled call, where no row has missing features."""
        if any(rows.has_missing is not None for rows in blocks):
            return fold(map(self._of_block, blocks))
        return self._complete(blocks)

    def _of_block(self, rows: Rows) -> KMeansStatistics:
        if rows.has_missing is None:
            return self._complete([rows])
        complete, incomplete = rows.select(~rows.has_missing), rows.select(rows.has_missing)
        return self._complete([complete]) + self.model.rows_with_missing(self.params, incomplete)[0]

    def recalled(self, blocks: Sequence[Rows], memory: Recalled) -> KMeansStatistics:
        """Make the same statistics of a run of blocks without missing features by the labels of the pass before.

        Parameters
        ----------
        blocks
            Rows of one or more blocks, in order.
        memory
            What is remembered of their rows; afterwards, what is to be remembered.
        """
        return self._complete(blocks, recalled=memory)

    def _complete(
        self, blocks: Sequence[Rows], split: SplitRows | None = None, recalled: Recalled | None = None
    ) -> KMeansStatistics:
        sums: LloydSums = lloyd(blocks, self.centers, min(self.params.k, FARTHEST), None, split, recalled)
        return KMeansStatistics(sums.weight, sums.first, sums.objective, sum(map(len, blocks)), sums.farthest)

    def split(
        self, rows: Rows, budgets: Array, stride: int
    ) -> tuple[SplitStatistics[KMeansStatistics], NDArray[np.bool_]]:
        """Make the statistics of one block, and split its rows; those with missing features count as near."""
        if rows.has_missing is not None:
            complete, near = self.split(rows.select(~rows.has_missing), budgets, stride)
            incomplete = self.model.rows_with_missing(self.params, rows.select(rows.has_missing))[0]
            all_near = np.ones(len(rows), bool)
            all_near[~rows.has_missing] = near
            far = replace(complete.far, near=int(all_near.sum()))
            return SplitStatistics(complete.statistics + incomplete, far, complete.margins), all_near
        split = start_split(len(rows), self.centers, budgets, stride)
        statistics = self._complete([rows], split)
        count = int(split.near.sum())
        far = FarRows(split.weight, split.first, split.cost, split.radius, len(rows) - count, count)
        return SplitStatistics(statistics, far, _sample(split.labels, split.margins, stride)), split.near

    def far_statistics(self, far: FarRows, now: LloydPass) -> KMeansStatistics:
        """Make the statistics of far rows at later centers."""
        return _far_statistics(far, self.params, self.points, now.points, 1.0)


@dataclass(frozen=True, eq=False)
class MetricPass(MarginStatistics[KMeansStatistics]):
    """Statistics of a pass whose rows are mapped to where squared distances, times a factor, are the divergence."""

    model: HardClusters
    params: KMeansParams

    @cached_property
    def points(self) -> Array:
        """Centers ``(k, d)`` as rows are mapped."""
        return geometry.metric_points(self.model.divergence, self.params.matrix, self.params.centers)

    def __call__(self, rows: Rows) -> KMeansStatistics:
        """Make the statistics of one block."""
        return add_up_rows(self.model.divergence, self.params, rows)

    def split(
        self, rows: Rows, budgets: Array, stride: int
    ) -> tuple[SplitStatistics[KMeansStatistics], NDArray[np.bool_]]:
        """Make the statistics of one block, and split its rows."""
        k, d = self.params.centers.shape
        far = _FarSums(budgets, stride, len(rows), k, d)
        statistics = add_up_rows(self.model.divergence, self.params, rows, far)
        near = int(far.near.sum())
        radius = np.sqrt(far.most / geometry.METRIC_FACTOR[self.model.divergence])
        return SplitStatistics(
            statistics,
            FarRows(far.weight, far.first, far.cost, radius, len(rows) - near, near),
            _sample(far.labels, far.margins, stride),
        ), far.near

    def far_statistics(self, far: FarRows, now: MetricPass) -> KMeansStatistics:
        """Make the statistics of far rows at later centers."""
        factor = geometry.METRIC_FACTOR[self.model.divergence]
        return _far_statistics(far, self.params, self.points, now.points, factor)


class _FarSums:
    """Adds up the far rows of a block, a sub-block at a time."""

    def __init__(self, budgets: Array, stride: int, n: int, k: int, d: int) -> None:
        self.budgets, self.stride = budgets, stride
        self.near = np.ones(n, bool)
        self.labels, self.margins = np.zeros(-(-n // stride), np.int32), np.zeros(-(-n // stride))
        self.weight, self.first = np.zeros(k), np.zeros((k, d))
        self.cost, self.most = np.zeros(k), np.zeros(k)

    def add(self, part: AssignedRows, weights: Array) -> None:
        """Split some rows by their margins, and add up the far ones."""
        assert part.margins is not None
        far = part.margins > self.budgets[part.labels]
        self.near[part.start : part.stop] = ~far
        # Every stride-th row of the block, wherever a sub-block begins.
        first = -(-part.start // self.stride)
        chosen = slice(first * self.stride - part.start, None, self.stride)
        sampled = slice(first, first + len(part.labels[chosen]))
        self.labels[sampled], self.margins[sampled] = part.labels[chosen], part.margins[chosen]
        labels, w, distances = part.labels[far], weights[far], part.distances[far]
        kernels.add_up(part.rows[far], w, labels, distances, self.weight, self.first)
        self.cost += np.bincount(labels, w * distances, len(self.cost))
        np.maximum.at(self.most, labels, distances)


def add_up_rows(
    divergence: Divergence, params: KMeansParams, rows: Rows, far: _FarSums | None = None
) -> KMeansStatistics:
    """Assign rows without missing features by a divergence other than the squared distance, and add up.

    Parameters
    ----------
    divergence
        Divergence of the model.
    params
        Params that enter the pass.
    rows
        Prepared rows of a block ``(n, d)``.
    far
        Adds up the far rows; None where rows are not split.
    """
    limit = min(params.k, FARTHEST)
    k, d = params.centers.shape
    weight, first, objective = np.zeros(k), np.zeros((k, d)), 0.0
    farthest = KMeansStatistics.zero(k, d).farthest
    parts = geometry.assign_rows(
        divergence, rows.values, params.origin, params.matrix, params.centers, margins=far is not None
    )
    for part in parts:
        weights = rows.weights[part.start : part.stop]
        objective += kernels.add_up(part.rows, weights, part.labels, part.distances, weight, first)
        if far is not None:
            far.add(part, weights)
        floor = float(farthest.distances[-1]) if len(farthest.distances) == limit else 0.0
        index = kernels.farthest_rows(part.distances, weights, floor, limit)
        if len(index):
            new = FarthestRows(
                part.distances[index],
                rows.positions(index + part.start),
                part.labels[index],
                weights[index],
                part.rows[index],
            )
            farthest = farthest.merged(new, limit)
    return KMeansStatistics(weight, first, objective, len(rows), farthest)


def _sample(labels: NDArray[np.int32], margins: Array, stride: int) -> MarginSample:
    # A margin that is no number belongs to a distance beyond float64: such rows are always near.
    return MarginSample(labels, np.nan_to_num(margins, nan=0.0), np.full(len(labels), float(stride)))


def _far_statistics(far: FarRows, params: KMeansParams, before: Array, now: Array, factor: float) -> KMeansStatistics:
    """Make the statistics of far rows at later centers.

    About the centers of the split, Σ w‖y − m‖² = Σ w‖y − c‖² − 2 (m − c)·Σ w(y − c) + W‖m − c‖², in which no large
    numbers cancel, as m is near c.
    """
    moved = now - before
    # Sums of rows less their centers, where the metric maps them: for the cosine, rows are summed up as mapped.
    sums = far.first - far.weight[:, None] * params.centers
    if params.matrix.size:
        sums = geometry.metric_points("mahalanobis", params.matrix, sums)
    change = far.weight * np.einsum("kd,kd->k", moved, moved) - 2.0 * np.einsum("kd,kd->k", moved, sums)
    objective = float(np.maximum(0.0, far.cost + factor * change).sum())
    nothing = KMeansStatistics.zero(*far.first.shape)
    return replace(nothing, weight=far.weight, first=far.first, objective=objective, count=far.count)
