"""Outputs of both kinds with small versions in them, for tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clustering.storage import layout, versions
from clustering.storage.bucket_output import open_output
from clustering.storage.layout import PARTS
from clustering.storage.paths import BucketPath, StoragePath, children, make_folder, write_bytes, write_json
from clustering.storage.versions import Outputs


def named(word: str) -> str:
    """The name of a run, made from a word; names sort as their words do."""
    return word.encode().hex().ljust(12, "0")[:12]


A, B, C, D, E, F = map(named, "abcdef")
A1, A2, B1, B2, C2, C3, C4, C5 = map(named, ("a1", "a2", "b1", "b2", "c2", "c3", "c4", "c5"))
FIRST, SECOND, THIRD, LATER = map(named, ("first", "second", "third", "later"))
OLD, OLDER, NEW, MINE, OTHER, DONE = map(named, ("old", "older", "new", "mine", "other", "done"))


class Crash(BaseException):
    """Stands for the end of a process in a test that goes on afterwards."""


def output_at(kind: str, request: pytest.FixtureRequest, name: str = "out") -> Outputs:
    """An output in a new folder, or in a new bucket."""
    if kind == "folder":
        return open_output(request.getfixturevalue("tmp_path") / name)
    return open_output(f"{request.getfixturevalue('bucket').url}/{name}")


def content_of(run: str) -> dict[str, bytes]:
    """What a version holds beside its ``run.json``, by key."""
    group = json.dumps({"attributes": {"run": run}}).encode()
    parts = {f"{part}/zarr.json": group for part in ("labels.zarr", "model.zarr")}
    return {
        **parts,
        "labels.zarr/c/0": run.encode(),
        "report.html": run.encode(),
        "ledger/block-00000000": run.encode(),
    }


def write_parts(place: StoragePath, run: str) -> None:
    for key, content in content_of(run).items():
        *folders, name = key.split("/")
        inside = place
        for folder in folders:
            inside = inside / folder
        make_folder(inside)
        write_bytes(inside / name, content)


def add(output: Outputs, run: str, day: int, **entries: Any) -> None:
    """Finish a run beside the current version."""
    folder = output.stage(run)
    write_parts(folder, run)
    write_json(folder / "run.json", {"run": run, "status": "finished", "finished_at": at(day), **entries})


def at(day: int) -> str:
    return f"2026-01-{day:02d}T00:00:00+00:00"


def publish(output: Outputs, run: str, day: int) -> None:
    with versions.locked(output):
        add(output, run, day)
        versions.promote(output, run)


def files_of(place: StoragePath) -> dict[str, bytes]:
    """The contents of all files below a path, by key relative to it."""
    if isinstance(place, BucketPath):
        start = f"{place.key}/".lstrip("/")
        root = BucketPath(place.url, place.options)
        return {key.removeprefix(start): (root / key).read_bytes() for key, _ in place.objects()}
    return {p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def is_whole(place: StoragePath, run: str) -> bool:
    """Whether a version is complete and of one run; a file that is not yet in its place does not count."""
    files = {key: content for key, content in files_of(place).items() if not key.startswith(".")}
    record = files.pop("run.json", b"{}")
    return json.loads(record).get("run") == run and files == content_of(run)


def plain(output: Outputs) -> dict[str, bytes]:
    """The contents of the files under the plain names, by key."""
    names = [place for place in children(output.path) if place.name in PARTS]
    files = {}
    for place in names:
        if isinstance(place, BucketPath):
            files |= {key: content for key, content in files_of(output.path).items() if key.split("/")[0] == place.name}
        elif place.is_file():
            files[place.name] = place.read_bytes()
        else:
            files |= {f"{place.name}/{key}": content for key, content in files_of(place.resolve()).items()}
    return files


def plainly(output: Outputs, run: str) -> bool:
    """Whether a version, and nothing else, is under the plain names."""
    held = {key: content for key, content in files_of(output.staging(run)).items() if key.split("/")[0] in PARTS}
    return plain(output) == held and bool(held)


CHANGES = {"os": ("unlink", "rmdir", "replace", "symlink", "mkdir"), "obstore": ("put", "copy", "delete")}
"""What changes a folder, and a bucket."""


@contextmanager
def crashing_after(changes: int, output: Outputs, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Raise `Crash` instead of every change of the output after the first `changes`; gives a list with their number."""
    made = [0]

    def counted(act: Callable[..., Any]) -> Callable[..., Any]:
        def limited(*given: Any, **named: Any) -> Any:
            if made[0] >= changes:
                raise Crash
            made[0] += 1
            return act(*given, **named)

        return limited

    def one_by_one(_: Any, act: Callable[[str], None], names: Any) -> None:
        for name in sorted(names):
            act(name)

    with monkeypatch.context() as patched:
        module = "obstore" if isinstance(output.path, BucketPath) else "os"
        owner = __import__(module)
        for name in CHANGES[module]:
            patched.setattr(owner, name, counted(getattr(owner, name)))
        patched.setattr("clustering.storage.bucket_output.BucketOutput._each", one_by_one)
        yield made
    if isinstance(output.path, BucketPath):
        # The lock of a process that has really ended would be void.
        (output.path / layout.LOCK).unlink(missing_ok=True)


def folder_of(output: Outputs) -> Path:
    assert isinstance(output.path, Path)
    return output.path
