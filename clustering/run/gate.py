"""The gate: decides whether a new version may become the current one without a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clustering.options import GateOptions


def gate_failures(comparison: Mapping[str, Any] | None, limits: GateOptions, rises: bool) -> list[str]:
    """List the reasons why a new version may not become the current one; empty where it may.

    A limit holds if the measured number is not above it. Limits on numbers that were not measured are not checked, see
    `unmeasured_limits`. A version of which no number was measured is held back.

    Parameters
    ----------
    comparison
        Comparison of the new version with the current one, from ``run.json``; None where they were not compared.
    limits
        Limits of the config. A limit of None is not checked.
    rises
        Whether a larger objective is better.
    """
    set_ = {name: limit for name, limit in limits.model_dump().items() if limit is not None}
    measured = _measured(comparison or {}, rises)
    # Nothing is known of such a version, so a person has to look at it.
    if set_ and all(measured[name] is None for name in set_):
        return ["nothing of it could be compared with the current version, so that no limit of output.gate is checked"]
    # Written as `not <=`, so that NaN fails every limit.
    beyond = [name for name, limit in set_.items() if measured[name] is not None and not measured[name] <= limit]
    return [_sentence(name, measured[name], limits, comparison or {}) for name in beyond]


def unmeasured_limits(comparison: Mapping[str, Any] | None, limits: GateOptions, rises: bool) -> list[str]:
    """List the limits that are set but cannot be checked, because their number was not measured.

    Parameters
    ----------
    comparison, limits, rises
        As for `gate_failures`.
    """
    measured = _measured(comparison or {}, rises)
    return [name for name, limit in limits.model_dump().items() if limit is not None and measured[name] is None]


def _measured(comparison: Mapping[str, Any], rises: bool) -> dict[str, Any]:
    """Return the number that each limit is compared with; None where it was not measured."""
    held_out = comparison.get("held_out")
    moved = [comparison.get("new_clusters"), comparison.get("lost_clusters")]
    return {
        "objective": None if held_out is None else _worsening(held_out, rises),
        "churn": comparison.get("churn"),
        "sizes": comparison.get("largest_size_change"),
        "clusters": None if None in moved else sum(len(ids or ()) for ids in moved),
    }


def _worsening(held_out: Mapping[str, Any], rises: bool) -> float:
    """Return how much worse the objective on held-out rows became, relative to before; below 0 where it is better."""
    after, before = float(held_out["objective"]), float(held_out["objective_before"])
    worse = before - after if rises else after - before
    # Two objectives of 0 would otherwise give 0 · ∞, which is NaN and fails every limit.
    if worse == 0:
        return 0.0
    return worse / abs(before) if before else worse * float("inf")


def _sentence(name: str, value: float, limits: GateOptions, comparison: Mapping[str, Any]) -> str:
    limit = f"above output.gate.{name}, {getattr(limits, name):g}"
    match name:
        case "objective":
            held_out = comparison["held_out"]
            return (
                f"the objective on {held_out['rows']:,} held-out rows is worse by {_percent(value)} "
                f"({held_out['objective']:.6g}, and {held_out['objective_before']:.6g} by the current version), {limit}"
            )
        case "churn":
            return f"{_percent(value)} of the weight changed its cluster, {limit}"
        case "sizes":
            return f"the share of a cluster changed by {100 * value:.3g} points{_largest(comparison)}, {limit}"
        case _:
            new, lost = (", ".join(map(str, comparison[key])) or "none" for key in ("new_clusters", "lost_clusters"))
            return f"clusters came or went (new: {new}; lost: {lost}), {limit}"


def _largest(comparison: Mapping[str, Any]) -> str:
    """Name the cluster whose share changed most."""
    sizes: Mapping[str, Any] = comparison.get("sizes") or {}
    if not sizes:
        return ""
    number, (before, after) = max(sizes.items(), key=lambda item: abs(item[1][1] - item[1][0]))
    return f" (cluster {number}: from {_percent(before)} to {_percent(after)})"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
