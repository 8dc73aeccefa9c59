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
from clustering.storage.places import BucketPlace, children, write_bytes, write_json
from clustering.storage.versions import Outputs
from tests.storage.outputs import (
    Crash,
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
    return [version.run for version in versions.listed(output)]


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
    for day, run in ((3, "third"), (1, "first"), (2, "second")):
        publish(output, run, day)
    assert runs(output) == ["third", "second", "first"]
    assert all(is_whole(version.place, version.run) for version in versions.listed(output))
    assert output.finished == "second"
    assert is_whole(output.published, "second")
    assert plainly(output, "second")
    assert output.read_json("run.json")["run"] == "second"
    latest = versions.listed(output)[0]
    assert latest.bytes == sum(len(content) for content in files_of(latest.place).values())


def test_a_version_that_is_held_is_not_seen_under_the_plain_names(output: Outputs) -> None:
    publish(output, "first", 1)
    before = plain(output)
    with versions.locked(output):
        add(output, "second", 2, status="held")
    assert (output.finished, runs(output)) == ("first", ["second", "first"])
    assert plain(output) == before


def test_promoting_makes_a_version_current_and_tells_when_and_after_which(output: Outputs) -> None:
    publish(output, "first", 1)
    with versions.locked(output):
        add(output, "second", 2, status="held", gate={"reasons": ["churn"]})
    record = promote(output, "second")
    assert (output.finished, output.read_json("run.json")) == ("second", record)
    assert (record["status"], record["before"], record["gate"]) == ("finished", ["first"], {"reasons": ["churn"]})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", record["promoted_at"])
    assert record["finished_at"] == at(2)
    assert plainly(output, "second")
    before = files_of(output.path)
    assert promote(output, "second") == record
    assert files_of(output.path) == before
    with pytest.raises(OutputError, match=r"run 'third' in .* is not finished"):
        promote(output, "third")


def test_rolling_back_goes_back_one_version_at_a_time(output: Outputs) -> None:
    for day, run in enumerate(("a", "b", "c"), 1):
        publish(output, run, day)
    assert [rollback(output), output.finished, rollback(output), output.finished] == ["b", "b", "a", "a"]
    assert plainly(output, "a")
    with pytest.raises(
        OutputError, match=r"nothing to roll back to in .*current before a; .* any version current: c, b"
    ):
        rollback(output)
    assert output.finished == "a"
    promote(output, "c")
    assert rollback(output) == "a"
    promote(output, "b")
    promote(output, "c")
    # Each step of the way back, also where a version was current twice.
    promote(output, "b")
    assert [rollback(output) for _ in range(3)] == ["c", "b", "a"]


def test_rolling_back_passes_over_what_was_removed(output: Outputs) -> None:
    for day, run in enumerate(("a", "b", "c"), 1):
        publish(output, run, day)
    layout.drop(output.staging("b"))
    assert versions.find(output, "previous").run == "a"
    assert rollback(output) == "a"


def test_a_version_remembers_so_many_switches(output: Outputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "SWITCHES", 2)
    for day, run in enumerate(("a", "b", "c", "d"), 1):
        publish(output, run, day)
    assert output.read_json("run.json")["before"] == ["c", "b"]


def test_a_version_is_found_by_the_beginning_of_its_name_and_by_two_words(output: Outputs) -> None:
    for day, run in enumerate(("abc", "abd", "xyz", "x"), 1):
        publish(output, run, day)
    found = {word: versions.find(output, word).run for word in ("abc", "xy", "x", "current", "previous")}
    assert found == {"abc": "abc", "xy": "xyz", "x": "x", "current": "x", "previous": "xyz"}
    with pytest.raises(ConfigError, match="'ab' is the beginning of 2 names: abd, abc; give more of the name"):
        versions.find(output, "ab")
    for word in ("abe", ""):
        with pytest.raises(ConfigError, match=f"there is no run '{word}' in .*allowed: x, xyz, abd, abc"):
            versions.find(output, word)


def test_the_latest_stay_and_the_current_one_and_the_one_before_it(output: Outputs) -> None:
    for day, run in enumerate(("a", "b", "c", "d", "e", "f"), 1):
        publish(output, run, day)
    promote(output, "a")
    promote(output, "b")
    assert prune(output, 2) == ["d", "c"]
    assert runs(output) == ["f", "e", "b", "a"]
    assert prune(output, 2) == []
    assert prune(output, 1, ("e",)) == []
    assert prune(output, 1) == ["e"]
    assert [place.name for place in children(output.path / "versions")] == ["a", "b", "f"]
    assert plainly(output, "b")
    assert rollback(output) == "a"
    for keep in (0, -1):
        with pytest.raises(
            ConfigError, match=f"keep is {keep}; give 1 or more: the current version and the one before"
        ):
            prune(output, keep)
    assert runs(output) == ["f", "b", "a"]


def test_a_version_takes_the_place_of_the_one_that_it_repeats(output: Outputs) -> None:
    for day, run in enumerate(("a", "b", "c"), 1):
        publish(output, run, day)
    for day, (run, same) in enumerate((("c2", "c"), ("c3", "c2"), ("c4", "c3")), 4):
        with versions.locked(output):
            add(output, run, day, repeats=same)
            versions.promote(output, run)
            versions.prune(output, 3)
    # The one before stays for those who are reading it.
    assert runs(output) == ["c4", "c3", "b", "a"]
    assert rollback(output) == "b"
    # Its like is not the current one, so it is a version as any other.
    with versions.locked(output):
        add(output, "c5", 7, repeats="c4")
        versions.promote(output, "c5")
    assert rollback(output) == "b"
    assert prune(output, 3) == ["c4", "c3"]


def save_checkpoint(output: Outputs, run: str) -> None:
    checkpoints.save(output.checkpoints, one(3, run), IDENTITY)


def test_an_unfinished_run_is_no_version_and_is_never_removed(output: Outputs) -> None:
    for day, run in enumerate(("a", "b", "c"), 1):
        publish(output, run, day)
    with suppress(Crash), versions.locked(output):
        save_checkpoint(output, "later")
        # It was killed between its run.json and the switch.
        add(output, "later", 1)
        raise Crash
    before = files_of(output.staging("later"))
    assert runs(output) == ["c", "b", "a"]
    with pytest.raises(OutputError, match=r"run 'later' in .* is not finished; finish it by its own command"):
        versions.find(output, "la")
    assert prune(output, 1) == ["a"]
    promote(output, "b")
    assert rollback(output) == "c"
    assert files_of(output.staging("later")) == before
    assert versions.unfinished(output) == "later"


def test_the_current_version_is_not_taken_for_unfinished_once_it_is_current_no_more(output: Outputs) -> None:
    publish(output, "a", 1)
    with versions.locked(output):
        save_checkpoint(output, "b")
        add(output, "b", 2)
        versions.promote(output, "b")
    assert [place.name for place in children(output.checkpoints)] == ["pass-00003.npz"]
    assert rollback(output) == "a"
    assert versions.unfinished(output) is None
    assert runs(output) == ["b", "a"]


def test_where_no_run_was_there_is_no_version_and_nothing_is_made(output: Outputs) -> None:
    with pytest.raises(OutputError, match=r"no finished run at .*; name the output\.store of a finished run"):
        versions.find(output, "current")
    assert not children(output.path)


READ = """
import json, sys
from pathlib import Path
from clustering.storage.layout import resolved
from clustering.storage.places import place_at

out = place_at(sys.argv[1])
print("ready", flush=True)
for times in sys.stdin:
    seen, faults = [], []
    for _ in range(int(times)):
        try:
            version = resolved(out)
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
    for day, run in enumerate(("a", "b", "c"), 1):
        publish(output, run, day)
    switches = [
        (partial(promote, output, "a"), "a"),
        (partial(rollback, output), "c"),
        (partial(promote, output, "b"), "b"),
        (partial(rollback, output), "c"),
    ]
    with subprocess.Popen(
        [sys.executable, "-c", READ, str(output.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        for switch, current in switches * 3:
            # The reader looks again and again while the switch is made, and once when it is.
            for times, change in ((20, switch), (1, None)):
                reader.stdin.write(f"{times}\n")
                reader.stdin.flush()
                if change is not None:
                    change()
                found = json.loads(reader.stdout.readline())
                assert found["faults"] == []
            assert found["seen"] == [current]
        reader.stdin.close()


def test_a_folder_from_before_versions_stayed_is_read_and_goes_on(
    request: pytest.FixtureRequest,
) -> None:
    output = output_at("folder", request)
    path = folder_of(output)
    for run in ("old", "older"):
        (path / "versions" / run).mkdir(parents=True)
        write_parts(path / "versions" / run, run)
        write_json(path / "versions" / run / "run.json", {"run": run, "status": "finished"})
    for name, target in (("current", "versions/old"), ("previous", "versions/older"), ("run.json", "current/run.json")):
        (path / name).symlink_to(target)
    output.check()
    assert (output.finished, output.read_json("run.json")["run"]) == ("old", "old")
    assert sorted(runs(output)) == ["old", "older"]
    publish(output, "new", 1)
    assert runs(output)[0] == "new"
    assert not (path / "previous").is_symlink()
    assert rollback(output) == "old"
    with pytest.raises(OutputError, match=r"nothing to roll back to"):
        rollback(output)
    assert promote(output, "older")["before"] == ["old"]


def old_bucket(bucket: Bucket, run: str = "old") -> BucketOutput:
    """An output from before there were versions."""
    output = open_output(f"{bucket.url}/out")
    assert isinstance(output, BucketOutput)
    write_parts(output.path, run)
    (output.path / "ledger" / "block-0").unlink()
    write_json(output.path / "run.json", {"run": run, "status": "finished"})
    return output


def test_a_bucket_from_before_there_were_versions_is_read_and_goes_on(bucket: Bucket) -> None:
    output = old_bucket(bucket)
    before = plain(output)
    output.check()
    assert (output.finished, output.published, runs(output)) == ("old", output.path, ["old"])
    assert output.read_json("run.json")["run"] == "old"
    with versions.locked(output):
        assert output.published == output.staging("old")
        assert files_of(output.published) == before
        assert plain(output) == before
    publish(output, "new", 1)
    assert runs(output) == ["new", "old"]
    assert rollback(output) == "old"
    assert plainly(output, "old")


def test_a_switch_that_an_earlier_release_began_is_brought_to_its_end(bucket: Bucket) -> None:
    output = old_bucket(bucket)
    add(output, "new", 1)
    (output.path / "run.json").unlink()
    (output.path / "model.zarr" / "zarr.json").unlink()
    write_bytes(output.path / "labels.zarr" / "c" / "7", b"old")
    assert output.finished is None
    with versions.locked(output):
        pass
    assert output.finished == "new"
    assert plainly(output, "new")


def test_a_version_that_was_removed_by_hand_does_not_take_the_plain_names_with_it(bucket: Bucket) -> None:
    output = output_at_bucket(bucket)
    publish(output, "a", 1)
    before = plain(output)
    layout.drop(output.staging("a"))
    with versions.locked(output):
        pass
    assert plain(output) == before


def output_at_bucket(bucket: Bucket) -> BucketOutput:
    output = open_output(f"{bucket.url}/out")
    assert isinstance(output, BucketOutput)
    return output


def test_whoever_lost_the_lock_does_not_switch(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    output, other = output_at_bucket(bucket), output_at_bucket(bucket)
    for day, run in enumerate(("a", "b", "c"), 1):
        publish(output, run, day)
    with output.locked():
        assert output._lease is not None
        renew = output._lease.renew

        def overtaken() -> None:
            # The other takes the lock and switches right after this one was found to be held.
            renew()
            other._point("a")

        with monkeypatch.context() as patched:
            patched.setattr(output._lease, "renew", overtaken)
            with pytest.raises(
                OutputError, match=r"another run has switched .* meanwhile.*'clustering models list s3://"
            ):
                output.switch("b")
        assert output.finished == "a"
        with monkeypatch.context() as patched:
            # The answer to a first try was lost, and the second finds what the first one made.
            patched.setattr(output._lease, "renew", lambda: other._point("b"))
            output.switch("b")
    assert output.finished == "b"
    assert plainly(output, "b")


def test_places_of_versions_are_of_the_kind_of_their_output(output: Outputs) -> None:
    publish(output, "a", 1)
    assert isinstance(versions.listed(output)[0].place, BucketPlace) == (not isinstance(output, Output))
    assert isinstance(output.published, BucketPlace) == (not isinstance(output, Output))


def test_a_version_is_not_removed_half(output: Outputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be removed is no version any more, and goes with the next lock."""
    for day, run in enumerate(("a", "b", "c"), 1):
        publish(output, run, day)

    def refused(_: Any) -> None:
        raise OutputError("no")

    with monkeypatch.context() as patched:
        patched.setattr(layout, "remove", refused)
        with pytest.raises(ClusteringError), versions.locked(output):
            versions.prune(output, 1)
    assert runs(output) == ["c", "b"]
    with versions.locked(output):
        pass
    assert [place.name for place in children(output.path / "versions")] == ["b", "c"]
