"""Ownership of files and folders: this library replaces and removes only what it wrote itself.

A Zarr group that this library wrote holds a small file, `MARK`, with the name of the writer and a digest of the
metadata of all arrays. So a group that another program copied or changed, or added arrays or rows to, is recognized and
kept. The file lies in the folder of the first array, because Zarr warns of unknown files beside arrays, but not of
those inside them.

An output of runs holds such a file in its root, see `OUTPUT_MARK`. Outputs of earlier versions lack it and are
recognized by the link to their current version.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from clustering.errors import OutputError, PlaceError, cut

MARK = ".zarr-clustering.json"
"""Name of the file, in the first array of a group, that says that this library wrote the group."""
OUTPUT_MARK = ".output.json"
"""Name of the file, in the root of an output, that says that this library wrote the output."""
INGESTED, SAVED, LABELLED, EXPORTED, SEGMENTED = "ingest", "Fit.save", "Fit.label", "export", "segment"
"""Writers of groups, as marks name them."""
_WRITTEN = {
    INGESTED: "a Zarr store as 'ingest' wrote it",
    SAVED: "a model as 'save' wrote it",
    LABELLED: "labels as 'Fit.label' wrote them",
    EXPORTED: "a label image as 'export' wrote it",
    SEGMENTED: "superpixels as 'segment' wrote them",
}
RUN_NAME = re.compile(r"[0-9a-f]{12}")
"""Names of runs. They hold no separators, so a name never leads out of the output."""
SWITCH = re.compile(rf"versions/({RUN_NAME.pattern})")
"""Target of the link from an output to its current version."""
_METADATA = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
"""Files that make a folder a Zarr group or array, in formats 2 and 3."""
_CHUNK = re.compile(r"(.+)/c(?:/\d+)*")
"""Keys of chunks in format 3, such as ``temperature/c/0/1``."""


def check_place(text: str) -> Path:
    """Check that a new folder may be written at a path, and return the path.

    Parameters
    ----------
    text
        Local path, as the user gave it.

    Raises
    ------
    OutputError
        For an empty name, the working folder, the home folder, the root, a link, and a path inside a Zarr store or an
        output of runs.
    """
    target = Path(text)
    if not text or "\0" in text or target.name in ("", ".."):
        raise PlaceError(f"{text!r} names no place of its own; name a new folder, such as 'model.zarr'")
    for word, folder in (("working folder", Path.cwd), ("home folder", Path.home)):
        if _is_same(target, folder):
            raise PlaceError(f"{text!r} is the {word}; name a new folder inside it")
    try:
        link = target.is_symlink()
    except OSError as error:
        raise OutputError(f"{cut(repr(text))} cannot be a folder: {error.strerror}; name another place") from error
    if link:
        # A rename would replace the link and leave its target as it is.
        raise PlaceError(f"{text!r} is a link to {str(target.readlink())!r}; name a place that is none")
    check_outside(target)
    return target


def check_outside(target: Path) -> None:
    """Refuse a path inside a Zarr store or an output of runs, both as written and with its links resolved.

    Parameters
    ----------
    target
        Path of a new folder.

    Raises
    ------
    OutputError
        Naming the store or the output that holds the path.
    """
    try:
        # A link above the target may lead into a store that the written path does not show.
        above = dict.fromkeys((*Path(os.path.normpath(target.absolute())).parents, *target.resolve().parents))
    except (OSError, RuntimeError) as error:
        raise PlaceError(f"{str(target)!r} leads in a circle; name another place") from error
    for folder in above:
        if is_output(folder):
            raise PlaceError(f"{str(target)!r} is inside {str(folder)!r}, the output of runs; name a place outside")
        if is_store(folder):
            raise PlaceError(f"{str(target)!r} is inside the Zarr store {str(folder)!r}; name a place outside")


def is_store(folder: Path) -> bool:
    """Tell whether a folder is a Zarr group or array.

    Parameters
    ----------
    folder
        Any path; it may not exist.
    """
    return any(os.path.lexists(folder / name) for name in _METADATA)


def is_output(folder: Path) -> bool:
    """Tell whether a folder is an output of runs.

    Parameters
    ----------
    folder
        Any path; it may not exist.
    """
    if (folder / OUTPUT_MARK).is_file():
        return True
    try:
        return SWITCH.fullmatch((folder / "current").readlink().as_posix()) is not None
    except OSError:
        return False


def check_target(target: Path, writer: str, replace: bool, remedy: str) -> None:
    """Refuse a target that is not empty, unless the same writer wrote it and it may be replaced.

    Parameters
    ----------
    target
        Folder of a new group; it may not exist.
    writer
        `INGESTED`, `SAVED`, `LABELLED`, `EXPORTED` or `SEGMENTED`.
    replace
        Whether an earlier group of the same writer may be replaced.
    remedy
        Option that allows replacing, for the message.

    Raises
    ------
    OutputError
        If the target may not be replaced; the message says what it holds.
    """
    if not os.path.lexists(target):
        return
    try:
        if is_empty(target):
            return
        fault = None
        if target.is_symlink():
            fault = "is a link"
        elif not target.is_dir():
            fault = "is a file"
        elif is_output(target):
            fault = "is the output of runs"
        else:
            fault = group_fault(list(keys(target)), lambda key: (target / key).read_bytes(), writer)
    except OSError as error:
        raise OutputError(f"cannot look into {str(target)!r}: {error.strerror}; name another place") from error
    refuse(str(target), fault, writer, replace, remedy)


def refuse(name: str, fault: str | None, writer: str, replace: bool, remedy: str) -> None:
    """Raise if a target was not written by this writer, or may not be replaced; see `check_target`.

    Parameters
    ----------
    name
        Path or URL of the target, for the message.
    fault
        Why the target is not a group of this writer, see `group_fault`; None where it is.
    writer
        `INGESTED`, `SAVED`, `LABELLED`, `EXPORTED` or `SEGMENTED`.
    replace
        Whether a group of this writer may be replaced.
    remedy
        Option that allows replacing, for the message.

    Raises
    ------
    OutputError
        If `fault` is set or `replace` is False.
    """
    if fault is not None:
        raise PlaceError(
            f"{name!r} {fault}: it is not {_WRITTEN[writer]}, so it is not replaced; name another destination, "
            "or remove it by hand"
        )
    if not replace:
        raise PlaceError(f"{name!r} exists; name another destination, or use {remedy}")


def is_empty(folder: Path) -> bool:
    """Tell whether a path is an empty folder. A link to an empty folder does not count.

    Parameters
    ----------
    folder
        Any path; it may not exist.
    """
    if folder.is_symlink() or not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def keys(folder: Path) -> Iterator[str]:
    """List the files below a folder by their relative paths.

    A link ends with ``@`` and is not followed. An empty folder ends with ``/``.

    Parameters
    ----------
    folder
        An existing folder.

    Raises
    ------
    OSError
        If a folder cannot be listed.
    """

    def stop(error: OSError) -> None:
        # os.walk would skip a folder that it cannot list, and the files in it would look absent.
        raise error

    for path, folders, files in os.walk(folder, onerror=stop):
        inside = Path(path).relative_to(folder)
        if not folders and not files and inside.name:
            yield f"{inside.as_posix()}/"
        for name in (*files, *folders):
            if os.path.islink(os.path.join(path, name)):  # noqa: PTH114 - a path object for each chunk takes its time
                yield f"{(inside / name).as_posix()}@"
            elif name in files:
                yield (inside / name).as_posix()


def mark(writer: str, content: Mapping[str, bytes]) -> tuple[str, bytes]:
    """Make the mark of a group: its key and its content.

    Parameters
    ----------
    writer
        `INGESTED`, `SAVED`, `LABELLED`, `EXPORTED` or `SEGMENTED`.
    content
        Key → content of all ``zarr.json`` below the root of the group. Other keys are ignored.
    """
    members = {key: each for key, each in content.items() if is_member(key)}
    # The first name gives the mark the same place, whatever the order of the listing.
    first = min(key for key, each in members.items() if json.loads(each)["node_type"] == "array")
    made = json.dumps({"wrote": writer, "sha256": _digest(members)})
    return f"{first.removesuffix('zarr.json')}{MARK}", made.encode()


def unfinished_mark(writer: str) -> bytes:
    """Make the content of the mark of a group that is still being written.

    Parameters
    ----------
    writer
        `INGESTED`, `SAVED`, `LABELLED`, `EXPORTED` or `SEGMENTED`.
    """
    return json.dumps({"wrote": writer, "unfinished": True}).encode()


def mark_folder(folder: Path, writer: str) -> None:
    """Write the mark into a finished group on this machine.

    Parameters
    ----------
    folder
        Folder of the group.
    writer
        `INGESTED`, `SAVED`, `LABELLED`, `EXPORTED` or `SEGMENTED`.
    """
    key, content = mark(writer, {key: (folder / key).read_bytes() for key in keys(folder) if is_member(key)})
    (folder / key).write_bytes(content)


def group_fault(names: Collection[str], read: Callable[[str], bytes], writer: str) -> str | None:
    """Say why a group is not as the writer left it; None where it is.

    Parameters
    ----------
    names
        All keys below the group, as `keys` gives them.
    read
        Function from a key to its content.
    writer
        `INGESTED`, `SAVED`, `LABELLED`, `EXPORTED` or `SEGMENTED`.
    """
    there = set(names)
    # A single file of others protects the whole group.
    foreign = foreign_key(there)
    if foreign is not None:
        return f"holds {foreign!r}"
    marks = {key: _json(read(key)) or {} for key in there if key.endswith(f"/{MARK}")}
    if marks:
        if any(mark_content.get("wrote") != writer for mark_content in marks.values()):
            return "is a Zarr group of others"
        if any(mark_content.get("unfinished") for mark_content in marks.values()):
            # The rest of a killed run: it was ours, and is of no use to anyone.
            return None
        digest = _digest({key: read(key) for key in there if is_member(key)})
        # A second mark comes with a group that was copied into this one.
        whole = [mark_content.get("sha256") for mark_content in marks.values()] == [digest]
        return None if whole else "was changed after it was written"
    root = (_json(read("zarr.json")) if "zarr.json" in there else None) or {}
    if writer == SAVED and _is_unmarked_model(root.get("attributes"), there):
        return None
    return "is a Zarr store of others" if root else "is no Zarr store"


def foreign_key(names: Collection[str]) -> str | None:
    """Name the first key that does not belong to a Zarr group of format 3; None where all do.

    Parameters
    ----------
    names
        All keys below the group, as `keys` gives them.
    """
    there = set(names)
    for key in sorted(there):
        chunk = _CHUNK.fullmatch(key)
        if key.rpartition("/")[2] not in ("zarr.json", MARK) and not (chunk and f"{chunk[1]}/zarr.json" in there):
            return key.rstrip("@/")
    return None


_MODEL = re.compile(
    r"centers|centers_prepared|covariances|shares|weights|history|mean|variance|minimum|maximum|cluster|"
    r"(params|track|preparation)_\w+"
)
"""Names of the arrays in saved models of all versions."""


def _is_unmarked_model(attributes: Any, there: Collection[str]) -> bool:
    """Tell whether a group is a model of an earlier version, which wrote no marks.

    All its arrays must be those of models, or labels of the features that its attributes name.
    """
    needed = ("format", "kind", "k", "model", "features", "stop_reason")
    try:
        dims = {d for feature in attributes["features"] for d, _ in feature[1:]}
    except (KeyError, TypeError, ValueError):
        return False
    labels = {"variable", *dims, *(f"feature_{d}" for d in dims)}
    arrays = {key.removesuffix("/zarr.json") for key in there if is_member(key)}
    ours = all(_MODEL.fullmatch(name) or name in labels for name in arrays)
    return ours and all(name in attributes for name in needed) and {"centers", "weights", "history"} <= arrays


def is_member(key: str) -> bool:
    """Tell whether a key holds the metadata of an array or group below the root.

    Parameters
    ----------
    key
        A key, counted from the root of a group.
    """
    return key.endswith("/zarr.json")


def _json(content: bytes) -> dict[str, Any] | None:
    """Parse a JSON object; None for anything else."""
    try:
        parsed = json.loads(content)
    # The parser of Python runs out of stack in deeply nested JSON.
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _digest(metadata: Mapping[str, bytes]) -> str:
    """Digest keys and contents, whatever their order. The length keeps the parts apart."""
    digest = hashlib.sha256()
    for key, content in sorted(metadata.items()):
        digest.update(f"{key} {len(content)} ".encode() + content)
    return digest.hexdigest()


def _is_same(target: Path, folder: Callable[[], Path]) -> bool:
    """Tell whether a path is a given folder; False where either does not exist."""
    try:
        return target.samefile(folder())
    # Path.home raises a RuntimeError where there is no home folder.
    except (OSError, RuntimeError):
        return False
