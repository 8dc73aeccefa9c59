"""Dask clusters: the common part of all kinds, worker processes on this machine, and classes of the user's choice."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from inspect import Parameter, signature
from typing import Any

from clustering.errors import ConfigError, ExecutionError, MissingDependencyError, nearest, reason
from clustering.temporary import ensure_home

ANSWER_SECONDS = 30.0
"""How long to wait for clusters that already run or start on this machine, in seconds."""
QUEUE_SECONDS = 1800.0
"""How long to wait for workers that a queue or another machine starts, in seconds."""
LIBRARIES = 512 * 1024 * 1024
"""Memory of a worker before it holds any data, rounded up, in bytes."""
SETTINGS = {
    # Decoding may keep a worker silent for minutes.
    "distributed.scheduler.worker-ttl": "15 minutes",
    # By default, a task that was never measured counts as half a second, and Dask would not spread the long tasks of a
    # pass.
    "distributed.scheduler.unknown-task-duration": "30s",
    "distributed.scheduler.allowed-failures": 3,
    # A worker that takes a task from another would read rows that the other one has cached.
    "distributed.scheduler.work-stealing": False,
    # Tasks return small statistics, so spilling would only hide a leak.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    # A paused worker starts no further task, and may still finish its own before it is ended.
    "distributed.worker.memory.pause": 0.85,
    "distributed.worker.memory.terminate": 0.95,
    # By default, the profiler looks at all threads a hundred times in a second.
    "distributed.worker.profile.enabled": False,
    "distributed.comm.retry.count": 3,
    "distributed.comm.timeouts.connect": "60s",
    "distributed.comm.timeouts.tcp": "60s",
}
"""Dask settings of every cluster that is started here."""


@dataclass(frozen=True)
class ClusterStatus:
    """State of the workers, as the service that starts them describes it."""

    text: str = ""
    """One clause for a message; empty where the service cannot be asked."""
    most: int | None = None
    """Largest number of worker processes that can still come; None where that is unknown."""


@dataclass(frozen=True)
class ClusterRequest:
    """Wishes that every kind of cluster takes."""

    workers: int | None = None
    """Number of worker processes; None: the default of the kind."""
    memory: int | None = None
    """Memory budget of each worker, in bytes; None: no limit."""
    wait_seconds: float | None = None
    """How long to wait for workers, in seconds; None: the default of the kind."""


def dask_settings() -> AbstractContextManager[object]:
    """Return a context in which Dask has our settings."""
    # Most jobs run in threads of this process, and never load Dask.
    import dask

    settings: AbstractContextManager[object] = dask.config.set(SETTINGS)
    return settings


def unknown_status() -> ClusterStatus:
    """Return an empty status, for clusters whose workers are started elsewhere."""
    return ClusterStatus()


@dataclass(frozen=True)
class Cluster:
    """A Dask cluster that was started or reached."""

    name: str
    """Name of the cluster in messages."""
    client: Any
    """The `distributed.Client`."""
    workers: int
    """Number of worker processes to wait for."""
    wait_seconds: float
    """How long to wait for all workers at the start, and for any worker when all are gone, in seconds."""
    status: Callable[[], ClusterStatus] = unknown_status
    """Asks the service that starts the workers for their state."""
    remedy: str = "start workers, lower compute.workers, or raise compute.wait_seconds"
    """Advice for the message when workers do not come."""
    dashboard: str | None = None
    """URL of the dashboard, where the client does not know it."""


def available_processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_memory(budget: int | None) -> int:
    """Return the largest memory of a worker process, in bytes.

    Parameters
    ----------
    budget
        Memory budget of the worker, in bytes; None counts as 0.
    """
    # The budget counts decoded rows, and temporary arrays of decoding and statistics may take as much again.
    return 2 * (budget or 0) + LIBRARIES


def environment() -> dict[str, str]:
    """Return `SETTINGS` as environment variables, for workers that other machines start."""
    return {"DASK_" + name.upper().replace(".", "__").replace("-", "_"): str(value) for name, value in SETTINGS.items()}


def import_optional(module: str, kind: str, extra: str) -> Any:
    """Import an optional package.

    Parameters
    ----------
    module
        Full name of the module.
    kind
        Feature that needs it, as messages name it.
    extra
        Extra of this package that installs it.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    try:
        return _imported(module)
    except ImportError as error:
        package = module.partition(".")[0].replace("_", "-")
        raise MissingDependencyError(
            f"{kind} needs the package {package!r}; pip install 'zarr-clustering[{extra}]'"
        ) from error


def _imported(module: str) -> Any:
    handler = signal.getsignal(signal.SIGINT)
    try:
        return import_module(module)
    finally:
        # dask_jobqueue replaces the handler of Ctrl-C when it is imported.
        if signal.getsignal(signal.SIGINT) is not handler:
            signal.signal(signal.SIGINT, handler)


