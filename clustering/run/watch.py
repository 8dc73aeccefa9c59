"""The protocol of watches: what a run tells the program around it while it works."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from clustering.execution.engine import Engine
from clustering.fitting.loop import PassRecord, StoppingRule

# An import at run time would load matplotlib, which a job without a report never needs.
if TYPE_CHECKING:
    from clustering.report.figures import Figure

logger = logging.getLogger(__name__)


def counted(number: int, word: str) -> str:
    """Write a number of things: ``1 pass``, ``2,000 blocks``.

    Parameters
    ----------
    number
        The number.
    word
        The word for one of them.
    """
    return f"{number:,} {word}{'' if number == 1 else 'es' if word.endswith('s') else 's'}"


class Watch(Protocol):
    """Receives messages and progress of a job while it runs."""

    def say(self, line: str) -> None:
        """Show a line.

        Parameters
        ----------
        line
            The line.
        """

    def warn(self, line: str) -> None:
        """Show a warning.

        Parameters
        ----------
        line
            The line.
        """

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        """Run a step of the job, and return its result.

        Parameters
        ----------
        name
            ``open``, ``sample``, ``fit``, ``label`` or ``report``.
        work
            The step.
        """

    def working(self, engine: Engine) -> AbstractContextManager[None]:
        """Show progress inside passes while the context is open.

        Parameters
        ----------
        engine
            Engine of the run.
        """

    def passed(self, record: PassRecord, rule: StoppingRule, reads: float) -> None:
        """Show a finished pass, with the number of full reads of the source so far.

        Parameters
        ----------
        record
            Record of the pass.
        rule
            When the fit stops.
        reads
            Number of full reads of the source so far.
        """

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Emit an event on which other programs can act.

        Parameters
        ----------
        name
            Such as ``model.published``.
        payload
            Facts of the event.
        """

    def finished(self, record: Mapping[str, Any], pictures: Sequence[Figure]) -> None:
        """Show the outcome of a job and the pictures of the report.

        Parameters
        ----------
        record
            Content of ``run.json``, or of ``selection.json``.
        pictures
            Pictures of the report.
        """


class LogWatch:
    """Logs the lines of a run, and passes its warnings and passes on to functions."""

    def __init__(self, warn: Callable[[str], None], on_pass: Callable[[PassRecord], object] | None = None) -> None:
        self.warn = warn
        self.on_pass = on_pass

    def say(self, line: str) -> None:
        """Log a line."""
        logger.info("%s", line)

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        """Run a step of the run, and return its result."""
        return work()

    def working(self, engine: Engine) -> AbstractContextManager[None]:
        """Show nothing inside passes."""
        return nullcontext()

    def passed(self, record: PassRecord, rule: StoppingRule, reads: float) -> None:
        """Call the function of the caller with a finished pass."""
        if self.on_pass is not None:
            self.on_pass(record)

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Log an event."""
        logger.info("%s: run %s", name, payload["run"])

    def finished(self, record: Mapping[str, Any], pictures: Sequence[Figure]) -> None:
        """Show nothing, as the caller gets the outcome."""
