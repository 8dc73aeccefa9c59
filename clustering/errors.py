"""Every error this library raises on purpose.

::

    ClusteringError
    ├── ConfigError              a parameter is wrong: name, value, what is allowed
    ├── SourceError              the store, group, variable or dimension is not there
    ├── StoreError               a store refuses or fails to answer, after all tries
    ├── DataError                the values cannot be clustered as asked
    ├── OutputError              the output cannot be written, or would overwrite something
    ├── CheckpointError          an unfinished run belongs to another config or another source
    ├── ExecutionError           the cluster cannot be reached or lost its work
    └── MissingDependencyError   an optional package is not installed

ConfigError, SourceError and DataError are ValueErrors too, so that whoever catches those of wrong shapes and values, as
other libraries raise them, catches ours.

ClusteringWarning is the category of every Python warning of this library.

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
    """The store, group, variable or dimension named is not there."""


class StoreError(ClusteringError, OSError):
    """A store cannot be reached, refuses, or fails to answer, after all tries."""


class DataError(ClusteringError, ValueError):
    """The data hold values that cannot be clustered as asked."""


class OutputError(ClusteringError, OSError):
    """The output cannot be written, or writing would replace something."""


class CheckpointError(ClusteringError):
    """A checkpoint belongs to another config or another source, or cannot be read."""


class ExecutionError(ClusteringError, RuntimeError):
    """The cluster cannot be reached, or it lost the work."""


class MissingDependencyError(ClusteringError, ImportError):
    """An optional package is needed and not installed."""


class ClusteringWarning(UserWarning):
    """What may not be meant by whoever wrote the data or asked for the fit.

    ``warnings.filterwarnings("ignore", category=clustering.ClusteringWarning)`` silences them.
    """


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Name what is allowed, the likeliest intended name first.

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
"""How notes of errors begin that tell which block or variable was at work."""


@contextmanager
def at_work(what: object) -> Iterator[None]:
    """Note on an unforeseen error what was at work; errors of this library say it themselves.

    The note goes with the error through processes, and Python shows it below the traceback.
    """
    try:
        yield
    except ClusteringError:
        raise
    except Exception as error:
        error.add_note(f"{AT_WORK}{what}")
        raise


def reason(error: BaseException) -> str:
    """Say in one line why something failed, in the words of whoever noticed it; without the name of the error."""
    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, KeyError) and not isinstance(error, ClusteringError):
        return f"{text} is missing"
    return text or "no reason is given"


@contextmanager
def damaged(kind: type[ClusteringError], what: str, remedy: str) -> Iterator[None]:
    """Take whatever is raised while something stored is read as damage to it: its values may be anything.

    Parameters
    ----------
    kind
        Raised instead.
    what, remedy
        Begin and end of the message.
    """
    try:
        yield
    except (ClusteringError, MemoryError, BrokenPipeError):
        raise
    except Exception as error:
        raise kind(f"{what} cannot be read ({reason(error)}); {remedy}") from error
