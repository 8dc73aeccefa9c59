"""The last pass: labels back onto the grid, and the objective at the final params on the same read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.execution.passes import Passed, Rounds

Write = Callable[[tuple[slice, ...], NDArray[Any]], None]
"""Puts the labels of a region of the sample grid where they belong."""


@dataclass(frozen=True, eq=False)
class LabelStatistics:
    """Sums over labelled rows; ``a + b`` are those of the rows of both."""

    objective: float
    """J: Σ w · squared distance to the own center."""
    weight: NDArray[np.float64]
    """Σ w of each cluster ``(k,)``."""
    rows: NDArray[np.int64]
    """Rows of each cluster ``(k,)``."""

    def __add__(self, other: LabelStatistics) -> LabelStatistics:
        return LabelStatistics(self.objective + other.objective, self.weight + other.weight, self.rows + other.rows)


def label_type(k: int) -> np.dtype[Any]:
    """Find the smallest signed integer type for labels 0 … k − 1 and −1 where masked."""
    return next(np.dtype(t) for t in ("i1", "i2", "i4", "i8") if k - 1 <= np.iinfo(t).max)


def label(rounds: Rounds, model: Any, params: Any, write: Write) -> Passed:
    """Label every row, hand each block's labels to `write`, and add up.

    Parameters
    ----------
    write
        Called once per block with its labels in the block's shape, −1 where masked; picklable where the engine has
        other processes.

    Returns
    -------
    Passed
        With one `LabelStatistics`.
    """
    return rounds.run([partial(_label_block, model, params, write)])


def _label_block(model: Any, params: Any, write: Write, rows: Rows) -> LabelStatistics:
    found = model.assign(params, rows)
    k = params.k
    labels = rows.spread(found.labels.astype(label_type(k)), -1).reshape(rows.shape)
    write(tuple(slice(a, a + n) for a, n in zip(rows.start, rows.shape, strict=True)), labels)
    counts = np.bincount(found.labels, minlength=k).astype(np.int64)
    return LabelStatistics(found.objective, found.weight, counts)


def nowhere(region: tuple[slice, ...], labels: NDArray[Any]) -> None:
    """Take labels that nobody asked for."""
