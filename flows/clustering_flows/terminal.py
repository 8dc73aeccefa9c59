"""Shows a job in a terminal with a progress bar, or as plain lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from clustering.execution.engine import Engine
from clustering.execution.progress import PassProgress as Blocks
from clustering.execution.progress import listen_to_progress
from clustering.fitting.loop import PassRecord, StoppingRule
from clustering.run.progress import ProgressEstimator
from clustering.run.watch import Watch
from clustering_flows.relay import pass_line, relayed

if TYPE_CHECKING:
    from rich.progress import Progress

    from clustering.report.figures import Figure


class _Lines:
    """Writes each message as a plain line."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def say(self, line: str) -> None:
        # Plain lines go to files and pipes, where they are read while the job runs.
        print(line, file=self.stream, flush=True)

    def warn(self, line: str) -> None:
        self.say(f"warning: {line}")

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        return work()

    def working(self, engine: Engine) -> AbstractContextManager[None]:
        return relayed(engine, self.say, self.warn)

    def passed(self, record: PassRecord, rule: StoppingRule, reads: float) -> None:
        self.say(pass_line(record, reads))

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Print nothing, as the command prints the outcome itself."""

    def finished(self, record: Mapping[str, Any], pictures: Sequence[Figure]) -> None:
        """Print nothing, as the command prints the results itself."""


class _Bar:
    """Draws a progress bar below the lines."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task = progress.add_task("starting", total=1.0)
        self.course = ProgressEstimator()

    def say(self, line: str) -> None:
        # Names in a line may have brackets, which rich would read as markup.
        self.progress.console.print(line, highlight=False, markup=False)

    def warn(self, line: str) -> None:
        self.progress.console.print(f"warning: {line}", style="yellow", highlight=False, markup=False)

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        self.course.start_stage(name)
        self._draw()
        return work()

    @contextmanager
    def working(self, engine: Engine) -> Iterator[None]:
        with relayed(engine, self.say, self.warn), listen_to_progress(engine, self._on_blocks):
            yield

    def _on_blocks(self, blocks: Blocks) -> None:
        self.course.on_blocks(blocks)
        self._draw()

    def passed(self, record: PassRecord, rule: StoppingRule, reads: float) -> None:
        self.course.on_pass(record, rule, reads)
        self._draw()

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Draw nothing, as the command prints the outcome itself."""

    def finished(self, record: Mapping[str, Any], pictures: Sequence[Figure]) -> None:
        self.course.start_stage("finished")
        self._draw()

    def _draw(self) -> None:
        now = self.course.snapshot
        self.progress.update(self.task, completed=now.share, description=" · ".join(now.lines))


@contextmanager
def terminal_watch(stream: TextIO) -> Iterator[Watch]:
    """Offer a watch with a progress bar if the stream is a terminal, or with plain lines otherwise."""
    if not stream.isatty():
        yield _Lines(stream)
        return
    # Jobs on a schedule and in a queue have no terminal, and do without the package.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    # The bar vanishes at the end, because the command then prints the results.
    with Progress(*columns, console=Console(file=stream), transient=True) as progress:
        yield _Bar(progress)
