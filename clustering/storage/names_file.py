"""Names and colours that people give to clusters: `names.json` of an output, by id.

::

    {"3": {"name": "deep convection", "colour": "#1f77b4"}}

It belongs to the output and not to a version: whatever is published later finds it.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from clustering.errors import OutputError
from clustering.fitting.cluster_names import ClusterNames
from clustering.storage.labels import NAME
from clustering.storage.layout import NAMES
from clustering.storage.paths import StoragePath, translating_write_errors, write_json, zarr_store


def read_names(output: StoragePath) -> dict[str, dict[str, Any]]:
    """Read what people gave, by id; nothing where they gave nothing.

    Raises
    ------
    OutputError
        If the file is not what `write_names` wrote.
    """
    path = output / NAMES
    try:
        content = json.loads(path.read_bytes())
        for i, given in content.items():
            if not (i.isdecimal() and isinstance(given["name"], str) and isinstance(given.get("colour") or "", str)):
                raise ValueError
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise OutputError(
            f"{str(path)!r} does not hold names by id, such as "
            '{"3": {"name": "deep convection", "colour": "#1f77b4"}}; correct it, or remove it'
        ) from None
    return dict(content)


def write_names(output: StoragePath, names: dict[str, dict[str, Any]]) -> None:
    """Write what people gave, by id, all of it or nothing."""
    write_json(output / NAMES, dict(sorted(names.items(), key=lambda pair: int(pair[0]))))


def load_cluster_names(output: StoragePath, ids: NDArray[np.int64]) -> ClusterNames:
    """Give clusters the names and colours that people gave to their ids in an output."""
    given = {int(i): one for i, one in read_names(output).items() if int(i) in ids}
    colours = {i: one["colour"] for i, one in given.items() if one.get("colour")}
    return ClusterNames(ids, {i: one["name"] for i, one in given.items()}, colours)


def rename_labels(labels: StoragePath, clusters: ClusterNames) -> None:
    """Let labels that are there say what their clusters are called now; nothing where there are none."""
    if not (labels / NAME / "zarr.json").is_file():
        return
    with translating_write_errors(labels):
        zarr.open_array(zarr_store(labels), path=NAME, mode="r+").attrs.update(clusters.attributes)
