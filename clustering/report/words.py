"""Names that a report gives to the objective of each kind of model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clustering.models.objective import Objective

ROUNDING = 1e-9
"""A step the wrong way counts as rounding if it is at most this share of the largest objective."""


def curve_caption(objective: Objective, history: NDArray[np.float64]) -> str:
    """Describe the cost curve, and say whether it ever goes the wrong way, as it may when an empty cluster restarts.

    Parameters
    ----------
    objective
        Names of the objective.
    history
        Objective after the assignment step and after the update step of each pass ``(passes, 2)``.
    """
    steps = np.diff(history.reshape(-1))
    wrong = -steps if objective.rises else steps
    if len(steps) and wrong.max() > ROUNDING * np.abs(history).max():
        return f"{objective.caption} It {'falls' if objective.rises else 'rises'} only where a cluster was placed anew."
    return f"{objective.caption} It never {'falls' if objective.rises else 'rises'}."
