"""How far a pass is, told while it goes on to whoever listens in the process that started it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from itertools import count
from typing import Any, Protocol, TypeVar

from clustering.execution.engine import Engine

EVERY = 1.0
"""Least time between two words of a task, in seconds; its last block is told of at once."""


@dataclass(frozen=True)
class PassProgress:
    """Some blocks of a pass that are finished."""

    number: int
    """Of the pass, counted in the process that started it."""
    blocks: int
    of: int
    """Blocks of the whole pass."""
    bytes: int
    """Decoded size of what was read for them, in bytes."""


class Counted(Protocol):
    """What is made of a block."""

    @property
    def read(self) -> int:
        """Bytes decoded from the source for it."""


C = TypeVar("C", bound=Counted)
Listener = Callable[[PassProgress], None]

_listeners: dict[str, Listener] = {}
_numbers = count(1)


@dataclass(frozen=True)
class ProgressReporter:
    """Tells of the blocks of one pass, from the tasks that work on them; picklable."""

    session: str
    number: int
    n_blocks: int
    remote: bool
    """Whether tasks run on the workers of a cluster."""

    def of_blocks(self, made: Iterator[C]) -> Iterator[C]:
        """Pass on what is made of some blocks, and tell of each."""
        blocks = read = 0
        last_time = time.monotonic()
        for one in made:
            blocks, read = blocks + 1, read + one.read
            if time.monotonic() - last_time >= EVERY:
                self._report(blocks, read)
                blocks, read, last_time = 0, 0, time.monotonic()
            yield one
        if blocks:
            self._report(blocks, read)

    def _report(self, blocks: int, read: int) -> None:
        progress = PassProgress(self.number, blocks, self.n_blocks, read)
        if self.remote:
            from distributed import get_worker

            get_worker().log_event(_topic(self.session), astuple(progress))
        elif self.session in _listeners:
            _listeners[self.session](progress)


def progress_reporter(engine: Engine, blocks: int) -> ProgressReporter | None:
    """Make what tells of a new pass over so many blocks; None where nobody listens."""
    if engine.session not in _listeners:
        return None
    return ProgressReporter(engine.session, next(_numbers), blocks, engine.client is not None)


@contextmanager
def listen_to_progress(engine: Engine, listener: Listener) -> Iterator[None]:
    """Hear of the passes of an engine.

    Parameters
    ----------
    listener
        Called from other threads than this one, and for a block twice where a worker died before its task was done.
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
            # A cluster that is gone tells nothing more, and must not hide how the work ended.
            with suppress(Exception):
                engine.client.unsubscribe_topic(_topic(engine.session))


def _topic(session: str) -> str:
    return f"clustering-progress-{session}"
