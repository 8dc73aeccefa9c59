"""Outcomes in words."""

from __future__ import annotations

from typing import Any

import pytest

from clustering.report.words import answer, count, ending, percent, standing, utc

RUN: dict[str, Any] = {
    "k": 6, "n_rows": 1_234_567, "iterations": 41, "converged": True, "stop_reason": "converged", "task": "fit",
}  # fmt: skip
SHARES = [0.31, 0.3, 0.2, 0.1, 0.05, 0.04]
NAMES = ["Tropics", *(f"cluster {i}" for i in range(1, 6))]


def test_the_answer_is_one_sentence() -> None:
    assert answer(RUN, SHARES, NAMES) == (
        "Six clusters of 1.23 million rows; the largest (Tropics) has 31 %, the smallest (cluster 5) 4 %; converged "
        "after 41 passes."
    )


@pytest.mark.parametrize(
    ("changes", "shares", "end"),
    [
        ({"converged": False, "stop_reason": "max_iterations"}, SHARES, "stopped by max_iterations after 41 passes."),
        ({"converged": False, "stop_reason": "refresh", "iterations": 1}, SHARES, "not fitted further, after 1 pass."),
        ({"task": "predict"}, SHARES, "4 %; labels by a given model."),
        ({"k": 1}, [1.0], "One cluster of 1.23 million rows; converged after 41 passes."),
        ({"k": 2}, [0.5, 0.5], "rows; each has 50 %; converged after 41 passes."),
        ({"k": 2}, [float("nan")] * 2, "Two clusters of 1.23 million rows; converged after 41 passes."),
    ],
    ids=["stopped", "updated", "prediction", "one cluster", "equal", "unknown sizes"],
)
def test_the_answer_is_honest(changes: dict[str, Any], shares: list[float], end: str) -> None:
    assert answer({**RUN, **changes}, shares, NAMES).endswith(end)


def test_a_run_that_did_not_converge_is_never_called_converged() -> None:
    assert ending({**RUN, "converged": False, "stop_reason": "max_seconds"}).startswith("not converged")


def test_a_version_that_is_not_current_says_so() -> None:
    assert standing({"status": "finished"}) is None
    assert standing({}) is None
    held = standing({"status": "held", "gate": {"reasons": ["sizes changed by 30 %"]}})
    assert held == "This version was held back: sizes changed by 30 %."
    assert "waits for a person" in str(standing({"status": "waiting"}))


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.314, "31 %"), (0.0443, "4.4 %"), (1.0, "100 %"), (0.996, "99.6 %"), (0.9999, "99.99 %"), (0.0, "0 %")],
)
def test_shares_are_percent(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("rows", "text"), [(34_032, "34,032"), (1_200_000, "1.2 million"), (25 * 10**8, "2.5 billion")]
)
def test_rows_are_counted_as_people_do(rows: int, text: str) -> None:
    assert count(rows) == text


def test_times_are_utc() -> None:
    assert utc("2026-11-30T08:15:16.123+00:00") == "2026-11-30 08:15 UTC"
