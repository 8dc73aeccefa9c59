"""How an output is laid out, in a folder and in a bucket alike.

::

    output/
      current                        the switch: a link in a folder, a small object {"run": …} in a bucket
      versions/<run>/                everything a run made; it is finished once its run.json is there, which comes last
      model.zarr  labels.zarr  report.html  run.json      of the current version: links, or copies in a bucket
      names.json                     names of clusters
      .output.json                   the mark: it says that runs write here
      checkpoints/                   of the run under way, or the last one
      .lock                          of the run under way

Whoever resolves `current` once reads one version, whole.
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
"""What of a finished run is found under plain names."""
CURRENT, VERSIONS, CHECKPOINTS, NAMES, LOCK = "current", "versions", "checkpoints", "names.json", ".lock"
PREVIOUS = "previous"
"""A link to the version before, which outputs had that kept two versions alone."""
LEDGER = "ledger"
FOLDERS = ("model.zarr", "labels.zarr", LEDGER)
"""Folders of a version."""
WRITTEN_NAMES = frozenset({CURRENT, VERSIONS, CHECKPOINTS, NAMES, LOCK, OUTPUT_MARK, *PARTS})
"""All that an output holds."""
TEMPORARY = re.compile(
    rf"\.({'|'.join(map(re.escape, (CURRENT, PREVIOUS, NAMES, OUTPUT_MARK, *PARTS)))})\.[0-9a-f]{{8}}"
)
"""Names of what a killed run had not yet put in its place."""
_LEDGER = r"wish\.json|block-\d{8,}|[0-9a-f]{16}-[0-9a-f]{24}"
_VERSION_KEY = re.compile(
    rf"run\.json|report\.html|ledger/({_LEDGER})|\.(run\.json|report\.html)\.[0-9a-f]{{8}}|"
    rf"ledger/\.({_LEDGER})\.[0-9a-f]{{8}}|"
    r"(model|labels)\.zarr/(.+/)?(zarr\.json|c(/\d+)*|[^/]+\.[0-9a-f]{32}\.partial)"
)
"""What a run writes into its version, by path from there."""


def current(output: StoragePath) -> str | None:
    """Name the version that an output's switch stands at; None where there is no switch."""
    if isinstance(output, BucketPath):
        return run_name(read_json_object(output / CURRENT))
    try:
        switch = SWITCH.fullmatch((output / CURRENT).readlink().as_posix())
    except OSError:
        return None
    return None if switch is None else switch[1]


def run_name(content: Mapping[str, Any] | None) -> str | None:
    """Take the name of a run out of what was read; None where it is none that a run has."""
    run = (content or {}).get("run")
    return run if isinstance(run, str) and RUN_NAME.fullmatch(run) else None


def versions_of(output: StoragePath) -> list[StoragePath]:
    """List the versions of an output, finished or not, by name."""
    return [path for path in children(output / VERSIONS) if RUN_NAME.fullmatch(path.name)]


def is_written_by_runs(key: str) -> bool:
    """Tell what a run writes into its version, by its path from there, from what is somebody else's."""
    return _VERSION_KEY.fullmatch(key) is not None


def current_version(path: StoragePath) -> StoragePath:
    """Follow the switch of an output, once; any other place is itself."""
    run = current(path)
    if run is not None:
        return path / VERSIONS / run
    return path.resolve() if isinstance(path, Path) else path


def is_of_an_array(key: str) -> bool:
    """Tell what Zarr writes for an array, by its path from there."""
    return re.fullmatch(r"zarr\.json|c(/\d+)*|([^/]+/)*[^/]+\.[0-9a-f]{32}\.partial", key) is not None


def read_json_object(file: StoragePath) -> dict[str, Any] | None:
    """Read a JSON object; None where there is none."""
    try:
        content = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def read_record(version: StoragePath) -> dict[str, Any] | None:
    """Read the ``run.json`` of a version; None where it is not finished."""
    return read_json_object(version / RECORD)


def no_version_error(output: StoragePath) -> OutputError:
    """Say that an output holds no version."""
    return OutputError(f"no finished run at {str(output)!r}; name the output.store of a finished run")


def stage(version: StoragePath, keep: Collection[str]) -> None:
    """Make room for what a run makes, but for the names to keep of an earlier attempt of it."""
    (version / RECORD).unlink(missing_ok=True)
    remove_keys(version, lambda key: is_written_by_runs(key) and key.partition("/")[0] not in keep)
    make_folder(version)


def remove_version(version: StoragePath) -> None:
    """Remove a version; what is left of one when that is cut short is not finished. What no run wrote stays."""
    (version / RECORD).unlink(missing_ok=True)
    remove_keys(version, is_written_by_runs)


def remove_unfinished(output: StoragePath, kept: Collection[str | None]) -> None:
    """Remove what was staged and did not become a version, but for the names to keep."""
    for version in versions_of(output):
        if version.name not in kept and not (version / RECORD).is_file():
            remove_keys(version, is_written_by_runs)
