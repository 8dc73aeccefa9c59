"""A watcher of jobs for tests. It keeps what a job reports, and can end the job as a crash would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any


class Crash(BaseException):
    """Ends a job as the end of its process would, while the test goes on."""


class Notes:
    """Keeps what a job says, and ends it after a given pass."""

    def __init__(self, crash_after: int | None = None) -> None:
        self.said: list[str] = []
        self.iterations: list[int] = []
        self.reads: list[float] = []
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.crash_after = crash_after

    def say(self, line: str) -> None:
        self.said.append(line)

    warn = say

    def step(self, name: str, work: Any) -> Any:
        return work()

    def working(self, engine: Any) -> AbstractContextManager[None]:
        return nullcontext()

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        self.events.append((name, payload))

    def passed(self, record: Any, rule: Any, reads: float) -> None:
        self.iterations.append(record.iteration)
        self.reads.append(reads)
        if record.iteration == self.crash_after:
            raise Crash

    def finished(self, record: Mapping[str, Any], pictures: Sequence[Any]) -> None:
        pass
