"""Margins of rows, and statistics that stand for rows of large margin while centers move little.

The margin of a row is how much farther its second nearest center is than its nearest, m = d₂ − d₁, in a metric. After
every center k has moved by no more than p_k, the nearest center a of the row is still the same if

    m > p_a + max_{j ≠ a} p_j,

as both distances change by no more than the centers move (Hamerly 2010, doi:10.1137/1.9781611972801.12, for one step;
for the net displacement of many steps, Newling & Fleuret 2016, PMLR 48:936–944). So a row whose margin exceeds the
budget of its cluster is far from every boundary, and its share of all sums stays the same within the budget. Where
each center has a budget β of its own, the same holds for a row with d_j − β_j > d_a + β_a for every j ≠ a.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Generic, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.models import course_kernels
from clustering.models.margin_kernels import SLACK
from clustering.models.model import Statistics
from clustering.models.neighbouring_centers import NeighbouringCenters, neighbouring_centers

Array = NDArray[np.float64]
S = TypeVar("S", bound=Statistics)

ROUNDED_UP = 1.0 + 2.0**-36
"""Factor that makes a computed length an upper bound of the true one, for up to 2¹⁶ features."""


class RowMargins(NamedTuple):
    """Nearest centers of rows, and by how much they are the nearest."""

    labels: NDArray[np.int32]
    """Nearest center of each row ``(n,)``."""
    distances: Array
    """Distance from it ``(n,)``, in the metric."""
    margins: Array
    """Lower bound of how much farther every other center is ``(n,)``; NaN where nothing is known."""

    def select(self, chosen: NDArray[np.bool_] | slice) -> RowMargins:
        """Select some rows.

        Parameters
        ----------
        chosen
            True ``(n,)`` for rows to keep, or a slice of them.
        """
        return RowMargins(self.labels[chosen], self.distances[chosen], self.margins[chosen])


@dataclass(frozen=True, eq=False)
class FarRows:
    """Additive statistics of rows far from every boundary; ``a + b`` are those of both sets of rows together."""

    weight: Array
    """Σ w of each cluster ``(k,)``."""
    first: Array
    """Σ w (x − origin) of each cluster ``(k, d)``."""
    cost: Array
    """Σ w D(x, m) of each cluster at the centers of the split ``(k,)``."""
    radius: Array
    """The largest distance of a row from its center ``(k,)``, in the metric."""
    count: int
    """Number of far rows."""
    near: int
    """Number of rows that are near a boundary, which are not in the sums."""

    def __add__(self, other: FarRows) -> FarRows:
        return FarRows(
            self.weight + other.weight,
            self.first + other.first,
            self.cost + other.cost,
            np.maximum(self.radius, other.radius),
            self.count + other.count,
            self.near + other.near,
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return its numbers as arrays by name, as they are stored."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Make it from stored arrays.

        Parameters
        ----------
        arrays
            Arrays of `to_arrays`.
        """
        weight, first, cost, radius = (arrays[name] for name in ("weight", "first", "cost", "radius"))
        return cls(weight, first, cost, radius, int(arrays["count"]), int(arrays["near"]))


@dataclass(frozen=True, eq=False)
class SplitStatistics(Generic[S]):
    """Additive outcome of a pass that splits rows by their margins."""

    statistics: S
    """Statistics of all rows, with the bits of a pass that splits none."""
    far: FarRows

    def __add__(self, other: SplitStatistics[S]) -> SplitStatistics[S]:
        return SplitStatistics(self.statistics + other.statistics, self.far + other.far)


class MappedRows(NamedTuple):
    """Some rows of a block, in buffers that the next ones reuse."""

    start: int
    stop: int
    """Which rows of the block they are."""
    points: Array
    """The rows in a space where the Euclidean distance is the metric ``(m, p)``."""
    rows: Array
    """The rows as they are summed up ``(m, d)``: less the origin."""


