from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from s3 import Bucket

from clustering.errors import ClusteringError, ConfigError, OutputError
from clustering.storage import checkpoints, layout, versions
from clustering.storage.bucket_output import BucketOutput, open_output
from clustering.storage.output import Output
from clustering.storage.paths import BucketPath, children, write_bytes, write_json
from clustering.storage.versions import Outputs
from tests.storage.outputs import (
    C2,
    C3,
    C4,
    C5,
    FIRST,
    LATER,
    NEW,
    OLD,
    OLDER,
    SECOND,
    THIRD,
    A,
    B,
    C,
    Crash,
    D,
    E,
    F,
    add,
    at,
    files_of,
    folder_of,
    is_whole,
    output_at,
    plain,
    plainly,
    publish,
    write_parts,
)
from tests.storage.test_checkpoints import IDENTITY, one

kinds = pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.slow)])


@kinds
def output(request: pytest.FixtureRequest) -> Outputs:
    return output_at(request.param, request)


def runs(output: Outputs) -> list[str]:
    return [version.run for version in versions.list_versions(output)]


def promote(output: Outputs, run: str) -> dict[str, Any]:
    with versions.locked(output):
        return versions.promote(output, run)


def rollback(output: Outputs) -> str:
    with versions.locked(output):
        return versions.rollback(output).run


def prune(output: Outputs, keep: int, spared: tuple[str, ...] = ()) -> list[str]:
    with versions.locked(output):
        return [version.run for version in versions.prune(output, keep, spared)]


def test_every_finished_run_stays_whole_and_the_latest_comes_first(output: Outputs) -> None:
    for day, run in ((3, THIRD), (1, FIRST), (2, SECOND)):
        publish(output, run, day)
    assert runs(output) == [THIRD, SECOND, FIRST]
    assert all(is_whole(version.path, version.run) for version in versions.list_versions(output))
    assert output.finished == SECOND
    assert is_whole(output.published, SECOND)
    assert plainly(output, SECOND)
    assert output.read_json("run.json")["run"] == SECOND
    latest = versions.list_versions(output)[0]
    assert latest.bytes == sum(len(content) for content in files_of(latest.path).values())


def test_a_version_that_is_held_is_not_seen_under_the_plain_names(output: Outputs) -> None:
    publish(output, FIRST, 1)
    before = plain(output)
    with versions.locked(output):
        add(output, SECOND, 2, status="held")
    assert (output.finished, runs(output)) == (FIRST, [SECOND, FIRST])
    assert plain(output) == before


def test_promoting_makes_a_version_current_and_records_when_and_after_which(output: Outputs) -> None:
    publish(output, FIRST, 1)
    with versions.locked(output):
        add(output, SECOND, 2, status="held", gate={"reasons": ["churn"]})
    record = promote(output, SECOND)
    assert (output.finished, output.read_json("run.json")) == (SECOND, record)
    assert (record["status"], record["before"], record["gate"]) == ("finished", [FIRST], {"reasons": ["churn"]})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", record["promoted_at"])
    assert record["finished_at"] == at(2)
    assert plainly(output, SECOND)
    before = files_of(output.path)
    assert promote(output, SECOND) == record
    assert files_of(output.path) == before
    with pytest.raises(OutputError, match=rf"run '{THIRD}' in .* is not finished"):
        promote(output, THIRD)


def test_rolling_back_goes_back_one_version_at_a_time(output: Outputs) -> None:
    for day, run in enumerate((A, B, C), 1):
        publish(output, run, day)
    assert [rollback(output), output.finished, rollback(output), output.finished] == [B, B, A, A]
    assert plainly(output, A)
    with pytest.raises(
        OutputError, match=rf"nothing to roll back to in .*current before {A}; .* any version current: {C}, {B}"
    ):
        rollback(output)
    assert output.finished == A
    promote(output, C)
    assert rollback(output) == A
    promote(output, B)
    promote(output, C)
    # Every switch is undone in turn, also where a version was current twice.
    promote(output, B)
    assert [rollback(output) for _ in range(3)] == [C, B, A]


def test_rolling_back_passes_over_what_was_removed(output: Outputs) -> None:
    for day, run in enumerate((A, B, C), 1):
        publish(output, run, day)
    layout.remove_version(output.staging(B))
    assert versions.find_version(output, "previous").run == A
    assert rollback(output) == A


def test_a_version_remembers_so_many_switches(output: Outputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "SWITCHES", 2)
    for day, run in enumerate((A, B, C, D), 1):
        publish(output, run, day)
    assert output.read_json("run.json")["before"] == [C, B]


def test_a_version_is_found_by_the_beginning_of_its_name_and_by_two_words(output: Outputs) -> None:
    one, two, three = "abc000000000", "abd000000000", "fff000000000"
    for day, run in enumerate((one, two, three), 1):
        publish(output, run, day)
    resolved = {word: versions.find_version(output, word).run for word in (one, "ff", "abd", "current", "previous")}
    assert resolved == {one: one, "ff": three, "abd": two, "current": three, "previous": two}
    with pytest.raises(ConfigError, match=f"'ab' is the beginning of 2 names: {two}, {one}; give more of the name"):
        versions.find_version(output, "ab")
    for word in ("abe", ""):
        with pytest.raises(ConfigError, match=f"there is no run '{word}' in .*allowed: {three}, {two}, {one}"):
            versions.find_version(output, word)


