"""A run that goes on from the current model: its update, and a summary of the new data in words."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from clustering.data.block_fingerprints import extent
from clustering.execution.passes import PassRunner, ReadStats
from clustering.fitting.following import continue_fit, statistics_bytes
from clustering.models.model import Params
from clustering.run.watch import Watch
from clustering.storage.checkpoints import Checkpoint
from clustering.storage.ledger import Ledger

if TYPE_CHECKING:
    from clustering.run.prepare import PreparedJob

STATISTICS_SHARE = 0.1
"""Statistics of all blocks are kept if they take at most this share of the decoded source."""
LITTLE = 64 * 2**20
"""They are also kept if they take at most this many bytes."""


def continue_from_current(job: PreparedJob, runner: PassRunner, run: str, watch: Watch) -> Checkpoint:
    """Begin a run by updating the current model to the present rows, as ``fit.refresh`` asks.

    Parameters
    ----------
    job
        The prepared job.
    runner
        Runs the passes.
    run
        Name of the run.
    watch
        Receives messages.
    """
    previous = job.previous
    assert previous is not None
    began, start = time.perf_counter(), previous.fitted
    news = update_summary(job)
    watch.say(f"following run {previous.run}: {'' if news is None else news['told']}")
    rule, records = job.options.rule, previous.statistics(start.model, job.held_out)
    prepared_runner = replace(runner, preparation=start.preparation)
    unchanged = previous.changes is not None and previous.changes.none
    state, record = continue_fit(
        prepared_runner, start, rule, job.config.fit.refresh, _UnchangedBlocks(records), unchanged,
        job.options.acceleration,
    )  # fmt: skip
    reading = ReadStats() if record is None else record.read_stats
    if record is not None:
        watch.passed(record, rule, reading.blocks / len(job.plan))
        for note in record.notes:
            watch.warn(note)
    seconds = {"update": time.perf_counter() - began}
    # Rows are prepared as for the current model, as its params are those of rows prepared so.
    remarks = () if start.preparation is None else (f"preprocessing: {start.preparation.words}",)
    # No pass 0 is made, so the summary stays that of the first fit of the chain.
    return Checkpoint(run, state, start.summary, reading, seconds, remarks, preparation=start.preparation)


@dataclass(frozen=True)
class _UnchangedBlocks:
    """Block records of the first pass: reads those of unchanged blocks from a ledger, and saves none."""

    ledger: Ledger | None

    def load(self, index: int) -> tuple[Any, ...] | None:
        """Return the statistics of an unchanged block; None where the block has to be read.

        Parameters
        ----------
        index
            Number of the block in the plan.
        """
        return None if self.ledger is None else self.ledger.load(index)

    def save(self, index: int, statistics: tuple[Any, ...]) -> None:
        """Save nothing, as these params are not yet final. The label pass saves the statistics of the final params.

        Parameters
        ----------
        index
            Number of the block in the plan.
        statistics
            Statistics of the block.
        """


def update_summary(job: PreparedJob) -> dict[str, Any] | None:
    """Summarise the new and changed blocks, for ``run.json``; None for a run that follows no version.

    Parameters
    ----------
    job
        The prepared job.
    """
    previous = job.previous
    if previous is None or not job.follows:
        return None
    summary: dict[str, Any] = {"run": previous.run}
    # A prediction changes no model, so it has nothing to refresh.
    if job.given_model is None:
        summary["refresh"] = job.config.fit.refresh
    changes = previous.changes
    # A store that cannot list its keys does not show what is new, nor does a version without a ledger.
    if changes is None:
        return {**summary, "told": "nothing is known of its blocks, so all rows count as new"}
    fresh = (*changes.new, *changes.changed)
    summary |= {
        "blocks": changes.blocks,
        "new": len(changes.new),
        "changed": len(changes.changed),
        "unchanged": changes.unchanged,
        "gone": changes.gone,
        "where": extent(job.source, [job.plan.block(i) for i in fresh]),
    }
    return {**summary, "told": _in_words(summary)}


def _in_words(followed: Mapping[str, Any]) -> str:
    if followed["new"] == followed["changed"] == followed["gone"] == 0:
        return f"nothing is new in {followed['blocks']:,} block{'s' * (followed['blocks'] != 1)}"
    parts = [f"{followed[key]:,} {key}" for key in ("new", "changed") if followed[key]]
    where = "; ".join(f"{d} {first} … {last}" for d, (first, last) in followed["where"].items())
    line = f"{' and '.join(parts) or 'none'} of {followed['blocks']:,} blocks" + (f" ({where})" if where else "")
    return line + (f", {followed['gone']:,} gone" if followed["gone"] else "")


def keeps_statistics(job: PreparedJob, params: Params) -> bool:
    """Return whether a run keeps the statistics of its blocks for the next run.

    Parameters
    ----------
    job
        The prepared job.
    params
        Final params.
    """
    # Predictions change no params, and a fit on drawn rows has other statistics than the next fit needs.
    if job.given_model is not None or job.block_fingerprints is None or job.options.row_fraction:
        return False
    # Records are read in place of blocks, which saves time only if they are much smaller.
    return statistics_bytes(params) * len(job.plan) <= max(
        LITTLE, int(STATISTICS_SHARE * job.plan.cells * job.plan.row_bytes)
    )
