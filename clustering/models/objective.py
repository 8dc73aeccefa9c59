"""The objective of a model: its names, its direction, and the ranking of candidates by it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

EQUAL_OBJECTIVES = 1e-9
"""Objectives that differ by no more than this share of their scale count as equal, so that rounding ranks nothing."""


@dataclass(frozen=True)
class Objective:
    """The objective of a model, as users see it."""

    symbol: str
    """Short name."""
    title: str
    """Title of its cost curve."""
    caption: str
    """Text below its cost curve."""
    axis: str
    """Label of the vertical axis."""
    assignment: str
    """Name of the step that assigns rows to clusters."""
    update: str
    """Name of the step that updates the params."""
    rises: bool = False
    """Whether higher values are better."""


LOG_LIKELIHOOD = Objective(
    "log L",
    "Log-likelihood",
    "Mean log-likelihood per unit weight after every expectation step (blue), and its lower bound from the same "
    "responsibilities at the new parameters after every maximisation step (red).",
    "log L per unit weight",
    "expectation",
    "maximisation",
    rises=True,
)
"""Objective of mixtures: the mean log-likelihood."""


class Ranked(Protocol):
    """A candidate with its objective, which is minimised."""

    @property
    def objective(self) -> float:
        """The last objective."""

    @property
    def scale(self) -> float:
        """Size that a change of the objective is measured against; NaN where there was no change yet."""


R = TypeVar("R", bound=Ranked)


def rank_candidates(candidates: Sequence[R]) -> list[R]:
    """Sort candidates by objective; among equal ones, earlier starts come first. See `EQUAL_OBJECTIVES`.

    Parameters
    ----------
    candidates
        Candidates in the order of their starts.
    """
    # Being equal up to rounding is not transitive, so no sort key can express it.
    rest, order = list(candidates), []
    while rest:
        least = min(rest, key=lambda candidate: candidate.objective)
        # A candidate of one pass has no change yet, so its objective is the only scale.
        scale = abs(least.objective) if math.isnan(least.scale) else least.scale
        most = least.objective + (EQUAL_OBJECTIVES * scale if math.isfinite(scale) else 0.0)
        first = next(rank for rank, candidate in enumerate(rest) if candidate.objective <= most)
        order.append(rest.pop(first))
    return order
