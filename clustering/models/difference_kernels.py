"""Compiled loops over columns and centers: squares of differences, and moments about the centers.

Rows are the columns of a sub-block ``(d, m)``, so that every loop runs over rows and fills the vector units. Squares
are always squares of differences, never differences of squares, so that data far from zero and clusters far apart keep
their digits. Several clusters are worked on at once, so that operands stay in registers and sums do not wait for each
other; each sum has the same order whatever is beside it.

All loops release the GIL, run on one thread, and are cached on disk after the first compilation.
"""

from __future__ import annotations

import numpy as np

from clustering.compiling import INNER, njit
from clustering.models.kernels import FAST
from clustering.models.lanes import WIDE, folded, folded_together, load, multiply_add, splat, store, where_less

STRIP = 4 * WIDE
"""Columns whose squares are computed at once."""


@njit(**INNER, **FAST)
def _padded(columns):  # type: ignore[no-untyped-def]
    """Copy fewer columns than a strip into one, with zeros behind them."""
    d, m = columns.shape
    strip = np.zeros((d, STRIP))
    for j in range(d):
        for r in range(m):
            strip[j, r] = columns[j, r]
    return strip


@njit(**INNER, **FAST)
def _squares_of_strip(columns, at, centers, out):  # type: ignore[no-untyped-def]
    """Do as `squares` does for the columns of a strip from `at` on."""
    d, m = columns.shape
    k = centers.shape[0]
    for i in range(0, k, 2):
        # An odd last center is worked on twice.
        h = min(i + 1, k - 1)
        a0 = splat(0.0)
        a1 = splat(0.0)
        a2 = splat(0.0)
        a3 = splat(0.0)
        b0 = splat(0.0)
        b1 = splat(0.0)
        b2 = splat(0.0)
        b3 = splat(0.0)
        for j in range(d):
            p = j * m + at
            x0 = load(columns, p)
            x1 = load(columns, p + WIDE)
            x2 = load(columns, p + 2 * WIDE)
            x3 = load(columns, p + 3 * WIDE)
            c = splat(centers[i, j])
            t0, t1, t2, t3 = x0 - c, x1 - c, x2 - c, x3 - c
            a0 = multiply_add(t0, t0, a0)
            a1 = multiply_add(t1, t1, a1)
            a2 = multiply_add(t2, t2, a2)
            a3 = multiply_add(t3, t3, a3)
            c = splat(centers[h, j])
            t0, t1, t2, t3 = x0 - c, x1 - c, x2 - c, x3 - c
            b0 = multiply_add(t0, t0, b0)
            b1 = multiply_add(t1, t1, b1)
            b2 = multiply_add(t2, t2, b2)
            b3 = multiply_add(t3, t3, b3)
        _put_strip(a0, a1, a2, a3, out, i * m + at)
        _put_strip(b0, b1, b2, b3, out, h * m + at)


@njit(**INNER, **FAST)
def _scaled_squares_of_strip(columns, at, centers, scales, out):  # type: ignore[no-untyped-def]
    """Do as `scaled_squares` does for the columns of a strip from `at` on."""
    d, m = columns.shape
    k = centers.shape[0]
    for i in range(0, k, 2):
        h = min(i + 1, k - 1)
        a0 = splat(0.0)
        a1 = splat(0.0)
        a2 = splat(0.0)
        a3 = splat(0.0)
        b0 = splat(0.0)
        b1 = splat(0.0)
        b2 = splat(0.0)
        b3 = splat(0.0)
        for j in range(d):
            p = j * m + at
            x0 = load(columns, p)
            x1 = load(columns, p + WIDE)
            x2 = load(columns, p + 2 * WIDE)
            x3 = load(columns, p + 3 * WIDE)
            c, s = splat(centers[i, j]), splat(scales[i, j])
            t0, t1, t2, t3 = x0 - c, x1 - c, x2 - c, x3 - c
            a0 = multiply_add(s * t0, t0, a0)
            a1 = multiply_add(s * t1, t1, a1)
            a2 = multiply_add(s * t2, t2, a2)
            a3 = multiply_add(s * t3, t3, a3)
            c, s = splat(centers[h, j]), splat(scales[h, j])
            t0, t1, t2, t3 = x0 - c, x1 - c, x2 - c, x3 - c
            b0 = multiply_add(s * t0, t0, b0)
            b1 = multiply_add(s * t1, t1, b1)
            b2 = multiply_add(s * t2, t2, b2)
            b3 = multiply_add(s * t3, t3, b3)
        _put_strip(a0, a1, a2, a3, out, i * m + at)
        _put_strip(b0, b1, b2, b3, out, h * m + at)


