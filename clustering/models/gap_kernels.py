"""The compiled inner loops for rows with missing features, NaN in columns ``(d, m)``: these take no part."""

from __future__ import annotations

from clustering.compiling import njit
from clustering.models.kernels import FAST
from clustering.models.soft_kernels import FUSED


@njit(**FUSED)
def squares(columns, centers, scales, logs, out, offsets):  # type: ignore[no-untyped-def]
    """Fill `out` ``(k, m)`` with Σ scale·(x − c)², and `offsets` ``(k, m)`` with Σ log, over the observed features.

    `scales` and `logs` are ``(k, d)``.
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
                seen = t == t
                total[r] += p * t * t if seen else 0.0
                offset[r] += log if seen else 0.0


@njit(**FAST)
def moments(columns, centers, variances, shares, weight, first, second, observed):  # type: ignore[no-untyped-def]
    """Add up the shares ``(k, m)`` of rows about the centers.

    `weight` ``(k,)`` gets Σ s, `first` ``(k, d)`` Σ s (x − c) over what was observed, `second` ``(k, d)``
    Σ s (x − c)² over what was observed and Σ s variance over what was not, `observed` ``(k, d)`` Σ s of what was.
    """
    d, m = columns.shape
    for k in range(centers.shape[0]):
        s = shares[k]
        share = 0.0
        for r in range(m):
            share += s[r]
        weight[k] += share
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
