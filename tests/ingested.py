"""Ingest a file, and read back the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

from clustering.data.ingest import ingest


class Taken(NamedTuple):
    """Arrays and dimensions by name, and the warnings about parts that were left out."""

    arrays: dict[str, np.ndarray]
    warnings: list[str]
    dims: dict[str, tuple[str, ...]]

    def said(self, *fragments: str) -> bool:
        """Whether one warning contains all fragments."""
        return any(all(fragment in line for fragment in fragments) for line in self.warnings)


def take(path: Path) -> Taken:
    """Ingest a file into a store in the same folder."""
    out = path.with_name("taken.zarr")
    done = ingest(path, out, overwrite=out.exists())
    group: Any = zarr.open_group(out, mode="r")
    arrays = {name: group[name][...] for name in done.variables}
    return Taken(arrays, list(done.warnings), {name: variable[0] for name, variable in done.variables.items()})