def test_the_latest_stay_and_the_current_one_and_the_one_before_it(output: Outputs) -> None:
    for day, run in enumerate((A, B, C, D, E, F), 1):
        publish(output, run, day)
    promote(output, A)
    promote(output, B)
    assert prune(output, 2) == [D, C]
    assert runs(output) == [F, E, B, A]
    assert prune(output, 2) == []
    assert prune(output, 1, (E,)) == []
    assert prune(output, 1) == [E]
    assert [place.name for place in children(output.path / "versions")] == [A, B, F]
    assert plainly(output, B)
    assert rollback(output) == A
    for keep in (0, -1):
        with pytest.raises(
            ConfigError, match=f"keep is {keep}; give 1 or more: the current version and the one before"
        ):
            prune(output, keep)
    assert runs(output) == [F, B, A]


def test_a_version_takes_the_place_of_the_one_that_it_repeats(output: Outputs) -> None:
    for day, run in enumerate((A, B, C), 1):
        publish(output, run, day)
    for day, (run, same) in enumerate(((C2, C), (C3, C2), (C4, C3)), 4):
        with versions.locked(output):
            add(output, run, day, repeats=same)
            versions.promote(output, run)
            versions.prune(output, 3)
    # The version before stays for readers that still have it open.
    assert runs(output) == [C4, C3, B, A]
    assert rollback(output) == B
    # It repeats a version that is not the current one, so it counts as any other version.
    with versions.locked(output):
        add(output, C5, 7, repeats=C4)
        versions.promote(output, C5)
    assert rollback(output) == B
    assert prune(output, 3) == [C4, C3]


def save_checkpoint(output: Outputs, run: str) -> None:
    checkpoints.save(output.checkpoints, one(3, run), IDENTITY)


def test_an_unfinished_run_is_no_version_and_is_never_removed(output: Outputs) -> None:
    for day, run in enumerate((A, B, C), 1):
        publish(output, run, day)
    with suppress(Crash), versions.locked(output):
        save_checkpoint(output, LATER)
        # The run is killed after it writes run.json and before the switch.
        add(output, LATER, 1)
        raise Crash
    before = files_of(output.staging(LATER))
    assert runs(output) == [C, B, A]
    with pytest.raises(OutputError, match=rf"run '{LATER}' in .* is not finished; finish it by its own command"):
        versions.find_version(output, LATER[:3])
    assert prune(output, 1) == [A]
    promote(output, B)
    assert rollback(output) == C
    assert files_of(output.staging(LATER)) == before
    assert versions.unfinished(output) == LATER


def test_the_current_version_is_not_taken_for_unfinished_once_it_is_current_no_more(output: Outputs) -> None:
    publish(output, A, 1)
    with versions.locked(output):
        save_checkpoint(output, B)
        add(output, B, 2)
        versions.promote(output, B)
    assert [place.name for place in children(output.checkpoints)] == ["pass-00003.npz"]
    assert rollback(output) == A
    assert versions.unfinished(output) is None
    assert runs(output) == [B, A]


def test_where_no_run_was_there_is_no_version_and_nothing_is_made(output: Outputs) -> None:
    with pytest.raises(OutputError, match=r"no finished run at .*; name the output\.store of a finished run"):
        versions.find_version(output, "current")
    assert not children(output.path)


READ = """
import json, sys
from pathlib import Path
from clustering.storage.layout import current_version
from clustering.storage.paths import storage_path

out = storage_path(sys.argv[1])
print("ready", flush=True)
for times in sys.stdin:
    seen, faults = [], []
    for _ in range(int(times)):
        try:
            version = current_version(out)
            run = json.loads((version / "run.json").read_bytes())["run"]
            parts = [json.loads((version / part / "zarr.json").read_bytes())["attributes"]["run"]
                     for part in ("model.zarr", "labels.zarr")]
            parts += [version.name, (version / "labels.zarr" / "c" / "0").read_bytes().decode()]
            if parts != [run] * 4:
                faults.append(f"{run} with {parts}")
            seen.append(run)
        except Exception as error:
            faults.append(repr(error))
    print(json.dumps({"seen": seen, "faults": faults}), flush=True)
"""


