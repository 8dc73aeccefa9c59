"""Row distances: how far rows are from every center, for outputs. Labels do not depend on them.

Distances are added up from differences of a row and a center in float64, a cache-sized sub-block at a time. So the
distance of a row close to its center keeps its digits too. A missing feature takes no part, as in the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.errors import ConfigError
from clustering.models import covariances as kinds
from clustering.models import divergences as geometry
from clustering.models import missing_kernels
from clustering.models.columns import columns_of
from clustering.models.option_names import Divergence
from clustering.models.overflow import overflow_safe_roots

Array = NDArray[np.float64]

MEASURES: Mapping[Divergence, Mapping[str, str]] = {
    "squared_euclidean": {"long_name": "Euclidean distance"},
    "mahalanobis": {"long_name": "Mahalanobis distance under the covariance of all rows", "units": "1"},
    "cosine": {"long_name": "1 - cosine of the angle", "units": "1"},
    "kullback_leibler": {"long_name": "Kullback-Leibler divergence sum(x log(x / c) - x + c)"},
    "itakura_saito": {"long_name": "Itakura-Saito divergence sum(x / c - log(x / c) - 1)", "units": "1"},
}
"""CF attributes of the distance of each divergence: the root of a squared distance, or the divergence itself."""


class RowDistances(NamedTuple):
    """Some rows with their distances."""

    row_index: NDArray[np.intp] | slice
    """Places of the rows in their block ``(m,)``."""
    distances: Array
    """Distances from each center ``(k, m)``, or from one center for each row ``(1, m)``."""


def from_centers(
    divergence: Divergence,
    origin: Array,
    centers: Array,
    matrix: Array,
    rows: Rows,
    own: NDArray[np.int32] | None = None,
) -> Iterator[RowDistances]:
    """Compute the row distances from the centers of k-means or soft k-means, a sub-block at a time.

    Parameters
    ----------
    divergence
        Divergence of the model.
    origin, centers, matrix
        As in the params: ``(d,)``, ``(k, d)`` less the origin, and M of the Mahalanobis distance ``(d, d)``.
    rows
        Prepared rows of a block ``(n, d)``.
    own
        The one center ``(n,)`` that each row is measured from; all centers where None.

    Raises
    ------
    DomainError
        If a row has a value that the divergence is not defined for.
    ConfigError
        If rows have missing features and the divergence is not squared_euclidean.
    """
    if rows.has_missing is not None and divergence != "squared_euclidean":
        raise ConfigError(
            f"missing is 'marginalize' and divergence is {divergence!r}; only squared_euclidean leaves out "
            "single features; set source.missing to 'drop'"
        )
    k, d = centers.shape
    geometry.check_domain(divergence, rows.values)
    # With `own`, each row less its own center is measured from zero.
    against = centers if own is None else np.zeros((1, d))
    for start, stop, columns in columns_of(rows, origin, k):
        near = np.zeros((d, 1)) if own is None else centers[own[start:stop]].T
        opposite = np.maximum(centers[:, :, None] if own is None else near[None], geometry.TINY)
        out = np.empty((len(against), stop - start))
        match divergence:
            case "squared_euclidean":
                out = overflow_safe_roots(_squares, np.subtract(columns, near, order="C"), against)
            case "mahalanobis":
                out = overflow_safe_roots(partial(_turned, matrix), np.subtract(columns, near, order="C"), against)
            case "cosine":
                along = geometry.normalized(divergence, columns)
                # As half a squared distance, 1 − cosine keeps its digits for rows close to their center.
                out = 0.5 * _squares(np.subtract(along, near, order="C"), against)
            case "kullback_leibler":
                for total, center in zip(out, opposite, strict=True):
                    total[:] = _kullback_leibler(columns, center).sum(axis=0)
            case "itakura_saito":
                for total, center in zip(out, opposite, strict=True):
                    total[:] = _itakura_saito(columns, center).sum(axis=0)
        yield RowDistances(slice(start, stop), out)


def _squares(columns: Array, centers: Array) -> Array:
    out, offsets = (np.empty((len(centers), columns.shape[1])) for _ in range(2))
    # This kernel leaves NaN out, so that rows with missing features need no path of their own.
    missing_kernels.squares(columns, centers, np.ones_like(centers), np.zeros_like(centers), out, offsets)
    return out


def _turned(matrix: Array, columns: Array, centers: Array) -> Array:
    out = np.empty((len(centers), columns.shape[1]))
    kinds.factored(matrix, centers, columns, out)
    return out


def _kullback_leibler(x: Array, c: Array) -> Array:
    """Compute x log(x / c) − x + c as x (u − log(1 + u)), u = (c − x) / x, which keeps its digits where x is near c."""
    positive = np.where(x > 0.0, x, 1.0)
    u = (c - positive) / positive
    # For u near −1 the quotient has lost digits that the difference of logarithms keeps.
    far = np.log(c) - np.log(positive)
    with np.errstate(divide="ignore"):
        logs = np.where(u < -0.5, far, np.log1p(u))
    return np.where(x > 0.0, np.maximum(positive * (u - logs), 0.0), c)


def _itakura_saito(x: Array, c: Array) -> Array:
    """Compute x / c − log(x / c) − 1 as v − log(1 + v), v = (x − c) / c, which keeps its digits where x is near c."""
    v = (x - c) / c
    far = np.log(x) - np.log(c)
    with np.errstate(divide="ignore"):
        logs = np.where(np.abs(v) > 0.5, far, np.log1p(v))
    divergence: Array = np.maximum(v - logs, 0.0)
    return divergence
