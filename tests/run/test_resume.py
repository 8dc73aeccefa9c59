from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

from clustering.config import JobConfig, check_config
from clustering.errors import CheckpointError, OutputError
from clustering.run.job import run_fit, run_predict
from clustering_flows.cli import run
from tests.run.notes import Crash, Notes

CLUSTERING = [sys.executable, "-c", "from clustering_flows.cli import main; main()"]
STEP_THEN_DIE = """
import os, signal, sys
from clustering_flows.loading import load_config
from clustering.run.job import run_fit, run_predict
from clustering_flows.terminal import terminal_watch

def step(name, work):
    result = work()
    if name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

with terminal_watch(sys.stderr) as watch:
    run_fit(load_config(sys.argv[1]), watch, step)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows without clusters, so that many passes are needed."""
    rng = np.random.default_rng(2)
    data = xr.Dataset({"x": (("row", "feature"), rng.random((24_000, 3))), "w": ("row", rng.random(24_000))})
    path = tmp_path_factory.mktemp("rows") / "rows.zarr"
    data.to_zarr(path, consolidated=False, zarr_format=3, encoding={"x": {"chunks": (1000, 3)}})
    return path


def content(store: Path, out: Path, **sections: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "source": {"store": str(store), "variables": ["x"], "sample_dims": ["row"], "weights": "w"},
        "model": {"k": 12},
        "fit": {"init": "random", "restarts": 2, "finalists": 2, "sample_rows": 60, "max_iterations": 60},
        "compute": {"workers": 2, "block": "48KB"},
        "output": {"store": str(out), "report": False},
    }
    for section, keys in sections.items():
        made[section].update(keys)
    return made


def few_passes(store: Path, out: Path, **sections: Any) -> JobConfig:
    sections["fit"] = {"max_iterations": 8, **sections.get("fit", {})}
    return check_config(content(store, out, **sections))


