"""Names that a report gives to the objective of each kind of model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clustering.fitting.fitted_model import FittedModel

ROUNDING = 1e-9
"""A step the wrong way counts as rounding if it is at most this share of the largest objective."""


@dataclass(frozen=True)
class Words:
    """Names and texts of an objective."""

    title: str
    """Title of the cost curve."""
    caption: str
    axis: str
    assignment: str
    """Name of the step that assigns rows to clusters."""
    update: str
    rises: bool = False
    """Whether a higher objective is better."""


WORDS = {
    "kmeans": Words(
        "Cost curve",
        "J after every assignment step (blue) and after every refitting step (red).",
        "J",
        "assignment",
        "refitting",
    ),
    "soft_kmeans": Words(
        "Free energy",
        "F after every assignment step (blue), and with the same responsibilities at the new centers after every "
        "refitting step (red).",
        "F",
        "assignment",
        "refitting",
    ),
    "gaussian_mixture": Words(
        "Log-likelihood",
        "Mean log-likelihood per unit weight after every expectation step (blue), and what the same responsibilities "
        "vouch for at the new parameters after every maximisation step (red).",
        "log L per unit weight",
        "expectation",
        "maximisation",
        rises=True,
    ),
}


def curve_caption(words: Words, history: NDArray[np.float64]) -> str:
    """Describe the cost curve, and say whether it ever goes the wrong way, as it may when an empty cluster restarts.

    Parameters
    ----------
    words
        Names of the objective.
    history
        Objective after the assignment step and after the update step of each pass ``(passes, 2)``.
    """
    steps = np.diff(history.reshape(-1))
    wrong = -steps if words.rises else steps
    if len(steps) and wrong.max() > ROUNDING * np.abs(history).max():
        return f"{words.caption} It {'falls' if words.rises else 'rises'} only where a cluster was placed anew."
    return f"{words.caption} It never {'falls' if words.rises else 'rises'}."


def tiles(fitted: FittedModel, objective: float) -> Sequence[tuple[float, str]]:
    """Return the numbers at the top of a report, with their names.

    Parameters
    ----------
    fitted
        Fitted model.
    objective
        Objective as users read it, see `to_user_objective`.
    """
    weight = fitted.summary.weight
    of = "" if fitted.preparation is None else " of prepared rows"
    match fitted.model.kind:
        case "gaussian_mixture":
            mean, whole = f"log-likelihood{of} per unit weight", f"log-likelihood log L{of}"
            return (objective, mean), (objective * weight, whole)
        case "soft_kmeans":
            stiffness = f"free energy F{of} at β = {fitted.params.beta:.6g}"
            return (objective, stiffness), (objective / weight, "F per unit weight")
        case _:
            return (objective, f"objective J{of}"), (objective / weight, "J per unit weight")
