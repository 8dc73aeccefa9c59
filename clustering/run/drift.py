"""The last versions of an output as numbers: objective, sizes of clusters, and shifts of centers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clustering.errors import ClusteringError
from clustering.fitting.fitted_model import FittedModel
from clustering.storage import versions
from clustering.storage.bucket_output import BucketOutput
from clustering.storage.differences import VersionClusters, clusters_of
from clustering.storage.output import Output
from clustering.storage.paths import StoragePath

if TYPE_CHECKING:
    from clustering.plots.versions import VersionTrack

VERSIONS = 12
"""Largest number of versions that are drawn."""


def version_track(
    output: Output | BucketOutput, record: Mapping[str, Any], fitted: FittedModel, folder: StoragePath
) -> tuple[VersionTrack, int] | None:
    """Follow the clusters of a run back through the versions that were current before it.

    Parameters
    ----------
    output
        The output.
    record
        Content of ``run.json`` of the run, which was compared with the version before: ids are of the same clusters.
    fitted
        Its fitted model.
    folder
        Its folder.

    Returns
    -------
    tuple of VersionTrack and int, or None
        The versions, the present one last, and the number of earlier ones that cannot be read; None without earlier
        versions.
    """
    from clustering.plots.versions import VersionTrack

    present = str(record["run"])
    earlier = [
        version
        for version in versions.list_versions(output)
        if version.run != present
        and version.record.get("status", "finished") == "finished"
        and version.record.get("kind") == record["kind"]
        and version.finished_at <= str(record.get("finished_at", version.finished_at))
    ][: VERSIONS - 1]
    parts: list[tuple[Mapping[str, Any], VersionClusters]] = []
    unread = 0
    for version in reversed(earlier):
        try:
            parts.append((version.record, clusters_of(version)))
        except ClusteringError:
            # The report of a good run must not fail because an old version is damaged; it says how many are.
            unread += 1
    parts.append((record, clusters_of(versions.Version(present, folder, record))))
    if len(parts) < 2:
        return None
    ids = np.unique(np.concatenate([clusters.ids for _, clusters in parts]))
    shares = np.stack([_by_id(ids, clusters, clusters.shares) for _, clusters in parts])
    return (
        VersionTrack(
            _names([one for one, _ in parts]),
            np.array([_objective(one, rises=fitted.model.objective.rises) for one, _ in parts]),
            ids,
            shares,
            np.stack(_shifts(ids, [clusters for _, clusters in parts], fitted.summary.variance)),
        ),
        unread,
    )


def _by_id(ids: NDArray[np.int64], clusters: VersionClusters, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Put numbers of clusters at the places of their ids; NaN where a version lacks one."""
    placed = np.full((len(ids), *values.shape[1:]), np.nan)
    placed[np.searchsorted(ids, clusters.ids)] = values
    return placed


def _shifts(
    ids: NDArray[np.int64], parts: Sequence[VersionClusters], variance: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Compute how far each center moved since the version before: the root mean square over the features, in σ."""
    deviations = np.sqrt(np.where(variance > 0, variance, 1.0))
    shifts = [np.full(len(ids), np.nan)]
    for one, other in pairwise(parts):
        if one.features != other.features or one.centers.shape[1] != len(deviations):
            shifts.append(np.full(len(ids), np.nan))
            continue
        step = (_by_id(ids, other, other.centers) - _by_id(ids, one, one.centers)) / deviations
        shifts.append(np.sqrt(np.mean(step**2, axis=1)))
    return shifts


def _objective(record: Mapping[str, Any], *, rises: bool) -> float:
    """Return the objective of a version, for each row where it is a sum, as versions differ in their rows."""
    value = record.get("objective")
    if value is None:
        return float("nan")
    return float(value) if rises else float(value) / max(1, int(record["n_rows"]))


def _names(records: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Name versions by their dates; by their runs where several are of one day."""
    dates = [str(record.get("finished_at") or "")[:10] for record in records]
    distinct = all(dates) and len(set(dates)) == len(dates)
    return tuple(dates) if distinct else tuple(str(record["run"])[:6] for record in records)
