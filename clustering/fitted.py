"""The fitted model as users hold it: what it is, and how it labels, scores, draws and saves."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.access import open_data
from clustering.deferred import xr
from clustering.exports.content import Content
from clustering.exports.scikit_learn import to_sklearn
from clustering.exports.targets import export
from clustering.fitting.center_fields import center_fields
from clustering.fitting.features import check_features
from clustering.fitting.fitted_model import FittedModel
from clustering.fitting.labelling import LabelOutputs, LabelStatistics
from clustering.html_repr import SHOWN, page, section
from clustering.models.model import AnyModel
from clustering.models.sampling import check_invertible, check_whole_number
from clustering.options import LabelCall, LabelToCall, ReportCall
from clustering.plotting import FitPlots
from clustering.run.fit_report import check_page, write_fit_report
from clustering.run.label_in_memory import label_in_memory
from clustering.run.label_to import label_to
from clustering.showing import show, show_one
from clustering.signatures import takes_after_two
from clustering.storage.model import feature_coordinates, load_model, save_model, to_dataset

logger = logging.getLogger(__name__)


# Without `eq=False`, comparing two fits would compare arrays, which give no single truth value.
@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted model. Immutable."""

    fitted: FittedModel
    labelled: bool = True
    """Whether results are xarray objects; False where the data were a bare ndarray."""

    @property
    def model(self) -> AnyModel:
        """The model that was fitted."""
        return self.fitted.model

    @property
    def params(self) -> Any:
        """Params of the fit: centers less the origin, and more, all for prepared rows."""
        return self.fitted.params

    @property
    def ids(self) -> NDArray[np.int64]:
        """Ids of the clusters in labels ``(k,)``, in the order of the centers: 0 … k − 1, or those of earlier runs."""
        return self.fitted.ids

    @property
    def centers(self) -> Any:
        """Centers ``(k, d)`` in the data's own units."""
        return to_dataset(self.fitted)["centers"] if self.labelled else self.fitted.centers

    @property
    def fields(self) -> xr.Dataset:
        """Centers of each variable ``(cluster, *feature_dims)``, in its units: profiles, series or maps."""
        return xr.Dataset(center_fields(self.fitted))

    @property
    def weights(self) -> Any:
        """Mixing weights of a mixture, or the share of each cluster in the total weight ``(k,)``."""
        return to_dataset(self.fitted)["weights"] if self.labelled else self.fitted.weights

    @property
    def covariances(self) -> Any:
        """Covariances of a mixture: spherical ``(k,)``, diagonal ``(k, d)``, tied ``(d, d)``, full ``(k, d, d)``.

        They are in the data's own units. After principal components, whitening or feature weights of 0, and spherical
        ones after any preprocessing, they are those of the prepared rows. None for other models.
        """
        if self.fitted.covariances is None:
            return None
        return to_dataset(self.fitted)["covariances"] if self.labelled else self.fitted.covariances

    @property
    def objective(self) -> float:
        """J = Σ w D(x, m) of k-means, free energy of soft k-means, mean log-likelihood per weight of a mixture."""
        return self.fitted.objective

    @property
    def history(self) -> NDArray[np.float64]:
        """Objective after the assignment step and after the update step of each pass ``(passes, 2)``."""
        return self.fitted.history

    @property
    def iterations(self) -> int:
        """Passes over the full data that updated the params."""
        return self.fitted.iterations

    @property
    def converged(self) -> bool:
        """Whether the stopping test was met."""
        return self.fitted.converged

    @property
    def reads(self) -> float:
        """Number of full reads of the source. A partial read counts by its share of the blocks."""
        return self.fitted.reads

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings, a line each, such as excluded rows and clusters that were empty and restarted."""
        return self.fitted.notes

    @property
    def criteria(self) -> dict[str, float] | None:
        """AIC, BIC and ICL of a mixture, and the numbers they are made of; lower is better. None for other models."""
        return self.fitted.criteria

    @property
    def plot(self) -> FitPlots:
        """Plots, which return matplotlib axes: ``fit.plot.centers()``, ``fit.plot.labels(data)`` and others."""
        return FitPlots(self.fitted, self)

    @takes_after_two(LabelCall)
    def predict(self, data: Any, options: LabelCall) -> Any:
        """Label data in memory.

        Parameters
        ----------
        data
            Data as for `fit`. Other features (variables, dimensions, labels, units) than in the fit are a `DataError`.
        options
            Which part of the data is labelled. Variables and dimensions are those of the fit where they are not given.

        Returns
        -------
        ndarray, xarray.DataArray or pandas.Series
            Labels in the shape of the samples, −1 where masked; with the coordinates of the data, or the index of a
            data frame.

        Warns
        -----
        ClusteringWarning
            As `fit` does, and where units or labels cannot be compared with those of the fit.
        """
        return self._label(data, options, LabelOutputs())[0]["labels"]

    @takes_after_two(LabelCall)
    def responsibilities(self, data: Any, options: LabelCall) -> Any:
        """Responsibilities in memory: float64 in the shape of the samples, and ``k``; NaN where masked.

        Parameters
        ----------
        data
            As for `predict`.
        options
            As for `predict`.

        Raises
        ------
        ConfigError
            If the model is hard.
        """
        return self._one_output("responsibilities", data, options, responsibilities="all")

    @takes_after_two(LabelCall)
    def log_density(self, data: Any, options: LabelCall) -> Any:
        """Log density of the rows under the model, in memory: float64 in the shape of the samples.

        Parameters
        ----------
        data
            As for `predict`.
        options
            As for `predict`.

        Raises
        ------
        ConfigError
            If the model has no density.
        """
        return self._one_output("log_density", data, options, log_density=True)

    @takes_after_two(LabelCall)
    def outlier_score(self, data: Any, options: LabelCall) -> Any:
        """−log₁₀ of the share of rows expected farther from their component: float64 in the shape of the samples.

        Parameters
        ----------
        data
            As for `predict`.
        options
            As for `predict`.

        Raises
        ------
        ConfigError
            If the model has no density.
        """
        return self._one_output("outlier_score", data, options, outlier_score=True)

    @takes_after_two(LabelCall)
    def distance(self, data: Any, options: LabelCall) -> Any:
        """Distance of the rows from their own center, in memory: float64 in the shape of the samples; NaN where masked.

        For squared_euclidean and mahalanobis it is the root of the divergence, for other divergences the divergence
        itself, for a mixture the Mahalanobis distance under the component's covariance.

        Parameters
        ----------
        data
            As for `predict`.
        options
            As for `predict`.
        """
        return self._one_output("distance", data, options, distance=True)

    @takes_after_two(LabelCall)
    def distances(self, data: Any, options: LabelCall) -> Any:
        """Distances of the rows from every center, as in `distance`: float64 in the shape of the samples, and ``k``.

        Parameters
        ----------
        data
            As for `predict`.
        options
            As for `predict`.
        """
        return self._one_output("distances", data, options, distances=True)

    @takes_after_two(LabelCall)
    def margin(self, data: Any, options: LabelCall) -> Any:
        """How clear each label is, in memory: float64 in the shape of the samples; NaN where masked.

        For k-means, the distance of the nearest other center less that of the own one; infinite for k = 1. For soft
        models, the largest responsibility less the second largest, 0 to 1; 1 for k = 1.

        Parameters
        ----------
        data
            As for `predict`.
        options
            As for `predict`.
        """
        return self._one_output("margin", data, options, margin=True)

    @takes_after_two(LabelCall)
    def score(self, data: Any, options: LabelCall) -> float:
        """Objective of data under this model; see `objective`.

        Parameters
        ----------
        data
            As for `predict`.
        options
            As for `predict`.
        """
        sums = self._label(data, options, LabelOutputs())[1]
        return float(self.model.to_user_objective(sums.objective, float(sums.weight.sum())))

    @takes_after_two(LabelToCall)
    def label(self, data: Any, options: LabelToCall) -> Path:
        """Label data of any size, and write the labels to a Zarr group, block by block.

        After an interruption, the same call goes on after the blocks that are finished. The group appears at its place
        when all of it is written.

        Parameters
        ----------
        data
            Data as for `fit`. Other features (variables, dimensions, labels, units) than in the fit are a `DataError`.
        options
            Where the labels go, which outputs are written, and which part of the data is labelled. Variables and
            dimensions are those of the fit where they are not given.

        Returns
        -------
        Path
            The Zarr group, with the coordinates of the data; −1 where masked. ``xr.open_zarr`` opens it, with
            ``consolidated=False``.

        Raises
        ------
        OutputError
            If the place holds something that may not be replaced, or cannot be written.

        Warns
        -----
        ClusteringWarning
            As `predict`, and for coordinates that cannot be written beside the labels.
        """
        source = open_data(data, options, self.fitted.layout)
        show((*source.cautions, *check_features(source, self.fitted)))
        return label_to(self.fitted, source, options, show_one)

    def sample(self, n: int, seed: int = 0) -> Any:
        """Draw new rows from the fitted model: a component first, then a row of its Gaussian.

        Parameters
        ----------
        n
            Number of rows, 1 or more.
        seed
            Seed, 0 or more. Row i depends on the seed and i alone.

        Returns
        -------
        tuple of ndarray, or xarray.Dataset
            Rows ``(n, d)`` in the data's own units, and the ids ``(n,)`` of their components; for a labelled fit, the
            variables ``rows (sample, feature)`` and ``labels (sample)``.

        Raises
        ------
        ConfigError
            If the model has no density, the preparation cannot be inverted, or a number is out of range.
        """
        check_invertible(self.fitted.preparation)
        n, seed = check_whole_number("n", n, 1), check_whole_number("seed", seed, 0)
        ((rows, components),) = self.model.generative(self.params).draw(n, seed, n)
        if self.fitted.preparation is not None:
            rows = self.fitted.preparation.to_data_units(rows)
        clusters = self.fitted.clusters
        labels = self.ids[components].astype(clusters.dtype)
        if not self.labelled:
            return rows, labels
        # A feature dimension may have the name of a dimension or variable of the result, and is then renamed.
        coordinates = feature_coordinates(self.fitted, ("sample", "rows", "labels"))
        names = [str(feature) for feature in self.fitted.features]
        return xr.Dataset(
            {"rows": (("sample", "feature"), rows), "labels": ("sample", labels, clusters.attributes)},
            {"feature": names, **coordinates},
        )

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model as a Zarr group, in a folder or a bucket; `load_fit` reads it back to the last bit.

        Parameters
        ----------
        path
            Path or URL that does not exist, is empty, or holds a saved model.
        overwrite
            Whether a saved model is replaced, in one step. Other content is never replaced.

        Raises
        ------
        OutputError
            If the path has content that may not be replaced, or cannot be written.
        """
        save_model(self.fitted, os.fspath(path), {"labelled": self.labelled}, overwrite=overwrite)

    @takes_after_two(ReportCall)
    def report(self, path: str | os.PathLike[str], options: ReportCall) -> Path:
        """Write a page that shows the fit: key figures, sizes, centers, the cost curve; with data also the labels.

        The page is one HTML file that needs no network and no other file. It looks like the report of a run.

        Parameters
        ----------
        path
            Path of the file, such as report.html. Missing folders are made.
        options
            Data to label, and which part of them; nothing of the data is needed for the page of a model.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        OutputError
            If the place holds something that may not be replaced, or cannot be written.
        MissingDependencyError
            If matplotlib or jinja2 is not installed.

        Warns
        -----
        ClusteringWarning
            As `predict`.
        """
        target = check_page(path, overwrite=options.overwrite)
        if options.data is None:
            return write_fit_report(self.fitted, target, overwrite=options.overwrite)
        soft = self.model.soft
        outputs = LabelOutputs(responsibilities="max" if soft else "none", margin=not soft)
        # Labelling shows the cautions of the data, so opening them for the rows that are drawn does not.
        results, _ = self._label(options.data, options, outputs)
        source = open_data(options.data, options, self.fitted.layout)
        return write_fit_report(self.fitted, target, source, results, overwrite=options.overwrite)

    def to_sklearn(self) -> Any:
        """Make a fitted estimator of scikit-learn that labels rows as this model does.

        Returns
        -------
        sklearn.base.BaseEstimator
            A ``KMeans`` or ``GaussianMixture``, at the end of a ``Pipeline`` where rows are prepared or far from zero.
            It takes rows ``(n, d)`` in the data's own units, and gives positions of clusters: the ids at these
            positions are its attribute ``cluster_ids_``.

        Raises
        ------
        OutputError
            If scikit-learn has no such model.
        MissingDependencyError
            If it is not installed.
        """
        return to_sklearn(Content(self.fitted, self.fitted.clusters))

    def export(self, path: str | os.PathLike[str], *, to: str, overwrite: bool = False) -> list[Path]:
        """Write the model to a file of another program.

        Parameters
        ----------
        path
            Path of the file, on this machine.
        to
            Target: ``sklearn``, ``faiss``, ``onnx``, ``npz``, ``netcdf`` or ``csv``.
        overwrite
            Whether what an earlier export wrote there is replaced. Anything else is never replaced.

        Returns
        -------
        list of Path
            The files written.

        Raises
        ------
        ConfigError, OutputError, MissingDependencyError
            If there is no such target, it cannot hold the model, the place may not be written, or a package is not
            installed.
        """
        return export(Content(self.fitted, self.fitted.clusters), path, to, overwrite=overwrite)

    def _one_output(self, name: str, data: Any, options: LabelCall, **wanted: Any) -> Any:
        """Compute one output of each row, in double precision."""
        return self._label(data, options, LabelOutputs(labels=False, precision="float64", **wanted))[0][name]

    def _label(self, data: Any, options: LabelCall, outputs: LabelOutputs) -> tuple[dict[str, Any], LabelStatistics]:
        return label_in_memory(self.fitted, data, options, outputs, show)

    def _repr_html_(self) -> str:
        """Show the fit in a notebook: what was fitted, its clusters and features, and its warnings."""
        fitted, few = self.fitted, slice(SHOWN)
        state = "converged" if self.converged else f"stopped by {fitted.stop}"
        header = f"{self.model}: {fitted.model.objective.symbol} {self.objective:.6g}, {state}"
        facts = {
            "rows": f"{fitted.summary.count:,} of {fitted.summary.cells:,} cells",
            "features": f"{len(fitted.features):,}",
            "sample_dims": ", ".join(fitted.sample_dims),
            "feature_dims": ", ".join(fitted.feature_dims),
            "objective": f"{self.objective!r}",
            "iterations": f"{self.iterations}",
            "reads": f"{self.reads:g}",
        }
        centers = fitted.centers
        names = [str(feature) for feature in fitted.features[few]]
        clusters = [
            (str(number), f"{weight:.4g}", *(f"{value:.6g}" for value in center[few]))
            for number, weight, center in zip(self.ids[few], fitted.weights[few], centers[few], strict=True)
        ]
        units = [(str(f), fitted.about.get(f.variable, {}).get("units", "")) for f in fitted.features[few]]
        return page(
            "clustering.Fit",
            header,
            section("Facts", facts.items(), count=None, is_open=True),
            section("Clusters", clusters, count=self.model.k, is_open=True, head=("cluster", "weight", *names)),
            section("Features", units, count=len(fitted.features), head=("feature", "units")),
            section("Warnings", [(line,) for line in self.warnings], count=len(self.warnings)),
        )

    def __repr__(self) -> str:
        state = "converged" if self.converged else f"stopped by {self.fitted.stop}"
        return (
            f"<Fit {self.model}: objective {self.objective:.6g}, {self.iterations} passes, {state}, "
            f"{self.fitted.summary.count:,} rows × {len(self.fitted.features)} features>"
        )


def load_fit(path: str | os.PathLike[str]) -> Fit:
    """Read a model that `Fit.save` or a run wrote.

    Parameters
    ----------
    path
        Path or URL of a ``model.zarr``, or of the output of a run.

    Raises
    ------
    SourceError
        If the path holds no model.
    """
    fitted_model, attributes = load_model(os.fspath(path))
    # Only `Fit.save` writes this attribute, so models of runs do not have it.
    return Fit(fitted_model, bool(attributes.get("labelled", True)))
