"""Compiled loops over full covariances: squared Mahalanobis distances, and second moments about the centers.

Rows are columns of a sub-block ``(d, m)``. Differences from a center come first, so that nothing cancels. Four lines of
a matrix are worked on at once, so that sums and most operands stay in registers. How many columns meet them depends on
the processor, and the order of every sum does not.

All loops release the GIL, run on one thread, and are cached on disk after the first compilation.
"""

from __future__ import annotations

import numpy as np

from clustering.compiling import INNER, njit
from clustering.models.kernels import FAST
from clustering.models.lane_functions import root
from clustering.models.lanes import (
    MANY_REGISTERS,
    WIDE,
    element,
    folded,
    folded_together,
    load,
    multiply_add,
    repeated,
    splat,
    store,
)

LINES = 4
"""Lines of a matrix that lie side by side, and sides of the blocks that second moments are added up in."""
TILE = 2 * WIDE if MANY_REGISTERS else WIDE
"""Columns that meet four lines at once."""
AT_LEAST, CACHED_BYTES = 256, 32 * 1024
"""Rows that second moments are added up over at once: as many as a first-level cache holds, and not too few, because
the end of a sum costs as much as many rows."""


@njit(**FAST)
def pack(matrices, packed):  # type: ignore[no-untyped-def]
    """Pack lower triangular matrices so that four lines lie side by side, with zeros for lines beyond the last.

    Parameters
    ----------
    matrices
        Matrices ``(k, d, d)``.
    packed
        Gets the elements ``(k, ⌈d / 4⌉, d, 4)``.
    """
    packed[:] = 0.0
    for k in range(matrices.shape[0]):
        for i in range(matrices.shape[1]):
            for j in range(i + 1):
                packed[k, i // LINES, j, i % LINES] = matrices[k, i, j]


@njit(inline="always", **FAST)
def _take_tile(columns, at, center, tile):  # type: ignore[no-untyped-def]
    """Copy columns from `at` on, less a center, into a tile, with zeros behind the last column."""
    d, m = columns.shape
    if at + TILE <= m:
        for j in range(d):
            c = splat(center[j])
            for r in range(0, TILE, WIDE):
                store(tile, j * TILE + r, load(columns, j * m + at + r) - c)
        return
    for j in range(d):
        for r in range(TILE):
            tile[j * TILE + r] = columns[j, at + r] - center[j] if at + r < m else 0.0


@njit(inline="always", **FAST)
def _multiply_eight(packed, p, tile, end):  # type: ignore[no-untyped-def]
    """Multiply the first `end` elements of four packed lines from `p` on by the eight columns of a tile."""
    a0 = splat(0.0)
    a1 = splat(0.0)
    a2 = splat(0.0)
    a3 = splat(0.0)
    for j in range(end):
        x = load(tile, j * WIDE)
        q = p + j * LINES
        a0 = multiply_add(x, repeated(packed, q), a0)
        a1 = multiply_add(x, repeated(packed, q + 1), a1)
        a2 = multiply_add(x, repeated(packed, q + 2), a2)
        a3 = multiply_add(x, repeated(packed, q + 3), a3)
    return a0, a1, a2, a3


@njit(inline="always", **FAST)
def _multiply_sixteen(packed, p, tile, end):  # type: ignore[no-untyped-def]
    """Do as `_multiply_eight` does for the sixteen columns of a tile."""
    a0 = splat(0.0)
    a1 = splat(0.0)
    a2 = splat(0.0)
    a3 = splat(0.0)
    b0 = splat(0.0)
    b1 = splat(0.0)
    b2 = splat(0.0)
    b3 = splat(0.0)
    for j in range(end):
        x = load(tile, j * 2 * WIDE)
        y = load(tile, j * 2 * WIDE + WIDE)
        q = p + j * LINES
        t0 = repeated(packed, q)
        t1 = repeated(packed, q + 1)
        t2 = repeated(packed, q + 2)
        t3 = repeated(packed, q + 3)
        a0 = multiply_add(x, t0, a0)
        a1 = multiply_add(x, t1, a1)
        a2 = multiply_add(x, t2, a2)
        a3 = multiply_add(x, t3, a3)
        b0 = multiply_add(y, t0, b0)
        b1 = multiply_add(y, t1, b1)
        b2 = multiply_add(y, t2, b2)
        b3 = multiply_add(y, t3, b3)
    return a0, a1, a2, a3, b0, b1, b2, b3


@njit(**FAST)
def factored_squares(columns, centers, packed, out):  # type: ignore[no-untyped-def]
    """Compute ‖A (x − c)‖² of columns and all centers.

    Parameters
    ----------
    columns, centers
        Columns ``(d, m)`` and centers ``(k, d)``, less the same origin.
    packed
        Lower triangular A of each center, or one for all of them, as `pack` packs them.
    out
        Gets the squares ``(k, m)``.
    """
    d, m = columns.shape
    strips = packed.shape[1]
    tile = np.empty(d * TILE)
    squares = np.empty(TILE)
    for k in range(centers.shape[0]):
        matrix = min(k, packed.shape[0] - 1)
        for r in range(0, m, TILE):
            _take_tile(columns, r, centers[k], tile)
            total = splat(0.0)
            other = splat(0.0)
            for i in range(strips):
                p = (matrix * strips + i) * d * LINES
                # Elements behind the diagonal are zero.
                end = min(d, (i + 1) * LINES)
                if MANY_REGISTERS:
                    a0, a1, a2, a3, b0, b1, b2, b3 = _multiply_sixteen(packed, p, tile, end)
                    other = other + ((b0 * b0 + b1 * b1) + (b2 * b2 + b3 * b3))
                else:
                    a0, a1, a2, a3 = _multiply_eight(packed, p, tile, end)
                total = total + ((a0 * a0 + a1 * a1) + (a2 * a2 + a3 * a3))
            store(squares, 0, total)
            if MANY_REGISTERS:
                store(squares, WIDE, other)
            for q in range(min(TILE, m - r)):
                out[k, r + q] = squares[q]


@njit(**FAST)
def multiply(packed, columns, out):  # type: ignore[no-untyped-def]
    """Multiply a lower triangular matrix and columns.

    Parameters
    ----------
    packed
        Matrix, packed ``(1, ⌈d / 4⌉, d, 4)`` as `pack` does it.
    columns
        Columns ``(d, m)``.
    out
        Gets the product ``(d, m)``.
    """
    d, m = columns.shape
    tile = np.empty(d * TILE)
    zero = np.zeros(d)
    lines = np.empty((LINES, TILE))
    for r in range(0, m, TILE):
        _take_tile(columns, r, zero, tile)
        for i in range(packed.shape[1]):
            p = i * d * LINES
            end = min(d, (i + 1) * LINES)
            if MANY_REGISTERS:
                a0, a1, a2, a3, b0, b1, b2, b3 = _multiply_sixteen(packed, p, tile, end)
                store(lines, WIDE, b0)
                store(lines, TILE + WIDE, b1)
                store(lines, 2 * TILE + WIDE, b2)
                store(lines, 3 * TILE + WIDE, b3)
            else:
                a0, a1, a2, a3 = _multiply_eight(packed, p, tile, end)
            store(lines, 0, a0)
            store(lines, TILE, a1)
            store(lines, 2 * TILE, a2)
            store(lines, 3 * TILE, a3)
            for q in range(i * LINES, min(d, (i + 1) * LINES)):
                for s in range(min(TILE, m - r)):
                    out[q, r + s] = lines[q - i * LINES, s]


@njit(inline="always", **FAST)
def _take_shares(weighted_resp, at, count, shares):  # type: ignore[no-untyped-def]
    """Copy `count` shares from `at` on, with zeros behind them up to a whole vector, and return their sum."""
    whole = count - count % WIDE
    total = splat(0.0)
    for r in range(0, whole, WIDE):
        s = load(weighted_resp, at + r)
        store(shares, r, s)
        total = total + s
    if whole < count:
        store(shares, whole, splat(0.0))
        for r in range(whole, count):
            shares[r] = element(weighted_resp, at + r)
        total = total + load(shares, whole)
    return folded(total)


@njit(inline="always", **FAST)
def _two_by_two(diff, i, j, width):  # type: ignore[no-untyped-def]
    """Multiply two lines from `i` on by two from `j` on; eight columns are added up at once."""
    a0 = splat(0.0)
    a1 = splat(0.0)
    b0 = splat(0.0)
    b1 = splat(0.0)
    for r in range(0, width, WIDE):
        x = load(diff, i * width + r)
        y = load(diff, (i + 1) * width + r)
        t = load(diff, j * width + r)
        u = load(diff, (j + 1) * width + r)
        a0 = multiply_add(x, t, a0)
        a1 = multiply_add(x, u, a1)
        b0 = multiply_add(y, t, b0)
        b1 = multiply_add(y, u, b1)
    return a0, a1, b0, b1


@njit(inline="always", **FAST)
def _four_by_four(diff, i, j, width):  # type: ignore[no-untyped-def]
    """Multiply four lines from `i` on by four from `j` on; eight columns are added up at once."""
    a0 = splat(0.0)
    a1 = splat(0.0)
    a2 = splat(0.0)
    a3 = splat(0.0)
    b0 = splat(0.0)
    b1 = splat(0.0)
    b2 = splat(0.0)
    b3 = splat(0.0)
    c0 = splat(0.0)
    c1 = splat(0.0)
    c2 = splat(0.0)
    c3 = splat(0.0)
    d0 = splat(0.0)
    d1 = splat(0.0)
    d2 = splat(0.0)
    d3 = splat(0.0)
    for r in range(0, width, WIDE):
        t0 = load(diff, j * width + r)
        t1 = load(diff, (j + 1) * width + r)
        t2 = load(diff, (j + 2) * width + r)
        t3 = load(diff, (j + 3) * width + r)
        x = load(diff, i * width + r)
        a0 = multiply_add(x, t0, a0)
        a1 = multiply_add(x, t1, a1)
        a2 = multiply_add(x, t2, a2)
        a3 = multiply_add(x, t3, a3)
        x = load(diff, (i + 1) * width + r)
        b0 = multiply_add(x, t0, b0)
        b1 = multiply_add(x, t1, b1)
        b2 = multiply_add(x, t2, b2)
        b3 = multiply_add(x, t3, b3)
        x = load(diff, (i + 2) * width + r)
        c0 = multiply_add(x, t0, c0)
        c1 = multiply_add(x, t1, c1)
        c2 = multiply_add(x, t2, c2)
        c3 = multiply_add(x, t3, c3)
        x = load(diff, (i + 3) * width + r)
        d0 = multiply_add(x, t0, d0)
        d1 = multiply_add(x, t1, d1)
        d2 = multiply_add(x, t2, d2)
        d3 = multiply_add(x, t3, d3)
    return a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3


@njit(**INNER, **FAST)
def _take_scaled(columns, at, count, center, shares, roots, diff, moved):  # type: ignore[no-untyped-def]
    """Put differences of columns from a center, times the roots of their shares, into `diff`; add up first moments."""
    d, m = columns.shape
    whole = count - count % WIDE
    width = -(-count // WIDE) * WIDE
    for j in range(d):
        c = splat(center[j])
        total = splat(0.0)
        for r in range(0, whole, WIDE):
            t = load(columns, j * m + at + r) - c
            total = multiply_add(load(shares, r), t, total)
            store(diff, j * width + r, load(roots, r) * t)
        if whole < count:
            store(diff, j * width + whole, splat(0.0))
            for r in range(whole, count):
                diff[j * width + r] = columns[j, at + r] - center[j]
            t = load(diff, j * width + whole)
            total = multiply_add(load(shares, whole), t, total)
            store(diff, j * width + whole, load(roots, whole) * t)
        moved[j] += folded(total)
    return width


@njit(**INNER, **FAST)
def _add_products(d, width, diff, blocks):  # type: ignore[no-untyped-def]
    """Add the products of all lines of `diff` to `blocks` of four by four."""
    block = 0
    for i in range(0, d, LINES):
        # The matrix is symmetric, so half of it is added up.
        for j in range(0, i + 1, LINES):
            if MANY_REGISTERS:
                a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3 = _four_by_four(diff, i, j, width)
            else:
                a0, a1, b0, b1 = _two_by_two(diff, i, j, width)
                a2, a3, b2, b3 = _two_by_two(diff, i, j + 2, width)
                c0, c1, d0, d1 = _two_by_two(diff, i + 2, j, width)
                c2, c3, d2, d3 = _two_by_two(diff, i + 2, j + 2, width)
            upper = folded_together(a0, a1, a2, a3, b0, b1, b2, b3)
            lower = folded_together(c0, c1, c2, c3, d0, d1, d2, d3)
            store(blocks, block, load(blocks, block) + upper)
            store(blocks, block + WIDE, load(blocks, block + WIDE) + lower)
            block += LINES * LINES


@njit(**INNER, **FAST)
def _unpack(blocks, d, second):  # type: ignore[no-untyped-def]
    """Add blocks of four by four of the lower half of a symmetric matrix to the matrix ``(d, d)``."""
    block = 0
    for i in range(0, d, LINES):
        for j in range(0, i + 1, LINES):
            for q in range(i, min(d, i + LINES)):
                for p in range(j, min(q + 1, j + LINES)):
                    moment = blocks[block + (q - i) * LINES + p - j]
                    second[q, p] += moment
                    if p < q:
                        second[p, q] += moment
            block += LINES * LINES


@njit(**FAST)
def full_about(columns, centers, weighted_resp, weight, first, second):  # type: ignore[no-untyped-def]
    """Add up first and second moments about the centers.

    Parameters
    ----------
    columns, centers
        Columns ``(d, m)`` and centers ``(k, d)``, less the same origin.
    weighted_resp
        Shares s, which are responsibilities times weights ``(k, m)``.
    weight, first
        Σ s ``(k,)`` and Σ s (x − c) ``(k, d)``, which are added to.
    second
        Σ s (x − c)(x − c)ᵀ ``(k, d, d)``, which is added to.
    """
    d, m = columns.shape
    strips = -(-d // LINES)
    length = min(m, max(AT_LEAST, CACHED_BYTES // (8 * d) // WIDE * WIDE))
    room = length + WIDE
    # Lines behind the last feature fill the last blocks with products that nobody reads.
    diff = np.empty(strips * LINES * room)
    shares = np.empty(room)
    roots = np.empty(room)
    moved = np.empty(d)
    blocks = np.empty(strips * (strips + 1) // 2 * LINES * LINES)
    for k in range(centers.shape[0]):
        moved[:] = 0.0
        blocks[:] = 0.0
        total = 0.0
        for start in range(0, m, length):
            count = min(length, m - start)
            share = _take_shares(weighted_resp, k * m + start, count, shares)
            # A cluster far from all these rows has no share of them, and costs no more.
            if share == 0.0:
                continue
            total += share
            for r in range(0, count, WIDE):
                store(roots, r, root(load(shares, r)))
            width = _take_scaled(columns, start, count, centers[k], shares, roots, diff, moved)
            _add_products(d, width, diff, blocks)
        if total > 0.0:
            weight[k] += total
            for j in range(d):
                first[k, j] += moved[j]
            _unpack(blocks, d, second[k])
