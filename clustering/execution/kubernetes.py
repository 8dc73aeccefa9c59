"""Dask clusters of pods, which the Dask operator of Kubernetes starts."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib import import_module
from threading import Thread
from typing import Any, TypeVar

from clustering.errors import ClusteringError, ConfigError, ExecutionError, reason
from clustering.execution.dask_clusters import (
    QUEUE_SECONDS,
    Cluster,
    ClusterRequest,
    ClusterStatus,
    connect_client,
    dask_settings,
    environment,
    import_optional,
    worker_memory,
)

T = TypeVar("T")
_LOOK_SECONDS = 0.5
"""Interval between looks whether a scheduler is ready, in seconds."""
_LABEL = "dask.org/cluster-name"


@contextmanager
def kubernetes(
    demand: ClusterRequest,
    *,
    image: str,
    namespace: str | None = None,
    threads: int = 1,
    resources: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    secrets: Sequence[str] = (),
    pod: Mapping[str, Any] | None = None,
    service: str = "ClusterIP",
    idle_timeout: int = 600,
) -> Iterator[Cluster]:
    """Ask the Dask operator for a scheduler and workers, and delete them afterwards.

    Parameters
    ----------
    demand
        Cluster request; each worker is a pod with one worker process. Default: 1.
    image
        Container image of scheduler and workers, with this package in this version.
    namespace
        Kubernetes namespace of the pods. Default: the current one.
    threads
        Threads of a worker.
    resources
        ``requests`` and ``limits`` of a worker. Default: its threads, and memory for its budget.
    env
        Environment variables of scheduler and workers, none of them secret.
    secrets
        Names of Kubernetes secrets whose keys become environment variables of the workers.
    pod
        Further fields of the pods' specification, such as ``{"serviceAccountName": "reader", "nodeSelector": {…}}``.
    service
        Type of the scheduler's service: ``ClusterIP``, ``NodePort`` or ``LoadBalancer``.
    idle_timeout
        Seconds after which the operator deletes an unused cluster.

    Raises
    ------
    ConfigError
        If `pod` holds containers.
    ExecutionError
        If Kubernetes does not answer, refuses, or does not start the scheduler.
    MissingDependencyError
        If dask-kubernetes is not installed.
    """
    n, limit = demand.workers or 1, demand.wait_seconds or QUEUE_SECONDS
    operator = import_optional("dask_kubernetes.operator", "cluster.kubernetes", "kubernetes")
    kr8s = import_module("kr8s")
    name = f"clustering-{uuid.uuid4().hex[:8]}"
    wanted = manifest(
        name, n, image=image, threads=threads, resources=resources or _room(threads, worker_memory(demand.memory)),
        env=env or {}, secrets=secrets, pod=pod or {}, service=service, idle_timeout=idle_timeout,
    )  # fmt: skip
    with dask_settings(), ExitStack() as stack:
        try:
            api = kr8s.api(namespace=namespace)
            # The kind DaskCluster comes from the operator, and kr8s has no class for it.
            made = import_module("kr8s.objects").object_from_spec(wanted, api=api, allow_unknown_type=True)
            made.create()
            # From here on pods may run, so they are deleted whatever fails below.
            stack.callback(_delete, made)
            _wait_for_scheduler(api, name, limit)
            # Connecting has no time limit of its own.
            connect = partial(operator.KubeCluster.from_name, name, namespace=api.namespace, quiet=True)
            cluster = stack.enter_context(within(limit, connect))
            client = stack.enter_context(connect_client(cluster))
        except ClusteringError:
            raise
        except Exception as error:
            raise ExecutionError(f"Kubernetes does not give a cluster: {_refusal(error)}") from error
        yield Cluster(f"{name} of Kubernetes", client, n, limit, partial(pod_status, api, name))


def manifest(
    name: str,
    workers: int,
    *,
    image: str,
    threads: int,
    resources: Mapping[str, Any],
    env: Mapping[str, str],
    secrets: Sequence[str],
    pod: Mapping[str, Any],
    service: str,
    idle_timeout: int,
) -> dict[str, Any]:
    """Return the ``DaskCluster`` resource for the operator.

    Parameters
    ----------
    name
        Name of the cluster.
    workers
        Number of worker pods.
    image, threads, resources, env, secrets, pod, service, idle_timeout
        As for `kubernetes`; none is optional here.

    Raises
    ------
    ConfigError
        If `pod` holds containers.
    """
    if "containers" in pod:
        raise ConfigError(
            "cluster.kubernetes.pod holds containers, which are made from image, resources, env and secrets; "
            "leave them out"
        )
    # Workers see no settings of this process, so the settings travel as environment variables. Those of the user win.
    variables = [{"name": key, "value": str(value)} for key, value in {**environment(), **env}.items()]
    ports = {"tcp-comm": 8786, "http-dashboard": 8787}
    health = {"httpGet": {"port": "http-dashboard", "path": "/health"}}
    scheduler = {
        "name": "scheduler",
        "image": image,
        "args": ["dask", "scheduler", "--host", "0.0.0.0"],
        "env": variables,
        "ports": [{"name": name_, "containerPort": port, "protocol": "TCP"} for name_, port in ports.items()],
        "readinessProbe": {**health, "periodSeconds": 1, "timeoutSeconds": 30},
        "livenessProbe": {**health, "initialDelaySeconds": 15, "periodSeconds": 20, "timeoutSeconds": 30},
    }
    worker = {
        "name": "worker",
        "image": image,
        "args": ["dask", "worker", "--name", "$(DASK_WORKER_NAME)", "--nworkers", "1", "--nthreads", str(threads)],
        "env": variables,
        "envFrom": [{"secretRef": {"name": secret}} for secret in secrets],
        "resources": dict(resources),
    }
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {"name": name},
        "spec": {
            "idleTimeout": idle_timeout,
            "worker": {"replicas": workers, "spec": {**pod, "containers": [worker]}},
            "scheduler": {
                "spec": {**pod, "containers": [scheduler]},
                "service": {
                    "type": service,
                    "selector": {_LABEL: name, "dask.org/component": "scheduler"},
                    "ports": [
                        {"name": name_, "protocol": "TCP", "port": port, "targetPort": name_}
                        for name_, port in ports.items()
                    ],
                },
            },
        },
    }


def _room(threads: int, memory: int) -> dict[str, dict[str, str]]:
    """Return requests and limits of a worker, which are equal."""
    # Kubernetes evicts such pods last (quality of service class Guaranteed).
    room = {"cpu": str(threads), "memory": str(memory)}
    return {"requests": room, "limits": room}


def within(seconds: float, make: Callable[[], T]) -> T:
    """Call a function that may never return, and stop waiting for it after some time.

    Parameters
    ----------
    seconds
        How long to wait, in seconds.
    make
        Function to call; it runs in a thread, and goes on there after the time is over.

    Raises
    ------
    TimeoutError
        If it has not returned in time.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(make())
        except BaseException as error:
            outcome.set_exception(error)

    # A daemon thread that hangs does not keep the process from ending.
    Thread(target=run, daemon=True, name="clustering-connect").start()
    return outcome.result(timeout=seconds)


