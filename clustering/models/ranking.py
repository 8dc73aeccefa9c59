"""Ranking of candidates by their objectives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

EQUAL_OBJECTIVES = 1e-9
"""Objectives that differ by no more than this share of their scale count as equal, so that rounding ranks nothing."""


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
    rest, order = list(candidates), []
    while rest:
        least = min(rest, key=lambda candidate: candidate.objective)
        scale = abs(least.objective) if math.isnan(least.scale) else least.scale
        most = least.objective + (EQUAL_OBJECTIVES * scale if math.isfinite(scale) else 0.0)
        first = next(rank for rank, candidate in enumerate(rest) if candidate.objective <= most)
        order.append(rest.pop(first))
    return order
