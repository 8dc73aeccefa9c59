"""The clusters of a version, and the differences between two versions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.storage import checkpoints
from clustering.storage.model import damage_as_error, open_model
from clustering.storage.paths import translating_read_errors
from clustering.storage.versions import Version


@dataclass(frozen=True, eq=False)
class VersionClusters:
    """The clusters of a version."""

    ids: tuple[int, ...]
    shares: NDArray[np.float64]
    """Share of each cluster in the total weight ``(k,)``; NaN where rows were not counted."""
    centers: NDArray[np.float64]
    """Centers in the units of the data ``(k, d)``."""
    features: tuple[Any, ...]


def clusters_of(version: Version) -> VersionClusters:
    """Read the clusters of a version from its model.

    Parameters
    ----------
    version
        Finished version of an output.
    """
    with translating_read_errors(version.path), open_model(version.path) as model, damage_as_error(version.path):
        return VersionClusters(
            tuple(int(number) for number in model["cluster"].values),
            np.asarray(model["shares"].values, np.float64),
            np.asarray(model["centers"].values, np.float64),
            tuple(repr(feature) for feature in model.attrs["features"]),
        )


def shares(clusters: VersionClusters) -> dict[str, float | None]:
    """Return the share of each cluster in the total weight, by id; None where rows were not counted.

    Parameters
    ----------
    clusters
        Clusters of a version.
    """
    pairs = zip(clusters.ids, clusters.shares, strict=True)
    return {str(number): None if math.isnan(share) else float(share) for number, share in pairs}


def differences(a: Version, b: Version) -> dict[str, Any]:
    """Compare two versions, as JSON; each pair holds the value of the first and of the second.

    Parameters
    ----------
    a, b
        First and second version.

    Returns
    -------
    dict
        ``runs``, ``kind``, ``k``, ``rows`` and ``objective`` as pairs; ``sizes``, pairs of shares by cluster, None
        where a version lacks the cluster; ``centers``, the Euclidean distance between the two centers of a cluster in
        the units of the data, None where a version lacks the cluster or the features differ; ``config``, pairs by the
        key that differs; ``source_changed``, whether the fingerprints of the sources differ.
    """
    one, other = clusters_of(a), clusters_of(b)
    ids = sorted({*one.ids, *other.ids})
    before, after = shares(one), shares(other)
    return {
        "runs": [a.run, b.run],
        **{name: [a.record.get(key), b.record.get(key)] for name, key in _FACTS.items()},
        "sizes": {str(number): [before.get(str(number)), after.get(str(number))] for number in ids},
        "centers": {str(number): _distance(one, other, number) for number in ids},
        "config": {
            key: [was, now] for key, was, now in checkpoints.differences(a.record.get("config"), b.record.get("config"))
        },
        "source_changed": a.record.get("source_fingerprint") != b.record.get("source_fingerprint"),
    }


_FACTS = {"kind": "kind", "k": "k", "rows": "n_rows", "objective": "objective"}


def _distance(one: VersionClusters, other: VersionClusters, number: int) -> float | None:
    # A distance between centers of other features would mean nothing.
    if one.features != other.features or number not in one.ids or number not in other.ids:
        return None
    step = one.centers[one.ids.index(number)] - other.centers[other.ids.index(number)]
    return float(np.linalg.norm(step))
