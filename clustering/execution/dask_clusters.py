"""Dask clusters: what all kinds have in common, worker processes of this machine, and classes of the user's choice."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from inspect import Parameter, signature
from typing import Any

import dask

from clustering.errors import ConfigError, ExecutionError, MissingDependencyError, nearest, reason
from clustering.temporary import ensure_home

ANSWER_SECONDS = 30.0
"""How long to wait for what runs already, or starts on this machine, in seconds."""
QUEUE_SECONDS = 1800.0
"""How long to wait for workers that a queue, or somebody else's machines, have to start, in seconds."""
LIBRARIES = 512 * 1024 * 1024
"""Memory that a worker takes before it holds any data, with room to spare, in bytes."""
SETTINGS = {
    # Workers that decode for minutes are alive.
    "distributed.scheduler.worker-ttl": "15 minutes",
    "distributed.scheduler.unknown-task-duration": "30s",
    "distributed.scheduler.allowed-failures": 3,
    "distributed.scheduler.work-stealing": True,
    # No data live in Dask's memory, so spilling would only hide a leak.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": 0.85,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.profile.enabled": False,
    "distributed.comm.retry.count": 3,
    "distributed.comm.timeouts.connect": "60s",
    "distributed.comm.timeouts.tcp": "60s",
}
"""Dask's settings on every cluster that is started here."""


@dataclass(frozen=True)
class ClusterStatus:
    """What whoever starts the workers says of them."""

    text: str = ""
    """One clause; empty where nobody can be asked."""
    most: int | None = None
    """Worker processes that there can be at most from now on; None where that is not known."""


@dataclass(frozen=True)
class ClusterRequest:
    """What is asked of every kind of cluster."""

    workers: int | None = None
    """Worker processes; None: the kind's default."""
    memory: int | None = None
    """Memory budget of each worker, in bytes; None: no limit."""
    wait_seconds: float | None = None
    """How long to wait for workers; None: the kind's default."""


def unknown_status() -> ClusterStatus:
    """Answer for clusters whose workers somebody else starts."""
    return ClusterStatus()


@dataclass(frozen=True)
class Cluster:
    """A Dask cluster that was started or reached."""

    name: str
    """What to call it in messages."""
    client: Any
    """The `distributed.Client`."""
    workers: int
    """Worker processes to wait for."""
    wait_seconds: float
    """How long to wait for them, and for any of them when all are gone."""
    status: Callable[[], ClusterStatus] = unknown_status
    """Asks whoever starts the workers."""
    remedy: str = "start workers, lower compute.workers, or raise compute.wait_seconds"
    """What to do when workers do not come."""
    dashboard: str | None = None
    """URL of its dashboard, where the client does not know it."""


def available_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_memory(budget: int | None) -> int:
    """Memory that a worker process with this budget takes at most, in bytes."""
    return 2 * (budget or 0) + LIBRARIES


def environment() -> dict[str, str]:
    """Write `SETTINGS` as environment variables, for workers that other machines start."""
    return {"DASK_" + name.upper().replace(".", "__").replace("-", "_"): str(value) for name, value in SETTINGS.items()}


def import_optional(module: str, kind: str, extra: str) -> Any:
    """Import an optional package.

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
        # dask_jobqueue takes the interrupt from the keyboard for itself when it is imported.
        if signal.getsignal(signal.SIGINT) is not handler:
            signal.signal(signal.SIGINT, handler)


def distributed() -> Any:
    """Import `distributed`."""
    # The dashboard's package asks for a home folder as it is imported.
    ensure_home()
    return import_optional("distributed", "a Dask cluster", "distributed")


def connect_client(cluster: Any, **options: Any) -> Any:
    """Connect to a cluster, or an address; versions that differ are an error later, not a table on the terminal."""
    d = distributed()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", d.versions.VersionMismatchWarning)
        return d.Client(cluster, set_as_default=False, **options)


def check_options(options: Any, start: Callable[..., Any], kind: str) -> Mapping[str, Any]:
    """Give the options of a kind of cluster, if they are those that it takes.

    Parameters
    ----------
    options
        Names and values.
    start
        What they are for, as keyword-only parameters.

    Raises
    ------
    ConfigError
        Naming the option and what is allowed.
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
    """Start worker processes of one thread each on this machine; as many as it has processors by default."""
    d, n = distributed(), demand.workers or available_processors()
    with (
        dask.config.set(SETTINGS),
        d.LocalCluster(
            n_workers=n,
            threads_per_worker=1,
            processes=True,
            memory_limit=None if demand.memory is None else worker_memory(demand.memory),
            dashboard_address="127.0.0.1:0",
            silence_logs=50,
        ) as cluster,
        connect_client(cluster) as client,
    ):
        yield Cluster("local", client, n, demand.wait_seconds or ANSWER_SECONDS)


@contextmanager
def class_cluster(demand: ClusterRequest, *, path: str, options: Mapping[str, Any]) -> Iterator[Cluster]:
    """Make a cluster of any class that a `distributed.Client` takes.

    Parameters
    ----------
    demand
        Its workers are what the cluster is scaled to, where it can be, and waited for. Default: as it comes, and 1.
    path
        Full name of the class, such as ``dask_jobqueue.PBSCluster``.
    options
        Its keyword arguments.

    Raises
    ------
    ConfigError
        If the class cannot be imported, or takes no such options.
    ExecutionError
        If it does not start, or is nothing that a client takes.
    """
    made = _class(path)
    _check_arguments(made, path, options)
    with dask.config.set(SETTINGS), ExitStack() as stack:
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
