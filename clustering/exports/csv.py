"""Tables of text: a row for each cluster, and a row for each sample where the samples lie along one dimension.

Numbers are written with as many digits as they need to be read back to the last bit.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from clustering.exports.content import Content

ROWS = 100_000
"""Number of samples in memory at once."""


def labels_name(path: Path) -> str:
    """Return the name of the table of samples.

    Parameters
    ----------
    path
        Path of the table of clusters.
    """
    return f"{path.stem}-labels{path.suffix}"


def write(content: Content, path: Path) -> None:
    """Write the tables.

    Parameters
    ----------
    content
        Model to write, and labels if there are any.
    path
        Path of the table of clusters: id, name, share, weight, and the center by feature, in the data's own units.
    """
    fitted, clusters = content.fitted, content.clusters
    with path.open("x", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["cluster", "name", "share", "weight", *map(str, fitted.features)])
        columns = (clusters.ids, clusters.display_names, fitted.shares, fitted.weights, fitted.centers)
        for i, name, share, weight, center in zip(*columns, strict=True):
            table.writerow([int(i), name, float(share), float(weight), *center.tolist()])
    if content.labels_path is not None:
        _write_labels(content, path.with_name(labels_name(path)))


def _write_labels(content: Content, path: Path) -> None:
    labels = content.open_labels("csv")
    if labels["labels"].ndim != 1:
        return
    (along,) = labels["labels"].dims
    names = [name for name, variable in labels.variables.items() if variable.dims == (along,)]
    # The place of a sample comes first, then its label.
    names = sorted(names, key=lambda name: (name == "labels") - (name in labels.coords))
    with path.open("x", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*([] if along in names else [along]), *names])
        for start in range(0, labels.sizes[along], ROWS):
            part = labels.isel({along: slice(start, start + ROWS)})
            columns: list[Any] = [] if along in names else [range(start, start + part.sizes[along])]
            columns += [_cells(part[name].values) for name in names]
            table.writerows(zip(*columns, strict=True))


def _cells(values: Any) -> Any:
    # Dates of numpy would become whole numbers in a list.
    return values.astype(str) if values.dtype.kind in "mM" else values.tolist()
