"""Replacing a folder in one step: the new folder is written to a staging folder, synced to the disk and renamed.

::

    .photo.zarr.1f2e3d4c/      staging folder beside photo.zarr; hidden, removed at the end
      staging.json             written by this library, and locked as long as its process lives
      new/                     the new folder; after the switch, the replaced one
      old/                     the folder to replace, where a disk cannot swap two folders in one step

``.labels.zarr.unfinished/`` is a staging folder that stays, see `continued`.

A killed process leaves either the old or the new folder, complete, and perhaps a staging folder. The next writer of the
same target removes that.
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
from clustering.errors import ClusteringError, DataError, OutputError

_SIGN = "staging.json"
"""File that says that this library made a staging folder."""
_NEW, _OLD = "new", "old"
_SYNCS = 16
"""Number of files synced at the same time. A disk writes several together."""
_EXCHANGE, _HERE = 2, -100
"""``RENAME_EXCHANGE`` and ``AT_FDCWD`` of Linux."""
_NOT_ABLE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV)
"""Errors of a file system that lacks an operation."""


@contextmanager
def staged(target: Path, check: Callable[[], None]) -> Iterator[Path]:
    """Give a path to write a folder to, and move it to the target once the body has ended without error.

    Parameters
    ----------
    target
        Final path of the folder. Missing parent folders are made.
    check
        Function that raises if the target may not be replaced. It is called before anything is written, and again
        before the switch.

    Raises
    ------
    OutputError
        If the disk refuses to write.
    """
    check()
    above = target.absolute().parent
    # If the body fails, parent folders made here are removed again.
    made = [folder for folder in (above, *above.parents) if not folder.exists()]
    staging = above / f".{target.name}.{uuid.uuid4().hex[:8]}"
    try:
        above.mkdir(parents=True, exist_ok=True)
        _remove_left(target)
        with _signed(staging, target):
            yield staging / _NEW
            sync_tree(staging / _NEW)
            check()
            _switch(staging / _NEW, staging / _OLD, target)
            sync_folder(above)
    except BaseException as error:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError) and not isinstance(error, ClusteringError):
            raise OutputError(f"cannot write {str(target)!r}: {error.strerror or error}") from error
        raise


@contextmanager
def continued(target: Path, name: str, check: Callable[[], None]) -> Iterator[Path]:
    """Give a staging folder that stays if the body is interrupted, so that the next call goes on with what is in it.

    After faults of the data it is removed, as the same call would fail again.

    Parameters
    ----------
    target
        Final path of the folder. Missing parent folders are made.
    name
        Folder inside the staging folder that becomes the target at the end.
    check
        As for `staged`.

    Raises
    ------
    OutputError
        If another process is writing to the same target, or the disk refuses to write.
    """
    above = target.absolute().parent
    staging = above / f".{target.name}.unfinished"
    try:
        if os.path.lexists(staging):
            with _locked_sign(staging, target):
                _finish_switch(staging, target)
        check()
        above.mkdir(parents=True, exist_ok=True)
        staging.mkdir(exist_ok=True)
        with _locked_sign(staging, target):
            try:
                yield staging
            except DataError:
                _remove_whole(staging)
                raise
            sync_tree(staging / name)
            check()
            # Under this name, the folder is never taken for an unfinished one, whatever the switch has put there.
            (staging / name).rename(staging / _NEW)
            _switch(staging / _NEW, staging / _OLD, target)
            sync_folder(above)
            _remove_whole(staging)
    except OSError as error:
        if isinstance(error, ClusteringError):
            raise
        raise OutputError(f"cannot write {str(target)!r}: {error.strerror or error}") from error


def _finish_switch(staging: Path, target: Path) -> None:
    """Tidy up after a writer that was killed in its switch; the target is the old or the new folder, whole."""
    _restore(staging, target)
    if (staging / _NEW).exists() or (staging / _OLD).exists():
        _remove_whole(staging)


def _restore(staging: Path, target: Path) -> None:
    """Move the replaced folder back to the target, where a writer was killed between two renames."""
    if (staging / _OLD).is_dir() and not os.path.lexists(target):
        (staging / _OLD).rename(target)


@contextmanager
def _locked_sign(staging: Path, target: Path) -> Iterator[None]:
    """Lock the signed file of a staging folder, which is new or was left by a killed writer of the same target."""
    foreign = OutputError(f"{str(staging)!r} is in the way and is not from this library; move it elsewhere")
    busy = OutputError(f"another process is writing {str(target)!r}; wait for it, or name another place")
    path = staging / _SIGN
    if staging.is_symlink() or path.is_symlink() or not (path.is_file() or is_empty(staging)):
        raise foreign
    with path.open("a+") as sign:
        try:
            fcntl.flock(sign, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise busy from error
        except OSError as error:
            # Some file systems have no locks.
            if error.errno not in _NOT_ABLE:
                raise
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(sign.fileno())):
            # The other process has just ended, and removed the folder.
            raise busy
        sign.seek(0)
        content = sign.read()
        # A writer that was killed at its very beginning left an empty file, and nothing beside it.
        if content != json.dumps(_sign_of(target)) and (content or len(list(staging.iterdir())) > 1):
            raise foreign
        if not content:
            json.dump(_sign_of(target), sign)
            sign.flush()
        yield


@contextmanager
def _signed(staging: Path, target: Path) -> Iterator[None]:
    """Make a staging folder with a locked file, and remove it at the end."""
    staging.mkdir()
    try:
        try:
            sign = (staging / _SIGN).open("x")
        except FileNotFoundError:
            # Another writer of the same target took the empty folder for the rest of a killed one, and removed it.
            staging.mkdir()
            sign = (staging / _SIGN).open("x")
        with sign:
            # Some file systems have no locks. There, staging folders of killed processes are never removed.
            with suppress(OSError):
                fcntl.flock(sign, fcntl.LOCK_EX)
            json.dump(_sign_of(target), sign)
            sign.flush()
            yield
    finally:
        # If the switch failed halfway, the only copy of the replaced folder is in here: the next writer restores it.
        if os.path.lexists(target) or not (staging / _OLD).exists():
            with suppress(OSError):
                _remove(staging)


def _remove(staging: Path) -> None:
    """Remove a staging folder. Its signed file goes last, so that an interrupted removal can be finished later."""
    for name in (_NEW, _OLD):
        if (staging / name).exists():
            shutil.rmtree(staging / name)
    (staging / _SIGN).unlink()
    staging.rmdir()


def _remove_whole(staging: Path) -> None:
    """Remove a staging folder with all that its writer put there; see `_remove`."""
    for entry in staging.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != _SIGN:
            entry.unlink()
    _remove(staging)


def _sign_of(target: Path) -> dict[str, str]:
    """Content of the file that signs a staging folder of a target."""
    return {"wrote": "zarr-clustering", "beside": target.name}


def _remove_left(target: Path) -> None:
    """Remove staging folders of killed writers of a target, and restore the target if one was killed in the switch."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}")
    for staging in target.absolute().parent.iterdir():
        if not pattern.fullmatch(staging.name) or staging.is_symlink():
            continue
        with suppress(OSError):
            # An empty folder comes from a writer that was killed in its first or its last step.
            staging.rmdir()
            continue
        try:
            with (staging / _SIGN).open("r+") as sign:
                fcntl.flock(sign, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if json.load(sign) != _sign_of(target):
                    continue
                _restore(staging, target)
                _remove(staging)
        except (OSError, ValueError):
            # Another writer is using the folder, or this library did not make it.
            continue


def _switch(new: Path, old: Path, target: Path) -> None:
    """Move the new folder to the target, and a folder at the target to the place of the new or the old one."""
    if not os.path.lexists(target) or is_empty(target):
        # rename() replaces an empty folder, but no folder with content.
        new.rename(target)
    elif not _exchange(new, target):
        # Two renames, between which there is no target. `_remove_left` repairs a process killed there.
        target.rename(old)
        try:
            new.rename(target)
        except BaseException:
            old.rename(target)
            raise


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step; False where the system or the disk cannot."""
    # Python has no function for this system call.
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
    """Sync all files and folders below a folder to the disk, so that they survive a power cut.

    Parameters
    ----------
    folder
        A folder on this machine. Links in it are not followed.
    """
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
    """Sync the entries of a folder to the disk, where its file system can.

    Parameters
    ----------
    folder
        A folder on this machine.
    """
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in (*_NOT_ABLE, errno.EBADF, errno.EACCES):
            raise


def _sync(path: str | Path) -> None:
    """Sync a file or folder to the disk."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        # A link has no content to sync. Its name is part of its folder.
        if error.errno == errno.ELOOP:
            return
        raise
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
