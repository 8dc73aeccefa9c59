"""Draws of rows from a fitted or given mixture (lecture, "The Generative Model")."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clustering.compiling import njit
from clustering.data.preparation import Preparation
from clustering.errors import ConfigError, nearest
from clustering.models import covariances as kinds
from clustering.models import parameters
from clustering.models.kernels import FAST
from clustering.models.option_names import COVARIANCES, Covariance

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

BLOCK = 65_536
"""Number of consecutive rows that share a stream of random numbers."""
LISTED = 100_000
"""Largest number of covariance values in JSON, because metadata are read whenever a store is opened."""
DESCRIBED = ("squared_euclidean", "mahalanobis")
"""Divergences under which the clusters of soft k-means are Gaussians."""


class RowGenerator(Protocol):
    """A mixture that rows can be drawn from: first a component is drawn, then a row of it.

    Row i depends on the seed and on i alone: a longer draw begins with the rows of a shorter one.
    """

    @property
    def k(self) -> int:
        """Number of components."""

    @property
    def d(self) -> int:
        """Number of features."""

    def draw(self, n: int, seed: int, length: int) -> Iterator[tuple[Array, Labels]]:
        """Draw rows with their components, some at a time.

        Parameters
        ----------
        n
            Number of rows.
        seed
            Seed of the draws, a whole number of 0 or more.
        length
            Number of rows in memory at a time; it does not change the draws.

        Yields
        ------
        ndarray, ndarray
            Rows ``(m, d)`` and the components ``(m,)`` that they were drawn from.
        """

    def draw_labels(self, n: int, seed: int, length: int) -> Iterator[Labels]:
        """Draw only the components of the rows of `draw`, which takes little time.

        Parameters
        ----------
        n, seed, length
            As in `draw`.

        Yields
        ------
        ndarray
            Components ``(m,)``.
        """

    def before(self, preparation: Preparation) -> RowGenerator:
        """Return the mixture of the decoded rows, for a mixture of prepared rows.

        Parameters
        ----------
        preparation
            How the rows of this mixture were prepared.

        Raises
        ------
        ConfigError
            If decoded rows cannot be recovered from prepared ones.
        """

    def to_json(self) -> dict[str, Any]:
        """Describe the parameters as JSON."""


@dataclass(frozen=True, eq=False)
class GenerativeMixture:
    """A mixture of Gaussians: a component is chosen with probability π, and a row drawn from its Gaussian.

    Row i depends on the seed and on i alone: a longer draw begins with the rows of a shorter one.

    Raises
    ------
    ConfigError
        For weights that are no shares, or a covariance that is not positive definite.
    """

    weights: Array
    """Mixing weights ``(k,)``, adding up to 1."""
    means: Array
    """Means in the units of the rows ``(k, d)``, not less an origin."""
    covariances: Array
    """Covariances in the shape of their kind, see `clustering.models.covariances`."""
    kind: Covariance

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", parameters.normalized_weights("weights", self.weights))
        object.__setattr__(self, "covariances", parameters.symmetric(self.kind, self.covariances))

    @property
    def k(self) -> int:
        """Number of components."""
        return len(self.means)

    @property
    def d(self) -> int:
        """Number of features."""
        return int(self.means.shape[1])

    @cached_property
    def _factors(self) -> Array:
        """Roots of the variances ``(k, d)``, or lower Cholesky factors, transposed ``(k or 1, d, d)``."""
        if self.kind in ("tied", "full"):
            lower = np.linalg.cholesky(self.covariances.reshape(-1, self.d, self.d))
            # Transposed factors let the inner loop of `_turned` run along memory.
            return np.ascontiguousarray(lower.transpose(0, 2, 1))
        variances = {"identity": np.ones((1, 1)), "spherical": self.covariances[:, None]}.get(
            self.kind, self.covariances
        )
        return np.ascontiguousarray(np.broadcast_to(np.sqrt(variances), self.means.shape))

    def draw(self, n: int, seed: int, length: int) -> Iterator[tuple[Array, Labels]]:
        """Draw rows with their components, some at a time.

        Parameters
        ----------
        n, seed
            Number of rows, and seed of the draws.
        length
            Number of rows in memory at a time; it does not change the draws.
        """
        chosen, stream = np.zeros(0, np.int64), block_stream(seed, 0)
        for start in range(0, n, length):
            rows = np.empty((min(length, n - start), self.d))
            labels = np.empty(len(rows), np.int64)
            done = 0
            while done < len(rows):
                number, within = divmod(start + done, BLOCK)
                if within == 0:
                    # Components come first in a stream, so that `draw_labels` needs no rows to draw the same ones.
                    stream = block_stream(seed, number)
                    chosen = draw_components(self.weights, stream)
                m = min(len(rows) - done, BLOCK - within)
                stream.standard_normal(out=rows[done : done + m])
                labels[done : done + m] = chosen[within : within + m]
                done += m
            transform = _turned if self.kind in ("tied", "full") else _scaled
            transform(rows, labels, self.means, self._factors)
            yield rows, labels

    def draw_labels(self, n: int, seed: int, length: int) -> Iterator[Labels]:
        """Draw only the components of the rows of `draw`, which takes little time.

        Parameters
        ----------
        n, seed, length
            As in `draw`.
        """
        return draw_labels(self.weights, n, seed, length)

    def before(self, preparation: Preparation) -> GenerativeMixture:
        """Return the mixture of the decoded rows, for a mixture of prepared rows.

        Parameters
        ----------
        preparation
            How the rows of this mixture were prepared.

        Raises
        ------
        ConfigError
            If decoded rows cannot be recovered from prepared ones.
        """
        check_invertible(preparation)
        # A preparation may turn features into each other, so the covariance becomes a full one.
        full = [kinds.as_full(self.kind, self.covariances, i, self.d) for i in range(self.k)]
        covariances = np.array([preparation.covariance_to_data_units(covariance) for covariance in full])
        return GenerativeMixture(self.weights, preparation.to_data_units(self.means), covariances, "full")

    def to_json(self) -> dict[str, Any]:
        """Describe the parameters as JSON; covariances only up to `LISTED` values."""
        arrays = {"weights": self.weights, "means": self.means}
        if 0 < math.prod(self.covariances.shape) <= LISTED:
            arrays["covariances"] = self.covariances
        return {"covariance": self.kind, **{name: array.tolist() for name, array in arrays.items()}}


def draw_labels(weights: Array, n: int, seed: int, length: int) -> Iterator[Labels]:
    """Draw the components of rows, some at a time.

    Parameters
    ----------
    weights
        Mixing weights ``(k,)``, adding up to 1.
    n
        Number of rows.
    seed
        Seed of all draws.
    length
        Number of components in memory at a time; it does not change the draws.

    Yields
    ------
    ndarray
        Components ``(m,)``.
    """
    kept: Labels = np.zeros(0, np.int64)
    for start in range(0, n, BLOCK):
        kept = np.concatenate([kept, draw_components(weights, block_stream(seed, start // BLOCK))[: n - start]])
        whole = len(kept) - len(kept) % length
        for first in range(0, whole, length):
            yield kept[first : first + length]
        kept = kept[whole:]
    if len(kept):
        yield kept


def draw_components(weights: Array, stream: np.random.Generator) -> Labels:
    """Draw components for all rows of a block, even if fewer are needed: other draws come next in the stream.

    Parameters
    ----------
    weights
        Mixing weights ``(k,)``, adding up to 1.
    stream
        Random numbers of the block.
    """
    edges = np.cumsum(weights)
    # The last weight above zero ends at exactly 1, so that no component of weight 0 is ever chosen.
    edges /= edges[-1]
    # Draws are in [0, 1), so an edge belongs to the component above it.
    return np.searchsorted(edges, stream.random(BLOCK), side="right")


def block_stream(seed: int, block: int) -> np.random.Generator:
    """Make the stream of random numbers of a block of rows.

    Parameters
    ----------
    seed
        Seed of all draws.
    block
        Index of the block.
    """
    # A spawn key makes the stream of a block independent of those of all other blocks.
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(block,))))


@njit(**FAST)
def _scaled(rows, labels, means, roots):  # type: ignore[no-untyped-def]
    for r in range(len(rows)):
        k = labels[r]
        for j in range(rows.shape[1]):
            rows[r, j] = means[k, j] + roots[k, j] * rows[r, j]


@njit(**FAST)
def _turned(rows, labels, means, factors):  # type: ignore[no-untyped-def]
    """Replace z by μ + L z row by row, so that no bit of a row depends on the rows drawn with it."""
    n, d = rows.shape
    made = np.empty(d)
    for r in range(n):
        k = labels[r]
        factor = factors[k if len(factors) > 1 else 0]
        made[:] = 0.0
        for i in range(d):
            z = rows[r, i]
            for j in range(i, d):
                made[j] += factor[i, j] * z
        for j in range(d):
            rows[r, j] = means[k, j] + made[j]


def not_generative(words: str) -> ConfigError:
    """Make the error of a model that does not describe how rows are generated.

    Parameters
    ----------
    words
        The model, in words.
    """
    return ConfigError(
        f"{words} has no distribution of rows, so none can be drawn; fit gaussian_mixture, von_mises_fisher, "
        f"or soft_kmeans with divergence {' or '.join(DESCRIBED)}"
    )


def check_invertible(preparation: Preparation | None) -> None:
    """Refuse a preparation from which decoded rows cannot be recovered.

    Parameters
    ----------
    preparation
        Preparation of a fitted model; None where rows are not prepared.

    Raises
    ------
    ConfigError
        If it cannot be inverted, with its words.
    """
    if preparation is not None and not preparation.invertible:
        raise ConfigError(
            f"the model is one of prepared rows ({preparation.words}), and rows of all features do not follow from "
            "them; name a model fitted without unit_norm, fewer principal components than features, and feature "
            "weights of 0"
        )


def mixture_from_user(weights: Any, means: Any, covariances: Any = None, kind: Any = None) -> GenerativeMixture:
    """Make a mixture from the parameters that a user wrote.

    Parameters
    ----------
    weights
        Mixing weights ``(k,)``.
    means
        Means ``(k, d)``.
    covariances
        One variance; a variance of each component ``(k,)``, or of each feature of each component ``(k, d)``; one matrix
        ``(d, d)`` for all components, or one for each ``(k, d, d)``. None means identity.
    kind
        Kind of covariance, needed only where ``(k, d)`` and ``(d, d)`` are the same shape and the numbers fit both.

    Raises
    ------
    ConfigError
        For values that are not numbers, shapes that do not fit, weights that do not add up to 1, or a covariance that
        is not positive definite.
    """
    centers = parameters.read_array("means", means)
    if centers.ndim != 2 or not centers.size:
        raise ConfigError(f"means have shape {centers.shape}; give a list of features for each component, (k, d)")
    k, d = centers.shape
    shares = parameters.read_array("weights", weights)
    if shares.shape != (k,):
        raise ConfigError(f"weights have shape {shares.shape}, and there are {k} means; give {k} weights")
    if kind is not None and kind not in COVARIANCES:
        raise ConfigError(f"covariance is {kind!r}; {nearest(str(kind), COVARIANCES)}")
    if covariances is None and kind in (None, "identity"):
        return GenerativeMixture(shares, centers, np.zeros(0), "identity")
    numbers = parameters.read_array("covariances", 1.0 if covariances is None else covariances)
    if numbers.ndim == 0:
        numbers = np.full(k, float(numbers))
    shapes = [("spherical", (k,)), ("diagonal", (k, d)), ("tied", (d, d)), ("full", (k, d, d))]
    fitting = [name for name, shape in shapes if numbers.shape == shape and kind in (None, name)]
    if not fitting:
        allowed = ", ".join(f"{name} {shape}" for name, shape in shapes if kind in (None, name)) or "none for identity"
        raise ConfigError(
            f"covariances have shape {numbers.shape}, which does not fit {k} components of {d} features; "
            f"allowed: one variance, {allowed}"
        )
    if len(fitting) > 1:
        fitting = [_diagonals_or_matrix(numbers)]
    covariance_kind: Any = fitting[0]
    return GenerativeMixture(shares, centers, numbers, covariance_kind)


def _diagonals_or_matrix(numbers: Array) -> str:
    """Decide whether numbers ``(d, d)`` are variances of d components or one matrix, where only one is possible."""
    variances, matrix = bool((numbers > 0).all()), bool(np.array_equal(numbers, numbers.T))
    if variances and matrix:
        raise ConfigError(
            f"covariances are {parameters.short(numbers)}: one matrix, or the variances of {len(numbers)} components; "
            "say which with covariance: tied or covariance: diagonal"
        )
    return "diagonal" if variances else "tied"


def check_whole_number(name: str, value: Any, least: int) -> int:
    """Check a whole number, and return it as a plain int.

    Parameters
    ----------
    name
        Name of the number in errors.
    value
        Anything that a user gave.
    least
        Smallest value allowed.

    Raises
    ------
    ConfigError
        If the value is not a whole number, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ConfigError(f"{name} is {value!r}; a whole number of {least} or more is needed")
    return int(value)
