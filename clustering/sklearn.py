"""Estimators with the names of scikit-learn, over `clustering.fit`.

They take arrays, lists and data frames as scikit-learn does, and also what `clustering.fit` takes: xarray objects, dask
arrays, zarr arrays, sources and paths of stores. `fit_` of a fitted estimator is the `clustering.Fit` behind it.

``tol=None`` and ``n_init="auto"`` leave the choice to the model, see ``tolerance`` and ``restarts`` of
`clustering.fit`. A tolerance is a relative change of the objective, as everywhere in this library. ``random_state`` is 0
by default, so that a fit gives the same bits each time; None draws another seed for each fit.
"""

from __future__ import annotations

import inspect
import os
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from clustering.api import fit as fit_in_python
from clustering.api import fit_quietly
from clustering.blas import scipy
from clustering.data.access import open_source
from clustering.data.source import Source
from clustering.errors import ConfigError, MissingDependencyError, nearest
from clustering.errors import ConvergenceWarning as OwnConvergenceWarning
from clustering.fitted import Fit
from clustering.models import kmeans, mixture, soft_kmeans
from clustering.models.model import AnyModel
from clustering.options import BlockOptions, FitCall, SourceOptions
from clustering.showing import show
from clustering.signatures import takes_after_two

try:
    from sklearn import exceptions
    from sklearn.base import (
        BaseEstimator,
        ClassNamePrefixFeaturesOutMixin,
        ClusterMixin,
        DensityMixin,
        TransformerMixin,
    )
    from sklearn.utils import check_array, check_consistent_length, check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise MissingDependencyError(
        "the estimators need the package 'scikit-learn'; pip install 'zarr-clustering[sklearn]'"
    ) from error

__all__ = ["ConvergenceWarning", "GaussianMixture", "KMeans", "SoftKMeans"]

_PACKAGES = {"dask", "xarray", "zarr"}
"""Packages whose arrays have chunks or names, which scikit-learn would drop."""
_INITS = {"k-means++": "kmeans++", "kmeans++": "kmeans++", "random": "random", "labels": "labels"}
_COVARIANCES = {"full": "full", "tied": "tied", "diag": "diagonal", "spherical": "spherical", "identity": "identity"}
_RENAMED = {
    "seed": "random_state",
    "restarts": "n_init",
    "max_iterations": "max_iter",
    "tolerance": "tol",
    "init": "init",
}
"""Options of `clustering.fit` that are parameters of an estimator, by their names there."""


class ConvergenceWarning(OwnConvergenceWarning, exceptions.ConvergenceWarning):  # type: ignore[misc]
    """A limit of passes or of time ended a fit before its stopping test was met."""


@takes_after_two(FitCall)
def _fit(data: Any, model: AnyModel, options: FitCall) -> Fit:
    made = fit_quietly(data, model, options)
    if made.fitted.early_stop is not None:
        show((f"{made.fitted.early_stop}; increase max_iter, or raise tol",), ConvergenceWarning)
    return made


