"""A process that is killed at any moment leaves the old or the new folder, whole, and the next one tidies up."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from clustering.data import replacing
from clustering.data.replacing import continued, staged
from clustering.errors import DataError, OutputError

KILLED = '''
"""Replace a folder again and again, in processes that end at their first, second, … change of the disk."""
import json, os, sys
from pathlib import Path
import numpy as np
from clustering.data import replacing
from clustering.data.ingest import ingest

what, swaps, every, folder = sys.argv[1], sys.argv[2] == "swaps", sys.argv[3] == "every", Path(sys.argv[4])
target = folder / "target.zarr"
if what == "save":
    import clustering as c
    fits = [c.fit(np.arange(8.0).reshape(4, 2) * (i + 1), c.KMeans(2)) for i in range(2)]
else:
    for i in range(2):
        np.save(folder / f"{i}.npy", np.full((6, 2), i))
if not swaps:
    replacing._exchange = lambda *_: False

def write(i):
    if what == "save":
        fits[i].save(target, overwrite=True)
    else:
        ingest(folder / f"{i}.npy", target, overwrite=True)

def apart(act, *given):
    """In a process of its own, as Zarr has threads."""
    child = os.fork()
    if child == 0:
        try:
            act(*given)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def killed(i, after):
    left = [after]
    def hook(event, given):
        changes = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", *(["open"] if every else []))
        # Writes to the new folder change nothing for readers before the switch.
        inside = given and str(given[0]).startswith(str(folder)) and (every or "/new/" not in str(given[0]))
        if event in changes and inside:
            if left[0] == 0:
                os.kill(os.getpid(), 9)
            left[0] -= 1
    sys.addaudithook(hook)
    write(i)

def content():
    return {p.relative_to(target).as_posix(): p.read_bytes() for p in sorted(target.rglob("*")) if p.is_file()}

wholes = []
for i in range(2):
    assert apart(write, i) == 0
    wholes.append(content())
assert wholes[0] != wholes[1]
states, gone = [], 0
for after in range(1000):
    assert apart(write, 0) == 0
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith(".")) == []
    code = apart(killed, 1, after)
    if not target.exists():
        # Where folders cannot be swapped; the next writer puts it back, also one that is refused.
        gone += 1
        apart(lambda: ingest(folder / "nothing.npy", target) if what == "ingest" else None)
        continue
    states.append(wholes.index(content()))
    if code == 0:
        break
    assert code == -9
print(json.dumps({"states": states, "gone": gone}))
'''


def run_killed(*given: object) -> dict[str, object]:
    done = subprocess.run([sys.executable, "-c", KILLED, *map(str, given)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("what", ["ingest", pytest.param("save", marks=pytest.mark.slow)])
def test_a_killed_writer_leaves_the_old_or_the_new_whole(what: str, tmp_path: Path) -> None:
    result = run_killed(what, "swaps", "some", tmp_path)
    states = result["states"]
    assert isinstance(states, list)
    assert result["gone"] == 0
    assert states == sorted(states)
    assert set(states) == {0, 1}
    assert len(states) > 4


@pytest.mark.slow
@pytest.mark.parametrize("swaps", ["swaps", "renames"])
def test_wherever_a_writer_is_killed_the_next_one_goes_on(swaps: str, tmp_path: Path) -> None:
    """Only a store is written here, because a model takes hundreds of changes of the disk."""
    result = run_killed("ingest", swaps, "every", tmp_path)
    assert set(result["states"]) == {0, 1}  # type: ignore[call-overload]
    assert result["gone"] == (0 if swaps == "swaps" else 1)


def nothing() -> None:
    pass


def write(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "a").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("swaps", [True, False])
@pytest.mark.parametrize("before", ["nothing", "empty", "old"])
def test_a_folder_is_switched_to_and_nothing_is_left(
    swaps: bool, before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not swaps:
        monkeypatch.setattr(replacing, "_exchange", lambda *_: False)
    target = tmp_path / "above" / "target"
    if before != "nothing":
        target.mkdir(parents=True)
    if before == "old":
        (target / "b").write_text("old")
    with staged(target, nothing) as staging:
        write(staging, "new")
        assert (before == "old") == (target / "b").exists()
    assert names(tmp_path / "above") == ["target"]
    assert names(target) == ["a"]


@pytest.mark.parametrize("swaps", [True, False])
def test_what_appears_meanwhile_is_not_replaced(swaps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "target"

    def check() -> None:
        if target.exists():
            raise OutputError("it exists")

    def write_both() -> None:
        with staged(target, check) as staging:
            write(staging, "new")
            write(target, "theirs")

    with pytest.raises(OutputError, match="it exists"):
        write_both()
    assert names(tmp_path) == ["target"]
    assert (target / "a").read_text() == "theirs"


def test_a_switch_that_fails_halfway_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "target"
    write(target, "old")
    monkeypatch.setattr(replacing, "_exchange", lambda *_: False)
    rename = Path.rename

    def refused(self: Path, other: Path) -> Path:
        if self.name == "new":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OutputError, match=r"cannot write .*Input/output error"), staged(target, nothing) as staging:
        write(staging, "new")
    assert names(tmp_path) == ["target"]
    assert (target / "a").read_text() == "old"


def test_only_what_a_dead_writer_of_the_same_place_left_is_removed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    sign = json.dumps({"wrote": "zarr-clustering", "beside": "target"})
    theirs = {".target.00000000": "{}", ".target.11111111": sign.replace("target", "other"), ".target.mine": sign}
    for name, content in {**theirs, ".target.22222222": sign}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "staging.json").write_text(content)
        (tmp_path / name / "new").mkdir()
    (tmp_path / ".target.33333333").symlink_to(tmp_path / ".target.22222222")
    (tmp_path / ".target.44444444").mkdir()
    with staged(target, nothing) as staging:
        # The inner writer leaves the staging folder of the outer one alone.
        with suppress(OutputError), staged(target, nothing) as other:
            write(other, "other")
        assert staging.parent.is_dir()
        assert (target / "a").read_text() == "other"
        write(staging, "new")
    left = [*theirs, ".target.33333333"]
    assert names(tmp_path) == sorted([*left, "target"])


def test_all_is_on_the_disk_before_the_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync, switch = os.fsync, replacing._switch

    def noted(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    def switched(new: Path, old: Path, target: Path) -> None:
        synced.append("switch")
        switch(new, old, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(replacing, "_switch", switched)
    with staged(tmp_path / "target", nothing) as staging:
        write(staging, "new")
        (staging / "b").mkdir()
        write(staging / "b" / "c", "deep")
        (staging / "link").symlink_to(tmp_path)
    inside = [name.partition("/new")[2] for name in synced[: synced.index("switch")]]
    assert sorted(inside) == ["", "/a", "/b", "/b/c", "/b/c/a"]
    assert synced[-1] == str(tmp_path)


# Staging folders that stay


SIGN = json.dumps({"wrote": "zarr-clustering", "beside": "target"})


def attempt(target: Path, text: str | None = "new", error: BaseException | None = None) -> list[str]:
    """Write a folder, and return what an earlier attempt left there. If the text is None, no file is written."""
    with continued(target, "it", nothing) as staging:
        before = names(staging)
        if text is not None:
            write(staging / "it", text)
        (staging / "ledger").mkdir(exist_ok=True)
        if error is not None:
            raise error
    return before


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), OutputError("full")], ids=repr)
def test_what_an_interrupted_writer_did_is_there_for_the_next(error: BaseException, tmp_path: Path) -> None:
    target = tmp_path / "above" / "target"
    with pytest.raises(type(error)):
        attempt(target, error=error)
    assert names(tmp_path / "above") == [".target.unfinished"]
    assert attempt(target, None) == ["it", "ledger", "staging.json"]
    assert names(tmp_path / "above") == ["target"]
    assert (target / "a").read_text() == "new"


def test_an_attempt_that_would_fail_again_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        attempt(tmp_path / "target", error=DataError("no rows"))
    assert names(tmp_path) == []


@pytest.mark.parametrize("what", ["notes", "empty sign", "sign of another", "link", "linked sign", "file"])
def test_a_staging_folder_of_others_stays_as_it_is(what: str, tmp_path: Path) -> None:
    staging, other = tmp_path / ".target.unfinished", tmp_path / "other"
    write(other, "theirs")
    (other / "empty").touch()
    if what == "link":
        (other / "staging.json").write_text(SIGN)
        staging.symlink_to(other)
    elif what == "file":
        staging.write_text("theirs")
    else:
        write(staging, "theirs")
    if what == "empty sign":
        (staging / "staging.json").touch()
    if what == "sign of another":
        (staging / "staging.json").write_text(SIGN.replace("target", "other"))
    if what == "linked sign":
        (staging / "staging.json").symlink_to(other / "empty")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(OutputError, match=r"is in the way and is not from this library|cannot write"):
        attempt(tmp_path / "target")
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_two_writers_of_one_place_exclude_each_other(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with continued(target, "it", nothing) as staging:
        write(staging / "it", "first")
        with pytest.raises(OutputError, match="another process is writing"):
            attempt(target)
        attempt(tmp_path / "beside")
    assert (target / "a").read_text() == "first"
    assert names(tmp_path) == ["beside", "target"]


@pytest.mark.parametrize("text", ["", SIGN])
def test_a_writer_that_was_killed_at_its_beginning_is_no_hindrance(text: str, tmp_path: Path) -> None:
    staging = tmp_path / ".target.unfinished"
    staging.mkdir()
    if text:
        (staging / "staging.json").write_text(text)
    attempt(tmp_path / "target")
    assert names(tmp_path) == ["target"]


def test_a_target_that_was_moved_aside_is_put_back_before_it_is_checked(tmp_path: Path) -> None:
    """Without swaps, there is no target between the two renames of a switch."""
    target, staging = tmp_path / "target", tmp_path / ".target.unfinished"
    staging.mkdir()
    (staging / "staging.json").write_text(SIGN)
    write(staging / "old", "old")
    write(staging / "new", "new")

    def check() -> None:
        if target.exists():
            raise OutputError("it exists")

    with pytest.raises(OutputError, match="it exists"), continued(target, "it", check):
        raise AssertionError
    assert (target / "a").read_text() == "old"
    assert names(tmp_path) == ["target"]


KILLED_TWICE = '''
"""Label again and again, in processes that end at their first, second, … change of the disk."""
import os, sys
from pathlib import Path
from clustering.data import replacing

folder, swaps = Path(sys.argv[1]), sys.argv[2] == "swaps"
target = folder / "target"
if not swaps:
    replacing._exchange = lambda *_: False

def write(text):
    with replacing.continued(target, "it", lambda: None) as staging:
        ledger, it = staging / "ledger", staging / "it"
        # As a label pass does: records count for the attempt that they name.
        if not (ledger.is_dir() and (ledger / "of").is_file() and (ledger / "of").read_text() == text and it.is_dir()):
            for part in (ledger, it):
                if part.is_dir():
                    replacing.shutil.rmtree(part)
            it.mkdir()
            (it / "a").write_text(text)
            ledger.mkdir()
            (ledger / "of").write_text(text)

def apart(act, *given):
    child = os.fork()
    if child == 0:
        try:
            act(*given)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def killed(text, after):
    left = [after]
    def hook(event, given):
        if event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "open"):
            if left[0] == 0:
                os.kill(os.getpid(), 9)
            left[0] -= 1
    sys.addaudithook(hook)
    write(text)

for after in range(1000):
    assert apart(write, "old") == 0
    code = apart(killed, "new", after)
    assert not target.exists() or (target / "a").read_text() in ("old", "new")
    assert apart(write, "third" if after % 2 else "new") == 0, after
    assert (target / "a").read_text() == ("third" if after % 2 else "new"), after
    assert [path.name for path in folder.iterdir()] == ["target"], after
    if code == 0:
        break
    assert code == -9
assert after > 10
'''


@pytest.mark.parametrize("swaps", ["swaps", "renames"])
def test_wherever_a_writer_is_killed_the_next_one_writes_its_own(swaps: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_TWICE, str(tmp_path), swaps]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
