"""How rows come about: drawing them from a mixture of Gaussians (lecture, "The Generative Model")."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

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
"""Rows that share a stream of random numbers."""
DESCRIBED = ("squared_euclidean", "mahalanobis")
"""Divergences whose clusters are Gaussians."""


@dataclass(frozen=True, eq=False)
class GenerativeMixture:
    """A component is chosen with probability π, and a row drawn from its Gaussian.

    Row i depends on the seed and on i alone: a longer draw begins with the rows of a shorter one.

    Raises
    ------
    ConfigError
        For weights that are no shares, or a covariance that is not positive definite.
    """

    weights: Array
    """Mixing weights ``(k,)``, adding up to 1."""
    means: Array
    """In the data's own units ``(k, d)``."""
    covariances: Array
    """As `clustering.models.covariances` says for the kind."""
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
    def _edges(self) -> Array:
        edges: Array = np.cumsum(self.weights)
        # The last share above zero ends at 1 exactly, so that no component of weight 0 is ever chosen.
        edges /= edges[-1]
        return edges

    @cached_property
    def _factors(self) -> Array:
        """Roots of the variances ``(k, d)``, or lower Cholesky factors, transposed ``(k or 1, d, d)``."""
        if self.kind in ("tied", "full"):
            lower = np.linalg.cholesky(self.covariances.reshape(-1, self.d, self.d))
            return np.ascontiguousarray(lower.transpose(0, 2, 1))
        variances = {"identity": np.ones((1, 1)), "spherical": self.covariances[:, None]}.get(
            self.kind, self.covariances
        )
        return np.ascontiguousarray(np.broadcast_to(np.sqrt(variances), self.means.shape))

    def draw(self, n: int, seed: int, length: int) -> Iterator[tuple[Array, Labels]]:
        """Draw n rows, so many at a time.

        Parameters
        ----------
        length
            Rows that are in memory at once; it does not change what is drawn.

        Yields
        ------
        ndarray, ndarray
            Rows ``(m, d)`` and the components ``(m,)`` that they were drawn from.
        """
        chosen, stream = np.zeros(0, np.int64), _stream(seed, 0)
        for start in range(0, n, length):
            rows = np.empty((min(length, n - start), self.d))
            labels = np.empty(len(rows), np.int64)
            done = 0
            while done < len(rows):
                number, within = divmod(start + done, BLOCK)
                if within == 0:
                    stream = _stream(seed, number)
                    chosen = self._chosen(stream)
                m = min(len(rows) - done, BLOCK - within)
                stream.standard_normal(out=rows[done : done + m])
                labels[done : done + m] = chosen[within : within + m]
                done += m
            transform = _turned if self.kind in ("tied", "full") else _scaled
            transform(rows, labels, self.means, self._factors)
            yield rows, labels

    def draw_labels(self, n: int, seed: int, length: int) -> Iterator[Labels]:
        """Draw the components of the rows of `draw` alone, which takes little time."""
        kept: Labels = np.zeros(0, np.int64)
        for start in range(0, n, BLOCK):
            kept = np.concatenate([kept, self._chosen(_stream(seed, start // BLOCK))[: n - start]])
            whole = len(kept) - len(kept) % length
            for first in range(0, whole, length):
                yield kept[first : first + length]
            kept = kept[whole:]
        if len(kept):
            yield kept

    def _chosen(self, stream: np.random.Generator) -> Labels:
        """Components of all rows of a block, whatever the number that is wanted: the normals follow in the stream."""
        return np.searchsorted(self._edges, stream.random(BLOCK), side="right")


def _stream(seed: int, block: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(block,))))


@njit(**FAST)
def _scaled(rows, labels, means, roots):  # type: ignore[no-untyped-def]
    for r in range(len(rows)):
        k = labels[r]
        for j in range(rows.shape[1]):
            rows[r, j] = means[k, j] + roots[k, j] * rows[r, j]


@njit(**FAST)
def _turned(rows, labels, means, factors):  # type: ignore[no-untyped-def]
    """Make μ + L z of z in place; row by row, so that no bit depends on the rows drawn beside it."""
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
    """Make the error of a model that does not describe how rows come about.

    Parameters
    ----------
    words
        The model, in words.
    """
    return ConfigError(
        f"{words} does not describe how rows come about, so none can be drawn; only gaussian_mixture and soft_kmeans "
        f"with divergence {' or '.join(DESCRIBED)} do: fit one of these"
    )


def check_invertible(preparation: Preparation | None) -> None:
    """Refuse a preparation that decoded rows do not follow from.

    Raises
    ------
    ConfigError
        Naming it.
    """
    if preparation is not None and not preparation.invertible:
        raise ConfigError(
            f"the model is one of prepared rows ({preparation.words}), and rows of all features do not follow from "
            "them; name a model fitted without unit_norm, fewer principal components than features, and feature "
            "weights of 0"
        )


def undo_preparation(preparation: Preparation | None, mixture: GenerativeMixture) -> GenerativeMixture:
    """Tell how rows come about before they are prepared, of a mixture of prepared rows.

    Raises
    ------
    ConfigError
        If decoded rows do not follow from prepared ones.
    """
    check_invertible(preparation)
    if preparation is None:
        return mixture
    full = [kinds.as_full(mixture.kind, mixture.covariances, i, mixture.d) for i in range(mixture.k)]
    covariances = np.array([preparation.covariance_to_data_units(covariance) for covariance in full])
    return GenerativeMixture(mixture.weights, preparation.to_data_units(mixture.means), covariances, "full")


def mixture_from_user(weights: Any, means: Any, covariances: Any = None, kind: Any = None) -> GenerativeMixture:
    """Take the parameters of a mixture as a user writes them.

    Parameters
    ----------
    weights
        ``(k,)``.
    means
        ``(k, d)``.
    covariances
        One variance; a variance of each component ``(k,)``, or of each feature of each component ``(k, d)``; one
        matrix ``(d, d)`` for all components, or one for each ``(k, d, d)``. None: identity.
    kind
        The kind of covariance, where ``(k, d)`` and ``(d, d)`` are the same shape and the numbers do not tell.

    Raises
    ------
    ConfigError
        For numbers that are none, shapes that do not fit, weights that are no shares, or a covariance that is not
        positive definite.
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
    """Tell variances of d components from one matrix, where the numbers leave no doubt."""
    variances, matrix = bool((numbers > 0).all()), bool(np.array_equal(numbers, numbers.T))
    if variances and matrix:
        raise ConfigError(
            f"covariances are {parameters.short(numbers)}: one matrix, or the variances of {len(numbers)} components; "
            "say which with covariance: tied or covariance: diagonal"
        )
    return "diagonal" if variances else "tied"


def check_whole_number(name: str, value: Any, least: int) -> int:
    """Check a whole number.

    Raises
    ------
    ConfigError
        If it is none, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ConfigError(f"{name} is {value!r}; a whole number of {least} or more is needed")
    return int(value)
