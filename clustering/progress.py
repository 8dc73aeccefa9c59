"""A progress bar in a terminal or a notebook, for calls from Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from clustering.errors import MissingDependencyError
from clustering.execution.engine import Engine
from clustering.execution.progress import PassProgress, listen_to_progress
from clustering.fitting.loop import PassRecord, StoppingRule
from clustering.run.progress import ProgressEstimator
from clustering.run.watch import LogWatch

# Only calls that ask for a bar need the package.
if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from clustering.report.figures import Figure


class _BarWatch(LogWatch):
    """A watch that draws a bar with the pass, the objective, its change and the remaining time."""

    def __init__(self, watch: LogWatch, progress: Progress) -> None:
        super().__init__(watch.warn, watch.on_pass)
        self.progress, self.course, self.change = progress, ProgressEstimator(), ""
        self.task = progress.add_task("starting", total=1.0)

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        self._begin(name)
        return work()

    @contextmanager
    def working(self, engine: Engine) -> Iterator[None]:
        with listen_to_progress(engine, self._on_blocks):
            yield

    def _on_blocks(self, blocks: PassProgress) -> None:
        self.course.on_blocks(blocks)
        self._draw()

    def passed(self, record: PassRecord, rule: StoppingRule, reads: float) -> None:
        self.course.on_pass(record, rule, reads)
        self.change = "" if record.change is None else f"change {record.change + 0.0:+.1e}"
        self._draw()
        super().passed(record, rule, reads)

    def finished(self, record: Mapping[str, Any], pictures: Sequence[Figure]) -> None:
        self._begin("finished")

    def _begin(self, stage: str) -> None:
        self.course.start_stage(stage)
        self.change = ""
        self._draw()

    def _draw(self) -> None:
        now = self.course.snapshot
        headline, *rest = now.lines
        self.progress.update(
            self.task, completed=now.share, description=" · ".join(filter(None, (headline, self.change, *rest)))
        )


@contextmanager
def with_bar(watch: LogWatch, console: Console | None = None, *, wanted: bool) -> Iterator[LogWatch]:
    """Add a progress bar to a watch, which vanishes at the end.

    Parameters
    ----------
    watch
        Receives the warnings and passes.
    console
        Where the bar is drawn; the notebook, or standard error where None.
    wanted
        Whether a bar is wanted. If not, the watch is given back as it is.

    Raises
    ------
    MissingDependencyError
        If a bar is wanted and rich is not installed.
    """
    if not wanted:
        yield watch
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError as error:
        raise MissingDependencyError(
            "progress=True needs the package 'rich'; pip install 'zarr-clustering[cli]', or leave out progress"
        ) from error
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console or Console(stderr=True), transient=True) as progress:
        yield _BarWatch(watch, progress)
