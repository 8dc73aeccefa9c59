"""What clusters are called: ids that keep their meaning from run to run, and the names and colours that people give."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

_TABLE = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
    "#aec7e8", "#ffbb78", "#98df8a", "#ff9896", "#c5b0d5", "#c49c94", "#f7b6d2", "#c7c7c7", "#dbdb8d", "#9edae5",
)  # fmt: skip
"""Colours of the first ids: matplotlib's tab10, and the lighter ones of its tab20."""
_TURN = (5**0.5 - 1) / 2
"""Share of the circle of hues from one further id to the next, which never comes back to a hue."""


@dataclass(frozen=True, eq=False)
class ClusterNames:
    """The clusters of a model, in the order of its params."""

    ids: Ids
    """``(k,)``, ascending."""
    names: Mapping[int, str] = field(default_factory=dict)
    """Given by people, by id; of some clusters or none."""
    colours: Mapping[int, str] = field(default_factory=dict)
    """``#rrggbb``, chosen by people, by id; of some clusters or none."""

    @property
    def k(self) -> int:
        """Number of clusters."""
        return len(self.ids)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest signed integer type for the ids and −1 where masked."""
        return next(np.dtype(t) for t in ("i1", "i2", "i4", "i8") if self.ids.max() <= np.iinfo(t).max)

    @property
    def display_names(self) -> list[str]:
        """What people read: the name of each cluster, its id where it has none."""
        return [self.names.get(int(i), str(i)) for i in self.ids]

    @property
    def hex_colours(self) -> list[str]:
        """Colours of the clusters as ``#rrggbb``; those that people did not choose belong to the id."""
        return [self.colours.get(int(i)) or default_colour(int(i)) for i in self.ids]

    @property
    def meanings(self) -> list[str]:
        """Names of the clusters as CF flag meanings, all different."""
        counts: dict[str, int] = {}
        for i in self.ids.tolist():
            meant = meaning(i, self.names.get(i))
            while meant in counts:
                meant = f"{meant}_{i}"
            counts[meant] = i
        return list(counts)

    @property
    def attributes(self) -> dict[str, Any]:
        """CF attributes of labels; ``flag_colors`` where people have chosen any."""
        cf_attributes = {
            "long_name": "cluster of each sample; -1 where masked",
            "flag_values": self.ids.tolist(),
            "flag_meanings": " ".join(self.meanings),
        }
        if self.colours:
            cf_attributes["flag_colors"] = " ".join(self.hex_colours)
        return cf_attributes

    def positions(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        """Turn labels into places among the clusters, in the same shape; −1 where masked."""
        return np.where(labels < 0, -1, np.searchsorted(self.ids, labels))


def default_names(k: int) -> ClusterNames:
    """Call clusters 0 … k − 1."""
    return ClusterNames(np.arange(k))


def meaning(cluster: int, name: str | None) -> str:
    """Write the name of a cluster as one word of CF flag meanings: underscores for whatever is no letter or digit."""
    word = "" if name is None else re.sub(r"[^\w.+@-]+", "_", name).strip("_")
    return word or f"cluster_{cluster}"


def default_colour(cluster: int) -> str:
    """Colour of a cluster that people chose none for, as ``#rrggbb``: the same in every run."""
    if cluster < len(_TABLE):
        return _TABLE[cluster]
    further = cluster - len(_TABLE)
    light = 0.35 + 0.15 * (further % 3)
    red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(further * _TURN % 1.0, light, 0.7))
    return f"#{red:02x}{green:02x}{blue:02x}"
