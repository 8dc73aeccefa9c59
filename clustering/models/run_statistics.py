"""Statistics of several blocks in one call, for models whose compiled code adds blocks up by itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from clustering.data.rows import Rows

S_co = TypeVar("S_co", covariant=True)


class RunStatistics(ABC, Generic[S_co]):
    """Makes the statistics of blocks, one block or a run of them at a time; picklable.

    A pass over rows in memory makes one call for a whole run, so that Python takes no time for each block.
    """

    @property
    @abstractmethod
    def row_operations(self) -> float:
        """Rough number of floating-point operations for a row, which says how long a call takes."""

    @abstractmethod
    def of_run(self, blocks: Sequence[Rows]) -> S_co:
        """Make the statistics of a run of blocks, added in the order of `clustering.models.tree`.

        Parameters
        ----------
        blocks
            Rows of one or more blocks, in order.
        """

    def __call__(self, rows: Rows) -> S_co:
        """Make the statistics of one block.

        Parameters
        ----------
        rows
            Rows of the block ``(n, d)``.
        """
        return self.of_run([rows])
