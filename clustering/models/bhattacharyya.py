"""Bhattacharyya distance of Gaussians, which compares their centers and their shapes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def bhattacharyya(centers: Array, shapes: Array, others: Array, other_shapes: Array) -> Array:
    """Compute ⅛ Δᵀ Σ⁻¹ Δ + ½ log(|Σ| / √(|Σ₁||Σ₂|)) with Σ = (Σ₁ + Σ₂) / 2 ``(m, k)`` (Bhattacharyya 1943).

    Parameters
    ----------
    centers, others
        Centers of the two sets of Gaussians, ``(m, p)`` and ``(k, p)``.
    shapes, other_shapes
        Variances ``(m, p)`` and ``(k, p)``, all above zero; or positive definite matrices ``(m, p, p)`` and
        ``(k, p, p)``.
    """
    distances = np.empty((len(centers), len(others)))
    own, theirs = _log_determinants(shapes), _log_determinants(other_shapes)
    for i, (center, shape) in enumerate(zip(centers, shapes, strict=True)):
        diff, middle = others - center, 0.5 * (shape + other_shapes)
        if shapes.ndim == 2:
            apart = (diff * diff / middle).sum(axis=1)
        else:
            apart = np.einsum("kp,kp->k", diff, np.linalg.solve(middle, diff[:, :, None])[:, :, 0])
        distances[i] = apart / 8.0 + 0.5 * _log_determinants(middle) - 0.25 * (own[i] + theirs)
    # The distance of equal Gaussians is zero, which rounding may take below zero.
    return distances.clip(0.0)


def _log_determinants(shapes: Array) -> Array:
    logs = np.log(shapes).sum(axis=1) if shapes.ndim == 2 else np.linalg.slogdet(shapes).logabsdet
    return np.asarray(logs, np.float64)
