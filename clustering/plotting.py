"""The plots of a fit and of a run, as methods: ``fit.plot.centers()``. Each loads matplotlib when it is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from clustering.data.access import open_data
from clustering.deferred import load_module, xr
from clustering.errors import ConfigError, MissingDependencyError, OutputError
from clustering.fitting.cluster_names import ClusterNames
from clustering.fitting.features import check_features
from clustering.fitting.fitted_model import FittedModel
from clustering.options import LabelCall, SourceOptions
from clustering.showing import show
from clustering.signatures import check_call

SAMPLE = 2000
"""Number of rows that plots of single rows draw by default."""


class _Labels(Protocol):
    """What a fit does with data."""

    @property
    def predict(self) -> Callable[..., Any]: ...

    @property
    def margin(self) -> Callable[..., Any]: ...

    @property
    def responsibilities(self) -> Callable[..., Any]: ...


@dataclass(frozen=True, eq=False)
class FitPlots:
    """Plots of a fit. Each method returns matplotlib axes, or an array of axes, and takes ``ax``.

    ``ax`` is axes or a figure of matplotlib to draw on. Without it, a new figure of pyplot is made, which notebooks
    show.
    Methods that need rows take ``data``, as `Fit.predict`, and its options, such as ``sample_dims``.
    """

    fitted: FittedModel
    fit: _Labels
    names: ClusterNames | None = None
    """Ids, names and colours of the clusters; ids of the model where None."""

    @property
    def clusters(self) -> ClusterNames:
        """Ids, names and colours of the clusters."""
        return self.names or self.fitted.clusters

    def centers(
        self,
        data: Any = None,
        *,
        ax: Any = None,
        form: str | None = None,
        variable: str | None = None,
        sample: int = SAMPLE,
        **options: Any,
    ) -> Any:
        """Draw the centers, in the data's own units, in the form that the coordinates of the features ask for.

        Maps over two feature dimensions; profiles or series over one, with bands; swatches of the colours of an image;
        otherwise a heat map of standard scores. Bands are ±σ of the components of a mixture, or, with `data`, the
        quantiles 10 % and 90 % of some rows of each cluster; the legend says which. Curves that coincide alternate in
        dashes, and the legend names them.

        Parameters
        ----------
        data
            Data for bands of quantiles; not needed otherwise.
        ax
            Axes or figure of matplotlib.
        form
            ``maps``, ``departures`` (from the mean of all rows), ``profiles``, ``heat map`` or ``swatches``.
        variable
            The variable that maps or profiles are of; all by default.
        sample
            Number of rows for quantiles.
        **options
            Options of `data`.

        Returns
        -------
        Axes or ndarray of Axes
            One for each variable of profiles, and for each map.
        """
        drawing, spread = load_plots("centers"), load_plots("spread")
        band = spread.spread_of_components(self.fitted)
        if data is not None:
            rows = self._sample(data, sample, options)
            band = spread.spread_of_rows(rows.values, rows.positions, self.clusters.k)
        elif options:
            raise ConfigError(f"option {next(iter(options))!r} is about data, and none are given; give data")
        return drawing.centers(self.fitted, self.clusters, ax, form=form, variable=variable, spread=band)

    def labels(self, data: Any, *, ax: Any = None, frequency: bool | str = False, **options: Any) -> Any:
        """Draw labels over one or two sample dimensions, or the frequency of each cluster over time.

        Of more than two dimensions, a map shows the last two, in the middle of the others. A dimension as keyword cuts
        elsewhere: ``time=0`` by position, ``time="2001-07"`` by label, ``depth=10.0`` by the nearest number. Longitudes
        around the globe are put in the order −180 … 180.

        Parameters
        ----------
        data
            Data to label, or labels from `Fit.predict` or a run.
        ax
            Axes or figure of matplotlib.
        frequency
            Whether the share of each cluster over time is drawn, stacked; or the name of another dimension for it.
        **options
            Positions or labels along dimensions, and options of `data`.

        Returns
        -------
        Axes
            The axes.
        """
        grids = load_plots("grids")
        at, options = _split(options)
        array = data if _are_labels(data) else _on_grid(self.fit.predict(data, **options))
        return self._draw_labels(grids, array, ax, frequency, at)

    def _draw_labels(self, grids: Any, array: Any, ax: Any, frequency: bool | str, at: Mapping[Any, Any]) -> Any:
        if frequency is False:
            return grids.labels(grids.slice_of(array, at), self.clusters, ax)
        cut = grids.slice_of(array, at, array.ndim) if at else array
        return grids.frequency(cut, self.clusters, None if frequency is True else frequency, ax)

    def sizes(self, *, ax: Any = None) -> Any:
        """Draw the share of each cluster in the total weight.

        Parameters
        ----------
        ax
            Axes or figure of matplotlib.
        """
        return load_plots("curves").sizes(self.fitted, self.clusters, ax)

    def cost(self, *, ax: Any = None) -> Any:
        """Draw the objective after every assignment step in blue and after every update step in red.

        Parameters
        ----------
        ax
            Axes or figure of matplotlib.
        """
        return load_plots("curves").cost(self.fitted.history, self.fitted.model.objective, ax)

    def silhouette(self, data: Any, *, sample: int = SAMPLE, ax: Any = None, **options: Any) -> Any:
        """Draw the simplified silhouettes of some rows, a blade for each cluster, with their mean.

        The simplified silhouette compares the distances from the own center and from the nearest other one.

        Parameters
        ----------
        data
            Data as for `Fit.predict`.
        sample
            Number of rows, spread over the data.
        ax
            Axes or figure of matplotlib.
        **options
            Options of `data`.
        """
        drawing = load_plots("single_rows")
        return drawing.silhouette(self.fitted, self._sample(data, sample, options), self.clusters, ax)

    def responsibilities(self, data: Any, *, sample: int = SAMPLE, ax: Any = None, **options: Any) -> Any:
        """Draw the responsibilities of some rows, stacked; on a grid of two or more dimensions a map of the largest.

        Parameters
        ----------
        data
            Data as for `Fit.predict`.
        sample
            Number of rows, spread over the data, where no map is drawn.
        ax
            Axes or figure of matplotlib.
        **options
            Positions or labels along dimensions, as for `labels`, and options of `data`.

        Raises
        ------
        ConfigError
            If the model is hard.
        """
        drawing = load_plots("single_rows")
        drawing.check_soft(self.fitted)
        at, options = _split(options)
        source = self._open(data, options)
        if len(source.sample_dims) < 2:
            rows = load_plots("rows").sampled_rows(source, self.fitted, sample)
            shares = load_plots("rows").responsibilities_of(self.fitted, rows)
            return drawing.responsibilities(shares, self.clusters, rows.words, ax)
        shares = _on_grid(self.fit.responsibilities(data, **options))
        # Clusters lie along the last dimension, whatever its name.
        largest = shares.max(shares.dims[-1], skipna=False)
        grids = load_plots("grids")
        return grids.quantity(grids.slice_of(largest, at), "responsibility of the own cluster", ax)

    def margin(self, data: Any, *, ax: Any = None, **options: Any) -> Any:
        """Draw how clear labels are: on a grid of two or more dimensions a map, otherwise a histogram by cluster.

        Parameters
        ----------
        data
            Data as for `Fit.predict`.
        ax
            Axes or figure of matplotlib.
        **options
            Positions or labels along dimensions, as for `labels`, and options of `data`.
        """
        grids, drawing = load_plots("grids"), load_plots("single_rows")
        at, options = _split(options)
        array = _on_grid(self.fit.margin(data, **options))
        if array.ndim > 1:
            return grids.quantity(grids.slice_of(array, at), "margin", ax)
        if at:
            raise ConfigError(f"cannot cut along {next(iter(at))!r}; the rows have one dimension, {array.dims[0]!r}")
        positions = self.clusters.positions(np.asarray(self.fit.predict(data, **options)))
        used = positions >= 0
        return drawing.margins(array.values[used], positions[used], self.clusters, self.fitted.model.soft, ax)

    def pca(self, data: Any, *, sample: int = SAMPLE, ax: Any = None, **options: Any) -> Any:
        """Draw some rows on their two principal components, with ellipses of 1 and 2 standard deviations.

        Parameters
        ----------
        data
            Data as for `Fit.predict`.
        sample
            Number of rows, spread over the data.
        ax
            Axes or figure of matplotlib.
        **options
            Options of `data`.
        """
        drawing = load_plots("single_rows")
        return drawing.pca(self.fitted, self._sample(data, sample, options), self.clusters, ax)

    def _sample(self, data: Any, sample: int, options: Mapping[str, Any]) -> Any:
        return load_plots("rows").sampled_rows(self._open(data, options), self.fitted, sample)

    def _open(self, data: Any, options: Mapping[str, Any]) -> Any:
        source = open_data(data, check_call(LabelCall, dict(options)), self.fitted.layout)
        show((*source.cautions, *check_features(source, self.fitted)))
        return source


@dataclass(frozen=True, eq=False)
class RunPlots(FitPlots):
    """Plots of a run: those of its fit, with the names and colours that users gave, and those of what it wrote."""

    record: Mapping[str, Any] | None = None
    """Content of its ``run.json``."""
    place: str = ""
    """Where its files are, for messages."""
    read: Callable[[], Any] | None = None
    """Opens its labels and further outputs."""

    def labels(self, data: Any = None, *, ax: Any = None, frequency: bool | str = False, **options: Any) -> Any:
        """Draw the labels that the run wrote, or those of other data; see `FitPlots.labels`.

        Parameters
        ----------
        data, ax, frequency, **options
            As there; without data, the labels of the run.
        """
        if data is not None:
            return super().labels(data, ax=ax, frequency=frequency, **options)
        grids = load_plots("grids")
        return self._draw_labels(grids, self._output("labels", "write_labels"), ax, frequency, options)

    def responsibilities(self, data: Any = None, *, sample: int = SAMPLE, ax: Any = None, **options: Any) -> Any:
        """Draw the responsibilities that the run wrote, or those of other data; see `FitPlots.responsibilities`.

        Parameters
        ----------
        data, sample, ax, **options
            As there; without data, the responsibility of the own cluster that the run wrote.
        """
        if data is not None:
            return super().responsibilities(data, sample=sample, ax=ax, **options)
        grids = load_plots("grids")
        array = self._output("responsibility", "responsibilities='max'")
        return grids.quantity(grids.slice_of(array, options), "responsibility of the own cluster", ax)

    def margin(self, data: Any = None, *, ax: Any = None, **options: Any) -> Any:
        """Draw the margins that the run wrote, or those of other data; see `FitPlots.margin`.

        Parameters
        ----------
        data, ax, **options
            As there; without data, the margins that the run wrote.
        """
        if data is not None:
            return super().margin(data, ax=ax, **options)
        grids = load_plots("grids")
        return grids.quantity(grids.slice_of(self._output("margin", "margin=True"), options), "margin", ax)

    def transitions(self, *, ax: Any = None) -> Any:
        """Draw the weight that went from each cluster of the previous version to each of this one.

        Parameters
        ----------
        ax
            Axes or figure of matplotlib.

        Raises
        ------
        OutputError
            If the run had no previous version with labels.
        """
        drawing, record = load_plots("versions"), self.record or {}
        comparison = record.get("comparison") or {}
        listed = comparison.get("transitions")
        if not listed:
            raise OutputError(
                f"run {record.get('run')} at {self.place} has no transitions, as it wrote no labels or no version with "
                "labels was before it; run the job again with init='model' and write_labels"
            )
        pairs = np.array([pair for *pair, _ in listed], np.int64)
        weights = np.array([weight for *_, weight in listed])
        return drawing.transitions(pairs, weights, ax, names=(f"run {comparison['with']}", f"run {record['run']}"))

    def _output(self, name: str, option: str) -> Any:
        try:
            outputs = None if self.read is None else self.read()
        except FileNotFoundError:
            outputs = None
        if outputs is None or name not in outputs:
            raise OutputError(f"the run at {self.place} wrote no {name}; run it with {option}, or give data")
        return outputs[name]


def load_plots(name: str) -> Any:
    """Load a module that draws, and matplotlib with it.

    Parameters
    ----------
    name
        Name of the module in `clustering.plots`.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise MissingDependencyError("plots need the package 'matplotlib'; pip install 'zarr-clustering[plot]'")
    return load_module(f"clustering.plots.{name}")


def _split(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split keywords into places along dimensions and options of data."""
    data_options = {*LabelCall.model_fields, *SourceOptions.model_fields}
    return (
        {name: value for name, value in options.items() if name not in data_options},
        {name: value for name, value in options.items() if name in data_options},
    )


def _are_labels(data: Any) -> bool:
    """Return whether data are labels that this library made, by their CF attributes."""
    return hasattr(data, "dims") and "flag_values" in getattr(data, "attrs", {})


def _on_grid(result: Any) -> Any:
    """Return results of a bare array as an array with dimensions."""
    if hasattr(result, "dims"):
        return result
    array = np.asarray(result)
    return xr.DataArray(array, dims=("row",) if array.ndim == 1 else None)


__all__ = ["FitPlots", "RunPlots"]
