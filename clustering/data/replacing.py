"""Putting a folder in its place in one step: it is written beside, brought to the disk, and switched.

::

    .photo.zarr.1f2e3d4c/      beside photo.zarr; hidden, and removed again
      staging.json             ours, and locked as long as its process lives
      new/                     what is being written; after the switch, what was replaced
      old/                     what is being replaced, where a disk cannot swap two folders in one step

A process that is killed leaves the old or the new folder, whole, and perhaps such a folder: the next writer of the same
place removes it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from clustering.data.ownership import is_empty
from clustering.errors import ClusteringError, OutputError

_SIGN = "staging.json"
_NEW, _OLD = "new", "old"
_SYNCS = 16
"""Files brought to the disk at once: a disk takes several in one go."""
_EXCHANGE, _HERE = 2, -100
"""``RENAME_EXCHANGE`` and ``AT_FDCWD`` of Linux."""
_NOT_ABLE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV)


@contextmanager
def staged(target: Path, check: Callable[[], None]) -> Iterator[Path]:
    """Give a place beside the target, and put it in the target's place when all went well.

    Parameters
    ----------
    check
        Raises where the target may not be replaced; asked before anything is written, and again before the switch.

    Raises
    ------
    OutputError
        If the disk refuses.
    """
    check()
    above = target.absolute().parent
    made = [folder for folder in (above, *above.parents) if not folder.exists()]
    staging = above / f".{target.name}.{uuid.uuid4().hex[:8]}"
    try:
        above.mkdir(parents=True, exist_ok=True)
        _remove_left(target)
        with _signed(staging, target):
            yield staging / _NEW
            sync_tree(staging / _NEW)
            check()
            _switch(staging, target)
            sync_folder(above)
    except BaseException as error:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError) and not isinstance(error, ClusteringError):
            raise OutputError(f"cannot write {str(target)!r}: {error.strerror or error}") from error
        raise


@contextmanager
def _signed(staging: Path, target: Path) -> Iterator[None]:
    staging.mkdir()
    try:
        try:
            sign = (staging / _SIGN).open("x")
        except FileNotFoundError:
            # Another writer of the same place took it for left behind.
            staging.mkdir()
            sign = (staging / _SIGN).open("x")
        with sign:
            # Where a file system has no locks, what is left of a killed process stays.
            with suppress(OSError):
                fcntl.flock(sign, fcntl.LOCK_EX)
            json.dump(_sign_of(target), sign)
            sign.flush()
            yield
    finally:
        if os.path.lexists(target) or not (staging / _OLD).exists():
            with suppress(OSError):
                _remove(staging)


def _remove(staging: Path) -> None:
    """Remove a folder of ours; its sign goes last, so that what is left of it is known."""
    for name in (_NEW, _OLD):
        if (staging / name).exists():
            shutil.rmtree(staging / name)
    (staging / _SIGN).unlink()
    staging.rmdir()


def _sign_of(target: Path) -> dict[str, str]:
    return {"wrote": "zarr-clustering", "beside": target.name}


def _remove_left(target: Path) -> None:
    """Remove what killed writers of a place left beside it, and put back what one was about to replace."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}")
    for staging in target.absolute().parent.iterdir():
        if not pattern.fullmatch(staging.name) or staging.is_symlink():
            continue
        with suppress(OSError):
            # One that is empty is of a writer who was killed at its first step, or its last.
            staging.rmdir()
            continue
        try:
            with (staging / _SIGN).open("r+") as sign:
                fcntl.flock(sign, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if json.load(sign) != _sign_of(target):
                    continue
                if (staging / _OLD).is_dir() and not os.path.lexists(target):
                    (staging / _OLD).rename(target)
                _remove(staging)
        except (OSError, ValueError):
            # Another writer is at work there, or it is not ours.
            continue


def _switch(staging: Path, target: Path) -> None:
    new = staging / _NEW
    if not os.path.lexists(target) or is_empty(target):
        # A folder takes the place of an empty one, and of nothing else.
        new.rename(target)
    elif not _exchange(new, target):
        target.rename(staging / _OLD)
        try:
            new.rename(target)
        except BaseException:
            (staging / _OLD).rename(target)
            raise


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step; False where the system or the disk cannot."""
    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if swap is None:
        return False
    if swap(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_ABLE:
        return False
    raise OSError(number, os.strerror(number), str(other))


def sync_tree(folder: Path) -> None:
    """Bring all files below a folder to the disk, and the folders themselves; links are not followed."""
    files, folders = [], []
    for path, _, names in os.walk(folder):
        folders.append(path)
        files += [f"{path}/{name}" for name in names]
    with ThreadPoolExecutor(_SYNCS, thread_name_prefix="clustering-sync") as pool:
        for _ in pool.map(_sync, files):
            pass
        for _ in pool.map(sync_folder, folders):
            pass


def sync_folder(folder: str | Path) -> None:
    """Bring the names of a folder to the disk, where its file system can."""
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in (*_NOT_ABLE, errno.EBADF, errno.EACCES):
            raise


def _sync(path: str | Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        # A link holds nothing of its own.
        if error.errno == errno.ELOOP:
            return
        raise
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
