"""The rule by which a model labels a row, in a form that other programs can follow.

A row goes through a few steps, and then gets the label of the nearest center, of the largest linear score, or of the
most probable Gaussian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clustering.data.preparation import Preparation
from clustering.errors import OutputError
from clustering.exports.content import Content
from clustering.models.covariances import factors, log_determinants
from clustering.models.directional import log_normalizer
from clustering.models.option_names import Covariance
from clustering.models.param_arrays import params_to_arrays

Array = NDArray[np.float64]

TINY = np.finfo(float).tiny
"""Least center of the divergences that take logarithms of centers."""


@dataclass(frozen=True, eq=False)
class UnitNorm:
    """A step that divides each row by its Euclidean norm."""


@dataclass(frozen=True, eq=False)
class Affine:
    """A step that subtracts a point and multiplies by a matrix."""

    offset: Array
    """Point ``(d,)``."""
    matrix: Array
    """One factor for each feature ``(d,)``, or a matrix ``(d, p)``."""


Step = UnitNorm | Affine


@dataclass(frozen=True, eq=False)
class Nearest:
    """The label of the nearest center, by Euclidean distance."""

    centers: Array
    """``(k, p)``."""


@dataclass(frozen=True, eq=False)
class Linear:
    """The label of the largest score: row · slope + shift."""

    slopes: Array
    """``(k, p)``."""
    shifts: Array
    """``(k,)``."""


@dataclass(frozen=True, eq=False)
class Gaussians:
    """The label of the component of the largest posterior probability."""

    weights: Array
    """Mixing weights ``(k,)``."""
    means: Array
    """``(k, p)``."""
    kind: Covariance
    covariances: Array
    """In the shape of their kind."""

    @property
    def factors(self) -> Array:
        """Factors A with AᵀA the inverse covariance, in the shape of their kind."""
        return factors(self.kind, self.covariances)

    @property
    def constants(self) -> Array:
        """Log weight plus half the log determinant of the inverse covariance ``(k,)``."""
        k, d = self.means.shape
        with np.errstate(divide="ignore"):
            made: Array = np.log(self.weights) + log_determinants(self.kind, self.factors, k, d)
        # A component without rows is never the most probable one. Programs may not do arithmetic with −∞.
        return np.maximum(made, -1e300)


@dataclass(frozen=True, eq=False)
class Rule:
    """Steps that a row goes through, and the decision at their end."""

    steps: tuple[Step, ...]
    decision: Nearest | Linear | Gaussians
    origin: Array
    """Origin ``(p,)`` that rows are still to be reduced by, so that values far from zero lose no digits."""
    kind: Literal["euclidean", "angular", "linear", "gaussian"]


def rule_of(content: Content) -> Rule:
    """Make the rule of a model.

    Parameters
    ----------
    content
        The model.
    """
    fitted = content.fitted
    steps = () if fitted.preparation is None else preparation_steps(fitted.preparation)
    arrays, components = params_to_arrays(fitted.params), fitted.components
    origin, inner = np.asarray(fitted.params.origin, float), np.asarray(fitted.params.centers, float)
    if components.covariance is not None:
        assert components.weights is not None
        covariances = np.zeros(0) if components.covariances is None else components.covariances
        decision = Gaussians(components.weights, inner, components.covariance, covariances)
        return Rule(steps, decision, origin, "gaussian")
    centers, zero = fitted.centers_prepared, np.zeros(len(origin))
    if components.weights is not None:
        # Log density of von Mises and Fisher: log π + log c(κ) + κ μ·x, for rows of length 1.
        kappa = arrays["concentrations"]
        with np.errstate(divide="ignore"):
            shifts = np.log(components.weights) + log_normalizer(centers.shape[1], kappa)
        directions = kappa[:, None] * centers
        return Rule((*steps, UnitNorm()), Linear(directions, np.maximum(shifts, -1e300)), zero, "linear")
    match fitted.model.start_divergence:
        case "cosine":
            norms = np.linalg.norm(centers, axis=1, keepdims=True)
            unit = centers / np.where(norms > 0, norms, 1.0)
            return Rule((*steps, UnitNorm()), Nearest(unit), zero, "angular")
        case "mahalanobis":
            turn = Affine(origin, np.ascontiguousarray(arrays["matrix"].T))
            return Rule((*steps, turn), Nearest(inner @ turn.matrix), zero, "euclidean")
        case "kullback_leibler":
            # Σ x log(x / m) − x + m, less what depends on x alone.
            slopes = np.log(np.maximum(centers, TINY))
            return Rule(steps, Linear(slopes, -centers.sum(axis=1)), zero, "linear")
        case "itakura_saito":
            # Σ x / m − log(x / m) − 1, less what depends on x alone.
            least = np.maximum(centers, TINY)
            return Rule(steps, Linear(-1.0 / least, -np.log(least).sum(axis=1)), zero, "linear")
        case _:
            return Rule(steps, Nearest(inner), origin, "euclidean")


def preparation_steps(preparation: Preparation) -> tuple[Step, ...]:
    """Return the steps of a preparation.

    Parameters
    ----------
    preparation
        Fitted preparation.
    """
    affine = Affine(np.asarray(preparation.offset), np.asarray(preparation.matrix))
    plain = preparation.diagonal and not preparation.offset.any() and (preparation.matrix == 1.0).all()
    return (*((UnitNorm(),) if preparation.unit_norm else ()), *(() if plain else (affine,)))


def check_complete_rows(content: Content, target: str) -> None:
    """Refuse a model that labels rows with missing features, for a target that cannot.

    Parameters
    ----------
    content
        The model.
    target
        Name of the target.

    Raises
    ------
    OutputError
        If rows with missing features took part in the fit.
    """
    if content.fitted.marginalized:
        raise OutputError(
            f"the model counts rows with missing features (source.missing: marginalize), and {target} has no rule for "
            "them; fit with source.missing: drop, or export to npz, netcdf or csv"
        )


def cannot_hold(content: Content, target: str, remedy: str) -> OutputError:
    """Make the error that a target cannot hold a model.

    Parameters
    ----------
    content
        The model.
    target
        Name of the target, as users know it.
    remedy
        What a user can do.
    """
    return OutputError(f"{target} cannot hold {content.kind}; {remedy}")
