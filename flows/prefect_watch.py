"""Watching a job in Prefect: log lines, a progress artifact while it runs, figures when it is done."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from prefect import get_run_logger, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from clustering.errors import ClusteringError
from clustering.fitting.loop import PassRecord, Rule
from flows.watch import done_share, duration, pass_line

if TYPE_CHECKING:
    from clustering.report.page import Figure

T = TypeVar("T")

UPDATE_SECONDS = 2.0
"""Least time between two updates of the progress artifact, in seconds."""
PASSES_LISTED = 500


def as_task(name: str, step: Callable[[], T]) -> T:
    """Run a step as a Prefect task.

    The step takes no parameters and its result stays in this process: arrays never go through Prefect, and going on
    after a crash is the checkpoint's work.
    """
    return task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)(step)()


class PrefectWatch:
    """Sends what a job says to Prefect."""

    def __init__(self) -> None:
        self.records: list[PassRecord] = []
        self.artifact: UUID | None = None
        self.updated = 0.0

    def say(self, line: str) -> None:
        """Log a line."""
        get_run_logger().info(line)

    def warn(self, line: str) -> None:
        """Log a warning."""
        get_run_logger().warning(line)

    def passed(self, record: PassRecord, rule: Rule, reads: float) -> None:
        """Log a pass, and move the progress artifact along."""
        self.records.append(record)
        self.say(pass_line(record, reads))
        now = time.monotonic()
        if self.artifact is not None and now - self.updated < UPDATE_SECONDS:
            return
        self.updated = now
        percent = 100.0 * done_share(record, rule)
        left = "" if not record.remaining_seconds else f", about {duration(record.remaining_seconds)} to go"
        about = f"pass {record.iteration}, {record.symbol} {record.objective:.6g}, reads {reads:g}{left}"
        if self.artifact is None:
            artifact = create_progress_artifact(percent, key="fit-progress", description=about)
            assert isinstance(artifact, UUID)
            self.artifact = artifact
        else:
            update_progress_artifact(self.artifact, percent, description=about)

    def finished(self, record: Mapping[str, Any], pictures: Sequence[Figure]) -> None:
        """Keep the passes as a table, and the key figures with the report's pictures as a page."""
        if self.artifact is not None:
            update_progress_artifact(self.artifact, 100.0, description=str(record["stop_reason"]))
        if self.records:
            rows = [
                {
                    "pass": r.iteration,
                    "objective": float(r.objective),
                    "change": None if r.change is None else float(r.change),
                    "candidates": r.active,
                    "rows": int(r.rows),
                    "seconds": round(r.seconds, 3),
                    "rows per second": round(r.rows * r.active / r.seconds) if r.seconds else None,
                    "bytes read": int(r.reading.bytes),
                }
                for r in self.records[-PASSES_LISTED:]
            ]
            create_table_artifact(rows, key="fit-passes", description="Passes over the data")
        create_markdown_artifact(_page(record, pictures), key="fit-report", description="Key figures of the run")

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Emit an event, which automations may wait for."""
        resource = {"prefect.resource.id": f"clustering.output.{payload['store']}"}
        emit_event(f"clustering.{name}", resource=resource, payload=dict(payload))


def _page(record: Mapping[str, Any], pictures: Sequence[Figure]) -> str:
    state = "converged" if record["converged"] else "not converged"
    facts = {
        "rows": f"{record['n_rows']:,} ({record['n_masked']:,} cells masked)",
        "features": f"{record['n_features']:,}",
        "clusters": f"{record['k']}",
        "objective": f"{record['objective']:.10g}",
        "passes": f"{record['iterations']} ({state}: {record['stop_reason']})",
        "full reads of the source": f"{record['reads']}",
        "wall time": duration(record["seconds"]["total"]),
        "peak memory": f"{record['peak_rss_bytes'] / 2**20:,.0f} MiB",
        "output": f"`{record['config']['output']['store']}`",
    }
    lines = [f"# {record['k']} clusters of {record['n_rows']:,} rows", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    worth = [*record["warnings"], *record["remarks"]]
    if worth:
        lines += ["", "## Worth knowing", "", *(f"- {line}" for line in worth)]
    for figure in pictures:
        lines += ["", f"## {figure.title}", "", f"![{figure.title}]({figure.uri})", "", figure.caption]
    return "\n".join(lines)


class _Plain(logging.Filter):
    """Says a user's own mistake in one line: a traceback through this code would tell nothing about it."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, ClusteringError):
            record.msg, record.args, record.exc_info = str(error), (), None
        return True


def say_mistakes_plainly() -> None:
    """Leave tracebacks of this library's own errors out of Prefect's logs."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logger = logging.getLogger(name)
        if not any(isinstance(f, _Plain) for f in logger.filters):
            logger.addFilter(_Plain())
