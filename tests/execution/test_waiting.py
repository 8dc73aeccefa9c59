from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import distributed
import pytest
from daskworkers import IN_PROCESS, scheduler, worker

from clustering.errors import DataError, ExecutionError
from clustering.execution import waiting
from clustering.execution.dask_clusters import Cluster, ClusterStatus
from clustering.execution.engine import connect
from clustering.execution.waiting import get_from, wait_for_workers


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(waiting, "ASK_SECONDS", 0.2)


def touch_and_wait(path: str) -> None:
    Path(path).touch()
    threading.Event().wait()


def killed_when_there(path: Path, process: subprocess.Popen[bytes]) -> threading.Thread:
    """Kill a process as soon as a file is there."""

    def kill() -> None:
        while not path.exists():
            if process.poll() is not None:
                return
        os.kill(process.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def test_a_result_that_no_worker_is_left_for_is_an_error_and_not_waited_for(tmp_path: Path) -> None:
    started = tmp_path / "started"
    with scheduler() as address, worker(address) as process, connect({"address": address}, 1, None, 60) as engine:
        # The worker has joined; from here on the wait for workers is short.
        with distributed.Client(address, set_as_default=False) as client:
            get = get_from(Cluster(f"at {address}", client, 1, 0.5))
            thread = killed_when_there(started, process)
            with pytest.raises(
                ExecutionError, match=r"all workers of the cluster at .* are gone since \d+ s"
            ) as caught:
                get({"a": (touch_and_wait, str(started))}, "a")
            thread.join()
        assert engine.client.nthreads() == {}
    assert "run the same job again to go on from its last checkpoint" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_workers_that_cannot_come_back_are_not_waited_for() -> None:
    word = ClusterStatus("job 7 TIMEOUT (TimeLimit)", 0)
    with distributed.LocalCluster(n_workers=1, **IN_PROCESS) as local, distributed.Client(local) as client:
        local.scale(0)
        get = get_from(Cluster("of SLURM", client, 1, 1e9, lambda: word))
        with pytest.raises(ExecutionError, match=r"are gone since \d+ s \(job 7 TIMEOUT \(TimeLimit\)\)"):
            get({"a": (abs, -1)}, "a")


def test_workers_that_come_back_in_time_go_on() -> None:
    with distributed.LocalCluster(n_workers=1, **IN_PROCESS) as local, distributed.Client(local) as client:
        local.scale(0)

        def ask() -> ClusterStatus:
            local.scale(1)
            return ClusterStatus("job 7 PENDING (Resources)", 1)

        assert get_from(Cluster("of SLURM", client, 1, 60, ask))({"a": (abs, -1)}, "a") == 1


def refuse() -> None:
    raise DataError("no row takes part")


def late() -> None:
    raise TimeoutError("of the task itself")


@pytest.mark.parametrize(("task", "kind"), [(refuse, DataError), (late, TimeoutError)], ids=["refused", "timed out"])
def test_an_error_of_a_task_comes_through_as_it_is(task: Callable[[], Any], kind: type[Exception]) -> None:
    with distributed.LocalCluster(n_workers=1, **IN_PROCESS) as local, distributed.Client(local) as client:
        with pytest.raises(kind, match=r"no row takes part|of the task itself"):
            get_from(Cluster("local", client, 1, 60))({"a": (task,)}, "a")


def test_a_result_is_let_go_of() -> None:
    with distributed.LocalCluster(n_workers=1, **IN_PROCESS) as local, distributed.Client(local) as client:
        assert get_from(Cluster("local", client, 1, 60))({"a": (abs, -1)}, "a") == 1
        # The result is released on the client's event loop.
        client.sync(asyncio.sleep, 0.01)
        assert client.futures == {}


def test_workers_that_do_not_come_are_reported_with_what_the_queue_says() -> None:
    with distributed.LocalCluster(n_workers=1, **IN_PROCESS) as local, distributed.Client(local) as client:
        word = ClusterStatus("job 7 PENDING (JobHeldUser)", 2)
        with pytest.raises(ExecutionError) as caught:
            wait_for_workers(Cluster("of SLURM", client, 2, 0.5, lambda: word, "see squeue"))
    message = re.sub(r"after \d+ s", "after … s", str(caught.value))
    assert message == "the cluster of SLURM has 1 of 2 workers after … s (job 7 PENDING (JobHeldUser)); see squeue"


def test_workers_that_cannot_come_are_reported_at_once() -> None:
    with distributed.LocalCluster(n_workers=1, **IN_PROCESS) as local, distributed.Client(local) as client:
        with pytest.raises(ExecutionError, match=r"has 1 of 3 workers after \d+ s \(job 7 FAILED\)"):
            wait_for_workers(Cluster("of SLURM", client, 3, 1e9, lambda: ClusterStatus("job 7 FAILED", 2)))