def test_a_reader_who_resolves_the_switch_once_sees_one_version_whole(output: Outputs) -> None:
    for day, run in enumerate((A, B, C), 1):
        publish(output, run, day)
    switches = [
        (partial(promote, output, A), A),
        (partial(rollback, output), C),
        (partial(promote, output, B), B),
        (partial(rollback, output), C),
    ]
    with subprocess.Popen(
        [sys.executable, "-c", READ, str(output.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        for switch, current in switches * 3:
            # The reader reads again and again during the switch, and once after it.
            for times, change in ((20, switch), (1, None)):
                reader.stdin.write(f"{times}\n")
                reader.stdin.flush()
                if change is not None:
                    change()
                report = json.loads(reader.stdout.readline())
                assert report["faults"] == []
            assert report["seen"] == [current]
        reader.stdin.close()


def test_a_folder_from_before_versions_stayed_is_read_and_goes_on(
    request: pytest.FixtureRequest,
) -> None:
    output = output_at("folder", request)
    path = folder_of(output)
    for run in (OLD, OLDER):
        (path / "versions" / run).mkdir(parents=True)
        write_parts(path / "versions" / run, run)
        write_json(path / "versions" / run / "run.json", {"run": run, "status": "finished"})
    for name, target in (
        ("current", f"versions/{OLD}"),
        ("previous", f"versions/{OLDER}"),
        ("run.json", "current/run.json"),
    ):
        (path / name).symlink_to(target)
    output.check()
    assert (output.finished, output.read_json("run.json")["run"]) == (OLD, OLD)
    assert sorted(runs(output)) == [OLD, OLDER]
    publish(output, NEW, 1)
    assert runs(output)[0] == NEW
    assert not (path / "previous").is_symlink()
    assert rollback(output) == OLD
    with pytest.raises(OutputError, match=r"nothing to roll back to"):
        rollback(output)
    assert promote(output, OLDER)["before"] == [OLD]


def old_bucket(bucket: Bucket, run: str = OLD) -> BucketOutput:
    """An output from before there were versions."""
    output = open_output(f"{bucket.url}/out")
    assert isinstance(output, BucketOutput)
    write_parts(output.path, run)
    (output.path / "ledger" / "block-00000000").unlink()
    write_json(output.path / "run.json", {"run": run, "status": "finished", "config_sha256": "5" * 64})
    return output


def test_a_bucket_from_before_there_were_versions_is_read_and_goes_on(bucket: Bucket) -> None:
    output = old_bucket(bucket)
    before = plain(output)
    output.check()
    assert (output.finished, output.published, runs(output)) == (OLD, output.path, [OLD])
    assert output.read_json("run.json")["run"] == OLD
    with versions.locked(output):
        assert output.published == output.staging(OLD)
        assert files_of(output.published) == before
        assert plain(output) == before
    publish(output, NEW, 1)
    assert runs(output) == [NEW, OLD]
    assert rollback(output) == OLD
    assert plainly(output, OLD)


def test_a_switch_that_an_earlier_release_began_is_brought_to_its_end(bucket: Bucket) -> None:
    output = old_bucket(bucket)
    add(output, NEW, 1)
    (output.path / "run.json").unlink()
    (output.path / "model.zarr" / "zarr.json").unlink()
    write_bytes(output.path / "labels.zarr" / "c" / "7", b"old")
    assert output.finished is None
    with versions.locked(output):
        pass
    assert output.finished == NEW
    assert plainly(output, NEW)


def test_a_version_that_was_removed_by_hand_does_not_take_the_plain_names_with_it(bucket: Bucket) -> None:
    output = output_at_bucket(bucket)
    publish(output, A, 1)
    before = plain(output)
    layout.remove_version(output.staging(A))
    with versions.locked(output):
        pass
    assert plain(output) == before


def output_at_bucket(bucket: Bucket) -> BucketOutput:
    output = open_output(f"{bucket.url}/out")
    assert isinstance(output, BucketOutput)
    return output


def test_whoever_lost_the_lock_does_not_switch(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    output, other = output_at_bucket(bucket), output_at_bucket(bucket)
    for day, run in enumerate((A, B, C), 1):
        publish(output, run, day)
    with output.locked():
        assert output._lease is not None
        renew = output._lease.renew

        def overtaken() -> None:
            # The other run takes the lock and switches right after this run has renewed its lock.
            renew()
            other._point(A)

        with monkeypatch.context() as patched:
            patched.setattr(output._lease, "renew", overtaken)
            with pytest.raises(
                OutputError, match=r"another run has published to .* in the meantime.*'clustering models list s3://"
            ):
                output.switch(B)
        assert output.finished == A
        with monkeypatch.context() as patched:
            # The answer to a first try is lost, and the second meets what the first one wrote.
            patched.setattr(output._lease, "renew", lambda: other._point(B))
            output.switch(B)
    assert output.finished == B
    assert plainly(output, B)


def test_places_of_versions_are_of_the_kind_of_their_output(output: Outputs) -> None:
    publish(output, A, 1)
    assert isinstance(versions.list_versions(output)[0].path, BucketPath) == (not isinstance(output, Output))
    assert isinstance(output.published, BucketPath) == (not isinstance(output, Output))


def test_a_version_is_not_removed_half(output: Outputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that could not be removed completely no longer counts, and the next lock removes the rest."""
    for day, run in enumerate((A, B, C), 1):
        publish(output, run, day)

    def refused(*_: Any) -> None:
        raise OutputError("no")

    with monkeypatch.context() as patched:
        patched.setattr(layout, "remove_keys", refused)
        with pytest.raises(ClusteringError), versions.locked(output):
            versions.prune(output, 1)
    assert runs(output) == [C, B]
    with versions.locked(output):
        pass
    assert [place.name for place in children(output.path / "versions")] == [B, C]
