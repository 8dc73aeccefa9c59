"""A command that reads spoilt input ends in one line: never in a traceback or an internal error."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from mutations import mutate, prepare

from clustering.fitting import probe
from clustering_flows.cli import run

NAMES = re.compile(r"\b[A-Z]\w*(?:Error|Exception|Warning|Interrupt)\b|Traceback")
TOGETHER = 10
"""Mutations per test."""
USUAL, ALL = 60, 2000
"""Mutations in the usual suite, and with the slow tests."""

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        for zarr_format in (2, 3):
            folders[zarr_format] = tmp_path_factory.mktemp(f"format-{zarr_format}")
            patch.chdir(folders[zarr_format])
            prepare(folders[zarr_format], zarr_format, run)
    return folders


class Endless(BaseException):
    """A command did not end within the time limit."""


@pytest.fixture
def limit() -> Iterator[None]:
    def end(_: int, frame: FrameType | None) -> None:
        raise Endless

    before = signal.signal(signal.SIGALRM, end)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


SLOW = [pytest.param(first, marks=pytest.mark.slow) for first in range(USUAL, ALL, TOGETHER)]


@pytest.mark.usefixtures("limit")
@pytest.mark.parametrize("first", [*range(0, USUAL, TOGETHER), *SLOW])
def test_a_mutated_input_ends_in_one_line(
    first: int,
    bases: dict[int, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The probe is kept short: how long it measures does not change what the command prints in the end.
    monkeypatch.setattr(probe, "READ_SECONDS", 0.0)
    monkeypatch.setattr(probe, "STAGE_SECONDS", 0.0)
    for seed in range(first, first + TOGETHER):
        folder = tmp_path / "case"
        mutated = mutate(seed, bases, folder)
        monkeypatch.chdir(folder)
        signal.alarm(120)
        code = run(mutated.tokens)
        signal.alarm(0)
        out, err = capsys.readouterr()
        story = f"seed {seed}, {mutated.what}, {' '.join(mutated.tokens)}: {code}\n{err}"
        lines = err.splitlines()
        said = [line for line in lines if line.startswith("clustering:")]
        assert code in (0, 1, 2), story
        assert said == ([] if code == 0 else lines[-1:]), story
        assert not NAMES.search(out + err), story
        assert "internal error" not in err, story
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(folder)
