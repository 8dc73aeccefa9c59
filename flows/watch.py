"""Who watches a job: what it says goes to a terminal, to plain lines, or to Prefect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from clustering.fitting.loop import PassRecord, Rule

if TYPE_CHECKING:
    from clustering.report.page import Figure


class Watch(Protocol):
    """Told what a job does while it runs."""

    def say(self, line: str) -> None:
        """Take a line of what happens."""

    def warn(self, line: str) -> None:
        """Take something that a user should know."""

    def passed(self, record: PassRecord, rule: Rule, reads: float) -> None:
        """Take the record of a pass, and the full reads of the source so far."""

    def finished(self, record: Mapping[str, Any], pictures: Sequence[Figure]) -> None:
        """Take the content of ``run.json`` and the report's pictures."""

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Take what others may wait for, such as ``model.held``; the payload is JSON and names the ``store``."""


def pass_line(record: PassRecord, reads: float) -> str:
    """Write a pass as one line."""
    change = "" if record.change is None else f"  change {record.change + 0.0:+.2e}"
    rate = record.rows * record.active / record.seconds if record.seconds else 0.0
    several = f" × {record.active} candidates" if record.active > 1 else ""
    read = f"{record.reading.bytes / 1e6:,.1f} MB read" if record.reading.bytes else "nothing read"
    line = f"pass {record.iteration:>3}{several}  {record.symbol} {record.objective:.10g}{change}"
    line += f"  {rate / 1e6:.2f} M rows/s  {read}, reads {reads:g}"
    if record.remaining_seconds:
        line += f"  about {duration(record.remaining_seconds)} to go"
    return line


def done_share(record: PassRecord, rule: Rule) -> float:
    """Estimate the share of the fit that is done, in 0 … 1."""
    if record.remaining_seconds is None:
        return record.iteration / rule.max_iterations
    left = record.remaining_seconds / record.seconds if record.seconds else 0.0
    return record.iteration / (record.iteration + left)


def duration(seconds: float) -> str:
    """Write a time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
