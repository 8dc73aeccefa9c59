"""Compiled loops over full covariances: squared Mahalanobis distances, and second moments about the centers.

Rows are columns of a sub-block ``(d, m)``. Differences from a center come first, so that nothing cancels. Four lines of
a matrix are worked on at once, so that sums and most operands stay in registers. How many columns meet them depends on
the processor, and the order of every sum does not.

All loops release the GIL, run on one thread, and are cached on disk after the first compilation.
"""

from __future__ import annotations

import numpy as np

from clustering.compiling import INNER, njit
from clustering.models.kernels import FAST, aligned
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
TILE = 4 * WIDE if MANY_REGISTERS else WIDE
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
def _multiply_many(packed, p, tile, end):  # type: ignore[no-untyped-def]
    """Do as `_multiply_eight` does for the 32 columns of a tile."""
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
    for j in range(end):
        x0 = load(tile, j * TILE)
        x1 = load(tile, j * TILE + WIDE)
        x2 = load(tile, j * TILE + 2 * WIDE)
        x3 = load(tile, j * TILE + 3 * WIDE)
        q = p + j * LINES
        t = repeated(packed, q)
        a0 = multiply_add(x0, t, a0)
        b0 = multiply_add(x1, t, b0)
        c0 = multiply_add(x2, t, c0)
        d0 = multiply_add(x3, t, d0)
        t = repeated(packed, q + 1)
        a1 = multiply_add(x0, t, a1)
        b1 = multiply_add(x1, t, b1)
        c1 = multiply_add(x2, t, c1)
        d1 = multiply_add(x3, t, d1)
        t = repeated(packed, q + 2)
        a2 = multiply_add(x0, t, a2)
        b2 = multiply_add(x1, t, b2)
        c2 = multiply_add(x2, t, c2)
        d2 = multiply_add(x3, t, d2)
        t = repeated(packed, q + 3)
        a3 = multiply_add(x0, t, a3)
        b3 = multiply_add(x1, t, b3)
        c3 = multiply_add(x2, t, c3)
        d3 = multiply_add(x3, t, d3)
    return a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3


@njit(inline="always", **FAST)
def _put(numbers, out, at, count):  # type: ignore[no-untyped-def]
    """Copy the first `count` numbers of a tile to `out` from `at` on."""
    whole = count - count % WIDE
    for r in range(0, whole, WIDE):
        store(out, at + r, load(numbers, r))
    flat = out.reshape(out.size)
    for r in range(whole, count):
        flat[at + r] = numbers[r]


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
    tile = aligned(d * TILE)
    squares = aligned(TILE)
    for k in range(centers.shape[0]):
        matrix = min(k, packed.shape[0] - 1)
        for r in range(0, m, TILE):
            _take_tile(columns, r, centers[k], tile)
            total = splat(0.0)
            total1 = splat(0.0)
            total2 = splat(0.0)
            total3 = splat(0.0)
            for i in range(strips):
                p = (matrix * strips + i) * d * LINES
                # Elements behind the diagonal are zero.
                end = min(d, (i + 1) * LINES)
                if MANY_REGISTERS:
                    a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3 = _multiply_many(
                        packed, p, tile, end
                    )
                    total1 = total1 + ((b0 * b0 + b1 * b1) + (b2 * b2 + b3 * b3))
                    total2 = total2 + ((c0 * c0 + c1 * c1) + (c2 * c2 + c3 * c3))
                    total3 = total3 + ((d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3))
                else:
                    a0, a1, a2, a3 = _multiply_eight(packed, p, tile, end)
                total = total + ((a0 * a0 + a1 * a1) + (a2 * a2 + a3 * a3))
            store(squares, 0, total)
            if MANY_REGISTERS:
                store(squares, WIDE, total1)
                store(squares, 2 * WIDE, total2)
                store(squares, 3 * WIDE, total3)
            _put(squares, out, k * m + r, min(TILE, m - r))


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
    tile = aligned(d * TILE)
    zero = np.zeros(d)
    lines = aligned(LINES * TILE).reshape(LINES, TILE)
    for r in range(0, m, TILE):
        _take_tile(columns, r, zero, tile)
        for i in range(packed.shape[1]):
            p = i * d * LINES
            end = min(d, (i + 1) * LINES)
            if MANY_REGISTERS:
                a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3 = _multiply_many(packed, p, tile, end)
                store(lines, WIDE, b0)
                store(lines, TILE + WIDE, b1)
                store(lines, 2 * TILE + WIDE, b2)
                store(lines, 3 * TILE + WIDE, b3)
                store(lines, 2 * WIDE, c0)
                store(lines, TILE + 2 * WIDE, c1)
                store(lines, 2 * TILE + 2 * WIDE, c2)
                store(lines, 3 * TILE + 2 * WIDE, c3)
                store(lines, 3 * WIDE, d0)
                store(lines, TILE + 3 * WIDE, d1)
                store(lines, 2 * TILE + 3 * WIDE, d2)
                store(lines, 3 * TILE + 3 * WIDE, d3)
            else:
                a0, a1, a2, a3 = _multiply_eight(packed, p, tile, end)
            store(lines, 0, a0)
            store(lines, TILE, a1)
            store(lines, 2 * TILE, a2)
            store(lines, 3 * TILE, a3)
            count = min(TILE, m - r)
            for q in range(i * LINES, min(d, (i + 1) * LINES)):
                p = (q - i * LINES) * TILE
                for s in range(0, count - count % WIDE, WIDE):
                    store(out, q * m + r + s, load(lines, p + s))
                for s in range(count - count % WIDE, count):
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
def _scale_line(columns, j, at, count, center, shares, roots, diff, moved):  # type: ignore[no-untyped-def]
    """Do as `_take_scaled` does for the columns behind the last whole vector of line `j`."""
    whole = count - count % WIDE
    p = j * (whole + WIDE) + whole
    store(diff, p, splat(0.0))
    for r in range(count - whole):
        diff[p + r] = columns[j, at + whole + r] - center[j]
    t = load(diff, p)
    moved[j] += folded(load(shares, whole) * t)
    store(diff, p, load(roots, whole) * t)


