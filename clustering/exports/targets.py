"""The table of all targets, and the export to one of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from clustering.errors import ConfigError, PlaceError, nearest
from clustering.exports import csv, faiss_index, geotiff, netcdf, npz, ome_zarr, onnx_graph, scikit_learn
from clustering.exports.content import Content
from clustering.exports.placing import write_files

Export = Callable[[Content, Path, bool], list[Path]]
"""Function that writes to a path, where it may replace what an export wrote, and lists what it has written."""


class Target(NamedTuple):
    """A format that models or labels are written to."""

    suffix: str
    """Ending of the file."""
    export: Export


def _of_files(write: Callable[[Content, Path], None], companion: Callable[[Path], str] | None = None) -> Export:
    """Make the export to a file, and perhaps a companion beside it, from the function that writes them."""

    def export_files(content: Content, path: Path, overwrite: bool) -> list[Path]:
        companions = [] if companion is None else [companion(path)]
        return write_files(path, companions, overwrite, lambda file: write(content, file))

    return export_files


TARGETS: Mapping[str, Target] = {
    "sklearn": Target(".skops", _of_files(scikit_learn.write)),
    "faiss": Target(".faiss", _of_files(faiss_index.write)),
    "onnx": Target(".onnx", _of_files(onnx_graph.write)),
    "npz": Target(".npz", _of_files(npz.write)),
    "csv": Target(".csv", _of_files(csv.write, csv.labels_name)),
    "netcdf": Target(".nc", _of_files(netcdf.write, netcdf.labels_name)),
    "ome-zarr": Target(".ome.zarr", ome_zarr.export),
    "geotiff": Target(".tif", _of_files(geotiff.write, geotiff.style_name)),
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
        raise PlaceError(f"{os.fspath(path)!r} is a URL; exports go to files on this machine: name a path, and copy it")
    return target.export(content, Path(path), overwrite)
