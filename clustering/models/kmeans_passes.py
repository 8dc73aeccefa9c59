"""Passes of k-means: functions that make the statistics of blocks, with what they need of the params prepared once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.models import divergences as geometry
from clustering.models import kernels
from clustering.models.assignment import AssignedRows, sub_blocks
from clustering.models.far_sums import FarSums
from clustering.models.farthest import FARTHEST, FarthestRows
from clustering.models.kmeans_params import KMeansParams
from clustering.models.kmeans_statistics import KMeansStatistics
from clustering.models.lloyd import LloydSums, empty_labels, label, lloyd, start_split
from clustering.models.lloyd_buffers import RowLabels, SplitRows
from clustering.models.margins import FarRows, MappedRows, MarginStatistics, RowMargins, SplitStatistics
from clustering.models.option_names import Divergence
from clustering.models.prepared_centers import PreparedCenters
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

    @property
    def factor(self) -> float:
        """Divergence of two rows, per unit of their squared distance."""
        return 1.0

    def mapped(self, rows: Rows) -> Iterator[MappedRows]:
        """Yield rows less the origin."""
        for start, stop, part in sub_blocks(rows.values, self.params.origin):
            yield MappedRows(start, stop, part, part)

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
        self,
        blocks: Sequence[Rows],
        split: SplitRows | None = None,
        recalled: Recalled | None = None,
        by_row: RowLabels | None = None,
    ) -> KMeansStatistics:
        sums: LloydSums = lloyd(blocks, self.centers, min(self.params.k, FARTHEST), by_row, split, recalled)
        return KMeansStatistics(sums.weight, sums.first, sums.objective, sum(map(len, blocks)), sums.farthest)

    def measure(self, rows: Rows) -> RowMargins:
        """Measure the margins of rows."""
        split = start_split(len(rows), self.centers, np.zeros(self.params.k))
        return _row_margins(label(rows, self.centers, split), split)

    def split(self, rows: Rows, budgets: Array) -> tuple[SplitStatistics[KMeansStatistics], RowMargins]:
        """Make the statistics of one block, and add up its rows of large margin."""
        if rows.has_missing is not None:
            complete, measured = self.split(rows.select(~rows.has_missing), budgets)
            incomplete = self.model.rows_with_missing(self.params, rows.select(rows.has_missing))[0]
            margins = RowMargins(np.zeros(len(rows), np.int32), np.zeros(len(rows)), np.full(len(rows), np.nan))
            _put(margins, ~rows.has_missing, measured)
            far = replace(complete.far, near=len(rows) - complete.far.count)
            return SplitStatistics(complete.statistics + incomplete, far), margins
        split, by_row = start_split(len(rows), self.centers, budgets), empty_labels(len(rows))
        statistics = self._complete([rows], split, by_row=by_row)
        near = int(split.near.sum())
        far = FarRows(split.weight, split.first, split.cost, split.radius, len(rows) - near, near)
        return SplitStatistics(statistics, far), _row_margins(by_row, split)

    def sum_far(self, rows: Rows, margins: RowMargins) -> FarRows:
        """Add up rows as far ones."""
        return _sum_far(self, rows, margins)

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

    def mapped(self, rows: Rows) -> Iterator[MappedRows]:
        """Yield rows as the divergence maps them."""
        for part in self._assigned(rows):
            points = geometry.metric_points(self.model.divergence, self.params.matrix, part.rows)
            yield MappedRows(part.start, part.stop, points, part.rows)

    def __call__(self, rows: Rows) -> KMeansStatistics:
        """Make the statistics of one block."""
        return add_up_rows(self.model.divergence, self.params, rows)

    @property
    def factor(self) -> float:
        """Divergence of two rows, per unit of their squared distance in the metric."""
        return geometry.METRIC_FACTOR[self.model.divergence]

    def measure(self, rows: Rows) -> RowMargins:
        """Measure the margins of rows."""
        made = _empty_margins(len(rows))
        for part in self._assigned(rows):
            _put(made, slice(part.start, part.stop), self._measured(part))
        return made

    def split(self, rows: Rows, budgets: Array) -> tuple[SplitStatistics[KMeansStatistics], RowMargins]:
        """Make the statistics of one block, and add up its rows of large margin."""
        measured = _empty_margins(len(rows))
        sums = FarSums(self.params.centers.shape, 0, self.factor)

        def watch(part: AssignedRows, weights: Array) -> None:
            own = self._measured(part)
            _put(measured, slice(part.start, part.stop), own)
            chosen = own.margins > budgets[own.labels]
            sums.add_steady(part.rows[chosen], weights[chosen], own.select(chosen))

        statistics = add_up_rows(self.model.divergence, self.params, rows, watch)
        far = sums.steady
        return SplitStatistics(statistics, replace(far, near=len(rows) - far.count)), measured

    def sum_far(self, rows: Rows, margins: RowMargins) -> FarRows:
        """Add up rows as far ones."""
        return _sum_far(self, rows, margins)

    def _measured(self, part: AssignedRows) -> RowMargins:
        assert part.margins is not None
        return RowMargins(part.labels, np.sqrt(part.distances / self.factor), part.margins)

    def _assigned(self, rows: Rows) -> Iterator[AssignedRows]:
        params = self.params
        return geometry.assign_rows(
            self.model.divergence, rows.values, params.origin, params.matrix, params.centers, margins=True
        )

    def far_statistics(self, far: FarRows, now: MetricPass) -> KMeansStatistics:
        """Make the statistics of far rows at later centers."""
        return _far_statistics(far, self.params, self.points, now.points, self.factor)


def _sum_far(function: LloydPass | MetricPass, rows: Rows, margins: RowMargins) -> FarRows:
    """Add up rows as far ones."""
    sums = FarSums(function.params.centers.shape, 0, function.factor)
    for start, stop, _, part in function.mapped(rows):
        sums.add_steady(part, rows.weights[start:stop], margins.select(slice(start, stop)))
    return sums.steady


def _empty_margins(n: int) -> RowMargins:
    return RowMargins(np.empty(n, np.int32), np.empty(n), np.empty(n))


def _put(margins: RowMargins, place: slice | NDArray[np.bool_], part: RowMargins) -> None:
    """Put the margins of some rows into their place."""
    margins.labels[place], margins.distances[place], margins.margins[place] = part


def _row_margins(by_row: RowLabels, split: SplitRows) -> RowMargins:
    return RowMargins(by_row.labels, np.sqrt(by_row.distances), split.margins)


def add_up_rows(
    divergence: Divergence,
    params: KMeansParams,
    rows: Rows,
    watch: Callable[[AssignedRows, Array], None] | None = None,
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
    watch
        Receives each sub-block with its margins and weights; None where no margins are wanted.
    """
    limit = min(params.k, FARTHEST)
    k, d = params.centers.shape
    weight, first, objective = np.zeros(k), np.zeros((k, d)), 0.0
    farthest = KMeansStatistics.zero(k, d).farthest
    parts = geometry.assign_rows(
        divergence, rows.values, params.origin, params.matrix, params.centers, margins=watch is not None
    )
    for part in parts:
        weights = rows.weights[part.start : part.stop]
        objective += kernels.add_up(part.rows, weights, part.labels, part.distances, weight, first)
        if watch is not None:
            watch(part, weights)
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
