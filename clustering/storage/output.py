"""The output folder: staged versions, one switch, checkpoints, a lock.

::

    output/
      current -> versions/<run>      the switch: one symbolic link, replaced atomically
      previous -> versions/<run>     the version before, for those who were reading it
      model.zarr -> current/model.zarr    (likewise labels.zarr, report.html, run.json)
      versions/<run>/                everything a run made; of an unfinished run, the blocks that it has labelled
      checkpoints/                   of the run under way, or the last one
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clustering.errors import OutputError

PARTS = ("model.zarr", "labels.zarr", "report.html", "run.json")
"""What a finished run leaves, by the names they are found under."""
NAMES = "names.json"
"""What people call the clusters, whatever version is current."""
_CURRENT, _PREVIOUS, _VERSIONS, _CHECKPOINTS, _LOCK = "current", "previous", "versions", "checkpoints", ".lock"


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
        return self.path / _CHECKPOINTS

    @property
    def published(self) -> Path:
        """Folder of what is published."""
        return self.path / _CURRENT

    @property
    def finished(self) -> str | None:
        """Name of the published run, if there is one."""
        return self._version(_CURRENT)

    def staging(self, run: str) -> Path:
        """Folder of what a run makes, out of sight until it is published."""
        return self.path / _VERSIONS / run

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
            ours = {_CURRENT, _PREVIOUS, _VERSIONS, _CHECKPOINTS, _LOCK, NAMES, *PARTS}
            foreign = sorted(e.name for e in self.path.iterdir() if e.name not in ours and not _is_half_made(e))
            if foreign:
                raise OutputError(
                    f"output.store {str(self.path)!r} holds {foreign[0]!r}, which is not from a run; name a new folder"
                )

    @contextmanager
    def locked(self, unfinished: Callable[[], str | None] = lambda: None) -> Iterator[None]:
        """Keep other runs off this output; a lock ends with its process, however that ends.

        Folders that were made here and stay empty are removed again, and so is what was staged and not published.

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
            handle = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
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
                self._drop_unpublished(unfinished())
                if {entry.name for entry in self.path.iterdir()} == {_LOCK}:
                    (self.path / _LOCK).unlink()
        finally:
            os.close(handle)
            _remove_empty(made)

    def _drop_unpublished(self, unfinished: str | None = None) -> None:
        """Remove what was staged and not published, but for what an unfinished run goes on from."""
        folder = self.path / _VERSIONS
        if folder.is_dir():
            kept = {self._version(_CURRENT), self._version(_PREVIOUS), unfinished}
            for version in folder.iterdir():
                if version.name not in kept:
                    shutil.rmtree(version, ignore_errors=True)
            _remove_empty([folder])
        for entry in self.path.iterdir():
            if _is_half_made(entry):
                entry.unlink()

    def _version(self, link: str) -> str | None:
        try:
            return (self.path / link).readlink().name
        except OSError:
            return None

    def stage(self, run: str, keep: Collection[str] = ()) -> Path:
        """Make a folder for what a run makes, empty but for the names to keep of an earlier attempt of it."""
        folder = self.staging(run)
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        for entry in folder.iterdir():
            if entry.name in keep:
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        return folder

    def publish(self, run: str) -> None:
        """Switch the output to a staged run, in one step, and drop the others."""
        before = self.finished
        for part in PARTS:
            # The names are there before the switch, so that the switch is all it takes.
            if (self.staging(run) / part).exists() and not (self.path / part).is_symlink():
                _replace_link(self.path / part, f"{_CURRENT}/{part}")
        _replace_link(self.path / _CURRENT, f"{_VERSIONS}/{run}")
        self.link()
        if before is not None and before != run:
            # It stays until the next switch: someone may be reading it.
            _replace_link(self.path / _PREVIOUS, f"{_VERSIONS}/{before}")
        self._drop_unpublished()

    def link(self) -> None:
        """Let the output's names lead to what the current version holds."""
        for part in PARTS:
            link = self.path / part
            if (self.path / _CURRENT / part).exists() != link.is_symlink():
                if link.is_symlink():
                    link.unlink()
                else:
                    _replace_link(link, f"{_CURRENT}/{part}")

    def read_json(self, name: str) -> Any:
        """Read a published JSON file.

        Raises
        ------
        OutputError
            If there is no finished run here.
        """
        try:
            return json.loads((self.path / _CURRENT / name).read_text())
        except (OSError, ValueError) as error:
            raise OutputError(
                f"no finished run at {str(self.path)!r}; name the output.store of a finished run"
            ) from error


def new_run() -> str:
    """Name a run."""
    return uuid.uuid4().hex[:12]


def _is_half_made(entry: Path) -> bool:
    """Tell a link or file that a killed run had not yet put in its place."""
    return any(entry.name.startswith(f".{name}.") for name in (_CURRENT, _PREVIOUS, NAMES, *PARTS))


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
