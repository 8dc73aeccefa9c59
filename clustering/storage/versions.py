"""The versions of an output: list them, and make one current, roll back or remove old ones.

Functions that change an output must be called while its lock is held, see `locked`. ``run.json`` of a version holds
``promoted_at``, the time when it last became current, and ``before``, the versions that were current before it, the
latest first. It is written before the switch, so that it is right for the current version even if the switch is cut
short. A version that found nothing new has ``repeats``, the name of the version before, and takes its place.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from clustering.errors import ConfigError, OutputError, nearest
from clustering.storage import checkpoints, layout
from clustering.storage.bucket_output import BucketOutput
from clustering.storage.layout import RECORD
from clustering.storage.output import Output
from clustering.storage.paths import StoragePath, sizes, write_json

Outputs = Output | BucketOutput
SWITCHES = 100
"""Number of earlier current versions that a version remembers."""


@dataclass(frozen=True)
class Version:
    """A finished run of an output."""

    run: str
    path: StoragePath
    record: Mapping[str, Any]
    """The content of its ``run.json``."""

    @property
    def finished_at(self) -> str:
        """Time when it was finished, in ISO 8601; empty where an early release did not write it."""
        return str(self.record.get("finished_at") or "")

    @property
    def bytes(self) -> int:
        """Size on disk, in bytes."""
        return sum(length for _, length in sizes(self.path))


def now() -> str:
    """Return the present time, in UTC to the millisecond, as ISO 8601.

    Versions are sorted by it, and small runs take less than a second.
    """
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def unfinished(output: Outputs) -> str | None:
    """Name the unfinished run of an output that may go on; None where there is none.

    Parameters
    ----------
    output
        Output in a folder or a bucket.
    """
    return checkpoints.unfinished(output.checkpoints, output.finished)


def locked(output: Outputs) -> AbstractContextManager[None]:
    """Keep other runs off an output while its versions are changed; files of an unfinished run stay.

    Parameters
    ----------
    output
        Output in a folder or a bucket.
    """
    return output.locked(partial(unfinished, output))


def list_staged(output: Outputs) -> list[str]:
    """List the names of unfinished versions, sorted.

    Parameters
    ----------
    output
        Output in a folder or a bucket.
    """
    return [v.name for v in layout.versions_of(output.path) if layout.read_record(v) is None]


def list_versions(output: Outputs) -> tuple[Version, ...]:
    """List the versions, the latest first.

    Parameters
    ----------
    output
        Output in a folder or a bucket.

    Raises
    ------
    OutputError
        If there is none.
    """
    left, current = unfinished(output), output.finished
    paths = {path.name: path for path in layout.versions_of(output.path)}
    if current is not None:
        # An output from before there were versions has its current one at the plain names.
        paths[current] = output.published
    versions = [
        Version(run, path, record)
        for run, path in paths.items()
        if run != left and (record := layout.read_record(path)) is not None
    ]
    if not versions:
        raise layout.no_version_error(output.path)
    # Names break ties of the time, so that the order is always the same.
    return tuple(sorted(versions, key=lambda version: (version.finished_at, version.run), reverse=True))


def largest_id(output: Outputs) -> int:
    """Return the largest id that any version gave to a cluster, even one that never became current; −1 where none says.

    Parameters
    ----------
    output
        Output in a folder or a bucket.
    """
    return max(int(version.record.get("largest_id", -1)) for version in list_versions(output))


def find_version(output: Outputs, word: str) -> Version:
    """Find a version by its run, the beginning of it, or the words ``current`` and ``previous``.

    ``previous`` is the version that `rollback` leads to.

    Parameters
    ----------
    output
        Output in a folder or a bucket.
    word
        Name of a run or the beginning of it, ``current`` or ``previous``.

    Raises
    ------
    ConfigError
        If there is no such version, or there are several.
    OutputError
        If there is no version at all, the run is unfinished, or nothing was current before.
    """
    versions = list_versions(output)
    if word == "previous":
        return _rollback_target(output, versions)[0]
    if word == "current":
        word = str(output.finished)
    # A whole name wins, even if it is the beginning of another one.
    matching = [v for v in versions if v.run == word] or [v for v in versions if word and v.run.startswith(word)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise ConfigError(
            f"run {word!r} is the beginning of {len(matching)} names: {', '.join(v.run for v in matching)}; "
            "give more of the name"
        )
    left = unfinished(output)
    if left is not None and word and left.startswith(word):
        raise OutputError(
            f"run {left!r} in {str(output.path)!r} is not finished; finish it by its own command, then try again"
        )
    raise ConfigError(f"there is no run {word!r} in {str(output.path)!r}; {nearest(word, [v.run for v in versions])}")


def promote(output: Outputs, run: str) -> dict[str, Any]:
    """Make a version the current one in one step; do nothing where it is current.

    Parameters
    ----------
    output
        Output in a folder or a bucket, whose lock is held.
    run
        Name of the run of the version.

    Returns
    -------
    dict
        Content of its ``run.json``; ``status`` is ``finished`` now.

    Raises
    ------
    OutputError
        If there is no such version, or another run has taken over the output meanwhile.
    """
    record, current = layout.read_record(output.staging(run)), output.finished
    if record is None:
        raise OutputError(
            f"run {run!r} in {str(output.path)!r} is not finished; 'clustering models list' lists the finished ones"
        )
    if run == current:
        return record
    before = [] if current is None else [current, *_told_before(output)]
    if before and record.get("repeats") == current:
        # Rolling back to a version with the same content would change nothing.
        del before[0]
    return _switch(output, run, record, before[:SWITCHES])


def rollback(output: Outputs) -> Version:
    """Make the version current again that was current before; called again, the one before that.

    Versions that were removed meanwhile are skipped.

    Parameters
    ----------
    output
        Output in a folder or a bucket, whose lock is held.

    Returns
    -------
    Version
        The version that is current now.

    Raises
    ------
    OutputError
        If no remaining version was current before.
    """
    target, before = _rollback_target(output, list_versions(output))
    record = _switch(output, target.run, target.record, before)
    return Version(target.run, target.path, record)


def removable_versions(output: Outputs, keep: int, spared: Collection[str] = ()) -> tuple[Version, ...]:
    """List the versions to remove, so that the latest, the current one and the one to roll back to stay.

    A version that a newer one repeats is not counted. The one that the current version repeats stays for now, because
    readers may still have it open.

    Parameters
    ----------
    output
        Output in a folder or a bucket.
    keep
        Number of the latest versions that stay, 1 or more.
    spared
        Runs that stay as well.

    Raises
    ------
    ConfigError
        If `keep` is below 1.
    """
    if keep < 1:
        raise ConfigError(f"keep is {keep}; give 1 or more: the current version and the one before it stay in any case")
    versions = list_versions(output)
    repeats = {version.run: version.record.get("repeats") for version in versions}
    distinct = [run for run in repeats if run not in repeats.values()]
    stay = {*spared, output.finished, repeats.get(str(output.finished)), *distinct[:keep]}
    back = _version_before(versions, _told_before(output), output.finished)
    if back is not None:
        stay.add(back[0].run)
    return tuple(version for version in versions if version.run not in stay)


def prune(output: Outputs, keep: int, spared: Collection[str] = ()) -> tuple[Version, ...]:
    """Remove old versions, and return them; see `removable_versions`. Unfinished runs stay.

    Parameters
    ----------
    output
        Output in a folder or a bucket, whose lock is held.
    keep
        Number of the latest versions that stay, 1 or more.
    spared
        Runs that stay as well.
    """
    gone = removable_versions(output, keep, spared)
    for version in gone:
        layout.remove_version(version.path)
    return gone


def _switch(output: Outputs, run: str, record: Mapping[str, Any], before: Sequence[str]) -> dict[str, Any]:
    if unfinished(output) is None:
        # Checkpoints left by the current version would count as an unfinished run's once another version is current.
        checkpoints.clear(output.checkpoints)
    made = {**record, "status": "finished", "promoted_at": now(), "before": list(before)}
    # The record comes before the switch, so that it is right even if the switch is cut short.
    write_json(output.staging(run) / RECORD, made)
    output.switch(run)
    return made


def _told_before(output: Outputs) -> list[str]:
    """List the versions that were current before the current one, the latest first."""
    if output.finished is None:
        return []
    before = (layout.read_record(output.published) or {}).get("before")
    return [str(run) for run in before] if isinstance(before, list) else []


def _rollback_target(output: Outputs, versions: Sequence[Version]) -> tuple[Version, list[str]]:
    """Find the version to roll back to, and the versions that were current before it."""
    back = _version_before(versions, _told_before(output), output.finished)
    if back is None:
        raise OutputError(
            f"there is nothing to roll back to in {str(output.path)!r}: no version that is left was current before "
            f"{output.finished}; 'clustering models promote' makes any version current: "
            f"{', '.join(version.run for version in versions)}"
        )
    return back


def _version_before(
    versions: Sequence[Version], before: Sequence[str], current: str | None
) -> tuple[Version, list[str]] | None:
    """Find the first version that still exists among earlier current ones, and those before it."""
    by_run = {version.run: version for version in versions}
    for position, run in enumerate(before):
        if run in by_run and run != current:
            return by_run[run], list(before[position + 1 :])
    return None