class _Estimator(BaseEstimator):  # type: ignore[misc]
    """What the estimators share: checks of the data, and the call of `clustering.fit`."""

    fit_: Fit
    _least_rows: ClassVar[int] = 1
    """Least number of rows of a fit, however few the clusters."""

    def _model(self) -> AnyModel:
        """Make the model from the parameters."""
        raise NotImplementedError

    def _start(self) -> Any:
        """Make the option ``init`` from the parameters."""
        init = self.init
        if isinstance(init, str):
            if init not in _INITS:
                raise ConfigError(f"init is {init!r}; {nearest(init, _INITS)}, or an array of centers")
            return _INITS[init]
        # scikit-learn takes lists of lists too.
        return np.asarray(init, np.float64)

    def _fit(self, X: Any, sample_weight: Any, options: dict[str, Any]) -> Source | NDArray[Any]:  # noqa: N803
        """Fit, and return the opened data."""
        own = next((name for name in options if name in _RENAMED), None)
        if own is not None:
            raise ConfigError(f"{own!r} is no option of fit; set {_RENAMED[own]} of {type(self).__name__}")
        model = self._model()
        rows = self._checked(X, options, least=max(model.k, self._least_rows))
        if sample_weight is not None:
            if options.get("weights") is not None:
                raise ConfigError("sample_weight and weights are both given; give one of them")
            options = {**options, "weights": _checked_weights(sample_weight, rows)}
        of_source = {name: value for name, value in options.items() if name in SourceOptions.model_fields}
        source = open_source(rows, **of_source) if of_source or not isinstance(rows, np.ndarray) else rows
        self.fit_ = _fit(
            source,
            model,
            init=self._start(),
            seed=_seed(self.random_state),
            restarts=None if self.n_init in ("auto", None) else self.n_init,
            max_iterations=self.max_iter,
            tolerance=self.tol,
            **{name: value for name, value in options.items() if name not in of_source},
        )
        self.n_features_in_ = len(self.fit_.fitted.features)
        self.n_iter_ = self.fit_.iterations
        return source

    def _checked(self, X: Any, options: dict[str, Any], least: int | None = None) -> Any:  # noqa: N803
        """Check rows as scikit-learn does; data with names or chunks are left to `clustering.open_source`.

        Parameters
        ----------
        X
            The data.
        options
            Options of the call.
        least
            Least number of rows of a fit; None for data that are labelled.
        """
        if least is None:
            check_is_fitted(self)
        if _is_opened_by_us(X):
            if least is not None:
                # Names of an earlier fit to a data frame do not belong to these data.
                vars(self).pop("feature_names_in_", None)
            return X
        return validate_data(
            self,
            X,
            reset=least is not None,
            dtype=(np.float64, np.float32),
            ensure_min_samples=least or 1,
            ensure_all_finite=options.get("missing", "error") == "error" or "allow-nan",
        )

    def _labels(self, data: Any, **options: Any) -> Any:
        return _as_int32(self.fit_.predict(data, **options))

    def predict(self, X: Any, **options: Any) -> Any:  # noqa: N803
        """Label data.

        Parameters
        ----------
        X
            Rows ``(n, d)``, or data as for `clustering.fit`, in the units of the fit.
        options
            Options of `clustering.Fit.predict`, such as ``mask``.

        Returns
        -------
        ndarray or xarray.DataArray
            Labels ``(n,)`` as int32; for data with names, in the shape of the samples with their coordinates.
        """
        return self._labels(self._checked(X, options), **options)


class _Clusterer(ClusterMixin, _Estimator):  # type: ignore[misc]
    """What k-means and soft k-means share."""

    def fit(self, X: Any, y: None = None, sample_weight: Any = None, **options: Any) -> Self:  # noqa: N803
        """Fit clusters.

        Parameters
        ----------
        X
            Rows ``(n, d)`` as an array, list or data frame; or data as for `clustering.fit`.
        y
            Ignored.
        sample_weight
            Weight of each row ``(n,)``, 0 or more.
        options
            Options of `clustering.fit`, such as ``sample_dims``, ``mask`` and ``memory``.
        """
        data = self._fit(X, sample_weight, options)
        self.cluster_centers_ = self.fit_.centers
        self._set_objective()
        vars(self).pop("labels_", None)
        if self.compute_labels:
            self.labels_ = self._labels(data, **_block_options(options))
        return self

    def _set_objective(self) -> None:
        raise NotImplementedError

    def fit_predict(self, X: Any, y: None = None, sample_weight: Any = None, **options: Any) -> Any:  # noqa: N803
        """Fit clusters, and return the labels of the same data.

        Parameters
        ----------
        X, y, sample_weight, options
            As for `fit`.

        Returns
        -------
        ndarray or xarray.DataArray
            Labels, as `predict` gives them.
        """
        self.fit(X, y, sample_weight, **options)
        if self.compute_labels:
            return self.labels_
        of_source = {name: value for name, value in options.items() if name in SourceOptions.model_fields}
        return self.predict(X, **of_source, **_block_options(options))

    def score(self, X: Any, y: None = None, sample_weight: Any = None, **options: Any) -> float:  # noqa: N803
        """Minus the objective of data under the fitted clusters; larger is better, as for all of scikit-learn.

        Parameters
        ----------
        X
            As for `predict`.
        y
            Ignored.
        sample_weight
            Weight of each row ``(n,)``.
        options
            Options of `clustering.Fit.score`.
        """
        rows = self._checked(X, options)
        if sample_weight is not None:
            options["weights"] = _checked_weights(sample_weight, rows)
        return -self.fit_.score(rows, **options)


