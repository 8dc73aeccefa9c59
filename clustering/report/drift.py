"""The figure of the last versions of an output."""

from __future__ import annotations

from functools import partial

import numpy as np

from clustering.fitting.cluster_names import ClusterNames
from clustering.fitting.fitted_model import FittedModel
from clustering.plots.versions import VersionTrack, drift
from clustering.report.figures import Figure, drawn


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
