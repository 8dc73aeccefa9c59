"""Engines run the tasks of a pass: in the calling thread, in threads, or on a Dask cluster."""

from __future__ import annotations

import logging
import resource
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from clustering.blas import one_blas_thread
from clustering.errors import ClusteringError, ConfigError, ExecutionError, reason
from clustering.execution import dask_clusters
from clustering.execution.address import connect_scheduler
from clustering.execution.dask_clusters import Cluster, ClusterRequest, available_processors, check_options
from clustering.execution.gateway import gateway
from clustering.execution.kubernetes import kubernetes
from clustering.execution.slurm import slurm
from clustering.execution.slurm_runner import slurm_runner
from clustering.execution.waiting import get_from, wait_for_workers

logger = logging.getLogger(__name__)

ALLOWED = (
    "synchronous, threads, local, {address: tcp://host:port}, {scheduler_file: path}, {slurm: {…}}, "
    "{kubernetes: {…}}, {gateway: {…}}, {class: package.Class, options: {…}}"
)
"""Values of ``cluster``, as messages list them."""
_ADDRESS = frozenset({"address", "scheduler_file", "ca_file", "cert_file", "key_file"})


@dataclass(frozen=True)
class Engine:
    """The Dask scheduler function that runs tasks, and what it runs on."""

    name: str
    """``synchronous``, ``threads``, or the name of the cluster."""
    get: Callable[..., Any]
    threads: int
    """Number of tasks that run at once."""
    workers: int = 1
    """Number of processes that hold blocks in memory."""
    client: Any = None
    """The `distributed.Client`; None without a cluster."""
    pool: ThreadPoolExecutor | None = None
    """Threads of this process; None where tasks run elsewhere."""
    dashboard: str | None = None
    """URL of Dask's dashboard; None where there is none."""
    session: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    def compute(self, graph: Mapping[Any, Any], key: Any) -> Any:
        """Compute one key of a graph, with one BLAS thread per task.

        Parameters
        ----------
        graph
            Dask graph: tasks by key.
        key
            Key of the result.

        Raises
        ------
        ExecutionError
            If workers died over a task, or the scheduler is gone.
        """
        try:
            with one_blas_thread():
                return self.get(graph, key)
        except ClusteringError:
            raise
        except Exception as error:
            # Errors of Dask itself mean lost work. All others come from the task, and say what they mean.
            if self.client is None or not type(error).__module__.startswith("distributed"):
                raise
            raise ExecutionError(
                f"the cluster {self.name} lost the work ({reason(error)}); "
                "a worker that is out of memory is the usual cause: lower compute.memory or use larger workers"
            ) from error

    def release(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function in this process and in every worker process, to free what it holds.

        Parameters
        ----------
        function
            Function to call; picklable where there is a cluster.
        args
            Arguments of the function.
        """
        function(*args)
        if self.client is not None:
            # A cluster that is gone holds nothing, and its error must not hide that of the work.
            with suppress(Exception):
                self.client.run(function, *args, on_error="ignore")

    def peak_rss(self) -> int:
        """Return the largest peak memory of this process and the workers, in bytes."""
        peaks = [_peak_rss()]
        if self.client is not None:
            with suppress(Exception):
                # This number is only reported, so a lost worker is no reason to fail.
                peaks += self.client.run(_peak_rss).values()
        return max(peaks)


def _peak_rss() -> int:
    """Return the peak memory of this process, in bytes; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _get_in_threads(graph: Mapping[Any, Any], key: Any, **options: Any) -> Any:
    import dask.threaded

    return dask.threaded.get(graph, key, **options)


@contextmanager
def connect(
    cluster: Any = "threads", workers: int | None = None, memory: int | None = None, wait_seconds: float | None = None
) -> Iterator[Engine]:
    """Start or reach the cluster that the config names, and close it afterwards.

    Parameters
    ----------
    cluster
        ``synchronous``, ``threads``, ``local`` (worker processes on this machine), a mapping like ``compute.cluster``
        of a config, such as ``{"address": "tcp://…"}`` or ``{"slurm": {…}}``, or a `distributed.Client`, which stays
        open.
    workers
        Number of threads, or of worker processes. Default: the number of processors; for clusters of other machines the
        smallest number.
    memory
        Memory budget of each worker, in bytes. Started workers get more, for libraries and temporary arrays.
    wait_seconds
        How long to wait for workers, at the start and when all are gone. Default: 30 for clusters that already run,
        1800 for workers that are started elsewhere.

    Yields
    ------
    Engine
        Engine with all its workers.

    Raises
    ------
    ConfigError
        If the cluster is unknown.
    ExecutionError
        If the scheduler or its workers do not answer, or have other versions.
    MissingDependencyError
        If a package is needed and not installed.
    """
    # Dask is imported where it is used: tasks in threads of this process need none of it.
    if cluster == "synchronous":
        import dask.local

        yield Engine("synchronous", dask.local.get_sync, 1)
    elif cluster == "threads":
        n = workers or available_processors()
        with ThreadPoolExecutor(n, thread_name_prefix="clustering") as pool:
            yield Engine("threads", partial(_get_in_threads, pool=pool, num_workers=n), n, pool=pool)
    else:
        kind = cluster if isinstance(cluster, str) else next(iter(cluster), "") if isinstance(cluster, Mapping) else ""
        if kind:
            logger.info("starting or reaching the Dask cluster (%s)", kind)
        with (
            _open_cluster(cluster, ClusterRequest(workers, memory, wait_seconds)) as started,
            _ready_engine(started) as engine,
        ):
            yield engine


def _open_cluster(cluster: Any, demand: ClusterRequest) -> AbstractContextManager[Cluster]:
    """Return the context that starts or reaches a cluster."""
    # A client is recognized by this method, because importing its class would need an optional package.
    if hasattr(cluster, "scheduler_info"):
        wait = demand.wait_seconds or dask_clusters.ANSWER_SECONDS
        return nullcontext(Cluster("of the client", cluster, demand.workers or 1, wait))
    match cluster:
        case "local":
            return dask_clusters.local(demand)
        case {"class": path, **rest} if set(rest) <= {"options"}:
            options: Any = rest.get("options") or {}
            return dask_clusters.class_cluster(demand, path=str(path), options=options)
        case {"address": _} | {"scheduler_file": _} if set(cluster) <= _ADDRESS:
            return connect_scheduler(demand, **cluster)
        case {"slurm": {"runner": True, **more}} if len(cluster) == 1 and not more:
            return slurm_runner(demand)
        case {"slurm": options} if len(cluster) == 1:
            return slurm(demand, **check_options(options, slurm, "slurm"))
        case {"kubernetes": options} if len(cluster) == 1:
            return kubernetes(demand, **check_options(options, kubernetes, "kubernetes"))
        case {"gateway": options} if len(cluster) == 1:
            return gateway(demand, **check_options(options, gateway, "gateway"))
        case _:
            raise ConfigError(f"cluster is {cluster!r}; allowed: {ALLOWED}")


@contextmanager
def _ready_engine(cluster: Cluster) -> Iterator[Engine]:
    """Wait for the workers, check their versions, and yield an engine that uses them."""
    # This module imports `distributed`, an optional package, which a cluster has imported by now.
    from clustering.execution.worker_environment import check_worker_versions, one_blas_thread_on_workers

    client = cluster.client
    wait_for_workers(cluster)
    check_worker_versions(client, cluster.name)
    with one_blas_thread_on_workers(client):
        threads, dashboard = client.nthreads(), cluster.dashboard
        # Dask raises this error where the scheduler has no dashboard.
        with suppress(KeyError):
            dashboard = dashboard or client.dashboard_link or None
        yield Engine(
            cluster.name, get_from(cluster), max(1, sum(threads.values())), max(1, len(threads)), client,
            dashboard=dashboard,
        )  # fmt: skip
