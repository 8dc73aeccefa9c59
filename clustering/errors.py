"""All errors that this library raises on purpose.

::

    ClusteringError
    ├── ConfigError              a parameter is wrong: name, value, what is allowed
    ├── SourceError              the store, group, variable or dimension is not there
    ├── StoreError               a store refuses or fails to answer, after all tries
    ├── DataError                the values cannot be clustered as asked
    │   └── DomainError          a row holds a value that a model is not defined for
    ├── OutputError              the output cannot be written, or would overwrite something
    ├── CheckpointError          an unfinished run belongs to another config or another source
    ├── ExecutionError           the cluster cannot be reached or lost its work
    └── MissingDependencyError   an optional package is not installed

ConfigError, SourceError and DataError are also ValueErrors, which other libraries raise for wrong shapes and values. So
code that catches ValueError catches them too.

ClusteringWarning is the category of every Python warning of this library. Its subclass ConvergenceWarning says that a
fit stopped before its stopping test was met.

Each message says the fault, the offending name and value, what is allowed, and the remedy, on one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class ClusteringError(Exception):
    """Base of all errors of this library."""


class ConfigError(ClusteringError, ValueError):
    """A parameter has a value that is not allowed."""


class SourceError(ClusteringError, LookupError, ValueError):
    """The named store, group, variable or dimension is not there."""


class StoreError(ClusteringError, OSError):
    """A store cannot be reached, refuses, or fails to answer, after all tries."""


class DataError(ClusteringError, ValueError):
    """The data hold values that cannot be clustered as asked."""


class DomainError(DataError):
    """A row holds a value that a model is not defined for. Passes add the block and the variable to the message.

    Parameters
    ----------
    fault
        The value.
    reason
        Why the model is not defined for it.
    column
        Number of the feature; None where it is the whole row.
    remedy
        What a user can do.
    """

    def __init__(self, fault: str, reason: str, column: int | None, remedy: str) -> None:
        super().__init__(f"{fault}: {reason}")
        self.fault, self.reason, self.column, self.remedy = fault, reason, column, remedy

    def __reduce__(self) -> tuple[type[DomainError], tuple[str, str, int | None, str]]:
        # Between processes, Python makes an error again from `args`, which hold only the message here.
        return DomainError, (self.fault, self.reason, self.column, self.remedy)

    def in_block(self, place: str) -> DataError:
        """Make the error that says where the row is.

        Parameters
        ----------
        place
            The block, and the variable where one is at fault.
        """
        return DataError(f"{self.fault} in {place}: {self.reason}; {self.remedy}")


class OutputError(ClusteringError, OSError):
    """The output cannot be written, or writing would replace something."""


class PlaceError(OutputError):
    """The place that is named for an output is taken, or cannot be one; nothing was written."""


class CheckpointError(ClusteringError):
    """A checkpoint belongs to another config or another source, or cannot be read."""


class ExecutionError(ClusteringError, RuntimeError):
    """The cluster cannot be reached, or it lost the work."""


class MissingDependencyError(ClusteringError, ImportError):
    """An optional package is needed and not installed."""

    def __str__(self) -> str:
        # An ImportError has its text twice, and shows the one that does not follow `args`.
        return " ".join(map(str, self.args))


class ClusteringWarning(UserWarning):
    """The data or the request may not be what the user meant.

    ``warnings.filterwarnings("ignore", category=clustering.ClusteringWarning)`` silences these warnings.
    """


class ConvergenceWarning(ClusteringWarning):
    """A limit of passes or of time ended a fit before its stopping test was met."""


LONGEST = 120
"""Largest number of characters of a wrong value that a message shows."""


def cut(text: str) -> str:
    """Bring a text to one line, and cut it to fit into a message.

    Parameters
    ----------
    text
        A value as a message shows it.
    """
    # The text of an array has several lines. Only its beginning is shown, so only that is searched.
    line = " ".join(text[: 2 * LONGEST].split())
    return line if len(text) <= LONGEST else f"{line[:LONGEST]}…"


def nearest(name: str, allowed: Iterable[str]) -> str:
    """List the allowed names, after the one that was probably meant.

    Parameters
    ----------
    name
        Name that is not allowed.
    allowed
        Allowed names.

    Returns
    -------
    str
        For example ``"did you mean 'depth'? allowed: depth, lat, lon"``.
    """
    names = [str(a) for a in allowed]
    close = difflib.get_close_matches(name, names, n=1)
    listing = "allowed: " + (", ".join(names) if names else "none")
    return f"did you mean {close[0]!r}? {listing}" if close else listing


AT_WORK = "at work: "
"""Prefix of notes of errors that say which block or variable was worked on."""


@contextmanager
def at_work(what: object) -> Iterator[None]:
    """Add a note to an unforeseen error: the block or variable that was worked on.

    Errors of this library name it in their message. The note travels with the error between processes, and Python shows
    it below the traceback.

    Parameters
    ----------
    what
        Block or variable; its text goes into the note.
    """
    try:
        yield
    except ClusteringError:
        raise
    except Exception as error:
        error.add_note(f"{AT_WORK}{what}")
        raise


def reason(error: BaseException) -> str:
    """Return the message of an error as one line, without the name of the error.

    Parameters
    ----------
    error
        Error of any library.
    """
    text = " ".join(str(error).split()).rstrip(".")
    # The text of a KeyError is only the key.
    if isinstance(error, KeyError) and not isinstance(error, ClusteringError):
        return f"{text} is missing"
    return text or "no reason is given"


@contextmanager
def damaged(kind: type[ClusteringError], what: str, remedy: str) -> Iterator[None]:
    """Treat any error while stored data are read as damage to them, because damaged values can cause any error.

    Parameters
    ----------
    kind
        Class of the error that is raised instead.
    what, remedy
        Beginning and end of its message.
    """
    try:
        yield
    # Errors of this library name their cause already. The other two say nothing about the stored data.
    except (ClusteringError, MemoryError, BrokenPipeError):
        raise
    except Exception as error:
        raise kind(f"{what} cannot be read ({reason(error)}); {remedy}") from error
