"""Watching a job from a terminal, or as plain lines where there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from clustering.fitting.loop import PassRecord, Rule
from flows.watch import Watch, done_share, duration, pass_line

if TYPE_CHECKING:
    from clustering.report.page import Figure


class _Lines:
    """Writes plain lines."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def say(self, line: str) -> None:
        print(line, file=self.stream, flush=True)

    def warn(self, line: str) -> None:
        self.say(f"warning: {line}")

    def passed(self, record: PassRecord, rule: Rule, reads: float) -> None:
        self.say(pass_line(record, reads))

    def finished(self, record: Mapping[str, Any], pictures: Sequence[Figure]) -> None:
        """Say nothing: the command prints the results."""

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Say nothing: the command prints the results."""


class _Bar:
    """Draws a progress bar under the lines."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task = progress.add_task("starting", total=1.0, left="")

    def say(self, line: str) -> None:
        self.progress.console.print(line, highlight=False, markup=False)

    def warn(self, line: str) -> None:
        self.progress.console.print(f"warning: {line}", style="yellow", highlight=False, markup=False)

    def passed(self, record: PassRecord, rule: Rule, reads: float) -> None:
        left = "" if not record.remaining_seconds else f"about {duration(record.remaining_seconds)} to go"
        self.progress.update(
            self.task,
            completed=done_share(record, rule),
            description=f"pass {record.iteration}  {record.symbol} {record.objective:.6g}  reads {reads:g}",
            left=left,
        )

    def finished(self, record: Mapping[str, Any], pictures: Sequence[Figure]) -> None:
        self.progress.update(self.task, completed=1.0, description="finished", left="")

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Say nothing: the command prints the results."""


@contextmanager
def terminal_watch(stream: TextIO) -> Iterator[Watch]:
    """Watch with a progress bar where the stream is a terminal, with plain lines otherwise."""
    if not stream.isatty():
        yield _Lines(stream)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=Console(file=stream), transient=True) as progress:
        yield _Bar(progress)
