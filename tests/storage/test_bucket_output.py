from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from s3 import Bucket, Plan, proxy

from clustering.errors import ConfigError, MissingDependencyError, OutputError, StoreError
from clustering.storage import lease
from clustering.storage.bucket_output import BucketOutput, open_output
from clustering.storage.layout import PARTS
from clustering.storage.model import load_model
from clustering.storage.output import Output
from clustering.storage.paths import BucketPath, children, remove_keys, size, sizes, write_bytes, write_json
from tests.storage.outputs import FIRST, MINE, NEW, OLD, SECOND, THIRD

HOLD = """
import sys
from clustering.storage.bucket_output import open_output
with open_output(sys.argv[1]).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


def at(bucket: Bucket) -> BucketOutput:
    made = open_output(f"{bucket.url}/deep/out")
    assert isinstance(made, BucketOutput)
    return made


def make_version(output: BucketOutput, run: str, chunks: int = 3) -> None:
    folder = output.stage(run)
    for part in ("model.zarr", "labels.zarr"):
        for chunk in range(chunks):
            write_bytes(folder / part / "x" / "c" / str(chunk), run.encode())
        write_json(folder / part / "zarr.json", {"run": run})
    write_json(folder / "run.json", {"run": run})


def whole(run: str, chunks: int = 3) -> set[tuple[str, str]]:
    """Keys of a version, each with its run."""
    groups = {f"{part}/{key}" for part in ("model.zarr", "labels.zarr") for key in ("zarr.json",)}
    groups |= {f"{part}/x/c/{i}" for part in ("model.zarr", "labels.zarr") for i in range(chunks)}
    return {(key, run) for key in (*groups, "run.json")}


def seen(bucket: Bucket) -> set[tuple[str, str]]:
    """Keys that readers use, each with its run."""
    content = {key: value for key, value in bucket.content("deep/out").items() if key.split("/")[0] in PARTS}
    return {(k, json.loads(v)["run"] if k.endswith("json") else v.decode()) for k, v in content.items()}


def publish(output: BucketOutput, run: str, chunks: int = 3) -> None:
    with output.locked():
        make_version(output, run, chunks)
        output.switch(run)


def test_a_published_run_is_found_under_plain_names_and_stays_as_a_version(bucket: Bucket) -> None:
    output = at(bucket)
    with output.locked():
        make_version(output, FIRST, 5)
        assert output.finished is None
        assert seen(bucket) == set()
        with pytest.raises(OutputError, match="no finished run at 's3://bucket-"):
            output.read_json("run.json")
        output.switch(FIRST)
    assert output.finished == FIRST
    assert output.read_json("run.json") == {"run": FIRST}
    publish(output, SECOND)
    assert seen(bucket) == whole(SECOND)
    assert json.loads(bucket.content("deep/out")["current"]) == {"run": SECOND}
    assert bucket.content("deep/out/versions").keys() == {
        f"{run}/{key}" for run, chunks in ((FIRST, 5), (SECOND, 3)) for key, _ in whole(run, chunks)
    }
    assert len(bucket.content()) == 2 + 2 * len(whole(SECOND)) + len(whole(FIRST, 5))


class Crash(BaseException):
    pass


def one_by_one(_: BucketOutput, act: Callable[[str], None], names: Collection[str]) -> None:
    for name in sorted(names):
        act(name)


@pytest.mark.slow
def test_wherever_a_switch_is_cut_short_the_next_run_brings_it_to_its_end(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request that changes a plain name is, in one round, the last one that is made."""
    output, old, new = at(bucket), whole(OLD, 2), whole(NEW, 1)
    steps, left = [], [0]
    unlink, copy = BucketPath.unlink, BucketOutput._copy
    publish(output, OLD, 2)
    with output.locked():
        make_version(output, NEW, 1)

    def counted(act: Callable[..., Any]) -> Callable[..., Any]:
        def limited(*given: Any, **named: Any) -> Any:
            if left[0] == 0:
                raise Crash
            left[0] -= 1
            return act(*given, **named)

        return limited

    while True:
        with output.locked():
            output.switch(OLD)
        left[0] = len(steps)
        with monkeypatch.context() as patched:
            with output.locked():
                patched.setattr(BucketPath, "unlink", counted(unlink))
                patched.setattr(BucketOutput, "_copy", counted(copy))
                # Requests are made one after the other, so that the switch stops before each of them once.
                patched.setattr(BucketOutput, "_each", one_by_one)
                try:
                    output.switch(NEW)
                except Crash:
                    ended = False
                else:
                    ended = True
                patched.undo()
        visible = seen(bucket)
        if ended:
            break
        steps.append(visible)
        runs = {run for _, run in visible}
        # The switch precedes all changes of plain names.
        assert output.finished == NEW
        assert output.read_json("run.json") == {"run": NEW}
        if ("run.json", OLD) in visible:
            assert visible == old
        elif ("run.json", NEW) in visible:
            assert visible == new
        else:
            assert runs <= {OLD, NEW}
            # A group that can be opened is whole.
            for part in ("model.zarr", "labels.zarr"):
                if any(key == f"{part}/zarr.json" for key, _ in visible):
                    mine = {item for item in visible if item[0].startswith(part)}
                    assert mine in ({i for i in v if i[0].startswith(part)} for v in (old, new))
        with output.locked():
            pass
        assert seen(bucket) == new
        assert len(bucket.content("deep/out/versions")) == len(old) + len(new)
    assert visible == new
    assert len(steps) == 10


