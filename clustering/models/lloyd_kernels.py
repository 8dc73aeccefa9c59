"""The compiled pass of k-means: label, add up and find the farthest rows, one tile of rows at a time.

One call works on a run of blocks and adds their sums in the order of `tree`. A tile is small enough that the rows are
read from memory once. Labels and distances are those that `kernels` defines. Only the loading of a row depends on its
type, so one compiled version serves all types. The tuples that the kernels take are described in `lloyd_buffers`.
"""

from __future__ import annotations

import numpy as np
from numba.extending import overload

from clustering.compiling import INLINED, INNER, njit
from clustering.models.few_features_buffers import FewFeatures
from clustering.models.few_features_kernels import end_few
from clustering.models.filling_kernels import fill
from clustering.models.in_place_buffers import InPlace
from clustering.models.kernels import BARE, OVERLOAD
from clustering.models.labelling_kernels import label, widen_row
from clustering.models.lane_types import ELEMENT_BYTES
from clustering.models.lanes import (
    NARROW,
    WIDE,
    element,
    lanes_up_to,
    load,
    lowest_bit,
    memory,
    splat,
    store,
    where_less,
)  # fmt: skip
from clustering.models.lloyd_buffers import Coming
from clustering.models.margin_kernels import end_part, fold
from clustering.models.recalling_kernels import recall

SUM_ROWS = 1024
"""Rows that are added up separately first. The rounding error then grows with the rows of a run plus the number of
runs, not with all rows."""


def _take_rows(run, b, start, m, d, centers, tile, way):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Put rows into the tile and return 0, or return the address of rows of float32 that are read where they are."""
    raise TypeError("_take_rows is part of compiled code, and no function of Python")


@overload(_take_rows, jit_options=OVERLOAD)  # type: ignore[arg-type]
def _take_rows_by_way(run, b, start, m, d, centers, tile, way):  # type: ignore[no-untyped-def]  # noqa: ARG001
    return _rows_in_place if way.instance_class in (InPlace, FewFeatures) else _rows_in_tile


def _rows_in_place(run, b, start, m, d, centers, tile, way):  # type: ignore[no-untyped-def]  # noqa: ARG001
    address = run.values[b] + start * d * 4
    # Four features or more are loaded at once.
    if m % NARROW == 0 and (d % 4 == 0 or start + m < run.lengths[b]):
        return address
    rows = memory(address, np.float32)
    for i in range(m * d):
        way.rest[i] = element(rows, i)
    return way.rest_address


def _rows_in_tile(run, b, start, m, d, centers, tile, way):  # type: ignore[no-untyped-def]  # noqa: ARG001
    fill(run.values[b], run.types[b], start, m, run.lengths[b], d, centers.origin, tile)
    return 0


def _end_sums(way, d, sums):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Bring the sums of some rows together, if they are kept elsewhere."""
    raise TypeError("_end_sums is part of compiled code, and no function of Python")


@overload(_end_sums, jit_options=OVERLOAD)  # type: ignore[arg-type]
def _end_sums_by_way(way, d, sums):  # type: ignore[no-untyped-def]  # noqa: ARG001
    return _end_few_features if way.instance_class is FewFeatures else _end_nothing


def _end_few_features(way, d, sums):  # type: ignore[no-untyped-def]
    end_few(way, d, sums)


def _end_nothing(way, d, sums):  # type: ignore[no-untyped-def]
    pass


@njit(inline="always", **BARE)
def _position(run, b, row):  # type: ignore[no-untyped-def]
    """Find the flat position of a row of block `b` on the whole sample grid, as `Rows.positions` does."""
    cell = element(memory(run.cells[b], np.int64), row) if run.cells[b] else row
    position = 0
    factor = 1
    for a in range(run.grid.shape[0] - 1, -1, -1):
        position += (cell % run.shapes[b, a] + run.starts[b, a]) * factor
        cell //= run.shapes[b, a]
        factor *= run.grid[a]
    return position


@njit(inline="always", **BARE)
def _keep_row(position, weight, r, tile, far, count):  # type: ignore[no-untyped-def]
    """Keep row `r` of a tile if it is among the farthest, and return their number."""
    most, d = far.rows.shape
    distance = tile.distances[r]
    if count == most:
        floor = far.distances[most - 1]
        if distance < floor or (distance == floor and position > far.positions[most - 1]):
            return count
    # The row that is pushed out leaves its slot.
    slot = far.slots[most - 1] if count == most else count
    if count < most:
        count += 1
    i = count - 1
    while i > 0 and (
        far.distances[i - 1] < distance or (far.distances[i - 1] == distance and far.positions[i - 1] > position)
    ):
        far.distances[i] = far.distances[i - 1]
        far.positions[i] = far.positions[i - 1]
        far.labels[i] = far.labels[i - 1]
        far.weights[i] = far.weights[i - 1]
        far.slots[i] = far.slots[i - 1]
        i -= 1
    far.distances[i] = distance
    far.positions[i] = position
    far.labels[i] = int(tile.labels[r])
    far.weights[i] = weight
    far.slots[i] = slot
    for j in range(d):
        far.rows[slot, j] = tile.rows[r, j]
    return count


