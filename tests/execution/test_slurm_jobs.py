"""Submission and status of jobs. Jobs of a real SLURM have a suite of their own."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from clustering.errors import ConfigError, ExecutionError
from clustering.execution.dask_clusters import ClusterStatus, environment
from clustering.execution.engine import connect
from clustering.execution.slurm import SlurmJob, describe_jobs, exports, job_status, jobqueue, lifetime_of


@pytest.mark.parametrize(
    ("walltime", "seconds"),
    [
        ("90", 5400),
        ("90:30", 5430),
        ("01:30:00", 5400),
        ("2-12", 216_000),
        ("2-12:30", 217_800),
        ("2-12:30:15", 217_815),
        ("1", 60),
    ],
)
def test_workers_leave_before_their_job_ends(walltime: str, seconds: int) -> None:
    lifetime, stagger = lifetime_of(walltime)
    assert lifetime + stagger < seconds
    assert lifetime - stagger > 0.8 * seconds
    # The lifetime is at most about five minutes shorter than the job, however long that is.
    assert seconds - lifetime <= 301


@pytest.mark.parametrize("walltime", ["", "soon", "1:2:3:4", "-5", "00:00:30", "0", "1-"])
def test_a_walltime_that_is_none_is_named(walltime: str) -> None:
    with pytest.raises(ConfigError, match=r"cluster\.slurm: walltime is ") as caught:
        connect({"slurm": {"walltime": walltime}}).__enter__()
    assert repr(walltime) in str(caught.value)


def test_settings_of_dask_are_exported_in_a_job() -> None:
    assert exports()[0] == "export DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL='15 minutes'"
    assert len(exports()) == len(environment())


def test_importing_jobqueue_leaves_the_keyboard_its_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("dask_jobqueue")]:
        monkeypatch.delitem(sys.modules, name)
    before = signal.getsignal(signal.SIGINT)
    jobqueue()
    assert signal.getsignal(signal.SIGINT) is before


def test_jobs_in_one_state_are_reported_together() -> None:
    jobs = [
        SlurmJob("7", "PENDING", "Resources", "/nowhere"),
        SlurmJob("8", "RUNNING", "None", "/nowhere"),
        SlurmJob("9", "PENDING", "Resources", "/nowhere"),
    ]
    assert describe_jobs(jobs, ["7", "8", "9"], 2) == ClusterStatus(
        "jobs 7, 9 PENDING (Resources), job 8 RUNNING (None)", 6
    )


def test_many_jobs_are_not_listed_one_by_one() -> None:
    ids = [str(id_) for id_ in range(20, 40)]
    jobs = [SlurmJob(id_, "PENDING", "Priority", "/nowhere") for id_ in ids]
    assert describe_jobs(jobs, ids, 1).text == "jobs 20, 21, 22, 23, 24 and 15 more PENDING (Priority)"


@pytest.mark.parametrize("state", ["FAILED", "TIMEOUT", "CANCELLED", "OUT_OF_MEMORY", "NODE_FAIL", "COMPLETED"])
def test_jobs_that_have_ended_give_no_workers(state: str, tmp_path: Path) -> None:
    log = tmp_path / "clustering-%J.err"
    (tmp_path / "clustering-7.err").write_text("loading\nModuleNotFoundError:  No module named 'spam'\n\n")
    jobs = [SlurmJob("7", state, "NonZeroExitCode", str(log)), SlurmJob("8", "RUNNING", "None", "")]
    assert describe_jobs(jobs, ["7", "8"], 3) == ClusterStatus(
        f"job 7 {state} (NonZeroExitCode), job 8 RUNNING (None), "
        "the last line of one: ModuleNotFoundError: No module named 'spam'",
        3,
    )


def test_jobs_that_the_queue_has_forgotten_give_no_workers() -> None:
    assert describe_jobs([], ["7", "8"], 3) == ClusterStatus("jobs 7, 8 gone from the queue", 0)


def test_a_queue_that_does_not_answer_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    word = job_status(["7"], 1)
    assert word.text == "squeue does not answer: [Errno 2] No such file or directory: 'squeue'"
    assert word.most is None
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact' >&2\nexit 1\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin")
    assert job_status(["7"], 1) == ClusterStatus("squeue does not answer: slurm_load_jobs error: Unable to contact")


def test_a_machine_without_slurm_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExecutionError, match="SLURM does not take the jobs: there is no sbatch on this machine"):
        connect({"slurm": {"interface": "lo"}}, wait_seconds=1).__enter__()


@pytest.mark.parametrize("name", ["SLURM_NTASKS", "SLURM_PROCID"])
def test_a_runner_outside_an_allocation_is_reported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("SLURM_NTASKS", "SLURM_PROCID"):
        monkeypatch.setenv(variable, "4")
    monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match=r"cluster\.slurm\.runner is true and .* with srun --ntasks=4 clustering fit"):
        connect({"slurm": {"runner": True}}).__enter__()


def test_an_allocation_that_is_too_small_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "0")
    with pytest.raises(ConfigError, match="the allocation has 2 tasks and needs 3 or more"):
        connect({"slurm": {"runner": True}}).__enter__()
