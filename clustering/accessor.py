"""The accessor ``cluster`` of objects of xarray: fits of their values."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from clustering.api import fit
from clustering.deferred import xr
from clustering.fitted import Fit
from clustering.models.kmeans import KMeans
from clustering.models.mixture import GaussianMixture
from clustering.models.model import AnyModel
from clustering.models.soft_kmeans import SoftKMeans
from clustering.models.von_mises_fisher import VonMisesFisher

Method = Callable[..., Fit]


def _with_options(*models: type) -> Callable[[Method], Method]:
    """Show the parameters of a model and the options of `clustering.fit` in the signature of a method."""

    def decorate(method: Method) -> Method:
        signature = inspect.signature(method)
        keyword = inspect.Parameter.KEYWORD_ONLY
        own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        of_models = [
            one.replace(kind=keyword) for model in models for one in inspect.signature(model).parameters.values()
        ]
        of_fit = inspect.signature(fit).parameters.values()
        options = [one for one in of_fit if one.name not in ("data", "model")]
        names = {one.name for one in own}
        shown = [*own, *(one for one in of_models if one.name not in names), *options]
        method.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
        return method

    return decorate


class ClusterAccessor:
    """Fits models to a Dataset or DataArray; each method takes the options of `clustering.fit`.

    Parameters
    ----------
    data
        The object of xarray.
    """

    def __init__(self, data: xr.Dataset | xr.DataArray) -> None:
        self._data = data

    @_with_options()
    def fit(self, model: AnyModel, **options: Any) -> Fit:
        """Fit any model; see `clustering.fit`.

        Parameters
        ----------
        model
            The model, such as ``clustering.KMeans(k=8)``.
        options
            Options of `clustering.fit`, such as ``sample_dims``.
        """
        return fit(self._data, model, **options)

    @_with_options(KMeans)
    def kmeans(self, k: int, **options: Any) -> Fit:
        """Fit k-means; see `clustering.KMeans`.

        Parameters
        ----------
        k
            Number of clusters.
        options
            Further parameters of the model, and options of `clustering.fit`, such as ``sample_dims``.
        """
        return self._fit(KMeans, k, options)

    @_with_options(SoftKMeans)
    def soft_kmeans(self, k: int, **options: Any) -> Fit:
        """Fit soft k-means; see `clustering.SoftKMeans`.

        Parameters
        ----------
        k
            Number of clusters.
        options
            As for `kmeans`.
        """
        return self._fit(SoftKMeans, k, options)

    @_with_options(GaussianMixture)
    def gaussian_mixture(self, k: int, **options: Any) -> Fit:
        """Fit a mixture of Gaussians; see `clustering.GaussianMixture`.

        Parameters
        ----------
        k
            Number of components.
        options
            As for `kmeans`.
        """
        return self._fit(GaussianMixture, k, options)

    @_with_options(VonMisesFisher)
    def von_mises_fisher(self, k: int, **options: Any) -> Fit:
        """Fit a mixture of directions; see `clustering.VonMisesFisher`.

        Parameters
        ----------
        k
            Number of components.
        options
            As for `kmeans`.
        """
        return self._fit(VonMisesFisher, k, options)

    def _fit(self, model: Callable[..., AnyModel], k: int, options: dict[str, Any]) -> Fit:
        of_model = {name: options.pop(name) for name in inspect.signature(model).parameters if name in options}
        return fit(self._data, model(k, **of_model), **options)
