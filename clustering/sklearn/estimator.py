"""What the estimators share: checks of the data as scikit-learn makes them, and the call of `clustering.fit`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from numbers import Integral
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn import exceptions
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from clustering.api import fit as fit_in_python
from clustering.api import fit_quietly
from clustering.data.access import open_source
from clustering.data.source import Source
from clustering.errors import ConfigError, nearest
from clustering.errors import ConvergenceWarning as OwnConvergenceWarning
from clustering.fitted import Fit
from clustering.models.model import AnyModel
from clustering.options import BlockOptions, FitCall, SourceOptions
from clustering.showing import show
from clustering.signatures import takes_after_two

Method = TypeVar("Method", bound=Callable[..., Any])

_PACKAGES = {"dask", "xarray", "zarr"}
"""Packages whose arrays have chunks or names, which scikit-learn would drop."""
INITS = {"k-means++": "kmeans++", "kmeans++": "kmeans++", "random": "random", "labels": "labels"}
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


class Estimator(BaseEstimator):  # type: ignore[misc]
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
            if init not in INITS:
                raise ConfigError(f"init is {init!r}; {nearest(init, INITS)}, or an array of centers")
            return INITS[init]
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
            options = {**options, "weights": checked_weights(sample_weight, rows)}
        of_source = source_options(options)
        source = open_source(rows, **of_source) if of_source or not isinstance(rows, np.ndarray) else rows
        self.fit_ = _fit(
            source,
            model,
            init=self._start(),
            seed=seed_of(self.random_state),
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
                self.__dict__.pop("feature_names_in_", None)
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
        return as_int32(self.fit_.predict(data, **options))

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


def _is_opened_by_us(data: Any) -> bool:
    """Return whether data are a source or a path, or have names or chunks."""
    packages = {kind.__module__.partition(".")[0] for kind in type(data).__mro__}
    return isinstance(data, (str, os.PathLike, Source)) or bool(packages & _PACKAGES)


def as_int32(labels: Any) -> Any:
    """Give labels the type that scikit-learn has. Labels with names keep the smallest type, as their stores do.

    Parameters
    ----------
    labels
        Labels as `clustering.Fit.predict` gives them.
    """
    return labels.astype(np.int32, copy=False) if isinstance(labels, np.ndarray) else labels


def source_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that open a source.

    Parameters
    ----------
    options
        Options of a call.
    """
    return {name: value for name, value in options.items() if name in SourceOptions.model_fields}


def block_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of how blocks are read.

    Parameters
    ----------
    options
        Options of a call.
    """
    return {name: options[name] for name in (*BlockOptions.model_fields, "block_bytes") if name in options}


def seed_of(random_state: Any) -> int:
    """Return a seed; a generator and None draw one.

    Parameters
    ----------
    random_state
        Whole number, RandomState, or None.
    """
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def checked_weights(sample_weight: Any, rows: Any) -> Any:
    """Check the weights of rows as scikit-learn does; weights of data with names are left to `open_source`.

    Parameters
    ----------
    sample_weight
        Weights as a user gave them.
    rows
        The data, as `Estimator` checked them.
    """
    if not isinstance(rows, np.ndarray):
        return sample_weight
    weights = check_array(sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
    if weights.ndim != 1:
        raise ValueError(f"sample_weight has {weights.ndim} dimensions; give one weight for each row, (n,)")
    check_consistent_length(weights, rows)
    return weights


def shows_options(method: Method) -> Method:
    """Show the options of `clustering.fit` in the signature of a method, in place of ``**options``.

    Parameters
    ----------
    method
        Method of an estimator.
    """
    signature = inspect.signature(method)
    own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    taken = {"data", "model", *_RENAMED}
    added = [one for name, one in inspect.signature(fit_in_python).parameters.items() if name not in taken]
    method.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    return method
