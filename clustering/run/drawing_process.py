"""A process that draws the report beside a job.

Drawing is plain Python and holds the interpreter lock. In a thread it slows passes down, and they slow it down; in a
process of its own it takes a processor that a job over an array of a few gigabytes does not use all the time.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from clustering.config import JobConfig
from clustering.data.plan import MIB
from clustering.data.source import Source
from clustering.deferred import load_module
from clustering.fitting.fitted_model import FittedModel
from clustering.models.param_arrays import params_to_arrays
from clustering.run.drawing import PAGE, EarlyDrawing
from clustering.run.report import draw_figures, write_page
from clustering.storage.bucket_output import BucketOutput
from clustering.storage.names_file import load_cluster_names
from clustering.storage.output import Output
from clustering.storage.paths import StoragePath

LARGE = 64 * MIB
"""Models of more bytes than this are drawn where they are, as a process would hold a copy of them."""


class DrawingProcess:
    """A forked process that draws. Whatever fails in it is drawn again by the job, which reports the error."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        """Take a process that `start` has forked.

        Parameters
        ----------
        pid
            Number of the process.
        connection
            Connection to it.
        """
        self._pid, self._begun = pid, False
        self._stream: Any = connection.makefile("rwb")

    @classmethod
    def start(cls) -> DrawingProcess | None:
        """Fork while the program has one thread, as a command has before its job; None where that is impossible."""
        if not sys.platform.startswith("linux") or threading.active_count() > 1:
            return None
        own, other = socket.socketpair()
        with own, other, warnings.catch_warnings():
            # Python counts the threads of BLAS too, which survive a fork.
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                pid = os.fork()
            except OSError:
                # No more processes are allowed.
                return None
            if not pid:
                own.close()
                _serve(other)
            return cls(pid, own)

    def read(self, source: Source, output: Output | BucketOutput) -> bool:
        """Begin to read plotted rows; return whether it has begun, which needs a source and an output to be sent.

        Parameters
        ----------
        source
            Source of the run.
        output
            Output of the run.
        """
        if source.recipe is not None and isinstance(output, Output):
            self._begun = self._send(source)
        return self._begun

    def begin(self, fitted: FittedModel, output: StoragePath, *, labels: bool) -> bool:
        """Begin to draw the figures of a fitted model, which need no labels; return whether it has begun.

        Parameters
        ----------
        fitted, output, labels
            As for `EarlyDrawing.begin`.
        """
        size = sum(array.nbytes for array in params_to_arrays(fitted.params).values())
        self._begun = self._begun and size <= LARGE and self._send((fitted, output, labels))
        return self._begun

    def labelled(self, fitted: FittedModel, folder: StoragePath) -> None:
        """Begin to draw the figures that need labels, which are written now.

        Parameters
        ----------
        fitted
            Fitted model, with what the label pass has measured.
        folder
            Folder of the run.
        """
        self._begun = self._begun and self._send((fitted, folder))

    def write(self, record: Mapping[str, Any], config: JobConfig, output: Output | BucketOutput) -> bool:
        """Write the report with the figures that are drawn, and return whether that was possible.

        Parameters
        ----------
        record, config, output
            As for `write_page`.
        """
        if not self._begun or not self._send((record, config, output)):
            return False
        try:
            return bool(_receive(self._stream))
        except (OSError, EOFError):
            # The system may end a process where memory runs out.
            return False

    def _send(self, content: Any) -> bool:
        try:
            self._stream.write(pickle.dumps(content, pickle.HIGHEST_PROTOCOL))
            self._stream.flush()
        # Options of a store may hold what belongs to this process, and the other one may have ended.
        except (pickle.PicklingError, TypeError, AttributeError, OSError):
            return False
        return True

    def close(self) -> None:
        """End the process, whatever it does."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        with suppress(OSError):
            self._stream.close()


def begin_drawing(
    source: Source, output: Output | BucketOutput, process: DrawingProcess | None
) -> EarlyDrawing | DrawingProcess:
    """Begin what a report needs before there is a model, in the process if it can, and in a thread otherwise.

    Parameters
    ----------
    source, output
        As for `DrawingProcess.read`.
    process
        Process that draws; None where there is none.
    """
    return process if process is not None and process.read(source, output) else EarlyDrawing(source)


def _receive(stream: Any) -> Any:
    # Only the other process can write to the stream.
    return pickle.load(stream)  # noqa: TID251


def _serve(connection: socket.socket) -> None:
    """Draw what the job asks for, until it ends; this function does not return."""
    # An interruption from the keyboard reaches both processes, and the job decides what comes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The process ends with its page. To look for cycles among all that is loaded would take longer than to draw.
    gc.disable()
    try:
        # There is time for it now.
        load_module(PAGE).rehearse()
        stream = connection.makefile("rwb")
        source = _receive(stream)
        drawing = EarlyDrawing(source)
        fitted, path, labels = _receive(stream)
        drawing.begin(fitted, path, labels=labels)
        fitted, folder = _receive(stream)
        drawn, written = None, False
        with suppress(Exception):
            drawn = draw_figures(fitted, folder, source, load_cluster_names(path, fitted.ids), drawing.figures())
        record, config, output = _receive(stream)
        with suppress(Exception):
            if drawn is not None:
                write_page(fitted, record, folder, config, output, *drawn)
                written = True
        pickle.dump(written, stream)
        stream.flush()
    finally:
        # Nothing of the program that was forked may be cleaned up or flushed a second time.
        signal.raise_signal(signal.SIGKILL)
