"""scikit-learn: an estimator, or a pipeline with the preparation, whose labels equal ours; and its file of skops."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from clustering.exports.content import Content, optional
from clustering.exports.rule import (
    Affine,
    Array,
    Gaussians,
    Linear,
    Nearest,
    Step,
    UnitNorm,
    cannot_hold,
    check_complete_rows,
    rule_of,
)

TARGET = "scikit-learn"
FAR = 100.0
"""Rows this many times farther from zero than from each other are centered first: scikit-learn takes differences of
squares, which lose digits there."""
_TYPES = {"identity": "spherical", "spherical": "spherical", "diagonal": "diag", "tied": "tied", "full": "full"}


def to_sklearn(content: Content) -> Any:
    """Make the estimator.

    Parameters
    ----------
    content
        The model.

    Returns
    -------
    sklearn.base.BaseEstimator
        A ``KMeans`` or ``GaussianMixture``, at the end of a ``Pipeline`` where rows are prepared first. Its
        ``predict`` gives positions, and its attribute ``cluster_ids_`` the ids at these positions.

    Raises
    ------
    OutputError
        If scikit-learn has no such model.
    MissingDependencyError
        If scikit-learn is not installed.
    """
    optional("scikit-learn", TARGET, module="sklearn")
    from sklearn.pipeline import make_pipeline

    check_complete_rows(content, TARGET)
    rule = rule_of(content)
    steps, origin = list(rule.steps), rule.origin
    match rule.decision:
        case Linear():
            raise cannot_hold(content, TARGET, "export to onnx, which labels as this model does, or to npz")
        case Nearest(centers) | Gaussians(means=centers):
            pass
    if np.abs(origin).max() > FAR * max(float(np.ptp(centers, axis=0).max()), _spread(content)):
        steps.append(Affine(origin, np.ones(len(origin))))
    else:
        centers = centers + origin
    last = (
        _k_means(content, centers) if isinstance(rule.decision, Nearest) else _mixture(content, rule.decision, centers)
    )
    last.cluster_ids_ = np.array(content.clusters.ids)
    made = [transform for step in steps for transform in _transforms(step)]
    return make_pipeline(*made, last) if made else last


def write(content: Content, path: Path) -> None:
    """Write the estimator with skops, which ``skops.io.load`` reads without pickle.

    Parameters
    ----------
    content
        The model.
    path
        Path of the file.
    """
    skops = optional("skops", TARGET, module="skops.io")
    skops.dump(to_sklearn(content), path)


def _spread(content: Content) -> float:
    """Return the largest standard deviation of a feature; prepared rows are near zero anyway."""
    return float(np.sqrt(np.max(content.fitted.summary.variance)))


def _transforms(step: Step) -> list[Any]:
    """Return the transformers of a step."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import Normalizer, StandardScaler

    if isinstance(step, UnitNorm):
        return [Normalizer()]
    d = len(step.offset)
    scaler = StandardScaler(with_std=step.matrix.ndim == 1)
    scaler.mean_, scaler.n_features_in_, scaler.n_samples_seen_ = step.offset.copy(), d, 1
    if step.matrix.ndim == 1:
        with np.errstate(divide="ignore"):
            # A feature of weight 0 is divided by infinity.
            scaler.scale_ = 1.0 / step.matrix
        scaler.var_ = scaler.scale_**2
        return [scaler]
    scaler.scale_ = scaler.var_ = None
    turn = PCA(n_components=step.matrix.shape[1])
    turn.components_, turn.mean_ = step.matrix.T.copy(), np.zeros(d)
    turn.n_features_in_, turn.n_components_ = d, step.matrix.shape[1]
    turn.explained_variance_ = np.ones(step.matrix.shape[1])
    return [scaler, turn]


def _k_means(content: Content, centers: Array) -> Any:
    from sklearn.cluster import KMeans

    fitted = content.fitted
    made = KMeans(n_clusters=len(centers), init=centers, n_init=1, max_iter=1)
    with warnings.catch_warnings():
        # A fit to the centers sets what `predict` needs. It may warn of equal centers.
        warnings.simplefilter("ignore")
        made.fit(centers)
    # Its own centers have gone through a mean and back.
    made.cluster_centers_ = centers.copy()
    made.inertia_, made.n_iter_ = float(fitted.objective), fitted.iterations
    return made


def _mixture(content: Content, gaussians: Gaussians, means: Array) -> Any:
    from sklearn.mixture import GaussianMixture

    fitted, identity = content.fitted, gaussians.kind == "identity"
    factors = np.ones(len(means)) if identity else gaussians.factors
    made = GaussianMixture(len(means), covariance_type=_TYPES[gaussians.kind])
    made.weights_, made.means_ = gaussians.weights.copy(), means.copy()
    made.covariances_ = np.ones(len(means)) if identity else gaussians.covariances.copy()
    # scikit-learn multiplies rows from the left, so its factors are transposed.
    made.precisions_cholesky_ = (
        factors.copy() if factors.ndim == 1 or gaussians.kind == "diagonal" else factors.mT.copy()
    )
    made.precisions_ = factors**2 if factors.ndim == 1 or gaussians.kind == "diagonal" else factors.mT @ factors
    made.n_features_in_, made.converged_, made.n_iter_ = means.shape[1], fitted.converged, fitted.iterations
    made.lower_bound_ = float(fitted.objective)
    return made
