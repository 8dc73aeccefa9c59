"""The contract between a model and everything else.

A model is a frozen value that says what is fitted; its params are the state of a fit. All models are minimised: the
objective inside a fit is the sum over rows that every pass lowers (J, the free energy, or the negative
log-likelihood), and `Model.to_user_objective` turns it into the number that users see. `Model` lists everything that
the loop, the label pass, the stores and the report ask of a model; `SoftModel` adds what they ask of one whose rows
belong to several clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from clustering.models.sampling import RowGenerator
from clustering.models.soft import Responsibilities
from clustering.models.starts import InitialParams, Starts

Array = NDArray[np.float64]


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
        """Names of the dimensions of each stored field; other fields are not stored."""

    @property
    def k(self) -> int:
        """Number of clusters."""


class Statistics(Protocol):
    """Additive statistics of some rows; ``a + b`` are the statistics of both sets of rows together."""

    @property
    def objective(self) -> float:
        """Objective at the params that entered the pass, which the passes lower."""

    @property
    def count(self) -> int:
        """Number of rows."""

    @property
    def sums(self) -> Mapping[str, Array]:
        """Sums that an update is made from; ``weight (k,)`` is among them."""

    def __add__(self, other: Self) -> Self: ...

    def repositioned(self, before: BlockPosition, now: BlockPosition) -> Self:
        """Return the statistics of the same rows in a block that lies elsewhere on another sample grid.

        Parameters
        ----------
        before, now
            Position of the block on the previous sample grid and on the present one.
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
        """Objective of the same assignment at the new params; the next pass may lower it further."""

    @property
    def scale(self) -> float:
        """Size that a change of the objective is measured against."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Messages for the user."""

    @property
    def restarted(self) -> bool:
        """Whether a cluster was placed anew, so that the objective may have jumped."""

    @property
    def measures(self) -> Mapping[str, Array]:
        """Numbers of each cluster ``(k,)`` that the history of a fit keeps, by name."""


