"""The map-reduce over blocks: one tree of additions for every engine.

The tree is that of `clustering.models.tree`. A task computes one of its nodes from an aligned run of 2^level blocks. So
the number of tasks may depend on the number of threads, while the order of every addition stays the same.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from clustering.execution.engine import Engine
from clustering.models.tree import S, fold

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
    # Dask remembers results by their keys, so no two passes may share a key.
    name = f"pass-{next(_passes)}-{engine.session}"
    graph: dict[Any, Any] = {f"leaves-{name}": _Constant(leaves)}
    runs = -(-n_blocks >> level)
    for i in range(runs):
        graph[(name, 0, i)] = (_run, f"leaves-{name}", i << level, min(n_blocks, (i + 1) << level))
    height = 0
    while runs > 1:
        height += 1
        for i in range((runs + 1) // 2):
            left, right = (name, height - 1, 2 * i), (name, height - 1, 2 * i + 1)
            graph[(name, height, i)] = (operator.add, left, right) if 2 * i + 1 < runs else left
        runs = (runs + 1) // 2
    result: S = engine.compute(graph, (name, height, 0))
    return result


class _Constant:
    """Holds the work of a pass, so that Dask neither inspects nor calls it while it builds the graph."""

    def __init__(self, leaves: Callable[[range], Iterator[Any]]) -> None:
        self.leaves = leaves


def _run(constant: _Constant, start: int, stop: int) -> Any:
    return fold(constant.leaves(range(start, stop)))
