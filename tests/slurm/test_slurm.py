"""Jobs of a real SLURM: the same bits as on threads, and the messages where workers do not start or are lost."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
import zarr

import clustering
from clustering.errors import ExecutionError
from clustering.execution.engine import connect

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

COMMAND = [sys.executable, "-c", "from clustering_flows.cli import main; main()"]
ON_LOOPBACK = {"interface": "lo"}
Queue = Callable[[], list[str]]


def job(folder: Path, store: Path, cluster: Any, **compute: Any) -> Path:
    """Write a config whose output is beside it."""
    path = folder / "job.yaml"
    content = {
        "source": {"store": str(store), "sample_dims": ["row"]},
        "model": {"k": 6},
        "fit": {"restarts": 1, "init": "random", "max_iterations": 9, "sample_rows": 100},
        "compute": {"cluster": cluster, "memory": "16MiB", "block": "16KB", **compute},
        "output": {"store": str(folder / "run"), "report": False},
    }
    path.write_text(yaml.safe_dump(content))
    return path


def run(config: Path, *before: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, *COMMAND, "fit", str(config), "--no-prefect", "--json"],
        cwd=config.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )


def bits(folder: Path) -> dict[str, bytes]:
    """The model and the labels of a run."""
    run = folder / "run"
    names = ["model.zarr/centers", "model.zarr/history", "labels.zarr/labels"]
    return {name: zarr.open_array(run / name, mode="r")[...].tobytes() for name in names}


@pytest.fixture(scope="session")
def on_threads(tmp_path_factory: pytest.TempPathFactory, rows_store: Path) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("threads")
    done = run(job(folder, rows_store, "threads"))
    assert done.returncode == 0, done.stderr
    return bits(folder)


def test_jobs_give_the_bits_of_threads(
    rows_store: Path, tmp_path: Path, on_threads: dict[str, bytes], queue: Queue
) -> None:
    cluster = {"slurm": {**ON_LOOPBACK, "cores": 2, "processes": 2, "memory": "900MiB", "logs": str(tmp_path / "logs")}}
    done = run(job(tmp_path, rows_store, cluster, workers=2))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["status"] == "finished"
    assert bits(tmp_path) == on_threads
    assert [path.suffix for path in sorted((tmp_path / "logs").iterdir())] == [".err", ".out"]
    assert queue() == []


def test_an_allocation_gives_the_bits_of_threads(
    rows_store: Path, tmp_path: Path, on_threads: dict[str, bytes], queue: Queue
) -> None:
    done = run(job(tmp_path, rows_store, {"slurm": {"runner": True}}, wait_seconds=240), "srun", "--ntasks=4")
    assert done.returncode == 0, done.stderr
    # Only one of the four tasks prints.
    assert [json.loads(line)["status"] for line in done.stdout.splitlines() if line.startswith("{")] == ["finished"]
    assert "distributed" not in done.stderr
    assert bits(tmp_path) == on_threads
    assert list(tmp_path.glob("scheduler-*.json")) == []
    assert queue() == []


def test_an_allocation_ends_with_a_job_that_fails(tmp_path: Path, queue: Queue) -> None:
    done = run(job(tmp_path, tmp_path / "nowhere.zarr", {"slurm": {"runner": True}}), "srun", "--ntasks=3")
    assert done.returncode == 2
    assert "nowhere.zarr" in done.stderr
    assert "Traceback" not in done.stderr
    assert queue() == []


def test_jobs_encrypt_what_they_send(tmp_path: Path, queue: Queue) -> None:
    options = {**ON_LOOPBACK, "tls": True, "logs": str(tmp_path)}
    with connect({"slurm": options}, memory=2**20, wait_seconds=240) as engine:
        assert all(address.startswith("tls://") for address in engine.client.nthreads())
        assert engine.compute({"a": (abs, -3)}, "a") == 3
        assert engine.dashboard is not None
    assert queue() == []


FAILURES = {
    "no such partition": (
        {"queue": "mian"},
        r"SLURM does not take the jobs: invalid partition specified: mian; .*; change compute\.cluster\.slurm",
    ),
    "closed partition": ({"queue": "closed"}, r"has 0 of 1 workers after \d+ s \(job \d+ PENDING \(PartitionDown\)\)"),
    "held": ({"directives": ["--hold"]}, r"has 0 of 1 workers after \d+ s \(job \d+ PENDING \(JobHeldUser\)\)"),
    "more than a node has": (
        {"memory": "4GiB"},
        r"SLURM does not take the jobs: .*node configuration is not available",
    ),
    "fails at once": (
        {"prologue": ["echo module: command not found >&2", "exit 3"]},
        r"has 0 of 1 workers .* FAILED \(NonZeroExitCode\), the last line of one: module: command not found\)",
    ),
}


@pytest.mark.parametrize(("options", "said"), FAILURES.values(), ids=FAILURES)
def test_jobs_that_do_not_come_are_reported_in_the_words_of_the_queue(
    options: dict[str, Any], said: str, rows_store: Path, tmp_path: Path, queue: Queue
) -> None:
    cluster = {"slurm": {**ON_LOOPBACK, "logs": str(tmp_path), **options}}
    # A job that fails at once is reported at once, before the time to wait is over.
    done = run(job(tmp_path, rows_store, cluster, wait_seconds=600 if "prologue" in options else 4))
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert re.search(said, error), done.stderr
    assert "Traceback" not in done.stderr
    assert queue() == []


def test_jobs_that_are_cancelled_in_the_middle_are_reported(rows_store: Path, tmp_path: Path, queue: Queue) -> None:
    def cancel(record: clustering.api.PassRecord) -> None:
        if record.iteration == 3:
            subprocess.run(["scancel", "--name=clustering"], check=True)

    options = {"restarts": 1, "init": "random", "max_iterations": 30, "sample_rows": 100, "block_bytes": 16_000}
    cluster = {"slurm": {**ON_LOOPBACK, "logs": str(tmp_path)}}
    with pytest.raises(ExecutionError, match=r"all workers .* are gone since \d+ s \(job \d+ CANCELLED") as caught:
        clustering.fit(
            rows_store, clustering.KMeans(6), cluster=cluster, wait_seconds=600, memory=2**24, on_pass=cancel, **options
        )
    assert "go on from its last checkpoint" in str(caught.value)
    assert queue() == []