def distributed() -> Any:
    """Import `distributed`."""
    # The package of the dashboard needs a home folder when it is imported.
    ensure_home()
    return import_optional("distributed", "a Dask cluster", "distributed")


def connect_client(cluster: Any, **options: Any) -> Any:
    """Connect to a cluster.

    Parameters
    ----------
    cluster
        Cluster object or address of a scheduler.
    options
        Further arguments of `distributed.Client`.
    """
    d = distributed()
    # Different versions are checked later and raise an error, so Dask's table of them is not printed.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", d.versions.VersionMismatchWarning)
        # A default client would run all other Dask computations of the process too.
        return d.Client(cluster, set_as_default=False, **options)


def check_options(options: Any, start: Callable[..., Any], kind: str) -> Mapping[str, Any]:
    """Check the options of a kind of cluster, and return them.

    Parameters
    ----------
    options
        Names and values from the config.
    start
        Function that starts the cluster; its keyword-only parameters are the allowed options.
    kind
        Key of the cluster in the config, as messages name it.

    Raises
    ------
    ConfigError
        If an option is unknown or missing; the message names it and the allowed ones.
    """
    parameters = {p.name: p for p in signature(start).parameters.values() if p.kind is Parameter.KEYWORD_ONLY}
    if not isinstance(options, Mapping):
        raise ConfigError(f"cluster.{kind} is {options!r}; names and values are needed: {', '.join(parameters)}")
    for name in options:
        if name not in parameters:
            raise ConfigError(f"unknown key {name!r} of cluster.{kind}; {nearest(str(name), parameters)}")
    for name, parameter in parameters.items():
        if parameter.default is Parameter.empty and name not in options:
            raise ConfigError(f"key {name!r} of cluster.{kind} is missing; add it")
    return options


@contextmanager
def local(demand: ClusterRequest) -> Iterator[Cluster]:
    """Start worker processes with one thread each on this machine.

    Parameters
    ----------
    demand
        Cluster request; as many workers as processors by default.
    """
    d, n = distributed(), demand.workers or available_processors()
    with (
        dask_settings(),
        d.LocalCluster(
            n_workers=n,
            threads_per_worker=1,
            processes=True,
            memory_limit=None if demand.memory is None else worker_memory(demand.memory),
            # Any free port will do, as several runs may share this machine. Other machines do not see the dashboard.
            dashboard_address="127.0.0.1:0",
            silence_logs=50,
        ) as cluster,
        connect_client(cluster) as client,
    ):
        yield Cluster("local", client, n, demand.wait_seconds or ANSWER_SECONDS)


@contextmanager
def class_cluster(demand: ClusterRequest, *, path: str, options: Mapping[str, Any]) -> Iterator[Cluster]:
    """Start a cluster of any class that `distributed.Client` accepts.

    Parameters
    ----------
    demand
        Cluster request; the cluster is scaled to its workers where it can be. By default it is not scaled, and 1 worker
        is waited for.
    path
        Full name of the class, such as ``dask_jobqueue.PBSCluster``.
    options
        Keyword arguments of the class.

    Raises
    ------
    ConfigError
        If the class cannot be imported, or does not take the options.
    ExecutionError
        If the cluster does not start, or a client does not accept it.
    """
    made = _class(path)
    _check_arguments(made, path, options)
    with dask_settings(), ExitStack() as stack:
        try:
            cluster = made(**options)
            if hasattr(cluster, "close"):
                stack.enter_context(cluster if hasattr(cluster, "__exit__") else closing(cluster))
            if demand.workers is not None and hasattr(cluster, "scale"):
                cluster.scale(demand.workers)
            client = stack.enter_context(connect_client(cluster))
        except Exception as error:
            raise ExecutionError(f"the cluster {path} does not start: {reason(error)}; check its options") from error
        yield Cluster(path, client, demand.workers or 1, demand.wait_seconds or QUEUE_SECONDS)


def _class(path: str) -> Any:
    module, dot, name = path.rpartition(".")
    try:
        return getattr(_imported(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        remedy = "install its package, or check the spelling" if dot else "give the full name, such as package.Class"
        raise ConfigError(f"cluster.class {path!r} cannot be imported ({reason(error)}); {remedy}") from error


def _check_arguments(made: Any, path: str, options: Mapping[str, Any]) -> None:
    try:
        # Classes in C have no signature. Their own error must do then.
        taken = signature(made)
    except (TypeError, ValueError):
        return
    try:
        taken.bind(**options)
    except TypeError as error:
        for name in options:
            if name not in taken.parameters:
                hint = nearest(name, taken.parameters)
                raise ConfigError(f"cluster.options: {path} takes no option {name!r}; {hint}") from error
        raise ConfigError(f"cluster.options do not fit {path}: {reason(error)}") from error