@njit(**INLINED, **BARE)
def _keep_far(run, b, single, start, m, centers, tile, far, count):  # type: ignore[no-untyped-def]
    """Keep the farthest rows of positive weight, and return their number."""
    most = far.distances.shape[0]
    for r in range(0, m, WIDE):
        # Few rows are far, so that most cost one comparison for eight of them.
        floor = splat(far.distances[most - 1] if count == most else 0.0)
        near = where_less(load(tile.distances, r), floor, splat(1.0), splat(0.0))
        others = lanes_up_to(near, 0.0)
        while others:
            row = r + lowest_bit(others)
            # Rows at distance 0 are at their center, where no cluster restarts.
            if row < m and tile.distances[row] > 0.0:
                weight = element(memory(run.weights[b], np.float64), start + row) if run.weights[b] else 1.0
                if weight > 0.0:
                    widen_row(single, row, far.rows.shape[1], centers.origin, tile.rows)
                    count = _keep_row(_position(run, b, start + row), weight, row, tile, far, count)
            others &= others - 1
    return count


# A function of its own would be optimised here, and once more with its caller.
@njit(inline="always", **BARE)
def _add_block(run, b, centers, way, tile, sums, nodes, node, far, count, out, done, split):  # type: ignore[no-untyped-def]
    """Add the rows of block `b` to a node of zeros, and return the number of farthest rows."""
    t = tile.rows.shape[0]
    copies, k = sums.weight.shape
    width = sums.first.shape[2]
    d = far.rows.shape[1]
    n = run.lengths[b]
    size = ELEMENT_BYTES[run.types[b]]
    objective = 0.0
    for begin in range(0, n, SUM_ROWS):
        part = 0.0
        end = min(n, begin + SUM_ROWS)
        recall(run, b, begin, end, d, done, centers, tile, way)  # type: ignore[no-untyped-call]
        for start in range(begin, end, t):
            m = min(t, end - start)
            single = _take_rows(run, b, start, m, d, centers, tile, way)  # type: ignore[no-untyped-call]
            # Rows of the next tile are loaded from memory while this one is worked on.
            coming = Coming(run.values[b] + (start + m) * d * size, min(t, n - start - m) * d * size)
            part += label(  # type: ignore[no-untyped-call]
                single, start, m, d, centers, run.weights[b], tile, way, done + start, coming, sums
            )
            if copies:
                count = _keep_far(run, b, single, start, m, centers, tile, far, count)
            fold(run.weights[b], start, m, d, tile, way, split, copies > 0)  # type: ignore[no-untyped-call]
            if out.labels.shape[0]:
                for r in range(m):
                    out.labels[done + start + r] = int(tile.labels[r])
                    out.distances[done + start + r] = tile.distances[r]
        objective += part
        end_part(split)  # type: ignore[no-untyped-call]
        if copies:
            _end_sums(way, d, sums)  # type: ignore[no-untyped-call]
        for i in range(k if copies else 0):
            for c in range(copies):
                # Many clusters have none of these rows. To skip them changes no bit.
                if sums.weight[c, i] == 0.0:
                    continue
                nodes.weight[node, i] += sums.weight[c, i]
                sums.weight[c, i] = 0.0
                for j in range(0, width, WIDE):
                    p, q = (node * k + i) * width + j, (c * k + i) * width + j
                    store(nodes.first, p, load(nodes.first, p) + load(sums.first, q))
                    store(sums.first, q, splat(0.0))
    nodes.objective[node] = objective
    return count


@njit(**INNER, **BARE)
def _add_right(nodes, left):  # type: ignore[no-untyped-def]
    """Add the node after `left`, its right sibling, to it."""
    for i in range(nodes.weight.shape[1]):
        nodes.weight[left, i] += nodes.weight[left + 1, i]
        for j in range(nodes.first.shape[2]):
            nodes.first[left, i, j] += nodes.first[left + 1, i, j]
    nodes.objective[left] += nodes.objective[left + 1]


@njit(**BARE)
def lloyd(run, centers, way, tile, sums, nodes, far, out, split):  # type: ignore[no-untyped-def]
    """Label the rows of a run of blocks, and leave their sums in the first node; return the number of farthest rows.

    Parameters
    ----------
    run, centers
        Rows and centers.
    way
        Memory for a way to label tiles, which names it.
    tile, sums
        Memory for a tile, and for the sums of some of its rows; without copies, rows are labelled and not added up.
    nodes
        Memory for the nodes of the tree.
    far
        Gets the farthest rows.
    out
        Gets the labels and distances of all rows, unless it is empty.
    split
        Memory for splitting the rows of a single block by their margins, or says that they are not split.
    """
    # numba would compile what takes a literal 0 once more for that.
    count = np.int64(0)
    depth = np.int64(0)
    done = np.int64(0)
    for b in range(run.lengths.shape[0]):
        # numba would compile the filling of an array as a kernel of its own.
        for i in range(nodes.weight.shape[1]):
            nodes.weight[depth, i] = 0.0
            for j in range(nodes.first.shape[2]):
                nodes.first[depth, i, j] = 0.0
        count = _add_block(run, b, centers, way, tile, sums, nodes, depth, far, count, out, done, split)
        done += run.lengths[b]
        level = 0
        # Two nodes of one level are added at once, like the carry of a binary counter.
        while depth > 0 and nodes.level[depth - 1] == level:
            depth -= 1
            level += 1
            _add_right(nodes, depth)
        nodes.level[depth] = level
        depth += 1
    # Nodes without a right sibling are left: they are added from the lowest level up.
    while depth > 1:
        depth -= 1
        _add_right(nodes, depth - 1)
    return count
