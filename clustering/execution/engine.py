"""Who carries out the tasks of a pass: the calling thread, threads, or a Dask cluster."""

from __future__ import annotations

import os
import resource
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import dask
import dask.local
import dask.threaded
from threadpoolctl import ThreadpoolController

from clustering.errors import ClusteringError, ConfigError, ExecutionError, MissingDependencyError

CONNECT_SECONDS = 30.0
"""How long to wait for a scheduler or its first worker, in seconds."""
_LIBRARIES = 512 * 1024 * 1024
"""Memory that a worker takes before it holds any data, with room to spare, in bytes."""


@dataclass(frozen=True)
class Engine:
    """A Dask `get` and what it runs on."""

    name: str
    """``synchronous``, ``threads``, ``local`` or the address."""
    get: Callable[..., Any]
    threads: int
    """Tasks that run at once."""
    workers: int = 1
    """Processes that hold blocks in memory."""
    client: Any = None
    """The `distributed.Client`, if there is one."""
    dashboard: str | None = None
    """URL of Dask's dashboard, where there is one."""
    session: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    libraries: ThreadpoolController = field(default_factory=ThreadpoolController, repr=False)
    """The BLAS libraries of this process; finding them takes longer than a small pass."""

    def compute(self, graph: Mapping[Any, Any], key: Any) -> Any:
        """Compute one key of a graph, with one BLAS thread per task.

        Raises
        ------
        ExecutionError
            If workers died over a task, or the scheduler went away.
        """
        try:
            with self.libraries.limit(limits=1, user_api="blas"):
                return self.get(graph, key)
        except ClusteringError:
            raise
        except Exception as error:
            if self.client is None or not type(error).__module__.startswith("distributed"):
                raise
            raise ExecutionError(
                f"the cluster {self.name} lost the work ({type(error).__name__}: {str(error).splitlines()[0]}); "
                "a worker that is out of memory is the usual cause: lower compute.memory or use larger workers"
            ) from error

    def release(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function that lets go of something, in this process and in every worker process."""
        function(*args)
        if self.client is not None:
            # A cluster that is gone keeps nothing, and must not hide how the work ended.
            with suppress(Exception):
                self.client.run(function, *args, on_error="ignore")

    def peak_rss(self) -> int:
        """Peak memory of this process or a worker, whichever used most, in bytes."""
        found = [_peak_rss()]
        if self.client is not None:
            with suppress(Exception):
                found += self.client.run(_peak_rss).values()
        return max(found)


def _peak_rss() -> int:
    """Peak memory of this process, in bytes; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def default_workers() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def connect(cluster: Any = "threads", workers: int | None = None, memory: int | None = None) -> Iterator[Engine]:
    """Start or reach what the config names, and let go of it afterwards.

    Parameters
    ----------
    cluster
        ``synchronous``, ``threads``, ``local`` (worker processes on this machine), ``{"address": "tcp://…"}``, or a
        `distributed.Client`, which is left open.
    workers
        Threads, or worker processes of a local cluster. Default: the number of processors. For an address, the number
        of workers to wait for.
    memory
        Memory limit of each process of a local cluster, in bytes.

    Raises
    ------
    ConfigError
        For an unknown cluster or fewer than 1 worker.
    ExecutionError
        If the scheduler or its workers do not answer.
    MissingDependencyError
        If `distributed` is needed and not installed.
    """
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise ConfigError(f"workers is {workers!r}; a whole number of 1 or more is needed")
    if cluster == "synchronous":
        yield Engine("synchronous", dask.local.get_sync, 1)
    elif cluster == "threads":
        n = workers or default_workers()
        with ThreadPoolExecutor(n, thread_name_prefix="clustering") as pool:
            yield Engine("threads", partial(dask.threaded.get, pool=pool, num_workers=n), n)
    elif cluster == "local":
        with _local(workers or default_workers(), memory) as client:
            yield _on(client, "local")
    elif isinstance(cluster, Mapping) and set(cluster) == {"address"}:
        with _reach(str(cluster["address"]), workers or 1) as client:
            yield _on(client, str(cluster["address"]))
    elif hasattr(cluster, "scheduler_info"):
        yield _on(cluster, "client")
    else:
        raise ConfigError(f"cluster is {cluster!r}; allowed: synchronous, threads, local, {{address: tcp://host:port}}")


def _on(client: Any, name: str) -> Engine:
    info = client.scheduler_info(n_workers=-1)["workers"].values()
    threads = sum(worker["nthreads"] for worker in info)
    return Engine(name, client.get, max(1, threads), max(1, len(info)), client, client.dashboard_link)


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise MissingDependencyError(
            "a Dask cluster needs the package 'distributed'; pip install 'zarr-clustering[distributed]'"
        ) from error
    return distributed


@contextmanager
def _local(workers: int, memory: int | None) -> Iterator[Any]:
    distributed = _distributed()
    # One process per worker with one thread each; no data live in worker memory, so spilling would only hide a leak.
    settings = {
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.profile.enabled": False,
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=None if memory is None else 2 * memory + _LIBRARIES,
            dashboard_address="127.0.0.1:0",
            silence_logs=50,
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


@contextmanager
def _reach(address: str, workers: int) -> Iterator[Any]:
    distributed = _distributed()
    try:
        if "://" not in address:
            raise ValueError("no protocol")
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TypeError, ValueError) as error:
        raise ExecutionError(
            f"no Dask scheduler answers at {address!r} within {CONNECT_SECONDS:.0f} s; "
            "check compute.cluster.address, or use 'threads' or 'local'"
        ) from error
    with client:
        try:
            client.wait_for_workers(workers, timeout=CONNECT_SECONDS)
        except TimeoutError as error:
            present = len(client.scheduler_info(n_workers=-1)["workers"])
            raise ExecutionError(
                f"the scheduler at {address!r} has {present} of {workers} workers after {CONNECT_SECONDS:.0f} s; "
                "start workers, or lower compute.workers"
            ) from error
        yield client