@njit(inline="always", **FAST)
def _put_strip(a0, a1, a2, a3, out, at):  # type: ignore[no-untyped-def]
    store(out, at, a0)
    store(out, at + WIDE, a1)
    store(out, at + 2 * WIDE, a2)
    store(out, at + 3 * WIDE, a3)


@njit(**FAST)
def squares(columns, centers, out):  # type: ignore[no-untyped-def]
    """Compute squared distances of columns from all centers.

    Parameters
    ----------
    columns, centers
        Columns ``(d, m)`` and centers ``(k, d)``, less the same origin.
    out
        Gets the squared distances ``(k, m)``.
    """
    m = columns.shape[1]
    if m < STRIP:
        made = np.empty((centers.shape[0], STRIP))
        _squares_of_strip(_padded(columns), 0, centers, made)
        for k in range(centers.shape[0]):
            for r in range(m):
                out[k, r] = made[k, r]
        return
    for r in range(0, m, STRIP):
        # The last strip ends at the last column, and may repeat some of the strip before it.
        _squares_of_strip(columns, min(r, m - STRIP), centers, out)


@njit(**FAST)
def scaled_squares(columns, centers, scales, out):  # type: ignore[no-untyped-def]
    """Compute Σ_j scale·(x − c)² of columns and all centers.

    Parameters
    ----------
    columns, centers
        Columns ``(d, m)`` and centers ``(k, d)``, less the same origin.
    scales
        Factor of each square ``(k, d)``.
    out
        Gets the sums ``(k, m)``.
    """
    m = columns.shape[1]
    if m < STRIP:
        made = np.empty((centers.shape[0], STRIP))
        _scaled_squares_of_strip(_padded(columns), 0, centers, scales, made)
        for k in range(centers.shape[0]):
            for r in range(m):
                out[k, r] = made[k, r]
        return
    for r in range(0, m, STRIP):
        _scaled_squares_of_strip(columns, min(r, m - STRIP), centers, scales, out)


# The sums below are made of vectors, in an order of their own. The compiler would choose another one by what stands
# around a loop, and so by whether a kernel comes from the cache.
@njit(**INNER, **FAST)
def _add_weights(weighted_resp, weight):  # type: ignore[no-untyped-def]
    """Add the shares of each cluster to `weight`, and return them, with a copy of the last one behind."""
    n, m = weighted_resp.shape
    whole = m - m % WIDE
    shares = np.empty(n + 1)
    for k in range(0, n, 4):
        # Four sums do not wait for each other. Behind the last cluster they repeat it.
        k1, k2, k3 = min(k + 1, n - 1), min(k + 2, n - 1), min(k + 3, n - 1)
        a0 = splat(0.0)
        a1 = splat(0.0)
        a2 = splat(0.0)
        a3 = splat(0.0)
        for r in range(0, whole, WIDE):
            a0 = a0 + load(weighted_resp, k * m + r)
            a1 = a1 + load(weighted_resp, k1 * m + r)
            a2 = a2 + load(weighted_resp, k2 * m + r)
            a3 = a3 + load(weighted_resp, k3 * m + r)
        shares[k] = folded(a0)
        shares[k1] = folded(a1)
        shares[k2] = folded(a2)
        shares[k3] = folded(a3)
    for k in range(n):
        for r in range(whole, m):
            shares[k] += weighted_resp[k, r]
        weight[k] += shares[k]
    shares[n] = shares[n - 1]
    return shares


