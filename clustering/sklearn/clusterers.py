"""k-means and soft k-means with the names of scikit-learn."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin

from clustering.models import kmeans, soft_kmeans
from clustering.models.model import AnyModel
from clustering.sklearn.estimator import Estimator, block_options, checked_weights, shows_options, source_options


class _Clusterer(ClusterMixin, Estimator):  # type: ignore[misc]
    """What k-means and soft k-means share."""

    @shows_options
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
        self.__dict__.pop("labels_", None)
        if self.compute_labels:
            self.labels_ = self._labels(data, **block_options(options))
        return self

    def _set_objective(self) -> None:
        raise NotImplementedError

    @shows_options
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
        return self.predict(X, **source_options(options), **block_options(options))

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
            options["weights"] = checked_weights(sample_weight, rows)
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
