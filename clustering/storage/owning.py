"""Whether an output may be written to: it is new, or runs wrote all that is in it.

Runs leave a mark in their output. One from before there was a mark is known by what only a run writes: the switch with
a version that it leads to, a version that names itself, the ledger of one, or a checkpoint.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clustering.data.ownership import OUTPUT_MARK, RUN_NAME, SWITCH
from clustering.errors import ClusteringError, OutputError
from clustering.storage import checkpoints, layout
from clustering.storage.layout import CHECKPOINTS, CURRENT, LOCK, NAMES, OURS, PARTS, PREVIOUS, RECORD, REPORT, VERSIONS
from clustering.storage.places import BucketPlace, Place, children, size, write_json

_MARK = {"wrote": "zarr-clustering", "format": 1}
_LINKS = {
    **dict.fromkeys((CURRENT, PREVIOUS), SWITCH),
    **{part: re.compile(re.escape(f"{CURRENT}/{part}")) for part in PARTS},
}
"""What the links of an output lead to."""
_OF_A_VERSION: dict[str, Callable[[Path], bool]] = {
    RECORD: Path.is_file,
    REPORT: Path.is_file,
    **dict.fromkeys(layout.FOLDERS, Path.is_dir),
}


def check_owned(output: Place) -> None:
    """Refuse a place that holds what no run wrote; nothing is written, and no link is followed.

    Raises
    ------
    OutputError
        Naming what it holds.
    """
    there = children(output)
    if not there:
        return
    kind = "prefix" if isinstance(output, BucketPlace) else "folder"
    try:
        foreign = _foreign_in_bucket(output) if isinstance(output, BucketPlace) else _foreign(output)
    except OSError as error:
        if isinstance(error, ClusteringError):
            raise
        raise OutputError(
            f"cannot look into output.store {str(output)!r}: {error.strerror}; name a new folder"
        ) from error
    if foreign is not None:
        raise OutputError(f"output.store {str(output)!r} holds {foreign!r}, which is not from a run; name a new {kind}")
    if not _is_proven(output):
        raise OutputError(
            f"output.store {str(output)!r} holds {there[0].name!r}, and nothing in it shows that a run wrote that; "
            f"name a new {kind}"
        )


def is_marked(output: Place) -> bool:
    """Tell an output with a mark."""
    return (layout.json_of(output / OUTPUT_MARK) or {}).get("wrote") == _MARK["wrote"]


def mark(output: Place) -> None:
    """Leave the mark."""
    if not is_marked(output):
        write_json(output / OUTPUT_MARK, _MARK)


def is_half_made(entry: Path) -> bool:
    """Tell a link or file that a killed run had not yet put in its place."""
    return layout.HALF_MADE.fullmatch(entry.name) is not None and (entry.is_symlink() or not entry.is_dir())


def _is_proven(output: Place) -> bool:
    run = layout.current(output)
    if is_marked(output) or (run is not None and _names_itself(output / VERSIONS / run)):
        return True
    if any(_names_itself(version) or _has_ledger(version) for version in layout.versions_of(output)):
        return True
    if checkpoints.unfinished(output / CHECKPOINTS, None) is not None:
        return True
    record: dict[str, Any] = layout.record_of(output) or {}
    if isinstance(output, BucketPlace) and layout.run_of(record) and {"config_sha256", "status"} <= record.keys():
        # From before there were versions.
        return True
    # A run has its lock, and has written nothing yet.
    return all(place.name == LOCK and _is_lock(place) for place in children(output))


def _is_lock(place: Place) -> bool:
    return not size(place) or (isinstance(place, BucketPlace) and "token" in (layout.json_of(place) or {}))


def _names_itself(version: Place) -> bool:
    return layout.run_of(layout.record_of(version)) == version.name


def _has_ledger(version: Place) -> bool:
    return "sha256" in (layout.json_of(version / layout.LEDGER / "wish.json") or {})


def _foreign_in_bucket(output: BucketPlace) -> str | None:
    for place in children(output):
        if place.name not in OURS:
            return place.name
    for folder, ours in ((VERSIONS, RUN_NAME), (CHECKPOINTS, checkpoints.NAMES)):
        for place in children(output / folder):
            if not ours.fullmatch(place.name):
                return f"{folder}/{place.name}"
    return None


def _foreign(output: Path) -> str | None:
    """Name the first of what a folder holds that no run wrote."""
    for entry in _entries(output):
        name = entry.name
        if is_half_made(entry):
            continue
        if name in (VERSIONS, CHECKPOINTS) and _is(entry, Path.is_dir):
            inside = _foreign_version if name == VERSIONS else _foreign_checkpoint
            found = next(filter(None, map(inside, _entries(entry))), None)
            if found is not None:
                return f"{name}/{found}"
            continue
        if name in (OUTPUT_MARK, LOCK, NAMES) and _is(entry, Path.is_file):
            continue
        if name in _LINKS and entry.is_symlink() and _LINKS[name].fullmatch(entry.readlink().as_posix()):
            continue
        return name
    return None


def _foreign_version(version: Path) -> str | None:
    if not (RUN_NAME.fullmatch(version.name) and _is(version, Path.is_dir)):
        return version.name
    for entry in _entries(version):
        if not (is_half_made(entry) or (entry.name in _OF_A_VERSION and _is(entry, _OF_A_VERSION[entry.name]))):
            return f"{version.name}/{entry.name}"
    return None


def _foreign_checkpoint(file: Path) -> str | None:
    named = checkpoints.NAMES.fullmatch(file.name) or checkpoints.HALF_MADE.fullmatch(file.name)
    return None if named and _is(file, Path.is_file) else file.name


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is(entry: Path, kind: Callable[[Path], bool]) -> bool:
    """Tell what is a folder or a file itself, and no link to one; or is gone, as a run that is at work removes some."""
    return (not entry.is_symlink() and kind(entry)) or not os.path.lexists(entry)
