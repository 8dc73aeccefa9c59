"""What counts as an output: a place with the mark or, from before there were marks, with files that only runs write."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from s3 import Bucket

from clustering.errors import OutputError
from clustering.storage import checkpoints, layout, versions
from clustering.storage.bucket_output import open_output
from clustering.storage.layout import LOCK, OUTPUT_MARK
from clustering.storage.output import Output
from clustering.storage.owning import mark
from clustering.storage.paths import BucketPath, StoragePath, children, make_folder, write_bytes, write_json
from tests.storage.outputs import LATER, A, B, C, Crash, add, files_of, output_at, publish
from tests.storage.test_checkpoints import IDENTITY, one

kinds = pytest.mark.parametrize("kind", ["folder", "bucket"])


def put(place: StoragePath, key: str, content: bytes = b"precious") -> None:
    *folders, name = key.split("/")
    for folder in folders:
        place = place / folder
    make_folder(place)
    write_bytes(place / name, content)


def published(output: Any) -> None:
    publish(output, A, 1)


def waiting(output: Any) -> None:
    with versions.locked(output):
        add(output, A, 1, status="waiting")


def interrupted(output: Any) -> None:
    with suppress(Crash), output.locked(lambda: LATER):
        checkpoints.save(output.checkpoints, one(3, LATER), IDENTITY)
        raise Crash


def labelling(output: Any) -> None:
    with suppress(Crash), output.locked(lambda: LATER):
        put(output.path, f"versions/{LATER}/ledger/wish.json", json.dumps({"sha256": "5" * 64}).encode())
        put(output.path, f"versions/{LATER}/labels.zarr/labels/c/0")
        raise Crash


def locked(output: Any) -> None:
    put(output.path, LOCK, b"" if isinstance(output.path, Path) else b'{"token": "gone"}')


@kinds
@pytest.mark.parametrize("state", [published, waiting, interrupted, labelling, locked])
def test_an_output_from_before_there_were_marks_is_gone_on_with(
    kind: str, state: Callable[[Any], None], request: pytest.FixtureRequest
) -> None:
    output = output_at(kind, request)
    state(output)
    if state is not locked:
        (output.path / OUTPUT_MARK).unlink()
    if state is locked and kind == "bucket":
        (output.path / LOCK).unlink()
    output.check()
    publish(output, C, 3)
    assert output.finished == C
    assert (output.path / OUTPUT_MARK).is_file()


FOREIGN = {
    "a file": "thesis.txt",
    "a version of no run": "versions/2024-thesis/chapter.txt",
    "a version with a path for a name": f"versions/{A}x/chapter.txt",
    "a checkpoint of no run": "checkpoints/weights.npz",
    "a folder": "mine/chapter.txt",
}
IN_FOLDERS = {
    "a file in a version": f"versions/{A}/chapter.txt",
    "a folder in a version": f"versions/{A}/mine/chapter.txt",
    "a file that is called like the versions": "versions",
    "a folder that is called like a link": "model.zarr/chapter.txt",
    "a folder that is called like the lock": ".lock/chapter.txt",
}


@pytest.mark.parametrize("marked", [False, True], ids=["theirs", "ours"])
@pytest.mark.parametrize(
    ("kind", "key"),
    [
        *(
            pytest.param(kind, key, id=f"{name}, {kind}")
            for kind in ("folder", "bucket")
            for name, key in FOREIGN.items()
        ),
        *(pytest.param("folder", key, id=name) for name, key in IN_FOLDERS.items()),
    ],
)
def test_what_no_run_wrote_is_refused_before_anything_is_written(
    kind: str, key: str, marked: bool, request: pytest.FixtureRequest
) -> None:
    output = output_at(kind, request)
    if marked:
        make_folder(output.path)
        mark(output.path)
    put(output.path, key)
    before = files_of(output.path)
    for act in (output.check, lambda: output.locked().__enter__()):
        with pytest.raises(OutputError, match=r"which is not from a run; name a new (folder|prefix)") as caught:
            act()
        assert "\n" not in str(caught.value)
    assert files_of(output.path) == before


@kinds
@pytest.mark.parametrize(
    "keys",
    [
        [f"versions/{A}/model.zarr/zarr.json"],
        [f"versions/{A}/run.json"],
        ["checkpoints/pass-00003.npz"],
        ["names.json"],
        ["current"],
        [OUTPUT_MARK],
    ],
    ids=str,
)
def test_names_alone_prove_nothing(kind: str, keys: list[str], request: pytest.FixtureRequest) -> None:
    output = output_at(kind, request)
    for key in keys:
        put(output.path, key, b'{"run": "thesis"}')
    before = files_of(output.path)
    with pytest.raises(OutputError, match=r"output\.store"):
        output.check()
    assert files_of(output.path) == before


@pytest.mark.parametrize(
    "name", ["versions", "checkpoints", "model.zarr", "current", ".lock", "names.json", OUTPUT_MARK]
)
def test_a_link_is_never_followed(name: str, tmp_path: Path) -> None:
    (tmp_path / "thesis" / A).mkdir(parents=True)
    (tmp_path / "thesis" / A / "run.json").write_text(json.dumps({"run": A}))
    output = Output(tmp_path / "out")
    publish(output, B, 1)
    place = output.path / name
    with suppress(FileNotFoundError):
        place.rename(tmp_path / "away")
    place.symlink_to(tmp_path / "thesis")
    with pytest.raises(OutputError, match=f"holds '{name}', which is not from a run"):
        versions.locked(output).__enter__()
    assert files_of(tmp_path / "thesis") == {f"{A}/run.json": json.dumps({"run": A}).encode()}


@kinds
def test_what_is_removed_is_what_runs_wrote(kind: str, request: pytest.FixtureRequest) -> None:
    """Somebody adds a file to the output while a run is at work."""
    output = output_at(kind, request)
    for day, run in enumerate((A, B, C), 1):
        publish(output, run, day)
    with versions.locked(output):
        for key in (f"{A}/chapter.txt", f"{A}/labels.zarr/chapter.txt", "2024-thesis/chapter.txt"):
            put(output.path / "versions", key)
        if isinstance(output.path, Path):
            (output.path / "versions" / A / "link").symlink_to(output.path / "versions" / B)
        assert [version.run for version in versions.prune(output, 1)] == [A]
    left = files_of(output.path / "versions" / A)
    assert left.keys() >= {"chapter.txt", "labels.zarr/chapter.txt"}
    assert all(key.endswith("chapter.txt") or key.startswith("link") for key in left)
    assert files_of(output.path / "versions" / "2024-thesis") == {"chapter.txt": b"precious"}


@kinds
@pytest.mark.parametrize("run", ["../../thesis", "/home/me", "thesis", "", 7, None, ["a"]], ids=repr)
def test_a_switch_to_no_run_gives_no_current_version(kind: str, run: Any, request: pytest.FixtureRequest) -> None:
    output = output_at(kind, request)
    publish(output, A, 1)
    switch = output.path / "current"
    switch.unlink()
    if isinstance(switch, BucketPath):
        write_json(switch, {"run": run})
    else:
        switch.symlink_to(f"versions/{run or 'x'}")
    assert layout.current(output.path) is None


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"[]", b"7", b"", b'{"a": ' + b"9" * 5000 + b"}"])
def test_json_that_no_run_wrote_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(content)
    assert layout.read_record(tmp_path) is None


def test_a_copy_in_a_bucket_spares_what_is_not_ours(bucket: Bucket) -> None:
    output = open_output(f"{bucket.url}/out")
    publish(output, A, 1)
    put(output.path, "model.zarr/chapter.txt")
    publish(output, B, 2)
    assert bucket.content("out")["model.zarr/chapter.txt"] == b"precious"
    assert not [place.name for place in children(output.path) if place.name == LOCK]
