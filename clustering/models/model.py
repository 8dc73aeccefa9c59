"""The contract between a model and everything else.

A model is a frozen value that says what is fitted; its params are the state of a fit. All models are minimised: the
objective inside a fit is the sum over rows that every pass lowers (J, the free energy, or the negative
log-likelihood), and `Model.to_user_objective` turns it into the number that users see. `Model` lists everything that
the loop, the label pass, the stores and the report ask of a model; `SoftModel` adds what they ask of one whose rows
belong to several clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar, Protocol, Self, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.models.assignment import Assignment
from clustering.models.components import Components
from clustering.models.distances import RowDistances
from clustering.models.farthest import BlockPosition
from clustering.models.objective import Objective
from clustering.models.option_names import Divergence
from clustering.models.sampling import GenerativeMixture
from clustering.models.soft import Responsibilities
from clustering.models.starts import InitialParams, Starts

Array = NDArray[np.float64]

_ON_DISK = {"origin": "shift", "total_scatter": "spread", "feature_variance": "spread"}
"""Names of arrays on disk that differ from the fields: every version opens the outputs of every other."""


class Params(Protocol):
    """Arrays that a pass starts from: a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def origin(self) -> Array:
        """Origin ``(d,)``, fixed for a run; it is subtracted from the rows first."""

    @property
    def centers(self) -> Array:
        """Centers less the origin ``(k, d)``."""

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Fields with the names of their dimensions: these alone are stored."""

    @property
    def k(self) -> int:
        """Number of clusters."""


class Statistics(Protocol):
    """Additive statistics of some rows; ``a + b`` are those of the rows of both."""

    @property
    def objective(self) -> float:
        """Objective that the passes lower, for the params that entered the pass."""

    @property
    def count(self) -> int:
        """Number of rows."""

    @property
    def sums(self) -> Mapping[str, Array]:
        """The sums that the update is made of; ``weight (k,)`` is among them."""

    def __add__(self, other: Self) -> Self: ...

    def repositioned(self, before: BlockPosition, now: BlockPosition) -> Self:
        """Return the statistics of the same rows in a block that lies elsewhere on another sample grid.

        Parameters
        ----------
        before, now
            Where the block was, and is.
        """


P = TypeVar("P", bound=Params)
S = TypeVar("S", bound=Statistics)
P_co = TypeVar("P_co", bound=Params, covariant=True)


class Update(Protocol[P_co]):
    """Outcome of an update."""

    @property
    def params(self) -> P_co:
        """The new params."""

    @property
    def objective(self) -> float:
        """Objective of the same assignment at the new params."""

    @property
    def scale(self) -> float:
        """Size that a change of the objective is measured against."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines that a user should know."""

    @property
    def restarted(self) -> bool:
        """Whether a cluster was placed anew, so that the objective may have jumped."""

    @property
    def measures(self) -> Mapping[str, Array]:
        """Numbers of each cluster ``(k,)`` worth watching."""


