"""An output in a folder: versions side by side, one switch, checkpoints, a lock. See `clustering.storage.layout`.

The switch is one symbolic link, which is replaced in one step. The plain names are links through it.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clustering.data.ownership import OUTPUT_MARK, check_outside, check_place, is_output
from clustering.data.replacing import sync_folder, sync_tree
from clustering.errors import OutputError, PlaceError
from clustering.storage import layout
from clustering.storage.layout import CHECKPOINTS, CURRENT, LOCK, PARTS, PREVIOUS, VERSIONS
from clustering.storage.owning import check_owned, is_temporary, mark


class Output:
    """The folder that runs write to."""

    def __init__(self, store: str | os.PathLike[str]) -> None:
        text = os.fspath(store)
        if "://" in text:
            raise PlaceError(
                f"output.store is {text!r}, and results are written to a folder or a bucket; "
                "name a folder, or a URL of s3:// or gs://"
            )
        self._named = text
        # Workers may have other working folders.
        self.path = Path(text).absolute()

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def finished(self) -> str | None:
        """Name of the current version, if there is one."""
        return layout.current(self.path)

    @property
    def published(self) -> Path:
        """Folder of the current version; raises `OutputError` where there is none."""
        run = self.finished
        if run is None:
            raise layout.no_version_error(self.path)
        return self.staging(run)

    def staging(self, run: str) -> Path:
        """Return the folder of a run's version, which readers do not see before the switch.

        Parameters
        ----------
        run
            Name of the run.
        """
        return self.path / VERSIONS / run

    def check(self) -> None:
        """Refuse a folder that no run can write to; nothing is written.

        Raises
        ------
        OutputError
            If the folder, or the nearest existing one above it, is not writable, holds something else, or is no place
            for an output: an empty name, the working or the home folder, a link, or inside a Zarr store or another
            output.
        """
        if not (self._named and is_output(self.path)):
            check_place(self._named)
        check_outside(self.path)
        above = self.path.absolute()
        try:
            while not above.exists():
                above = above.parent
            writable = above.is_dir() and os.access(above, os.W_OK | os.X_OK)
        except OSError:
            writable = False
        if not writable:
            raise OutputError(f"cannot write to output.store {str(self.path)!r}: {above} is not a writable folder")
        check_owned(self.path)

    @contextmanager
    def locked(self, unfinished: Callable[[], str | None] = lambda: None) -> Iterator[None]:
        """Keep other runs off this output; the system releases the lock when the process ends, however it ends.

        Folders that were made here and stay empty are removed at the end, and so are versions that were not finished.

        Parameters
        ----------
        unfinished
            Called at the end; names the run that may go on later, whose staged files are kept.

        Raises
        ------
        OutputError
            If another run is writing, the folder cannot be made, or runs may not write to it, see `check`.
        """
        self.check()
        # Folders that do not exist yet, so that they can be removed if they stay empty.
        made = []
        try:
            above = self.path.absolute()
            while not above.exists():
                made.append(above)
                above = above.parent
            self.path.mkdir(parents=True, exist_ok=True)
            # A link in place of the lock could lead to a file elsewhere, so it is not followed.
            handle = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            _remove_empty(made)
            raise OutputError(f"cannot write to output.store {str(self.path)!r}: {error.strerror}") from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise OutputError(
                    f"another run is writing to {str(self.path)!r}; wait for it, or name another output.store"
                ) from error
            try:
                mark(self.path)
                # A kill right after a switch may have left plain names that do not fit the current version.
                if self.finished:
                    self.link()
                yield
            finally:
                self._tidy(unfinished())
                # A run that wrote nothing leaves no mark, so that the folder is free again.
                if {entry.name for entry in self.path.iterdir()} <= {LOCK, OUTPUT_MARK}:
                    for name in (OUTPUT_MARK, LOCK):
                        (self.path / name).unlink(missing_ok=True)
        finally:
            os.close(handle)
            _remove_empty(made)

    def _tidy(self, unfinished: str | None) -> None:
        """Remove versions that were not finished, apart from the unfinished run's, and temporary files."""
        layout.remove_unfinished(self.path, {self.finished, unfinished})
        _remove_empty([self.path / VERSIONS])
        for entry in (*self.path.iterdir(), *self.path.glob(f"{VERSIONS}/*/.*")):
            if is_temporary(entry):
                entry.unlink()

    def stage(self, run: str, keep: Collection[str] = ()) -> Path:
        """Clear the folder of a run's version, or make it.

        Parameters
        ----------
        run
            Name of the run.
        keep
            Names in the version that stay, from an earlier attempt of the same run.

        Returns
        -------
        pathlib.Path
            Folder of the version.
        """
        folder = self.staging(run)
        layout.stage(folder, keep)
        return folder

    def switch(self, run: str) -> None:
        """Make a version the current one in one step, after all its files are synced to the disk.

        Parameters
        ----------
        run
            Name of the run of the version.
        """
        # The order matters when the power fails: the switch must not reach the disk before the files that it shows.
        sync_tree(self.staging(run))
        sync_folder(self.path / VERSIONS)
        sync_folder(self.path)
        for part in PARTS:
            # New plain names are made before the switch, so that the switch alone shows the whole version.
            if (self.staging(run) / part).exists() and not (self.path / part).is_symlink():
                _replace_link(self.path / part, f"{CURRENT}/{part}")
        _replace_link(self.path / CURRENT, f"{VERSIONS}/{run}")
        self.link()
        sync_folder(self.path)

    def link(self) -> None:
        """Make or remove the plain names, so that they fit the current version."""
        for part in PARTS:
            link = self.path / part
            if (self.path / CURRENT / part).exists() != link.is_symlink():
                if link.is_symlink():
                    link.unlink()
                else:
                    _replace_link(link, f"{CURRENT}/{part}")
        (self.path / PREVIOUS).unlink(missing_ok=True)

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file of the current version.

        Parameters
        ----------
        name
            File name in the version, such as ``run.json``.

        Raises
        ------
        OutputError
            If the output has no finished run.
        """
        content = layout.read_json_object(self.published / name)
        if content is None:
            raise layout.no_version_error(self.path)
        return content


def new_run() -> str:
    """Make the name of a new run: 12 random hexadecimal digits."""
    return uuid.uuid4().hex[:12]


def _replace_link(link: Path, target: str) -> None:
    # A link cannot be overwritten in place, but a rename replaces it in one step.
    part = link.with_name(f".{link.name}.{uuid.uuid4().hex[:8]}")
    part.symlink_to(target)
    part.replace(link)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
