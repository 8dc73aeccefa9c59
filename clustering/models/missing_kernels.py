"""Compiled inner loops for rows with missing features: columns ``(d, m)``, with NaN where a feature is missing."""

from __future__ import annotations

import math

import numpy as np

from clustering.compiling import njit
from clustering.models.kernels import FAST


@njit(**FAST)
def squares(columns, centers, scales, logs, out, offsets):  # type: ignore[no-untyped-def]
    """Add up scaled squares and logarithms over the observed features.

    Parameters
    ----------
    columns, centers
        Columns ``(d, m)`` and centers ``(k, d)``, less the same origin.
    scales, logs
        Factor of each square, and number added for each observed feature ``(k, d)``.
    out, offsets
        Get Σ scale·(x − c)² and Σ log ``(k, m)``.
    """
    d, m = columns.shape
    for k in range(centers.shape[0]):
        total, offset = out[k], offsets[k]
        for r in range(m):
            total[r] = 0.0
            offset[r] = 0.0
        for j in range(d):
            c, p, log = centers[k, j], scales[k, j], logs[k, j]
            x = columns[j]
            for r in range(m):
                t = x[r] - c
                # NaN alone differs from itself. Adding 0 instead of jumping lets the compiler use vectors.
                seen = t == t
                total[r] += p * t * t if seen else 0.0
                offset[r] += log if seen else 0.0


@njit(**FAST)
def moments(columns, centers, variances, weighted_resp, weight, first, second, observed):  # type: ignore[no-untyped-def]
    """Add up the moments of rows about the centers, where features are independent within a cluster.

    Parameters
    ----------
    columns, centers
        Columns ``(d, m)`` and centers ``(k, d)``, less the same origin.
    variances
        Variances ``(k, d)``, taken for missing features.
    weighted_resp
        Shares s, which are responsibilities times weights ``(k, m)``.
    weight
        Σ s ``(k,)``, which is added to.
    first, observed
        Σ s (x − c) and Σ s over the observed values ``(k, d)``, which are added to.
    second
        Σ s (x − c)² over the observed values plus Σ s variance over the missing ones ``(k, d)``, which is added to.
    """
    d, m = columns.shape
    for k in range(centers.shape[0]):
        s = weighted_resp[k]
        resp = 0.0
        for r in range(m):
            resp += s[r]
        weight[k] += resp
        for j in range(d):
            c, v, x = centers[k, j], variances[k, j], columns[j]
            a, b, seen = 0.0, 0.0, 0.0
            for r in range(m):
                t = x[r] - c
                if t == t:
                    a += s[r] * t
                    b += s[r] * t * t
                    seen += s[r]
                else:
                    b += s[r] * v
            first[k, j] += a
            second[k, j] += b
            observed[k, j] += seen


@njit(**FAST)
def condition(covariances, order, observed, factors, logs):  # type: ignore[no-untyped-def]
    """Eliminate the observed features of each pattern from covariances.

    The features of a pattern are in its own order. Then the lower triangle of `factors` holds the Cholesky factor L of
    the observed ones, beneath it the transpose of H = L⁻¹ Σ_om, and beside that the covariance of the missing ones
    given the observed ones, Σ_mm − HᵀH.

    Parameters
    ----------
    covariances
        Covariances ``(c, d, d)``: of each component, or one of all.
    order, observed
        Features of each pattern, the observed ones first ``(t, d)``, and their number ``(t,)``.
    factors, logs
        Get the factors ``(t, c, d, d)`` and −log |L| ``(t, c)``.

    Returns
    -------
    bool
        False if a covariance is not positive definite.
    """
    d = covariances.shape[1]
    for g in range(order.shape[0]):
        features, n_observed = order[g], observed[g]
        for c in range(covariances.shape[0]):
            f, covariance, log = factors[g, c], covariances[c], 0.0
            for i in range(d):
                # Only observed features are eliminated. Thus the rest of the triangle ends as the Schur complement.
                row, source = f[i], covariance[features[i]]
                for j in range(i + 1):
                    above, length = f[j], min(j, n_observed)
                    total = 0.0
                    for e in range(length):
                        total += row[e] * above[e]
                    left = source[features[j]] - total
                    if j >= n_observed:
                        row[j] = left
                    elif j < i:
                        row[j] = left / above[j]
                    else:
                        # A pivot that is NaN fails this comparison too.
                        if not left > 0.0:
                            return False
                        row[j] = math.sqrt(left)
                        log -= math.log(row[j])
            logs[g, c] = log
    return True


