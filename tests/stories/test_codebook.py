"""A codebook of embeddings: many centers, runs that are killed, several processes, and rows of a new month."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
import zarr
from shipped import Quiet, shipped
from sklearn.metrics import adjusted_rand_score

import clustering as c
from benchmarks.embeddings import codebook
from clustering.run.job import run_fit
from clustering_flows.cli import run

ROWS, K, BLOCKS = 40_000, 64, 10
SIZES = (f"model.k={K}", "fit.sample_rows=4000", "fit.max_iterations=12", "compute.block=512KiB")
KILLED = """
import os, signal, sys
import clustering.execution.passes as passes
from clustering.run.job import run_fit
from clustering_flows.loading import load_config
from clustering_flows.terminal import terminal_watch

seen, work_on = 0, passes._Work.__call__

def count(work, run):
    global seen
    for sums in work_on(work, run):
        # The sample has passes of its own, over fewer blocks and no store.
        if work.source.recipe is not None:
            seen += sums.blocks
            if seen > int(sys.argv[2]):
                os.kill(os.getpid(), signal.SIGKILL)
        yield sums

passes._Work.__call__ = count
with terminal_watch(sys.stderr) as watch:
    run_fit(load_config(sys.argv[1]), watch)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return codebook(tmp_path_factory.mktemp("codebook") / "codebook.zarr", rows=ROWS, k=K)


@pytest.fixture(scope="module")
def calm(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a run that nothing interrupted."""
    out = tmp_path_factory.mktemp("calm") / "out"
    run_fit(shipped("embedding-codebook", store, out, *SIZES), Quiet())
    return out


def result(out: Path) -> dict[str, Any]:
    """All that must be the same to the last bit."""
    record, model = json.loads((out / "run.json").read_text()), zarr.open_group(out / "model.zarr", mode="r")
    labels = zarr.open_group(out / "labels.zarr", mode="r")
    arrays = {name: np.asarray(model[name][...]).tobytes() for name in ("centers", "history")}  # type: ignore[index]
    arrays |= {name: np.asarray(labels[name][...]).tobytes() for name in ("labels", "distance")}  # type: ignore[index]
    return {**arrays, "objective": record["objective"].hex(), "iterations": record["iterations"]}


def test_rows_find_their_planted_centers(store: Path, calm: Path) -> None:
    labels = zarr.open_array(calm / "labels.zarr" / "labels", mode="r")[...]
    planted = zarr.open_array(store / "2026-01" / "planted", mode="r")[...]
    assert adjusted_rand_score(planted, labels) > 0.9
    record = json.loads((calm / "run.json").read_text())
    assert record["iterations"] >= 4
    rows = np.asarray(zarr.open_array(store / "2026-01" / "emb", mode="r")[...], np.float64)
    centers = c.load_fit(calm).fitted.centers
    distance = zarr.open_array(calm / "labels.zarr" / "distance", mode="r")[...]
    np.testing.assert_allclose(distance, np.linalg.norm(rows - centers[labels], axis=1), rtol=1e-6)
    assert record["objective"] == pytest.approx((np.asarray(distance, np.float64) ** 2).sum(), rel=1e-6)


@pytest.mark.slow
def test_a_run_killed_inside_and_between_passes_goes_on_to_the_same_bits(
    store: Path, calm: Path, tmp_path: Path
) -> None:
    job = shipped("embedding-codebook", store, tmp_path / "out", *SIZES)
    config = tmp_path / "job.yaml"
    config.write_text(yaml.safe_dump(job.model_dump(mode="json", exclude_defaults=True)))
    # In the middle of the second pass after the one that draws the sample; then at the first block of the next pass.
    for blocks in (2 * BLOCKS + 5, 2 * BLOCKS):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(config), str(blocks)], capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not (tmp_path / "out" / "run.json").exists()
    watch = Quiet()
    run_fit(job, watch)
    assert any("continuing unfinished run" in line and "after pass 3" in line for line in watch.said), watch.said
    assert result(tmp_path / "out") == result(calm)


class Killer(Quiet):
    """Kills a worker process a moment after the second pass, while the third is on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.killed: list[int] = []

    def passed(self, record: Any, rule: Any, reads: float) -> None:
        if record.iteration == 2:
            workers = [p for p in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
            self.killed.append(workers[0].pid)
            threading.Timer(record.seconds / 2, os.kill, (workers[0].pid, signal.SIGKILL)).start()


@pytest.mark.slow
@pytest.mark.parametrize("watch", [Quiet(), Killer()], ids=["left alone", "one killed in a pass"])
def test_two_worker_processes_come_to_the_same_bits(store: Path, calm: Path, tmp_path: Path, watch: Quiet) -> None:
    where = ("compute.cluster=local", "compute.workers=2")
    run_fit(shipped("embedding-codebook", store, tmp_path / "out", *SIZES, *where), watch)
    assert result(tmp_path / "out") == result(calm)
    if isinstance(watch, Killer):
        assert not psutil.pid_exists(watch.killed[0])


def test_rows_of_a_new_month_are_labelled_by_the_command_line(
    store: Path, calm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    job = shipped("embedding-codebook", store, out)
    config = tmp_path / "job.yaml"
    config.write_text(yaml.safe_dump(job.model_dump(mode="json", exclude_defaults=True)))
    assert run(["predict", str(calm), str(config), "--set", "source.group=2026-02", "--no-prefect"]) == 0
    capsys.readouterr()
    labels = zarr.open_array(out / "labels.zarr" / "labels", mode="r")
    assert (labels.shape, labels.dtype) == ((ROWS // 10,), np.dtype(np.int8))
    rows = np.asarray(zarr.open_array(store / "2026-02" / "emb", mode="r")[...], np.float64)
    squares = ((rows[:, None] - c.load_fit(calm).fitted.centers) ** 2).sum(axis=2)
    assert np.array_equal(labels[...], squares.argmin(axis=1))
    distance = zarr.open_array(out / "labels.zarr" / "distance", mode="r")[...]
    np.testing.assert_allclose(distance, np.sqrt(squares.min(axis=1)), rtol=1e-6)
