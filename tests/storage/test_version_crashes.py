"""Wherever a process ends, a version is whole, the current one is told, and the next lock mends the rest."""

from __future__ import annotations

from itertools import count

import pytest

from clustering.storage import versions
from clustering.storage.layout import resolved
from clustering.storage.places import children, write_bytes
from clustering.storage.versions import Outputs
from tests.storage.outputs import Crash, add, crashing_after, files_of, is_whole, output_at, plainly, publish

kinds = pytest.mark.parametrize("kind", ["folder", pytest.param("bucket", marks=pytest.mark.slow)])


def settle(output: Outputs) -> None:
    with versions.locked(output):
        pass


@kinds
def test_a_promotion_that_is_cut_short_anywhere_leaves_one_version_current_and_whole(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, seen = output_at(kind, request), []
    publish(output, "a", 1)
    publish(output, "b", 2)
    with versions.locked(output):
        add(output, "c", 3, status="held")
    for changes in count():
        with crashing_after(changes, output, monkeypatch):
            try:
                with versions.locked(output):
                    versions.promote(output, "c")
                ended = True
            except Crash:
                ended = False
        assert output.finished in ("b", "c")
        assert is_whole(resolved(output.path), str(output.finished))
        seen.append(output.finished)
        settle(output)
        assert output.finished == seen[-1]
        assert plainly(output, seen[-1])
        assert not [key for version in versions.listed(output) for key in files_of(version.place) if key[0] == "."]
        assert {version.run for version in versions.listed(output)} == {"a", "b", "c"}
        assert all(is_whole(version.place, version.run) for version in versions.listed(output))
        assert versions.find(output, "previous").run == {"b": "a", "c": "b"}[seen[-1]]
        if ended:
            break
        if seen[-1] == "c":
            with versions.locked(output):
                versions.rollback(output)
    assert seen == sorted(seen)
    assert set(seen) == {"b", "c"}
    # The lock, the record and the switch are changes, and of a bucket the copies to the plain names.
    assert len(seen) > (4 if kind == "folder" else 12)


@kinds
def test_a_first_version_that_is_cut_short_anywhere_is_there_or_not(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for changes in count():
        output = output_at(kind, request, f"out-{changes}")
        with versions.locked(output):
            add(output, "a", 1)
        with crashing_after(changes, output, monkeypatch):
            try:
                with versions.locked(output):
                    versions.promote(output, "a")
                ended = True
            except Crash:
                ended = False
        assert is_whole(output.staging("a"), "a")
        output.check()
        settle(output)
        with versions.locked(output):
            versions.promote(output, "a")
        assert plainly(output, "a")
        if ended:
            break
    assert changes > 4


@kinds
def test_removing_that_is_cut_short_anywhere_leaves_whole_versions_and_what_is_unfinished(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for changes in count():
        output = output_at(kind, request, f"out-{changes}")
        for day, run in enumerate(("a", "b", "c"), 1):
            publish(output, run, day)

        def unfinished() -> str:
            return "later"

        with output.locked(unfinished):
            write_bytes(output.stage("later") / "labels", b"half")
        with crashing_after(changes, output, monkeypatch):
            try:
                with output.locked(unfinished):
                    versions.prune(output, 1)
                ended = True
            except Crash:
                ended = False
        left = versions.listed(output)
        assert {"b", "c"} <= {version.run for version in left} <= {"a", "b", "c"}
        assert all(is_whole(version.place, version.run) for version in left)
        assert files_of(output.staging("later")) == {"labels": b"half"}
        with output.locked(unfinished):
            versions.prune(output, 1)
        assert [place.name for place in children(output.path / "versions")] == ["b", "c", "later"]
        assert output.finished == "c"
        assert plainly(output, "c")
        if ended:
            break
    assert changes > 4


@pytest.mark.slow
def test_taking_over_a_bucket_from_before_there_were_versions_may_be_cut_short_anywhere(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.storage.test_versions import old_bucket

    output = old_bucket(request.getfixturevalue("bucket"))
    for changes in count():
        with crashing_after(changes, output, monkeypatch):
            try:
                settle(output)
                ended = True
            except Crash:
                ended = False
        assert output.finished == "old"
        assert output.read_json("run.json")["run"] == "old"
        if ended:
            break
    assert changes > 6
    assert plainly(output, "old")
    held = {"model.zarr/zarr.json", "labels.zarr/zarr.json", "labels.zarr/c/0", "report.html", "run.json"}
    assert files_of(output.staging("old")).keys() == held
