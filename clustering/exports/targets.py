"""The table of all targets, and the export to one of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from clustering.errors import ConfigError, OutputError, nearest
from clustering.exports import csv, faiss_index, netcdf, npz, onnx_graph, scikit_learn
from clustering.exports.content import Content
from clustering.exports.placing import write_files


class Target(NamedTuple):
    """A format that models or labels are written to."""

    suffix: str
    """Ending of the file."""
    write: Callable[[Content, Path], None]
    """Function that writes the files at a temporary place."""
    companion: Callable[[Path], str] | None = None
    """Function that names a second file beside the first."""


TARGETS: Mapping[str, Target] = {
    "sklearn": Target(".skops", scikit_learn.write),
    "faiss": Target(".faiss", faiss_index.write),
    "onnx": Target(".onnx", onnx_graph.write),
    "npz": Target(".npz", npz.write),
    "csv": Target(".csv", csv.write, csv.labels_name),
    "netcdf": Target(".nc", netcdf.write, netcdf.labels_name),
}


def check_target_name(to: str) -> Target:
    """Return a target by its name.

    Parameters
    ----------
    to
        Name of the target.

    Raises
    ------
    ConfigError
        If there is no such target.
    """
    if to not in TARGETS:
        raise ConfigError(f"there is no target {to!r}; {nearest(to, TARGETS)}")
    return TARGETS[to]


def export(content: Content, path: str | os.PathLike[str], to: str, *, overwrite: bool = False) -> list[Path]:
    """Write a model, or its labels, for another program.

    Parameters
    ----------
    content
        Model and labels to write.
    path
        Path of the file, on this machine.
    to
        Name of the target.
    overwrite
        Whether what an earlier export wrote there is replaced. Anything else is never replaced.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ConfigError
        If there is no such target.
    OutputError
        If the target cannot hold the model, or the place may not be written.
    MissingDependencyError
        If a package of the target is not installed.
    """
    target = check_target_name(to)
    if "://" in os.fspath(path):
        raise OutputError(
            f"{os.fspath(path)!r} is a URL; exports go to files on this machine: name a path, and copy it"
        )
    place = Path(path)
    companions = [] if target.companion is None else [target.companion(place)]
    return write_files(place, companions, overwrite, lambda file: target.write(content, file))
