"""A cluster in one SLURM allocation: task 0 of srun is the scheduler, task 1 the job, all others are workers."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from clustering.deferred import asyncio
from clustering.errors import ConfigError
from clustering.execution.address import read_scheduler_file
from clustering.execution.dask_clusters import (
    ANSWER_SECONDS,
    Cluster,
    ClusterRequest,
    connect_client,
    dask_settings,
    worker_memory,
)
from clustering.execution.slurm import jobqueue

_LEAST = 3
"""Smallest number of tasks of an allocation: scheduler, job and one worker."""
SPEAKERS = ("distributed.scheduler", "distributed.worker", "tornado.application")
"""Loggers that report work that was cut short."""


def is_runner(cluster: Any) -> bool:
    """Return whether the cluster of a config is the allocation that this process runs in.

    Parameters
    ----------
    cluster
        Cluster as `clustering.execution.engine.connect` takes it.
    """
    match cluster:
        case {"slurm": {"runner": True}}:
            return True
        case _:
            return False


@contextmanager
def in_allocation(cluster: Any, memory: int | None = None) -> Iterator[None]:
    """Give each process of an allocation its role, before the parts of a job that only one process may run.

    The scheduler and the workers never return from here. For other clusters, nothing happens.

    Parameters
    ----------
    cluster
        Cluster as `clustering.execution.engine.connect` takes it.
    memory
        Memory budget of a worker, in bytes; None: no limit of its own.

    Raises
    ------
    ConfigError
        If this process is not a task of srun, or there are fewer than 3 tasks.
    SystemExit
        In the scheduler and in the workers, when the job has ended.
    """
    if not is_runner(cluster):
        yield
        return
    if _task() != 1:
        _runner(memory)
        raise SystemExit(0)
    try:
        yield
    except BaseException:
        # Scheduler and workers would wait for this task until the allocation ends.
        with suppress(Exception):
            address = read_scheduler_file(str(_scheduler_file()), ANSWER_SECONDS)
            with connect_client(address, timeout=ANSWER_SECONDS) as client:
                _retire(client)
                client.shutdown()
        _scheduler_file().unlink(missing_ok=True)
        raise


@contextmanager
def slurm_runner(demand: ClusterRequest) -> Iterator[Cluster]:
    """Yield the cluster of the allocation to the job; scheduler and workers do their part and never return.

    Parameters
    ----------
    demand
        Cluster request; the number of workers follows from the tasks of srun.

    Raises
    ------
    ConfigError
        If this process is not a task of srun, or there are fewer than 3 tasks.
    ExecutionError
        If the scheduler does not start.
    """
    limit = demand.wait_seconds or ANSWER_SECONDS
    tasks = _number("SLURM_NTASKS")
    with in_allocation({"slurm": {"runner": True}}, demand.memory), dask_settings(), ExitStack() as stack:
        stack.callback(_scheduler_file().unlink, missing_ok=True)
        # The runner of dask-jobqueue would wait for ever, so the file is awaited here with a limit.
        read_scheduler_file(str(_scheduler_file()), limit)
        runner = stack.enter_context(_runner(demand.memory))
        client = stack.enter_context(connect_client(runner, timeout=limit))
        stack.callback(_retire, client)
        yield Cluster(f"of the allocation {_number('SLURM_JOB_ID')}", client, tasks - 2, limit)


def _retire(client: Any) -> None:
    """Stop the workers before the scheduler, because they log errors when it is gone."""
    with suppress(Exception):
        client.retire_workers()


def _runner(memory: int | None) -> Any:
    """Make the runner of dask-jobqueue; in the scheduler and the workers, this call ends with the process."""
    made = jobqueue().slurm.SLURMRunner
    worker_options: dict[str, Any] = {
        "nthreads": int(os.environ.get("SLURM_CPUS_PER_TASK", "1")),
        "memory_limit": "auto" if memory is None else worker_memory(memory),
        "death_timeout": ANSWER_SECONDS,
    }
    if _task() != 1:
        import dask

        # All tasks end at once. In one folder, each would look through the folders that the others are removing.
        own = tempfile.mkdtemp(prefix="clustering-worker-", dir=dask.config.get("temporary-directory", None))
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        worker_options["local_directory"] = own
        # The runner ends its process by an interrupt. Its log lines would appear among those of the job.
        signal.signal(signal.SIGINT, _leave)
        logging.getLogger("distributed").setLevel(logging.WARNING)
        for name in SPEAKERS:
            logging.getLogger(name).addFilter(is_news)
    with dask_settings():
        return made(
            scheduler_file=str(_scheduler_file()),
            scheduler_options={"dashboard_address": ":0"},
            worker_options=worker_options,
        )


def is_news(record: logging.LogRecord) -> bool:
    """Return whether a log record is about more than tasks and heartbeats that were cut short at the end of the job.

    If the scheduler is lost earlier, the job reports it.

    Parameters
    ----------
    record
        Record of one of the `SPEAKERS`.
    """
    error, text = record.exc_info[1] if record.exc_info else None, record.getMessage()
    if isinstance(error, asyncio.CancelledError):
        return False
    # A heartbeat may be on its way when its worker retires.
    return "heartbeat" not in text if error is not None else "heartbeat from unregistered worker" not in text


def _leave(*_: Any) -> None:
    raise SystemExit(0)


def _scheduler_file() -> Path:
    """Return the path of the scheduler file; each start of each step has its own."""
    # A file of an earlier start would lead to a scheduler that is gone.
    parts = [os.environ.get(name, "0") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")]
    return Path.cwd() / f"scheduler-{'-'.join(parts)}.json"


def _task() -> int:
    """Return the number of this task, after a check that the allocation is large enough."""
    tasks = _number("SLURM_NTASKS")
    if tasks < _LEAST:
        raise ConfigError(
            f"cluster.slurm.runner: the allocation has {tasks} tasks and needs {_LEAST} or more (scheduler, job, "
            "workers); raise --ntasks of srun"
        )
    return _number("SLURM_PROCID")


def _number(name: str) -> int:
    """Read a whole number from the environment of srun."""
    value = os.environ.get(name, "")
    # sbatch sets most of these variables too, while the number of the task comes from srun alone.
    if not value.isdecimal() or "SLURM_PROCID" not in os.environ:
        raise ConfigError(
            f"cluster.slurm.runner is true and {name} is not in the environment; start it inside an allocation, with "
            "srun --ntasks=4 clustering fit …"
        )
    return int(value)