@njit(**FAST)
def first_about(columns, centers, weighted_resp, weight, first):  # type: ignore[no-untyped-def]
    """Add up first moments about the centers.

    Parameters
    ----------
    columns, centers
        Columns ``(d, m)`` and centers ``(k, d)``, less the same origin.
    weighted_resp
        Shares s, which are responsibilities times weights ``(k, m)``.
    weight, first
        Σ s ``(k,)`` and Σ s (x − c) ``(k, d)``, which are added to.
    """
    d, m = columns.shape
    n = centers.shape[0]
    whole = m - m % WIDE
    moved = np.empty(WIDE)
    shares = _add_weights(weighted_resp, weight)
    # Four features and two clusters at a time: eight sums do not wait for each other, and four columns stay in the
    # first-level cache. An odd last cluster and the last feature are repeated, and the repeated sums are left out.
    for j in range(0, d, 4):
        j1, j2, j3 = min(j + 1, d - 1), min(j + 2, d - 1), min(j + 3, d - 1)
        for k in range(0, n, 2):
            # Clusters far from all rows of a sub-block have no share of it, and cost no more.
            if shares[k] == 0.0 and shares[k + 1] == 0.0:
                continue
            h = min(k + 1, n - 1)
            c0, c1, c2, c3 = splat(centers[k, j]), splat(centers[k, j1]), splat(centers[k, j2]), splat(centers[k, j3])
            e0, e1, e2, e3 = splat(centers[h, j]), splat(centers[h, j1]), splat(centers[h, j2]), splat(centers[h, j3])
            a0 = splat(0.0)
            a1 = splat(0.0)
            a2 = splat(0.0)
            a3 = splat(0.0)
            b0 = splat(0.0)
            b1 = splat(0.0)
            b2 = splat(0.0)
            b3 = splat(0.0)
            for r in range(0, whole, WIDE):
                s = load(weighted_resp, k * m + r)
                u = load(weighted_resp, h * m + r)
                x0 = load(columns, j * m + r)
                x1 = load(columns, j1 * m + r)
                x2 = load(columns, j2 * m + r)
                x3 = load(columns, j3 * m + r)
                a0 = multiply_add(s, x0 - c0, a0)
                a1 = multiply_add(s, x1 - c1, a1)
                a2 = multiply_add(s, x2 - c2, a2)
                a3 = multiply_add(s, x3 - c3, a3)
                b0 = multiply_add(u, x0 - e0, b0)
                b1 = multiply_add(u, x1 - e1, b1)
                b2 = multiply_add(u, x2 - e2, b2)
                b3 = multiply_add(u, x3 - e3, b3)
            store(moved, 0, folded_together(a0, a1, a2, a3, b0, b1, b2, b3))
            for q in range(min(4, d - j)):
                first[k, j + q] += moved[q]
                if h > k:
                    first[h, j + q] += moved[4 + q]
    if whole < m:
        _add_last(columns, centers, weighted_resp, first, first, squared=False)