class MarginStatistics(ABC, Generic[S]):
    """Makes the statistics of blocks for centers whose distances are those of a metric; picklable.

    Such a function can split rows by their margins, and knows the statistics of far rows after the centers have moved.
    """

    model: Any
    """The model whose `for_pass` makes the function."""
    params: Any
    """Params of the pass."""

    @property
    @abstractmethod
    def points(self) -> Array:
        """Centers ``(k, p)`` in a space where the Euclidean distance is the metric."""

    @property
    @abstractmethod
    def factor(self) -> float:
        """Divergence of two rows, per unit of their squared distance in the metric."""

    @abstractmethod
    def mapped(self, rows: Rows) -> Iterator[MappedRows]:
        """Yield rows in the space of the points, some at a time.

        Parameters
        ----------
        rows
            Rows ``(n, d)`` without missing features.
        """

    @abstractmethod
    def __call__(self, rows: Rows) -> S:
        """Make the statistics of one block.

        Parameters
        ----------
        rows
            Rows of the block ``(n, d)``.
        """

    @abstractmethod
    def measure(self, rows: Rows) -> RowMargins:
        """Measure the margins of rows.

        Parameters
        ----------
        rows
            Rows ``(n, d)`` without missing features.
        """

    @abstractmethod
    def split(self, rows: Rows, budgets: Array) -> tuple[SplitStatistics[S], RowMargins]:
        """Make the statistics of one block, and add up its rows of large margin.

        Parameters
        ----------
        rows
            Rows of the block ``(n, d)``.
        budgets
            Margin above which a row of each cluster is far from every boundary ``(k,)``.

        Returns
        -------
        SplitStatistics
            Statistics of all rows and of the far ones.
        RowMargins
            Margins of all rows; those with missing features have none.
        """

    @abstractmethod
    def sum_far(self, rows: Rows, margins: RowMargins) -> FarRows:
        """Add up rows as far ones, whatever their margins.

        Parameters
        ----------
        rows
            Rows ``(n, d)`` without missing features.
        margins
            Their margins, as `measure` or `split` gives them.
        """

    @abstractmethod
    def far_statistics(self, far: FarRows, now: Self) -> S:
        """Make the statistics of far rows at params of a later pass, whose labels are the same.

        Parameters
        ----------
        far
            Statistics of the far rows, which this function has split.
        now
            The function of the later pass.
        """

    @cached_property
    def neighbours(self) -> NeighbouringCenters:
        """The centers next to each center, where none moves."""
        still = np.zeros(len(self.points))
        return neighbouring_centers(self.points, still, still)

    def lower_multiples(self, rows: Rows, lengths: Array, labels: NDArray[np.int32], multiples: Array) -> None:
        """Lower multiples to those of some lengths by which centers may move before the label of a row changes.

        Parameters
        ----------
        rows
            Rows ``(n, d)`` without missing features.
        lengths
            A positive length for each center ``(k,)``.
        labels
            Centers ``(n,)`` to begin with, near the rows at best; become the nearest ones.
        multiples
            Multiples ``(n,)``, which become the lower of these and of those of the lengths.
        """
        for start, stop, points, _ in self.mapped(rows):
            course_kernels.lower_multiples(
                points, self.points, lengths, lengths.max(), *self.neighbours, labels[start:stop], multiples[start:stop]
            )

    def drift(self, now: Self) -> Array:
        """Bound how far each center ``(k,)`` has moved from its place in this pass, whatever its way.

        Parameters
        ----------
        now
            The function of a later pass.
        """
        return np.asarray(np.linalg.norm(now.points - self.points, axis=1) * ROUNDED_UP)


def within_budgets(points: Array, budgets: Array, radius: Array, astray: Array) -> bool:
    """Return whether all far rows keep their labels where the centers are astray.

    Centers that are too far off to be the second nearest of any far row do not count: a row at distance r from its
    center a is at least ‖a − j‖ − r away from a center j, so that its margin to j is at least ‖a − j‖ − 2r.

    Parameters
    ----------
    points
        Centers ``(k, p)`` at which rows were split, as `MarginStatistics.points` gives them.
    budgets
        How far each center may be from there ``(k,)``: far rows keep their labels within, see `MarginStatistics.stays`.
    radius
        The largest distance of a far row from its center ``(k,)``.
    astray
        Bound of how far each center is from there ``(k,)``.
    """
    over = astray - budgets
    reach = float(np.linalg.norm(points, axis=1).max())
    for a in np.flatnonzero(over + farthest_other(over) > 0.0):
        fast = np.flatnonzero(over[a] + over > 0.0)
        fast = fast[fast != a]
        apart = np.linalg.norm(points[fast] - points[a], axis=1)
        # Lessened for rounding, here and in distances, by the same rule as the margins of rows.
        clear = apart - 2.0 * radius[a] - 2.0 * SLACK * (apart + reach)
        if (astray[a] + astray[fast] > clear).any():
            return False
    return True


def farthest_other(drift: Array) -> Array:
    """Return the largest drift of another center for each center ``(k,)``; 0 for a single one.

    Parameters
    ----------
    drift
        How far each center has moved ``(k,)``.
    """
    if len(drift) == 1:
        return np.zeros(1)
    second, most = np.partition(drift, -2)[-2:]
    others = np.full(len(drift), most)
    others[int(np.argmax(drift))] = second
    return others
