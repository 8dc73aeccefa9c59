"""How a new version does beside the one before, on rows that are new to both."""

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
    """Sums over held-out rows; ``a + b`` are those of the rows of both."""

    rows: int = 0
    weight: float = 0.0
    """Σ w of them."""
    objective: float = 0.0
    """What passes lower, at the params of the new version."""
    before: float = 0.0
    """The same at those of the version before; NaN where they cannot be compared."""

    def __add__(self, other: HeldOutScores) -> HeldOutScores:
        return HeldOutScores(
            self.rows + other.rows,
            self.weight + other.weight,
            self.objective + other.objective,
            self.before + other.before,
        )

    def repositioned(self, before: BlockPosition, now: BlockPosition) -> HeldOutScores:
        """Return these: they name no positions."""
        return self

    def as_unchanged(self) -> HeldOutScores:
        """Tell the same rows once more, for a version with the same params as the one before."""
        return replace(self, before=self.objective)

    def to_json(self, model: AnyModel) -> dict[str, Any] | None:
        """Tell both objectives as the model does, as JSON; None where there is nothing to compare."""
        if not self.weight or self.before != self.before:
            return None
        now, before = (float(model.to_user_objective(value, self.weight)) for value in (self.objective, self.before))
        return {"rows": self.rows, "objective": now, "objective_before": before}


@dataclass(frozen=True, eq=False)
class HeldOutScorer:
    """Makes the scores of a block; picklable."""

    held_out: HeldOut
    model: AnyModel
    params: Params
    previous_params: Params | None
    """Params of the version before; None where its objective is another."""

    @classmethod
    def compare(cls, held_out: HeldOut, fitted: FittedModel, previous: FittedModel | None) -> HeldOutScorer:
        """Compare two fits, where both have the same objective of the same prepared rows."""
        comparable = previous is not None and previous.model == fitted.model and _same_preparation(previous, fitted)
        return cls(
            held_out, fitted.model, fitted.params, previous.params if previous is not None and comparable else None
        )

    def __call__(self, rows: Rows) -> HeldOutScores:
        """Score the rows of a block, none where it is not held out."""
        if not self.held_out.contains(rows.start):
            return HeldOutScores(before=0.0 if self.previous_params is not None else NAN)
        now = self.model.assign(self.params, rows).objective
        before = NAN if self.previous_params is None else float(self.model.assign(self.previous_params, rows).objective)
        return HeldOutScores(len(rows), float(rows.weights.sum()), float(now), before)


def _same_preparation(one: FittedModel, other: FittedModel) -> bool:
    """Tell whether rows are prepared in the same way for both."""
    a, b = one.preparation, other.preparation
    if a is None or b is None:
        return a is b
    same = a.offset.tobytes() == b.offset.tobytes() and a.matrix.tobytes() == b.matrix.tobytes()
    return a.unit_norm == b.unit_norm and same
