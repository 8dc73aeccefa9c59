"""Params of a mixture of von Mises–Fisher distributions, and the outcome of its M-step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.models import directional
from clustering.models.components import TRACKED_CLUSTERS
from clustering.models.divergences import TINY, unit_rows

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class VonMisesFisherParams:
    """Params of a mixture of von Mises–Fisher distributions."""

    origin: Array
    """Zero ``(d,)``: directions are measured from there."""
    centers: Array
    """Mean directions ``(k, d)``, of length 1."""
    weights: Array
    """Mixing weights ``(k,)``."""
    concentrations: Array
    """κ of each component ``(k,)``."""
    dispersion: float
    """1 − mean resultant length of all rows: the scale of the data."""

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Fields that are stored, with the names of their dimensions."""
        return {
            "origin": ("feature",), "centers": ("cluster", "feature"), "weights": ("cluster",),
            "concentrations": ("cluster",), "dispersion": (),
        }  # fmt: skip

    @property
    def k(self) -> int:
        """Number of components."""
        return len(self.centers)

    @property
    def constants(self) -> Array:
        """Log of the weight and of the density at the mean direction, of each component ``(k,)``."""
        peaks = directional.log_peak_density(self.centers.shape[1], self.concentrations)
        constants: Array = np.log(np.maximum(self.weights, TINY)) + peaks
        return constants


class VonMisesFisherUpdate(NamedTuple):
    """Outcome of an M-step."""

    params: VonMisesFisherParams
    objective: float
    """Objective of the same assignment at the new params: a bound on the negative log-likelihood there."""
    scale: float
    """Total weight: a change of the log-likelihood is measured per unit weight."""
    sizes: Array
    notes: tuple[str, ...] = ()

    @property
    def restarted(self) -> bool:
        """Whether a component was placed anew."""
        return bool(self.notes)

    @property
    def measures(self) -> Mapping[str, Array]:
        """Effective sizes and concentrations of the components."""
        if len(self.sizes) > TRACKED_CLUSTERS:
            return {}
        return {"sizes": self.sizes, "concentrations": self.params.concentrations}


def to_vector(params: VonMisesFisherParams, about: VonMisesFisherParams) -> Array:
    """Give the coordinates of params: log weights, directions, and the logarithms of 1 + κ, scaled by information.

    Parameters
    ----------
    params
        Params.
    about
        Params of the same size whose weights and concentrations scale the coordinates.

    Returns
    -------
    ndarray
        Coordinates ``(k + k d + k,)``.
    """
    of_logs, of_directions, of_kappas = _scales(about)
    logs = np.log(np.maximum(params.weights, TINY)) * of_logs
    directions = params.centers * of_directions[:, None]
    return np.concatenate([logs, directions.ravel(), np.log1p(params.concentrations) * of_kappas])


def from_vector(vector: Array, about: VonMisesFisherParams) -> VonMisesFisherParams | None:
    """Make params from the coordinates of `to_vector`.

    Parameters
    ----------
    vector
        Coordinates ``(k + k d + k,)``.
    about
        The params that scale them.

    Returns
    -------
    VonMisesFisherParams or None
        The params; None where a direction has length 0, or numbers are beyond their range.
    """
    k, d = about.centers.shape
    of_logs, of_directions, of_kappas = _scales(about)
    # Values beyond float64 are refused below.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        logs = vector[:k] / of_logs
        weights = np.exp(logs - logs.max())
        directions = unit_rows(vector[k : k + k * d].reshape(k, d) / of_directions[:, None])
        kappas = np.maximum(np.expm1(vector[k + k * d :] / of_kappas), 0.0)
    valid = (weights > TINY).all() and np.isfinite(directions).all() and (kappas <= directional.MOST_KAPPA).all()
    if not valid:
        return None
    return replace(about, centers=directions, weights=weights / weights.sum(), concentrations=kappas)


def _scales(about: VonMisesFisherParams) -> tuple[Array, Array, Array]:
    """Scales ``(k,)`` of log weights, directions and log concentrations, from the information for large κ.

    Directions have κ, and a log concentration (d − 1) / 2 (Mardia & Jupp 2000, section 9.3).
    """
    root = np.sqrt(np.maximum(about.weights, TINY))
    d = about.centers.shape[1]
    # For κ near 0 a direction has no information, but dividing by its scale must stay possible.
    return root, root * np.sqrt(1.0 + about.concentrations), root * np.sqrt(0.5 * (d - 1))
