"""A temporary folder of this user, for machines where no other folder can be written."""

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

    Only this user can write there. If another user has taken the name, the folder belongs to this process alone.

    Parameters
    ----------
    purpose
        Part of the folder's name, such as ``kernels``.
    """
    with suppress(OSError):
        base = Path(tempfile.gettempdir())
        # Python's last resort is the current folder, where users do not expect temporary files.
        if base != Path.cwd():
            return _own(base / f"clustering-{purpose}-{os.getuid()}")
    return None


def _own(path: Path) -> Path:
    """Make the folder, or use it if only this user can write there; otherwise make one with a random name."""
    with suppress(FileExistsError):
        path.mkdir(0o700)
    # `lstat` does not follow links, so a link of another user is not taken for the folder.
    held = path.lstat()
    if stat.S_ISDIR(held.st_mode) and held.st_uid == os.getuid() and not held.st_mode & 0o022:
        return path
    private = tempfile.mkdtemp(prefix=f"{path.name}-")
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    return Path(private)


def home_folder() -> Path | None:
    """Return the home folder; None where there is none, as for arbitrary users of containers."""
    # Without HOME and a user entry, `expanduser` returns ``~`` unchanged.
    home = Path(os.path.expanduser("~"))  # noqa: PTH111
    return home if home.is_absolute() and (home.is_dir() or is_writable(home)) else None


def ensure_home() -> None:
    """Set HOME to a temporary folder where the user has no home, because packages fail without one."""
    if home_folder() is None:
        ensure("HOME", "home", "this user has no home folder")


def ensure(variable: str, purpose: str, why: str) -> None:
    """Set an environment variable to a temporary folder, for this process and its children, and log a warning.

    Parameters
    ----------
    variable
        Environment variable to set.
    purpose
        Part of the folder's name.
    why
        Reason that the warning begins with.
    """
    folder = temporary_folder(purpose)
    if folder is not None:
        os.environ[variable] = str(folder)
        logger.warning("%s, so %s is used; set %s to a folder that stays", why, folder, variable)


def is_writable(folder: Path) -> bool:
    """Return whether a folder can be written to, or made.

    Parameters
    ----------
    folder
        Path that may not exist.
    """
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
