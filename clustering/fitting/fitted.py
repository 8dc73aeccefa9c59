"""What a fit ends with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.source import Feature
from clustering.execution.passes import Passed
from clustering.fitting.labelling import LabelStatistics
from clustering.fitting.loop import State, Stop
from clustering.models.survey import Survey

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Summary:
    """What pass 0 told about the rows."""

    cells: int
    """Cells of the sample grid, masked ones included."""
    count: int
    """Rows that take part."""
    weight: float
    """Σ w."""
    mean: Array
    """Weighted mean of each feature ``(d,)``."""
    variance: Array
    """Weighted variance of each feature ``(d,)``."""
    least: Array
    """``(d,)``."""
    greatest: Array
    """``(d,)``."""
    sampled: int
    """Rows in the sample that seeding and restarts worked on."""

    @classmethod
    def of(cls, survey: Survey) -> Summary:
        """Sum up pass 0."""
        return cls(
            survey.cells, survey.count, survey.weight, survey.mean, survey.variance, survey.least, survey.greatest,
            len(survey.sample.weights),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted model with everything that is known about it. Immutable."""

    model: Any
    params: Any
    features: tuple[Feature, ...]
    summary: Summary
    objective: float
    history: Array
    """Objective after the assignment step and after the update step of each pass ``(passes, 2)``."""
    iterations: int
    """Passes over the full data that updated the params."""
    stop: Stop
    shares: Array
    """Share of each cluster in the total weight ``(k,)``."""
    reads: float
    """Full reads of the source; a part counts by its blocks."""
    bytes_read: int
    """Decoded bytes read from the source."""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        params = replace(self.params, shift=_read_only(self.params.shift), centers=_read_only(self.params.centers))
        object.__setattr__(self, "params", params)
        for name in ("history", "shares"):
            object.__setattr__(self, name, _read_only(getattr(self, name)))

    @property
    def converged(self) -> bool:
        """Whether the stopping test was met."""
        return self.stop in (Stop.CONVERGED, Stop.TOLERANCE)

    @property
    def centers(self) -> Array:
        """Centers ``(k, d)`` in the data's own units."""
        with np.errstate(over="ignore"):
            return _read_only(self.params.shift + self.params.centers)

    def measured(self, passed: Passed, blocks: int) -> Fitted:
        """Take in what a labelling pass over so many blocks told at the final params: the objective and the sizes."""
        sums: LabelStatistics = passed.statistics[0]
        return replace(
            self,
            objective=sums.objective,
            shares=sums.weight / (sums.weight.sum() or 1.0),
            reads=self.reads + passed.reading.blocks / blocks,
            bytes_read=self.bytes_read + passed.reading.bytes,
        )


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def fitted(
    model: Any, state: State, features: tuple[Feature, ...], summary: Summary, reads: float, bytes_read: int
) -> Fitted:
    """Take the best candidate of a finished loop."""
    best = state.best
    assert best.stop is not None
    notes = best.notes
    if best.stop in (Stop.MAX_ITERATIONS, Stop.MAX_SECONDS):
        notes += (f"stopped by {best.stop} after {len(best.history)} passes before the stopping test was met",)
    weight = np.full(model.k, np.nan) if best.statistics is None else best.statistics.weight
    return Fitted(
        model, best.params, features, summary, best.objective, np.array(best.history).reshape(-1, 2),
        len(best.history), best.stop, weight / weight.sum(), reads, bytes_read, notes,
    )  # fmt: skip
