"""Figures of versions of an output: what went from each cluster to each, and the drift over the last of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from clustering.fitting.cluster_names import ClusterNames
from clustering.fitting.fitted_model import FittedModel
from clustering.plots.versions import VersionTrack, drift, transitions
from clustering.report.figures import Figure, drawn
from clustering.report.words import percent


def drift_figure(track: VersionTrack, unread: int, clusters: ClusterNames, fitted: FittedModel) -> Figure:
    """Draw how objective, sizes and centers moved over the last versions.

    Parameters
    ----------
    track
        The versions, the present one last.
    unread
        Number of earlier versions that cannot be read.
    clusters
        Names and colours of the clusters of `track`.
    fitted
        The present model.
    """
    objective = fitted.model.objective
    label = objective.axis if objective.rises else f"{objective.symbol} per row"
    caption = (
        f"The last {len(track.names)} versions. A shift is how far a center moved since the version before: the root "
        "mean square over the features, in standard deviations of the rows."
    )
    caption += f" {unread} earlier versions cannot be read." if unread else ""
    shifts = track.shifts[1:][np.isfinite(track.shifts[1:])]
    alt = f"Lines over {len(track.names)} versions from {track.names[0]} to {track.names[-1]}."
    if shifts.size:
        alt += f" The largest shift of a center is {shifts.max():.3g} standard deviations."
    plot = partial(drift, track, clusters, label)
    return drawn("drift", "Drift over versions", caption, alt, plot, "changes", wide=True)


def transitions_figure(comparison: Mapping[str, Any]) -> Figure | None:
    """Draw the weight that went from each cluster of the version before to each of this one; None where unknown.

    Parameters
    ----------
    comparison
        Entry ``comparison`` of ``run.json``.
    """
    listed = comparison.get("transitions")
    if not listed:
        return None
    pairs = np.array([pair for *pair, _ in listed], np.int64)
    weights = np.array([weight for *_, weight in listed])
    caption = "Share of the weight of each previous cluster that has each label now. A frame marks what stayed."
    stayed = weights[pairs[:, 0] == pairs[:, 1]].sum() / weights.sum()
    alt = f"A heat map of {len(np.unique(pairs[:, 0]))} previous by {len(np.unique(pairs[:, 1]))} present clusters. "
    alt += f"{percent(float(stayed))} of the weight kept its label."
    plot = partial(transitions, pairs, weights, names=(f"run {comparison['with']}", "now"))
    return drawn("transitions", "Transitions", caption, alt, plot, "changes")
