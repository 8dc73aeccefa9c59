"""Comparison of a version with the previous version: sizes of clusters, and the share of the weight that moved."""

from __future__ import annotations

from typing import Any

import numpy as np

from clustering.fitting.fitted_model import FittedModel
from clustering.fitting.labelling import LabelStatistics

TRANSITIONS = 2500
"""Largest number of transitions that a comparison lists: all of 50 clusters."""


def comparison(run: str, previous: FittedModel, now: FittedModel, sums: LabelStatistics | None) -> dict[str, Any]:
    """Compare a version with the previous version, as JSON.

    Parameters
    ----------
    run
        Name of the run that made the previous version.
    previous
        Fitted model of the previous version.
    now
        Fitted model of the new version, with ids matched to those of the previous one.
    sums
        Statistics of the label pass; None where the run wrote no labels.

    Returns
    -------
    dict
        - ``with``: the previous run.
        - ``churn``: the share of the weight whose label changed, among rows labelled in both versions; None where no
          row is.
        - ``churn_by_cluster``: the same share for the rows of each previous cluster, by id.
        - ``sizes``: the share of each cluster in the total weight, before and now, by id.
        - ``largest_size_change``: the largest difference of the two.
        - ``transitions``: pairs of a previous and a present label with their weights, heaviest first, at most
          `TRANSITIONS`; −1 is no label. None where the run wrote no labels.
        - ``new_clusters`` and ``lost_clusters``: ids that only one of the versions has.
    """
    # A cluster that only one of the versions has counts with a share of 0 in the other.
    sizes: dict[int, list[float]] = {int(i): [0.0, 0.0] for i in np.union1d(previous.ids, now.ids)}
    for column, one in enumerate((previous, now)):
        for i, share in zip(one.ids, one.shares, strict=True):
            sizes[int(i)][column] = float(share)
    churn, by_cluster = (None, {}) if sums is None else _label_churn(sums)
    return {
        "with": run,
        "churn": churn,
        "churn_by_cluster": by_cluster,
        "sizes": {str(i): pair for i, pair in sizes.items()},
        "largest_size_change": max(abs(after - earlier) for earlier, after in sizes.values()),
        "transitions": None if sums is None else _transitions(sums),
        "new_clusters": np.setdiff1d(now.ids, previous.ids).tolist(),
        "lost_clusters": np.setdiff1d(previous.ids, now.ids).tolist(),
    }


def _transitions(sums: LabelStatistics) -> list[list[float]]:
    order = np.argsort(-sums.moved, kind="stable")[:TRANSITIONS]
    return [
        [int(before), int(now), float(w)] for (before, now), w in zip(sums.moves[order], sums.moved[order], strict=True)
    ]


def _label_churn(sums: LabelStatistics) -> tuple[float | None, dict[str, float]]:
    """Compute the churn of all rows, and of the rows of each previous cluster."""
    # −1 stands for rows without a previous label, such as those of new blocks.
    had = sums.moves[:, 0] >= 0
    (before, now), weight = sums.moves[had].T, sums.moved[had]
    if not len(weight):
        return None, {}
    left = np.where(before != now, weight, 0.0)
    clusters, index = np.unique(before, return_inverse=True)
    shares = np.bincount(index, left) / np.bincount(index, weight)
    by_cluster = {str(i): float(share) for i, share in zip(clusters, shares, strict=True)}
    return float(left.sum() / weight.sum()), by_cluster