class Model(Protocol[P, S]):
    """A model, with every method that the rest of the package calls: a dataclass of its options."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def k(self) -> int:
        """Number of clusters."""

    kind: ClassVar[str]
    """Name of the model in configs and in files."""
    statistics_type: ClassVar[type]
    """Class of its statistics. It holds arrays and numbers alone, so that they can be stored."""
    objective: ClassVar[Objective]
    """Name and direction of its objective."""
    tolerance: ClassVar[float]
    """Default tolerance of a fit: the relative change of the objective at which it stops."""
    finalists: ClassVar[int]
    """Default number of the best starts that are fitted to the full data, at most."""
    init_arrays: ClassVar[frozenset[str]]
    """Names of the arrays that a user may start a fit from, besides the centers; see `Starts.given`."""
    start_needs_pass: ClassVar[bool]
    """Whether a start from given centers or labels needs a pass over all rows."""
    objective_at_convergence: ClassVar[bool]
    """Whether the last pass of a converged fit already gives the objective at the final params."""

    @property
    def soft(self) -> bool:
        """Whether a row belongs to several clusters. Such a model is a `SoftModel`."""

    @property
    def start_divergence(self) -> Divergence:
        """Divergence of the hard clusters that a fit starts from."""

    @property
    def start_needs_covariance(self) -> bool:
        """Whether a start uses the covariance of all rows."""

    def initialize(self, starts: Starts) -> InitialParams[P]:
        """Make the params that enter the first pass.

        Parameters
        ----------
        starts
            Survey, row sample, hard clusters and user input that the model may start from.

        Returns
        -------
        InitialParams
            Params of one or more candidates, with messages for the user.

        Raises
        ------
        ConfigError
            If the input of the user does not fit the model.
        DataError
            If the data allow no start, such as rows that are all equal.
        """

    def without_survey_of(self, params: P) -> P:
        """Remove the parts of params that hold only for the rows of one fit, so that other fits can start from them.

        Parameters
        ----------
        params
            Params of a finished fit.
        """

    def statistics(self, params: P, rows: Rows) -> S:
        """Make the statistics of the rows of one block at the present params.

        Parameters
        ----------
        params
            Params that enter the pass.
        rows
            Prepared rows of a block ``(n, d)``, with their weights.

        Returns
        -------
        S
            Sufficient statistics for `update`, with the objective at `params`.

        Raises
        ------
        DomainError
            If a row has a value that the divergence of the model is not defined for.
        """

    def for_pass(self, params: P) -> Callable[[Rows], S]:
        """Make the function that makes the statistics of blocks in one pass; picklable.

        What a pass needs of the params is prepared here once. Where compiled code adds up whole runs of blocks, the
        function is a `clustering.models.run_statistics.RunStatistics`.

        Parameters
        ----------
        params
            Params that enter the pass.
        """

    def update(self, params: P, statistics: S) -> Update[P]:
        """Make new params from the statistics of all rows.

        Parameters
        ----------
        params
            Params that entered the pass.
        statistics
            Sum of the statistics of all blocks at `params`.

        Returns
        -------
        Update
            The new params, with the objective of the same assignment there.

        Raises
        ------
        DataError
            If the statistics give no valid params, such as a singular covariance.
        """

    def to_vector(self, params: P, about: P) -> Array | None:
        """Give params as a vector without bounds, in which a fit may take longer steps than those of `update`.

        Parameters
        ----------
        params
            Params of a fit.
        about
            Params of the same fit that scale the coordinates: near them, steps of one length change the model alike.

        Returns
        -------
        ndarray or None
            Coordinates ``(m,)``; None where a fit takes plain steps alone.
        """

    def from_vector(self, vector: Array, about: P) -> P | None:
        """Make params from the coordinates of `to_vector`; None where no valid params have them.

        Parameters
        ----------
        vector
            Coordinates ``(m,)``.
        about
            The params that scale them.
        """

    def assign(self, params: P, rows: Rows) -> Assignment:
        """Label the rows of one block.

        Parameters
        ----------
        params
            Params of a fit.
        rows
            Prepared rows of a block ``(n, d)``; rows of weight 0 get labels too.

        Returns
        -------
        Assignment
            Labels and own divergences ``(n,)``, with the objective, the weight of each cluster and the entropy.

        Raises
        ------
        DomainError
            If a row has a value that the divergence of the model is not defined for.
        """

    @property
    def distance_attributes(self) -> Mapping[str, str]:
        """CF attributes of the numbers that `distances` gives."""

    def distances(self, params: P, rows: Rows, own: NDArray[np.int32] | None = None) -> Iterator[RowDistances]:
        """Compute the row distances of the rows of one block, a sub-block at a time.

        Parameters
        ----------
        params
            Params of a fit.
        rows
            Prepared rows of a block ``(n, d)``.
        own
            One cluster ``(n,)`` for each row, mostly its label: distances from that cluster alone; from all where None.

        Yields
        ------
        RowDistances
            Distances of some rows ``(k, m)``, or ``(1, m)`` where `own` is given, with the places of the rows.

        Raises
        ------
        DomainError
            If a row has a value that the divergence of the model is not defined for.
        """

    def to_user_objective(self, objective: Any, weight: float) -> Any:
        """Turn the objective of a fit into the number that users read.

        Parameters
        ----------
        objective
            Objective that the passes lower, as one number or an array of them.
        weight
            Total weight of the rows that the objective is summed over.

        Returns
        -------
        same as `objective`
            J, the free energy, or the mean log-likelihood per unit weight.
        """

    def params_from_arrays(self, arrays: Mapping[str, Array]) -> P:
        """Make params from the arrays of `params_to_arrays`.

        Parameters
        ----------
        arrays
            Arrays by their names on disk.
        """

    def components(self, params: P) -> Components:
        """Describe the mixing weights and covariances of the clusters, where the model has them.

        Parameters
        ----------
        params
            Params of a fit.
        """

    def embed(self, params: P, points: Array) -> Array:
        """Map points ``(m, d)`` to where their Euclidean distance is near the root of the model's divergence.

        Parameters
        ----------
        params
            Params of a fit, which hold the origin.
        points
            Points in the space of the prepared rows ``(m, d)``, such as centers of another fit.
        """

    def free_parameters(self, d: int) -> int | None:
        """Count the free parameters, for information criteria; None where the objective is not a likelihood.

        Parameters
        ----------
        d
            Number of features.
        """

    def summary(self, params: P, objective: float, weight: float, *, prepared: bool) -> Sequence[tuple[float, str]]:
        """Give the numbers that a report shows first, each with its name.

        Parameters
        ----------
        params
            Params of the fit.
        objective
            Objective as `to_user_objective` gives it.
        weight
            Total weight of the rows.
        prepared
            Whether the objective is measured on prepared rows, and not in the units of the data.
        """

    def run_facts(self, params: P) -> Mapping[str, float]:
        """Give numbers of the params, by name, that are recorded in ``run.json``; most models add none.

        Parameters
        ----------
        params
            Params of the fit.
        """

    def generative(self, params: P) -> RowGenerator:
        """Describe the fitted model as a mixture of prepared rows that can be drawn from.

        Parameters
        ----------
        params
            Params of the fit.

        Raises
        ------
        ConfigError
            If the model does not describe how rows are generated.
        """

    def probed(self) -> Self:
        """Return a model that does the same work for each row and needs no search for its options."""

    def row_products(self, d: int) -> int:
        """Estimate how many products a pass computes for each row, to forecast its time.

        Parameters
        ----------
        d
            Number of features.
        """


class SoftModel(Model[P, S], Protocol[P, S]):
    """A model whose rows belong to several clusters."""

    def e_step(self, params: P, rows: Rows) -> Iterator[Responsibilities]:
        """Compute the responsibilities of the rows of one block, a sub-block at a time.

        Parameters
        ----------
        params
            Params of a fit.
        rows
            Prepared rows of a block ``(n, d)``.

        Yields
        ------
        Responsibilities
            Responsibilities of some rows. Their arrays are reused for the next ones: copy those that you keep.
        """

    def assign(self, params: P, rows: Rows, on_part: Callable[[Responsibilities], None] | None = None) -> Assignment:
        """Label the rows of one block with their clusters of largest responsibility.

        Parameters
        ----------
        params
            Params of a fit.
        rows
            Prepared rows of a block ``(n, d)``.
        on_part
            Called with the responsibilities of each sub-block, whose arrays are reused after the call.
        """

    @property
    def has_density(self) -> bool:
        """Whether rows have a density under the model."""

    def log_density(self, params: P, log_prob_norm: Array, observed: Array) -> Array:
        """Compute the log density of rows ``(m,)`` under the model; only where `has_density` is true.

        Parameters
        ----------
        params
            Params of the fit.
        log_prob_norm
            Log densities up to a constant ``(m,)``, as in `Responsibilities`.
        observed
            Number of observed features of each row ``(m,)``.
        """

    def chi_squared(self, params: P, divergences: Array, observed: Array) -> tuple[Array, Array]:
        """Turn own divergences into numbers that follow a χ² distribution if the model is true.

        Parameters
        ----------
        params
            Params of the fit.
        divergences
            Own divergences of rows ``(m,)``, as `e_step` gives them.
        observed
            Number of observed features of each row ``(m,)``.

        Returns
        -------
        ndarray, ndarray
            The numbers and their degrees of freedom, both ``(m,)``.
        """


AnyModel = Model[Any, Any]
"""A model of any kind."""


def is_soft(model: AnyModel) -> TypeGuard[SoftModel[Any, Any]]:
    """Return whether rows of a model belong to several clusters, which makes it a `SoftModel`.

    Parameters
    ----------
    model
        Any model.
    """
    return model.soft
