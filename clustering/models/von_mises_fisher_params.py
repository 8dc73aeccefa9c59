"""Params of a mixture of von Mises–Fisher distributions, and the outcome of its M-step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.models import directional
from clustering.models.components import TRACKED_CLUSTERS
from clustering.models.divergences import TINY

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
