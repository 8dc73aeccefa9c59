"""Starts: everything that initialization offers to a model for its first params."""

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
    """Result of a start that was fitted to rows of the sample."""

    @property
    def params(self) -> P_co:
        """Final params."""

    @property
    def objective(self) -> float:
        """Final objective, which the passes lower."""

    @property
    def scale(self) -> float:
        """Size that a change of the objective is measured against."""


class SamplePasses(Protocol):
    """Passes over some rows of the sample, in memory."""

    def statistics(self, functions: Sequence[Callable[[Rows], T]]) -> Sequence[T]:
        """Return the statistics of all rows for each function.

        Parameters
        ----------
        functions
            Functions from rows to statistics that add up by ``+``.
        """

    def converge(
        self, model: Any, starts: Sequence[P], tolerance: float, most_passes: int, seconds: float | None = None
    ) -> Sequence[SampleCandidate[P]]:
        """Fit from every start, side by side, until each stops.

        Parameters
        ----------
        model
            The model of the params.
        starts
            Params to start from.
        tolerance
            Change of the objective, relative to its scale, at which a run stops.
        most_passes
            Largest number of passes.
        seconds
            Time limit in seconds; None for no limit.

        Returns
        -------
        sequence of SampleCandidate
            The results, in the order of the starts.
        """


class Starts(Protocol):
    """Everything that is known before the first pass, from which a model makes its first params."""

    @property
    def survey(self) -> Survey:
        """Survey of the prepared rows, with their sample."""

    @property
    def preparation(self) -> Preparation | None:
        """How rows are prepared; None where they are taken as decoded."""

    @property
    def drawn(self) -> bool:
        """Whether starts are drawn, so that several compete; otherwise they come from labels or from the user."""

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
        """Largest number of candidates for the full data."""

    def hard_clusters(self) -> list[KMeansParams]:
        """Return hard clusters to start from: the best drawn ones, those of the labelled rows, or those of the user."""

    @property
    def seed(self) -> int:
        """Seed of all random draws."""

    @property
    def restarts(self) -> int:
        """Number of drawn starts."""

    def hard_restarts(
        self, k: int | None = None, restarts: int | None = None
    ) -> Sequence[SampleCandidate[KMeansParams]]:
        """Return all drawn hard clusters, fitted to a part of the sample; the lowest J comes first.

        Parameters
        ----------
        k
            Number of clusters; that of the model where None.
        restarts
            Number of starts, which are then fitted to a coarse tolerance; as many as the fit has where None.

        Raises
        ------
        DataError
            If fewer than k rows differ.
        """

    def on_sample(self, rows: RowSample) -> AbstractContextManager[SamplePasses]:
        """Open passes over rows of the sample, each row with the weight that it represents.

        Parameters
        ----------
        rows
            Rows of the sample.
        """

    def statistics(self, functions: Sequence[Callable[[Rows], T]]) -> Sequence[T]:
        """Return the statistics of all rows of the source for each function, in one pass.

        Parameters
        ----------
        functions
            Functions from rows to statistics that add up by ``+``.
        """


@dataclass(frozen=True, eq=False)
class InitialParams(Generic[P]):
    """Params that a model starts from."""

    params: Sequence[P]
    """Params of each candidate for the full data."""
    remarks: tuple[str, ...] = ()
    """Messages about choices that were made for the user."""
    warnings: tuple[str, ...] = ()
    """Messages about likely mistakes of the user."""
