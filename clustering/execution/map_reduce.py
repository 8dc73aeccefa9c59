"""The map-reduce over blocks: one tree of additions for every engine.

The tree is that of `clustering.models.tree`. A task computes one of its nodes from an aligned run of 2^level blocks. So
the number of tasks may depend on the number of threads, while the order of every addition stays the same.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from functools import partial
from itertools import count
from typing import Any, TypeVar

from clustering.blas import one_blas_thread
from clustering.execution.engine import Engine
from clustering.models.tree import S, fold

A = TypeVar("A")
T = TypeVar("T")
TASKS_PER_THREAD = 4
"""Largest number of tasks of a pass, per thread."""

_passes = count()


def map_reduce(leaves: Callable[[range], Iterator[S]], n_blocks: int, engine: Engine) -> S:
    """Add up the statistics of all blocks, in the order of the tree.

    Parameters
    ----------
    leaves
        Yields the statistics of each block of a run, in order; picklable where the engine has other processes.
    n_blocks
        Number of blocks, 1 or more.
    engine
        Engine that runs the tasks.

    Returns
    -------
    S
        Statistics of all blocks, with the same bits for every engine and every number of workers.
    """
    level = 0
    # Runs are as short as the number of tasks allows, so that threads share the work evenly.
    while -(-n_blocks >> level) > TASKS_PER_THREAD * engine.threads:
        level += 1
    runs = [range(i << level, min(n_blocks, (i + 1) << level)) for i in range(-(-n_blocks >> level))]
    if engine.pool is not None:
        with one_blas_thread():
            return _reduce_in_threads(engine.pool, leaves, runs)
    return _reduce_by_dask(engine, leaves, runs)


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


def _reduce_by_dask(engine: Engine, leaves: Callable[[range], Iterator[S]], runs: Sequence[range]) -> S:
    """Run the tasks and the additions as one graph of Dask."""
    # Dask remembers results by their keys, so no two passes may share a key.
    name = f"pass-{next(_passes)}-{engine.session}"
    graph: dict[Any, Any] = {f"leaves-{name}": _Constant(leaves)}
    for i, run in enumerate(runs):
        graph[(name, 0, i)] = (_node_of_constant, f"leaves-{name}", run.start, run.stop)
    height, width = 0, len(runs)
    while width > 1:
        height += 1
        for i in range((width + 1) // 2):
            left, right = (name, height - 1, 2 * i), (name, height - 1, 2 * i + 1)
            graph[(name, height, i)] = (operator.add, left, right) if 2 * i + 1 < width else left
        width = (width + 1) // 2
    result: S = engine.compute(graph, (name, height, 0))
    return result


class _Constant:
    """Holds the work of a pass, so that Dask neither inspects nor calls it while it builds the graph."""

    def __init__(self, leaves: Callable[[range], Iterator[Any]]) -> None:
        self.leaves = leaves


def _node_of_constant(constant: _Constant, start: int, stop: int) -> Any:
    return _node(constant.leaves, range(start, stop))


def _node(leaves: Callable[[range], Iterator[S]], run: range) -> S:
    return fold(leaves(run))
