"""Checks whether an output may be written to: it is new, or runs wrote all that is in it.

Runs leave a mark in their output. An output from before there was a mark is recognized by files that only runs write:
a switch that points to a version, a version whose record has its name, a ledger, or a checkpoint.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clustering.data.ownership import OUTPUT_MARK, RUN_NAME, SWITCH
from clustering.errors import ClusteringError, OutputError, PlaceError
from clustering.storage import checkpoints, layout
from clustering.storage.layout import (
    CHECKPOINTS,
    CURRENT,
    LOCK,
    NAMES,
    PARTS,
    PREVIOUS,
    RECORD,
    REPORT,
    SELECTION,
    SELECTION_PAGE,
    VERSIONS,
    WRITTEN_NAMES,
)
from clustering.storage.paths import BucketPath, StoragePath, children, size, write_json

_MARK = {"wrote": "zarr-clustering", "format": 1}
_LINKS = {
    **dict.fromkeys((CURRENT, PREVIOUS), SWITCH),
    **{part: re.compile(re.escape(f"{CURRENT}/{part}")) for part in PARTS},
}
"""Targets of the links of an output."""
_OF_A_VERSION: dict[str, Callable[[Path], bool]] = {
    RECORD: Path.is_file,
    REPORT: Path.is_file,
    **dict.fromkeys(layout.FOLDERS, Path.is_dir),
}


def check_owned(output: StoragePath) -> None:
    """Refuse a folder or prefix that holds anything that no run wrote; nothing is written, and no link is followed.

    Parameters
    ----------
    output
        Folder or prefix of the output.

    Raises
    ------
    OutputError
        If it holds something else; the message names it.
    """
    there = children(output)
    if not there:
        return
    kind = "prefix" if isinstance(output, BucketPath) else "folder"
    try:
        foreign = _foreign_in_bucket(output) if isinstance(output, BucketPath) else _foreign(output)
    except OSError as error:
        # A StoreError is an OSError too, and its message is fit for users.
        if isinstance(error, ClusteringError):
            raise
        raise OutputError(
            f"cannot look into output.store {str(output)!r}: {error.strerror}; name a new folder"
        ) from error
    if foreign is not None:
        raise PlaceError(f"output.store {str(output)!r} holds {foreign!r}, which is not from a run; name a new {kind}")
    if not _is_proven(output):
        raise PlaceError(
            f"output.store {str(output)!r} holds {there[0].name!r}, and nothing in it shows that a run wrote that; "
            f"name a new {kind}"
        )


def is_marked(output: StoragePath) -> bool:
    """Return whether an output has a mark.

    Parameters
    ----------
    output
        Folder or prefix of the output.
    """
    return (layout.read_json_object(output / OUTPUT_MARK) or {}).get("wrote") == _MARK["wrote"]


def mark(output: StoragePath) -> None:
    """Write the mark into an output that has none.

    Parameters
    ----------
    output
        Folder or prefix of the output.
    """
    if not is_marked(output):
        write_json(output / OUTPUT_MARK, _MARK)


def is_temporary(entry: Path) -> bool:
    """Return whether a name is that of a temporary file or link of a killed run.

    Parameters
    ----------
    entry
        Path directly in an output or in a version.
    """
    return layout.TEMPORARY.fullmatch(entry.name) is not None and (entry.is_symlink() or not entry.is_dir())


def _is_proven(output: StoragePath) -> bool:
    run = layout.current(output)
    if is_marked(output) or (run is not None and _names_itself(output / VERSIONS / run)):
        return True
    if any(_names_itself(version) or _has_ledger(version) for version in layout.versions_of(output)):
        return True
    # A run that was killed early leaves only checkpoints.
    if checkpoints.unfinished(output / CHECKPOINTS, None) is not None:
        return True
    record: dict[str, Any] = layout.read_record(output) or {}
    if isinstance(output, BucketPath) and layout.run_name(record) and {"config_sha256", "status"} <= record.keys():
        # An output in a bucket from before there were versions.
        return True
    # A run that holds its lock may have written nothing else yet.
    return all(path.name == LOCK and _is_lock(path) for path in children(output))


def _is_lock(path: StoragePath) -> bool:
    # A lock in a folder is an empty file. In a bucket it names its holder.
    return not size(path) or (isinstance(path, BucketPath) and "token" in (layout.read_json_object(path) or {}))


def _names_itself(version: StoragePath) -> bool:
    return layout.run_name(layout.read_record(version)) == version.name


def _has_ledger(version: StoragePath) -> bool:
    return "sha256" in (layout.read_json_object(version / layout.LEDGER / "wish.json") or {})


def _foreign_in_bucket(output: BucketPath) -> str | None:
    for path in children(output):
        if path.name not in WRITTEN_NAMES:
            return path.name
    for folder, ours in ((VERSIONS, RUN_NAME), (CHECKPOINTS, checkpoints.NAMES)):
        for path in children(output / folder):
            if not ours.fullmatch(path.name):
                return f"{folder}/{path.name}"
    return None


def _foreign(output: Path) -> str | None:
    """Name the first entry of a folder that no run wrote; None where there is none."""
    for entry in _entries(output):
        name = entry.name
        if is_temporary(entry):
            continue
        if name in (VERSIONS, CHECKPOINTS) and _is(entry, Path.is_dir):
            inside = _foreign_version if name == VERSIONS else _foreign_checkpoint
            inner = next(filter(None, map(inside, _entries(entry))), None)
            if inner is not None:
                return f"{name}/{inner}"
            continue
        if name in (OUTPUT_MARK, LOCK, NAMES, SELECTION, SELECTION_PAGE) and _is(entry, Path.is_file):
            continue
        if name in _LINKS and entry.is_symlink() and _LINKS[name].fullmatch(entry.readlink().as_posix()):
            continue
        return name
    return None


def _foreign_version(version: Path) -> str | None:
    if not (RUN_NAME.fullmatch(version.name) and _is(version, Path.is_dir)):
        return version.name
    for entry in _entries(version):
        if not (is_temporary(entry) or (entry.name in _OF_A_VERSION and _is(entry, _OF_A_VERSION[entry.name]))):
            return f"{version.name}/{entry.name}"
    return None


def _foreign_checkpoint(file: Path) -> str | None:
    named = checkpoints.NAMES.fullmatch(file.name) or checkpoints.HALF_MADE.fullmatch(file.name)
    return None if named and _is(file, Path.is_file) else file.name


def _entries(folder: Path) -> list[Path]:
    try:
        # Sorted entries make the error name the same one each time.
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is(entry: Path, kind: Callable[[Path], bool]) -> bool:
    """Return whether an entry is of a kind, and no link; True for one that a run has removed meanwhile."""
    return (not entry.is_symlink() and kind(entry)) or not os.path.lexists(entry)
