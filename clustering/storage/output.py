"""The output folder: versions side by side, one switch, checkpoints, a lock. See `clustering.storage.layout`.

The switch is one symbolic link, replaced atomically, and the plain names lead through it.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clustering.errors import OutputError
from clustering.storage import layout
from clustering.storage.layout import CHECKPOINTS, CURRENT, LOCK, NAMES, OURS, PARTS, VERSIONS

_PREVIOUS = "previous"
"""A link to the version before, which outputs had that kept two versions alone."""


class Output:
    """The folder that a run writes to."""

    def __init__(self, store: str | os.PathLike[str]) -> None:
        text = os.fspath(store)
        if "://" in text:
            raise OutputError(
                f"output.store is {text!r}, and results are written to a folder or a bucket; "
                "name a folder, or a URL of s3:// or gs://"
            )
        # Workers may stand in other folders.
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
        """Folder of the current version; `OutputError` where there is none."""
        run = self.finished
        if run is None:
            raise layout.nothing_finished(self.path)
        return self.staging(run)

    def staging(self, run: str) -> Path:
        """Folder of what a run makes, out of sight until it is switched to."""
        return self.path / VERSIONS / run

    def check(self) -> None:
        """Refuse a place where nothing can be written, without writing.

        Raises
        ------
        OutputError
            If the folder, or the nearest one above it, is no writable folder, or holds something else.
        """
        above = self.path.absolute()
        try:
            while not above.exists():
                above = above.parent
            writable = above.is_dir() and os.access(above, os.W_OK | os.X_OK)
        except OSError:
            writable = False
        if not writable:
            raise OutputError(f"cannot write to output.store {str(self.path)!r}: {above} is not a writable folder")
        if self.path.is_dir():
            ours = {*OURS, _PREVIOUS}
            foreign = sorted(e.name for e in self.path.iterdir() if e.name not in ours and not _is_half_made(e))
            if foreign:
                raise OutputError(
                    f"output.store {str(self.path)!r} holds {foreign[0]!r}, which is not from a run; name a new folder"
                )

    @contextmanager
    def locked(self, unfinished: Callable[[], str | None] = lambda: None) -> Iterator[None]:
        """Keep other runs off this output; a lock ends with its process, however that ends.

        Folders that were made here and stay empty are removed again, and so is what was staged and not finished.

        Parameters
        ----------
        unfinished
            Names the run, asked in the end, that may go on later: what it staged stays.

        Raises
        ------
        OutputError
            If another run is writing, or the folder cannot be made.
        """
        made = []
        try:
            above = self.path.absolute()
            while not above.exists():
                made.append(above)
                above = above.parent
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
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
                if self.finished:
                    self.link()
                yield
            finally:
                self._tidy(unfinished())
                if {entry.name for entry in self.path.iterdir()} == {LOCK}:
                    (self.path / LOCK).unlink()
        finally:
            os.close(handle)
            _remove_empty(made)

    def _tidy(self, unfinished: str | None) -> None:
        """Remove what did not become a version, but for what an unfinished run goes on from."""
        layout.drop_unfinished(self.path, {self.finished, unfinished})
        _remove_empty([self.path / VERSIONS])
        for entry in (*self.path.iterdir(), *self.path.glob(f"{VERSIONS}/*/.*")):
            if _is_half_made(entry):
                entry.unlink()

    def stage(self, run: str, keep: Collection[str] = ()) -> Path:
        """Make a folder for what a run makes, empty but for the names to keep of an earlier attempt of it."""
        folder = self.staging(run)
        layout.stage(folder, keep)
        return folder

    def switch(self, run: str) -> None:
        """Make a version the current one, in one step."""
        for part in PARTS:
            # The names are there before the switch, so that the switch is all it takes.
            if (self.staging(run) / part).exists() and not (self.path / part).is_symlink():
                _replace_link(self.path / part, f"{CURRENT}/{part}")
        _replace_link(self.path / CURRENT, f"{VERSIONS}/{run}")
        self.link()

    def link(self) -> None:
        """Let the output's names lead to what the current version holds."""
        for part in PARTS:
            link = self.path / part
            if (self.path / CURRENT / part).exists() != link.is_symlink():
                if link.is_symlink():
                    link.unlink()
                else:
                    _replace_link(link, f"{CURRENT}/{part}")
        (self.path / _PREVIOUS).unlink(missing_ok=True)

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file of the current version.

        Raises
        ------
        OutputError
            If there is no finished run here.
        """
        content = layout.json_of(self.published / name)
        if content is None:
            raise layout.nothing_finished(self.path)
        return content


def new_run() -> str:
    """Name a run."""
    return uuid.uuid4().hex[:12]


def _is_half_made(entry: Path) -> bool:
    """Tell a link or file that a killed run had not yet put in its place."""
    return any(entry.name.startswith(f".{name}.") for name in (CURRENT, _PREVIOUS, NAMES, *PARTS))


def _replace_link(link: Path, target: str) -> None:
    part = link.with_name(f".{link.name}.{uuid.uuid4().hex[:8]}")
    part.symlink_to(target)
    part.replace(link)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
