"""Compiled loops over rows with labels: sums of each cluster, and silhouettes."""

from __future__ import annotations

from clustering.compiling import njit


@njit(nogil=True, cache=True)
def add_rows(rows, labels, weights, references, weight, first, second, observed):  # type: ignore[no-untyped-def]
    """Add up the rows of each cluster about a reference point. A missing feature, which is NaN, takes no part.

    Parameters
    ----------
    rows, labels, weights
        Rows ``(n, p)``, with label and weight ``(n,)``.
    references
        Reference point of each cluster ``(k, p)``.
    weight, first, second, observed
        Get Σ w ``(k,)``, Σ w (x − r) ``(k, p)``, Σ w (x − r)² ``(k, p)``, and Σ w of the rows that have the feature
        ``(k, p)``.
    """
    n, p = rows.shape
    for i in range(n):
        c, w = labels[i], weights[i]
        weight[c] += w
        for j in range(p):
            t = rows[i, j] - references[c, j]
            if t == t:
                first[c, j] += w * t
                second[c, j] += w * t * t
                observed[c, j] += w


@njit(nogil=True, cache=True)
def add_silhouettes(  # type: ignore[no-untyped-def]
    rows, labels, weights, means, spreads, sizes, silhouette, simplified, distance
):
    """Add up the silhouettes of rows and their distances from the mean of their cluster, by cluster.

    Differences are squared and added, so that the digits of rows far from zero stay.

    Parameters
    ----------
    rows, labels, weights
        Rows ``(n, p)``, with label and weight ``(n,)``.
    means, spreads, sizes
        Mean ``(k, p)``, mean squared distance from it ``(k,)``, and weight ``(k,)`` of each cluster; clusters without
        weight have a weight of 0.
    silhouette, simplified, distance
        Get Σ w s, Σ w s of the simplified silhouette, and Σ w ‖x − m‖ of each cluster ``(k,)``.
    """
    n, p = rows.shape
    k = means.shape[0]
    for i in range(n):
        own, w = labels[i], weights[i]
        if w <= 0.0:
            continue
        mine, other, nearest = 0.0, -1.0, -1.0
        for c in range(k):
            if sizes[c] <= 0.0:
                continue
            square = 0.0
            for j in range(p):
                t = rows[i, j] - means[c, j]
                if t == t:
                    square += t * t
            if c == own:
                mine = square
                continue
            if other < 0.0 or square + spreads[c] < other:
                other = square + spreads[c]
            if nearest < 0.0 or square < nearest:
                nearest = square
        distance[own] += w * mine**0.5
        # A single row, and the only cluster, have a silhouette of 0.
        if other < 0.0 or sizes[own] <= 1.0:
            continue
        within = sizes[own] / (sizes[own] - 1.0) * (mine + spreads[own])
        largest = max(within, other)
        if largest > 0.0:
            silhouette[own] += w * (other - within) / largest
        # The simplified silhouette has distances where the silhouette has mean squared distances.
        largest = max(mine, nearest) ** 0.5
        if largest > 0.0:
            simplified[own] += w * (nearest**0.5 - mine**0.5) / largest