class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _Clusterer):  # type: ignore[misc]
    """k-means, exact over all rows, of data of any size.

    Parameters
    ----------
    n_clusters
        Number of clusters.
    divergence
        As of `clustering.KMeans`.
    init
        ``k-means++``, ``random``, ``labels``, or centers ``(k, d)``.
    n_init
        Number of starts that compete on a sample of the rows; ``auto`` chooses.
    max_iter
        Largest number of passes.
    tol
        Stop when a pass changes the objective by no more than this share; None or 0: when no label changes.
    random_state
        Seed; a RandomState; or None for another seed each time.
    compute_labels
        Whether `fit` labels the data, which may be one more read of a store.

    Attributes
    ----------
    cluster_centers_
        Centers ``(k, d)`` in the units of the data; an xarray object for data with names.
    labels_
        Label of each row; in the shape of the samples for data with names.
    inertia_
        J, the sum of the weighted divergences of the rows from their centers.
    n_iter_
        Number of passes that updated the centers.
    n_features_in_, feature_names_in_
        Number of features, and their names where a data frame has them.
    fit_
        The `clustering.Fit`.
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        divergence: str = "squared_euclidean",
        init: Any = "k-means++",
        n_init: Any = "auto",
        max_iter: int = 300,
        tol: float | None = None,
        random_state: Any = 0,
        compute_labels: bool = True,
    ) -> None:
        self.n_clusters = n_clusters
        self.divergence = divergence
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.compute_labels = compute_labels

    def _model(self) -> AnyModel:
        return kmeans.KMeans(self.n_clusters, self.divergence)  # type: ignore[arg-type]

    def _set_objective(self) -> None:
        self.inertia_ = self.fit_.objective

    @property
    def _n_features_out(self) -> int:
        return self.fit_.model.k

    def transform(self, X: Any, **options: Any) -> Any:  # noqa: N803
        """Distances from every center; see `clustering.Fit.distances`.

        Parameters
        ----------
        X, options
            As for `predict`.

        Returns
        -------
        ndarray or xarray.DataArray
            Distances ``(n, k)``, in the type of the rows; float64 for data with names.
        """
        rows = self._checked(X, options)
        distances = self.fit_.distances(rows, **options)
        return distances.astype(rows.dtype, copy=False) if isinstance(rows, np.ndarray) else distances

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class SoftKMeans(_Clusterer):
    """Soft k-means: every row belongs to every cluster to a degree.

    Parameters
    ----------
    n_clusters
        Number of clusters.
    beta
        Stiffness, or ``auto``; see `clustering.SoftKMeans`.
    divergence, init, n_init, max_iter, tol, random_state, compute_labels
        As of `KMeans`; None for `tol` stands for 1e-6.

    Attributes
    ----------
    cluster_centers_, labels_, n_iter_, n_features_in_, feature_names_in_, fit_
        As of `KMeans`.
    free_energy_
        F, which the passes lower.
    beta_
        The stiffness in use.
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        beta: Any = 1.0,
        divergence: str = "squared_euclidean",
        init: Any = "k-means++",
        n_init: Any = "auto",
        max_iter: int = 300,
        tol: float | None = None,
        random_state: Any = 0,
        compute_labels: bool = True,
    ) -> None:
        self.n_clusters = n_clusters
        self.beta = beta
        self.divergence = divergence
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.compute_labels = compute_labels

    def _model(self) -> AnyModel:
        return soft_kmeans.SoftKMeans(self.n_clusters, self.beta, self.divergence)  # type: ignore[arg-type]

    def _set_objective(self) -> None:
        self.free_energy_ = self.fit_.objective
        self.beta_ = float(self.fit_.params.beta)

    def predict_proba(self, X: Any, **options: Any) -> Any:  # noqa: N803
        """Responsibilities of the clusters for each row ``(n, k)``.

        Parameters
        ----------
        X, options
            As for `predict`.
        """
        rows = self._checked(X, options)
        return self.fit_.responsibilities(rows, **options)


