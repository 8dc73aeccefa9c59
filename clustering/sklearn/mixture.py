"""Mixtures of Gaussians with the names of scikit-learn."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import DensityMixin
from sklearn.utils.validation import check_is_fitted

from clustering.blas import scipy
from clustering.errors import ConfigError, nearest
from clustering.models import mixture
from clustering.models.model import AnyModel
from clustering.sklearn.estimator import (
    INITS,
    Estimator,
    as_int32,
    block_options,
    seed_of,
    shows_options,
    source_options,
)

_COVARIANCES = {"full": "full", "tied": "tied", "diag": "diagonal", "spherical": "spherical", "identity": "identity"}


class GaussianMixture(DensityMixin, Estimator):  # type: ignore[misc]
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
            if self.init_params not in INITS:
                raise ConfigError(f"init_params is {self.init_params!r}; {nearest(str(self.init_params), INITS)}")
            return INITS[self.init_params]
        means = np.asarray(self.means_init, np.float64)
        if self.weights_init is None:
            if self.precisions_init is not None:
                raise ConfigError("precisions_init is given without weights_init; give weights_init too")
            return means
        start = {"centers": means, "weights": np.asarray(self.weights_init, np.float64)}
        if self.precisions_init is not None:
            precisions = np.asarray(self.precisions_init, np.float64)
            matrices = self.covariance_type in ("full", "tied")
            start["covariances"] = np.asarray(np.linalg.inv(precisions) if matrices else 1.0 / precisions, np.float64)
        return start

    @shows_options
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
            self.__dict__.pop(name, None)
        if fit.fitted.covariances is not None:
            self.covariances_ = fit.covariances
            self.precisions_cholesky_ = _precision_factors(fit.fitted.covariances, self.covariance_type)
            factors = self.precisions_cholesky_
            matrices = self.covariance_type in ("full", "tied")
            self.precisions_ = factors @ factors.swapaxes(-1, -2) if matrices else factors**2
        return self

    @shows_options
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
        return self.predict(X, **source_options(options), **block_options(options))

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
        drawn = self.fit_.sample(n_samples, seed_of(self.random_state))
        return (drawn[0], as_int32(drawn[1])) if isinstance(drawn, tuple) else drawn


def _precision_factors(covariances: NDArray[np.float64], kind: str) -> NDArray[np.float64]:
    """Invert the Cholesky factors of covariances: full and tied ones give upper triangles."""
    if kind not in ("full", "tied"):
        return 1.0 / np.sqrt(covariances)
    factors = np.linalg.cholesky(covariances)
    eye = np.eye(factors.shape[-1])
    inverses = [scipy.linalg.solve_triangular(one, eye, lower=True).T for one in factors.reshape(-1, *eye.shape)]
    return np.stack(inverses) if kind == "full" else inverses[0]
