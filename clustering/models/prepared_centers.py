"""Centers as the compiled pass of k-means takes them, made once for a pass, with memory that its calls share."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.models.few_features_buffers import FewFeatures
from clustering.models.in_place_buffers import InPlace
from clustering.models.lanes import MANY_REGISTERS
from clustering.models.lloyd_buffers import (
    ByScore,
    Centers,
    FarthestBuffer,
    Nodes,
    PartialSums,
    SideBySide,
    Tile,
    make_centers,
)
from clustering.models.scored_centers import Scores, are_few, make_scores, score_centers

Array = NDArray[np.float64]


class Memory(NamedTuple):
    """What a call of the compiled pass works in."""

    way: SideBySide | ByScore | InPlace | FewFeatures
    """Memory for the way that tiles are labelled."""
    tile: Tile
    sums: PartialSums
    """Sums of some rows, which are zero between two calls."""
    nodes: Nodes
    far: FarthestBuffer


class SpareMemory:
    """Memory of calls that have ended, for later ones of the same pass: to make it takes as long as 10,000 rows do.

    Threads share it. A copy in another process begins with none, as addresses mean nothing there.
    """

    def __init__(self) -> None:
        self._spare: dict[Any, list[Memory]] = {}

    def __reduce__(self) -> tuple[type[SpareMemory], tuple[()]]:
        return SpareMemory, ()

    def take(self, kind: Any) -> Memory | None:
        """Take memory of a kind, if there is any.

        Parameters
        ----------
        kind
            All that the memory depends on beside the centers; hashable.
        """
        # A list gives an element to one thread only.
        try:
            return self._spare[kind].pop()
        except (KeyError, IndexError):
            return None

    def give_back(self, kind: Any, memory: Memory) -> None:
        """Keep memory for the next call.

        Parameters
        ----------
        kind, memory
            The kind, and what `take` may return for it.
        """
        self._spare.setdefault(kind, []).append(memory)


class PreparedCenters(NamedTuple):
    """Centers of a pass."""

    d: int
    """Number of features."""
    centers: Centers
    scores: Scores | None
    """Centers for scores; None where distances cost less."""
    few: Scores | None
    """Centers for scores of rows of float32, where there are few features and few clusters; None otherwise."""
    spare: SpareMemory


def prepare_centers(origin: Array, centers: Array) -> PreparedCenters:
    """Prepare centers for a pass.

    Parameters
    ----------
    origin, centers
        Origin ``(d,)``, and centers less the origin ``(k, d)``.
    """
    k, d = centers.shape
    few = score_centers(centers) if MANY_REGISTERS and are_few(k, d) else None
    return PreparedCenters(d, make_centers(origin, centers), make_scores(centers), few, SpareMemory())
