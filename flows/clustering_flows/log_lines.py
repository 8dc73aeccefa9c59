"""Prints log records of the library to stderr, a line each, while a command runs without Prefect."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from clustering_flows.exit_status import describe_fault

LIBRARY = "clustering"
"""Name of the logger of the library, the parent of all its loggers."""


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        word = "warning" if record.levelno >= logging.WARNING else "note"
        print(f"{word}: {' '.join(record.getMessage().split())}", file=sys.stderr, flush=True)


@contextmanager
def notices() -> Iterator[None]:
    """Write log records of the library, and warnings of other packages, to stderr as lines; each warning once."""
    said: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        line = " ".join(str(message).split())
        if line not in said:
            said.add(line)
            print(f"warning: {line}", file=sys.stderr, flush=True)

    # Python would print the traceback of an error that ends a thread.
    def ended(thread: threading.ExceptHookArgs) -> None:
        if thread.exc_value is not None and not isinstance(thread.exc_value, SystemExit):
            show(f"a background thread ended early: {describe_fault(thread.exc_value)}")

    before = warnings.showwarning, threading.excepthook
    warnings.showwarning, threading.excepthook = show, ended
    try:
        with listening_to_library([_Lines()]):
            yield
    finally:
        warnings.showwarning, threading.excepthook = before


@contextmanager
def listening_to_library(handlers: list[logging.Handler]) -> Iterator[None]:
    """Send log records of the library, from level INFO on, to these handlers alone."""
    logger = logging.getLogger(LIBRARY)
    before = logger.handlers, logger.propagate, logger.level
    # Handlers of parent loggers, and those that Prefect may add, would print the same lines again.
    logger.handlers, logger.propagate = handlers, False
    # Level 0 means that of the root logger, which hides notes by default. A lower level stays.
    logger.setLevel(min(logger.level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before[:2]
        logger.setLevel(before[2])
