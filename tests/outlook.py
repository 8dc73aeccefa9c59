"""Inspection, probe, forecast and advice of a job, for tests."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from clustering.data.inspection import Inspection, inspect_source
from clustering.data.plan import MIB, Plan
from clustering.data.source import Source
from clustering.fitting import probe as probing
from clustering.fitting.advice import advise
from clustering.fitting.forecast import Forecast, Workers, forecast
from clustering.fitting.labelling import LabelOutputs
from clustering.fitting.options import Options
from clustering.fitting.probe import Probe, probe
from clustering.models.kmeans import KMeans


@pytest.fixture(autouse=True)
def short_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Carry out each kind of pass once, for tests that do not depend on times."""
    monkeypatch.setattr(probing, "STAGE_SECONDS", 0.0)


class Outlook(NamedTuple):
    plan: Plan
    inspection: Inspection
    seen: Probe
    expected: Forecast
    advice: list[str]


def outlook(
    source: Source,
    model: Any = None,
    *,
    memory: int = 2048 * MIB,
    threads: int = 1,
    processes: int = 1,
    block_bytes: int | None = None,
    scratch: str | None = None,
    options: Options | None = None,
) -> Outlook:
    model, options, workers = model or KMeans(2), options or Options(), Workers(processes, threads)
    plan = source.plan(block_bytes=block_bytes, memory=memory)
    label_plan = source.plan(block_bytes=block_bytes, memory=memory, whole_chunks=False)
    inspection = inspect_source(source, plan, label_plan)
    seen = probe(source, plan, model, options, LabelOutputs(), threads=threads)
    expected = forecast(source, plan, inspection, seen, options, workers, memory=memory, scratch=scratch)
    advice = advise(source, plan, inspection, expected, workers, options, memory=memory)
    return Outlook(plan, inspection, seen, expected, list(advice))
