from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clustering.errors import OutputError
from clustering.storage.layout import PARTS
from clustering.storage.output import Output, new_run
from clustering.storage.paths import json_text, write_bytes, write_json
from tests.storage.outputs import FIRST, OTHER, SECOND, THIRD, named

HOLD = """
import sys
from clustering.storage.output import Output
with Output(sys.argv[1]).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""

LOOK = """
import json, sys
from pathlib import Path
out = Path(sys.argv[1])
for _ in sys.stdin:
    seen, faults = [], []
    for _ in range(100):
        try:
            seen.append(json.loads((out / "run.json").read_text())["run"])
            version = out / (out / "current").readlink()
            run = json.loads((version / "run.json").read_text())["run"]
            model = json.loads((version / "model.zarr" / "zarr.json").read_text())["attributes"]["run"]
            if run != model:
                faults.append(f"{run} with a model of {model}")
        except (OSError, ValueError) as error:
            faults.append(repr(error))
    print(json.dumps({"seen": seen, "faults": faults}), flush=True)
"""


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def make_version(output: Output, run: str) -> None:
    folder = output.stage(run)
    (folder / "model.zarr").mkdir()
    (folder / "model.zarr" / "zarr.json").write_text(json.dumps({"attributes": {"run": run}}))
    write_json(folder / "run.json", {"run": run})


def publish(output: Output, run: str) -> None:
    with output.locked():
        make_version(output, run)
        output.switch(run)


def test_a_published_run_is_found_under_plain_names(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    publish(output, FIRST)
    assert output.finished == FIRST
    assert output.read_json("run.json") == {"run": FIRST}
    assert json.loads((tmp_path / "out" / "run.json").read_text()) == {"run": FIRST}
    assert (tmp_path / "out" / "model.zarr" / "zarr.json").is_file()


def test_nothing_is_seen_before_it_is_published(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    with output.locked():
        make_version(output, FIRST)
        assert output.finished is None
        assert not any((tmp_path / "out" / part).exists() for part in PARTS)
        with pytest.raises(OutputError, match="no finished run"):
            output.read_json("run.json")


def test_a_reader_never_sees_a_missing_or_mixed_output(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    publish(output, named("0"))
    seen = set()
    reader = subprocess.Popen(
        [sys.executable, "-c", LOOK, str(output.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        for i in range(1, 51):
            # The reader reads again and again while one switch is made.
            reader.stdin.write("look\n")
            reader.stdin.flush()
            publish(output, named(f"{i}"))
            report = json.loads(reader.stdout.readline())
            assert report["faults"] == []
            seen.update(report["seen"])
        reader.stdin.close()
    assert seen <= {named(f"{i}") for i in range(51)}
    assert len(seen) > 1


def test_what_a_reader_resolved_outlives_the_next_switch(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    publish(output, FIRST)
    version = output.path / (output.path / "current").readlink()
    publish(output, SECOND)
    assert json.loads((version / "run.json").read_text()) == {"run": FIRST}


def test_parts_that_a_run_did_not_make_leave_no_dangling_names(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    publish(output, FIRST)
    assert not [path.name for path in output.path.iterdir() if not path.exists()]


def test_what_was_staged_by_a_run_that_failed_is_dropped(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    publish(output, FIRST)
    before = listing(tmp_path)
    with suppress(ArithmeticError), output.locked():
        make_version(output, SECOND)
        # run.json is written last; without it, the staged files are no version.
        (output.staging(SECOND) / "run.json").unlink()
        raise ArithmeticError
    assert listing(tmp_path) == before


@pytest.mark.parametrize("made", [[], ["a"], ["a", "a/b", "a/b/out"]], ids=["nothing", "above", "all"])
def test_a_run_that_fails_before_writing_leaves_nothing_behind(made: list[str], tmp_path: Path) -> None:
    for folder in made:
        (tmp_path / folder).mkdir()
    before = listing(tmp_path)
    with pytest.raises(ArithmeticError), Output(tmp_path / "a" / "b" / "out").locked():
        raise ArithmeticError
    assert listing(tmp_path) == before


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(output.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(OutputError, match="another run is writing") as caught, output.locked():
            pass
        assert str(output.path) in str(caught.value)
        other.kill()
        other.wait()
        with output.locked():
            pass


def test_a_refused_run_leaves_the_other_at_work(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    with output.locked():
        make_version(output, FIRST)
        with pytest.raises(OutputError, match="another run is writing"), Output(output.path).locked():
            pass
        output.switch(FIRST)
    assert output.read_json("run.json") == {"run": FIRST}


@pytest.mark.parametrize(
    "place",
    [lambda p: p / "file", lambda p: p / "file" / "out", lambda p: p / "file" / "a" / "b"],
    ids=["a file", "below a file", "far below a file"],
)
def test_a_place_that_is_no_folder_is_refused(place: Callable[[Path], Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    output = Output(place(tmp_path))
    with pytest.raises(OutputError, match="not a writable folder") as caught:
        output.check()
    assert str(output.path) in str(caught.value)
    with pytest.raises(OutputError, match="cannot write to output"), output.locked():
        pass
    assert listing(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "precious"


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match=r"holds 'thesis\.txt', which is not from a run"):
        Output(tmp_path).check()
    assert listing(tmp_path) == ["thesis.txt"]


@pytest.mark.parametrize("store", ["s3://bucket/out", "file:///data/out"], ids=["s3", "file"])
def test_a_url_is_refused(store: str) -> None:
    with pytest.raises(OutputError, match="name a folder") as caught:
        Output(store)
    assert store in str(caught.value)


@pytest.mark.parametrize("made", [False, True], ids=["missing", "empty"])
def test_a_new_folder_is_fine_and_looking_does_not_make_it(made: bool, tmp_path: Path) -> None:
    if made:
        (tmp_path / "out").mkdir()
    before = listing(tmp_path)
    Output(tmp_path / "out").check()
    assert listing(tmp_path) == before


def test_an_output_of_a_run_is_not_foreign(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    publish(output, FIRST)
    output.check()


@pytest.mark.parametrize("part", ["current", *PARTS])
def test_a_run_killed_in_the_middle_of_the_switch_does_not_bar_the_next(part: str, tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    publish(output, FIRST)
    # This link is left when a run is killed after it makes a new link and before that replaces the old one.
    (output.path / f".{part}.0123abcd").symlink_to(f"versions/{SECOND}")
    output.check()
    publish(output, THIRD)
    assert output.finished == THIRD
    assert not (output.path / f".{part}.0123abcd").is_symlink()


def test_staging_begins_empty(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    with output.locked():
        (output.stage(FIRST) / "report.html").write_text("")
        assert list(output.stage(FIRST).iterdir()) == []
        output.switch(FIRST)


def test_what_an_unfinished_run_staged_stays_as_long_as_it_may_go_on(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    for run in (FIRST, OTHER):
        with suppress(ArithmeticError), output.locked(lambda: FIRST):
            make_version(output, run)
            (output.staging(run) / "run.json").unlink()
            raise ArithmeticError
    assert [path.name for path in (output.path / "versions").iterdir()] == [FIRST]
    folder = output.stage(FIRST, ["model.zarr", "never made"])
    assert [path.name for path in folder.iterdir()] == ["model.zarr"]
    publish(output, SECOND)
    assert [path.name for path in (output.path / "versions").iterdir()] == [SECOND]


def test_runs_have_different_names() -> None:
    assert len({new_run() for _ in range(100)}) == 100


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_json(path, {"objective": 1.5})
    with pytest.raises(TypeError, match="JSON"):
        write_json(path, {"objective": object()})
    assert json.loads(path.read_text()) == {"objective": 1.5}
    assert listing(tmp_path) == ["run.json"]


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (float("nan"), None),
        (float("inf"), sys.float_info.max),
        (float("-inf"), -sys.float_info.max),
        (np.float32("nan"), None),
        (np.float64("inf"), sys.float_info.max),
        (np.int16(3), 3),
        (np.array([1.0, np.nan]), [1.0, None]),
        ({"a": [float("nan"), (1.5, float("inf"))]}, {"a": [None, [1.5, sys.float_info.max]]}),
    ],
    ids=str,
)
def test_json_has_something_for_every_number(value: Any, read: Any, tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    write_json(tmp_path / "run.json", {"criteria": value})
    text = (tmp_path / "run.json").read_text()
    assert json.loads(text, parse_constant=refuse) == {"criteria": read}
    assert json.loads(json_text({"criteria": value})) == {"criteria": read}


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="file"):
        write_bytes(tmp_path / "file", b"content")
    assert listing(tmp_path) == ["file"]


def test_names_lost_in_a_killed_switch_come_back_with_the_next_run(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    publish(output, FIRST)
    (output.path / "run.json").unlink()
    with output.locked():
        pass
    assert output.read_json("run.json") == json.loads((output.path / "run.json").read_text())


def test_all_of_a_version_is_on_the_disk_before_it_is_switched_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut, the version before or this one is there, complete with files, folders and their names."""
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted(handle: int) -> None:
        events.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    def replaced(self: Path, target: Path) -> Path:
        events.append(f"> {target}")
        return replace(self, target)

    output = Output(tmp_path / "out")
    publish(output, FIRST)
    with output.locked():
        make_version(output, SECOND)
        monkeypatch.setattr(os, "fsync", noted)
        monkeypatch.setattr(Path, "replace", replaced)
        output.switch(SECOND)
    version = output.path / "versions" / SECOND
    switch = events.index(f"> {output.path / 'current'}")
    every = [version, *version.rglob("*"), version.parent, output.path]
    assert {str(path) for path in every} <= {*events[:switch]}
    # The name of the version is synced after everything in it, and the switch is synced last.
    assert events.index(str(version.parent)) > max(events.index(str(path)) for path in version.rglob("*"))
    assert events[-1] == str(output.path)