@njit(**INNER, **FAST)
def _take_scaled(columns, at, count, center, shares, roots, diff, moved):  # type: ignore[no-untyped-def]
    """Put differences of columns from a center, times the roots of their shares, into `diff`; add up first moments."""
    d, m = columns.shape
    whole = count - count % WIDE
    width = -(-count // WIDE) * WIDE
    for j in range(0, d, LINES):
        # Four sums do not wait for each other. Behind the last line they repeat it, and nobody reads them.
        j1, j2, j3 = min(d - 1, j + 1), min(d - 1, j + 2), min(d - 1, j + 3)
        c0, c1, c2, c3 = splat(center[j]), splat(center[j1]), splat(center[j2]), splat(center[j3])
        a0 = splat(0.0)
        a1 = splat(0.0)
        a2 = splat(0.0)
        a3 = splat(0.0)
        for r in range(0, whole, WIDE):
            s = load(shares, r)
            h = load(roots, r)
            t0 = load(columns, j * m + at + r) - c0
            t1 = load(columns, j1 * m + at + r) - c1
            t2 = load(columns, j2 * m + at + r) - c2
            t3 = load(columns, j3 * m + at + r) - c3
            a0 = multiply_add(s, t0, a0)
            a1 = multiply_add(s, t1, a1)
            a2 = multiply_add(s, t2, a2)
            a3 = multiply_add(s, t3, a3)
            store(diff, j * width + r, h * t0)
            store(diff, (j + 1) * width + r, h * t1)
            store(diff, (j + 2) * width + r, h * t2)
            store(diff, (j + 3) * width + r, h * t3)
        moved[j] += folded(a0)
        moved[j + 1] += folded(a1)
        moved[j + 2] += folded(a2)
        moved[j + 3] += folded(a3)
    if whole < count:
        for j in range(d):
            _scale_line(columns, j, at, count, center, shares, roots, diff, moved)
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
            if j < i and i + LINES <= d:
                # A fixed number of elements is added by vectors.
                for q in range(LINES):
                    for p in range(LINES):
                        second[i + q, j + p] += blocks[block + q * LINES + p]
                for p in range(LINES):
                    for q in range(LINES):
                        second[j + p, i + q] += blocks[block + q * LINES + p]
            else:
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
    diff = aligned(strips * LINES * room)
    shares = aligned(room)
    roots = aligned(room)
    moved = np.empty(strips * LINES)
    blocks = aligned(strips * (strips + 1) // 2 * LINES * LINES)
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
