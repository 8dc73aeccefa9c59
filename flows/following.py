"""A run that follows another: the update that its model asks for, and what was new, in words."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from clustering.data.identity import extent
from clustering.execution.passes import Reading, Rounds
from clustering.fitting.following import follow, statistics_bytes
from clustering.storage.checkpoints import Checkpoint
from clustering.storage.ledger import Ledger
from flows.watch import Watch

if TYPE_CHECKING:
    from flows.opened import Job

STATISTICS_SHARE = 0.1
"""Statistics of all blocks are kept where they take at most this share of a read as decoded, or little."""
LITTLE = 64 * 2**20


def go_on(job: Job, work: Rounds, run: str, watch: Watch) -> Checkpoint:
    """Take the current model through the update that the rows of today ask for, as the beginning of a run."""
    before = job.before
    assert before is not None
    began, start = time.perf_counter(), before.fitted
    news = told(job)
    watch.say(f"following run {before.run}: {'' if news is None else news['told']}")
    rule, records = job.options.rule, before.statistics(start.model, job.held_out)
    inside = replace(work, preparation=start.preparation)
    unchanged = before.changes is not None and before.changes.none
    state, record = follow(inside, start, rule, job.config.fit.refresh, _Known(records), unchanged)
    reading = Reading() if record is None else record.reading
    if record is not None:
        watch.passed(record, rule, reading.blocks / len(job.plan))
        for note in record.notes:
            watch.warn(note)
    seconds = {"update": time.perf_counter() - began}
    remarks = () if start.preparation is None else (f"preprocessing: {start.preparation.words}",)
    return Checkpoint(run, state, start.summary, reading, seconds, remarks, preparation=start.preparation)


@dataclass(frozen=True)
class _Known:
    """Statistics of blocks that are as they were; those of others are not kept."""

    ledger: Ledger | None

    def find(self, index: int) -> tuple[Any, ...] | None:
        """Give the statistics of a block that is as it was."""
        return None if self.ledger is None else self.ledger.find(index)

    def keep(self, index: int, statistics: tuple[Any, ...]) -> None:
        """Keep nothing: these params are on their way."""


def told(job: Job) -> dict[str, Any] | None:
    """Say what was new, for ``run.json``; None for a run that follows none."""
    before = job.before
    if before is None or not job.follows:
        return None
    about: dict[str, Any] = {"run": before.run}
    if job.known is None:
        about["refresh"] = job.config.fit.refresh
    changes = before.changes
    if changes is None:
        return {**about, "told": "nothing is known of its blocks, so all rows count as new"}
    fresh = (*changes.new, *changes.changed)
    about |= {
        "blocks": changes.blocks,
        "new": len(changes.new),
        "changed": len(changes.changed),
        "unchanged": changes.unchanged,
        "gone": changes.gone,
        "where": extent(job.source, [job.plan.block(i) for i in fresh]),
    }
    return {**about, "told": _in_words(about)}


def _in_words(followed: Mapping[str, Any]) -> str:
    if followed["new"] == followed["changed"] == followed["gone"] == 0:
        return f"nothing is new in {followed['blocks']:,} block{'s' * (followed['blocks'] != 1)}"
    parts = [f"{followed[key]:,} {key}" for key in ("new", "changed") if followed[key]]
    where = "; ".join(f"{d} {first} … {last}" for d, (first, last) in followed["where"].items())
    line = f"{' and '.join(parts) or 'none'} of {followed['blocks']:,} blocks" + (f" ({where})" if where else "")
    return line + (f", {followed['gone']:,} gone" if followed["gone"] else "")


def keeps_statistics(job: Job, params: Any) -> bool:
    """Tell whether a run keeps the statistics of its blocks, which the next one goes on from."""
    if job.known is not None or job.identities is None or job.options.drawn:
        return False
    return statistics_bytes(params) * len(job.plan) <= max(
        LITTLE, int(STATISTICS_SHARE * job.plan.cells * job.plan.row_bytes)
    )
