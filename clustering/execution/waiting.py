"""Waits for workers and for results with a time limit, so that a cluster without workers gives an error."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from clustering.deferred import asyncio
from clustering.errors import ExecutionError
from clustering.execution.dask_clusters import Cluster, ClusterStatus

logger = logging.getLogger(__name__)

ASK_SECONDS = 5.0
"""Interval between questions to the service that starts the workers, while they are missing, in seconds."""
LOOK_SECONDS = 1.0
"""Interval between looks for any workers, while a result is awaited, in seconds."""


def wait_for_workers(cluster: Cluster) -> None:
    """Wait until all workers of a cluster are connected.

    Parameters
    ----------
    cluster
        Cluster with the number of workers and the time limit.

    Raises
    ------
    ExecutionError
        If they are late, or can no longer come; the message holds the status of the cluster.
    """
    began = time.monotonic()
    present = len(cluster.client.nthreads())
    if present < cluster.workers:
        logger.info(
            "the cluster %s has %d of %d workers; waiting for the others, %.0f s at most",
            cluster.name, present, cluster.workers, cluster.wait_seconds,
        )  # fmt: skip
    while True:
        left = began + cluster.wait_seconds - time.monotonic()
        try:
            cluster.client.wait_for_workers(cluster.workers, timeout=max(0.1, min(ASK_SECONDS, left)))
        except TimeoutError:
            word = cluster.status()
            # Go on waiting while there is time, and while enough workers may still come.
            if left > ASK_SECONDS and (word.most is None or word.most >= cluster.workers):
                continue
            present = len(cluster.client.nthreads())
            raise ExecutionError(
                f"the cluster {cluster.name} has {present} of {cluster.workers} workers after "
                f"{time.monotonic() - began:.0f} s{_status_clause(word)}; {cluster.remedy}"
            ) from None
        return


def get_from(cluster: Cluster) -> Callable[[Mapping[Any, Any], Any], Any]:
    """Return a Dask `get` that raises `ExecutionError` when all workers are gone for too long.

    Parameters
    ----------
    cluster
        Cluster whose client runs the graph.
    """

    def get(graph: Mapping[Any, Any], key: Any) -> Any:
        future = cluster.client.get(graph, key, sync=False)
        try:
            return cluster.client.sync(_result, cluster, future)
        finally:
            future.release()

    return get


async def _result(cluster: Cluster, future: Any) -> Any:
    """Wait for a result; raise `ExecutionError` when all workers are gone for longer than the time limit."""
    result = asyncio.ensure_future(cluster.client.gather(future, asynchronous=True))
    alone: float | None = None
    try:
        while not (await asyncio.wait({result}, timeout=LOOK_SECONDS))[0]:
            now = time.monotonic()
            if await _any_workers(cluster.client):
                alone = None
                continue
            alone = now if alone is None else alone
            word = await asyncio.to_thread(cluster.status)
            if word.most == 0 or now - alone >= cluster.wait_seconds:
                # A cancelled result ends by itself, while Dask logs errors about one that is only dropped.
                await cluster.client.cancel([future])
                await asyncio.wait({result}, timeout=LOOK_SECONDS)
                raise ExecutionError(
                    f"all workers of the cluster {cluster.name} are gone since {now - alone:.0f} s"
                    f"{_status_clause(word)}; "
                    "run the same job again to go on from its last checkpoint"
                )
        return await result
    finally:
        if result.done() and not result.cancelled():
            result.exception()
        result.cancel()


async def _any_workers(client: Any) -> bool:
    """Return whether the cluster has any workers."""
    try:
        return bool(await client.nthreads())
    except OSError:
        # Without a scheduler, the result ends by itself with an error.
        return True


def _status_clause(word: ClusterStatus) -> str:
    return f" ({word.text})" if word.text else ""