def test_what_a_run_staged_that_failed_is_dropped_but_for_what_may_go_on(bucket: Bucket) -> None:
    output = at(bucket)
    publish(output, FIRST)
    before = bucket.content()
    with suppress(Crash), output.locked():
        make_version(output, SECOND)
        # run.json is written last; without it, the staged files are no version.
        (output.staging(SECOND) / "run.json").unlink()
        raise Crash
    assert bucket.content() == before
    with suppress(Crash), output.locked(lambda: THIRD):
        make_version(output, THIRD)
        (output.staging(THIRD) / "run.json").unlink()
        raise Crash
    assert [place.name for place in children(output.path / "versions")] == [FIRST, THIRD]
    folder = output.stage(THIRD, ["labels.zarr", "never made"])
    assert [place.name for place in children(folder)] == ["labels.zarr"]
    assert before.items() <= bucket.content().items()


def test_a_second_process_is_refused_until_the_first_is_gone(bucket: Bucket) -> None:
    output = at(bucket)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(output.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(OutputError, match=rf"another run is writing to .*process {other.pid} on ") as caught:
            output.locked().__enter__()
        assert "\n" not in str(caught.value)
        other.kill()
        other.wait()
        assert ".lock" in bucket.content("deep/out")
        with output.locked():
            pass
    assert bucket.content() == {}


def lock_of_another_machine(bucket: Bucket) -> bytes:
    about = {"token": "theirs", "host": "elsewhere", "machine": "elsewhere 1 2", "pid": os.getpid()}
    content = json.dumps(about).encode()
    bucket.ask("PUT", "/deep/out/.lock", content)
    return content


def test_a_lock_of_another_machine_holds_until_it_is_old(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    output = at(bucket)
    content = lock_of_another_machine(bucket)
    with pytest.raises(OutputError, match=r"on elsewhere, which renewed its lock \d+ s ago; .* after 2 minutes"):
        publish(output, MINE)
    assert bucket.content("deep/out") == {".lock": content}
    monkeypatch.setattr(lease, "LEASE", -5.0)
    publish(output, MINE)
    assert seen(bucket) == whole(MINE)
    assert ".lock" not in bucket.content("deep/out")


def test_a_lock_is_renewed_while_it_is_held(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWED", 0.01)
    output, locks = at(bucket), set()
    with output.locked():
        while len(locks) < 3:
            locks.add(bucket.content("deep/out")[".lock"])
    assert bucket.content() == {}


def test_a_lock_that_cannot_be_renewed_is_logged(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lease, "RENEWED", 0.01)
    output = at(bucket)
    with output.locked():
        lock_of_another_machine(bucket)
        while not caplog.records:
            pass
    assert caplog.records[0].getMessage().startswith("the lock was not renewed: another run has taken over")


def test_a_run_that_was_taken_over_publishes_nothing_and_removes_nothing(bucket: Bucket) -> None:
    output = at(bucket)
    publish(output, FIRST)
    with output.locked():
        make_version(output, SECOND)
        content = lock_of_another_machine(bucket)
        with pytest.raises(OutputError, match=r"another run has taken over .* did not renew its lock"):
            output.switch(SECOND)
    assert seen(bucket) == whole(FIRST)
    # The run must not remove a lock of another run, nor staged files that may belong to it.
    assert bucket.content("deep/out")[".lock"] == content
    assert [place.name for place in children(output.path / "versions")] == [FIRST, SECOND]


def test_answers_that_get_lost_do_not_cost_the_lock(bucket: Bucket) -> None:
    """The first request succeeds but its answer is lost, so the second meets what the first one wrote."""
    with at(bucket).locked():
        pass
    output = at(bucket)
    mine = lease.Lease(output.path / ".lock", "out")
    mine.take()
    mine._version = {"e_tag": '"another"'}
    mine.renew()
    mine.take()
    mine.release()
    assert bucket.content() == {}
    with pytest.raises(OutputError, match="taken over"):
        mine.renew()
    with pytest.raises(OutputError, match="taken over"):
        mine.renew()


def test_a_process_of_this_machine_is_known_to_be_gone() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    here: dict[str, Any] = {"host": socket.gethostname(), "machine": lease._machine()}
    assert lease._is_gone({**here, "pid": done.pid})
    assert not lease._is_gone({**here, "pid": os.getpid()})
    assert not lease._is_gone({**here, "machine": "elsewhere", "pid": done.pid})
    assert not lease._is_gone({})


def test_a_prefix_with_other_things_in_it_is_refused(bucket: Bucket) -> None:
    output = at(bucket)
    output.check()
    publish(output, FIRST)
    output.check()
    bucket.ask("PUT", "/deep/out/thesis/chapter-1.txt", b"precious")
    with pytest.raises(OutputError, match="holds 'thesis', which is not from a run; name a new prefix"):
        output.check()


def test_keys_that_may_not_be_listed_are_no_place_for_results(bucket: Bucket) -> None:
    with proxy(bucket.server, Plan(hides_missing=True)) as address:
        output = open_output(f"{bucket.url}/out", {"endpoint_url": address})
        with pytest.raises(StoreError, match=r"may not be listed.*check the credentials"):
            output.check()


@pytest.mark.parametrize("header", ["if-none-match", "if-match"])
def test_a_store_that_heeds_no_conditions_is_no_place_for_results(header: str, bucket: Bucket) -> None:
    with proxy(bucket.server, Plan(unheard=(header,))) as address:
        output = open_output(f"{bucket.url}/out", {"endpoint_url": address})
        with pytest.raises(OutputError, match="ignores conditions of writes"):
            output.locked().__enter__()
    assert bucket.content() == {}


def test_google_without_a_file_of_credentials_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere.json")
    with pytest.raises(ConfigError, match=r"gs://bucket/out .*GOOGLE_APPLICATION_CREDENTIALS to a file"):
        open_output("gs://bucket/out").check()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'zarr-clustering\[cloud\]'"):
        open_output("s3://bucket/out").check()
    with pytest.raises(MissingDependencyError, match=r"zarr-clustering\[cloud\]"):
        load_model("s3://bucket/out")


def test_a_folder_is_an_output_of_its_own_kind(tmp_path: Path) -> None:
    assert isinstance(open_output(tmp_path), Output)
    with pytest.raises(ConfigError, match="which is no bucket; leave them out"):
        open_output(tmp_path, {"anon": True})


def test_places_here_and_in_a_bucket_are_alike(bucket: Bucket, tmp_path: Path) -> None:
    for place in (tmp_path / "a", BucketPath(f"{bucket.url}/a")):
        assert children(place / "b") == []
        assert list(sizes(place / "b")) == []
        if isinstance(place, Path):
            (place / "b" / "c").mkdir(parents=True)
        for name, content in {"b/c/1": b"one", "b/2": b"two!", "bb": b""}.items():
            write_bytes(place / name, content)
        assert [child.name for child in children(place)] == ["b", "bb"]
        assert [child.name for child in children(place / "b")] == ["2", "c"]
        assert sorted(sizes(place / "b")) == [("1", 3), ("2", 4)]
        assert (place / "b" / "2").read_bytes() == b"two!"
        assert [size(place / name) for name in ("b/2", "bb", "b/3")] == [4, 0, None]
        assert (place / "b" / "2").is_file()
        assert not (place / "b").is_file()
        with pytest.raises(FileNotFoundError):
            (place / "b" / "3").read_bytes()
        (place / "b" / "3").unlink(missing_ok=True)
        remove_keys(place, lambda key: key == "b/c/1")
        assert [child.name for child in children(place / "b")] == ["2"]
        remove_keys(place / "b", lambda _: True)
        remove_keys(place / "b", lambda _: True)
        assert [child.name for child in children(place)] == ["bb"]
