"""SQUAREM: steps that are longer than those of EM and lead to the same optimum.

Let x₀, x₁, x₂ be params of successive plain steps, as vectors of `clustering.models.model.Model.to_vector`, with
r = x₁ − x₀ and v = (x₂ − x₁) − r. The next pass tries x₀ + 2 a r + a² v, where a = ‖r‖ / ‖v‖ is the step length of the
scheme S3 of Varadhan & Roland (2008, doi:10.1111/j.1467-9469.2007.00585.x); for a = 1 this is x₂. The pass itself
measures the objective there. If the objective is above that of the plain step, or a cluster is lost there, the fit
goes on from x₂, so that the objective never rises; else a plain step follows, and the next step is extrapolated from
the tried params and the two after them.

The step length has a bound, which grows where steps succeed and shrinks where they fail. Without it, an early step may
leave the region of the optimum that plain steps lead to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.blas import one_blas_thread
from clustering.models.model import AnyModel

LEAST_BOUND = 2.0
"""Bound of the step length before any step was tried, and the least one."""
GROWTH = 2.0
"""Factor of the bound after a step, up or down."""
LEAST_LENGTH = 1.01
"""A shorter step gains too little over the plain step, of length 1."""


@dataclass(frozen=True, eq=False)
class Acceleration:
    """State of the acceleration between two passes."""

    trail: tuple[Any, ...] = ()
    """Params of the last plain steps before the present params, the oldest first; at most two."""
    bound: float = LEAST_BOUND
    """Largest step length."""
    length: float | None = None
    """Step length of the present params, which the next pass tries; None where they come from a plain step. Then the
    last params of `trail` are those of the plain step."""
    success: int | None = None
    """Number of the last pass that tried a longer step and found it better; None where there was none."""

    @property
    def trying(self) -> bool:
        """Whether the present params are extrapolated, and no pass has measured their objective yet."""
        return self.length is not None

    @property
    def after_rejection(self) -> Acceleration:
        """State after the tried params were rejected for those of the plain step."""
        assert self.length is not None
        return replace(self, trail=self.trail[:-1], bound=max(LEAST_BOUND, self.length / GROWTH), length=None)


def next_params(
    model: AnyModel, acceleration: Acceleration, before: Any, after: Any, number: int, *, extrapolate: bool
) -> tuple[Any, Acceleration]:
    """Choose the params of the next pass: those of the plain step, or extrapolated ones.

    Parameters
    ----------
    model
        Model of the params.
    acceleration
        State when the pass began.
    before
        Params that entered the pass.
    after
        Params of its update.
    number
        Number of the pass.
    extrapolate
        Whether a longer step may be tried.

    Returns
    -------
    object
        Params that enter the next pass.
    Acceleration
        State for that pass.
    """
    if acceleration.length is not None:
        # Tried params were better. What came before them does not lie on one path with them.
        bound = max(acceleration.bound, GROWTH * acceleration.length)
        acceleration = Acceleration((), bound, None, number)
    trail = (*acceleration.trail, before)[-2:]
    plain = replace(acceleration, trail=trail)
    if len(trail) < 2 or not extrapolate:
        return after, plain
    with one_blas_thread():
        return _extrapolated(model, plain, after) or (after, plain)


def _extrapolated(model: AnyModel, plain: Acceleration, after: Any) -> tuple[Any, Acceleration] | None:
    """Make the params of a longer step; None where there are none."""
    first, second, third = (model.to_vector(params, after) for params in (*plain.trail, after))
    if first is None or second is None or third is None:
        return None
    r = second - first
    v = (third - second) - r
    norm_r, norm_v = _norm(r), _norm(v)
    length = plain.bound if norm_r >= plain.bound * norm_v else norm_r / norm_v
    while length >= LEAST_LENGTH:
        # This is x₀ + 2 a r + a² v, with nothing but small terms beside x₂.
        params = model.from_vector(third + 2.0 * (length - 1.0) * r + (length**2 - 1.0) * v, after)
        if params is not None:
            return params, replace(plain, trail=(plain.trail[1], after), length=length)
        length = 1.0 + (length - 1.0) / GROWTH
    return None


def _norm(vector: NDArray[np.float64]) -> float:
    # The sum of numpy does not depend on the number of threads, as that of BLAS may.
    return float(np.sqrt(np.sum(vector * vector)))
