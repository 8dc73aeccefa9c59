"""Ids, names and colours of clusters. Ids keep their meaning from run to run; users give names and colours."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

_TABLE = (
    "#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#92dadd", "#a96b59", "#e76300", "#717581", "#b9ac70", "#94a4a2",
    "#5a003c", "#2d0087", "#5a4b69", "#87b4ff", "#780f00", "#4b5aff", "#b4e196", "#0000f0", "#961e3c", "#6969b4",
    "#4b3c87", "#69c3d2", "#69a5d2", "#1e2d5a", "#b48769", "#d269ff", "#69d2a5", "#f08700", "#d24b0f", "#3c96a5",
    "#4b00a5", "#695a87", "#96d269", "#875a4b", "#963cd2", "#691e3c", "#69d2ff", "#3c3c5a", "#78f05a", "#5a0f1e",
)  # fmt: skip
"""Colours of the first ids, which stay apart for people who see no red or no green.

The first ten are those of M. A. Petroff, Accessible color sequences for data visualization (2021),
doi:10.48550/arXiv.2107.02270. Each further one is as far as possible from all before it, and from white and the grey of
masked cells, in OKLab, as it is and as G. M. Machado et al. (2009), doi:10.1109/TVCG.2009.113, simulate both defects.
"""
_TURN = (5**0.5 - 1) / 2
"""Step between the hues of further ids, as a share of the colour circle. It is irrational, so no hue comes twice."""


@dataclass(frozen=True, eq=False)
class ClusterNames:
    """Ids, names and colours of the clusters of a model, in the order of its params."""

    ids: Ids
    """Ids ``(k,)``, ascending."""
    names: Mapping[int, str] = field(default_factory=dict)
    """Names that users gave, by id. Clusters may be without one."""
    colours: Mapping[int, str] = field(default_factory=dict)
    """Colours ``#rrggbb`` that users chose, by id. Clusters may be without one."""

    @property
    def k(self) -> int:
        """Number of clusters."""
        return len(self.ids)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest signed integer type that holds all ids, and −1 for masked cells."""
        return next(np.dtype(t) for t in ("i1", "i2", "i4", "i8") if self.ids.max() <= np.iinfo(t).max)

    @cached_property
    def display_names(self) -> list[str]:
        """Name of each cluster for plots and tables; its id where it has no name."""
        return [self.names.get(int(i), str(i)) for i in self.ids]

    @cached_property
    def hex_colours(self) -> list[str]:
        """Colour of each cluster as ``#rrggbb``; the default colour of its id where users chose none."""
        return [self.colours.get(int(i)) or default_colour(int(i)) for i in self.ids]

    @property
    def meanings(self) -> list[str]:
        """Names of the clusters as CF flag meanings, all different."""
        counts: dict[str, int] = {}
        for i in self.ids.tolist():
            # Two names may become the same word, and CF needs distinct flag meanings.
            meant = meaning(i, self.names.get(i))
            while meant in counts:
                meant = f"{meant}_{i}"
            counts[meant] = i
        return list(counts)

    @property
    def attributes(self) -> dict[str, Any]:
        """CF attributes of the labels; with ``flag_colors`` only where users chose a colour."""
        cf_attributes = {
            "long_name": "cluster of each sample; -1 where masked",
            "flag_values": self.ids.tolist(),
            "flag_meanings": " ".join(self.meanings),
        }
        if self.colours:
            cf_attributes["flag_colors"] = " ".join(self.hex_colours)
        return cf_attributes

    def positions(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        """Turn labels into row numbers of the params, in the same shape; −1 where masked.

        Parameters
        ----------
        labels
            Ids of clusters, in any shape; negative where masked.
        """
        # Ids have gaps once clusters have come and gone, so an id is no row number.
        return np.where(labels < 0, -1, np.searchsorted(self.ids, labels))


def default_names(k: int) -> ClusterNames:
    """Make the ids 0 … k − 1, without names.

    Parameters
    ----------
    k
        Number of clusters.
    """
    return ClusterNames(np.arange(k))


def meaning(cluster: int, name: str | None) -> str:
    """Write the name of a cluster as one word of CF flag meanings.

    CF separates flag meanings by spaces and allows letters, digits and ``_ - . + @``; underscores replace the rest.

    Parameters
    ----------
    cluster
        Id of the cluster, which makes the word where there is no name.
    name
        Name that a user gave, or None.
    """
    word = "" if name is None else re.sub(r"[^\w.+@-]+", "_", name).strip("_")
    return word or f"cluster_{cluster}"


def default_colour(cluster: int) -> str:
    """Return the default colour of an id as ``#rrggbb``, the same in every run.

    Parameters
    ----------
    cluster
        Id of the cluster.
    """
    if cluster < len(_TABLE):
        return _TABLE[cluster]
    further = cluster - len(_TABLE)
    # Three levels of lightness tell neighbouring hues apart.
    light = 0.35 + 0.15 * (further % 3)
    red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(further * _TURN % 1.0, light, 0.7))
    return f"#{red:02x}{green:02x}{blue:02x}"
