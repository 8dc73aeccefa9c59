"""Every error is printed to the user as one line."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from cyclopts import App
from distributed import Client

from clustering.data import reading
from clustering.errors import DataError, ExecutionError, at_work
from clustering.execution.engine import connect
from clustering.run import job as jobs
from clustering_flows.cli import run
from clustering_flows.exit_status import exit_status


def faulty(error: BaseException) -> App:
    app = App(name="clustering", result_action="return_value", suppress_keyboard_interrupt=False)

    @app.command
    def work() -> None:
        raise error

    return app


def os_error(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), *([path] if path else []))


KINDS = {
    "value": (ValueError("bad\nvalue"), "internal error: a value that nobody expected; this is a fault of"),
    "key": (KeyError("x"), "internal error: something that is not there; "),
    "attribute": (AttributeError("x"), "internal error: something that is not there; "),
    "type": (TypeError("x"), "internal error: a value of a kind that nobody expected; "),
    "division": (ZeroDivisionError("x"), "internal error: a fault of arithmetic; "),
    "assertion": (AssertionError(), "internal error: something that has to hold does not; "),
    "recursion": (RecursionError("x"), "internal error: too many levels; "),
    "import": (ImportError("x"), "internal error: a package that cannot be imported; "),
    "decoding": (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), "internal error: text of another encoding; "),
    "not implemented": (NotImplementedError(), "internal error: something that is not supported; "),
    "own": (type("OddError", (Exception,), {})("x"), "internal error: a fault that nobody expected; "),
    "group": (ExceptionGroup("several", [DataError("the rows are odd"), ValueError("x")]), "the rows are odd\n"),
    "memory": (MemoryError(), "memory ran out; lower compute.memory"),
    "array": (np._core._exceptions._ArrayMemoryError((10**9,), np.dtype("f8")), "memory ran out; lower"),  # type: ignore[attr-defined]
    "full disk": (os_error(errno.ENOSPC, "/data/x"), "'/data/x': no space left on device; free space there"),
    "quota": (os_error(errno.EDQUOT), "disk quota exceeded; free space there"),
    "open files": (
        os_error(errno.EMFILE, "/x"),
        "'/x': too many open files; raise the limit of open files (ulimit -n)",
    ),
    "read-only": (os_error(errno.EROFS, "/x"), "'/x': read-only file system; name another place"),
    "long name": (os_error(errno.ENAMETOOLONG, "/x"), "'/x': file name too long; shorten the name"),
    "threads": (RuntimeError("can't start new thread"), "no more threads can be started; raise the limit (ulimit -u)"),
    "temporary": (FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"), "set TMPDIR to a folder"),
    "keyboard": (
        KeyboardInterrupt(),
        "interrupted; run the same command again: fit, select-k and predict go on where they stopped",
    ),
    "lost cluster": (ExecutionError("the cluster is gone"), "the cluster is gone\n"),
}
NAMES = re.compile(r"\w*(?:Error|Exception|Warning|Interrupt)\b|Traceback")


@pytest.mark.parametrize(("error", "said"), KINDS.values(), ids=KINDS)
def test_an_error_is_reported_in_one_line_without_its_name(
    error: BaseException, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["work"], faulty(error)) == 1
    out, err = capsys.readouterr()
    assert err.startswith("clustering: ")
    assert said in err
    assert (out, err.count("\n"), NAMES.findall(err)) == ("", 1, [])


def test_with_debug_the_error_itself_is_shown() -> None:
    with pytest.raises(ZeroDivisionError, match="x"):
        run(["work", "--debug"], faulty(ZeroDivisionError("x")))


def test_what_was_at_work_is_reported_and_goes_through_processes() -> None:
    with pytest.raises(ValueError, match="odd") as caught, at_work("block 3 [0:5]"), at_work("variable 't'"):
        raise ValueError("odd")
    error = pickle.loads(pickle.dumps(caught.value))
    assert error.__notes__ == ["at work: variable 't'", "at work: block 3 [0:5]"]
    assert "expected, at block 3 [0:5], variable 't'; this is a fault of zarr-clustering" in exit_status(error)[1]
    with pytest.raises(DataError) as excinfo, at_work("block 3 [0:5]"):
        raise DataError("says it itself")
    assert not hasattr(excinfo.value, "__notes__")


@pytest.fixture
def config(tmp_path: Path) -> str:
    group = zarr.create_group(str(tmp_path / "s.zarr"))
    array = group.create_array("t", shape=(40, 2), chunks=(10, 2), dtype="f8", dimension_names=["row", "feature"])
    array[...] = np.random.default_rng(1).random((40, 2))
    content = {
        "source": {"store": str(tmp_path / "s.zarr"), "variables": ["t"], "feature_dims": ["feature"]},
        "model": {"k": 2},
        "compute": {"block": "160B"},
        "output": {"store": str(tmp_path / "out"), "report": False},
    }
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(content))
    return str(path)


@pytest.mark.parametrize("engine", ["synchronous", "threads", "client"])
def test_the_block_and_the_variable_at_work_are_reported_on_every_engine(
    engine: str, config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoilt(source: Any, block: Any) -> Any:
        if block.start[0] == 20:
            with at_work("variable 't'"):
                raise LookupError("nothing there")
        return read(source, block)

    read = reading._rows
    monkeypatch.setattr("clustering.data.reading._rows", spoilt)
    if engine == "client":
        with Client(n_workers=1, processes=False, dashboard_address="127.0.0.1:0", set_as_default=False) as client:
            monkeypatch.setattr(jobs, "connect", lambda *_: connect(client))
            assert run(["fit", config, "--no-prefect"]) == 1
    else:
        assert run(["fit", config, "--no-prefect", "--set", f"compute.cluster={engine}"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("clustering: internal error: something that is not there, at block 2 [20:30")
    assert ", variable 't'; this is a fault of zarr-clustering" in last


def test_what_other_packages_warn_of_is_a_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    app = App(name="clustering", result_action="return_value")

    @app.command
    def work() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            for _ in range(3):
                warnings.warn("mind\nthe gap", RuntimeWarning, stacklevel=1)
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()

    before = warnings.showwarning, threading.excepthook
    assert run(["work"], app) == 0
    assert capsys.readouterr().err.splitlines() == [
        "warning: mind the gap",
        "warning: a background thread ended early: a fault of arithmetic",
    ]
    assert (warnings.showwarning, threading.excepthook) == before


COMMAND = [sys.executable, "-c", "import sys; from clustering_flows.cli import main; main(sys.argv[1:])"]


def test_output_that_nobody_reads_to_the_end_is_no_fault() -> None:
    command = f'{sys.executable} -c \'from clustering_flows.cli import main; main(["fit", "--help"])\''
    done = subprocess.run(f"{command} | head -c 1", shell=True, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("\n", "") or (len(done.stdout), done.stderr) == (1, "")


def test_output_to_a_full_disk_is_reported() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, "--version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no space left on device; free space there" in done.stderr


def test_letters_that_a_terminal_lacks_are_written_otherwise() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*COMMAND, "fit", "größe.yaml"], capture_output=True, env=environment, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(b"clustering: cannot read the config 'gr\\xf6\\xdfe.yaml'")