class GaussianMixture(DensityMixin, _Estimator):  # type: ignore[misc]
    """A mixture of Gaussians, fitted by expectation-maximisation over all rows, of data of any size.

    Parameters
    ----------
    n_components
        Number of components.
    covariance_type
        ``full``, ``tied``, ``diag``, ``spherical``, or ``identity``.
    tol
        Stop when a pass changes the mean log-likelihood by no more than this; None for 1e-6.
    reg_covar
        Added to every variance, in units of the mean variance of the features.
    max_iter, n_init, random_state
        As of `KMeans`.
    init_params
        How starts are chosen: ``k-means++``, ``random`` or ``labels``.
    weights_init, means_init, precisions_init
        Weights ``(k,)``, means ``(k, d)`` and precisions to start from, the last in the shape of `precisions_`; the
        means alone, with the weights, or all three.

    Attributes
    ----------
    weights_, means_, covariances_
        Params of the components, in the units of the data; xarray objects for data with names.
    precisions_, precisions_cholesky_
        Inverses of the covariances, and their Cholesky factors, as in scikit-learn; absent for ``identity``.
    converged_
        Whether the stopping test was met.
    lower_bound_
        Mean log-likelihood per unit of weight.
    n_iter_, n_features_in_, feature_names_in_, fit_
        As of `KMeans`.
    """

    # One row has no variance.
    _least_rows = 2

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float | None = None,
        reg_covar: float = 1e-6,
        max_iter: int = 300,
        n_init: Any = "auto",
        init_params: str = "k-means++",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        random_state: Any = 0,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state

    def _model(self) -> AnyModel:
        kind = self.covariance_type
        if kind not in _COVARIANCES:
            raise ConfigError(f"covariance_type is {kind!r}; {nearest(str(kind), _COVARIANCES)}")
        return mixture.GaussianMixture(self.n_components, _COVARIANCES[kind], self.reg_covar)  # type: ignore[arg-type]

    def _start(self) -> Any:
        if self.means_init is None:
            given = [name for name in ("weights_init", "precisions_init") if getattr(self, name) is not None]
            if given:
                raise ConfigError(f"{given[0]} is given without means_init; give means_init too")
            if self.init_params not in _INITS:
                raise ConfigError(f"init_params is {self.init_params!r}; {nearest(str(self.init_params), _INITS)}")
            return _INITS[self.init_params]
        means = np.asarray(self.means_init, np.float64)
        if self.weights_init is None:
            if self.precisions_init is not None:
                raise ConfigError("precisions_init is given without weights_init; give weights_init too")
            return means
        start = {"centers": means, "weights": np.asarray(self.weights_init, np.float64)}
        if self.precisions_init is not None:
            precisions = np.asarray(self.precisions_init, np.float64)
            matrices = self.covariance_type in ("full", "tied")
            start["covariances"] = np.linalg.inv(precisions) if matrices else 1.0 / precisions
        return start

    def fit(self, X: Any, y: None = None, sample_weight: Any = None, **options: Any) -> Self:  # noqa: N803
        """Fit components.

        Parameters
        ----------
        X
            Rows ``(n, d)`` as an array, list or data frame; or data as for `clustering.fit`.
        y
            Ignored.
        sample_weight
            Weight of each row ``(n,)``, 0 or more.
        options
            Options of `clustering.fit`, such as ``sample_dims``, ``mask`` and ``memory``.
        """
        self._fit(X, sample_weight, options)
        fit = self.fit_
        self.weights_, self.means_ = fit.weights, fit.centers
        self.converged_, self.lower_bound_ = fit.converged, fit.objective
        for name in ("covariances_", "precisions_", "precisions_cholesky_"):
            vars(self).pop(name, None)
        if fit.fitted.covariances is not None:
            self.covariances_ = fit.covariances
            self.precisions_cholesky_ = _precision_factors(fit.fitted.covariances, self.covariance_type)
            factors = self.precisions_cholesky_
            matrices = self.covariance_type in ("full", "tied")
            self.precisions_ = factors @ factors.swapaxes(-1, -2) if matrices else factors**2
        return self

    def fit_predict(self, X: Any, y: None = None, sample_weight: Any = None, **options: Any) -> Any:  # noqa: N803
        """Fit components, and return the labels of the same data.

        Parameters
        ----------
        X, y, sample_weight, options
            As for `fit`.

        Returns
        -------
        ndarray or xarray.DataArray
            Labels, as `predict` gives them.
        """
        self.fit(X, y, sample_weight, **options)
        of_source = {name: value for name, value in options.items() if name in SourceOptions.model_fields}
        return self.predict(X, **of_source, **_block_options(options))

    def predict_proba(self, X: Any, **options: Any) -> Any:  # noqa: N803
        """Responsibilities of the components for each row ``(n, k)``.

        Parameters
        ----------
        X, options
            As for `predict`.
        """
        rows = self._checked(X, options)
        return self.fit_.responsibilities(rows, **options)

    def score_samples(self, X: Any, **options: Any) -> Any:  # noqa: N803
        """Log-likelihood of each row ``(n,)``.

        Parameters
        ----------
        X, options
            As for `predict`.
        """
        rows = self._checked(X, options)
        return self.fit_.log_density(rows, **options)

    def score(self, X: Any, y: None = None, **options: Any) -> float:  # noqa: N803
        """Mean log-likelihood per unit of weight.

        Parameters
        ----------
        X
            As for `predict`.
        y
            Ignored.
        options
            Options of `clustering.Fit.score`.
        """
        rows = self._checked(X, options)
        return self.fit_.score(rows, **options)

    def bic(self, X: Any, **options: Any) -> float:  # noqa: N803
        """Bayesian information criterion of data (Schwarz 1978, doi:10.1214/aos/1176344136); lower is better.

        Parameters
        ----------
        X, options
            As for `predict`.
        """
        log_likelihood, rows = self._log_likelihood(X, options)
        return self._parameters() * float(np.log(rows)) - 2.0 * log_likelihood

    def aic(self, X: Any, **options: Any) -> float:  # noqa: N803
        """Akaike's information criterion of data (1974, doi:10.1109/TAC.1974.1100705); lower is better.

        Parameters
        ----------
        X, options
            As for `predict`.
        """
        return 2.0 * self._parameters() - 2.0 * self._log_likelihood(X, options)[0]

    def _parameters(self) -> int:
        return int(self.fit_.model.free_parameters(self.fit_.params.centers.shape[1]) or 0)

    def _log_likelihood(self, X: Any, options: dict[str, Any]) -> tuple[float, int]:  # noqa: N803
        """Add up the log-likelihood of the rows that are not masked, and count them."""
        densities = np.asarray(self.score_samples(X, **options))
        used = ~np.isnan(densities)
        return float(densities[used].sum()), int(used.sum())

    def sample(self, n_samples: int = 1) -> Any:
        """Draw new rows by `random_state`; see `clustering.Fit.sample`.

        Parameters
        ----------
        n_samples
            Number of rows.

        Returns
        -------
        tuple of ndarray, or xarray.Dataset
            Rows ``(n, d)`` and their components ``(n,)``; one dataset where the fit was to data with names.
        """
        check_is_fitted(self)
        drawn = self.fit_.sample(n_samples, _seed(self.random_state))
        return (drawn[0], _as_int32(drawn[1])) if isinstance(drawn, tuple) else drawn


