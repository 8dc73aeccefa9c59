from __future__ import annotations

from typing import Any

import pytest

from clustering.models.registry import MODELS
from clustering.options import GateOptions
from clustering.run.gate import gate_failures, unmeasured_limits

LIMITS = GateOptions(clusters=0)


def comparison(**changes: Any) -> dict[str, Any]:
    """The comparison of a version that is like the current one."""
    held_out = {"rows": 1000, "objective": 2.0, "objective_before": 2.0}
    return {
        "with": "a1",
        "churn": 0.05,
        "churn_by_cluster": {"0": 0.05, "1": 0.05},
        "sizes": {"0": [0.5, 0.52], "1": [0.5, 0.48]},
        "largest_size_change": 0.02,
        "new_clusters": [],
        "lost_clusters": [],
        "held_out": held_out,
        **changes,
    }


def held_out(after: float, before: float) -> dict[str, Any]:
    return {"rows": 1234, "objective": after, "objective_before": before}


def test_a_version_like_the_current_one_may_follow_it() -> None:
    assert gate_failures(comparison(), LIMITS, False) == []
    assert unmeasured_limits(comparison(), LIMITS, False) == []


BEYOND: dict[str, tuple[dict[str, Any], str]] = {
    "objective": (
        {"held_out": held_out(2.1, 2.0)},
        "the objective on 1,234 held-out rows is worse by 5 % (2.1, and 2 by the current version), "
        "above output.gate.objective, 0.01",
    ),
    "churn": ({"churn": 0.314}, "31.4 % of the weight changed its cluster, above output.gate.churn, 0.2"),
    "sizes": (
        {"largest_size_change": 0.25, "sizes": {"0": [0.5, 0.6], "1": [0.2, 0.45]}},
        "the share of a cluster changed by 25 points (cluster 1: from 20 % to 45 %), above output.gate.sizes, 0.1",
    ),
    "sizes without shares": (
        {"largest_size_change": 0.25, "sizes": {}},
        "the share of a cluster changed by 25 points, above output.gate.sizes, 0.1",
    ),
    "clusters": (
        {"new_clusters": [4, 7], "lost_clusters": []},
        "clusters came or went (new: 4, 7; lost: none), above output.gate.clusters, 0",
    ),
}


@pytest.mark.parametrize(("changes", "said"), BEYOND.values(), ids=BEYOND)
def test_what_is_beyond_a_limit_is_reported_with_the_limit(changes: dict[str, Any], said: str) -> None:
    assert gate_failures(comparison(**changes), LIMITS, False) == [said]


def test_all_reasons_are_reported() -> None:
    version_comparison = comparison(churn=0.5, largest_size_change=0.5, lost_clusters=[1], held_out=held_out(3.0, 2.0))
    failures = gate_failures(version_comparison, LIMITS, False)
    assert [reason.rpartition("output.gate.")[2] for reason in failures] == [
        "objective, 0.01", "sizes, 0.1", "churn, 0.2", "clusters, 0"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["churn", "sizes", "objective", "clusters"])
def test_a_limit_is_what_is_just_tolerated(name: str) -> None:
    at = {
        "churn": comparison(churn=0.2),
        "sizes": comparison(largest_size_change=0.1),
        "objective": comparison(held_out=held_out(1.25, 1.0)),
        "clusters": comparison(new_clusters=[3], lost_clusters=[1]),
    }[name]
    limits = LIMITS.model_copy(update={"objective": 0.25, "clusters": 2})
    assert gate_failures(at, limits, False) == []
    stricter = limits.model_copy(update={name: getattr(limits, name) - (1 if name == "clusters" else 0.01)})
    assert len(gate_failures(at, stricter, False)) == 1


WORSE: dict[str, tuple[str, float, float, bool]] = {
    "J rises": ("kmeans", 102.0, 100.0, True),
    "J falls": ("kmeans", 50.0, 100.0, False),
    "F rises, below zero": ("soft_kmeans", -98.0, -100.0, True),
    "F falls, below zero": ("soft_kmeans", -150.0, -100.0, False),
    "log L falls": ("gaussian_mixture", 98.0, 100.0, True),
    "log L falls, below zero": ("gaussian_mixture", -102.0, -100.0, True),
    "log L rises": ("gaussian_mixture", -50.0, -100.0, False),
    "from nothing": ("kmeans", 0.1, 0.0, True),
    "nothing to nothing": ("kmeans", 0.0, 0.0, False),
    "no number": ("kmeans", float("nan"), 1.0, True),
}


@pytest.mark.parametrize(("kind", "after", "before", "worse"), WORSE.values(), ids=WORSE)
def test_what_is_worse_depends_on_the_kind_of_model(kind: str, after: float, before: float, worse: bool) -> None:
    failures = gate_failures(comparison(held_out=held_out(after, before)), GateOptions(), MODELS[kind].objective.rises)
    assert bool(failures) == worse


def test_what_is_null_is_not_checked() -> None:
    off = GateOptions(objective=None, churn=None, sizes=None, clusters=None)
    far = comparison(churn=1.0, largest_size_change=1.0, new_clusters=[1, 2], held_out=held_out(9.0, 1.0))
    assert gate_failures(far, off, False) == []
    assert gate_failures(None, off, False) == []
    assert unmeasured_limits(None, off, False) == []


def test_what_was_not_measured_is_named_and_does_not_hold_a_version() -> None:
    version_comparison = comparison(churn=None, held_out=None)
    assert gate_failures(version_comparison, LIMITS, False) == []
    assert unmeasured_limits(version_comparison, LIMITS, False) == ["objective", "churn"]
    assert len(gate_failures({**version_comparison, "largest_size_change": 0.5}, LIMITS, False)) == 1


@pytest.mark.parametrize("version_comparison", [None, {}, {"with": "a1", "churn": None, "held_out": None}], ids=str)
def test_a_version_of_which_nothing_was_measured_is_held(version_comparison: Any) -> None:
    (reason,) = gate_failures(version_comparison, LIMITS, False)
    assert "nothing of it could be compared with the current version" in reason
    assert unmeasured_limits(version_comparison, LIMITS, False) == ["objective", "sizes", "churn", "clusters"]
