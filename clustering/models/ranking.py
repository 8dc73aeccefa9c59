"""Which of several candidates is the best one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

EQUAL_OBJECTIVES = 1e-9
"""Objectives that differ by no more than this share of their scale are equal: rounding ranks no candidate."""


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
    """Put candidates in the order of their objectives, the first among equals first; see `EQUAL_OBJECTIVES`.

    Parameters
    ----------
    candidates
        In the order of their starts.
    """
    rest, order = list(candidates), []
    while rest:
        least = min(rest, key=lambda candidate: candidate.objective)
        scale = abs(least.objective) if math.isnan(least.scale) else least.scale
        most = least.objective + (EQUAL_OBJECTIVES * scale if math.isfinite(scale) else 0.0)
        first = next(rank for rank, candidate in enumerate(rest) if candidate.objective <= most)
        order.append(rest.pop(first))
    return order
