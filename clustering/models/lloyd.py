"""One pass of k-means over rows in memory: labels, sums and farthest rows at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows, in_memory_rows
from clustering.models import lloyd_kernels
from clustering.models.assignment import AssignedRows, sub_blocks
from clustering.models.farthest import FarthestRows
from clustering.models.few_features_buffers import FewFeatures, make_few_features
from clustering.models.in_place_buffers import InPlace, make_in_place
from clustering.models.lane_types import FLOAT32
from clustering.models.lloyd_buffers import (
    ByScore,
    RowLabels,
    SplitRows,
    Unsplit,
    make_run,
    make_split,
    make_sums,
    make_tile,
)
from clustering.models.prepared_centers import Memory, PreparedCenters, prepare_centers
from clustering.models.recalled_buffers import Recalled

Array = NDArray[np.float64]


class LloydSums(NamedTuple):
    """Sums and farthest rows of a run of blocks."""

    weight: Array
    """Σw ``(k,)``."""
    first: Array
    """Σw·x ``(k, d)``, of rows less the origin."""
    objective: float
    """Σw·distance."""
    farthest: FarthestRows
    """The farthest rows of positive weight."""


def lloyd(
    blocks: Sequence[Rows],
    centers: PreparedCenters,
    most: int | None,
    by_row: RowLabels | None = None,
    split: SplitRows | None = None,
    recalled: Recalled | None = None,
) -> LloydSums:
    """Label rows by their nearest centers, add them up in the order of the tree, and keep the farthest.

    Parameters
    ----------
    blocks
        Rows of one or more blocks of one source, without missing features.
    centers
        Centers of the pass.
    most
        Largest number of farthest rows to keep; None where rows are labelled and not added up.
    by_row
        Gets the labels and squared distances of all rows.
    split
        Splits the rows of one block by their margins, see `start_split`; None where they are not split.
    recalled
        Memory for labelling all rows by the labels of the pass before; None where these are not remembered.
    """
    # Arrays are named by their addresses, so copies must live until the kernel is done.
    run, held = make_run(blocks)
    # Rows that are split or recalled are worked on in a tile.
    in_source = split is None and recalled is None and bool((run.types == FLOAT32).all())
    kind = in_source, len(blocks), most
    memory = centers.spare.take(kind) or _make_memory(centers, *kind)
    out = empty_labels(0) if by_row is None else by_row
    count = lloyd_kernels.lloyd(
        run, centers.centers, recalled or memory.way, memory.tile, memory.sums, memory.nodes, memory.far, out,
        split or Unsplit(0.0),
    )  # fmt: skip
    del held
    nodes, far = memory.nodes, memory.far
    # Indices copy, as the next call works in the same memory.
    first = np.arange(count)
    farthest = FarthestRows(
        far.distances[first], far.positions[first], far.labels[first], far.weights[first], far.rows[far.slots[first]]
    )
    sums = LloydSums(nodes.weight[0].copy(), nodes.first[0, :, : centers.d].copy(), float(nodes.objective[0]), farthest)
    centers.spare.give_back(kind, memory)
    return sums


def _make_memory(centers: PreparedCenters, in_source: bool, n_blocks: int, most: int | None) -> Memory:
    """Make the memory of a call; `in_source` says whether rows of float32 may be read where they are."""
    k, d = len(centers.centers.centers), centers.d
    tile, way = make_tile(d, centers.scores)
    sums, nodes, far = make_sums(k, d, n_blocks, most)
    in_place: InPlace | FewFeatures | None = None
    if in_source and isinstance(way, ByScore):
        in_place = make_in_place(centers.centers, way, sums)
    elif in_source and centers.few is not None:
        in_place = make_few_features(centers.centers, centers.few, len(tile.labels))
    return Memory(in_place or way, tile, sums, nodes, far)


def start_split(n: int, centers: PreparedCenters, budgets: Array) -> SplitRows:
    """Make the memory for splitting the rows of one block by their margins.

    Parameters
    ----------
    n
        Number of rows.
    centers
        Centers of the pass.
    budgets
        Margin above which a row of each cluster is far from every boundary ``(k,)``.
    """
    return make_split(n, centers.centers, centers.scores, centers.d, budgets)


def label(rows: Rows, centers: PreparedCenters, split: SplitRows | None = None) -> RowLabels:
    """Label the rows of one block by their nearest centers.

    Parameters
    ----------
    rows
        Rows of a block ``(n, d)``, without missing features.
    centers
        Centers of the pass.
    split
        Gets the margins of the rows; None where they are not wanted.
    """
    by_row = empty_labels(len(rows))
    lloyd([rows], centers, None, by_row, split)
    return by_row


def empty_labels(n: int) -> RowLabels:
    """Make the memory for labels and distances.

    Parameters
    ----------
    n
        Number of rows.
    """
    return RowLabels(np.empty(n, np.int32), np.empty(n))


def nearest(values: NDArray[Any], origin: Array, centers: Array) -> Iterator[AssignedRows]:
    """Label rows by their nearest centers, a sub-block at a time.

    Parameters
    ----------
    values
        Rows ``(n, d)``, not less the origin.
    origin, centers
        Origin ``(d,)``, and centers less the origin ``(k, d)``.
    """
    # The rows of a sub-block are less the origin already.
    prepared = prepare_centers(np.zeros(len(origin)), centers)
    for start, stop, rows in sub_blocks(values, origin):
        yield AssignedRows(start, stop, rows, *label(in_memory_rows(rows), prepared))
