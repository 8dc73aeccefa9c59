"""Keeps the page of a running job in Prefect's UI up to date."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from uuid import UUID

from prefect import get_client
from prefect.artifacts import create_markdown_artifact, create_progress_artifact
from prefect.client.schemas.actions import ArtifactUpdate

UPDATE_SECONDS, UPDATE_SHARE, LONGEST_SECONDS = 2.0, 0.01, 30.0
"""Time between two updates: a share of the time since the job began, between a least and a longest time in seconds."""
PATIENCE = 15.0
"""Longest time that a job waits for its last update, in seconds."""


@dataclass(frozen=True)
class View:
    """Content of the two artifacts at one moment."""

    share: float
    """Finished share of the job, 0 to 1."""
    line: str
    """Progress of the job, in Markdown."""
    card: str
    """Markdown for the page of the run."""
    page: str
    """Markdown for the page of the artifact."""


class LivePage:
    """Updates two artifacts in place, from its own thread, so that no pass waits for Prefect's API or fails with it."""

    def __init__(self, look: Callable[[], View], say: Callable[[str], None], warn: Callable[[str], None]) -> None:
        self._look, self._say, self._warn = look, say, warn
        self._artifacts: dict[str, UUID] = {}
        self._began = time.monotonic()
        self._gone: float | None = None
        self._ended = threading.Event()
        # Artifacts take their run from the context, which threads do not inherit.
        run = copy_context().run
        # A daemon, so that a request without an answer does not keep the process from ending.
        self._thread = threading.Thread(target=run, args=(self._keep,), name="clustering-dashboard", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Make the last update, and wait for it at most `PATIENCE` seconds."""
        self._ended.set()
        self._thread.join(PATIENCE)

    def _keep(self) -> None:
        last = False
        while True:
            view = self._look()
            try:
                self._update(view)
            # A request may fail in many ways, and a later one may succeed, so the thread goes on.
            except Exception as error:
                self._missed(error)
            else:
                self._reached()
            if last:
                return
            share = UPDATE_SHARE * (time.monotonic() - self._began)
            last = self._ended.wait(min(max(UPDATE_SECONDS, share), LONGEST_SECONDS))

    def _update(self, view: View) -> None:
        percent = 100.0 * view.share
        if not self._artifacts:
            artifacts = {
                "page": create_markdown_artifact(view.page, "fit-live", view.card),
                "progress": create_progress_artifact(percent, "fit-progress", view.line),
            }
            self._artifacts = {name: UUID(str(artifact)) for name, artifact in artifacts.items()}
            return
        # Making an artifact again would add a version of it, and Prefect has no public function that updates Markdown.
        client = get_client(sync_client=True)
        client.update_artifact(self._artifacts["page"], ArtifactUpdate(data=view.page, description=view.card))
        client.update_artifact(self._artifacts["progress"], ArtifactUpdate(data=percent, description=view.line))

    def _missed(self, error: Exception) -> None:
        # Only the first failure in a row is a warning. Otherwise the log would get one every few seconds.
        if self._gone is None:
            self._gone = time.monotonic()
            self._warn("Prefect's API does not answer; the job continues without its dashboard")

    def _reached(self) -> None:
        if self._gone is not None:
            self._say(f"Prefect's API answers again, after {time.monotonic() - self._gone:.0f} s")
            self._gone = None