def _is_opened_by_us(data: Any) -> bool:
    """Return whether data are a source or a path, or have names or chunks."""
    packages = {kind.__module__.partition(".")[0] for kind in type(data).__mro__}
    return isinstance(data, (str, os.PathLike, Source)) or bool(packages & _PACKAGES)


def _as_int32(labels: Any) -> Any:
    """Give labels the type that scikit-learn has. Labels with names keep the smallest type, as their stores do."""
    return labels.astype(np.int32, copy=False) if isinstance(labels, np.ndarray) else labels


def _block_options(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in (*BlockOptions.model_fields, "block_bytes") if name in options}


def _seed(random_state: Any) -> int:
    """Return a seed; a generator and None draw one."""
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def _checked_weights(sample_weight: Any, rows: Any) -> Any:
    """Check the weights of rows as scikit-learn does; weights of data with names are left to `open_source`."""
    if not isinstance(rows, np.ndarray):
        return sample_weight
    weights = check_array(sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
    if weights.ndim != 1:
        raise ValueError(f"sample_weight has {weights.ndim} dimensions; give one weight for each row, (n,)")
    check_consistent_length(weights, rows)
    return weights


def _precision_factors(covariances: NDArray[np.float64], kind: str) -> NDArray[np.float64]:
    """Invert the Cholesky factors of covariances: full and tied ones give upper triangles."""
    if kind not in ("full", "tied"):
        return 1.0 / np.sqrt(covariances)
    factors = np.linalg.cholesky(covariances)
    eye = np.eye(factors.shape[-1])
    inverses = [scipy.linalg.solve_triangular(one, eye, lower=True).T for one in factors.reshape(-1, *eye.shape)]
    return np.stack(inverses) if kind == "full" else inverses[0]


def _show_options(method: Any) -> None:
    """Show the options of `clustering.fit` in the signature of a method, in place of ``**options``."""
    signature = inspect.signature(method)
    own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    taken = {"data", "model", *_RENAMED}
    added = [one for name, one in inspect.signature(fit_in_python).parameters.items() if name not in taken]
    method.__signature__ = signature.replace(parameters=[*own, *added])


for _method in (_Clusterer.fit, _Clusterer.fit_predict, GaussianMixture.fit, GaussianMixture.fit_predict):
    _show_options(_method)
