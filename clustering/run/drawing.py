"""Drawing beside a run. The packages for it are an extra of the installation, which only a job with a report loads."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from threading import Thread
from typing import TYPE_CHECKING

from clustering.data.source import Source
from clustering.deferred import load_module
from clustering.errors import MissingDependencyError
from clustering.fitting.fitted_model import FittedModel
from clustering.storage.names_file import load_cluster_names
from clustering.storage.paths import StoragePath

if TYPE_CHECKING:
    from clustering.report.model_figures import ModelFigures
    from clustering.report.samples import PlottedRows

PAGE = "clustering.report.page"
"""Module that draws a report."""
_PACKAGES = ("matplotlib", "jinja2", "yaml")


def check_drawing(otherwise: str = "") -> None:
    """Check that the packages that draw a report are installed. None of them is loaded.

    Parameters
    ----------
    otherwise
        Another remedy, which the message ends with.

    Raises
    ------
    MissingDependencyError
        If one of them is missing.
    """
    for package in _PACKAGES:
        if find_spec(package) is None:
            raise MissingDependencyError(
                f"drawing the report needs the package {package!r}; pip install 'zarr-clustering[plot]'{otherwise}"
            )


def load_drawing() -> None:
    """Begin to load what draws a report, in a thread of its own: rows can be read and labels written meanwhile."""
    Thread(target=_load_page, name="report").start()


def _load_page() -> None:
    # The report itself raises the error again, where it can be told.
    with suppress(Exception):
        load_module(PAGE)


class EarlyDrawing:
    """A thread that draws the figures of a fitted model while its labels are written."""

    def __init__(self, fitted: FittedModel, source: Source, output: StoragePath, *, labels: bool) -> None:
        """Begin to draw.

        Parameters
        ----------
        fitted
            Fitted model, as it is before the label pass.
        source
            Source of the run.
        output
            Output of the run, which holds the names of the clusters.
        labels
            Whether labels are written.
        """
        self._inputs = fitted, source, output, labels
        self._figures: ModelFigures | None = None
        self._thread = Thread(target=self._draw, name="report")
        self._thread.start()

    def _draw(self) -> None:
        fitted, source, output, labels = self._inputs
        # What fails here is drawn again by the report, which raises the error where it can be told.
        with suppress(Exception):
            load_module(PAGE)
            from clustering.report import label_figures
            from clustering.report.model_figures import ModelFigures

            photograph = labels and label_figures.may_be_photograph(source, fitted)
            clusters = load_cluster_names(output, fitted.ids)
            if photograph:
                clusters = label_figures.in_own_colours(fitted, clusters)
            self._figures = ModelFigures.draw(fitted, plotted_rows(source, fitted), clusters, photograph=photograph)

    def figures(self) -> ModelFigures | None:
        """Wait for the figures and return them; None where they could not be drawn."""
        self._thread.join()
        return self._figures


def plotted_rows(source: Source, fitted: FittedModel) -> PlottedRows | None:
    """Read some rows for figures of single rows; None where there are none.

    Parameters
    ----------
    source
        Source of the run.
    fitted
        Fitted model.
    """
    from clustering.report import samples

    return samples.sample_rows(source, fitted)
