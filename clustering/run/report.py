"""Makes the report of a run from its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from clustering.config import JobConfig, SourceSection
from clustering.data.plain_dataset import Labelled
from clustering.data.source import Source
from clustering.deferred import load_module, xr
from clustering.errors import ClusteringError, OutputError, damaged
from clustering.fitting.cluster_names import ClusterNames
from clustering.fitting.fitted_model import FittedModel
from clustering.option_values import RECORDED
from clustering.run.drawing import PAGE, EarlyDrawing, check_drawing, plotted_rows
from clustering.run.drift import version_track
from clustering.run.prepare import SourceAccess, open_configured
from clustering.storage import versions
from clustering.storage.bucket_output import BucketOutput, open_output
from clustering.storage.labels import CHANGED, NAME
from clustering.storage.model import load_model
from clustering.storage.names_file import load_cluster_names
from clustering.storage.output import Output
from clustering.storage.paths import StoragePath, translating_read_errors, write_bytes, zarr_store
from clustering.storage.plain_groups import open_plain

if TYPE_CHECKING:
    from clustering.report.figures import Figure
    from clustering.report.model_figures import ModelFigures

AccessOf = Callable[[SourceSection], SourceAccess]
"""Says how to reach the source of a config."""


def by_config(_: SourceSection) -> SourceAccess:
    """Reach a source by its config alone.

    Parameters
    ----------
    _
        The section ``source`` of a config.
    """
    return SourceAccess()


def write_report(
    result: FittedModel,
    record: Mapping[str, Any],
    folder: StoragePath,
    source: Source | None,
    config: JobConfig,
    output: Output | BucketOutput,
    drawing: EarlyDrawing | None = None,
) -> list[Figure]:
    """Write the report of a run to its folder, and return its figures.

    Parameters
    ----------
    result
        The fitted model of the run.
    record
        Content of ``run.json``.
    folder
        Folder of the run.
    source
        Source for a picture of the data; None where it cannot be opened.
    config
        Config of the run.
    output
        The output, which holds the names of the clusters and earlier versions.
    drawing
        Draws figures of the model since before the labels were complete; None where nothing was drawn yet.
    """
    # Drawing needs matplotlib, which a job without a report never loads.
    load_module(PAGE)
    # Two threads that draw at once would only take turns.
    early = None if drawing is None else drawing.figures()
    names = load_cluster_names(output.path, result.ids)
    return write_page(result, record, folder, config, output, *draw_figures(result, folder, source, names, early))


def write_page(
    result: FittedModel,
    record: Mapping[str, Any],
    folder: StoragePath,
    config: JobConfig,
    output: Output | BucketOutput,
    drawn: list[Figure],
    clusters: ClusterNames,
) -> list[Figure]:
    """Write the report of a run whose figures are drawn, with those that compare versions, and return all figures.

    Parameters
    ----------
    result, record, folder, config, output
        As for `write_report`.
    drawn, clusters
        From `draw_figures`.
    """
    from clustering.report.page import render

    figures = list(drawn)
    if record.get("comparison"):
        from clustering.report.drift import drift_figure, transitions_figure

        moves, track = transitions_figure(record["comparison"]), version_track(output, record, result, folder)
        figures += [] if moves is None else [moves]
        if track is not None:
            figures.append(drift_figure(*track, load_cluster_names(output.path, track[0].ids), result))
    if record.get("selection"):
        from clustering.report.selection import criteria_figure

        figures.append(criteria_figure(record["selection"]["table"], record["selection"]["recommended"]))
    page = render(result, record, figures, clusters, config.to_json(exclude_defaults=True))
    write_bytes(folder / "report.html", page.encode())
    return figures


def draw_selection(selection: Mapping[str, Any]) -> str:
    """Make the HTML page of a sweep over k.

    Parameters
    ----------
    selection
        Content of ``selection.json``.
    """
    load_module(PAGE)
    from clustering.report.selection import render_selection

    return render_selection(selection)


def draw_figures(
    result: FittedModel,
    folder: StoragePath,
    source: Source | None,
    clusters: ClusterNames,
    early: ModelFigures | None = None,
) -> tuple[list[Figure], ClusterNames]:
    """Draw the report's figures from the files of a run.

    Parameters
    ----------
    result
        The fitted model of the run.
    folder
        Folder of the run, with ``labels.zarr`` if labels were written.
    source
        Source for a picture of the data and for plotted rows; None where it cannot be opened.
    clusters
        Ids, names and colours of the clusters.
    early
        Figures of this model that are drawn already; None where there are none.

    Returns
    -------
    tuple
        Figures, and the clusters with their colours in them.
    """
    from clustering.plots import grids
    from clustering.report import label_figures, page

    labels = preview = sample = changed = None
    degrees: dict[str, Labelled] = {}
    labels_path = folder / "labels.zarr"
    if (labels_path / "zarr.json").is_file():
        with (
            damaged(OutputError, f"the labels at {str(labels_path)!r}", "run the job again, or name another version"),
            translating_read_errors(labels_path),
            _opened(labels_path) as stored,
        ):
            # What figures need is loaded here, as the store is closed before they are drawn.
            if NAME in stored:
                labels = label_figures.drawn_part(stored[NAME]).load()
            if CHANGED in stored:
                changed = label_figures.drawn_part(stored[CHANGED]).load()
            degrees = {
                name: label_figures.drawn_degrees(name, stored[name]).load()
                for name in label_figures.DEGREES
                if name in stored
            }
        if labels is not None and source is not None and label_figures.may_be_photograph(source, result):
            preview = source.preview(grids.SHOWN)
    if source is not None:
        # A label pass changes no params, so plotted rows that were read before it are those of now.
        sample = plotted_rows(source, result) if early is None else early.sample
    return page.draw(result, labels, preview, sample, degrees, clusters, changed, early)


@contextmanager
def _opened(path: StoragePath) -> Iterator[Mapping[Any, Any]]:
    """Open the label outputs of a run; xarray is loaded only where they have coordinates."""
    plain = open_plain(zarr_store(path))
    if plain is not None:
        yield plain
        return
    # Default indexes would read whole coordinates, and pictures need a few cells only.
    with xr.open_dataset(
        zarr_store(path), engine="zarr", consolidated=False, chunks=None, create_default_indexes=False
    ) as stored:
        yield stored


def redo_report(store: str, access_of: AccessOf = by_config) -> StoragePath:
    """Write the report of a finished run again from its files.

    Parameters
    ----------
    store
        Path or URL of the output.
    access_of
        Says how to reach the source of the run.

    Returns
    -------
    Path or BucketPath
        Path of the report.

    Raises
    ------
    OutputError
        If there is no finished run.
    MissingDependencyError
        If the packages that draw it are not installed.
    """
    output = open_output(store)
    output.read_json("run.json")
    check_drawing()
    with versions.locked(output):
        redraw(output, access_of)
    return output.path / "report.html"


def redraw(output: Output | BucketOutput, access_of: AccessOf = by_config) -> None:
    """Write the report of the current version again. The caller must hold the lock of the output.

    Parameters
    ----------
    output
        The output.
    access_of
        As for `redo_report`.
    """
    record, folder = output.read_json("run.json"), output.published
    with damaged(OutputError, f"the config in run.json of {str(output.path)!r}", "restore it, or name another run"):
        config = JobConfig.model_validate(record["config"], context=RECORDED)
    result, _ = load_model(folder)
    try:
        source = open_configured(config.source, result.layout, access_of(config.source))
    except ClusteringError:
        # The data may be gone since the run. The report then has no pictures of them.
        source = None
    with damaged(OutputError, f"run.json of {str(output.path)!r}", "restore it, or name another run"):
        write_report(result, record, folder, source, config, output)
    # A run without a report has no plain name for one yet.
    output.link()
