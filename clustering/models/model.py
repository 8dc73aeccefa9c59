"""What the loop, the label pass and the stores ask of a model. There is nothing else to implement.

A model is a frozen value that says what is fitted; its params are where a fit stands. All models are minimised: the
objective inside a fit is the sum over rows that every pass lowers (J, the free energy, or the negative
log-likelihood), and `Model.to_user_objective` turns it into what is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows

Array = NDArray[np.float64]

TRACKED_CLUSTERS = 1024
"""Up to this k numbers of each cluster are kept for every pass."""

_ON_DISK = {"origin": "shift", "total_scatter": "spread", "feature_variance": "spread"}
"""Names of arrays on disk that differ from the fields: every version opens the outputs of every other."""


class Params(Protocol):
    """Arrays that a pass starts from."""

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Fields with the names of their dimensions: these alone are stored."""

    @property
    def k(self) -> int:
        """Number of clusters."""


class Statistics(Protocol):
    """Additive statistics of some rows; ``a + b`` are those of the rows of both."""

    objective: float
    """What the passes lower, for the params that entered the pass."""
    count: int
    """Number of rows."""

    @property
    def sums(self) -> Mapping[str, Array]:
        """The sums that the update is made of; ``weight (k,)`` is among them."""

    def __add__(self, other: Any) -> Any: ...


class Update(Protocol):
    """Outcome of an update."""

    params: Any
    objective: float
    """Of the same assignment at the new params."""

    @property
    def scale(self) -> float:
        """What a change of the objective is measured against."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know."""

    @property
    def restarted(self) -> bool:
        """Whether a cluster was placed anew, so that the objective may have jumped."""

    @property
    def measures(self) -> Mapping[str, Array]:
        """Numbers of each cluster ``(k,)`` worth watching."""


class Assignment(NamedTuple):
    """Labels of the rows of a block."""

    labels: NDArray[np.int32]
    """Cluster of each row ``(n,)``: the one of largest responsibility."""
    distances: Array
    """Divergence from its center ``(n,)``; of a mixture, the squared Mahalanobis distance."""
    weight: Array
    """Σ w r of each cluster ``(k,)``."""
    objective: float
    entropy: float = 0.0
    """−Σ w r log r; 0 where assignments are hard."""


class Model(Protocol):
    """What is fitted."""

    @property
    def k(self) -> int:
        """Number of clusters."""

    kind: ClassVar[str]
    statistics_type: ClassVar[type]
    """Class of its statistics: arrays and numbers, so that they can be kept."""
    tolerance: ClassVar[float]
    """Relative change of the objective at which a fit stops, where the user names none."""
    symbol: ClassVar[str]
    """Short name of the objective as it is told."""

    def statistics(self, params: Any, rows: Rows) -> Any:
        """Make the statistics of the rows of a block."""

    def update(self, params: Any, statistics: Any) -> Any:
        """Refit to statistics."""

    def assign(self, params: Any, rows: Rows) -> Assignment:
        """Label the rows of a block."""

    @property
    def distance_attributes(self) -> Mapping[str, str]:
        """What its distances are, as CF attributes."""

    def distances(self, params: Any, rows: Rows, own: NDArray[np.int32] | None = None) -> Iterator[Any]:
        """Tell how far rows are from every center, or from their `own` ``(n,)``, as `RowDistances`.

        A sub-block at a time.
        """

    def to_user_objective(self, objective: Any, weight: float) -> Any:
        """Turn the objective of rows of this total weight into what is told."""

    def params_from_arrays(self, arrays: Mapping[str, Array]) -> Any:
        """Make params of what `params_to_arrays` gave."""


def params_to_arrays(params: Any) -> dict[str, Array]:
    """Give the arrays that params are rebuilt from."""
    arrays = {_ON_DISK.get(name, name): np.asarray(getattr(params, name)) for name in params.dims}
    return {name: array for name, array in arrays.items() if array.size}


def array_dims(params: Any) -> dict[str, tuple[str, ...]]:
    """Give the names of the dimensions of the arrays of `params_to_arrays`."""
    return {_ON_DISK.get(name, name): dims for name, dims in params.dims.items()}


def read_only(params: Any) -> Any:
    """Make params whose arrays cannot be written to."""
    changed = object.__new__(type(params))
    for field in fields(params):
        value = getattr(params, field.name)
        if isinstance(value, np.ndarray):
            value = value.view()
            value.flags.writeable = False
        object.__setattr__(changed, field.name, value)
    return changed
