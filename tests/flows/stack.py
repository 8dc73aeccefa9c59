"""A Prefect server with its services, and workers, in their own processes on loopback, as users run them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import psutil
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.states import Cancelling

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
PREFECT = [sys.executable, "-m", "prefect"]
CLUSTERING = [sys.executable, "-c", "from clustering_flows.cli import main; main()"]


def start(command: list[str], folder: Path, **environment: str) -> subprocess.Popen[str]:
    """Start a process in a session of its own, with its output in a log.

    Workers stop by an interrupt, which a suite started in the background hands on as ignored.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def end(process: subprocess.Popen[str], how: signal.Signals = signal.SIGTERM) -> int:
    """Signal a process, wait for its end, and kill the processes that it leaves."""
    started = _tree(process)
    process.send_signal(how)
    try:
        return process.wait(30)
    finally:
        _kill(started)
        process.wait()


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process with all that it has started, at once, as if its machine were lost."""
    _kill(_tree(process))
    process.wait()


def _tree(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        top = psutil.Process(process.pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _kill(processes: list[psutil.Process]) -> None:
    # All are stopped first, so that no process can react to the end of another.
    for how in (signal.SIGSTOP, signal.SIGKILL):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(how)


@contextmanager
def server(folder: Path, **settings: str) -> Iterator[str]:
    """Run a server with its scheduler and its automations; give the address of its API."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    process = start(command, folder, PREFECT_HOME=str(folder / "home"), **settings)
    api = f"http://127.0.0.1:{port}/api"
    try:
        ready = eventually(lambda: _healthy(api), lambda healthy: healthy or process.poll() is not None)
        assert ready, (folder / "log").read_text()
        yield api
    finally:
        end(process)


def _healthy(api: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def start_worker(pool: str, api: str, folder: Path) -> subprocess.Popen[str]:
    """Start a worker of a pool, in a folder that no config knows of."""
    command = [*PREFECT, "worker", "start", "--pool", pool]
    return start(command, folder, PREFECT_API_URL=api, PREFECT_WORKER_QUERY_SECONDS="1")


def eventually(ask: Callable[[], T], good: Callable[[T], Any], within: float = 240) -> T:
    """Ask until the answer is good, or time is up."""
    until = time.monotonic() + within
    while not good(answer := ask()) and time.monotonic() < until:
        time.sleep(0.5)
    return answer


def deployment(name: str) -> DeploymentResponse:
    with get_client(sync_client=True) as client:
        return client.read_deployment_by_name(name)


def run_of(name: str) -> UUID:
    """Ask for a run of a deployment."""
    with get_client(sync_client=True) as client:
        return client.create_flow_run_from_deployment(deployment(name).id).id


def cancel(flow_run: UUID) -> None:
    """Cancel a run, as the dashboard does."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run, Cancelling())


def runs(name: str) -> list[FlowRun]:
    chosen = DeploymentFilter(id=DeploymentFilterId(any_=[deployment(name).id]))
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(deployment_filter=chosen)


def state(flow_run: UUID) -> str:
    with get_client(sync_client=True) as client:
        run_state = client.read_flow_run(flow_run).state
    assert run_state is not None
    return run_state.name


def message(flow_run: UUID) -> str:
    with get_client(sync_client=True) as client:
        run_state = client.read_flow_run(flow_run).state
    assert run_state is not None
    return run_state.message or ""


def lines(flow_run: UUID) -> list[str]:
    """What a run has logged."""
    chosen = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run]))
    with get_client(sync_client=True) as client:
        return [log.message for log in client.read_logs(chosen)]
