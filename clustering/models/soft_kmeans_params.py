"""Params of soft k-means, and the outcome of its update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.models import divergences as geometry
from clustering.models.components import TRACKED_CLUSTERS
from clustering.models.kmeans_params import KMeansParams
from clustering.models.option_names import Divergence

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SoftKMeansParams:
    """Params of soft k-means: centers, and the stiffness that says how sharply rows choose between them."""

    origin: Array
    """Origin ``(d,)`` in the units of the rows, fixed for a run."""
    centers: Array
    """Centers less the origin ``(k, d)``."""
    beta: float
    """Stiffness β, in one over the unit of the divergence."""
    matrix: Array = field(default_factory=lambda: np.zeros((0, 0)))
    """M of the Mahalanobis distance ``(d, d)``; empty for other divergences."""

    @classmethod
    def from_hard_clusters(cls, hard: KMeansParams, beta: float) -> SoftKMeansParams:
        """Start from hard clusters.

        Parameters
        ----------
        hard
            Params of the hard clusters.
        beta
            Stiffness β.
        """
        return cls(hard.origin, hard.centers, beta, hard.matrix)

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the dimensions of each stored field."""
        return {
            "origin": ("feature",), "centers": ("cluster", "feature"), "beta": (), "matrix": ("feature", "feature_too"),
        }  # fmt: skip

    @property
    def k(self) -> int:
        """Number of clusters."""
        return len(self.centers)


class SoftUpdate(NamedTuple):
    """Outcome of an update."""

    params: SoftKMeansParams
    objective: float
    """Free energy of the same responsibilities at the new centers."""
    scale: float
    """Σ w r D, which a change of the free energy is measured against."""
    sizes: Array
    """Effective sizes Σ w r ``(k,)``."""
    reseeded: tuple[int, ...] = ()
    """Clusters that had no rows and restarted at farthest rows."""

    @property
    def restarted(self) -> bool:
        """Whether an empty cluster restarted."""
        return bool(self.reseeded)

    @property
    def notes(self) -> tuple[str, ...]:
        """Messages for the user about empty clusters."""
        return tuple(f"empty cluster {c} re-seeded at the farthest row" for c in self.reseeded)

    @property
    def measures(self) -> Mapping[str, Array]:
        """Effective sizes of the clusters ``(k,)``, unless there are more than `TRACKED_CLUSTERS`."""
        return {"sizes": self.sizes} if len(self.sizes) <= TRACKED_CLUSTERS else {}


def to_vector(divergence: Divergence, params: SoftKMeansParams) -> Array:
    """Give the centers where their Euclidean distance is near the root of the divergence.

    Parameters
    ----------
    divergence
        Divergence of the model.
    params
        Params.

    Returns
    -------
    ndarray
        Coordinates ``(k d,)``.
    """
    # Centers are less the origin already.
    return geometry.embed(divergence, params.centers, np.zeros_like(params.origin), params.matrix).ravel()


def from_vector(divergence: Divergence, vector: Array, about: SoftKMeansParams) -> SoftKMeansParams | None:
    """Make params with the centers of `to_vector`.

    Parameters
    ----------
    divergence
        Divergence of the model.
    vector
        Coordinates ``(k d,)``.
    about
        Params of the same fit, which give everything but the centers.

    Returns
    -------
    SoftKMeansParams or None
        The params; None where centers are beyond float64, or a direction has length 0.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        centers = geometry.unembed(divergence, vector.reshape(about.centers.shape), about.matrix)
        # The mean of one row is that row. So this moves no center, but gives those of the cosine length 1.
        centers = geometry.update_centers(divergence, np.ones(about.k), centers, about.centers)
    return replace(about, centers=centers) if np.isfinite(centers).all() else None
