"""Lines about passes, and the relay of log records of the library to a watch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from clustering.execution.engine import Engine
from clustering.fitting.loop import PassRecord
from clustering.report.units import duration
from clustering_flows.log_lines import LIBRARY, listening_to_library

MOST_LINES = 100
"""Largest number of log lines of the library that are passed on."""


def pass_line(record: PassRecord, reads: float) -> str:
    """Write the record of a pass as one line."""
    # Adding 0.0 turns −0.0 into 0.0, which has no minus sign in the line.
    change = "" if record.change is None else f"  change {record.change + 0.0:+.2e}"
    rate = record.rows * record.active / record.seconds if record.seconds else 0.0
    several = f" × {record.active} candidates" if record.active > 1 else ""
    read = f"{record.read_stats.bytes / 1e6:,.1f} MB read" if record.read_stats.bytes else "nothing read"
    line = f"pass {record.iteration:>3}{several}  {record.symbol} {record.objective:.10g}{change}"
    line += f"  {rate / 1e6:.2f} M rows/s  {read}, reads {reads:g}"
    if record.remaining_seconds:
        line += f"  about {duration(record.remaining_seconds)} to go"
    return line


class _Relay(logging.Handler):
    """Passes each distinct line on once, as a fault of a block is logged again in every pass."""

    def __init__(self, say: Callable[[str], None], warn: Callable[[str], None]) -> None:
        super().__init__()
        self.send = {False: say, True: warn}
        self.lines: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if line in self.lines or len(self.lines) > MOST_LINES:
            return
        self.lines.add(line)
        if len(self.lines) > MOST_LINES:
            line = f"more than {MOST_LINES} such lines; further ones are left out"
        self.send[record.levelno >= logging.WARNING](line)


@contextmanager
def relayed(engine: Engine, say: Callable[[str], None], warn: Callable[[str], None]) -> Iterator[None]:
    """Pass on log records of the library, from this process and from the workers of a cluster.

    Parameters
    ----------
    engine
        Engine of the job, with its Dask client if it has one.
    say, warn
        Called with each line, from the thread that logs it.
    """
    client = engine.client
    workers = () if client is None else client.scheduler_info(n_workers=-1)["workers"]
    # Workers in this process share its loggers, so their records need not be forwarded.
    forwards = client is not None and not any(address.startswith("inproc:") for address in workers)
    with listening_to_library([_Relay(say, warn)]):
        try:
            if forwards:
                client.forward_logging(LIBRARY)
            yield
        finally:
            if forwards:
                # A lost cluster logs nothing more. An error here would hide the error that ended the work.
                with suppress(Exception):
                    client.unforward_logging(LIBRARY)
