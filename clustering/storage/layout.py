"""The files of an output, which are the same in a folder and in a bucket.

::

    output/
      current                        the switch: a link in a folder, a small object {"run": …} in a bucket
      versions/<run>/                all files of a run; it is finished once its run.json, the last file, is there
      model.zarr  labels.zarr  report.html  run.json      of the current version: links, or copies in a bucket
      names.json                     names of clusters
      selection.json  selection.html      of the last sweep over k
      .output.json                   the mark of an output
      checkpoints/                   of the run under way, or the last one
      .lock                          of the run under way

A reader that resolves `current` once reads one whole version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from clustering.data.ownership import OUTPUT_MARK, RUN_NAME, SWITCH
from clustering.errors import OutputError
from clustering.storage.paths import BucketPath, StoragePath, children, make_folder, remove_keys

RECORD, REPORT = "run.json", "report.html"
PARTS = ("model.zarr", "labels.zarr", REPORT, RECORD)
"""The files of the current version that have plain names in the output."""
CURRENT, VERSIONS, CHECKPOINTS, NAMES, LOCK = "current", "versions", "checkpoints", "names.json", ".lock"
SELECTION, SELECTION_PAGE = "selection.json", "selection.html"
"""Outcome of the last sweep over k, and its page. They belong to the output, as a sweep may publish no version."""
PREVIOUS = "previous"
"""A link to the version before; only outputs of early releases, which kept two versions, have it."""
LEDGER = "ledger"
FOLDERS = ("model.zarr", "labels.zarr", LEDGER)
"""Folders of a version."""
WRITTEN_NAMES = frozenset({CURRENT, VERSIONS, CHECKPOINTS, NAMES, LOCK, OUTPUT_MARK, SELECTION, SELECTION_PAGE, *PARTS})
"""All names directly in an output that runs write."""
_REPLACED = (CURRENT, PREVIOUS, NAMES, OUTPUT_MARK, SELECTION, SELECTION_PAGE, *PARTS)
TEMPORARY = re.compile(rf"\.({'|'.join(map(re.escape, _REPLACED))})\.[0-9a-f]{{8}}")
"""Pattern of the names of temporary files that a killed run left."""
_RECORD = r"block-\d{8,}|[0-9a-f]{16}-[0-9a-f]{24}"
_LEDGER = rf"wish\.json|{_RECORD}"
_OF_A_GROUP = r"(.+/)?(zarr\.json|c(/\d+)*|[^/]+\.[0-9a-f]{32}\.partial)"
"""Pattern of the files that Zarr writes for a group and its arrays."""
_VERSION_KEY = re.compile(
    rf"run\.json|report\.html|ledger/({_LEDGER})|\.(run\.json|report\.html)\.[0-9a-f]{{8}}|"
    rf"ledger/\.({_LEDGER})\.[0-9a-f]{{8}}|"
    rf"(model|labels)\.zarr/{_OF_A_GROUP}"
)
"""Pattern of the files that a run writes into its version, by path from there."""


def current(output: StoragePath) -> str | None:
    """Name the current version of an output; None where it has no switch.

    Parameters
    ----------
    output
        Folder or prefix of the output.
    """
    if isinstance(output, BucketPath):
        return run_name(read_json_object(output / CURRENT))
    try:
        switch = SWITCH.fullmatch((output / CURRENT).readlink().as_posix())
    except OSError:
        return None
    return None if switch is None else switch[1]


def run_name(content: Mapping[str, Any] | None) -> str | None:
    """Return the name of the run in a JSON object; None where it is not a valid name.

    Parameters
    ----------
    content
        Content of a ``run.json`` or a switch; None where there is none.
    """
    run = (content or {}).get("run")
    return run if isinstance(run, str) and RUN_NAME.fullmatch(run) else None


def versions_of(output: StoragePath) -> list[StoragePath]:
    """List the versions of an output, finished or not, by name.

    Parameters
    ----------
    output
        Folder or prefix of the output.
    """
    return [path for path in children(output / VERSIONS) if RUN_NAME.fullmatch(path.name)]


def is_written_by_runs(key: str) -> bool:
    """Return whether a file of a version has a name that runs write, so that foreign files are never removed.

    Parameters
    ----------
    key
        Path of the file from the folder of the version.
    """
    return _VERSION_KEY.fullmatch(key) is not None


def is_record(name: str) -> bool:
    """Return whether a file of a ledger is the record of a block, and not a temporary file of a killed run.

    Parameters
    ----------
    name
        Name of the file in the folder of the ledger.
    """
    return re.fullmatch(_RECORD, name) is not None


def current_version(path: StoragePath) -> StoragePath:
    """Resolve the switch of an output once; a path without a switch is returned as it is.

    Parameters
    ----------
    path
        Output, or the version or file of one.
    """
    run = current(path)
    if run is not None:
        return path / VERSIONS / run
    # Plain names are links through the switch. Resolved once, they stay in one version.
    return path.resolve() if isinstance(path, Path) else path


def is_of_a_group(key: str) -> bool:
    """Return whether Zarr writes such a file for a group or for an array in it.

    Parameters
    ----------
    key
        Path of the file from the folder of the group.
    """
    return re.fullmatch(_OF_A_GROUP, key) is not None


def is_of_an_array(key: str) -> bool:
    """Return whether Zarr writes such a file for an array.

    Parameters
    ----------
    key
        Path of the file from the folder of the array.
    """
    return re.fullmatch(r"zarr\.json|c(/\d+)*|([^/]+/)*[^/]+\.[0-9a-f]{32}\.partial", key) is not None


def read_json_object(file: StoragePath) -> dict[str, Any] | None:
    """Read a JSON object; None where the file is missing or holds something else.

    Parameters
    ----------
    file
        File or object to read.
    """
    try:
        content = json.loads(file.read_bytes())
    # A damaged file may nest brackets so deep that the parser raises RecursionError.
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def read_record(version: StoragePath) -> dict[str, Any] | None:
    """Read the ``run.json`` of a version; None where the version is not finished.

    Parameters
    ----------
    version
        Folder or prefix of the version.
    """
    return read_json_object(version / RECORD)


def no_version_error(output: StoragePath) -> OutputError:
    """Make the error of an output that has no finished version.

    Parameters
    ----------
    output
        Folder or prefix of the output.
    """
    return OutputError(f"no finished run at {str(output)!r}; name the output.store of a finished run")


def stage(version: StoragePath, keep: Collection[str]) -> None:
    """Make room for a run's version.

    Parameters
    ----------
    version
        Folder or prefix of the version.
    keep
        Names in it that stay, from an earlier attempt of the same run.
    """
    # Without `run.json` the version is unfinished, even if the rest of this is cut short.
    (version / RECORD).unlink(missing_ok=True)
    remove_keys(version, lambda key: is_written_by_runs(key) and key.partition("/")[0] not in keep)
    make_folder(version)


def remove_version(version: StoragePath) -> None:
    """Remove a version. Files that no run wrote stay.

    ``run.json`` is removed first, so that the rest of an interrupted removal is not a finished version.

    Parameters
    ----------
    version
        Folder or prefix of the version.
    """
    (version / RECORD).unlink(missing_ok=True)
    remove_keys(version, is_written_by_runs)


def remove_unfinished(output: StoragePath, kept: Collection[str | None]) -> None:
    """Remove staged versions that were not finished.

    Parameters
    ----------
    output
        Folder or prefix of the output.
    kept
        Names of versions that stay.
    """
    for version in versions_of(output):
        if version.name not in kept and not (version / RECORD).is_file():
            remove_keys(version, is_written_by_runs)
