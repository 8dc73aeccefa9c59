"""Graphs of tasks in threads of this process.

Dask's scheduler of threads takes about a third of a millisecond for each task, which is much of a pass over a few
million numbers. The graphs of this package need little of it: tasks that depend on nothing, and sums of their results.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from concurrent.futures import Executor, Future
from typing import Any


def get_in_threads(pool: Executor, graph: Mapping[Hashable, Any], keys: Any) -> Any:
    """Compute keys of a Dask graph: tasks without dependencies in threads, and all others in the calling thread.

    Parameters
    ----------
    pool
        Threads. They begin with the tasks in the order of the graph.
    graph
        Tasks ``(function, *arguments)``, other names of keys, and constants, by key. Arguments may be keys.
    keys
        One key, or a list of keys.

    Returns
    -------
    object
        The value of the key, or a list of the values of the keys.

    Raises
    ------
    Exception
        The first error of a task; tasks that have not begun are then cancelled.
    """
    constants = {key for key, entry in graph.items() if not (_is_task(entry) or _is_key(entry, graph))}
    futures: dict[Hashable, Future[Any]] = {}
    for key, task in graph.items():
        if _is_task(task) and all(arg in constants for arg in task[1:] if _is_key(arg, graph)):
            futures[key] = pool.submit(task[0], *(graph[arg] if _is_key(arg, graph) else arg for arg in task[1:]))

    def value(entry: Any) -> Any:
        if not _is_key(entry, graph):
            return entry
        if entry in futures:
            return futures[entry].result()
        task = graph[entry]
        return task[0](*map(value, task[1:])) if _is_task(task) else value(task)

    try:
        return [value(key) for key in keys] if isinstance(keys, list) else value(keys)
    finally:
        for future in futures.values():
            future.cancel()


def _is_task(entry: Any) -> bool:
    return isinstance(entry, tuple) and bool(entry) and callable(entry[0])


def _is_key(entry: Any, graph: Mapping[Hashable, Any]) -> bool:
    return isinstance(entry, Hashable) and entry in graph
