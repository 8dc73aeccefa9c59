"""The map-reduce over blocks: one tree, whatever carries it out.

The tree is pairwise over block indices: the node ``(level, i)`` is ``(level − 1, 2i) + (level − 1, 2i + 1)``, a missing
right child leaving the left one as it is. A task takes an aligned run of 2^level blocks and returns that node, so the
number of tasks may follow the number of threads while the order of every addition stays the same.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Protocol, TypeVar

from clustering.execution.engine import Engine

TASKS_PER_THREAD = 4
"""Tasks of a pass at most, per thread."""

_passes = count()


class Additive(Protocol):
    """Statistics of some rows; ``+`` gives those of the rows of both."""

    def __add__(self: S, other: S, /) -> S: ...


S = TypeVar("S", bound=Additive)


def map_reduce(leaves: Callable[[range], Iterator[S]], n_blocks: int, engine: Engine) -> S:
    """Add up the statistics of all blocks, in the order of the tree.

    Parameters
    ----------
    leaves
        Makes the statistics of a run of blocks, one after the other; picklable where the engine has other processes.
    n_blocks
        Number of blocks, 1 or more.
    engine
        Who carries out the tasks.

    Returns
    -------
    S
        The same bits for every engine and every number of workers.
    """
    level = 0
    while -(-n_blocks >> level) > TASKS_PER_THREAD * engine.threads:
        level += 1
    # A cluster remembers keys: no two passes may share any.
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
    """Holds the work of a pass, so that Dask neither looks inside nor calls it while it builds the graph."""

    def __init__(self, leaves: Callable[[range], Iterator[Any]]) -> None:
        self.leaves = leaves


def _run(constant: _Constant, start: int, stop: int) -> Any:
    return fold(constant.leaves(range(start, stop)))


def fold(leaves: Iterator[S]) -> S:
    """Add up leaves in the order of the tree, holding one node per level at most."""
    nodes: list[tuple[int, S]] = []
    for leaf in leaves:
        level, node = 0, leaf
        while nodes and nodes[-1][0] == level:
            node = nodes.pop()[1] + node
            level += 1
        nodes.append((level, node))
    total = nodes.pop()[1]
    while nodes:
        total = nodes.pop()[1] + total
    return total
