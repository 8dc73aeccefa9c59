"""A command draws its report in a process of its own. Whatever happens to that process, there is a report."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import zarr

from clustering.run.drawing_process import DrawingProcess

COMMAND = """
import os, sys
from clustering.run import drawing_process, publish
{before}
from clustering_flows.cli import run
code = run(["fit", "job.yaml", "--no-prefect"])
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no process is left")
print(code, "matplotlib" in sys.modules)
"""


def fit(folder: Path, out: str, before: str = "", **model: object) -> tuple[list[str], list[str]]:
    """Run the command in a process with one thread; return the lines that it prints, and the figures of the report."""
    values = np.random.default_rng(1).standard_normal((400, 2))
    if not (folder / "rows").exists():
        zarr.create_array(str(folder / "rows"), shape=values.shape, chunks=(100, 2), dtype="f8")[:] = values
    job = {"source": {"store": "rows"}, "model": {"k": 3, **model}, "output": {"store": out}}
    # JSON is YAML.
    (folder / "job.yaml").write_text(json.dumps(job))
    done = subprocess.run(
        [sys.executable, "-c", COMMAND.format(before=before)], cwd=folder, capture_output=True, text=True, check=True
    )
    page = (folder / out / "report.html").read_text()
    assert json.loads((folder / out / "run.json").read_text())["warnings"] == []
    return done.stdout.splitlines(), re.findall("<figure.*?</figure>", page, re.DOTALL)


@pytest.mark.parametrize("kind", ["kmeans", "gaussian_mixture"])
def test_a_command_draws_the_same_report_in_a_process_as_in_a_thread(tmp_path: Path, kind: str) -> None:
    lines, figures = fit(tmp_path, "out", kind=kind)
    assert lines[-2:] == ["no process is left", "0 False"]
    again, same = fit(tmp_path, "again", "drawing_process.DrawingProcess.start = lambda: None", kind=kind)
    assert again[-2:] == ["no process is left", "0 True"]
    assert figures == same
    assert len(figures) > 2


@pytest.mark.parametrize(
    "before",
    [
        # The process ends before it is asked for anything, and while it is.
        "drawing_process._serve = lambda connection: os._exit(1)",
        "drawing_process.EarlyDrawing = lambda *inputs, **options: os._exit(1)",
        "drawing_process.draw_figures = lambda *inputs: os._exit(1)",
        "drawing_process.write_page = lambda *inputs: os._exit(1)",
        # It cannot draw, and says so.
        "drawing_process.draw_figures = lambda *inputs: 1 / 0",
        "drawing_process.write_page = lambda *inputs: 1 / 0",
        # The model is too large to be sent.
        "drawing_process.LARGE = 1",
    ],
)
def test_a_report_that_the_process_cannot_draw_is_drawn_by_the_job(tmp_path: Path, before: str) -> None:
    lines, figures = fit(tmp_path, "out", before)
    assert lines[-2:] == ["no process is left", "0 True"]
    assert len(figures) > 2


def test_there_is_no_process_beside_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    forks: list[int] = []
    monkeypatch.setattr(os, "fork", lambda: forks.append(1))
    done = threading.Event()
    thread = threading.Thread(target=done.wait, args=(60,))
    thread.start()
    assert DrawingProcess.start() is None
    done.set()
    thread.join()
    assert not forks


def test_without_a_fork_there_is_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    assert DrawingProcess.start() is None
