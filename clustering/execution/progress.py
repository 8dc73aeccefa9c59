"""Progress of a pass, reported while it runs to a listener in the process that started it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from itertools import count
from typing import Any, Protocol, TypeVar

from clustering.execution.engine import Engine

EVERY = 1.0
"""Shortest time between two reports of a task, in seconds; its last block is reported at once."""


@dataclass(frozen=True)
class PassProgress:
    """Blocks of a pass that were finished since the last report."""

    number: int
    """Number of the pass, counted in the process that started it."""
    blocks: int
    """Number of blocks finished since the last report of the task."""
    of: int
    """Number of blocks of the whole pass."""
    bytes: int
    """Decoded size of what was read for these blocks, in bytes."""


class Counted(Protocol):
    """Sums of some blocks that say how much was read."""

    @property
    def blocks(self) -> int:
        """Number of the blocks."""

    @property
    def read(self) -> int:
        """Bytes decoded from the source for the blocks."""


C = TypeVar("C", bound=Counted)
Listener = Callable[[PassProgress], None]

# Reporters are pickled with the work, which a listener cannot be. They find it by the name of the session.
_listeners: dict[str, Listener] = {}
_numbers = count(1)


@dataclass(frozen=True)
class ProgressReporter:
    """Reports finished blocks of one pass, from the tasks that work on them; picklable."""

    session: str
    number: int
    n_blocks: int
    remote: bool
    """Whether tasks run on the workers of a cluster."""

    def of_blocks(self, made: Iterator[C]) -> Iterator[C]:
        """Yield the sums of blocks unchanged, and report each finished block.

        Parameters
        ----------
        made
            Sums of blocks, in order.
        """
        blocks = read = 0
        last_time = time.monotonic()
        for one in made:
            blocks, read = blocks + one.blocks, read + one.read
            if time.monotonic() - last_time >= EVERY:
                self._report(blocks, read)
                blocks, read, last_time = 0, 0, time.monotonic()
            yield one
        if blocks:
            self._report(blocks, read)

    def _report(self, blocks: int, read: int) -> None:
        progress = PassProgress(self.number, blocks, self.n_blocks, read)
        if self.remote:
            # Events travel over the connection of the worker, and no port is opened for them.
            from distributed import get_worker

            # Events may only hold what msgpack writes, so the progress is sent as a plain tuple.
            get_worker().log_event(_topic(self.session), astuple(progress))
        elif self.session in _listeners:
            _listeners[self.session](progress)


def progress_reporter(engine: Engine, blocks: int) -> ProgressReporter | None:
    """Make a reporter of a new pass; None where nobody listens.

    Parameters
    ----------
    engine
        Engine of the pass.
    blocks
        Number of blocks of the pass.
    """
    if engine.session not in _listeners:
        return None
    return ProgressReporter(engine.session, next(_numbers), blocks, engine.client is not None)


@contextmanager
def listen_to_progress(engine: Engine, listener: Listener) -> Iterator[None]:
    """Call a listener with the progress of all passes of an engine, as long as the context lasts.

    Parameters
    ----------
    engine
        Engine whose passes are listened to.
    listener
        Called from other threads than this one; twice for a block if a worker died before its task was done.
    """

    def hear(event: tuple[float, Any]) -> None:
        listener(PassProgress(*event[1]))

    _listeners[engine.session] = listener
    try:
        if engine.client is not None:
            engine.client.subscribe_topic(_topic(engine.session), hear)
        yield
    finally:
        del _listeners[engine.session]
        if engine.client is not None:
            # A cluster that is gone sends nothing more, and its error must not hide that of the work.
            with suppress(Exception):
                engine.client.unsubscribe_topic(_topic(engine.session))


def _topic(session: str) -> str:
    return f"clustering-progress-{session}"
