"""Residency: how many bytes of the rows live in memory, on scratch, or only in the source, between two passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clustering.data.plan import Plan
from clustering.execution.block_cache import CachedBytes, cached_bytes
from clustering.execution.engine import Engine
from clustering.execution.homes import worker_names


@dataclass(frozen=True)
class Residency:
    """Where the rows of a run live between two passes."""

    workers: Mapping[str, CachedBytes]
    """What each worker caches, by its name; for threads, the one entry is this process."""
    source: int
    """Decoded size of the blocks that no worker caches, which each pass reads again, in bytes."""

    @property
    def memory(self) -> int:
        """Size of the cached rows in the memory of all workers, in bytes."""
        return sum(cached.memory for cached in self.workers.values())

    @property
    def scratch(self) -> int:
        """Size of the cached rows on the local disks of all workers, in bytes."""
        return sum(cached.scratch for cached in self.workers.values())

    def to_json(self) -> dict[str, Any]:
        """Return the entry ``residency`` of ``run.json``."""
        workers = {name: {"memory": c.memory, "scratch": c.scratch} for name, c in sorted(self.workers.items())}
        return {"memory": self.memory, "scratch": self.scratch, "source": self.source, "workers": workers}


def measure_residency(engine: Engine, plan: Plan, session: str) -> Residency:
    """Ask all workers what they cache.

    Parameters
    ----------
    engine
        Engine of the passes.
    plan
        Plan of the passes.
    session
        Name of the block cache, see `clustering.execution.block_cache.BlockCache`.
    """
    if engine.client is None:
        workers = {engine.name: cached_bytes(session)}
    else:
        answers = engine.client.run(cached_bytes, session, on_error="ignore")
        names = worker_names(engine.client, answers)
        workers = {names[address]: cached for address, cached in answers.items()}
    # Every row is read once for all, and its block has one home.
    cached = sum(cached.decoded for cached in workers.values())
    return Residency(workers, max(0, plan.cells * plan.row_bytes - cached))
