"""Compiled inner loops of soft assignment.

Rows are the columns of a sub-block ``(d, m)``, so that every loop runs over rows and fills the vector units. Squares
are always squares of differences, never differences of squares, so that data far from zero and clusters far apart keep
their digits.

All loops release the GIL, run on one thread, and are cached on disk after the first compilation.
"""

from __future__ import annotations

import numpy as np

from clustering.compiling import INNER, njit
from clustering.models.kernels import FAST
from clustering.models.lane_functions import LEAST_LOG, exponential, logarithm
from clustering.models.lanes import (
    WIDE,
    folded,
    load,
    multiply_add,
    splat,
    store,
    where_less,
)

TIE = 2.0**-34
"""Divergences and log densities that differ by no more than this share count as equal, so that rounding decides no
label."""


@njit(**FAST)
def center_columns(values, origin, columns, norms):  # type: ignore[no-untyped-def]
    """Subtract the origin in float64, and turn rows into columns.

    Parameters
    ----------
    values, origin
        Rows ``(m, d)`` of any real type, and the origin ``(d,)``.
    columns
        Gets the rows less the origin as columns ``(d, m)``.
    norms
        Gets their squared norms ``(m,)``.
    """
    m, d = values.shape
    whole = m - m % 8
    for s in range(0, whole, 8):
        # Eight rows at once, so that each write to a column fills a cache line.
        v0, v1, v2, v3 = values[s], values[s + 1], values[s + 2], values[s + 3]
        v4, v5, v6, v7 = values[s + 4], values[s + 5], values[s + 6], values[s + 7]
        for j in range(d):
            c, h = columns[j], origin[j]
            c[s] = np.float64(v0[j]) - h
            c[s + 1] = np.float64(v1[j]) - h
            c[s + 2] = np.float64(v2[j]) - h
            c[s + 3] = np.float64(v3[j]) - h
            c[s + 4] = np.float64(v4[j]) - h
            c[s + 5] = np.float64(v5[j]) - h
            c[s + 6] = np.float64(v6[j]) - h
            c[s + 7] = np.float64(v7[j]) - h
    for r in range(whole, m):
        for j in range(d):
            columns[j, r] = np.float64(values[r, j]) - origin[j]
    norms[:] = 0.0
    for j in range(d):
        c = columns[j]
        for r in range(m):
            norms[r] += c[r] * c[r]


@njit(**FAST)
def multiply(matrix, columns, made):  # type: ignore[no-untyped-def]
    """Multiply a matrix and columns, with sums always in the same order.

    Parameters
    ----------
    matrix, columns
        Matrix ``(d, d)`` and columns ``(d, m)``.
    made
        Gets the product ``(d, m)``.
    """
    d, m = columns.shape
    for i in range(made.shape[0]):
        made[i, :] = 0.0
        for j in range(d):
            a = matrix[i, j]
            # This skips the half of a triangular matrix that is zero.
            if a != 0.0:
                for r in range(m):
                    made[i, r] += a * columns[j, r]


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
    d, m = columns.shape
    # Four features at a time load and store the sums a quarter as often.
    long = d - d % 4
    for k in range(centers.shape[0]):
        total = out[k]
        total[:] = 0.0
        for j in range(0, long, 4):
            c0, c1, c2, c3 = centers[k, j], centers[k, j + 1], centers[k, j + 2], centers[k, j + 3]
            x0, x1, x2, x3 = columns[j], columns[j + 1], columns[j + 2], columns[j + 3]
            for r in range(m):
                t0 = x0[r] - c0
                t1 = x1[r] - c1
                t2 = x2[r] - c2
                t3 = x3[r] - c3
                total[r] += (t0 * t0 + t1 * t1) + (t2 * t2 + t3 * t3)
        for j in range(long, d):
            c0 = centers[k, j]
            x0 = columns[j]
            for r in range(m):
                t0 = x0[r] - c0
                total[r] += t0 * t0


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
    d, m = columns.shape
    long = d - d % 2
    for k in range(centers.shape[0]):
        total = out[k]
        total[:] = 0.0
        for j in range(0, long, 2):
            c0, c1 = centers[k, j], centers[k, j + 1]
            p0, p1 = scales[k, j], scales[k, j + 1]
            x0, x1 = columns[j], columns[j + 1]
            for r in range(m):
                t0 = x0[r] - c0
                t1 = x1[r] - c1
                total[r] += (p0 * t0) * t0 + (p1 * t1) * t1
        for j in range(long, d):
            c0 = centers[k, j]
            p0 = scales[k, j]
            x0 = columns[j]
            for r in range(m):
                t0 = x0[r] - c0
                total[r] += (p0 * t0) * t0


