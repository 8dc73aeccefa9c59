"""What of a disk or a bucket is ours: nothing is replaced or removed that this library did not write.

A Zarr group of ours has a small file, `MARK`, that names who wrote it, and has a digest of the metadata of all arrays.
So a copy by other programs, and a group that somebody changed, or added arrays or rows to, are not taken for ours. The
file lies in the folder of the first array: Zarr warns of strange files beside arrays, and not of those inside.

An output of runs has such a file in its root, see `OUTPUT_MARK`; one from before there was one is known by its switch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from clustering.errors import OutputError

MARK = ".zarr-clustering.json"
"""File in the first array of a group that we wrote."""
OUTPUT_MARK = ".output.json"
"""File in an output of runs."""
INGESTED, SAVED = "ingest", "Fit.save"
"""Who writes groups."""
_WRITTEN = {INGESTED: "a Zarr store as 'ingest' wrote it", SAVED: "a model as 'save' wrote it"}
RUN_NAME = re.compile(r"[0-9a-f]{12}")
"""Names of runs: one name, and never a path."""
SWITCH = re.compile(rf"versions/({RUN_NAME.pattern})")
"""What the switch of an output leads to."""
_METADATA = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
_CHUNK = re.compile(r"(.+)/c(?:/\d+)*")


def check_place(text: str) -> Path:
    """Take a path that something of its own may be written to.

    Raises
    ------
    OutputError
        For no name, the working folder, the home folder, the root, a link, and what lies inside a Zarr store or an
        output of runs.
    """
    target = Path(text)
    if not text or "\0" in text or target.name in ("", ".."):
        raise OutputError(f"{text!r} names no place of its own; name a new folder, such as 'model.zarr'")
    for word, folder in (("working folder", Path.cwd), ("home folder", Path.home)):
        if _is_same(target, folder):
            raise OutputError(f"{text!r} is the {word}; name a new folder inside it")
    if target.is_symlink():
        raise OutputError(f"{text!r} is a link to {str(target.readlink())!r}; name a place that is none")
    check_outside(target)
    return target


def check_outside(target: Path) -> None:
    """Refuse a place inside a Zarr store or an output of runs, by its own path and by where its folders lead.

    Raises
    ------
    OutputError
        Naming what it is inside of.
    """
    try:
        above = dict.fromkeys((*target.absolute().parents, *target.resolve().parents))
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{str(target)!r} leads in a circle; name another place") from error
    for folder in above:
        if is_output(folder):
            raise OutputError(f"{str(target)!r} is inside {str(folder)!r}, the output of runs; name a place outside")
        if is_store(folder):
            raise OutputError(f"{str(target)!r} is inside the Zarr store {str(folder)!r}; name a place outside")


def is_store(folder: Path) -> bool:
    """Tell a Zarr group or array."""
    return any(os.path.lexists(folder / name) for name in _METADATA)


def is_output(folder: Path) -> bool:
    """Tell an output of runs, by what its root says."""
    if (folder / OUTPUT_MARK).is_file():
        return True
    try:
        return SWITCH.fullmatch((folder / "current").readlink().as_posix()) is not None
    except OSError:
        return False


def check_target(target: Path, writer: str, replace: bool, remedy: str) -> None:
    """Refuse a folder that holds something, unless it is what the same writer wrote and is to be replaced.

    Parameters
    ----------
    writer
        `INGESTED` or `SAVED`.
    replace
        Whether what is there may be replaced.
    remedy
        What allows it.

    Raises
    ------
    OutputError
        Saying what is there.
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
    """Refuse what has a fault, and what is not to be replaced; see `check_target`."""
    if fault is not None:
        raise OutputError(
            f"{name!r} {fault}: it is not {_WRITTEN[writer]}, so it is not replaced; name another destination, "
            "or remove it by hand"
        )
    if not replace:
        raise OutputError(f"{name!r} exists; name another destination, or use {remedy}")


def is_empty(folder: Path) -> bool:
    """Tell a folder, and no link to one, that nothing is in."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def keys(folder: Path) -> Iterator[str]:
    """List the files below a folder by their paths from there.

    A link ends with ``@`` and is not followed; a folder without anything in it ends with ``/``.
    """

    def stop(error: OSError) -> None:
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
    """Make the mark of a group: its key, and its content.

    Parameters
    ----------
    content
        Of all keys; of others than the ``zarr.json`` of arrays it may be left out.
    """
    members = {key: each for key, each in content.items() if is_member(key)}
    first = min(key for key, each in members.items() if json.loads(each)["node_type"] == "array")
    made = json.dumps({"wrote": writer, "sha256": _digest(members)})
    return f"{first.removesuffix('zarr.json')}{MARK}", made.encode()


def unfinished_mark(writer: str) -> bytes:
    """Make the mark of a group that is being written."""
    return json.dumps({"wrote": writer, "unfinished": True}).encode()


def mark_folder(folder: Path, writer: str) -> None:
    """Mark a group on this machine, once all of it is written."""
    key, content = mark(writer, {key: (folder / key).read_bytes() for key in keys(folder) if is_member(key)})
    (folder / key).write_bytes(content)


def group_fault(names: Collection[str], read: Callable[[str], bytes], writer: str) -> str | None:
    """Say why a group is not what a writer wrote; None where it is.

    Parameters
    ----------
    names
        Keys of all that is there.
    read
        Gives the content of one.
    """
    there = set(names)
    foreign = foreign_key(there)
    if foreign is not None:
        return f"holds {foreign!r}"
    marks = {key: _json(read(key)) or {} for key in there if key.endswith(f"/{MARK}")}
    if marks:
        if any(mark_content.get("wrote") != writer for mark_content in marks.values()):
            return "is a Zarr group of others"
        if any(mark_content.get("unfinished") for mark_content in marks.values()):
            return None
        digest = _digest({key: read(key) for key in there if is_member(key)})
        whole = [mark_content.get("sha256") for mark_content in marks.values()] == [digest]
        return None if whole else "was changed after it was written"
    root = (_json(read("zarr.json")) if "zarr.json" in there else None) or {}
    if writer == SAVED and _is_unmarked_model(root.get("attributes"), there):
        return None
    return "is a Zarr store of others" if root else "is no Zarr store"


def foreign_key(names: Collection[str]) -> str | None:
    """Name the first key that no Zarr group of format 3 has; None where there is none."""
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


def _is_unmarked_model(attributes: Any, there: Collection[str]) -> bool:
    """Tell a model from before there were marks; beside its arrays it has labels of the features it names."""
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
    """Tell the metadata of an array, or a group, from those of the root and from chunks."""
    return key.endswith("/zarr.json")


def _json(content: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _digest(metadata: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for key, content in sorted(metadata.items()):
        digest.update(f"{key} {len(content)} ".encode() + content)
    return digest.hexdigest()


def _is_same(target: Path, folder: Callable[[], Path]) -> bool:
    try:
        return target.samefile(folder())
    except (OSError, RuntimeError):
        return False