@njit(**FAST)
def pattern_squares(columns, bounds, order, observed, centers, factors, logs, white, out, offsets):  # type: ignore[no-untyped-def]
    """Compute squared Mahalanobis distances over the observed features of columns that are grouped by pattern.

    Parameters
    ----------
    columns, bounds
        Columns ``(d, m)``, of which `bounds[g]` to `bounds[g + 1]` have pattern g ``(t + 1,)``.
    order, observed
        As in `condition`.
    centers
        Centers ``(k, d)``.
    factors, logs
        As `condition` gives them; here `logs` may hold further constants.
    white
        Gets L⁻¹ (x − c) ``(k, d, m)``.
    out, offsets
        Get the squares and the logs ``(k, m)``.
    """
    for g in range(order.shape[0]):
        start, stop = bounds[g], bounds[g + 1]
        for k in range(centers.shape[0]):
            c = k if factors.shape[1] > 1 else 0
            f, total, offset = factors[g, c], out[k], offsets[k]
            for r in range(start, stop):
                total[r] = 0.0
                offset[r] = logs[g, c]
            for i in range(observed[g]):
                w, x, center, pivot = white[k, i], columns[order[g, i]], centers[k, order[g, i]], f[i, i]
                for r in range(start, stop):
                    w[r] = x[r] - center
                # Forward substitution with the rows as inner loop: they lie side by side in memory.
                for j in range(i):
                    a, v = f[i, j], white[k, j]
                    for r in range(start, stop):
                        w[r] -= a * v[r]
                for r in range(start, stop):
                    w[r] /= pivot
                    total[r] += w[r] * w[r]


@njit(**FAST)
def pattern_moments(columns, bounds, order, observed, centers, factors, white, resp, near, weight, first, second):  # type: ignore[no-untyped-def]
    """Add up the moments of columns grouped by pattern, with conditional means and covariances of missing features.

    Parameters
    ----------
    columns, bounds, order, observed, centers, factors, white
        As in `pattern_squares`.
    resp
        Shares s, which are responsibilities times weights ``(k, m)``.
    near
        Whether second moments are taken about the origin, and not about the centers.
    weight, first
        Σ s ``(k,)`` and Σ s (x − c) ``(k, d)``, which are added to.
    second
        Σ s (x − c)(x − c)ᵀ, or Σ s x xᵀ where `near`, which is added to: of each component ``(k, d, d)``, or of all
        together ``(1, d, d)``.
    """
    d = columns.shape[0]
    longest = 0
    for g in range(order.shape[0]):
        longest = max(longest, bounds[g + 1] - bounds[g])
    diff, scaled = np.empty((d, longest)), np.empty(longest)
    for g in range(order.shape[0]):
        start, m, features, n_observed = bounds[g], bounds[g + 1] - bounds[g], order[g], observed[g]
        for k in range(centers.shape[0]):
            f = factors[g, k if factors.shape[1] > 1 else 0]
            moment = second[k if second.shape[0] > 1 else 0]
            s, total_resp = resp[k], 0.0
            for r in range(m):
                total_resp += s[start + r]
            if total_resp == 0.0:
                continue
            weight[k] += total_resp
            for i in range(d):
                there, x, center = diff[i], columns[features[i]], centers[k, features[i]]
                if i < n_observed:
                    for r in range(m):
                        there[r] = x[start + r] - center
                else:
                    for r in range(m):
                        there[r] = 0.0
                    for j in range(n_observed):
                        a, w = f[i, j], white[k, j]
                        for r in range(m):
                            there[r] += a * w[start + r]
                total = 0.0
                for r in range(m):
                    total += s[start + r] * there[r]
                first[k, features[i]] += total
                if near:
                    for r in range(m):
                        there[r] += center
            for i in range(d):
                x = diff[i]
                for r in range(m):
                    scaled[r] = s[start + r] * x[r]
                # The moment is symmetric, so half of it is added up and mirrored.
                for j in range(i + 1):
                    y = diff[j]
                    # Where both features are missing, every row adds their conditional covariance.
                    total = total_resp * f[i, j] if j >= n_observed else 0.0
                    for r in range(m):
                        total += scaled[r] * y[r]
                    moment[features[i], features[j]] += total
                    if j < i:
                        moment[features[j], features[i]] += total