@pytest.fixture(scope="module")
def calm(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a run of few passes that nothing interrupted."""
    out = tmp_path_factory.mktemp("calm") / "out"
    run_fit(few_passes(store, out), Notes())
    return out


def results(out: Path) -> dict[str, Any]:
    """The bytes of model and labels, without the name of the run and the amount that it read."""
    entries: dict[str, Any] = {}
    for part in ("model.zarr", "labels.zarr"):
        for file in sorted((out / part).rglob("*")):
            if file.is_file():
                entries[f"{part}/{file.relative_to(out / part)}"] = file.read_bytes()
        group = json.loads(entries.pop(f"{part}/zarr.json"))
        for name in ("run", "reads", "bytes_read"):
            group["attributes"].pop(name, None)
        entries[part] = group
    assert len(entries) > 20
    return entries


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.mark.parametrize("crashes", [[1], [3], [7], [8], [1, 2, 6]], ids=lambda c: "after " + ", ".join(map(str, c)))
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    crashes: list[int], store: Path, calm: Path, tmp_path: Path
) -> None:
    job, done = few_passes(store, tmp_path / "out"), 0
    for crash in crashes:
        with pytest.raises(Crash):
            run_fit(job, Notes(crash))
    watch = Notes()
    record = run_fit(job, watch)
    done = crashes[-1]
    assert any(f"continuing unfinished run {record['run']} after pass {done}" in line for line in watch.said)
    assert watch.iterations == list(range(done + 1, 9))
    assert results(tmp_path / "out") == results(calm)
    before = json.loads((calm / "run.json").read_text())
    for key in ("objective", "iterations", "converged", "stop_reason", "n_rows", "warnings"):
        assert record[key] == before[key]


@pytest.mark.parametrize("at", ["sample", "fit", "label"])
def test_a_run_that_ends_between_steps_goes_on_to_the_same_bytes(
    at: str, store: Path, calm: Path, tmp_path: Path
) -> None:
    def step(name: str, work: Callable[[], Any]) -> Any:
        result = work()
        if name == at:
            raise Crash
        return result

    job, watch = few_passes(store, tmp_path / "out"), Notes()
    with pytest.raises(Crash):
        run_fit(job, Notes(), step)
    run_fit(job, watch)
    assert any("continuing unfinished run" in line for line in watch.said)
    assert results(tmp_path / "out") == results(calm)


def test_what_leaves_the_result_alone_may_change_before_going_on(store: Path, calm: Path, tmp_path: Path) -> None:
    with pytest.raises(Crash):
        run_fit(few_passes(store, tmp_path / "out"), Notes(4))
    watch = Notes()
    run_fit(few_passes(store, tmp_path / "out", compute={"cluster": "synchronous", "workers": 1}), watch)
    assert watch.iterations == [5, 6, 7, 8]
    assert results(tmp_path / "out") == results(calm)


def test_a_damaged_checkpoint_costs_one_pass(store: Path, calm: Path, tmp_path: Path) -> None:
    with pytest.raises(Crash):
        run_fit(few_passes(store, tmp_path / "out"), Notes(5))
    newest = max((tmp_path / "out" / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:1000])
    watch = Notes()
    run_fit(few_passes(store, tmp_path / "out"), watch)
    assert watch.iterations == [5, 6, 7, 8]
    assert results(tmp_path / "out") == results(calm)


def test_an_overwriting_run_that_was_interrupted_goes_on_and_the_old_output_stays_meanwhile(
    store: Path, tmp_path: Path
) -> None:
    # What was there before decides the ids, and with them the order of the clusters.
    out, calm = tmp_path / "out", tmp_path / "calm"
    old, _ = (run_fit(few_passes(store, place, model={"k": 3}), Notes()) for place in (out, calm))
    run_fit(few_passes(store, calm, output={"overwrite": True}), Notes())
    job = few_passes(store, out, output={"overwrite": True})
    with pytest.raises(Crash):
        run_fit(job, Notes(4))
    assert json.loads((out / "run.json").read_text()) == old
    watch = Notes()
    run_fit(job, watch)
    assert watch.iterations == [5, 6, 7, 8]
    assert results(out) == results(calm)


def test_overwriting_begins_anew(store: Path, tmp_path: Path) -> None:
    job = few_passes(store, tmp_path / "out", output={"overwrite": True})
    first, watch = run_fit(job, Notes()), Notes()
    second = run_fit(job, watch)
    assert watch.iterations == list(range(1, 9))
    assert second["run"] != first["run"]
    assert second["objective"] == first["objective"]


OTHER_JOBS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "k": ({"model": {"k": 5}}, ["model.k was 12 and is 5"]),
    "seed": ({"fit": {"seed": 9}}, ["fit.seed was 0 and is 9"]),
    "two keys": ({"fit": {"seed": 9}, "source": {"weights": None}}, ["fit.seed was 0", "source.weights was 'w'"]),
    "overwriting": ({"model": {"k": 5}, "output": {"overwrite": True}}, ["model.k was 12 and is 5"]),
}


@pytest.mark.parametrize(("sections", "named"), OTHER_JOBS.values(), ids=OTHER_JOBS)
def test_an_unfinished_run_of_another_config_is_refused_by_name_and_left_alone(
    sections: dict[str, Any], named: list[str], store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, path = tmp_path / "out", tmp_path / "job.yaml"
    with pytest.raises(Crash):
        run_fit(few_passes(store, out), Notes(2))
    before = snapshot(out)
    sections["fit"] = {"max_iterations": 8, **sections.get("fit", {})}
    path.write_text(yaml.safe_dump(content(store, out, **sections)))
    assert run(["fit", str(path), "--no-prefect"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("clustering: an unfinished run has another config: ")
    assert all(difference in line for difference in named)
    assert str(out / "checkpoints") in line
    assert snapshot(out) == before


def test_an_unfinished_run_of_another_source_is_refused_and_left_alone(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "rows.zarr"
    shutil.copytree(store, copy)
    job = few_passes(copy, tmp_path / "out")
    with pytest.raises(Crash):
        run_fit(job, Notes(2))
    before = snapshot(tmp_path / "out")
    with xr.open_zarr(copy, consolidated=False) as data:
        changed = data[["x"]].isel(row=slice(0, 1000)).load() + 1
    changed.to_zarr(copy, region={"row": slice(0, 1000)}, consolidated=False)
    with pytest.raises(CheckpointError, match="read another source"):
        run_fit(job, Notes())
    assert snapshot(tmp_path / "out") == before


@pytest.fixture(scope="module")
def calm_command(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of the command of many passes that nothing interrupted."""
    folder = tmp_path_factory.mktemp("command")
    (folder / "job.yaml").write_text(yaml.safe_dump(content(store, folder / "out")))
    assert run(["fit", str(folder / "job.yaml"), "--no-prefect"]) == 0
    return folder / "out"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signalled", "code", "last"),
    [
        (signal.SIGKILL, -signal.SIGKILL, "pass"),
        (
            signal.SIGINT,
            1,
            "clustering: interrupted; run the same command again: fit, select-k and predict go on where they stopped",
        ),
        (
            signal.SIGTERM,
            1,
            "clustering: interrupted; run the same command again: fit, select-k and predict go on where they stopped",
        ),
    ],
    ids=["killed", "interrupted", "ended"],
)
def test_the_command_goes_on_where_it_was_stopped(
    signalled: int,
    code: int,
    last: str,
    store: Path,
    calm_command: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, path = tmp_path / "out", tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(content(store, out)))
    command = ["fit", str(path), "--no-prefect"]
    # A test suite in the background ignores interrupts, and its child processes inherit that.
    process = subprocess.Popen(
        [*CLUSTERING, *command],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("pass   3"):
                process.send_signal(signalled)
    assert process.returncode == code
    assert lines[-1].startswith(last)
    assert "Traceback" not in "".join(lines)
    assert not (out / "run.json").exists()
    assert len(list((out / "checkpoints").glob("pass-*.npz"))) == 2
    assert run(command) == 0
    said = capsys.readouterr().err
    continued = re.search(r"continuing unfinished run \w+ after pass (\d+)", said)
    assert continued is not None
    assert 3 <= int(continued[1]) < 60
    assert results(out) == results(calm_command)
    # A finished output is not touched by the same command.
    before = snapshot(out)
    assert run(command) == 2
    assert "holds a finished run" in capsys.readouterr().err
    assert snapshot(out) == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gaussian_mixture", "von_mises_fisher"])
def test_every_kind_of_mixture_goes_on_after_a_kill(kind: str, store: Path, tmp_path: Path) -> None:
    sections: dict[str, Any] = {"model": {"kind": kind, "k": 5}, "fit": {"max_iterations": 12, "tolerance": 0}}
    paths = [tmp_path / "calm.yaml", tmp_path / "killed.yaml"]
    for path in paths:
        path.write_text(yaml.safe_dump(content(store, path.with_suffix(""), **sections)))
    assert run(["fit", str(paths[0]), "--no-prefect"]) == 0
    command = [*CLUSTERING, "fit", str(paths[1]), "--no-prefect"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("pass   2"):
                process.kill()
    assert process.returncode == -signal.SIGKILL
    assert run(command[len(CLUSTERING) :]) == 0
    assert results(tmp_path / "killed") == results(tmp_path / "calm")


@pytest.mark.slow
def test_a_run_killed_after_labelling_makes_the_labels_again(
    store: Path, calm_command: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, path = tmp_path / "out", tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(content(store, out)))
    killed = subprocess.run(
        [sys.executable, "-c", STEP_THEN_DIE, str(path), "label"], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (out / "labels.zarr").exists()
    (left,) = (out / "versions").iterdir()
    # The labels are made again even if the last blocks are lost.
    shutil.rmtree(left / "labels.zarr" / "labels" / "c")
    assert run(["fit", str(path), "--no-prefect"]) == 0
    assert "continuing unfinished run" in capsys.readouterr().err
    assert results(out) == results(calm_command)


def many_blocks(store: Path, out: Path) -> dict[str, Any]:
    """A job whose label pass takes a while: many blocks, with distances."""
    job = content(store, out, model={"k": 20}, fit={"max_iterations": 1, "sample_rows": 200})
    job["source"] = {"store": str(store), "sample_dims": ["row"]}
    job["compute"] = {"workers": 2, "block": "4000B"}
    job["output"] |= {"distances": True, "margin": True}
    return job


@pytest.mark.slow
def test_a_run_killed_while_labelling_goes_on_block_by_block(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, blocks = tmp_path / "many.zarr", 300
    data = xr.Dataset({"x": (("row", "feature"), np.random.default_rng(3).random((250 * blocks, 2)))})
    data.to_zarr(store, consolidated=False, zarr_format=3, encoding={"x": {"chunks": (250, 2)}})
    calm, out = tmp_path / "calm", tmp_path / "out"
    for where in (calm, out):
        (tmp_path / f"{where.name}.yaml").write_text(yaml.safe_dump(many_blocks(store, where)))
    assert run(["fit", str(tmp_path / "calm.yaml"), "--no-prefect"]) == 0
    command = ["fit", str(tmp_path / "out.yaml"), "--no-prefect"]
    with subprocess.Popen([*CLUSTERING, *command], stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and len(list(out.glob("versions/*/ledger/block-*"))) < 10:
            pass
        process.kill()
    assert process.returncode == -signal.SIGKILL
    (ledger,) = out.glob("versions/*/ledger")
    finished = len(list(ledger.glob("block-*")))
    assert 10 <= finished < blocks
    capsys.readouterr()
    assert run(command) == 0
    assert f"{finished} of {blocks} blocks are labelled already" in capsys.readouterr().err
    record, before = (json.loads((where / "run.json").read_text()) for where in (out, calm))
    # Pass 0 and the fit were read before the kill, and nothing of the finished blocks was after it.
    assert before["reads"] == 1
    assert record["reads"] == round(1 + (blocks - finished) / blocks, 6)
    assert record["bytes_read"] == before["bytes_read"] + (blocks - finished) * 4000
    assert record["objective"] == before["objective"]
    assert results(out) == results(calm)
    assert not list(out.glob("versions/*/ledger"))
    assert not list(out.rglob("*.partial"))


def test_another_wish_for_the_output_labels_anew(store: Path, calm: Path, tmp_path: Path) -> None:
    def crash(name: str, work: Callable[[], Any]) -> Any:
        result = work()
        if name == "label":
            raise Crash
        return result

    with pytest.raises(Crash):
        run_fit(few_passes(store, tmp_path / "out", output={"distance": True}), Notes(), crash)
    (staged,) = (tmp_path / "out" / "versions").iterdir()
    assert (staged / "ledger").is_dir()
    watch = Notes()
    record = run_fit(few_passes(store, tmp_path / "out"), watch)
    assert record["run"] == staged.name
    assert not any("labelled already" in line for line in watch.said)
    assert results(tmp_path / "out") == results(calm)
    # A job that no longer asks for labels writes none when it goes on.
    with pytest.raises(Crash):
        run_fit(few_passes(store, tmp_path / "none"), Notes(), crash)
    run_fit(few_passes(store, tmp_path / "none", output={"labels": False}), Notes())
    assert sorted(p.name for p in (tmp_path / "none" / "current").iterdir()) == ["model.zarr", "run.json"]


def test_a_refused_prediction_leaves_the_labelled_blocks_of_an_unfinished_fit(
    store: Path, calm: Path, tmp_path: Path
) -> None:
    def crash(name: str, work: Callable[[], Any]) -> Any:
        result = work()
        if name == "label":
            raise Crash
        return result

    job, watch = few_passes(store, tmp_path / "out"), Notes()
    with pytest.raises(Crash):
        run_fit(job, Notes(), crash)
    before = snapshot(tmp_path / "out")
    with pytest.raises(OutputError, match="holds an unfinished fit"):
        run_predict(str(calm), job, Notes())
    assert snapshot(tmp_path / "out") == before
    run_fit(job, watch)
    assert any("12 of 12 blocks are labelled already" in line for line in watch.said)


def test_a_prediction_is_not_written_over_an_unfinished_fit(store: Path, calm: Path, tmp_path: Path) -> None:
    job = few_passes(store, tmp_path / "out")
    with pytest.raises(Crash):
        run_fit(job, Notes(4))
    before = snapshot(tmp_path / "out")
    with pytest.raises(OutputError, match="holds an unfinished fit"):
        run_predict(str(calm), job, Notes())
    assert snapshot(tmp_path / "out") == before
