"""The report of a fit in memory, which no run has written."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from clustering.data.ownership import check_place
from clustering.data.source import Source
from clustering.deferred import load_module, xr
from clustering.errors import OutputError, PlaceError
from clustering.fitting.fitted_model import FittedModel
from clustering.run.drawing import PAGE, check_drawing, plotted_rows
from clustering.storage.paths import write_bytes
from clustering.storage.versions import now

_PACKAGES = ("zarr-clustering", "numpy", "numba")


def check_page(path: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Check a place for a page; nothing is written.

    Parameters
    ----------
    path
        Path of the file.
    overwrite
        Whether a page that was written there before may be replaced.

    Raises
    ------
    OutputError
        If the place holds something that may not be replaced, or is inside an output of runs or a Zarr store.
    MissingDependencyError
        If the packages that draw are not installed.
    """
    check_drawing()
    from clustering.report.template import is_page

    text = os.fspath(path)
    if "://" in text:
        raise PlaceError(f"{text!r} is a URL; a report goes to a file on this machine: name a path, and copy it")
    target = check_place(text)
    if not os.path.lexists(target):
        return target
    if not target.is_file():
        raise PlaceError(f"{text!r} is a folder; name a file in it, such as {str(target / 'report.html')!r}")
    with target.open("rb") as file:
        ours = is_page(file.read(4096))
    if not ours:
        raise PlaceError(f"{text!r} is not a page of this library, so it is not replaced; name another file")
    if not overwrite:
        raise PlaceError(f"{text!r} exists; name another file, or replace it with overwrite=True")
    return target


def write_fit_report(
    fitted: FittedModel,
    target: Path,
    source: Source | None = None,
    results: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write the page of a fit in one step.

    Parameters
    ----------
    fitted
        Fitted model.
    target
        Path that `check_page` has passed.
    source
        Data for figures of rows; None for the model alone.
    results
        Label outputs of all cells of the source by name; None without a source.
    overwrite
        As for `check_page`, which is asked again before the page is written.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OutputError
        As from `check_page`, or if the disk refuses.
    """
    load_module(PAGE)
    from clustering.plots import grids
    from clustering.report import label_figures, page

    labels = sample = preview = None
    degrees: dict[str, xr.DataArray] = {}
    if source is not None and results is not None:
        arrays = {name: _on_grid(result) for name, result in results.items()}
        labels = label_figures.drawn_part(arrays.pop("labels"))
        degrees = {name: label_figures.drawn_degrees(name, array) for name, array in arrays.items()}
        sample = plotted_rows(source, fitted)
        if label_figures.may_be_photograph(source, fitted):
            preview = source.preview(grids.SHOWN)
    figures, clusters = page.draw(fitted, labels, preview, sample, degrees)
    content = page.render(fitted, _record(fitted), figures, clusters)
    # Others may have put a file there while the figures were drawn.
    check_page(target, overwrite=overwrite)
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, content.encode())
    except OSError as error:
        raise OutputError(f"cannot write {str(target)!r}: {error.strerror or error}; name another place") from error
    return target


def _on_grid(result: Any) -> xr.DataArray:
    """Return results of any data as an array with dimensions; a table has rows in no order."""
    if isinstance(result, xr.DataArray):
        return result
    array = np.asarray(result)
    return xr.DataArray(array, dims=["row", *(f"dim_{i}" for i in range(1, array.ndim))])


def _record(fitted: FittedModel) -> dict[str, Any]:
    """Return what a run would record of the fit."""
    summary, reads = fitted.summary, round(fitted.reads, 6)
    return {
        "kind": fitted.model.kind,
        "k": int(fitted.model.k),
        "n_rows": summary.count,
        "n_features": len(fitted.features),
        "n_masked": summary.cells - summary.count,
        "n_fitted": summary.drawn,
        "objective": fitted.objective,
        "iterations": fitted.iterations,
        "converged": fitted.converged,
        "stop_reason": str(fitted.stop),
        "reads": int(reads) if reads == int(reads) else reads,
        "bytes_read": fitted.bytes_read,
        "criteria": fitted.criteria,
        "preprocess": None if fitted.preparation is None else fitted.preparation.summary,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "written_at": now(),
        "warnings": list(fitted.notes),
        "remarks": list(fitted.remarks),
    }
