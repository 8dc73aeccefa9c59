"""Dask clusters that a Dask Gateway starts."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

from clustering.errors import ConfigError, ExecutionError, nearest, reason
from clustering.execution.dask_clusters import (
    ANSWER_SECONDS,
    QUEUE_SECONDS,
    Cluster,
    ClusterRequest,
    ClusterStatus,
    connect_client,
    import_optional,
)

_LOOK_SECONDS = 0.5
"""Interval between looks whether a cluster has started, in seconds."""


@contextmanager
def gateway(
    demand: ClusterRequest,
    *,
    address: str | None = None,
    proxy_address: str | None = None,
    auth: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Iterator[Cluster]:
    """Start a cluster through a gateway, and stop it afterwards.

    Parameters
    ----------
    demand
        Cluster request; the cluster is scaled to its workers, 1 by default.
    address
        URL of the gateway. Default: from Dask's settings.
    proxy_address
        Address of the gateway's proxy for schedulers, where it differs from `address`.
    auth
        ``basic``, ``kerberos``, ``jupyterhub`` or the full name of a class. Credentials come from Dask's settings and
        the environment: ``DASK_GATEWAY__AUTH__KWARGS__PASSWORD``, ``JUPYTERHUB_API_TOKEN``.
    options
        Cluster options, as the gateway offers them.

    Raises
    ------
    ConfigError
        If the gateway does not offer an option, or refuses its value.
    ExecutionError
        If it does not answer, refuses, or does not start the cluster.
    MissingDependencyError
        If dask-gateway is not installed.
    """
    g = import_optional("dask_gateway", "cluster.gateway", "gateway")
    n, limit = demand.workers or 1, demand.wait_seconds or QUEUE_SECONDS
    with ExitStack() as stack:
        try:
            door = g.Gateway(address, proxy_address, auth=auth)
            stack.callback(_close, door)
            chosen = _chosen(door.cluster_options(), options or {})
            name = door.submit(chosen)
            # From here on the cluster costs money, so it is stopped whatever fails below.
            stack.callback(_stop, door, name)
            started = _started(door, name, limit)
            with warnings.catch_warnings():
                # The warning says that fewer workers are allowed. As an error it saves waiting for the others.
                warnings.simplefilter("error", g.client.GatewayWarning)
                door.scale_cluster(name, n)
            client = connect_client(started.scheduler_address, security=started.security, timeout=ANSWER_SECONDS)
            stack.enter_context(client)
        except (ConfigError, ExecutionError):
            raise
        except Exception as error:
            raise ExecutionError(
                f"the gateway {address or 'of the settings'} does not give a cluster: {reason(error)}; check "
                "compute.cluster.gateway, compute.workers, and in the environment who you are"
            ) from error
        yield Cluster(
            f"{name} of the gateway",
            client,
            n,
            limit,
            partial(gateway_status, door, name),
            dashboard=started.dashboard_link,
        )


def _chosen(offered: Any, options: Mapping[str, Any]) -> Any:
    for name, value in options.items():
        if name not in offered:
            raise ConfigError(f"cluster.gateway.options: the gateway offers no {name!r}; {nearest(name, offered)}")
        try:
            offered[name] = value
        except (TypeError, ValueError) as error:
            raise ConfigError(f"cluster.gateway.options: {name} is {value!r}; {reason(error)}") from error
    return offered


def _started(door: Any, name: str, limit: float) -> Any:
    """Wait until a cluster runs, and return the gateway's report about it."""
    until = time.monotonic() + limit
    while (report := door.get_cluster(name)).status.name != "RUNNING":
        if report.status.name != "PENDING" or time.monotonic() > until:
            raise ExecutionError(
                f"the gateway's cluster {name} is {report.status.name} after "
                f"{limit + time.monotonic() - until:.0f} s; see the gateway's log, or raise compute.wait_seconds"
            )
        time.sleep(_LOOK_SECONDS)
    return report


def gateway_status(door: Any, name: str) -> ClusterStatus:
    """Ask the gateway for the state of a cluster.

    Parameters
    ----------
    door
        The `dask_gateway.Gateway`.
    name
        Name of the cluster at the gateway.
    """
    try:
        status = door.get_cluster(name).status.name
    except Exception as error:
        return ClusterStatus(f"the gateway does not answer: {reason(error)}")
    # A cluster in any other state has ended, and no worker of it can come any more.
    return ClusterStatus(f"the gateway says that it is {status}", None if status in ("PENDING", "RUNNING") else 0)


def _close(door: Any) -> None:
    door.close()
    # The garbage collector would close it again, which prints an error or waits for ever on the thread of its own loop.
    vars(door).pop("_loop_runner", None)


def _stop(door: Any, name: str) -> None:
    # The cluster may have stopped already.
    with suppress(Exception):
        door.stop_cluster(name)