def _wait_for_scheduler(api: Any, name: str, limit: float) -> None:
    until = time.monotonic() + limit
    selector = f"{_LABEL}={name},dask.org/component=scheduler"
    while not any(pod.ready() for pod in api.get("pods", namespace=api.namespace, label_selector=selector)):
        if time.monotonic() > until:
            raise ExecutionError(
                f"the scheduler of the cluster {name} of Kubernetes is not ready after {limit:.0f} s "
                f"({pod_status(api, name).text}); see its pods, or raise compute.wait_seconds"
            )
        time.sleep(_LOOK_SECONDS)


def pod_status(api: Any, name: str) -> ClusterStatus:
    """Ask Kubernetes for the state of the pods of a cluster.

    Parameters
    ----------
    api
        API object of kr8s.
    name
        Name of the cluster.
    """
    try:
        pods = [pod.raw for pod in api.get("pods", namespace=api.namespace, label_selector=f"{_LABEL}={name}")]
        events = [event.raw for event in api.get("events", namespace=api.namespace, field_selector="type=Warning")]
    except Exception as error:
        return ClusterStatus(f"Kubernetes does not answer: {reason(error)}")
    # Kubernetes selects events by whole names only, and names of pods begin with the name of the cluster.
    return describe_pods(pods, [event for event in events if event["involvedObject"].get("name", "").startswith(name)])


def describe_pods(pods: Iterable[Mapping[str, Any]], warnings: Sequence[Mapping[str, Any]]) -> ClusterStatus:
    """Describe pods in one clause, with the last warning about them.

    Parameters
    ----------
    pods, warnings
        Resources of the kinds ``Pod`` and ``Event``, as JSON.
    """
    alike = Counter(_state(pod.get("status", {})) for pod in pods)
    said = [f"{n} {'pod is' if n == 1 else 'pods are'} {state}" for state, n in alike.items()]
    said = said or ["there are no pods: does the Dask operator run"]
    if warnings:
        last = max(warnings, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        said.append(f"the last warning: {' '.join(str(last.get('message', '')).split())}")
    return ClusterStatus(", ".join(said))


def _state(status: Mapping[str, Any]) -> str:
    for container in status.get("containerStatuses", ()):
        waiting = container.get("state", {}).get("waiting")
        if waiting:
            return f"waiting ({_because(waiting)})"
    for condition in status.get("conditions", ()):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{status.get('phase', 'Unknown')} ({_because(condition)})"
    return str(status.get("phase", "Unknown"))


def _because(state: Mapping[str, Any]) -> str:
    return ": ".join(" ".join(str(state[key]).split()) for key in ("reason", "message") if state.get(key))


def _refusal(error: Exception) -> str:
    response = getattr(error, "response", None)
    # Kubernetes knows this kind of resource only where the operator is installed.
    if getattr(response, "status_code", None) == 404:
        return "it knows no DaskCluster; install the Dask operator (helm chart dask-kubernetes-operator)"
    if isinstance(error, TimeoutError):
        return (
            "its scheduler is ready and cannot be reached from here; choose another compute.cluster.kubernetes.service"
        )
    return f"{reason(error)}; check the kubeconfig and compute.cluster.kubernetes"


def _delete(made: Any) -> None:
    # The cluster may be gone already.
    with suppress(Exception):
        made.delete()
