"""Scores of a new version and the previous version on held-out rows, which neither fit has seen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from clustering.data.rows import Rows
from clustering.execution.held_out import HeldOut
from clustering.fitting.fitted_model import FittedModel
from clustering.models.farthest import BlockPosition
from clustering.models.model import AnyModel, Params

NAN = float("nan")


@dataclass(frozen=True)
class HeldOutScores:
    """Sums over held-out rows; ``a + b`` are the sums over the rows of both."""

    rows: int = 0
    weight: float = 0.0
    """Total weight Σ w of the rows."""
    objective: float = 0.0
    """Objective at the params of the new version, as the passes lower it."""
    before: float = 0.0
    """Objective at the params of the previous version; NaN where the two cannot be compared."""

    def __add__(self, other: HeldOutScores) -> HeldOutScores:
        return HeldOutScores(
            self.rows + other.rows,
            self.weight + other.weight,
            self.objective + other.objective,
            self.before + other.before,
        )

    def repositioned(self, before: BlockPosition, now: BlockPosition) -> HeldOutScores:
        """Return the same sums, as they hold no positions of rows.

        Parameters
        ----------
        before, now
            Position of the block on the earlier grid, and on the present one.
        """
        return self

    def as_unchanged(self) -> HeldOutScores:
        """Return the scores of the same rows for a version with the same params as the previous one."""
        return replace(self, before=self.objective)

    def to_json(self, model: AnyModel) -> dict[str, Any] | None:
        """Return both objectives as users read them, as JSON; None where there is nothing to compare.

        Parameters
        ----------
        model
            The model, which turns sums into the number that users read.
        """
        # NaN is the only number that differs from itself.
        if not self.weight or self.before != self.before:
            return None
        now, before = (float(model.to_user_objective(value, self.weight)) for value in (self.objective, self.before))
        return {"rows": self.rows, "objective": now, "objective_before": before}


@dataclass(frozen=True, eq=False)
class HeldOutScorer:
    """Function that makes the scores of a block; picklable."""

    held_out: HeldOut
    model: AnyModel
    params: Params
    previous_params: Params | None
    """Params of the previous version; None where its objective cannot be compared."""

    @classmethod
    def compare(cls, held_out: HeldOut, fitted: FittedModel, previous: FittedModel | None) -> HeldOutScorer:
        """Make a scorer of two fits. Both are scored only if model and preparation are the same.

        Parameters
        ----------
        held_out
            Rule that says which blocks are held out.
        fitted
            The new fitted model.
        previous
            The fitted model of the previous version; None where there is none.
        """
        # Objectives are sums over prepared rows, so they compare only where rows are prepared alike.
        comparable = previous is not None and previous.model == fitted.model and _same_preparation(previous, fitted)
        return cls(
            held_out, fitted.model, fitted.params, previous.params if previous is not None and comparable else None
        )

    def __call__(self, rows: Rows) -> HeldOutScores:
        """Score the rows of a block. A block that is not held out has no rows to score."""
        if not self.held_out.contains(rows.start):
            # NaN survives every addition, so the sum says that the versions cannot be compared.
            return HeldOutScores(before=0.0 if self.previous_params is not None else NAN)
        now = self.model.assign(self.params, rows).objective
        before = NAN if self.previous_params is None else float(self.model.assign(self.previous_params, rows).objective)
        return HeldOutScores(len(rows), float(rows.weights.sum()), float(now), before)


def _same_preparation(one: FittedModel, other: FittedModel) -> bool:
    """Return whether both fits prepare rows in the same way, to the last bit."""
    a, b = one.preparation, other.preparation
    if a is None or b is None:
        return a is b
    same = a.offset.tobytes() == b.offset.tobytes() and a.matrix.tobytes() == b.matrix.tobytes()
    return a.unit_norm == b.unit_norm and same
