"""Drawing beside a run. The packages for it are an extra of the installation, which only a job with a report loads."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from typing import TYPE_CHECKING

from clustering.data.source import Source
from clustering.deferred import load_module
from clustering.errors import MissingDependencyError
from clustering.fitting.fitted_model import FittedModel
from clustering.storage.names_file import load_cluster_names
from clustering.storage.paths import StoragePath

if TYPE_CHECKING:
    from clustering.plots.rows import SpreadRows
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


class EarlyDrawing:
    """A thread that reads plotted rows while a model is fitted, and draws its figures while labels are written.

    Whatever fails in it is tried again by the report, which raises the error where it can be told.
    """

    def __init__(self, source: Source) -> None:
        """Begin to load what draws, and to read rows.

        Parameters
        ----------
        source
            Source of the run.
        """
        self._source = source
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="report")
        self._rows = self._thread.submit(_read_rows, source)
        self._figures: Future[ModelFigures] | None = None

    def begin(self, fitted: FittedModel, output: StoragePath, *, labels: bool) -> bool:
        """Begin to draw the figures of a fitted model, which need no labels; return whether it has begun.

        Parameters
        ----------
        fitted
            Fitted model, as it is before the label pass.
        output
            Output of the run, which holds the names of the clusters.
        labels
            Whether labels are written.
        """
        self._figures = self._thread.submit(self._draw, fitted, output, labels)
        # The thread ends with its figures.
        self._thread.shutdown(wait=False)
        return True

    def _draw(self, fitted: FittedModel, output: StoragePath, labels: bool) -> ModelFigures:
        from clustering.report import label_figures, samples
        from clustering.report.model_figures import ModelFigures

        photograph = labels and label_figures.may_be_photograph(self._source, fitted)
        clusters = load_cluster_names(output, fitted.ids)
        if photograph:
            clusters = label_figures.in_own_colours(fitted, clusters)
        sample = samples.label_rows(self._rows.result(), fitted)
        return ModelFigures.draw(fitted, sample, clusters, photograph=photograph)

    def figures(self) -> ModelFigures | None:
        """Wait for the figures and return them; None where they could not be drawn."""
        if self._figures is None or self._figures.exception() is not None:
            return None
        return self._figures.result()


def _read_rows(source: Source) -> SpreadRows | None:
    load_module(PAGE)
    from clustering.report import samples

    return samples.read_rows(source)


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
