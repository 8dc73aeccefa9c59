"""The order in which the statistics of blocks are added: pairwise over block indices.

The node ``(level, i)`` is ``(level − 1, 2i) + (level − 1, 2i + 1)``. Where the right child is missing, the node is the
left child. Sums in this order have the same bits wherever they are made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Additive(Protocol):
    """Statistics of some rows; ``+`` gives those of the rows of both."""

    def __add__(self: S, other: S, /) -> S: ...


S = TypeVar("S", bound=Additive)


def fold(leaves: Iterable[S]) -> S:
    """Add up leaves in the order of the tree, holding at most one node per level in memory.

    Parameters
    ----------
    leaves
        Statistics of blocks, in order; at least one.
    """
    nodes: list[tuple[int, S]] = []
    for leaf in leaves:
        level, node = 0, leaf
        # Two nodes of one level are added at once, like the carry of a binary counter.
        while nodes and nodes[-1][0] == level:
            node = nodes.pop()[1] + node
            level += 1
        nodes.append((level, node))
    total = nodes.pop()[1]
    # Nodes without a right sibling are left: they are added from the lowest level up.
    while nodes:
        total = nodes.pop()[1] + total
    return total
