"""Compiled inner loops of soft assignment.

Rows are the columns of a sub-block ``(d, m)``, so that every loop runs over rows and fills the vector units.

All loops release the GIL, run on one thread, and are cached on disk after the first compilation.
"""

from __future__ import annotations

import numpy as np

from clustering.compiling import njit
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


@njit(inline="always", **FAST)
def _soften(squared, at, step, rates, constants, shares):  # type: ignore[no-untyped-def]
    """Put exp(L − max L) of eight rows into `shares`.

    Return max L, Σ exp(L − max L), Σ (L − max L) exp(L − max L), and the label and the square of its cluster.
    """
    k = rates.shape[0]
    zero = splat(0.0)
    greatest = splat(-np.inf)
    for i in range(k):
        value = splat(constants[i]) - splat(rates[i]) * load(squared, i * step + at)
        store(shares, i * WIDE, value)
        greatest = where_less(greatest, value, value, greatest)
    size = where_less(greatest, zero, zero - greatest, greatest)
    least = greatest - splat(TIE) * (splat(1.0) + size)
    total = zero
    expected = zero
    label = zero
    divergence = zero
    # From the last cluster on, so that the first one within a tie remains.
    for i in range(k - 1, -1, -1):
        value = load(shares, i * WIDE)
        label = where_less(value, least, label, splat(np.float64(i)))
        divergence = where_less(value, least, divergence, load(squared, i * step + at))
        # Differences from the greatest value are zero or less, so no exponential overflows.
        below = value - greatest
        share = exponential(below)
        store(shares, i * WIDE, share)
        total = total + share
        # A share of 0 may belong to −∞.
        expected = multiply_add(share, where_less(below, splat(LEAST_LOG), zero, below), expected)
    return greatest, total, expected, label, divergence


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
    whole = m - m % WIDE
    shares = np.empty(k * WIDE)
    log_likelihood = splat(0.0)
    expected_complete_log_likelihood = splat(0.0)
    for r in range(0, whole, WIDE):
        w = load(weights, r)
        greatest, total, expected, label, divergence = _soften(squared, r, m, rates, constants, shares)
        log_prob = greatest + logarithm(total)
        factor = w / total
        log_likelihood = multiply_add(w, log_prob, log_likelihood)
        expected_complete_log_likelihood = multiply_add(w, greatest, expected_complete_log_likelihood)
        expected_complete_log_likelihood = multiply_add(factor, expected, expected_complete_log_likelihood)
        for i in range(k):
            store(weighted_resp, i * m + r, load(shares, i * WIDE) * factor)
        store(log_prob_norm, r, log_prob)
        store(labels, r, label)
        store(own_divergence, r, divergence)
    if whole < m:
        # What belongs to a row behind the last one has no weight, and is thrown away.
        tail = np.zeros((k + 1, WIDE))
        for r in range(whole, m):
            for i in range(k):
                tail[i, r - whole] = squared[i, r]
            tail[k, r - whole] = weights[r]
        w = load(tail, k * WIDE)
        greatest, total, expected, label, divergence = _soften(tail, 0, WIDE, rates, constants, shares)
        log_prob = greatest + logarithm(total)
        factor = w / total
        log_likelihood = multiply_add(w, log_prob, log_likelihood)
        expected_complete_log_likelihood = multiply_add(w, greatest, expected_complete_log_likelihood)
        expected_complete_log_likelihood = multiply_add(factor, expected, expected_complete_log_likelihood)
        for i in range(k):
            store(shares, i * WIDE, load(shares, i * WIDE) * factor)
        rest = np.empty((3, WIDE))
        store(rest, 0, log_prob)
        store(rest, WIDE, label)
        store(rest, 2 * WIDE, divergence)
        for r in range(whole, m):
            for i in range(k):
                weighted_resp[i, r] = shares[i * WIDE + r - whole]
            log_prob_norm[r] = rest[0, r - whole]
            labels[r] = np.int32(rest[1, r - whole])
            own_divergence[r] = rest[2, r - whole]
    return folded(log_likelihood), folded(expected_complete_log_likelihood)
