"""Parameters of a mixture as users give them: read and checked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.errors import ConfigError
from clustering.models import covariances as kinds
from clustering.models.option_names import Covariance

Array = NDArray[np.float64]

TINY = float(np.finfo(float).tiny)
ROUNDING = 1e-6
"""Tolerance for a sum of weights off 1 and for an asymmetric correlation, wide enough for float32 numbers."""


def read_array(name: str, value: Any) -> Array:
    """Read an array, or nested lists, of finite numbers.

    Parameters
    ----------
    name
        Name of the array in errors.
    value
        Anything that a user gave; a masked number counts as NaN.

    Raises
    ------
    ConfigError
        If it is not an array of finite real numbers.
    """
    try:
        # numpy would read truth values as 0 and 1, and leave imaginary parts out with a warning alone.
        if _is_truth(value):
            raise ValueError("a truth value is no number")
        if np.iscomplexobj(value):
            raise ValueError("a complex number has no order")
        array = np.ma.filled(np.ma.asarray(value, np.float64), np.nan) if np.ma.isMaskedArray(value) else value
        array = np.asarray(array, np.float64)
    except (TypeError, ValueError) as error:
        # Messages of numpy run over several sentences; the first one names the fault.
        reason = str(error).splitlines()[0].split(". ")[0]
        raise ConfigError(f"{name} are {short(value)} ({reason}); give numbers, in lists of equal length") from error
    if not np.isfinite(array).all():
        raise ConfigError(f"{name} are {short(value)}; give numbers that are finite")
    return array


def _is_truth(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return bool(value.dtype == bool)
    return any(map(_is_truth, value)) if isinstance(value, (list, tuple)) else isinstance(value, (bool, np.bool_))


def short(value: Any) -> str:
    """Write numbers on one line of at most 100 characters.

    Parameters
    ----------
    value
        Array or nested lists.
    """
    text = " ".join(str(value.tolist() if isinstance(value, np.ndarray) else value).split())
    return text if len(text) <= 100 else text[:99] + "…"


def normalized_weights(name: str, weights: Array) -> Array:
    """Divide weights by their sum, which must be 1 up to rounding.

    Parameters
    ----------
    name
        Name of the weights in errors.
    weights
        Weights ``(k,)``.

    Raises
    ------
    ConfigError
        If a weight is below 0, or the sum is not 1.
    """
    total = float(weights.sum())
    if not (weights >= 0.0).all() or abs(total - 1.0) > ROUNDING:
        raise ConfigError(
            f"{name} are {short(weights)}, which add up to {total:.12g}; "
            "give a share of 0 or more for each component, adding up to 1"
        )
    return weights / total


def symmetric(kind: Covariance, covariances: Array, which: str = "covariance") -> Array:
    """Check covariances, and return matrices equal to their transposes to the last bit.

    Parameters
    ----------
    kind
        Kind of covariance.
    covariances
        Covariances in the shape of their kind.
    which
        Name of the covariances in errors.

    Raises
    ------
    ConfigError
        If a variance is not above 0 in normal numbers, or a matrix is not symmetric or not positive definite.
    """
    if kind not in ("tied", "full"):
        # The inverse of a denormal number would be infinite.
        if not (covariances >= TINY).all():
            least = float(covariances.min())
            raise ConfigError(f"a variance is {least!r}, so no {which} is positive definite; give ones above 0")
        return covariances
    made = np.empty_like(covariances)
    matrices = covariances[None] if kind == "tied" else covariances
    for i, (matrix, out) in enumerate(zip(matrices, made[None] if kind == "tied" else made, strict=True)):
        name = f"the {which}" if kind == "tied" else f"the {which} of component {i}"
        variances = np.diagonal(matrix)
        # Asymmetry is measured in units of both deviations, so that the scale of features does not matter.
        roots = np.sqrt(np.abs(variances))
        if not (np.abs(matrix - matrix.T) <= ROUNDING * np.outer(roots, roots)).all():
            raise ConfigError(f"{name} is {short(matrix)}, which is not symmetric; give Σ with Σᵀ = Σ")
        out[:] = 0.5 * (matrix + matrix.T)
        try:
            np.linalg.cholesky(out)
        except np.linalg.LinAlgError:
            raise ConfigError(
                f"{name} is {short(matrix)}, which is not positive definite; give one with eigenvalues above 0"
            ) from None
    return made


def starting_covariances(kind: Covariance, k: int, d: int, covariances: Any) -> Array:
    """Read the covariances that a fit starts from, in the shape of their kind.

    Parameters
    ----------
    kind
        Kind of covariance.
    k, d
        Number of components and of features.
    covariances
        Anything that a user gave; None or empty for ``identity``.

    Raises
    ------
    ConfigError
        If the shape does not fit, or a covariance is not positive definite.
    """
    shape = kinds.covariance_shape(kind, k, d)
    if kind == "identity":
        if covariances is not None and np.size(covariances):
            raise ConfigError("init has covariances, and those of covariance 'identity' are fixed; leave them out")
        return np.zeros(shape)
    if covariances is None:
        raise ConfigError(f"init has no covariances; covariance {kind!r} starts from ones of shape {shape}")
    array = read_array("starting covariances", covariances)
    if array.shape != shape:
        raise ConfigError(
            f"starting covariances have shape {array.shape}; covariance {kind!r} of k = {k} components of {d} features "
            f"has shape {shape}"
        )
    return symmetric(kind, array, "starting covariance")


def check_regularization(value: Any) -> float:
    """Refuse a regularization that is not a number of 0 or more; return it as a plain one.

    Parameters
    ----------
    value
        As a user gave it.

    Raises
    ------
    ConfigError
        For any other value.
    """
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not 0 <= value < np.inf:
        raise ConfigError(f"regularization is {value!r}; a number of 0 or more is needed")
    return float(value)


def starting_weights(k: int, given: Any) -> Array:
    """Check the mixing weights that a user starts a mixture from.

    Parameters
    ----------
    k
        Number of components.
    given
        Weights ``(k,)``, as numbers of any type.

    Raises
    ------
    ConfigError
        If their shape does not fit, or they are no shares.
    """
    weights = read_array("starting weights", given)
    if weights.shape != (k,):
        raise ConfigError(f"starting weights have shape {weights.shape}; k = {k} components have {k} weights")
    shares = normalized_weights("starting weights", weights)
    if not (shares > 0.0).all():
        raise ConfigError(f"starting weights are {short(weights)}; give shares above 0")
    return shares
