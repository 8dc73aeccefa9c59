"""Shows a job in Prefect: log lines, a live page while it runs, and tables and figures when it has finished."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from clustering.errors import ClusteringError
from clustering.execution.engine import Engine
from clustering.execution.progress import listen_to_progress
from clustering.fitting.loop import PassRecord, StoppingRule
from clustering.report.markdown import page_of, selection_page, table_of
from clustering.run.live_page import card, page
from clustering.run.progress import ProgressEstimator
from clustering.storage.paths import storage_path
from clustering_flows.exit_status import exit_status
from clustering_flows.prefect_live import LivePage, View
from clustering_flows.relay import pass_line, relayed

if TYPE_CHECKING:
    from clustering.report.figures import Figure

T = TypeVar("T")

MEMORY_SECONDS = 10.0
"""Least time between two requests for the memory of the workers, in seconds."""


def as_task(name: str, step: Callable[[], T]) -> T:
    """Run a step as a Prefect task.

    The task has no parameters and its result stays in this process, so that arrays never go through Prefect. After a
    crash, checkpoints let a run resume, not Prefect.
    """
    return task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)(step)()


class PrefectWatch:
    """Sends lines, progress and results of a job to Prefect.

    Parameters
    ----------
    store
        Output of the job without secrets. Events name it as their resource.
    """

    def __init__(self, store: str) -> None:
        self.store = store
        self.course = ProgressEstimator()
        self.warnings: list[str] = []
        # Logger of the flow run. Inside a task, `get_run_logger` returns that of the task.
        self.logger = get_run_logger()

    def say(self, line: str) -> None:
        """Log a line."""
        get_run_logger().info(line)

    def warn(self, line: str) -> None:
        """Log a warning."""
        self.warnings.append(line)
        get_run_logger().warning(line)

    def step(self, name: str, work: Callable[[], T]) -> T:
        """Run a step as a task."""
        self.course.start_stage(name)
        return as_task(name, work)

    @contextmanager
    def working(self, engine: Engine) -> Iterator[None]:
        """Show progress inside passes, and the log records of workers."""
        memory, measured_at = 0, 0.0

        def look() -> View:
            nonlocal memory, measured_at
            # The request goes to every worker of a cluster, so it is made less often than updates of the page.
            if time.monotonic() - measured_at > MEMORY_SECONDS:
                memory, measured_at = engine.peak_rss(), time.monotonic()
            now = self.course.snapshot
            processes = engine.workers + 1 if engine.client is not None else 1
            markdown = page(now, self.warnings, memory, processes, engine.dashboard)
            return View(now.share, "\n\n".join(now.lines), card(now), markdown)

        live = LivePage(look, self.logger.info, self.logger.warning)
        with relayed(engine, self.logger.info, self._relayed), listen_to_progress(engine, self.course.on_blocks):
            if engine.dashboard:
                self.say(f"Dask's dashboard: {engine.dashboard}")
            live.start()
            try:
                yield
            finally:
                # This comes before the last update of the page, which shows how the job ended.
                self.course.finish()
                live.stop()

    def _relayed(self, line: str) -> None:
        self.warnings.append(line)
        # The line may come from any thread. `get_run_logger` works only in threads of the flow.
        self.logger.warning(line)

    def passed(self, record: PassRecord, rule: StoppingRule, reads: float) -> None:
        """Log a pass."""
        self.course.on_pass(record, rule, reads)
        self.say(pass_line(record, reads))

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Emit an event about the output."""
        resource = {"prefect.resource.id": f"clustering.output.{self.store}", "prefect.resource.name": self.store}
        try:
            emit_event(f"clustering.{name}", resource, payload=dict(payload))
        except Exception as error:
            self._relayed(f"Prefect does not take the event {name!r} ({type(error).__name__}); see the output")

    def finished(self, record: Mapping[str, Any], pictures: Sequence[Figure]) -> None:
        """Make artifacts: a table of the passes, a page with key figures and pictures, and a link to the report."""
        self.course.start_stage("finished")
        try:
            self._keep(record, pictures)
        except Exception:
            # The output is published already and holds the same. A fault of Prefect must not fail the run.
            self._relayed("Prefect's API did not accept the results; see the output")

    def _keep(self, record: Mapping[str, Any], pictures: Sequence[Figure]) -> None:
        if "table" in record:
            # A sweep may publish no version, and then there is nothing else to show.
            create_markdown_artifact(selection_page(record), key="select-k", description="Choices of k")
            return
        records = self.course.snapshot.records
        if records:
            create_table_artifact(table_of(records), key="fit-passes", description="Passes over the data")
        create_markdown_artifact(
            page_of(record, pictures), key="fit-report", description=f"Key figures of run {record['run']}"
        )
        if record["config"]["output"]["report"]:
            path = storage_path(record["config"]["output"]["store"]) / "report.html"
            create_link_artifact(
                # The artifact takes a URL, so the path of a file becomes one.
                path.absolute().as_uri() if isinstance(path, Path) else str(path), str(path), key="fit-link",
                description=f"Report of run {record['run']}: `{path}`",
            )  # fmt: skip


_NAMED = re.compile(r"(encountered an exception:?) [\w.]+: ")
"""Matches the type of an error in Prefect's log line on the end of a run."""


class _Plain(logging.Filter):
    """Reduces errors in log records to one line. At level DEBUG, errors that are no mistake of the user stay whole."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        in_full = logging.getLogger(record.name).isEnabledFor(logging.DEBUG) and not isinstance(error, ClusteringError)
        if isinstance(error, Exception) and not in_full:
            record.msg, record.args, record.exc_info = exit_status(error)[1], (), None
        elif error is None:
            record.msg, record.args = _NAMED.sub(r"\1 ", record.getMessage()), ()
        return True


def say_mistakes_plainly() -> None:
    """Remove tracebacks and names of Python's errors from Prefect's logs."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logger = logging.getLogger(name)
        # Loggers outlive a flow, and one process may run several flows.
        if not any(isinstance(f, _Plain) for f in logger.filters):
            logger.addFilter(_Plain())
