"""Names and colours that users give to the clusters of an output."""

from __future__ import annotations

import re

from clustering.errors import ConfigError
from clustering.fitting.cluster_names import meaning
from clustering.run.drawing import check_drawing
from clustering.run.report import AccessOf, by_config, redraw
from clustering.storage import checkpoints
from clustering.storage.bucket_output import open_output
from clustering.storage.label_pass import LABELS
from clustering.storage.model import load_model
from clustering.storage.names_file import load_cluster_names, read_names, rename_labels, write_names

LISTED = 64
"""Largest number of ids that a message lists."""
COLOUR = re.compile("#[0-9a-fA-F]{6}")


def name_cluster(
    run: str, cluster: int, name: str, colour: str | None = None, *, access_of: AccessOf = by_config
) -> str:
    """Give a cluster a name and a colour, in `names.json`, and in the labels and the report of the current version.

    Later versions use both, by the id of the cluster.

    Parameters
    ----------
    run
        Output of a finished run.
    cluster
        Id of the cluster.
    name
        Name for plots and tables.
    colour
        Colour ``#rrggbb``; None keeps the present one.
    access_of
        As for `clustering.run.report.redo_report`.

    Returns
    -------
    str
        What was done, in one line.

    Raises
    ------
    ConfigError
        If the model has no such cluster, the colour is not valid, or the name is empty or already used.
    OutputError
        If there is no finished run, or another run is writing to the output.
    MissingDependencyError
        If the packages that draw the report are not installed.
    """
    name = " ".join(name.split())
    if not name:
        raise ConfigError(f"the name of cluster {cluster} is empty; give it one, such as 'deep convection'")
    if colour is not None and not COLOUR.fullmatch(colour):
        raise ConfigError(f"colour is {colour!r}; six hexadecimal digits are needed, such as '#1f77b4'")
    output = open_output(run)
    # An output without a finished run is refused here, before the lock would make a folder.
    output.read_json("run.json")
    with output.locked(lambda: checkpoints.unfinished(output.checkpoints, output.finished)):
        ids = load_model(output.published)[0].ids
        if cluster not in ids:
            more = f" and {len(ids) - LISTED:,} more" * (len(ids) > LISTED)
            ids_text = ", ".join(map(str, ids[:LISTED])) + more
            raise ConfigError(f"{run!r} has no cluster {cluster}; its clusters are {ids_text}")
        before = load_cluster_names(output.path, ids)
        # Two different names may become the same CF flag meaning, so the meanings are compared.
        for other, word in zip(ids.tolist(), before.meanings, strict=True):
            if other != cluster and meaning(cluster, name) == word:
                raise ConfigError(f"{name!r} is the name of cluster {other} already; choose another")
        # A run with output.report: false has no report to draw again.
        reported = (output.published / "report.html").is_file()
        if reported:
            check_drawing()
        names = read_names(output.path)
        kept = names.get(str(cluster), {}).get("colour")
        names[str(cluster)] = {"name": name, "colour": kept if colour is None else colour.lower()}
        write_names(output.path, names)
        # In a bucket the output itself holds a copy of the current version, as there are no links.
        for path in (output.published, output.path):
            rename_labels(path / LABELS, load_cluster_names(output.path, ids))
        if reported:
            redraw(output, access_of)
    return f"cluster {cluster} of {run} is {name!r}"
