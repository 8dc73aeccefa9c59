"""What a model may start from, as the initialization offers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from clustering.data.preparation import Preparation
from clustering.data.rows import Rows
from clustering.models.kmeans_params import KMeansParams
from clustering.models.survey import RowSample, Survey

T = TypeVar("T")
P = TypeVar("P")
P_co = TypeVar("P_co", covariant=True)

RESTART_TOLERANCE = 1e-4
"""Relative change of the objective at which restarts stop."""
MOST_SAMPLE_PASSES = 300
"""Passes over a row sample at most."""


class SampleCandidate(Protocol[P_co]):
    """A start that was run to the end on rows of the sample."""

    @property
    def params(self) -> P_co:
        """Where it ended."""

    @property
    def objective(self) -> float:
        """The last objective, which the passes lower."""

    @property
    def scale(self) -> float:
        """Size that a change of the objective is measured against."""


class SamplePasses(Protocol):
    """Passes over some rows of the sample, in memory."""

    def statistics(self, functions: Sequence[Callable[[Rows], T]]) -> Sequence[T]:
        """Add up the statistics of all rows, for each function."""

    def converge(
        self, model: Any, starts: Sequence[P], tolerance: float, most_passes: int, seconds: float | None = None
    ) -> Sequence[SampleCandidate[P]]:
        """Run the loop from every start, side by side.

        Parameters
        ----------
        model
            The model of the params.
        starts
            Params to start from.
        tolerance
            Change of the objective, relative to its scale, at which a run stops.
        most_passes
            Passes at most.
        seconds
            Wall time at most, in seconds; None for no limit.
        """


class Starts(Protocol):
    """What is there before the first pass. A model makes its first params of it."""

    @property
    def survey(self) -> Survey:
        """Of the prepared rows, with their sample."""

    @property
    def preparation(self) -> Preparation | None:
        """How rows are prepared; None where they are taken as decoded."""

    @property
    def drawn(self) -> bool:
        """Whether starts are drawn, so that several may compete; else they come from labels or from the user."""

    @property
    def labelled(self) -> bool:
        """Whether the clusters start from labelled rows."""

    @property
    def given(self) -> Mapping[str, Any]:
        """Arrays that the user gave beside the centers, by name, in the data's units."""

    @property
    def tolerance(self) -> float:
        """Tolerance of the fit."""

    @property
    def max_seconds(self) -> float | None:
        """Wall time that the whole fit may take, in seconds; None for no limit."""

    @property
    def finalists(self) -> int:
        """How many params to go on from, at most."""

    def hard_clusters(self) -> list[KMeansParams]:
        """Hard clusters to start from: the best of the drawn ones, those of the labelled rows, or the user's."""

    def hard_restarts(self) -> Sequence[SampleCandidate[KMeansParams]]:
        """All drawn hard clusters, run to the end on a part of the sample; the least cost comes first."""

    def on_sample(self, rows: RowSample) -> AbstractContextManager[SamplePasses]:
        """Make passes over rows of the sample, each with the weight that it represents."""

    def statistics(self, functions: Sequence[Callable[[Rows], T]]) -> Sequence[T]:
        """Add up the statistics of all rows of the source, for each function, in one pass."""


@dataclass(frozen=True, eq=False)
class InitialParams(Generic[P]):
    """What a model starts from."""

    params: Sequence[P]
    """Of each candidate for the full data."""
    remarks: tuple[str, ...] = ()
    """Choices that were made for the user."""
    warnings: tuple[str, ...] = ()
