"""The map-reduce over blocks: one tree of additions for every engine.

The tree is that of `clustering.models.tree`. A task computes one of its nodes from an aligned run of 2^level blocks. So
the number of tasks may depend on the number of threads, while the order of every addition stays the same. On a cluster,
each run goes to the same worker in every pass, see `clustering.execution.homes`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from functools import partial
from itertools import count
from typing import Any, TypeVar

from clustering.blas import one_blas_thread
from clustering.execution.engine import Engine
from clustering.execution.homes import Homes
from clustering.models.tree import S, fold

A = TypeVar("A")
T = TypeVar("T")
TASKS_PER_THREAD = 4
"""Largest number of tasks of a pass, per thread."""

MOST_TASKS = 32
"""Largest number of tasks of a pass, times the root of the number of blocks. The scheduler takes its tasks one by one,
and a block takes about 32² times as long as a task takes it. The sum of both is least at the root of their product."""

FAN_IN = 4
"""Nodes that one task of a cluster adds up, a power of two. More would take fewer tasks of the scheduler, and more
memory of the workers: nodes of wide covariances take hundreds of MiB."""

_passes = count()


def map_reduce(leaves: Callable[..., Iterator[S]], n_blocks: int, engine: Engine, homes: Homes | None = None) -> S:
    """Add up the statistics of all blocks, in the order of the tree.

    Parameters
    ----------
    leaves
        Yields the statistics of each block of a run, in order; picklable where the engine has other processes. Where a
        worker is not the home of the run, it is called with ``keep=False``.
    n_blocks
        Number of blocks, 1 or more.
    engine
        Engine that runs the tasks.
    homes
        Homes of the runs on a cluster; None: any worker takes any run.

    Returns
    -------
    S
        Statistics of all blocks, with the same bits for every engine and every number of workers.
    """
    runs = split_runs(n_blocks, engine.threads)
    if engine.pool is not None:
        with one_blas_thread():
            return _reduce_in_threads(engine.pool, leaves, runs)
    at = [] if homes is None or engine.client is None else homes.update(engine.client, runs)
    return _reduce_by_dask(engine, leaves, runs, at)


def most_tasks(n_blocks: int, threads: int) -> int:
    """Return the largest number of tasks of a pass.

    Parameters
    ----------
    n_blocks
        Number of blocks.
    threads
        Number of tasks that run at once.
    """
    return min(n_blocks, TASKS_PER_THREAD * threads, int(MOST_TASKS * math.sqrt(n_blocks)))


def split_runs(n_blocks: int, threads: int) -> list[range]:
    """Cut the blocks of a pass into aligned runs, each of which is the work of a task.

    Parameters
    ----------
    n_blocks
        Number of blocks.
    threads
        Number of tasks that run at once.
    """
    level = 0
    # Runs are as short as the number of tasks allows, so that threads share the work evenly.
    while -(-n_blocks >> level) > most_tasks(n_blocks, threads):
        level += 1
    return [range(i << level, min(n_blocks, (i + 1) << level)) for i in range(-(-n_blocks >> level))]


def apply_to_each(function: Callable[[A], T], items: Sequence[A], engine: Engine) -> list[T]:
    """Apply a function to each item, side by side where the engine has threads or workers.

    Parameters
    ----------
    function
        Function of one item; picklable where the engine has other processes.
    items
        Its arguments.
    engine
        Engine that runs the tasks.

    Returns
    -------
    list
        Results in the order of the items.
    """
    if engine.pool is not None:
        with one_blas_thread():
            return list(engine.pool.map(function, items))
    keys = [("item", i) for i in range(len(items))]
    results = engine.compute({key: (partial(function, item),) for key, item in zip(keys, items, strict=True)}, keys)
    return list(results)


def _reduce_in_threads(pool: Executor, leaves: Callable[[range], Iterator[S]], runs: Sequence[range]) -> S:
    """Run the tasks in threads, and add up nodes in this one as soon as both are there.

    Dask's scheduler takes about a third of a millisecond for each task, which is much of a pass over a few million
    numbers.
    """
    nodes: dict[tuple[int, int], S] = {}
    pending: dict[Future[S], int] = {}
    try:
        for i, run in enumerate(runs):
            pending[pool.submit(_node, leaves, run)] = i
        while pending:
            # The first error ends the pass, whichever task it is of.
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                _add_node(nodes, pending.pop(future), future.result(), len(runs))
    finally:
        for future in pending:
            future.cancel()
    return nodes.popitem()[1]


def _add_node(nodes: dict[tuple[int, int], S], i: int, node: S, width: int) -> None:
    """Add a node of the lowest level, of which there are `width`, to its sibling, and so on up the tree."""
    level = 0
    while width > 1:
        sibling = nodes.pop((level, i ^ 1), None)
        if sibling is not None:
            node = sibling + node if i & 1 else node + sibling
        elif i ^ 1 < width:
            break
        level, i, width = level + 1, i >> 1, (width + 1) >> 1
    nodes[level, i] = node


def _reduce_by_dask(
    engine: Engine, leaves: Callable[..., Iterator[S]], runs: Sequence[range], homes: Sequence[tuple[str, str | None]]
) -> S:
    """Run the tasks and the additions as one graph of Dask."""
    # Threads of this process do without Dask, so that it is not loaded for them.
    from dask.base import annotate

    # Dask remembers results by their keys, so no two passes may share a key.
    name = f"pass-{next(_passes)}-{engine.session}"
    graph: dict[Any, Any] = {f"leaves-{name}": _Constant(leaves)}
    # Dask gives out a group of independent tasks one by one, so additions need a name of their own.
    sums = f"sums-{name}"
    workers: dict[Any, list[str]] = defaultdict(list)
    nodes: list[Any] = [(name, 0, i) for i in range(len(runs))]
    for i, (key, run) in enumerate(zip(nodes, runs, strict=True)):
        home, address = homes[i] if homes else (None, None)
        graph[key] = (_node_of_constant, f"leaves-{name}", run.start, run.stop, home)
        if address is not None:
            workers[key].append(address)
    height = 0
    while len(nodes) > 1:
        height += 1
        groups = [nodes[i : i + FAN_IN] for i in range(0, len(nodes), FAN_IN)]
        nodes = [(sums, height, i) if len(group) > 1 else group[0] for i, group in enumerate(groups)]
        graph |= {key: (_fold_nodes, *group) for key, group in zip(nodes, groups, strict=True) if len(group) > 1}
    # Dask asks for the workers of each key, and an empty list means any of them. A function of the standard library
    # needs nothing on the scheduler. If a home is gone, another worker takes its tasks.
    with annotate(workers=workers.__getitem__, allow_other_workers=True):
        result: S = engine.compute(graph, nodes[0])
    return result


class _Constant:
    """Holds the work of a pass, so that Dask neither inspects nor calls it while it builds the graph."""

    def __init__(self, leaves: Callable[..., Iterator[Any]]) -> None:
        self.leaves = leaves


def _node_of_constant(constant: _Constant, start: int, stop: int, home: str | None) -> Any:
    if home is not None:
        from distributed import get_worker

        # Rows are cached at their home alone, because the next pass looks for them there.
        if str(get_worker().name) != home:
            return fold(constant.leaves(range(start, stop), keep=False))
    return _node(constant.leaves, range(start, stop))


def _node(leaves: Callable[..., Iterator[S]], run: range) -> S:
    return fold(leaves(run))


def _fold_nodes(*nodes: S) -> S:
    """Add up neighbouring nodes of one level, in the order of the tree."""
    return fold(nodes)
