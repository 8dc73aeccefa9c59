"""Names and direction of the objective of a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Objective:
    """The objective of a model, as users see it."""

    symbol: str
    """Short name."""
    title: str
    """Title of its cost curve."""
    caption: str
    """Text below its cost curve."""
    axis: str
    """Label of the vertical axis."""
    assignment: str
    """Name of the step that assigns rows to clusters."""
    update: str
    """Name of the step that updates the params."""
    rises: bool = False
    """Whether higher values are better."""


LOG_LIKELIHOOD = Objective(
    "log L",
    "Log-likelihood",
    "Mean log-likelihood per unit weight after every expectation step (blue), and its lower bound from the same "
    "responsibilities at the new parameters after every maximisation step (red).",
    "log L per unit weight",
    "expectation",
    "maximisation",
    rises=True,
)
"""Objective of mixtures: the mean log-likelihood."""