@njit(**FAST)
def diagonal_about(columns, centers, weighted_resp, weight, first, second):  # type: ignore[no-untyped-def]
    """Add up first moments about the centers, and second moments of each feature.

    Parameters
    ----------
    columns, centers, weighted_resp, weight, first
        As in `first_about`.
    second
        Σ s (x − c)² ``(k, d)``, which is added to.
    """
    d, m = columns.shape
    n = centers.shape[0]
    whole = m - m % WIDE
    moved = np.empty(WIDE)
    shares = _add_weights(weighted_resp, weight)
    # As in `first_about`, with two features and two clusters at a time.
    for j in range(0, d, 2):
        j1 = min(j + 1, d - 1)
        for k in range(0, n, 2):
            if shares[k] == 0.0 and shares[k + 1] == 0.0:
                continue
            h = min(k + 1, n - 1)
            c0, c1 = splat(centers[k, j]), splat(centers[k, j1])
            e0, e1 = splat(centers[h, j]), splat(centers[h, j1])
            a0 = splat(0.0)
            a1 = splat(0.0)
            b0 = splat(0.0)
            b1 = splat(0.0)
            v0 = splat(0.0)
            v1 = splat(0.0)
            w0 = splat(0.0)
            w1 = splat(0.0)
            for r in range(0, whole, WIDE):
                s = load(weighted_resp, k * m + r)
                u = load(weighted_resp, h * m + r)
                x0 = load(columns, j * m + r)
                x1 = load(columns, j1 * m + r)
                t = x0 - c0
                p = s * t
                a0 = a0 + p
                v0 = multiply_add(p, t, v0)
                t = x1 - c1
                p = s * t
                a1 = a1 + p
                v1 = multiply_add(p, t, v1)
                t = x0 - e0
                p = u * t
                b0 = b0 + p
                w0 = multiply_add(p, t, w0)
                t = x1 - e1
                p = u * t
                b1 = b1 + p
                w1 = multiply_add(p, t, w1)
            store(moved, 0, folded_together(a0, a1, b0, b1, v0, v1, w0, w1))
            for q in range(min(2, d - j)):
                first[k, j + q] += moved[q]
                second[k, j + q] += moved[4 + q]
                if h > k:
                    first[h, j + q] += moved[2 + q]
                    second[h, j + q] += moved[6 + q]
    if whole < m:
        _add_last(columns, centers, weighted_resp, first, second, squared=True)


@njit(**INNER, **FAST)
def _add_last(columns, centers, weighted_resp, first, second, squared):  # type: ignore[no-untyped-def]
    """Add the moments of the columns behind the last whole vector; second moments only where `squared`."""
    d, m = columns.shape
    for k in range(centers.shape[0]):
        for j in range(d):
            moment = 0.0
            square = 0.0
            for r in range(m - m % WIDE, m):
                t = columns[j, r] - centers[k, j]
                part = weighted_resp[k, r] * t
                moment += part
                square += part * t
            first[k, j] += moment
            if squared:
                second[k, j] += square


@njit(**INNER, **FAST)
def weighted_squares(squares, weighted_resp, scales, second):  # type: ignore[no-untyped-def]
    """Add up squares that were multiplied by the scale of their cluster.

    Parameters
    ----------
    squares, weighted_resp
        Scaled squares, and shares s ``(k, m)``.
    scales
        Scale of each cluster ``(k,)``.
    second
        Σ s square / scale ``(k,)``, which is added to.
    """
    n, m = squares.shape
    whole = m - m % WIDE
    zero = splat(0.0)
    for k in range(n):
        sums = zero
        for r in range(0, whole, WIDE):
            s = load(weighted_resp, k * m + r)
            # A square without a share may be infinite.
            sums = sums + where_less(zero, s, s * load(squares, k * m + r), zero)
        total = folded(sums)
        for r in range(whole, m):
            if weighted_resp[k, r] > 0.0:
                total += weighted_resp[k, r] * squares[k, r]
        second[k] += total / scales[k]


@njit(**INNER, **FAST)
def overlaps(resp, weighted_resp, overlap):  # type: ignore[no-untyped-def]
    """Add up products of the responsibilities of each pair of clusters.

    Parameters
    ----------
    resp, weighted_resp
        Responsibilities r ``(k, m)``, and s, the same times weights ``(k, m)``.
    overlap
        Σ r_i s_j ``(k, k)``, which is added to.
    """
    k, m = resp.shape
    whole = m - m % WIDE
    for i in range(k):
        for j in range(k):
            p = resp[i]
            q = weighted_resp[j]
            sums = splat(0.0)
            for r in range(0, whole, WIDE):
                sums = multiply_add(load(p, r), load(q, r), sums)
            total = folded(sums)
            for r in range(whole, m):
                total += p[r] * q[r]
            overlap[i, j] += total