@njit(**FAST)
def softmax(squared, rates, constants, weights, weighted_resp, log_prob_norm, labels, own_divergence):  # type: ignore[no-untyped-def]
    """Turn squares into responsibilities, the softmax of L = constant − rate·square, and add up.

    Parameters
    ----------
    squared
        Squares, or other divergences ``(k, m)``.
    rates, constants
        Rate and constant of each cluster ``(k,)``.
    weights
        Weights of the rows ``(m,)``.
    weighted_resp
        Gets responsibilities times weights ``(k, m)``; may be `squared` itself.
    log_prob_norm
        Gets log Σ exp L ``(m,)``.
    labels
        Gets the cluster of largest L ``(m,)``; among values equal up to `TIE`, the lowest index.
    own_divergence
        Gets the square of that cluster ``(m,)``.

    Returns
    -------
    float
        Σ w log Σ exp L.
    float
        Σ w r L.
    """
    k, m = squared.shape
    # Eight rows at a time; what belongs to a row behind the last one is thrown away.
    logits = np.empty(k * WIDE)
    tail = np.zeros((k, WIDE))
    rest = np.empty((4, WIDE))
    zero = splat(0.0)
    log_likelihood = zero
    expected_complete_log_likelihood = zero
    for r in range(0, m, WIDE):
        count = min(WIDE, m - r)
        source, at, step = squared, r, m
        if count < WIDE:
            tail[:, :count] = squared[:, r:]
            source, at, step = tail, 0, WIDE
        greatest = splat(-np.inf)
        for i in range(k):
            value = splat(constants[i]) - splat(rates[i]) * load(source, i * step + at)
            store(logits, i * WIDE, value)
            greatest = where_less(greatest, value, value, greatest)
        size = where_less(greatest, zero, zero - greatest, greatest)
        least = greatest - splat(TIE) * (splat(1.0) + size)
        total = zero
        expected = zero
        label = zero
        divergence = zero
        # From the last cluster on, so that the first one within a tie remains.
        for i in range(k - 1, -1, -1):
            value = load(logits, i * WIDE)
            label = where_less(value, least, label, splat(np.float64(i)))
            divergence = where_less(value, least, divergence, load(source, i * step + at))
            # Differences from the greatest value are zero or less, so no exponential overflows.
            below = value - greatest
            share = exponential(below)
            store(logits, i * WIDE, share)
            total = total + share
            # A share of 0 may belong to −∞.
            expected = multiply_add(share, where_less(below, splat(LEAST_LOG), zero, below), expected)
        for q in range(WIDE):
            rest[3, q] = weights[r + q] if q < count else 0.0
        w = load(rest, 3 * WIDE)
        log_prob = greatest + logarithm(total)
        log_likelihood = multiply_add(w, log_prob, log_likelihood)
        expected_complete_log_likelihood = multiply_add(
            w, greatest + expected / total, expected_complete_log_likelihood
        )
        factor = w / total
        if count == WIDE:
            for i in range(k):
                store(weighted_resp, i * m + r, load(logits, i * WIDE) * factor)
            store(log_prob_norm, r, log_prob)
            store(labels, r, label)
            store(own_divergence, r, divergence)
        else:
            for i in range(k):
                store(logits, i * WIDE, load(logits, i * WIDE) * factor)
            store(rest, 0, log_prob)
            store(rest, WIDE, label)
            store(rest, 2 * WIDE, divergence)
            for q in range(count):
                for i in range(k):
                    weighted_resp[i, r + q] = logits[i * WIDE + q]
                log_prob_norm[r + q] = rest[0, q]
                labels[r + q] = np.int32(rest[1, q])
                own_divergence[r + q] = rest[2, q]
    return folded(log_likelihood), folded(expected_complete_log_likelihood)


# The sums below are made of vectors, in an order of their own. The compiler would choose another one by what stands
# around a loop, and so by whether a kernel comes from the cache.
@njit(**INNER, **FAST)
def _total(row):  # type: ignore[no-untyped-def]
    m = row.shape[0]
    whole = m - m % WIDE
    lanes = splat(0.0)
    for r in range(0, whole, WIDE):
        lanes = lanes + load(row, r)
    total = folded(lanes)
    for r in range(whole, m):
        total += row[r]
    return total


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
    whole = m - m % WIDE
    for k in range(centers.shape[0]):
        s = weighted_resp[k]
        share = _total(s)
        # A cluster far from all rows of a sub-block has no share of it, and costs no more.
        if share == 0.0:
            continue
        weight[k] += share
        for j in range(d):
            c = centers[k, j]
            x = columns[j]
            shift = splat(c)
            sums = splat(0.0)
            for r in range(0, whole, WIDE):
                sums = multiply_add(load(s, r), load(x, r) - shift, sums)
            a = folded(sums)
            for r in range(whole, m):
                a += s[r] * (x[r] - c)
            first[k, j] += a


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
    whole = m - m % WIDE
    for k in range(centers.shape[0]):
        s = weighted_resp[k]
        share = _total(s)
        if share == 0.0:
            continue
        weight[k] += share
        for j in range(d):
            c = centers[k, j]
            x = columns[j]
            shift = splat(c)
            sums = splat(0.0)
            squared = splat(0.0)
            for r in range(0, whole, WIDE):
                apart = load(x, r) - shift
                part = load(s, r) * apart
                sums = sums + part
                squared = multiply_add(part, apart, squared)
            a = folded(sums)
            b = folded(squared)
            for r in range(whole, m):
                t = x[r] - c
                u = s[r] * t
                a += u
                b += u * t
            first[k, j] += a
            second[k, j] += b


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
