"""Wherever a process ends, every version is whole, one version is current, and the next lock repairs the rest."""

from __future__ import annotations

from itertools import count

import pytest

from clustering.storage import versions
from clustering.storage.layout import current_version
from clustering.storage.paths import children, write_bytes
from clustering.storage.versions import Outputs
from tests.storage.outputs import (
    LATER,
    OLD,
    A,
    B,
    C,
    Crash,
    add,
    crashing_after,
    files_of,
    is_whole,
    output_at,
    plainly,
    publish,
)

kinds = pytest.mark.parametrize("kind", ["folder", pytest.param("bucket", marks=pytest.mark.slow)])


def settle(output: Outputs) -> None:
    with versions.locked(output):
        pass


@kinds
def test_a_promotion_that_is_cut_short_anywhere_leaves_one_version_current_and_whole(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, seen = output_at(kind, request), []
    publish(output, A, 1)
    publish(output, B, 2)
    with versions.locked(output):
        add(output, C, 3, status="held")
    for changes in count():
        with crashing_after(changes, output, monkeypatch):
            try:
                with versions.locked(output):
                    versions.promote(output, C)
                ended = True
            except Crash:
                ended = False
        assert output.finished in (B, C)
        assert is_whole(current_version(output.path), str(output.finished))
        seen.append(output.finished)
        settle(output)
        assert output.finished == seen[-1]
        assert plainly(output, seen[-1])
        assert not [
            key for version in versions.list_versions(output) for key in files_of(version.path) if key[0] == "."
        ]
        assert {version.run for version in versions.list_versions(output)} == {A, B, C}
        assert all(is_whole(version.path, version.run) for version in versions.list_versions(output))
        assert versions.find_version(output, "previous").run == {B: A, C: B}[seen[-1]]
        if ended:
            break
        if seen[-1] == C:
            with versions.locked(output):
                versions.rollback(output)
    assert seen == sorted(seen)
    assert set(seen) == {B, C}
    # The lock, the record and the switch are changes; in a bucket, so are the copies to the plain names.
    assert len(seen) > (4 if kind == "folder" else 12)


@kinds
def test_a_first_version_that_is_cut_short_anywhere_is_there_or_not(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for changes in count():
        output = output_at(kind, request, f"out-{changes}")
        with versions.locked(output):
            add(output, A, 1)
        with crashing_after(changes, output, monkeypatch):
            try:
                with versions.locked(output):
                    versions.promote(output, A)
                ended = True
            except Crash:
                ended = False
        assert is_whole(output.staging(A), A)
        output.check()
        settle(output)
        with versions.locked(output):
            versions.promote(output, A)
        assert plainly(output, A)
        if ended:
            break
    assert changes > 4


@kinds
def test_removing_that_is_cut_short_anywhere_leaves_whole_versions_and_what_is_unfinished(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for changes in count():
        output = output_at(kind, request, f"out-{changes}")
        for day, run in enumerate((A, B, C), 1):
            publish(output, run, day)

        def unfinished() -> str:
            return LATER

        with output.locked(unfinished):
            write_bytes(output.stage(LATER) / "report.html", b"half")
        with crashing_after(changes, output, monkeypatch):
            try:
                with output.locked(unfinished):
                    versions.prune(output, 1)
                ended = True
            except Crash:
                ended = False
        left = versions.list_versions(output)
        assert {B, C} <= {version.run for version in left} <= {A, B, C}
        assert all(is_whole(version.path, version.run) for version in left)
        assert files_of(output.staging(LATER)) == {"report.html": b"half"}
        with output.locked(unfinished):
            versions.prune(output, 1)
        assert [place.name for place in children(output.path / "versions")] == [B, C, LATER]
        assert output.finished == C
        assert plainly(output, C)
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
        assert output.finished == OLD
        assert output.read_json("run.json")["run"] == OLD
        if ended:
            break
    assert changes > 6
    assert plainly(output, OLD)
    held = {"model.zarr/zarr.json", "labels.zarr/zarr.json", "labels.zarr/c/0", "report.html", "run.json"}
    assert files_of(output.staging(OLD)).keys() == held
