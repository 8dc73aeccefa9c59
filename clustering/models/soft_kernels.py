"""Compiled inner loops of soft assignment.

Rows are the columns of a sub-block ``(d, m)``, so that every loop runs over rows and fills the vector units. Squares
are always squares of differences, never differences of squares, so that data far from zero and clusters far apart keep
their digits.

All loops release the GIL, run on one thread, and are cached on disk after the first compilation.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from clustering.compiling import njit
from clustering.models.kernels import FAST

SUMS: dict[str, Any] = {**FAST, "fastmath": {"reassoc", "nsz", "contract"}}
"""Options of loops that add up over rows: the compiler may choose the order, which is then fixed."""
FUSED: dict[str, Any] = {**FAST, "fastmath": {"contract"}}
"""Options of loops of one fixed order, in which a product and a sum may be rounded together."""

# A number below 2⁵¹ plus this one is rounded to a whole number, which is in the low bits of the sum.
_MAGIC = 1.5 * 2.0**52
_LOG2E = 1.4426950408889634
# The high part has so many zeros at its end that its product with a whole number is exact (Cody & Waite 1980).
_LN2_HIGH, _LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10
TIE = 2.0**-34
"""Divergences and log densities that differ by no more than this share count as equal, so that rounding decides no
label."""
LEAST_LOG = -708.0
"""Responsibilities with a logarithm below this are 0, because denormal numbers would slow down later loops."""


@njit(**FUSED)
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


@njit(**FUSED)
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


@njit(**FUSED)
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


@njit(**FUSED)
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


@njit(**FUSED)
def _exponential(x, whole, scale, made):  # type: ignore[no-untyped-def]
    """Put exp of `x` ``(m,)``, zero or less, into `made`; raise `x` to `LEAST_LOG` where it is lower.

    `scale` is the memory of `whole` ``(m,)`` as integers; both are scratch space.
    """
    m = x.shape[0]
    for r in range(m):
        # A call of exp would leave the vector units idle, and its last bits differ between libraries.
        bounded = max(x[r], LEAST_LOG)
        n = bounded * _LOG2E + _MAGIC
        whole[r] = n
        n -= _MAGIC
        t = (bounded - n * _LN2_HIGH) - n * _LN2_LOW
        # Taylor series of exp t for |t| ≤ ½ log 2, accurate to the last bit but one.
        p = 1.0 / 6227020800.0
        p = p * t + 1.0 / 479001600.0
        p = p * t + 1.0 / 39916800.0
        p = p * t + 1.0 / 3628800.0
        p = p * t + 1.0 / 362880.0
        p = p * t + 1.0 / 40320.0
        p = p * t + 1.0 / 5040.0
        p = p * t + 1.0 / 720.0
        p = p * t + 1.0 / 120.0
        p = p * t + 1.0 / 24.0
        p = p * t + 1.0 / 6.0
        p = p * t + 0.5
        p = p * t + 1.0
        p = p * t + 1.0
        made[r] = p if x[r] > LEAST_LOG else 0.0
        x[r] = bounded
    for r in range(m):
        # The low bits of n + 1.5·2⁵² hold n, which becomes the exponent.
        scale[r] = (scale[r] + 1023) << 52
    for r in range(m):
        made[r] *= whole[r]


@njit(**FUSED)
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
    greatest = np.empty(m)
    own = np.empty(m)
    total = np.zeros(m)
    expected = np.zeros(m)
    kept = np.empty(m)
    made = np.empty(m)
    whole = np.empty(m)
    scale = whole.view(np.int64)
    for r in range(m):
        greatest[r] = constants[0] - rates[0] * squared[0, r]
        own[r] = greatest[r]
        labels[r] = 0
        own_divergence[r] = squared[0, r]
    for i in range(1, k):
        for r in range(m):
            value = constants[i] - rates[i] * squared[i, r]
            # The greatest value bounds the exponentials, and `own` decides the label. They differ within a tie.
            greatest[r] = value if value > greatest[r] else greatest[r]
            # The bound 1e300 makes any finite value win against −∞.
            higher = value > own[r] + TIE * min(1.0 + abs(own[r]), 1e300)
            own[r] = value if higher else own[r]
            labels[r] = i if higher else labels[r]
            own_divergence[r] = squared[i, r] if higher else own_divergence[r]
    for i in range(k):
        for r in range(m):
            # Differences from the greatest value are zero or less, so no exponential overflows.
            kept[r] = (constants[i] - rates[i] * squared[i, r]) - greatest[r]
        _exponential(kept, whole, scale, made)
        row = weighted_resp[i]
        for r in range(m):
            row[r] = made[r]
        for r in range(m):
            total[r] += made[r]
            expected[r] += made[r] * kept[r]
    log_likelihood = 0.0
    expected_complete_log_likelihood = 0.0
    for r in range(m):
        log_prob_norm[r] = greatest[r] + math.log(total[r])
        log_likelihood += weights[r] * log_prob_norm[r]
        expected_complete_log_likelihood += weights[r] * (greatest[r] + expected[r] / total[r])
        total[r] = weights[r] / total[r]
    for i in range(k):
        row = weighted_resp[i]
        for r in range(m):
            row[r] *= total[r]
    return log_likelihood, expected_complete_log_likelihood


@njit(**SUMS)
def _total(row):  # type: ignore[no-untyped-def]
    total = 0.0
    for r in range(row.shape[0]):
        total += row[r]
    return total


@njit(**SUMS)
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
            a = 0.0
            for r in range(m):
                a += s[r] * (x[r] - c)
            first[k, j] += a


@njit(**SUMS)
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
    for k in range(centers.shape[0]):
        s = weighted_resp[k]
        share = _total(s)
        if share == 0.0:
            continue
        weight[k] += share
        for j in range(d):
            c = centers[k, j]
            x = columns[j]
            a = 0.0
            b = 0.0
            for r in range(m):
                t = x[r] - c
                u = s[r] * t
                a += u
                b += u * t
            first[k, j] += a
            second[k, j] += b


@njit(**SUMS)
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
    for i in range(k):
        for j in range(k):
            total = 0.0
            for r in range(m):
                total += resp[i, r] * weighted_resp[j, r]
            overlap[i, j] += total
