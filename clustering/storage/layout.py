"""How an output is laid out, in a folder and in a bucket alike.

::

    output/
      current                        the switch: a link in a folder, a small object {"run": …} in a bucket
      versions/<run>/                everything a run made; it is finished once its run.json is there, which comes last
      model.zarr  labels.zarr  report.html  run.json      of the current version: links, or copies in a bucket
      names.json                     names of clusters
      checkpoints/                   of the run under way, or the last one
      .lock                          of the run under way

Whoever resolves `current` once reads one version, whole.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from clustering.errors import OutputError
from clustering.storage.places import BucketPlace, Place, children, make_folder, remove

RECORD, REPORT = "run.json", "report.html"
PARTS = ("model.zarr", "labels.zarr", REPORT, RECORD)
"""What of a finished run is found under plain names."""
CURRENT, VERSIONS, CHECKPOINTS, NAMES, LOCK = "current", "versions", "checkpoints", "names.json", ".lock"
OURS = frozenset({CURRENT, VERSIONS, CHECKPOINTS, NAMES, LOCK, *PARTS})
"""All that an output holds."""


def current(output: Place) -> str | None:
    """Name the version that an output's switch stands at; None where there is no switch."""
    if isinstance(output, BucketPlace):
        run = (json_of(output / CURRENT) or {}).get("run")
        return None if run is None else str(run)
    try:
        return (output / CURRENT).readlink().name
    except OSError:
        return None


def resolved(place: Place) -> Place:
    """Follow the switch of an output, once; any other place is itself."""
    run = current(place)
    if run is not None:
        return place / VERSIONS / run
    return place.resolve() if isinstance(place, Path) else place


def json_of(file: Place) -> dict[str, Any] | None:
    """Read a JSON object; None where there is none."""
    try:
        content = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def record_of(version: Place) -> dict[str, Any] | None:
    """Read the ``run.json`` of a version; None where it is not finished."""
    return json_of(version / RECORD)


def nothing_finished(output: Place) -> OutputError:
    """Say that an output holds no version."""
    return OutputError(f"no finished run at {str(output)!r}; name the output.store of a finished run")


def stage(version: Place, keep: Collection[str]) -> None:
    """Make room for what a run makes, but for the names to keep of an earlier attempt of it."""
    (version / RECORD).unlink(missing_ok=True)
    for place in children(version):
        if place.name not in keep:
            remove(place)
    make_folder(version)


def drop(version: Place) -> None:
    """Remove a version; what is left of one when that is cut short is not finished."""
    (version / RECORD).unlink(missing_ok=True)
    remove(version)


def drop_unfinished(output: Place, kept: Collection[str | None]) -> None:
    """Remove what was staged and did not become a version, but for the names to keep."""
    for version in children(output / VERSIONS):
        if version.name not in kept and not (version / RECORD).is_file():
            remove(version)
