"""Progress bars of calls from Python, and the warning of fits that a limit ends."""

from __future__ import annotations

import io
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import clustering as c
from clustering.fitting.loop import StoppingRule
from clustering.progress import with_bar
from clustering.run.watch import LogWatch

ROWS = np.random.default_rng(0).standard_normal((400, 3))


def test_a_bar_changes_no_bit_and_keeps_callbacks(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []
    fit = c.fit(ROWS, c.KMeans(4), progress=True, on_pass=lambda record: seen.append(record.iteration))
    plain = c.fit(ROWS, c.KMeans(4))
    assert fit.centers.tobytes() == plain.centers.tobytes()
    assert seen == list(range(1, fit.iterations + 1))
    assert capsys.readouterr().out == ""


def test_nothing_is_shown_by_default(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    c.fit(ROWS, c.KMeans(4))
    c.run(ROWS, c.KMeans(4), output=tmp_path / "out", report=False)
    assert capfd.readouterr() == ("", "")


def test_the_bar_shows_pass_objective_and_change() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=200)
    lines: list[str] = []
    with with_bar(LogWatch(lines.append), console, wanted=True) as watch:
        fit = partial(c.fit, ROWS, c.KMeans(4), on_pass=lambda record: watch.passed(record, StoppingRule(), 1.0))
        # The last state is drawn in any case, however short the fit is.
        made = watch.step("fit", fit)
    shown = stream.getvalue()
    assert "change" in shown
    assert "J " in shown
    assert f"{made.iterations} passes" in shown


def test_a_run_shows_a_bar_too(tmp_path: Path) -> None:
    made = c.run(ROWS, c.KMeans(4), output=tmp_path / "out", report=False, progress=True)
    assert made.published


def test_without_rich_the_message_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['rich'] = None\n"
        "import clustering as c; c.fit([[0.0], [1.0]], c.KMeans(1), progress=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "progress=True needs the package 'rich'; pip install 'zarr-clustering[cli]'" in done.stderr.splitlines()[-1]


def test_a_limit_that_ends_a_fit_or_a_run_warns(tmp_path: Path) -> None:
    few: dict[str, Any] = {"max_iterations": 1, "restarts": 1, "init": "random", "finalists": 1}
    with pytest.warns(c.ConvergenceWarning, match="stopped by max_iterations after 1 pass") as caught:
        c.fit(ROWS, c.KMeans(9), **few)
    assert [one.filename for one in caught] == [__file__]
    with pytest.warns(c.ConvergenceWarning, match="stopped by max_iterations after 1 pass"):
        c.run(ROWS, c.KMeans(9), output=tmp_path / "out", report=False, **few)
    assert issubclass(c.ConvergenceWarning, c.ClusteringWarning)


def test_a_fit_that_converges_or_was_asked_for_no_pass_does_not_warn(recwarn: pytest.WarningsRecorder) -> None:
    c.fit(ROWS, c.KMeans(4))
    c.fit(ROWS, c.KMeans(4), max_iterations=0)
    assert not recwarn.list


def test_completion_shows_the_interface_alone() -> None:
    assert set(dir(c)) == {*c.__all__, "__version__"}
