"""What the objective of a model is called, and which way it goes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Objective:
    """The objective of a model, as users see it."""

    symbol: str
    """Short name."""
    title: str
    """Of its curve."""
    caption: str
    axis: str
    assignment: str
    """Name of the step that assigns rows to clusters."""
    update: str
    """Name of the step that refits the clusters."""
    rises: bool = False
    """Whether more is better."""
