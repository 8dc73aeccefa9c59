"""Names and colours that users give to clusters: `names.json` of an output, by id.

::

    {"3": {"name": "deep convection", "colour": "#1f77b4"}}

The file belongs to the output and not to a version, so it serves all later versions.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.deferred import zarr
from clustering.errors import OutputError
from clustering.fitting.cluster_names import ClusterNames
from clustering.storage.labels import NAME
from clustering.storage.layout import NAMES
from clustering.storage.paths import StoragePath, translating_write_errors, write_json, zarr_store


def read_names(output: StoragePath) -> dict[str, dict[str, Any]]:
    """Read names and colours, by id; empty where there is no file.

    Parameters
    ----------
    output
        Folder or prefix of the output.

    Raises
    ------
    OutputError
        If the file has another form than `write_names` writes.
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
    """Write names and colours in one step.

    Parameters
    ----------
    output
        Folder or prefix of the output.
    names
        ``name`` and, where given, ``colour`` of a cluster, by its id as text.
    """
    # Ids are sorted as numbers, because 10 comes before 9 as text.
    write_json(output / NAMES, dict(sorted(names.items(), key=lambda pair: int(pair[0]))))


def load_cluster_names(output: StoragePath, ids: NDArray[np.int64]) -> ClusterNames:
    """Return the clusters with the names and colours that an output holds for their ids.

    Parameters
    ----------
    output
        Folder or prefix of the output.
    ids
        Ids of the clusters ``(k,)``.
    """
    given = {int(i): one for i, one in read_names(output).items() if int(i) in ids}
    colours = {i: one["colour"] for i, one in given.items() if one.get("colour")}
    return ClusterNames(ids, {i: one["name"] for i, one in given.items()}, colours)


def rename_labels(labels: StoragePath, clusters: ClusterNames) -> None:
    """Write the names of clusters into the attributes of existing labels; do nothing where there are none.

    Parameters
    ----------
    labels
        Path of a ``labels.zarr``.
    clusters
        Ids, names and colours of the clusters.
    """
    if not (labels / NAME / "zarr.json").is_file():
        return
    # Names are attributes, so no chunk is written.
    with translating_write_errors(labels):
        zarr.open_array(zarr_store(labels), path=NAME, mode="r+").attrs.update(clusters.attributes)
