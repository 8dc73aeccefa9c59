"""Estimators with the names of scikit-learn, over `clustering.fit`.

They take arrays, lists and data frames as scikit-learn does, and also what `clustering.fit` takes: xarray objects, dask
arrays, zarr arrays, sources and paths of stores. `fit_` of a fitted estimator is the `clustering.Fit` behind it.

``tol=None`` and ``n_init="auto"`` leave the choice to the model, see ``tolerance`` and ``restarts`` of
`clustering.fit`. A tolerance is a relative change of the objective, as everywhere in this library. ``random_state`` is
0 by default, so that a fit gives the same bits each time; None draws another seed for each fit.
"""

from __future__ import annotations

from clustering.errors import MissingDependencyError

try:
    from clustering.sklearn.clusterers import KMeans, SoftKMeans
    from clustering.sklearn.estimator import ConvergenceWarning
    from clustering.sklearn.mixture import GaussianMixture
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "sklearn":
        raise
    raise MissingDependencyError(
        "the estimators need the package 'scikit-learn'; pip install 'zarr-clustering[sklearn]'"
    ) from error

__all__ = ["ConvergenceWarning", "GaussianMixture", "KMeans", "SoftKMeans"]