class Model(Protocol[P, S]):
    """A model, and everything that is asked of one: a dataclass of its options."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def k(self) -> int:
        """Number of clusters."""

    kind: ClassVar[str]
    """Name of the model in configs and files."""
    statistics_type: ClassVar[type]
    """Class of its statistics: arrays and numbers, so that they can be stored."""
    objective: ClassVar[Objective]
    """Name and direction of its objective."""
    tolerance: ClassVar[float]
    """Relative change of the objective at which a fit stops, where the user names none."""
    soft: ClassVar[bool]
    """Whether a row belongs to several clusters; then it is a `SoftModel`."""
    init_arrays: ClassVar[frozenset[str]]
    """Arrays that a user may start it from, besides an array of centers; see `Starts.given`."""
    start_needs_pass: ClassVar[bool]
    """Whether a start from given centers or labels takes a pass over all rows."""
    objective_at_convergence: ClassVar[bool]
    """Whether a pass that changes nothing has told all there is to know at the final params."""

    @property
    def start_divergence(self) -> Divergence:
        """Divergence of the hard clusters that it starts from."""

    def initialize(self, starts: Starts) -> InitialParams[P]:
        """Make the params of the first pass.

        Parameters
        ----------
        starts
            What is there to start from.
        """

    def without_survey_of(self, params: P) -> P:
        """Drop from params what holds only for the rows that they were fitted on, as other rows follow.

        Parameters
        ----------
        params
            Params of a fit.
        """

    def statistics(self, params: P, rows: Rows) -> S:
        """Make the statistics of the rows of a block."""

    def update(self, params: P, statistics: S) -> Update[P]:
        """Refit to statistics."""

    def assign(self, params: P, rows: Rows) -> Assignment:
        """Label the rows of a block."""

    @property
    def distance_attributes(self) -> Mapping[str, str]:
        """CF attributes of its distances."""

    def distances(self, params: P, rows: Rows, own: NDArray[np.int32] | None = None) -> Iterator[RowDistances]:
        """Compute how far rows are from every center, or from their `own` ``(n,)``; a sub-block at a time."""

    def to_user_objective(self, objective: Any, weight: float) -> Any:
        """Turn the objective of rows of this total weight into the number that users see."""

    def params_from_arrays(self, arrays: Mapping[str, Array]) -> P:
        """Make params of the arrays of `params_to_arrays`."""

    def components(self, params: P) -> Components:
        """Describe the clusters beside their centers."""

    def embed(self, params: P, points: Array) -> Array:
        """Place points where their Euclidean distance is near the root of the model's divergence.

        Parameters
        ----------
        params
            Of the fit.
        points
            Such as centers of another fit ``(m, d)``, where the prepared rows are.
        """

    def free_parameters(self, d: int) -> int | None:
        """Count the free parameters for d features; None where its objective is no likelihood."""

    def summary(self, params: P, objective: float, weight: float, *, prepared: bool) -> Sequence[tuple[float, str]]:
        """Give the numbers that a report shows first, with their names.

        Parameters
        ----------
        params
            Of the fit.
        objective
            As users see it.
        weight
            Total weight of the rows.
        prepared
            Whether it is an objective of prepared rows.
        """

    def run_facts(self, params: P) -> Mapping[str, float]:
        """Give numbers of the params that belong into ``run.json``."""

    def generative(self, params: P) -> GenerativeMixture:
        """Describe how rows come about under the fitted model.

        Raises
        ------
        ConfigError
            For a model that does not describe this.
        """

    def probed(self) -> Self:
        """Return a model of the same work for each row, whose options need no search."""

    def row_products(self, d: int) -> int:
        """Count the products that a pass takes for each row of d features, about."""


class SoftModel(Model[P, S], Protocol[P, S]):
    """A model whose rows belong to several clusters."""

    def e_step(self, params: P, rows: Rows) -> Iterator[Responsibilities]:
        """Compute responsibilities of rows, a sub-block at a time."""

    def assign(self, params: P, rows: Rows, on_part: Callable[[Responsibilities], None] | None = None) -> Assignment:
        """Label the rows of a block, and hand the responsibilities of each sub-block to `on_part`."""

    @property
    def has_density(self) -> bool:
        """Whether rows have a density under the model."""

    def log_density(self, params: P, log_prob_norm: Array, observed: Array) -> Array:
        """Compute the log density of rows ``(m,)``.

        Parameters
        ----------
        params
            Of the fit.
        log_prob_norm
            Of the rows ``(m,)``, as the responsibilities have it.
        observed
            Number of observed features of each row ``(m,)``.
        """

    def squared_mahalanobis(self, params: P, divergences: Array) -> Array:
        """Turn divergences of rows from their own center ``(m,)`` into squared Mahalanobis distances."""


AnyModel = Model[Any, Any]
"""A model of any kind."""


def is_soft(model: AnyModel) -> TypeGuard[SoftModel[Any, Any]]:
    """Tell whether rows of a model belong to several clusters.

    Parameters
    ----------
    model
        Any model.
    """
    return model.soft


def params_to_arrays(params: Params) -> dict[str, Array]:
    """Give the arrays that params are rebuilt from."""
    arrays = {_ON_DISK.get(name, name): np.asarray(getattr(params, name)) for name in params.dims}
    return {name: array for name, array in arrays.items() if array.size}


def array_dims(params: Params) -> dict[str, tuple[str, ...]]:
    """Give the names of the dimensions of the arrays of `params_to_arrays`."""
    return {_ON_DISK.get(name, name): dims for name, dims in params.dims.items()}


def read_only(params: P) -> P:
    """Make params whose arrays cannot be written to."""
    changed = object.__new__(type(params))
    for field in fields(params):
        value = getattr(params, field.name)
        if isinstance(value, np.ndarray):
            value = value.view()
            value.flags.writeable = False
        object.__setattr__(changed, field.name, value)
    return changed
