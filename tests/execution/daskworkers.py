"""Clusters in this process, and real workers in other processes, which are not restarted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import distributed

QUIET: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
IN_PROCESS: dict[str, Any] = {**QUIET, "processes": False, "protocol": "tcp"}


@contextmanager
def process(command: str, *options: str, path: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run one of Dask's commands on loopback; `path` comes first among the places that it imports from."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [path, *sys.path] if path else sys.path))}
    running = subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.{command}", *options, "--host=127.0.0.1", "--no-dashboard"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


@contextmanager
def worker(address: str, *, path: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker that is not restarted when it dies."""
    with process("dask_worker", address, "--no-nanny", "--nthreads=1", path=path) as running:
        yield running


@contextmanager
def scheduler(workers: int = 0, **options: Any) -> Iterator[str]:
    """Run a scheduler in this process, with workers of this process; gives its address."""
    with distributed.LocalCluster(n_workers=workers, **{**IN_PROCESS, **options}) as cluster:
        yield cluster.scheduler_address
