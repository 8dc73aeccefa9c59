"""The public interface: fits a model to data, applies it, saves it and loads it."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from clustering.data.access import open_source
from clustering.data.plan import MIB
from clustering.data.preparation import usable_memory
from clustering.data.source_fingerprint import check_unchanged
from clustering.errors import ClusteringWarning, ConfigError, nearest
from clustering.execution.engine import connect
from clustering.execution.passes import ReadStats, pass_runner
from clustering.fitting.center_fields import center_fields
from clustering.fitting.features import check_features
from clustering.fitting.fitted_model import FittedModel, Summary, from_state
from clustering.fitting.initialization import initialize
from clustering.fitting.labelling import LabelOutputs, LabelStatistics, discard, label_blocks
from clustering.fitting.loop import PassRecord, Stop, StoppingRule, choose_best, iterate
from clustering.fitting.options import Options
from clustering.fitting.preprocessing import Preprocess, zero_row_notes
from clustering.models.model import AnyModel
from clustering.models.registry import MODELS
from clustering.models.sampling import check_invertible, check_whole_number
from clustering.storage.labels import results_in_memory
from clustering.storage.model import feature_coordinates, load_model, save_model, to_dataset

MEMORY = 2048 * MIB
"""Default memory budget of a worker, in bytes."""

_SOURCE = (
    "group", "variables", "sample_dims", "feature_dims", "select", "isel", "bbox", "mask", "weights", "labels",
    "missing", "missing_chunks", "on_bad_chunk", "max_bad_fraction", "nodata", "decode", "valid_range",
    "storage_options",
)  # fmt: skip
_COMPUTE = ("cluster", "workers", "memory", "scratch", "block_bytes", "wait_seconds")
_RULE = ("tolerance", "max_iterations", "max_seconds")
_OPTIONS = ("seed", "restarts", "finalists", "sample_rows", "init", "fraction")
_PREPROCESS = ("standardize", "unit_norm", "pca", "pca_per_variable", "whiten", "feature_weights")


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

    def predict(self, data: Any, **options: Any) -> Any:
        """Label data in memory.

        Parameters
        ----------
        data
            Data as for `fit`. Other features (variables, dimensions, labels, units) than in the fit are a `DataError`.
        **options
            Source options, ``workers``, ``memory`` and ``block_bytes``, as for `fit`. Variables and dimensions are
            those of the fit where they are not given.

        Returns
        -------
        ndarray or xarray.DataArray
            Labels in the shape of the samples, −1 where masked; with the coordinates of the data.

        Warns
        -----
        ClusteringWarning
            As `fit` does, and where units or labels cannot be compared with those of the fit.
        """
        return self._label(data, options, LabelOutputs())[0]["labels"]

    def responsibilities(self, data: Any, **options: Any) -> Any:
        """Responsibilities in memory: float64 in the shape of the samples, and ``k``; NaN where masked.

        Parameters
        ----------
        data, **options
            As for `predict`.

        Raises
        ------
        ConfigError
            If the model is hard.
        """
        return self._one_output("responsibilities", data, options, responsibilities="all")

    def log_density(self, data: Any, **options: Any) -> Any:
        """Log density of the rows under the model, in memory: float64 in the shape of the samples.

        Parameters
        ----------
        data, **options
            As for `predict`.

        Raises
        ------
        ConfigError
            If the model has no density.
        """
        return self._one_output("log_density", data, options, log_density=True)

    def outlier_score(self, data: Any, **options: Any) -> Any:
        """−log₁₀ of the share of rows expected farther from their component: float64 in the shape of the samples.

        Parameters
        ----------
        data, **options
            As for `predict`.

        Raises
        ------
        ConfigError
            If the model has no density.
        """
        return self._one_output("outlier_score", data, options, outlier_score=True)

    def distance(self, data: Any, **options: Any) -> Any:
        """Distance of the rows from their own center, in memory: float64 in the shape of the samples; NaN where masked.

        For squared_euclidean and mahalanobis it is the root of the divergence, for other divergences the divergence
        itself, for a mixture the Mahalanobis distance under the component's covariance.

        Parameters
        ----------
        data, **options
            As for `predict`.
        """
        return self._one_output("distance", data, options, distance=True)

    def distances(self, data: Any, **options: Any) -> Any:
        """Distances of the rows from every center, as in `distance`: float64 in the shape of the samples, and ``k``.

        Parameters
        ----------
        data, **options
            As for `predict`.
        """
        return self._one_output("distances", data, options, distances=True)

    def margin(self, data: Any, **options: Any) -> Any:
        """How clear each label is, in memory: float64 in the shape of the samples; NaN where masked.

        For k-means, the distance of the nearest other center less that of the own one; infinite for k = 1. For soft
        models, the largest responsibility less the second largest, 0 to 1; 1 for k = 1.

        Parameters
        ----------
        data, **options
            As for `predict`.
        """
        return self._one_output("margin", data, options, margin=True)

    def score(self, data: Any, **options: Any) -> float:
        """Objective of data under this model; see `objective`.

        Parameters
        ----------
        data, **options
            As for `predict`.
        """
        sums = self._label(data, options, LabelOutputs())[1]
        return float(self.model.to_user_objective(sums.objective, float(sums.weight.sum())))

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

    def _one_output(self, name: str, data: Any, options: dict[str, Any], **wanted: Any) -> Any:
        """Compute one output of each row, in double precision."""
        return self._label(data, options, LabelOutputs(labels=False, precision="float64", **wanted))[0][name]

    def _label(
        self, data: Any, options: dict[str, Any], outputs: LabelOutputs
    ) -> tuple[dict[str, Any], LabelStatistics]:
        _check_options(options, (*_SOURCE, "workers", "memory", "block_bytes"))
        outputs.check(self.model)
        source = open_source(data, **_pick(options, _SOURCE), like=self.fitted.layout)
        _show((*source.cautions, *check_features(source, self.fitted)))
        memory = options.get("memory", MEMORY)
        within = usable_memory(source, memory, self.fitted.preparation is not None)
        plan = source.plan(block_bytes=options.get("block_bytes"), memory=within)
        clusters = self.fitted.clusters
        results = results_in_memory(source, clusters, outputs, self.model)
        # Results are gathered in this process, so its threads make them.
        with (
            connect("threads", options.get("workers")) as engine,
            pass_runner(source, plan, engine, memory=memory, keep=False, preparation=self.fitted.preparation) as runner,
        ):
            result = label_blocks(runner, self.model, self.params, partial(_put, results), outputs, clusters=clusters)
        _show(zero_row_notes(result.statistics[0].zero_rows))
        labelled = {name: array if source.labelled else array.values for name, array in results.items()}
        return labelled, result.statistics[0]

    def __repr__(self) -> str:
        state = "converged" if self.converged else f"stopped by {self.fitted.stop}"
        return (
            f"<Fit {self.model}: objective {self.objective:.6g}, {self.iterations} passes, {state}, "
            f"{self.fitted.summary.count:,} rows × {len(self.fitted.features)} features>"
        )


def _put(results: dict[str, xr.DataArray], region: tuple[slice, ...], arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        results[name].values[region] = array


def fit(data: Any, model: AnyModel, *, on_pass: Any = None, **options: Any) -> Fit:
    """Fit a model to data of any size.

    Parameters
    ----------
    data
        A `Source`; path or URL of a Zarr store; xarray object, zarr array, dask array, or ndarray ``(n, d)``.
    model
        The model to fit, such as ``KMeans(k=8)``.
    on_pass
        Called with a `PassRecord` after each pass.
    **options
        Source options as for `open_source`: ``group``, ``variables``, ``sample_dims``, ``feature_dims``, ``select``,
        ``isel``, ``bbox``, ``mask``, ``weights``, ``labels``, ``missing``, ``missing_chunks``, ``on_bad_chunk``,
        ``max_bad_fraction``, ``nodata``, ``decode``, ``valid_range``, ``storage_options``.
        Fit options: ``seed`` (0), ``restarts`` (10), ``finalists`` (1), ``sample_rows`` (200000), ``init``
        (``"kmeans++"``, ``"random"``, ``"labels"``, centers ``(k, d)``, or for a mixture a dict of ``centers``,
        ``weights`` and ``covariances``), ``max_iterations`` (300), ``tolerance`` (0 for k-means: until no assignment
        changes; 1e-6 for the other models), ``max_seconds``, ``fraction`` (1.0: share of the rows, drawn at random,
        that the fit goes over; the objective is that of all rows).
        Preprocess options: ``standardize`` (False, ``"per_feature"``, ``"per_variable"``), ``unit_norm``, ``pca``
        (number of components, or the share of the variance to exceed), ``pca_per_variable``, ``whiten``,
        ``feature_weights`` (a variable along feature dimensions, ``cos(lat)``, ``sqrt(cos(lat))``, or an array
        ``(d,)``). Objective and distances are those of prepared rows; centers are in the data's units.
        Compute options: ``cluster`` (``"threads"``, ``"synchronous"``, ``"local"``, a mapping such as
        ``{"address": …}`` or ``{"slurm": {…}}``, or a `distributed.Client`), ``workers``, ``wait_seconds``,
        ``memory`` (bytes per worker), ``scratch`` (folder), ``block_bytes``.

    Returns
    -------
    Fit
        The fit. Every Dask cluster and every number of workers gives the same bits.

    Raises
    ------
    ConfigError, SourceError, DataError
        For options, paths or values that do not fit; the message names the remedy.

    Warns
    -----
    ClusteringWarning
        For likely mistakes: attributes that are ignored, absent chunks, times that are no dates, and causes that
        exclude most rows. `Fit.warnings` has the same lines, and those of the fit itself.
        ``warnings.filterwarnings("ignore", category=clustering.ClusteringWarning)`` silences them.

    Examples
    --------
    >>> import numpy as np, clustering as c
    >>> rows = np.array([[0.0], [1.0], [10.0], [11.0]])
    >>> c.fit(rows, c.KMeans(k=2)).objective
    1.0
    """
    _check_options(options, (*_SOURCE, *_COMPUTE, *_OPTIONS, *_RULE, *_PREPROCESS))
    if type(model) not in MODELS.values():
        raise ConfigError(f"cannot fit {model!r}; give a model such as KMeans(k=8)")
    source = open_source(data, **_pick(options, _SOURCE))
    _show(source.cautions)
    rule = StoppingRule(**{"tolerance": model.tolerance, **_pick(options, _RULE)})
    fit_options = Options(**_pick(options, _OPTIONS), rule=rule, preprocess=Preprocess(**_pick(options, _PREPROCESS)))
    memory = options.get("memory", MEMORY)
    within = usable_memory(source, memory, bool(fit_options.preprocess.requested))
    plan = source.plan(block_bytes=options.get("block_bytes"), memory=within)
    cluster, wait_seconds = options.get("cluster", "threads"), options.get("wait_seconds")
    with (
        connect(cluster, options.get("workers"), memory, wait_seconds) as engine,
        pass_runner(
            source, plan, engine, memory=memory, scratch=options.get("scratch"), fraction=fit_options.row_fraction
        ) as runner,
    ):
        initialization = initialize(runner, model, fit_options, memory)
        _show(initialization.warnings)
        state, read_stats = initialization.state, initialization.read_stats
        runner = replace(runner, preparation=initialization.preparation)
        for after, record in iterate(state, runner.run, fit_options.rule):
            state = after
            read_stats += record.read_stats
            if on_pass is not None:
                on_pass(record)
        state, judgement = choose_best(state, runner.run)
        read_stats += ReadStats() if judgement is None else judgement.read_stats
        reads = read_stats.blocks / len(plan)
        fitted_model = from_state(
            model,
            state,
            source.features,
            Summary.from_survey(initialization.survey),
            reads,
            read_stats.bytes,
            initialization.remarks,
            (*source.cautions, *initialization.warnings),
            read_stats.bad,
            initialization.preparation,
            source.about,
            (source.sample_dims, source.feature_dims),
            drawn=fit_options.draws_starts,
        )
        if fit_options.row_fraction is not None:
            with pass_runner(
                source, plan, engine, memory=memory, keep=False, preparation=initialization.preparation
            ) as everywhere:
                last = label_blocks(everywhere, model, fitted_model.params, discard)
            fitted_model = fitted_model.with_measured(last, len(plan)).labelled_on_all(last.statistics[0])
        elif fitted_model.stop is not Stop.CONVERGED or not model.objective_at_convergence:
            fitted_model = fitted_model.with_measured(
                label_blocks(runner, model, fitted_model.params, discard), len(plan)
            )
        check_unchanged(source)
    return Fit(fitted_model, source.labelled)


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
    return Fit(fitted_model, bool(attributes.get("labelled", True)))


def _check_options(options: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in options:
        if name not in names:
            raise ConfigError(f"unknown option {name!r}; {nearest(name, names)}")
    for name in ("memory", "block_bytes"):
        size = options.get(name, 1)
        number = isinstance(size, (int, float, np.number)) and not isinstance(size, bool)
        if not (number and size >= 1) and not (size is None and name == "block_bytes"):
            raise ConfigError(f"{name} is {size!r}; a number of bytes of 1 or more is needed")
    if not isinstance(scratch := options.get("scratch"), (str, os.PathLike, type(None))):
        raise ConfigError(f"scratch is {scratch!r}; the path of a folder is needed")


def _show(cautions: Iterable[str]) -> None:
    """Show warnings to the user, at the line outside this package that called it."""
    inside = f"{Path(__file__).parent}{os.sep}"
    frame, level = sys._getframe(1), 2
    # From Python 3.12 on, `skip_file_prefixes` of `warnings.warn` does this.
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        frame, level = frame.f_back, level + 1
    for caution in cautions:
        warnings.warn(caution, ClusteringWarning, stacklevel=level)


def _pick(options: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: options[name] for name in names if name in options}


__all__ = ["Fit", "PassRecord", "fit", "load_fit"]
