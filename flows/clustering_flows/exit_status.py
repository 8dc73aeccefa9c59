"""Exit status of a command: every error becomes one line, and an exit code that separates mistakes from failures."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from clustering import __version__
from clustering.errors import AT_WORK, ClusteringError, ConfigError, MissingDependencyError, PlaceError, SourceError

_FAULTS: tuple[tuple[type[BaseException], str], ...] = (
    (RecursionError, "too many levels"),
    (NotImplementedError, "something that is not supported"),
    (AssertionError, "something that has to hold does not"),
    (LookupError, "something that is not there"),
    (AttributeError, "something that is not there"),
    (ImportError, "a package that cannot be imported"),
    (ArithmeticError, "a fault of arithmetic"),
    (UnicodeError, "text of another encoding"),
    (ValueError, "a value that nobody expected"),
    (TypeError, "a value of a kind that nobody expected"),
    (TimeoutError, "no answer in time"),
    (OSError, "a fault of a file or a connection"),
)
"""Plain words for types of errors. The first type that fits is used, so subclasses stand before their bases."""
_REMEDIES = {
    errno.ENOSPC: "free space there, or name another place",
    errno.EDQUOT: "free space there, or name another place",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), or name another place",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs",
    errno.EROFS: "name another place",
    errno.EACCES: "change who may use it, or name another place",
    errno.EPERM: "change who may use it, or name another place",
    errno.ENAMETOOLONG: "shorten the name",
    errno.EIO: "check the disk",
    errno.ENOMEM: "lower compute.memory or compute.workers",
}
"""Remedies for errors of the machine, by error number."""


def exit_status(error: BaseException) -> tuple[int, str]:
    """Turn an error into an exit code and one line for the user.

    Returns
    -------
    int
        Exit code: 2 for a mistake in the config or an argument, 1 for a job that failed.
    str
        One line, without names of Python types.
    """
    # Several tasks may fail at once; the first error is enough for one line.
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, ClusteringError):
        mistake = isinstance(error, (ConfigError, SourceError, PlaceError, MissingDependencyError))
        return (2 if mistake else 1), reason_of(error)
    if isinstance(error, KeyboardInterrupt):
        return 1, "interrupted; run the same command again: fit, select-k and predict go on where they stopped"
    at = _at_work(error)
    where = f", at {at}" if at else ""
    if isinstance(error, MemoryError):
        return 1, f"memory ran out{where}; lower compute.memory or compute.workers, or use a larger machine"
    if isinstance(error, OSError) and "temporary directory" in str(error):
        return 1, "no temporary folder can be written; set TMPDIR to a folder that can be"
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        path_text = "" if error.filename is None else f"{str(error.filename)!r}: "
        return 1, f"{path_text}{(error.strerror or 'it failed').lower()}{where}; {_REMEDIES[error.errno]}"
    # Python has no class of its own for this error, so its text decides.
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return 1, f"no more threads can be started{where}; raise the limit (ulimit -u), or lower compute.workers"
    return 1, (
        f"internal error: {describe_fault(error)}{where}; this is a fault of zarr-clustering {__version__}: run the "
        "command again with --debug, and report what it shows to the project"
    )


def reason_of(error: ClusteringError) -> str:
    """Return the message of an error of the library as one line."""
    return " ".join(str(error).split()) or "the command failed, and no reason is given"


def describe_fault(error: BaseException) -> str:
    """Describe the type of an error in plain words."""
    return next((words for kind, words in _FAULTS if isinstance(error, kind)), "a fault that nobody expected")


def _at_work(error: BaseException) -> str:
    """Return the block and the variable that the error belongs to, from the notes of the error."""
    # A note may belong to any error of the chain, as errors are raised from others on the way up.
    notes = [
        note.removeprefix(AT_WORK)
        for link in _chain(error)
        for note in getattr(link, "__notes__", ())
        if isinstance(note, str) and note.startswith(AT_WORK)
    ]
    return ", ".join(dict.fromkeys(" ".join(note.split()) for note in reversed(notes)))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause of that, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
