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
from clustering.fitting.clusters import Clusters
from clustering.storage.labels import NAME
from clustering.storage.layout import NAMES
from clustering.storage.places import Place, write_json, writing, zarr_store


def read_names(output: Place) -> dict[str, dict[str, Any]]:
    """Read what people gave, by id; nothing where they gave nothing.

    Raises
    ------
    OutputError
        If the file is not what `write_names` wrote.
    """
    place = output / NAMES
    try:
        found = json.loads(place.read_bytes())
        for i, given in found.items():
            if not (i.isdecimal() and isinstance(given["name"], str) and isinstance(given.get("colour") or "", str)):
                raise ValueError
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise OutputError(
            f"{str(place)!r} does not hold names by id, such as "
            '{"3": {"name": "deep convection", "colour": "#1f77b4"}}; correct it, or remove it'
        ) from None
    return dict(found)


def write_names(output: Place, names: dict[str, dict[str, Any]]) -> None:
    """Write what people gave, by id, all of it or nothing."""
    write_json(output / NAMES, dict(sorted(names.items(), key=lambda pair: int(pair[0]))))


def called(output: Place, ids: NDArray[np.int64]) -> Clusters:
    """Give clusters the names and colours that people gave to their ids in an output."""
    given = {int(i): one for i, one in read_names(output).items() if int(i) in ids}
    colours = {i: one["colour"] for i, one in given.items() if one.get("colour")}
    return Clusters(ids, {i: one["name"] for i, one in given.items()}, colours)


def rename_labels(labels: Place, clusters: Clusters) -> None:
    """Let labels that are there say what their clusters are called now; nothing where there are none."""
    if not (labels / NAME / "zarr.json").is_file():
        return
    with writing(labels):
        zarr.open_array(zarr_store(labels), path=NAME, mode="r+").attrs.update(clusters.attributes)
