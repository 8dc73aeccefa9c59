"""Numbers and outcomes in words, which the page, its figures and Prefect's artifacts share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_SMALL = (
    "No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve",
)  # fmt: skip


def number(value: Any) -> str:
    """Format a number for the page: grouped digits, and six significant ones where it is not large.

    Parameters
    ----------
    value
        Number; None becomes a dash.
    """
    if value is None:
        return "–"
    if not math.isfinite(value):
        return str(value)
    if 1e5 <= abs(value) < 1e12:
        return f"{value:,.0f}"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.6g}" if abs(value) >= 1e-4 and abs(value) < 1e5 else f"{value:.6g}"
    return f"{int(value):,}" if abs(value) < 1e15 else f"{value:.6g}"


def percent(share: float) -> str:
    """Write a share as percent with two significant digits, such as 31 % or 0.44 %; more where little is left to 100 %.

    Parameters
    ----------
    share
        Share, 0 … 1.
    """
    # What is not all must not read as 100 %.
    rest = float(f"{100 * (1 - share):.1g}")
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 - rest:.10g} %"


def count(rows: int) -> str:
    """Write a number of rows as people say it, such as 34,032 or 1.2 million.

    Parameters
    ----------
    rows
        The number.
    """
    for limit, word in ((10**9, "billion"), (10**6, "million")):
        if rows >= limit:
            return f"{rows / limit:.3g} {word}"
    return f"{rows:,}"


def utc(time: str) -> str:
    """Write a time in ISO 8601, in UTC, as people read it: ``2026-11-30 08:15 UTC``.

    Parameters
    ----------
    time
        Time as `clustering.storage.versions.now` writes it.
    """
    return f"{time[:10]} {time[11:16]} UTC"


def clusters_of(k: int) -> str:
    """Write a number of clusters at the beginning of a sentence, such as ``Six clusters``.

    Parameters
    ----------
    k
        Number of clusters.
    """
    return f"{_SMALL[k] if k < len(_SMALL) else f'{k:,}'} cluster{'s' * (k != 1)}"


def answer(run: Mapping[str, Any], shares: Sequence[float], names: Sequence[str]) -> str:
    """Write the outcome of a run in one sentence.

    Parameters
    ----------
    run
        The content of ``run.json``.
    shares
        Share of each cluster in the total weight ``(k,)``; NaN where unknown.
    names
        What the clusters are called, such as ``cluster 3``.
    """
    words = f"{clusters_of(run['k'])} of {count(run['n_rows'])} rows"
    if run["k"] > 1 and all(math.isfinite(share) for share in shares):
        order = sorted(range(len(shares)), key=lambda i: -shares[i])
        largest, smallest = order[0], order[-1]
        most, least = percent(shares[largest]), percent(shares[smallest])
        words += (
            f"; each has {most}"
            if most == least
            else f"; the largest ({names[largest]}) has {most}, the smallest ({names[smallest]}) {least}"
        )
    return f"{words}; {ending(run)}."


def ending(run: Mapping[str, Any]) -> str:
    """Say how the fit of a run ended.

    Parameters
    ----------
    run
        The content of ``run.json``.
    """
    passes = f"{run['iterations']:,} pass{'es' * (run['iterations'] != 1)}"
    if run.get("task") == "predict":
        return "labels by a given model"
    if run["converged"]:
        return f"converged after {passes}"
    if run["stop_reason"] == "refresh":
        return f"updated by the new rows, and not fitted further, after {passes}"
    return f"not converged: stopped by {run['stop_reason']} after {passes}"


def standing(run: Mapping[str, Any]) -> str | None:
    """Say that a version is not current, and why; None for one that is.

    Parameters
    ----------
    run
        The content of ``run.json``.
    """
    match run.get("status"):
        case "held":
            reasons = (run.get("gate") or {}).get("reasons") or ["no reason is recorded"]
            return f"This version was held back: {'; '.join(reasons)}."
        case "waiting":
            return "This version waits for a person, and an earlier one stays current."
    return None
