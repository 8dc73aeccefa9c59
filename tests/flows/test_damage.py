"""A command names what is damaged in a store or an output in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mutations import prepare

from clustering_flows.cli import run

GARBAGE = b"not what it was"
FIT = ["fit", "job.yaml", "--no-prefect"]
PREDICT = ["predict", "finished", "job.yaml", "--no-prefect"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        prepare(folder, 3, run)
    return folder


def chunk(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).write_bytes(GARBAGE) and None


def version(name: str, change: Callable[[Path], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (place,) = (folder / "finished" / "versions").glob(f"*/{name}")
        change(place)

    return spoil


def record(**values: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return version("run.json", change)


DAMAGE = {
    "labels that select": (chunk("s.zarr/row/c/0"), FIT, 2, "the coordinate 'row' cannot be used: "),
    "a mask": (chunk("s.zarr/sea/c/0"), FIT, 1, "variable 'sea' cannot be read ("),
    "a variable": (chunk("s.zarr/t/c/0/0/0"), FIT, 1, "chunk 'c/0/0/0' of variable 't' does not decode ("),
    "an array of a model": (version("model.zarr/variance", shutil.rmtree), PREDICT, 2, "the model at 'finished"),
    "metadata of a model": (
        version("model.zarr/centers/zarr.json", lambda path: path.write_text("[]") and None),
        PREDICT,
        2,
        "is not a model (",
    ),
    "a record's number": (
        record(n_rows="many"),
        ["models", "list", "finished"],
        1,
        "the records of the versions of 'finished'",
    ),
    "a record's list": (
        record(warnings=3),
        ["models", "show", "finished"],
        1,
        "the records of the versions of 'finished'",
    ),
    "a record's config": (record(config={"source": 3}), ["report", "finished"], 1, "the config in run.json of "),
}


@pytest.mark.parametrize(("damage", "tokens", "code", "said"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named_in_one_line(
    damage: Callable[[Path], None],
    tokens: list[str],
    code: int,
    said: str,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(base, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    damage(tmp_path / "here")
    assert run(tokens) == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("clustering: ")
    assert said in last
    assert "internal error" not in last
