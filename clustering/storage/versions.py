"""The versions of an output: which there are, which is current, and how one is made current, taken back or removed.

What changes an output is called by whoever holds its lock, see `locked`. ``run.json`` of a version tells
``promoted_at``, when it was last made current, and ``before``, which versions were current before it, the latest first;
it is written before the switch, so that the current version's is right wherever a switch is cut short. ``repeats``
names the version before where nothing was new: the newer one takes its place.
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
"""How many switches a version remembers."""


@dataclass(frozen=True)
class Version:
    """A finished run of an output."""

    run: str
    path: StoragePath
    record: Mapping[str, Any]
    """The content of its ``run.json``."""

    @property
    def finished_at(self) -> str:
        """When it was finished, in ISO 8601; empty of versions that do not tell."""
        return str(self.record.get("finished_at") or "")

    @property
    def bytes(self) -> int:
        """What it takes on disk, in bytes."""
        return sum(length for _, length in sizes(self.path))


def now() -> str:
    """Tell the time, in UTC to the millisecond, as ISO 8601.

    Versions are listed by it, and small runs take less than a second.
    """
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def unfinished(output: Outputs) -> str | None:
    """Name the run that may go on in an output."""
    return checkpoints.unfinished(output.checkpoints, output.finished)


def locked(output: Outputs) -> AbstractContextManager[None]:
    """Keep other runs off an output while its versions are changed; what an unfinished run staged stays."""
    return output.locked(partial(unfinished, output))


def list_staged(output: Outputs) -> list[str]:
    """Name what was begun and is not finished, in the order of the names: versions without a record."""
    return [v.name for v in layout.versions_of(output.path) if layout.read_record(v) is None]


def list_versions(output: Outputs) -> tuple[Version, ...]:
    """List the versions, the latest first.

    Raises
    ------
    OutputError
        If there is none.
    """
    left, current = unfinished(output), output.finished
    paths = {path.name: path for path in layout.versions_of(output.path)}
    if current is not None:
        paths[current] = output.published
    versions = [
        Version(run, path, record)
        for run, path in paths.items()
        if run != left and (record := layout.read_record(path)) is not None
    ]
    if not versions:
        raise layout.no_version_error(output.path)
    return tuple(sorted(versions, key=lambda version: (version.finished_at, version.run), reverse=True))


def largest_id(output: Outputs) -> int:
    """Tell the largest id that a version of an output gave to a cluster, held ones among them; −1 where none tells."""
    return max(int(version.record.get("largest_id", -1)) for version in list_versions(output))


def find_version(output: Outputs, word: str) -> Version:
    """Find a version by its run, the beginning of it, or the words ``current`` and ``previous``.

    ``previous`` is what `rollback` leads to.

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
    """Make a version the current one, in one step; nothing happens where it is.

    Returns
    -------
    dict
        The content of its ``run.json``, whose ``status`` is ``finished`` now.

    Raises
    ------
    OutputError
        If there is no such version, or another run has taken over the output meanwhile.
    """
    record, current = layout.read_record(output.staging(run)), output.finished
    if record is None:
        raise OutputError(
            f"run {run!r} in {str(output.path)!r} is not finished; 'clustering models list' tells which are"
        )
    if run == current:
        return record
    before = [] if current is None else [current, *_told_before(output)]
    if before and record.get("repeats") == current:
        # To roll back to the same would change nothing.
        del before[0]
    return _switch(output, run, record, before[:SWITCHES])


def rollback(output: Outputs) -> Version:
    """Make the version current again that was before the current one; called again, the one before that.

    Versions that were removed meanwhile are passed over.

    Raises
    ------
    OutputError
        If no version that is left was current before.
    """
    target, before = _rollback_target(output, list_versions(output))
    record = _switch(output, target.run, target.record, before)
    return Version(target.run, target.path, record)


def removable_versions(output: Outputs, keep: int, spared: Collection[str] = ()) -> tuple[Version, ...]:
    """Find the versions to remove so that the latest ones are left, the current one, and the one to roll back to.

    A version that a newer one repeats is not counted. The one that the current version repeats stays a while, for those
    who are reading it.

    Parameters
    ----------
    keep
        How many of the latest stay.
    spared
        Runs that stay as well.

    Raises
    ------
    ConfigError
        If none are to be kept.
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
    """Remove old versions, and give them; see `removable_versions`. Unfinished runs are left alone."""
    gone = removable_versions(output, keep, spared)
    for version in gone:
        layout.remove_version(version.path)
    return gone


def _switch(output: Outputs, run: str, record: Mapping[str, Any], before: Sequence[str]) -> dict[str, Any]:
    if unfinished(output) is None:
        # Those of the current version, once it is current no more, would be taken for an unfinished run's.
        checkpoints.clear(output.checkpoints)
    made = {**record, "status": "finished", "promoted_at": now(), "before": list(before)}
    write_json(output.staging(run) / RECORD, made)
    output.switch(run)
    return made


def _told_before(output: Outputs) -> list[str]:
    """List what was current before the current version, the latest first."""
    if output.finished is None:
        return []
    before = (layout.read_record(output.published) or {}).get("before")
    return [str(run) for run in before] if isinstance(before, list) else []


def _rollback_target(output: Outputs, versions: Sequence[Version]) -> tuple[Version, list[str]]:
    """Find the version to roll back to, and what was current before it."""
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
    by_run = {version.run: version for version in versions}
    for position, run in enumerate(before):
        if run in by_run and run != current:
            return by_run[run], list(before[position + 1 :])
    return None
