"""A temporary folder of this user, where nothing else can be written."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)


@cache
def temporary_folder(purpose: str) -> Path | None:
    """Make a temporary folder, the same in all processes of a user; None where none can be made.

    Nobody else can write there. Where somebody else has taken the name, the folder is of this process alone.

    Parameters
    ----------
    purpose
        Part of the folder's name: ``kernels``.
    """
    with suppress(OSError):
        base = Path(tempfile.gettempdir())
        # Python's last resort is the current folder, where nobody looks for such a thing.
        if base != Path.cwd():
            return _own(base / f"clustering-{purpose}-{os.getuid()}")
    return None


def _own(path: Path) -> Path:
    with suppress(FileExistsError):
        path.mkdir(0o700)
    held = path.lstat()
    if stat.S_ISDIR(held.st_mode) and held.st_uid == os.getuid() and not held.st_mode & 0o022:
        return path
    private = tempfile.mkdtemp(prefix=f"{path.name}-")
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    return Path(private)


def home_folder() -> Path | None:
    """Find the home folder; None where there is none, as for the arbitrary users of containers."""
    # Without HOME and an entry of the user, the name stays as it is.
    home = Path(os.path.expanduser("~"))  # noqa: PTH111
    return home if home.is_absolute() and (home.is_dir() or is_writable(home)) else None


def ensure_home() -> None:
    """Give this process a home folder, where its user has none: packages fail as soon as they ask for it."""
    if home_folder() is None:
        ensure("HOME", "home", "this user has no home folder")


def ensure(variable: str, purpose: str, why: str) -> None:
    """Have an environment variable name a temporary folder, for this process and those it starts, and tell of it."""
    folder = temporary_folder(purpose)
    if folder is not None:
        os.environ[variable] = str(folder)
        logger.warning("%s, so %s is used; set %s to a folder that stays", why, folder, variable)


def is_writable(folder: Path) -> bool:
    """Tell whether a folder can be written, or made."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
