"""Brings the components of two models into one space, so that distances between them have a meaning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clustering.data.preparation import Preparation
from clustering.fitting.fitted_model import FittedModel
from clustering.models.mixture_distances import bhattacharyya

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ComparedComponents:
    """Centers of the components of a model in the common space, and covariances where it is a mixture."""

    centers: Array
    """Centers ``(k, p)``."""
    shapes: Array | None = None
    """Variances ``(k, p)`` or covariances ``(k, p, p)`` of a mixture; None for other models."""

    def distances(self, others: ComparedComponents, part: slice) -> Array:
        """Compute distances from each of some components to all of another model ``(m, k)``.

        The distance is Euclidean, or the root of Bhattacharyya's distance where both models are mixtures.

        Parameters
        ----------
        others
            Components of the other model, in the same space.
        part
            Which m components of this model.
        """
        if self.shapes is None or others.shapes is None:
            from scipy.spatial.distance import cdist

            return np.asarray(cdist(self.centers[part], others.centers), np.float64)
        return np.sqrt(bhattacharyya(self.centers[part], self.shapes[part], others.centers, others.shapes))


def incomparable_reason(fitted: FittedModel, previous: FittedModel) -> str | None:
    """Say why the components of two models cannot be compared, in words for a user; None where they can.

    Parameters
    ----------
    fitted
        The new fitted model.
    previous
        The fitted model of the previous version.
    """
    kinds = previous.model.kind, fitted.model.kind
    if kinds[0] != kinds[1]:
        return f"the model was {kinds[0]} and is {kinds[1]}"
    features = [list(map(str, one.features)) for one in (previous, fitted)]
    if features[0] != features[1]:
        return f"the {len(features[1])} features are others than the {len(features[0])} of before"
    # Rows of length 1 have lost their lengths, so no map leads from them to the other space.
    lengths = [one.preparation is not None and one.preparation.unit_norm for one in (previous, fitted)]
    if lengths[0] != lengths[1]:
        return f"preprocess.unit_norm was {str(lengths[0]).lower()} and is {str(lengths[1]).lower()}"
    return None


def compare_components(fitted: FittedModel, previous: FittedModel) -> tuple[ComparedComponents, ComparedComponents]:
    """Put the components of a new and a previous model into one space.

    The space is that of the previous model's prepared rows. If both have the same preparation, the new components are
    there already; otherwise they are taken back to the data's own units and prepared as the previous rows were. Where
    the previous model has more principal components than the new one, the space of the new model is used.

    Parameters
    ----------
    fitted
        The new fitted model.
    previous
        The fitted model of the previous version.

    Returns
    -------
    tuple of ComparedComponents
        Components of the new model, and of the previous one.
    """
    both, owner = (fitted, previous), previous
    turns: list[Array | None] = [None, None]
    if not _is_same(fitted.preparation, previous.preparation):
        # Covariances mapped to more components are singular, and Bhattacharyya's distance needs regular ones.
        if previous.params.centers.shape[1] > fitted.params.centers.shape[1]:
            owner = fitted
        turns = [None if one is owner else _turn(one, owner) for one in both]
    centers = [_centers(one, owner, turn) for one, turn in zip(both, turns, strict=True)]
    if fitted.components.covariance is None or previous.components.covariance is None:
        return _embedded(centers[0], fitted, previous, owner), _embedded(centers[1], fitted, previous, owner)
    shapes = [_shapes(one, turn) for one, turn in zip(both, turns, strict=True)]
    if shapes[0].ndim != shapes[1].ndim:
        shapes = [shape if shape.ndim == 3 else _matrices(shape) for shape in shapes]
    # A feature of weight 0 has variance 0 in every component. Bhattacharyya's distance would divide by it.
    widths = [s if s.ndim == 2 else np.diagonal(s, axis1=1, axis2=2) for s in shapes]
    wide = (np.concatenate(widths) > 0.0).all(axis=0)
    centers = [c[:, wide] for c in centers]
    shapes = [s[:, wide] if s.ndim == 2 else s[:, wide][:, :, wide] for s in shapes]
    return ComparedComponents(centers[0], shapes[0]), ComparedComponents(centers[1], shapes[1])


def _is_same(one: Preparation | None, other: Preparation | None) -> bool:
    """Return whether two preparations have the same affine map. `incomparable_reason` compares ``unit_norm``."""
    if one is None or other is None:
        return one is other
    names = ("offset", "matrix", "inverse")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


def _turn(fitted: FittedModel, owner: FittedModel) -> Array:
    """Return the linear map from differences of a model's prepared rows to those of the owner's.

    It is one factor per feature ``(p,)``, or a matrix ``(p, q)``.
    """
    there = np.ones(len(fitted.features)) if fitted.preparation is None else fitted.preparation.inverse
    back = np.ones(len(fitted.features)) if owner.preparation is None else owner.preparation.matrix
    if there.ndim == 1:
        return np.asarray(there * back if back.ndim == 1 else there[:, None] * back)
    return np.asarray(there * back if back.ndim == 1 else there @ back)


def _centers(fitted: FittedModel, owner: FittedModel, turn: Array | None) -> Array:
    """Return the centers of a model in the space of the owner ``(k, q)``."""
    if turn is None:
        return fitted.centers_prepared
    return fitted.centers if owner.preparation is None else owner.preparation.to_prepared(fitted.centers)


def _embedded(centers: Array, fitted: FittedModel, previous: FittedModel, owner: FittedModel) -> ComparedComponents:
    """Place centers so that their Euclidean distance is near the root of the divergence, if both models share it."""
    if previous.model.start_divergence != fitted.model.start_divergence:
        # Without a common divergence, plain Euclidean distances of the centers are compared.
        return ComparedComponents(centers - owner.params.origin)
    return ComparedComponents(owner.model.embed(owner.params, centers))


def _shapes(fitted: FittedModel, turn: Array | None) -> Array:
    """Return the variances ``(k, q)`` or covariances ``(k, q, q)`` of a mixture in the space of the owner."""
    k, p = fitted.params.centers.shape
    stored = fitted.components.covariances
    covariances = np.ones((k, p)) if stored is None else stored
    match fitted.components.covariance:
        case "spherical":
            covariances = np.repeat(covariances[:, None], p, axis=1)
        case "tied":
            covariances = np.broadcast_to(covariances, (k, p, p))
    if turn is None:
        return np.asarray(covariances)
    if turn.ndim == 1:
        return np.asarray(covariances * (turn * turn if covariances.ndim == 2 else np.outer(turn, turn)))
    # A matrix mixes features, so variances become full covariances.
    whole = covariances if covariances.ndim == 3 else _matrices(covariances)
    return np.asarray(turn.T @ whole @ turn)


def _matrices(variances: Array) -> Array:
    """Turn variances ``(k, p)`` into diagonal covariances ``(k, p, p)``."""
    return variances[:, :, None] * np.eye(variances.shape[1])
